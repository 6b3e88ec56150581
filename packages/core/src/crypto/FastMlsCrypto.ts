/**
 * The cryptography of ciphersuite 0x0003 with signatures and key derivation by libsodium, twice as fast as OpenSSL.
 *
 * Signatures and public keys are determined by their inputs, so the bytes are the same. What libsodium verifies is what
 * ed25519-dalek's `verify_strict` does, but for spellings that are not canonical, which it refuses: whatever it refuses is
 * OpenSSL's to judge. A libsodium that verifies with the cofactor, as its development branch does, would accept signatures that
 * libxmtp refuses; it is recognised by two such signatures when it is loaded, and does not verify.
 *
 * sodium-native is an optional dependency: where it is missing or does not load, OpenSSL does everything.
 *
 * @since 1.0.0
 */
import { createRequire } from "node:module"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { equal } from "../internal/equal.ts"
import * as hex from "../internal/hex.ts"
import * as signaturePool from "../internal/signaturePool.ts"
import * as threads from "../internal/threads.ts"
import { type Ed25519Signature, MlsCrypto, type MlsCryptoShape } from "../ports/MlsCrypto.ts"
import * as NodeMlsCrypto from "./NodeMlsCrypto.ts"

/**
 * The functions of sodium-native that are used.
 *
 * @since 1.0.0
 * @category models
 */
export interface Sodium {
  readonly crypto_sign_seed_keypair: (publicKey: Uint8Array, secretKey: Uint8Array, seed: Uint8Array) => void
  readonly crypto_sign_detached: (signature: Uint8Array, message: Uint8Array, secretKey: Uint8Array) => void
  readonly crypto_sign_verify_detached: (signature: Uint8Array, message: Uint8Array, publicKey: Uint8Array) => boolean
  readonly crypto_scalarmult_base: (publicKey: Uint8Array, privateKey: Uint8Array) => void
}

const loadSodium = Effect.try((): Sodium => createRequire(import.meta.url)("sodium-native"))

/** Signatures of this message that are valid with the cofactor only: the one's R and the other's key have a part of order 8. */
const COFACTORED = {
  message: Uint8Array.from("no cofactor", (character) => character.charCodeAt(0)),
  signatures: [
    {
      publicKey: "b862409fb5c4c4123df2abf7462b88f041ad36dd6864ce872fd5472be363c5b1",
      signature:
        "5b94d525f09dbb3f8bec71da454b8a76c21f9edc1a6b2c8a2650090c0c6a2bd65b3728d4c374425ede61d37d201bd0fc42998bf3474c09a8ae1f6d667b80f40a"
    },
    {
      publicKey: "16b981d0b88cdf3ab9fa87190822fe4905b475efda3aec7c34abfa92c19320f4",
      signature:
        "1337036ac32d8f30d4589c3c1c595812ce0fff40e37c6f5a97ab213f318290ad74006a210c330e0cfd52a5f22eab0d698f3a8685e919fb80bf96b41deb30b102"
    }
  ]
}

/** Whether what libsodium accepts is what `verify_strict` accepts. */
const isStrict = (sodium: Sodium): boolean =>
  COFACTORED.signatures.every(
    ({ publicKey, signature }) =>
      !sodium.crypto_sign_verify_detached(hex.decode(signature), COFACTORED.message, hex.decode(publicKey))
  )

/** Verification by libsodium, where it can be relied on; threads help where the signatures are many. */
const verifying = (
  sodium: Sodium,
  openssl: MlsCryptoShape,
  workers: number
): Effect.Effect<Pick<MlsCryptoShape, "ed25519VerifyStrict" | "ed25519VerifyStrictAll">, never, Scope.Scope> => {
  if (!isStrict(sodium)) return Effect.succeed(openssl)
  const isValid = ({ message, publicKey, signature }: Ed25519Signature): boolean =>
    (publicKey.length === 32 &&
      signature.length === 64 &&
      sodium.crypto_sign_verify_detached(signature, message, publicKey)) ||
    openssl.ed25519VerifyStrict(publicKey, message, signature)
  return Effect.map(signaturePool.make(isValid, workers), (ed25519VerifyStrictAll) => ({
    ed25519VerifyStrict: (publicKey, message, signature) => isValid({ publicKey, message, signature }),
    ed25519VerifyStrictAll
  }))
}

const signing = (sodium: Sodium): Pick<MlsCryptoShape, "ed25519PublicKey" | "ed25519Sign" | "x25519PublicKey"> => {
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
 * How the cryptography works.
 *
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /**
   * Threads that help where many signatures are verified at once; one less than the processors that there are, and at most 3,
   * unless given. With 0 everything is done on the calling thread. None is started before there has been much to do, and none
   * keeps the process alive.
   */
  readonly workers?: number | undefined
}

/**
 * With this libsodium, if its answers are OpenSSL's; otherwise gives OpenSSL alone. The threads end with the scope.
 *
 * @since 1.0.0
 * @category constructors
 */
export const makeWith = (
  sodium: Sodium,
  { workers = threads.defaultCount() }: Options = {}
): Effect.Effect<MlsCryptoShape, never, Scope.Scope> =>
  Effect.gen(function* () {
    const openssl = NodeMlsCrypto.make()
    const fast = { ...openssl, ...signing(sodium) }
    if (!agree(fast, openssl)) {
      yield* Effect.logWarning("libsodium answers differently from OpenSSL, which stands in")
      return openssl
    }
    return { ...fast, ...(yield* verifying(sodium, openssl, workers)) }
  })

/**
 * Loads libsodium; without it, gives OpenSSL alone. The threads end with the scope.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (options: Options = {}): Effect.Effect<MlsCryptoShape, never, Scope.Scope> =>
  Effect.matchEffect(loadSodium, {
    // No failure: OpenSSL stands in. The log line is for who wonders about speed.
    onFailure: (cause) =>
      Effect.as(Effect.logDebug("sodium-native is not used; OpenSSL stands in", cause), NodeMlsCrypto.make()),
    onSuccess: (sodium) => makeWith(sodium, options)
  })

/**
 * `MlsCrypto` on Node, as fast as this machine allows.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<MlsCrypto> => Layer.scoped(MlsCrypto, make(options))
