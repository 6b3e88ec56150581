/**
 * A clock that is wrong: its wall time is another than the true one, while its monotonic time goes on as it should.
 *
 * @since 1.0.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/**
 * By how much a clock is wrong. A test changes it at any time: a step.
 *
 * @since 1.0.0
 * @category models
 */
export interface Skew {
  /** Added to the wall clock, milliseconds. Negative is behind. */
  offsetMillis: number
}

/**
 * A skew that can be changed later.
 *
 * @since 1.0.0
 * @category constructors
 */
export const skew = (offset: Duration.DurationInput = 0, direction: "ahead" | "behind" = "ahead"): Skew => ({
  offsetMillis: Duration.toMillis(offset) * (direction === "ahead" ? 1 : -1)
})

/**
 * `base` with its wall clock off by the skew. Sleeps and the monotonic clock are those of `base`.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (base: Clock.Clock, skew: Skew): Clock.Clock => ({
  [Clock.ClockTypeId]: Clock.ClockTypeId,
  unsafeCurrentTimeMillis: () => base.unsafeCurrentTimeMillis() + skew.offsetMillis,
  unsafeCurrentTimeNanos: () => base.unsafeCurrentTimeNanos(),
  currentTimeMillis: Effect.map(base.currentTimeMillis, (millis) => millis + skew.offsetMillis),
  currentTimeNanos: base.currentTimeNanos,
  sleep: (duration) => base.sleep(duration)
})

/**
 * What is built above this layer has a clock that is off by the skew. Over a `TestClock`, of which `adjust` then moves both times,
 * or over any other.
 *
 * @since 1.0.0
 * @category layers
 * @example
 * ```ts
 * import * as SkewedClock from "@keyward/test-utils/simulation/SkewedClock"
 * import * as Clock from "effect/Clock"
 * import * as Effect from "effect/Effect"
 *
 * const skew = SkewedClock.skew()
 * const program = Effect.gen(function* () {
 *   const before = yield* Clock.currentTimeMillis
 *   skew.offsetMillis += 86_400_000
 *   return (yield* Clock.currentTimeMillis) - before
 * }).pipe(Effect.provide(SkewedClock.layer(skew)))
 * ```
 */
export const layer = (skew: Skew): Layer.Layer<never> =>
  Layer.unwrapEffect(Effect.clockWith((base) => Effect.succeed(Layer.setClock(make(base, skew)))))
