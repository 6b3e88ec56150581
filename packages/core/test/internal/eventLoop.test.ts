/** Long work a step at a time: others come between, it can be interrupted, and what goes wrong is a defect of who asked. */
import { afterEach, describe, expect, it, vi } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as eventLoop from "../../src/internal/eventLoop.ts"

/** Work of so many steps, and how many have been done. */
const work = (steps: number) => {
  const done = { count: 0 }
  return { done, step: () => ++done.count === steps }
}

afterEach(() => {
  vi.unstubAllGlobals()
})

describe("work in turns", () => {
  it.live("is done to the last step, each in a turn of its own", () =>
    Effect.gen(function* () {
      const { done, step } = work(5)
      const seen: Array<number> = []
      const watch = () => {
        seen.push(done.count)
        if (done.count < 5) setImmediate(watch)
      }
      setImmediate(watch)
      yield* eventLoop.inTurns(step)
      expect(done.count).toBe(5)
      // Somebody else's turn came before each step.
      expect(seen).toEqual([0, 1, 2, 3, 4])
    })
  )

  it.live("can be run again, from where the work is", () =>
    Effect.gen(function* () {
      const done: Array<number> = []
      const twice = eventLoop.inTurns(() => done.push(done.length) % 2 === 0)
      yield* twice
      expect(done).toEqual([0, 1])
      yield* twice
      expect(done).toEqual([0, 1, 2, 3])
    })
  )

  it.live("ends where it is interrupted", () =>
    Effect.gen(function* () {
      const { done, step } = work(1_000_000)
      const fiber = yield* Effect.fork(eventLoop.inTurns(step))
      yield* eventLoop.turn
      yield* eventLoop.turn
      yield* Fiber.interrupt(fiber)
      const reached = done.count
      expect(reached).toBeGreaterThan(0)
      yield* eventLoop.turn
      yield* eventLoop.turn
      expect(done.count).toBe(reached)
    })
  )

  it.live("a step that throws is a defect of the fiber, and nobody else's", () =>
    Effect.gen(function* () {
      const bug = new Error("a bug")
      const exit = yield* Effect.exit(
        eventLoop.inTurns(() => {
          throw bug
        })
      )
      expect(Exit.isFailure(exit) && Array.from(Cause.defects(exit.cause))).toEqual([bug])
    })
  )

  it.live("is the same where there is no setImmediate", () =>
    Effect.gen(function* () {
      vi.stubGlobal("setImmediate", undefined)
      const { done, step } = work(3)
      yield* eventLoop.inTurns(step)
      expect(done.count).toBe(3)
    })
  )
})
