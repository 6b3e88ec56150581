/**
 * Whether the wall clock can be believed when it says that keys may be erased.
 *
 * @since 1.0.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Ref from "effect/Ref"

/**
 * Compares the wall clock with the monotonic one. A step of the wall clock, or a machine that slept, makes them disagree; from
 * then on the wall clock counts as doubtful until one grace has passed on the monotonic clock.
 *
 * @since 1.0.0
 * @category models
 */
export interface ClockGuard {
  /** Whether the two have agreed for one `grace`, or since the guard was made. */
  readonly isTrusted: (grace: Duration.Duration) => Effect.Effect<boolean>
}

/** How far the two may drift apart between two looks: an NTP step is smaller, a grace much larger. */
const TOLERANCE_NANOS = 60_000_000_000n

interface State {
  /** Wall clock minus monotonic clock, in nanoseconds. */
  readonly offset: bigint
  /** When they were last seen to disagree, on the monotonic clock, in nanoseconds. */
  readonly doubtSince: bigint | undefined
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
  const state = yield* Ref.make<State>({ offset: first.offset, doubtSince: undefined })
  return {
    isTrusted: (grace) =>
      Effect.flatMap(read, ({ monotonic, offset }) =>
        Ref.modify(state, (known): [boolean, State] => {
          const drift = offset > known.offset ? offset - known.offset : known.offset - offset
          const doubtSince = drift > TOLERANCE_NANOS ? monotonic : known.doubtSince
          const isOver =
            doubtSince === undefined ||
            monotonic - doubtSince >= BigInt(Math.ceil(Duration.toMillis(grace))) * 1_000_000n
          return [isOver, { offset, doubtSince: isOver ? undefined : doubtSince }]
        })
      )
  }
})
