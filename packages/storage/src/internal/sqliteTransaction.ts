/**
 * Transactions on one SQLite connection.
 *
 * `SqlClient.withTransaction` is not used: it begins deferred, so that a transaction that reads before it writes fails with
 * SQLITE_BUSY_SNAPSHOT beside another writer, and it turns a COMMIT that fails (a full disk) into a defect.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import { StorageError } from "@keyward/core/ports/KeyPackageStore"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Schedule from "effect/Schedule"

/** How long SQLite itself waits for a lock, in milliseconds: short, as it blocks the whole event loop meanwhile. */
export const BUSY_TIMEOUT_MILLIS = 50

/** The waits between tries while another process holds the database: 10 ms doubling, with jitter, about 5 s in all. */
const backoff = Schedule.exponential("10 millis").pipe(Schedule.jittered, Schedule.intersect(Schedule.recurs(9)))

/** Tries again while the database is busy, then fails with `Busy`. */
export const retryBusy = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.retry(effect, { schedule: backoff, while: (error) => error instanceof StorageError && error.isRetryable })

/** Preparing throws, where running fails: both become an `SqlError`. */
const execute = (connection: Connection, statement: string): Effect.Effect<void, SqlError> =>
  Effect.try({
    try: () => connection.executeUnprepared(statement, [], undefined),
    catch: (cause) => new SqlError({ cause, message: "Failed to prepare statement" })
  }).pipe(Effect.flatten, Effect.asVoid)

/** The ways in which the store touches its database. */
export interface Transactions {
  /**
   * One statement inside a body of the below, prepared once per text. It takes the connection as it is: without the client's
   * queue, renaming and spans, which cost more than SQLite itself.
   */
  readonly query: (
    text: string,
    ...parameters: ReadonlyArray<string | number | bigint | Uint8Array | null>
  ) => Effect.Effect<ReadonlyArray<Readonly<Record<string, unknown>>>, SqlError>
  /** The same for what SQLite does while it prepares, as with most pragmas: never prepared ahead. */
  readonly execute: (statement: string) => Effect.Effect<void, SqlError>
  /** Statements that hold the connection: nobody else's uncommitted rows are seen. For single reads. */
  readonly read: <A, E, R>(body: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R>
  /** BEGIN IMMEDIATE, the body, COMMIT; a body that fails, or a COMMIT that does, leaves nothing behind. */
  readonly write: <A, E, R>(body: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R>
  /**
   * The same without waiting for the disk. A crash of the process loses nothing; a power failure may lose it, with
   * everything that was running. For what then has no meaning any more: who holds a lease.
   */
  readonly writeUnsynced: <A, E, R>(body: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R>
}

/** The transactions of a client that has one connection, as every SQLite client does. */
export const make = (sql: SqlClient.SqlClient): Effect.Effect<Transactions, SqlError> =>
  Effect.gen(function* () {
    const own = yield* Effect.scoped(sql.reserve)

    // Waiting for a connection that one's own fiber holds would never end. It is also wrong: what a caller's transaction
    // rolls back later was not durable when the store said so.
    const refuseNesting = Effect.flatMap(Effect.serviceOption(SqlClient.TransactionConnection), (outer) =>
      outer._tag === "Some" && outer.value[0] === own
        ? Effect.dieMessage("a key package store was used inside a transaction of its own SqlClient")
        : Effect.void
    )

    const on =
      (connection: Connection) =>
      <A, E, R>(body: Effect.Effect<A, E, R>) =>
        Effect.provideService(body, SqlClient.TransactionConnection, [connection, 0])

    const transact = <A, E, R>(
      before: (connection: Connection) => Effect.Effect<void, SqlError>,
      body: Effect.Effect<A, E, R>,
      after: (connection: Connection) => Effect.Effect<void>
    ): Effect.Effect<A, E | SqlError, R> =>
      Effect.uninterruptibleMask((restore) =>
        Effect.gen(function* () {
          yield* refuseNesting
          const connection = yield* restore(sql.reserve)
          // SQLite has ended the transaction by itself where ROLLBACK fails: its only complaint is that there is none.
          const rollback = Effect.ignore(execute(connection, "ROLLBACK"))
          yield* before(connection)
          yield* execute(connection, "BEGIN IMMEDIATE")
          const exit = yield* Effect.exit(restore(on(connection)(body)))
          const end = Exit.isSuccess(exit) ? Effect.tapError(execute(connection, "COMMIT"), () => rollback) : rollback
          yield* Effect.ensuring(end, after(connection))
          return yield* exit
        })
      ).pipe(Effect.scoped)

    return {
      query: (text, ...parameters) => own.execute(text, parameters, undefined),
      execute: (statement) => execute(own, statement),
      read: (body) =>
        refuseNesting.pipe(
          Effect.zipRight(Effect.flatMap(sql.reserve, (connection) => on(connection)(body))),
          Effect.scoped
        ),
      write: (body) =>
        transact(
          (connection) => execute(connection, "PRAGMA synchronous = FULL"),
          body,
          () => Effect.void
        ),
      writeUnsynced: (body) =>
        transact(
          (connection) => execute(connection, "PRAGMA synchronous = NORMAL"),
          body,
          // For whoever shares the connection. Where it fails, the next write sets it again.
          (connection) => Effect.ignore(execute(connection, "PRAGMA synchronous = FULL"))
        )
    }
  })
