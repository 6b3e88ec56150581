/**
 * What every layer of the store port must do. A new store runs this suite from its own tests.
 *
 * @since 1.0.0
 */
import { describe, it } from "@effect/vitest"
import type { Installation } from "@keyward/core/lifecycle/Installation"
import type { KeyPackageStore, StorageError } from "@keyward/core/ports/KeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import * as installations from "../internal/storeContractInstallations.ts"
import * as kit from "../internal/storeContractKit.ts"
import * as ledger from "../internal/storeContractLedger.ts"
import * as model from "../internal/storeContractModel.ts"
import * as retirement from "../internal/storeContractRetirement.ts"
import * as schedule from "../internal/storeContractSchedule.ts"

/** Every run of a property opens a database of its own, and a busy machine takes its time for that. */
const PROPERTY_TIMEOUT_MILLIS = 120_000

/**
 * What a test of one store brings along: how genuine proofs are made without the network that they speak of (`sighting`, `permit`),
 * and how to `damage` one column of a row, so that no store would have written it. The row's date of deletion must stay readable.
 *
 * @since 1.0.0
 * @category models
 */
export type Harness<R> = kit.Harness<R>

/**
 * Everything that the port shows of these installations: rows, tombstones, private keys, and what is due.
 *
 * @since 1.0.0
 * @category snapshots
 */
export const snapshot: (
  installations: ReadonlyArray<Pick<Installation, "installationId" | "inboxId">>
) => Effect.Effect<unknown, StorageError, KeyPackageStore> = kit.snapshot

/**
 * Declares the suite. The layer is built anew for every test and every run of a property, and must be empty then; what it has
 * beside the store is for the harness.
 *
 * @since 1.0.0
 * @category suites
 */
export const suite = <R, E>(name: string, layer: Layer.Layer<KeyPackageStore | R, E>, harness: Harness<R>): void => {
  const fresh = <A, E2>(effect: Effect.Effect<A, E2, KeyPackageStore | Scope.Scope | R>) =>
    TestClock.setTime(DateTime.toEpochMillis(kit.T0)).pipe(
      Effect.zipRight(Effect.provide(Effect.scoped(effect), Layer.fresh(layer)))
    )
  /** `KEYWARD_SEED` replays a run; vitest prints the seed of one that failed. */
  const seed = Number(process.env["KEYWARD_SEED"] ?? 20_260_301)

  const tools: kit.Tools<R> = {
    ...harness,
    test: (title, body) => it.effect(title, () => fresh(Effect.suspend(body))),
    property: <A, E2>(
      title: string,
      arbitrary: FastCheck.Arbitrary<A>,
      body: (value: A) => Effect.Effect<void, E2, KeyPackageStore | Scope.Scope | R>
    ) =>
      it.effect.prop(title, [arbitrary], ([value]) => fresh(Effect.suspend(() => body(value))), {
        fastCheck: { seed, numRuns: 25 },
        timeout: PROPERTY_TIMEOUT_MILLIS
      })
  }

  describe(`${name} keeps the contract of KeyPackageStore:`, () => {
    installations.declare(tools)
    schedule.declare(tools)
    ledger.declare(tools)
    retirement.declare(tools)
    model.declare(tools)
  })
}
