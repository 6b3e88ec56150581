/**
 * What is remembered of other people's inboxes, so that a log is verified once and then only extended.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type { AssociationState } from "../identity/AssociationState.ts"
import type { InboxId } from "../identity/InboxId.ts"
import type { IdentityUpdateLogEntry } from "./ApiClient.ts"
import type { StorageError } from "./KeyPackageStore.ts"

/**
 * An inbox's state and the place in its log that it is the state of.
 *
 * @since 1.0.0
 * @category models
 */
export interface StateAt {
  /** The sequence id of the newest update in it. */
  readonly sequenceId: bigint
  readonly state: AssociationState
}

/**
 * Identity logs and association states by inbox and sequence id (libxmtp keeps the same two tables,
 * `xmtp_db/src/encrypted_store/{identity_update,association_state}.rs`). A log only grows and a state at a sequence id never
 * changes, so nothing here is ever stale: what may be missing is what came after.
 *
 * Only verified states are put here, and what is read from here is trusted: a cache must not be writable by others.
 *
 * @since 1.0.0
 * @category tags
 */
export class AssociationStateCache extends Context.Tag("@keyward/core/AssociationStateCache")<
  AssociationStateCache,
  {
    /** The newest state known of each inbox, in the order asked. */
    readonly getNewest: (
      inboxIds: ReadonlyArray<InboxId>
    ) => Effect.Effect<ReadonlyArray<Option.Option<StateAt>>, StorageError>
    /** The state at exactly this sequence id; none where it was never put. */
    readonly getAt: (
      inboxId: InboxId,
      sequenceId: bigint
    ) => Effect.Effect<Option.Option<AssociationState>, StorageError>
    /** The updates kept of an inbox, ascending, up to a sequence id (all unless given). */
    readonly getLog: (
      inboxId: InboxId,
      upTo?: bigint
    ) => Effect.Effect<ReadonlyArray<IdentityUpdateLogEntry>, StorageError>
    /** Keeps updates and the states that they lead to, in one transaction. What is there already stays as it is. */
    readonly put: (
      entries: ReadonlyArray<{ readonly log: ReadonlyArray<IdentityUpdateLogEntry>; readonly newest: StateAt }>
    ) => Effect.Effect<void, StorageError>
  }
>() {}
