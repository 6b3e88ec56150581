/** Requests shared by those who ask at the same time. */
import { describe, expect, it } from "@effect/vitest"
import { InboxId } from "@keyward/core/identity/InboxId"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import { LifecycleSettings } from "@keyward/core/lifecycle/LifecycleSettings"
import { ApiClient, ApiClientError } from "@keyward/core/ports/ApiClient"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as coalescedReads from "../../src/internal/coalescedReads.ts"

const id = (index: number) => InstallationId.make(index.toString(16).padStart(64, "0"))
const bytesOf = (of: InstallationId) => new TextEncoder().encode(of)

/** An API that notes how many are asked in each request. */
const recording = (
  fetch: (ids: ReadonlyArray<InstallationId>) => Effect.Effect<ReadonlyArray<Option.Option<Uint8Array>>, ApiClientError>
) => {
  const sizes: Array<number> = []
  const layer = Layer.mock(ApiClient, {
    fetchKeyPackages: (ids) =>
      Effect.zipRight(
        Effect.sync(() => sizes.push(ids.length)),
        fetch(ids)
      ),
    getIdentityUpdates: (requests) =>
      Effect.sync(() => {
        sizes.push(requests.length)
        return requests.map(() => [])
      })
  })
  return { sizes, layer }
}

const fetchEach = (api: ApiClient["Type"], count: number) =>
  Effect.forEach(
    Array.from({ length: count }, (_, index) => id(index)),
    (one) => Effect.either(api.fetchKeyPackages([one])),
    {
      concurrency: "unbounded"
    }
  )

describe("coalescedReads", () => {
  it.live("those who ask at once share requests of a hundred, and each gets its own answer", () => {
    const { layer, sizes } = recording((ids) => Effect.succeed(ids.map((one) => Option.some(bytesOf(one)))))
    return Effect.gen(function* () {
      const api = yield* coalescedReads.make(yield* ApiClient)
      const answers = yield* fetchEach(api, 250)
      expect(sizes).toEqual([100, 100, 50])
      expect(answers).toEqual(answers.map((_, index) => Either.right([Option.some(bytesOf(id(index)))])))
      yield* api.fetchKeyPackages([id(1)])
      yield* api.fetchKeyPackages([id(1), id(2)])
      expect(sizes).toEqual([100, 100, 50, 1, 2])
      const inboxes = Array.from({ length: 60 }, (_, index) => InboxId.make(id(index)))
      yield* Effect.forEach(inboxes, (inboxId) => api.getIdentityUpdates([{ inboxId, after: 0n }]), {
        concurrency: "unbounded"
      })
      expect(sizes.slice(5)).toEqual([50, 10])
    }).pipe(Effect.scoped, Effect.provide(layer))
  })

  it.live("a failure that repetition helps is everybody's; another is looked for one by one", () => {
    const fails = (reason: ApiClientError["reason"]) => new ApiClientError({ operation: "fetchKeyPackages", reason })
    const down = recording(() => fails("Unavailable"))
    const poisoned = recording((ids) =>
      ids.includes(id(3)) ? fails("MalformedResponse") : Effect.succeed(ids.map((one) => Option.some(bytesOf(one))))
    )
    return Effect.gen(function* () {
      const first = yield* coalescedReads.make(yield* Effect.provide(ApiClient, down.layer))
      expect((yield* fetchEach(first, 5)).every(Either.isLeft)).toBe(true)
      expect(down.sizes).toEqual([5])
      const second = yield* coalescedReads.make(yield* Effect.provide(ApiClient, poisoned.layer))
      expect((yield* fetchEach(second, 5)).map(Either.isRight)).toEqual([true, true, true, false, true])
      expect(poisoned.sizes).toEqual([5, 1, 1, 1, 1, 1])
    }).pipe(Effect.scoped)
  })

  it.live("a shared request that is never answered ends when an attempt does, and is nobody's to leave behind", () => {
    let running = 0
    const silent = recording(() =>
      Effect.acquireUseRelease(
        Effect.sync(() => void running++),
        () => Effect.never,
        () => Effect.sync(() => void running--)
      )
    )
    return Effect.gen(function* () {
      const settings = yield* LifecycleSettings
      const attempts = Effect.gen(function* () {
        const api = yield* coalescedReads.make(yield* ApiClient)
        const answers = yield* fetchEach(api, 3)
        expect(answers).toMatchObject([1, 2, 3].map(() => ({ _tag: "Left", left: { reason: "Timeout" } })))
        expect(Either.isLeft(yield* Effect.either(api.fetchKeyPackages([id(1)])))).toBe(true)
        expect(silent.sizes).toEqual([3, 1])
        expect(running).toBe(0)
      })
      yield* Effect.provideService(attempts, LifecycleSettings, { ...settings, attemptTimeout: Duration.millis(20) })
    }).pipe(Effect.scoped, Effect.timeout("5 seconds"), Effect.provide(silent.layer))
  })

  for (const [title, closeWhen] of [
    ["before it has begun", "asked"],
    ["while it is under way", "begun"],
    ["before anybody asked", "before"]
  ] as const) {
    it.live(`whoever waits for a shared request whose scope is closed ${title} learns of it`, () =>
      Effect.gen(function* () {
        for (const count of [1, 2]) {
          const begun = yield* Deferred.make<void>()
          const silent = recording(() => Effect.zipRight(Deferred.succeed(begun, undefined), Effect.never))
          const scope = yield* Scope.make()
          const api = yield* Effect.flatMap(ApiClient, coalescedReads.make).pipe(
            Effect.provide(silent.layer),
            Effect.provideService(Scope.Scope, scope)
          )
          const close = Scope.close(scope, Exit.void)
          if (closeWhen === "before") yield* close
          const asking = yield* Effect.fork(fetchEach(api, count))
          yield* Effect.yieldNow()
          if (closeWhen === "begun") yield* Deferred.await(begun)
          if (closeWhen !== "before") yield* close
          const exit = yield* Effect.timeoutOption(Fiber.await(asking), "5 seconds")
          expect(Option.map(exit, Exit.isInterrupted)).toEqual(Option.some(true))
          expect(silent.sizes).toEqual(closeWhen === "begun" ? [count] : [])
          // Nor does one that comes later wait for ever.
          const later = yield* Effect.timeoutOption(Effect.exit(api.fetchKeyPackages([id(9)])), "5 seconds")
          expect(Option.map(later, Exit.isInterrupted)).toEqual(Option.some(true))
        }
      })
    )
  }

  it.live("an answer that is too short is asked again for those it leaves out", () => {
    const short = recording((ids) =>
      Effect.succeed(ids.slice(0, ids.length === 1 ? 1 : -1).map((one) => Option.some(bytesOf(one))))
    )
    return Effect.gen(function* () {
      const api = yield* coalescedReads.make(yield* ApiClient)
      const answers = yield* fetchEach(api, 3)
      expect(answers).toEqual([0, 1, 2].map((index) => Either.right([Option.some(bytesOf(id(index)))])))
    }).pipe(Effect.scoped, Effect.provide(short.layer))
  })
})
