/**
 * The wallet that owns an inbox.
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
 * Signs the text of an identity update as EIP-191 personal message. The app brings it: a viem account, a browser wallet,
 * a hardware wallet.
 *
 * @since 1.0.0
 * @category tags
 */
export class Signer extends Context.Tag("@keyward/core/Signer")<
  Signer,
  {
    /** Who signs. */
    readonly identifier: Identifier
    /** The EIP-191 signature of the UTF-8 text: r (32 bytes), s (32 bytes), v (1 byte). */
    readonly signText: (text: string) => Effect.Effect<Uint8Array, SignerError>
  }
>() {}
