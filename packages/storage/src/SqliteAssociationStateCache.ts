/**
 * The cache of identity logs and association states in SQLite: in the file of the key package store, or in one of its own.
 *
 * Nothing here is secret and nothing is irreplaceable: what is lost is read from the network and verified again. Any number
 * of processes may share the file.
 *
 * @since 1.0.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import * as Codec from "@keyward/core/identity/AssociationStateCodec"
import type { InboxId } from "@keyward/core/identity/InboxId"
import type { IdentityUpdateLogEntry } from "@keyward/core/ports/ApiClient"
import { AssociationStateCache, type StateAt } from "@keyward/core/ports/AssociationStateCache"
import type { StorageError } from "@keyward/core/ports/KeyPackageStore"
import * as Arr from "effect/Array"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
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

const createTables = Effect.gen(function* () {
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
})

/**
 * The same rows in the order in which they come, with an index beside them. Rows of a kilobyte in the order of their keys dirty
 * a page each and leave the pages half empty: the file becomes twice as large, and a write takes twice as long.
 */
const storeRowsInOrderOfArrival = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`ALTER TABLE keyward_identity_updates RENAME TO keyward_identity_updates_1`
  yield* sql`ALTER TABLE keyward_association_states RENAME TO keyward_association_states_1`
  yield* sql`CREATE TABLE keyward_identity_updates (
    inbox_id TEXT NOT NULL CHECK (length(inbox_id) = 64),
    sequence_id INTEGER NOT NULL,
    server_timestamp_ns INTEGER NOT NULL,
    identity_update BLOB NOT NULL,
    PRIMARY KEY (inbox_id, sequence_id)
  ) STRICT`
  yield* sql`CREATE TABLE keyward_association_states (
    inbox_id TEXT NOT NULL CHECK (length(inbox_id) = 64),
    sequence_id INTEGER NOT NULL,
    state BLOB NOT NULL,
    PRIMARY KEY (inbox_id, sequence_id)
  ) STRICT`
  // A row that other hands have broken is as good as not there: it is read from the network again.
  yield* sql`INSERT OR IGNORE INTO keyward_identity_updates SELECT * FROM keyward_identity_updates_1`
  yield* sql`INSERT OR IGNORE INTO keyward_association_states SELECT * FROM keyward_association_states_1`
  yield* sql`DROP TABLE keyward_identity_updates_1`
  yield* sql`DROP TABLE keyward_association_states_1`
})

/** The tables, by number. */
const migrations = {
  "0001_create_identity_cache": createTables,
  "0002_store_rows_in_order_of_arrival": storeRowsInOrderOfArrival
}

/** A state as it is stored. */
interface StateRow extends Readonly<Record<string, unknown>> {
  readonly inbox_id: InboxId
  readonly sequence_id: bigint
  readonly state: Uint8Array
}

/** Far below the 32,766 values that one statement may have. */
const ROWS_PER_STATEMENT = 200

type Raw = Readonly<Record<string, unknown>>

/** A column of a row, or why the row is none of ours. A schema would take longer than the query. */
const text = (table: string, raw: Raw, column: string): Either.Either<string, Refused> => {
  const value = raw[column]
  return typeof value === "string" ? Either.right(value) : Either.left(corrupt(table, "?", column))
}

const bytes = (table: string, raw: Raw, column: string): Either.Either<Uint8Array, Refused> => {
  const value = raw[column]
  return value instanceof Uint8Array ? Either.right(value) : Either.left(corrupt(table, "?", column))
}

/** Numbers come as text: above 2^53 the driver would round them. The statement has made the text of an integer. */
const integer = (table: string, raw: Raw, column: string): Either.Either<bigint, Refused> =>
  Either.map(text(table, raw, column), BigInt)

/** A row of a state, without a step that the usual row does not need: a thousand of them are read at once. */
const stateRow = ({ inbox_id, sequence_id, state }: Raw): Either.Either<StateAt, Refused> => {
  const table = "keyward_association_states"
  if (typeof inbox_id !== "string") return Either.left(corrupt(table, "?", "inbox_id"))
  if (typeof sequence_id !== "string") return Either.left(corrupt(table, inbox_id, "sequence_id"))
  const decoded = state instanceof Uint8Array ? Codec.decode(state) : undefined
  return decoded !== undefined && Either.isRight(decoded) && decoded.right.inboxId === inbox_id
    ? Either.right({ sequenceId: BigInt(sequence_id), state: decoded.right })
    : Either.left(corrupt(table, inbox_id, "state"))
}

const updateRow = (raw: Raw): Either.Either<IdentityUpdateLogEntry, Refused> => {
  const table = "keyward_identity_updates"
  return Either.gen(function* () {
    return {
      sequenceId: yield* integer(table, raw, "sequence_id"),
      serverTimestampNs: yield* integer(table, raw, "server_timestamp_ns"),
      update: new Uint8Array(yield* bytes(table, raw, "identity_update"))
    }
  })
}

/** What cannot be decoded is as good as not there: it is read from the network again, and `put` replaces it. */
const readable = <A>(rows: ReadonlyArray<Either.Either<A, Refused>>): Effect.Effect<ReadonlyArray<A>> => {
  const [unreadable, values] = Arr.separate(rows)
  return Effect.as(
    Effect.forEach(unreadable, ({ detail }) => Effect.logWarning(`passed over an unreadable row: ${detail}`), {
      discard: true
    }),
    values
  )
}

type Entry = Parameters<Context.Tag.Service<AssociationStateCache>["put"]>[0][number]

/** Whether SQLite has room for its numbers. */
const fits = ({ log, newest }: Entry): boolean =>
  newest.sequenceId <= MAX_INT64 &&
  log.every(({ sequenceId, serverTimestampNs }) => sequenceId <= MAX_INT64 && serverTimestampNs <= MAX_INT64)

/** An inbox whose node counts beyond 63 bits is read from the network each time, and the others are kept. */
const keepOut = (entries: ReadonlyArray<Entry>): Effect.Effect<ReadonlyArray<Entry>> => {
  const [outside, kept] = Arr.partition(entries, fits)
  return Effect.as(
    Effect.forEach(
      outside,
      ({ newest }) =>
        Effect.logWarning(`inbox ${newest.state.inboxId} is not cached: a number of its log is above 2^63-1`),
      { discard: true }
    ),
    kept
  )
}

/**
 * The cache over a SQLite client that the app has already; the key package store may use the same. The client must not be
 * inside a transaction when the cache is used. Its settings are left alone.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make: Effect.Effect<
  Context.Tag.Service<AssociationStateCache>,
  StorageError,
  SqlClient.SqlClient
> = Effect.gen(function* () {
  const client = yield* SqlClient.SqlClient
  const sql = client.withoutTransforms()
  if (sql.onDialectOrElse({ sqlite: () => false, orElse: () => true })) {
    return yield* Effect.dieMessage("SqliteAssociationStateCache needs the SqlClient of a SQLite database")
  }
  const transaction = yield* transactions.make(sql).pipe(toStorageError("open"))

  const on =
    (run: "read" | "write" | "writeUnsynced", operation: string) =>
    <A>(body: Effect.Effect<A, SqlError | Refused>): Effect.Effect<A, StorageError> =>
      transaction[run](body).pipe(toStorageError(operation), transactions.retryBusy)

  yield* migrateTo("keyward_identity_migrations", migrations).pipe(
    Effect.provideService(SqlClient.SqlClient, sql),
    on("write", "open")
  )

  /** What is there already stays as it is. */
  const insertStates = (rows: ReadonlyArray<StateRow>): Effect.Effect<unknown, SqlError> =>
    sql`INSERT INTO keyward_association_states ${sql.insert(rows)} ON CONFLICT DO NOTHING`

  /** Makes room for these where one is there that cannot be decoded. */
  const deleteUnreadable = (rows: ReadonlyArray<StateRow>): Effect.Effect<void, SqlError> =>
    Effect.gen(function* () {
      // JSON has no bigint: the ids go as text.
      const keys = JSON.stringify(rows.map(({ inbox_id, sequence_id }) => [inbox_id, String(sequence_id)]))
      const there = yield* sql`SELECT s.inbox_id, CAST(s.sequence_id AS TEXT) AS sequence_id, s.state
        FROM json_each(${keys}) AS asked CROSS JOIN keyward_association_states AS s
          ON s.inbox_id = asked.value ->> 0 AND s.sequence_id = CAST(asked.value ->> 1 AS INTEGER)`
      const unreadable = there.filter((raw) => Either.isLeft(stateRow(raw)))
      yield* Effect.forEach(
        unreadable,
        (raw) => sql`DELETE FROM keyward_association_states
          WHERE inbox_id = ${raw.inbox_id} AND sequence_id = CAST(${raw.sequence_id} AS INTEGER)`,
        { discard: true }
      )
    })

  return {
    getNewest: Effect.fn("SqliteAssociationStateCache.getNewest")((inboxIds: ReadonlyArray<InboxId>) =>
      Effect.gen(function* () {
        // One statement for any number of ids, each found by the key: a GROUP BY over them takes four times as long.
        const raw = yield* sql`SELECT s.inbox_id, CAST(s.sequence_id AS TEXT) AS sequence_id, s.state
          FROM json_each(${JSON.stringify(inboxIds)}) AS asked
          CROSS JOIN keyward_association_states AS s ON s.inbox_id = asked.value
          WHERE s.sequence_id =
            (SELECT max(n.sequence_id) FROM keyward_association_states AS n WHERE n.inbox_id = asked.value)`
        const found = new Map<string, StateAt>()
        for (const row of yield* readable(raw.map(stateRow))) found.set(row.state.inboxId, row)
        return inboxIds.map((inboxId) => Option.fromNullable(found.get(inboxId)))
      }).pipe(on("read", "getNewest"))
    ),

    getAt: Effect.fn("SqliteAssociationStateCache.getAt")((inboxId: InboxId, sequenceId: bigint) =>
      Effect.gen(function* () {
        if (sequenceId > MAX_INT64) return Option.none()
        const raw = yield* sql`SELECT inbox_id, CAST(sequence_id AS TEXT) AS sequence_id, state
          FROM keyward_association_states WHERE inbox_id = ${inboxId} AND sequence_id = ${sequenceId}`
        const [row] = yield* readable(raw.map(stateRow))
        return Option.map(Option.fromNullable(row), ({ state }) => state)
      }).pipe(on("read", "getAt"))
    ),

    getLog: Effect.fn("SqliteAssociationStateCache.getLog")((inboxId: InboxId, upTo?: bigint) =>
      sql`SELECT inbox_id, CAST(sequence_id AS TEXT) AS sequence_id,
          CAST(server_timestamp_ns AS TEXT) AS server_timestamp_ns, identity_update
        FROM keyward_identity_updates
        WHERE inbox_id = ${inboxId} AND sequence_id <= ${upTo === undefined || upTo > MAX_INT64 ? MAX_INT64 : upTo}
        ORDER BY keyward_identity_updates.sequence_id`.pipe(
        Effect.flatMap(Effect.forEach((one) => updateRow(one))),
        on("read", "getLog")
      )
    ),

    put: Effect.fn("SqliteAssociationStateCache.put")((all: ReadonlyArray<Entry>) =>
      Effect.gen(function* () {
        const entries = yield* keepOut(all)
        const updates = entries.flatMap(({ log, newest }) =>
          log.map((entry) => ({
            inbox_id: newest.state.inboxId,
            sequence_id: entry.sequenceId,
            server_timestamp_ns: entry.serverTimestampNs,
            identity_update: entry.update
          }))
        )
        const states = entries.map(({ newest }) => ({
          inbox_id: newest.state.inboxId,
          sequence_id: newest.sequenceId,
          state: Codec.encode(newest.state)
        }))
        for (const rows of Arr.chunksOf(updates, ROWS_PER_STATEMENT)) {
          yield* sql`INSERT INTO keyward_identity_updates ${sql.insert(rows)} ON CONFLICT DO NOTHING`
        }
        for (const rows of Arr.chunksOf(states, ROWS_PER_STATEMENT)) {
          yield* insertStates(rows)
          const [inserted] = yield* sql`SELECT changes() AS count`
          if (Number(inserted?.count) === rows.length) continue
          yield* deleteUnreadable(rows)
          yield* insertStates(rows)
        }
        // A commit that a power cut takes is read from the network again: no need to wait for the disk.
      }).pipe(on("writeUnsynced", "put"))
    )
  }
})

/** The largest sequence id that SQLite holds. Nodes count in signed 64 bits, too. */
const MAX_INT64 = 0x7fff_ffff_ffff_ffffn

/**
 * The cache over the app's own SQLite client, as `make`.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerClient: Layer.Layer<AssociationStateCache, StorageError, SqlClient.SqlClient> = Layer.effect(
  AssociationStateCache,
  make
)

/**
 * The cache on a file, which may be that of the key package store, created and migrated where needed.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<AssociationStateCache, StorageError> =>
  Layer.scoped(
    AssociationStateCache,
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
): Layer.Layer<AssociationStateCache, StorageError | ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(config), layer))
