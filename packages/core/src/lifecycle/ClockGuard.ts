/**
 * Whether the wall clock can be believed when it says that keys may be erased.
 *
 * @since 1.0.0
 */
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import type { InstallationId } from "../identity/InstallationId.ts"
import { BoundedMap } from "../internal/boundedMap.ts"
import type { InstallationLedger } from "../ports/KeyPackageStore.ts"
import * as Ledger from "./Ledger.ts"

/**
 * A row that waits for its date of deletion.
 *
 * @since 1.0.0
 * @category models
 */
export type DatedRow = Ledger.Doomed | Ledger.Quarantined

/**
 * Compares the wall clock with the monotonic one, and with what this process has seen of the ledger.
 *
 * A step of the wall clock, or a machine that slept, makes the two disagree. A clock that was set ahead stays ahead, and whoever set
 * it back wrote dates that are too early: what the wall clock has stepped ahead since this process began counts as not having
 * passed. What surely passes is the monotonic clock, so a row that this process has known to wait for its date for a whole grace of
 * it has waited long enough, and one that it has known to be in use within the last grace of it has not.
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
  /** Compares the clocks, and notes which rows of an installation are in use, and which wait for their dates. */
  readonly see: (installationId: InstallationId, ledger: InstallationLedger) => Effect.Effect<void>
  /** Whether this time has passed by the wall clock as it would be without what it has stepped ahead. */
  readonly hasPassed: (time: DateTime.Utc) => Effect.Effect<boolean>
  /**
   * Whether the date of a row that waits for it can be believed, given that it has passed by the wall clock: it has by `hasPassed`, or
   * this process has known the row to wait for it for a whole `grace`. Not where the row was in use within the last one.
   */
  readonly hasWaited: (
    installationId: InstallationId,
    row: DatedRow,
    grace: Duration.Duration
  ) => Effect.Effect<boolean>
  /**
   * Whether this process has known a row for a whole `grace`. Where the clock is ahead, one that another process has just made looks as
   * if it had expired long ago, and that process may have stood still since, and is about to send it.
   */
  readonly hasKnown: (
    installationId: InstallationId,
    historyId: number,
    grace: Duration.Duration
  ) => Effect.Effect<boolean>
  /** Notes how far the app says that its inbox is read. */
  readonly seeReading: (
    installationId: InstallationId,
    completeAsOf: Option.Option<DateTime.Utc>
  ) => Effect.Effect<void>
  /**
   * Whether the reading of the inbox that bears this time has surely begun since the date of a row has passed. A clock that had
   * stepped ahead dates one later than it was, also where it has been set right since, which shows in its step back or in a time that
   * lay ahead. What may be such a reading counts only as the second one of those that say that they began since then.
   */
  readonly isReadSince: (
    installationId: InstallationId,
    row: { readonly historyId: number; readonly date: DateTime.Utc },
    grace: Duration.Duration,
    completeAsOf: DateTime.Utc
  ) => Effect.Effect<boolean>
}

/** How far the two may drift apart between two looks: an NTP step is smaller, a grace much larger. */
const TOLERANCE_NANOS = 60_000_000_000n

/**
 * How long a step ahead is remembered: every package that there was when it was made is past its hard stop then. And how long after
 * its last time a clock that was set back is.
 */
const STEP_MEMORY_NANOS = BigInt(Duration.toMillis("90 days")) * 1_000_000n

/** How long a reading of the inbox is taken to take at most, in nanoseconds: it may have begun under a clock set right meanwhile. */
const READING_NANOS = BigInt(Duration.toMillis("1 hour")) * 1_000_000n

/** Installations whose rows and readings are remembered; of others only the clocks are compared. */
const INSTALLATIONS = 20_000

interface Step {
  /** By how much the wall clock has stepped ahead, in nanoseconds. */
  readonly by: bigint
  /** When that was seen, on the monotonic clock, in nanoseconds. */
  readonly seenAt: bigint
}

/** A time that ended when the wall clock was set back. */
interface Epoch {
  /** Wall clock minus monotonic clock, in nanoseconds. */
  readonly offset: bigint
  /** How far the wall clock may have come in it, with what may be no step, in nanoseconds since 1970. */
  readonly until: bigint
  /** When its end was seen, on the monotonic clock, in nanoseconds. */
  readonly seenAt: bigint
}

interface State {
  /** Wall clock minus monotonic clock, in nanoseconds. */
  readonly offset: bigint
  /** The largest one since it was last set back. */
  readonly highest: bigint
  readonly stepsAhead: ReadonlyArray<Step>
  /** What was dated before the clock was set back bears a time of one of these. */
  readonly setBack: ReadonlyArray<Epoch>
}

/** What was seen of a row, on the monotonic clock, in nanoseconds. */
interface Sighting {
  /** When it was first seen. */
  readonly firstAt: bigint
  /** When it was last seen in use. */
  readonly inUseAt: bigint | undefined
  /** Since when it is known to wait for this date, in milliseconds since 1970. */
  readonly waits: { readonly since: bigint; readonly date: number } | undefined
}

/** What an app has said of its readings. Times on the monotonic clock, in nanoseconds. */
interface Readings {
  /** When the latest complete one began, as it says, in milliseconds since 1970. */
  readonly latest: number | undefined
  readonly seenAt: bigint
  /** The other one that was the latest before: what it said, and when that was last seen. */
  readonly other: { readonly latest: number; readonly seenAt: bigint } | undefined
  /** The latest time that was seen to lie ahead, and when that was last seen: dated by a clock that this process need not know. */
  readonly ahead: { readonly until: bigint; readonly seenAt: bigint } | undefined
}

/** The steps ahead that are left when the clock has gone back: the latest are undone first. */
const undone = (stepsAhead: ReadonlyArray<Step>, back: bigint): ReadonlyArray<Step> => {
  const latest = stepsAhead.at(-1)
  if (latest === undefined || back <= 0n) return stepsAhead
  const earlier = stepsAhead.slice(0, -1)
  return latest.by > back ? [...earlier, { ...latest, by: latest.by - back }] : undone(earlier, back - latest.by)
}

/** The epochs with one more. What bears an earlier one's times, and was less far ahead, is in doubt by the last one too. */
const ended = (epochs: ReadonlyArray<Epoch>, last: Epoch): ReadonlyArray<Epoch> => [
  ...epochs.filter(({ offset }) => offset > last.offset),
  last
]

const dateOf = (row: DatedRow): number => DateTime.toEpochMillis(row.deleteAt)

const nanosAt = (millis: number): bigint => BigInt(Math.ceil(millis)) * 1_000_000n

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
  const state = yield* Ref.make<State>({ offset: first.offset, highest: first.offset, stepsAhead: [], setBack: [] })
  const sightings = new BoundedMap<InstallationId, ReadonlyMap<number, Sighting>>(INSTALLATIONS)
  const readings = new BoundedMap<InstallationId, Readings>(INSTALLATIONS)

  /** What is known with this look, and the look. */
  const look = Effect.flatMap(read, (seen) =>
    Ref.modify(state, (known) => {
      const { monotonic, offset } = seen
      const ahead = offset - known.offset
      const hasStepped = ahead > TOLERANCE_NANOS || ahead < -TOLERANCE_NANOS
      const isRecent = ({ seenAt }: { readonly seenAt: bigint }) => monotonic - seenAt < STEP_MEMORY_NANOS
      const remembered = known.stepsAhead.filter(isRecent)
      const stepsAhead = !hasStepped
        ? remembered
        : ahead > 0n
          ? [...remembered, { by: ahead, seenAt: monotonic }]
          : undone(remembered, -ahead)
      // Also packages that were made after its end may have a date that an epoch's times come after.
      const epochs = known.setBack.filter(({ until }) => monotonic + offset < until + STEP_MEMORY_NANOS)
      // However small the steps back were.
      const isSetBack = known.highest - offset > TOLERANCE_NANOS
      const setBack = isSetBack
        ? ended(epochs, {
            offset: known.highest,
            until: monotonic + known.highest + TOLERANCE_NANOS,
            seenAt: monotonic
          })
        : epochs
      const highest = isSetBack || offset > known.highest ? offset : known.highest
      // A slow drift is no step, however far it leads from here.
      const next: State = { offset, highest, stepsAhead, setBack }
      return [{ ...seen, known: next }, next]
    })
  )

  /** The wall clock without its steps ahead, in nanoseconds, and the look. */
  const surely = Effect.map(look, ({ known, monotonic, offset }) => ({
    known,
    monotonic,
    offset,
    wall: known.stepsAhead.reduce((wall, { by }) => wall - by, monotonic + offset)
  }))

  return {
    observe: Effect.asVoid(look),
    see: (installationId, { entries, quarantined }) =>
      Effect.map(look, ({ monotonic }) => {
        const before = sightings.get(installationId)
        const rows = new Map<number, Sighting>()
        const seeDated = (row: DatedRow) => {
          const known = before?.get(row.historyId)
          const date = dateOf(row)
          // A date that was put off, since the row was served again, is waited for anew.
          const isAsBefore = known?.waits?.date === date
          const firstAt = known?.firstAt ?? monotonic
          const waits = { since: monotonic, date }
          rows.set(row.historyId, isAsBefore ? known : { firstAt, inUseAt: known?.inUseAt, waits })
        }
        for (const row of entries) {
          if (Ledger.isLive(row)) {
            const firstAt = before?.get(row.historyId)?.firstAt ?? monotonic
            rows.set(row.historyId, { firstAt, inUseAt: monotonic, waits: undefined })
          } else seeDated(row)
        }
        for (const row of quarantined) seeDated(row)
        sightings.set(installationId, rows)
      }),
    hasPassed: (time) => Effect.map(surely, ({ wall }) => wall >= nanosAt(DateTime.toEpochMillis(time))),
    hasWaited: (installationId, row, grace) =>
      Effect.map(surely, ({ monotonic, wall }) => {
        const nanos = nanosAt(Duration.toMillis(grace))
        const seen = sightings.get(installationId)?.get(row.historyId)
        if (seen?.inUseAt !== undefined && monotonic - seen.inUseAt < nanos) return false
        const date = dateOf(row)
        const isKnownLong = seen?.waits?.date === date && monotonic - seen.waits.since >= nanos
        return isKnownLong || wall >= nanosAt(date)
      }),
    hasKnown: (installationId, historyId, grace) =>
      Effect.map(look, ({ monotonic }) => {
        const firstAt = sightings.get(installationId)?.get(historyId)?.firstAt
        return firstAt !== undefined && monotonic - firstAt >= nanosAt(Duration.toMillis(grace))
      }),
    seeReading: (installationId, completeAsOf) =>
      Effect.map(look, ({ monotonic, offset }) => {
        const latest = Option.getOrUndefined(Option.map(completeAsOf, DateTime.toEpochMillis))
        const before = readings.get(installationId)
        const left = before?.latest === undefined ? undefined : { latest: before.latest, seenAt: before.seenAt }
        const other = before?.latest === latest ? before?.other : left
        const until = latest === undefined ? 0n : nanosAt(latest)
        const known = before?.ahead
        const ahead =
          until > monotonic + offset + TOLERANCE_NANOS
            ? { until: known !== undefined && known.until > until ? known.until : until, seenAt: monotonic }
            : known
        readings.set(installationId, { latest, seenAt: monotonic, other, ahead })
      }),
    isReadSince: (installationId, { date, historyId }, grace, completeAsOf) =>
      Effect.map(surely, ({ known, monotonic, offset, wall }) => {
        const millis = DateTime.toEpochMillis(date)
        const dated = nanosAt(DateTime.toEpochMillis(completeAsOf))
        const waits = sightings.get(installationId)?.get(historyId)?.waits
        const byWall = nanosAt(millis) - wall + monotonic
        const byWaiting = waits?.date === millis ? waits.since + nanosAt(Duration.toMillis(grace)) : byWall
        /** When the date has surely passed, on the monotonic clock. */
        const passedAt = byWaiting < byWall ? byWaiting : byWall
        if (dated < nanosAt(millis) || dated - offset < passedAt) return false
        const { ahead, latest, other } = readings.get(installationId) ?? {}
        const isLatest = latest === DateTime.toEpochMillis(completeAsOf)
        /** Whether two readings, this one the later, say of themselves that they began since then, long after it. */
        const isSecondSince = (seenAt: bigint) =>
          isLatest &&
          other !== undefined &&
          nanosAt(other.latest) - offset >= seenAt &&
          other.seenAt - seenAt >= READING_NANOS &&
          dated - offset >= other.seenAt
        if (ahead !== undefined && dated <= ahead.until && !isSecondSince(ahead.seenAt)) return false
        return known.setBack.every(
          ({ offset, seenAt, until }) => dated > until || dated - offset >= passedAt || isSecondSince(seenAt)
        )
      })
  }
})
