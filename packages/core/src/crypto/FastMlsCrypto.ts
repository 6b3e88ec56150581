/**
 * The cryptography of ciphersuite 0x0003 with signing and key derivation by libsodium, twice as fast as OpenSSL.
 *
 * Signatures and public keys are determined by their inputs, so the bytes are the same. Verification stays with OpenSSL:
 * recent libsodium verifies with the cofactor, which accepts signatures that libxmtp refuses.
 *
 * sodium-native is an optional dependency: where it is missing or does not load, OpenSSL does everything.
 *
 * @since 1.0.0
 */
import { createRequire } from "node:module"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { equal } from "../internal/equal.ts"
import { MlsCrypto, type MlsCryptoShape } from "../ports/MlsCrypto.ts"
import * as NodeMlsCrypto from "./NodeMlsCrypto.ts"

/** The three functions of sodium-native that are used. */
interface Sodium {
  readonly crypto_sign_seed_keypair: (publicKey: Uint8Array, secretKey: Uint8Array, seed: Uint8Array) => void
  readonly crypto_sign_detached: (signature: Uint8Array, message: Uint8Array, secretKey: Uint8Array) => void
  readonly crypto_scalarmult_base: (publicKey: Uint8Array, privateKey: Uint8Array) => void
}

const loadSodium = Effect.try((): Sodium => createRequire(import.meta.url)("sodium-native"))

const withSodium = (sodium: Sodium, openssl: MlsCryptoShape): MlsCryptoShape => {
  interface SigningKey {
    /** Seed and public key, as libsodium keeps a signing key. */
    readonly secretKey: Uint8Array
    readonly publicKey: Uint8Array
  }
  const signingKeys = new WeakMap<Redacted.Redacted<Uint8Array>, SigningKey>()

  const signingKey = (seed: Redacted.Redacted<Uint8Array>): SigningKey => {
    // Read first: a seed that was wiped must not go on signing.
    const bytes = Redacted.value(seed)
    const known = signingKeys.get(seed)
    if (known !== undefined) return known
    const fresh = { secretKey: new Uint8Array(64), publicKey: new Uint8Array(32) }
    sodium.crypto_sign_seed_keypair(fresh.publicKey, fresh.secretKey, bytes)
    signingKeys.set(seed, fresh)
    return fresh
  }

  return {
    ...openssl,
    ed25519PublicKey: (seed) => signingKey(seed).publicKey.slice(),
    ed25519Sign: (seed, message) => {
      const signature = new Uint8Array(64)
      sodium.crypto_sign_detached(signature, message, signingKey(seed).secretKey)
      return signature
    },
    x25519PublicKey: (privateKey) => {
      const publicKey = new Uint8Array(32)
      sodium.crypto_scalarmult_base(publicKey, Redacted.value(privateKey))
      return publicKey
    }
  }
}

/** Whether two providers answer alike. An addon that was built wrongly must not sign. */
const agree = (one: MlsCryptoShape, other: MlsCryptoShape): boolean => {
  const key = Redacted.make(Uint8Array.from({ length: 32 }, (_, i) => i))
  const message = Uint8Array.of(1, 2, 3)
  return (
    equal(one.ed25519PublicKey(key), other.ed25519PublicKey(key)) &&
    equal(one.ed25519Sign(key, message), other.ed25519Sign(key, message)) &&
    equal(one.x25519PublicKey(key), other.x25519PublicKey(key))
  )
}

/**
 * Loads libsodium and checks its answers against OpenSSL's; without it, or if they differ, gives OpenSSL alone.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make: Effect.Effect<MlsCryptoShape> = Effect.gen(function* () {
  const openssl = NodeMlsCrypto.make()
  return yield* loadSodium.pipe(
    Effect.map((sodium) => withSodium(sodium, openssl)),
    Effect.filterOrFail(
      (fast) => agree(fast, openssl),
      () => "libsodium answers differently from OpenSSL"
    ),
    // No failure: OpenSSL stands in. The log line is for who wonders about speed.
    Effect.catchAll((cause) =>
      Effect.as(Effect.logDebug("sodium-native is not used; OpenSSL stands in", cause), openssl)
    )
  )
})

/**
 * `MlsCrypto` on Node, as fast as this machine allows.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<MlsCrypto> = Layer.effect(MlsCrypto, make)
