/** The engine at work: when it rotates, what it repairs, what it erases, and what it leaves alone. */
import { describe, expect, it } from "@effect/vitest"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import {
  queueKeyRotation,
  queueKeyRotationAfterWelcome,
  rotateAndUploadKeyPackage
} from "@keyward/core/lifecycle/Rotation"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { Signer } from "@keyward/core/ports/Signer"
import { WelcomeProgress } from "@keyward/core/ports/WelcomeProgress"
import * as Status from "@keyward/test-utils/devnode/GrpcStatus"
import * as NodeState from "@keyward/test-utils/devnode/NodeState"
import * as Faults from "@keyward/test-utils/Faults"
import { MemoryKeyPackageStore } from "@keyward/test-utils/MemoryKeyPackageStore"
import { aroundStore } from "@keyward/test-utils/simulation/Ports"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as TestClock from "effect/TestClock"
import { signerOf, wallet as walletOf } from "../identity/fixtures.ts"
import * as App from "./SchedulerApp.ts"
import * as TestApp from "./TestApp.ts"

const uploads = Effect.flatMap(Faults.Faults, (faults) => faults.callsOf("uploadKeyPackage"))

describe("Scheduler", () => {
  it.scoped("rotates after 30 days at most, and erases the old keys a day later", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      yield* App.startScheduler()
      yield* TestClock.adjust("26 days")
      expect(yield* App.states(id)).toEqual(["Published"])
      yield* TestClock.adjust("4 days")
      expect((yield* App.servedRow(id))?.historyId).toBe(2)
      yield* TestClock.adjust("25 hours")
      expect(yield* App.states(id)).toEqual(["Published"])
      const store = yield* KeyPackageStore
      const [tombstone] = yield* store.getRetired(id)
      expect(tombstone).toMatchObject({ historyId: 1, reason: "Superseded" })
      yield* TestClock.adjust("31 days")
      expect((yield* store.getRetired(id)).length).toBeGreaterThanOrEqual(1)
      expect(yield* App.servedRow(id)).toMatchObject({ _tag: "Published" })
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[58] a thousand Welcomes make one rotation, five seconds after the first", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      yield* App.startScheduler()
      yield* TestClock.adjust("1 minute")
      yield* Effect.forEach(Array.from({ length: 1000 }), () => queueKeyRotationAfterWelcome(id), { discard: true })
      yield* TestClock.adjust("4900 millis")
      expect((yield* uploads).length).toBe(1)
      yield* TestClock.adjust("200 millis")
      expect((yield* uploads).length).toBe(2)
      yield* TestClock.adjust("1 hour")
      expect((yield* uploads).length).toBe(2)
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[75] a flood of Welcomes forces no more rotations than the budget; a repair is not held up by it", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      yield* App.startScheduler()
      for (let second = 0; second < 1800; second += 10) {
        yield* queueKeyRotationAfterWelcome(id)
        yield* TestClock.adjust("10 seconds")
      }
      expect((yield* uploads).length).toBe(1 + 6)
      const memory = yield* MemoryKeyPackageStore
      const newest = (yield* App.history(id)).at(-1)
      if (newest === undefined) return expect.fail("no package")
      yield* memory.loseKeys(newest.historyId)
      const scheduler = yield* App.startScheduler()
      yield* TestApp.withTime(scheduler.probe(id))
      expect((yield* uploads).length).toBe(1 + 6 + 1)
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("refuses numbers with which it would begin nothing or never sleep", () =>
    Effect.gen(function* () {
      for (const options of [
        { burst: 0 },
        { concurrency: 0 },
        { perMinute: 0 },
        { perMinute: Number.NaN },
        { maximumNap: 0 }
      ]) {
        const exit = yield* Effect.exit(App.startScheduler(options))
        expect(exit).toMatchObject({ _tag: "Failure", cause: { _tag: "Die" } })
      }
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[77] asks the store nothing while nothing is due", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      yield* App.register()
      yield* App.startScheduler()
      const memory = yield* MemoryKeyPackageStore
      yield* TestClock.adjust("1 minute")
      yield* memory.clearCalls
      yield* TestClock.adjust("20 hours")
      expect((yield* memory.calls).map((call) => call.operation)).toEqual([])
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[22] [74] sends the same bytes by itself once the network is back, however long it was away", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      yield* App.startScheduler()
      const events = yield* App.recordEvents
      yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
      yield* queueKeyRotation(id)
      yield* faults.clearCalls
      yield* TestClock.adjust("1 day")
      expect(yield* App.states(id)).toEqual(["Published", "Exposed"])
      const during = yield* uploads
      expect(new Set(during.map((call) => Buffer.from(call.request).toString("hex"))).size).toBe(1)
      // At most an hour between two rounds of six attempts.
      expect(during.length).toBeGreaterThan(6 * 24 * 0.9)
      expect(during.length).toBeLessThan(6 * 24 * 1.5)
      yield* faults.clear
      yield* TestClock.adjust("1 hour")
      expect((yield* App.servedRow(id))?.historyId).toBe(2)
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
      expect((yield* events.tags).filter((tag) => tag === "Published").length).toBe(1)
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped(
    "[27] a node that refuses what our validator accepts is asked again ever more slowly, with the same bytes",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const id = yield* App.register()
        yield* App.startScheduler()
        yield* faults.setRule((call) =>
          call.method === "uploadKeyPackage"
            ? Option.some(Faults.failBeforeSend(Status.invalidArgument("invalid identity: validation failed")))
            : Option.none()
        )
        yield* queueKeyRotation(id)
        yield* faults.clearCalls
        yield* TestClock.adjust("7 days")
        const calls = yield* uploads
        expect(calls.length).toBeGreaterThanOrEqual(9)
        expect(calls.length).toBeLessThanOrEqual(14)
        expect(yield* App.states(id)).toEqual(["Published", "Exposed"])
      }).pipe(Effect.provide(App.layer()))
  )

  it.scoped(
    "a package that the node and our own validator refuse is rejected, and replaced when the time is right again",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const id = yield* App.register()
        const events = yield* App.recordEvents
        // Made under this clock, sent under one that is three months on: expired meanwhile.
        yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
        yield* Effect.flip(
          TestApp.withTime(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false }))
        )
        yield* faults.clear
        yield* TestClock.adjust("100 days")
        yield* App.startScheduler()
        yield* TestClock.adjust("1 hour")
        // It was unfit, so another one was made and published.
        expect(yield* App.servedRow(id)).toMatchObject({ historyId: 3, _tag: "Published" })
        expect(yield* events.tags).toContain("Published")
      }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[5] [6] finds an acceptance that was never heard by looking, and keeps what the network serves", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      yield* faults.setRule((call) =>
        call.method === "uploadKeyPackage" ? Option.some(Faults.failAfterAccept()) : Option.none()
      )
      yield* Effect.flip(TestApp.withTime(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false })))
      expect(yield* App.states(id)).toEqual(["Published", "Exposed"])
      const scheduler = yield* App.startScheduler()
      const { reachability } = yield* TestApp.withTime(scheduler.probe(id))
      expect(reachability).toMatchObject(Option.some({ _tag: "AcknowledgementMissing" }))
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[32] [23] an older package that is served again keeps its keys, and the newest is sent again", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const api = yield* ApiClient
      const id = yield* App.register()
      const first = (yield* App.history(id))[0]
      if (first === undefined) return expect.fail("no package")
      yield* App.startScheduler()
      const events = yield* App.recordEvents
      yield* queueKeyRotation(id)
      yield* TestClock.adjust("23 hours")
      yield* api.uploadKeyPackage(first.keyPackage.bytes)
      // The look before the erasure sees it.
      yield* TestClock.adjust("3 hours")
      expect(yield* App.servedRow(id)).toMatchObject({ historyId: 2, _tag: "Published" })
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
      expect(yield* events.tags).toEqual(expect.arrayContaining(["Unreachable"]))
      yield* TestClock.adjust("26 hours")
      expect(yield* App.states(id)).toEqual(["Published"])
      expect(yield* events.tags).toEqual(expect.arrayContaining(["Repaired", "Retired"]))
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[14] erases nothing before the inbox has been read since the date of deletion, and then at once", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const report = { completeAsOf: Option.none<DateTime.Utc>(), attemptedAt: Option.none<DateTime.Utc>() }
      let current: typeof report = report
      const progress = WelcomeProgress.of({ get: () => Effect.sync(() => Option.some(current)) })
      const id = yield* App.register()
      yield* App.startScheduler().pipe(Effect.provideService(WelcomeProgress, progress))
      yield* queueKeyRotation(id)
      yield* TestClock.adjust("3 days")
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
      const superseded = (yield* App.history(id))[0]
      if (superseded?._tag !== "Superseded") return expect.fail("not superseded")
      current = {
        attemptedAt: Option.some(yield* DateTime.now),
        completeAsOf: Option.some(DateTime.subtract(superseded.deleteAt, { seconds: 1 }))
      }
      yield* TestClock.adjust("1 hour")
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
      current = { ...current, completeAsOf: Option.some(superseded.deleteAt) }
      yield* TestClock.adjust("20 minutes")
      expect(yield* App.states(id)).toEqual(["Published"])
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped(
    "[69] a store restored from an older copy is repaired once; [70] again after that, a clone is suspected",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const memory = yield* MemoryKeyPackageStore
        const api = yield* ApiClient
        const id = yield* App.register()
        const old = yield* memory.snapshot
        yield* TestApp.withTime(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false }))
        const lost = (yield* App.history(id)).at(-1)
        if (lost === undefined) return expect.fail("no package")
        yield* memory.restore(old)
        expect(yield* App.servedRow(id)).toBeUndefined()
        const scheduler = yield* App.startScheduler()
        const first = yield* TestApp.withTime(scheduler.probe(id))
        expect(first.reachability).toMatchObject(Option.some({ _tag: "DatabaseRestored" }))
        expect(yield* App.servedRow(id)).toMatchObject({ _tag: "Published" })
        const published = (yield* uploads).length
        // The other copy publishes, again and again.
        for (let hour = 0; hour < 12; hour++) {
          yield* api.uploadKeyPackage(lost.keyPackage.bytes)
          yield* TestClock.adjust("1 hour")
          const { reachability } = yield* TestApp.withTime(scheduler.probe(id))
          expect(reachability).toMatchObject(Option.some({ _tag: "CloneSuspected" }))
        }
        expect((yield* uploads).length).toBe(published + 12)
        yield* TestClock.adjust("1 day")
        expect(yield* App.servedRow(id)).toMatchObject({ _tag: "Published" })
      }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[66] keys that are gone are found, and a package with keys is published", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const memory = yield* MemoryKeyPackageStore
      const store = yield* KeyPackageStore
      const id = yield* App.register()
      const scheduler = yield* App.startScheduler()
      yield* memory.loseKeys((yield* App.history(id))[0]!.historyId)
      expect((yield* TestApp.withTime(scheduler.probe(id))).reachability).toMatchObject(
        Option.some({ _tag: "KeysMissing" })
      )
      const row = yield* App.servedRow(id)
      expect(row).toMatchObject({ historyId: 2 })
      expect(yield* store.getPrivateKeys(row!.historyId)).toMatchObject(Option.some({}))
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[65] a damaged row is set aside, stops nothing, and loses its keys in the end", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const memory = yield* MemoryKeyPackageStore
      const store = yield* KeyPackageStore
      const id = yield* App.register()
      yield* TestApp.withTime(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false }))
      const [first] = yield* App.history(id)
      if (first === undefined) return expect.fail("no package")
      yield* memory.damage(first.historyId)
      const events = yield* App.recordEvents
      const scheduler = yield* App.startScheduler()
      yield* TestApp.withTime(scheduler.probe(id))
      expect((yield* store.getLedger(id)).quarantined.map((row) => row.historyId)).toEqual([first.historyId])
      yield* queueKeyRotation(id)
      yield* TestClock.adjust("1 hour")
      expect((yield* App.servedRow(id))?.historyId).toBe(3)
      yield* TestClock.adjust("3 days")
      expect((yield* store.getLedger(id)).quarantined).toEqual([])
      expect(yield* store.getPrivateKeys(first.historyId)).toEqual(Option.none())
      expect(yield* events.tags).toEqual(expect.arrayContaining(["Quarantined"]))
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("readBack: supersedes only when the network serves the new package", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      yield* App.startScheduler()
      yield* queueKeyRotation(id)
      yield* TestClock.adjust("5 seconds")
      expect(yield* App.states(id)).toEqual(["Published", "Published"])
      yield* TestClock.adjust("1 minute")
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
      const store = yield* KeyPackageStore
      const installation = Option.getOrThrow(yield* store.getInstallation(id))
      expect(installation.schedule.confirmation).toEqual(Option.none())
      expect(Schedule.dueAt(installation.schedule)).toMatchObject(Option.some({}))
    }).pipe(App.withSettings({ confirmBy: "readBack" }), Effect.provide(App.layer()))
  )

  it.scoped("[27] keys of packages that were never accepted are erased once these have expired, in one process", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const faults = yield* Faults.Faults
      yield* faults.setRule(({ method }) =>
        method === "uploadKeyPackage" ? Option.some(Faults.failBeforeSend(Status.invalidArgument("no"))) : Option.none()
      )
      const { installationId: id } = yield* TestApp.newInstallation
      yield* App.startScheduler()
      yield* Effect.either(
        TestApp.withTime(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false }))
      )
      const [first] = yield* App.history(id)
      if (first?._tag !== "Exposed") return expect.fail("not exposed")
      // 84 days of life, a grace, and the wait between two tries.
      yield* TestClock.adjust("84 days")
      expect(yield* store.getPrivateKeys(first.historyId)).toMatchObject(Option.some({}))
      yield* TestClock.adjust("3 days")
      expect(yield* store.getPrivateKeys(first.historyId)).toEqual(Option.none())
      expect((yield* App.history(id)).length).toBeGreaterThanOrEqual(1)
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[76] one whose lease somebody else holds takes nothing from the rotations of others", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const held = yield* App.register()
      const free = yield* App.register({ owner: "22" })
      yield* App.startScheduler({ burst: 1, perMinute: 0.01 })
      // The looks at the start.
      yield* TestClock.adjust("5 hours")
      const rows = (yield* App.history(free)).length
      yield* store.acquireLease(held, { now: yield* DateTime.now, duration: Duration.minutes(5) })
      yield* queueKeyRotation(held)
      yield* TestClock.adjust("1 second")
      yield* queueKeyRotation(free)
      yield* TestClock.adjust("2 minutes")
      expect((yield* App.history(free)).length).toBe(rows + 1)
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped(
    "readBack: what a Welcome asks for while a confirmation is outstanding waits for no look that came due",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const store = yield* KeyPackageStore
        const id = yield* App.register()
        const [first] = yield* App.history(id)
        yield* App.startScheduler()
        yield* TestClock.adjust("1 minute")
        const { schedule } = Option.getOrThrow(yield* store.getInstallation(id))
        yield* TestClock.setTime(DateTime.toEpochMillis(Option.getOrThrow(schedule.probeAt)) - 30_000)
        const rotation = yield* Effect.fork(
          rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false })
        )
        yield* TestClock.adjust("10 millis")
        yield* Fiber.join(rotation)
        const old = first?.keyPackage.bytes ?? new Uint8Array()
        yield* Effect.flatMap(NodeState.NodeState, ({ keyPackages }) =>
          keyPackages.put(InstallationId.toPublicKey(id), old)
        )
        yield* TestClock.adjust("5 minutes")
        const rows = (yield* App.history(id)).length
        yield* queueKeyRotationAfterWelcome(id)
        yield* TestClock.adjust("20 seconds")
        expect((yield* App.history(id)).length).toBe(rows + 1)
      }).pipe(App.withSettings({ confirmBy: "readBack" }), Effect.provide(App.layer()))
  )

  it.scoped("a deadline that other hands have written, with nothing due, is put right and does not spin", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const id = yield* App.register()
      let isWrong = false
      let begun = 0
      const edited = aroundStore(store, (operation, run) =>
        Effect.suspend(() => {
          if (operation === "acquireLease") begun += 1
          if (operation === "modifySchedule" || begun > 500) isWrong = false
          return run
        })
      )
      const findDue: KeyPackageStore["Type"]["findDue"] = (options) =>
        Effect.suspend(() =>
          isWrong && options.except?.has(id) !== true
            ? Effect.succeed([{ installationId: id, dueAt: DateTime.unsafeMake(0) }])
            : edited.findDue(options)
        )
      const scheduler = yield* Effect.provideService(App.startScheduler(), KeyPackageStore, { ...edited, findDue })
      yield* TestApp.withTime(scheduler.probe(id), "1 second")
      isWrong = true
      begun = 0
      yield* queueKeyRotation(id)
      yield* TestClock.adjust("1 hour")
      expect(begun).toBeLessThanOrEqual(3)
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("a defect of the store does not end the scheduler, which goes on a minute later", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      const store = yield* KeyPackageStore
      let defects = 0
      const dying = KeyPackageStore.of({
        ...store,
        findDue: (options) => (defects > 0 && defects-- > 0 ? Effect.die(new Error("bug")) : store.findDue(options))
      })
      yield* Effect.provideService(App.startScheduler(), KeyPackageStore, dying)
      yield* TestClock.adjust("1 minute")
      defects = 3
      yield* queueKeyRotation(id)
      yield* TestClock.adjust("4 minutes")
      expect(defects).toBe(0)
      expect((yield* App.servedRow(id))?.historyId).toBe(2)
    }).pipe(Effect.provide(App.layer()))
  )

  for (const confirmBy of ["receipt", "readBack"] as const) {
    it.scoped(
      `[10] ${confirmBy}: a registration that broke off is looked after once a day, also once it is finished`,
      () =>
        Effect.gen(function* () {
          yield* TestApp.start
          const faults = yield* Faults.Faults
          const memory = yield* MemoryKeyPackageStore
          const register = TestApp.withTime(registerInstallation({ includePostQuantum: false })).pipe(
            Effect.provideService(Signer, signerOf(walletOf("11".repeat(32))))
          )
          yield* faults.setRule((call) =>
            call.method === "publishIdentityUpdate" ? Option.some(Faults.failBeforeSend()) : Option.none()
          )
          yield* Effect.flip(register)
          yield* App.startScheduler()
          yield* TestClock.adjust("2 days")
          yield* memory.clearCalls
          yield* TestClock.adjust("10 days")
          const upkeeps = (yield* memory.calls).filter((call) => call.operation === "acquireLease").length
          expect(upkeeps).toBeGreaterThanOrEqual(9)
          expect(upkeeps).toBeLessThanOrEqual(15)

          yield* faults.clear
          const { installationId } = yield* register
          const [served] = yield* App.history(installationId)
          yield* Effect.flatMap(NodeState.NodeState, ({ keyPackages }) =>
            keyPackages.remove(InstallationId.toPublicKey(installationId))
          )
          yield* TestClock.adjust("25 hours")
          expect((yield* App.servedRow(installationId))?.historyId).toBe(served?.historyId)
        }).pipe(App.withSettings({ confirmBy }), Effect.provide(App.layer()))
    )
  }
})
