/**
 * What runs under a lease, and only while it lasts.
 *
 * @since 1.0.0
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type { InstallationId } from "../identity/InstallationId.ts"
import type { ApiClientError } from "../ports/ApiClient.ts"
import { KeyPackageStore, type StorageError } from "../ports/KeyPackageStore.ts"
import type { Lease, LeaseError } from "./Lease.ts"
import { LifecycleSettings } from "./LifecycleSettings.ts"

/**
 * Runs a part of an installation's life that only one fiber of one process may run at a time. Fails with `Held` while
 * another does.
 *
 * @since 1.0.0
 * @category combinators
 */
export const withLease = <A, E, R>(
  installationId: InstallationId,
  use: (lease: Lease) => Effect.Effect<A, E, R>
): Effect.Effect<A, E | StorageError | LeaseError, R | KeyPackageStore> =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const { attemptTimeout, leaseDuration } = yield* LifecycleSettings
    if (Duration.greaterThanOrEqualTo(attemptTimeout, leaseDuration)) {
      return yield* Effect.dieMessage("LifecycleSettings: attemptTimeout must be shorter than leaseDuration")
    }
    return yield* Effect.acquireUseRelease(
      Effect.flatMap(DateTime.now, (now) => store.acquireLease(installationId, { now, duration: leaseDuration })),
      use,
      // A lease that could not be given back ends by itself.
      (lease) => Effect.catchAll(store.releaseLease(lease), (error) => Effect.logWarning(error.message))
    )
  })

/**
 * One attempt at a call, made only while the lease covers all of its time: nothing that was sent under it arrives after
 * somebody else has taken over. Repeat the result to try again.
 *
 * Once the lease has run out, fails with what the attempt before failed with; where there was none, with `Lost`.
 *
 * @since 1.0.0
 * @category combinators
 */
export const underLease =
  (lease: Lease) =>
  <A, R>(
    attempt: Effect.Effect<A, ApiClientError, R>
  ): Effect.Effect<A, ApiClientError | StorageError | LeaseError, R | KeyPackageStore> => {
    let last: ApiClientError | undefined
    const check = Effect.gen(function* () {
      const store = yield* KeyPackageStore
      const { attemptTimeout } = yield* LifecycleSettings
      yield* store.checkLease(lease, DateTime.addDuration(yield* DateTime.now, attemptTimeout))
    })
    return Effect.gen(function* () {
      yield* Effect.catchTag(check, "LeaseError", (error) => Effect.fail(last ?? error))
      return yield* Effect.tapError(attempt, (error) => Effect.sync(() => (last = error)))
    })
  }
