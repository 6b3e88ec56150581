/**
 * The rotation pipeline: generation, persistence, upload and marking, each step typed by the proof of the step before.
 *
 * ```
 * acquire lease -> newKeyPackage -> insertKeyPackageHistory -> uploadKeyPackage -> markKeyPackagesBeforeIdToBeDeleted
 *     Lease         Generated            Prepared                UploadReceipt                Marked
 * ```
 *
 * A failed upload cannot mark anything: the step that marks takes an `UploadReceipt`, and where the upload fails there is
 * none. The package stays Exposed, and the next rotation sends the same bytes again.
 *
 * @since 1.0.0
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import type { InstallationId } from "../identity/InstallationId.ts"
import * as receipts from "../internal/uploadReceipt.ts"
import { newKeyPackage } from "../keypackage/Generation.ts"
import type { KeyPackageGenerationError } from "../keypackage/KeyPackageError.ts"
import * as KeyPackageRef from "../keypackage/KeyPackageRef.ts"
import { ApiClient, ApiClientError } from "../ports/ApiClient.ts"
import type { Entropy } from "../ports/Entropy.ts"
import { KeyPackageStore, type Marked, StorageError } from "../ports/KeyPackageStore.ts"
import { MlsCrypto } from "../ports/MlsCrypto.ts"
import type { PostQuantumKem } from "../ports/PostQuantumKem.ts"
import type { Installation } from "./Installation.ts"
import type { Lease, LeaseError } from "./Lease.ts"
import type { Exposed, LedgerEntry, Prepared } from "./Ledger.ts"
import { LifecycleSettings } from "./LifecycleSettings.ts"
import { retryTransient } from "./RetryPolicy.ts"
import { underLease, withLease } from "./UnderLease.ts"
import type { UploadReceipt } from "./UploadReceipt.ts"

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

const isWaiting = (entry: LedgerEntry): entry is Prepared | Exposed =>
  entry._tag === "Prepared" || entry._tag === "Exposed"

/**
 * Whether a package is still what we would publish now: of the wanted kind, valid, and with enough lifetime left.
 *
 * @since 1.0.0
 * @category predicates
 */
export const isFitToPublish = (
  { keyPackage }: LedgerEntry,
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
): Effect.Effect<Option.Option<LedgerEntry>, StorageError, KeyPackageStore> =>
  Effect.flatMap(KeyPackageStore, (store) => store.getNewest(installationId)).pipe(
    Effect.catchIf(
      (error) => error.reason === "Corrupt",
      (error) => Effect.as(Effect.logWarning(error.message), Option.none())
    )
  )

/**
 * Step 1: makes a package and writes it and its private keys in one transaction. Nothing leaves the process.
 *
 * @since 1.0.0
 * @category steps
 */
export const generateAndStoreKeyPackage: (
  lease: Lease,
  installation: Installation,
  wanted: WantedProfile
) => Effect.Effect<
  Prepared,
  StorageError | LeaseError | KeyPackageGenerationError,
  KeyPackageStore | Entropy | MlsCrypto | PostQuantumKem
> = Effect.fn("Rotation.generateAndStoreKeyPackage")(function* (lease, { inboxId, installationId }, wanted) {
  const store = yield* KeyPackageStore
  const installationKey = yield* store.getInstallationKey(installationId)
  const generated = yield* newKeyPackage({ inboxId, installationKey, ...wanted })
  return yield* store.insertKeyPackageHistory(lease, generated, yield* DateTime.now)
})

/** The row as the store has it, which must be the newest of its installation and not accepted yet. */
const requireWaiting = Effect.fnUntraced(function* (lease: Lease, entry: Prepared | Exposed) {
  const store = yield* KeyPackageStore
  const newest = yield* store.getNewest(lease.installationId)
  if (Option.isSome(newest) && newest.value.historyId === entry.historyId && isWaiting(newest.value)) {
    return newest.value
  }
  return yield* new StorageError({
    operation: "uploadKeyPackage",
    reason: "Conflict",
    detail: `key package ${entry.historyId} is no longer the one to send`
  })
})

/**
 * Step 2: offers the bytes to the network until it accepts them. The row is Exposed before the first byte is sent; every
 * attempt sends the same bytes, those of the store, and only while the lease covers the whole attempt.
 *
 * Fails with the last attempt's `ApiClientError`, also where the lease ran out before the next; the row stays Exposed.
 * Fails with `Conflict` for a row that is no longer the newest of its installation: sending it would bring back what was
 * superseded. Only this function issues receipts.
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
  const store = yield* KeyPackageStore
  const api = yield* ApiClient
  const { attemptTimeout, uploadAttempts } = yield* LifecycleSettings

  const waiting = yield* requireWaiting(lease, entry)
  const exposed = waiting._tag === "Prepared" ? yield* store.markExposed(lease, waiting, yield* DateTime.now) : waiting

  yield* api.uploadKeyPackage(exposed.keyPackage.bytes).pipe(
    Effect.timeoutFail({
      duration: attemptTimeout,
      onTimeout: () => new ApiClientError({ operation: "uploadKeyPackage", reason: "Timeout" })
    }),
    underLease(lease),
    retryTransient(uploadAttempts)
  )

  return receipts.issue(lease, exposed, yield* DateTime.now)
})

/**
 * Step 3: the receipt's row becomes Published, every earlier one of the installation Superseded with a date of deletion,
 * and the next rotation gets its deadline, in one transaction.
 *
 * The deadline is up to a tenth earlier than the interval, so that installations made together drift apart.
 *
 * @since 1.0.0
 * @category steps
 */
export const markKeyPackagesBeforeIdToBeDeleted: (
  receipt: UploadReceipt
) => Effect.Effect<Marked, StorageError | LeaseError, KeyPackageStore> = Effect.fn(
  "Rotation.markKeyPackagesBeforeIdToBeDeleted"
)(function* (receipt) {
  const store = yield* KeyPackageStore
  const { grace, rotationInterval } = yield* LifecycleSettings
  const at = yield* DateTime.now
  const early = Duration.times(rotationInterval, 0.1 * (yield* Random.next))
  return yield* store.markKeyPackagesBeforeIdToBeDeleted(receipt.lease, receipt, {
    at,
    deleteAt: DateTime.addDuration(at, grace),
    nextRotationAt: DateTime.addDuration(at, Duration.subtract(rotationInterval, early))
  })
})

/**
 * The whole pipeline under a lease that the caller holds: reuse the package that waits to be sent if it is still fit, else
 * make one; upload; mark.
 *
 * @since 1.0.0
 * @category pipelines
 */
export const rotateUnderLease: (
  lease: Lease,
  installation: Installation,
  wanted: WantedProfile
) => Effect.Effect<Marked, RotationError, RotationContext> = Effect.fn("Rotation.rotateUnderLease")(
  function* (lease, installation, wanted) {
    const crypto = yield* MlsCrypto
    const { minimumRemainingLifetime } = yield* LifecycleSettings
    const now = yield* DateTime.now

    const newest = yield* findNewest(installation.installationId)
    const waiting = newest.pipe(
      Option.filter(isWaiting),
      Option.filter((entry) => isFitToPublish(entry, wanted, now, minimumRemainingLifetime)),
      // Bytes that are not what they were when they were made are never sent.
      Option.filter(({ keyPackage }) => KeyPackageRef.hashWith(crypto, keyPackage.bytes) === keyPackage.ref)
    )
    const entry = Option.isSome(waiting)
      ? waiting.value
      : yield* generateAndStoreKeyPackage(lease, installation, wanted)

    // Once there is a receipt, an interruption may no longer come between it and its record. One that comes earlier leaves
    // the row Exposed, and the same bytes go out again.
    return yield* Effect.uninterruptibleMask((restore) =>
      restore(uploadKeyPackage(lease, entry)).pipe(Effect.flatMap(markKeyPackagesBeforeIdToBeDeleted))
    )
  }
)

/**
 * Replaces the installation's key package now: `includePostQuantum` says which kind (XMTP's default is yes).
 *
 * After a failure, calling it again, in this process or a later one, sends the same bytes again.
 *
 * @since 1.0.0
 * @category pipelines
 */
export const rotateAndUploadKeyPackage: (
  options: WantedProfile & { readonly installationId: InstallationId }
) => Effect.Effect<Marked, RotationError, RotationContext> = Effect.fn("Rotation.rotateAndUploadKeyPackage")(
  function* ({ installationId, ...wanted }) {
    yield* Effect.annotateCurrentSpan({ installationId })
    const store = yield* KeyPackageStore
    const installation = yield* Effect.flatMap(
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
    return yield* withLease(installationId, (lease) => rotateUnderLease(lease, installation, wanted))
  }
)
