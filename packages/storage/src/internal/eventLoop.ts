/**
 * A turn of the event loop.
 */
import * as Effect from "effect/Effect"

/**
 * Lets everything else run that is ready: answers that have arrived, other fibers. A yield of Effect's own scheduler lets only
 * fibers run.
 */
export const turn: Effect.Effect<void> = Effect.async<void>((resume) => {
  // Not a timer, so no clock has a part in it.
  const { clearImmediate, setImmediate } = globalThis
  const immediate = setImmediate(() => resume(Effect.void))
  return Effect.sync(() => clearImmediate(immediate))
})
