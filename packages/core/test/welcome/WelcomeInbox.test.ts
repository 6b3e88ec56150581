/** What the inbox does with a topic: each entry once, in order, whatever the network, the handler and the process do. */
import { describe, expect, it } from "@effect/vitest"
import { InboxId } from "@keyward/core/identity/InboxId"
import * as InstallationIds from "@keyward/core/identity/InstallationId"
import { AssociationStateError } from "@keyward/core/peers/AssociationStates"
import { ApiClient, ApiClientError, type WelcomeMessageEntry } from "@keyward/core/ports/ApiClient"
import { StorageError } from "@keyward/core/ports/KeyPackageStore"
import { WelcomeCursorStore } from "@keyward/core/ports/WelcomeCursorStore"
import { MembersUnknown, NoSuchKeyPackage, PointeeNotFound } from "@keyward/core/welcome/WelcomeError"
import * as WelcomeInbox from "@keyward/core/welcome/WelcomeInbox"
import * as Status from "@keyward/test-utils/devnode/GrpcStatus"
import * as Faults from "@keyward/test-utils/Faults"
import * as MemoryApiClient from "@keyward/test-utils/MemoryApiClient"
import * as MemoryWelcomeCursorStore from "@keyward/test-utils/MemoryWelcomeCursorStore"
import * as SkewedClock from "@keyward/test-utils/simulation/SkewedClock"
import type * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as TestClock from "effect/TestClock"
import * as TestApp from "../lifecycle/TestApp.ts"

const installationId = InstallationIds.InstallationId.make("ab".repeat(32))
const other = InstallationIds.InstallationId.make("cd".repeat(32))

const layer = Layer.merge(MemoryApiClient.layerWithNode(), MemoryWelcomeCursorStore.layer)

const test = <A, E>(name: string, body: () => Effect.Effect<A, E, Layer.Layer.Success<typeof layer>>) =>
  it.effect(name, () => TestApp.start.pipe(Effect.zipRight(body()), Effect.provide(Layer.fresh(layer))))

let serial = 0
/** Welcomes that nobody can open: the inbox hands them over all the same. */
const post = (count: number, to = installationId) =>
  Effect.flatMap(ApiClient, (api) =>
    api.sendWelcomeMessages(
      Array.from({ length: count }, () => ({
        _tag: "Welcome" as const,
        installationKey: InstallationIds.toPublicKey(to),
        data: new TextEncoder().encode(`Welcome ${++serial}`),
        hpkePublicKey: new Uint8Array(32),
        wrapperAlgorithm: 1,
        welcomeMetadata: new Uint8Array(0)
      }))
    )
  )

const neverOurs = new NoSuchKeyPackage({ installationId, reason: { _tag: "NeverOurs" } })
const notThereYet = new PointeeNotFound({ destination: "00" })

/** Opens nothing, at no cost. What fails for now, and which entries were opened together, a test may say and see. */
const makeInbox = (
  options: WelcomeInbox.Options & {
    readonly forNow?: ReadonlySet<bigint>
    readonly deadly?: ReadonlySet<bigint>
    readonly seen?: Array<ReadonlyArray<WelcomeMessageEntry>>
  } = {}
) =>
  WelcomeInbox.makeWith((_, entries) => {
    options.seen?.push(entries)
    if (entries.some((entry) => entry._tag === "Welcome" && options.deadly?.has(entry.id) === true)) {
      return Effect.die(new TypeError("secret bytes"))
    }
    return Effect.succeed(
      entries.map((entry) =>
        Either.left(entry._tag === "Welcome" && options.forNow?.has(entry.id) === true ? notThereYet : neverOurs)
      )
    )
  }, options)

/** A handler that notes what it is handed, and then does as it is told. */
const recorder = (behave: (delivery: WelcomeInbox.Delivery) => Effect.Effect<unknown, unknown> = () => Effect.void) => {
  const handed: Array<readonly [bigint, number]> = []
  const handler = (delivery: WelcomeInbox.Delivery) =>
    Effect.suspend(() => {
      handed.push([delivery.id, delivery.attempt])
      return behave(delivery)
    })
  return { handed, handler, ids: () => handed.map(([id]) => Number(id)) }
}

const failing = (...ids: ReadonlyArray<bigint>) => {
  const left = new Set(ids)
  return { left, behave: ({ id }: WelcomeInbox.Delivery) => (left.has(id) ? Effect.fail("not now") : Effect.void) }
}

const cursor = Effect.flatMap(WelcomeCursorStore, (store) => store.get(installationId))

const iso = (time: Option.Option<DateTime.Utc>) => Option.getOrUndefined(Option.map(time, DateTime.formatIso))

/** Minutes after the start of the test. */
const minute = (minutes: number) => DateTime.formatIso(DateTime.add(TestApp.START, { minutes }))

const progress = (inbox: WelcomeInbox.WelcomeInbox["Type"]) =>
  Effect.map(Effect.flatten(inbox.progress(installationId)), ({ attemptedAt, completeAsOf }) => ({
    attemptedAt: iso(attemptedAt),
    completeAsOf: iso(completeAsOf)
  }))

describe("WelcomeInbox.read", () => {
  test("hands over what is there in order, page by page, and nothing of it again", () =>
    Effect.gen(function* () {
      const seen: Array<ReadonlyArray<WelcomeMessageEntry>> = []
      const inbox = yield* makeInbox({ pageSize: 2, seen })
      const { handed, handler } = recorder()
      yield* post(1, other)
      yield* post(5)
      expect(yield* inbox.read(installationId, handler)).toEqual({
        opened: 0,
        unopenable: 5,
        unresolved: 0,
        isComplete: true
      })
      expect(handed).toEqual([2n, 3n, 4n, 5n, 6n].map((id) => [id, 1]))
      expect(seen.map((entries) => entries.length)).toEqual([2, 2, 1])
      expect(yield* inbox.read(installationId, handler)).toMatchObject({ unopenable: 0 })
      yield* post(1)
      yield* inbox.read(installationId, handler)
      expect(handed.slice(5)).toEqual([[7n, 1]])
      const again = yield* makeInbox()
      expect(yield* again.read(installationId, handler)).toMatchObject({ unopenable: 0 })
      expect(yield* again.read(other, handler)).toMatchObject({ unopenable: 1 })
    }))

  test("says why a Welcome does not open", () =>
    Effect.gen(function* () {
      const inbox = yield* makeInbox()
      yield* post(1)
      const errors: Array<unknown> = []
      yield* inbox.read(installationId, (delivery) =>
        Effect.sync(() => {
          if (delivery._tag === "Unopenable") errors.push(delivery.error)
        })
      )
      expect(errors).toEqual([neverOurs])
    }))

  for (const [name, behave] of [
    ["fails", Effect.fail("no")],
    ["dies", Effect.die(new Error("bug"))],
    ["does not end", Effect.never],
    ["interrupts itself", Effect.interrupt]
  ] as const) {
    test(`a handler that ${name} is handed the Welcome again, ever later; those after it are not held up`, () =>
      Effect.gen(function* () {
        const inbox = yield* makeInbox({ handlerTimeout: "1 minute" })
        const { handed, handler } = recorder(({ attempt, id }) => (id === 2n && attempt < 4 ? behave : Effect.void))
        yield* post(3)
        const read = Effect.gen(function* () {
          const fiber = yield* Effect.fork(inbox.read(installationId, handler))
          yield* TestClock.adjust("1 minute")
          const reading = yield* Fiber.join(fiber)
          yield* TestClock.adjust("1 minute")
          return reading
        })
        expect(yield* read).toMatchObject({ unopenable: 2, unresolved: 1, isComplete: true })
        expect(handed).toEqual([1n, 2n, 3n].map((id) => [id, 1]))
        expect(yield* read).toMatchObject({ unresolved: 1 })
        expect(yield* read).toMatchObject({ unresolved: 1 })
        expect(yield* read).toMatchObject({ unopenable: 1, unresolved: 0 })
        expect(handed.slice(3)).toEqual([2, 3, 4].map((attempt) => [2n, attempt]))
      }))
  }

  test("waits from 1 second to 1 hour before it hands over again; a new process does not wait", () =>
    Effect.gen(function* () {
      const inbox = yield* makeInbox()
      const { handed, handler } = recorder(() => Effect.fail("no"))
      yield* post(1)
      const read = inbox.read(installationId, handler)
      yield* read
      const waits = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 3600, 3600]
      for (const [index, seconds] of waits.entries()) {
        yield* TestClock.adjust(`${seconds * 1000 - 1} millis`)
        yield* read
        expect(handed.length).toBe(index + 1)
        yield* TestClock.adjust("1 millis")
        yield* read
        expect(handed.length).toBe(index + 2)
      }
      yield* (yield* makeInbox()).read(installationId, handler)
      expect(handed.length).toBe(waits.length + 2)
    }))

  test("an interruption in the handler loses nothing: the Welcome comes again, in this process or the next", () =>
    Effect.gen(function* () {
      const inbox = yield* makeInbox()
      const stuck = recorder(({ id }) => (id === 2n ? Effect.never : Effect.void))
      yield* post(3)
      const fiber = yield* Effect.fork(inbox.read(installationId, stuck.handler))
      yield* TestClock.adjust("1 second")
      expect(stuck.ids()).toEqual([1, 2])
      yield* Fiber.interrupt(fiber)
      expect((yield* cursor).position).toBe(1n)
      const { handed, handler } = recorder()
      yield* (yield* makeInbox()).read(installationId, handler)
      expect(handed).toEqual([2n, 3n].map((id) => [id, 1]))
    }))

  test("a handler's success whose cursor is not moved is handed over once more, with the same id", () =>
    Effect.gen(function* () {
      const store = yield* WelcomeCursorStore
      let broken = true
      const breaking: Context.Tag.Service<WelcomeCursorStore> = {
        ...store,
        resolve: (who, id) =>
          Effect.suspend(() => {
            if (!broken || id !== 2n) return store.resolve(who, id)
            broken = false
            return new StorageError({ operation: "resolve", reason: "Unavailable" })
          })
      }
      const inbox = yield* Effect.provideService(makeInbox(), WelcomeCursorStore, breaking)
      const { handler, ids } = recorder()
      yield* post(3)
      const failed = yield* Effect.exit(inbox.read(installationId, handler))
      expect(Exit.isFailure(failed)).toBe(true)
      expect(ids()).toEqual([1, 2])
      yield* inbox.read(installationId, handler)
      yield* inbox.read(installationId, handler)
      expect(ids()).toEqual([1, 2, 2, 3])
    }))

  test("a handler that moves the cursor itself is done, whatever it says then; of two at once one is told to undo", () =>
    Effect.gen(function* () {
      const one = yield* makeInbox()
      const two = yield* makeInbox()
      yield* post(1)
      const outcomes: Array<string> = []
      const commit = ({ commit }: WelcomeInbox.Delivery) =>
        Effect.zipRight(Effect.sleep("1 second"), commit).pipe(
          Effect.tapBoth({
            onFailure: (error) => Effect.sync(() => outcomes.push(error._tag)),
            onSuccess: () => Effect.sync(() => outcomes.push("committed"))
          }),
          Effect.zipRight(Effect.fail("after the commit"))
        )
      const both = yield* Effect.fork(
        Effect.all([one.read(installationId, commit), two.read(installationId, commit)], { concurrency: 2 })
      )
      yield* TestClock.adjust("1 second")
      const readings = yield* Fiber.join(both)
      expect(outcomes.sort()).toEqual(["AlreadyHandedOver", "committed"])
      expect(readings.map(({ unresolved }) => unresolved)).toEqual([0, 0])
      expect((yield* cursor).unresolved).toEqual([])
    }))

  test("[52] two readings at once in one process hand over each Welcome once", () =>
    Effect.gen(function* () {
      const inbox = yield* makeInbox({ pageSize: 2 })
      const { handler, ids } = recorder(() => Effect.yieldNow())
      yield* post(5)
      const read = inbox.read(installationId, handler)
      yield* Effect.all([read, read, read], { concurrency: "unbounded" })
      expect(ids()).toEqual([1, 2, 3, 4, 5])
    }))

  test("tries again for three days what cannot be opened for now, and hands it over as unopenable then", () =>
    Effect.gen(function* () {
      const forNow = new Set([1n, 2n])
      const inbox = yield* makeInbox({ forNow })
      const { handed, handler } = recorder()
      yield* post(3)
      expect(yield* inbox.read(installationId, handler)).toMatchObject({ unopenable: 1, unresolved: 2 })
      yield* TestClock.adjust("1 minute")
      forNow.delete(2n)
      yield* inbox.read(installationId, handler)
      expect(handed).toEqual([
        [3n, 1],
        [2n, 2]
      ])
      yield* TestClock.adjust("2 days")
      expect(yield* inbox.read(installationId, handler)).toMatchObject({ unresolved: 1 })
      yield* TestClock.adjust("1 day")
      expect(yield* inbox.read(installationId, handler)).toMatchObject({ unopenable: 1, unresolved: 0 })
      expect(handed.at(-1)?.[0]).toBe(1n)
    }))

  test("a bug that one Welcome meets is that one's own, and told without its words", () =>
    Effect.gen(function* () {
      const deadly = new Set([2n])
      const inbox = yield* makeInbox({ deadly })
      const { handler, ids } = recorder()
      yield* post(3)
      expect(yield* inbox.read(installationId, handler)).toMatchObject({ unopenable: 2, unresolved: 1 })
      expect(ids()).toEqual([1, 3])
      yield* TestClock.adjust("3 days")
      const errors: Array<string> = []
      yield* inbox.read(installationId, (delivery) =>
        Effect.sync(() => {
          if (delivery._tag === "Unopenable") errors.push(delivery.error.message)
        })
      )
      expect(errors).toEqual([`opening Welcome 2 of installation ${installationId} died of TypeError`])
    }))

  test("says that a Welcome is gone that the network no longer has", () =>
    Effect.gen(function* () {
      const { behave, left } = failing(1n)
      const inbox = yield* makeInbox()
      yield* post(2)
      yield* inbox.read(installationId, recorder(behave).handler)
      left.clear()
      const api = yield* ApiClient
      const emptied = yield* Effect.provideService(makeInbox(), ApiClient, {
        ...api,
        queryWelcomeMessages: (_, { after }) => Effect.succeed({ entries: [], cursor: after, hasMore: false })
      })
      const tags: Array<string> = []
      yield* emptied.read(installationId, (delivery) =>
        Effect.sync(() => tags.push(delivery._tag === "Unopenable" ? delivery.error._tag : delivery._tag))
      )
      expect(tags).toEqual(["WelcomeGone"])
      expect((yield* cursor).unresolved).toEqual([])
    }))

  test("reads no more while too many wait, and goes on when they are fewer", () =>
    Effect.gen(function* () {
      const { behave, left } = failing(1n, 2n, 3n, 4n)
      const inbox = yield* makeInbox({ maximumUnresolved: 3, pageSize: 1 })
      const { handler, ids } = recorder(behave)
      yield* post(8)
      expect(yield* inbox.read(installationId, handler)).toMatchObject({ unresolved: 3, isComplete: false })
      expect(ids()).toEqual([1, 2, 3])
      expect((yield* progress(inbox)).completeAsOf).toBe(undefined)
      left.delete(2n)
      yield* TestClock.adjust("1 minute")
      expect(yield* inbox.read(installationId, handler)).toMatchObject({ unresolved: 3, isComplete: false })
      left.clear()
      yield* TestClock.adjust("1 minute")
      expect(yield* inbox.read(installationId, handler)).toMatchObject({ unresolved: 0, isComplete: true })
      expect([...new Set(ids())].sort()).toEqual([1, 2, 3, 4, 5, 6, 7, 8])
    }))

  test("is stopped for minutes, not for days, by a stranger's Welcomes that never say whether they open", () =>
    Effect.gen(function* () {
      const forNow = new Set([1n, 2n, 3n])
      const inbox = yield* makeInbox({ forNow, maximumUnresolved: 3, pageSize: 1 })
      const { handler, ids } = recorder()
      yield* post(5)
      expect(yield* inbox.read(installationId, handler)).toMatchObject({ unresolved: 3, isComplete: false })
      yield* TestClock.adjust("9 minutes")
      expect(yield* inbox.read(installationId, handler)).toMatchObject({ unresolved: 3, isComplete: false })
      yield* TestClock.adjust("1 minute")
      expect(yield* inbox.read(installationId, handler)).toMatchObject({ unresolved: 0, isComplete: true })
      expect(ids()).toEqual([1, 2, 3, 4, 5])
    }))

  test("gives nothing up early that only the node cannot be asked about", () =>
    Effect.gen(function* () {
      const unreachable = new ApiClientError({ operation: "getIdentityUpdates", reason: "Unavailable" })
      const inboxId = InboxId.make("a1".repeat(32))
      const reason = { _tag: "InboxUnreachable", inboxId, error: unreachable } as const
      const errors = [
        unreachable,
        new MembersUnknown({ inboxId, cause: new AssociationStateError({ inboxId, reason }) })
      ]
      const inbox = yield* WelcomeInbox.makeWith(
        (_, entries) => Effect.succeed(entries.map(({ id }) => Either.left(errors[Number(id) - 1] ?? neverOurs))),
        { maximumUnresolved: 2, pageSize: 1 }
      )
      const { handler, ids } = recorder()
      yield* post(3)
      yield* inbox.read(installationId, handler)
      yield* TestClock.adjust("2 days")
      expect(yield* inbox.read(installationId, handler)).toMatchObject({ unresolved: 2, isComplete: false })
      yield* TestClock.adjust("1 day")
      expect(yield* inbox.read(installationId, handler)).toMatchObject({ unresolved: 0, isComplete: true })
      expect(ids()).toEqual([1, 2, 3])
    }))

  test("passes by what has no place of its own, and asks nobody to open it", () =>
    Effect.gen(function* () {
      const api = yield* ApiClient
      const seen: Array<ReadonlyArray<WelcomeMessageEntry>> = []
      const inbox = yield* Effect.provideService(makeInbox({ seen }), ApiClient, {
        ...api,
        queryWelcomeMessages: (_, { after }) =>
          Effect.succeed({
            entries:
              after > 0n
                ? []
                : [
                    { _tag: "Unknown", id: Option.none() },
                    { _tag: "Unknown", id: Option.some(7n) }
                  ],
            cursor: 9n,
            hasMore: after === 0n
          })
      })
      const { handler, ids } = recorder()
      yield* inbox.read(installationId, handler)
      expect(ids()).toEqual([7])
      expect(seen.flat()).toEqual([{ _tag: "Unknown", id: Option.some(7n) }])
      expect((yield* cursor).position).toBe(9n)
    }))
})

describe("WelcomeInbox.progress", () => {
  test("is complete as of the begin of the latest complete reading, and not of one that broke off", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      const inbox = yield* makeInbox({ pageSize: 2 })
      const { handler } = recorder(() => Effect.sleep("1 minute"))
      const read = Effect.gen(function* () {
        const fiber = yield* Effect.fork(Effect.exit(inbox.read(installationId, handler)))
        yield* TestClock.adjust("10 minutes")
        yield* Fiber.join(fiber)
      })
      expect(yield* progress(inbox)).toEqual({ attemptedAt: undefined, completeAsOf: undefined })
      yield* post(3)
      yield* read
      expect(yield* progress(inbox)).toEqual({ attemptedAt: minute(0), completeAsOf: minute(0) })
      yield* post(3)
      // The first page is answered, the second is not.
      yield* faults.enqueue("queryWelcomeMessages", Faults.delay("1 second"), Faults.failBeforeSend())
      yield* read
      expect(yield* progress(inbox)).toEqual({ attemptedAt: minute(10), completeAsOf: minute(0) })
      yield* read
      expect(yield* progress(inbox)).toEqual({ attemptedAt: minute(20), completeAsOf: minute(20) })
      // What is durable outlives the process; that somebody tried does not.
      expect(yield* progress(yield* makeInbox())).toEqual({ attemptedAt: undefined, completeAsOf: minute(20) })
    }))

  test("is held back by the lowest Welcome that is unresolved, not by those that were resolved since", () =>
    Effect.gen(function* () {
      const inbox = yield* makeInbox()
      const { behave, left } = failing(1n, 2n)
      const { handler } = recorder(behave)
      const asOf = Effect.map(progress(inbox), ({ completeAsOf }) => completeAsOf)
      yield* inbox.read(installationId, handler)
      yield* post(1)
      yield* TestClock.adjust("10 minutes")
      yield* inbox.read(installationId, handler)
      expect(yield* asOf).toBe(minute(0))
      left.delete(1n)
      yield* post(1)
      yield* TestClock.adjust("10 minutes")
      yield* inbox.read(installationId, handler)
      expect(yield* asOf).toBe(minute(10))
      left.clear()
      yield* TestClock.adjust("10 minutes")
      yield* inbox.read(installationId, handler)
      expect(yield* asOf).toBe(minute(30))
    }))

  test("[13] forgets for good what was read under a clock that was ahead, with what failed since, until the next reading", () =>
    Effect.gen(function* () {
      const inbox = yield* makeInbox()
      const { behave, left } = failing(2n)
      const { handler } = recorder(behave)
      const days = (count: number) =>
        TestClock.setTime(DateTime.toEpochMillis(DateTime.add(TestApp.START, { days: count })))
      const asOf = Effect.map(progress(inbox), ({ completeAsOf }) => completeAsOf)
      const never = DateTime.formatIso(DateTime.unsafeMake(0))
      yield* post(1)
      yield* days(3)
      yield* inbox.read(installationId, handler)
      expect(yield* asOf).toBe(minute(3 * 24 * 60))
      // The clock is put right, and nothing is read: also when it gets to where it was, the same reading says nothing.
      yield* days(0)
      expect(yield* asOf).toBe(never)
      yield* days(4)
      expect(yield* asOf).toBe(never)
      expect((yield* cursor).position).toBe(1n)
      yield* inbox.read(installationId, handler)
      expect(yield* asOf).toBe(minute(4 * 24 * 60))

      // A reading forgets it, too: what fails in it has no reading before it whose time is known.
      yield* post(1)
      yield* days(1)
      yield* inbox.read(installationId, handler)
      expect((yield* cursor).unresolved).toMatchObject([{ id: 2n }])
      expect(yield* asOf).toBe(never)
      left.clear()
      yield* days(2)
      yield* inbox.read(installationId, handler)
      expect(yield* asOf).toBe(minute(2 * 24 * 60))
    }))

  test("[15] dates a reading by the clock that is set back while it lasts", () =>
    Effect.gen(function* () {
      const inbox = yield* makeInbox()
      const right = yield* Effect.clock
      const skew = SkewedClock.skew()
      skew.offsetMillis = 3 * 86_400_000
      yield* post(1)
      const { handler } = recorder(() =>
        Effect.zipRight(
          Effect.withClock(TestClock.adjust("2 minutes"), right),
          Effect.sync(() => {
            skew.offsetMillis = 0
          })
        )
      )
      yield* Effect.provide(inbox.read(installationId, handler), SkewedClock.layer(skew))
      expect(yield* Effect.map(progress(inbox), ({ completeAsOf }) => completeAsOf)).toBe(minute(0))
    }))

  test("cannot be told where the store cannot be read", () =>
    Effect.gen(function* () {
      const store = yield* WelcomeCursorStore
      const inbox = yield* Effect.provideService(makeInbox(), WelcomeCursorStore, {
        ...store,
        get: () => new StorageError({ operation: "get", reason: "Busy" })
      })
      expect(yield* Effect.flip(inbox.progress(installationId))).toMatchObject({ _tag: "WelcomeProgressError" })
    }))
})

/** Runs until the scope of the test ends. */
const start = (inbox: WelcomeInbox.WelcomeInbox["Type"], handler: WelcomeInbox.Handler) =>
  Effect.zipLeft(Effect.fork(inbox.run(installationId, handler)), TestClock.adjust("1 second"))

describe("WelcomeInbox.run", () => {
  test("hands over what waits, and what comes as soon as it comes", () =>
    Effect.gen(function* () {
      const inbox = yield* makeInbox()
      const { handler, ids } = recorder()
      yield* post(2)
      yield* start(inbox, handler)
      expect(ids()).toEqual([1, 2])
      for (const id of [3, 4]) {
        yield* post(1)
        yield* TestClock.adjust("200 millis")
        expect(ids().at(-1)).toBe(id)
      }
      expect(ids()).toEqual([1, 2, 3, 4])
    }))

  test("reads together what comes together", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      const inbox = yield* makeInbox()
      const { handler, ids } = recorder()
      yield* start(inbox, handler)
      yield* faults.clearCalls
      yield* post(30)
      yield* TestClock.adjust("1 second")
      expect(ids().length).toBe(30)
      expect((yield* faults.callsOf("queryWelcomeMessages")).length).toBeLessThanOrEqual(2)
    }))

  const streams: ReadonlyArray<readonly [string, ReadonlyArray<Faults.Fault>]> = [
    ["that breaks", [Faults.cutAfter(1), Faults.cutAfter(0), Faults.cutAfter(2)]],
    ["that the node ends", [Faults.cutAfter(1, "end"), Faults.cutAfter(0, "end")]],
    ["that repeats", [Faults.streaming(Faults.StreamFault.Doubled())]],
    ["that swaps", [Faults.streaming(Faults.StreamFault.Swapped())]],
    ["that leaves out", [Faults.streaming(Faults.StreamFault.LeftOut({ nth: 1 }))]],
    ["that falls silent", [Faults.cutAfter(0, "hang")]],
    ["that is refused", [Faults.failBeforeSend(Status.unavailable("busy")), Faults.rateLimited()]]
  ]
  for (const [name, faulty] of streams) {
    test(`[24] with a stream ${name}, hands over each once and in order, in 5 minutes at most`, () =>
      Effect.gen(function* () {
        const faults = yield* Faults.Faults
        yield* faults.enqueue("subscribeWelcomeMessages", ...faulty)
        const inbox = yield* makeInbox()
        const { handler, ids } = recorder()
        const fiber = yield* start(inbox, handler)
        for (let i = 0; i < 6; i++) {
          yield* post(1)
          yield* TestClock.adjust("300 millis")
        }
        yield* TestClock.adjust("5 minutes")
        expect(ids()).toEqual([1, 2, 3, 4, 5, 6])
        yield* Fiber.interrupt(fiber)
      }))
  }

  test("polls every 30 seconds a node that does not stream", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      yield* faults.setRule(({ method }) =>
        method === "subscribeWelcomeMessages"
          ? Option.some(Faults.failBeforeSend(Status.unimplemented("SubscribeWelcomeMessages")))
          : Option.none()
      )
      const inbox = yield* makeInbox()
      const { handler, ids } = recorder()
      yield* start(inbox, handler)
      for (const id of [1, 2, 3]) {
        yield* post(1)
        yield* TestClock.adjust("30 seconds")
        expect(ids().at(-1)).toBe(id)
      }
      yield* faults.clearCalls
      yield* TestClock.adjust("1 hour")
      expect((yield* faults.callsOf("subscribeWelcomeMessages")).length).toBeLessThanOrEqual(7)
      expect((yield* faults.callsOf("queryWelcomeMessages")).length).toBeLessThanOrEqual(150)
    }))

  test("[74] asks a network that is away ever more slowly, once a minute at last, and goes on when it is back", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      const inbox = yield* makeInbox()
      const { handler, ids } = recorder()
      yield* start(inbox, handler)
      yield* post(1)
      yield* TestClock.adjust("1 second")
      yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
      yield* TestClock.adjust("10 minutes")
      yield* faults.clearCalls
      yield* TestClock.adjust("3 hours")
      expect((yield* faults.calls).length).toBeLessThanOrEqual(2 * 3 * 60 * 1.2)
      expect((yield* progress(inbox)).completeAsOf?.slice(0, 10)).toBe("2026-11-23")
      yield* faults.clear
      yield* post(1)
      yield* TestClock.adjust("2 minutes")
      expect(ids()).toEqual([1, 2])
    }))

  test("tries again by itself what the handler did not take", () =>
    Effect.gen(function* () {
      const inbox = yield* makeInbox()
      const { behave, left } = failing(1n)
      const { handed, handler, ids } = recorder(behave)
      yield* post(2)
      yield* start(inbox, handler)
      yield* TestClock.adjust("10 seconds")
      expect(handed.filter(([id]) => id === 1n).length).toBeGreaterThanOrEqual(3)
      left.clear()
      yield* TestClock.adjust("1 minute")
      const before = ids().length
      yield* TestClock.adjust("2 hours")
      expect(ids().length).toBe(before)
      expect((yield* cursor).unresolved).toEqual([])
    }))
})

describe("WelcomeInbox, whatever happens", () => {
  const SEED = Number(process.env.KEYWARD_TEST_SEED ?? 20_261_123)

  type Step =
    | { readonly do: "post"; readonly count: number }
    | { readonly do: "wait"; readonly seconds: number }
    | { readonly do: "restart" | "networkDown" | "networkUp" | "handlerDown" | "handlerUp" | "breakStream" }

  const step: FastCheck.Arbitrary<Step> = FastCheck.oneof(
    FastCheck.record({ do: FastCheck.constant("post" as const), count: FastCheck.integer({ min: 1, max: 7 }) }),
    FastCheck.record({ do: FastCheck.constant("wait" as const), seconds: FastCheck.integer({ min: 0, max: 90 }) }),
    FastCheck.record({
      do: FastCheck.constantFrom(
        "restart" as const,
        "networkDown" as const,
        "networkUp" as const,
        "handlerDown" as const,
        "handlerUp" as const,
        "breakStream" as const
      )
    })
  )

  it.effect(
    `every Welcome is taken once, the first time in order, and progress never runs ahead (seed ${SEED})`,
    () =>
      Effect.gen(function* () {
        const scripts = FastCheck.sample(FastCheck.array(step, { minLength: 5, maxLength: 25 }), {
          seed: SEED,
          numRuns: 12
        })
        for (const script of scripts) {
          yield* Effect.gen(function* () {
            yield* TestApp.start
            const faults = yield* Faults.Faults
            const postedAt: Array<DateTime.Utc> = []
            const taken: Array<number> = []
            const begun: Array<number> = []
            let isHandlerDown = false
            const handler = (delivery: WelcomeInbox.Delivery) =>
              Effect.gen(function* () {
                const id = Number(delivery.id)
                if (!begun.includes(id)) begun.push(id)
                if (isHandlerDown) return yield* Effect.fail("down")
                yield* Effect.sleep("100 millis")
                taken.push(id)
              })
            const begin = Effect.gen(function* () {
              const inbox = yield* makeInbox({ pageSize: 3 })
              return { inbox, fiber: yield* Effect.fork(inbox.run(installationId, handler)) }
            })
            let running = yield* begin
            const check = Effect.gen(function* () {
              const { completeAsOf } = yield* Effect.flatten(running.inbox.progress(installationId))
              postedAt.forEach((at, index) => {
                const isCovered = Option.exists(completeAsOf, (asOf) => DateTime.greaterThan(asOf, at))
                if (isCovered) expect(taken).toContain(index + 1)
              })
            })
            for (const one of script) {
              switch (one.do) {
                case "post": {
                  yield* faults.clear
                  yield* post(one.count)
                  const at = yield* DateTime.now
                  for (let i = 0; i < one.count; i++) postedAt.push(at)
                  break
                }
                case "wait":
                  yield* TestClock.adjust(`${one.seconds} seconds`)
                  break
                case "restart":
                  yield* Fiber.interrupt(running.fiber)
                  running = yield* begin
                  break
                case "networkDown":
                  yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
                  break
                case "networkUp":
                  yield* faults.clear
                  break
                case "breakStream":
                  yield* faults.enqueue("subscribeWelcomeMessages", Faults.cutAfter(1))
                  break
                default:
                  isHandlerDown = one.do === "handlerDown"
              }
              yield* check
            }
            yield* faults.clear
            isHandlerDown = false
            yield* TestClock.adjust("65 minutes")
            yield* check
            const all = postedAt.map((_, index) => index + 1)
            expect([...taken].sort((a, b) => a - b)).toEqual(all)
            expect(begun).toEqual(all)
            yield* Fiber.interrupt(running.fiber)
          }).pipe(Effect.provide(Layer.fresh(layer)))
        }
      }),
    120_000
  )
})
