/** How often, and after what waits, a failed call is sent again. */
import { describe, expect, it } from "@effect/vitest"
import { backoff, retryTransient } from "@keyward/core/lifecycle/RetryPolicy"
import { ApiClientError } from "@keyward/core/ports/ApiClient"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Random from "effect/Random"
import * as TestClock from "effect/TestClock"

type Answer = "ok" | "transient" | "refused" | "later" | "muchLater"

const failures = {
  transient: () => new ApiClientError({ operation: "uploadKeyPackage", reason: "Unavailable" }),
  refused: () => new ApiClientError({ operation: "uploadKeyPackage", reason: "InvalidRequest" }),
  later: () =>
    new ApiClientError({ operation: "uploadKeyPackage", reason: "Unavailable", retryAfter: Duration.seconds(7) }),
  muchLater: () =>
    new ApiClientError({ operation: "uploadKeyPackage", reason: "Unavailable", retryAfter: Duration.minutes(2) })
}

/** The same by a schedule that is driven from the first try on. */
const reference =
  (attempts: number) =>
  <A, E, R>(call: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.retry(call, {
      schedule: backoff(attempts),
      while: (error) =>
        error instanceof ApiClientError &&
        error.isRetryable &&
        Duration.lessThanOrEqualTo(error.retryAfter ?? Duration.zero, Duration.seconds(30))
    })

/** When each try was made, in milliseconds, and what came of it all: of one effect that is run twice. */
const triesOf = (retry: typeof retryTransient, attempts: number, answers: ReadonlyArray<Answer>) =>
  Effect.gen(function* () {
    yield* TestClock.setTime(0)
    const tries: Array<number> = []
    const call = Effect.gen(function* () {
      const answer = answers[tries.length % answers.length] ?? "ok"
      tries.push(yield* Clock.currentTimeMillis)
      return answer === "ok" ? tries.length : yield* failures[answer]()
    })
    const retried = retry(attempts)(call)
    const fiber = yield* Effect.fork(Effect.all([Effect.exit(retried), Effect.exit(retried)]))
    yield* TestClock.adjust("1 hour")
    const exits = yield* Fiber.join(fiber)
    return { tries, ends: exits.map(Exit.mapError(({ reason }) => reason)) }
  }).pipe(Effect.withRandom(Random.fixed([0.9])))

describe("a call that fails", () => {
  it.effect.prop(
    "is sent as often, and after the same waits, as by a schedule that is driven from the first try on",
    [
      FastCheck.integer({ min: 1, max: 6 }),
      FastCheck.array(FastCheck.constantFrom<Answer>("ok", "transient", "transient", "refused", "later", "muchLater"), {
        minLength: 1,
        maxLength: 8
      })
    ],
    ([attempts, answers]) =>
      Effect.gen(function* () {
        const expected = yield* triesOf(reference, attempts, answers)
        expect(yield* triesOf(retryTransient, attempts, answers)).toEqual(expected)
      }),
    { fastCheck: { seed: 7, numRuns: 40 } }
  )

  it.effect("is sent so many times in all, and gives its last error", () =>
    Effect.gen(function* () {
      const { ends, tries } = yield* triesOf(retryTransient, 4, ["transient"])
      expect(tries.length).toBe(8)
      expect(ends).toEqual([Exit.fail("Unavailable"), Exit.fail("Unavailable")])
    })
  )
})
