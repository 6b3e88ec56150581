/** Installations that could not be invited: looked at again with growing waits, and announced when they can be. */
import { describe, expect, it } from "@effect/vitest"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as InstallationIds from "@keyward/core/identity/InstallationId"
import { fetchKeyPackages } from "@keyward/core/peers/PeerKeyPackages"
import * as PeerReachability from "@keyward/core/peers/PeerReachability"
import { NodeState } from "@keyward/test-utils/devnode/NodeState"
import * as Faults from "@keyward/test-utils/Faults"
import * as Chunk from "effect/Chunk"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import * as World from "./World.ts"

const inWorld = <A, E>(
  name: string,
  body: () => Effect.Effect<A, E, World.Services | PeerReachability.PeerReachability | Scope.Scope>,
  options?: PeerReachability.Options
) =>
  it.scoped(name, () =>
    Effect.zipRight(World.start, body()).pipe(
      Effect.provide(PeerReachability.layer(options).pipe(Layer.provideMerge(World.layer(name))))
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
