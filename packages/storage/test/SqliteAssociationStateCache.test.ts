/**
 * The SQLite cache keeps the contract of the port: on a file of its own, over an app's client, and beside the key package
 * store. What is wrong with the file is told, and never taken for a state.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { describe, expect, it } from "@effect/vitest"
import * as Codec from "@keyward/core/identity/AssociationStateCodec"
import { InboxId } from "@keyward/core/identity/InboxId"
import { AssociationStateCache, type StateAt } from "@keyward/core/ports/AssociationStateCache"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as AssociationStateCacheContract from "@keyward/test-utils/contracts/AssociationStateCacheContract"
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as SqliteAssociationStateCache from "../src/SqliteAssociationStateCache.ts"
import * as SqliteKeyPackageStore from "../src/SqliteKeyPackageStore.ts"
import { filename, sealer } from "./fixture.ts"

AssociationStateCacheContract.suite(
  "SqliteAssociationStateCache on a file",
  Layer.unwrapScoped(Effect.map(filename, (filename) => SqliteAssociationStateCache.layer({ filename })))
)

// A client that renames columns and keeps a rollback journal: the cache must not mind.
AssociationStateCacheContract.suite(
  "SqliteAssociationStateCache over a client",
  SqliteAssociationStateCache.layerClient.pipe(
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

const inboxId = InboxId.make("ab".repeat(32))
const [state] = FastCheck.sample(AssociationStateCacheContract.associationState(inboxId), { seed: 7, numRuns: 1 })
if (state === undefined) throw new Error("no sample")
const put = { log: [], newest: { sequenceId: 5n, state } }
const other = { sequenceId: 6n, state: { ...state, inboxId: InboxId.make("ef".repeat(32)) } }

describe("SqliteAssociationStateCache", () => {
  it.scoped("shares a client, and a file, with the key package store, and outlives the process", () =>
    Effect.gen(function* () {
      const path = yield* filename
      const both = Layer.merge(SqliteKeyPackageStore.layerClient, SqliteAssociationStateCache.layerClient).pipe(
        Layer.provide(SqliteClient.layer({ filename: path })),
        Layer.provide(sealer())
      )
      yield* Effect.gen(function* () {
        yield* (yield* AssociationStateCache).put([put])
        expect(yield* (yield* KeyPackageStore).getInstallations(inboxId)).toEqual([])
      }).pipe(Effect.provide(both))
      yield* Effect.gen(function* () {
        const [newest] = yield* (yield* AssociationStateCache).getNewest([inboxId])
        expect(Option.map(newest ?? Option.none(), ({ sequenceId }) => sequenceId)).toEqual(Option.some(5n))
      }).pipe(Effect.provide(SqliteAssociationStateCache.layer({ filename: path })))
      // The store opens the file although its own tables came first, then the cache's.
      yield* Effect.provide(KeyPackageStore, Layer.provide(SqliteKeyPackageStore.layer({ filename: path }), sealer()))
    })
  )

  const damages: ReadonlyArray<readonly [string, (sql: SqlClient.SqlClient) => Effect.Effect<unknown, unknown>]> = [
    [
      "bytes that are no state",
      (sql) => sql`UPDATE keyward_association_states SET state = x'0a05' WHERE inbox_id = ${inboxId}`
    ],
    [
      "the state of another inbox",
      (sql) => sql`UPDATE keyward_association_states SET state =
          (SELECT o.state FROM keyward_association_states AS o WHERE o.inbox_id = ${other.state.inboxId})
        WHERE inbox_id = ${inboxId}`
    ]
  ]
  for (const [damage, edit] of damages) {
    it.scoped(`[65] ${damage}: a miss of that inbox alone, told in the log, until it is put again`, () =>
      Effect.gen(function* () {
        const path = yield* filename
        const layer = SqliteAssociationStateCache.layer({ filename: path })
        yield* Effect.provide(
          Effect.flatMap(AssociationStateCache, (cache) => cache.put([put, { log: [], newest: other }])),
          layer
        )
        yield* Effect.provide(Effect.flatMap(SqlClient.SqlClient, edit), SqliteClient.layer({ filename: path }))
        const warnings: Array<string> = []
        const collect = Logger.make(({ logLevel, message }) => {
          if (logLevel._tag === "Warning") warnings.push(String(message))
        })
        const asked = [other.state.inboxId, inboxId]
        const ids = Arr.map(Option.map((at: StateAt) => [at.state.inboxId, at.sequenceId]))
        yield* Effect.gen(function* () {
          const cache = yield* AssociationStateCache
          expect(ids(yield* cache.getNewest(asked))).toEqual([Option.some([other.state.inboxId, 6n]), Option.none()])
          expect(yield* cache.getAt(inboxId, 5n)).toEqual(Option.none())
          const warning = `passed over an unreadable row: table keyward_association_states, row ${inboxId}, column state`
          expect(warnings).toEqual([warning, warning])
          yield* cache.put([put])
          expect(ids(yield* cache.getNewest(asked))).toEqual([
            Option.some([other.state.inboxId, 6n]),
            Option.some([inboxId, 5n])
          ])
          expect(Option.map(yield* cache.getAt(inboxId, 5n), (found) => found.inboxId)).toEqual(Option.some(inboxId))
          expect(warnings.length).toBe(2)
        }).pipe(Effect.provide(layer), Effect.provide(Logger.add(collect)))
      })
    )
  }

  it.scoped("leaves the settings of a client alone", () =>
    Effect.gen(function* () {
      const path = yield* filename
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql.unsafe("PRAGMA synchronous = NORMAL")
        yield* (yield* SqliteAssociationStateCache.make).put([put])
        expect(yield* sql.unsafe("PRAGMA synchronous")).toEqual([{ synchronous: 1 }])
      }).pipe(Effect.provide(SqliteClient.layer({ filename: path })))
    })
  )

  it.scoped("[65] keeps what the first schema has but for rows that break its checks, and notes the second", () =>
    Effect.gen(function* () {
      const path = yield* filename
      const client = SqliteClient.layer({ filename: path })
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* sql`CREATE TABLE keyward_identity_updates (
          inbox_id TEXT NOT NULL CHECK (length(inbox_id) = 64),
          sequence_id INTEGER NOT NULL,
          server_timestamp_ns INTEGER NOT NULL,
          identity_update BLOB NOT NULL,
          PRIMARY KEY (inbox_id, sequence_id)
        ) STRICT, WITHOUT ROWID`
        yield* sql`CREATE TABLE keyward_association_states (
          inbox_id TEXT NOT NULL CHECK (length(inbox_id) = 64),
          sequence_id INTEGER NOT NULL,
          state BLOB NOT NULL,
          PRIMARY KEY (inbox_id, sequence_id)
        ) STRICT, WITHOUT ROWID`
        yield* sql`CREATE TABLE keyward_identity_migrations (
          migration_id INTEGER PRIMARY KEY NOT NULL,
          created_at DATETIME NOT NULL DEFAULT CURRENT_TIMESTAMP,
          name VARCHAR(255) NOT NULL
        )`
        yield* sql`INSERT INTO keyward_identity_migrations (migration_id, name) VALUES (1, 'create_identity_cache')`
        yield* sql`INSERT INTO keyward_identity_updates VALUES (${inboxId}, 5, 7, x'0102')`
        // Rows that other hands have broken keep nothing else back.
        yield* sql.unsafe("PRAGMA ignore_check_constraints = ON")
        yield* sql`INSERT INTO keyward_identity_updates VALUES ('short', 5, 7, x'0102')`
        yield* sql`INSERT INTO keyward_association_states VALUES ('short', 5, x'0102')`
        yield* sql`INSERT INTO keyward_association_states VALUES (${inboxId}, 5, ${Codec.encode(state)})`
      }).pipe(Effect.provide(client))

      yield* Effect.gen(function* () {
        const cache = yield* AssociationStateCache
        const [newest] = yield* cache.getNewest([inboxId])
        expect(Option.map(newest ?? Option.none(), ({ sequenceId }) => sequenceId)).toEqual(Option.some(5n))
        expect(yield* cache.getLog(inboxId)).toEqual([
          { sequenceId: 5n, serverTimestampNs: 7n, update: new Uint8Array([1, 2]) }
        ])
        // What is there stays: the key of the tables has come with the rows.
        yield* cache.put([put, { log: [], newest: other }])
        expect((yield* cache.getNewest([inboxId, other.state.inboxId])).every(Option.isSome)).toBe(true)
      }).pipe(Effect.provide(SqliteAssociationStateCache.layer({ filename: path })))

      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const tables = yield* sql`SELECT name FROM sqlite_master WHERE type = 'table' ORDER BY name`
        expect(tables.map(({ name }) => name)).toEqual([
          "keyward_association_states",
          "keyward_identity_migrations",
          "keyward_identity_updates"
        ])
        const [rows] = yield* sql`SELECT count(*) AS states FROM keyward_association_states`
        expect(rows).toEqual({ states: 2 })
      }).pipe(Effect.provide(client))
    })
  )

  it.scoped("refuses a database of a later release", () =>
    Effect.gen(function* () {
      const path = yield* filename
      const layer = SqliteAssociationStateCache.layer({ filename: path })
      yield* Effect.provide(AssociationStateCache, layer)
      yield* Effect.provide(
        Effect.flatMap(
          SqlClient.SqlClient,
          (sql) => sql`INSERT INTO keyward_identity_migrations (migration_id, name) VALUES (99, 'later')`
        ),
        SqliteClient.layer({ filename: path })
      )
      const error = yield* Effect.flip(Effect.provide(AssociationStateCache, layer))
      expect(error).toMatchObject({ reason: "NewerSchema" })
    })
  )
})
