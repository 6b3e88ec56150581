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
   * Compares the clocks now. Called before anything is written under the wall clock's time: a clock that is set back and
   * set right again before the next question has then been seen to be wrong, and what was written in between is not believed
   * too early.
   */
  readonly observe: Effect.Effect<void>
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

  /** What is known with this look, and the look. */
  const look = Effect.flatMap(read, (seen) =>
    Ref.modify(state, (known) => {
      const { monotonic, offset } = seen
      const ahead = offset - known.offset
      const hasStepped = ahead > TOLERANCE_NANOS || ahead < -TOLERANCE_NANOS
      const stepsAhead =
        hasStepped && ahead > 0n ? [...known.stepsAhead, { by: ahead, seenAt: monotonic }] : known.stepsAhead
      // A slow drift is no step, however far it leads from here.
      const next: State = { offset, doubtSince: hasStepped ? monotonic : known.doubtSince, stepsAhead }
      return [{ ...seen, known: next }, next]
    })
  )
  return {
    observe: Effect.asVoid(look),
    isTrusted: (grace, time) =>
      Effect.flatMap(look, ({ known, monotonic, offset }) => {
        const nanos = BigInt(Math.ceil(Duration.toMillis(grace))) * 1_000_000n
        const { doubtSince } = known
        const isOver = doubtSince === undefined || monotonic - doubtSince >= nanos
        const stepsAhead = known.stepsAhead.filter(({ seenAt }) => monotonic - seenAt < nanos)
        const surely = stepsAhead.reduce((wall, { by }) => wall - by, monotonic + offset)
        const hasPassed = time !== undefined && surely >= BigInt(Math.ceil(DateTime.toEpochMillis(time))) * 1_000_000n
        return Effect.as(
          Ref.update(state, (newest) => ({
            ...newest,
            doubtSince: isOver && newest.doubtSince === doubtSince ? undefined : newest.doubtSince,
            stepsAhead: newest.stepsAhead.filter(({ seenAt }) => monotonic - seenAt < nanos)
          })),
          isOver || hasPassed
        )
      })
  }
})
