import { describe, expect, it } from "@effect/vitest"
import { sessionKeyPackages } from "@keyward/test-utils/vectors/KeyPackageVectors"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Redacted from "effect/Redacted"
import * as FastMlsCrypto from "../../src/crypto/FastMlsCrypto.ts"
import * as NodeMlsCrypto from "../../src/crypto/NodeMlsCrypto.ts"

const openssl = NodeMlsCrypto.make()

describe("FastMlsCrypto", () => {
  it.effect("gives OpenSSL's bytes", () =>
    Effect.gen(function* () {
      const fast = yield* FastMlsCrypto.make
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

  it.effect("derives the keys of the native client's installations", () =>
    Effect.gen(function* () {
      const fast = yield* FastMlsCrypto.make
      for (const { installationId, installationSeed } of sessionKeyPackages) {
        const seed = Redacted.make(new Uint8Array(Buffer.from(installationSeed, "hex")))
        expect(Buffer.from(fast.ed25519PublicKey(seed)).toString("hex")).toBe(installationId)
      }
    })
  )

  it.effect("does not sign with a seed that was wiped, though it signed with it before", () =>
    Effect.gen(function* () {
      const fast = yield* FastMlsCrypto.make
      const wiped = Redacted.make(new Uint8Array(32).fill(5))
      fast.ed25519Sign(wiped, new Uint8Array(3))
      Redacted.unsafeWipe(wiped)
      expect(() => fast.ed25519Sign(wiped, new Uint8Array(3))).toThrow()
    })
  )
})
