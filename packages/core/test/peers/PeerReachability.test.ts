/** Installations that could not be invited: looked at again with growing waits, and announced when they can be. */
import { describe, expect, it } from "@effect/vitest"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as InstallationIds from "@keyward/core/identity/InstallationId"
import { fetchKeyPackages } from "@keyward/core/peers/PeerKeyPackages"
import * as PeerReachability from "@keyward/core/peers/PeerReachability"
import type { Policy } from "@keyward/core/peers/Policies"
import { Reason } from "@keyward/core/peers/Verdict"
import { ApiClientError } from "@keyward/core/ports/ApiClient"
import { NodeState } from "@keyward/test-utils/devnode/NodeState"
import * as Faults from "@keyward/test-utils/Faults"
import * as Chunk from "effect/Chunk"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import * as World from "./World.ts"

/** The warnings logged, those of the looking fiber among them. */
const warnings: Array<string> = []
const collect = Logger.make(({ logLevel, message }) => {
  if (logLevel._tag === "Warning") warnings.push(String(message))
})

const inWorld = <A, E>(
  name: string,
  body: () => Effect.Effect<A, E, World.Services | PeerReachability.PeerReachability | Scope.Scope>,
  options?: PeerReachability.Options
) =>
  it.scoped(name, () =>
    Effect.zipRight(World.start, body()).pipe(
      Effect.provide(PeerReachability.layer(options).pipe(Layer.provideMerge(World.layer(name)))),
      Effect.provide(Logger.add(collect))
    )
  )

/** The times at which packages were asked for, seconds from START. */
const looks = Effect.gen(function* () {
  const calls = yield* (yield* Faults.Faults).callsOf("fetchKeyPackages")
  return calls.map(({ at }) => (at - DateTime.toEpochMillis(World.START)) / 1000)
})

/** Passes time in steps, with turns of the event loop in between: signatures are verified beside the test clock. */
const pass = (duration: Duration.DurationInput, step: Duration.DurationInput = "10 seconds") =>
  Effect.gen(function* () {
    const steps = Math.ceil(Duration.toMillis(duration) / Duration.toMillis(step))
    for (let i = 0; i < steps; i++) {
      yield* TestClock.adjust(step)
      yield* Effect.repeatN(World.turn, 20)
    }
  })

const fetchAndRemember = (ids: ReadonlyArray<InstallationId>) =>
  Effect.flatMap(PeerReachability.PeerReachability, ({ remember }) => Effect.tap(fetchKeyPackages(ids), remember))

/** Waits for this many announcements, in real turns of the event loop. */
const announcements = (count: number) =>
  Effect.gen(function* () {
    const { usableAgain } = yield* PeerReachability.PeerReachability
    const fiber = yield* Effect.fork(Stream.runCollect(Stream.take(usableAgain, count)))
    yield* World.turn
    return Effect.map(Fiber.join(fiber), Chunk.toReadonlyArray)
  })

describe("PeerReachability", () => {
  inWorld("nothing remembered, nothing asked", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      yield* fetchAndRemember([alice.id])
      yield* (yield* Faults.Faults).clearCalls
      yield* pass("2 days", "1 hour")
      expect(yield* (yield* Faults.Faults).calls).toEqual([])
      expect(yield* (yield* PeerReachability.PeerReachability).all).toEqual([])
    })
  )

  inWorld("remembers the reason, and looks again after waits that double", () =>
    Effect.gen(function* () {
      const inbox = yield* World.newInbox
      const id = inbox.first.installationId
      const reachability = yield* PeerReachability.PeerReachability
      yield* fetchAndRemember([id])
      expect(Option.getOrThrow(yield* reachability.get(id))).toMatchObject({
        installationId: id,
        reason: { _tag: "Missing" },
        attempts: 1,
        since: World.START,
        nextCheckAt: DateTime.add(World.START, { seconds: 30 })
      })
      yield* pass("8 minutes")
      expect(yield* looks).toEqual([0, 30, 90, 210, 450])
      expect(Option.getOrThrow(yield* reachability.get(id))).toMatchObject({ attempts: 5, since: World.START })
    })
  )

  inWorld(
    "the wait has a longest",
    () =>
      Effect.gen(function* () {
        const inbox = yield* World.newInbox
        yield* fetchAndRemember([inbox.first.installationId])
        yield* pass("5 minutes")
        expect(yield* looks).toEqual([0, 30, 90, 150, 210, 270])
      }),
    { maximumDelay: "1 minute" }
  )

  inWorld("waits at least as long as the node asked", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      yield* (yield* Faults.Faults).enqueue("fetchKeyPackages", Faults.rateLimited(Duration.minutes(5)))
      yield* fetchAndRemember([alice.id])
      yield* pass("4 minutes")
      expect(yield* looks).toEqual([0])
      yield* pass("2 minutes")
      expect(yield* looks).toEqual([0, 300])
    })
  )

  for (const asked of [Duration.infinity, Duration.seconds(999_999_999)]) {
    inWorld(`a node that asks to wait ${Duration.format(asked)} is asked again after the longest wait`, () =>
      Effect.gen(function* () {
        const alice = yield* World.newPeer
        const reachability = yield* PeerReachability.PeerReachability
        const error = new ApiClientError({ operation: "fetchKeyPackages", reason: "RateLimited", retryAfter: asked })
        const reason = Reason.Unreachable({ error })
        yield* reachability.remember([{ _tag: "Unusable", installationId: alice.id, reason, judgedAt: World.START }])
        const nextCheckAt = DateTime.add(World.START, { hours: 6 })
        expect(Option.getOrThrow(yield* reachability.get(alice.id)).nextCheckAt).toEqual(nextCheckAt)
        expect((yield* reachability.all).length).toBe(1)
        yield* (yield* Faults.Faults).clearCalls
        yield* pass("6 hours", "1 hour")
        expect(yield* looks).toEqual([6 * 3600])
        expect(yield* reachability.all).toEqual([])
      })
    )
  }

  inWorld(
    "a longest wait that never ends is a year",
    () =>
      Effect.gen(function* () {
        const inbox = yield* World.newInbox
        yield* fetchAndRemember([inbox.first.installationId])
        const [unreached] = yield* (yield* PeerReachability.PeerReachability).all
        expect(unreached?.nextCheckAt).toEqual(DateTime.add(World.START, { days: 365 }))
      }),
    { initialDelay: Duration.infinity, maximumDelay: Duration.infinity }
  )

  const secret = "b64:c2VjcmV0"
  let throwing = 0
  const throwsOnce: Policy = {
    name: "throwsOnce",
    check: () => {
      if (throwing-- > 0) throw new TypeError(secret)
      return Effect.succeedNone
    }
  }
  inWorld(
    "a policy that throws ends one look, and not the looking",
    () =>
      Effect.gen(function* () {
        const inbox = yield* World.newInbox
        const id = inbox.first.installationId
        const reachability = yield* PeerReachability.PeerReachability
        yield* fetchAndRemember([id])
        const announced = yield* announcements(1)
        const keyPackage = yield* World.packageOf(inbox.inboxId, inbox.first)
        yield* World.serve(id, keyPackage.bytes)
        throwing = 1
        warnings.length = 0
        yield* pass("40 seconds")
        expect(throwing).toBe(0)
        expect(warnings).toEqual(["looking again at 1 installations broke off (TypeError)"])
        expect(Option.getOrThrow(yield* reachability.get(id))).toMatchObject({
          reason: { _tag: "Missing" },
          attempts: 1,
          nextCheckAt: DateTime.add(World.START, { seconds: 90 })
        })
        yield* pass("1 minute")
        expect((yield* announced).map(({ installationId }) => installationId)).toEqual([id])
        expect(yield* looks).toEqual([0, 30, 90])
      }),
    { policies: [throwsOnce] }
  )

  inWorld("an older verdict that comes later changes nothing", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const reachability = yield* PeerReachability.PeerReachability
      const older = yield* fetchKeyPackages([alice.id])
      expect(World.tags(older)).toEqual(["Usable"])
      yield* TestClock.adjust("1 second")
      yield* (yield* NodeState).keyPackages.remove(InstallationIds.toPublicKey(alice.id))
      yield* fetchAndRemember([alice.id])
      const known = yield* reachability.get(alice.id)
      expect(Option.isSome(known)).toBe(true)
      const announced: Array<unknown> = []
      yield* Effect.fork(
        Stream.runForEach(reachability.usableAgain, (usable) => Effect.sync(() => announced.push(usable)))
      )
      yield* World.turn
      yield* reachability.remember(older)
      yield* Effect.repeatN(World.turn, 20)
      expect(announced).toEqual([])
      expect(yield* reachability.get(alice.id)).toEqual(known)
      yield* World.serve(alice.id, alice.keyPackage.bytes)
      yield* pass("30 seconds")
      expect(announced.length).toBe(1)
    })
  )

  inWorld("an older verdict that comes after a usable one costs no look; a newer one does", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const reachability = yield* PeerReachability.PeerReachability
      const unusable = (judgedAt: DateTime.Utc) =>
        ({ _tag: "Unusable", installationId: alice.id, reason: Reason.Missing(), judgedAt }) as const
      yield* TestClock.adjust("1 minute")
      yield* fetchAndRemember([alice.id])
      yield* reachability.remember([unusable(DateTime.add(World.START, { seconds: 59 }))])
      expect(yield* reachability.all).toEqual([])
      yield* pass("2 minutes")
      expect(yield* looks).toEqual([60])
      yield* reachability.remember([unusable(DateTime.add(World.START, { seconds: 61 }))])
      expect((yield* reachability.all).length).toBe(1)
    })
  )

  inWorld("what is forgotten while it is looked at stays forgotten", () =>
    Effect.gen(function* () {
      const inbox = yield* World.newInbox
      const id = inbox.first.installationId
      const reachability = yield* PeerReachability.PeerReachability
      yield* fetchAndRemember([id])
      yield* (yield* Faults.Faults).enqueue("fetchKeyPackages", Faults.Fault.Delay({ duration: Duration.seconds(5) }))
      yield* TestClock.adjust("30 seconds")
      yield* World.untilPending("fetchKeyPackages")
      yield* reachability.forget(id)
      yield* pass("10 seconds")
      expect(yield* reachability.all).toEqual([])
      yield* pass("10 minutes", "1 minute")
      expect(yield* looks).toEqual([0, 30])
    })
  )

  inWorld("says when an installation is usable again, once, and forgets it", () =>
    Effect.gen(function* () {
      const inbox = yield* World.newInbox
      const id = inbox.first.installationId
      const reachability = yield* PeerReachability.PeerReachability
      yield* fetchAndRemember([id])
      const announced = yield* announcements(1)
      const keyPackage = yield* World.packageOf(inbox.inboxId, inbox.first)
      yield* World.serve(id, keyPackage.bytes)
      yield* TestClock.adjust("30 seconds")
      const [usable] = yield* announced
      expect(usable?.installationId).toBe(id)
      expect(usable?.keyPackage.ref).toBe(keyPackage.ref)
      expect(yield* reachability.get(id)).toEqual(Option.none())
      yield* pass("1 hour", "1 minute")
      expect(yield* looks).toEqual([0, 30])
    })
  )

  inWorld("a verdict of the app's own counts as well", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const { keyPackages } = yield* NodeState
      yield* keyPackages.remove(InstallationIds.toPublicKey(alice.id))
      yield* fetchAndRemember([alice.id])
      const announced = yield* announcements(1)
      yield* World.serve(alice.id, alice.keyPackage.bytes)
      yield* fetchAndRemember([alice.id])
      expect((yield* announced).map(({ installationId }) => installationId)).toEqual([alice.id])
    })
  )

  inWorld("what is due together is asked together, and what is forgotten is not asked", () =>
    Effect.gen(function* () {
      const inboxes = yield* Effect.replicateEffect(World.newInbox, 3)
      const ids = inboxes.map(({ first }) => first.installationId)
      const reachability = yield* PeerReachability.PeerReachability
      yield* fetchAndRemember(ids)
      yield* pass("40 seconds")
      expect(yield* looks).toEqual([0, 30])
      for (const id of ids) yield* reachability.forget(id)
      yield* pass("10 minutes", "1 minute")
      expect(yield* looks).toEqual([0, 30])
    })
  )

  inWorld(
    "memory is bounded: the one noted longest ago goes first",
    () =>
      Effect.gen(function* () {
        const inboxes = yield* Effect.replicateEffect(World.newInbox, 3)
        const ids = inboxes.map(({ first }) => first.installationId)
        yield* fetchAndRemember(ids)
        const kept = yield* (yield* PeerReachability.PeerReachability).all
        expect(kept.map(({ installationId }) => installationId)).toEqual(ids.slice(1))
      }),
    { capacity: 2 }
  )

  inWorld("[15] a clock that went back means look now, never wait for years", () =>
    Effect.gen(function* () {
      const inbox = yield* World.newInbox
      yield* fetchAndRemember([inbox.first.installationId])
      yield* TestClock.setTime(DateTime.toEpochMillis(World.START) - Duration.toMillis("365 days"))
      yield* (yield* Faults.Faults).clearCalls
      // Any new verdict wakes it; so does the end of its own sleep, at most a day.
      yield* fetchAndRemember([])
      yield* pass("20 seconds")
      expect((yield* looks).length).toBeGreaterThan(0)
    })
  )
})
