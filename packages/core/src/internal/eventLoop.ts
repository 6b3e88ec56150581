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
