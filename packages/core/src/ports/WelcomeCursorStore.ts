/**
 * How far the Welcomes of each installation are read, durably: what makes a Welcome reach the app once, and what the private
 * keys wait for.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import type * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { InstallationId } from "../identity/InstallationId.ts"
import type { StorageError } from "./KeyPackageStore.ts"

/**
 * A Welcome that failed for now and is to be tried again.
 *
 * @since 1.0.0
 * @category models
 */
export interface UnresolvedWelcome {
  /** Its place in the topic. */
  readonly id: bigint
  /** How often it has failed, from 1. */
  readonly attempts: number
  readonly firstFailedAt: DateTime.Utc
  /**
   * When the latest complete reading before its first failure began: the network did not have it then. None where there was
   * none, or where the clock was wrong.
   */
  readonly completeBefore: Option.Option<DateTime.Utc>
}

/**
 * The place of one installation in its Welcome topic.
 *
 * @since 1.0.0
 * @category models
 */
export interface WelcomeCursor {
  /** Every entry up to this id is resolved, that is handed over or failed for good, or it is among `unresolved`. */
  readonly position: bigint
  /** Ascending by id. */
  readonly unresolved: ReadonlyArray<UnresolvedWelcome>
  /** When the latest complete reading began: all that the network had then is at `position` or below. */
  readonly readAsOf: Option.Option<DateTime.Utc>
}

/**
 * The place of an installation that has read nothing yet.
 *
 * @since 1.0.0
 * @category constructors
 */
export const start: WelcomeCursor = { position: 0n, unresolved: [], readAsOf: Option.none() }

/**
 * The highest id such that every entry up to it is resolved.
 *
 * @since 1.0.0
 * @category getters
 */
export const resolvedUpTo = ({ position, unresolved: [lowest] }: WelcomeCursor): bigint =>
  lowest === undefined ? position : lowest.id - 1n

/**
 * The moment at which the network had nothing that is not resolved here, as far as is known: the begin of the latest complete
 * reading, or of the one before the first that found something which is unresolved still.
 *
 * @since 1.0.0
 * @category getters
 */
export const completeAsOf = ({ readAsOf, unresolved }: WelcomeCursor): Option.Option<DateTime.Utc> => {
  let earliest = readAsOf
  for (const { completeBefore } of unresolved)
    earliest = Option.zipWith(earliest, completeBefore, (a, b) => DateTime.min(a, b))
  return earliest
}

/**
 * The store. Each method is one transaction: it has happened for good when it returns, or not at all. It takes any id of 64
 * bits, and installations that no other store knows.
 *
 * Ids are resolved and postponed in ascending order of a complete listing: nothing may lie between `position` and an id above
 * it but what was resolved or postponed before.
 *
 * @since 1.0.0
 * @category tags
 */
export class WelcomeCursorStore extends Context.Tag("@keyward/core/WelcomeCursorStore")<
  WelcomeCursorStore,
  {
    /** `start` where nothing was stored. */
    readonly get: (installationId: InstallationId) => Effect.Effect<WelcomeCursor, StorageError>
    /**
     * This entry is handed over, or failed for good: it moves `position` there, or leaves `unresolved`. Whether this call did
     * it: false where it was resolved already.
     *
     * A store over the app's own database takes part in a transaction that is open on its client.
     */
    readonly resolve: (installationId: InstallationId, id: bigint) => Effect.Effect<boolean, StorageError>
    /**
     * This entry failed for now: it moves `position` there and joins `unresolved`, or is there and has one attempt more.
     * Whether this call did it: false where it is resolved already, which it stays.
     */
    readonly postpone: (
      installationId: InstallationId,
      id: bigint,
      at: DateTime.Utc
    ) => Effect.Effect<boolean, StorageError>
    /**
     * A reading that began at `began` came to the end of the topic: nothing that is not at `upTo` or below was there at that
     * time. `position` moves there, never back; `readAsOf` is that of the latest call, be it earlier, as after a clock that
     * was wrong. A `completeBefore` that is later than this reading was written under such a clock and becomes none.
     */
    readonly completeReading: (
      installationId: InstallationId,
      reading: { readonly began: DateTime.Utc; readonly upTo: bigint }
    ) => Effect.Effect<void, StorageError>
  }
>() {}
