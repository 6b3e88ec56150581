/** What the tests of the engine share: a registered installation under a scheduler, and a look at what became of it. */
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { Kept } from "@keyward/core/lifecycle/Ledger"
import * as LifecycleEvents from "@keyward/core/lifecycle/LifecycleEvents"
import { LifecycleSettings, type LifecycleSettingsShape } from "@keyward/core/lifecycle/LifecycleSettings"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import * as Scheduler from "@keyward/core/lifecycle/Scheduler"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { Signer } from "@keyward/core/ports/Signer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import * as Stream from "effect/Stream"
import { signerOf, wallet as walletOf } from "../identity/fixtures.ts"
import * as TestApp from "./TestApp.ts"

/** A new world with events; the scheduler is started by the test. */
export const layer = (seed: string | number = "engine") => Layer.merge(TestApp.layer(seed), LifecycleEvents.layer)

/** The scheduler, until the scope is closed. */
export const startScheduler = (options?: Scheduler.Options) => Scheduler.make(options)

/** A registered installation; the network serves its first package. */
export const register = (options: { readonly includePostQuantum?: boolean; readonly owner?: string } = {}) =>
  Effect.gen(function* () {
    const { includePostQuantum = false, owner = "11" } = options
    const wallet = signerOf(walletOf(owner.repeat(32)))
    const installation = yield* TestApp.withTime(registerInstallation({ includePostQuantum })).pipe(
      Effect.provideService(Signer, wallet)
    )
    return installation.installationId
  })

/** The rows whose keys are here, oldest first. */
export const history = (id: InstallationId) => Effect.flatMap(KeyPackageStore, (store) => store.getHistory(id))

/** Their states. */
export const states = (id: InstallationId) => Effect.map(history(id), (rows) => rows.map((row) => row._tag))

/** The row that the network serves, if it is one of ours whose keys are here. */
export const servedRow = (id: InstallationId): Effect.Effect<Kept | undefined, unknown, ApiClient | KeyPackageStore> =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const [bytes = Option.none()] = yield* api.fetchKeyPackages([id])
    if (Option.isNone(bytes)) return undefined
    const rows = yield* history(id)
    return rows.find((row) => Buffer.compare(row.keyPackage.bytes, bytes.value) === 0)
  })

/** Every event from now on. */
export const recordEvents = Effect.gen(function* () {
  const seen = yield* Ref.make<ReadonlyArray<LifecycleEvents.LifecycleEvent>>([])
  yield* LifecycleEvents.events().pipe(
    Stream.runForEach((event) => Ref.update(seen, (events) => [...events, event])),
    Effect.forkScoped
  )
  yield* Effect.yieldNow()
  return { tags: Effect.map(Ref.get(seen), (events) => events.map((event) => event._tag)), all: Ref.get(seen) }
})

/** Runs under other settings. */
export const withSettings =
  (changes: Partial<LifecycleSettingsShape>) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
    Effect.flatMap(LifecycleSettings, (settings) =>
      Effect.provideService(effect, LifecycleSettings, { ...settings, ...changes })
    )
