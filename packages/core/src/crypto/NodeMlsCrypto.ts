/**
 * The cryptography of ciphersuite 0x0003 by `node:crypto` (OpenSSL).
 *
 * @since 1.0.0
 */
import {
  createCipheriv,
  createDecipheriv,
  createHmac,
  createPublicKey,
  diffieHellman,
  hash,
  type KeyObject,
  sign,
  verify
} from "node:crypto"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { type Curve, fastest } from "../internal/nodePrivateKey.ts"
import { type Ed25519Signature, MlsCrypto, type MlsCryptoShape } from "../ports/MlsCrypto.ts"
import { isSmallOrder } from "./SmallOrder.ts"

const base64url = (bytes: Uint8Array): string =>
  Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("base64url")

// Public keys are imported as JWK: DER costs ten times as much on Node 20. No keys are made by `generateKeyPairSync`: an
// `export` of such an object can deadlock with the collection of the job that made it (Node 20).

const publicKeyObject = (crv: Curve, publicKey: Uint8Array): KeyObject =>
  createPublicKey({ key: { kty: "OKP", crv, x: base64url(publicKey) }, format: "jwk" })

/** The public half of a private key, 32 bytes. */
const publicHalf = (privateKey: KeyObject): Uint8Array => {
  const { x } = privateKey.export({ format: "jwk" })
  if (x === undefined) throw new TypeError("the exported key has no public half")
  return new Uint8Array(Buffer.from(x, "base64url"))
}

interface SigningKey {
  readonly key: KeyObject
  readonly publicKey: Uint8Array
}

/** How many verifying keys are kept. Importing one costs a twentieth of a verification. */
const VERIFYING_KEYS = 1024

/**
 * The functions by themselves, for code that is not an Effect. Private keys are kept as long as the `Redacted` they came
 * in, the latest 1024 verifying keys until newer ones push them out.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (): MlsCryptoShape => {
  const importPrivateKey = fastest()
  const signingKeys = new WeakMap<Redacted.Redacted<Uint8Array>, SigningKey>()
  const agreementKeys = new WeakMap<Redacted.Redacted<Uint8Array>, KeyObject>()
  const verifyingKeys = new Map<string, KeyObject>()

  const privateKeyObject = (crv: Curve, privateKey: Uint8Array): KeyObject => {
    if (privateKey.length !== 32) throw new RangeError(`a private key of ${crv} has 32 bytes`)
    return importPrivateKey(crv, privateKey)
  }

  const signingKey = (seed: Redacted.Redacted<Uint8Array>): SigningKey => {
    // Read first: a seed that was wiped must not go on signing.
    const bytes = Redacted.value(seed)
    const known = signingKeys.get(seed)
    if (known !== undefined) return known
    const key = privateKeyObject("Ed25519", bytes)
    const fresh = { key, publicKey: publicHalf(key) }
    signingKeys.set(seed, fresh)
    return fresh
  }

  const agreementKey = (privateKey: Redacted.Redacted<Uint8Array>): KeyObject => {
    const bytes = Redacted.value(privateKey)
    const known = agreementKeys.get(privateKey)
    if (known !== undefined) return known
    const fresh = privateKeyObject("X25519", bytes)
    agreementKeys.set(privateKey, fresh)
    return fresh
  }

  const verifyingKey = (publicKey: Uint8Array): KeyObject => {
    const id = base64url(publicKey)
    const known = verifyingKeys.get(id)
    if (known !== undefined) return known
    const fresh = publicKeyObject("Ed25519", publicKey)
    if (verifyingKeys.size === VERIFYING_KEYS) {
      for (const oldest of verifyingKeys.keys()) {
        verifyingKeys.delete(oldest)
        break
      }
    }
    verifyingKeys.set(id, fresh)
    return fresh
  }

  // OpenSSL refuses an s that is not below the group order and compares R as bytes, without the cofactor: what is left of
  // `verify_strict` is the points of small order.
  const mayVerify = (publicKey: Uint8Array, signature: Uint8Array): boolean =>
    publicKey.length === 32 && signature.length === 64 && !isSmallOrder(publicKey) && !isSmallOrder(signature)

  /** On libuv's thread pool. One callback for all: a fiber for each signature would cost as much as the signature. */
  const verifyOnPool = (signatures: ReadonlyArray<Ed25519Signature>): Effect.Effect<ReadonlyArray<boolean>> =>
    Effect.async((resume) => {
      const verdicts = signatures.map(() => false)
      let waiting = 1
      const end = () => {
        if (--waiting === 0) resume(Effect.succeed(verdicts))
      }
      for (const [index, { message, publicKey, signature }] of signatures.entries()) {
        if (!mayVerify(publicKey, signature)) continue
        waiting++
        verify(null, message, verifyingKey(publicKey), signature, (error, isValid) => {
          // An error is none of the signature's: 32 bytes are always a key, and what is no signature is just not valid.
          if (error !== null) resume(Effect.die(error))
          verdicts[index] = isValid
          end()
        })
      }
      end()
    })

  return {
    ed25519PublicKey: (seed) => signingKey(seed).publicKey.slice(),
    ed25519Sign: (seed, message) => new Uint8Array(sign(null, message, signingKey(seed).key)),
    ed25519VerifyStrict: (publicKey, message, signature) =>
      mayVerify(publicKey, signature) && verify(null, message, verifyingKey(publicKey), signature),
    ed25519VerifyStrictAll: verifyOnPool,
    x25519PublicKey: (privateKey) => publicHalf(agreementKey(privateKey)),
    x25519: (privateKey, publicKey) => {
      if (publicKey.length !== 32) return Option.none()
      const own = agreementKey(privateKey)
      try {
        return Option.some(
          new Uint8Array(diffieHellman({ privateKey: own, publicKey: publicKeyObject("X25519", publicKey) }))
        )
      } catch {
        // OpenSSL refuses a shared secret of zero, which a public key of small order leads to.
        return Option.none()
      }
    },
    sha256: (data) => new Uint8Array(hash("sha256", data, "buffer")),
    hmacSha256: (key, data) => new Uint8Array(createHmac("sha256", key).update(data).digest()),
    aeadSeal: (key, nonce, aad, plaintext) => {
      const cipher = createCipheriv("chacha20-poly1305", key, nonce, { authTagLength: 16 })
      cipher.setAAD(aad, { plaintextLength: plaintext.length })
      const body = cipher.update(plaintext)
      cipher.final()
      const sealed = new Uint8Array(body.length + 16)
      sealed.set(body)
      sealed.set(cipher.getAuthTag(), body.length)
      return sealed
    },
    aeadOpen: (key, nonce, aad, ciphertext) => {
      if (ciphertext.length < 16) return Option.none()
      const bodyLength = ciphertext.length - 16
      const decipher = createDecipheriv("chacha20-poly1305", key, nonce, { authTagLength: 16 })
      decipher.setAAD(aad, { plaintextLength: bodyLength })
      decipher.setAuthTag(ciphertext.subarray(bodyLength))
      const plaintext = decipher.update(ciphertext.subarray(0, bodyLength))
      try {
        decipher.final()
      } catch {
        // The tag does not fit.
        return Option.none()
      }
      return Option.some(new Uint8Array(plaintext))
    }
  }
}

/**
 * `MlsCrypto` on Node.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<MlsCrypto> = Layer.sync(MlsCrypto, make)
