/**
 * The elliptic curve operations that identity logs cost their time in, so that a faster library can do them.
 *
 * @since 1.0.0
 */
import { ed25519 } from "@noble/curves/ed25519.js"
import { p256 } from "@noble/curves/nist.js"
import { secp256k1 } from "@noble/curves/secp256k1.js"
import * as Context from "effect/Context"
import * as Layer from "effect/Layer"

/**
 * The arguments of an operation that is going to be asked for.
 *
 * @since 1.0.0
 * @category models
 */
export type Question =
  | {
      readonly _tag: "recoverSecp256k1"
      readonly digest: Uint8Array
      readonly signature: Uint8Array
      readonly parity: 0 | 1
    }
  | { readonly _tag: "combineEd25519"; readonly s: Uint8Array; readonly k: Uint8Array; readonly a: Uint8Array }

/**
 * The answers to questions, some of which may be there already.
 *
 * @since 1.0.0
 * @category models
 */
export interface Foreseen {
  /** As the operation itself answers. What was foreseen is known by the object that it was; any other question is computed. */
  readonly answer: (question: Question) => Uint8Array | undefined
  /** Nobody asks any more: what has not begun need not. */
  readonly release: () => void
}

/**
 * Three operations, and no rule: what counts as a signature is decided by the modules that call them, so every backend
 * gives the same verdicts. None of them throws.
 *
 * @since 1.0.0
 * @category models
 */
export interface Operations {
  /** Which library does the work, as logs and spans name it. */
  readonly name: string
  /**
   * The secp256k1 public key (65 bytes, uncompressed) that made this signature, or nothing where there is none.
   * `digest` has 32 bytes; `signature` is r and s, 32 bytes each, both in [1, n-1] and s at most n/2; `parity` is that of
   * the y coordinate of R. An x coordinate of R above n is never meant.
   */
  readonly recoverSecp256k1: (digest: Uint8Array, signature: Uint8Array, parity: 0 | 1) => Uint8Array | undefined
  /**
   * The encoding (32 bytes) of sB - kA on edwards25519, or nothing where A does not decode. `s` and `k` are little-endian
   * scalars of 32 bytes below the group order. A decodes as in ed25519-dalek: y may be p or above, x = 0 with the sign bit
   * set is x = 0, points of small and mixed order are points like all others.
   */
  readonly combineEd25519: (s: Uint8Array, k: Uint8Array, a: Uint8Array) => Uint8Array | undefined
  /**
   * Whether r and s (64 bytes, each in [1, n-1], s of any size) are an ECDSA signature of SHA-256(message) under this
   * P-256 public key (65 bytes, uncompressed, on the curve).
   */
  readonly verifyP256: (publicKey: Uint8Array, message: Uint8Array, signature: Uint8Array) => boolean
  /**
   * Hears what is going to be asked, about in this order, so that it can begin elsewhere. Its answers are those of the
   * operations. The questions must not change meanwhile.
   */
  readonly foresee?: ((questions: ReadonlyArray<Question>) => Foreseen) | undefined
}

/**
 * The answer to a question, computed here and now.
 *
 * @since 1.0.0
 * @category operations
 */
export const answer = (operations: Operations, question: Question): Uint8Array | undefined =>
  question._tag === "recoverSecp256k1"
    ? operations.recoverSecp256k1(question.digest, question.signature, question.parity)
    : operations.combineEd25519(question.s, question.k, question.a)

const littleEndian = (bytes: Uint8Array): bigint => {
  let value = 0n
  for (let i = bytes.length - 1; i >= 0; i--) value = (value << 8n) | BigInt(bytes[i] ?? 0)
  return value
}

/** Turns what noble throws for "there is none" into nothing. */
const orNothing = <A>(compute: () => A): A | undefined => {
  try {
    return compute()
  } catch {
    return undefined
  }
}

/**
 * The reference: @noble/curves, pure JavaScript, everywhere. Every other backend is held to its answers.
 *
 * @since 1.0.0
 * @category backends
 */
export const noble: Operations = {
  name: "@noble/curves",
  recoverSecp256k1: (digest, signature, parity) =>
    orNothing(() =>
      secp256k1.Signature.fromBytes(signature, "compact").addRecoveryBit(parity).recoverPublicKey(digest).toBytes(false)
    ),
  combineEd25519: (s, k, a) => {
    const point = orNothing(() => ed25519.Point.fromBytes(a, true))
    return point === undefined
      ? undefined
      : ed25519.Point.BASE.multiplyUnsafe(littleEndian(s))
          .subtract(point.multiplyUnsafe(littleEndian(k)))
          .toBytes()
  },
  verifyP256: (publicKey, message, signature) =>
    orNothing(() => p256.verify(signature, message, publicKey, { lowS: false, prehash: true, format: "compact" })) ??
    false
}

/**
 * The backend in use: `noble` unless a layer says otherwise. `yield* CurveBackend` shows which.
 *
 * @since 1.0.0
 * @category tags
 */
export class CurveBackend extends Context.Reference<CurveBackend>()("@keyward/core/CurveBackend", {
  defaultValue: (): Operations => noble
}) {}

/**
 * Uses this backend.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (operations: Operations): Layer.Layer<CurveBackend> => Layer.succeed(CurveBackend, operations)
