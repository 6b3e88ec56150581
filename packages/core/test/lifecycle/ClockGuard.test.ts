/** When the wall clock may decide that keys are erased. */
import { describe, expect, it } from "@effect/vitest"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import * as ClockGuard from "@keyward/core/lifecycle/ClockGuard"
import * as Ledger from "@keyward/core/lifecycle/Ledger"
import { rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as SkewedClock from "@keyward/test-utils/simulation/SkewedClock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as TestClock from "effect/TestClock"
import * as TestApp from "./TestApp.ts"

const INSTALLATION = InstallationId.make("11".repeat(32))
const GRACE = Duration.hours(24)
const HOUR = 3_600_000
const DAY = 24 * HOUR

/** A guard on a clock that a test sets wrong. Time is moved outside. */
const guarded = <A, E, R>(use: (guard: ClockGuard.ClockGuard, skew: SkewedClock.Skew) => Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    yield* TestApp.start
    const skew = SkewedClock.skew()
    const wrong = Effect.provide(SkewedClock.layer(skew))
    const guard = yield* wrong(ClockGuard.make)
    return yield* use(
      {
        observe: wrong(guard.observe),
        see: (installationId, ledger) => wrong(guard.see(installationId, ledger)),
        hasPassed: (time) => wrong(guard.hasPassed(time)),
        hasWaited: (installationId, row, grace) => wrong(guard.hasWaited(installationId, row, grace)),
        hasKnown: (installationId, historyId, grace) => wrong(guard.hasKnown(installationId, historyId, grace)),
        seeReading: (installationId, completeAsOf) => wrong(guard.seeReading(installationId, completeAsOf)),
        isReadSince: (installationId, row, grace, completeAsOf) =>
          wrong(guard.isReadSince(installationId, row, grace, completeAsOf))
      },
      skew
    )
  })

const after = (millis: number) => DateTime.unsafeMake(DateTime.toEpochMillis(TestApp.START) + millis)

describe("the end of a lifetime", () => {
  it.effect("has passed by a wall clock that goes as the monotonic one does, from the beginning and for ever", () =>
    guarded((guard) =>
      Effect.gen(function* () {
        let passed = 0
        expect(yield* guard.hasPassed(after(0))).toBe(true)
        for (const step of [1_000, HOUR, 30 * DAY, 365 * DAY]) {
          yield* TestClock.adjust(step)
          passed += step
          expect([step, yield* guard.hasPassed(after(passed))]).toEqual([step, true])
          expect([step, yield* guard.hasPassed(after(passed + 1))]).toEqual([step, false])
        }
      })
    )
  )

  for (const [title, step] of [
    ["two hours ahead", 2 * HOUR],
    ["two days ahead", 2 * DAY],
    ["a year ahead", 365 * DAY]
  ] as const) {
    it.effect(`[13] [15] has not passed by a step of the wall clock, ${title}, however long ago that was`, () =>
      guarded((guard, skew) =>
        Effect.gen(function* () {
          skew.offsetMillis += step
          const end = after(40 * DAY)
          for (let day = 0; day < 40; day++) {
            expect([day, yield* guard.hasPassed(end)]).toEqual([day, false])
            yield* TestClock.adjust("1 day")
          }
          expect(yield* guard.hasPassed(end)).toBe(true)
        })
      )
    )
  }

  it.effect("a step is forgotten when nothing is left that was there before it", () =>
    guarded((guard, skew) =>
      Effect.gen(function* () {
        skew.offsetMillis += 365 * DAY
        yield* guard.observe
        const end = after(360 * DAY)
        yield* TestClock.adjust("89 days")
        expect(yield* guard.hasPassed(end)).toBe(false)
        yield* TestClock.adjust("1 day")
        expect(yield* guard.hasPassed(end)).toBe(true)
      })
    )
  )

  it.effect("[15] a clock that was ahead and is set right again is believed: it only ever came later", () =>
    guarded((guard, skew) =>
      Effect.gen(function* () {
        skew.offsetMillis = 2 * HOUR
        yield* guard.observe
        skew.offsetMillis = 5 * DAY
        yield* guard.observe
        yield* TestClock.adjust("1 day")
        skew.offsetMillis = 0
        expect(yield* guard.hasPassed(after(DAY))).toBe(true)
        expect(yield* guard.hasPassed(after(DAY + 1))).toBe(false)
        // Half of a step ahead undone leaves the other half.
        skew.offsetMillis = 4 * HOUR
        yield* guard.observe
        skew.offsetMillis = HOUR
        expect(yield* guard.hasPassed(after(DAY))).toBe(true)
        expect(yield* guard.hasPassed(after(DAY + 1))).toBe(false)
      })
    )
  )

  it.effect(
    "[15] a clock set back and set right again between two questions is in doubt if somebody looked meanwhile",
    () =>
      guarded((guard, skew) =>
        Effect.gen(function* () {
          const date = DateTime.subtract(TestApp.START, { days: 6 })
          expect(yield* guard.hasPassed(date)).toBe(true)
          skew.offsetMillis = -8 * DAY
          yield* TestClock.adjust("1 hour")
          yield* guard.observe
          skew.offsetMillis = 0
          yield* TestClock.adjust("1 hour")
          // A date that was set meanwhile, a week too early, has not passed.
          expect(yield* guard.hasPassed(date)).toBe(false)
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
          expect(yield* guard.hasPassed(after(offset))).toBe(offset <= 60_000)
        })
      ),
    { fastCheck: { seed: 18, numRuns: 100 } }
  )
})

describe("a reading of the inbox", () => {
  const asks = (guard: ClockGuard.ClockGuard, completeAsOf: Option.Option<DateTime.Utc>, date: DateTime.Utc) =>
    Effect.zipRight(
      guard.seeReading(INSTALLATION, completeAsOf),
      Option.match(completeAsOf, {
        onNone: () => Effect.succeed(false),
        onSome: (asOf) => guard.isReadSince(INSTALLATION, { historyId: 1, date }, GRACE, asOf)
      })
    )

  it.effect.prop(
    "[13] [15] counts only if it began after the date, however often the clock was set ahead and back",
    [
      FastCheck.array(
        FastCheck.record({
          hours: FastCheck.integer({ min: 2, max: 40 }),
          offset: FastCheck.integer({ min: -60, max: 60 }),
          /** Whether the guard hears of the app meanwhile. */
          isAsked: FastCheck.boolean()
        }),
        { minLength: 1, maxLength: 8 }
      ),
      FastCheck.integer({ min: 0, max: 100 }),
      /** What the app says of a time that lies ahead: the time, nothing, or the one before. */
      FastCheck.constantFrom("ahead", "nothing", "before")
    ],
    ([steps, hour, hides]) =>
      guarded((guard, skew) =>
        Effect.gen(function* () {
          const date = after(hour * HOUR)
          const readings: Array<{ readonly began: number; readonly dated: number }> = []
          let counted = 0
          let at = 0
          const pass = (millis: number) =>
            Effect.suspend(() => {
              at += millis
              return TestClock.adjust(millis)
            })
          /** What the app says. By the clock as it was at first the date has passed at the hour. */
          const ask = Effect.gen(function* () {
            const said = readings.findLast(({ dated }) => hides !== "before" || dated <= at + skew.offsetMillis)
            const isHidden = said === undefined || (hides === "nothing" && said.dated > at + skew.offsetMillis)
            const completeAsOf = isHidden ? Option.none() : Option.some(after(said.dated))
            const isAhead = said !== undefined && said.dated > at + skew.offsetMillis
            if (!(yield* asks(guard, completeAsOf, date)) || isAhead || said === undefined) return
            counted += 1
            expect(said.began).toBeGreaterThanOrEqual(hour * HOUR)
          })
          const read = Effect.gen(function* () {
            const reading = { began: at, dated: at + skew.offsetMillis }
            yield* pass(HOUR / 2)
            readings.push(reading)
          })
          for (const { hours, isAsked, offset } of steps) {
            skew.offsetMillis = offset * HOUR
            yield* guard.observe
            yield* read
            for (let hour = 0; hour < hours; hour += 4) {
              yield* pass(4 * HOUR)
              if (isAsked) yield* ask
            }
          }
          // Where the clock goes right it takes no more than two readings of that time.
          for (let day = 0; day < 20; day++) {
            yield* read
            yield* pass(23.5 * HOUR)
            yield* ask
          }
          expect(counted).toBeGreaterThan(0)
        })
      ),
    { fastCheck: { seed: 15, numRuns: 60 } }
  )

  /** A clock that is so many hours ahead for the first hour. A reading at half past bears as much more. */
  const aheadForAnHour = (guard: ClockGuard.ClockGuard, skew: SkewedClock.Skew, hours: number) =>
    Effect.gen(function* () {
      skew.offsetMillis = hours * HOUR
      yield* guard.observe
      yield* TestClock.adjust("1 hour")
      skew.offsetMillis = 0
      yield* guard.observe
    })

  const at = (hours: number) => Option.some(after(hours * HOUR))

  it.effect("[13] [15] that may be dated by a clock since set right counts as the second one", () =>
    guarded((guard, skew) =>
      Effect.gen(function* () {
        const date = after(10 * HOUR)
        yield* aheadForAnHour(guard, skew, 12)
        yield* TestClock.adjust("10 hours")
        // It may have begun within the first hour.
        expect(yield* asks(guard, at(11), date)).toBe(false)
        yield* TestClock.adjust("1 hour")
        expect(yield* asks(guard, at(11), date)).toBe(false)
        yield* TestClock.adjust("30 minutes")
        // Another one, from before the first was last asked for.
        expect(yield* asks(guard, at(11.5), date)).toBe(false)
        yield* TestClock.adjust("30 minutes")
        expect(yield* asks(guard, at(12.75), date)).toBe(true)
        // After all that such a clock can have said, at once.
        yield* TestClock.adjust("2 hours")
        const other = InstallationId.make("22".repeat(32))
        expect(yield* guard.isReadSince(other, { historyId: 1, date }, GRACE, after(13.5 * HOUR))).toBe(true)
      })
    )
  )

  it.effect("[13] [15] does not count when its time comes, where nothing or an older one was said meanwhile", () =>
    Effect.forEach([Option.none(), at(-1)], (meanwhile) =>
      guarded((guard, skew) =>
        Effect.gen(function* () {
          const start = yield* DateTime.now
          const date = DateTime.add(start, { hours: 10 })
          const stale = Option.some(DateTime.add(start, { minutes: 12.5 * 60 }))
          yield* aheadForAnHour(guard, skew, 12)
          for (let hour = 1; hour < 13; hour++) {
            yield* TestClock.adjust("1 hour")
            yield* guard.seeReading(INSTALLATION, meanwhile)
          }
          expect(yield* asks(guard, stale, date)).toBe(false)
        })
      )
    )
  )

  it.effect("[13] [15] does not count when its time comes, where this process has seen it lie ahead, and no step", () =>
    guarded((guard) =>
      Effect.gen(function* () {
        const date = after(10 * HOUR)
        for (let hour = 0; hour < 13; hour++) {
          yield* guard.seeReading(INSTALLATION, at(12.5))
          yield* TestClock.adjust("1 hour")
        }
        expect(yield* asks(guard, at(12.5), date)).toBe(false)
        // The second after it does.
        yield* TestClock.adjust("1 hour")
        expect(yield* asks(guard, at(13.75), date)).toBe(true)
      })
    )
  )

  it.effect("[13] [15] does not count by a clock that was a year ahead, until two readings were made since", () =>
    guarded((guard) =>
      Effect.gen(function* () {
        yield* TestClock.adjust("12 hours")
        yield* guard.seeReading(INSTALLATION, at(365 * 24))
        const counted: Array<boolean> = []
        for (let hour = 13; hour < 17; hour++) {
          yield* TestClock.adjust("1 hour")
          counted.push(yield* asks(guard, at(hour - 0.1), after(10 * HOUR)))
        }
        expect(counted).toEqual([false, true, true, true])
      })
    )
  )

  it.effect("[13] [15] does not count that lasted long, and began before the clock was set right", () =>
    guarded((guard, skew) =>
      Effect.gen(function* () {
        yield* aheadForAnHour(guard, skew, 2)
        yield* TestClock.adjust("65 minutes")
        yield* guard.seeReading(INSTALLATION, at(-1))
        yield* TestClock.adjust("55 minutes")
        expect(yield* asks(guard, at(2.9), after(2 * HOUR))).toBe(false)
      })
    )
  )

  it.effect("[13] [15] does not count by a clock that was set right little by little", () =>
    guarded((guard, skew) =>
      Effect.gen(function* () {
        for (let minute = 1; minute <= 720; minute++) {
          skew.offsetMillis = minute * 60_000
          yield* guard.observe
        }
        for (let minute = 720; minute >= 0; minute--) {
          skew.offsetMillis = minute * 60_000
          yield* guard.observe
        }
        yield* TestClock.adjust("13 hours")
        expect(yield* asks(guard, at(12), after(10 * HOUR))).toBe(false)
      })
    )
  )

  it.effect("[13] [15] does not count for a package of later either, when its time comes after months", () =>
    guarded((guard, skew) =>
      Effect.gen(function* () {
        yield* aheadForAnHour(guard, skew, 100 * 24)
        yield* TestClock.adjust("101 days")
        expect(yield* asks(guard, at(100 * 24 + 0.5), after(90 * DAY))).toBe(false)
      })
    )
  )
})

/** An installation whose first package is in use, and then superseded. */
const superseding = (
  use: (
    guard: ClockGuard.ClockGuard,
    skew: SkewedClock.Skew,
    id: InstallationId,
    /** Supersedes the first package, by a clock that is so far off. Gives the row. */
    supersede: (offMillis?: number) => Effect.Effect<Ledger.Doomed, unknown, KeyPackageStore>,
    /** The guard is shown the ledger. */
    see: Effect.Effect<void, unknown, KeyPackageStore>
  ) => Effect.Effect<void, unknown, KeyPackageStore>
) =>
  guarded((guard, skew) =>
    Effect.gen(function* () {
      const store = yield* KeyPackageStore
      const { installationId } = yield* TestApp.newInstallation
      const rotate = TestApp.withTime(
        rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }),
        "1 second"
      )
      yield* rotate
      const context = yield* Effect.context<Effect.Effect.Context<typeof rotate>>()
      const supersede = (offMillis = 0) =>
        Effect.gen(function* () {
          const other = SkewedClock.skew()
          other.offsetMillis = offMillis
          const fiber = yield* Effect.fork(
            rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }).pipe(
              Effect.provide(SkewedClock.layer(other)),
              Effect.provide(context)
            )
          )
          yield* TestClock.adjust("1 second")
          yield* fiber
          const [first] = (yield* store.getLedger(installationId)).entries
          return first !== undefined && Ledger.isDoomed(first) ? first : yield* Effect.dieMessage("not superseded")
        })
      const see = Effect.flatMap(store.getLedger(installationId), (ledger) => guard.see(installationId, ledger))
      yield* use(guard, skew, installationId, supersede, see)
    })
  ).pipe(Effect.provide(TestApp.layer()))

describe("a row that is in use", () => {
  it.effect("is known from when it was first seen, whatever the wall clock does meanwhile", () =>
    superseding((guard, skew, id, supersede, see) =>
      Effect.gen(function* () {
        expect(yield* guard.hasKnown(id, 1, GRACE)).toBe(false)
        yield* see
        skew.offsetMillis = 400 * DAY
        expect(yield* guard.hasKnown(id, 1, GRACE)).toBe(false)
        yield* TestClock.adjust(Duration.subtract(GRACE, "1 hour"))
        yield* supersede()
        yield* see
        expect(yield* guard.hasKnown(id, 1, GRACE)).toBe(false)
        yield* TestClock.adjust("1 hour")
        expect(yield* guard.hasKnown(id, 1, GRACE)).toBe(true)
        // What superseded it was seen an hour ago.
        expect(yield* guard.hasKnown(id, 2, GRACE)).toBe(false)
      })
    )
  )
})

describe("a row that waits for its date", () => {
  it.effect("has waited when its date has passed, where all clocks agree, also where the guard never saw it", () =>
    superseding((guard, _skew, id, supersede, see) =>
      Effect.gen(function* () {
        yield* see
        const row = yield* supersede()
        yield* TestClock.setTime(DateTime.toEpochMillis(row.deleteAt) - 1)
        expect(yield* guard.hasWaited(id, row, GRACE)).toBe(false)
        yield* TestClock.adjust("1 millis")
        expect(yield* guard.hasWaited(id, row, GRACE)).toBe(true)
        expect(yield* guard.hasWaited(id, { ...row, historyId: Ledger.HistoryId.make(99) }, GRACE)).toBe(true)
      })
    )
  )

  it.effect(
    "[13] [15] does not by a clock that was set months ahead long ago, where another process superseded it",
    () =>
      superseding((guard, skew, id, supersede, see) =>
        Effect.gen(function* () {
          skew.offsetMillis = 174 * DAY
          yield* see
          yield* guard.observe
          yield* TestClock.adjust("30 hours")
          const row = yield* supersede()
          yield* see
          expect(yield* guard.hasWaited(id, row, GRACE)).toBe(false)
          yield* TestClock.adjust("23 hours")
          yield* see
          expect(yield* guard.hasWaited(id, row, GRACE)).toBe(false)
          yield* TestClock.adjust("1 hour")
          expect(yield* guard.hasWaited(id, row, GRACE)).toBe(true)
        })
      )
  )

  it.effect("[13] [15] does not by a clock that was ahead from the beginning, where it was just in use", () =>
    superseding((guard, _skew, id, supersede, see) =>
      Effect.gen(function* () {
        yield* see
        yield* TestClock.adjust("1 hour")
        // The other's clock is right, and this one ten days ahead of it.
        const row = yield* supersede(-10 * DAY)
        yield* see
        expect(yield* guard.hasWaited(id, row, GRACE)).toBe(false)
        yield* TestClock.adjust("22 hours")
        expect(yield* guard.hasWaited(id, row, GRACE)).toBe(false)
        yield* TestClock.adjust("1 hour")
        expect(yield* guard.hasWaited(id, row, GRACE)).toBe(true)
      })
    )
  )

  it.effect("[15] has, whatever the clock has done, when it was known to wait for a whole grace", () =>
    superseding((guard, skew, id, supersede, see) =>
      Effect.gen(function* () {
        const row = yield* supersede(-8 * DAY)
        skew.offsetMillis = -8 * DAY
        yield* guard.observe
        skew.offsetMillis = 0
        yield* see
        yield* TestClock.adjust("23 hours")
        yield* see
        expect(yield* guard.hasWaited(id, row, GRACE)).toBe(false)
        yield* TestClock.adjust("1 hour")
        expect(yield* guard.hasWaited(id, row, GRACE)).toBe(true)
        // Put off meanwhile, as it was served again.
        const putOff = { ...row, deleteAt: DateTime.add(row.deleteAt, { hours: 2 }) }
        yield* guard.see(id, { entries: [putOff], quarantined: [], unreadable: [] })
        expect(yield* guard.hasWaited(id, putOff, GRACE)).toBe(false)
      })
    )
  )

  it.effect("[18] has on a machine that sleeps every night once it was awake for a grace, and never before", () =>
    superseding((guard, skew, id, supersede, see) =>
      Effect.gen(function* () {
        yield* see
        const row = yield* supersede()
        yield* see
        const waited: Array<boolean> = []
        for (let night = 0; night < 3; night++) {
          yield* TestClock.adjust("16 hours")
          skew.offsetMillis += 8 * HOUR
          yield* see
          waited.push(yield* guard.hasWaited(id, row, GRACE))
        }
        // Awake for 16, 32 and 48 hours.
        expect(waited).toEqual([false, true, true])
      })
    )
  )
})
