/**
 * A database that is ready to be used: configured, migrated, its sealing keys proven, and what other hands broke repaired.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { StorageError } from "@keyward/core/ports/KeyPackageStore"
import { KeySealer } from "@keyward/core/ports/KeySealer"
import * as Effect from "effect/Effect"
import * as PubSub from "effect/PubSub"
import * as sealing from "./sealing.ts"
import { Refused, toStorageError } from "./sqliteErrors.ts"
import * as rows from "./sqliteRows.ts"
import { migrate } from "./sqliteSchema.ts"
import * as transactions from "./sqliteTransaction.ts"

/** A body with its statements' failures becomes an operation of the port. */
type Run = (
  operation: string
) => <A, E, R>(
  body: Effect.Effect<A, E | SqlError | Refused, R>
) => Effect.Effect<A, Exclude<E, SqlError | Refused> | StorageError, R>

/** What the parts of the store share. */
export interface Database {
  readonly sealer: KeySealer["Type"]
  readonly query: transactions.Transactions["query"]
  /** Single reads: nobody else's uncommitted rows are seen. */
  readonly read: Run
  /** One durable transaction. */
  readonly write: Run
  /** The same, of a lease: it need not outlive a power failure, since no holder does. */
  readonly writeLease: Run
  /** Removes from the files what was erased. `Busy` where a reader keeps it. */
  readonly scrub: (operation: string) => Effect.Effect<void, StorageError>
  /** Installations whose deadline this process has lowered. */
  readonly lowered: PubSub.PubSub<InstallationId>
}

/** What a connection is set to before its first use. */
const configure = (execute: transactions.Transactions["execute"]): Effect.Effect<void, SqlError> =>
  Effect.forEach(
    [
      `busy_timeout = ${transactions.BUSY_TIMEOUT_MILLIS}`,
      "foreign_keys = ON",
      // A commit is on the disk before the bytes it allows to send leave the process.
      "synchronous = FULL",
      // macOS only: fsync there does not reach the disk.
      "fullfsync = ON",
      // What is deleted or overwritten is zeroed in the file.
      "secure_delete = ON"
    ],
    (pragma) => execute(`PRAGMA ${pragma}`),
    { discard: true }
  )

/** Opens the check value of every sealing key in use, and leaves one for the key that seals from now on. */
const verifySealingKeys = (query: transactions.Transactions["query"], sealer: KeySealer["Type"]) =>
  Effect.gen(function* () {
    const checks = yield* Effect.forEach(
      yield* query("SELECT key_id, check_value FROM keyward_sealing_keys"),
      rows.checkValue
    )
    yield* Effect.forEach(checks, (check) => sealing.verifyCheckValue(sealer, check), { discard: true })
    if (checks.some(({ keyId }) => keyId === sealer.keyId)) return
    const { bytes, keyId } = yield* sealing.sealCheckValue(sealer)
    yield* query("INSERT INTO keyward_sealing_keys (key_id, check_value) VALUES (?, ?)", keyId, bytes)
  })

/**
 * What no release writes and no check forbids to hands that turn checks off: each is looked for, and repaired where it is
 * there. A database that is in order is only read.
 */
const repairs: ReadonlyArray<{ readonly find: string; readonly repair: string; readonly what: string }> = [
  {
    // Nothing could ever open them: the seal is bound to the row that is gone.
    what: "erased private keys without a row",
    find: `SELECT 1 FROM keyward_private_keys p
      WHERE NOT EXISTS (SELECT 1 FROM keyward_key_packages k WHERE k.history_id = p.history_id) LIMIT 1`,
    repair: `DELETE FROM keyward_private_keys
      WHERE history_id NOT IN (SELECT history_id FROM keyward_key_packages)`
  },
  {
    what: "forgot quarantined rows that are gone",
    find: `SELECT 1 FROM keyward_quarantined_key_packages q
      WHERE NOT EXISTS (SELECT 1 FROM keyward_key_packages k WHERE k.history_id = q.history_id) LIMIT 1`,
    repair: `DELETE FROM keyward_quarantined_key_packages
      WHERE history_id NOT IN (SELECT history_id FROM keyward_key_packages)`
  },
  {
    what: "made schedules due that cannot be read",
    find: "SELECT 1 FROM keyward_installations WHERE due_at IS NOT 0 AND NOT json_valid(schedule) LIMIT 1",
    repair: "UPDATE keyward_installations SET due_at = 0 WHERE due_at IS NOT 0 AND NOT json_valid(schedule)"
  }
]

const repair = (query: transactions.Transactions["query"]) =>
  Effect.forEach(
    repairs,
    ({ find, repair, what }) =>
      Effect.gen(function* () {
        if ((yield* query(find)).length === 0) return
        yield* query(repair)
        yield* Effect.logWarning(`the database was changed by other hands: ${what}`)
      }),
    { discard: true }
  )

/** How many lowered deadlines wait for a listener that is behind: one is enough to make it look. */
const MAX_LOWERED = 1024

/** The database of the client in the context. Fails with `NewerSchema` or `WrongSealingKey` before anything is written. */
export const open: Effect.Effect<Database, StorageError, SqlClient.SqlClient | KeySealer> = Effect.gen(function* () {
  const client = yield* SqlClient.SqlClient
  const sealer = yield* KeySealer
  const sql = client.withoutTransforms()
  if (sql.onDialectOrElse({ sqlite: () => false, orElse: () => true })) {
    return yield* Effect.dieMessage("SqliteKeyPackageStore needs the SqlClient of a SQLite database")
  }
  const transaction = yield* transactions.make(sql).pipe(toStorageError("open"))
  const { execute, query } = transaction
  const lowered = yield* PubSub.sliding<InstallationId>(MAX_LOWERED)

  const run =
    (kind: "read" | "write" | "writeUnsynced"): Run =>
    (operation) =>
    (body) =>
      transaction[kind](body).pipe(toStorageError(operation), transactions.retryBusy)
  const read = run("read")
  const write = run("write")

  yield* configure(execute).pipe(read("open"))
  yield* Effect.acquireUseRelease(
    execute("PRAGMA ignore_check_constraints = ON"),
    () => Effect.provideService(migrate, SqlClient.SqlClient, sql),
    // It fails for want of memory alone, and then nothing else succeeds.
    () => Effect.ignore(execute("PRAGMA ignore_check_constraints = OFF"))
  ).pipe(Effect.zipRight(verifySealingKeys(query, sealer)), Effect.zipRight(repair(query)), write("open"))

  // SQLite does not fail where a reader keeps it from truncating the WAL: it says so in a row.
  const scrub = (operation: string) =>
    query("PRAGMA wal_checkpoint(TRUNCATE)").pipe(
      Effect.filterOrFail(
        ([row]) => row?.["busy"] === 0,
        () => new Refused({ reason: "Busy", detail: "a reader keeps the WAL, which still has what was erased" })
      ),
      Effect.asVoid,
      read(operation)
    )

  return { sealer, query, read, write, writeLease: run("writeUnsynced"), scrub, lowered }
})
