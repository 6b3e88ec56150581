/**
 * Private keys of Curve25519 as `KeyObject`s of `node:crypto`, from their 32 bytes alone.
 */
import { createPrivateKey, type KeyObject } from "node:crypto"

/** The curves as JWK names them. */
export type Curve = "Ed25519" | "X25519"

/** What comes before the 32 bytes in a PKCS #8 file (RFC 8410, section 7). */
const PKCS8_PREFIX: Readonly<Record<Curve, Uint8Array>> = {
  Ed25519: Buffer.from("302e020100300506032b657004220420", "hex"),
  X25519: Buffer.from("302e020100300506032b656e04220420", "hex")
}

/** How private keys are imported. */
export type Import = (crv: Curve, privateKey: Uint8Array) => KeyObject

/** As JWK, whose `x` has to be there: OpenSSL derives the public half from `d`, and what stands in `x` is not looked at. */
export const fromJwk: Import = (crv, privateKey) => {
  const d = Buffer.from(privateKey.buffer, privateKey.byteOffset, privateKey.byteLength).toString("base64url")
  return createPrivateKey({ key: { kty: "OKP", crv, d, x: d }, format: "jwk" })
}

/** As PKCS #8, which says nothing of the public half. */
export const fromPkcs8: Import = (crv, privateKey) => {
  const prefix = PKCS8_PREFIX[crv]
  // Not from the pool of small buffers, where it would stay.
  const key = Buffer.alloc(prefix.length + privateKey.length)
  key.set(prefix)
  key.set(privateKey, prefix.length)
  try {
    return createPrivateKey({ key, format: "der", type: "pkcs8" })
  } finally {
    key.fill(0)
  }
}

/**
 * The way that this Node takes. Node 20 reads PKCS #8 in fourteen times as long as a JWK; later releases read both alike, and from
 * 24 on refuse a JWK whose `x` is not the public half.
 */
export const fastest = (): Import => {
  try {
    fromJwk("Ed25519", new Uint8Array(32))
    return fromJwk
  } catch {
    // This Node looks at `x`.
    return fromPkcs8
  }
}
