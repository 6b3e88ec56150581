import { createRequire } from "node:module"
import { describe, expect, it } from "@effect/vitest"
import { sessionKeyPackages } from "@keyward/test-utils/vectors/KeyPackageVectors"
import { ed25519 } from "@noble/curves/ed25519.js"
import { sha512 } from "@noble/hashes/sha2.js"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Redacted from "effect/Redacted"
import * as FastMlsCrypto from "../../src/crypto/FastMlsCrypto.ts"
import * as NodeMlsCrypto from "../../src/crypto/NodeMlsCrypto.ts"

const openssl = NodeMlsCrypto.make()
const sodium: FastMlsCrypto.Sodium = createRequire(import.meta.url)("sodium-native")

describe("FastMlsCrypto", () => {
  it.scoped("gives OpenSSL's bytes", () =>
    Effect.gen(function* () {
      const fast = yield* FastMlsCrypto.make()
      FastCheck.assert(
        FastCheck.property(
          FastCheck.uint8Array({ minLength: 32, maxLength: 32 }),
          FastCheck.uint8Array({ maxLength: 300 }),
          (seed, message) => {
            const key = Redacted.make(seed)
            expect(fast.ed25519PublicKey(key)).toEqual(openssl.ed25519PublicKey(key))
            expect(fast.ed25519Sign(key, message)).toEqual(openssl.ed25519Sign(key, message))
            expect(fast.x25519PublicKey(key)).toEqual(openssl.x25519PublicKey(key))
          }
        ),
        { seed: 25519, numRuns: 100 }
      )
    })
  )

  it.scoped("derives the keys of the native client's installations", () =>
    Effect.gen(function* () {
      const fast = yield* FastMlsCrypto.make()
      for (const { installationId, installationSeed } of sessionKeyPackages) {
        const seed = Redacted.make(new Uint8Array(Buffer.from(installationSeed, "hex")))
        expect(Buffer.from(fast.ed25519PublicKey(seed)).toString("hex")).toBe(installationId)
      }
    })
  )

  it.scoped("does not sign with a seed that was wiped, though it signed with it before", () =>
    Effect.gen(function* () {
      const fast = yield* FastMlsCrypto.make()
      const wiped = Redacted.make(new Uint8Array(32).fill(5))
      fast.ed25519Sign(wiped, new Uint8Array(3))
      Redacted.unsafeWipe(wiped)
      expect(() => fast.ed25519Sign(wiped, new Uint8Array(3))).toThrow()
    })
  )

  const { Point } = ed25519
  const order = Point.CURVE().n
  const order8 = Point.fromHex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05")
  const toBigint = (bytes: Uint8Array): bigint => bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n)
  const littleEndian = (value: bigint): Uint8Array =>
    Uint8Array.from({ length: 32 }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn))
  const scalar = FastCheck.bigInt({ min: 1n, max: order - 1n })
  const small = FastCheck.integer({ min: 0, max: 7 })

  /** A signature whose key and R have the given parts of small order: all are valid with the cofactor. */
  const crafted = FastCheck.tuple(scalar, scalar, small, small, FastCheck.uint8Array({ maxLength: 64 })).map(
    ([a, r, keyPart, rPart, message]) => {
      const A = Point.BASE.multiply(a).add(order8.multiplyUnsafe(BigInt(keyPart)))
      const R = Point.BASE.multiply(r).add(order8.multiplyUnsafe(BigInt(rPart)))
      const publicKey = A.toBytes()
      const k = toBigint(sha512(new Uint8Array([...R.toBytes(), ...publicKey, ...message]))) % order
      const s = (r + k * a) % order
      const signature = new Uint8Array([...R.toBytes(), ...littleEndian(s)])
      // sB - kA, without the cofactor, as bytes.
      const isStrict = Point.BASE.multiplyUnsafe(s).subtract(A.multiplyUnsafe(k)).equals(R)
      return { publicKey, message, signature, isStrict }
    }
  )

  it.scoped("[39] verifies without the cofactor, alone and among others", () =>
    Effect.gen(function* () {
      const fast = yield* FastMlsCrypto.make({ workers: 0 })
      const signatures = FastCheck.sample(crafted, { seed: 25519, numRuns: 200 })
      const expected = signatures.map(({ isStrict }) => isStrict)
      expect(expected.filter((isStrict) => isStrict).length).toBeGreaterThan(10)
      expect(expected.filter((isStrict) => !isStrict).length).toBeGreaterThan(100)
      for (const { message, publicKey, signature } of signatures) {
        expect(ed25519.verify(signature, message, publicKey, { zip215: true })).toBe(true)
      }
      const one = signatures.map(({ message, publicKey, signature }) =>
        fast.ed25519VerifyStrict(publicKey, message, signature)
      )
      expect(one).toEqual(expected)
      expect(
        signatures.map(({ message, publicKey, signature }) =>
          openssl.ed25519VerifyStrict(publicKey, message, signature)
        )
      ).toEqual(expected)
      expect(yield* fast.ed25519VerifyStrictAll(signatures)).toEqual(expected)
    })
  )

  it.scoped("[39] refuses what is no signature: lengths, bits, other keys, keys and R of small order", () =>
    Effect.gen(function* () {
      const fast = yield* FastMlsCrypto.make({ workers: 0 })
      const key = Redacted.make(new Uint8Array(32).fill(7))
      const publicKey = fast.ed25519PublicKey(key)
      const message = new Uint8Array(5)
      const signature = fast.ed25519Sign(key, message)
      expect(fast.ed25519VerifyStrict(publicKey, message, signature)).toBe(true)
      expect(fast.ed25519VerifyStrict(publicKey, new Uint8Array(6), signature)).toBe(false)
      expect(fast.ed25519VerifyStrict(publicKey.subarray(1), message, signature)).toBe(false)
      expect(fast.ed25519VerifyStrict(publicKey, message, new Uint8Array([...signature, 0]))).toBe(false)
      for (let bit = 0; bit < 512; bit += 5) {
        const flipped = signature.slice()
        flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
        expect(fast.ed25519VerifyStrict(publicKey, message, flipped)).toBe(false)
      }
      const five = [...Point.BASE.multiply(5n).toBytes(), ...littleEndian(5n)]
      for (let i = 0; i < 8; i++) {
        const weak = (i === 0 ? Point.ZERO : order8.multiplyUnsafe(BigInt(i))).toBytes()
        for (let text = 0; text < 16; text++) {
          expect(fast.ed25519VerifyStrict(weak, Uint8Array.of(text), new Uint8Array(five))).toBe(false)
        }
      }
    })
  )

  it.scoped("does not verify by a libsodium that takes the cofactor in", () =>
    Effect.gen(function* () {
      const cofactored: FastMlsCrypto.Sodium = {
        ...sodium,
        crypto_sign_verify_detached: (signature, message, publicKey) =>
          ed25519.verify(signature, message, publicKey, { zip215: true })
      }
      const fast = yield* FastMlsCrypto.makeWith(cofactored, { workers: 0 })
      const signatures = FastCheck.sample(crafted, { seed: 25519, numRuns: 40 })
      const expected = signatures.map(({ isStrict }) => isStrict)
      expect(yield* fast.ed25519VerifyStrictAll(signatures)).toEqual(expected)
      expect(
        signatures.map(({ message, publicKey, signature }) => fast.ed25519VerifyStrict(publicKey, message, signature))
      ).toEqual(expected)
    })
  )

  it.scoped("leaves everything to OpenSSL where libsodium signs otherwise", () =>
    Effect.gen(function* () {
      const broken: FastMlsCrypto.Sodium = {
        ...sodium,
        crypto_sign_detached: (signature) => {
          signature.fill(1)
        }
      }
      const fast = yield* FastMlsCrypto.makeWith(broken)
      const key = Redacted.make(new Uint8Array(32).fill(9))
      expect(fast.ed25519Sign(key, Uint8Array.of(1))).toEqual(openssl.ed25519Sign(key, Uint8Array.of(1)))
    })
  )
})
