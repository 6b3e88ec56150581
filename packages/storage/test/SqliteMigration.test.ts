/**
 * Databases of earlier releases: everything in them is kept, and a migration that cannot finish has not begun.
 */
import { readFileSync } from "node:fs"
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { describe, expect, it } from "@effect/vitest"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { snapshot } from "@keyward/test-utils/contracts/KeyPackageStoreContract"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Refused } from "../src/internal/sqliteErrors.ts"
import { MIGRATIONS_TABLE, migrateTo, migrations } from "../src/internal/sqliteSchema.ts"
import * as transactions from "../src/internal/sqliteTransaction.ts"
import * as SqliteKeyPackageStore from "../src/SqliteKeyPackageStore.ts"
import {
  atT0,
  filename,
  insertion,
  packageOf,
  populate,
  publication,
  sealer,
  T0,
  withSql,
  withStore
} from "./fixture.ts"

/** Brings a database to these schemas, as a release that knows no others does. */
const migrateWith = (
  file: string,
  known: Parameters<typeof migrateTo>[1],
  config: Partial<SqliteClient.SqliteClientConfig> = {}
) =>
  withSql(
    file,
    (sql) =>
      Effect.flatMap(transactions.make(sql), ({ write }) =>
        write(Effect.provideService(migrateTo(MIGRATIONS_TABLE, known), SqlClient.SqlClient, sql))
      ),
    config
  )

const schema1 = { "0001_create_ledger": migrations["0001_create_ledger"] }

const rowColumns = `history_id, installation_id, state, ref, key_package, not_before, not_after, init_key, post_quantum_key,
  created_at, exposed_at, published_at, superseded_by, superseded_at, delete_at`
const installationColumns = `seq, installation_id, inbox_id, label, created_at, sealing_key_id, sealed_key, registration,
  identity_update, registered_at`

/** A database of the first schema with two installations and rows in every state that it knew. */
const earlier = Effect.gen(function* () {
  const donor = yield* filename
  const { before, found } = yield* withStore(
    donor,
    Effect.gen(function* () {
      const found = yield* populate
      return { found, before: yield* snapshot(found.installations) }
    })
  )
  const file = yield* filename
  yield* migrateWith(file, schema1)
  yield* withSql(file, (sql) =>
    Effect.gen(function* () {
      yield* sql`ATTACH ${donor} AS donor`
      for (const statement of [
        "INSERT INTO keyward_sealing_keys SELECT * FROM donor.keyward_sealing_keys",
        `INSERT INTO keyward_installations (${installationColumns}, next_rotation_at)
          SELECT ${installationColumns}, schedule ->> '$.rotateAt' FROM donor.keyward_installations`,
        "INSERT INTO keyward_leases SELECT * FROM donor.keyward_leases",
        `INSERT INTO keyward_key_packages (${rowColumns}) SELECT ${rowColumns} FROM donor.keyward_key_packages`,
        "INSERT INTO keyward_private_keys SELECT * FROM donor.keyward_private_keys"
      ]) {
        yield* sql.unsafe(statement)
      }
    })
  )
  return { file, before, ...found }
})

/** All that a database holds, and the tables that hold it. */
const dump = (file: string) =>
  withSql(file, (sql) =>
    Effect.gen(function* () {
      const tables = yield* sql<{ name: string }>`SELECT name, sql FROM sqlite_master ORDER BY name`
      const names = tables.map(({ name }) => name).filter((name) => /^(keyward|sqlite_sequence)/.test(name))
      const all = yield* Effect.forEach(names, (name) =>
        Effect.orElseSucceed(sql.unsafe(`SELECT quote(t.rowid), t.* FROM ${name} AS t`), () => [])
      )
      return { tables, all }
    })
  )

describe("a database of the first schema", () => {
  it.effect("keeps every row, key and lease, and its rotations stay due when they were", () =>
    Effect.gen(function* () {
      yield* atT0
      const { before, file, installations, one, two } = yield* earlier
      const { after, found } = yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          return {
            after: yield* snapshot(installations),
            found: yield* Effect.forEach([one, two], ({ installation }) =>
              Effect.map(store.getInstallation(installation.installationId), Option.getOrThrow)
            )
          }
        })
      )
      const withoutSchedule = (value: unknown): unknown =>
        JSON.parse(
          JSON.stringify(value, (key, part: unknown) =>
            key === "schedule" ? undefined : typeof part === "bigint" ? String(part) : part
          )
        )
      expect(withoutSchedule(after)).toEqual(withoutSchedule(before))

      const rotateAt = Option.some(DateTime.add(T0, { days: 30 }))
      const probeAt = Option.some(DateTime.unsafeMake(0))
      // The first has a superseded row; the second has only ever published one.
      expect(found.map(({ schedule }) => schedule)).toEqual([
        { ...Schedule.empty, rotateAt, probeAt, cleanAt: publication.deleteAt },
        { ...Schedule.empty, rotateAt, probeAt }
      ])
      const due = yield* withSql(file, (sql) => sql`SELECT due_at FROM keyward_installations`)
      expect(due).toEqual([{ due_at: 0 }, { due_at: 0 }])
      yield* withSql(file, (sql) =>
        Effect.gen(function* () {
          expect(yield* sql`PRAGMA integrity_check`).toEqual([{ integrity_check: "ok" }])
          expect(yield* sql`PRAGMA foreign_key_check`).toEqual([])
          const left = yield* sql`SELECT name FROM sqlite_master WHERE sql LIKE '%\\_1%' ESCAPE '\\'`
          expect(left).toEqual([])
        })
      )
    }).pipe(Effect.scoped)
  )

  it.effect("goes on with its history ids, also past those whose rows are gone", () =>
    Effect.gen(function* () {
      yield* atT0
      const { file, one } = yield* earlier
      yield* withSql(file, (sql) => sql`UPDATE sqlite_sequence SET seq = 41 WHERE name = 'keyward_key_packages'`)
      const { historyId } = yield* withStore(
        file,
        Effect.flatMap(KeyPackageStore, (store) =>
          store.insertKeyPackageHistory(one.lease, packageOf(one.installation, 30), insertion)
        )
      )
      expect(historyId).toBe(42)
      const sequence = yield* withSql(file, (sql) => sql`SELECT name, seq FROM sqlite_sequence ORDER BY name`)
      expect(sequence).toEqual([
        { name: "keyward_installations", seq: 2 },
        { name: "keyward_key_packages", seq: 42 }
      ])
    }).pipe(Effect.scoped)
  )

  it.effect("[65] carries a row over that other hands have damaged, and goes on", () =>
    Effect.gen(function* () {
      yield* atT0
      const { file, one } = yield* earlier
      yield* withSql(file, (sql) =>
        Effect.zipRight(
          sql`PRAGMA ignore_check_constraints = ON`,
          sql`UPDATE keyward_key_packages SET state = 'Sent', init_key = x'00' WHERE history_id = 3`
        )
      )
      const { entries, unreadable } = yield* withStore(
        file,
        Effect.flatMap(KeyPackageStore, (store) => store.getLedger(one.installation.installationId))
      )
      expect(entries.map(({ historyId }) => Number(historyId))).toEqual([1, 2, 4])
      expect(unreadable).toEqual([{ historyId: 3, column: "state" }])
      // The checks are on again for everybody else.
      const late = yield* withStore(file, Effect.void).pipe(
        Effect.zipRight(
          withSql(file, (sql) => Effect.flip(sql`UPDATE keyward_key_packages SET state = 'Sent' WHERE history_id = 1`))
        )
      )
      expect(late.cause).toMatchObject({ code: "SQLITE_CONSTRAINT_CHECK" })
    }).pipe(Effect.scoped)
  )

  it.effect("checks are on again on the client that has migrated it", () =>
    Effect.gen(function* () {
      yield* atT0
      const { file } = yield* earlier
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* SqliteKeyPackageStore.make
        const error = yield* Effect.flip(sql`UPDATE keyward_key_packages SET state = 'Sent'`)
        expect(error.cause).toMatchObject({ code: "SQLITE_CONSTRAINT_CHECK" })
      }).pipe(Effect.provide([SqliteClient.layer({ filename: file }), sealer()]))
    }).pipe(Effect.scoped)
  )

  it.effect("[11] is left as it was by a migration that fails at its end", () =>
    Effect.gen(function* () {
      yield* atT0
      const { file } = yield* earlier
      const before = yield* dump(file)
      const failing = {
        ...migrations,
        "0003_fails": Effect.fail(new SqlError({ cause: { code: "SQLITE_IOERR" }, message: "injected" }))
      }
      yield* Effect.flip(migrateWith(file, failing))
      expect(yield* dump(file)).toEqual(before)
    }).pipe(Effect.scoped)
  )

  it.effect("[11] [62] is left as it was by a migration that runs out of disk, wherever it does", () =>
    Effect.gen(function* () {
      yield* atT0
      const { file, installations } = yield* earlier
      const dumped = yield* dump(file)
      const [pages] = yield* withSql(file, (sql) => sql<{ page_count: number }>`PRAGMA page_count`)
      let failures = 0
      for (let room = 0; room < 100; room++) {
        const exit = yield* Effect.exit(
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* sql.unsafe(`PRAGMA max_page_count = ${(pages?.page_count ?? 0) + room}`)
            return yield* SqliteKeyPackageStore.make
          }).pipe(Effect.provide([SqliteClient.layer({ filename: file }), sealer()]))
        )
        if (exit._tag === "Success") break
        failures++
        expect(exit).toMatchObject({ cause: { error: { _tag: "StorageError", operation: "open", reason: "Full" } } })
        expect(yield* dump(file)).toEqual(dumped)
      }
      expect(failures).toBeGreaterThan(5)
      const histories = yield* withStore(
        file,
        Effect.flatMap(KeyPackageStore, (store) =>
          Effect.forEach(installations, ({ installationId }) => store.getHistory(installationId))
        )
      )
      expect(histories.map(({ length }) => length)).toEqual([4, 1])
    }).pipe(Effect.scoped)
  )
})

describe("a release that knows only the first schema", () => {
  it.effect("[60] refuses a database of this one, and writes nothing", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* withStore(file, populate)
      const before = readFileSync(file)
      const error = yield* Effect.flip(migrateWith(file, schema1))
      expect(error).toBeInstanceOf(Refused)
      expect(error).toMatchObject({
        reason: "NewerSchema",
        detail: "the database has schema 2, this release knows 1"
      })
      expect(readFileSync(file).equals(before)).toBe(true)
    }).pipe(Effect.scoped)
  )
})
