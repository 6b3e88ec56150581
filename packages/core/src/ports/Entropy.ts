/**
 * Where key material comes from.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"

/**
 * The source of all key material. It is not Effect's `Random`, which is predictable by design.
 *
 * @since 1.0.0
 * @category tags
 */
export class Entropy extends Context.Tag("@keyward/core/Entropy")<
  Entropy,
  {
    /** This many fresh, uniformly random bytes. A source that cannot deliver throws, which is a defect. */
    readonly randomBytes: (length: number) => Uint8Array
  }
>() {}

/**
 * The platform's cryptographic generator (`crypto.getRandomValues`).
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<Entropy> = Layer.succeed(Entropy, {
  randomBytes: (length) => globalThis.crypto.getRandomValues(new Uint8Array(length))
})
