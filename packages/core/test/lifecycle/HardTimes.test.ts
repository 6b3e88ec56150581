/** The engine in bad times: wrong clocks, stores and networks that fail for long, crowds. It ends repaired, and never spins. */
import { describe, expect, it } from "@effect/vitest"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import { validateKeyPackage } from "@keyward/core/keypackage/Validation"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import {
  queueKeyRotation,
  queueKeyRotationAfterWelcome,
  rotateAndUploadKeyPackage
} from "@keyward/core/lifecycle/Rotation"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { ApiClient, type ApiClientError } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore, StorageError } from "@keyward/core/ports/KeyPackageStore"
import { Signer } from "@keyward/core/ports/Signer"
import { WelcomeProgress } from "@keyward/core/ports/WelcomeProgress"
import * as Status from "@keyward/test-utils/devnode/GrpcStatus"
import * as NodeState from "@keyward/test-utils/devnode/NodeState"
import * as Faults from "@keyward/test-utils/Faults"
import { MemoryKeyPackageStore } from "@keyward/test-utils/MemoryKeyPackageStore"
import { aroundApi, aroundStore } from "@keyward/test-utils/simulation/Ports"
import * as SkewedClock from "@keyward/test-utils/simulation/SkewedClock"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as HashMap from "effect/HashMap"
import * as Option from "effect/Option"
import * as TestClock from "effect/TestClock"
import { signerOf, wallet as walletOf } from "../identity/fixtures.ts"
import * as App from "./SchedulerApp.ts"
import * as TestApp from "./TestApp.ts"

const uploads = Effect.flatMap(Faults.Faults, (faults) => faults.callsOf("uploadKeyPackage"))

const rotate = (installationId: InstallationId.InstallationId, includePostQuantum = false) =>
  TestApp.withTime(rotateAndUploadKeyPackage({ installationId, includePostQuantum }), "1 second")

/** What is served is a row of ours, and its keys are here. */
const expectServedOpens = (id: InstallationId.InstallationId) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const row = yield* App.servedRow(id)
    if (row === undefined) return expect.fail("the served package is not in the ledger")
    expect(yield* store.getPrivateKeys(row.historyId)).toMatchObject(Option.some({}))
    return row
  })

/** No key without its row, and no row without its keys. */
const expectOwned = Effect.gen(function* () {
  const { installations, privateKeys } = yield* Effect.flatMap(MemoryKeyPackageStore, (memory) => memory.snapshot)
  const rows = [...HashMap.values(installations)].flatMap((stored) => stored.rows.map((row) => row.entry.historyId))
  expect([...HashMap.keys(privateKeys)].toSorted((a, b) => a - b)).toEqual(rows.toSorted((a, b) => a - b))
})

/** A machine whose wall clock a test sets; the network has the right time. */
const machine = Effect.gen(function* () {
  const skew = SkewedClock.skew()
  const right = yield* Effect.clock
  const api = yield* ApiClient
  const on = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    effect.pipe(
      Effect.provideService(
        ApiClient,
        aroundApi(api, (_, run) => Effect.withClock(run, right))
      ),
      Effect.provide(SkewedClock.layer(skew))
    )
  return { skew, on }
})

describe("wrong clocks", () => {
  for (const [title, days] of [
    ["[13] a year ahead", 365],
    ["[15] a year back", -365],
    ["[16] three hours back, before its package is valid", -0.125]
  ] as const) {
    it.scoped(`${title}: what is served keeps its keys, nothing spins, and all is well once the clock is right`, () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const id = yield* App.register()
        yield* rotate(id)
        const { on, skew } = yield* machine
        yield* on(App.startScheduler())
        yield* TestClock.adjust("1 hour")
        yield* faults.clearCalls

        skew.offsetMillis = days * 86_400_000
        for (let day = 0; day < 2; day++) {
          yield* TestClock.adjust("1 day")
          yield* expectServedOpens(id)
          yield* expectOwned
        }
        // What the network refuses is asked ever more slowly; what waits to be erased, four times an hour, by two calls.
        expect((yield* faults.calls).length).toBeLessThan(2 * 24 * 4 * 3)
        expect((yield* uploads).length).toBeLessThan(2 * 24)
        expect((yield* App.history(id)).length).toBeLessThanOrEqual(8)

        skew.offsetMillis = 0
        yield* TestClock.adjust("1 day")
        const row = yield* expectServedOpens(id)
        expect(row._tag).toBe("Published")
        const now = BigInt(DateTime.toEpochMillis(yield* DateTime.now)) / 1000n
        expect(row.keyPackage.lifetime.notBefore < now && now < row.keyPackage.lifetime.notAfter).toBe(true)
        // Nothing stays behind for ever, whatever dates were written.
        yield* TestClock.adjust("3 days")
        yield* expectOwned
        expect((yield* App.history(id)).length).toBeLessThanOrEqual(3)
        yield* expectServedOpens(id)
      }).pipe(Effect.provide(App.layer()))
    )
  }

  it.scoped("[15] a package superseded while the clock was days behind keeps its keys a grace of true time", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const id = yield* App.register()
      const { on, skew } = yield* machine
      yield* on(App.startScheduler({ maximumNap: "1 hour" }))
      yield* TestClock.adjust("1 hour")
      const first = yield* expectServedOpens(id)

      skew.offsetMillis = -8 * 86_400_000
      yield* on(queueKeyRotation(id))
      yield* TestClock.adjust("2 hours")
      const second = yield* expectServedOpens(id)
      expect(second.historyId).toBeGreaterThan(first.historyId)

      // By the clock that is right again, the date of its deletion is a week ago. The inbox's log is younger than that.
      skew.offsetMillis = 0
      for (let hour = 0; hour < 22; hour++) {
        yield* TestClock.adjust("1 hour")
        expect([hour, yield* store.getPrivateKeys(first.historyId)]).toMatchObject([hour, Option.some({})])
      }
      yield* TestClock.adjust("3 days")
      expect(yield* store.getPrivateKeys(first.historyId)).toEqual(Option.none())
      yield* expectServedOpens(id)
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[13] what a process with a clock a week ahead has put off, the next one does when it starts", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const id = yield* App.register()
      const first = yield* expectServedOpens(id)
      const { on, skew } = yield* machine
      skew.offsetMillis = 7 * 86_400_000
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* on(App.startScheduler())
          yield* on(queueKeyRotation(id))
          yield* TestClock.adjust("1 day")
        })
      )
      const put = Option.getOrThrow(yield* store.getInstallation(id)).schedule
      expect(Option.getOrThrow(put.failures).retryAt.pipe(DateTime.greaterThan(yield* DateTime.now))).toBe(true)

      yield* App.startScheduler()
      yield* TestClock.adjust("10 minutes")
      const second = yield* expectServedOpens(id)
      expect(second.historyId).toBeGreaterThan(first.historyId)
      expect(Option.getOrThrow(yield* store.getInstallation(id)).schedule.failures).toEqual(Option.none())
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped(
    "[13] what was put off while the scheduler slept and the clock was days ahead is looked at within a day",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const store = yield* KeyPackageStore
        const faults = yield* Faults.Faults
        const node = yield* NodeState.NodeState
        const id = yield* App.register()
        const { on, skew } = yield* machine
        const scheduler = yield* on(App.startScheduler())
        yield* TestClock.adjust("1 hour")

        // While it sleeps, a look by hand gets no answer under the wrong clock. No round of the scheduler sees that clock.
        skew.offsetMillis = 5 * 86_400_000
        yield* faults.setRule(({ method }) =>
          method === "fetchKeyPackages"
            ? Option.some(Faults.failBeforeSend(Status.unavailable("nobody there")))
            : Option.none()
        )
        yield* TestApp.withTime(on(scheduler.probe(id)), "10 minutes")
        skew.offsetMillis = 0
        yield* faults.clear
        const { schedule } = Option.getOrThrow(yield* store.getInstallation(id))
        const inFourDays = DateTime.add(yield* DateTime.now, { days: 4 })
        expect(Option.exists(Schedule.dueAt(schedule), DateTime.greaterThan(inFourDays))).toBe(true)

        yield* node.keyPackages.remove(InstallationId.toPublicKey(id))
        yield* TestClock.adjust("25 hours")
        yield* expectServedOpens(id)
      }).pipe(Effect.provide(App.layer()))
  )

  it.scoped(
    "[13] [14] a clock that is set ahead of all lifetimes keeps the keys of Welcomes that nobody has read",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const store = yield* KeyPackageStore
        const id = yield* App.register()
        yield* rotate(id)
        const { on, skew } = yield* machine
        const unread = Effect.map(DateTime.now, (now) =>
          Option.some({ completeAsOf: Option.none<DateTime.Utc>(), attemptedAt: Option.some(now) })
        )
        yield* on(App.startScheduler()).pipe(
          Effect.provideService(WelcomeProgress, WelcomeProgress.of({ get: () => unread }))
        )
        yield* TestClock.adjust("1 hour")
        const before = yield* App.history(id)
        skew.offsetMillis = 230 * 86_400_000
        yield* TestClock.adjust("6 days")
        for (const { historyId } of before) {
          expect(yield* store.getPrivateKeys(historyId)).toMatchObject(Option.some({}))
        }
      }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[13] [14] a reading that a clock set ahead has dated after the date of deletion is none since then", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const id = yield* App.register()
      yield* rotate(id)
      const { on, skew } = yield* machine
      let completeAsOf: Option.Option<DateTime.Utc> = Option.none()
      const get = () => Effect.map(DateTime.now, (now) => Option.some({ completeAsOf, attemptedAt: Option.some(now) }))
      yield* on(App.startScheduler()).pipe(Effect.provideService(WelcomeProgress, WelcomeProgress.of({ get })))
      yield* TestClock.adjust("1 hour")
      const [first] = yield* App.history(id)
      if (first === undefined) return expect.fail("no package")
      skew.offsetMillis = 10 * 86_400_000
      yield* TestClock.adjust("1 hour")
      // Two hours after the supersession, by a clock that says ten days more. A Welcome may come for 22 hours yet.
      const byThatClock = Effect.map(DateTime.now, DateTime.add({ days: 10 }))
      completeAsOf = Option.some(yield* byThatClock)
      yield* TestClock.adjust("27 hours")
      expect(yield* store.getPrivateKeys(first.historyId)).toMatchObject(Option.some({}))
      // The next reading finds it.
      completeAsOf = Option.some(yield* byThatClock)
      yield* TestClock.adjust("2 hours")
      expect(yield* store.getPrivateKeys(first.historyId)).toEqual(Option.none())
    }).pipe(Effect.provide(App.layer()))
  )

  for (const [title, says, isRestarted] of [
    ["and the time that it bears has come", "the time", false],
    ["and the app said nothing until its time had come", "nothing ahead", false],
    ["and this process began after that", "the time", true]
  ] as const) {
    it.scoped(`[13] [15] nor is one when that clock has been set right, ${title}`, () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const store = yield* KeyPackageStore
        const id = yield* App.register()
        yield* rotate(id)
        const { on, skew } = yield* machine
        let stored: Option.Option<DateTime.Utc> = Option.none()
        const get = () =>
          Effect.map(DateTime.now, (now) => {
            const completeAsOf = says === "the time" ? stored : Option.filter(stored, DateTime.lessThanOrEqualTo(now))
            return Option.some({ completeAsOf, attemptedAt: Option.some(now) })
          })
        const start = on(App.startScheduler()).pipe(Effect.provideService(WelcomeProgress, WelcomeProgress.of({ get })))
        if (!isRestarted) yield* start
        yield* TestClock.adjust("1 hour")
        const [first] = yield* App.history(id)
        if (first?._tag !== "Superseded") return expect.fail("not superseded")
        skew.offsetMillis = 12 * 3_600_000
        yield* TestClock.adjust("16 hours")
        // By that clock it is after the date of deletion, for which seven hours are left, in which Welcomes come.
        const dated = DateTime.add(yield* DateTime.now, { hours: 12 })
        stored = Option.some(dated)
        yield* TestClock.adjust("1 hour")
        skew.offsetMillis = 0
        if (isRestarted) yield* start
        yield* TestClock.adjust("18 hours")
        expect(DateTime.between(dated, { minimum: first.deleteAt, maximum: yield* DateTime.now })).toBe(true)
        expect(yield* store.getPrivateKeys(first.historyId)).toMatchObject(Option.some({}))
        // The next readings find them.
        for (let reading = 0; reading < 2; reading++) {
          stored = Option.some(yield* DateTime.now)
          yield* TestClock.adjust("90 minutes")
        }
        expect(yield* store.getPrivateKeys(first.historyId)).toEqual(Option.none())
      }).pipe(Effect.provide(App.layer()))
    )
  }

  it.scoped("[15] one that was being worked on when the clock was set back is looked at afterwards", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const busy = yield* App.register()
      const other = yield* App.register({ owner: "22" })
      const skew = SkewedClock.skew()
      const right = yield* Effect.clock
      const api = yield* ApiClient
      const entered = yield* Deferred.make<void>()
      const gate = yield* Deferred.make<void>()
      let isGated = false
      const gated = aroundApi(api, (operation, run) =>
        Effect.suspend(() => {
          const wait = Effect.zipRight(Deferred.succeed(entered, undefined), Deferred.await(gate))
          const answer = Effect.withClock(run, right)
          return isGated && operation === "fetchKeyPackages" ? Effect.zipRight(wait, answer) : answer
        })
      )
      const on = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        effect.pipe(Effect.provideService(ApiClient, gated), Effect.provide(SkewedClock.layer(skew)))
      yield* rotate(busy)
      const [first] = yield* App.history(busy)
      if (first?._tag !== "Superseded") return expect.fail("not superseded")
      yield* on(App.startScheduler())
      yield* TestClock.setTime(DateTime.toEpochMillis(first.deleteAt) - 60_000)
      yield* TestClock.adjust("30 seconds")
      isGated = true
      yield* TestClock.adjust("31 seconds")
      // Its cleaning waits for the network's answer.
      yield* Deferred.await(entered)
      isGated = false
      skew.offsetMillis = -5 * 86_400_000
      yield* on(queueKeyRotation(other))
      yield* TestClock.adjust("10 seconds")
      yield* Deferred.succeed(gate, undefined)
      yield* TestClock.adjust("10 seconds")
      const { schedule } = Option.getOrThrow(yield* store.getInstallation(busy))
      const byThisClock = DateTime.subtract(yield* DateTime.now, { days: 5 })
      const probeAt = Option.getOrThrow(schedule.probeAt)
      expect(DateTime.lessThan(probeAt, DateTime.add(byThisClock, { hours: 36 }))).toBe(true)
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[15] one whose lease somebody held when the clock was set back is looked at once that is over", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const held = yield* App.register()
      const other = yield* App.register({ owner: "22" })
      const { on, skew } = yield* machine
      yield* on(App.startScheduler())
      yield* TestClock.adjust("1 hour")
      skew.offsetMillis = -5 * 86_400_000
      const byThisClock = Effect.map(DateTime.now, DateTime.subtract({ days: 5 }))
      const lease = yield* store.acquireLease(held, { now: yield* byThisClock, duration: Duration.minutes(1) })
      yield* on(queueKeyRotation(other))
      yield* TestClock.adjust("10 seconds")
      yield* store.releaseLease(lease)
      yield* TestClock.adjust("2 minutes")
      const { schedule } = Option.getOrThrow(yield* store.getInstallation(held))
      const latest = DateTime.add(yield* byThisClock, { hours: 36 })
      expect(Option.exists(schedule.probeAt, DateTime.lessThan(latest))).toBe(true)
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped(
    "[10] [13] two machines register one installation, one with a clock far ahead: a try makes no package that is there",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const { on, skew } = yield* machine
        skew.offsetMillis = 44 * 86_400_000
        const register = registerInstallation({ includePostQuantum: false }).pipe(
          Effect.provideService(Signer, signerOf(walletOf("11".repeat(32))))
        )
        /** Nobody gets into the log, and the network takes no package whose lifetime has not begun. */
        const setRule = (isAhead: boolean) =>
          faults.setRule(({ method }) => {
            if (method === "publishIdentityUpdate")
              return Option.some(Faults.failBeforeSend(Status.unavailable("away")))
            return method === "uploadKeyPackage" && isAhead
              ? Option.some(Faults.failBeforeSend(Status.invalidArgument("its lifetime has not begun")))
              : Option.none()
          })
        for (let turn = 0; turn < 4; turn++) {
          yield* setRule(false)
          yield* Effect.flip(TestApp.withTime(register, "10 minutes"))
          yield* setRule(true)
          yield* Effect.flip(TestApp.withTime(on(register), "10 minutes"))
        }
        yield* faults.clear
        const { installationId } = yield* TestApp.withTime(register, "10 minutes")
        expect(yield* App.states(installationId)).toEqual(["Published", "Exposed"])
        expect(yield* App.servedRow(installationId)).toMatchObject({ historyId: 1 })
      }).pipe(Effect.provide(App.layer()))
  )

  for (const days of [31, 44]) {
    it.scoped(
      `[13] two schedulers on one store, one ${days} days ahead: neither makes a package because of the other`,
      () =>
        Effect.gen(function* () {
          yield* TestApp.start
          const id = yield* App.register()
          const { on, skew } = yield* machine
          skew.offsetMillis = days * 86_400_000
          yield* App.startScheduler()
          yield* on(App.startScheduler())
          yield* TestClock.adjust("1 day")
          const after = (yield* App.history(id)).length
          yield* TestClock.adjust("2 days")
          expect((yield* App.history(id)).length).toBe(after)
          expect(after).toBeLessThanOrEqual(3)
          yield* expectServedOpens(id)
        }).pipe(Effect.provide(App.layer()))
    )
  }

  it.scoped(
    "[13] [75] what a clock far ahead has left waiting, and this one would not send, is no way round a budget",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const store = yield* KeyPackageStore
        const id = yield* App.register()
        const { on, skew } = yield* machine
        skew.offsetMillis = 44 * 86_400_000
        yield* faults.setRule(({ method }) =>
          method === "uploadKeyPackage"
            ? Option.some(Faults.failBeforeSend(Status.invalidArgument("its lifetime has not begun")))
            : Option.none()
        )
        const rotateThere = on(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false }))
        yield* Effect.flip(TestApp.withTime(rotateThere, "10 minutes"))
        yield* faults.clear
        expect(yield* App.states(id)).toEqual(["Published", "Exposed"])
        const now = yield* DateTime.now
        yield* store.modifySchedule(id, (schedule) =>
          Schedule.requestRotation("Repair", now, now)({ ...schedule, failures: Option.none(), requests: [] })
        )
        yield* App.startScheduler()
        yield* TestClock.adjust("2 hours")
        expect(yield* App.states(id)).toEqual(["Published", "Exposed"])
      }).pipe(App.withSettings({ repairRotationsPerHour: 0 }), Effect.provide(App.layer()))
  )

  it.scoped("[13] two machines on one store, one with a clock far ahead: neither makes a package for each try", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      const wrong = yield* machine
      wrong.skew.offsetMillis = 190 * 86_400_000
      const rotateHere = rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false })
      const refuse = (status: Status.GrpcStatus) =>
        faults.setRule(({ method }) =>
          method === "uploadKeyPackage" ? Option.some(Faults.failBeforeSend(status)) : Option.none()
        )
      for (let turn = 0; turn < 6; turn++) {
        // The network takes nothing of the one, whose packages begin in the future, and nothing gets through from the other.
        yield* refuse(Status.invalidArgument("its lifetime has not begun"))
        yield* Effect.flip(TestApp.withTime(wrong.on(rotateHere), "10 minutes"))
        yield* refuse(Status.unavailable("nobody there"))
        yield* Effect.flip(TestApp.withTime(rotateHere, "10 minutes"))
      }
      yield* faults.clear
      const waiting = (yield* App.history(id)).filter(({ _tag }) => _tag === "Exposed" || _tag === "Prepared")
      expect(waiting.length).toBe(2)
      // Once it gets through, what is right is served, and the others have a date.
      yield* rotate(id)
      const row = yield* expectServedOpens(id)
      expect(row._tag).toBe("Published")
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped(
    "[15] set back by half an hour with a request behind it: the next rotation clears it, and nothing spins",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const id = yield* App.register()
        const { on, skew } = yield* machine
        skew.offsetMillis = 1_800_000
        yield* on(App.startScheduler())
        yield* TestClock.adjust("1 second")
        yield* faults.enqueue("uploadKeyPackage", Faults.failBeforeSend(Status.invalidArgument("validation failed")))
        const rotateHere = (includePostQuantum: boolean) =>
          TestApp.withTime(on(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum })), "1 second")
        yield* Effect.flip(rotateHere(false))
        skew.offsetMillis = 0
        // The first sends what waits, the second makes another: asked for later than now, and due before.
        yield* rotateHere(false)
        yield* rotateHere(true)
        yield* faults.clearCalls
        yield* TestClock.adjust("2 hours")
        expect((yield* uploads).length).toBeLessThanOrEqual(1)
        expect((yield* expectServedOpens(id))._tag).toBe("Published")
      }).pipe(Effect.provide(App.layer()))
  )

  it.live(
    "[15] set back with more installations than hands, all of them busy: waits for a hand, and does not spin",
    () =>
      Effect.gen(function* () {
        const store = yield* KeyPackageStore
        const now = yield* DateTime.now
        const [id] = yield* crowd(20, DateTime.add(now, { hours: 1 }))
        if (id === undefined) return expect.fail("no installation")
        yield* Effect.flatMap(Faults.Faults, ({ setRule }) => setRule(() => Option.some(Faults.hang())))
        const skew = SkewedClock.skew()
        const clock = SkewedClock.make(yield* Effect.clock, skew)
        let reads = 0
        const counting: Clock.Clock = {
          ...clock,
          // A loop that never ends would keep this test from failing.
          currentTimeMillis: Effect.suspend(() => (++reads > 5000 ? Effect.never : clock.currentTimeMillis))
        }
        yield* Effect.withClock(App.startScheduler(), counting)
        yield* Effect.sleep("50 millis")
        skew.offsetMillis = -120_000
        yield* store.modifySchedule(id, Schedule.requestProbe(DateTime.add(now, { minutes: 30 })))
        yield* Effect.sleep("500 millis")
        expect((yield* store.getInstallation(id))._tag).toBe("Some")
        expect(reads).toBeLessThan(2000)
      }).pipe(Effect.scoped, Effect.provide(App.layer()))
  )

  it.scoped("[13] [14] two days ahead, just before the old keys may go: they stay until the clock is believed", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      const { on, skew } = yield* machine
      yield* on(App.startScheduler())
      yield* TestClock.adjust("1 minute")
      yield* rotate(id)
      skew.offsetMillis = 2 * 86_400_000
      yield* TestClock.adjust("23 hours")
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
      yield* TestClock.adjust("26 hours")
      expect(yield* App.states(id)).toEqual(["Published"])
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[15] set back between two rotations leaves no key behind: each row has its own date", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const start = DateTime.toEpochMillis(TestApp.START)
      const id = yield* App.register()
      yield* rotate(id)
      yield* TestClock.setTime(start - 2 * 86_400_000)
      yield* rotate(id)
      yield* TestClock.setTime(start + 3_600_000)
      yield* rotate(id)
      expect(yield* App.states(id)).toEqual(["Superseded", "Superseded", "Superseded", "Published"])
      yield* App.startScheduler()
      yield* TestClock.adjust("3 days")
      expect(yield* App.states(id)).toEqual(["Published"])
      yield* expectOwned
    }).pipe(Effect.scoped, Effect.provide(App.layer()))
  )

  it.scoped("[19] [30] offline until past the end of its lifetime: bounded meanwhile, well within the hour after", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
      yield* Effect.scoped(
        Effect.zipRight(App.startScheduler(), Effect.zipRight(queueKeyRotation(id), TestClock.adjust("4 hours")))
      )
      expect((yield* faults.calls).length).toBeLessThan(4 * 24 + 80)
      // The machine is switched off meanwhile, and then on again, still without a network.
      yield* TestClock.setTime(DateTime.toEpochMillis(TestApp.START) + 100 * 86_400_000)
      yield* faults.clearCalls
      yield* App.startScheduler()
      yield* TestClock.adjust("4 hours")
      expect((yield* faults.calls).length).toBeLessThan(4 * 24 + 80)
      // One package waits; another one each time that it had become too old to be sent.
      expect((yield* App.history(id)).length).toBeLessThanOrEqual(3)
      yield* expectOwned
      yield* faults.clear
      yield* TestClock.adjust("1 hour")
      expect(yield* expectServedOpens(id)).toMatchObject({ _tag: "Published" })
      yield* TestClock.adjust("3 days")
      expect(yield* App.states(id)).toEqual(["Published"])
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect(
    "[17] a peer whose clock is an hour off, or a day ahead, takes a fresh package; one a day behind does not yet",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const id = yield* App.register()
        const [row] = yield* App.history(id)
        if (row === undefined) return expect.fail("no package")
        const judgedAt = (offset: Duration.DurationInput, isAhead: boolean) =>
          Effect.map(
            Effect.either(
              validateKeyPackage(
                row.keyPackage.bytes,
                isAhead ? DateTime.addDuration(TestApp.START, offset) : DateTime.subtractDuration(TestApp.START, offset)
              )
            ),
            (verdict) => verdict._tag
          )
        expect(yield* judgedAt("1 hour", false)).toBe("Right")
        expect(yield* judgedAt("1 hour", true)).toBe("Right")
        expect(yield* judgedAt("1 day", true)).toBe("Right")
        expect(yield* judgedAt("1 day", false)).toBe("Left")
      }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[20] no timer is longer than a platform can wait: a day at most, whatever is due when", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const id = yield* App.register()
      yield* store.modifySchedule(id, (known) => ({ ...known, probeAt: Option.none() }))
      const base = yield* Effect.clock
      const sleeps: Array<number> = []
      const noting: Clock.Clock = {
        [Clock.ClockTypeId]: Clock.ClockTypeId,
        unsafeCurrentTimeMillis: () => base.unsafeCurrentTimeMillis(),
        unsafeCurrentTimeNanos: () => base.unsafeCurrentTimeNanos(),
        currentTimeMillis: base.currentTimeMillis,
        currentTimeNanos: base.currentTimeNanos,
        sleep: (duration) =>
          Effect.zipRight(
            Effect.sync(() => sleeps.push(Duration.toMillis(duration))),
            base.sleep(duration)
          )
      }
      yield* Effect.withClock(App.startScheduler(), noting)
      yield* TestClock.adjust("3 days")
      expect(sleeps.length).toBeGreaterThan(0)
      expect(Math.max(...sleeps)).toBeLessThanOrEqual(86_400_000)
    }).pipe(Effect.provide(App.layer()))
  )
})

describe("stores that fail", () => {
  for (const [title, reason, minutes] of [
    ["[61] a database that is locked for a minute", "Busy", 1],
    ["[62] a disk that is full for three hours", "Full", 180],
    ["[63] a file that is read-only for three hours", "ReadOnly", 180],
    ["[64] a database that is gone for three hours and comes back", "Unavailable", 180]
  ] as const) {
    it.scoped(`${title}: asked ever more slowly, and the rotation that was due happens after it`, () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const id = yield* App.register()
        const store = yield* KeyPackageStore
        let isBroken = false
        let calls = 0
        const broken = aroundStore(store, (operation, run) =>
          Effect.suspend(
            (): Effect.Effect<Effect.Effect.Success<typeof run>, Effect.Effect.Error<typeof run> | StorageError> => {
              calls += 1
              // A disk that takes nothing can still be read.
              const isRead = /^(get|find|next|check)/.test(operation)
              const fails = isBroken && (reason === "Busy" || reason === "Unavailable" || !isRead)
              return fails ? Effect.fail(new StorageError({ operation, reason })) : run
            }
          )
        )
        yield* Effect.provideService(App.startScheduler(), KeyPackageStore, broken)
        yield* TestClock.adjust("1 minute")
        yield* queueKeyRotation(id)
        isBroken = true
        calls = 0
        yield* TestClock.adjust(Duration.minutes(minutes))
        expect(calls).toBeGreaterThan(0)
        expect(calls).toBeLessThan(200 + 20 * minutes)
        expect((yield* App.history(id)).length).toBe(1)
        isBroken = false
        yield* TestClock.adjust("11 minutes")
        expect(yield* App.servedRow(id)).toMatchObject({ historyId: 2, _tag: "Published" })
      }).pipe(Effect.provide(App.layer()))
    )
  }

  it.scoped("[61] a store that fails at each call of an upkeep in turn: each time the next upkeep finishes it", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      const store = yield* KeyPackageStore
      let count = 0
      let failAt = 0
      const broken = aroundStore(store, (operation, run) =>
        Effect.suspend(
          (): Effect.Effect<Effect.Effect.Success<typeof run>, Effect.Effect.Error<typeof run> | StorageError> => {
            count += 1
            return count === failAt ? Effect.fail(new StorageError({ operation, reason: "Busy" })) : run
          }
        )
      )
      yield* Effect.provideService(App.startScheduler(), KeyPackageStore, broken)
      for (failAt = 1; failAt <= 40; failAt++) {
        count = 0
        yield* queueKeyRotation(id)
        // A rotation, and the erasure of what it has replaced.
        yield* TestClock.adjust("2 hours")
        expect([failAt, (yield* expectServedOpens(id))._tag]).toEqual([failAt, "Published"])
        yield* expectOwned
      }
      expect((yield* App.servedRow(id))?.historyId).toBe(41)
    }).pipe(Effect.provide(App.layer()))
  )
})

describe("networks that fail", () => {
  it.effect(
    "[23] an upload that arrives two hours late, after a newer package: kept, and the newer one is sent again",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const id = yield* App.register()
        yield* faults.enqueue("uploadKeyPackage", Faults.late("2 hours"))
        yield* faults.setRule((call) =>
          call.method === "uploadKeyPackage" ? Option.some(Faults.failBeforeSend()) : Option.none()
        )
        yield* Effect.flip(
          TestApp.withTime(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false }))
        )
        yield* faults.clear
        // Another kind is wanted: what waits is no longer fit, and a newer package is published.
        yield* rotate(id, true)
        expect(yield* App.states(id)).toEqual(["Superseded", "Superseded", "Published"])
        yield* App.startScheduler()
        yield* TestClock.adjust("1 hour")
        expect(yield* expectServedOpens(id)).toMatchObject({ historyId: 3 })
        yield* TestClock.adjust("1 hour")
        expect(yield* expectServedOpens(id)).toMatchObject({ historyId: 2, _tag: "Superseded" })
        yield* TestClock.adjust("22 hours")
        yield* expectServedOpens(id)
        yield* TestClock.adjust("1 day")
        expect(yield* expectServedOpens(id)).toMatchObject({ historyId: 3, _tag: "Published" })
        yield* TestClock.adjust("2 days")
        expect(yield* App.states(id)).toEqual(["Published"])
      }).pipe(Effect.scoped, Effect.provide(App.layer()))
  )

  it.effect("[24] an upload that is delivered twice is one publication", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      const twice = (api: ApiClient["Type"]): ApiClient["Type"] => ({
        ...api,
        uploadKeyPackage: (bytes) => Effect.zipRight(api.uploadKeyPackage(bytes), api.uploadKeyPackage(bytes))
      })
      yield* rotate(id).pipe(Effect.updateService(ApiClient, twice))
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
      expect(yield* expectServedOpens(id)).toMatchObject({ historyId: 2 })
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect(
    "[29] nodes that do not agree, each answer from another one: whatever is served opens, and it ends with the newest",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const id = yield* App.register()
        const [first] = yield* App.history(id)
        if (first === undefined) return expect.fail("no package")
        let asked = 0
        let agree = false
        const split = (api: ApiClient["Type"]): ApiClient["Type"] => ({
          ...api,
          fetchKeyPackages: (ids) =>
            Effect.suspend((): Effect.Effect<ReadonlyArray<Option.Option<Uint8Array>>, ApiClientError> => {
              asked += 1
              return agree || asked % 2 === 0
                ? api.fetchKeyPackages(ids)
                : Effect.succeed(ids.map(() => Option.some(first.keyPackage.bytes)))
            })
        })
        yield* App.startScheduler().pipe(Effect.updateService(ApiClient, split))
        yield* queueKeyRotation(id)
        for (let hour = 0; hour < 72; hour++) {
          yield* TestClock.adjust("1 hour")
          // Half of the network still serves the first one, whose keys must be here.
          const rows = yield* App.history(id)
          expect(rows.map((row) => row.historyId)).toEqual([1, 2])
        }
        agree = true
        yield* TestClock.adjust("4 days")
        expect(yield* App.states(id)).toEqual(["Published"])
        expect(yield* expectServedOpens(id)).toMatchObject({ historyId: 2 })
      }).pipe(
        Effect.scoped,
        App.withSettings({ confirmBy: "readBack", probeInterval: Duration.hours(4) }),
        Effect.provide(App.layer())
      )
  )

  it.effect("[55] a rotation during a registration waits for its end, and the registration for the rotation's", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const store = yield* KeyPackageStore
      yield* faults.enqueue("uploadKeyPackage", Faults.delay("10 seconds"))
      const registering = yield* registerInstallation({ includePostQuantum: false }).pipe(
        Effect.provideService(Signer, signerOf(walletOf("11".repeat(32)))),
        Effect.fork
      )
      yield* TestClock.adjust("2 seconds")
      const snapshot = yield* Effect.flatMap(MemoryKeyPackageStore, (memory) => memory.snapshot)
      const id = snapshot.order[0]
      if (id === undefined) return expect.fail("no installation yet")
      const error = yield* Effect.flip(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false }))
      expect(error).toMatchObject({ _tag: "LeaseError", reason: "Held" })
      yield* TestClock.adjust("1 minute")
      const { installationId } = yield* Fiber.join(registering)
      expect(installationId).toBe(id)
      yield* rotate(id)
      expect(yield* App.states(id)).toEqual(["Superseded", "Published"])
      expect((yield* store.getInstallation(id)).pipe(Option.map(({ registration }) => registration._tag))).toEqual(
        Option.some("Registered")
      )
    }).pipe(Effect.provide(App.layer()))
  )
})

/** Installations in the store that the network does not know of: a crowd without the cost of registering it. */
const crowd = (count: number, rotateAt: DateTime.Utc) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const { inboxId } = yield* TestApp.newInstallation
    const ids: Array<InstallationId.InstallationId> = []
    for (let index = 0; index < count; index++) {
      const key = yield* InstallationKey.generate
      const intent = { inboxId, label: `${index}`, key, at: TestApp.START }
      const { installationId } = yield* store.findOrCreateInstallation(intent)
      yield* store.modifySchedule(installationId, (known) => ({ ...known, rotateAt: Option.some(rotateAt) }))
      ids.push(installationId)
    }
    return ids
  })

/** Fills the database up with copies of its first installation, under ids that nobody holds. */
const fill = (count: number) =>
  Effect.gen(function* () {
    const memory = yield* MemoryKeyPackageStore
    const content = yield* memory.snapshot
    const [first] = [...HashMap.values(content.installations)]
    if (first === undefined) return expect.fail("an empty database")
    const ids = Array.from({ length: count }, (_, index) =>
      InstallationId.InstallationId.make((index + 1).toString(16).padStart(64, "0"))
    )
    const copies = ids.map((installationId) => {
      const installation = { ...first.installation, installationId, label: installationId }
      return [installationId, { ...first, installation, rows: [], retired: [] }] as const
    })
    yield* memory.restore({
      ...content,
      order: [...content.order, ...ids],
      installations: HashMap.union(content.installations, HashMap.fromIterable(copies))
    })
  })

describe("crowds", () => {
  it.scoped(
    "[77] 5,000 idle installations: no query at all, and a lowered deadline starts its rotation at its very time",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const memory = yield* MemoryKeyPackageStore
        const [id] = yield* crowd(1, DateTime.add(TestApp.START, { hours: 26 }))
        if (id === undefined) return expect.fail("no installation")
        yield* fill(5000)
        yield* App.startScheduler()
        yield* TestClock.adjust("1 minute")
        yield* memory.clearCalls
        yield* TestClock.adjust("20 hours")
        expect(yield* memory.calls).toEqual([])
        yield* queueKeyRotationAfterWelcome(id)
        const starts = Effect.map(uploads, (calls) => calls.map((call) => call.at))
        const asked = yield* Clock.currentTimeMillis
        yield* TestClock.adjust("4999 millis")
        expect(yield* starts).toEqual([])
        yield* TestClock.adjust("101 millis")
        const [start] = yield* starts
        expect((start ?? 0) - asked).toBeGreaterThanOrEqual(5000)
        expect((start ?? 0) - asked).toBeLessThanOrEqual(5100)
      }).pipe(Effect.provide(App.layer()))
  )

  it.scoped(
    "[30] [76] a herd that is due at once is spread by the budget, those due longest first, and none starves",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const ids = yield* crowd(40, TestApp.START)
        yield* App.startScheduler({ perMinute: 10, burst: 5, concurrency: 4 })
        const begun = new Set<string>()
        for (let minute = 1; minute <= 5; minute++) {
          yield* TestClock.adjust("1 minute")
          for (const call of yield* uploads) begun.add(Buffer.from(call.request).toString("hex"))
          expect(begun.size).toBeLessThanOrEqual(5 + 10 * minute)
        }
        expect(begun.size).toBe(40)
        expect((yield* faults.calls).length).toBeGreaterThan(40)
        for (const id of ids) expect(yield* App.states(id)).toEqual(["Published"])
      }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[76] keys that wait for a reader of their Welcomes take nothing from the rotations of others", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const ids = yield* crowd(10, DateTime.add(TestApp.START, { days: 29 }))
      for (const installationId of ids) {
        for (let times = 0; times < 2; times++) {
          yield* TestApp.withTime(rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }), "1 second")
        }
      }
      yield* TestClock.adjust("2 days")
      const unread = { completeAsOf: Option.none(), attemptedAt: Option.none() }
      // Six an hour, and ten whose keys cannot be erased, each asked for every hour.
      yield* App.startScheduler({ perMinute: 0.1, burst: 1 }).pipe(
        Effect.provideService(WelcomeProgress, WelcomeProgress.of({ get: () => Effect.succeedSome(unread) }))
      )
      yield* TestClock.adjust("8 hours")
      const faults = yield* Faults.Faults
      yield* faults.clearCalls
      const [id] = ids
      if (id === undefined) return expect.fail("no installation")
      yield* queueKeyRotation(id)
      yield* TestClock.adjust("11 minutes")
      expect((yield* uploads).length).toBe(1)
      // Erased is nothing all the same.
      expect(yield* App.states(id)).toEqual(["Superseded", "Superseded", "Published"])
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[76] one tenant that is always due and always fails delays nobody else", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const [noisy, ...quiet] = yield* crowd(13, DateTime.add(TestApp.START, { days: 6 }))
      if (noisy === undefined) return expect.fail("no installation")
      const store = yield* KeyPackageStore
      const key = yield* store.getInstallationKey(noisy)
      const isNoisy = (request: Uint8Array) => Buffer.from(request).includes(Buffer.from(key.installationId, "hex"))
      yield* faults.setRule((call) =>
        call.method === "uploadKeyPackage" && isNoisy(call.request) ? Option.some(Faults.hang()) : Option.none()
      )
      yield* App.startScheduler({ perMinute: 60, burst: 4, concurrency: 2 })
      for (let round = 0; round < 4; round++) {
        yield* queueKeyRotationAfterWelcome(noisy)
        yield* queueKeyRotation(noisy)
        for (const id of quiet.slice(round * 3, round * 3 + 3)) yield* queueKeyRotation(id)
        yield* TestClock.adjust("1 minute")
        for (const id of quiet.slice(round * 3, round * 3 + 3)) expect(yield* App.states(id)).toEqual(["Published"])
      }
      expect(yield* App.states(noisy)).toEqual(["Exposed"])
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("[27] a node that refuses everything for good is asked ever more slowly by a crowd, too", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      yield* crowd(5, TestApp.START)
      yield* faults.setRule((call) =>
        call.method === "uploadKeyPackage"
          ? Option.some(Faults.failBeforeSend(Status.invalidArgument("no")))
          : Option.none()
      )
      yield* App.startScheduler()
      yield* TestClock.adjust("2 days")
      // 1 h doubling: at most six times in two days, each.
      expect((yield* uploads).length).toBeLessThanOrEqual(5 * 7)
      expect((yield* uploads).length).toBeGreaterThanOrEqual(5 * 4)
    }).pipe(Effect.provide(App.layer()))
  )
})
