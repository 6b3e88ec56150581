/**
 * When a failed call is sent again.
 *
 * @since 1.0.0
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import { ApiClientError, type Operation } from "../ports/ApiClient.ts"
import { LifecycleSettings } from "./LifecycleSettings.ts"

/** The longest wait between two attempts. A node that asks for more is not waited for: the call fails at once. */
const MAX_DELAY = Duration.seconds(30)

const retryAfter = (error: unknown): Duration.Duration =>
  (error instanceof ApiClientError ? error.retryAfter : undefined) ?? Duration.zero

/**
 * The waits between attempts: 200 ms doubling, with jitter, at most 30 s, never less than the node's retry-after.
 *
 * @since 1.0.0
 * @category schedules
 */
export const backoff = (attempts: number): Schedule.Schedule<unknown, unknown> =>
  Schedule.exponential("200 millis").pipe(
    Schedule.jittered,
    Schedule.intersect(Schedule.recurs(attempts - 1)),
    Schedule.zipRight(Schedule.identity<unknown>()),
    Schedule.modifyDelay((error, delay) => Duration.min(MAX_DELAY, Duration.max(delay, retryAfter(error))))
  )

/** Whether the same call may succeed before long. */
const isTransient = (error: unknown): boolean =>
  error instanceof ApiClientError && error.isRetryable && Duration.lessThanOrEqualTo(retryAfter(error), MAX_DELAY)

/**
 * Repeats a call, whose request is the same bytes each time, while its failure is transient: `attempts` times in all.
 * Fails with the last attempt's error.
 *
 * @since 1.0.0
 * @category combinators
 */
export const retryTransient =
  (attempts: number) =>
  <A, E, R>(call: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    // The schedule begins with the first failure: driving one costs more than the rest of a call that succeeds.
    Effect.catchIf(call, isTransient, (error) => {
      let next: Effect.Effect<A, E, R> = Effect.fail(error)
      const attempt = Effect.suspend(() => {
        const now = next
        next = call
        return now
      })
      return Effect.retry(attempt, { schedule: backoff(attempts), while: isTransient })
    })

/**
 * One attempt at a call, which ends after `attemptTimeout` whatever the layer below does: a call that never answers must not hold
 * up the life of an installation. Fails with `Timeout` then; what was sent may have been carried out.
 *
 * @since 1.0.0
 * @category combinators
 */
export const withinAttempt =
  (operation: Operation) =>
  <A, R>(call: Effect.Effect<A, ApiClientError, R>): Effect.Effect<A, ApiClientError, R> =>
    Effect.flatMap(LifecycleSettings, ({ attemptTimeout }) =>
      Effect.timeoutFail(call, {
        duration: attemptTimeout,
        onTimeout: () => new ApiClientError({ operation, reason: "Timeout" })
      })
    )

/**
 * How long work that failed as a whole waits before it is begun again: 1 minute doubling to 1 hour, never less than the node's
 * retry-after; and 1 hour doubling to 24 hours where the network refused, as it also does while its validation service is
 * down.
 */
const pauses = {
  transient: { first: Duration.minutes(1), longest: Duration.hours(1) },
  refused: { first: Duration.hours(1), longest: Duration.hours(24) }
} as const

/**
 * When work that has failed `count` times in a row is begun again: a function of the count, with the jitter already drawn, so
 * that a store can apply it inside a transaction.
 *
 * @since 1.0.0
 * @category schedules
 */
export const nextAttempt = (now: DateTime.Utc, error: unknown): Effect.Effect<(count: number) => DateTime.Utc> =>
  Effect.map(Random.next, (random) => {
    const { first, longest } = pauses[error instanceof ApiClientError && !error.isRetryable ? "refused" : "transient"]
    return (count) => {
      const doubled = Duration.times(first, 2 ** Math.min(count - 1, 16))
      const pause = Duration.times(Duration.min(longest, doubled), 0.8 + 0.2 * random)
      return DateTime.addDuration(now, Duration.min(Duration.hours(24), Duration.max(pause, retryAfter(error))))
    }
  })

/**
 * When to look next at what the network serves: after the interval, up to a tenth earlier so that installations drift apart.
 *
 * @since 1.0.0
 * @category schedules
 */
export const nextProbeAt = (now: DateTime.Utc): Effect.Effect<DateTime.Utc> =>
  Effect.gen(function* () {
    const { probeInterval } = yield* LifecycleSettings
    return DateTime.addDuration(now, Duration.times(probeInterval, 1 - 0.1 * (yield* Random.next)))
  })
