/** What is told of what happened, to whom, and what it costs where nobody listens. */
import { describe, expect, it } from "@effect/vitest"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import { HistoryId } from "@keyward/core/lifecycle/Ledger"
import * as LifecycleEvents from "@keyward/core/lifecycle/LifecycleEvents"
import { queueKeyRotation, rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import * as Faults from "@keyward/test-utils/Faults"
import * as Chunk from "effect/Chunk"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import * as App from "./SchedulerApp.ts"
import * as TestApp from "./TestApp.ts"

const one = InstallationId.InstallationId.make("11".repeat(32))
const other = InstallationId.InstallationId.make("22".repeat(32))
const at = DateTime.unsafeMake("2026-11-23T12:00:00Z")
const exposed = (installationId: InstallationId.InstallationId, historyId: number) =>
  LifecycleEvents.LifecycleEvent.Exposed({ installationId, historyId: HistoryId.make(historyId), at })

const collect = <E, R>(stream: Stream.Stream<LifecycleEvents.LifecycleEvent, E, R>, count: number) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.fork(Stream.runCollect(Stream.take(stream, count)))
    yield* Effect.yieldNow()
    yield* Effect.yieldNow()
    return fiber
  })

describe("LifecycleEvents", () => {
  it.effect("tells everything to whoever reads all, and only its own to whoever reads one installation", () =>
    Effect.gen(function* () {
      const all = yield* collect(LifecycleEvents.events(), 3)
      const own = yield* collect(LifecycleEvents.events(one), 2)
      for (const event of [exposed(one, 1), exposed(other, 2), exposed(one, 3)]) yield* LifecycleEvents.emit(event)
      expect(Chunk.toReadonlyArray(yield* Fiber.join(all))).toEqual([
        exposed(one, 1),
        exposed(other, 2),
        exposed(one, 3)
      ])
      expect(Chunk.toReadonlyArray(yield* Fiber.join(own))).toEqual([exposed(one, 1), exposed(one, 3)])
    }).pipe(Effect.provide(LifecycleEvents.layer))
  )

  it.effect("a reader that is too slow loses the oldest events, and holds nobody up", () =>
    Effect.gen(function* () {
      const first = yield* Effect.makeLatch()
      const seen: Array<number> = []
      yield* LifecycleEvents.events().pipe(
        Stream.runForEach((event) =>
          Effect.zipRight(
            first.await,
            Effect.sync(() => "historyId" in event && seen.push(event.historyId))
          )
        ),
        Effect.fork
      )
      yield* Effect.yieldNow()
      yield* Effect.yieldNow()
      for (let id = 1; id <= 10_000; id++) yield* LifecycleEvents.emit(exposed(one, id))
      yield* first.open
      yield* Effect.repeatN(Effect.yieldNow(), 20)
      expect(seen.at(-1)).toBe(10_000)
      expect(seen.length).toBeLessThan(6_000)
      expect(seen.length).toBeGreaterThanOrEqual(4_096)
    }).pipe(Effect.provide(LifecycleEvents.layer))
  )

  it.effect("counts each kind where nobody reads", () =>
    Effect.gen(function* () {
      const count = Metric.value(Metric.tagged(LifecycleEvents.eventsTotal, "event", "Exposed"))
      const before = (yield* count).count
      yield* LifecycleEvents.emit(exposed(one, 1))
      yield* LifecycleEvents.emit(exposed(one, 2))
      expect((yield* count).count - before).toBe(2)
    })
  )

  it.scoped("tells the whole life of a package in its order", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const events = yield* App.recordEvents
      const id = yield* App.register()
      const scheduler = yield* App.startScheduler()
      yield* TestApp.withTime(scheduler.probe(id))
      yield* queueKeyRotation(id)
      yield* TestClock.adjust("2 days")
      const told = (yield* events.all).map((event) => [event._tag, "historyId" in event ? event.historyId : undefined])
      expect(told).toEqual([
        ["Generated", 1],
        ["Exposed", 1],
        ["Published", 1],
        ["Generated", 2],
        ["Exposed", 2],
        ["Published", 2],
        ["Superseded", 1],
        ["Retired", 1]
      ])
    }).pipe(Effect.provide(App.layer()))
  )

  it.scoped("tells of an upload that failed with the network's own words and ids, and when it is tried again", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      const events = yield* App.recordEvents
      yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
      yield* Effect.flip(TestApp.withTime(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false })))
      const all = yield* events.all
      expect(all.map((event) => event._tag)).toEqual(["Generated", "Exposed", "UploadFailed", "RotationFailed"])
      const [, , failed, broken] = all
      expect(failed).toMatchObject({ installationId: id, historyId: 2, detail: expect.stringContaining("Unavailable") })
      if (broken?._tag !== "RotationFailed") return expect.fail("no RotationFailed")
      expect(DateTime.greaterThan(broken.retryAt, broken.at)).toBe(true)
    }).pipe(Effect.provide(App.layer()))
  )
})
