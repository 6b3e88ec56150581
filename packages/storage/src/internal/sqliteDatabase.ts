/**
 * A database that is ready to be used: configured, migrated, its sealing keys proven, and what other hands broke repaired.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import type { StorageError } from "@keyward/core/ports/KeyPackageStore"
import { KeySealer } from "@keyward/core/ports/KeySealer"
import * as Effect from "effect/Effect"
import * as PubSub from "effect/PubSub"
import * as sealing from "./sealing.ts"
import { Refused, toStorageError } from "./sqliteErrors.ts"
import * as rows from "./sqliteRows.ts"
import * as schedules from "./sqliteSchedule.ts"
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

/** The last fence that leaves room for those that follow it. */
const LAST_FENCE = 2 ** 52

/** The numbers that come here with all their digits: a row with another id could not even be named. */
const NAMED = `BETWEEN ${Number.MIN_SAFE_INTEGER} AND ${Number.MAX_SAFE_INTEGER}`

/** Gives rows of the ledger that cannot be named ids that no package has, below all others: they are unreadable, and set aside. */
const renumber = (table: string) => `WITH renamed AS (
    SELECT history_id AS before, (SELECT min(0, coalesce(min(history_id), 0)) FROM keyward_key_packages
      WHERE history_id ${NAMED}) - row_number() OVER (ORDER BY history_id DESC) AS after
    FROM keyward_key_packages WHERE history_id NOT ${NAMED})
  UPDATE ${table} SET history_id = after FROM renamed WHERE history_id = before`

/**
 * The counters of ids go on from the largest that is there, as if an id that cannot be named had never been given out: nothing can
 * be inserted after the last number that SQLite has.
 */
const countOnFrom = (table: string, largest: string) =>
  `UPDATE sqlite_sequence SET seq = (${largest}) WHERE name = '${table}' AND seq > ${Number.MAX_SAFE_INTEGER}`

const countPackagesOn = countOnFrom(
  "keyward_key_packages",
  `SELECT max(0, coalesce(max(history_id), 0)) FROM
    (SELECT history_id FROM keyward_key_packages UNION ALL SELECT history_id FROM keyward_retired_key_packages)
    WHERE history_id ${NAMED}`
)

interface Repair {
  readonly what: string
  /** Finds a row if there is something to repair. */
  readonly find: string
  readonly repair: ReadonlyArray<string>
}

/**
 * What no release writes and no check forbids to hands that turn checks off: each is looked for, and repaired where it is
 * there. A database that is in order is only read.
 */
const repairs: ReadonlyArray<Repair> = [
  {
    // Nothing could ever open them: the seal is bound to the row that is gone.
    what: "erased private keys without a row",
    find: `SELECT 1 FROM keyward_private_keys p
      WHERE NOT EXISTS (SELECT 1 FROM keyward_key_packages k WHERE k.history_id = p.history_id) LIMIT 1`,
    repair: [`DELETE FROM keyward_private_keys WHERE history_id NOT IN (SELECT history_id FROM keyward_key_packages)`]
  },
  {
    what: "forgot quarantined rows that are gone",
    find: `SELECT 1 FROM keyward_quarantined_key_packages q
      WHERE NOT EXISTS (SELECT 1 FROM keyward_key_packages k WHERE k.history_id = q.history_id) LIMIT 1`,
    repair: [
      `DELETE FROM keyward_quarantined_key_packages WHERE history_id NOT IN (SELECT history_id FROM keyward_key_packages)`
    ]
  },
  {
    // They would never be looked at, and no id after them could be given out. A seal is not bound to the id.
    what: "gave key packages ids that can be named, to be set aside",
    find: `SELECT 1 FROM keyward_key_packages WHERE history_id NOT ${NAMED} LIMIT 1`,
    repair: [
      // The rows that refer to them first.
      "PRAGMA defer_foreign_keys = ON",
      renumber("keyward_private_keys"),
      renumber("keyward_quarantined_key_packages"),
      // Something is to be done for them: the next upkeep sets them aside.
      `UPDATE keyward_installations SET due_at = 0, schedule = json_set(schedule, '$.cleanAt', 0)
      WHERE json_valid(schedule) AND installation_id IN
        (SELECT installation_id FROM keyward_key_packages WHERE history_id NOT ${NAMED})`,
      renumber("keyward_key_packages"),
      countPackagesOn
    ]
  },
  {
    // The same: no id after them could be given out.
    what: "forgot retired key packages whose ids cannot be named",
    find: `SELECT 1 FROM keyward_retired_key_packages WHERE history_id NOT ${NAMED} LIMIT 1`,
    repair: [`DELETE FROM keyward_retired_key_packages WHERE history_id NOT ${NAMED}`]
  },
  {
    what: "numbered installations anew",
    find: `SELECT 1 FROM keyward_installations WHERE seq < 1 OR seq > ${Number.MAX_SAFE_INTEGER} LIMIT 1`,
    repair: [
      `WITH renamed AS (
        SELECT seq AS before, (SELECT coalesce(max(seq), 0) FROM keyward_installations
          WHERE seq BETWEEN 1 AND ${Number.MAX_SAFE_INTEGER}) + row_number() OVER (ORDER BY seq) AS after
        FROM keyward_installations WHERE seq < 1 OR seq > ${Number.MAX_SAFE_INTEGER})
      UPDATE keyward_installations SET seq = after FROM renamed WHERE seq = before`,
      countOnFrom("keyward_installations", "SELECT max(seq) FROM keyward_installations")
    ]
  },
  {
    // Nobody could ever take such a lease. The fence goes on from above all that were given out.
    what: "gave leases back that cannot be read",
    find: `SELECT 1 FROM keyward_leases WHERE fence NOT BETWEEN 1 AND ${LAST_FENCE} OR abs(expires_at / 2) > 4.32e15 LIMIT 1`,
    repair: [
      `UPDATE keyward_leases SET expires_at = NULL, fence = iif(fence BETWEEN 1 AND ${LAST_FENCE}, fence, ${LAST_FENCE / 2})
      WHERE fence NOT BETWEEN 1 AND ${LAST_FENCE} OR abs(expires_at / 2) > 4.32e15`
    ]
  },
  {
    what: "made schedules due that cannot be read",
    find: "SELECT 1 FROM keyward_installations WHERE due_at IS NOT 0 AND NOT json_valid(schedule) LIMIT 1",
    repair: ["UPDATE keyward_installations SET due_at = 0 WHERE due_at IS NOT 0 AND NOT json_valid(schedule)"]
  }
]

const warn = (what: string) => Effect.logWarning(`the database was changed by other hands: ${what}`)

/** Something is due for installations that no index of deadlines has: nobody would ever look. */
const repairDeadlines = (query: transactions.Transactions["query"]) =>
  Effect.gen(function* () {
    const empty = schedules.encode(Schedule.empty).schedule
    const all = yield* query(
      "SELECT seq, schedule FROM keyward_installations WHERE due_at IS NULL AND schedule <> ?",
      empty
    )
    const due = all.flatMap(({ schedule, seq }) => {
      const dueAt = schedules.dueAt(schedules.decode(schedule))
      return dueAt === null ? [] : [[dueAt, Number(seq)] as const]
    })
    if (due.length === 0) return
    yield* Effect.forEach(
      due,
      ([dueAt, seq]) => query("UPDATE keyward_installations SET due_at = ? WHERE seq = ?", dueAt, seq),
      { discard: true }
    )
    yield* warn("made due what was never looked at")
  })

const repair = ({ execute, query }: transactions.Transactions) =>
  Effect.forEach(
    repairs,
    ({ find, repair, what }) =>
      Effect.gen(function* () {
        if ((yield* query(find)).length === 0) return
        yield* Effect.forEach(repair, execute, { discard: true })
        yield* warn(what)
      }),
    { discard: true }
  ).pipe(Effect.zipRight(repairDeadlines(query)))

/** How many lowered deadlines wait for a listener that is behind: one is enough to make it look. */
const MAX_LOWERED = 1024

/** The database of a client. Fails with `NewerSchema` or `WrongSealingKey` before anything is written. */
export const open = Effect.fnUntraced(function* (client: SqlClient.SqlClient, ownership: transactions.Ownership) {
  const sealer = yield* KeySealer
  const sql = client.withoutTransforms()
  if (sql.onDialectOrElse({ sqlite: () => false, orElse: () => true })) {
    return yield* Effect.dieMessage("SqliteKeyPackageStore needs the SqlClient of a SQLite database")
  }
  const transaction = yield* transactions.make(sql, ownership).pipe(toStorageError("open"))
  const { execute, query, withClient } = transaction
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
    // A row that violates a check is repaired all the same, or else nothing could ever be.
    () =>
      withClient(Effect.provideService(migrate, SqlClient.SqlClient, sql)).pipe(
        Effect.zipRight(verifySealingKeys(query, sealer)),
        Effect.zipRight(repair(transaction))
      ),
    // It fails for want of memory alone, and then nothing else succeeds.
    () => Effect.ignore(execute("PRAGMA ignore_check_constraints = OFF"))
  ).pipe(write("open"))

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

  const database: Database = { sealer, query, read, write, writeLease: run("writeUnsynced"), scrub, lowered }
  return database
})
