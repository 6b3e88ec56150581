/** Threads that compute ahead: the same answers with them, without them, and when they are gone. */
import { describe, expect, it } from "@effect/vitest"
import * as VectorWallets from "@keyward/test-utils/VectorWallets"
import { directedLogs, randomIdentityLogs } from "@keyward/test-utils/vectors/IdentityVectors"
import { ed25519 } from "@noble/curves/ed25519.js"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import {
  answer as answerOf,
  CurveBackend,
  type Foreseen,
  type Operations,
  type Question
} from "../../src/identity/CurveBackend.ts"
import * as FastCurveBackend from "../../src/identity/FastCurveBackend.ts"
import * as IdentityLog from "../../src/identity/IdentityLog.ts"
import * as curvePool from "../../src/internal/curvePool.ts"
import { hex, summary } from "./fixtures.ts"

const SEED = Number(process.env.KEYWARD_TEST_SEED ?? 20_261_123)
const fast = Effect.runSync(Effect.cached(FastCurveBackend.make))

/** Operations that count what is asked of them. */
const counted = (operations: Operations) => {
  const asked = { count: 0 }
  const counting: Operations = {
    ...operations,
    recoverSecp256k1: (...args) => {
      asked.count++
      return operations.recoverSecp256k1(...args)
    },
    combineEd25519: (...args) => {
      asked.count++
      return operations.combineEd25519(...args)
    }
  }
  return { asked, counting }
}

const order = ed25519.Point.CURVE().n
const bytes32 = FastCheck.uint8Array({ minLength: 32, maxLength: 32 })
const scalar = FastCheck.bigInt({ min: 0n, max: order - 1n }).map((value) =>
  hex(value.toString(16).padStart(64, "0")).reverse()
)
/** Some have an answer, and some, like a key that is no point or an r that is on no curve, have none. */
const question: FastCheck.Arbitrary<Question> = FastCheck.oneof(
  FastCheck.record({
    _tag: FastCheck.constant("combineEd25519" as const),
    s: scalar,
    k: scalar,
    a: FastCheck.oneof(
      bytes32,
      FastCheck.bigInt({ min: 1n, max: order - 1n }).map((value) => ed25519.Point.BASE.multiply(value).toBytes())
    )
  }),
  FastCheck.record({
    _tag: FastCheck.constant("recoverSecp256k1" as const),
    digest: bytes32,
    signature: FastCheck.tuple(bytes32, bytes32).map(([r, s]) =>
      // Both below the order, s below half of it.
      Uint8Array.of(1, ...r.subarray(1), 1, ...s.subarray(1))
    ),
    parity: FastCheck.constantFrom(0 as const, 1 as const)
  })
)
const questions = (length: number): ReadonlyArray<Question> =>
  FastCheck.sample(question, { seed: SEED, numRuns: length })

const ask = (operations: Operations, one: Question): Uint8Array | undefined => answerOf(operations, one)

const foreseeBy = (pool: Operations, all: ReadonlyArray<Question>): Foreseen => {
  if (pool.foresee === undefined) throw new Error("a pool foresees")
  return pool.foresee(all)
}

/** A turn of the event loop, in which a thread can end and say so. */
const turn = Effect.async<void>((resume) => {
  setImmediate(() => resume(Effect.void))
})

/** Tells a pool of the questions again and again until a thread has answered some, or for so many turns. */
const untilHelped = (pool: Operations, asked: { count: number }, all: ReadonlyArray<Question>) =>
  Effect.gen(function* () {
    for (let round = 0; round < 400; round++) {
      const { answer, release } = foreseeBy(pool, all)
      asked.count = 0
      const answers = all.map(answer)
      release()
      if (asked.count < all.length) return { answers, helped: true }
      yield* turn
    }
    return { answers: all.map((one) => ask(pool, one)), helped: false }
  })

describe(`threads that compute ahead, seed ${SEED}`, { timeout: 60_000 }, () => {
  const all = questions(400)

  it.scopedLive("answer as the calling thread does, and what has no answer has none", () =>
    Effect.gen(function* () {
      const own = yield* fast
      const { asked, counting } = counted(own)
      const pool = yield* curvePool.make(counting, 2)
      const { answers, helped } = yield* untilHelped(pool, asked, all)
      expect(helped).toBe(true)
      expect(answers).toEqual(all.map((one) => ask(own, one)))
      expect(answers.filter((answer) => answer === undefined).length).toBeGreaterThan(40)
    })
  )

  it.scopedLive("start only when there has been much to do, and are not asked about a few", () =>
    Effect.gen(function* () {
      const { asked, counting } = counted(yield* fast)
      const pool = yield* curvePool.make(counting, 1)
      for (let round = 0; round < 3; round++) {
        const few = all.slice(0, 300)
        few.map(foreseeBy(pool, few).answer)
      }
      expect(asked.count).toBe(900)
    })
  )

  it.live("end with the scope, and then nothing changes but the speed", () =>
    Effect.gen(function* () {
      const own = yield* fast
      const { asked, counting } = counted(own)
      const { foreseen, pool } = yield* Effect.gen(function* () {
        const pool = yield* curvePool.make(counting, 1)
        yield* untilHelped(pool, asked, all)
        return { pool, foreseen: foreseeBy(pool, all.slice(0, 64)) }
      }).pipe(Effect.scoped)
      // Asked of a thread that has been ended meanwhile.
      expect(all.slice(0, 64).map(foreseen.answer)).toEqual(all.slice(0, 64).map((one) => ask(own, one)))
      yield* turn
      const later = foreseeBy(pool, all)
      asked.count = 0
      expect(all.slice(0, 50).map(later.answer)).toEqual(all.slice(0, 50).map((one) => ask(own, one)))
      expect(asked.count).toBe(50)
    })
  )

  it.scopedLive("leave to others what they were not told of", () =>
    Effect.gen(function* () {
      const own = yield* fast
      const { asked, counting } = counted(own)
      const pool = yield* curvePool.make(counting, 1)
      yield* untilHelped(pool, asked, all)
      const { answer } = foreseeBy(pool, all.slice(0, 300))
      expect(all.slice(300).map(answer)).toEqual(all.slice(300).map((one) => ask(own, one)))
      // Arguments of other lengths are none that a slot has room for.
      const odd: Question = {
        _tag: "combineEd25519",
        s: new Uint8Array(31),
        k: new Uint8Array(32),
        a: new Uint8Array(40)
      }
      expect(() =>
        foreseeBy(
          pool,
          Array.from({ length: 20 }, () => odd)
        )
      ).not.toThrow()
    })
  )

  it.scopedLive("every log comes to libxmtp's verdict with them, among others and alone", () =>
    Effect.gen(function* () {
      const own = yield* fast
      const { asked, counting } = counted(own)
      const pool = yield* curvePool.make(counting, 1)
      yield* untilHelped(pool, asked, all)
      const logs = [...directedLogs, ...randomIdentityLogs].map(({ updates }) => ({ updates: updates.map(hex) }))
      expect(logs.length).toBeGreaterThan(300)
      const resolve = (backend: Operations) =>
        IdentityLog.resolveAll(logs, { concurrency: 4 }).pipe(Effect.provideService(CurveBackend, backend))
      const withPool = yield* resolve(pool)
      const without = yield* resolve(own)
      const alone = yield* Effect.forEach(logs, ({ updates }) => Effect.either(IdentityLog.resolve(updates))).pipe(
        Effect.provideService(CurveBackend, own)
      )
      const verdicts = (all: typeof withPool) =>
        all.map((one) => (Either.isRight(one) ? summary(one.right) : one.left.message))
      expect(verdicts(withPool)).toEqual(verdicts(alone))
      expect(verdicts(without)).toEqual(verdicts(alone))
    }).pipe(Effect.provide(VectorWallets.layer))
  )

  it.scopedLive("a layer without workers has none", () =>
    Effect.gen(function* () {
      expect((yield* FastCurveBackend.makeWithWorkers({ workers: 0 })).foresee).toBeUndefined()
      expect((yield* FastCurveBackend.makeWithWorkers({ workers: 1 })).foresee).toBeDefined()
    })
  )
})
