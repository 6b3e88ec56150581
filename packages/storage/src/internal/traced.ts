/**
 * Spans of the store's operations, for those who look at them.
 */
import * as Context from "effect/Context"
import * as DefaultServices from "effect/DefaultServices"
import * as Effect from "effect/Effect"
import { Tracer } from "effect/Tracer"

/** The tracer of a program that has set none: its spans go nowhere. */
const nobody = Context.get(DefaultServices.liveServices, Tracer)

/**
 * A function with a span, as by `Effect.fn`, where the program has set a tracer. Where it has not, a span would cost as much as
 * the statement that it is about.
 */
export const traced =
  (name: string) =>
  <Args extends ReadonlyArray<unknown>, A, E, R>(
    body: (...args: Args) => Effect.Effect<A, E, R>
  ): ((...args: Args) => Effect.Effect<A, E, R>) =>
  (...args) =>
    Effect.withFiberRuntime((fiber) =>
      fiber.currentTracer === nobody
        ? body(...args)
        : // The place of this call says nothing.
          Effect.withSpan(body(...args), name, { captureStackTrace: false })
    )
