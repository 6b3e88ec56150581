import { describe, expect, it } from "@effect/vitest"
import * as VectorWallets from "@keyward/test-utils/VectorWallets"
import { directedLogs, edgeSignatures, randomIdentityLogs } from "@keyward/test-utils/vectors/IdentityVectors"
import { ED25519_TORSION_SUBGROUP, ed25519 } from "@noble/curves/ed25519.js"
import { p256 } from "@noble/curves/nist.js"
import { secp256k1 } from "@noble/curves/secp256k1.js"
import { sha512 } from "@noble/hashes/sha2.js"
import { utf8ToBytes } from "@noble/hashes/utils.js"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { CurveBackend, noble, type Operations } from "../../src/identity/CurveBackend.ts"
import * as FastCurveBackend from "../../src/identity/FastCurveBackend.ts"
import * as IdentityLog from "../../src/identity/IdentityLog.ts"
import { contexts, verifyPrehashed } from "../../src/identity/signature/InstallationSignature.ts"
import { hex, summary, toHex } from "./fixtures.ts"

const SEED = Number(process.env.KEYWARD_TEST_SEED ?? 20_261_123)
const fast = Effect.runSync(Effect.cached(FastCurveBackend.make))

const bytes32 = FastCheck.uint8Array({ minLength: 32, maxLength: 32 })

/** Compares an operation of both backends on random arguments. */
const agree = <A>(
  arbitrary: FastCheck.Arbitrary<A>,
  numRuns: number,
  run: (backend: Operations, args: A) => Uint8Array | boolean | undefined
) =>
  Effect.map(fast, (backend) =>
    FastCheck.assert(
      FastCheck.property(arbitrary, (args) => {
        expect(run(backend, args)).toEqual(run(noble, args))
      }),
      { seed: SEED, numRuns }
    )
  )

describe("the reference decodes keys as ed25519-dalek does", () => {
  const [zero, one] = [new Uint8Array(32), Uint8Array.of(1, ...new Uint8Array(31))]
  /** -A of a key with this y, p added to it or not, sign bit set or not. */
  const negated = (y: number, plusP: boolean, sign: boolean) => {
    const bytes = plusP
      ? Uint8Array.of(0xed + y, ...new Array<number>(30).fill(0xff), 0x7f)
      : Uint8Array.of(y, ...zero.subarray(1))
    if (sign) bytes[31] = (bytes[31] ?? 0) | 0x80
    return noble.combineEd25519(zero, one, bytes)
  }

  it("y of p and above is y minus p", () => {
    const decodable = Array.from({ length: 19 }, (_, y) => y).filter((y) => negated(y, false, false) !== undefined)
    expect(decodable.length).toBeGreaterThan(5)
    for (const y of decodable) expect(negated(y, true, false)).toEqual(negated(y, false, false))
    for (const y of decodable) expect(negated(y, true, true)).toEqual(negated(y, false, true))
  })

  it("x of 0 with the sign bit set is 0, and a y off the curve is no key", () => {
    expect(negated(1, false, false)).toEqual(one)
    expect(negated(1, false, true)).toEqual(one)
    expect(negated(2, false, false)).toBeUndefined()
  })
})

describe(`the fast backend, seed ${SEED}`, () => {
  it.effect("names what it is made of", () =>
    Effect.map(fast, ({ name }) => {
      expect(name).toMatch(/^secp256k1: \S+, ed25519: \S+, p256: node:crypto$/)
      // Everywhere but on exotic platforms the libraries load.
      if (process.platform === "linux" && process.arch === "x64") expect(name).not.toContain("@noble")
    })
  )

  it.effect("recovers as the reference does, valid signature or not", () => {
    const order = secp256k1.Point.CURVE().n
    const scalar = bytes32.map((bytes) => (BigInt(`0x${toHex(bytes)}`) % (order / 2n - 1n)) + 1n)
    const small = FastCheck.bigInt({ min: 1n, max: 40n })
    return agree(
      FastCheck.tuple(bytes32, FastCheck.oneof(scalar, small), FastCheck.oneof(scalar, small), FastCheck.boolean()),
      60,
      (backend, [digest, r, s, odd]) => {
        const signature = hex(r.toString(16).padStart(64, "0") + s.toString(16).padStart(64, "0"))
        return backend.recoverSecp256k1(digest, signature, odd ? 1 : 0)
      }
    )
  })

  it.effect("combines as the reference does: any scalars, points of any order, in any encoding, and no points", () => {
    const order = ed25519.Point.CURVE().n
    const scalar = FastCheck.oneof(
      FastCheck.bigInt({ min: 0n, max: order - 1n }),
      FastCheck.constantFrom(0n, 1n, 2n, 8n, order - 1n)
    ).map((value) => hex(value.toString(16).padStart(64, "0")).reverse())
    const torsion = FastCheck.constantFrom(...ED25519_TORSION_SUBGROUP).map(hex)
    const prime = FastCheck.bigInt({ min: 1n, max: order - 1n }).map((value) => ed25519.Point.BASE.multiply(value))
    const mixed = FastCheck.tuple(prime, torsion).map(([point, t]) =>
      point.add(ed25519.Point.fromBytes(t, true)).toBytes()
    )
    // y of p and above, with either sign bit.
    const nonCanonical = FastCheck.tuple(FastCheck.integer({ min: 0xed, max: 0xff }), FastCheck.boolean()).map(
      ([low, sign]) => Uint8Array.of(low, ...new Array<number>(30).fill(0xff), sign ? 0xff : 0x7f)
    )
    const point = FastCheck.oneof(
      prime.map((each) => each.toBytes()),
      torsion,
      mixed,
      nonCanonical,
      bytes32
    )
    return agree(FastCheck.tuple(scalar, scalar, point), 120, (backend, [s, k, a]) => backend.combineEd25519(s, k, a))
  })

  it.effect("verifies P-256 as the reference does, high s included", () =>
    agree(
      FastCheck.tuple(bytes32, FastCheck.uint8Array(), FastCheck.nat(3), FastCheck.boolean()),
      40,
      (backend, [seed, message, spoil, high]) => {
        const secret = Uint8Array.of(1, ...seed.subarray(1))
        const signature = p256.sign(message, secret, { lowS: !high, format: "compact" })
        if (spoil === 0) signature[5] = (signature[5] ?? 0) ^ 1
        return backend.verifyP256(p256.getPublicKey(secret, false), message, signature)
      }
    )
  )

  it.effect("gives libxmtp's verdict on all 700 crafted installation signatures", () =>
    Effect.map(fast, (backend) => {
      for (const { label, libxmtpAccepts, message, publicKey, signature } of edgeSignatures.cases) {
        const verdict = verifyPrehashed(
          backend,
          contexts.public,
          sha512(utf8ToBytes(message)),
          hex(signature),
          hex(publicKey)
        )
        expect(verdict === "Valid", `${label} ${publicKey} ${signature}`).toBe(libxmtpAccepts)
      }
    })
  )

  it.effect("gives libxmtp's verdict on every log", () =>
    Effect.gen(function* () {
      expect((yield* CurveBackend).name).toBe((yield* fast).name)
      for (const { libxmtp, name, updates } of [...directedLogs, ...randomIdentityLogs]) {
        const result = yield* Effect.either(IdentityLog.resolve(updates.map(hex)))
        const accepted = typeof libxmtp !== "string"
        expect(Either.isRight(result), name).toBe(accepted)
        if (accepted) {
          expect(summary(Either.getOrThrow(result))).toEqual({
            ...libxmtp,
            installations: [...libxmtp.installations].sort(),
            identifiers: [...libxmtp.identifiers].sort()
          })
        }
      }
    }).pipe(Effect.provideServiceEffect(CurveBackend, fast), Effect.provide(VectorWallets.layer))
  )
})
