/**
 * The store on one SQLite file, the default: no server, and as durable as the disk.
 *
 * Every write happens in a `BEGIN IMMEDIATE` transaction with `synchronous=FULL`: when a method returns, power may fail. Writes
 * that wait at the same time share one commit, each undone by itself where it fails. Private
 * keys are sealed by the `KeySealer` before the transaction begins, with the row's identity as associated data. Any number of
 * processes may share the file; each waits for the others for about 5 s and then fails with `Busy`.
 *
 * @since 1.0.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import { KeyPackageStore, type StorageError } from "@keyward/core/ports/KeyPackageStore"
import type { KeySealer } from "@keyward/core/ports/KeySealer"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as sealing from "./internal/sealing.ts"
import { open } from "./internal/sqliteDatabase.ts"
import * as deadlines from "./internal/sqliteDeadlines.ts"
import { openFile } from "./internal/sqliteFile.ts"
import * as installations from "./internal/sqliteInstallations.ts"
import * as leases from "./internal/sqliteLeases.ts"
import * as ledger from "./internal/sqliteLedger.ts"
import * as retirement from "./internal/sqliteRetirement.ts"
import * as rows from "./internal/sqliteRows.ts"

/**
 * Where the database is.
 *
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /** The path of the database file. It is created where there is none; its folder is not. */
  readonly filename: string
}

/**
 * The store over a SQLite client that the app has already. The client must not be inside a transaction when the store is
 * used; tables are named `keyward_*`. The client's connection is set to `synchronous=FULL`, `secure_delete=ON` and
 * `foreign_keys=ON`; its journal mode is left alone.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make: Effect.Effect<KeyPackageStore["Type"], StorageError, SqlClient.SqlClient | KeySealer> = Effect.map(
  open,
  (database) =>
    KeyPackageStore.of({
      ...installations.make(database),
      ...leases.make(database),
      ...deadlines.make(database),
      ...ledger.make(database),
      ...retirement.make(database)
    })
)

/**
 * The store over the app's own SQLite client, as `make`.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerClient: Layer.Layer<KeyPackageStore, StorageError, SqlClient.SqlClient | KeySealer> = Layer.effect(
  KeyPackageStore,
  make
)

/**
 * The store on a file, created and migrated where needed. Fails with `NewerSchema` or `WrongSealingKey` before anything is
 * written.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<KeyPackageStore, StorageError, KeySealer> =>
  Layer.scoped(
    KeyPackageStore,
    Effect.flatMap(openFile(options), (client) => Effect.provideService(make, SqlClient.SqlClient, client))
  )

/**
 * The same with the path from the configuration.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerConfig = (
  config: Config.Config.Wrap<Options>
): Layer.Layer<KeyPackageStore, StorageError | ConfigError, KeySealer> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(config), layer))

/** How many rows one transaction of `resealAll` takes, so that others can write in between. */
const RESEAL_BATCH = 200

/**
 * Seals every row that an earlier sealing key sealed with the current one, then forgets the keys that seal nothing any more
 * and truncates the WAL. Once it has succeeded, and every process uses the new key, the earlier keys need not be
 * configured any longer. Returns how many rows it sealed. May be stopped and run again at any time.
 *
 * @since 1.0.0
 * @category maintenance
 */
export const resealAll: (options: Options) => Effect.Effect<number, StorageError, KeySealer> = Effect.fn(
  "SqliteKeyPackageStore.resealAll"
)(function* (options) {
  const client = yield* openFile(options)
  const { query, scrub, sealer, write } = yield* Effect.provideService(open, SqlClient.SqlClient, client)

  const installationKeys = (after: number) =>
    Effect.gen(function* () {
      const raw = yield* query(
        `${rows.installationKeySelect} WHERE sealing_key_id <> ? AND seq > ? ORDER BY seq LIMIT ${RESEAL_BATCH}`,
        sealer.keyId,
        after
      )
      const sealed = yield* Effect.forEach(raw, (row) => rows.installationKey(row))
      yield* Effect.forEach(sealed, (row) =>
        Effect.flatMap(sealing.resealInstallationKey(sealer, row), ({ keyId, bytes }) =>
          query(
            "UPDATE keyward_installations SET sealing_key_id = ?, sealed_key = ? WHERE seq = ?",
            keyId,
            bytes,
            row.seq
          )
        )
      )
      return sealed.map(({ seq }) => seq)
    })

  const privateKeys = (after: number) =>
    Effect.gen(function* () {
      const raw = yield* query(
        `${rows.privateKeysSelect} WHERE p.sealing_key_id <> ? AND p.history_id > ?
          ORDER BY p.history_id LIMIT ${RESEAL_BATCH}`,
        sealer.keyId,
        after
      )
      const sealed = yield* Effect.forEach(raw, (row) => rows.privateKeys(row))
      yield* Effect.forEach(sealed, (row) =>
        Effect.flatMap(sealing.resealPrivateKeys(sealer, row), ({ keyId, bytes }) =>
          query(
            "UPDATE keyward_private_keys SET sealing_key_id = ?, sealed_keys = ? WHERE history_id = ?",
            keyId,
            bytes,
            row.historyId
          )
        )
      )
      return sealed.map(({ historyId }) => historyId as number)
    })

  let count = 0
  for (const batchAfter of [installationKeys, privateKeys]) {
    let after = 0
    while (true) {
      const batch = yield* write("resealAll")(batchAfter(after))
      if (batch.length === 0) break
      count += batch.length
      after = Math.max(...batch)
    }
  }

  yield* query(
    `DELETE FROM keyward_sealing_keys WHERE key_id <> ?
      AND NOT EXISTS (SELECT 1 FROM keyward_installations WHERE sealing_key_id = key_id)
      AND NOT EXISTS (SELECT 1 FROM keyward_private_keys WHERE sealing_key_id = key_id)`,
    sealer.keyId
  ).pipe(write("resealAll"))
  yield* scrub("resealAll")
  return count
}, Effect.scoped)
