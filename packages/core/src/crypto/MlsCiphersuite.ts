/**
 * Ciphersuite 0x0003 as ts-mls wants it, on top of `MlsCrypto` and `Entropy`.
 *
 * ts-mls's own backend imports a DER key for every signature and makes X25519 keys through WebCrypto; this one makes
 * key package generation more than ten times faster, and its randomness comes from `Entropy` alone.
 *
 * @since 1.0.0
 */
import type * as Context from "effect/Context"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { type CiphersuiteImpl, CryptoError, type PrivateKey, type PublicKey } from "ts-mls"
import { CIPHER_SUITE } from "../keypackage/Profile.ts"
import type { Entropy } from "../ports/Entropy.ts"
import type { MlsCryptoShape } from "../ports/MlsCrypto.ts"
import * as Hpke from "./Hpke.ts"

const EMPTY = new Uint8Array(0)

/** ts-mls passes KEM keys around as `CryptoKey`s and never looks inside: this one holds the raw bytes. */
class HpkePublicKey implements CryptoKey {
  readonly type = "public"
  readonly algorithm = { name: "X25519" }
  readonly extractable = true
  readonly usages: Array<KeyUsage> = []
  readonly bytes: Uint8Array
  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }
}

class HpkePrivateKey implements CryptoKey {
  readonly type = "private"
  readonly algorithm = { name: "X25519" }
  readonly extractable = true
  readonly usages: Array<KeyUsage> = []
  readonly bytes: Redacted.Redacted<Uint8Array>
  constructor(bytes: Redacted.Redacted<Uint8Array>) {
    this.bytes = bytes
  }
}

const publicBytes = (key: PublicKey): Uint8Array => {
  if (key instanceof HpkePublicKey) return key.bytes
  throw new CryptoError("a public key of another provider")
}

const privateBytes = (key: PrivateKey): Redacted.Redacted<Uint8Array> => {
  if (key instanceof HpkePrivateKey) return key.bytes
  throw new CryptoError("a private key of another provider")
}

const orThrow = <A>(option: Option.Option<A>, what: string): A => {
  if (Option.isSome(option)) return option.value
  throw new CryptoError(what)
}

const equal = (left: Uint8Array, right: Uint8Array): boolean => {
  if (left.length !== right.length) return false
  let difference = 0
  for (let i = 0; i < left.length; i++) difference |= (left[i] ?? 0) ^ (right[i] ?? 0)
  return difference === 0
}

/**
 * A public KEM key in the form that ts-mls passes around.
 *
 * @since 1.0.0
 * @category constructors
 */
export const publicKey = (bytes: Uint8Array): PublicKey => new HpkePublicKey(bytes)

/**
 * A private KEM key in the form that ts-mls passes around.
 *
 * @since 1.0.0
 * @category constructors
 */
export const privateKey = (bytes: Redacted.Redacted<Uint8Array>): PrivateKey => new HpkePrivateKey(bytes)

/**
 * The suite. Its functions answer at once; only their types are promises. They reject with ts-mls's `CryptoError`.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (crypto: MlsCryptoShape, entropy: Context.Tag.Service<Entropy>): CiphersuiteImpl => {
  const keyPair = (secret: Redacted.Redacted<Uint8Array>) => ({
    privateKey: privateKey(secret),
    publicKey: publicKey(crypto.x25519PublicKey(secret))
  })
  const sender = (recipient: PublicKey, info: Uint8Array) => {
    const { enc, sharedSecret } = orThrow(
      Hpke.encapsulate(crypto, publicBytes(recipient), Redacted.make(entropy.randomBytes(32))),
      "not an X25519 public key"
    )
    return { enc, context: Hpke.context(crypto, Hpke.KemId.dhkemX25519, sharedSecret, info) }
  }
  const receiver = (recipient: PrivateKey, enc: Uint8Array, info: Uint8Array) =>
    Hpke.context(
      crypto,
      Hpke.KemId.dhkemX25519,
      orThrow(Hpke.decapsulate(crypto, privateBytes(recipient), enc), "not an X25519 public key"),
      info
    )

  return {
    id: CIPHER_SUITE,
    rng: { randomBytes: (length) => entropy.randomBytes(length) },
    hash: {
      digest: async (data) => crypto.sha256(data),
      mac: async (key, data) => crypto.hmacSha256(key, data),
      verifyMac: async (key, mac, data) => equal(crypto.hmacSha256(key, data), mac)
    },
    kdf: {
      size: 32,
      extract: async (salt, key) => crypto.hmacSha256(salt, key),
      expand: async (key, info, length) => Hpke.hkdfExpand(crypto, key, info, length)
    },
    signature: {
      sign: async (seed, message) => crypto.ed25519Sign(Redacted.make(seed), message),
      verify: async (key, message, signature) => crypto.ed25519VerifyStrict(key, message, signature),
      keygen: async () => {
        const signKey = entropy.randomBytes(32)
        return { signKey, publicKey: crypto.ed25519PublicKey(Redacted.make(signKey)) }
      }
    },
    hpke: {
      keyLength: 32,
      nonceLength: 12,
      generateKeyPair: async () => keyPair(Redacted.make(entropy.randomBytes(32))),
      deriveKeyPair: async (keyMaterial) => keyPair(Hpke.derivePrivateKey(crypto, keyMaterial)),
      importPublicKey: async (bytes) => publicKey(bytes),
      importPrivateKey: async (bytes) => privateKey(Redacted.make(bytes)),
      exportPublicKey: async (key) => publicBytes(key),
      exportPrivateKey: async (key) => Redacted.value(privateBytes(key)),
      encryptAead: async (key, nonce, aad, plaintext) => crypto.aeadSeal(key, nonce, aad ?? EMPTY, plaintext),
      decryptAead: async (key, nonce, aad, ciphertext) =>
        orThrow(crypto.aeadOpen(key, nonce, aad ?? EMPTY, ciphertext), "the tag does not fit"),
      seal: async (recipient, plaintext, info, aad) => {
        const { context, enc } = sender(recipient, info)
        return { enc, ct: context.seal(aad ?? EMPTY, plaintext) }
      },
      open: async (recipient, enc, ciphertext, info, aad) =>
        orThrow(receiver(recipient, enc, info).open(aad ?? EMPTY, ciphertext), "the tag does not fit"),
      exportSecret: async (recipient, exporterContext, length, info) => {
        const { context, enc } = sender(recipient, info)
        return { enc, secret: context.exportSecret(exporterContext, length) }
      },
      importSecret: async (recipient, exporterContext, enc, length, info) =>
        receiver(recipient, enc, info).exportSecret(exporterContext, length)
    }
  }
}
