/**
 * HPKE base mode (RFC 9180) with HKDF-SHA-256 and ChaCha20-Poly1305, over whichever KEM made the shared secret.
 *
 * @since 1.0.0
 */
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { MlsCryptoShape } from "../ports/MlsCrypto.ts"

/**
 * The KEM ids that go into every derivation: X25519's of RFC 9180, and the obsolete one of X-Wing that libxmtp keeps using
 * (`mls_ext_wrapper_encryption.rs`; the present 0x647a is not interchangeable with it).
 *
 * @since 1.0.0
 * @category constants
 */
export const KemId = { dhkemX25519: 0x0020, xWing: 0x004d } as const

/**
 * @since 1.0.0
 * @category models
 */
export type KemId = (typeof KemId)[keyof typeof KemId]

/**
 * One end of an HPKE exchange. Each seal and each open takes the next sequence number.
 *
 * @since 1.0.0
 * @category models
 */
export interface HpkeContext {
  readonly seal: (aad: Uint8Array, plaintext: Uint8Array) => Uint8Array
  /** None if the tag does not fit; the sequence number is then not used up. */
  readonly open: (aad: Uint8Array, ciphertext: Uint8Array) => Option.Option<Uint8Array>
  /** A secret of this many bytes for the application (RFC 9180 section 5.3). */
  readonly exportSecret: (exporterContext: Uint8Array, length: number) => Uint8Array
}

const KDF = 0x0001
const AEAD = 0x0003

const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)
const uint16 = (value: number): Uint8Array => Uint8Array.of(value >>> 8, value & 0xff)
const EMPTY = new Uint8Array(0)
const VERSION = ascii("HPKE-v1")

const concat = (...parts: ReadonlyArray<Uint8Array>): Uint8Array => {
  let length = 0
  for (const part of parts) length += part.length
  const bytes = new Uint8Array(length)
  let at = 0
  for (const part of parts) {
    bytes.set(part, at)
    at += part.length
  }
  return bytes
}

/**
 * HKDF-Expand with SHA-256 (RFC 5869 section 2.3), at most 8160 bytes.
 *
 * @since 1.0.0
 * @category key derivation
 */
export const hkdfExpand = (
  crypto: Pick<MlsCryptoShape, "hmacSha256">,
  key: Uint8Array,
  info: Uint8Array,
  length: number
): Uint8Array => {
  const output = new Uint8Array(length)
  let block: Uint8Array = EMPTY
  for (let at = 0, counter = 1; at < length; at += 32, counter++) {
    block = crypto.hmacSha256(key, concat(block, info, Uint8Array.of(counter)))
    output.set(block.subarray(0, Math.min(32, length - at)), at)
  }
  return output
}

const kdf = (crypto: Pick<MlsCryptoShape, "hmacSha256">, suiteId: Uint8Array) => ({
  extract: (salt: Uint8Array, label: string, key: Uint8Array): Uint8Array =>
    // An empty salt is 32 zeros, which HMAC makes of an empty key anyway.
    crypto.hmacSha256(salt, concat(VERSION, suiteId, ascii(label), key)),
  expand: (key: Uint8Array, label: string, info: Uint8Array, length: number): Uint8Array =>
    hkdfExpand(crypto, key, concat(uint16(length), VERSION, suiteId, ascii(label), info), length)
})

/**
 * The context of a KEM's shared secret (RFC 9180 section 5.1, base mode).
 *
 * @since 1.0.0
 * @category constructors
 */
export const context = (
  crypto: Pick<MlsCryptoShape, "aeadOpen" | "aeadSeal" | "hmacSha256">,
  kemId: KemId,
  sharedSecret: Redacted.Redacted<Uint8Array>,
  info: Uint8Array
): HpkeContext => {
  const { expand, extract } = kdf(crypto, concat(ascii("HPKE"), uint16(kemId), uint16(KDF), uint16(AEAD)))
  const scheduleContext = concat(
    Uint8Array.of(0),
    extract(EMPTY, "psk_id_hash", EMPTY),
    extract(EMPTY, "info_hash", info)
  )
  const secret = extract(Redacted.value(sharedSecret), "secret", EMPTY)
  const key = expand(secret, "key", scheduleContext, 32)
  const baseNonce = expand(secret, "base_nonce", scheduleContext, 12)
  const exporterSecret = expand(secret, "exp", scheduleContext, 32)

  let sequence = 0
  const nonce = (): Uint8Array => {
    const bytes = baseNonce.slice()
    new DataView(bytes.buffer).setUint32(8, new DataView(bytes.buffer).getUint32(8) ^ sequence)
    return bytes
  }

  return {
    seal: (aad, plaintext) => {
      const sealed = crypto.aeadSeal(key, nonce(), aad, plaintext)
      sequence++
      return sealed
    },
    open: (aad, ciphertext) => {
      const opened = crypto.aeadOpen(key, nonce(), aad, ciphertext)
      if (Option.isSome(opened)) sequence++
      return opened
    },
    exportSecret: (exporterContext, length) => expand(exporterSecret, "sec", exporterContext, length)
  }
}

const DHKEM_SUITE = concat(ascii("KEM"), uint16(KemId.dhkemX25519))

const extractAndExpand = (
  crypto: Pick<MlsCryptoShape, "hmacSha256">,
  dh: Uint8Array,
  kemContext: Uint8Array
): Redacted.Redacted<Uint8Array> => {
  const { expand, extract } = kdf(crypto, DHKEM_SUITE)
  return Redacted.make(expand(extract(EMPTY, "eae_prk", dh), "shared_secret", kemContext, 32))
}

/**
 * DHKEM(X25519) encapsulation (RFC 9180 section 4.1). None if the public key is not one.
 *
 * @param ephemeralKey 32 fresh private bytes
 * @since 1.0.0
 * @category kem
 */
export const encapsulate = (
  crypto: MlsCryptoShape,
  publicKey: Uint8Array,
  ephemeralKey: Redacted.Redacted<Uint8Array>
): Option.Option<{ readonly enc: Uint8Array; readonly sharedSecret: Redacted.Redacted<Uint8Array> }> =>
  Option.map(crypto.x25519(ephemeralKey, publicKey), (dh) => {
    const enc = crypto.x25519PublicKey(ephemeralKey)
    return { enc, sharedSecret: extractAndExpand(crypto, dh, concat(enc, publicKey)) }
  })

/**
 * DHKEM(X25519) decapsulation (RFC 9180 section 4.1). None if `enc` is no public key.
 *
 * @since 1.0.0
 * @category kem
 */
export const decapsulate = (
  crypto: MlsCryptoShape,
  privateKey: Redacted.Redacted<Uint8Array>,
  enc: Uint8Array
): Option.Option<Redacted.Redacted<Uint8Array>> =>
  Option.map(crypto.x25519(privateKey, enc), (dh) =>
    extractAndExpand(crypto, dh, concat(enc, crypto.x25519PublicKey(privateKey)))
  )

/**
 * DHKEM(X25519) `DeriveKeyPair` (RFC 9180 section 7.1.3): the private key, 32 bytes.
 *
 * @since 1.0.0
 * @category kem
 */
export const derivePrivateKey = (
  crypto: Pick<MlsCryptoShape, "hmacSha256">,
  keyMaterial: Uint8Array
): Redacted.Redacted<Uint8Array> => {
  const { expand, extract } = kdf(crypto, DHKEM_SUITE)
  return Redacted.make(expand(extract(EMPTY, "dkp_prk", keyMaterial), "sk", EMPTY, 32))
}
