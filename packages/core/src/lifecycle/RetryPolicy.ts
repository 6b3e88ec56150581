/**
 * When a failed call is sent again.
 *
 * @since 1.0.0
 */
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import { ApiClientError } from "../ports/ApiClient.ts"

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
    Effect.retry(call, {
      schedule: backoff(attempts),
      while: (error) =>
        error instanceof ApiClientError && error.isRetryable && Duration.lessThanOrEqualTo(retryAfter(error), MAX_DELAY)
    })
