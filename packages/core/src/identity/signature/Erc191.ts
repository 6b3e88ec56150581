/**
 * A wallet's signature: EIP-191 personal message, secp256k1 with recovery.
 *
 * @since 1.0.0
 */
import { secp256k1 } from "@noble/curves/secp256k1.js"
import { keccak_256 } from "@noble/hashes/sha3.js"
import { concatBytes } from "@noble/hashes/utils.js"
import * as Either from "effect/Either"
import * as hex from "../../internal/hex.ts"
import { answer, type Operations } from "../CurveBackend.ts"
import type { Prepared } from "./Prepared.ts"
import type { SignatureFailure, VerifiedSignature } from "./VerifiedSignature.ts"

/** r and low s (32 bytes each), the parity of R's y, and the 65 bytes that may be seen once. */
interface Recoverable {
  readonly rs: Uint8Array
  readonly parity: 0 | 1
  readonly normalized: Uint8Array
}

const order = secp256k1.Point.CURVE().n

const bigEndian = (bytes: Uint8Array): bigint => BigInt(`0x${hex.encode(bytes)}`)

const bytes32 = (value: bigint): Uint8Array => hex.decode(value.toString(16).padStart(64, "0"))

const malformed = (detail: string): Either.Either<never, SignatureFailure> =>
  Either.left({ reason: "Malformed", detail })

/**
 * libxmtp's reading of r, s and v (`signature.rs`, `to_lower_s`; alloy's `normalize_v`). A high s is replaced by n - s and
 * v is **kept as it is**, which recovers another address than the signer's when v was made for the high s, and the
 * signer's when it was not. Stricter or laxer, we would see another state than every other client. An open change to
 * libxmtp flips v as well; if it is released, this is the one place to follow it.
 *
 * @since 1.0.0
 * @category conversions
 */
export const normalize = (bytes: Uint8Array): Either.Either<Recoverable, SignatureFailure> => {
  if (bytes.length !== 65) return malformed(`a signature has 65 bytes, this has ${bytes.length}`)
  const s = bigEndian(bytes.subarray(32, 64))
  const r = bigEndian(bytes.subarray(0, 32))
  if (r < 1n || r >= order || s < 1n || s >= order) return malformed("r or s is out of range")
  const v = bytes[64] ?? 0
  const parity = v === 0 || v === 27 ? 0 : v === 1 || v === 28 ? 1 : v >= 35 ? ((v - 35) & 1 ? 1 : 0) : undefined
  if (parity === undefined) return malformed(`v is ${v}`)
  const rs = s > order >> 1n ? concatBytes(bytes.subarray(0, 32), bytes32(order - s)) : bytes.slice(0, 64)
  return Either.right({ rs, parity, normalized: concatBytes(rs, bytes.subarray(64)) })
}

/**
 * The address of a secp256k1 public key (65 bytes, uncompressed): `0x` and 40 lower-case hex digits.
 *
 * @since 1.0.0
 * @category conversions
 */
export const addressOf = (publicKey: Uint8Array): string =>
  `0x${hex.encode(keccak_256(publicKey.subarray(1)).subarray(12))}`

/**
 * What the curve is to be asked, to learn who signed this EIP-191 hash (32 bytes).
 *
 * @since 1.0.0
 * @category verification
 */
export const prepare = (
  eip191Hash: Uint8Array,
  signature: Uint8Array
): Either.Either<Prepared<SignatureFailure>, SignatureFailure> =>
  Either.map(normalize(signature), ({ normalized, parity, rs }) => ({
    question: { _tag: "recoverSecp256k1", digest: eip191Hash, signature: rs, parity },
    judge: (publicKey) =>
      publicKey === undefined
        ? malformed("no key recovers from it")
        : Either.right({
            signer: { _tag: "Ethereum", address: addressOf(publicKey) },
            kind: "erc-191",
            replayKey: hex.encode(normalized),
            chainId: undefined
          })
  }))

/**
 * Who signed this EIP-191 hash (32 bytes). A signature of another text, or by another key, does not fail: it names another
 * address (`verified_signature.rs`, `from_recoverable_ecdsa`).
 *
 * @since 1.0.0
 * @category verification
 */
export const verify = (
  backend: Operations,
  eip191Hash: Uint8Array,
  signature: Uint8Array
): Either.Either<VerifiedSignature, SignatureFailure> =>
  Either.flatMap(prepare(eip191Hash, signature), ({ judge, question }) => judge(answer(backend, question)))
