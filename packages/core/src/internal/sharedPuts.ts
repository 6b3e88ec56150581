/**
 * Writes that may wait a moment, so that many of them share one.
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** Values on their way into a store. */
export interface SharedPuts<A> {
  /** Takes values along with the next write. Returns at once, unless there is enough for a write of its own. */
  readonly add: (values: ReadonlyArray<A>) => Effect.Effect<void>
  /** Writes what waits. When it returns, everything that was added before has been written. */
  readonly flush: Effect.Effect<void>
}

/** How long the last write, at the end of the scope, may take. SQLite gives up before. */
const LAST_WRITE = Duration.seconds(10)

/**
 * Writes through `put`, one at a time: what is added while one is under way goes with the next. At the end of the scope what
 * still waits is written, and what was interrupted is written again.
 */
export const make = <A>(options: {
  /** Writes values; several times the same where it was interrupted. */
  readonly put: (values: ReadonlyArray<A>) => Effect.Effect<void>
  readonly weightOf: (value: A) => number
  /** Weight at which a write does not wait for more, and that a write has at most, but for one value. */
  readonly enough: number
}): Effect.Effect<SharedPuts<A>, never, Scope.Scope> =>
  Effect.gen(function* () {
    const { enough, put, weightOf } = options
    const oneAtATime = yield* Effect.makeSemaphore(1)
    let waiting: Array<A> = []
    let weight = 0

    const add = (values: ReadonlyArray<A>): void => {
      for (const value of values) {
        waiting.push(value)
        weight += weightOf(value)
      }
    }

    /** Takes what one write may have, the oldest first. */
    const take = (): ReadonlyArray<A> => {
      let taken = 0
      let count = 0
      for (const value of waiting) {
        taken += weightOf(value)
        if (count > 0 && taken > enough) break
        count++
      }
      const values = waiting.slice(0, count)
      const left = waiting.slice(count)
      waiting = []
      weight = 0
      add(left)
      return values
    }

    const putSome = Effect.uninterruptibleMask((restore) =>
      Effect.suspend(() => {
        const values = take()
        return Effect.onInterrupt(restore(put(values)), () => Effect.sync(() => add(values)))
      })
    )

    const flush = oneAtATime.withPermits(1)(
      Effect.whileLoop({ while: () => waiting.length > 0, body: () => putSome, step: () => {} })
    )

    yield* Effect.addFinalizer(() =>
      Effect.flatMap(Effect.timeoutOption(Effect.interruptible(flush), LAST_WRITE), ({ _tag }) =>
        _tag === "None" ? Effect.logWarning("a last write did not end in time and was given up") : Effect.void
      )
    )

    return {
      add: (values) =>
        Effect.suspend(() => {
          add(values)
          return weight < enough ? Effect.void : flush
        }),
      flush
    }
  })
