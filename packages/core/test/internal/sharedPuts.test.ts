/** Writes that share: few of them, nothing lost, and nobody kept for ever. */
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import * as sharedPuts from "../../src/internal/sharedPuts.ts"

/** A store whose first write ends as a test says, and which notes what it was given. */
const store = (first: Effect.Effect<void> = Effect.void) => {
  const writes: Array<ReadonlyArray<number>> = []
  const put = (values: ReadonlyArray<number>) => Effect.suspend(() => (writes.push(values) === 1 ? first : Effect.void))
  return { writes, put }
}

const make = (put: (values: ReadonlyArray<number>) => Effect.Effect<void>) =>
  sharedPuts.make<number>({ put, weightOf: (value) => value, enough: 100 })

describe("sharedPuts", () => {
  it.scoped("writes what was added, all of it at once, and nothing where nothing waits", () =>
    Effect.gen(function* () {
      const { put, writes } = store()
      const puts = yield* make(put)
      yield* puts.flush
      yield* puts.add([1, 2])
      yield* puts.add([3])
      expect(writes).toEqual([])
      yield* puts.flush
      yield* puts.flush
      expect(writes).toEqual([[1, 2, 3]])
    })
  )

  it.scoped("what is added while a write is under way goes with the next", () =>
    Effect.gen(function* () {
      const gate = yield* Deferred.make<void>()
      const { put, writes } = store(Deferred.await(gate))
      const puts = yield* make(put)
      yield* puts.add([1])
      const first = yield* Effect.fork(puts.flush)
      yield* Effect.yieldNow()
      const others = yield* Effect.forEach([2, 3, 4], (value) =>
        Effect.fork(Effect.zipRight(puts.add([value]), puts.flush))
      )
      yield* Effect.yieldNow()
      expect(writes).toEqual([[1]])
      yield* Deferred.succeed(gate, undefined)
      yield* Fiber.joinAll([first, ...others])
      expect(writes).toEqual([[1], [2, 3, 4]])
    })
  )

  it.scoped("enough is written without being asked for, and no write has more than enough, but for one value", () =>
    Effect.gen(function* () {
      const { put, writes } = store()
      const puts = yield* make(put)
      yield* puts.add([60, 39])
      expect(writes).toEqual([])
      yield* puts.add([50, 50, 1, 700, 2])
      expect(writes).toEqual([[60, 39], [50, 50], [1], [700], [2]])
    })
  )

  it.effect("the end of the scope writes what waits", () =>
    Effect.gen(function* () {
      const { put, writes } = store()
      yield* Effect.scoped(Effect.flatMap(make(put), (puts) => puts.add([1, 2])))
      expect(writes).toEqual([[1, 2]])
    })
  )

  it.effect("a write that the end of the scope interrupts is done again", () =>
    Effect.gen(function* () {
      const { put, writes } = store(Effect.never)
      const scope = yield* Scope.make()
      const puts = yield* Scope.extend(make(put), scope)
      yield* puts.add([1])
      yield* Effect.forkIn(Effect.interruptible(puts.flush), scope)
      yield* Effect.yieldNow()
      yield* puts.add([2])
      expect(writes).toEqual([[1]])
      yield* Scope.close(scope, Exit.void)
      expect(writes.map((values) => values.toSorted())).toEqual([[1], [1, 2]])
    })
  )

  it.effect("a last write that never ends is given up", () =>
    Effect.gen(function* () {
      const { put, writes } = store(Effect.never)
      const ending = yield* Effect.fork(Effect.scoped(Effect.flatMap(make(put), (puts) => puts.add([1]))))
      yield* Effect.yieldNow()
      yield* TestClock.adjust("9 seconds")
      expect((yield* Fiber.poll(ending))._tag).toBe("None")
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(ending)
      expect(writes).toEqual([[1]])
    })
  )
})
