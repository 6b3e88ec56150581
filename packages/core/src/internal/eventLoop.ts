/**
 * A turn of the event loop, for work that keeps the processor busy.
 */
import * as Effect from "effect/Effect"

/**
 * Lets everything else run that waits: timers, sockets, other fibers. A yield of Effect's own scheduler lets only fibers
 * run. Where there is no `setImmediate`, a sleep of nothing does the same in a millisecond.
 */
export const turn: Effect.Effect<void> = Effect.suspend(() => {
  // Not a timer, so no clock has a part in it; the global is looked up by name as only some platforms have it.
  const { setImmediate } = globalThis
  return setImmediate === undefined
    ? Effect.sleep(0)
    : Effect.async<void>((resume) => {
        setImmediate(() => resume(Effect.void))
      })
})

/**
 * Does a long piece of work a step at a time, each in a turn of its own, until a step says that it was the last. The fiber is
 * suspended once for all of them. Where it is interrupted there is no further step.
 */
export const inTurns = (step: () => boolean): Effect.Effect<void> =>
  Effect.suspend(() => {
    const { clearImmediate, setImmediate } = globalThis
    if (setImmediate === undefined) {
      return Effect.flatMap(turn, () => (step() ? Effect.void : inTurns(step)))
    }
    return Effect.async<void>((resume) => {
      const next = () => {
        try {
          if (step()) resume(Effect.void)
          else waiting = setImmediate(next)
        } catch (defect) {
          resume(Effect.die(defect))
        }
      }
      let waiting = setImmediate(next)
      return Effect.sync(() => clearImmediate(waiting))
    })
  })
