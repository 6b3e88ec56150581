/**
 * Erases private keys that nothing can need any more: exactly those that are due, each in its own right.
 *
 * A row is erased when all of these hold: its date has passed; the network, asked just before, does not serve it; a complete
 * reading of the Welcome inbox has begun since its date, where the app reports its progress; the wall clock can be believed.
 * The network and the inbox are waited for no longer than the hard stop: the end of the package's lifetime and two graces. The
 * clock is waited for until it can be believed, whatever the date.
 *
 * @since 1.0.0
 */
import * as Boolean from "effect/Boolean"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { InstallationId } from "../identity/InstallationId.ts"
import * as permits from "../internal/retirementPermit.ts"
import { type InstallationLedger, KeyPackageStore, type StorageError } from "../ports/KeyPackageStore.ts"
import { WelcomeProgress, type WelcomeProgressReport } from "../ports/WelcomeProgress.ts"
import type { ClockGuard } from "./ClockGuard.ts"
import type { Installation } from "./Installation.ts"
import type { Lease, LeaseError } from "./Lease.ts"
import * as Ledger from "./Ledger.ts"
import { emit, LifecycleEvent } from "./LifecycleEvents.ts"
import { LifecycleSettings, type LifecycleSettingsShape } from "./LifecycleSettings.ts"
import type { Observation } from "./Reachability.ts"
import type { RetirementPermit } from "./RetirementPermit.ts"
import * as Schedule from "./Schedule.ts"

/**
 * What a cleaning did.
 *
 * @since 1.0.0
 * @category models
 */
export interface Cleaned {
  /** How many rows lost their keys. */
  readonly erased: number
  /** When the next row may be erased, or a condition is asked again; none while nothing waits. */
  readonly nextAt: Option.Option<DateTime.Utc>
}

const expiryOf = ({ keyPackage }: Ledger.Kept): DateTime.Utc =>
  // Beyond what a date can be is beyond any clock.
  DateTime.unsafeMake(Math.min(Number(keyPackage.lifetime.notAfter) * 1000, 8.64e15 - Duration.toMillis("365 days")))

/**
 * When a row's keys may be erased at the earliest: its date of deletion, or one grace after the end of its lifetime.
 *
 * @since 1.0.0
 * @category getters
 */
export const deleteAtOf = (row: Ledger.Kept | Ledger.Quarantined, grace: Duration.Duration): DateTime.Utc =>
  "_tag" in row && Ledger.isLive(row) ? DateTime.addDuration(expiryOf(row), grace) : row.deleteAt

/**
 * When waiting ends: two graces after the lifetime; for a row that cannot be read, two graces after its date.
 *
 * @since 1.0.0
 * @category getters
 */
export const hardStopOf = (row: Ledger.Kept | Ledger.Quarantined, grace: Duration.Duration): DateTime.Utc =>
  DateTime.addDuration("_tag" in row ? expiryOf(row) : row.deleteAt, Duration.times(grace, 2))

/**
 * When the first of an installation's rows may be erased.
 *
 * @since 1.0.0
 * @category getters
 */
export const nextDeletionAt = (
  { entries, quarantined }: InstallationLedger,
  grace: Duration.Duration
): Option.Option<DateTime.Utc> => {
  const times = [...entries, ...quarantined].map((row) => deleteAtOf(row, grace))
  return times.length === 0 ? Option.none() : Option.some(times.reduce(DateTime.min))
}

const reasonOf = (row: Ledger.Kept | Ledger.Quarantined): Ledger.RetirementReason => {
  if (!("_tag" in row)) return "Unreadable"
  return row._tag === "Superseded" || row._tag === "Rejected" ? row._tag : "Expired"
}

/** Whose inbox is read, and by which clock. */
interface Reader {
  readonly installationId: InstallationId
  readonly now: DateTime.Utc
  readonly grace: Duration.Duration
  readonly guard: ClockGuard
}

/** Everything that an erasure is decided by. */
interface Evidence {
  readonly now: DateTime.Utc
  readonly grace: Duration.Duration
  readonly observation: Observation
  /** The rows whose date has come by a clock that can be believed. */
  readonly believed: ReadonlySet<Ledger.Kept | Ledger.Quarantined>
  /** The rows since whose dates the inbox was read completely, or whose inbox nobody reports of. */
  readonly read: ReadonlySet<Ledger.Kept | Ledger.Quarantined>
  /** The rows whose hard stop has passed by a clock that can be believed. */
  readonly stopped: ReadonlySet<Ledger.Kept | Ledger.Quarantined>
  /** Whether nobody may invite this installation, and that for longer than a mistake of its owner would last. */
  readonly isLongRevoked: boolean
  /** None where the app does not report; `unknown` where it does and cannot tell now. */
  readonly progress: Option.Option<WelcomeProgressReport> | "unknown"
}

const isServed = ({ served }: Observation, row: Ledger.Kept | Ledger.Quarantined): boolean =>
  (served._tag === "Ours" && served.seen.entry.historyId === row.historyId) ||
  (served._tag === "Damaged" && served.historyId === row.historyId)

/**
 * The rows since whose dates the inbox was read completely, or all where the app does not report. A reading that lies ahead began
 * under a clock that was ahead: nobody knows when.
 */
const readOf = (
  rows: ReadonlyArray<Ledger.Kept | Ledger.Quarantined>,
  progress: Option.Option<WelcomeProgressReport>,
  { installationId, now, grace, guard }: Reader
): Effect.Effect<ReadonlySet<Ledger.Kept | Ledger.Quarantined>> =>
  Effect.gen(function* () {
    if (Option.isNone(progress)) return new Set(rows)
    const { completeAsOf } = progress.value
    if (Option.isNone(completeAsOf) || DateTime.greaterThan(completeAsOf.value, now)) return new Set()
    const read = yield* Effect.filter(rows, (row) => {
      const { historyId } = row
      return guard.isReadSince(installationId, { historyId, date: deleteAtOf(row, grace) }, grace, completeAsOf.value)
    })
    return new Set(read)
  })

/** Whether nothing can need the keys of this row any more. */
const mayErase = (row: Ledger.Kept | Ledger.Quarantined, evidence: Evidence): boolean => {
  const { believed, grace, isLongRevoked, now, observation, progress, read, stopped } = evidence
  const deleteAt = deleteAtOf(row, grace)
  const hasPassed = (time: DateTime.Utc) =>
    Option.exists(observation.networkTimeAtLeast, (network) => DateTime.greaterThanOrEqualTo(network, time))
  // The network's time says when a lifetime has ended. It says nothing of a date that our own clock has set, which may
  // have been behind the network's then.
  const isExpiry = "_tag" in row && Ledger.isLive(row)
  const isOver =
    DateTime.greaterThanOrEqualTo(now, deleteAt) && (believed.has(row) || (isExpiry && hasPassed(deleteAt)))
  if (!isOver || progress === "unknown") return false

  // Where a confirmation is awaited there are two: the network may serve the older one still.
  const isPublished = "_tag" in row && row._tag === "Published"
  const hardStop = hardStopOf(row, grace)
  if (DateTime.greaterThanOrEqualTo(now, hardStop) && (stopped.has(row) || ("_tag" in row && hasPassed(hardStop)))) {
    // The network has answered, or there would be no observation. The inbox must have been tried, where somebody reads it.
    const isInboxTried = Option.match(progress, { onNone: () => true, onSome: (p) => Option.isSome(p.attemptedAt) })
    // A package that nothing has replaced for certain contradicts a clock that says it is long expired.
    return isInboxTried && (!isPublished || isLongRevoked || hasPassed(deleteAt))
  }
  // A published package goes only when a later one has superseded it, or the network's own time says that it has expired.
  return read.has(row) && !isServed(observation, row) && (!isPublished || hasPassed(deleteAt))
}

/**
 * The rows for which nothing is waited for any longer. A date that this process has long known to be waited for says nothing of that:
 * a clock that has stepped ahead would end the wait for a reader months before the package does.
 */
const stoppedOf = (
  rows: ReadonlyArray<Ledger.Kept | Ledger.Quarantined>,
  grace: Duration.Duration,
  guard: ClockGuard
): Effect.Effect<ReadonlySet<Ledger.Kept | Ledger.Quarantined>> =>
  Effect.map(
    Effect.filter(rows, (row) => guard.hasPassed(hardStopOf(row, grace))),
    (stopped) => new Set(stopped)
  )

/**
 * Whether the installation is revoked, as the network says just now, and has been for two graces: and for one interval between looks,
 * since a clock that is ahead makes the last one as long as that.
 */
const isLongRevoked = (
  schedule: Schedule.Schedule,
  { membership }: Observation,
  guard: ClockGuard,
  now: DateTime.Utc,
  { grace, probeInterval }: LifecycleSettingsShape
): Effect.Effect<boolean> => {
  const since = Schedule.revokedSince(schedule, now)
  if (membership !== "Revoked" || Option.isNone(since)) return Effect.succeed(false)
  const span = Duration.sum(Duration.times(grace, 2), probeInterval)
  return guard.hasPassed(DateTime.addDuration(since.value, span))
}

/** How far the app has read its Welcomes, as far as that can be told. */
const askProgress = (installationId: InstallationId, guard: ClockGuard) =>
  Effect.gen(function* () {
    const { get } = yield* WelcomeProgress
    const progress = yield* Effect.catchAll(get(installationId), (error) =>
      Effect.as(Effect.logWarning(error.message), "unknown" as const)
    )
    if (progress !== "unknown" && Option.isSome(progress)) {
      yield* guard.seeReading(installationId, progress.value.completeAsOf)
    }
    return progress
  })

/**
 * Whether something may be erased if the network does not serve it: asked before the network is.
 *
 * @since 1.0.0
 * @category cleaning
 */
export const isWorthALook: (
  installation: Installation,
  ledger: InstallationLedger,
  guard: ClockGuard
) => Effect.Effect<boolean, never, WelcomeProgress> = Effect.fn("Cleaner.isWorthALook")(function* (
  { installationId },
  ledger,
  guard
) {
  const { grace } = yield* LifecycleSettings
  const now = yield* DateTime.now
  const progress = yield* askProgress(installationId, guard)
  if (progress === "unknown") return false
  const due = [...ledger.entries, ...ledger.quarantined].filter((row) =>
    DateTime.greaterThanOrEqualTo(now, deleteAtOf(row, grace))
  )
  // Whether that can be believed, the network's own time may say.
  if (due.some((row) => DateTime.greaterThanOrEqualTo(now, hardStopOf(row, grace)))) return true
  return (yield* readOf(due, progress, { installationId, now, grace, guard })).size > 0
})

/**
 * Erases what is due. `observation` is what the network said just before.
 *
 * @since 1.0.0
 * @category cleaning
 */
export const clean: (
  lease: Lease,
  installation: Installation,
  ledger: InstallationLedger,
  observation: Observation,
  guard: ClockGuard
) => Effect.Effect<Cleaned, StorageError | LeaseError, KeyPackageStore | WelcomeProgress> = Effect.fn("Cleaner.clean")(
  function* (lease, { installationId, schedule: known }, ledger, observation, guard) {
    const store = yield* KeyPackageStore
    const settings = yield* LifecycleSettings
    const { cleanRetry, grace } = settings
    const now = yield* DateTime.now
    const progress = yield* askProgress(installationId, guard)
    const rows = [...ledger.entries, ...ledger.quarantined]
    const isBelieved = (row: Ledger.Kept | Ledger.Quarantined): Effect.Effect<boolean> => {
      if (!("_tag" in row) || !Ledger.isLive(row)) return guard.hasWaited(installationId, row, grace)
      const hasPassed = guard.hasPassed(deleteAtOf(row, grace))
      return Ledger.isWaiting(row)
        ? Effect.zipWith(hasPassed, guard.hasKnown(installationId, row.historyId, grace), Boolean.and)
        : hasPassed
    }
    const believed = new Set(yield* Effect.filter(rows, isBelieved))
    const stopped = yield* stoppedOf(rows, grace, guard)
    const read =
      progress === "unknown"
        ? new Set<Ledger.Kept | Ledger.Quarantined>()
        : yield* readOf(rows, progress, { installationId, now, grace, guard })
    const evidence: Evidence = {
      now,
      grace,
      observation,
      believed,
      read,
      stopped,
      isLongRevoked: yield* isLongRevoked(known, observation, guard, now, settings),
      progress
    }

    const due = rows.filter((row) => mayErase(row, evidence))
    const left = rows.filter((row) => !due.includes(row))
    const nextAt = nextLook(left, now, settings)
    if (due.length === 0) {
      yield* store.modifySchedule(installationId, (schedule) => ({ ...schedule, cleanAt: nextAt }))
      return { erased: 0, nextAt }
    }
    const { quarantined, retired } = yield* store.retire(lease, due.map(permitOf), {
      at: now,
      dropBefore: DateTime.subtractDuration(now, settings.tombstoneLifetime),
      // The files still hold what was erased: cleaning is over once they are scrubbed too.
      reschedule: Schedule.requestCleaning(DateTime.addDuration(now, cleanRetry))
    })
    for (const { historyId, reason } of retired) {
      yield* emit(LifecycleEvent.Retired({ installationId, historyId, at: now, reason }))
    }
    for (const historyId of quarantined) {
      yield* emit(LifecycleEvent.Retired({ installationId, historyId, at: now, reason: "Unreadable" }))
    }
    return { erased: retired.length + quarantined.length, nextAt }
  }
)

const permitOf = (row: Ledger.Kept | Ledger.Quarantined): RetirementPermit => permits.issue(row, reasonOf(row))

/** How long before it is asked again what is due: no deadline may be further ahead than `Schedule.MAX_SPAN`. */
const LONGEST_WAIT = Duration.days(7)

/**
 * When to ask again what may be erased, at the earliest after the retry, and within a week. None where there is no row.
 *
 * @since 1.0.0
 * @category getters
 */
export const nextCleaningAt = (
  { entries, quarantined }: InstallationLedger,
  now: DateTime.Utc,
  settings: LifecycleSettingsShape
): Option.Option<DateTime.Utc> => nextLook([...entries, ...quarantined], now, settings)

/** When to look at the first of these rows: at its date; where that has passed and it waits for a condition, after a wait. */
const nextLook = (
  rows: ReadonlyArray<Ledger.Kept | Ledger.Quarantined>,
  now: DateTime.Utc,
  settings: LifecycleSettingsShape
): Option.Option<DateTime.Utc> => {
  if (rows.length === 0) return Option.none()
  const { cleanRetry, grace } = settings
  const first = rows
    .map((row) => {
      const deleteAt = deleteAtOf(row, grace)
      return DateTime.lessThan(now, deleteAt) ? deleteAt : DateTime.addDuration(now, waitOf(deleteAt, now, settings))
    })
    .reduce(DateTime.min)
  return Option.some(
    DateTime.clamp(first, {
      minimum: DateTime.addDuration(now, cleanRetry),
      maximum: DateTime.addDuration(now, LONGEST_WAIT)
    })
  )
}

/** As long again as the row has waited since its date: at least the retry, and no more than an hour of a day's grace. */
const waitOf = (deleteAt: DateTime.Utc, now: DateTime.Utc, { cleanRetry, grace }: LifecycleSettingsShape) =>
  Duration.max(cleanRetry, Duration.min(DateTime.distanceDuration(deleteAt, now), Duration.times(grace, 1 / 24)))
