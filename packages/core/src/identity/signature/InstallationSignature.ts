/**
 * An installation's signature: Ed25519ph (RFC 8032 section 5.1) with a context.
 *
 * @since 1.0.0
 */
import { ed25519, ed25519ph } from "@noble/curves/ed25519.js"
import { sha512 } from "@noble/hashes/sha2.js"
import { concatBytes, utf8ToBytes } from "@noble/hashes/utils.js"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import { equal } from "../../internal/equal.ts"
import * as hex from "../../internal/hex.ts"
import { answer, type Operations, type Question } from "../CurveBackend.ts"
import type { InstallationKey } from "../InstallationKey.ts"
import type { Prepared } from "./Prepared.ts"
import type { SignatureFailure } from "./VerifiedSignature.ts"

/**
 * What installation keys sign: `identityUpdate` for logs, `public` for the texts of an app (libxmtp
 * `xmtp_id/src/constants.rs`).
 *
 * @since 1.0.0
 * @category constants
 */
export const contexts = {
  identityUpdate: "IDENTITY UPDATE SIGNATURE",
  public: "PUBLIC SIGNATURE CONTEXT"
} as const

/**
 * One of `contexts`.
 *
 * @since 1.0.0
 * @category models
 */
export type SigningContext = (typeof contexts)[keyof typeof contexts]

const order = ed25519.Point.CURVE().n

/** dom2(1, context) of RFC 8032 section 2. */
const dom2 = (context: string): Uint8Array =>
  concatBytes(utf8ToBytes("SigEd25519 no Ed25519 collisions"), Uint8Array.of(1, context.length), utf8ToBytes(context))

const domains: Record<SigningContext, Uint8Array> = {
  [contexts.identityUpdate]: dom2(contexts.identityUpdate),
  [contexts.public]: dom2(contexts.public)
}

const littleEndian = (bytes: Uint8Array): bigint => BigInt(`0x${hex.encode(Uint8Array.from(bytes).reverse())}`)

const scalarBytes = (value: bigint): Uint8Array => hex.decode(value.toString(16).padStart(64, "0")).reverse()

/**
 * - `InvalidKey`: the key does not decode to a point
 * - `Malformed`: not 64 bytes, or s is not below the group order
 * - `Invalid`: the equation does not hold
 *
 * @since 1.0.0
 * @category models
 */
export type Verdict = "Valid" | "Invalid" | "Malformed" | "InvalidKey"

/** What the curve is asked, and what its answer says of the signature. */
interface Equation {
  readonly question: Question
  readonly verdict: (combined: Uint8Array | undefined) => Verdict
}

/**
 * ed25519-dalek's `verify_prehashed`, which is what libxmtp calls, and no other rule: s < L; R' = sB - kA is compared **as
 * bytes** with R, so there is no cofactor and a non-canonical R never passes; a key of small order or in a non-canonical
 * encoding is accepted; k hashes the key as given. noble's own `ed25519ph.verify` multiplies by the cofactor and so would
 * accept what libxmtp refuses.
 */
const equation = (
  context: SigningContext,
  prehash: Uint8Array,
  signature: Uint8Array,
  publicKey: Uint8Array
): Equation => {
  const r = signature.subarray(0, 32)
  const s = signature.subarray(32)
  const k = littleEndian(sha512(concatBytes(domains[context], r, publicKey, prehash))) % order
  const wellFormed = signature.length === 64 && littleEndian(s) < order
  return {
    // A key that is none comes first: libxmtp refuses it when it converts the log, before it looks at any signature.
    question: {
      _tag: "combineEd25519",
      s: wellFormed ? s : new Uint8Array(32),
      k: scalarBytes(k),
      a: publicKey
    },
    verdict: (combined) => {
      if (combined === undefined) return "InvalidKey"
      if (!wellFormed) return "Malformed"
      return equal(combined, r) ? "Valid" : "Invalid"
    }
  }
}

/**
 * Whether this is a signature: the rule of `ed25519-dalek`'s `verify_prehashed` (see `equation`).
 *
 * `prehash` is SHA-512 of the message (64 bytes), `publicKey` has 32 bytes.
 *
 * @since 1.0.0
 * @category verification
 */
export const verifyPrehashed = (
  backend: Operations,
  context: SigningContext,
  prehash: Uint8Array,
  signature: Uint8Array,
  publicKey: Uint8Array
): Verdict => {
  const { question, verdict } = equation(context, prehash, signature, publicKey)
  return verdict(answer(backend, question))
}

/**
 * What the curve is to be asked to verify an installation's signature of an update, given SHA-512 of its text (64 bytes). The
 * left side of the judgement is "InvalidKey" where the key is no point, which is a failure of conversion and not of the
 * signature.
 *
 * @since 1.0.0
 * @category verification
 */
export const prepare = (
  sha512OfText: Uint8Array,
  signature: Uint8Array,
  publicKey: Uint8Array
): Prepared<SignatureFailure | "InvalidKey"> => {
  const { question, verdict } = equation(contexts.identityUpdate, sha512OfText, signature, publicKey)
  return {
    question,
    judge: (combined) => {
      const reason = verdict(combined)
      switch (reason) {
        case "Valid":
          return Either.right({
            signer: { _tag: "Installation", publicKey: hex.encode(publicKey) },
            kind: "installation-key",
            replayKey: hex.encode(signature),
            chainId: undefined
          })
        case "InvalidKey":
          return Either.left(reason)
        default:
          return Either.left({ reason })
      }
    }
  }
}

/**
 * Signs a text with an installation key: 64 bytes, the same ones every time.
 *
 * @since 1.0.0
 * @category signing
 */
export const sign = (key: InstallationKey, context: SigningContext, text: string): Uint8Array =>
  ed25519ph.sign(utf8ToBytes(text), Redacted.value(key.seed), { context: utf8ToBytes(context) })
