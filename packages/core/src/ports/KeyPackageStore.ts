/**
 * The durable memory of a key package's life: installations, the publish ledger and the sealed private keys.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import type * as Stream from "effect/Stream"
import type { InboxId } from "../identity/InboxId.ts"
import type { InstallationId } from "../identity/InstallationId.ts"
import type { InstallationKey } from "../identity/InstallationKey.ts"
import type { GeneratedKeyPackage, KeyPackagePrivateKeys } from "../keypackage/GeneratedKeyPackage.ts"
import type { KeyPackageRef } from "../keypackage/KeyPackageRef.ts"
import type { Installation, InstallationIntent } from "../lifecycle/Installation.ts"
import type { Lease, LeaseError } from "../lifecycle/Lease.ts"
import type {
  Doomed,
  Exposed,
  HistoryId,
  Kept,
  LedgerEntry,
  Prepared,
  Published,
  Quarantined,
  Rejected,
  Retired,
  RotationTrigger,
  Superseded
} from "../lifecycle/Ledger.ts"
import type { RetirementPermit } from "../lifecycle/RetirementPermit.ts"
import type { Schedule } from "../lifecycle/Schedule.ts"
import type { SeenServed } from "../lifecycle/SeenServed.ts"
import type { UploadReceipt } from "../lifecycle/UploadReceipt.ts"

/**
 * Why a store operation failed. Nothing was written, whatever the reason.
 *
 * - `Busy`: another process holds the database; retryable
 * - `Full`, `ReadOnly`, `Unavailable`: the disk or file
 * - `NewerSchema`: a later release of this library wrote the database
 * - `WrongSealingKey`: the configured key does not open what is sealed here
 * - `Corrupt`: a row is not what this library writes
 * - `Conflict`: the row is not in the state that the write starts from, or does not exist
 *
 * @since 1.0.0
 * @category errors
 */
export const Reason = Schema.Literal(
  "Busy",
  "Full",
  "ReadOnly",
  "Unavailable",
  "NewerSchema",
  "WrongSealingKey",
  "Corrupt",
  "Conflict"
)

/**
 * The one error of the storage layer.
 *
 * @since 1.0.0
 * @category errors
 */
export class StorageError extends Schema.TaggedError<StorageError>("@keyward/core/StorageError")("StorageError", {
  operation: Schema.String,
  reason: Reason,
  /** What was wrong, in words; never key bytes. */
  detail: Schema.optional(Schema.String),
  cause: Schema.optional(Schema.Defect)
}) {
  override get message(): string {
    return `${this.operation} failed: ${this.reason}${this.detail === undefined ? "" : `: ${this.detail}`}`
  }
  /** Whether the same call may succeed later without anyone's help. */
  get isRetryable(): boolean {
    return this.reason === "Busy"
  }
}

/**
 * A change of what is due, made where the transaction has just read it.
 *
 * @since 1.0.0
 * @category models
 */
export type Reschedule = (schedule: Schedule) => Schedule

/**
 * What a publication writes beside the package's own state.
 *
 * @since 1.0.0
 * @category models
 */
export interface Publication {
  readonly at: DateTime.Utc
  /**
   * From when on the keys of the superseded packages may be erased; none leaves the earlier packages as they are, until the
   * network is seen to serve the new one.
   */
  readonly deleteAt: Option.Option<DateTime.Utc>
  readonly reschedule: Reschedule
}

/**
 * What a publication did.
 *
 * @since 1.0.0
 * @category models
 */
export interface Marked {
  readonly published: Published
  /** The rows that this publication superseded, oldest first. */
  readonly superseded: ReadonlyArray<Superseded>
}

/**
 * A row that could not be read.
 *
 * @since 1.0.0
 * @category models
 */
export interface Unreadable {
  readonly historyId: HistoryId
  /** The column that is not what this library writes. */
  readonly column: string
}

/**
 * The rows of one installation whose private keys are here, each part oldest first.
 *
 * @since 1.0.0
 * @category models
 */
export interface InstallationLedger {
  readonly entries: ReadonlyArray<Kept>
  /** Rows that could not be read and are not quarantined yet. */
  readonly unreadable: ReadonlyArray<Unreadable>
  readonly quarantined: ReadonlyArray<Quarantined>
}

/**
 * What an erasure did.
 *
 * @since 1.0.0
 * @category models
 */
export interface Erased {
  /** One tombstone for each package whose row could be read. */
  readonly retired: ReadonlyArray<Retired>
  /** The damaged rows that were erased, without a tombstone. */
  readonly quarantined: ReadonlyArray<HistoryId>
}

/**
 * An installation for which something is due.
 *
 * @since 1.0.0
 * @category models
 */
export interface Due {
  readonly installationId: InstallationId
  readonly dueAt: DateTime.Utc
}

/**
 * The store. Each method is one transaction: it has happened for good when it returns, or not at all. Leases alone need not
 * survive a power failure, which no holder does. Many installations share one store.
 *
 * @since 1.0.0
 * @category tags
 */
export class KeyPackageStore extends Context.Tag("@keyward/core/KeyPackageStore")<
  KeyPackageStore,
  {
    /** The installation of this inbox and label: the one already there, or a new one with the intent's key. */
    readonly findOrCreateInstallation: (intent: InstallationIntent) => Effect.Effect<Installation, StorageError>
    readonly getInstallation: (id: InstallationId) => Effect.Effect<Option.Option<Installation>, StorageError>
    /** The installations of one inbox, oldest first. */
    readonly getInstallations: (inboxId: InboxId) => Effect.Effect<ReadonlyArray<Installation>, StorageError>
    /** The private key of an installation. Fails with `Conflict` where there is no such installation. */
    readonly getInstallationKey: (id: InstallationId) => Effect.Effect<InstallationKey, StorageError>
    /**
     * Intended to Signed: these bytes, and no others, are the ones to publish. Signed to Signed only where the caller has
     * shown that the earlier bytes can never be accepted any more. `Conflict` from Registered.
     */
    readonly saveIdentityUpdate: (
      lease: Lease,
      identityUpdate: Uint8Array,
      at: DateTime.Utc
    ) => Effect.Effect<Installation, StorageError | LeaseError>
    /** Signed to Registered; Registered stays as it is. `Conflict` from Intended. */
    readonly markRegistered: (lease: Lease, at: DateTime.Utc) => Effect.Effect<Installation, StorageError | LeaseError>

    /** Takes the lease of an installation, with a larger fence than ever before. Fails with `Held` while another holds it. */
    readonly acquireLease: (
      id: InstallationId,
      options: { readonly now: DateTime.Utc; readonly duration: Duration.Duration }
    ) => Effect.Effect<Lease, StorageError | LeaseError>
    /** Fails with `Lost` unless the lease is still the newest one and has not expired at `now`. */
    readonly checkLease: (lease: Lease, now: DateTime.Utc) => Effect.Effect<void, StorageError | LeaseError>
    /** Gives the lease back. A lease that was lost already is nothing to fail about. */
    readonly releaseLease: (lease: Lease) => Effect.Effect<void, StorageError>

    /**
     * Changes what is due for an installation, under no lease. A change of nothing puts a deadline right that is not what the
     * schedule says. Fails with `Conflict` where there is none.
     */
    readonly modifySchedule: (id: InstallationId, reschedule: Reschedule) => Effect.Effect<Schedule, StorageError>
    /**
     * The installations for which something is due (`Schedule.isDue`), those due longest first; those in `except` are left
     * out.
     */
    readonly findDue: (options: {
      readonly now: DateTime.Utc
      readonly limit: number
      readonly except?: ReadonlySet<InstallationId> | undefined
    }) => Effect.Effect<ReadonlyArray<Due>, StorageError>
    /** The installations for which nothing is due up to this time, and something after it. */
    readonly findDueAfter: (time: DateTime.Utc) => Effect.Effect<ReadonlyArray<Due>, StorageError>
    /** When the next thing is due after `now`, for any installation. */
    readonly nextDueAt: (now: DateTime.Utc) => Effect.Effect<Option.Option<DateTime.Utc>, StorageError>
    /**
     * Ids of installations whose deadline was lowered since this effect returned, until its scope is closed: by this process,
     * and by others where the store can say so without polling. None is missed in between.
     */
    readonly deadlineLowered: Effect.Effect<Stream.Stream<InstallationId>, never, Scope.Scope>

    /**
     * Writes the row and its private keys together. The history id is larger than every earlier one of the store.
     * `Conflict` where the package is of another installation than the lease, or its ref or init key is already there.
     */
    readonly insertKeyPackageHistory: (
      lease: Lease,
      generated: GeneratedKeyPackage,
      options: { readonly at: DateTime.Utc; readonly trigger: RotationTrigger; readonly reschedule: Reschedule }
    ) => Effect.Effect<Prepared, StorageError | LeaseError>
    /** Prepared to Exposed, before the first byte is sent. */
    readonly markExposed: (
      lease: Lease,
      prepared: Prepared,
      at: DateTime.Utc
    ) => Effect.Effect<Exposed, StorageError | LeaseError>
    /**
     * The proof's row becomes Published, every earlier live row of the same installation Superseded, and what is due is
     * changed, in one transaction. Rows created after the proof's are left alone. From Exposed by a receipt; from Exposed
     * or Rejected, or for a row that is Published already, by a sighting. `Conflict` otherwise.
     */
    readonly markKeyPackagesBeforeIdToBeDeleted: (
      lease: Lease,
      proof: UploadReceipt | SeenServed,
      publication: Publication
    ) => Effect.Effect<Marked, StorageError | LeaseError>
    /** Exposed to Rejected. */
    readonly markRejected: (
      lease: Lease,
      exposed: Exposed,
      options: { readonly at: DateTime.Utc; readonly deleteAt: DateTime.Utc; readonly reschedule: Reschedule }
    ) => Effect.Effect<Rejected, StorageError | LeaseError>
    /** The network serves a row that waits for its deletion: it waits until `deleteAt`, never less long than before. */
    readonly postponeDeletion: (
      lease: Lease,
      seen: SeenServed,
      options: { readonly at: DateTime.Utc; readonly deleteAt: DateTime.Utc }
    ) => Effect.Effect<Doomed, StorageError | LeaseError>

    /**
     * Erases the private keys, and every trace that leads to them, of the rows that the permits name, in one transaction, and
     * leaves tombstones. A row that is not what it was when its permit was given is left alone. Tombstones of `dropBefore`
     * and earlier are dropped. `scrub` then removes what the files still hold.
     */
    readonly retire: (
      lease: Lease,
      permits: ReadonlyArray<RetirementPermit>,
      options: { readonly at: DateTime.Utc; readonly dropBefore: DateTime.Utc; readonly reschedule: Reschedule }
    ) => Effect.Effect<Erased, StorageError | LeaseError>
    /** Removes what was erased from the files themselves (WAL, free pages). `Busy` where a reader keeps them. */
    readonly scrub: Effect.Effect<void, StorageError>
    /**
     * Sets unreadable rows aside: they are never read again. Their date of deletion is that of their raw columns where there
     * is one, and lies between `at` and `latest`.
     */
    readonly quarantine: (
      lease: Lease,
      rows: ReadonlyArray<Unreadable>,
      options: { readonly at: DateTime.Utc; readonly latest: DateTime.Utc }
    ) => Effect.Effect<ReadonlyArray<Quarantined>, StorageError | LeaseError>

    /** The newest row of an installation whose keys are here: the only candidate to be sent. */
    readonly getNewest: (id: InstallationId) => Effect.Effect<Option.Option<Kept>, StorageError>
    /** The readable rows of an installation whose keys are here, oldest first. */
    readonly getHistory: (id: InstallationId) => Effect.Effect<ReadonlyArray<Kept>, StorageError>
    /** The same, with what could not be read. */
    readonly getLedger: (id: InstallationId) => Effect.Effect<InstallationLedger, StorageError>
    /** The tombstones of an installation, oldest first. */
    readonly getRetired: (id: InstallationId) => Effect.Effect<ReadonlyArray<Retired>, StorageError>
    /** The private keys of a row; none once they are erased. */
    readonly getPrivateKeys: (id: HistoryId) => Effect.Effect<Option.Option<KeyPackagePrivateKeys>, StorageError>
    /**
     * The package that a Welcome names by the key it was wrapped to: an init key (32 bytes) or an X-Wing key (1216 bytes). A
     * retired one is found by its tombstone.
     */
    readonly findByWelcomeKey: (
      id: InstallationId,
      publicKey: Uint8Array
    ) => Effect.Effect<Option.Option<LedgerEntry>, StorageError>
    /** The package with this hash ref. A retired one is found by its tombstone. */
    readonly findByRef: (
      id: InstallationId,
      ref: KeyPackageRef
    ) => Effect.Effect<Option.Option<LedgerEntry>, StorageError>
  }
>() {}
