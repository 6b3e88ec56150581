import { createPublicKey, type KeyObject } from "node:crypto"
import { describe, expect, it } from "@effect/vitest"
import { ed25519, x25519 } from "@noble/curves/ed25519.js"
import * as FastCheck from "effect/FastCheck"
import { fastest, fromJwk, fromPkcs8 } from "../../src/internal/nodePrivateKey.ts"

const publicHalf = (key: KeyObject): Uint8Array =>
  new Uint8Array(Buffer.from(createPublicKey(key).export({ format: "jwk" }).x ?? "", "base64url"))

/** Releases from 24 on do not take what `fromJwk` makes. */
const takesJwk = fastest() === fromJwk

describe("nodePrivateKey", () => {
  it.each(["fastest", "fromPkcs8", ...(takesJwk ? ["fromJwk"] : [])])(
    "%s has the public half that noble derives",
    (name) => {
      const importKey = { fastest: fastest(), fromPkcs8, fromJwk }[name] ?? fromPkcs8
      const seed = FastCheck.uint8Array({ minLength: 32, maxLength: 32 })
      FastCheck.assert(
        FastCheck.property(seed, (bytes) => {
          expect(publicHalf(importKey("Ed25519", bytes))).toEqual(ed25519.getPublicKey(bytes))
          expect(publicHalf(importKey("X25519", bytes))).toEqual(x25519.getPublicKey(bytes))
        }),
        { seed: 8410, numRuns: 30 }
      )
    }
  )

  it("fromPkcs8 leaves the key that it was given as it was", () => {
    const bytes = new Uint8Array(32).fill(7)
    fromPkcs8("Ed25519", bytes)
    expect(bytes).toEqual(new Uint8Array(32).fill(7))
  })
})
