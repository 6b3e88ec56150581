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
import type { InboxId } from "../identity/InboxId.ts"
import type { InstallationId } from "../identity/InstallationId.ts"
import type { InstallationKey } from "../identity/InstallationKey.ts"
import type { GeneratedKeyPackage, KeyPackagePrivateKeys } from "../keypackage/GeneratedKeyPackage.ts"
import type { Installation, InstallationIntent } from "../lifecycle/Installation.ts"
import type { Lease, LeaseError } from "../lifecycle/Lease.ts"
import type { Exposed, HistoryId, LedgerEntry, Prepared, Published, Superseded } from "../lifecycle/Ledger.ts"
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
 * What a publication writes beside the package's own state.
 *
 * @since 1.0.0
 * @category models
 */
export interface Publication {
  readonly at: DateTime.Utc
  /** From when on the keys of the superseded packages may be erased. */
  readonly deleteAt: DateTime.Utc
  /** When the package just published is to be replaced. */
  readonly nextRotationAt: DateTime.Utc
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
      identityUpdate: Uint8Array
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
     * Writes the row and its private keys together. The history id is larger than every earlier one of the store.
     * `Conflict` where the package is of another installation than the lease, or its ref or init key is already there.
     */
    readonly insertKeyPackageHistory: (
      lease: Lease,
      generated: GeneratedKeyPackage,
      at: DateTime.Utc
    ) => Effect.Effect<Prepared, StorageError | LeaseError>
    /** Prepared to Exposed, before the first byte is sent. */
    readonly markExposed: (
      lease: Lease,
      prepared: Prepared,
      at: DateTime.Utc
    ) => Effect.Effect<Exposed, StorageError | LeaseError>
    /**
     * Exposed to Published for the receipt's row, Superseded for every earlier live row of the same installation, and the
     * next rotation's deadline, in one transaction. Rows created after the receipt's are left alone.
     */
    readonly markKeyPackagesBeforeIdToBeDeleted: (
      lease: Lease,
      receipt: UploadReceipt,
      publication: Publication
    ) => Effect.Effect<Marked, StorageError | LeaseError>

    /** The newest row of an installation: the only candidate to be sent. */
    readonly getNewest: (id: InstallationId) => Effect.Effect<Option.Option<LedgerEntry>, StorageError>
    /** All rows of an installation, oldest first. */
    readonly getHistory: (id: InstallationId) => Effect.Effect<ReadonlyArray<LedgerEntry>, StorageError>
    /** The private keys of a row; none once they are erased. */
    readonly getPrivateKeys: (id: HistoryId) => Effect.Effect<Option.Option<KeyPackagePrivateKeys>, StorageError>
  }
>() {}
