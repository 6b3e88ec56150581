/**
 * The curve operations of identity logs by libsecp256k1 in WebAssembly, libsodium and OpenSSL: several times faster than
 * the reference, with the same answers.
 *
 * Node only. Both libraries are optional dependencies: where one is missing or does not load on a platform, the reference
 * does its work, and the backend's name says so.
 *
 * @since 1.0.0
 */
import { createPublicKey, verify as opensslVerify } from "node:crypto"
import { createRequire } from "node:module"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as curvePool from "../internal/curvePool.ts"
import * as threads from "../internal/threads.ts"
import { CurveBackend, noble, type Operations } from "./CurveBackend.ts"

/** The three functions of sodium-native that are used; each throws where libsodium refuses. */
interface Sodium {
  readonly crypto_scalarmult_ed25519_base_noclamp: (out: Uint8Array, scalar: Uint8Array) => void
  readonly crypto_scalarmult_ed25519_noclamp: (out: Uint8Array, scalar: Uint8Array, point: Uint8Array) => void
  readonly crypto_core_ed25519_sub: (out: Uint8Array, a: Uint8Array, b: Uint8Array) => void
}

/** libsecp256k1 by @bitauth/libauth, or nothing where it does not load. */
const loadSecp256k1 = Effect.tryPromise(async () => {
  const { instantiateSecp256k1 } = await import("@bitauth/libauth")
  const secp256k1 = await instantiateSecp256k1()
  const recover: Operations["recoverSecp256k1"] = (digest, signature, parity) => {
    const publicKey = secp256k1.recoverPublicKeyUncompressed(signature, parity, digest)
    return typeof publicKey === "string" ? undefined : publicKey
  }
  return { name: "@bitauth/libauth", recover }
})

/**
 * libsodium refuses scalars of 0 and points that are not canonical, not of the prime order, or of small order. dalek takes
 * them all, so whatever is refused goes to the reference.
 */
const combineBy =
  (sodium: Sodium): Operations["combineEd25519"] =>
  (s, k, a) => {
    try {
      const base = new Uint8Array(32)
      const key = new Uint8Array(32)
      sodium.crypto_scalarmult_ed25519_base_noclamp(base, s)
      sodium.crypto_scalarmult_ed25519_noclamp(key, k, a)
      sodium.crypto_core_ed25519_sub(key, base, key)
      return key
    } catch {
      return noble.combineEd25519(s, k, a)
    }
  }

/** libsodium by sodium-native, or nothing where it does not load. */
const loadSodium = Effect.try(() => {
  const sodium: Sodium = createRequire(import.meta.url)("sodium-native")
  return { name: "sodium-native", combine: combineBy(sodium) }
})

const base64Url = (bytes: Uint8Array): string => Buffer.from(bytes).toString("base64url")

/** OpenSSL by node:crypto, which is always there. */
const verifyP256: Operations["verifyP256"] = (publicKey, message, signature) => {
  try {
    const jwk = {
      kty: "EC",
      crv: "P-256",
      x: base64Url(publicKey.subarray(1, 33)),
      y: base64Url(publicKey.subarray(33))
    }
    const key = createPublicKey({ key: jwk, format: "jwk" })
    return opensslVerify("sha256", message, { key, dsaEncoding: "ieee-p1363" }, signature)
  } catch {
    return false
  }
}

/** A library that does not load is no failure: the reference stands in. The log line is for who wonders about speed. */
const orReference = <A, E>(load: Effect.Effect<A, E>, reference: A): Effect.Effect<A> =>
  Effect.catchAll(load, (cause) =>
    Effect.as(Effect.logDebug("a curve library did not load; @noble/curves stands in", cause), reference)
  )

/**
 * Loads the libraries, some 50 to 150 ms, and gives the backend that they make.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make: Effect.Effect<Operations> = Effect.gen(function* () {
  const secp256k1 = yield* orReference(loadSecp256k1, { name: noble.name, recover: noble.recoverSecp256k1 })
  const ed25519 = yield* orReference(loadSodium, { name: noble.name, combine: noble.combineEd25519 })
  return {
    name: `secp256k1: ${secp256k1.name}, ed25519: ${ed25519.name}, p256: node:crypto`,
    recoverSecp256k1: secp256k1.recover,
    combineEd25519: ed25519.combine,
    verifyP256
  }
})

/**
 * How the backend works.
 *
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /**
   * Threads that help where many logs are verified at once; one less than the processors that there are, and at most 3, unless
   * given. With 0 everything is done on the calling thread. None is started before there has been much to do, and none keeps
   * the process alive.
   */
  readonly workers?: number | undefined
}

/**
 * The fast backend with its threads, which end with the scope.
 *
 * @since 1.0.0
 * @category constructors
 */
export const makeWithWorkers = (options: Options = {}): Effect.Effect<Operations, never, Scope.Scope> =>
  Effect.flatMap(make, (operations) => {
    const workers = options.workers ?? threads.defaultCount()
    return workers > 0 ? curvePool.make(operations, workers) : Effect.succeed(operations)
  })

/**
 * Uses the fast backend.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: Options = {}): Layer.Layer<CurveBackend> =>
  Layer.scoped(CurveBackend, makeWithWorkers(options))
