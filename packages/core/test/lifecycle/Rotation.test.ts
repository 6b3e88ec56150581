/** The pipeline, against every way in which its steps can fail: [1]-[7], [22], [24], [26], [52], [54], [66]. */
import { describe, expect, it } from "@effect/vitest"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import { isLive, type Kept } from "@keyward/core/lifecycle/Ledger"
import { LifecycleSettings } from "@keyward/core/lifecycle/LifecycleSettings"
import { rotateAndUploadKeyPackage, uploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import { withLease } from "@keyward/core/lifecycle/UnderLease"
import { ApiClient, ApiClientError } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as Status from "@keyward/test-utils/devnode/GrpcStatus"
import * as Faults from "@keyward/test-utils/Faults"
import { MemoryKeyPackageStore } from "@keyward/test-utils/MemoryKeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as TestClock from "effect/TestClock"
import * as TestApp from "./TestApp.ts"

const rotate = (installationId: InstallationId, includePostQuantum = true) =>
  TestApp.withTime(rotateAndUploadKeyPackage({ installationId, includePostQuantum }))

/** States of the history, oldest first. */
const states = (installationId: InstallationId) =>
  Effect.flatMap(KeyPackageStore, (store) => store.getHistory(installationId)).pipe(
    Effect.map((history) => history.map((entry) => entry._tag))
  )

const uploads = Effect.flatMap(Faults.Faults, (faults) => faults.callsOf("uploadKeyPackage")).pipe(
  Effect.map((calls) => calls.map((call) => Buffer.from(call.request).toString("hex")))
)

const served = (installationId: InstallationId) =>
  Effect.flatMap(ApiClient, (api) => api.fetchKeyPackages([installationId])).pipe(Effect.map(([slot]) => slot))

describe("Rotation", () => {
  it.effect("publishes the first package, then replaces it and dates the deletion of the old keys", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const { installationId } = yield* TestApp.newInstallation
      const first = yield* rotate(installationId)
      expect(first.superseded).toEqual([])
      expect(first.published.keyPackage.bytes.length).toBe(1663)
      expect(yield* served(installationId)).toEqual(Option.some(first.published.keyPackage.bytes))

      const second = yield* rotate(installationId, false)
      expect(second.published.keyPackage.bytes.length).toBe(437)
      expect(second.superseded.map((entry) => entry.historyId)).toEqual([first.published.historyId])
      const [superseded] = second.superseded
      expect(superseded?.supersededBy).toBe(second.published.historyId)
      expect(superseded && DateTime.distanceDuration(superseded.supersededAt, superseded.deleteAt)).toEqual(
        Duration.hours(24)
      )
      expect(yield* states(installationId)).toEqual(["Superseded", "Published"])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("sets the next deadline a little before 30 days, each time another little", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const { installationId } = yield* TestApp.newInstallation
      const spans = new Set<number>()
      for (let i = 0; i < 5; i++) {
        const { published } = yield* rotate(installationId, false)
        const installation = Option.getOrThrow(yield* store.getInstallation(installationId))
        const span = DateTime.distanceDuration(published.publishedAt, Option.getOrThrow(installation.schedule.rotateAt))
        expect(Duration.between(span, { minimum: Duration.days(27), maximum: Duration.days(30) })).toBe(true)
        spans.add(Duration.toMillis(span))
      }
      expect(spans.size).toBe(5)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[22] marks nothing after a failed upload, and sends the same bytes next time", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const memory = yield* MemoryKeyPackageStore
      const { installationId } = yield* TestApp.newInstallation
      const first = yield* rotate(installationId)
      yield* faults.clearCalls

      yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
      const error = yield* Effect.flip(rotate(installationId))
      yield* faults.setRule(() => Option.none())
      expect(error).toMatchObject({ _tag: "ApiClientError", operation: "uploadKeyPackage", reason: "Unavailable" })
      expect(yield* states(installationId)).toEqual(["Published", "Exposed"])
      expect(yield* served(installationId)).toEqual(Option.some(first.published.keyPackage.bytes))
      const marks = (yield* memory.calls).filter((call) => call.operation === "markKeyPackagesBeforeIdToBeDeleted")
      expect(marks.length).toBe(1)

      const second = yield* rotate(installationId)
      expect(yield* states(installationId)).toEqual(["Superseded", "Published"])
      expect(new Set(yield* uploads).size).toBe(1)
      expect((yield* uploads).length).toBe(7)
      expect(yield* served(installationId)).toEqual(Option.some(second.published.keyPackage.bytes))
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[74] an outage piles up nothing: the same package waits, however often it is tried", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const { installationId } = yield* TestApp.newInstallation
      yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
      for (let day = 0; day < 7; day++) {
        yield* Effect.flip(rotate(installationId, false))
        yield* TestClock.adjust("1 day")
      }
      expect(yield* states(installationId)).toEqual(["Exposed"])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[27] does not repeat what the node refused for good", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const { installationId } = yield* TestApp.newInstallation
      yield* faults.enqueue("uploadKeyPackage", Faults.failBeforeSend(Status.invalidArgument("no")))
      const error = yield* Effect.flip(rotate(installationId))
      expect(error).toMatchObject({ _tag: "ApiClientError", reason: "InvalidRequest", isRetryable: false })
      expect((yield* uploads).length).toBe(1)
      expect(yield* states(installationId)).toEqual(["Exposed"])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[26] waits as long as the node asks, and not at all where it asks for more than a rotation has", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const { installationId } = yield* TestApp.newInstallation
      yield* faults.enqueue("uploadKeyPackage", Faults.rateLimited(Duration.seconds(20)))
      const fiber = yield* Effect.fork(rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }))
      yield* TestClock.adjust("19 seconds")
      expect((yield* uploads).length).toBe(1)
      yield* TestClock.adjust("2 seconds")
      yield* Fiber.join(fiber)
      expect((yield* uploads).length).toBe(2)

      yield* faults.enqueue("uploadKeyPackage", Faults.rateLimited(Duration.hours(1)))
      const error = yield* Effect.flip(rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }))
      expect(error).toMatchObject({ reason: "RateLimited", retryAfter: Duration.hours(1) })
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[4] [22] gives up on an attempt that hangs, and repeats the same bytes", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const { installationId } = yield* TestApp.newInstallation
      yield* faults.enqueue("uploadKeyPackage", Faults.hang("afterAccept"), Faults.hang())
      const { published } = yield* rotate(installationId)
      expect((yield* uploads).length).toBe(3)
      expect(new Set(yield* uploads).size).toBe(1)
      expect(yield* served(installationId)).toEqual(Option.some(published.keyPackage.bytes))
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[5] after an acceptance that was never heard, the same bytes go again", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const { installationId } = yield* TestApp.newInstallation
      yield* faults.setRule(() => Option.some(Faults.failAfterAccept()))
      yield* Effect.flip(rotate(installationId))
      yield* faults.setRule(() => Option.none())
      const before = yield* served(installationId)
      const { published } = yield* rotate(installationId)
      expect(before).toEqual(Option.some(published.keyPackage.bytes))
      expect(new Set(yield* uploads).size).toBe(1)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("replaces a waiting package that is no longer fit: wrong kind, or too little lifetime left", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const { installationId } = yield* TestApp.newInstallation
      yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
      yield* Effect.flip(rotate(installationId, false))
      yield* Effect.flip(rotate(installationId, true))
      expect(yield* states(installationId)).toEqual(["Exposed", "Exposed"])
      yield* TestClock.adjust("43 days")
      yield* faults.setRule(() => Option.none())
      const { published, superseded } = yield* rotate(installationId, true)
      expect(superseded.map((entry) => Option.isNone(entry.publishedAt))).toEqual([true, true])
      expect(published.historyId).toBe(3)
      expect(yield* states(installationId)).toEqual(["Superseded", "Superseded", "Published"])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[52] [54] of two rotations at once, one waits for nothing and fails with Held", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const { installationId } = yield* TestApp.newInstallation
      yield* faults.enqueue("uploadKeyPackage", Faults.delay("5 seconds"))
      const first = yield* Effect.fork(rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }))
      yield* TestClock.adjust("1 second")
      const second = yield* Effect.flip(rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }))
      expect(second).toMatchObject({ _tag: "LeaseError", reason: "Held", installationId })
      yield* TestClock.adjust("10 seconds")
      yield* Fiber.join(first)
      expect(yield* states(installationId)).toEqual(["Published"])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("gives the lease back when it is interrupted, and keeps what was prepared", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const { installationId } = yield* TestApp.newInstallation
      yield* faults.enqueue("uploadKeyPackage", Faults.hang())
      const first = yield* Effect.fork(rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(first)
      yield* rotate(installationId, false)
      expect(yield* states(installationId)).toEqual(["Published"])
      expect(new Set(yield* uploads).size).toBe(1)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("sends nothing once the lease no longer covers an attempt, and says why the last one failed", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const { installationId } = yield* TestApp.newInstallation
      const sentAt: Array<number> = []
      const limited = new ApiClientError({
        operation: "uploadKeyPackage",
        reason: "RateLimited",
        retryAfter: Duration.seconds(30)
      })
      // 29 s to the answer and 30 s of waiting: a sixth attempt would begin at 295 s and could last until 325 s of 300.
      const uploadKeyPackage = () =>
        Effect.clockWith((clock) => Effect.map(clock.currentTimeMillis, (now) => sentAt.push(now))).pipe(
          Effect.zipRight(Effect.delay(limited, "29 seconds"))
        )
      const error = yield* Effect.flip(rotate(installationId, false)).pipe(
        Effect.updateService(ApiClient, (api) => ({ ...api, uploadKeyPackage }))
      )
      expect(error.message).toBe(limited.message)
      expect(sentAt.map((at) => (at - DateTime.toEpochMillis(TestApp.START)) / 1000)).toEqual([0, 59, 118, 177, 236])
      expect(yield* states(installationId)).toEqual(["Exposed"])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[4] gives every attempt its time and no more, whatever the layer below waits for", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const { installationId } = yield* TestApp.newInstallation
      const fiber = yield* rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }).pipe(
        Effect.updateService(ApiClient, (api) => ({ ...api, uploadKeyPackage: () => Effect.never })),
        Effect.provideService(LifecycleSettings, { ...(yield* LifecycleSettings), uploadAttempts: 1 }),
        Effect.flip,
        Effect.fork
      )
      yield* TestClock.adjust("29 seconds")
      expect(Option.isNone(yield* Fiber.poll(fiber))).toBe(true)
      yield* TestClock.adjust("1 second")
      expect(yield* Fiber.join(fiber)).toMatchObject({ _tag: "ApiClientError", reason: "Timeout" })
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[6] an interruption after the acceptance waits until it is recorded", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const { installationId } = yield* TestApp.newInstallation
      const fiber = yield* rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }).pipe(
        Effect.updateService(KeyPackageStore, (store) => ({
          ...store,
          markKeyPackagesBeforeIdToBeDeleted: (...args: Parameters<typeof store.markKeyPackagesBeforeIdToBeDeleted>) =>
            Effect.delay(store.markKeyPackagesBeforeIdToBeDeleted(...args), "5 seconds")
        })),
        Effect.fork
      )
      yield* TestClock.adjust("1 second")
      expect((yield* uploads).length).toBe(1)
      yield* Fiber.interruptFork(fiber)
      yield* TestClock.adjust("5 seconds")
      yield* Fiber.await(fiber)
      expect(yield* states(installationId)).toEqual(["Published"])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[16] replaces a waiting package that is not valid yet, as after the clock was set back", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const { installationId } = yield* TestApp.newInstallation
      yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
      yield* Effect.flip(rotate(installationId, false))
      yield* faults.setRule(() => Option.none())
      yield* TestClock.setTime(DateTime.toEpochMillis(TestApp.START) - 2 * 3_600_000)
      const { published } = yield* rotate(installationId, false)
      expect(published.historyId).toBe(2)
      expect(yield* states(installationId)).toEqual(["Superseded", "Published"])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[23] never sends a row again that is no longer the newest: it would bring back what was superseded", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const store = yield* KeyPackageStore
      const { installationId } = yield* TestApp.newInstallation
      yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
      yield* Effect.flip(rotate(installationId, false))
      yield* faults.setRule(() => Option.none())
      const stale = Option.getOrThrow(yield* store.getNewest(installationId))
      if (stale._tag !== "Exposed") return expect.fail(`${stale._tag}, not Exposed`)
      const { published } = yield* rotate(installationId, true)
      const error = yield* Effect.flip(withLease(installationId, (lease) => uploadKeyPackage(lease, stale)))
      expect(error).toMatchObject({ _tag: "StorageError", reason: "Conflict" })
      expect(yield* served(installationId)).toEqual(Option.some(published.keyPackage.bytes))
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[65] never sends a package whose private keys are gone, also by the step alone", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const store = yield* KeyPackageStore
      const memory = yield* MemoryKeyPackageStore
      const { installationId } = yield* TestApp.newInstallation
      yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
      yield* Effect.flip(rotate(installationId, false))
      yield* faults.setRule(() => Option.none())
      const waiting = Option.getOrThrow(yield* store.getNewest(installationId))
      if (waiting._tag !== "Exposed") return expect.fail(`${waiting._tag}, not Exposed`)
      yield* memory.loseKeys(waiting.historyId)
      const error = yield* Effect.flip(withLease(installationId, (lease) => uploadKeyPackage(lease, waiting)))
      expect(error).toMatchObject({ _tag: "StorageError", reason: "Corrupt" })
      expect(error.message).toContain("key package 1 has lost its private keys")
      expect(yield* served(installationId)).toEqual(Option.none())
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[65] a newest row that cannot be read does not stop the rotation", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const memory = yield* MemoryKeyPackageStore
      const { installationId } = yield* TestApp.newInstallation
      yield* rotate(installationId, false)
      yield* memory.failNext("getNewest", "Corrupt")
      expect((yield* rotate(installationId, false)).published.historyId).toBe(2)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[65] bytes that were damaged while they waited are not sent", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const { installationId } = yield* TestApp.newInstallation
      yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
      yield* Effect.flip(rotate(installationId, false))
      yield* faults.setRule(() => Option.none())
      const damage = (entry: Kept): Kept => {
        if (entry.historyId !== 1) return entry
        const bytes = Uint8Array.from(entry.keyPackage.bytes)
        bytes[100] = (bytes[100] ?? 0) ^ 1
        return { ...entry, keyPackage: { ...entry.keyPackage, bytes } }
      }
      const { published } = yield* rotate(installationId, false).pipe(
        Effect.updateService(KeyPackageStore, (store) => ({
          ...store,
          getNewest: (id: InstallationId) => Effect.map(store.getNewest(id), Option.map(damage))
        }))
      )
      expect(published.historyId).toBe(2)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("refuses an installation that the store does not know", () =>
    Effect.gen(function* () {
      const stranger = InstallationId.make("00".repeat(32))
      const error = yield* Effect.flip(
        rotateAndUploadKeyPackage({ installationId: stranger, includePostQuantum: true })
      )
      expect(error).toMatchObject({ _tag: "StorageError", reason: "Conflict" })
      expect(error.message).toContain(stranger)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  const uploadFault = FastCheck.constantFrom<Faults.Fault | undefined>(
    undefined,
    undefined,
    Faults.failBeforeSend(),
    Faults.failAfterAccept(),
    Faults.failBeforeSend(Status.invalidArgument("invalid identity: validation failed")),
    Faults.hang(),
    Faults.hang("afterAccept"),
    Faults.drop(),
    Faults.drop("afterAccept"),
    Faults.rateLimited(),
    Faults.rateLimited(Duration.minutes(2)),
    Faults.delay("10 seconds")
  )
  const storeFault = FastCheck.constantFrom(
    undefined,
    undefined,
    undefined,
    "acquireLease" as const,
    "getInstallationKey" as const,
    "insertKeyPackageHistory" as const,
    "markExposed" as const,
    "checkLease" as const,
    "markKeyPackagesBeforeIdToBeDeleted" as const,
    "releaseLease" as const,
    "getNewest" as const
  )
  const script = FastCheck.array(
    FastCheck.record({
      uploads: FastCheck.array(uploadFault, { maxLength: 8 }),
      store: storeFault,
      includePostQuantum: FastCheck.boolean(),
      pause: FastCheck.constantFrom<Duration.DurationInput>("0 seconds", "10 minutes", "20 days")
    }),
    { minLength: 1, maxLength: 6 }
  )

  it.effect.prop(
    "[22] [61] whatever fails: nothing is marked without an acceptance, the served package opens, every key has its row",
    [script],
    ([steps]) =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const memory = yield* MemoryKeyPackageStore
        const store = yield* KeyPackageStore
        const { installationId } = yield* TestApp.newInstallation

        for (const step of steps) {
          yield* faults.clear
          yield* faults.clearCalls
          for (const fault of step.uploads) {
            yield* faults.enqueue("uploadKeyPackage", fault ?? Faults.delay("0 seconds"))
          }
          if (step.store !== undefined) yield* memory.failNext(step.store, "Busy")
          const before = yield* store.getHistory(installationId)
          const exit = yield* Effect.either(rotate(installationId, step.includePostQuantum))
          const after = yield* store.getHistory(installationId)
          const accepted = (yield* faults.callsOf("uploadKeyPackage")).some(
            (call) => call.outcome._tag === "Answered" && call.outcome.code === 0
          )
          const newlySuperseded = after.filter(
            (entry, i) => entry._tag === "Superseded" && before[i]?._tag !== "Superseded"
          )

          if (!accepted) {
            // Nothing that was there changed, but for a waiting row that may have been exposed.
            expect(exit._tag).toBe("Left")
            expect(newlySuperseded).toEqual([])
            expect(after.filter((entry) => entry._tag === "Published")).toEqual(
              before.filter((entry) => entry._tag === "Published")
            )
          }
          if (exit._tag === "Right") {
            expect(after.filter(isLive).map((entry) => entry._tag)).toEqual(["Published"])
            expect(yield* served(installationId)).toEqual(Option.some(exit.right.published.keyPackage.bytes))
          }
          // I1 and I2: what the network serves is one of ours and its keys are here.
          const slot = yield* served(installationId)
          if (slot !== undefined && Option.isSome(slot)) {
            const row = after.find((entry) => Buffer.compare(entry.keyPackage.bytes, slot.value) === 0)
            expect(row).toBeDefined()
            expect(row && Option.isSome(yield* store.getPrivateKeys(row.historyId))).toBe(true)
            expect(row?._tag).not.toBe("Prepared")
            if (row) expect(isLive(row)).toBe(true)
          }
          yield* TestClock.adjust(step.pause)
        }
      }).pipe(Effect.provide(TestApp.layer())),
    { fastCheck: { numRuns: Number(process.env["KEYWARD_RUNS"] ?? 50) } }
  )
})
