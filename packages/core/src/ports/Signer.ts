/**
 * A wallet that owns an inbox, or is about to become a member of one.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type { Identifier } from "../identity/Identifier.ts"

/**
 * The wallet did not sign.
 *
 * - `Refused`: the user or a policy said no; ask again only when they ask
 * - `Unavailable`: the wallet could not be reached; trying again may help
 *
 * @since 1.0.0
 * @category errors
 */
export class SignerError extends Schema.TaggedError<SignerError>("@keyward/core/SignerError")("SignerError", {
  reason: Schema.Literal("Refused", "Unavailable"),
  cause: Schema.optional(Schema.Defect)
}) {
  override get message(): string {
    return this.reason === "Refused" ? "the wallet refused to sign" : "the wallet could not be reached"
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
 * Signs the text of an identity update as EIP-191 personal message. The app brings it: a viem account, a browser wallet,
 * a hardware wallet, a smart contract wallet.
 *
 * @since 1.0.0
 * @category tags
 */
export class Signer extends Context.Tag("@keyward/core/Signer")<
  Signer,
  {
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
>() {}
