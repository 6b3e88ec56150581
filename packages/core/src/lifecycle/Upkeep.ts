/**
 * What one installation needs now: looked at, repaired, rotated and cleaned, in this order, under one lease.
 *
 * @since 1.0.0
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import type { InstallationId } from "../identity/InstallationId.ts"
import { hasPrivateKeys } from "../internal/hasPrivateKeys.ts"
import { withSpan } from "../internal/span.ts"
import type { KeyPackageGenerationError } from "../keypackage/KeyPackageError.ts"
import * as KeyPackageRef from "../keypackage/KeyPackageRef.ts"
import { PROFILE_VERSION } from "../keypackage/Profile.ts"
import { ApiClientError } from "../ports/ApiClient.ts"
import { type InstallationLedger, KeyPackageStore, type StorageError } from "../ports/KeyPackageStore.ts"
import { MlsCrypto } from "../ports/MlsCrypto.ts"
import type { SmartContractWalletVerifier } from "../ports/SmartContractWalletVerifier.ts"
import type { WelcomeProgress } from "../ports/WelcomeProgress.ts"
import * as Cleaner from "./Cleaner.ts"
import type { ClockGuard } from "./ClockGuard.ts"
import type { Installation } from "./Installation.ts"
import type { Lease, LeaseError } from "./Lease.ts"
import { type Doomed, isDoomed, isLive, isWaiting, type Kept, type Published, type RotationTrigger } from "./Ledger.ts"
import { emit, LifecycleEvent } from "./LifecycleEvents.ts"
import { LifecycleSettings } from "./LifecycleSettings.ts"
import * as Reachability from "./Reachability.ts"
import { nextAttempt, nextProbeAt } from "./RetryPolicy.ts"
import {
  expose,
  isFitToPublish,
  markSeenServed,
  type RotationContext,
  rotateUnderLease,
  sendAgain,
  type WantedProfile
} from "./Rotation.ts"
import * as Schedule from "./Schedule.ts"
import type { SeenServed } from "./SeenServed.ts"
import { withLease } from "./UnderLease.ts"

/**
 * Why the upkeep of an installation broke off. What was reached is durable, and what is left is due again.
 *
 * @since 1.0.0
 * @category errors
 */
export type UpkeepError = ApiClientError | StorageError | LeaseError | KeyPackageGenerationError

/**
 * What upkeep needs. `WelcomeProgress` because it erases: not while a Welcome that needs the keys may be unread.
 *
 * @since 1.0.0
 * @category models
 */
export type UpkeepContext = RotationContext | SmartContractWalletVerifier | WelcomeProgress

/**
 * What upkeep did.
 *
 * @since 1.0.0
 * @category models
 */
export interface Report {
  /** What a look at the network found; none if nobody looked, or no answer came. */
  readonly reachability: Option.Option<Reachability.Reachability>
  /** The package that was published, if one was. */
  readonly published: Option.Option<Published>
  /** How many private keys were erased. */
  readonly erased: number
  /** Whether anything was asked of the network, or sent to it. */
  readonly hasAsked: boolean
}

/**
 * What to do, beyond what is due.
 *
 * @since 1.0.0
 * @category models
 */
export interface UpkeepOptions {
  readonly guard: ClockGuard
  /** Look at the network, due or not: at the first upkeep of a process, and on request. */
  readonly look: boolean
  /** Repair what is found without regard to how often that was done lately. */
  readonly insist?: boolean | undefined
  /** What was known of the inboxes' logs; each look resolves the whole log unless given. */
  readonly memory?: Reachability.LogMemory | undefined
}

/** An installation under its lease, with its rows, as they are after what was written here. */
interface Subject {
  readonly lease: Lease
  installation: Installation
  ledger: InstallationLedger
  /** Whether rows were written since they were read. */
  isStale: boolean
  /** Whether anything was asked of the network, or sent to it. */
  hasAsked: boolean
}

const isDueAt = (deadline: Option.Option<DateTime.Utc>) =>
  Effect.map(DateTime.now, (now) => Schedule.isDue(deadline, now))

const reload = (lease: Lease) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const installation = yield* store.getInstallation(lease.installationId)
    const ledger = yield* store.getLedger(lease.installationId)
    return Option.map(installation, (installation) => ({ installation, ledger, isStale: false }))
  })

/** Reads the rows again where some were written. */
const refresh = (subject: Subject) =>
  Effect.gen(function* () {
    if (!subject.isStale) return
    const found = yield* reload(subject.lease)
    if (Option.isSome(found)) Object.assign(subject, found.value)
  })

/** Sets rows aside that cannot be read, so that they stop nothing. */
const setAside = ({ installation: { installationId }, ledger, lease }: Subject) =>
  Effect.gen(function* () {
    if (ledger.unreadable.length === 0) return
    const store = yield* KeyPackageStore
    const { grace } = yield* LifecycleSettings
    const at = yield* DateTime.now
    // No package lives longer than this from now, whatever its columns say.
    const latest = DateTime.addDuration(at, Duration.sum(LONGEST_LIFETIME, grace))
    const quarantined = yield* store.quarantine(lease, ledger.unreadable, { at, latest })
    for (const { column, deleteAt, historyId } of quarantined) {
      yield* store.modifySchedule(installationId, Schedule.requestCleaning(deleteAt))
      yield* emit(LifecycleEvent.Quarantined({ installationId, historyId, at, column, deleteAt }))
    }
  })

/** What our own packages live, and an hour for rounding. */
const LONGEST_LIFETIME = Duration.sum(Duration.days(84), Duration.hours(1))

/** The kind of package to make: as the app said last, or as the last one was. */
const wantedProfile = ({ installation, ledger }: Subject): WantedProfile =>
  Option.match(installation.schedule.wanted, {
    onSome: ({ includePostQuantum }) => ({ includePostQuantum }),
    onNone: () => ({
      includePostQuantum: Option.match(Option.fromNullable(ledger.entries.at(-1)), {
        onNone: () => true,
        onSome: isPostQuantum
      })
    })
  })

const isPostQuantum = ({ keyPackage }: Kept): boolean => Option.isSome(keyPackage.postQuantumKey)

/** Whether the published package is not of the kind that is wanted. A release older than the newest never says so. */
const hasDrifted = (subject: Subject, { keyPackage }: Published): boolean =>
  Option.exists(
    subject.installation.schedule.wanted,
    ({ includePostQuantum, profileVersion }) =>
      profileVersion <= PROFILE_VERSION &&
      (profileVersion < PROFILE_VERSION || Option.isSome(keyPackage.postQuantumKey) !== includePostQuantum)
  )

/** Changes what is due, and knows it from now on. */
const reschedule = (subject: Subject, change: (schedule: Schedule.Schedule) => Schedule.Schedule) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const schedule = yield* store.modifySchedule(subject.installation.installationId, change)
    subject.installation = { ...subject.installation, schedule }
  })

const requestRotation = (trigger: RotationTrigger, now: DateTime.Utc) => Schedule.requestRotation(trigger, now, now)

/** All is well: when to look next. */
const settleReachable = (subject: Subject, published: Published, seenAt: DateTime.Utc) =>
  Effect.gen(function* () {
    const { installation } = subject
    const { unreachable } = installation.schedule
    const { rotationInterval } = yield* LifecycleSettings
    const drifted = hasDrifted(subject, published)
    // A rotation that follows at once writes down when to look next, and what it was for.
    if (!drifted && isUndisturbed(installation.schedule, seenAt)) return
    // Only a schedule that was lost says nothing of the next rotation. What is not fit to be sent gets a successor.
    const isForgotten =
      Option.isNone(installation.schedule.rotateAt) &&
      installation.schedule.requests.length === 0 &&
      subject.ledger.entries.some((entry) => entry.historyId > published.historyId && isWaiting(entry))
    const probeAt = Option.some(yield* nextProbeAt(seenAt))
    const rotateAt = DateTime.addDuration(published.publishedAt, rotationInterval)
    yield* reschedule(subject, (schedule) => {
      const settled: Schedule.Schedule = {
        ...schedule,
        // A schedule that was lost gets its deadline back.
        rotateAt: Option.orElse(schedule.rotateAt, () => Option.some(rotateAt)),
        probeAt,
        probeFailures: Option.none(),
        unreachable: Option.none(),
        revokedAt: Option.none(),
        strangers: Option.filter(schedule.strangers, (strangers) =>
          DateTime.greaterThan(DateTime.addDuration(strangers.seenAt, STRANGERS_FORGOTTEN), seenAt)
        ),
        seenServedAt: Option.some(seenAt)
      }
      if (drifted) return requestRotation("Profile", seenAt)(settled)
      // What waits is sent or replaced, also where nothing says so any more.
      return isForgotten ? requestRotation("Repair", seenAt)(settled) : settled
    })
    if (Option.isSome(unreachable)) {
      const { installationId } = installation
      yield* emit(LifecycleEvent.Repaired({ installationId, at: seenAt, verdict: unreachable.value.verdict }))
    }
  })

/** Whether a rotation is due now, and nothing else is to be said. */
const isUndisturbed = (schedule: Schedule.Schedule, now: DateTime.Utc): boolean =>
  Schedule.dueTriggers(schedule, now).length > 0 &&
  !Schedule.isDue(schedule.probeAt, now) &&
  Option.isSome(schedule.rotateAt) &&
  Option.isNone(schedule.failures) &&
  Option.isNone(schedule.probeFailures) &&
  Option.isNone(schedule.unreachable) &&
  Option.isNone(schedule.strangers)

/** A suspicion that nothing confirmed is dropped after this long. */
const STRANGERS_FORGOTTEN = Duration.days(30)

/** Notes what is wrong, once, and when to look again. */
const settleUnreachable = (
  subject: Subject,
  verdict: Reachability.Reachability["_tag"],
  seenAt: DateTime.Utc,
  change: (schedule: Schedule.Schedule) => Schedule.Schedule
) =>
  Effect.gen(function* () {
    const { installationId, schedule: before } = subject.installation
    const retryAt = yield* nextAttempt(seenAt, undefined)
    yield* reschedule(subject, (schedule) => {
      const since = Option.match(schedule.unreachable, { onNone: () => seenAt, onSome: (known) => known.since })
      return {
        ...Schedule.probeFailed(seenAt, retryAt, verdict)(change(schedule)),
        unreachable: Option.some({ verdict, since })
      }
    })
    if (!Option.exists(before.unreachable, (known) => known.verdict === verdict)) {
      yield* emit(LifecycleEvent.Unreachable({ installationId, at: seenAt, verdict }))
    }
  })

/** Whether the network refuses these very bytes, and sending them again would only be refused again. */
const isRefusal = (error: { readonly _tag: string }): error is ApiClientError =>
  error instanceof ApiClientError && (error.reason === "InvalidRequest" || error.reason === "RequestTooLarge")

/** Has the newest package sent again where that helps, else one made. */
const restore = (subject: Subject, seenAt: DateTime.Utc) =>
  Effect.gen(function* () {
    const crypto = yield* MlsCrypto
    const { minimumRemainingLifetime } = yield* LifecycleSettings
    const newest = Reachability.newestPublished(subject.ledger)
    // What waits to be sent replaces what is served anyway.
    const hasSuccessor = subject.ledger.entries.some(
      (entry) => isWaiting(entry) && entry.historyId > (newest?.historyId ?? 0)
    )
    // So does what is being made already, however long that takes.
    const isReplacing = subject.installation.schedule.requests.some(({ trigger }) => trigger === "Repair")
    const isFit =
      newest !== undefined &&
      isFitToPublish(newest, wantedProfile(subject), seenAt, minimumRemainingLifetime) &&
      // Bytes that are not what they were when they were made are never sent.
      KeyPackageRef.hashWith(crypto, newest.keyPackage.bytes) === newest.keyPackage.ref
    const isUsable = isFit && (yield* hasPrivateKeys(newest.historyId))
    const replace = reschedule(subject, requestRotation("Repair", seenAt))
    if (!isUsable || hasSuccessor || isReplacing) return yield* replace
    // Bytes that it once accepted and now refuses are given up: the new ones are sent at the pace of a rotation that fails.
    yield* Effect.catchIf(sendAgain(subject.lease, newest), isRefusal, () => replace)
  })

/** Where a package that waits for its deletion is served again, its keys stay one grace longer, up to the hard stop. */
const keepServed = (subject: Subject, { served }: Reachability.Observation) =>
  served._tag === "Ours" && isDoomed(served.seen.entry) ? keep(subject, served.seen, served.seen.entry) : Effect.void

const keep = (subject: Subject, seen: SeenServed, doomed: Doomed) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const { grace } = yield* LifecycleSettings
    const deleteAt = DateTime.min(DateTime.addDuration(seen.seenAt, grace), Cleaner.hardStopOf(doomed, grace))
    subject.isStale = true
    yield* store.postponeDeletion(subject.lease, seen, { at: yield* DateTime.now, deleteAt })
  })

/** Whether what is wrong may be repaired now: not more often than the wait after the last repair allows. */
const mayRepair = ({ installation: { schedule } }: Subject, seenAt: DateTime.Utc, insist: boolean): boolean =>
  insist || !Option.exists(schedule.probeFailures, ({ retryAt }) => DateTime.greaterThan(retryAt, seenAt))

/** Nothing is looked for any more but at the pace of the looks. */
const withoutConfirmation = (schedule: Schedule.Schedule): Schedule.Schedule => ({
  ...schedule,
  confirmation: Option.none()
})

/** Acts on what was seen. */
const act = (
  subject: Subject,
  verdict: Reachability.Reachability,
  observation: Reachability.Observation,
  insist: boolean
) =>
  Effect.gen(function* () {
    const { seenAt } = observation
    const { installation, ledger, lease } = subject
    const { schedule } = installation
    const { probeInterval } = yield* LifecycleSettings
    const newest = Reachability.newestPublished(ledger)
    switch (verdict._tag) {
      case "Reachable": {
        if (newest === undefined) return
        // A publication that waited for this, or that was cut short: the earlier packages are superseded now.
        const isMarked = !ledger.entries.some((entry) => isLive(entry) && entry.historyId < newest.historyId)
        if (observation.served._tag === "Ours" && (!isMarked || Option.isSome(schedule.confirmation))) {
          subject.isStale = true
          yield* markSeenServed(lease, observation.served.seen)
        }
        return yield* settleReachable(subject, newest, seenAt)
      }
      case "AcknowledgementMissing": {
        const { seen } = verdict
        // What a restored copy of the database knows only as prepared has been sent all the same. Whatever replaces it, its keys
        // are promised from now on.
        if (seen.entry._tag === "Prepared") {
          subject.isStale = true
          yield* expose(lease, seen.entry)
          return yield* settleUnreachable(subject, verdict._tag, seenAt, requestRotation("Repair", seenAt))
        }
        subject.isStale = true
        const { published } = yield* markSeenServed(lease, seen)
        return yield* settleReachable(subject, published, seenAt)
      }
      case "AwaitingConfirmation": {
        yield* keepServed(subject, observation)
        const { confirmWithin } = yield* LifecycleSettings
        const confirmAt = DateTime.addDuration(seenAt, CONFIRM_AGAIN)
        // A clock that was set back must not make it a wait of days.
        const latest = DateTime.addDuration(seenAt, confirmWithin)
        const probeAt = yield* nextProbeAt(seenAt)
        yield* reschedule(subject, (known) => ({
          ...known,
          // This was a look. One that is due after it is due as ever.
          probeAt: Schedule.isDue(known.probeAt, seenAt) ? Option.some(probeAt) : known.probeAt,
          confirmation: Option.map(known.confirmation, (waiting) => ({
            ...waiting,
            confirmAt,
            until: DateTime.min(waiting.until, latest)
          }))
        }))
        return
      }
      case "ServesOlder":
      case "ServesNothing":
      case "ServesErased":
      case "ServesDamaged":
      case "ServesForeign": {
        if (verdict._tag === "ServesOlder") yield* keepServed(subject, observation)
        // The time to wait for a confirmation is over: what is wrong is treated as such from now on.
        const repairs = mayRepair(subject, seenAt, insist)
        yield* settleUnreachable(subject, verdict._tag, seenAt, withoutConfirmation)
        if (repairs) yield* restore(subject, seenAt)
        return
      }
      case "Expired":
      case "KeysMissing":
        return yield* settleUnreachable(subject, verdict._tag, seenAt, requestRotation("Repair", seenAt))
      case "DatabaseRestored":
      case "CloneSuspected": {
        // Two copies of one store must not rotate against each other: at most one repair a day.
        const isDue =
          insist ||
          !Option.exists(
            schedule.strangers,
            (known) => !Schedule.isDue(Option.some(DateTime.addDuration(known.seenAt, ONE_DAY)), seenAt, ONE_DAY)
          )
        const isClone = verdict._tag === "CloneSuspected"
        yield* settleUnreachable(subject, verdict._tag, seenAt, (before) => {
          const known = isClone ? withoutConfirmation(before) : before
          const strangers = isDue
            ? Option.some({
                count: Option.match(known.strangers, { onNone: () => 1, onSome: (s) => s.count + 1 }),
                seenAt
              })
            : known.strangers
          return isDue ? requestRotation("Repair", seenAt)({ ...known, strangers }) : { ...known, strangers }
        })
        // A repair is looked at soon, like any other. Where none may be made yet, there is nothing to see until then.
        if (isClone && !isDue) {
          yield* reschedule(subject, (known) => ({
            ...known,
            probeAt: Option.orElse(
              Option.map(known.strangers, (last) => DateTime.addDuration(last.seenAt, ONE_DAY)),
              () => known.probeAt
            )
          }))
        }
        return
      }
      case "Revoked": {
        // Nobody can say when it will be served, so no confirmation is waited for.
        yield* settleUnreachable(subject, verdict._tag, seenAt, (known) => ({
          ...withoutConfirmation(known),
          revokedAt: Option.orElseSome(known.revokedAt, () => seenAt)
        }))
        const later = DateTime.addDuration(seenAt, probeInterval)
        yield* reschedule(subject, (known) => ({ ...known, probeAt: Option.some(later) }))
        return
      }
      case "NotRegistered": {
        // Its registration may be finished at any time, and nothing says so here.
        const probeAt = Option.some(yield* nextProbeAt(seenAt))
        yield* reschedule(subject, (known) => ({ ...withoutConfirmation(known), probeAt }))
        return
      }
    }
    return verdict satisfies never
  }).pipe(
    Effect.zipRight(
      // Added to the inbox again: its package is replaced at once.
      Option.isSome(subject.installation.schedule.revokedAt) && observation.membership === "Member"
        ? reschedule(subject, (known) =>
            requestRotation("Repair", observation.seenAt)({ ...known, revokedAt: Option.none() })
          )
        : Effect.void
    )
  )

/** How often the package of another copy of the store is answered with one of ours, at most. */
const ONE_DAY = Duration.days(1)

/** How often a confirmation is looked for. */
const CONFIRM_AGAIN = Duration.seconds(10)

/** Looks at the network and acts on what it finds. None where no answer came; that is noted, and asked again later. */
const probe = (subject: Subject, { insist = false, memory }: UpkeepOptions) =>
  Effect.gen(function* () {
    subject.hasAsked = true
    const looked = yield* Effect.either(Reachability.look(subject.installation, subject.ledger, memory))
    if (Either.isLeft(looked)) {
      const error = looked.left
      if (error._tag === "StorageError") return yield* error
      const now = yield* DateTime.now
      const retryAt = yield* nextAttempt(now, error)
      yield* reschedule(subject, Schedule.probeFailed(now, retryAt, error.message))
      return Option.none()
    }
    const observation = looked.right
    const verdict = Reachability.judge(subject.installation, subject.ledger, observation)
    yield* act(subject, verdict, observation, insist)
    return Option.some({ observation, verdict })
  })

/** Which packages a budget counts. */
const budgetOf = (trigger: RotationTrigger): "unlimited" | "welcome" | "repair" | "other" => {
  switch (trigger) {
    case "Registration":
    case "Manual":
      return "unlimited"
    case "Welcome":
      return "welcome"
    case "Repair":
      return "repair"
    default:
      return "other"
  }
}

const HOUR = Duration.hours(1)

/** When the budget of a trigger has room: none if it has now. */
const heldUntil = ({ ledger }: Subject, trigger: RotationTrigger, now: DateTime.Utc) =>
  Effect.map(LifecycleSettings, (settings) => {
    const budget = budgetOf(trigger)
    if (budget === "unlimited") return Option.none<DateTime.Utc>()
    const limit = {
      welcome: settings.welcomeRotationsPerHour,
      repair: settings.repairRotationsPerHour,
      other: settings.otherRotationsPerHour
    }[budget]
    const since = DateTime.subtractDuration(now, HOUR)
    const recent = ledger.entries.filter(
      (entry) =>
        budgetOf(entry.trigger) === budget &&
        DateTime.greaterThan(entry.createdAt, since) &&
        DateTime.lessThanOrEqualTo(entry.createdAt, now)
    )
    if (recent.length < limit) return Option.none()
    // A budget of nothing never has room, also where nothing was made yet.
    const oldest = recent[recent.length - limit]?.createdAt ?? now
    return Option.some(DateTime.addDuration(oldest, HOUR))
  })

/** Rotates if something due asks for it and its budget has room. */
const rotateIfDue = (subject: Subject) =>
  Effect.gen(function* () {
    const now = yield* DateTime.now
    const newest = subject.ledger.entries.at(-1)
    const { minimumRemainingLifetime } = yield* LifecycleSettings
    const due = Schedule.dueTriggers(subject.installation.schedule, now)
    if (due.length === 0) return Option.none<Published>()
    // What was made already is sent without asking the budget again. What is not fit by this clock is not sent.
    const waiting =
      newest !== undefined && isWaiting(newest)
        ? subject.ledger.entries.findLast(
            (entry) => isWaiting(entry) && isFitToPublish(entry, wantedProfile(subject), now, minimumRemainingLifetime)
          )
        : undefined
    const hasWaiting = waiting !== undefined && (yield* hasPrivateKeys(waiting.historyId))
    for (const trigger of due) {
      const held = hasWaiting ? Option.none() : yield* heldUntil(subject, trigger, now)
      if (Option.isSome(held)) {
        yield* reschedule(subject, Schedule.hold(trigger, held.value))
        continue
      }
      subject.isStale = true
      subject.hasAsked = true
      const { published } = yield* rotateUnderLease(subject.lease, subject.installation, {
        wanted: wantedProfile(subject),
        trigger,
        newest: Option.fromNullable(newest)
      })
      return Option.some(published)
    }
    return Option.none<Published>()
  })

/** Whether a row's date has passed, whatever the deadline says: one written before the clock was set back may lie far ahead. */
const hasOverdue = ({ ledger }: Subject) =>
  Effect.gen(function* () {
    const { grace } = yield* LifecycleSettings
    const now = yield* DateTime.now
    return Option.exists(Cleaner.nextDeletionAt(ledger, grace), (at) => DateTime.lessThanOrEqualTo(at, now))
  })

/**
 * Whether the rows want a cleaning before the date that it is due at. Packages that were never accepted leave none; and a process
 * that stood still in the middle of one has written, when it went on, what was right before.
 */
const isCleaningLate = (subject: Subject) =>
  Effect.gen(function* () {
    const { cleanAt } = subject.installation.schedule
    if (Option.isNone(cleanAt)) return yield* hasOverdue(subject)
    const wanted = Cleaner.nextCleaningAt(subject.ledger, yield* DateTime.now, yield* LifecycleSettings)
    return Option.exists(wanted, DateTime.lessThan(cleanAt.value))
  })

/**
 * Erases what is due, if the network says what it serves. Scrubs the files, whatever came of it: they may hold what an earlier
 * cleaning erased and could not scrub, or what a rotation erased.
 */
const cleanUp = (subject: Subject, { guard, memory }: UpkeepOptions) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const settings = yield* LifecycleSettings
    const { grace } = settings
    const now = yield* DateTime.now
    const nextAt = Cleaner.nextCleaningAt(subject.ledger, now, settings)
    const later = reschedule(subject, (known) => ({ ...known, cleanAt: nextAt }))
    const first = Cleaner.nextDeletionAt(subject.ledger, grace)
    if (!Option.exists(first, (at) => DateTime.lessThanOrEqualTo(at, now))) {
      // Nothing is due yet but the files: the next date may be a week away.
      yield* store.scrub
      yield* later
      return 0
    }
    if (!(yield* Cleaner.isWorthALook(subject.installation, subject.ledger, guard))) {
      yield* later
      yield* store.scrub
      return 0
    }
    subject.hasAsked = true
    const looked = yield* Effect.either(Reachability.look(subject.installation, subject.ledger, memory))
    if (Either.isLeft(looked)) {
      if (looked.left._tag === "StorageError") return yield* looked.left
      yield* later
      yield* store.scrub
      return 0
    }
    const observation = looked.right
    yield* keepServed(subject, observation)
    // Served by a network that should serve a newer one: a look is due, and with it the repair, unless one was made lately.
    const isWell = Reachability.judge(subject.installation, subject.ledger, observation)._tag === "Reachable"
    if (!isWell && mayRepair(subject, now, false)) {
      yield* reschedule(subject, Schedule.requestProbe(now))
    }
    const cleaned = yield* Cleaner.clean(subject.lease, subject.installation, subject.ledger, observation, guard)
    yield* store.scrub
    if (cleaned.erased > 0) yield* reschedule(subject, (known) => ({ ...known, cleanAt: cleaned.nextAt }))
    return cleaned.erased
  })

/**
 * Does for one installation what is due: sets damaged rows aside, looks at the network, repairs, rotates, erases. Holds its lease
 * from the first to the last; fails with `Held` while somebody else does.
 *
 * A step that fails leaves a time at which to try again.
 *
 * @since 1.0.0
 * @category upkeep
 */
export const upkeep: (
  installationId: InstallationId,
  options: UpkeepOptions
) => Effect.Effect<Report, UpkeepError, UpkeepContext> = Effect.fnUntraced(function* (installationId, options) {
  yield* Effect.annotateCurrentSpan({ installationId })
  const nothing: Report = { reachability: Option.none(), published: Option.none(), erased: 0, hasAsked: false }
  return yield* withLease(installationId, (lease) =>
    Effect.gen(function* () {
      const found = yield* reload(lease)
      if (Option.isNone(found)) return nothing
      const subject: Subject = { lease, ...found.value, hasAsked: false }
      if (subject.ledger.unreadable.length > 0) {
        subject.isStale = true
        yield* setAside(subject)
        yield* refresh(subject)
      }

      yield* options.guard.see(installationId, subject.ledger)

      const withoutImplausibleWaits = Schedule.withoutImplausibleWaits(yield* DateTime.now)
      if (withoutImplausibleWaits(subject.installation.schedule) !== subject.installation.schedule) {
        yield* reschedule(subject, withoutImplausibleWaits)
      }

      const { cleanAt, confirmation, probeAt } = subject.installation.schedule
      const confirmAt = Option.map(confirmation, (waiting) => waiting.confirmAt)
      const looks = options.look || (yield* isDueAt(probeAt)) || (yield* isDueAt(confirmAt))
      const probed = looks ? yield* probe(subject, options) : Option.none()
      yield* refresh(subject)

      // What a rotation writes bears the time of this clock.
      yield* options.guard.observe
      // A rotation that fails keeps nothing from being erased. One that succeeds makes nothing due that was not before.
      const rotated = yield* Effect.either(rotateIfDue(subject))
      const cleans =
        (yield* isDueAt(cleanAt)) || (yield* isCleaningLate(subject)) || (options.look && (yield* hasOverdue(subject)))
      if (cleans) yield* refresh(subject)
      const erased = cleans ? yield* cleanUp(subject, options) : 0
      // Nothing was due but by a deadline that other hands have written: the store puts it right.
      if (!subject.hasAsked && !cleans) yield* reschedule(subject, identity)
      const reachability = Option.map(probed, ({ verdict }) => verdict)
      return { reachability, published: yield* rotated, erased, hasAsked: subject.hasAsked }
    })
  )
}, withSpan("Upkeep.upkeep"))
