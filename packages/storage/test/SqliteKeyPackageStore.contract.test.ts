/**
 * The SQLite store keeps the contract of the port: on a file of its own, and over an app's client.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as KeyPackageStoreContract from "@keyward/test-utils/contracts/KeyPackageStoreContract"
import * as PlaintextKeySealer from "@keyward/test-utils/PlaintextKeySealer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqliteKeyPackageStore from "../src/SqliteKeyPackageStore.ts"
import { filename, proofs, sealer } from "./fixture.ts"

const harness: KeyPackageStoreContract.Harness<SqlClient.SqlClient> = {
  proofs,
  // A time that no DateTime holds, which the table's checks do not know.
  damage: (id) =>
    Effect.flatMap(
      SqlClient.SqlClient,
      (sql) => sql`UPDATE keyward_key_packages SET created_at = 9223372036854775807 WHERE history_id = ${id}`
    )
}

KeyPackageStoreContract.suite(
  "SqliteKeyPackageStore on a file",
  Layer.unwrapScoped(
    Effect.map(filename, (filename) =>
      // The other hands have a connection of their own.
      Layer.provideMerge(SqliteClient.layer({ filename }), SqliteKeyPackageStore.layer({ filename }))
    )
  ).pipe(Layer.provide(sealer())),
  harness
)

// A client that renames columns and keeps a rollback journal: the store must not mind.
KeyPackageStoreContract.suite(
  "SqliteKeyPackageStore over a client",
  SqliteKeyPackageStore.layerClient.pipe(
    Layer.provideMerge(
      SqliteClient.layer({
        filename: ":memory:",
        disableWAL: true,
        transformQueryNames: (name) => `app_${name}`,
        transformResultNames: (name) => name.toUpperCase()
      })
    ),
    Layer.provide(PlaintextKeySealer.layer)
  ),
  harness
)
