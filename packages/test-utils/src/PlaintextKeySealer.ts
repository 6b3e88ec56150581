/**
 * A sealer that seals nothing, for tests that look into a database. Never for real keys.
 *
 * @since 1.0.0
 */
import { KeySealer, SealError, Sealed } from "@keyward/core/ports/KeySealer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"

/** What every plaintext row names as its key. */
const KEY_ID = "plaintext"

/** The associated data's length (4 bytes, big-endian), the associated data, the secret. */
const join = (associatedData: Uint8Array, secret: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(4 + associatedData.length + secret.length)
  new DataView(bytes.buffer).setUint32(0, associatedData.length)
  bytes.set(associatedData, 4)
  bytes.set(secret, 4 + associatedData.length)
  return bytes
}

/**
 * Keeps secrets readable, yet opens them only with the associated data that they were sealed with, as a real sealer does.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<KeySealer> = Layer.succeed(KeySealer, {
  keyId: KEY_ID,
  seal: (secret, associatedData) =>
    Effect.sync(() => new Sealed({ keyId: KEY_ID, bytes: join(associatedData, Redacted.value(secret)) })),
  unseal: ({ keyId, bytes }, associatedData) => {
    if (keyId !== KEY_ID) return new SealError({ reason: "UnknownKey", keyId })
    const head = join(associatedData, new Uint8Array())
    return bytes.length >= head.length && head.every((byte, index) => byte === bytes[index])
      ? Effect.succeed(Redacted.make(bytes.slice(head.length)))
      : new SealError({ reason: "WrongKey", keyId })
  }
})
