/**
 * How private keys are protected at rest.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"

/**
 * A secret that cannot be read without its sealing key.
 *
 * @since 1.0.0
 * @category models
 */
export class Sealed extends Schema.Class<Sealed>("@keyward/core/Sealed")({
  /** Which sealing key sealed it, so that keys can be rotated. */
  keyId: Schema.NonEmptyString,
  /** Nonce, ciphertext and tag, as the sealer lays them out. */
  bytes: Schema.Uint8ArrayFromSelf
}) {}

/**
 * Sealing or unsealing failed. Never carries bytes.
 *
 * - `UnknownKey`: sealed under a key id that this sealer was not given
 * - `WrongKey`: the key or the associated data does not fit, or the bytes were changed
 *
 * @since 1.0.0
 * @category errors
 */
export class SealError extends Schema.TaggedError<SealError>("@keyward/core/SealError")("SealError", {
  reason: Schema.Literal("UnknownKey", "WrongKey"),
  keyId: Schema.String
}) {
  override get message(): string {
    return this.reason === "UnknownKey"
      ? `sealed under key "${this.keyId}", which is not configured`
      : `cannot be opened with key "${this.keyId}": wrong key, or the row was changed`
  }
}

/**
 * Seals the private keys before they reach a database. The associated data is the identity of the row, so that a
 * sealed key cannot be moved to another row.
 *
 * @since 1.0.0
 * @category tags
 */
export class KeySealer extends Context.Tag("@keyward/core/KeySealer")<
  KeySealer,
  {
    /** The id of the key that seals now. */
    readonly keyId: string
    readonly seal: (secret: Redacted.Redacted<Uint8Array>, associatedData: Uint8Array) => Effect.Effect<Sealed>
    readonly unseal: (
      sealed: Sealed,
      associatedData: Uint8Array
    ) => Effect.Effect<Redacted.Redacted<Uint8Array>, SealError>
  }
>() {}
