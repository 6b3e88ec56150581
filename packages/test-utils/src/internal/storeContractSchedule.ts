/** The store contract: what is due, for whom, and who hears of it. */
import { describe, expect } from "@effect/vitest"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { Installation } from "@keyward/core/lifecycle/Installation"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { type Due, KeyPackageStore, type Reschedule } from "@keyward/core/ports/KeyPackageStore"
import * as Arbitrary from "effect/Arbitrary"
import * as Cause from "effect/Cause"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"
import {
  after,
  conflict,
  expectEqual,
  expose,
  insertAt,
  install,
  intentOf,
  leased,
  lost,
  packageOf,
  prepare,
  publicationAt,
  receiptOf,
  refused,
  reject,
  rejectionAt,
  retirementAt,
  T0,
  type Tools
} from "./storeContractKit.ts"

/** Any schedule at all: also such as no transition would make. */
const anySchedule = Arbitrary.make(Schedule.Schedule)

/** A look at the network at this time, and nothing else. */
const probeAt =
  (at: DateTime.Utc): Reschedule =>
  (schedule) => ({ ...schedule, probeAt: Option.some(at) })

/** Counts the changes. */
const counted: Reschedule = (schedule) => ({
  ...schedule,
  strangers: Option.some({
    count: Option.match(schedule.strangers, { onNone: () => 1, onSome: ({ count }) => count + 1 }),
    seenAt: T0
  })
})

/** Cannot be done. */
const never = (): never => {
  throw new Error("this schedule cannot be changed")
}

const installMany = (count: number, seed: number) =>
  Effect.forEach(Array.from({ length: count }), (_, index) => install(intentOf(seed + index)))

const scheduleOf = (installation: Installation) =>
  Effect.flatMap(KeyPackageStore, (store) => store.getInstallation(installation.installationId)).pipe(
    Effect.map((found) => Option.getOrThrow(found).schedule)
  )

/**
 * Listens from now on. Each run of what it returns answers with the ids heard since the run before: up to that of an
 * installation which is only there to mark the end. Each listener of a test has its `number`.
 */
const listen = (number: number) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const queue = yield* Queue.unbounded<InstallationId>()
    const marks = new Set<InstallationId>()
    const mark = Effect.gen(function* () {
      const { installationId } = yield* install(intentOf(1_000 * number + marks.size))
      marks.add(installationId)
      yield* store.modifySchedule(installationId, probeAt(T0))
      return installationId
    })
    const lowered = yield* store.deadlineLowered
    yield* Effect.forkScoped(Stream.runForEach(lowered, (id) => Queue.offer(queue, id)))
    return Effect.gen(function* () {
      const end = yield* mark
      const heard: Array<InstallationId> = []
      for (let id = yield* Queue.take(queue); id !== end; id = yield* Queue.take(queue)) heard.push(id)
      return heard.filter((id) => !marks.has(id))
    })
  })

export const declare = <R>({ proofs, property, test }: Tools<R>): void => {
  describe("what is due", () => {
    test("is nothing for a new installation, and cannot be changed for an unknown one", () =>
      Effect.gen(function* () {
        const store = yield* KeyPackageStore
        const unknown = store.modifySchedule(intentOf(300).key.installationId, probeAt(T0))
        expect(yield* Effect.flip(unknown)).toMatchObject(conflict)
        const installation = yield* install(intentOf(301))
        expectEqual(installation.schedule, Schedule.empty)
        expect(yield* store.findDue({ now: after("365 days"), limit: 10 })).toEqual([])
        expect(yield* store.nextDueAt(T0)).toEqual(Option.none())
      }))

    property("a schedule comes back as it was written", FastCheck.tuple(anySchedule, anySchedule), ([one, other]) =>
      Effect.gen(function* () {
        const store = yield* KeyPackageStore
        const [first, second] = yield* installMany(2, 302)
        if (first === undefined || second === undefined) return
        expectEqual(yield* store.modifySchedule(first.installationId, () => one), one)
        expectEqual(yield* scheduleOf(first), one)
        expectEqual(yield* store.modifySchedule(second.installationId, () => other), other)
        expectEqual(yield* scheduleOf(first), one)
        const { inboxId } = second
        expectEqual(yield* store.getInstallations(inboxId), [{ ...second, schedule: other }])
        // A change begins with what is there.
        yield* store.modifySchedule(first.installationId, (schedule) => {
          expectEqual(schedule, one)
          return schedule
        })
      })
    )

    test("is answered in whole milliseconds, as it is stored", () =>
      Effect.gen(function* () {
        const { store, installation } = yield* leased(304)
        const at = after(Duration.millis(0.75))
        const request = Schedule.requestRotation("Manual", at, at)
        const answered = yield* store.modifySchedule(installation.installationId, (schedule) =>
          request(probeAt(at)(schedule))
        )
        expectEqual(yield* scheduleOf(installation), answered)
        expect(Option.map(answered.probeAt, (time) => DateTime.toEpochMillis(time) % 1)).toEqual(Option.some(0))
      }))

    test("[54] changes without a lease, while another holds it, and many changes at once are all made", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(305)
        const count = 30
        yield* Effect.forEach(
          Array.from({ length: count }),
          () => store.modifySchedule(installation.installationId, counted),
          { concurrency: "unbounded" }
        )
        const { strangers } = yield* scheduleOf(installation)
        expect(Option.map(strangers, (found) => found.count)).toEqual(Option.some(count))
        yield* store.checkLease(held, T0)
      }))

    test("changes together with the row, or neither does", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(306)
        const id = installation.installationId
        const other = yield* install(intentOf(307))
        const mine = [installation, other]
        const rejected = yield* reject(held, packageOf(installation, 308))
        const exposed = yield* expose(held, packageOf(installation, 309))
        const accepted = yield* expose(held, packageOf(installation, 310))
        const receipt = yield* receiptOf(held, accepted)
        const at = after("2 minutes")
        const writes = (reschedule: Reschedule): ReadonlyArray<Effect.Effect<unknown, unknown>> => [
          store.insertKeyPackageHistory(held, packageOf(installation, 311), { ...insertAt(at), reschedule }),
          store.markRejected(held, exposed, { ...rejectionAt(at), reschedule }),
          store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publicationAt(at, { reschedule })),
          store.retire(held, [proofs.permit(rejected, "Rejected")], { ...retirementAt(at), reschedule })
        ]
        for (const write of [...writes(never), store.modifySchedule(id, never)]) {
          const cause = yield* refused(Effect.sandbox(write), mine)
          expect(Cause.isDie(cause)).toBe(true)
        }
        for (const [index, write] of writes(counted).entries()) {
          yield* write
          const { strangers } = yield* scheduleOf(installation)
          expect(Option.map(strangers, (found) => found.count)).toEqual(Option.some(index + 1))
          expectEqual(yield* scheduleOf(other), Schedule.empty)
        }
      }))
  })

  describe("findDue, findDueAfter and nextDueAt", () => {
    // Deadlines of minutes, days and centuries around now, so that a random one is as often due as not.
    const deadline = FastCheck.oneof(
      FastCheck.integer({ min: -300, max: 300 }),
      FastCheck.integer({ min: -300 * 86_400, max: 300 * 86_400 }),
      FastCheck.constantFrom(0, 1, 200 * 86_400, 200 * 86_400 + 1, 10_000 * 86_400)
    ).map((seconds) => DateTime.add(T0, { seconds }))
    const schedules = FastCheck.array(
      FastCheck.record({
        rotateAt: FastCheck.option(deadline).map(Option.fromNullable),
        probeAt: FastCheck.option(deadline).map(Option.fromNullable),
        cleanAt: FastCheck.option(deadline).map(Option.fromNullable),
        revokedAt: FastCheck.option(deadline, { freq: 5 }).map(Option.fromNullable)
      }).map((times): Schedule.Schedule => ({ ...Schedule.empty, ...times })),
      { maxLength: 8 }
    )

    property(
      "[77] they find what the schedules say, those due longest first",
      FastCheck.tuple(schedules, FastCheck.nat(9), FastCheck.nat(8)),
      ([schedules, limit, left]) =>
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const installations = yield* installMany(schedules.length, 320)
          const ids = installations.map(({ installationId }) => installationId)
          for (const [index, id] of ids.entries()) {
            yield* store.modifySchedule(id, () => schedules[index] ?? Schedule.empty)
          }
          const except = new Set(ids.slice(0, left % (ids.length + 1)))
          const due = ids.flatMap((installationId, index) => {
            const dueAt = Schedule.dueAt(schedules[index] ?? Schedule.empty)
            return Schedule.isDue(dueAt, T0) ? [{ installationId, dueAt: Option.getOrThrow(dueAt) }] : []
          })
          const byTime = (found: ReadonlyArray<Due>) => found.map(({ dueAt }) => DateTime.toEpochMillis(dueAt))
          const all = yield* store.findDue({ now: T0, limit: 100 })
          expect(byTime(all)).toEqual(byTime(due).sort((a, b) => a - b))
          expectEqual(new Map(all.map(({ dueAt, installationId }) => [installationId, dueAt])).size, due.length)
          for (const { dueAt, installationId } of all) {
            expectEqual(dueAt, due.find((other) => other.installationId === installationId)?.dueAt)
          }
          const others = all.filter(({ installationId }) => !except.has(installationId))
          const some = yield* store.findDue({ now: T0, limit, except })
          expect(byTime(some)).toEqual(byTime(others).slice(0, limit))
          expect(some.some(({ installationId }) => except.has(installationId))).toBe(false)

          for (const days of [-10_000, -1, 0, 1, 200]) {
            const time = DateTime.add(T0, { days })
            const after = schedules.flatMap((schedule, index) =>
              Option.toArray(Schedule.dueAt(schedule))
                .filter((dueAt) => DateTime.greaterThan(dueAt, time))
                .map((dueAt) => `${ids[index]} ${DateTime.formatIso(dueAt)}`)
            )
            const found = yield* store.findDueAfter(time)
            expect(found.map((one) => `${one.installationId} ${DateTime.formatIso(one.dueAt)}`).sort()).toEqual(
              after.sort()
            )
          }

          const later = schedules
            .flatMap((schedule) => Option.toArray(Schedule.dueAt(schedule)))
            .filter((at) => DateTime.greaterThan(at, T0) && !Schedule.isDue(Option.some(at), T0))
          if (later.length > 0) {
            expectEqual(yield* store.nextDueAt(T0), Option.some(later.reduce((a, b) => DateTime.min(a, b))))
          }
        })
    )

    test("[21] a deadline is due at its very instant, and next until then", () =>
      Effect.gen(function* () {
        const { store, installation } = yield* leased(330)
        const { installationId } = installation
        const dueAt = after("1 hour")
        yield* store.modifySchedule(installationId, probeAt(dueAt))
        const before = DateTime.subtract(dueAt, { millis: 1 })
        expect(yield* store.findDue({ now: before, limit: 1 })).toEqual([])
        expectEqual(yield* store.nextDueAt(before), Option.some(dueAt))
        expectEqual(yield* store.findDue({ now: dueAt, limit: 1 }), [{ installationId, dueAt }])
        expectEqual(yield* store.nextDueAt(dueAt), Option.none())
      }))

    test("[15] a deadline from a clock that was ahead is due now", () =>
      Effect.gen(function* () {
        const { store, installation } = yield* leased(331)
        const { installationId } = installation
        const dueAt = DateTime.add(DateTime.addDuration(T0, Schedule.MAX_SPAN), { millis: 1 })
        yield* store.modifySchedule(installationId, probeAt(dueAt))
        expectEqual(yield* store.findDue({ now: T0, limit: 1 }), [{ installationId, dueAt }])
        expect(yield* store.findDue({ now: after("1 millis"), limit: 1 })).toEqual([])
      }))

    test("a deadline that is over is due no more", () =>
      Effect.gen(function* () {
        const { store, installation } = yield* leased(332)
        const { installationId } = installation
        yield* store.modifySchedule(installationId, Schedule.requestRotation("Manual", T0, T0))
        expect(yield* store.findDue({ now: T0, limit: 1 })).toHaveLength(1)
        yield* store.modifySchedule(installationId, () => Schedule.empty)
        expect(yield* store.findDue({ now: T0, limit: 1 })).toEqual([])
      }))
  })

  describe("deadlineLowered", () => {
    test("tells of a deadline that was lowered, and of no other change", () =>
      Effect.gen(function* () {
        const { store, installation } = yield* leased(340)
        const other = yield* install(intentOf(341))
        const { installationId: id } = installation
        const heard = yield* listen(9)
        const steps: ReadonlyArray<readonly [Reschedule, boolean]> = [
          [probeAt(after("2 hours")), true],
          [probeAt(after("2 hours")), false],
          [probeAt(after("3 hours")), false],
          [(schedule) => ({ ...schedule, cleanAt: Option.some(after("4 hours")) }), false],
          [Schedule.requestRotation("Queued", T0, after("1 hour")), true],
          [(schedule) => ({ ...schedule, revokedAt: Option.some(T0) }), false],
          [(schedule) => ({ ...schedule, revokedAt: Option.none() }), true],
          [() => Schedule.empty, false],
          [(schedule) => schedule, false],
          [probeAt(after("1000 days")), true]
        ]
        for (const [reschedule, isLowered] of steps) {
          yield* store.modifySchedule(id, reschedule)
          expect(yield* heard).toEqual(isLowered ? [id] : [])
        }
        yield* store.modifySchedule(other.installationId, probeAt(T0))
        yield* store.modifySchedule(id, probeAt(T0))
        expect(yield* heard).toEqual([other.installationId, id])
      }))

    test("tells of it whatever write lowered it", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(342)
        const { installationId: id } = installation
        const heard = yield* listen(9)
        const at = after("2 minutes")
        const rejected = yield* reject(held, packageOf(installation, 343))
        const exposed = yield* expose(held, packageOf(installation, 344))
        const accepted = yield* expose(held, packageOf(installation, 345))
        const receipt = yield* receiptOf(held, accepted)
        expect(yield* heard).toEqual([])
        const writes = (reschedule: Reschedule): ReadonlyArray<Effect.Effect<unknown, unknown>> => [
          store.insertKeyPackageHistory(held, packageOf(installation, 346), { ...insertAt(at), reschedule }),
          store.markRejected(held, exposed, { ...rejectionAt(at), reschedule }),
          store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publicationAt(at, { reschedule })),
          store.retire(held, [proofs.permit(rejected, "Rejected")], { ...retirementAt(at), reschedule })
        ]
        const earlier: Reschedule = (schedule) => {
          const dueAt = Option.getOrElse(Schedule.dueAt(schedule), () => after("10 days"))
          return probeAt(DateTime.subtract(dueAt, { hours: 1 }))(schedule)
        }
        for (const write of writes(earlier)) {
          yield* write
          expect(yield* heard).toEqual([id])
        }
      }))

    test("tells of nothing that was not written", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(347)
        const heard = yield* listen(9)
        const generated = packageOf(installation, 348)
        yield* prepare(held, generated)
        const options = { ...insertAt(T0), reschedule: probeAt(T0) }
        const twice = store.insertKeyPackageHistory(held, generated, options)
        expect(yield* Effect.flip(twice)).toMatchObject(conflict)
        yield* store.releaseLease(held)
        const late = store.insertKeyPackageHistory(held, packageOf(installation, 349), options)
        expect(yield* Effect.flip(late)).toMatchObject(lost)
        expect(yield* heard).toEqual([])
      }))

    test("tells everyone who listens, from the moment of asking, and nobody of what was before", () =>
      Effect.gen(function* () {
        const { store, installation } = yield* leased(350)
        const { installationId: id } = installation
        yield* store.modifySchedule(id, probeAt(after("2 hours")))
        const first = yield* listen(8)
        const second = yield* listen(9)
        yield* store.modifySchedule(id, probeAt(after("1 hour")))
        expect(yield* second).toEqual([id])
        expect((yield* first).filter((heard) => heard === id)).toEqual([id])
      }))

    test("misses nothing between the asking and the listening", () =>
      Effect.gen(function* () {
        const { store, installation } = yield* leased(351)
        const { installationId: id } = installation
        const lowered = yield* store.deadlineLowered
        for (const hours of [3, 2, 1]) {
          yield* store.modifySchedule(id, probeAt(DateTime.add(T0, { hours })))
          yield* Effect.yieldNow()
        }
        const heard = yield* Stream.runCollect(Stream.take(lowered, 3))
        expect([...heard]).toEqual([id, id, id])
      }))
  })
}
