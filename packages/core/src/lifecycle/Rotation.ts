/**
 * The rotation pipeline: generation, persistence, upload and marking, each step typed by the proof of the step before.
 *
 * ```
 * acquire lease -> newKeyPackage -> insertKeyPackageHistory -> uploadKeyPackage -> markKeyPackagesBeforeIdToBeDeleted
 *     Lease         Generated            Prepared                UploadReceipt                Marked
 * ```
 *
 * A failed upload cannot mark anything: the step that marks takes an `UploadReceipt`, and where the upload fails there is
 * none. The package stays Exposed, and the next rotation sends the same bytes again. Only where the network refuses for
 * good what our own validator refuses too is it given up.
 *
 * @since 1.0.0
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type { InstallationId } from "../identity/InstallationId.ts"
import { hasPrivateKeys } from "../internal/hasPrivateKeys.ts"
import * as permits from "../internal/retirementPermit.ts"
import { withSpan } from "../internal/span.ts"
import * as receipts from "../internal/uploadReceipt.ts"
import { newKeyPackage } from "../keypackage/Generation.ts"
import type { KeyPackageGenerationError } from "../keypackage/KeyPackageError.ts"
import * as KeyPackageRef from "../keypackage/KeyPackageRef.ts"
import { PROFILE_VERSION } from "../keypackage/Profile.ts"
import { validateKeyPackage } from "../keypackage/Validation.ts"
import { ApiClient, type ApiClientError } from "../ports/ApiClient.ts"
import type { Entropy } from "../ports/Entropy.ts"
import { KeyPackageStore, type Marked, StorageError } from "../ports/KeyPackageStore.ts"
import { MlsCrypto } from "../ports/MlsCrypto.ts"
import type { PostQuantumKem } from "../ports/PostQuantumKem.ts"
import type { Installation } from "./Installation.ts"
import type { Lease, LeaseError } from "./Lease.ts"
import {
  type Exposed,
  type HistoryId,
  isWaiting,
  type Kept,
  type Prepared,
  type Published,
  type RotationTrigger
} from "./Ledger.ts"
import { emit, LifecycleEvent } from "./LifecycleEvents.ts"
import { LifecycleSettings } from "./LifecycleSettings.ts"
import { nextAttempt, nextProbeAt, retryTransient, withinAttempt } from "./RetryPolicy.ts"
import * as Schedule from "./Schedule.ts"
import type { SeenServed } from "./SeenServed.ts"
import { underLease, withLease } from "./UnderLease.ts"
import { isUploadReceipt, type UploadReceipt } from "./UploadReceipt.ts"

/**
 * What a package to publish has to look like.
 *
 * @since 1.0.0
 * @category models
 */
export interface WantedProfile {
  /** Whether Welcomes can be wrapped for X-Wing, which a later quantum computer does not open. */
  readonly includePostQuantum: boolean
}

/**
 * Why a rotation did not finish. Nothing was marked, whatever the reason.
 *
 * @since 1.0.0
 * @category errors
 */
export type RotationError = ApiClientError | StorageError | LeaseError | KeyPackageGenerationError

/**
 * What a rotation needs.
 *
 * @since 1.0.0
 * @category models
 */
export type RotationContext = KeyPackageStore | ApiClient | Entropy | MlsCrypto | PostQuantumKem

/**
 * A rotation to run.
 *
 * @since 1.0.0
 * @category models
 */
export interface RotationOrder {
  readonly wanted: WantedProfile
  readonly trigger: RotationTrigger
  /** The newest row, where the caller has read it under the same lease. */
  readonly newest?: Option.Option<Kept> | undefined
}

/**
 * Whether a package is still what we would publish now: of the wanted kind, valid, and with enough lifetime left.
 *
 * @since 1.0.0
 * @category predicates
 */
export const isFitToPublish = (
  { keyPackage }: Kept,
  wanted: WantedProfile,
  now: DateTime.Utc,
  minimumRemainingLifetime: Duration.Duration
): boolean => {
  const { lifetime, postQuantumKey } = keyPackage
  const nowSeconds = BigInt(Math.floor(DateTime.toEpochMillis(now) / 1000))
  return (
    Option.isSome(postQuantumKey) === wanted.includePostQuantum &&
    lifetime.notBefore <= nowSeconds &&
    lifetime.notAfter - nowSeconds >= BigInt(Math.ceil(Duration.toSeconds(minimumRemainingLifetime)))
  )
}

/**
 * The newest row of an installation; none where it cannot be read. A damaged row is never sent: it is left behind like
 * any other that is no longer fit.
 *
 * @since 1.0.0
 * @category reading
 */
export const findNewest = (
  installationId: InstallationId
): Effect.Effect<Option.Option<Kept>, StorageError, KeyPackageStore> =>
  Effect.flatMap(KeyPackageStore, (store) => store.getNewest(installationId)).pipe(
    Effect.catchIf(
      (error) => error.reason === "Corrupt",
      (error) => Effect.as(Effect.logWarning(error.message), Option.none())
    )
  )

/**
 * Step 1: makes a package and writes it and its private keys in one transaction, with the wish that led to it: a rotation that
 * breaks off from here on is due again. Nothing leaves the process.
 *
 * @since 1.0.0
 * @category steps
 */
export const generateAndStoreKeyPackage: (
  lease: Lease,
  installation: Installation,
  order: RotationOrder,
  /** When the rotation that this is a step of began: its publication clears what was asked for until then. Now unless given. */
  startedAt?: DateTime.Utc | undefined
) => Effect.Effect<
  Prepared,
  StorageError | LeaseError | KeyPackageGenerationError,
  KeyPackageStore | Entropy | MlsCrypto | PostQuantumKem
> = Effect.fnUntraced(function* (lease, installation, { trigger, wanted }, startedAt) {
  const { inboxId, installationId } = installation
  const store = yield* KeyPackageStore
  const askedAt = startedAt ?? (yield* DateTime.now)
  const installationKey = yield* store.getInstallationKey(installationId)
  const generated = yield* newKeyPackage({ inboxId, installationKey, ...wanted })
  const at = yield* DateTime.now
  const prepared = yield* store.insertKeyPackageHistory(lease, generated, {
    at,
    trigger,
    reschedule: (schedule) =>
      Schedule.want(
        wanted.includePostQuantum,
        PROFILE_VERSION
      )(
        Schedule.dueTriggers(schedule, at).includes(trigger)
          ? schedule
          : // Should this rotation break off here, its lease is in nobody's way any more at this time.
            Schedule.requestRotation(trigger, askedAt, lease.expiresAt)(schedule)
      )
  })
  yield* emit(LifecycleEvent.Generated({ installationId, historyId: prepared.historyId, trigger, at }))
  return prepared
}, withSpan("Rotation.generateAndStoreKeyPackage"))

/** Offers bytes until they are accepted, each attempt only while the lease covers all of it. */
const send = (lease: Lease, { historyId, keyPackage: { bytes, installationId } }: Exposed | Published) =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const { uploadAttempts } = yield* LifecycleSettings
    yield* api
      .uploadKeyPackage(bytes)
      .pipe(withinAttempt("uploadKeyPackage"), underLease(lease), retryTransient(uploadAttempts))
  }).pipe(
    Effect.tapErrorTag("ApiClientError", ({ message: detail }) =>
      Effect.flatMap(DateTime.now, (at) => emit(LifecycleEvent.UploadFailed({ installationId, historyId, at, detail })))
    )
  )

const mayNotSend = (historyId: HistoryId, reason: "Conflict" | "Corrupt", detail: string) =>
  new StorageError({ operation: "uploadKeyPackage", reason, detail: `key package ${historyId} ${detail}` })

const hasLostKeys = (historyId: HistoryId) => mayNotSend(historyId, "Corrupt", "has lost its private keys")

/** The row as the store has it, which must be the newest of its installation, not accepted yet, and have its private keys. */
const requireWaiting = Effect.fnUntraced(function* (lease: Lease, { historyId }: Prepared | Exposed) {
  const store = yield* KeyPackageStore
  const newest = yield* store.getNewest(lease.installationId)
  if (Option.isNone(newest) || newest.value.historyId !== historyId || !isWaiting(newest.value)) {
    return yield* mayNotSend(historyId, "Conflict", "is no longer the one to send")
  }
  if (!(yield* hasPrivateKeys(historyId))) return yield* hasLostKeys(historyId)
  return newest.value
})

/**
 * Step 2: offers the bytes to the network until it accepts them. The row is Exposed before the first byte is sent; every
 * attempt sends the same bytes, those of the store, and only while the lease covers the whole attempt.
 *
 * Fails with the last attempt's `ApiClientError`, also where the lease ran out before the next; the row stays Exposed.
 * Fails with `Conflict` for a row that is no longer the newest of its installation: sending it would bring back what was
 * superseded. Fails with `Corrupt` for one whose private keys are gone: nobody could open a Welcome to it. Only this step issues
 * receipts.
 *
 * @since 1.0.0
 * @category steps
 */
export const uploadKeyPackage: (
  lease: Lease,
  entry: Prepared | Exposed
) => Effect.Effect<UploadReceipt, ApiClientError | StorageError | LeaseError, KeyPackageStore | ApiClient> = Effect.fn(
  "Rotation.uploadKeyPackage"
)(function* (lease, entry) {
  return yield* uploadNewest(lease, yield* requireWaiting(lease, entry))
})

/**
 * Writes down that the network may have a package from now on: before it is sent, or where it was seen there.
 *
 * @since 1.0.0
 * @category steps
 */
export const expose = (
  lease: Lease,
  prepared: Prepared
): Effect.Effect<Exposed, StorageError | LeaseError, KeyPackageStore> =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const exposed = yield* store.markExposed(lease, prepared, yield* DateTime.now)
    const { exposedAt: at, historyId } = exposed
    yield* emit(LifecycleEvent.Exposed({ installationId: lease.installationId, historyId, at }))
    return exposed
  })

/** The same for a row that was read under this lease as the newest. */
const uploadNewest = Effect.fnUntraced(function* (lease: Lease, waiting: Prepared | Exposed) {
  const exposed = waiting._tag === "Prepared" ? yield* expose(lease, waiting) : waiting

  yield* send(lease, exposed)

  return receipts.issue(lease, exposed, yield* DateTime.now)
})

/** Says what a publication did. */
const emitMarked = ({ published, superseded }: Marked) =>
  Effect.gen(function* () {
    const { installationId } = published.keyPackage
    const at = published.publishedAt
    yield* emit(LifecycleEvent.Published({ installationId, historyId: published.historyId, at }))
    for (const { deleteAt, historyId, supersededBy } of superseded) {
      yield* emit(LifecycleEvent.Superseded({ installationId, historyId, at, supersededBy, deleteAt }))
    }
  })

/**
 * When a package published now is to be replaced: after the interval, up to a tenth earlier so that installations made together
 * drift apart, and always well before it expires: with a quarter of its lifetime left.
 */
const replacementAt = ({ keyPackage: { lifetime } }: Kept, now: DateTime.Utc) =>
  Effect.gen(function* () {
    const { rotationInterval } = yield* LifecycleSettings
    const early = Duration.times(rotationInterval, 0.1 * (yield* Random.next))
    const byInterval = DateTime.addDuration(now, Duration.subtract(rotationInterval, early))
    const lastMillis = Number(lifetime.notAfter - (lifetime.notAfter - lifetime.notBefore) / 4n) * 1000
    return lastMillis < DateTime.toEpochMillis(byInterval) ? DateTime.unsafeMake(lastMillis) : byInterval
  })

/**
 * Step 3, in one transaction: the row of the proof becomes Published, every earlier one of the installation Superseded with a
 * date of deletion, and the next rotation gets its deadline. Requests that came in since `startedAt` stay.
 *
 * With `confirmBy: "readBack"` a receipt publishes only; a sighting supersedes.
 *
 * @since 1.0.0
 * @category steps
 */
export const markKeyPackagesBeforeIdToBeDeleted: (
  proof: UploadReceipt,
  options?: { readonly startedAt?: DateTime.Utc | undefined }
) => Effect.Effect<Marked, StorageError | LeaseError, KeyPackageStore> = (receipt, options) =>
  mark(receipt.lease, receipt, receipt.exposed, options?.startedAt).pipe(
    withSpan("Rotation.markKeyPackagesBeforeIdToBeDeleted")
  )

/**
 * The same for a package that the network was seen to serve: one whose acceptance never arrived, or one whose publication waits
 * to be confirmed.
 *
 * @since 1.0.0
 * @category steps
 */
export const markSeenServed: (
  lease: Lease,
  seen: SeenServed
) => Effect.Effect<Marked, StorageError | LeaseError, KeyPackageStore> = Effect.fn("Rotation.markSeenServed")(
  function* (lease, seen) {
    return yield* mark(lease, seen, seen.entry, undefined)
  }
)

const mark = (lease: Lease, proof: UploadReceipt | SeenServed, entry: Kept, startedAt: DateTime.Utc | undefined) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const { confirmBy, confirmWithin, grace } = yield* LifecycleSettings
    const at = yield* DateTime.now
    const deleteAt = DateTime.addDuration(at, grace)
    const waits = confirmBy === "readBack" && isUploadReceipt(proof)
    const confirmation: Schedule.Schedule["confirmation"] = waits
      ? Option.some({
          historyId: entry.historyId,
          confirmAt: DateTime.addDuration(at, "1 second"),
          until: DateTime.addDuration(at, confirmWithin)
        })
      : Option.none()
    const isNew = entry._tag !== "Published"
    const times = {
      startedAt: startedAt ?? at,
      madeAt: entry.createdAt,
      rotateAt: yield* replacementAt(entry, at),
      probeAt: yield* nextProbeAt(at)
    }
    const marked = yield* store.markKeyPackagesBeforeIdToBeDeleted(lease, proof, {
      at,
      deleteAt: waits ? Option.none() : Option.some(deleteAt),
      reschedule: (schedule) => {
        const next = { ...(isNew ? Schedule.published(times)(schedule) : schedule), confirmation }
        return waits ? next : Schedule.requestCleaning(deleteAt)(next)
      }
    })
    yield* emitMarked(marked)
    return marked
  })

/** The network refused these bytes for good: given up only if our own validator refuses them too. */
const rejectIfInvalid = (lease: Lease, exposed: Exposed, error: ApiClientError) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const { grace } = yield* LifecycleSettings
    const at = yield* DateTime.now
    const verdict = yield* Effect.either(validateKeyPackage(exposed.keyPackage.bytes, at))
    if (Either.isRight(verdict)) return
    const deleteAt = DateTime.addDuration(at, grace)
    yield* store.markRejected(lease, exposed, { at, deleteAt, reschedule: Schedule.requestCleaning(deleteAt) })
    const { historyId } = exposed
    const detail = `${error.message}; ${verdict.left.message}`
    yield* emit(LifecycleEvent.Rejected({ installationId: lease.installationId, historyId, at, detail }))
  })

/** What a final refusal says of the row that was sent. */
const rejectAfter =
  (lease: Lease, { historyId }: Prepared | Exposed) =>
  (error: RotationError) =>
    Effect.gen(function* () {
      if (error._tag !== "ApiClientError" || error.reason !== "InvalidRequest") return
      const store = yield* KeyPackageStore
      const sent = (yield* store.getHistory(lease.installationId)).find((entry) => entry.historyId === historyId)
      if (sent?._tag === "Exposed") yield* rejectIfInvalid(lease, sent, error)
    }).pipe(
      // The refusal counts; what cannot be written down about it is only logged.
      Effect.catchAll((second) => Effect.logWarning(second.message))
    )

/** What is left behind by a rotation that failed: a time to try again, and a look where nobody knows what came of it. */
const settleFailure = (lease: Lease, error: RotationError) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const { installationId } = lease
    const at = yield* DateTime.now
    // Under a lease that was lost nothing may be said but that it is worth a look.
    if (error._tag === "LeaseError") {
      yield* store.modifySchedule(installationId, Schedule.requestProbe(at))
      return
    }
    const retryAt = yield* nextAttempt(at, error)
    const detail = error.message
    const { failures } = yield* store.modifySchedule(installationId, Schedule.rotationFailed(at, retryAt, detail))
    if (Option.isNone(failures)) return
    yield* emit(LifecycleEvent.RotationFailed({ installationId, at, detail, retryAt: failures.value.retryAt }))
  })

/**
 * The whole pipeline under a lease that the caller holds: reuse the package that waits to be sent if it is still fit, else
 * make one; upload; mark.
 *
 * A failure leaves a time at which to try again behind; the caller gets the error.
 *
 * @since 1.0.0
 * @category pipelines
 */
export const rotateUnderLease: (
  lease: Lease,
  installation: Installation,
  order: RotationOrder
) => Effect.Effect<Marked, RotationError, RotationContext> = Effect.fnUntraced(
  function* (lease, installation, order) {
    const store = yield* KeyPackageStore
    const crypto = yield* MlsCrypto
    const { minimumRemainingLifetime } = yield* LifecycleSettings
    const startedAt = yield* DateTime.now

    const newest = order.newest ?? (yield* findNewest(installation.installationId))
    const isIntended = ({ keyPackage }: Kept): boolean =>
      Option.isSome(keyPackage.postQuantumKey) === order.wanted.includePostQuantum &&
      // Bytes that are not what they were when they were made are never sent.
      KeyPackageRef.hashWith(crypto, keyPackage.bytes) === keyPackage.ref
    const isFit = (entry: Kept): entry is Prepared | Exposed =>
      isWaiting(entry) && isFitToPublish(entry, order.wanted, startedAt, minimumRemainingLifetime) && isIntended(entry)
    // Processes whose clocks disagree each find the other's package over, or not begun. An earlier one is as good as long as
    // it waits: where one after it was published, it is superseded, or is once that publication is confirmed.
    const waiting = Option.exists(newest, (entry) => isWaiting(entry) && !isFit(entry) && isIntended(entry))
      ? Option.fromNullable((yield* store.getHistory(installation.installationId)).filter(isFit).at(-1))
      : Option.filter(newest, isFit)
    if (Option.isSome(newest) && newest.value._tag === "Prepared" && !isFit(newest.value)) {
      yield* discard(lease, newest.value, startedAt)
    }
    // One whose keys are gone is left behind like any other that is not fit.
    const isUsable = Option.isSome(waiting) && (yield* hasPrivateKeys(waiting.value.historyId))
    const entry = isUsable ? waiting.value : yield* generateAndStoreKeyPackage(lease, installation, order, startedAt)

    // Once there is a receipt, an interruption may no longer come between it and its record. One that comes earlier leaves
    // the row Exposed, and the same bytes go out again.
    return yield* Effect.uninterruptibleMask((restore) =>
      Effect.flatMap(restore(Effect.tapError(uploadNewest(lease, entry), rejectAfter(lease, entry))), (receipt) =>
        markKeyPackagesBeforeIdToBeDeleted(receipt, { startedAt })
      )
    )
  },
  (rotation, lease) =>
    Effect.tapError(rotation, (error) =>
      // The rotation's own error counts; what cannot be written down about it is only logged.
      Effect.catchAll(settleFailure(lease, error), (second) => Effect.logWarning(second.message))
    ),
  withSpan("Rotation.rotateUnderLease")
)

/** Erases a package that is no longer wanted and never left the process. */
const discard = (lease: Lease, prepared: Prepared, at: DateTime.Utc) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const { tombstoneLifetime } = yield* LifecycleSettings
    const { retired } = yield* store.retire(lease, [permits.issue(prepared, "NeverSent")], {
      at,
      dropBefore: DateTime.subtractDuration(at, tombstoneLifetime),
      // What the files still hold is removed with the next cleaning.
      reschedule: Schedule.requestCleaning(at)
    })
    for (const { historyId, reason } of retired) {
      yield* emit(LifecycleEvent.Retired({ installationId: lease.installationId, historyId, at, reason }))
    }
  })

/**
 * Sends the bytes of the newest published package again, for a network that serves something else. Marks nothing: nothing
 * new is published.
 *
 * Fails with `Conflict` for a package that is no longer the newest, with `Corrupt` for one whose private keys are gone.
 *
 * @since 1.0.0
 * @category pipelines
 */
export const sendAgain: (
  lease: Lease,
  published: Published
) => Effect.Effect<void, ApiClientError | StorageError | LeaseError, KeyPackageStore | ApiClient> = Effect.fn(
  "Rotation.sendAgain"
)(function* (lease, published) {
  const store = yield* KeyPackageStore
  const history = yield* store.getHistory(lease.installationId)
  const newest = history.findLast((entry) => entry._tag === "Published")
  if (newest?.historyId !== published.historyId) {
    return yield* mayNotSend(published.historyId, "Conflict", "is no longer the newest published one")
  }
  if (!(yield* hasPrivateKeys(newest.historyId))) return yield* hasLostKeys(newest.historyId)
  yield* send(lease, newest)
})

const requireInstallation = (installationId: InstallationId) =>
  Effect.flatMap(KeyPackageStore, (store) =>
    Effect.flatMap(
      store.getInstallation(installationId),
      Option.match({
        onSome: Effect.succeed,
        onNone: () =>
          new StorageError({
            operation: "getInstallation",
            reason: "Conflict",
            detail: `there is no installation ${installationId} in this store`
          })
      })
    )
  )

/**
 * Replaces the installation's key package now: `includePostQuantum` says which kind (XMTP's default is yes), from now on.
 *
 * After a failure, calling it again, in this process or a later one, sends the same bytes again; so does the scheduler by
 * itself.
 *
 * @since 1.0.0
 * @category pipelines
 */
export const rotateAndUploadKeyPackage: (
  options: WantedProfile & { readonly installationId: InstallationId }
) => Effect.Effect<Marked, RotationError, RotationContext> = Effect.fn("Rotation.rotateAndUploadKeyPackage")(
  function* ({ installationId, ...wanted }) {
    yield* Effect.annotateCurrentSpan({ installationId })
    const installation = yield* requireInstallation(installationId)
    return yield* withLease(installationId, (lease) =>
      rotateUnderLease(lease, installation, { wanted, trigger: "Manual" })
    )
  }
)

/**
 * Asks for a rotation soon, and returns at once: the scheduler does it. Asking again before it has happened changes nothing.
 *
 * @since 1.0.0
 * @category scheduling
 */
export const queueKeyRotation: (installationId: InstallationId) => Effect.Effect<void, StorageError, KeyPackageStore> =
  Effect.fn("Rotation.queueKeyRotation")(function* (installationId) {
    yield* request(installationId, "Queued")
  })

/**
 * A Welcome was opened, or failed to open: the package it used is replaced in 5 seconds. A thousand Welcomes make one rotation.
 *
 * @since 1.0.0
 * @category scheduling
 */
export const queueKeyRotationAfterWelcome: (
  installationId: InstallationId
) => Effect.Effect<void, StorageError, KeyPackageStore> = Effect.fn("Rotation.queueKeyRotationAfterWelcome")(
  function* (installationId) {
    yield* request(installationId, "Welcome")
  }
)

const request = (installationId: InstallationId, trigger: RotationTrigger) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const { welcomeDelay } = yield* LifecycleSettings
    const now = yield* DateTime.now
    yield* store.modifySchedule(
      installationId,
      Schedule.requestRotation(trigger, now, DateTime.addDuration(now, welcomeDelay))
    )
  })
