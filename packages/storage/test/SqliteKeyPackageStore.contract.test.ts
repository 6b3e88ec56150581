/**
 * The SQLite store keeps the contract of the port: on a file of its own, and over an app's client.
 */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as KeyPackageStoreContract from "@keyward/test-utils/contracts/KeyPackageStoreContract"
import * as PlaintextKeySealer from "@keyward/test-utils/PlaintextKeySealer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as SqliteKeyPackageStore from "../src/SqliteKeyPackageStore.ts"
import { filename, sealer } from "./fixture.ts"

KeyPackageStoreContract.suite(
  "SqliteKeyPackageStore on a file",
  Layer.unwrapScoped(Effect.map(filename, (filename) => SqliteKeyPackageStore.layer({ filename }))).pipe(
    Layer.provide(sealer())
  )
)

// A client that renames columns and keeps a rollback journal: the store must not mind.
KeyPackageStoreContract.suite(
  "SqliteKeyPackageStore over a client",
  SqliteKeyPackageStore.layerClient.pipe(
    Layer.provide(
      SqliteClient.layer({
        filename: ":memory:",
        disableWAL: true,
        transformQueryNames: (name) => `app_${name}`,
        transformResultNames: (name) => name.toUpperCase()
      })
    ),
    Layer.provide(PlaintextKeySealer.layer)
  )
)
