/**
 * The post-quantum key encapsulation that protects Welcomes.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import type * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"

/**
 * X-Wing (draft-connolly-cfrg-xwing-kem-06): ML-KEM-768 and X25519 in one, secure while either is. Synchronous and
 * deterministic: seeds come from `Entropy`.
 *
 * A seed of the wrong length is a defect: lengths are checked where keys enter.
 *
 * @since 1.0.0
 * @category models
 */
export interface PostQuantumKemShape {
  /** The public key (1216 bytes) of a seed (32 bytes), which is the private key. */
  readonly publicKey: (seed: Redacted.Redacted<Uint8Array>) => Uint8Array
  /**
   * A fresh secret for the owner of a public key. None if the public key is not one.
   *
   * @param randomness 64 fresh bytes
   */
  readonly encapsulate: (
    publicKey: Uint8Array,
    randomness: Redacted.Redacted<Uint8Array>
  ) => Option.Option<{
    /** 1120 bytes, to be sent. */
    readonly ciphertext: Uint8Array
    /** 32 bytes. */
    readonly sharedSecret: Redacted.Redacted<Uint8Array>
  }>
  /**
   * The secret (32 bytes) that a ciphertext carries. A wrong ciphertext of the right length gives some other secret
   * (implicit rejection), which shows only when it is used. None if the length is wrong.
   */
  readonly decapsulate: (
    seed: Redacted.Redacted<Uint8Array>,
    ciphertext: Uint8Array
  ) => Option.Option<Redacted.Redacted<Uint8Array>>
}

/**
 * The provider of `PostQuantumKemShape`. The one for Node is `postquantum/XWing`.
 *
 * @since 1.0.0
 * @category tags
 */
export class PostQuantumKem extends Context.Tag("@keyward/core/PostQuantumKem")<
  PostQuantumKem,
  PostQuantumKemShape
>() {}
