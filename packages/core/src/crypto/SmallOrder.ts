/**
 * The points of the Ed25519 curve that are no keys.
 *
 * @since 1.0.0
 */

/**
 * The y coordinates of the eight points whose order divides 8, little-endian and without the sign bit, and the
 * non-canonical spellings of 0 and 1 (p and p + 1) that OpenSSL and ed25519-dalek read as well. With both signs these
 * are the 14 encodings of small order.
 */
const Y_COORDINATES: ReadonlyArray<Uint8Array> = [
  "0000000000000000000000000000000000000000000000000000000000000000",
  "0100000000000000000000000000000000000000000000000000000000000000",
  "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
  "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
  "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
  "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f"
].map((hex) => Uint8Array.from(hex.match(/../g) ?? [], (byte) => Number.parseInt(byte, 16)))

const spells = (encoding: Uint8Array, y: Uint8Array): boolean => {
  for (let i = 0; i < 31; i++) if (encoding[i] !== y[i]) return false
  return ((encoding[31] ?? 0) & 0x7f) === y[31]
}

/**
 * Whether 32 bytes spell a point of small order. As a public key it lets anybody sign, as the R of a signature it
 * belongs to no honest one; ed25519-dalek's `verify_strict` refuses both.
 *
 * @since 1.0.0
 * @category predicates
 */
export const isSmallOrder = (encoding: Uint8Array): boolean => {
  for (const y of Y_COORDINATES) if (spells(encoding, y)) return true
  return false
}
