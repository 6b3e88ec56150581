/** The inbox, the scheduler and the cleaner together, with real Welcomes: no key goes while a Welcome that needs it is unread. */
import { describe, expect, it } from "@effect/vitest"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as InstallationIds from "@keyward/core/identity/InstallationId"
import { queueKeyRotation } from "@keyward/core/lifecycle/Rotation"
import * as Scheduler from "@keyward/core/lifecycle/Scheduler"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { WelcomeCursorStore } from "@keyward/core/ports/WelcomeCursorStore"
import * as WelcomeInbox from "@keyward/core/welcome/WelcomeInbox"
import * as Faults from "@keyward/test-utils/Faults"
import * as MemoryWelcomeCursorStore from "@keyward/test-utils/MemoryWelcomeCursorStore"
import * as DateTime from "effect/DateTime"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import * as App from "../lifecycle/SchedulerApp.ts"
import * as Inviter from "./Inviter.ts"
import * as World from "./World.ts"

/** What outlives a process: the network, the store, the place in the topic. */
const world = Layer.merge(Inviter.layer(), MemoryWelcomeCursorStore.layer)

const test = <A, E>(name: string, body: () => Effect.Effect<A, E, Layer.Layer.Success<typeof world>>) =>
  it.effect(
    name,
    () => World.atRealTime.pipe(Effect.zipRight(body()), Effect.provide(Layer.fresh(world))),
    World.TIMEOUT
  )

/** One process: the scheduler on the inbox, until it is stopped. */
const withProcess = <A, E, R>(
  use: (inbox: WelcomeInbox.WelcomeInbox["Type"]) => Effect.Effect<A, E, R>,
  options?: WelcomeInbox.Options
) =>
  Effect.flatMap(WelcomeInbox.WelcomeInbox, use).pipe(
    Effect.provide(Scheduler.layer().pipe(Layer.provideMerge(WelcomeInbox.layer(options))))
  )

/** Opening gives way to the event loop, which the clock of a test does not wait for. */
const until = (isReached: () => boolean) =>
  Effect.promise(async () => {
    for (let turn = 0; turn < 100_000 && !isReached(); turn++) await new Promise((resolve) => setImmediate(resolve))
  })

const recorder = () => {
  const handed: Array<WelcomeInbox.Delivery> = []
  return {
    handed,
    handler: (delivery: WelcomeInbox.Delivery) => Effect.sync(() => handed.push(delivery)),
    tags: () => handed.map((delivery) => (delivery._tag === "Opened" ? "Opened" : delivery.error._tag))
  }
}

/** Ours and somebody who invites; the first package of ours is superseded, with 20 Welcomes for it on the network. */
const asleepFor = (days: number) =>
  Effect.gen(function* () {
    const ours = yield* App.register({ includePostQuantum: true, owner: "11" })
    const friend = yield* App.register({ includePostQuantum: true, owner: "22" })
    yield* withProcess((inbox) =>
      Effect.gen(function* () {
        yield* inbox.read(ours, recorder().handler)
        yield* Inviter.invite(friend, ours, 20)
        yield* queueKeyRotation(ours)
        yield* TestClock.adjust("1 minute")
        expect(yield* App.states(ours)).toEqual(["Superseded", "Published"])
      })
    )
    yield* TestClock.adjust(`${days} days`)
    return ours
  })

const retiredRows = (id: InstallationId) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    return (yield* store.getRetired(id)).map(({ historyId }) => historyId as number)
  })

describe("WelcomeInbox and Cleaner", () => {
  test("[14] asleep for 3 days with 20 Welcomes waiting and the cleaner due: all 20 open, then the keys go", () =>
    Effect.gen(function* () {
      const ours = yield* asleepFor(3)
      yield* withProcess((inbox) =>
        Effect.gen(function* () {
          // The scheduler is up first, and the inbox is not read for an hour.
          yield* TestClock.adjust("1 hour")
          expect(yield* App.states(ours)).toContain("Superseded")
          expect(yield* retiredRows(ours)).toEqual([])
          const { handed, handler, tags } = recorder()
          const fiber = yield* Effect.fork(inbox.run(ours, handler))
          yield* until(() => handed.length === 20)
          expect(tags()).toEqual(Array.from({ length: 20 }, () => "Opened"))
          expect(handed.map(({ id }) => id)).toEqual(handed.map(({ id }) => id).sort((a, b) => (a < b ? -1 : 1)))
          yield* TestClock.adjust("65 minutes")
          expect(yield* retiredRows(ours)).toEqual([1])
          expect((yield* App.servedRow(ours))?._tag).toBe("Published")
          yield* Fiber.interrupt(fiber)
        })
      )
    }))

  test("[14] without the inbox's word the same keys go first, and the Welcomes are lost: the reason for all this", () =>
    Effect.gen(function* () {
      const ours = yield* asleepFor(3)
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* App.startScheduler()
          yield* TestClock.adjust("1 minute")
        })
      )
      expect(yield* retiredRows(ours)).toEqual([1])
      const { handler, tags } = recorder()
      yield* withProcess((inbox) => inbox.read(ours, handler))
      expect(tags()).toEqual(Array.from({ length: 20 }, () => "NoSuchKeyPackage"))
    }))

  test("[57] a sweep while Welcomes are handed over takes no key that the rest of them needs", () =>
    Effect.gen(function* () {
      const ours = yield* asleepFor(3)
      const go = yield* Deferred.make<void>()
      const { handed, handler, tags } = recorder()
      // Five Welcomes at a time: the sixth is not opened before the first five are handed over.
      yield* withProcess(
        (inbox) =>
          Effect.gen(function* () {
            const reading = yield* Effect.fork(
              inbox.read(ours, (delivery) =>
                Effect.zipRight(handed.length === 4 ? Deferred.await(go) : Effect.void, handler(delivery))
              )
            )
            yield* until(() => handed.length === 4)
            yield* TestClock.adjust("4 hours")
            expect(handed.length).toBe(4)
            expect(yield* retiredRows(ours)).toEqual([])
            yield* Deferred.succeed(go, undefined)
            expect(yield* Fiber.join(reading)).toMatchObject({ opened: 20, unresolved: 0 })
            expect(tags()).toEqual(Array.from({ length: 20 }, () => "Opened"))
            yield* TestClock.adjust("65 minutes")
            expect(yield* retiredRows(ours)).toEqual([1])
          }),
        { pageSize: 5, handlerTimeout: "1 day" }
      )
    }))

  test("a Welcome that the handler does not take keeps its key until it does", () =>
    Effect.gen(function* () {
      const ours = yield* asleepFor(3)
      let isWell = false
      const { handler, tags } = recorder()
      yield* withProcess((inbox) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.fork(
            inbox.run(ours, (delivery) =>
              tags().length === 7 && !isWell ? Effect.fail("not this one") : handler(delivery)
            )
          )
          yield* until(() => tags().length === 7)
          yield* TestClock.adjust("2 hours")
          expect(tags().length).toBe(7)
          expect(yield* retiredRows(ours)).toEqual([])
          isWell = true
          yield* TestClock.adjust("65 minutes")
          yield* until(() => tags().length === 20)
          yield* TestClock.adjust("65 minutes")
          expect(tags()).toEqual(Array.from({ length: 20 }, () => "Opened"))
          expect(yield* retiredRows(ours)).toContain(1)
          yield* Fiber.interrupt(fiber)
        })
      )
    }))

  test("a Welcome within the grace opens with the superseded keys; the same bytes sent twice are one Welcome", () =>
    Effect.gen(function* () {
      const ours = yield* asleepFor(0)
      const { handed, handler, tags } = recorder()
      yield* withProcess((inbox) => inbox.read(ours, handler))
      expect(tags()).toEqual(Array.from({ length: 20 }, () => "Opened"))
      const api = yield* ApiClient
      const { entries } = yield* api.queryWelcomeMessages(ours, { after: 0n, limit: 1 })
      const [first] = entries
      if (first?._tag !== "Welcome") return expect.fail("a Welcome")
      const { createdNs: _, id, ...bytes } = first
      yield* api.sendWelcomeMessages([bytes])
      yield* withProcess((inbox) => inbox.read(ours, handler))
      expect(handed.filter((delivery) => delivery.id === id).length).toBe(1)
      expect(handed.length).toBe(20)
    }))

  test("a Welcome that the app does not take is tried again, and makes no more than one rotation", () =>
    Effect.gen(function* () {
      const ours = yield* App.register({ includePostQuantum: true, owner: "11" })
      const api = yield* ApiClient
      const faults = yield* Faults.Faults
      let attempts = 0
      const refuse = (delivery: WelcomeInbox.Delivery) =>
        Effect.suspend(() => {
          attempts = delivery.attempt
          return Effect.fail("not now")
        })
      yield* withProcess((inbox) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.fork(inbox.run(ours, refuse))
          yield* TestClock.adjust("1 minute")
          yield* faults.clearCalls
          const row = yield* App.servedRow(ours)
          if (row === undefined) return expect.fail("nothing served")
          yield* api.sendWelcomeMessages([
            {
              _tag: "Welcome",
              installationKey: InstallationIds.toPublicKey(ours),
              data: new TextEncoder().encode("nothing right inside"),
              hpkePublicKey: row.keyPackage.initKey,
              wrapperAlgorithm: 1,
              welcomeMetadata: new Uint8Array(0)
            }
          ])
          for (let attempt = 1; attempt <= 8; attempt++) {
            yield* TestClock.adjust("5 minutes")
            yield* until(() => attempts >= attempt)
          }
          expect(attempts).toBeGreaterThanOrEqual(8)
          yield* TestClock.adjust("1 minute")
          expect((yield* faults.callsOf("uploadKeyPackage")).length).toBe(1)
          yield* Fiber.interrupt(fiber)
        })
      )
    }))

  test("[58] a thousand Welcomes at once make one rotation, and each is handed over", () =>
    Effect.gen(function* () {
      const ours = yield* App.register({ includePostQuantum: true, owner: "11" })
      const api = yield* ApiClient
      const faults = yield* Faults.Faults
      const { handler, tags } = recorder()
      yield* withProcess((inbox) =>
        Effect.gen(function* () {
          const fiber = yield* Effect.fork(inbox.run(ours, handler))
          yield* TestClock.adjust("1 minute")
          yield* faults.clearCalls
          const row = yield* App.servedRow(ours)
          if (row === undefined) return expect.fail("nothing served")
          // To the right key, with nothing right inside: each is looked up, and decapsulated by nobody but us.
          yield* api.sendWelcomeMessages(
            Array.from({ length: 1000 }, (_, i) => ({
              _tag: "Welcome" as const,
              installationKey: InstallationIds.toPublicKey(ours),
              data: new TextEncoder().encode(`flood ${i}`),
              hpkePublicKey: row.keyPackage.initKey,
              wrapperAlgorithm: 1,
              welcomeMetadata: new Uint8Array(0)
            }))
          )
          const before = yield* DateTime.now
          yield* TestClock.adjust("100 millis")
          yield* until(() => tags().length === 1000)
          expect(tags().length).toBe(1000)
          yield* TestClock.adjust("10 minutes")
          expect((yield* faults.callsOf("uploadKeyPackage")).length).toBe(1)
          const served = yield* App.servedRow(ours)
          expect(served?.historyId).not.toBe(row.historyId)
          expect(DateTime.greaterThan(served?.createdAt ?? before, before)).toBe(true)
          const cursors = yield* WelcomeCursorStore
          expect((yield* cursors.get(ours)).unresolved).toEqual([])
          yield* Fiber.interrupt(fiber)
        })
      )
    }))
})
