/**
 * A wallet or a passkey that owns an inbox, or is about to become a member of one.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Identifier } from "../identity/Identifier.ts"

/**
 * The wallet or passkey did not sign.
 *
 * - `Refused`: the user or a policy said no; ask again only when they ask
 * - `Unavailable`: it could not be reached; trying again may help
 *
 * @since 1.0.0
 * @category errors
 */
export class SignerError extends Schema.TaggedError<SignerError>("@keyward/core/SignerError")("SignerError", {
  reason: Schema.Literal("Refused", "Unavailable"),
  cause: Schema.optional(Schema.Defect)
}) {
  override get message(): string {
    return this.reason === "Refused" ? "the signer refused to sign" : "the signer could not be reached"
  }
  get isRetryable(): boolean {
    return this.reason === "Unavailable"
  }
}

/**
 * Where a smart contract wallet lives. Its signature is judged by the wallet's contract, as it is at one block.
 *
 * @since 1.0.0
 * @category models
 */
export interface SmartContractWalletLocation {
  /** The EVM chain: 1 is Ethereum, 8453 Base. Unsigned 64-bit. A member's chain may never change. */
  readonly chainId: bigint
  /** The block to judge the signature at, asked for after the wallet has signed: the newest one is what is wanted. */
  readonly blockNumber: Effect.Effect<bigint, SignerError>
}

/**
 * A wallet: a viem account, a browser wallet, a hardware wallet, a smart contract wallet. It signs the text of an identity
 * update as EIP-191 personal message.
 *
 * @since 1.0.0
 * @category models
 */
export interface WalletSigner {
  /** Who signs. */
  readonly identifier: Identifier
  /**
   * The EIP-191 signature of the UTF-8 text: r (32 bytes), s (32 bytes), v (1 byte). Of a smart contract wallet, whatever
   * its contract takes (ERC-1271, or ERC-6492 before it is deployed).
   */
  readonly signText: (text: string) => Effect.Effect<Uint8Array, SignerError>
  /** Given where the identifier is the address of a smart contract wallet. */
  readonly smartContractWallet?: SmartContractWalletLocation | undefined
}

/**
 * What an authenticator answers, as WebAuthn's `AuthenticatorAssertionResponse` has it.
 *
 * @since 1.0.0
 * @category models
 */
export interface PasskeyAssertion {
  /** ECDSA on P-256 with SHA-256 over authenticator data and hash of the client data, DER. */
  readonly signature: Uint8Array
  readonly authenticatorData: Uint8Array
  /** The UTF-8 JSON exactly as it was signed. */
  readonly clientDataJson: Uint8Array
}

/**
 * A passkey. It does not sign the text, but answers a challenge that the text is.
 *
 * @since 1.0.0
 * @category models
 */
export interface PasskeySigner {
  /** The public key as its inbox knows it: two encodings of one key are two identifiers. */
  readonly identifier: Extract<Identifier, { readonly _tag: "Passkey" }>
  /**
   * Asks the authenticator: in a browser, `navigator.credentials.get({ publicKey: { challenge } })`. The challenge is the
   * whole text in UTF-8, some hundred bytes.
   */
  readonly assert: (challenge: Uint8Array) => Effect.Effect<PasskeyAssertion, SignerError>
}

/**
 * Signs identity updates. The app brings it: a wallet or a passkey.
 *
 * @since 1.0.0
 * @category tags
 */
export class Signer extends Context.Tag("@keyward/core/Signer")<Signer, WalletSigner | PasskeySigner>() {}
