/**
 * What the sections of the store contract share: times, random installations and packages, the steps of a publication, and how
 * a test asks that nothing was written.
 */
import { expect } from "@effect/vitest"
import type { GeneratedKeyPackage, KeyPackagePrivateKeys } from "@keyward/core/keypackage/GeneratedKeyPackage"
import type { Installation, InstallationIntent } from "@keyward/core/lifecycle/Installation"
import type * as Lease from "@keyward/core/lifecycle/Lease"
import type * as Ledger from "@keyward/core/lifecycle/Ledger"
import type { RetirementPermit } from "@keyward/core/lifecycle/RetirementPermit"
import { uploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import type { SeenServed } from "@keyward/core/lifecycle/SeenServed"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import {
  KeyPackageStore,
  type Publication,
  type Reschedule,
  type StorageError
} from "@keyward/core/ports/KeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as Arbitraries from "../Arbitraries.ts"

/** What a test of one store brings along. */
export interface Harness<R> {
  /** How genuine proofs are made, without the network that they speak of. */
  readonly proofs: {
    readonly sighting: (entry: Ledger.Kept, seenAt: DateTime.Utc) => SeenServed
    readonly permit: (row: Ledger.Kept | Ledger.Quarantined, reason: Ledger.RetirementReason) => RetirementPermit
  }
  /** Makes one column of the row something that no store writes; its date of deletion can still be read. */
  readonly damage: (id: Ledger.HistoryId) => Effect.Effect<void, unknown, R>
}

/** How a section declares its tests: each over a store of its own, at `T0`. */
export interface Tools<R> extends Harness<R> {
  readonly test: <A, E>(title: string, body: () => Effect.Effect<A, E, KeyPackageStore | Scope.Scope | R>) => void
  readonly property: <A, E>(
    title: string,
    arbitrary: FastCheck.Arbitrary<A>,
    body: (value: A) => Effect.Effect<void, E, KeyPackageStore | Scope.Scope | R>
  ) => void
}

/** When every test begins. */
export const T0 = DateTime.unsafeMake("2026-03-01T00:00:00Z")
export const after = (duration: Duration.DurationInput): DateTime.Utc => DateTime.addDuration(T0, duration)

/** The network that says yes: what a receipt needs. */
const acceptingApi = Layer.mock(ApiClient, { uploadKeyPackage: () => Effect.void })

/** The same random values in every run. */
export const sample = <A>(arbitrary: FastCheck.Arbitrary<A>, count: number, seed: number): ReadonlyArray<A> =>
  FastCheck.sample(arbitrary, { numRuns: count, seed })

const one = <A>(arbitrary: FastCheck.Arbitrary<A>, seed: number): A => sample(arbitrary, 1, seed)[0] as A

/** An inbox, a label and a key of this number. */
export const intentOf = (seed: number, changes: Partial<InstallationIntent> = {}): InstallationIntent => ({
  ...one(Arbitraries.intent, seed),
  at: T0,
  ...changes
})

export const packageOf = (installation: Installation, seed: number): GeneratedKeyPackage =>
  one(Arbitraries.generatedKeyPackage(installation), seed)

/** A package of this kind. */
export const packageOfKind = (installation: Installation, seed: number, isPostQuantum: boolean): GeneratedKeyPackage =>
  one(
    Arbitraries.generatedKeyPackage(installation).filter(
      ({ keyPackage }) => Option.isSome(keyPackage.postQuantumKey) === isPostQuantum
    ),
    seed
  )

/** Leaves what is due as it is. */
export const unchanged: Reschedule = (schedule) => schedule

/** The options of an insertion that changes nothing beside the ledger. */
export const insertAt = (at: DateTime.Utc, trigger: Ledger.RotationTrigger = "Manual") => ({
  at,
  trigger,
  reschedule: unchanged
})

/** How long superseded keys stay in these tests. */
export const GRACE = Duration.minutes(1)

export const publicationAt = (at: DateTime.Utc, changes: Partial<Publication> = {}): Publication => ({
  at,
  deleteAt: Option.some(DateTime.addDuration(at, GRACE)),
  reschedule: unchanged,
  ...changes
})

/** The options of a rejection that changes nothing beside the ledger. */
export const rejectionAt = (at: DateTime.Utc) => ({
  at,
  deleteAt: DateTime.addDuration(at, GRACE),
  reschedule: unchanged
})

/** The options of an erasure that drops no tombstone. */
export const retirementAt = (at: DateTime.Utc, dropBefore = DateTime.unsafeMake(0)) => ({
  at,
  dropBefore,
  reschedule: unchanged
})

export const install = (intent: InstallationIntent) =>
  Effect.flatMap(KeyPackageStore, (store) => store.findOrCreateInstallation(intent))

export const lease = (
  installation: Installation,
  now: DateTime.Utc = T0,
  duration: Duration.DurationInput = "5 minutes"
) =>
  Effect.flatMap(KeyPackageStore, (store) =>
    store.acquireLease(installation.installationId, { now, duration: Duration.decode(duration) })
  )

/** The value as JSON, bytes in hex: comparing the bytes of one key package element by element takes milliseconds. */
export const plain = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, function (this: Record<string, unknown>, key, json: unknown) {
      const own = this[key]
      if (own instanceof Uint8Array) return Buffer.from(own).toString("hex")
      return typeof own === "bigint" ? `${own}n` : json
    }) ?? "null"
  )

export const expectEqual = (actual: unknown, expected: unknown): void => expect(plain(actual)).toEqual(plain(expected))

/** An installation, its lease, and the store: where most tests begin. */
export const leased = (seed: number) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const installation = yield* install(intentOf(seed))
    return { store, installation, held: yield* lease(installation) }
  })

/** A genuine receipt: the upload over a network that accepts everything. */
export const receiptOf = (held: Lease.Lease, entry: Ledger.Prepared | Ledger.Exposed) =>
  uploadKeyPackage(held, entry).pipe(
    // Newer rows may come in while an upload is under way: this one began when its row was the newest.
    Effect.updateService(KeyPackageStore, (store) => ({
      ...store,
      getNewest: () => Effect.succeed(Option.some(entry))
    })),
    Effect.provide(acceptingApi)
  )

/** Inserts a package. */
export const prepare = (held: Lease.Lease, generated: GeneratedKeyPackage, at: DateTime.Utc = T0) =>
  Effect.flatMap(KeyPackageStore, (store) => store.insertKeyPackageHistory(held, generated, insertAt(at)))

/** Inserts and exposes. */
export const expose = (held: Lease.Lease, generated: GeneratedKeyPackage, at: DateTime.Utc = T0) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    return yield* store.markExposed(held, yield* prepare(held, generated, at), at)
  })

/** Inserts, exposes and publishes. */
export const publish = (held: Lease.Lease, generated: GeneratedKeyPackage, at: DateTime.Utc = T0) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const receipt = yield* receiptOf(held, yield* prepare(held, generated, at))
    return yield* store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publicationAt(at))
  })

/** Inserts, exposes and rejects. */
export const reject = (held: Lease.Lease, generated: GeneratedKeyPackage, at: DateTime.Utc = T0) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    return yield* store.markRejected(held, yield* expose(held, generated, at), rejectionAt(at))
  })

/** The keys, readable for a comparison. */
export const reveal = (keys: KeyPackagePrivateKeys) => ({
  initKey: Redacted.value(keys.initKey),
  encryptionKey: Redacted.value(keys.encryptionKey),
  postQuantumKey: Option.getOrNull(Option.map(keys.postQuantumKey, Redacted.value))
})

/** See `contracts/KeyPackageStoreContract.ts`. */
export const snapshot = (
  installations: ReadonlyArray<Pick<Installation, "installationId" | "inboxId">>
): Effect.Effect<unknown, StorageError, KeyPackageStore> =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    return yield* Effect.forEach(installations, ({ inboxId, installationId }) =>
      Effect.gen(function* () {
        const ledger = yield* store.getLedger(installationId)
        const newest = yield* Effect.either(store.getNewest(installationId))
        return {
          installation: yield* store.getInstallation(installationId),
          ofInbox: yield* store.getInstallations(inboxId),
          seed: Redacted.value((yield* store.getInstallationKey(installationId)).seed),
          newest: Either.mapLeft(newest, ({ reason }) => reason),
          history: yield* store.getHistory(installationId),
          ledger,
          retired: yield* store.getRetired(installationId),
          keys: yield* Effect.forEach(ledger.entries, ({ historyId }) =>
            Effect.map(store.getPrivateKeys(historyId), Option.map(reveal))
          )
        }
      })
    )
  })

/** The failure of an effect that must fail, and must leave these installations as they were. */
export const refused = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  installations: ReadonlyArray<Pick<Installation, "installationId" | "inboxId">>
) =>
  Effect.gen(function* () {
    const before = yield* snapshot(installations)
    const error = yield* Effect.flip(effect)
    expectEqual(yield* snapshot(installations), before)
    return error
  })

export const conflict = { _tag: "StorageError", reason: "Conflict" }
export const lost = { _tag: "LeaseError", reason: "Lost" }
