/**
 * X-Wing (draft-connolly-cfrg-xwing-kem-06): the KEM whose public key a post-quantum key package carries.
 *
 * ML-KEM-768 is `@noble/post-quantum`'s. The parts around it, X25519 and the SHA-3 family, are OpenSSL's where Node has
 * them: the same bytes in two thirds of the time. `makePortable` is noble throughout, and the reference of the tests.
 *
 * @since 1.0.0
 */
import { createHash, getHashes } from "node:crypto"
import { ml_kem768_x25519 } from "@noble/post-quantum/hybrid.js"
import { ml_kem768 } from "@noble/post-quantum/ml-kem.js"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as NodeMlsCrypto from "../crypto/NodeMlsCrypto.ts"
import type { MlsCryptoShape } from "../ports/MlsCrypto.ts"
import { PostQuantumKem, type PostQuantumKemShape } from "../ports/PostQuantumKem.ts"

/**
 * Bytes of a public key: ML-KEM-768's 1184 and X25519's 32.
 *
 * @since 1.0.0
 * @category constants
 */
export const PUBLIC_KEY_BYTES = 1216

/**
 * Bytes of a seed, which is the private key.
 *
 * @since 1.0.0
 * @category constants
 */
export const SEED_BYTES = 32

/**
 * Bytes of a ciphertext: ML-KEM-768's 1088 and X25519's 32.
 *
 * @since 1.0.0
 * @category constants
 */
export const CIPHERTEXT_BYTES = 1120

/**
 * Bytes of randomness that an encapsulation takes.
 *
 * @since 1.0.0
 * @category constants
 */
export const ENCAPSULATION_SEED_BYTES = 64

const ML_KEM_PUBLIC_KEY_BYTES = 1184
const ML_KEM_CIPHERTEXT_BYTES = 1088

/** `\.//^\`, the label of the combiner. */
const LABEL = Uint8Array.of(0x5c, 0x2e, 0x2f, 0x2f, 0x5e, 0x5c)

const seedBytes = (seed: Redacted.Redacted<Uint8Array>, length: number): Uint8Array => {
  const bytes = Redacted.value(seed)
  if (bytes.length !== length) throw new RangeError(`an X-Wing seed has ${length} bytes`)
  return bytes
}

const concat = (left: Uint8Array, right: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(left.length + right.length)
  bytes.set(left)
  bytes.set(right, left.length)
  return bytes
}

/** Runs with private bytes and wipes them afterwards. */
const wiping = <A>(secret: Uint8Array, use: (secret: Uint8Array) => A): A => {
  try {
    return use(secret)
  } finally {
    secret.fill(0)
  }
}

/** A private key in the form in which it is used. */
interface Expanded {
  readonly x25519PrivateKey: Redacted.Redacted<Uint8Array>
  readonly x25519PublicKey: Uint8Array
  /** ML-KEM decapsulation. */
  readonly mlKem: (ciphertext: Uint8Array) => Uint8Array
}

/**
 * X-Wing with OpenSSL's X25519, SHAKE256 and SHA3-256. Needs a Node whose OpenSSL has SHAKE256.
 *
 * Expanding a seed is two thirds of a decapsulation. A seed that is used once is expanded and wiped; what a seed expands to
 * that is used again is kept as long as the `Redacted` that it came in.
 *
 * @since 1.0.0
 * @category constructors
 */
export const makeNative = (crypto: Pick<MlsCryptoShape, "x25519" | "x25519PublicKey">): PostQuantumKemShape => {
  /** The 64-byte seed of the ML-KEM key and the X25519 private key (draft section 5.2, `expandDecapsulationKey`). */
  const expand = (seed: Redacted.Redacted<Uint8Array>): Uint8Array =>
    createHash("shake256", { outputLength: 96 }).update(seedBytes(seed, SEED_BYTES)).digest()

  /** Used before: once, or more often. */
  const used = new WeakMap<Redacted.Redacted<Uint8Array>, Expanded | "Once">()

  /** The key of a seed, and how to forget it after use. */
  const keyOf = (seed: Redacted.Redacted<Uint8Array>): { readonly key: Expanded; readonly wipe: () => void } => {
    // Read first: a seed that was wiped must not go on opening.
    seedBytes(seed, SEED_BYTES)
    const before = used.get(seed)
    if (before !== undefined && before !== "Once") return { key: before, wipe: () => {} }
    const bytes = expand(seed)
    const { publicKey, secretKey } = ml_kem768.keygen(bytes.subarray(0, 64))
    const x25519PrivateKey = Redacted.make<Uint8Array>(bytes.subarray(64))
    const own = { x25519PrivateKey, x25519PublicKey: crypto.x25519PublicKey(x25519PrivateKey) }
    if (before === undefined) {
      used.set(seed, "Once")
      return {
        key: { ...own, mlKem: (ciphertext) => ml_kem768.decapsulate(ciphertext, secretKey) },
        wipe: () => {
          secretKey.fill(0)
          bytes.fill(0)
        }
      }
    }
    bytes.fill(0, 0, 64)
    const prepared = ml_kem768.prepare(publicKey)
    const key = { ...own, mlKem: (ciphertext: Uint8Array) => prepared.decapsulate(ciphertext, secretKey) }
    used.set(seed, key)
    return { key, wipe: () => {} }
  }

  /** Draft section 5.3. */
  const combine = (
    mlKemSecret: Uint8Array,
    x25519Secret: Uint8Array,
    x25519Ciphertext: Uint8Array,
    x25519PublicKey: Uint8Array
  ): Redacted.Redacted<Uint8Array> =>
    Redacted.make(
      new Uint8Array(
        createHash("sha3-256")
          .update(mlKemSecret)
          .update(x25519Secret)
          .update(x25519Ciphertext)
          .update(x25519PublicKey)
          .update(LABEL)
          .digest()
      )
    )

  return {
    publicKey: (seed) =>
      wiping(expand(seed), (expanded) => {
        const mlKem = ml_kem768.keygen(expanded.subarray(0, 64))
        mlKem.secretKey.fill(0)
        return concat(mlKem.publicKey, crypto.x25519PublicKey(Redacted.make(expanded.subarray(64))))
      }),
    encapsulate: (publicKey, randomness) => {
      const random = seedBytes(randomness, ENCAPSULATION_SEED_BYTES)
      if (publicKey.length !== PUBLIC_KEY_BYTES) return Option.none()
      const x25519PublicKey = publicKey.subarray(ML_KEM_PUBLIC_KEY_BYTES)
      const ephemeral = Redacted.make(random.subarray(32))
      const x25519Secret = crypto.x25519(ephemeral, x25519PublicKey)
      if (Option.isNone(x25519Secret)) return Option.none()
      const mlKem = mlKemEncapsulate(publicKey.subarray(0, ML_KEM_PUBLIC_KEY_BYTES), random.subarray(0, 32))
      if (Option.isNone(mlKem)) return Option.none()
      const x25519Ciphertext = crypto.x25519PublicKey(ephemeral)
      return wiping(x25519Secret.value, (x25519Bytes) =>
        wiping(mlKem.value.sharedSecret, (mlKemBytes) =>
          Option.some({
            ciphertext: concat(mlKem.value.cipherText, x25519Ciphertext),
            sharedSecret: combine(mlKemBytes, x25519Bytes, x25519Ciphertext, x25519PublicKey)
          })
        )
      )
    },
    decapsulate: (seed, ciphertext) => {
      if (ciphertext.length !== CIPHERTEXT_BYTES) return Option.none()
      const { key, wipe } = keyOf(seed)
      try {
        const x25519Ciphertext = ciphertext.subarray(ML_KEM_CIPHERTEXT_BYTES)
        return Option.map(crypto.x25519(key.x25519PrivateKey, x25519Ciphertext), (x25519Secret) =>
          wiping(x25519Secret, (x25519Bytes) =>
            wiping(key.mlKem(ciphertext.subarray(0, ML_KEM_CIPHERTEXT_BYTES)), (mlKemBytes) =>
              combine(mlKemBytes, x25519Bytes, x25519Ciphertext, key.x25519PublicKey)
            )
          )
        )
      } finally {
        wipe()
      }
    }
  }
}

/** None if the key is not reduced (FIPS 203 section 7.2), which noble reports by throwing. */
const mlKemEncapsulate = Option.liftThrowable((publicKey: Uint8Array, message: Uint8Array) =>
  ml_kem768.encapsulate(publicKey, message)
)

/**
 * X-Wing by noble alone.
 *
 * @since 1.0.0
 * @category constructors
 */
export const makePortable = (): PostQuantumKemShape => {
  // noble throws on a public key or a ciphertext that is none.
  const encapsulate = Option.liftThrowable((publicKey: Uint8Array, random: Uint8Array) =>
    ml_kem768_x25519.encapsulate(publicKey, random)
  )
  const decapsulate = Option.liftThrowable((ciphertext: Uint8Array, seed: Uint8Array) =>
    ml_kem768_x25519.decapsulate(ciphertext, seed)
  )
  return {
    publicKey: (seed) => ml_kem768_x25519.keygen(seedBytes(seed, SEED_BYTES)).publicKey,
    encapsulate: (publicKey, randomness) =>
      Option.map(encapsulate(publicKey, seedBytes(randomness, ENCAPSULATION_SEED_BYTES)), (result) => ({
        ciphertext: result.cipherText,
        sharedSecret: Redacted.make<Uint8Array>(result.sharedSecret)
      })),
    decapsulate: (seed, ciphertext) =>
      Option.map(decapsulate(ciphertext, seedBytes(seed, SEED_BYTES)), (secret) => Redacted.make<Uint8Array>(secret))
  }
}

/**
 * The fastest X-Wing that this Node has.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (): PostQuantumKemShape => {
  const hashes = getHashes()
  return hashes.includes("shake256") && hashes.includes("sha3-256") ? makeNative(NodeMlsCrypto.make()) : makePortable()
}

/**
 * `PostQuantumKem` on Node.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<PostQuantumKem> = Layer.sync(PostQuantumKem, make)
