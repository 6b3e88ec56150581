/**
 * The SQLite store on real files: durability, sealing, and what goes wrong with disks, schemas, keys and rows.
 */
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { inspect } from "node:util"
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { describe, expect, it } from "@effect/vitest"
import type { Installation } from "@keyward/core/lifecycle/Installation"
import type { Lease } from "@keyward/core/lifecycle/Lease"
import { uploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore, type StorageError } from "@keyward/core/ports/KeyPackageStore"
import type { KeySealer } from "@keyward/core/ports/KeySealer"
import * as Arbitraries from "@keyward/test-utils/Arbitraries"
import { snapshot } from "@keyward/test-utils/contracts/KeyPackageStoreContract"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/TestClock"
import * as Tracer from "effect/Tracer"
import * as SqliteKeyPackageStore from "../src/SqliteKeyPackageStore.ts"
import { filename, sealer, sealingKey } from "./fixture.ts"

const T0 = DateTime.unsafeMake("2026-03-01T00:00:00Z")
const atT0 = TestClock.setTime(DateTime.toEpochMillis(T0))
const publication = {
  at: T0,
  deleteAt: Option.some(DateTime.add(T0, { hours: 24 })),
  reschedule: Schedule.published({
    startedAt: T0,
    rotateAt: DateTime.add(T0, { days: 30 }),
    probeAt: DateTime.add(T0, { days: 1 })
  })
}
const insertion = { at: T0, trigger: "Manual" as const, reschedule: identity }

const one = <A>(arbitrary: FastCheck.Arbitrary<A>, seed: number): A =>
  FastCheck.sample(arbitrary, { numRuns: 1, seed })[0] as A
const packageOf = (installation: Installation, seed: number) => one(Arbitraries.generatedKeyPackage(installation), seed)

/** Opens the store on a file, uses it and closes it again. */
const withStore = <A, E>(
  filename: string,
  body: Effect.Effect<A, E, KeyPackageStore>,
  layer: Layer.Layer<KeySealer> = sealer()
): Effect.Effect<A, E | StorageError> =>
  Effect.provide(body, Layer.fresh(SqliteKeyPackageStore.layer({ filename }).pipe(Layer.provide(layer))))

/** Other hands in the database. */
const withSql = <A, E>(
  filename: string,
  body: (sql: SqlClient.SqlClient) => Effect.Effect<A, E>,
  config: Partial<SqliteClient.SqliteClientConfig> = {}
): Effect.Effect<A, E> =>
  Effect.flatMap(SqlClient.SqlClient, body).pipe(
    Effect.provide(Layer.fresh(Layer.orDie(SqliteClient.layer({ filename, ...config }))))
  )

const installed = (seed: number) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const intent = { ...one(Arbitraries.intent, seed), label: `label ${seed}` }
    const installation = yield* store.findOrCreateInstallation(intent)
    const { installationId } = installation
    const lease = yield* store.acquireLease(installationId, { now: T0, duration: Duration.minutes(5) })
    return { installation, lease }
  })

const rotate = (installation: Installation, lease: Lease, seed: number) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const prepared = yield* store.insertKeyPackageHistory(lease, packageOf(installation, seed), insertion)
    const receipt = yield* uploadKeyPackage(lease, prepared).pipe(
      Effect.provide(Layer.mock(ApiClient, { uploadKeyPackage: () => Effect.void }))
    )
    return yield* store.markKeyPackagesBeforeIdToBeDeleted(lease, receipt, publication)
  })

/** Two installations with rows in every state. */
const populate = Effect.gen(function* () {
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

const raw = (filename: string): Buffer =>
  Buffer.concat(
    ["", "-wal", "-shm", "-journal"]
      .map((suffix) => filename + suffix)
      .filter(existsSync)
      .map((path) => readFileSync(path))
  )

describe("durability", () => {
  it.effect("a store that is opened again has everything", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { before, installations } = yield* withStore(
        file,
        Effect.gen(function* () {
          const { installations } = yield* populate
          return { installations, before: yield* snapshot(installations) }
        })
      )
      expect(yield* withStore(file, snapshot(installations))).toEqual(before)
    }).pipe(Effect.scoped)
  )

  it.effect("layerConfig takes the path from the configuration, and says which name is missing", () =>
    Effect.gen(function* () {
      const file = yield* filename
      const layer = SqliteKeyPackageStore.layerConfig({ filename: Config.string("KEYWARD_DB") }).pipe(
        Layer.provide(sealer())
      )
      const open = (entries: ReadonlyArray<readonly [string, string]>) =>
        Effect.scoped(Layer.build(layer)).pipe(Effect.withConfigProvider(ConfigProvider.fromMap(new Map(entries))))
      yield* open([["KEYWARD_DB", file]])
      expect(existsSync(file)).toBe(true)
      expect(String(yield* Effect.flip(open([])))).toContain("KEYWARD_DB")
    }).pipe(Effect.scoped)
  )

  it.effect("[12] the connection is set to survive power loss and to zero what it deletes", () =>
    Effect.gen(function* () {
      const file = yield* filename
      const settings = yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* SqliteKeyPackageStore.make
        return yield* Effect.forEach(["journal_mode", "synchronous", "secure_delete", "foreign_keys"], (name) =>
          Effect.map(sql.unsafe(`PRAGMA ${name}`), ([row]) => Object.values(row ?? {})[0])
        )
      }).pipe(Effect.provide([SqliteClient.layer({ filename: file }), sealer()]))
      expect(settings).toEqual(["wal", 2, 1, 1])
    }).pipe(Effect.scoped)
  )

  it.effect("an empty file gets the schema once; opening again writes nothing", () =>
    Effect.gen(function* () {
      const file = yield* filename
      writeFileSync(file, "")
      yield* withStore(file, Effect.void)
      const first = readFileSync(file)
      const migrations = yield* withSql(file, (sql) => sql`SELECT migration_id, name FROM keyward_migrations`)
      expect(migrations).toEqual([{ migration_id: 1, name: "create_ledger" }])
      yield* withStore(file, Effect.void)
      yield* withStore(file, Effect.void)
      expect(readFileSync(file).equals(first)).toBe(true)
    }).pipe(Effect.scoped)
  )

  it.effect("[11] a migration that cannot finish leaves no trace of itself", () =>
    Effect.gen(function* () {
      const file = yield* filename
      yield* withSql(file, (sql) => sql`CREATE TABLE theirs (x)`)
      const tables = (sql: SqlClient.SqlClient) => sql`SELECT name FROM sqlite_master`
      for (let pages = 3; pages < 12; pages++) {
        const exit = yield* Effect.exit(
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* sql.unsafe(`PRAGMA max_page_count = ${pages}`)
            return yield* SqliteKeyPackageStore.make
          }).pipe(Effect.provide([SqliteClient.layer({ filename: file }), sealer()]))
        )
        expect(exit).toMatchObject({ _tag: "Failure", cause: { error: { _tag: "StorageError", reason: "Full" } } })
        expect(yield* withSql(file, tables)).toEqual([{ name: "theirs" }])
      }
      yield* withStore(file, Effect.void)
    }).pipe(Effect.scoped)
  )
})

describe("sealing keys", () => {
  it.effect("[68] a wrong key is refused, and nothing is written", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* withStore(file, populate)
      const before = readFileSync(file)
      const wrong = [
        ["the right id, another key", sealer("2026-03", 8)],
        ["another id, the earlier key not configured", sealer("2027-03", 8)],
        ["another id, the earlier key wrong", sealer("2027-03", 8, [sealingKey("2026-03", 9)])]
      ] as const
      for (const [title, layer] of wrong) {
        const error = yield* Effect.flip(withStore(file, Effect.void, layer))
        expect(error, title).toMatchObject({ _tag: "StorageError", operation: "open", reason: "WrongSealingKey" })
        expect(readFileSync(file).equals(before), title).toBe(true)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("are rotated: rows of the earlier key open, and after resealing it is not needed any more", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { before, installations } = yield* withStore(
        file,
        Effect.gen(function* () {
          const { installations } = yield* populate
          return { installations, before: yield* snapshot(installations) }
        })
      )
      const rotated = sealer("2027-03", 9, [sealingKey("2026-03", 7)])
      expect(yield* withStore(file, snapshot(installations), rotated)).toEqual(before)
      const keyIds = (sql: SqlClient.SqlClient) =>
        sql`SELECT sealing_key_id AS id FROM keyward_installations UNION ALL
          SELECT sealing_key_id FROM keyward_private_keys ORDER BY id`
      yield* withStore(file, installed(3), rotated)
      const mixed = yield* withSql(file, keyIds)
      expect(mixed.filter(({ id }) => id === "2026-03")).toHaveLength(7)
      expect(mixed.filter(({ id }) => id === "2027-03")).toHaveLength(1)

      const reseal = SqliteKeyPackageStore.resealAll({ filename: file }).pipe(Effect.provide(rotated))
      expect(yield* reseal).toBe(7)
      expect(yield* reseal).toBe(0)
      expect((yield* withSql(file, keyIds)).every(({ id }) => id === "2027-03")).toBe(true)
      expect(yield* withStore(file, snapshot(installations), sealer("2027-03", 9))).toEqual(before)
      const error = yield* Effect.flip(withStore(file, Effect.void, sealer()))
      expect(error).toMatchObject({ reason: "WrongSealingKey" })
    }).pipe(Effect.scoped)
  )

  it.effect("[80] resealing fails with Busy while a reader keeps the WAL, which still has the old seals", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* withStore(file, installed(1))
      const rotated = sealer("2027-03", 9, [sealingKey("2026-03", 7)])
      const reseal = SqliteKeyPackageStore.resealAll({ filename: file }).pipe(Effect.provide(rotated))
      const error = yield* withSql(file, (other) =>
        Effect.gen(function* () {
          yield* other`BEGIN`
          yield* other`SELECT count(*) FROM keyward_installations`
          const fiber = yield* Effect.fork(Effect.flip(reseal))
          yield* TestClock.adjust("1 minute")
          const failed = yield* Fiber.join(fiber)
          yield* other`COMMIT`
          return failed
        })
      )
      expect(error).toMatchObject({ _tag: "StorageError", operation: "resealAll", reason: "Busy" })
      expect(yield* reseal).toBe(0)
    }).pipe(Effect.scoped)
  )

  it.effect("a new file is for its owner alone", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const modes = yield* withStore(
        file,
        Effect.zipRight(
          installed(1),
          Effect.sync(() => [file, `${file}-wal`].map((path) => statSync(path).mode & 0o777))
        )
      )
      expect(modes).toEqual([0o600, 0o600])
    }).pipe(Effect.scoped)
  )

  it.effect("[60] a process that still seals with a key that was retired is refused", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const { installation, lease } = yield* installed(1)
          yield* SqliteKeyPackageStore.resealAll({ filename: file }).pipe(
            Effect.provide(sealer("2027-03", 9, [sealingKey("2026-03", 7)]))
          )
          const late = store.insertKeyPackageHistory(lease, packageOf(installation, 2), insertion)
          expect(yield* Effect.flip(late)).toMatchObject({ _tag: "StorageError", reason: "WrongSealingKey" })
          expect(yield* store.getHistory(installation.installationId)).toEqual([])
        })
      )
    }).pipe(Effect.scoped)
  )

  it.effect("a sealed key that was moved to another row does not open there", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one, two } = yield* withStore(file, populate)
      yield* withSql(file, (sql) =>
        Effect.zipRight(
          sql`UPDATE keyward_private_keys SET sealed_keys =
            (SELECT sealed_keys FROM keyward_private_keys WHERE history_id = 1) WHERE history_id = 2`,
          sql`UPDATE keyward_installations SET sealed_key =
            (SELECT sealed_key FROM keyward_installations WHERE seq = 1) WHERE seq = 2`
        )
      )
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const [, second] = yield* store.getHistory(one.installation.installationId)
          expect(yield* Effect.flip(store.getPrivateKeys(second?.historyId ?? (0 as never)))).toMatchObject({
            reason: "Corrupt",
            detail: "table keyward_private_keys, row 2, column sealed_keys"
          })
          expect(yield* Effect.flip(store.getInstallationKey(two.installation.installationId))).toMatchObject({
            reason: "Corrupt",
            detail: "table keyward_installations, row 2, column sealed_key"
          })
          yield* store.getInstallationKey(one.installation.installationId)
        })
      )
    }).pipe(Effect.scoped)
  )
})

describe("a disk or file that fails", () => {
  it.effect("a database of a newer schema is refused, and nothing is written", () =>
    Effect.gen(function* () {
      const file = yield* filename
      yield* withStore(file, Effect.void)
      yield* withSql(file, (sql) => sql`INSERT INTO keyward_migrations (migration_id, name) VALUES (9999, 'later')`)
      const before = readFileSync(file)
      const error = yield* Effect.flip(withStore(file, Effect.void))
      expect(error).toMatchObject({
        reason: "NewerSchema",
        detail: "the database has schema 9999, this release knows 1"
      })
      expect(readFileSync(file).equals(before)).toBe(true)
    }).pipe(Effect.scoped)
  )

  it.effect("[63] a read-only file is read; each write is ReadOnly", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one, before } = yield* withStore(
        file,
        Effect.gen(function* () {
          const { one } = yield* populate
          return { one, before: yield* snapshot([one.installation]) }
        })
      )
      const readonly = SqliteClient.layer({ filename: file, readonly: true, disableWAL: true })
      yield* Effect.gen(function* () {
        const store = yield* KeyPackageStore
        expect(yield* snapshot([one.installation])).toEqual(before)
        const error = yield* Effect.flip(
          store.insertKeyPackageHistory(one.lease, packageOf(one.installation, 99), insertion)
        )
        expect(error).toMatchObject({ operation: "insertKeyPackageHistory", reason: "ReadOnly", isRetryable: false })
        expect(yield* snapshot([one.installation])).toEqual(before)
      }).pipe(Effect.provide(SqliteKeyPackageStore.layerClient.pipe(Layer.provide([readonly, sealer()]))))
    }).pipe(Effect.scoped)
  )

  it.effect("a folder that is not there is Unavailable, a file that is no database is Corrupt and left alone", () =>
    Effect.gen(function* () {
      const file = yield* filename
      const missing = yield* Effect.flip(withStore(`${file}/missing/keyward.db`, Effect.void))
      expect(missing).toMatchObject({ _tag: "StorageError", operation: "open", reason: "Unavailable" })
      const text = "this is a text about databases, long enough to look like one. ".repeat(100)
      writeFileSync(file, text)
      const corrupt = yield* Effect.flip(withStore(file, Effect.void))
      expect(corrupt).toMatchObject({ _tag: "StorageError", operation: "open", reason: "Corrupt" })
      expect(readFileSync(file, "utf8")).toBe(text)
    }).pipe(Effect.scoped)
  )

  it.effect("[62] a full disk is Full, nothing is half written, and it goes on once there is room", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const store = yield* SqliteKeyPackageStore.make
        yield* Effect.gen(function* () {
          const { installation, lease } = yield* installed(1)
          const [pages] = yield* sql<{ page_count: number }>`PRAGMA page_count`
          yield* sql.unsafe(`PRAGMA max_page_count = ${(pages?.page_count ?? 0) + 4}`)
          let error: unknown
          let count = 0
          let before: unknown
          for (; count < 100; count++) {
            before = yield* snapshot([installation])
            const generated = packageOf(installation, 100 + count)
            const inserted = yield* Effect.either(store.insertKeyPackageHistory(lease, generated, insertion))
            if (inserted._tag === "Right") continue
            error = inserted.left
            break
          }
          expect(error).toMatchObject({ _tag: "StorageError", reason: "Full", isRetryable: false })
          expect(count).toBeGreaterThan(0)
          expect(yield* snapshot([installation])).toEqual(before)
          yield* sql.unsafe("PRAGMA max_page_count = 100000")
          yield* store.insertKeyPackageHistory(lease, packageOf(installation, 100 + count), insertion)
          expect(yield* store.getHistory(installation.installationId)).toHaveLength(count + 1)
        }).pipe(Effect.provideService(KeyPackageStore, store))
      }).pipe(Effect.provide([SqliteClient.layer({ filename: file }), sealer()]))
    }).pipe(Effect.scoped)
  )

  it.effect("[61] a database that another holds is Busy after a bounded time, and nothing is written", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* withStore(
        file,
        Effect.gen(function* () {
          const { installation, lease } = yield* installed(1)
          const store = yield* KeyPackageStore
          yield* withSql(file, (other) =>
            Effect.gen(function* () {
              yield* other`BEGIN IMMEDIATE`
              const insert = store.insertKeyPackageHistory(lease, packageOf(installation, 2), insertion)
              const fiber = yield* Effect.fork(Effect.flip(insert))
              // The waits between the tries, all of them, in no time.
              yield* Effect.forEach(Array.from({ length: 30 }), () => TestClock.adjust("1 second"))
              expect(yield* Fiber.join(fiber)).toMatchObject({
                _tag: "StorageError",
                operation: "insertKeyPackageHistory",
                reason: "Busy",
                isRetryable: true
              })
              // Readers do not wait for the writer.
              expect(yield* store.getHistory(installation.installationId)).toEqual([])
              yield* other`ROLLBACK`
              yield* insert
            })
          )
        })
      )
    }).pipe(Effect.scoped)
  )
})

describe("rows edited by other hands", () => {
  const edits: ReadonlyArray<readonly [column: string, edit: string]> = [
    ["state", "state = 'Published, surely'"],
    ["exposed_at", "state = 'Exposed', exposed_at = NULL"],
    ["ref", "ref = 'xyz'"],
    ["init_key", "init_key = x'00'"],
    ["post_quantum_key", "post_quantum_key = x'0102'"],
    ["not_after", "not_after = -1"],
    ["not_after", "not_after = 9223372036854775807"],
    ["delete_at", "state = 'Exposed', exposed_at = 1, delete_at = 1"],
    ["created_at", "created_at = 9223372036854775807"]
  ]
  for (const [column, edit] of edits) {
    it.effect(`[65] ${edit}: Corrupt names row and column, and stops nothing else`, () =>
      Effect.gen(function* () {
        yield* atT0
        const file = yield* filename
        const { one, two } = yield* withStore(
          file,
          Effect.gen(function* () {
            const found = yield* populate
            yield* rotate(found.two.installation, found.two.lease, 20)
            return found
          })
        )
        yield* withSql(file, (sql) =>
          Effect.zipRight(
            sql`PRAGMA ignore_check_constraints = ON`,
            sql.unsafe(`UPDATE keyward_key_packages SET ${edit} WHERE history_id = 3`)
          )
        )
        yield* withStore(
          file,
          Effect.gen(function* () {
            const store = yield* KeyPackageStore
            const error = yield* Effect.flip(store.getHistory(one.installation.installationId))
            expect(error).toMatchObject({
              _tag: "StorageError",
              operation: "getHistory",
              reason: "Corrupt",
              detail: `table keyward_key_packages, row 3, column ${column}`
            })
            expect(error.cause).toBeUndefined()
            expect(Option.isSome(yield* store.getNewest(one.installation.installationId))).toBe(true)
            expect(yield* store.getHistory(two.installation.installationId)).toHaveLength(2)
          })
        )
      }).pipe(Effect.scoped)
    )
  }

  it.effect("[65] a row that cannot be read is superseded all the same and does not stop the rotation", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one } = yield* withStore(file, populate)
      // A time that no DateTime holds, which the table's checks do not know.
      yield* withSql(
        file,
        (sql) => sql`UPDATE keyward_key_packages SET created_at = 9223372036854775807
        WHERE history_id = 2`
      )
      yield* withStore(
        file,
        Effect.gen(function* () {
          const marked = yield* rotate(one.installation, one.lease, 20)
          expect(marked.superseded.map(({ historyId }) => Number(historyId))).toEqual([3, 4])
        })
      )
      const rows = yield* withSql(
        file,
        (sql) => sql`SELECT state, superseded_by, delete_at FROM keyward_key_packages
        WHERE history_id = 2`
      )
      const deleteAt = DateTime.toEpochMillis(publication.deleteAt.value)
      expect(rows).toEqual([{ state: "Superseded", superseded_by: 6, delete_at: deleteAt }])
    }).pipe(Effect.scoped)
  )

  it.effect("[66] a row whose private keys are gone is Corrupt, not a package without keys", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one } = yield* withStore(file, populate)
      yield* withSql(file, (sql) => sql`DELETE FROM keyward_private_keys WHERE history_id = 2`)
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const [, second] = yield* store.getHistory(one.installation.installationId)
          const error = yield* Effect.flip(store.getPrivateKeys(second?.historyId ?? (0 as never)))
          expect(error).toMatchObject({ reason: "Corrupt" })
          expect(error.detail).toMatch(/^table keyward_private_keys, row 2,/)
        })
      )
    }).pipe(Effect.scoped)
  )

  const impossible = [
    "UPDATE keyward_key_packages SET state = 'Sent'",
    "UPDATE keyward_key_packages SET exposed_at = NULL WHERE state = 'Exposed'",
    "UPDATE keyward_key_packages SET published_at = NULL WHERE state = 'Published'",
    "UPDATE keyward_key_packages SET exposed_at = NULL WHERE state = 'Published'",
    "UPDATE keyward_key_packages SET exposed_at = 1 WHERE state = 'Prepared'",
    "UPDATE keyward_key_packages SET delete_at = NULL WHERE state = 'Superseded'",
    "UPDATE keyward_key_packages SET superseded_by = NULL WHERE state = 'Superseded'",
    "UPDATE keyward_key_packages SET superseded_by = history_id WHERE state = 'Superseded'",
    "UPDATE keyward_key_packages SET delete_at = 1 WHERE state = 'Published'",
    "UPDATE keyward_key_packages SET init_key = x'00'",
    "UPDATE keyward_key_packages SET created_at = 'yesterday'",
    "UPDATE keyward_installations SET registration = 'Registered' WHERE registration = 'Intended'",
    "UPDATE keyward_installations SET identity_update = NULL WHERE registration = 'Registered'",
    "UPDATE keyward_leases SET fence = 0",
    "INSERT INTO keyward_private_keys SELECT 999, sealing_key_id, sealed_keys FROM keyward_private_keys LIMIT 1",
    "DELETE FROM keyward_key_packages WHERE history_id = 1"
  ]
  it.effect("the tables refuse states that cannot be", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* withStore(file, populate)
      yield* withSql(file, (sql) =>
        Effect.gen(function* () {
          yield* sql`PRAGMA foreign_keys = ON`
          for (const statement of impossible) {
            const error = yield* Effect.flip(sql.unsafe(statement))
            expect((error.cause as { code?: string }).code, statement).toMatch(/^SQLITE_CONSTRAINT/)
          }
        })
      )
    }).pipe(Effect.scoped)
  )
})

describe("[78] secrets", () => {
  it.effect("are in no file, log, span or error", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const seen: Array<string> = []
      const record = (value: unknown) => {
        seen.push(inspect(value, { depth: 12, maxArrayLength: null, maxStringLength: null, showHidden: true }))
      }
      const logger = Logger.make((entry) => record([entry.message, entry.annotations, entry.cause]))
      const native = yield* Effect.tracer
      const tracer = Tracer.make({
        context: (f, fiber) => native.context(f, fiber),
        span: (name, parent, context, links, startTime, kind, options) => {
          const span = native.span(name, parent, context, links, startTime, kind, options)
          record([name, options])
          const attribute = span.attribute.bind(span)
          span.attribute = (key, value) => {
            record([key, value])
            attribute(key, value)
          }
          const end = span.end.bind(span)
          span.end = (time, exit) => {
            // A successful exit is the method's own result, which belongs to its caller.
            if (Exit.isFailure(exit)) record(exit.cause)
            end(time, exit)
          }
          return span
        }
      })

      const secrets = yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const { one, installations } = yield* populate
          const secrets: Array<Uint8Array> = []
          for (const { installationId } of installations) {
            secrets.push(Redacted.value((yield* store.getInstallationKey(installationId)).seed))
            for (const { historyId } of yield* store.getHistory(installationId)) {
              const keys = Option.getOrThrow(yield* store.getPrivateKeys(historyId))
              secrets.push(
                ...[keys.initKey, keys.encryptionKey, ...Option.toArray(keys.postQuantumKey)].map(Redacted.value)
              )
            }
          }
          // Failures of every kind carry none either.
          record(
            yield* Effect.flip(store.insertKeyPackageHistory(one.lease, packageOf(one.installation, 10), insertion))
          )
          record(yield* Effect.flip(store.markRegistered({ ...one.lease, fence: 99 }, T0)))
          yield* withSql(
            file,
            (sql) => sql`UPDATE keyward_private_keys SET sealed_keys = zeroblob(93) WHERE history_id = 1`
          )
          const [first] = yield* store.getHistory(one.installation.installationId)
          record(yield* Effect.flip(store.getPrivateKeys(first?.historyId ?? (0 as never))))
          expect(secrets.length).toBeGreaterThan(12)
          // While the database is open, its WAL holds what was just written.
          expect(existsSync(`${file}-wal`)).toBe(true)
          const open = raw(file)
          for (const secret of secrets) expect(open.includes(Buffer.from(secret))).toBe(false)
          return secrets
        })
      ).pipe(
        Effect.withTracer(tracer),
        Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
        Logger.withMinimumLogLevel(LogLevel.All)
      )

      const closed = raw(file)
      const text = seen.join("\n")
      expect(text).toContain("INSERT INTO keyward_key_packages")
      for (const secret of secrets) {
        const bytes = Buffer.from(secret)
        expect(closed.includes(bytes)).toBe(false)
        // 16 of the 32 bytes, in the spellings of Node and of JSON.
        const part = bytes.subarray(8, 24)
        expect(text).not.toContain(part.toString("hex"))
        expect(text).not.toContain(part.toString("hex").replace(/(..)(?=.)/g, "$1 "))
        expect(text).not.toContain(part.toString("base64").slice(0, 20))
        expect(text.replace(/\s/g, "")).not.toContain([...part].join(","))
      }
    }).pipe(Effect.scoped)
  )

  it.effect("the search above finds a secret that is there", () =>
    Effect.gen(function* () {
      const file = yield* filename
      const secret = Buffer.from(new Uint8Array(32).map((_, index) => index + 100))
      yield* withSql(file, (sql) => Effect.zipRight(sql`CREATE TABLE t (b)`, sql`INSERT INTO t VALUES (${secret})`))
      expect(raw(file).includes(secret)).toBe(true)
    }).pipe(Effect.scoped)
  )
})

describe("query plans", () => {
  const hot = {
    "the newest row of an installation":
      "SELECT * FROM keyward_key_packages WHERE installation_id = 'a' ORDER BY history_id DESC LIMIT 1",
    "the earlier rows of an installation":
      "SELECT * FROM keyward_key_packages WHERE installation_id = 'a' AND history_id < 5 AND state IN ('Prepared')",
    "the next rotation":
      "SELECT * FROM keyward_installations WHERE next_rotation_at IS NOT NULL ORDER BY next_rotation_at LIMIT 10",
    "what is due for deletion": "SELECT * FROM keyward_key_packages WHERE delete_at <= 5 ORDER BY delete_at LIMIT 10",
    "a package by its ref": "SELECT * FROM keyward_key_packages WHERE ref = 'a'",
    "a package by its init key": "SELECT * FROM keyward_key_packages WHERE init_key = x'00'",
    "the installations of an inbox": "SELECT * FROM keyward_installations WHERE inbox_id = 'a'",
    "an installation by label": "SELECT * FROM keyward_installations WHERE inbox_id = 'a' AND label = 'b'",
    "a lease": "SELECT * FROM keyward_leases WHERE installation_id = 'a'"
  }
  it.effect("[77] every hot query walks an index: no table is read whole, nothing is sorted", () =>
    Effect.gen(function* () {
      const file = yield* filename
      yield* withStore(file, Effect.void)
      yield* withSql(file, (sql) =>
        Effect.forEach(Object.entries(hot), ([title, query]) =>
          Effect.map(sql.unsafe<{ detail: string }>(`EXPLAIN QUERY PLAN ${query}`), (steps) => {
            const plan = steps.map(({ detail }) => detail).join("; ")
            expect(plan, title).toMatch(/USING (INDEX|COVERING INDEX|PRIMARY KEY|INTEGER PRIMARY KEY)/)
            expect(plan, title).not.toMatch(/SCAN (?!\w+ USING INDEX)|TEMP B-TREE/)
          })
        )
      )
    }).pipe(Effect.scoped)
  )

  it.effect("the statements that the store sends do too", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const statements = new Set<string>()
      const native = yield* Effect.tracer
      const tracer = Tracer.make({
        context: (f, fiber) => native.context(f, fiber),
        span: (...args) => {
          const span = native.span(...args)
          const attribute = span.attribute.bind(span)
          span.attribute = (key, value) => {
            if (key === "db.query.text") statements.add(String(value))
            attribute(key, value)
          }
          return span
        }
      })
      yield* withStore(
        file,
        Effect.flatMap(populate, ({ installations }) => snapshot(installations))
      ).pipe(Effect.withTracer(tracer))
      const sent = [...statements].filter(
        (text) => /^(SELECT|UPDATE|INSERT)/.test(text) && /WHERE/.test(text) && !/sqlite_master/.test(text)
      )
      expect(sent.length).toBeGreaterThan(10)
      yield* withSql(file, (sql) =>
        Effect.forEach(sent, (text) =>
          Effect.map(
            sql.unsafe<{ detail: string }>(
              `EXPLAIN QUERY PLAN ${text}`,
              Array.from(text.matchAll(/\?/g), () => null)
            ),
            (steps) => {
              const plan = steps.map(({ detail }) => detail).join("; ")
              expect(plan, text).not.toMatch(/SCAN/)
            }
          )
        )
      )
    }).pipe(Effect.scoped)
  )
})

describe("an app's own client", () => {
  it.effect("a store used inside a transaction of that client is a bug, not a wait for ever", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const store = yield* SqliteKeyPackageStore.make
        return yield* Effect.exit(sql.withTransaction(store.findOrCreateInstallation(one(Arbitraries.intent, 1))))
      }).pipe(Effect.provide([SqliteClient.layer({ filename: ":memory:" }), sealer()]))
      expect(inspect(exit, { depth: 5 })).toContain("inside a transaction of its own SqlClient")
    })
  )

  it.effect("a transaction of another client does not catch the store's statements", () =>
    Effect.gen(function* () {
      const file = yield* filename
      const intent = one(Arbitraries.intent, 1)
      const { inboxId } = intent
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          yield* withSql(":memory:", (other) =>
            other
              .withTransaction(Effect.zipRight(store.findOrCreateInstallation(intent), Effect.fail("rolled back")))
              .pipe(Effect.flip)
          )
          expect(yield* store.getInstallations(inboxId)).toHaveLength(1)
        })
      )
    }).pipe(Effect.scoped)
  )
})
