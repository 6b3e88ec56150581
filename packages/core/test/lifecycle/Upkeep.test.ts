/** What one upkeep does about what it finds, and how often. */
import { describe, expect, it } from "@effect/vitest"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import { PROFILE_VERSION } from "@keyward/core/keypackage/Profile"
import { revokeInstallations } from "@keyward/core/lifecycle/IdentityOperations"
import {
  generateAndStoreKeyPackage,
  queueKeyRotation,
  queueKeyRotationAfterWelcome,
  rotateAndUploadKeyPackage
} from "@keyward/core/lifecycle/Rotation"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { withLease } from "@keyward/core/lifecycle/UnderLease"
import { upkeep } from "@keyward/core/lifecycle/Upkeep"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { Signer } from "@keyward/core/ports/Signer"
import { WelcomeProgress } from "@keyward/core/ports/WelcomeProgress"
import * as Status from "@keyward/test-utils/devnode/GrpcStatus"
import * as NodeState from "@keyward/test-utils/devnode/NodeState"
import * as Faults from "@keyward/test-utils/Faults"
import { MemoryKeyPackageStore } from "@keyward/test-utils/MemoryKeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as TestClock from "effect/TestClock"
import { signerOf, wallet as walletOf } from "../identity/fixtures.ts"
import * as App from "./SchedulerApp.ts"
import * as TestApp from "./TestApp.ts"
import * as TestGuards from "./TestGuards.ts"

const guard = TestGuards.believing

/** One upkeep with a look at the network. */
const look = (id: InstallationId.InstallationId, insist = false) =>
  TestApp.withTime(upkeep(id, { guard, look: true, insist }), "1 second")

/** One upkeep as the scheduler does it: what is due, and no more. */
const tend = (id: InstallationId.InstallationId) => TestApp.withTime(upkeep(id, { guard, look: false }), "1 second")

/** The owner of the inbox revokes the installation. */
const revoke = (id: InstallationId.InstallationId) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const { inboxId } = Option.getOrThrow(yield* store.getInstallation(id))
    yield* TestApp.withTime(revokeInstallations({ inboxId, installationIds: [id] }), "1 second")
  }).pipe(Effect.provideService(Signer, signerOf(walletOf("11".repeat(32)))))

const rotate = (installationId: InstallationId.InstallationId) =>
  TestApp.withTime(rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }), "1 second")

const uploads = Effect.flatMap(Faults.Faults, (faults) => faults.callsOf("uploadKeyPackage"))

const scheduleOf = (id: InstallationId.InstallationId) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    return Option.getOrThrow(yield* store.getInstallation(id)).schedule
  })

/** The network serves these bytes, or nothing, judged by nobody. */
const serve = (id: InstallationId.InstallationId, bytes: Uint8Array | undefined) =>
  Effect.flatMap(NodeState.NodeState, ({ keyPackages }) => {
    const key = InstallationId.toPublicKey(id)
    return bytes === undefined ? keyPackages.remove(key) : keyPackages.put(key, bytes)
  })

/** A package of another copy of the store was seen so long ago, and answered with one of ours; now another of its packages is served. */
const cloned = (ago: Duration.DurationInput) =>
  Effect.gen(function* () {
    const memory = yield* MemoryKeyPackageStore
    const store = yield* KeyPackageStore
    const id = yield* App.register()
    const copy = yield* memory.snapshot
    yield* rotate(id)
    const unknown = (yield* App.history(id)).at(-1)?.keyPackage.bytes
    yield* memory.restore(copy)
    const seenAt = DateTime.subtractDuration(yield* DateTime.now, ago)
    yield* store.modifySchedule(id, (schedule) => ({ ...schedule, strangers: Option.some({ count: 1, seenAt }) }))
    yield* rotate(id)
    yield* serve(id, unknown)
    return { id, seenAt }
  })

describe("Upkeep", () => {
  it.scoped("[25] a node that accepts and forgets gets the same package again, ever more slowly and for ever", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      yield* App.startScheduler()
      yield* faults.clearCalls
      // Whatever it accepts is gone a minute later.
      for (let minute = 0; minute < 24 * 60; minute++) {
        yield* TestClock.adjust("1 minute")
        yield* serve(id, undefined)
      }
      const calls = yield* uploads
      expect(new Set(calls.map((call) => Buffer.from(call.request).toString("hex"))).size).toBe(1)
      // The first look is a day later at most, and from then on every hour.
      expect(calls.length).toBeLessThanOrEqual(24 + 8)
      expect(yield* App.states(id)).toEqual(["Published"])
      // The last look may have come just before it forgot: the next one is a day later then.
      yield* TestClock.adjust("1 day")
      expect(yield* App.servedRow(id)).toMatchObject({ historyId: 1 })
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[25] [27] bytes that the network once accepted and now refuses are sent once, and then new ones", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      const events = yield* App.recordEvents
      const [first] = yield* App.history(id)
      const old = Buffer.from(first?.keyPackage.bytes ?? []).toString("hex")
      yield* serve(id, undefined)
      yield* faults.clearCalls
      yield* faults.setRule(({ method, request }) =>
        method === "uploadKeyPackage" && Buffer.from(request).toString("hex").includes(old)
          ? Option.some(Faults.failBeforeSend(Status.invalidArgument("not this one")))
          : Option.none()
      )
      yield* App.startScheduler()
      yield* TestClock.adjust("1 day")
      expect((yield* uploads).length).toBe(2)
      expect(yield* App.servedRow(id)).toMatchObject({ historyId: 2, trigger: "Repair" })
      expect(yield* events.tags).toContain("UploadFailed")
      yield* TestClock.adjust("2 days")
      expect(yield* App.states(id)).toEqual(["Published"])
      expect((yield* uploads).length).toBe(2)
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[27] a network that has lost our package and refuses all gets one new package, ever more slowly", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      yield* serve(id, undefined)
      yield* faults.clearCalls
      yield* faults.setRule(({ method }) =>
        method === "uploadKeyPackage" ? Option.some(Faults.failBeforeSend(Status.invalidArgument("no"))) : Option.none()
      )
      yield* App.startScheduler()
      yield* TestClock.adjust("4 days")
      const sent = (yield* uploads).map(({ request }) => Buffer.from(request).toString("hex"))
      // The old bytes once, the new ones after 1 h doubling to 24 h.
      expect(sent.filter((bytes) => bytes === sent[0])).toHaveLength(1)
      expect(new Set(sent).size).toBe(2)
      expect(sent.length).toBeLessThanOrEqual(1 + 9)
      expect(yield* App.states(id)).toEqual(["Published", "Exposed"])
      expect((yield* scheduleOf(id)).failures).toMatchObject(
        Option.some({ detail: expect.stringContaining("Invalid") })
      )
      // It comes to its senses: reachable within a day.
      yield* faults.clear
      yield* TestClock.adjust("1 day")
      expect(yield* App.servedRow(id)).toMatchObject({ historyId: 2, _tag: "Published" })
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[25] repairs once within the wait, at once on request, and says what it found once", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      const events = yield* App.recordEvents
      yield* faults.clearCalls
      for (let times = 0; times < 5; times++) {
        yield* serve(id, undefined)
        const { reachability } = yield* look(id)
        expect(reachability).toMatchObject(Option.some({ _tag: "ServesNothing" }))
      }
      expect((yield* uploads).length).toBe(1)
      yield* look(id, true)
      expect((yield* uploads).length).toBe(2)
      yield* look(id)
      expect((yield* events.tags).filter((tag) => tag === "Unreachable" || tag === "Repaired")).toEqual([
        "Unreachable",
        "Repaired"
      ])
      expect(yield* scheduleOf(id)).toMatchObject({ unreachable: Option.none(), probeFailures: Option.none() })
    }).pipe(Effect.scoped, Effect.provide(App.layer()))
  )

  it.effect(
    "[32] an older package that is served keeps its keys a grace from then on, and never past its hard stop",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const id = yield* App.register()
        yield* rotate(id)
        const [first] = yield* App.history(id)
        if (first?._tag !== "Superseded") return expect.fail("not superseded")
        yield* TestClock.adjust("20 hours")
        yield* serve(id, first.keyPackage.bytes)
        const now = yield* DateTime.now
        yield* look(id)
        const [kept] = yield* App.history(id)
        if (kept?._tag !== "Superseded") return expect.fail("not superseded")
        expect(kept.deleteAt).toEqual(DateTime.add(now, { hours: 24 }))
        expect(yield* App.servedRow(id)).toMatchObject({ historyId: 2 })
        // A day before the hard stop, a grace is cut short by it.
        const end = Number(first.keyPackage.lifetime.notAfter) * 1000
        yield* TestClock.setTime(end + 30 * 3_600_000)
        yield* serve(id, first.keyPackage.bytes)
        yield* TestApp.withTime(
          upkeep(id, {
            guard: { ...guard, hasPassed: () => Effect.succeed(false), hasWaited: () => Effect.succeed(false) },
            look: true
          }),
          "1 second"
        )
        const [last] = yield* App.history(id)
        if (last?._tag !== "Superseded") return expect.fail("not superseded")
        expect(DateTime.toEpochMillis(last.deleteAt)).toBe(end + 48 * 3_600_000)
      }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[66] where keys are lost again and again, repairs make no more than three packages an hour", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const memory = yield* MemoryKeyPackageStore
      const id = yield* App.register()
      for (let times = 0; times < 10; times++) {
        const newest = (yield* App.history(id)).at(-1)
        if (newest === undefined) return expect.fail("no row")
        yield* memory.loseKeys(newest.historyId)
        yield* look(id)
        yield* TestClock.adjust("1 minute")
      }
      const repairs = () => Effect.map(App.history(id), (rows) => rows.filter((row) => row.trigger === "Repair").length)
      expect(yield* repairs()).toBe(3)
      yield* TestClock.adjust("1 hour")
      yield* look(id)
      expect(yield* repairs()).toBe(4)
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[28] readBack: a network that lags keeps the old package live, until it shows the new one", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      const [first] = yield* App.history(id)
      yield* rotate(id)
      const newest = (yield* App.history(id)).at(-1)
      yield* serve(id, first?.keyPackage.bytes)
      expect(yield* App.states(id)).toEqual(["Published", "Published"])
      yield* App.startScheduler()
      yield* TestClock.adjust("5 minutes")
      expect(yield* App.states(id)).toEqual(["Published", "Published"])
      yield* serve(id, newest?.keyPackage.bytes)
      yield* TestClock.adjust("11 seconds")
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
      expect((yield* scheduleOf(id)).confirmation).toEqual(Option.none())
    }).pipe(Effect.scoped, App.withSettings({ confirmBy: "readBack" }), Effect.provide(App.layer()))
  )

  it.effect("[28] readBack: a network that never shows it is repaired when the time for that is over", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      const [first] = yield* App.history(id)
      yield* rotate(id)
      yield* serve(id, first?.keyPackage.bytes)
      yield* faults.clearCalls
      yield* App.startScheduler()
      yield* TestClock.adjust("9 minutes")
      expect((yield* uploads).length).toBe(0)
      yield* TestClock.adjust("10 minutes")
      expect((yield* uploads).length).toBe(1)
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
    }).pipe(Effect.scoped, App.withSettings({ confirmBy: "readBack" }), Effect.provide(App.layer()))
  )

  it.effect("[15] [28] readBack: a clock that was set back does not make the wait for a confirmation one of days", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const id = yield* App.register()
      const [first] = yield* App.history(id)
      yield* rotate(id)
      yield* serve(id, first?.keyPackage.bytes)
      // As it stands where the clock was two days ahead when the package was sent.
      const until = DateTime.add(yield* DateTime.now, { days: 2 })
      yield* store.modifySchedule(id, (schedule) => ({
        ...schedule,
        confirmation: Option.map(schedule.confirmation, (waiting) => ({ ...waiting, until }))
      }))
      yield* App.startScheduler()
      yield* TestClock.adjust("9 minutes")
      expect((yield* scheduleOf(id)).confirmation).toMatchObject(Option.some({}))
      yield* TestClock.adjust("10 minutes")
      expect((yield* scheduleOf(id)).confirmation).toEqual(Option.none())
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
    }).pipe(Effect.scoped, App.withSettings({ confirmBy: "readBack" }), Effect.provide(App.layer()))
  )

  for (const [title, before] of [
    ["nothing", () => undefined],
    ["a package that this store never made", (other: Uint8Array | undefined) => other]
  ] as const) {
    it.effect(`[28] readBack: a network that serves ${title} yet is waited for, and nothing is sent again`, () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const memory = yield* MemoryKeyPackageStore
        const id = yield* App.register()
        const copy = yield* memory.snapshot
        yield* rotate(id)
        const unknown = (yield* App.history(id)).at(-1)?.keyPackage.bytes
        // The store is an older copy from now on: what it made since is unknown to it.
        yield* memory.restore(copy)
        yield* rotate(id)
        const newest = (yield* App.history(id)).at(-1)?.keyPackage.bytes
        yield* serve(id, before(unknown))
        yield* faults.clearCalls
        yield* App.startScheduler()
        yield* TestClock.adjust("5 minutes")
        yield* serve(id, newest)
        yield* TestClock.adjust("11 seconds")
        expect((yield* uploads).length).toBe(0)
        expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
        expect(yield* scheduleOf(id)).toMatchObject({ confirmation: Option.none(), unreachable: Option.none() })
      }).pipe(Effect.scoped, App.withSettings({ confirmBy: "readBack" }), Effect.provide(App.layer()))
    )
  }

  it.effect(
    "[28] [32] readBack: an older package that is served while a new one is awaited keeps its keys a grace from then on",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const id = yield* App.register()
        yield* rotate(id)
        yield* look(id)
        const [first] = yield* App.history(id)
        if (first?._tag !== "Superseded") return expect.fail("not superseded")
        yield* TestClock.setTime(DateTime.toEpochMillis(first.deleteAt) - 300_000)
        yield* rotate(id)
        yield* serve(id, first.keyPackage.bytes)
        const now = yield* DateTime.now
        const { reachability } = yield* look(id)
        expect(reachability).toMatchObject(Option.some({ _tag: "AwaitingConfirmation" }))
        const [kept] = yield* App.history(id)
        expect(kept).toMatchObject({ _tag: "Superseded", deleteAt: DateTime.add(now, { hours: 24 }) })
      }).pipe(App.withSettings({ confirmBy: "readBack" }), Effect.provide(App.layer()))
  )

  it.effect("[28] readBack: a look that was due is over once it has found the confirmation outstanding", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      const [first] = yield* App.history(id)
      const probeAt = Option.getOrThrow((yield* scheduleOf(id)).probeAt)
      // A minute before the next look a rotation happens, which the network does not show yet when the look is due.
      yield* TestClock.setTime(DateTime.toEpochMillis(probeAt) - 60_000)
      yield* rotate(id)
      yield* serve(id, first?.keyPackage.bytes)
      yield* TestClock.adjust("90 seconds")
      const { reachability } = yield* tend(id)
      expect(reachability).toMatchObject(Option.some({ _tag: "AwaitingConfirmation" }))
      expect(Schedule.isDue(Schedule.dueAt(yield* scheduleOf(id)), yield* DateTime.now)).toBe(false)
    }).pipe(App.withSettings({ confirmBy: "readBack" }), Effect.provide(App.layer()))
  )

  it.effect("[60] a wish for another kind of package is granted by the scheduler, once", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const id = yield* App.register()
      const wish = (includePostQuantum: boolean) =>
        store.modifySchedule(id, (known) => ({
          ...known,
          wanted: Option.map(known.wanted, (wanted) => ({
            ...wanted,
            includePostQuantum,
            version: wanted.version + 1
          }))
        }))
      yield* wish(true)
      yield* look(id)
      yield* tend(id)
      const newest = (yield* App.history(id)).at(-1)
      expect(newest).toMatchObject({ historyId: 2, trigger: "Profile", _tag: "Published" })
      expect(Option.isSome(newest?.keyPackage.postQuantumKey ?? Option.none())).toBe(true)
      yield* look(id)
      yield* tend(id)
      expect((yield* App.history(id)).length).toBe(2)
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect(
    "[60] of two releases on one store, the older one neither replaces the newer one's package nor takes its wish back",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const store = yield* KeyPackageStore
        const id = yield* App.register()
        // A newer release has published with a profile that this one does not know.
        yield* store.modifySchedule(id, (known) => ({
          ...known,
          wanted: Option.some({ includePostQuantum: true, version: 7, profileVersion: PROFILE_VERSION + 1 })
        }))
        yield* look(id)
        yield* tend(id)
        expect((yield* App.history(id)).length).toBe(1)
        // It still rotates when it has to, and leaves the newer release's version in place.
        yield* queueKeyRotation(id)
        yield* TestClock.adjust("10 seconds")
        yield* tend(id)
        expect((yield* App.history(id)).length).toBe(2)
        expect((yield* scheduleOf(id)).wanted).toMatchObject(
          Option.some({ includePostQuantum: true, version: 7, profileVersion: PROFILE_VERSION + 1 })
        )
      }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[60] a newer release replaces an older one's package, once", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const id = yield* App.register()
      yield* store.modifySchedule(id, (known) => ({
        ...known,
        wanted: Option.map(known.wanted, (wanted) => ({ ...wanted, profileVersion: PROFILE_VERSION - 1 }))
      }))
      yield* look(id)
      yield* tend(id)
      expect((yield* App.history(id)).at(-1)).toMatchObject({ historyId: 2, trigger: "Profile" })
      yield* look(id)
      yield* tend(id)
      expect((yield* App.history(id)).length).toBe(2)
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[56] revoked while it rotates: the rotation ends, and nothing is rotated from then on", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      yield* faults.enqueue("uploadKeyPackage", Faults.delay("5 seconds"))
      const rotation = yield* Effect.fork(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false }))
      yield* TestClock.adjust("1 second")
      yield* revoke(id)
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(rotation)
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])

      yield* App.startScheduler()
      yield* TestClock.adjust("2 days")
      expect(Option.isSome((yield* scheduleOf(id)).revokedAt)).toBe(true)
      yield* faults.clearCalls
      yield* queueKeyRotation(id)
      yield* TestClock.adjust("60 days")
      expect((yield* uploads).length).toBe(0)
      // The rows keep their dates, and looks go on, once a day.
      const looks = (yield* faults.callsOf("fetchKeyPackages")).length
      expect(looks).toBeGreaterThanOrEqual(50)
      expect(looks).toBeLessThanOrEqual(150)
      expect(yield* App.states(id)).toEqual(["Published"])
    }).pipe(Effect.scoped, Effect.provide(App.layer()))
  )

  it.effect("[56] readBack: revoked before its publication was confirmed, it is looked at once a day", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      yield* rotate(id)
      yield* revoke(id)
      yield* App.startScheduler()
      yield* TestClock.adjust("6 hours")
      yield* faults.clearCalls
      yield* TestClock.adjust("2 days")
      const looks = (yield* faults.callsOf("fetchKeyPackages")).length
      expect(looks).toBeGreaterThanOrEqual(2)
      expect(looks).toBeLessThanOrEqual(6)
    }).pipe(Effect.scoped, App.withSettings({ confirmBy: "readBack" }), Effect.provide(App.layer()))
  )

  it.effect(
    "readBack: where a clone is suspected, no confirmation is waited for, and the next look is with the next repair",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const { id, seenAt } = yield* cloned("0 seconds")
        yield* TestClock.adjust("20 minutes")
        const { reachability } = yield* look(id)
        expect(reachability).toMatchObject(Option.some({ _tag: "CloneSuspected" }))
        const schedule = yield* scheduleOf(id)
        expect(schedule.confirmation).toEqual(Option.none())
        expect(Schedule.dueAt(schedule)).toEqual(Option.some(DateTime.add(seenAt, { days: 1 })))
      }).pipe(App.withSettings({ confirmBy: "readBack" }), Effect.provide(App.layer()))
  )

  it.scoped(
    "[70] a clone that was answered with a package of ours, and is gone, is suspected no longer soon after",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const { id } = yield* cloned("2 days")
        const { published, reachability } = yield* look(id)
        expect(reachability).toMatchObject(Option.some({ _tag: "CloneSuspected" }))
        expect(Option.isSome(published)).toBe(true)
        expect(Option.isSome((yield* scheduleOf(id)).unreachable)).toBe(true)
        yield* App.startScheduler()
        yield* TestClock.adjust("10 minutes")
        expect((yield* scheduleOf(id)).unreachable).toEqual(Option.none())
        expect(Option.map((yield* scheduleOf(id)).strangers, ({ count }) => count)).toEqual(Option.some(2))
      }).pipe(Effect.provide(App.layer()))
  )

  it.effect.each([
    { before: false, now: false },
    { before: true, now: false },
    { before: false, now: true }
  ])(
    "[65] a package that waits to be sent is sent, also where the schedule that said so was lost: %o",
    (isPostQuantum) =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const store = yield* KeyPackageStore
        const id = yield* App.register({ includePostQuantum: isPostQuantum.before })
        yield* faults.setRule(({ method }) =>
          method === "uploadKeyPackage" ? Option.some(Faults.failBeforeSend(Status.unavailable("away"))) : Option.none()
        )
        const failing = rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: isPostQuantum.now })
        yield* Effect.flip(TestApp.withTime(failing, "10 minutes"))
        yield* faults.clear
        const waiting = (yield* App.history(id)).at(-1)
        expect(waiting?._tag).toBe("Exposed")
        yield* store.modifySchedule(id, () => Schedule.lost)
        yield* tend(id)
        expect(yield* App.servedRow(id)).toMatchObject({ _tag: "Published", historyId: waiting?.historyId })
        expect((yield* App.history(id)).length).toBe(2)
      }).pipe(Effect.provide(App.layer()))
  )

  it.effect.each([
    { why: "whose lifetime has yet to begin", madeAhead: "5 hours", sinceMade: "0 seconds" },
    { why: "of which too little is left", madeAhead: "0 seconds", sinceMade: "80 days" }
  ] as const)(
    "[13] [65] a package that waits, and that cannot be sent, is replaced where the schedule that said so was lost: one $why",
    ({ madeAhead, sinceMade }) =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const store = yield* KeyPackageStore
        const id = yield* App.register()
        yield* faults.setRule(({ method }) =>
          method === "uploadKeyPackage" ? Option.some(Faults.failBeforeSend(Status.unavailable("away"))) : Option.none()
        )
        const start = yield* DateTime.now
        yield* TestClock.adjust(madeAhead)
        const failing = rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false })
        yield* Effect.flip(TestApp.withTime(failing, "10 minutes"))
        yield* faults.clear
        const waiting = (yield* App.history(id)).at(-1)
        expect(waiting?._tag).toBe("Exposed")
        yield* TestClock.setTime(DateTime.addDuration(start, sinceMade).epochMillis)
        yield* store.modifySchedule(id, () => Schedule.lost)
        yield* tend(id)
        expect(yield* App.servedRow(id)).toMatchObject({ _tag: "Published", historyId: 3, trigger: "Repair" })
        expect((yield* App.history(id)).length).toBe(3)
        // Once: what was superseded asks for nothing.
        yield* TestClock.adjust("1 day")
        yield* look(id)
        expect((yield* App.history(id)).at(-1)).toMatchObject({ historyId: 3, _tag: "Published" })
      }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[66] a package that waits, and whose keys are gone, is replaced and not sent", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const store = yield* KeyPackageStore
      const memory = yield* MemoryKeyPackageStore
      const id = yield* App.register()
      yield* faults.setRule(({ method }) =>
        method === "uploadKeyPackage" ? Option.some(Faults.failBeforeSend(Status.unavailable("away"))) : Option.none()
      )
      yield* Effect.flip(
        TestApp.withTime(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false }), "10 minutes")
      )
      yield* faults.clear
      const waiting = (yield* App.history(id)).at(-1)
      if (waiting?._tag !== "Exposed") return expect.fail("nothing waits")
      yield* memory.loseKeys(waiting.historyId)
      yield* TestClock.adjust("1 hour")
      yield* tend(id)
      const served = yield* App.servedRow(id)
      if (served === undefined) return expect.fail("nothing is served")
      expect(served).toMatchObject({ _tag: "Published", historyId: 3 })
      expect(Option.isSome(yield* store.getPrivateKeys(served.historyId))).toBe(true)
      expect((yield* App.history(id)).find(({ historyId }) => historyId === waiting.historyId)?._tag).toBe("Superseded")
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect.each([{ isAway: true }, { isAway: false }])(
    "[69] one that is seen served, and that a restored store knows only as prepared, keeps its keys a grace long: %o",
    ({ isAway }) =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const store = yield* KeyPackageStore
        const id = yield* App.register()
        const installation = Option.getOrThrow(yield* store.getInstallation(id))
        const order = { wanted: { includePostQuantum: false }, trigger: "Welcome" } as const
        const prepared = yield* TestApp.withTime(
          withLease(id, (lease) => generateAndStoreKeyPackage(lease, installation, order)),
          "1 second"
        )
        yield* serve(id, prepared.keyPackage.bytes)
        // Too little of its lifetime is left to send it again.
        yield* TestClock.adjust("80 days")
        if (isAway) {
          yield* faults.setRule(({ method }) =>
            method === "uploadKeyPackage"
              ? Option.some(Faults.failBeforeSend(Status.unavailable("away")))
              : Option.none()
          )
        }
        const seenAt = yield* DateTime.now
        yield* Effect.either(TestApp.withTime(upkeep(id, { guard, look: true }), "10 minutes"))
        const row = (yield* App.history(id)).find(({ historyId }) => historyId === prepared.historyId)
        expect(row?._tag).toBe(isAway ? "Exposed" : "Superseded")
        expect(Option.isSome(yield* store.getPrivateKeys(prepared.historyId))).toBe(true)
        if (row?._tag !== "Superseded") return
        expect(DateTime.toEpochMillis(row.deleteAt)).toBeGreaterThanOrEqual(
          DateTime.toEpochMillis(DateTime.addDuration(seenAt, "1 day"))
        )
      }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[13] [56] a time of the revocation that lies ahead is put right by the next look, and no other is", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const id = yield* App.register()
      yield* revoke(id)
      yield* look(id)
      const ahead = DateTime.add(yield* DateTime.now, { days: 30 })
      yield* store.modifySchedule(id, (schedule) => ({ ...schedule, revokedAt: Option.some(ahead) }))
      const now = yield* DateTime.now
      yield* look(id)
      expect((yield* scheduleOf(id)).revokedAt).toEqual(Option.some(now))
      yield* TestClock.adjust("23 hours")
      yield* look(id)
      expect((yield* scheduleOf(id)).revokedAt).toEqual(Option.some(now))
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[13] [56] the time in which a look was overdue is no time of a revocation, also where looks fail", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      yield* revoke(id)
      const revoked = yield* DateTime.now
      yield* look(id)
      yield* TestClock.adjust("23 hours")
      yield* look(id)
      expect((yield* scheduleOf(id)).revokedAt).toEqual(Option.some(revoked))
      // Another process, whose clock is months ahead: a minute later, and by it months.
      yield* TestClock.adjust("100 days")
      yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
      yield* TestApp.withTime(upkeep(id, { guard, look: true }))
      const { probeAt, revokedAt } = yield* scheduleOf(id)
      // Two looks, each a day after the one before.
      const known = DateTime.distance(Option.getOrThrow(revokedAt), yield* DateTime.now)
      expect(Math.round(known / 3_600_000)).toBe(23 + 24)
      yield* faults.setRule(() => Option.none())
      yield* TestClock.setTime(DateTime.toEpochMillis(Option.getOrThrow(probeAt)))
      yield* look(id)
      expect((yield* scheduleOf(id)).revokedAt).toEqual(revokedAt)
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[56] a log that names it again means: rotate now", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const id = yield* App.register()
      const now = yield* DateTime.now
      yield* store.modifySchedule(id, (known) => ({ ...known, revokedAt: Option.some(now) }))
      // Asked for while it was revoked: waits.
      yield* queueKeyRotation(id)
      yield* TestClock.adjust("1 minute")
      yield* tend(id)
      expect((yield* App.history(id)).length).toBe(1)
      yield* look(id)
      yield* tend(id)
      expect((yield* scheduleOf(id)).revokedAt).toEqual(Option.none())
      expect((yield* App.history(id)).at(-1)).toMatchObject({ historyId: 2, trigger: "Repair", _tag: "Published" })
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[50] [56] stays revoked while nobody can read the log, until the log names it again", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      yield* revoke(id)
      yield* look(id)
      yield* queueKeyRotation(id)
      yield* TestClock.adjust("1 minute")
      yield* faults.clearCalls
      yield* faults.setRule((call) =>
        call.method === "getIdentityUpdates" ? Option.some(Faults.failBeforeSend()) : Option.none()
      )
      const { reachability } = yield* TestApp.withTime(upkeep(id, { guard, look: true }))
      expect(reachability).toMatchObject(Option.some({ _tag: "Revoked" }))
      expect(Option.isSome((yield* scheduleOf(id)).revokedAt)).toBe(true)
      expect((yield* uploads).length).toBe(0)
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[75] a budget of nothing is no room at all", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      yield* App.startScheduler()
      for (let times = 0; times < 20; times++) {
        yield* queueKeyRotationAfterWelcome(id)
        yield* TestClock.adjust("10 minutes")
      }
      expect((yield* uploads).length).toBe(1)
    }).pipe(App.withSettings({ welcomeRotationsPerHour: 0 }), Effect.provide(App.layer()))
  )

  it.effect("a rotation that fails keeps nothing from being erased", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      yield* rotate(id)
      yield* TestClock.adjust("25 hours")
      yield* queueKeyRotation(id)
      yield* TestClock.adjust("10 seconds")
      yield* faults.setRule((call) =>
        call.method === "uploadKeyPackage" ? Option.some(Faults.failBeforeSend()) : Option.none()
      )
      const failed = yield* Effect.flip(TestApp.withTime(upkeep(id, { guard, look: false })))
      expect(failed).toMatchObject({ _tag: "ApiClientError" })
      expect(yield* App.states(id)).toEqual(["Published", "Exposed"])
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect(
    "[14] asks the network, in its own right, just before an erasure, and erases nothing without an answer",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const id = yield* App.register()
        yield* rotate(id)
        yield* TestClock.adjust("25 hours")
        yield* faults.setRule((call) =>
          call.method === "fetchKeyPackages" ? Option.some(Faults.failBeforeSend()) : Option.none()
        )
        const { erased } = yield* TestApp.withTime(upkeep(id, { guard, look: false }))
        expect(erased).toBe(0)
        yield* faults.clear
        yield* faults.clearCalls
        yield* TestClock.adjust("1 hour")
        expect((yield* tend(id)).erased).toBe(1)
        expect((yield* faults.callsOf("fetchKeyPackages")).length).toBeGreaterThanOrEqual(1)
      }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[32] a package that is served again just before its erasure is kept, and the newest is sent again", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      yield* rotate(id)
      const [first] = yield* App.history(id)
      yield* TestClock.adjust("25 hours")
      yield* serve(id, first?.keyPackage.bytes)
      const { erased } = yield* tend(id)
      expect(erased).toBe(0)
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
      // The look that it asked for repairs.
      yield* tend(id)
      expect(yield* App.servedRow(id)).toMatchObject({ historyId: 2 })
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[80] files are scrubbed after every erasure, and again where that failed", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const memory = yield* MemoryKeyPackageStore
      const id = yield* App.register()
      yield* rotate(id)
      yield* TestClock.adjust("25 hours")
      yield* memory.clearCalls
      const scrubs = Effect.map(memory.calls, (calls) => calls.filter((call) => call.operation === "scrub").length)
      yield* memory.failNext("scrub", "Busy")
      expect(yield* Effect.flip(tend(id))).toMatchObject({ _tag: "StorageError", reason: "Busy" })
      expect(yield* scrubs).toBe(1)
      expect(yield* App.states(id)).toEqual(["Published"])
      yield* TestClock.adjust("15 minutes")
      yield* tend(id)
      expect(yield* scrubs).toBe(2)
      yield* TestClock.adjust("6 days")
      yield* tend(id)
      expect(yield* scrubs).toBe(2)
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[80] a scrub that failed is made good by the next cleaning, also where that may erase nothing", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const memory = yield* MemoryKeyPackageStore
      const id = yield* App.register()
      yield* rotate(id)
      yield* TestClock.adjust("1 hour")
      yield* rotate(id)
      const [first] = yield* App.history(id)
      if (first?._tag !== "Superseded") return expect.fail("not superseded")
      yield* TestClock.adjust("26 hours")
      const scrubs = Effect.map(memory.calls, (calls) => calls.filter((call) => call.operation === "scrub").length)
      const tendWhere = (readAsOf: DateTime.Utc) =>
        Effect.provideService(
          tend(id),
          WelcomeProgress,
          WelcomeProgress.of({
            get: () => Effect.succeedSome({ completeAsOf: Option.some(readAsOf), attemptedAt: Option.none() })
          })
        )
      yield* memory.clearCalls
      yield* memory.failNext("scrub", "Busy")
      expect(yield* Effect.flip(tendWhere(first.deleteAt))).toMatchObject({ _tag: "StorageError", reason: "Busy" })
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
      // The second waits for its reader.
      yield* TestClock.adjust("1 hour")
      expect((yield* tendWhere(first.deleteAt)).erased).toBe(0)
      expect(yield* scrubs).toBe(2)
      // It has one, and the network does not answer.
      yield* TestClock.adjust("1 hour")
      yield* faults.setRule((call) =>
        call.method === "fetchKeyPackages" ? Option.some(Faults.failBeforeSend()) : Option.none()
      )
      expect((yield* tendWhere(yield* DateTime.now)).erased).toBe(0)
      expect(yield* scrubs).toBe(3)
      // It answers, and serves it.
      yield* faults.clear
      yield* TestClock.adjust("1 hour")
      const [second] = yield* App.history(id)
      yield* serve(id, second?.keyPackage.bytes)
      expect((yield* tendWhere(yield* DateTime.now)).erased).toBe(0)
      expect(yield* scrubs).toBe(4)
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("does nothing for an installation that is not here, and nothing for one that somebody else is at", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const api = yield* ApiClient
      const id = yield* App.register()
      yield* store.acquireLease(id, { now: yield* DateTime.now, duration: Duration.minutes(1) })
      expect(yield* Effect.flip(tend(id))).toMatchObject({ _tag: "LeaseError", reason: "Held" })
      expect(yield* api.fetchKeyPackages([id])).toMatchObject([Option.some({})])
    }).pipe(Effect.provide(App.layer()))
  )
})
