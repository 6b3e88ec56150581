/**
 * An inbox's log on the network: read and resolved, and written to. What registration and the identity operations share.
 *
 * @since 1.0.0
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type { AssociationState } from "../identity/AssociationState.ts"
import type { IdentityError } from "../identity/IdentityError.ts"
import * as IdentityLog from "../identity/IdentityLog.ts"
import * as IdentityUpdate from "../identity/IdentityUpdate.ts"
import type { InboxId } from "../identity/InboxId.ts"
import type { InstallationId } from "../identity/InstallationId.ts"
import { inOrder } from "../identity/LogOrder.ts"
import * as MemberIdentifier from "../identity/MemberIdentifier.ts"
import { withSpan } from "../internal/span.ts"
import { ApiClient, type ApiClientError, type IdentityUpdateLogEntry } from "../ports/ApiClient.ts"
import type { SmartContractWalletVerifier } from "../ports/SmartContractWalletVerifier.ts"
import { LifecycleSettings } from "./LifecycleSettings.ts"
import { backoff, retryTransient, withinAttempt } from "./RetryPolicy.ts"

/**
 * The installations an inbox may have (libxmtp `MAX_INSTALLATIONS_PER_INBOX`).
 *
 * @since 1.0.0
 * @category constants
 */
export const MAX_INSTALLATIONS = 10

/**
 * The updates a v3 node keeps per inbox (xmtp-node-go `pkg/mls/store`).
 *
 * @since 1.0.0
 * @category constants
 */
export const MAX_IDENTITY_UPDATES = 256

/**
 * What the network says of an inbox.
 *
 * @since 1.0.0
 * @category models
 */
export interface InboxLog {
  /** By sequence id, each id once. */
  readonly log: ReadonlyArray<IdentityUpdateLogEntry>
  /** What the log adds up to; none where it is empty. */
  readonly state: Option.Option<AssociationState>
}

/**
 * The time that an update made now bears: nanoseconds since 1970, by this client's clock.
 *
 * @since 1.0.0
 * @category constructors
 */
export const clientTimestampNs: Effect.Effect<bigint> = Effect.map(
  DateTime.now,
  (now) => BigInt(DateTime.toEpochMillis(now)) * 1_000_000n
)

/**
 * Reads and resolves the whole log of an inbox.
 *
 * @since 1.0.0
 * @category reading
 */
export const read: (
  inboxId: InboxId
) => Effect.Effect<InboxLog, ApiClientError | IdentityError, ApiClient | SmartContractWalletVerifier> =
  Effect.fnUntraced(function* (inboxId) {
    const api = yield* ApiClient
    const { uploadAttempts } = yield* LifecycleSettings
    const [served = []] = yield* api
      .getIdentityUpdates([{ inboxId, after: 0n }])
      .pipe(withinAttempt("getIdentityUpdates"), retryTransient(uploadAttempts))
    const log = inOrder(served, 0n)
    if (log.length === 0) return { log, state: Option.none() }
    const updates = log.map((entry) => entry.update)
    return { log, state: Option.some(yield* IdentityLog.resolve(updates, { expectedInboxId: inboxId })) }
  }, withSpan("InboxLog.read"))

/**
 * The newest update of the log that adds the installation, whether or not it was revoked later.
 *
 * Fails with `IdentityError` where an entry of the log is no identity update.
 *
 * @since 1.0.0
 * @category reading
 */
export const findAddition: (
  inbox: InboxLog,
  installationId: InstallationId
) => Effect.Effect<Option.Option<Uint8Array>, IdentityError> = Effect.fn("InboxLog.findAddition")(
  function* (inbox, installationId) {
    const self = MemberIdentifier.installation(installationId)
    for (const { update } of inbox.log.toReversed()) {
      const { actions } = yield* IdentityUpdate.decode(update)
      if (actions.some((a) => a._tag === "AddAssociation" && MemberIdentifier.equals(a.newMember, self))) {
        return Option.some(update)
      }
    }
    return Option.none()
  }
)

/**
 * Publishes the exact bytes of an update, and believes the log rather than the answer: an answer that did not come may
 * have been a yes, and a no may be to bytes that were taken before. Gives the log that shows the update.
 *
 * Fails with the answer's error where the update was refused, or nobody knows; with `notVisible` where it was accepted
 * and the log does not show it yet.
 *
 * @since 1.0.0
 * @category writing
 */
export const publish = <E, E2 = never, R2 = never>(
  inboxId: InboxId,
  identityUpdate: Uint8Array,
  options: {
    /** Whether the log shows the update. */
    readonly isDone: (inbox: InboxLog) => boolean
    readonly notVisible: () => E
    /** What every attempt runs under; on its own unless given. */
    readonly guard?: (attempt: Effect.Effect<void, ApiClientError>) => Effect.Effect<void, ApiClientError | E2, R2>
  }
): Effect.Effect<InboxLog, E | E2 | ApiClientError | IdentityError, ApiClient | SmartContractWalletVerifier | R2> =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const { uploadAttempts } = yield* LifecycleSettings
    const look = Effect.map(read(inboxId), Option.liftPredicate(options.isDone))
    const attempt = withinAttempt("publishIdentityUpdate")(api.publishIdentityUpdate(identityUpdate))
    const guarded: Effect.Effect<void, ApiClientError | E2, R2> = options.guard?.(attempt) ?? attempt

    const answer = yield* Effect.either(retryTransient(uploadAttempts)(guarded))
    if (Either.isLeft(answer)) {
      const seen = yield* look
      return Option.isSome(seen) ? seen.value : yield* Effect.fail(answer.left)
    }
    // A node may lag behind its own writes.
    const seen = Effect.filterOrFail(look, Option.isSome, () => "not yet" as const)
    return yield* Effect.retry(seen, {
      schedule: backoff(uploadAttempts),
      while: (failure) => failure === "not yet"
    }).pipe(
      Effect.map(({ value }) => value),
      Effect.mapError((failure) => (failure === "not yet" ? options.notVisible() : failure))
    )
  }).pipe(Effect.withSpan("InboxLog.publish", { attributes: { inboxId, bytes: identityUpdate.length } }))
