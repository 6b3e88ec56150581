/** Threads that help to verify: the same verdicts with them, without them, and when they are gone. */
import { describe, expect, it } from "@effect/vitest"
import { ed25519 } from "@noble/curves/ed25519.js"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as NodeMlsCrypto from "../../src/crypto/NodeMlsCrypto.ts"
import * as signaturePool from "../../src/internal/signaturePool.ts"
import type { Ed25519Signature } from "../../src/ports/MlsCrypto.ts"

const openssl = NodeMlsCrypto.make()

/** OpenSSL, counting what is asked of it. */
const counted = () => {
  const asked = { count: 0 }
  const isValid = ({ message, publicKey, signature }: Ed25519Signature): boolean => {
    asked.count++
    return openssl.ed25519VerifyStrict(publicKey, message, signature)
  }
  return { asked, isValid }
}

const seed = new Uint8Array(32).fill(11)
const key = Redacted.make(seed)
const publicKey = ed25519.getPublicKey(seed)

/** Valid ones of messages of all lengths, and of every seventh something else: a bit, a length, a message too long to copy. */
const signatures: ReadonlyArray<Ed25519Signature> = Array.from({ length: 300 }, (_, index) => {
  const message = new Uint8Array(index % 11 === 3 ? 70_000 : (index * 37) % 3_000).fill(index)
  const signature = openssl.ed25519Sign(key, message)
  if (index % 7 !== 0) return { publicKey, message, signature }
  switch (index % 4) {
    case 0:
      return { publicKey, message, signature: signature.map((byte, at) => (at === index % 64 ? byte ^ 1 : byte)) }
    case 1:
      return { publicKey, message: Uint8Array.of(...message.subarray(0, 10), 1), signature }
    case 2:
      return { publicKey: publicKey.subarray(1), message, signature }
    default:
      return { publicKey, message, signature: new Uint8Array(63) }
  }
})
const expected = signatures.map((one) => counted().isValid(one))

/** Asks until threads have answered some, at most so many times. */
const untilHelped = (verifyAll: signaturePool.VerifyAll, asked: { count: number }) =>
  Effect.gen(function* () {
    for (let round = 0; round < 200; round++) {
      asked.count = 0
      const verdicts = yield* verifyAll(signatures)
      if (asked.count < expected.filter((isValid) => isValid).length) return { verdicts, isHelped: true }
    }
    return { verdicts: yield* verifyAll(signatures), isHelped: false }
  })

describe("threads that help to verify", { timeout: 60_000 }, () => {
  it("the signatures of the test are of both kinds", () => {
    expect(expected.filter((isValid) => isValid).length).toBeGreaterThan(200)
    expect(expected.filter((isValid) => !isValid).length).toBeGreaterThan(30)
  })

  it.scoped("of none there is an answer at once", () =>
    Effect.gen(function* () {
      const verifyAll = yield* signaturePool.make(counted().isValid, 2)
      expect(Effect.runSync(verifyAll([]))).toEqual([])
    })
  )

  it.scopedLive("answer as the calling thread does, in order", () =>
    Effect.gen(function* () {
      const { asked, isValid } = counted()
      const verifyAll = yield* signaturePool.make(isValid, 2)
      const { isHelped, verdicts } = yield* untilHelped(verifyAll, asked)
      expect(isHelped).toBe(true)
      expect(verdicts).toEqual(expected)
    })
  )

  it.scopedLive("say nothing but yes: what they refuse is verified again", () =>
    Effect.gen(function* () {
      const { asked, isValid } = counted()
      const verifyAll = yield* signaturePool.make(isValid, 2)
      yield* untilHelped(verifyAll, asked)
      const refused = signatures.map(({ message, signature }) => ({
        publicKey: new Uint8Array(32),
        message,
        signature
      }))
      asked.count = 0
      const verdicts = yield* verifyAll(refused)
      expect(verdicts.some((isValid) => isValid)).toBe(false)
      expect(asked.count).toBe(refused.length)
    })
  )

  it.scopedLive("are not started for a few, and none are where none are wanted", () =>
    Effect.gen(function* () {
      for (const workers of [0, 1]) {
        const { asked, isValid } = counted()
        const verifyAll = yield* signaturePool.make(isValid, workers)
        const few = signatures.slice(0, workers === 0 ? 300 : 150)
        expect(yield* verifyAll(few)).toEqual(expected.slice(0, few.length))
        expect(asked.count).toBe(few.length)
      }
      const { isValid } = counted()
      expect(yield* (yield* signaturePool.make(isValid, 1))([])).toEqual([])
    })
  )

  it.live("end with the scope, and then nothing changes but the speed", () =>
    Effect.gen(function* () {
      const { asked, isValid } = counted()
      const verifyAll = yield* Effect.scoped(
        Effect.tap(signaturePool.make(isValid, 1), (verifyAll) => untilHelped(verifyAll, asked))
      )
      asked.count = 0
      expect(yield* verifyAll(signatures)).toEqual(expected)
      expect(asked.count).toBe(signatures.length)
    })
  )

  it.scopedLive("are not started by batches that are too small to be helped with, however many", () =>
    Effect.gen(function* () {
      const { asked, isValid } = counted()
      const verifyAll = yield* signaturePool.make(isValid, 1)
      for (let round = 0; round < 100; round++) yield* verifyAll(signatures.slice(0, 11))
      // One that was started would be there by now.
      for (let round = 0; round < 100; round++) {
        for (const one of signatures.slice(0, 11)) isValid(one)
        yield* Effect.yieldNow()
      }
      asked.count = 0
      const some = signatures.slice(0, 150)
      yield* verifyAll(some)
      expect(asked.count).toBe(some.length)
    })
  )

  it.live("do not start when the scope has ended before there was enough to do", () =>
    Effect.gen(function* () {
      const { asked, isValid } = counted()
      const verifyAll = yield* Effect.scoped(signaturePool.make(isValid, 1))
      const few = signatures.slice(0, 100)
      for (let round = 0; round < 20; round++) yield* verifyAll(few)
      expect(asked.count).toBe(20 * few.length)
    })
  )

  it.scopedLive("stop when nobody asks any more", () =>
    Effect.gen(function* () {
      const { asked, isValid } = counted()
      const verifyAll = yield* signaturePool.make(isValid, 0)
      const asking = yield* Effect.fork(verifyAll(signatures))
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(asking)
      const soFar = asked.count
      expect(soFar).toBeLessThan(signatures.length)
      yield* Effect.async<void>((resume) => {
        setImmediate(() => setImmediate(() => resume(Effect.void)))
      })
      expect(asked.count).toBe(soFar)
    })
  )
})
