/**
 * Databases in folders of their own, gone with the test.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import type { Installation } from "@keyward/core/lifecycle/Installation"
import type { Lease } from "@keyward/core/lifecycle/Lease"
import { uploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore, type StorageError } from "@keyward/core/ports/KeyPackageStore"
import type { KeySealer } from "@keyward/core/ports/KeySealer"
import * as Arbitraries from "@keyward/test-utils/Arbitraries"
import * as SeededEntropy from "@keyward/test-utils/SeededEntropy"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import * as retirementPermit from "../../core/src/internal/retirementPermit.ts"
import * as seenServed from "../../core/src/internal/seenServed.ts"
import * as AesGcmKeySealer from "../src/AesGcmKeySealer.ts"
import * as SqliteKeyPackageStore from "../src/SqliteKeyPackageStore.ts"

/** A folder that goes with the scope. */
export const folder: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "keyward-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** The path of a database that is not there yet, in a folder that goes with the scope. */
export const filename: Effect.Effect<string, never, Scope.Scope> = Effect.map(folder, (path) =>
  join(path, "keyward.db")
)

/** A sealing key of 32 equal bytes. */
export const sealingKey = (keyId: string, byte: number): AesGcmKeySealer.SealingKey => ({
  keyId,
  key: Redacted.make(new Uint8Array(32).fill(byte))
})

/** The real sealer with a fixed key. */
export const sealer = (
  keyId = "2026-03",
  byte = 7,
  previous: ReadonlyArray<AesGcmKeySealer.SealingKey> = []
): Layer.Layer<KeySealer> =>
  AesGcmKeySealer.layer({ ...sealingKey(keyId, byte), previous }).pipe(
    Layer.provide(SeededEntropy.layer(`${keyId} ${byte}`)),
    Layer.orDie
  )

/** Genuine proofs without the network that they speak of: the mints themselves, which no source may import. */
export const proofs = { sighting: seenServed.issue, permit: retirementPermit.issue }

/** When every test begins. */
export const T0 = DateTime.unsafeMake("2026-03-01T00:00:00Z")
/** Sets the clock to it. */
export const atT0 = TestClock.setTime(DateTime.toEpochMillis(T0))
/** What a publication at `T0` writes. */
export const publication = {
  at: T0,
  deleteAt: Option.some(DateTime.add(T0, { hours: 24 })),
  reschedule: Schedule.published({
    startedAt: T0,
    madeAt: T0,
    rotateAt: DateTime.add(T0, { days: 30 }),
    probeAt: DateTime.add(T0, { days: 1 })
  })
}
/** The options of an insertion that changes nothing beside the ledger. */
export const insertion = { at: T0, trigger: "Manual" as const, reschedule: identity }

/** The same random value in every run. */
export const one = <A>(arbitrary: FastCheck.Arbitrary<A>, seed: number): A =>
  FastCheck.sample(arbitrary, { numRuns: 1, seed })[0] as A
/** A package of this number. */
export const packageOf = (installation: Installation, seed: number) =>
  one(Arbitraries.generatedKeyPackage(installation), seed)

/** Opens the store on a file, uses it and closes it again. */
export const withStore = <A, E>(
  filename: string,
  body: Effect.Effect<A, E, KeyPackageStore>,
  layer: Layer.Layer<KeySealer> = sealer()
): Effect.Effect<A, E | StorageError> =>
  Effect.provide(body, Layer.fresh(SqliteKeyPackageStore.layer({ filename }).pipe(Layer.provide(layer))))

/** Other hands in the database. */
export const withSql = <A, E>(
  filename: string,
  body: (sql: SqlClient.SqlClient) => Effect.Effect<A, E>,
  config: Partial<SqliteClient.SqliteClientConfig> = {}
): Effect.Effect<A, E> =>
  Effect.flatMap(SqlClient.SqlClient, body).pipe(
    Effect.provide(Layer.fresh(Layer.orDie(SqliteClient.layer({ filename, ...config }))))
  )

/** An installation of this number, and its lease. */
export const installed = (seed: number) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const intent = { ...one(Arbitraries.intent, seed), label: `label ${seed}` }
    const installation = yield* store.findOrCreateInstallation(intent)
    const { installationId } = installation
    const lease = yield* store.acquireLease(installationId, { now: T0, duration: Duration.minutes(5) })
    return { installation, lease }
  })

/** One rotation over a network that says yes. */
export const rotate = (installation: Installation, lease: Lease, seed: number) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const prepared = yield* store.insertKeyPackageHistory(lease, packageOf(installation, seed), insertion)
    const receipt = yield* uploadKeyPackage(lease, prepared).pipe(
      Effect.provide(Layer.mock(ApiClient, { uploadKeyPackage: () => Effect.void }))
    )
    return yield* store.markKeyPackagesBeforeIdToBeDeleted(lease, receipt, publication)
  })

/** Two installations with rows in every state. */
export const populate = Effect.gen(function* () {
  const store = yield* KeyPackageStore
  const one = yield* installed(1)
  const two = yield* installed(2)
  yield* store.saveIdentityUpdate(one.lease, new Uint8Array([1, 2, 3]), T0)
  yield* store.markRegistered(one.lease, T0)
  yield* rotate(one.installation, one.lease, 10)
  yield* rotate(one.installation, one.lease, 11)
  const exposed = yield* store.insertKeyPackageHistory(one.lease, packageOf(one.installation, 12), insertion)
  yield* store.markExposed(one.lease, exposed, T0)
  yield* store.insertKeyPackageHistory(one.lease, packageOf(one.installation, 13), insertion)
  yield* rotate(two.installation, two.lease, 14)
  return { one, two, installations: [one.installation, two.installation] }
})

/** Everything that is in the files of a database. */
export const raw = (filename: string): Buffer =>
  Buffer.concat(
    ["", "-wal", "-shm", "-journal"]
      .map((suffix) => filename + suffix)
      .filter(existsSync)
      .map((path) => readFileSync(path))
  )

/** Joins a fiber that sleeps between its tries, in no time: what it does in between takes turns of the event loop. */
export const joinInTime = <A, E>(fiber: Fiber.Fiber<A, E>): Effect.Effect<A, E> =>
  Effect.gen(function* () {
    while (Option.isNone(yield* Fiber.poll(fiber))) {
      yield* TestClock.adjust("1 second")
      yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
    }
    return yield* Fiber.join(fiber)
  })
