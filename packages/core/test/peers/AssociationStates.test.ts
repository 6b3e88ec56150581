/** States of inboxes: read once, extended from then on, shared by all who ask. */
import { describe, expect, it } from "@effect/vitest"
import * as AssociationState from "@keyward/core/identity/AssociationState"
import { InboxId } from "@keyward/core/identity/InboxId"
import * as AssociationStates from "@keyward/core/peers/AssociationStates"
import { ApiClient, ApiClientError, type IdentityUpdateLogEntry, limits } from "@keyward/core/ports/ApiClient"
import { AssociationStateCache, type StateAt } from "@keyward/core/ports/AssociationStateCache"
import { StorageError } from "@keyward/core/ports/KeyPackageStore"
import { SmartContractWalletVerifier } from "@keyward/core/ports/SmartContractWalletVerifier"
import * as Faults from "@keyward/test-utils/Faults"
import { directedLogs } from "@keyward/test-utils/vectors/IdentityVectors"
import * as Arr from "effect/Array"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import * as World from "./World.ts"

const inWorld = <A, E>(name: string, body: () => Effect.Effect<A, E, World.Services | Scope.Scope>) =>
  it.scoped(name, () => Effect.zipRight(World.start, body()).pipe(Effect.provide(World.layer(name))))

const get = (inboxIds: ReadonlyArray<InboxId>, options?: AssociationStates.ReadOptions) =>
  Effect.flatMap(AssociationStates.AssociationStates, (states) => states.get(inboxIds, options))

const getAt = (inboxId: InboxId, sequenceId: bigint) =>
  Effect.flatMap(AssociationStates.AssociationStates, (states) => states.getAt(inboxId, sequenceId))

type Answer = Either.Either<StateAt, AssociationStates.InboxError> | undefined

const right = (answer: Answer): StateAt => {
  if (answer === undefined || Either.isLeft(answer)) throw new Error(`expected a state, not ${answer?.left.message}`)
  return answer.right
}

const left = (answer: Answer): AssociationStates.InboxError => {
  if (answer === undefined || Either.isRight(answer)) throw new Error("expected an error")
  return answer.left
}

/** The service anew over the same ports, as after a restart, with what a test wants changed. */
const restarted = (options?: AssociationStates.Options) =>
  Effect.map(AssociationStates.make(options), (states) =>
    Effect.provideService(AssociationStates.AssociationStates, states)
  )

/** A client whose logs pass through a function first. */
const withLogs = (change: (log: ReadonlyArray<IdentityUpdateLogEntry>) => ReadonlyArray<IdentityUpdateLogEntry>) =>
  Effect.map(ApiClient, (api) =>
    Effect.provideService(ApiClient, {
      ...api,
      getIdentityUpdates: (requests) => Effect.map(api.getIdentityUpdates(requests), (logs) => logs.map(change))
    })
  )

const unknown = InboxId.make("ab".repeat(32))

describe("get", () => {
  inWorld("one answer per inbox, in the order asked; an inbox without a log is unknown", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      const bob = yield* World.newInbox
      const answers = yield* get([bob.inboxId, unknown, alice.inboxId, bob.inboxId])
      expect(right(answers[0]).state.inboxId).toBe(bob.inboxId)
      expect(left(answers[1]).reason).toEqual({ _tag: "UnknownInbox", inboxId: unknown })
      expect(AssociationState.installationIds(right(answers[2]).state)).toEqual([alice.first.installationId])
      expect(answers[3]).toBe(answers[0])
      expect(yield* World.logRequests).toEqual([
        [
          { inboxId: bob.inboxId, after: 0n },
          { inboxId: unknown, after: 0n },
          { inboxId: alice.inboxId, after: 0n }
        ]
      ])
    })
  )

  inWorld("asks only for what came after what it knows, also after a restart", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      yield* World.newInbox
      yield* get([alice.inboxId])
      yield* World.logRequests
      const second = yield* World.addInstallation(alice)
      const [extended] = yield* get([alice.inboxId])
      expect(right(extended).sequenceId).toBe(3n)
      expect(AssociationState.hasInstallation(right(extended).state, second.installationId)).toBe(true)
      const [unchanged] = yield* get([alice.inboxId])
      expect(right(unchanged)).toBe(right(extended))
      // Waits for what is on its way into the cache.
      yield* getAt(alice.inboxId, 3n)
      const again = yield* restarted()
      const [afterRestart] = yield* again(get([alice.inboxId]))
      expect(right(afterRestart).sequenceId).toBe(3n)
      expect((yield* World.logRequests).flat().map(({ after }) => after)).toEqual([1n, 3n, 3n])
      // The extension is what resolving everything gives.
      const cache = yield* AssociationStateCache
      expect((yield* cache.getLog(alice.inboxId)).map(({ sequenceId }) => sequenceId)).toEqual([1n, 3n])
    })
  )

  inWorld("maxAge: a state read within it is not asked for again, and by default always", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      yield* get([alice.inboxId])
      yield* World.logRequests
      yield* TestClock.adjust("59 seconds")
      yield* get([alice.inboxId], { maxAge: "1 minute" })
      expect(yield* World.logRequests).toEqual([])
      yield* TestClock.adjust("2 seconds")
      yield* get([alice.inboxId], { maxAge: "1 minute" })
      expect(yield* World.logRequests).toHaveLength(1)
      // A clock that went back tells nothing about age.
      yield* TestClock.setTime(0)
      yield* get([alice.inboxId], { maxAge: "1 minute" })
      yield* get([alice.inboxId])
      expect(yield* World.logRequests).toHaveLength(2)
    })
  )

  inWorld("no more requests are under way at once than were allowed, and no fewer", () =>
    Effect.gen(function* () {
      const api = yield* ApiClient
      let underWay = 0
      const most: Array<number> = []
      const watched: Context.Tag.Service<ApiClient> = {
        ...api,
        getIdentityUpdates: (requests) =>
          Effect.acquireUseRelease(
            Effect.sync(() => most.push(++underWay)),
            () => Effect.zipRight(Effect.yieldNow(), api.getIdentityUpdates(requests)),
            () => Effect.sync(() => underWay--)
          )
      }
      const service = yield* Effect.provideService(AssociationStates.make({ concurrency: 3 }), ApiClient, watched)
      const ids = Array.from({ length: 12 * limits.inboxesPerRequest }, (_, index) =>
        InboxId.make(index.toString(16).padStart(64, "0"))
      )
      const answers = yield* service.get(ids)
      expect(answers.map((answer) => left(answer).reason._tag)).toEqual(ids.map(() => "UnknownInbox"))
      expect(most).toHaveLength(12)
      expect(Math.max(...most)).toBe(3)
    })
  )

  inWorld("a request that waits for its turn is asked with what is known then, and is as old as its question", () =>
    Effect.gen(function* () {
      const api = yield* ApiClient
      const asked = yield* Queue.unbounded<void>()
      const slow: Context.Tag.Service<ApiClient> = {
        ...api,
        getIdentityUpdates: (requests) =>
          Effect.zipRight(Queue.offer(asked, undefined), Effect.delay(api.getIdentityUpdates(requests), "10 seconds"))
      }
      // No number of requests stands for one.
      const service = yield* Effect.provideService(AssociationStates.make({ concurrency: 0 }), ApiClient, slow)
      const inboxes = yield* Effect.replicateEffect(World.newInbox, limits.inboxesPerRequest + 1)
      const ids = inboxes.map(({ inboxId }) => inboxId)
      yield* World.logRequests
      const reading = yield* Effect.fork(service.get(ids))
      yield* Queue.take(asked)
      yield* TestClock.adjust("10 seconds")
      yield* Queue.take(asked)
      yield* TestClock.adjust("10 seconds")
      expect((yield* Fiber.join(reading)).every(Either.isRight)).toBe(true)
      expect(yield* World.logRequests).toHaveLength(2)
      yield* TestClock.adjust("30 seconds")
      // Those of the first were asked for 50 seconds ago, this one 40.
      yield* service.get(ids.slice(-1), { maxAge: "45 seconds" })
      expect(yield* World.logRequests).toHaveLength(0)
    })
  )

  inWorld("a failing request fails its own inboxes, and nothing that is known is lost", () =>
    Effect.gen(function* () {
      const inboxes = yield* Effect.replicateEffect(World.newInbox, limits.inboxesPerRequest + 2)
      const ids = inboxes.map(({ inboxId }) => inboxId)
      const faults = yield* Faults.Faults
      yield* faults.enqueue("getIdentityUpdates", Faults.failBeforeSend())
      const answers = yield* get(ids)
      expect(answers.filter(Either.isRight)).toHaveLength(2)
      const error = left(answers[0])
      expect(error.reason._tag).toBe("InboxUnreachable")
      expect(error.isRetryable).toBe(true)
      expect((yield* get(ids)).every(Either.isRight)).toBe(true)
    })
  )
})

describe("[48] one inbox that spoils an answer for many", () => {
  for (const reason of ["MalformedResponse", "RequestTooLarge", "InvalidRequest"] as const) {
    inWorld(`${reason}: it fails alone`, () =>
      Effect.gen(function* () {
        const ids = (yield* Effect.replicateEffect(World.newInbox, 9)).map(({ inboxId }) => inboxId)
        const guilty = ids[5]
        const api = yield* ApiClient
        const asked: Array<number> = []
        const service = yield* restarted().pipe(
          Effect.provideService(ApiClient, {
            ...api,
            getIdentityUpdates: (requests) => {
              asked.push(requests.length)
              return requests.some(({ inboxId }) => inboxId === guilty)
                ? new ApiClientError({ operation: "getIdentityUpdates", reason })
                : api.getIdentityUpdates(requests)
            }
          })
        )
        const answers = yield* service(get(ids))
        for (const [index, inboxId] of ids.entries()) {
          if (inboxId === guilty) expect(left(answers[index]).reason).toMatchObject({ error: { reason } })
          else expect(right(answers[index]).state.inboxId).toBe(inboxId)
        }
        expect(asked).toEqual([9, 5, 4, 2, 2, 1, 1])
      })
    )
  }

  inWorld("an answer in which one log is another inbox's is asked for again in halves, and all resolve", () =>
    Effect.gen(function* () {
      const ids = (yield* Effect.replicateEffect(World.newInbox, 4)).map(({ inboxId }) => inboxId)
      yield* (yield* Faults.Faults).enqueue(
        "getIdentityUpdates",
        Faults.wrongAnswer(Faults.WrongAnswer.Repeated()),
        Faults.wrongAnswer(Faults.WrongAnswer.Reversed())
      )
      const answers = yield* get(ids)
      expect(answers.map((answer) => right(answer).state.inboxId)).toEqual(ids)
      expect((yield* World.logRequests).map((requests) => requests.length)).toEqual([4, 2, 2, 1, 1])
    })
  )

  inWorld("a failure that is nobody's fault is not asked for again", () =>
    Effect.gen(function* () {
      const ids = (yield* Effect.replicateEffect(World.newInbox, 4)).map(({ inboxId }) => inboxId)
      yield* (yield* Faults.Faults).enqueue("getIdentityUpdates", Faults.rateLimited())
      expect((yield* get(ids)).map((answer) => left(answer).isRetryable)).toEqual([true, true, true, true])
      expect(yield* World.logRequests).toHaveLength(1)
    })
  )
})

describe("[48] logs as nodes serve them", () => {
  const changes: ReadonlyArray<
    readonly [string, (log: ReadonlyArray<IdentityUpdateLogEntry>) => ReadonlyArray<IdentityUpdateLogEntry>]
  > = [
    ["in reverse", (log) => log.toReversed()],
    ["every entry twice", (log) => log.flatMap((entry) => [entry, entry])],
    [
      "twice, the second time with other bytes",
      (log) => [...log, ...log.map((entry) => ({ ...entry, update: new Uint8Array([1]) }))]
    ]
  ]
  for (const [how, change] of changes) {
    inWorld(`${how}: filed by sequence id, the first of each`, () =>
      Effect.gen(function* () {
        const alice = yield* World.newInbox
        yield* World.addInstallation(alice)
        yield* World.addInstallation(alice)
        const changed = yield* withLogs(change)
        const service = yield* changed(restarted())
        const [answer] = yield* service(get([alice.inboxId]))
        expect(right(answer).sequenceId).toBe(3n)
        expect(right(answer).state.members.size).toBe(4)
      })
    )
  }

  inWorld("entries that are known already are dropped, whatever was asked for", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      yield* get([alice.inboxId])
      yield* World.addInstallation(alice)
      const api = yield* ApiClient
      const service = yield* restarted().pipe(
        Effect.provideService(ApiClient, {
          ...api,
          getIdentityUpdates: (requests) => api.getIdentityUpdates(requests.map((one) => ({ ...one, after: 0n })))
        })
      )
      const [answer] = yield* service(get([alice.inboxId]))
      expect(right(answer).sequenceId).toBe(2n)
    })
  )

  inWorld("one update that breaks a rule fails the log, and the cache keeps the state before it", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      yield* get([alice.inboxId])
      const changed = yield* withLogs(() => [{ sequenceId: 9n, serverTimestampNs: 0n, update: new Uint8Array([1]) }])
      const service = yield* changed(restarted())
      const [answer] = yield* service(get([alice.inboxId]))
      expect(left(answer).reason).toMatchObject({
        _tag: "InvalidIdentityLog",
        error: { _tag: "IdentityConversionError", reason: "NotProtobuf" }
      })
      expect(left(answer).isRetryable).toBe(false)
      expect(right((yield* get([alice.inboxId]))[0]).sequenceId).toBe(1n)
    })
  )

  const SEED = 20261123
  inWorld(`[47] a few thousand mutants of an update: a state or a typed error for each (seed ${SEED})`, () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      const api = yield* ApiClient
      const [log] = yield* api.getIdentityUpdates([{ inboxId: alice.inboxId, after: 0n }])
      const update = log?.[0]?.update ?? new Uint8Array(0)
      const mutants = FastCheck.sample(
        FastCheck.array(FastCheck.tuple(FastCheck.nat(update.length - 1), FastCheck.integer({ min: 1, max: 255 })), {
          minLength: 1,
          maxLength: 3
        }),
        { seed: SEED, numRuns: 2_000 }
      ).map((flips) => {
        const mutant = update.slice()
        for (const [at, mask] of flips) mutant[at] = (mutant[at] ?? 0) ^ mask
        return mutant
      })
      const ids = mutants.map((_, index) => InboxId.make(index.toString(16).padStart(64, "0")))
      const service = yield* restarted().pipe(
        Effect.provideService(ApiClient, {
          ...api,
          getIdentityUpdates: (requests) =>
            Effect.succeed(
              requests.map(({ inboxId }) => {
                const mutant = mutants[Number.parseInt(inboxId, 16)]
                return mutant === undefined ? [] : [{ sequenceId: 1n, serverTimestampNs: 0n, update: mutant }]
              })
            )
        })
      )
      const answers = yield* service(get(ids))
      expect(answers).toHaveLength(mutants.length)
      // None of these inboxes exists: whatever still resolves is the log of another.
      expect(new Set(answers.map((answer) => left(answer).reason._tag))).toEqual(
        new Set(["InvalidIdentityLog", "OtherInbox"])
      )
    })
  )
})

describe("single flight", () => {
  inWorld("callers that come while an inbox is asked for wait for the same answer", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      const bob = yield* World.newInbox
      yield* (yield* Faults.Faults).enqueue("getIdentityUpdates", Faults.delay("5 seconds"))
      const first = yield* Effect.fork(get([alice.inboxId]))
      yield* World.untilPending("getIdentityUpdates")
      const others = yield* Effect.fork(
        Effect.all([get([alice.inboxId, bob.inboxId]), get([alice.inboxId])], { concurrency: "unbounded" })
      )
      yield* World.turn
      yield* TestClock.adjust("5 seconds")
      const [answer] = yield* Fiber.join(first)
      const [both, one] = yield* Fiber.join(others)
      expect(both[0]).toBe(answer)
      expect(one[0]).toBe(answer)
      expect(right(both[1]).state.inboxId).toBe(bob.inboxId)
      expect((yield* World.logRequests).map((requests) => requests.map(({ inboxId }) => inboxId))).toEqual([
        [alice.inboxId],
        [bob.inboxId]
      ])
    })
  )

  inWorld("the caller who began may go: who waits gets the answer all the same", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      yield* (yield* Faults.Faults).enqueue("getIdentityUpdates", Faults.delay("5 seconds"))
      const first = yield* Effect.fork(get([alice.inboxId]))
      yield* World.untilPending("getIdentityUpdates")
      const second = yield* Effect.fork(get([alice.inboxId]))
      yield* World.turn
      yield* Fiber.interrupt(first)
      yield* TestClock.adjust("5 seconds")
      expect(right((yield* Fiber.join(second))[0]).sequenceId).toBe(1n)
      expect(yield* World.logRequests).toHaveLength(1)
    })
  )

  inWorld("when the service ends, nobody waits for ever", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      yield* (yield* Faults.Faults).enqueue("getIdentityUpdates", Faults.hang())
      const waiting = yield* Effect.scoped(
        Effect.gen(function* () {
          const service = yield* restarted()
          const waiting = yield* Effect.forkDaemon(service(get([alice.inboxId])))
          yield* World.untilPending("getIdentityUpdates")
          return waiting
        })
      )
      expect((yield* Fiber.await(waiting))._tag).toBe("Failure")
    })
  )

  inWorld("verification lets other fibers run", () =>
    Effect.gen(function* () {
      const inboxes = yield* Effect.replicateEffect(World.newInbox, 20)
      let turns = 0
      const ticking = yield* Effect.fork(Effect.forever(Effect.tap(World.turn, () => Effect.sync(() => turns++))))
      yield* get(inboxes.map(({ inboxId }) => inboxId))
      yield* Fiber.interrupt(ticking)
      expect(turns).toBeGreaterThan(4)
    })
  )
})

describe("the cache", () => {
  const broken = new StorageError({ operation: "get", reason: "Unavailable" })
  inWorld("[64] a cache that fails is a miss with a warning, and never the reason of a verdict", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      const warnings: Array<unknown> = []
      const service = yield* restarted().pipe(
        Effect.provideService(AssociationStateCache, {
          getNewest: () => Effect.fail(broken),
          getAt: () => Effect.fail(broken),
          getLog: () => Effect.fail(broken),
          put: () => Effect.fail(broken)
        })
      )
      const logger = Logger.make(({ logLevel, message }) => {
        if (logLevel._tag === "Warning") warnings.push(message)
      })
      const answers = yield* service(Effect.all([get([alice.inboxId]), getAt(alice.inboxId, 1n)])).pipe(
        Effect.provide(Logger.replace(Logger.defaultLogger, logger))
      )
      expect(right(answers[0][0]).sequenceId).toBe(1n)
      expect(answers[1].inboxId).toBe(alice.inboxId)
      expect(warnings.length).toBeGreaterThan(1)
    })
  )

  /** A cache that fails to keep so many times, and then keeps. */
  const forgetful = (times: number) =>
    Effect.map(AssociationStateCache, (cache) => {
      let failures = times
      return Effect.provideService(AssociationStateCache, {
        ...cache,
        put: (entries) => (failures-- > 0 ? Effect.fail(broken) : cache.put(entries))
      })
    })

  inWorld("[64] what it did not keep is kept with what comes next, and leaves no hole", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      yield* Effect.scoped(
        Effect.gen(function* () {
          const service = yield* (yield* forgetful(1))(restarted())
          yield* service(get([alice.inboxId]))
          const second = yield* World.addInstallation(alice)
          yield* World.revoke(alice, second.installationId)
          yield* service(get([alice.inboxId]))
        })
      )
      const cache = yield* AssociationStateCache
      const service = yield* restarted()
      expect((yield* cache.getLog(alice.inboxId)).map(({ sequenceId }) => sequenceId)).toEqual([1n, 2n, 3n])
      const members = yield* Effect.forEach([1n, 2n, 3n], (at) =>
        Effect.map(service(getAt(alice.inboxId, at)), (state) => AssociationState.installationIds(state).length)
      )
      expect(members).toEqual([1, 2, 1])
    })
  )

  type Entries = Parameters<Context.Tag.Service<AssociationStateCache>["put"]>[0]

  /** A cache that notes what it is given, and keeps it once `before` lets it. */
  const noting = (before: (nth: number) => Effect.Effect<void, StorageError> = () => Effect.void) =>
    Effect.map(AssociationStateCache, (cache) => {
      const puts: Array<Entries> = []
      const cached = Effect.provideService(AssociationStateCache, {
        ...cache,
        put: (entries) => Effect.suspend(() => Effect.zipRight(before(puts.push(entries)), cache.put(entries)))
      })
      return { cached, puts, ids: () => puts.map(Arr.map(({ log }) => log.map(({ sequenceId }) => sequenceId))) }
    })

  inWorld("requests share a put, and each entry goes once", () =>
    Effect.gen(function* () {
      const inboxes = yield* Effect.replicateEffect(World.newInbox, limits.inboxesPerRequest + 2)
      const { cached, ids, puts } = yield* noting()
      yield* Effect.scoped(
        Effect.gen(function* () {
          const service = yield* cached(restarted())
          yield* service(get(inboxes.map(({ inboxId }) => inboxId)))
          expect((yield* World.logRequests).length).toBe(2)
          const [alice] = inboxes
          if (alice === undefined) return
          yield* service(getAt(alice.inboxId, 1n))
          yield* World.addInstallation(alice)
          yield* service(get([alice.inboxId]))
        })
      )
      expect(puts.map((entries) => entries.length)).toEqual([inboxes.length, 1])
      expect(ids()[1]).toEqual([[BigInt(inboxes.length + 1)]])
    })
  )

  inWorld("nobody waits for a put, and what is resolved meanwhile leaves no hole, although the put fails", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      const bob = yield* World.newInbox
      const gate = yield* Deferred.make<void, StorageError>()
      const { cached, ids } = yield* noting((nth) => (nth === 1 ? Deferred.await(gate) : Effect.void))
      yield* Effect.scoped(
        Effect.gen(function* () {
          const service = yield* cached(restarted())
          yield* service(get([alice.inboxId]))
          yield* World.addInstallation(alice)
          yield* service(get([alice.inboxId]))
          expect(ids()).toEqual([[[1n]]])
          yield* World.addInstallation(alice)
          const answer = right((yield* service(get([alice.inboxId])))[0])
          expect(answer.sequenceId).toBe(4n)
          yield* Deferred.fail(gate, broken)
        })
      )
      expect(ids()).toEqual([
        [[1n]],
        [
          [1n, 3n],
          [1n, 3n, 4n]
        ]
      ])
      const cache = yield* AssociationStateCache
      expect((yield* cache.getLog(alice.inboxId)).map(({ sequenceId }) => sequenceId)).toEqual([1n, 3n, 4n])
      expect(yield* cache.getLog(bob.inboxId)).toEqual([])
    })
  )

  inWorld("the service does not end before the cache has what it resolved, whatever it was doing", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      const bob = yield* World.newInbox
      const { cached } = yield* noting((nth) => (nth === 1 ? Effect.never : Effect.void))
      yield* Effect.scoped(
        Effect.gen(function* () {
          const service = yield* cached(restarted())
          yield* service(get([alice.inboxId]))
          yield* service(get([alice.inboxId]))
          yield* World.addInstallation(bob)
          yield* World.addInstallation(alice)
          yield* service(get([alice.inboxId]))
        })
      )
      const cache = yield* AssociationStateCache
      expect((yield* cache.getLog(alice.inboxId)).map(({ sequenceId }) => sequenceId)).toEqual([1n, 4n])
      const [newest] = yield* cache.getNewest([alice.inboxId])
      expect(Option.map(newest ?? Option.none(), ({ sequenceId }) => sequenceId)).toEqual(Option.some(4n))
    })
  )

  inWorld("[64] a log that it has without its beginning is read from the node instead", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      yield* World.addInstallation(alice)
      yield* World.addInstallation(alice)
      const [whole] = yield* get([alice.inboxId])
      const cache = yield* AssociationStateCache
      const service = yield* restarted().pipe(
        Effect.provideService(AssociationStateCache, {
          ...cache,
          getAt: () => Effect.succeed(Option.none()),
          getLog: (inboxId, upTo) => Effect.map(cache.getLog(inboxId, upTo), (log) => log.slice(1))
        })
      )
      const states = yield* Effect.forEach([1n, 2n, 3n], (at) => service(getAt(alice.inboxId, at)))
      expect(states.map((state) => AssociationState.installationIds(state).length)).toEqual([1, 2, 3])
      expect(states[2]).toEqual(right(whole).state)
    })
  )

  inWorld("memory is bounded: what does not fit is read from the cache, not verified again", () =>
    Effect.gen(function* () {
      const inboxes = yield* Effect.replicateEffect(World.newInbox, 5)
      const ids = inboxes.map(({ inboxId }) => inboxId)
      const service = yield* restarted({ capacity: 2 })
      yield* service(get(ids))
      yield* World.logRequests
      yield* service(get(ids))
      expect((yield* World.logRequests).flat().map(({ after }) => after)).toEqual([1n, 2n, 3n, 4n, 5n])
      // With maxAge only what is in memory is fresh.
      yield* service(get(ids, { maxAge: "1 hour" }))
      expect((yield* World.logRequests).flat()).toHaveLength(3)
    })
  )

  inWorld(
    "memory is bounded in bytes, too: a large inbox is read from the cache each time, and pushes out nobody",
    () =>
      Effect.gen(function* () {
        const large = yield* World.newInbox
        yield* Effect.replicateEffect(World.addInstallation(large), 9)
        const inboxes = yield* Effect.replicateEffect(World.newInbox, 3)
        const ids = inboxes.map(({ inboxId }) => inboxId)
        const [small] = yield* get(ids)
        const [one] = yield* get([large.inboxId])
        const bytes = AssociationState.estimateBytes(right(small).state)
        expect(AssociationState.estimateBytes(right(one).state)).toBeGreaterThan(3 * bytes)

        const service = yield* restarted({ capacityBytes: 3 * bytes })
        const asked = { maxAge: "1 hour" } as const
        yield* service(get([...ids, large.inboxId], asked))
        yield* World.logRequests
        expect(right((yield* service(get([large.inboxId], asked)))[0]).state).toEqual(right(one).state)
        yield* service(get(ids, asked))
        expect(yield* World.logRequests).toEqual([[{ inboxId: large.inboxId, after: right(one).sequenceId }]])

        // One byte less, and only two have room.
        const narrower = yield* restarted({ capacityBytes: 3 * bytes - 1 })
        yield* narrower(get(ids, asked))
        yield* World.logRequests
        yield* narrower(get(ids, asked))
        expect((yield* World.logRequests).flat()).toHaveLength(1)
      })
  )
})

describe("getAt", () => {
  inWorld("the state right after an update, from the cache or from the node, and only of an update that is there", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      const second = yield* World.addInstallation(alice)
      yield* World.newInbox
      const third = yield* World.addInstallation(alice)
      const has = (state: AssociationState.AssociationState) =>
        [second, third].map(({ installationId }) => AssociationState.hasInstallation(state, installationId))

      expect(has(yield* getAt(alice.inboxId, 2n))).toEqual([true, false])
      expect(has(yield* getAt(alice.inboxId, 1n))).toEqual([false, false])
      expect(has(yield* getAt(alice.inboxId, 4n))).toEqual([true, true])
      const before = (yield* World.logRequests).length
      expect(has(yield* getAt(alice.inboxId, 2n))).toEqual([true, false])
      expect(yield* World.logRequests).toEqual([])
      expect(before).toBe(2)

      // 3 is an update of another inbox, 5 is none yet.
      for (const sequenceId of [3n, 5n]) {
        const error = yield* Effect.flip(getAt(alice.inboxId, sequenceId))
        expect(error.reason).toEqual({ _tag: "MissingIdentityUpdate", sequenceId })
        expect(error.isRetryable).toBe(false)
      }
    })
  )

  inWorld("an unreachable node is no missing update", () =>
    Effect.gen(function* () {
      const alice = yield* World.newInbox
      yield* (yield* Faults.Faults).enqueue("getIdentityUpdates", Faults.failBeforeSend())
      const error = yield* Effect.flip(getAt(alice.inboxId, 1n))
      expect(error.reason._tag).toBe("InboxUnreachable")
      expect(error.isRetryable).toBe(true)
    })
  )
})

describe("smart contract wallets", () => {
  const vector = directedLogs.find(
    ({ libxmtp, name, updates }) => typeof libxmtp !== "string" && updates.length > 0 && /scw/i.test(name ?? "")
  )
  /** Logs as they are, and that of the vector for its inbox. */
  const withWalletLog =
    (getIdentityUpdates: Context.Tag.Service<ApiClient>["getIdentityUpdates"]): typeof getIdentityUpdates =>
    (requests) =>
      Effect.map(getIdentityUpdates(requests), (logs) =>
        logs.map((log, index) =>
          vector !== undefined && requests[index]?.inboxId === vector.inboxId
            ? vector.updates.map((hex, at) => ({
                sequenceId: BigInt(at + 1),
                serverTimestampNs: 0n,
                update: new Uint8Array(Buffer.from(hex, "hex"))
              }))
            : log
        )
      )

  inWorld("[50] while a wallet is waited for, who comes later gets the log of then, not of before", () =>
    Effect.gen(function* () {
      if (vector === undefined) throw new Error("no such vector")
      const alice = yield* World.newInbox
      const slow = InboxId.make(vector.inboxId)
      const api = yield* ApiClient
      const service = yield* restarted({ walletTimeout: "10 seconds" }).pipe(
        Effect.provideService(SmartContractWalletVerifier, { isValid: () => Effect.never }),
        Effect.provideService(ApiClient, {
          ...api,
          getIdentityUpdates: withWalletLog(api.getIdentityUpdates)
        })
      )
      const both = yield* Effect.fork(service(get([slow, alice.inboxId])))
      while ((yield* World.logRequests).length === 0) yield* World.turn
      for (let turns = 0; turns < 10; turns++) yield* World.turn
      yield* World.revoke(alice, alice.first.installationId)
      const [later] = yield* service(get([alice.inboxId]))
      expect(right(later).sequenceId).toBe(2n)
      while (Option.isNone(yield* Fiber.poll(both))) {
        yield* TestClock.adjust("1 second")
        yield* World.turn
      }
      expect(right((yield* Fiber.join(both))[1]).sequenceId).toBe(1n)
      // The older answer, which lands last, does not undo the newer one.
      expect(right((yield* service(get([alice.inboxId], { maxAge: "1 hour" })))[0]).sequenceId).toBe(2n)
    })
  )

  inWorld("a bug of a verifier is told to those of its request, also where another request never ends", () =>
    Effect.gen(function* () {
      if (vector === undefined) throw new Error("no such vector")
      const buggy = InboxId.make(vector.inboxId)
      const many = yield* Effect.replicateEffect(World.newInbox, 2 * limits.inboxesPerRequest)
      const ids = many.map(({ inboxId }) => inboxId)
      const api = yield* ApiClient
      const service = yield* AssociationStates.make().pipe(
        Effect.provideService(SmartContractWalletVerifier, { isValid: () => Effect.dieMessage("a bug") }),
        Effect.provideService(ApiClient, {
          ...api,
          getIdentityUpdates: (requests) =>
            requests.some(({ inboxId }) => inboxId === ids.at(-1))
              ? Effect.never
              : withWalletLog(api.getIdentityUpdates)(requests)
        })
      )
      // Three requests: one with the bug, one that is well, one without an end.
      yield* Effect.fork(service.get([buggy, ...ids]))
      yield* Effect.yieldNow()
      expect((yield* Effect.exit(service.get([buggy])))._tag).toBe("Failure")
      const well = ids.slice(limits.inboxesPerRequest, limits.inboxesPerRequest + 2)
      expect((yield* service.get(well, { maxAge: "1 hour" })).every(Either.isRight)).toBe(true)
    })
  )

  inWorld("[50] a wallet that is never answered for fails its inbox alone, in bounded time, and retryably", () =>
    Effect.gen(function* () {
      if (vector === undefined) throw new Error("no such vector")
      const alice = yield* World.newInbox
      const inboxId = InboxId.make(vector.inboxId)
      const api = yield* ApiClient
      const service = yield* restarted({ walletTimeout: "10 seconds" }).pipe(
        Effect.provideService(SmartContractWalletVerifier, { isValid: () => Effect.never }),
        Effect.provideService(ApiClient, {
          ...api,
          getIdentityUpdates: withWalletLog(api.getIdentityUpdates)
        })
      )
      const fiber = yield* Effect.fork(service(get([inboxId, alice.inboxId])))
      while (Option.isNone(yield* Fiber.poll(fiber))) {
        yield* TestClock.adjust("1 second")
        yield* World.turn
      }
      const [stuck, fine] = yield* Fiber.join(fiber)
      expect(left(stuck).reason).toMatchObject({ error: { reason: "VerifierUnavailable" } })
      expect(left(stuck).isRetryable).toBe(true)
      expect(right(fine).state.inboxId).toBe(alice.inboxId)
    })
  )
})
