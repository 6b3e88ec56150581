/**
 * The SQLite cache keeps the contract of the port: on a file of its own, over an app's client, and beside the key package
 * store. What is wrong with the file is told, and never taken for a state.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { describe, expect, it } from "@effect/vitest"
import { InboxId } from "@keyward/core/identity/InboxId"
import { AssociationStateCache } from "@keyward/core/ports/AssociationStateCache"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as AssociationStateCacheContract from "@keyward/test-utils/contracts/AssociationStateCacheContract"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
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
    ["bytes that are no state", (sql) => sql`UPDATE keyward_association_states SET state = x'0a05'`],
    ["the state of another inbox", (sql) => sql`UPDATE keyward_association_states SET inbox_id = ${"cd".repeat(32)}`]
  ]
  for (const [damage, edit] of damages) {
    it.scoped(`[65] ${damage}: Corrupt, and never a state`, () =>
      Effect.gen(function* () {
        const path = yield* filename
        const layer = SqliteAssociationStateCache.layer({ filename: path })
        yield* Effect.provide(
          Effect.flatMap(AssociationStateCache, (cache) => cache.put([put])),
          layer
        )
        yield* Effect.provide(Effect.flatMap(SqlClient.SqlClient, edit), SqliteClient.layer({ filename: path }))
        const error = yield* Effect.flatMap(AssociationStateCache, (cache) =>
          cache.getNewest([inboxId, InboxId.make("cd".repeat(32))])
        ).pipe(Effect.provide(layer), Effect.flip)
        expect(error).toMatchObject({ _tag: "StorageError", reason: "Corrupt", operation: "getNewest" })
      })
    )
  }

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
