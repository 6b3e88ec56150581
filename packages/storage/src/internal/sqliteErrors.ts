/**
 * What SQLite's result codes mean to a caller of the store: one table, and the way from a failed statement to it.
 */
import type { SqlError } from "@effect/sql/SqlError"
import { StorageError } from "@keyward/core/ports/KeyPackageStore"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Predicate from "effect/Predicate"

type Reason = StorageError["reason"]

/**
 * SQLite's result codes (sqlite.org/rescode.html). An extended code that is not listed means what its primary code means;
 * a code without a line means `Unavailable`.
 */
const reasons: Readonly<Record<string, Reason>> = {
  SQLITE_BUSY: "Busy",
  SQLITE_LOCKED: "Busy",
  /** Another process changed the schema between preparing and running a statement. */
  SQLITE_SCHEMA: "Busy",
  /** Lost the race for the locks of a WAL file. */
  SQLITE_PROTOCOL: "Busy",
  /** The disk, `max_page_count`, or the last history id of all. */
  SQLITE_FULL: "Full",
  SQLITE_TOOBIG: "Full",
  SQLITE_READONLY: "ReadOnly",
  SQLITE_PERM: "ReadOnly",
  SQLITE_AUTH: "ReadOnly",
  /** The file was moved or deleted under an open connection. */
  SQLITE_READONLY_DBMOVED: "Unavailable",
  SQLITE_IOERR: "Unavailable",
  SQLITE_CANTOPEN: "Unavailable",
  SQLITE_NOLFS: "Unavailable",
  SQLITE_NOMEM: "Unavailable",
  SQLITE_CORRUPT: "Corrupt",
  SQLITE_NOTADB: "Corrupt",
  SQLITE_FORMAT: "Corrupt",
  SQLITE_CONSTRAINT: "Conflict",
  /** Only a row that was edited by other hands can fail these: writes are built from decoded values. */
  SQLITE_CONSTRAINT_CHECK: "Corrupt",
  SQLITE_CONSTRAINT_NOTNULL: "Corrupt",
  SQLITE_CONSTRAINT_DATATYPE: "Corrupt",
  /** Rows refer to their sealing key; its check value goes when nothing is sealed with it any more. */
  SQLITE_CONSTRAINT_FOREIGNKEY: "WrongSealingKey"
}

/** The reason of a result code, extended or primary. */
export const reasonOfCode = (code: string): Reason => {
  for (let known = code; known.includes("_"); known = known.slice(0, known.lastIndexOf("_"))) {
    const reason = reasons[known]
    if (reason !== undefined) return reason
  }
  return "Unavailable"
}

/** A failure of the driver, as the store tells it. SQLite's own texts name tables and columns, never values. */
export const fromDriver = (operation: string, cause: unknown): StorageError => {
  const code = Predicate.hasProperty(cause, "code") && typeof cause.code === "string" ? cause.code : undefined
  const text = Predicate.isError(cause) ? cause.message : undefined
  const detail = [code, text].filter(Predicate.isNotUndefined).join(": ")
  return new StorageError({
    operation,
    reason: code === undefined ? "Unavailable" : reasonOfCode(code),
    ...(detail === "" ? {} : { detail }),
    cause
  })
}

/** A fact about the stored rows that ends an operation; it becomes a `StorageError` once the operation is known. */
export class Refused extends Data.TaggedError("Refused")<{ readonly reason: Reason; readonly detail: string }> {}

/** The row is not in the state that the write starts from, or does not exist. */
export const conflict = (detail: string): Refused => new Refused({ reason: "Conflict", detail })

/** A row that this library did not write as it is. Names the place, never the value. */
export const corrupt = (table: string, rowId: string | number, column: string): Refused =>
  new Refused({ reason: "Corrupt", detail: `table ${table}, row ${rowId}, column ${column}` })

/** The one place where failures of the driver and of the rows become the error of the port. */
export const toStorageError =
  (operation: string) =>
  <A, E, R>(
    effect: Effect.Effect<A, E | SqlError | Refused, R>
  ): Effect.Effect<A, Exclude<E, SqlError | Refused> | StorageError, R> =>
    Effect.mapError(effect, (error) => {
      if (error instanceof Refused) return new StorageError({ operation, reason: error.reason, detail: error.detail })
      if (Predicate.isTagged(error, "SqlError")) return fromDriver(operation, (error as SqlError).cause)
      return error as Exclude<E, SqlError | Refused>
    })
