/**
 * The SQLite store of places in Welcome topics keeps the contract of the port: on a file of its own, and over an app's client,
 * in whose transactions it takes part. What is wrong with the file is told, and never taken for a place.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { describe, expect, it } from "@effect/vitest"
import { InboxId } from "@keyward/core/identity/InboxId"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as Cursor from "@keyward/core/ports/WelcomeCursorStore"
import * as WelcomeCursorStoreContract from "@keyward/test-utils/contracts/WelcomeCursorStoreContract"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as SqliteKeyPackageStore from "../src/SqliteKeyPackageStore.ts"
import * as SqliteWelcomeCursorStore from "../src/SqliteWelcomeCursorStore.ts"
import { filename, sealer, T0 } from "./fixture.ts"

WelcomeCursorStoreContract.suite(
  "SqliteWelcomeCursorStore on a file",
  Layer.unwrapScoped(Effect.map(filename, (filename) => SqliteWelcomeCursorStore.layer({ filename })))
)

// A client that renames columns and keeps a rollback journal: the store must not mind.
WelcomeCursorStoreContract.suite(
  "SqliteWelcomeCursorStore over a client",
  SqliteWelcomeCursorStore.layerClient.pipe(
    Layer.provide(
      SqliteClient.layer({
        filename: ":memory:",
        disableWAL: true,
        transformQueryNames: (name) => `app_${name}`,
        transformResultNames: (name) => name.toUpperCase()
      })
    )
  )
)

const id = InstallationId.make("ab".repeat(32))

describe("SqliteWelcomeCursorStore", () => {
  it.scoped("shares a client, and a file, with the key package store, and outlives the process", () =>
    Effect.gen(function* () {
      const path = yield* filename
      const both = Layer.merge(SqliteKeyPackageStore.layerClient, SqliteWelcomeCursorStore.layerClient).pipe(
        Layer.provide(SqliteClient.layer({ filename: path })),
        Layer.provide(sealer())
      )
      yield* Effect.gen(function* () {
        const cursors = yield* Cursor.WelcomeCursorStore
        yield* cursors.resolve(id, 4n)
        yield* cursors.postpone(id, 5n, T0)
        yield* cursors.completeReading(id, { began: T0, upTo: 5n })
        const store = yield* KeyPackageStore
        expect(yield* store.getInstallations(InboxId.make("cd".repeat(32)))).toEqual([])
      }).pipe(Effect.provide(both))
      yield* Effect.gen(function* () {
        const cursor = yield* (yield* Cursor.WelcomeCursorStore).get(id)
        expect(cursor.position).toBe(5n)
        expect(cursor.unresolved.map((welcome) => [welcome.id, welcome.attempts])).toEqual([[5n, 1]])
        expect(Option.map(cursor.readAsOf, DateTime.formatIso)).toEqual(Option.some(DateTime.formatIso(T0)))
      }).pipe(Effect.provide(SqliteWelcomeCursorStore.layer({ filename: path })))
      yield* Effect.provide(KeyPackageStore, Layer.provide(SqliteKeyPackageStore.layer({ filename: path }), sealer()))
    })
  )

  it.scoped("takes part in a transaction of the app's own client: kept with its statements, or undone with them", () =>
    Effect.gen(function* () {
      const path = yield* filename
      const app = SqliteWelcomeCursorStore.layerClient.pipe(Layer.provideMerge(SqliteClient.layer({ filename: path })))
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const cursors = yield* Cursor.WelcomeCursorStore
        yield* sql`CREATE TABLE conversations (welcome INTEGER)`
        const handle = (welcome: bigint) =>
          Effect.gen(function* () {
            yield* sql`INSERT INTO conversations VALUES (${welcome})`
            expect(yield* cursors.resolve(id, welcome)).toBe(true)
            expect((yield* cursors.get(id)).position).toBe(welcome)
          })
        const count = Effect.map(sql`SELECT 1 FROM conversations`, (rows) => rows.length)

        yield* Effect.exit(sql.withTransaction(Effect.zipRight(handle(1n), Effect.fail("after all"))))
        expect((yield* cursors.get(id)).position).toBe(0n)
        expect(yield* count).toBe(0)

        yield* sql.withTransaction(handle(1n))
        expect((yield* cursors.get(id)).position).toBe(1n)
        expect(yield* count).toBe(1)

        yield* Effect.exit(sql.withTransaction(Effect.zipRight(cursors.postpone(id, 2n, T0), Effect.fail("after all"))))
        expect((yield* cursors.get(id)).unresolved).toEqual([])
      }).pipe(Effect.provide(app))
    })
  )

  const damages: ReadonlyArray<readonly [string, string, string]> = [
    ["a position that is no number", "keyward_welcome_cursors", "position = 'abcdefghijklmnopqrst'"],
    ["a time beyond all dates", "keyward_welcome_cursors", "read_as_of = 9007199254740991"],
    ["a Welcome with no attempt", "keyward_unresolved_welcomes", "attempts = -1"],
    ["an id that is no number", "keyward_unresolved_welcomes", "id = 'abcdefghijklmnopqrst'"]
  ]
  for (const [damage, table, edit] of damages) {
    it.scoped(`[65] ${damage} is told, and taken for nothing else`, () =>
      Effect.gen(function* () {
        const path = yield* filename
        const layer = SqliteWelcomeCursorStore.layer({ filename: path })
        yield* Effect.provide(
          Effect.flatMap(Cursor.WelcomeCursorStore, (cursors) => cursors.postpone(id, 5n, T0)),
          layer
        )
        yield* Effect.gen(function* () {
          const sql = yield* SqlClient.SqlClient
          yield* sql.unsafe("PRAGMA ignore_check_constraints = ON")
          yield* sql.unsafe(`UPDATE ${table} SET ${edit}`)
        }).pipe(Effect.provide(SqliteClient.layer({ filename: path })))
        const error = yield* Effect.flatMap(Cursor.WelcomeCursorStore, (cursors) => cursors.get(id)).pipe(
          Effect.provide(layer),
          Effect.flip
        )
        expect(error).toMatchObject({ _tag: "StorageError", operation: "get", reason: "Corrupt" })
        expect(error.message).toContain(table)
      })
    )
  }

  it.scoped("refuses a database of a later release", () =>
    Effect.gen(function* () {
      const path = yield* filename
      const layer = SqliteWelcomeCursorStore.layer({ filename: path })
      yield* Effect.provide(Cursor.WelcomeCursorStore, layer)
      yield* Effect.provide(
        Effect.flatMap(
          SqlClient.SqlClient,
          (sql) => sql`INSERT INTO keyward_welcome_migrations (migration_id, name) VALUES (99, 'later')`
        ),
        SqliteClient.layer({ filename: path })
      )
      const error = yield* Effect.flip(Effect.provide(Cursor.WelcomeCursorStore, layer))
      expect(error).toMatchObject({ reason: "NewerSchema" })
    })
  )
})
