/**
 * What is due for one installation, and when: data, so that it survives the process. Pure transitions; a store keeps the
 * value beside the installation, with `dueAt` in an index.
 *
 * Whatever asks for a rotation only lowers its deadline. A publication clears the requests that its rotation has served, and
 * leaves those that came in meanwhile.
 *
 * @since 1.0.0
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { HistoryId, RotationTrigger } from "./Ledger.ts"

const Time = Schema.DateTimeUtcFromNumber

/**
 * Somebody asked for a rotation. There is one request of each trigger at most.
 *
 * @since 1.0.0
 * @category models
 */
export const RotationRequest = Schema.Struct({
  trigger: RotationTrigger,
  /** The latest time at which it was asked for. */
  requestedAt: Time,
  /** The earliest time that was asked for. */
  dueAt: Time,
  /** When the budget of this kind of rotation has room again; none while it has. */
  heldUntil: Schema.OptionFromNullOr(Time)
})

/**
 * @since 1.0.0
 * @category models
 */
export type RotationRequest = typeof RotationRequest.Type

/**
 * The failures since the last success, of whatever is tried again on its own.
 *
 * @since 1.0.0
 * @category models
 */
export const Failures = Schema.Struct({
  count: Schema.Int.pipe(Schema.positive()),
  since: Time,
  /** Nothing is tried before, unless somebody asks for it now. */
  retryAt: Time,
  /** The last failure, in words: an error's message, without bytes. */
  detail: Schema.String
})

/**
 * @since 1.0.0
 * @category models
 */
export type Failures = typeof Failures.Type

/**
 * The key packages that the app wants this installation to have.
 *
 * @since 1.0.0
 * @category models
 */
export const WantedKind = Schema.Struct({
  /** Whether Welcomes can be wrapped for X-Wing, which a later quantum computer does not open. */
  includePostQuantum: Schema.Boolean,
  /** How often the app has changed its mind: the larger version is the later wish. */
  version: Schema.NonNegativeInt,
  /** The profile of the newest release that has worked on this installation (`keypackage/Profile.ts`, `PROFILE_VERSION`). */
  profileVersion: Schema.NonNegativeInt
})

/**
 * @since 1.0.0
 * @category models
 */
export type WantedKind = typeof WantedKind.Type

/**
 * A publication that is not yet seen on the public path: the earlier packages stay until it is (`confirmBy: "readBack"`).
 *
 * @since 1.0.0
 * @category models
 */
export const Confirmation = Schema.Struct({
  historyId: HistoryId,
  /** When to look next. */
  confirmAt: Time,
  /** When to stop waiting and ask what is wrong. */
  until: Time
})

/**
 * @since 1.0.0
 * @category models
 */
export type Confirmation = typeof Confirmation.Type

/**
 * Packages of this installation that this store never made: the store was restored from an older copy, or there are two.
 *
 * @since 1.0.0
 * @category models
 */
export const Strangers = Schema.Struct({
  count: Schema.Int.pipe(Schema.positive()),
  seenAt: Time
})

/**
 * @since 1.0.0
 * @category models
 */
export type Strangers = typeof Strangers.Type

/** A field that may be absent in what an earlier release wrote. */
const field = <A, I>(schema: Schema.Schema<A, I>) =>
  Schema.optionalWith(Schema.OptionFromNullOr(schema), { default: () => Option.none<A>() })

/**
 * Everything that is due for one installation.
 *
 * @since 1.0.0
 * @category models
 */
export const Schedule = Schema.Struct({
  /** When the published package is old enough to be replaced; none before the first publication. */
  rotateAt: field(Time),
  requests: Schema.optionalWith(Schema.Array(RotationRequest), { default: () => [] }),
  /** Rotations that failed in a row. */
  failures: field(Failures),
  /** When to compare what the network serves with the ledger; none before the first publication. */
  probeAt: field(Time),
  /** Repairs in a row that have not helped yet, and probes that got no answer. */
  probeFailures: field(Failures),
  /** When the earliest private keys may be erased; none while nothing waits. */
  cleanAt: field(Time),
  confirmation: field(Confirmation),
  wanted: field(WantedKind),
  /**
   * Since when the inbox's log names the installation as revoked, without the times in which looks were overdue: nothing is rotated
   * until it is added again.
   */
  revokedAt: field(Time),
  strangers: field(Strangers),
  /** What the probes have found wrong since they last found nothing. */
  unreachable: field(Schema.Struct({ verdict: Schema.String, since: Time })),
  /** The last time that the network was seen to serve the newest published package. */
  seenServedAt: field(Time)
})

/**
 * @since 1.0.0
 * @category models
 */
export type Schedule = typeof Schedule.Type

/**
 * Nothing is due: a new installation.
 *
 * @since 1.0.0
 * @category constructors
 */
export const empty: Schedule = {
  rotateAt: Option.none(),
  requests: [],
  failures: Option.none(),
  probeAt: Option.none(),
  probeFailures: Option.none(),
  cleanAt: Option.none(),
  confirmation: Option.none(),
  wanted: Option.none(),
  revokedAt: Option.none(),
  strangers: Option.none(),
  unreachable: Option.none(),
  seenServedAt: Option.none()
}

/**
 * What a store gives for a schedule that it cannot read: look now, and find out.
 *
 * @since 1.0.0
 * @category constructors
 */
export const lost: Schedule = {
  ...empty,
  probeAt: Option.some(DateTime.unsafeMake(0)),
  cleanAt: Option.some(DateTime.unsafeMake(0))
}

/**
 * The furthest ahead that the next deadline of an installation ever is: there is a look at the network at least once a week.
 * One that is further ahead was written under a wrong clock and counts as due.
 *
 * @since 1.0.0
 * @category constants
 */
export const MAX_SPAN: Duration.Duration = Duration.days(8)

/** The same for a rotation by age: no package of ours lives longer. */
const MAX_ROTATION_SPAN = Duration.days(85)

/** The same for a request, and for the wait after a failure. */
const MAX_WAIT = Duration.hours(25)

/** Longer than any rotation lasts, by clocks that differ by less than this. */
const LONGEST_ROTATION = Duration.hours(1)

const earliest = (times: Iterable<Option.Option<DateTime.Utc>>): Option.Option<DateTime.Utc> => {
  let found: Option.Option<DateTime.Utc> = Option.none()
  for (const time of times) {
    if (Option.isSome(time) && (Option.isNone(found) || DateTime.lessThan(time.value, found.value))) found = time
  }
  return found
}

const requestDueAt = ({ dueAt, heldUntil }: RotationRequest): DateTime.Utc =>
  Option.match(heldUntil, { onNone: () => dueAt, onSome: (until) => DateTime.max(dueAt, until) })

/**
 * When the next rotation is due: what is asked for first, and not before the wait after a failure is over. None while the
 * installation is revoked.
 *
 * @since 1.0.0
 * @category getters
 */
export const rotationDueAt = (schedule: Schedule): Option.Option<DateTime.Utc> => {
  if (Option.isSome(schedule.revokedAt)) return Option.none()
  const wanted = earliest([
    schedule.rotateAt,
    ...schedule.requests.map((request) => Option.some(requestDueAt(request)))
  ])
  return Option.map(wanted, (at) =>
    Option.match(schedule.failures, { onNone: () => at, onSome: ({ retryAt }) => DateTime.max(at, retryAt) })
  )
}

/**
 * What a rotation at `now` would be for, what matters most first. Empty where none is due.
 *
 * @since 1.0.0
 * @category getters
 */
export const dueTriggers = (schedule: Schedule, now: DateTime.Utc): ReadonlyArray<RotationTrigger> => {
  const waits = Option.exists(schedule.failures, ({ retryAt }) => !isDue(Option.some(retryAt), now, MAX_WAIT))
  if (waits || Option.isSome(schedule.revokedAt)) return []
  const due = schedule.requests
    .filter((request) => isDue(Option.some(requestDueAt(request)), now, MAX_WAIT))
    .map(({ trigger }): RotationTrigger => trigger)
  if (isDue(schedule.rotateAt, now, MAX_ROTATION_SPAN)) due.push("Time")
  return due.sort((a, b) => PRIORITY.indexOf(a) - PRIORITY.indexOf(b))
}

const PRIORITY: ReadonlyArray<RotationTrigger> = [
  "Manual",
  "Registration",
  "Repair",
  "Profile",
  "Queued",
  "Welcome",
  "Time"
]

/**
 * When something is due next, whatever it is. The column that stores index.
 *
 * @since 1.0.0
 * @category getters
 */
export const dueAt = (schedule: Schedule): Option.Option<DateTime.Utc> =>
  earliest([
    rotationDueAt(schedule),
    schedule.probeAt,
    schedule.cleanAt,
    Option.map(schedule.confirmation, ({ confirmAt }) => confirmAt)
  ])

/**
 * Whether a deadline has come: its time has passed, or it lies further ahead than `span`, the furthest that it can have been
 * set. A clock that went back means "look now", never "wait".
 *
 * @since 1.0.0
 * @category predicates
 */
export const isDue = (
  deadline: Option.Option<DateTime.Utc>,
  now: DateTime.Utc,
  span: Duration.Duration = MAX_SPAN
): boolean =>
  Option.exists(
    deadline,
    (at) => DateTime.lessThanOrEqualTo(at, now) || DateTime.greaterThan(at, DateTime.addDuration(now, span))
  )

/**
 * Since when the installation has been known to be revoked, without the time in which a look was overdue: by a clock that is months
 * ahead, the last look is as old as that. None where it is not revoked, or where that says nothing.
 *
 * @since 1.0.0
 * @category getters
 */
export const revokedSince = ({ probeAt, revokedAt }: Schedule, now: DateTime.Utc): Option.Option<DateTime.Utc> =>
  Option.zipWith(revokedAt, probeAt, (at, next) =>
    DateTime.lessThan(next, now) ? DateTime.addDuration(at, DateTime.distanceDuration(next, now)) : at
  ).pipe(Option.filter(DateTime.lessThanOrEqualTo(now)))

const lower = (known: Option.Option<DateTime.Utc>, at: DateTime.Utc): Option.Option<DateTime.Utc> =>
  Option.some(Option.match(known, { onNone: () => at, onSome: (other) => DateTime.min(other, at) }))

/** Whether a wait ends further ahead than any can that was set under this clock. */
const isImplausible = (until: DateTime.Utc, now: DateTime.Utc): boolean =>
  DateTime.greaterThan(until, DateTime.addDuration(now, MAX_WAIT))

/** Whether something that has happened lies ahead: it was written under a clock that was. */
const isInFuture = (past: DateTime.Utc, now: DateTime.Utc): boolean =>
  DateTime.greaterThan(past, DateTime.addDuration(now, CLOCKS_DIFFER))

/** Machines that share a store may be this far apart. */
const CLOCKS_DIFFER = Duration.minutes(5)

/**
 * Without the waits that a wrong clock has set: nothing is put off until a time that lies further ahead than any wait, or
 * because of what has yet to happen by this clock.
 *
 * @since 1.0.0
 * @category transitions
 */
export const withoutImplausibleWaits =
  (now: DateTime.Utc) =>
  (schedule: Schedule): Schedule => {
    const hasFailed = Option.exists(
      schedule.failures,
      ({ retryAt, since }) => isImplausible(retryAt, now) || isInFuture(since, now)
    )
    const isHeld = ({ heldUntil, requestedAt }: RotationRequest) =>
      Option.exists(heldUntil, (until) => isImplausible(until, now) || isInFuture(requestedAt, now))
    return !hasFailed && !schedule.requests.some(isHeld)
      ? schedule
      : {
          ...schedule,
          failures: hasFailed ? Option.none() : schedule.failures,
          requests: schedule.requests.map((request) =>
            isHeld(request) ? { ...request, heldUntil: Option.none() } : request
          )
        }
  }

/**
 * A rotation is asked for, to happen by `dueAt`.
 *
 * @since 1.0.0
 * @category transitions
 */
export const requestRotation =
  (trigger: RotationTrigger, now: DateTime.Utc, dueAt: DateTime.Utc) =>
  (schedule: Schedule): Schedule => {
    const known = schedule.requests.find((request) => request.trigger === trigger)
    const request: RotationRequest =
      known === undefined
        ? { trigger, requestedAt: now, dueAt, heldUntil: Option.none() }
        : { ...known, requestedAt: DateTime.max(known.requestedAt, now), dueAt: DateTime.min(known.dueAt, dueAt) }
    return { ...schedule, requests: [...schedule.requests.filter((other) => other !== known), request] }
  }

/**
 * The budget of a trigger is used up: what it asks for waits until `until`.
 *
 * @since 1.0.0
 * @category transitions
 */
export const hold =
  (trigger: RotationTrigger, until: DateTime.Utc) =>
  (schedule: Schedule): Schedule =>
    trigger === "Time"
      ? { ...schedule, rotateAt: Option.some(until) }
      : {
          ...schedule,
          requests: schedule.requests.map((request) =>
            request.trigger === trigger ? { ...request, heldUntil: Option.some(until) } : request
          )
        }

/**
 * A rotation that began at `startedAt` has published a package made at `madeAt`: requests that it has served are cleared, failures
 * forgotten. A Welcome that came after the package was made may have used that very package, which is to be replaced then.
 *
 * @since 1.0.0
 * @category transitions
 */
export const published =
  (times: {
    readonly startedAt: DateTime.Utc
    readonly madeAt: DateTime.Utc
    readonly rotateAt: DateTime.Utc
    readonly probeAt: DateTime.Utc
  }) =>
  (schedule: Schedule): Schedule => ({
    ...schedule,
    rotateAt: Option.some(times.rotateAt),
    requests: schedule.requests
      .filter(
        ({ requestedAt, trigger }) =>
          DateTime.greaterThan(requestedAt, trigger === "Welcome" ? times.madeAt : times.startedAt) &&
          // What was asked for in the future was asked for under a wrong clock: no publication would ever serve it.
          DateTime.lessThanOrEqualTo(requestedAt, DateTime.addDuration(times.startedAt, LONGEST_ROTATION))
      )
      // What is left was asked for at that time at the earliest. Where it lies ahead, by a clock that was, it waits until then.
      .map((request) => ({
        ...request,
        dueAt: DateTime.max(request.dueAt, request.requestedAt),
        heldUntil: Option.none()
      })),
    failures: Option.none(),
    probeAt: lower(schedule.probeAt, times.probeAt)
  })

/**
 * A rotation failed. Nothing is tried before `retryAt`.
 *
 * @since 1.0.0
 * @category transitions
 */
export const rotationFailed =
  (now: DateTime.Utc, retryAt: (count: number) => DateTime.Utc, detail: string) =>
  (schedule: Schedule): Schedule => ({
    ...schedule,
    failures: Option.some(failedAgain(schedule.failures, now, retryAt, detail))
  })

/**
 * A probe got no answer, or what it found had to be repaired. It looks again at `retryAt`.
 *
 * @since 1.0.0
 * @category transitions
 */
export const probeFailed =
  (now: DateTime.Utc, retryAt: (count: number) => DateTime.Utc, detail: string) =>
  (schedule: Schedule): Schedule => {
    const failures = failedAgain(schedule.probeFailures, now, retryAt, detail)
    const confirmation = Option.map(schedule.confirmation, (waiting) => ({ ...waiting, confirmAt: failures.retryAt }))
    return {
      ...schedule,
      probeFailures: Option.some(failures),
      probeAt: Option.some(failures.retryAt),
      confirmation,
      // This was the look that was overdue.
      revokedAt: Option.map(schedule.revokedAt, () => Option.getOrElse(revokedSince(schedule, now), () => now))
    }
  }

const failedAgain = (
  known: Option.Option<Failures>,
  now: DateTime.Utc,
  retryAt: (count: number) => DateTime.Utc,
  detail: string
): Failures => {
  const count = Option.match(known, { onNone: () => 1, onSome: (failures) => failures.count + 1 })
  return {
    count,
    since: Option.match(known, { onNone: () => now, onSome: (failures) => DateTime.min(failures.since, now) }),
    retryAt: retryAt(count),
    detail
  }
}

/**
 * A look at the network is due by `at`.
 *
 * @since 1.0.0
 * @category transitions
 */
export const requestProbe =
  (at: DateTime.Utc) =>
  (schedule: Schedule): Schedule => ({ ...schedule, probeAt: lower(schedule.probeAt, at) })

/**
 * Private keys may be erased from `at` on.
 *
 * @since 1.0.0
 * @category transitions
 */
export const requestCleaning =
  (at: DateTime.Utc) =>
  (schedule: Schedule): Schedule => ({ ...schedule, cleanAt: lower(schedule.cleanAt, at) })

/**
 * The app wants this kind of package from now on: a later version, where it is another kind than before.
 *
 * @since 1.0.0
 * @category transitions
 */
export const want =
  (includePostQuantum: boolean, profileVersion: number) =>
  (schedule: Schedule): Schedule => {
    const known = Option.getOrUndefined(schedule.wanted)
    const version = known === undefined ? 1 : known.version + (known.includePostQuantum === includePostQuantum ? 0 : 1)
    return {
      ...schedule,
      wanted: Option.some({
        includePostQuantum,
        version,
        profileVersion: Math.max(profileVersion, known?.profileVersion ?? 0)
      })
    }
  }
