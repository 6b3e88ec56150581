/**
 * The newest key package ever seen of each installation, in SQLite: in the file of the key package store, in that of the app,
 * or in one of its own. So the guard against older packages knows after a restart what it knew before.
 *
 * Nothing here is secret, and everything is seen again: a write does not wait for the disk, and a crash of the process loses
 * nothing. Any number of processes may share the file.
 *
 * @since 1.0.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import { KeyPackageRef } from "@keyward/core/keypackage/KeyPackageRef"
import { NewestSeen, type Seen } from "@keyward/core/peers/NewestSeen"
import type { StorageError } from "@keyward/core/ports/KeyPackageStore"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { corrupt, type Refused, toStorageError } from "./internal/sqliteErrors.ts"
import { openFile } from "./internal/sqliteFile.ts"
import { migrateTo } from "./internal/sqliteSchema.ts"
import * as transactions from "./internal/sqliteTransaction.ts"

/**
 * How much is remembered.
 *
 * @since 1.0.0
 * @category models
 */
export interface ClientOptions {
  /** Installations remembered; 100,000 unless given (about 30 MiB). Those seen longest ago are forgotten first. */
  readonly capacity?: number | undefined
}

/**
 * Where the database is, and how much is remembered.
 *
 * @since 1.0.0
 * @category models
 */
export interface Options extends ClientOptions {
  /** The path of the database file. It is created where there is none; its folder is not. */
  readonly filename: string
}

/** Seconds are text of twenty digits: a lifetime counts in unsigned 64 bits and SQLite in signed ones. */
const DIGITS = 20

const TABLE = "keyward_newest_seen"

const createTables = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  // A row that is seen again is inserted anew: the order of the rows is that of the latest sight.
  yield* sql`CREATE TABLE keyward_newest_seen (
    seq INTEGER PRIMARY KEY NOT NULL,
    installation_id TEXT NOT NULL UNIQUE CHECK (length(installation_id) = 64),
    ref TEXT NOT NULL CHECK (length(ref) = 64),
    not_before TEXT NOT NULL CHECK (length(not_before) = 20 AND not_before NOT GLOB '*[^0-9]*')
  ) STRICT`
  // Counting the rows would take longer than everything else.
  yield* sql`CREATE TABLE keyward_newest_seen_size (
    id INTEGER PRIMARY KEY NOT NULL CHECK (id = 1),
    size INTEGER NOT NULL
  ) STRICT`
  yield* sql`INSERT INTO keyward_newest_seen_size VALUES (1, 0)`
})

type Raw = Readonly<Record<string, unknown>>

const isRef = Schema.is(KeyPackageRef)

/** What a row says of an installation that was asked for. One that other hands have edited says nothing. */
const seenOf = (installationId: InstallationId, { not_before, ref }: Raw): Option.Option<Seen> =>
  isRef(ref) && typeof not_before === "string" && /^[0-9]{20}$/.test(not_before)
    ? Option.some({ installationId, ref, notBefore: BigInt(not_before) })
    : Option.none()

const sizeOf = (rows: ReadonlyArray<Raw>): Effect.Effect<number, Refused> => {
  const size = rows[0]?.["size"]
  return typeof size === "number" ? Effect.succeed(size) : Effect.fail(corrupt("keyward_newest_seen_size", "1", "size"))
}

/**
 * The memory over a SQLite client that the app has already; the key package store may use the same. The client must not be
 * inside a transaction when it is used. Its settings are left alone.
 *
 * A database that fails is told in the log, and nothing was seen before: no verdict depends on it.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (
  options: ClientOptions = {}
): Effect.Effect<Context.Tag.Service<NewestSeen>, StorageError, SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const { capacity = 100_000 } = options
    const client = yield* SqlClient.SqlClient
    const sql = client.withoutTransforms()
    if (sql.onDialectOrElse({ sqlite: () => false, orElse: () => true })) {
      return yield* Effect.dieMessage("SqliteNewestSeen needs the SqlClient of a SQLite database")
    }
    const transaction = yield* transactions.make(sql).pipe(toStorageError("open"))
    const { query } = transaction

    const on =
      (run: "write" | "writeUnsynced", operation: string) =>
      <A>(body: Effect.Effect<A, SqlError | Refused>): Effect.Effect<A, StorageError> =>
        transaction[run](body).pipe(toStorageError(operation), transactions.retryBusy)

    /** Forgets those that were seen longest ago. */
    const forgetAllBut = (size: number) =>
      size <= capacity
        ? Effect.void
        : Effect.zipRight(
            query(
              "DELETE FROM keyward_newest_seen WHERE seq IN (SELECT seq FROM keyward_newest_seen ORDER BY seq LIMIT ?)",
              size - capacity
            ),
            query("UPDATE keyward_newest_seen_size SET size = ?", capacity)
          )

    yield* migrateTo("keyward_newest_seen_migrations", { "0001_create_newest_seen": createTables }).pipe(
      Effect.provideService(SqlClient.SqlClient, sql),
      on("write", "open")
    )
    // Whatever the number was, and whether there was one, it is right from here on.
    yield* query(
      `INSERT OR REPLACE INTO keyward_newest_seen_size (id, size)
        SELECT 1, count(*) FROM keyward_newest_seen RETURNING size`
    ).pipe(Effect.flatMap(sizeOf), Effect.flatMap(forgetAllBut), on("writeUnsynced", "open"))

    /** What is known of these installations. */
    const lookUp = (packages: ReadonlyArray<Seen>) =>
      Effect.gen(function* () {
        const asked = new Map(packages.map(({ installationId }) => [installationId as string, installationId]))
        const rows = yield* query(
          `SELECT n.installation_id, n.ref, n.not_before
            FROM json_each(?) AS asked CROSS JOIN keyward_newest_seen AS n ON n.installation_id = asked.value`,
          JSON.stringify([...asked.keys()])
        )
        const known = new Map<InstallationId, Seen>()
        for (const raw of rows) {
          const installationId = asked.get(String(raw["installation_id"]))
          if (installationId === undefined) continue
          const seen = seenOf(installationId, raw)
          if (Option.isSome(seen)) known.set(installationId, seen.value)
          else yield* Effect.logWarning(`passed over an unreadable row: table ${TABLE}, row ${installationId}`)
        }
        return known
      })

    /** These rows become the newest, in this order. */
    const store = (rows: ReadonlyArray<Seen>) =>
      Effect.gen(function* () {
        const replaced = yield* query(
          `DELETE FROM keyward_newest_seen
            WHERE installation_id IN (SELECT value FROM json_each(?)) RETURNING seq`,
          JSON.stringify(rows.map(({ installationId }) => installationId))
        )
        yield* query(
          `INSERT INTO keyward_newest_seen (installation_id, ref, not_before)
            SELECT value ->> 0, value ->> 1, value ->> 2 FROM json_each(?) ORDER BY key`,
          // JSON has no bigint: the seconds go as text.
          JSON.stringify(
            rows.map(({ installationId, notBefore, ref }) => [
              installationId,
              ref,
              notBefore.toString().padStart(DIGITS, "0")
            ])
          )
        )
        const changed = yield* query(
          "UPDATE keyward_newest_seen_size SET size = size + ? RETURNING size",
          rows.length - replaced.length
        )
        yield* forgetAllBut(yield* sizeOf(changed))
      })

    return {
      see: Effect.fn("SqliteNewestSeen.see")((packages: ReadonlyArray<Seen>) =>
        packages.length === 0
          ? Effect.succeed([])
          : Effect.gen(function* () {
              const known = yield* lookUp(packages)
              const rows = new Map<InstallationId, Seen>()
              const newer = packages.map((seen) => {
                const { installationId, notBefore } = seen
                const before = known.get(installationId)
                const isOlder = before !== undefined && notBefore < before.notBefore
                const newest = isOlder ? before : seen
                known.set(installationId, newest)
                // The latest sight is the newest row.
                rows.delete(installationId)
                rows.set(installationId, newest)
                return isOlder ? Option.some(before) : Option.none()
              })
              yield* store([...rows.values()])
              return newer
            }).pipe(
              on("writeUnsynced", "see"),
              Effect.catchAll((error) =>
                Effect.as(
                  Effect.logWarning(`the memory of key packages seen is passed over: ${error.message}`),
                  packages.map(() => Option.none<Seen>())
                )
              )
            )
      )
    }
  })

/**
 * The memory over the app's own SQLite client, as `make`.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerClient = (options: ClientOptions = {}): Layer.Layer<NewestSeen, StorageError, SqlClient.SqlClient> =>
  Layer.effect(NewestSeen, make(options))

/**
 * The memory on a file, which may be that of the key package store, created and migrated where needed. Merged after
 * `PeerKeyPackages.layer`, it takes the place of the one in memory.
 *
 * @since 1.0.0
 * @category layers
 * @example
 * ```ts
 * import * as PeerKeyPackages from "@keyward/core/peers/PeerKeyPackages"
 * import * as SqliteNewestSeen from "@keyward/storage/SqliteNewestSeen"
 * import * as Layer from "effect/Layer"
 *
 * export const peers = (filename: string) => Layer.merge(PeerKeyPackages.layer(), SqliteNewestSeen.layer({ filename }))
 * ```
 */
export const layer = (options: Options): Layer.Layer<NewestSeen, StorageError> =>
  Layer.scoped(
    NewestSeen,
    Effect.gen(function* () {
      const sql = yield* openFile(options)
      yield* sql.unsafe(`PRAGMA busy_timeout = ${transactions.BUSY_TIMEOUT_MILLIS}`).pipe(toStorageError("open"))
      return yield* Effect.provideService(make(options), SqlClient.SqlClient, sql)
    })
  )

/**
 * The same with the options from the configuration.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerConfig = (config: Config.Config.Wrap<Options>): Layer.Layer<NewestSeen, StorageError | ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(config), layer))
