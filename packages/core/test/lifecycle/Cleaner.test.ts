/** When private keys are erased: every condition, alone, and what happens where it does not hold. */
import { describe, expect, it } from "@effect/vitest"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as Cleaner from "@keyward/core/lifecycle/Cleaner"
import type { ClockGuard } from "@keyward/core/lifecycle/ClockGuard"
import type { Kept } from "@keyward/core/lifecycle/Ledger"
import { LifecycleSettings } from "@keyward/core/lifecycle/LifecycleSettings"
import type { Observation, Served } from "@keyward/core/lifecycle/Reachability"
import { rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import { withLease } from "@keyward/core/lifecycle/UnderLease"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { WelcomeProgress, WelcomeProgressError, type WelcomeProgressReport } from "@keyward/core/ports/WelcomeProgress"
import * as Status from "@keyward/test-utils/devnode/GrpcStatus"
import * as Faults from "@keyward/test-utils/Faults"
import { MemoryKeyPackageStore } from "@keyward/test-utils/MemoryKeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as TestClock from "effect/TestClock"
import * as seenServed from "../../src/internal/seenServed.ts"
import * as TestApp from "./TestApp.ts"
import * as TestGuards from "./TestGuards.ts"

const GRACE = Duration.hours(24)

const rotate = (installationId: InstallationId) =>
  TestApp.withTime(rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }), "1 second")

const history = (id: InstallationId) => Effect.flatMap(KeyPackageStore, (store) => store.getHistory(id))
const ids = (id: InstallationId) => Effect.map(history(id), (rows) => rows.map((row) => row.historyId as number))

/** Three packages: two superseded ones, an hour apart, and the one that is published. */
const threePackages = Effect.gen(function* () {
  yield* TestApp.start
  const { installationId } = yield* TestApp.newInstallation
  for (let count = 0; count < 3; count++) {
    if (count > 0) yield* TestClock.adjust("1 hour")
    yield* rotate(installationId)
  }
  return installationId
})

interface Evidence {
  readonly served?: Served | undefined
  readonly membership?: Observation["membership"] | undefined
  readonly networkTimeAtLeast?: DateTime.Utc | undefined
  readonly guard?: ClockGuard
}

const Nothing: Served = { _tag: "Nothing" }

/** One cleaning, with this evidence. By default the network serves nothing, which keeps nobody from erasing. */
const clean = (
  id: InstallationId,
  { guard = TestGuards.believing, membership = "Member", networkTimeAtLeast, served = Nothing }: Evidence = {}
): Effect.Effect<Cleaner.Cleaned, unknown, KeyPackageStore | WelcomeProgress> =>
  withLease(id, (lease) =>
    Effect.gen(function* () {
      const store = yield* KeyPackageStore
      const installation = Option.getOrThrow(yield* store.getInstallation(id))
      const ledger = yield* store.getLedger(id)
      const observation: Observation = {
        served,
        membership,
        seenAt: yield* DateTime.now,
        networkTimeAtLeast: Option.fromNullable(networkTimeAtLeast)
      }
      return yield* Cleaner.clean(lease, installation, ledger, observation, guard)
    })
  )

const serving = (row: Kept | undefined): Effect.Effect<Served> =>
  row === undefined
    ? Effect.dieMessage("no such row")
    : Effect.map(DateTime.now, (now) => ({ _tag: "Ours", seen: seenServed.issue(row, now), hasKeys: true }))

/** Revoked since the one time, and to be looked at again at the other. */
const lookedAt = (id: InstallationId, revokedAt: DateTime.Utc, probeAt: DateTime.Utc) =>
  Effect.flatMap(KeyPackageStore, (store) =>
    store.modifySchedule(id, (schedule) => ({
      ...schedule,
      revokedAt: Option.some(revokedAt),
      probeAt: Option.some(probeAt)
    }))
  )

/** Knows that the clock has stepped ahead from this time. */
const steppedFrom = (at: DateTime.Utc): ClockGuard => ({
  ...TestGuards.believing,
  hasPassed: (time) => Effect.succeed(DateTime.greaterThanOrEqualTo(at, time))
})

/** The app's reports, as a test says. */
const reporting = (report: () => WelcomeProgressReport) =>
  Effect.provideService(WelcomeProgress, WelcomeProgress.of({ get: () => Effect.sync(() => Option.some(report())) }))

/** To the moment at which the package stops being valid. */
const toExpiry = (row: Kept | undefined) =>
  row === undefined
    ? Effect.dieMessage("no such row")
    : TestClock.setTime(Number(row.keyPackage.lifetime.notAfter) * 1000)

describe("Cleaner", () => {
  it.effect("erases a superseded row at its very date, not a millisecond before, and each in its own right", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      const [first] = yield* history(id)
      if (first?._tag !== "Superseded") return expect.fail("not superseded")
      yield* TestClock.setTime(DateTime.toEpochMillis(first.deleteAt) - 1)
      expect((yield* clean(id)).erased).toBe(0)
      yield* TestClock.adjust("1 millis")
      const { erased, nextAt } = yield* clean(id)
      expect(erased).toBe(1)
      expect(yield* ids(id)).toEqual([2, 3])
      // The second one is due in an hour.
      const [second] = yield* history(id)
      if (second?._tag !== "Superseded") return expect.fail("not superseded")
      expect(nextAt).toEqual(Option.some(second.deleteAt))
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[8] [9] erases exactly the rows that are due, and never all up to the largest id", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      const store = yield* KeyPackageStore
      const [first, second] = yield* history(id)
      if (first?._tag !== "Superseded" || second?._tag !== "Superseded") return expect.fail("not superseded")
      // The first one was seen served again: it is kept for longer than the second one.
      yield* withLease(id, (lease) =>
        Effect.flatMap(DateTime.now, (at) =>
          store.postponeDeletion(lease, seenServed.issue(first, at), {
            at,
            deleteAt: DateTime.addDuration(second.deleteAt, "1 day")
          })
        )
      )
      yield* TestClock.setTime(DateTime.toEpochMillis(second.deleteAt))
      expect((yield* clean(id)).erased).toBe(1)
      expect(yield* ids(id)).toEqual([1, 3])
      expect(yield* store.getPrivateKeys(first.historyId)).toMatchObject(Option.some({}))
      expect(yield* store.getPrivateKeys(second.historyId)).toEqual(Option.none())
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[32] keeps what the network serves, however long its date has passed, up to the hard stop", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      const [first] = yield* history(id)
      const served = yield* serving(first)
      yield* TestClock.adjust("30 days")
      expect((yield* clean(id, { served })).erased).toBe(1)
      expect(yield* ids(id)).toEqual([1, 3])
      yield* toExpiry(first)
      yield* TestClock.adjust("47 hours")
      expect((yield* clean(id, { served })).erased).toBe(0)
      yield* TestClock.adjust("1 hour")
      expect((yield* clean(id, { served })).erased).toBe(1)
      expect(yield* ids(id)).toEqual([3])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[14] waits for a complete reading of the inbox that began at or after the date", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      const [first] = yield* history(id)
      if (first?._tag !== "Superseded") return expect.fail("not superseded")
      let report: WelcomeProgressReport = { completeAsOf: Option.none(), attemptedAt: Option.none() }
      const attempt = Effect.suspend(() => reporting(() => report)(clean(id)))
      yield* TestClock.adjust("3 days")
      expect((yield* attempt).erased).toBe(0)
      report = { ...report, completeAsOf: Option.some(DateTime.subtract(first.deleteAt, { millis: 1 })) }
      expect((yield* attempt).erased).toBe(0)
      report = { ...report, completeAsOf: Option.some(first.deleteAt) }
      expect((yield* attempt).erased).toBe(1)
      expect(yield* ids(id)).toEqual([2, 3])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[13] [14] a reading dated ahead of this clock is none since the date: nobody knows when it began", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      const store = yield* KeyPackageStore
      yield* TestClock.adjust("3 days")
      const installation = Option.getOrThrow(yield* store.getInstallation(id))
      const ledger = yield* store.getLedger(id)
      const now = yield* DateTime.now
      const attempt = (asOf: DateTime.Utc) =>
        reporting(() => ({ completeAsOf: Option.some(asOf), attemptedAt: Option.some(asOf) }))(
          Effect.all([
            Cleaner.isWorthALook(installation, ledger, TestGuards.believing),
            Effect.map(clean(id), ({ erased }) => erased)
          ])
        )
      expect(yield* attempt(DateTime.add(now, { millis: 1 }))).toEqual([false, 0])
      expect(yield* attempt(DateTime.add(now, { days: 3 }))).toEqual([false, 0])
      expect(yield* attempt(now)).toEqual([true, 2])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[57] progress that goes backwards counts: the latest report, not the largest", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      const [first] = yield* history(id)
      if (first?._tag !== "Superseded") return expect.fail("not superseded")
      yield* TestClock.adjust("3 days")
      const complete = (asOf: DateTime.Utc): WelcomeProgressReport => ({
        completeAsOf: Option.some(asOf),
        attemptedAt: Option.some(asOf)
      })
      // It said that all was read, and then came upon a Welcome that it had not handed over after all.
      let report = complete(yield* DateTime.now)
      yield* Effect.suspend(() =>
        reporting(() => report)(
          Effect.gen(function* () {
            const store = yield* KeyPackageStore
            const installation = Option.getOrThrow(yield* store.getInstallation(id))
            const ledger = yield* store.getLedger(id)
            expect(yield* Cleaner.isWorthALook(installation, ledger, TestGuards.believing)).toBe(true)
            report = complete(DateTime.subtract(first.deleteAt, { hours: 1 }))
            expect((yield* clean(id)).erased).toBe(0)
            expect(yield* Cleaner.isWorthALook(installation, ledger, TestGuards.believing)).toBe(false)
          })
        )
      )
      expect(yield* ids(id)).toEqual([1, 2, 3])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("the hard stop ends the wait for a reader, once it has tried in this process, and not before", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      const [, second] = yield* history(id)
      let report: WelcomeProgressReport = { completeAsOf: Option.none(), attemptedAt: Option.none() }
      const attempt = Effect.suspend(() => reporting(() => report)(clean(id)))
      yield* toExpiry(second)
      yield* TestClock.adjust("47 hours")
      report = { ...report, attemptedAt: Option.some(yield* DateTime.now) }
      // Of the first, made an hour before the second, the hard stop has come.
      expect((yield* attempt).erased).toBe(1)
      report = { completeAsOf: Option.none(), attemptedAt: Option.none() }
      yield* TestClock.adjust("61 minutes")
      expect((yield* attempt).erased).toBe(0)
      report = { ...report, attemptedAt: Option.some(yield* DateTime.now) }
      expect((yield* attempt).erased).toBe(1)
      expect(yield* ids(id)).toEqual([3])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("erases nothing while the app cannot say how far it is, also beyond the hard stop", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      yield* TestClock.adjust("200 days")
      const unknown = WelcomeProgress.of({
        get: (installationId) => Effect.fail(new WelcomeProgressError({ installationId }))
      })
      const { erased, nextAt } = yield* Effect.provideService(clean(id), WelcomeProgress, unknown)
      expect(erased).toBe(0)
      expect(nextAt).toEqual(Option.some(DateTime.add(yield* DateTime.now, { hours: 1 })))
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[13] [15] [18] erases nothing by a clock in doubt, whatever the network's own time says of the date", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      const [first] = yield* history(id)
      if (first?._tag !== "Superseded") return expect.fail("not superseded")
      yield* TestClock.adjust("3 days")
      // The date is our clock's, which may have been behind when it was set.
      expect((yield* clean(id, { guard: TestGuards.doubting, networkTimeAtLeast: yield* DateTime.now })).erased).toBe(0)
      expect((yield* clean(id)).erased).toBe(2)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[13] a clock in doubt erases nothing beyond the hard stop either", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      yield* TestClock.adjust("400 days")
      expect((yield* clean(id, { guard: TestGuards.doubting })).erased).toBe(0)
      expect(yield* ids(id)).toEqual([1, 2, 3])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect(
    "[13] [14] a clock that has stepped ahead ends no wait for a reader, whatever has waited long for its date",
    () =>
      Effect.gen(function* () {
        const id = yield* threePackages
        const store = yield* KeyPackageStore
        yield* TestClock.adjust("400 days")
        const installation = Option.getOrThrow(yield* store.getInstallation(id))
        const ledger = yield* store.getLedger(id)
        const now = yield* DateTime.now
        const attempt = (completeAsOf: Option.Option<DateTime.Utc>) =>
          reporting(() => ({ completeAsOf, attemptedAt: Option.some(now) }))(
            Effect.all([
              Cleaner.isWorthALook(installation, ledger, TestGuards.waiting),
              Effect.map(clean(id, { guard: TestGuards.waiting }), ({ erased }) => erased)
            ])
          )
        // The network is asked, as its own time may say that the wait is over.
        expect(yield* attempt(Option.none())).toEqual([true, 0])
        expect(yield* attempt(Option.some(now))).toEqual([true, 2])
      }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[14] a network that is ahead ends no wait for a reader before this clock does", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      yield* TestClock.adjust("2 days")
      const now = yield* DateTime.now
      const ahead = DateTime.add(now, { days: 100 })
      const { erased } = yield* reporting(() => ({ completeAsOf: Option.none(), attemptedAt: Option.some(now) }))(
        clean(id, { networkTimeAtLeast: ahead })
      )
      expect(erased).toBe(0)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[19] the newest published package stays after its end, until the network's own time confirms that", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      const newest = (yield* history(id)).at(-1)
      yield* toExpiry(newest)
      yield* TestClock.adjust("25 hours")
      expect((yield* clean(id)).erased).toBe(2)
      expect(yield* ids(id)).toEqual([3])
      expect(
        (yield* clean(id, { networkTimeAtLeast: DateTime.subtract(yield* DateTime.now, { hours: 2 }) })).erased
      ).toBe(0)
      expect((yield* clean(id, { networkTimeAtLeast: yield* DateTime.now })).erased).toBe(1)
      expect(yield* ids(id)).toEqual([])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[13] the newest package stays beyond the hard stop: nothing has replaced it, so the clock is wrong", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      yield* TestClock.adjust("400 days")
      expect((yield* clean(id)).erased).toBe(2)
      expect(yield* ids(id)).toEqual([3])
      expect((yield* clean(id, { networkTimeAtLeast: yield* DateTime.now })).erased).toBe(1)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect(
    "[13] [28] readBack: nor does the one before it go, which the network may serve until it is superseded",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const { installationId } = yield* TestApp.newInstallation
        yield* rotate(installationId)
        yield* TestClock.adjust("1 hour")
        yield* rotate(installationId)
        const rows = yield* history(installationId)
        expect(rows.map(({ _tag }) => _tag)).toEqual(["Published", "Published"])
        // A process that began under a clock a year ahead sees no step, and believes it.
        yield* TestClock.adjust("365 days")
        expect((yield* clean(installationId, { served: yield* serving(rows[0]) })).erased).toBe(0)
        expect((yield* clean(installationId)).erased).toBe(0)
        expect(yield* ids(installationId)).toEqual([1, 2])
      }).pipe(
        Effect.provide(TestApp.layer()),
        Effect.provideService(LifecycleSettings, { ...LifecycleSettings.defaultValue(), confirmBy: "readBack" })
      )
  )

  it.effect(
    "[13] [53] a package that another process is about to send keeps its keys, however long it seems to have expired",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const { installationId } = yield* TestApp.newInstallation
        yield* faults.enqueue("uploadKeyPackage", Faults.failBeforeSend(Status.invalidArgument("no")))
        yield* Effect.flip(rotate(installationId))
        const [waiting] = yield* history(installationId)
        expect(waiting?._tag).toBe("Exposed")
        yield* TestClock.adjust("400 days")
        const guard: ClockGuard = { ...TestGuards.believing, hasKnown: () => Effect.succeed(false) }
        expect((yield* clean(installationId, { guard })).erased).toBe(0)
        expect(yield* ids(installationId)).toEqual([1])
        // This process has known it for a grace.
        expect((yield* clean(installationId)).erased).toBe(1)
      }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect(
    "[50] the newest package of a revoked installation goes at the hard stop, two graces and a look after the revocation",
    () =>
      Effect.gen(function* () {
        const id = yield* threePackages
        yield* TestClock.adjust("400 days")
        const revokedAt = yield* DateTime.now
        yield* lookedAt(id, revokedAt, DateTime.add(revokedAt, { days: 4 }))
        expect((yield* clean(id, { membership: "Revoked" })).erased).toBe(2)
        yield* TestClock.adjust("71 hours")
        expect((yield* clean(id, { membership: "Revoked" })).erased).toBe(0)
        yield* TestClock.adjust("1 hour")
        // The log names it again, or nobody can read it.
        expect((yield* clean(id, { membership: "Member" })).erased).toBe(0)
        expect((yield* clean(id, { membership: "Unclear" })).erased).toBe(0)
        expect((yield* clean(id, { membership: "Revoked", guard: steppedFrom(revokedAt) })).erased).toBe(0)
        expect((yield* clean(id, { membership: "Revoked" })).erased).toBe(1)
        expect(yield* ids(id)).toEqual([])
      }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect(
    "[13] [50] the time in which nobody looked, by a clock that is months ahead, is no time of a revocation",
    () =>
      Effect.gen(function* () {
        const id = yield* threePackages
        const revokedAt = yield* DateTime.now
        yield* lookedAt(id, revokedAt, DateTime.add(revokedAt, { days: 1 }))
        yield* TestClock.adjust("400 days")
        expect((yield* clean(id, { membership: "Revoked" })).erased).toBe(2)
        expect(yield* ids(id)).toEqual([3])
      }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[65] a row that cannot be read is erased at its own date, without a tombstone", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      const store = yield* KeyPackageStore
      const memory = yield* MemoryKeyPackageStore
      const [first] = yield* history(id)
      if (first?._tag !== "Superseded") return expect.fail("not superseded")
      yield* memory.damage(first.historyId)
      yield* withLease(id, (lease) =>
        Effect.gen(function* () {
          const { unreadable } = yield* store.getLedger(id)
          const at = yield* DateTime.now
          yield* store.quarantine(lease, unreadable, { at, latest: DateTime.add(at, { days: 90 }) })
        })
      )
      yield* TestClock.setTime(DateTime.toEpochMillis(first.deleteAt))
      // Still served: it stays.
      const served: Served = { _tag: "Damaged", historyId: first.historyId }
      expect((yield* clean(id, { served })).erased).toBe(0)
      expect((yield* clean(id)).erased).toBe(1)
      expect(yield* store.getPrivateKeys(first.historyId)).toEqual(Option.none())
      expect(yield* store.getRetired(id)).toEqual([])
      expect((yield* store.getLedger(id)).quarantined).toEqual([])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("leaves tombstones that say why, and drops them after a year", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      const store = yield* KeyPackageStore
      yield* TestClock.adjust("2 days")
      expect((yield* clean(id)).erased).toBe(2)
      expect((yield* store.getRetired(id)).map(({ historyId, reason }) => [historyId, reason])).toEqual([
        [1, "Superseded"],
        [2, "Superseded"]
      ])
      yield* rotate(id)
      yield* TestClock.adjust("366 days")
      expect((yield* clean(id, { networkTimeAtLeast: yield* DateTime.now })).erased).toBe(2)
      expect((yield* store.getRetired(id)).map(({ historyId, reason }) => [historyId, reason])).toEqual([
        [3, "Superseded"],
        [4, "Expired"]
      ])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[76] asks again after the retry, then as long after as it has waited already, within the hour", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      const [first] = yield* history(id)
      if (first?._tag !== "Superseded") return expect.fail("not superseded")
      const served = yield* serving(first)
      yield* TestClock.setTime(DateTime.toEpochMillis(first.deleteAt))
      const waits: Array<number> = []
      for (let times = 0; times < 5; times++) {
        const { nextAt } = yield* clean(id, { served })
        const wait = DateTime.distance(yield* DateTime.now, Option.getOrThrow(nextAt))
        waits.push(wait / 60_000)
        yield* TestClock.adjust(Duration.millis(wait))
      }
      // The fourth time the second row's date is a second ahead: nothing is asked for again before the retry.
      expect(waits).toEqual([15, 15, 30, 15, 60])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("asks again within the retry where a condition does not hold, and within a week where nothing is due", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      const [, second] = yield* history(id)
      if (second?._tag !== "Superseded") return expect.fail("not superseded")
      yield* TestClock.setTime(DateTime.toEpochMillis(second.deleteAt))
      const [first] = yield* history(id)
      const served = yield* serving(first)
      const now = yield* DateTime.now
      const { erased, nextAt } = yield* clean(id, { served })
      // The first one has waited for an hour.
      expect([erased, nextAt]).toEqual([1, Option.some(DateTime.add(now, { hours: 1 }))])
      yield* clean(id)
      const { nextAt: last } = yield* clean(id)
      expect(last).toEqual(Option.some(DateTime.add(now, { days: 7 })))
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("erases nothing under a lease that was lost", () =>
    Effect.gen(function* () {
      const id = yield* threePackages
      yield* TestClock.adjust("2 days")
      const store = yield* KeyPackageStore
      const stale = yield* store.acquireLease(id, { now: yield* DateTime.now, duration: Duration.minutes(1) })
      yield* TestClock.adjust("2 minutes")
      yield* store.acquireLease(id, { now: yield* DateTime.now, duration: Duration.minutes(1) })
      const installation = Option.getOrThrow(yield* store.getInstallation(id))
      const ledger = yield* store.getLedger(id)
      const observation: Observation = {
        served: Nothing,
        membership: "Member",
        seenAt: yield* DateTime.now,
        networkTimeAtLeast: Option.none()
      }
      const error = yield* Effect.flip(Cleaner.clean(stale, installation, ledger, observation, TestGuards.believing))
      expect(error).toMatchObject({ _tag: "LeaseError", reason: "Lost" })
      expect(yield* ids(id)).toEqual([1, 2, 3])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect(
    "the dates: a grace after the lifetime for what is live, two for the hard stop, and none beyond what a date can be",
    () =>
      Effect.gen(function* () {
        const id = yield* threePackages
        const newest = (yield* history(id)).at(-1)
        if (newest === undefined) return expect.fail("no row")
        const end = Number(newest.keyPackage.lifetime.notAfter) * 1000
        expect(DateTime.toEpochMillis(Cleaner.deleteAtOf(newest, GRACE))).toBe(end + 86_400_000)
        expect(DateTime.toEpochMillis(Cleaner.hardStopOf(newest, GRACE))).toBe(end + 2 * 86_400_000)
        const endless = {
          ...newest,
          keyPackage: { ...newest.keyPackage, lifetime: { notBefore: 0n, notAfter: 2n ** 64n - 1n } }
        }
        expect(DateTime.toEpochMillis(Cleaner.hardStopOf(endless, GRACE))).toBeLessThanOrEqual(8.64e15)
      }).pipe(Effect.provide(TestApp.layer()))
  )
})
