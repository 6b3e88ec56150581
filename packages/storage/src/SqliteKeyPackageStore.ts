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
import * as Arr from "effect/Array"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as sealing from "./internal/sealing.ts"
import { open } from "./internal/sqliteDatabase.ts"
import * as deadlines from "./internal/sqliteDeadlines.ts"
import { toStorageError } from "./internal/sqliteErrors.ts"
import { openFile } from "./internal/sqliteFile.ts"
import * as installations from "./internal/sqliteInstallations.ts"
import * as leases from "./internal/sqliteLeases.ts"
import * as ledger from "./internal/sqliteLedger.ts"
import * as retirement from "./internal/sqliteRetirement.ts"
import * as rows from "./internal/sqliteRows.ts"
import type { Ownership } from "./internal/sqliteTransaction.ts"

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
export const make: Effect.Effect<KeyPackageStore["Type"], StorageError, SqlClient.SqlClient | KeySealer> =
  Effect.flatMap(SqlClient.SqlClient, (client) => makeOn(client, { isPrivate: false }))

const makeOn = (client: SqlClient.SqlClient, ownership: Ownership) =>
  Effect.map(open(client, ownership), (database) =>
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
    Effect.flatMap(openFile(options), (client) => makeOn(client, { isPrivate: true }))
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
 * A row that could not be sealed anew: it is left as it is, and nothing reads it either.
 *
 * @since 1.0.0
 * @category models
 */
export interface NotResealed {
  readonly table: "keyward_installations" | "keyward_private_keys"
  /** The row's number: `seq` of an installation, `history_id` of a key package. */
  readonly rowId: number
  /** `Corrupt` where the row was damaged, `WrongSealingKey` where the key that sealed it is not configured. */
  readonly reason: StorageError["reason"]
  /** What was wrong, in words; never key bytes. */
  readonly detail: string
}

/**
 * What a resealing did.
 *
 * @since 1.0.0
 * @category models
 */
export interface Resealed {
  /** How many rows are sealed with the current key that were not before. */
  readonly count: number
  /** The rows that could not be. While there are any, the key that sealed them is not forgotten. */
  readonly failures: ReadonlyArray<NotResealed>
}

/** The failures of one row alone, after which others can go on. */
const isOfTheRow = (error: StorageError): boolean => error.reason === "Corrupt" || error.reason === "WrongSealingKey"

/**
 * Seals every row that an earlier sealing key sealed with the current one, then forgets the keys that seal nothing any more
 * and truncates the WAL. A row that cannot be read stops no other: it is named in the answer. Once it has succeeded with no
 * such row, and every process uses the new key, the earlier keys need not be configured any longer. May be stopped and run
 * again at any time.
 *
 * @since 1.0.0
 * @category maintenance
 */
export const resealAll: (options: Options) => Effect.Effect<Resealed, StorageError, KeySealer> = Effect.fn(
  "SqliteKeyPackageStore.resealAll"
)(function* (options) {
  const client = yield* openFile(options)
  const { query, scrub, sealer, write } = yield* open(client, { isPrivate: true })

  const installationKey = (raw: rows.Raw) =>
    Effect.gen(function* () {
      const row = yield* rows.installationKey(raw)
      const { bytes, keyId } = yield* sealing.resealInstallationKey(sealer, row)
      yield* query(
        "UPDATE keyward_installations SET sealing_key_id = ?, sealed_key = ? WHERE seq = ?",
        keyId,
        bytes,
        row.seq
      )
    })
  const privateKeys = (raw: rows.Raw) =>
    Effect.gen(function* () {
      const row = yield* rows.privateKeys(raw)
      const { bytes, keyId } = yield* sealing.resealPrivateKeys(sealer, row)
      yield* query(
        "UPDATE keyward_private_keys SET sealing_key_id = ?, sealed_keys = ? WHERE history_id = ?",
        keyId,
        bytes,
        row.historyId
      )
    })
  const tables = [
    {
      table: "keyward_installations",
      id: "seq",
      select: `${rows.installationKeySelect} WHERE sealing_key_id <> ? AND seq > ? ORDER BY seq LIMIT ${RESEAL_BATCH}`,
      reseal: installationKey
    },
    {
      table: "keyward_private_keys",
      id: "history_id",
      select: `${rows.privateKeysSelect} WHERE p.sealing_key_id <> ? AND p.history_id > ?
        ORDER BY p.history_id LIMIT ${RESEAL_BATCH}`,
      reseal: privateKeys
    }
  ] as const

  let count = 0
  const failures: Array<NotResealed> = []
  for (const { id, reseal, select, table } of tables) {
    const resealRow = (raw: rows.Raw) =>
      reseal(raw).pipe(
        toStorageError("resealAll"),
        Effect.as(Option.none<NotResealed>()),
        Effect.catchIf(isOfTheRow, ({ detail = "", reason }) =>
          Effect.succeedSome<NotResealed>({ table, rowId: Number(raw[id]), reason, detail })
        )
      )
    const batchAfter = (after: number) =>
      Effect.gen(function* () {
        const raw = yield* query(select, sealer.keyId, after)
        return { raw, failed: Arr.getSomes(yield* Effect.forEach(raw, resealRow)) }
      })
    // From below all ids: those of rows that other hands have numbered are below 1.
    let after = Number.MIN_SAFE_INTEGER
    while (true) {
      const { failed, raw } = yield* write("resealAll")(batchAfter(after))
      const last = raw.at(-1)
      if (last === undefined) break
      count += raw.length - failed.length
      failures.push(...failed)
      after = Number(last[id])
    }
  }

  yield* query(
    `DELETE FROM keyward_sealing_keys WHERE key_id <> ?
      AND NOT EXISTS (SELECT 1 FROM keyward_installations WHERE sealing_key_id = key_id)
      AND NOT EXISTS (SELECT 1 FROM keyward_private_keys WHERE sealing_key_id = key_id)`,
    sealer.keyId
  ).pipe(write("resealAll"))
  yield* scrub("resealAll")
  return { count, failures }
}, Effect.scoped)
