/**
 * Spans of what is done often, for those who look at them.
 */
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import { type SpanOptions, Tracer } from "effect/Tracer"

/** The tracer of a program that has set none: its spans go nowhere. */
const nobody = Context.get(DefaultServices.liveServices, Tracer)

/**
 * As `Effect.withSpan` where the program has set a tracer. Where it has not, a span would cost as much as a statement of the
 * store.
 */
export const withSpan =
  (name: string, options?: SpanOptions) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.withFiberRuntime((fiber) =>
      fiber.currentTracer === nobody
        ? effect
        : // The place of this call says nothing.
          Effect.withSpan(effect, name, { captureStackTrace: false, ...options })
    )
