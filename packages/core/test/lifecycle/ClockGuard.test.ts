/** When the wall clock may decide that keys are erased. */
import { describe, expect, it } from "@effect/vitest"
import * as ClockGuard from "@keyward/core/lifecycle/ClockGuard"
import * as SkewedClock from "@keyward/test-utils/simulation/SkewedClock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as TestClock from "effect/TestClock"
import * as TestApp from "./TestApp.ts"

const GRACE = Duration.hours(24)

/** A guard on a clock that a test sets wrong. Time is moved outside. */
const guarded = <A>(use: (guard: ClockGuard.ClockGuard, skew: SkewedClock.Skew) => Effect.Effect<A>) =>
  Effect.gen(function* () {
    yield* TestApp.start
    const skew = SkewedClock.skew()
    const wrong = Effect.provide(SkewedClock.layer(skew))
    const guard = yield* wrong(ClockGuard.make)
    return yield* use(
      { observe: wrong(guard.observe), isTrusted: (grace, time) => wrong(guard.isTrusted(grace, time)) },
      skew
    )
  })

describe("ClockGuard", () => {
  it.effect("believes a wall clock that goes as the monotonic one does, from the beginning and for ever", () =>
    guarded((guard) =>
      Effect.gen(function* () {
        expect(yield* guard.isTrusted(GRACE)).toBe(true)
        for (const step of ["1 second", "1 hour", "30 days", "365 days"] as const) {
          yield* TestClock.adjust(step)
          expect([step, yield* guard.isTrusted(GRACE)]).toEqual([step, true])
        }
      })
    )
  )

  for (const [title, step] of [
    ["two days ahead", 2 * 86_400_000],
    ["a year ahead", 365 * 86_400_000],
    ["a year back", -365 * 86_400_000],
    ["an hour back", -3_600_000]
  ] as const) {
    it.effect(`[13] [15] after a step of the wall clock, ${title}, doubts it for one grace of the monotonic one`, () =>
      guarded((guard, skew) =>
        Effect.gen(function* () {
          skew.offsetMillis += step
          expect(yield* guard.isTrusted(GRACE)).toBe(false)
          yield* TestClock.adjust("23 hours")
          expect(yield* guard.isTrusted(GRACE)).toBe(false)
          yield* TestClock.adjust("1 hour")
          expect(yield* guard.isTrusted(GRACE)).toBe(true)
          expect(yield* guard.isTrusted(GRACE)).toBe(true)
        })
      )
    )
  }

  it.effect(
    "[15] a clock set back and set right again between two questions is in doubt if somebody looked meanwhile",
    () =>
      guarded((guard, skew) =>
        Effect.gen(function* () {
          const deleteAt = DateTime.subtract(TestApp.START, { days: 6 })
          expect(yield* guard.isTrusted(GRACE, deleteAt)).toBe(true)
          skew.offsetMillis = -8 * 86_400_000
          yield* TestClock.adjust("1 hour")
          yield* guard.observe
          skew.offsetMillis = 0
          yield* TestClock.adjust("1 hour")
          // A date that was set meanwhile, a week too early, has not passed.
          expect(yield* guard.isTrusted(GRACE, deleteAt)).toBe(false)
          yield* TestClock.adjust("23 hours")
          expect(yield* guard.isTrusted(GRACE, deleteAt)).toBe(false)
          yield* TestClock.adjust("1 hour")
          expect(yield* guard.isTrusted(GRACE, deleteAt)).toBe(true)
        })
      )
  )

  it.effect("[18] a machine that slept looks like a step: timers stood still and the wall clock did not", () =>
    guarded((guard, skew) =>
      Effect.gen(function* () {
        yield* TestClock.adjust("1 hour")
        expect(yield* guard.isTrusted(GRACE)).toBe(true)
        skew.offsetMillis += 3 * 86_400_000
        yield* TestClock.adjust("1 second")
        expect(yield* guard.isTrusted(GRACE)).toBe(false)
      })
    )
  )

  it.effect(
    "[18] a machine that sleeps every night is in doubt for ever, but not about what was long ago either way",
    () =>
      guarded((guard, skew) =>
        Effect.gen(function* () {
          const deleteAt = DateTime.add(TestApp.START, { hours: 24 })
          const believed: Array<boolean> = []
          for (let night = 0; night < 4; night++) {
            yield* TestClock.adjust("16 hours")
            skew.offsetMillis += 8 * 3_600_000
            believed.push(yield* guard.isTrusted(GRACE, deleteAt))
            expect(yield* guard.isTrusted(GRACE)).toBe(false)
          }
          // Awake for 16 and 32 hours; and never by less than it was awake.
          expect(believed).toEqual([false, true, true, true])
          skew.offsetMillis += 365 * 86_400_000
          expect(yield* guard.isTrusted(GRACE, DateTime.add(TestApp.START, { days: 5 }))).toBe(false)
        })
      )
  )

  it.effect("a second step begins the doubt anew, and a step back to what was right is a step", () =>
    guarded((guard, skew) =>
      Effect.gen(function* () {
        skew.offsetMillis = 7_200_000
        expect(yield* guard.isTrusted(GRACE)).toBe(false)
        yield* TestClock.adjust("20 hours")
        skew.offsetMillis = 0
        expect(yield* guard.isTrusted(GRACE)).toBe(false)
        yield* TestClock.adjust("20 hours")
        expect(yield* guard.isTrusted(GRACE)).toBe(false)
        yield* TestClock.adjust("4 hours")
        expect(yield* guard.isTrusted(GRACE)).toBe(true)
      })
    )
  )

  it.effect.prop(
    "[18] what a clock is corrected by between two looks, up to a minute, is no step; more than that is",
    [FastCheck.integer({ min: -600_000, max: 600_000 })],
    ([offset]) =>
      guarded((guard, skew) =>
        Effect.gen(function* () {
          skew.offsetMillis = offset
          expect(yield* guard.isTrusted(GRACE)).toBe(Math.abs(offset) <= 60_000)
        })
      ),
    { fastCheck: { seed: 18, numRuns: 100 } }
  )
})
