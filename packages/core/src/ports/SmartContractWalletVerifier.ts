/**
 * Who asks the chain whether a smart contract wallet signed.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"

/**
 * The wallet could not be asked, so nothing is known about the signature. Never the answer to an invalid signature.
 *
 * - `NoVerifier`: nobody here can ask this chain
 * - `Unavailable`: the chain or the node did not answer
 *
 * @since 1.0.0
 * @category errors
 */
export class SmartContractWalletVerifierError extends Schema.TaggedError<SmartContractWalletVerifierError>(
  "@keyward/core/SmartContractWalletVerifierError"
)("SmartContractWalletVerifierError", {
  reason: Schema.Literal("NoVerifier", "Unavailable"),
  /** The CAIP-2 chain that was to be asked. */
  chainId: Schema.String,
  cause: Schema.optional(Schema.Defect)
}) {
  override get message(): string {
    return this.reason === "NoVerifier"
      ? `no smart contract wallet verifier for ${this.chainId}`
      : `the smart contract wallet verifier for ${this.chainId} did not answer`
  }
  /** Asking again, later or with another verifier, may help; so does libxmtp (`scw_verifier/mod.rs`). */
  get isRetryable(): boolean {
    return true
  }
}

/**
 * One signature to ask about.
 *
 * @since 1.0.0
 * @category models
 */
export interface SmartContractWalletQuestion {
  /** CAIP-2, as the update names it: `eip155:1`, or any other text of that form. */
  readonly chainId: string
  /** The account on that chain, as the update spells it. */
  readonly address: string
  /** The EIP-191 hash of the signed text, 32 bytes. */
  readonly hash: Uint8Array
  readonly signature: Uint8Array
  /** The block to judge at. */
  readonly blockNumber: bigint
}

/**
 * Asks the wallet contract (ERC-1271, before deployment ERC-6492).
 *
 * @since 1.0.0
 * @category tags
 */
export class SmartContractWalletVerifier extends Context.Tag("@keyward/core/SmartContractWalletVerifier")<
  SmartContractWalletVerifier,
  {
    /** Whether the wallet accepts the signature. A wallet that says no is `false`; one that cannot be asked is an error. */
    readonly isValid: (
      question: SmartContractWalletQuestion
    ) => Effect.Effect<boolean, SmartContractWalletVerifierError>
  }
>() {}

/**
 * Asks nobody. A log with a smart contract wallet's signature then fails with a retryable error, and all others resolve.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerNone: Layer.Layer<SmartContractWalletVerifier> = Layer.succeed(SmartContractWalletVerifier, {
  isValid: ({ chainId }) => Effect.fail(new SmartContractWalletVerifierError({ reason: "NoVerifier", chainId }))
})
