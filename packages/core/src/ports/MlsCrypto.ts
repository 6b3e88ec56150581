/**
 * The cryptography that ciphersuite 0x0003 is made of.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"

/**
 * One signature to verify.
 *
 * @since 1.0.0
 * @category models
 */
export interface Ed25519Signature {
  readonly publicKey: Uint8Array
  readonly message: Uint8Array
  readonly signature: Uint8Array
}

/**
 * What MLS needs of `MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519`. Every function but
 * `ed25519VerifyStrictAll` is synchronous. None takes randomness of its own (key material comes from `Entropy`), and all take
 * private keys only as `Redacted`.
 *
 * A private key of the wrong length is a defect: lengths are checked where keys enter.
 *
 * @since 1.0.0
 * @category models
 */
export interface MlsCryptoShape {
  /** The Ed25519 public key (32 bytes) of a seed (32 bytes). */
  readonly ed25519PublicKey: (seed: Redacted.Redacted<Uint8Array>) => Uint8Array
  /** The Ed25519 signature (64 bytes, RFC 8032) of a message. */
  readonly ed25519Sign: (seed: Redacted.Redacted<Uint8Array>, message: Uint8Array) => Uint8Array
  /**
   * Whether the signature is one, by the rule of ed25519-dalek's `verify_strict`, which libxmtp uses: no small-order
   * public key or R, canonical s and R, no cofactor. Keys and signatures of a wrong length are no defect, just invalid.
   */
  readonly ed25519VerifyStrict: (publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array) => boolean
  /**
   * `ed25519VerifyStrict` of each, in order, on several cores where there are some; other fibers and sockets come between. For
   * many signatures: for one or two the way there and back costs more than it saves.
   */
  readonly ed25519VerifyStrictAll: (
    signatures: ReadonlyArray<Ed25519Signature>
  ) => Effect.Effect<ReadonlyArray<boolean>>
  /** The X25519 public key (32 bytes, RFC 7748) of 32 private bytes. */
  readonly x25519PublicKey: (privateKey: Redacted.Redacted<Uint8Array>) => Uint8Array
  /** The X25519 shared secret (32 bytes). None if the public key is no 32-byte key or leads to zero. */
  readonly x25519: (privateKey: Redacted.Redacted<Uint8Array>, publicKey: Uint8Array) => Option.Option<Uint8Array>
  /** SHA-256, 32 bytes. */
  readonly sha256: (data: Uint8Array) => Uint8Array
  /** HMAC-SHA-256, 32 bytes. */
  readonly hmacSha256: (key: Uint8Array, data: Uint8Array) => Uint8Array
  /** ChaCha20-Poly1305 (RFC 8439): ciphertext and 16-byte tag. Key 32 bytes, nonce 12. */
  readonly aeadSeal: (key: Uint8Array, nonce: Uint8Array, aad: Uint8Array, plaintext: Uint8Array) => Uint8Array
  /** The plaintext, or none if the tag does not fit. */
  readonly aeadOpen: (
    key: Uint8Array,
    nonce: Uint8Array,
    aad: Uint8Array,
    ciphertext: Uint8Array
  ) => Option.Option<Uint8Array>
}

/**
 * The provider of `MlsCryptoShape`. The one for Node is `crypto/NodeMlsCrypto`.
 *
 * @since 1.0.0
 * @category tags
 */
export class MlsCrypto extends Context.Tag("@keyward/core/MlsCrypto")<MlsCrypto, MlsCryptoShape>() {}
