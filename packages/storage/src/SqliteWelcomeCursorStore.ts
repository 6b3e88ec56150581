/**
 * The places of installations in their Welcome topics, in SQLite: in the file of the key package store, in that of the app,
 * or in one of its own.
 *
 * Nothing here is secret. Every write waits for the disk: a place that a power failure took back would hand a Welcome over
 * again. Any number of processes may share the file.
 *
 * @since 1.0.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { StorageError } from "@keyward/core/ports/KeyPackageStore"
import * as Cursor from "@keyward/core/ports/WelcomeCursorStore"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { corrupt, type Refused, toStorageError } from "./internal/sqliteErrors.ts"
import { openFile } from "./internal/sqliteFile.ts"
import { migrateTo } from "./internal/sqliteSchema.ts"
import * as transactions from "./internal/sqliteTransaction.ts"

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
 * Ids are text of twenty digits: nodes count in unsigned 64 bits and SQLite in signed ones, and such text compares as the
 * numbers do.
 */
const ID_DIGITS = 20

const createTables = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`CREATE TABLE keyward_welcome_cursors (
    installation_id TEXT PRIMARY KEY NOT NULL CHECK (length(installation_id) = 64),
    position TEXT NOT NULL CHECK (length(position) = 20 AND position NOT GLOB '*[^0-9]*'),
    read_as_of INTEGER
  ) STRICT, WITHOUT ROWID`
  yield* sql`CREATE TABLE keyward_unresolved_welcomes (
    installation_id TEXT NOT NULL REFERENCES keyward_welcome_cursors (installation_id),
    id TEXT NOT NULL CHECK (length(id) = 20 AND id NOT GLOB '*[^0-9]*'),
    attempts INTEGER NOT NULL CHECK (attempts > 0),
    first_failed_at INTEGER NOT NULL,
    complete_before INTEGER,
    PRIMARY KEY (installation_id, id)
  ) STRICT, WITHOUT ROWID`
})

const idText = (id: bigint): string => id.toString().padStart(ID_DIGITS, "0")

type Raw = Readonly<Record<string, unknown>>

/** A column of a row, or why the row is none of ours. */
const read = <A>(
  table: string,
  raw: Raw,
  column: string,
  decode: (value: unknown) => Option.Option<A>
): Effect.Effect<A, Refused> =>
  Option.match(decode(raw[column]), {
    onNone: () => Effect.fail(corrupt(table, "?", column)),
    onSome: Effect.succeed
  })

const asId = (value: unknown): Option.Option<bigint> =>
  typeof value === "string" && /^[0-9]{20}$/.test(value) ? Option.some(BigInt(value)) : Option.none()

const asCount = (value: unknown): Option.Option<number> =>
  typeof value === "number" && Number.isSafeInteger(value) && value > 0 ? Option.some(value) : Option.none()

const asTime = (value: unknown): Option.Option<DateTime.Utc> =>
  typeof value === "number" && Number.isInteger(value) ? DateTime.make(value) : Option.none()

const asOptionalTime = (value: unknown): Option.Option<Option.Option<DateTime.Utc>> =>
  value === null ? Option.some(Option.none()) : Option.map(asTime(value), Option.some)

const unresolvedRow = (raw: Raw): Effect.Effect<Cursor.UnresolvedWelcome, Refused> => {
  const table = "keyward_unresolved_welcomes"
  return Effect.gen(function* () {
    return {
      id: yield* read(table, raw, "id", asId),
      attempts: yield* read(table, raw, "attempts", asCount),
      firstFailedAt: yield* read(table, raw, "first_failed_at", asTime),
      completeBefore: yield* read(table, raw, "complete_before", asOptionalTime)
    }
  })
}

const millis = DateTime.toEpochMillis

/**
 * The store over a SQLite client that the app has already; the key package store may use the same. Its settings are left
 * alone.
 *
 * Inside a transaction of that client every method takes part in it, and is what the app's own statements are: kept with them
 * or undone with them.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make: Effect.Effect<
  Context.Tag.Service<Cursor.WelcomeCursorStore>,
  StorageError,
  SqlClient.SqlClient
> = Effect.gen(function* () {
  const client = yield* SqlClient.SqlClient
  const sql = client.withoutTransforms()
  if (sql.onDialectOrElse({ sqlite: () => false, orElse: () => true })) {
    return yield* Effect.dieMessage("SqliteWelcomeCursorStore needs the SqlClient of a SQLite database")
  }
  const transaction = yield* transactions.make(sql).pipe(toStorageError("open"))
  const own = yield* Effect.scoped(sql.reserve).pipe(toStorageError("open"))
  const { query } = transaction

  const isInside = Effect.map(
    Effect.serviceOption(SqlClient.TransactionConnection),
    Option.exists(([connection]) => connection === own)
  )

  const on =
    (run: "read" | "write", operation: string) =>
    <A>(body: Effect.Effect<A, SqlError | Refused>): Effect.Effect<A, StorageError> =>
      Effect.flatMap(isInside, (inside) =>
        inside
          ? toStorageError(operation)(body)
          : transaction[run](body).pipe(toStorageError(operation), transactions.retryBusy)
      )

  yield* migrateTo("keyward_welcome_migrations", { "0001_create_cursors": createTables }).pipe(
    Effect.provideService(SqlClient.SqlClient, sql),
    on("write", "open")
  )

  /** Moves the position there, unless it is there or beyond. Whether it did. */
  const moveTo = (installationId: InstallationId, id: bigint) =>
    Effect.map(
      query(
        `INSERT INTO keyward_welcome_cursors (installation_id, position) VALUES (?, ?)
          ON CONFLICT (installation_id) DO UPDATE SET position = excluded.position
            WHERE excluded.position > keyward_welcome_cursors.position
          RETURNING position`,
        installationId,
        idText(id)
      ),
      (rows) => rows.length > 0
    )

  return {
    get: Effect.fn("SqliteWelcomeCursorStore.get")((installationId: InstallationId) =>
      Effect.gen(function* () {
        const table = "keyward_welcome_cursors"
        const [raw] = yield* query(
          "SELECT position, read_as_of FROM keyward_welcome_cursors WHERE installation_id = ?",
          installationId
        )
        if (raw === undefined) return Cursor.start
        const unresolved = yield* query(
          `SELECT id, attempts, first_failed_at, complete_before FROM keyward_unresolved_welcomes
            WHERE installation_id = ? ORDER BY id`,
          installationId
        )
        return {
          position: yield* read(table, raw, "position", asId),
          unresolved: yield* Effect.forEach(unresolved, unresolvedRow),
          readAsOf: yield* read(table, raw, "read_as_of", asOptionalTime)
        }
      }).pipe(on("read", "get"))
    ),

    resolve: Effect.fn("SqliteWelcomeCursorStore.resolve")((installationId: InstallationId, id: bigint) =>
      Effect.gen(function* () {
        if (yield* moveTo(installationId, id)) return true
        const removed = yield* query(
          "DELETE FROM keyward_unresolved_welcomes WHERE installation_id = ? AND id = ? RETURNING id",
          installationId,
          idText(id)
        )
        return removed.length > 0
      }).pipe(on("write", "resolve"))
    ),

    postpone: Effect.fn("SqliteWelcomeCursorStore.postpone")(
      (installationId: InstallationId, id: bigint, at: DateTime.Utc) =>
        Effect.gen(function* () {
          if (yield* moveTo(installationId, id)) {
            yield* query(
              `INSERT INTO keyward_unresolved_welcomes (installation_id, id, attempts, first_failed_at, complete_before)
                SELECT installation_id, position, 1, ?, read_as_of FROM keyward_welcome_cursors
                WHERE installation_id = ?`,
              millis(at),
              installationId
            )
            return true
          }
          const counted = yield* query(
            `UPDATE keyward_unresolved_welcomes SET attempts = attempts + 1
              WHERE installation_id = ? AND id = ? RETURNING id`,
            installationId,
            idText(id)
          )
          return counted.length > 0
        }).pipe(on("write", "postpone"))
    ),

    completeReading: Effect.fn("SqliteWelcomeCursorStore.completeReading")(
      (installationId: InstallationId, { began, upTo }: { readonly began: DateTime.Utc; readonly upTo: bigint }) =>
        Effect.gen(function* () {
          yield* moveTo(installationId, upTo)
          yield* query(
            "UPDATE keyward_welcome_cursors SET read_as_of = ? WHERE installation_id = ?",
            millis(began),
            installationId
          )
          yield* query(
            "UPDATE keyward_unresolved_welcomes SET complete_before = NULL WHERE installation_id = ? AND complete_before > ?",
            installationId,
            millis(began)
          )
        }).pipe(on("write", "completeReading"))
    )
  }
})

/**
 * The store over the app's own SQLite client, as `make`.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerClient: Layer.Layer<Cursor.WelcomeCursorStore, StorageError, SqlClient.SqlClient> = Layer.effect(
  Cursor.WelcomeCursorStore,
  make
)

/**
 * The store on a file, which may be that of the key package store, created and migrated where needed.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<Cursor.WelcomeCursorStore, StorageError> =>
  Layer.scoped(
    Cursor.WelcomeCursorStore,
    Effect.gen(function* () {
      const sql = yield* openFile(options)
      yield* sql.unsafe(`PRAGMA busy_timeout = ${transactions.BUSY_TIMEOUT_MILLIS}`).pipe(toStorageError("open"))
      return yield* Effect.provideService(make, SqlClient.SqlClient, sql)
    })
  )

/**
 * The same with the path from the configuration.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerConfig = (
  config: Config.Config.Wrap<Options>
): Layer.Layer<Cursor.WelcomeCursorStore, StorageError | ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(config), layer))
