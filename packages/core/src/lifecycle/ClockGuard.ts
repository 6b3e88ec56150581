/**
 * Whether the wall clock can be believed when it says that keys may be erased.
 *
 * @since 1.0.0
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"

/**
 * Compares the wall clock with the monotonic one. A step of the wall clock, or a machine that slept, makes them disagree; from
 * then on the wall clock counts as doubtful until one grace has passed on the monotonic clock. A time that has passed even if
 * none of its steps ahead in that grace were true is not in doubt: a machine that sleeps every night erases, only later.
 *
 * @since 1.0.0
 * @category models
 */
export interface ClockGuard {
  /**
   * Whether the two have agreed for one `grace`, or since the guard was made; or whether `time` has passed by the wall clock as it
   * would be without what it has stepped ahead since.
   */
  readonly isTrusted: (grace: Duration.Duration, time?: DateTime.Utc | undefined) => Effect.Effect<boolean>
}

/** How far the two may drift apart between two looks: an NTP step is smaller, a grace much larger. */
const TOLERANCE_NANOS = 60_000_000_000n

interface State {
  /** Wall clock minus monotonic clock, in nanoseconds. */
  readonly offset: bigint
  /** When they were last seen to disagree, on the monotonic clock, in nanoseconds. */
  readonly doubtSince: bigint | undefined
  /** By how much the wall clock has stepped ahead, and when that was seen, on the monotonic clock, in nanoseconds. */
  readonly stepsAhead: ReadonlyArray<{ readonly by: bigint; readonly seenAt: bigint }>
}

/**
 * A guard that believes the wall clock until the two disagree.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make: Effect.Effect<ClockGuard> = Effect.gen(function* () {
  const read = Effect.map(Effect.all([Clock.currentTimeMillis, Clock.currentTimeNanos]), ([wall, monotonic]) => ({
    monotonic,
    offset: BigInt(Math.floor(wall)) * 1_000_000n - monotonic
  }))
  const first = yield* read
  const state = yield* Ref.make<State>({ offset: first.offset, doubtSince: undefined, stepsAhead: [] })
  return {
    isTrusted: (grace, time) =>
      Effect.flatMap(read, ({ monotonic, offset }) =>
        Ref.modify(state, (known): [boolean, State] => {
          const ahead = offset - known.offset
          const hasStepped = ahead > TOLERANCE_NANOS || ahead < -TOLERANCE_NANOS
          const doubtSince = hasStepped ? monotonic : known.doubtSince
          const nanos = BigInt(Math.ceil(Duration.toMillis(grace))) * 1_000_000n
          const isOver = doubtSince === undefined || monotonic - doubtSince >= nanos
          const stepsAhead = known.stepsAhead.filter(({ seenAt }) => monotonic - seenAt < nanos)
          if (hasStepped && ahead > 0n) stepsAhead.push({ by: ahead, seenAt: monotonic })
          const surely = stepsAhead.reduce((wall, { by }) => wall - by, monotonic + offset)
          const hasPassed = time !== undefined && surely >= BigInt(Math.ceil(DateTime.toEpochMillis(time))) * 1_000_000n
          return [isOver || hasPassed, { offset, doubtSince: isOver ? undefined : doubtSince, stepsAhead }]
        })
      )
  }
})
