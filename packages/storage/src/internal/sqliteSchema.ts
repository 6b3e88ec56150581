/**
 * The tables, and how a database comes to have them.
 *
 * Times are milliseconds since 1970, lifetimes seconds since 1970, ids lower-case hex. A row has one state, and a CHECK that
 * says which columns that state has. Migrations go forward only and are never edited once released.
 */
import * as Migrator from "@effect/sql/Migrator"
import * as SqlClient from "@effect/sql/SqlClient"
import { SqlError } from "@effect/sql/SqlError"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { Refused } from "./sqliteErrors.ts"

const createLedger = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  yield* sql`CREATE TABLE keyward_sealing_keys (
    key_id TEXT PRIMARY KEY NOT NULL,
    check_value BLOB NOT NULL
  ) STRICT, WITHOUT ROWID`

  yield* sql`CREATE TABLE keyward_installations (
    seq INTEGER PRIMARY KEY AUTOINCREMENT,
    installation_id TEXT NOT NULL UNIQUE CHECK (length(installation_id) = 64),
    inbox_id TEXT NOT NULL CHECK (length(inbox_id) = 64),
    label TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    sealing_key_id TEXT NOT NULL REFERENCES keyward_sealing_keys (key_id),
    sealed_key BLOB NOT NULL,
    registration TEXT NOT NULL,
    identity_update BLOB,
    registered_at INTEGER,
    next_rotation_at INTEGER,
    UNIQUE (inbox_id, label),
    CHECK (CASE registration
      WHEN 'Intended' THEN identity_update IS NULL AND registered_at IS NULL
      WHEN 'Signed' THEN identity_update IS NOT NULL AND registered_at IS NULL
      WHEN 'Registered' THEN identity_update IS NOT NULL AND registered_at IS NOT NULL
      ELSE 0 END)
  ) STRICT`
  yield* sql`CREATE INDEX keyward_installations_by_next_rotation
    ON keyward_installations (next_rotation_at) WHERE next_rotation_at IS NOT NULL`

  // The fence outlives the lease: a row without an expiry is a lease that nobody holds.
  yield* sql`CREATE TABLE keyward_leases (
    installation_id TEXT PRIMARY KEY NOT NULL REFERENCES keyward_installations (installation_id),
    fence INTEGER NOT NULL CHECK (fence > 0),
    expires_at INTEGER
  ) STRICT, WITHOUT ROWID`

  // AUTOINCREMENT: an id is never given out again, also after the newest row is gone.
  yield* sql`CREATE TABLE keyward_key_packages (
    history_id INTEGER PRIMARY KEY AUTOINCREMENT,
    installation_id TEXT NOT NULL REFERENCES keyward_installations (installation_id),
    state TEXT NOT NULL,
    ref TEXT NOT NULL UNIQUE CHECK (length(ref) = 64),
    key_package BLOB NOT NULL,
    not_before INTEGER NOT NULL CHECK (not_before >= 0),
    not_after INTEGER NOT NULL CHECK (not_after >= 0),
    init_key BLOB NOT NULL UNIQUE CHECK (length(init_key) = 32),
    post_quantum_key BLOB CHECK (length(post_quantum_key) = 1216),
    created_at INTEGER NOT NULL,
    exposed_at INTEGER,
    published_at INTEGER,
    superseded_by INTEGER,
    superseded_at INTEGER,
    delete_at INTEGER,
    CHECK (published_at IS NULL OR exposed_at IS NOT NULL),
    CHECK (CASE state
      WHEN 'Prepared' THEN exposed_at IS NULL
      WHEN 'Exposed' THEN exposed_at IS NOT NULL AND published_at IS NULL
      WHEN 'Published' THEN published_at IS NOT NULL
      WHEN 'Superseded' THEN superseded_by IS NOT NULL AND superseded_by > history_id
        AND superseded_at IS NOT NULL AND delete_at IS NOT NULL
      ELSE 0 END),
    CHECK (state = 'Superseded' OR (superseded_by IS NULL AND superseded_at IS NULL AND delete_at IS NULL))
  ) STRICT`
  yield* sql`CREATE INDEX keyward_key_packages_by_installation
    ON keyward_key_packages (installation_id, history_id)`
  // The few rows that a publication supersedes, however long the history is.
  yield* sql`CREATE INDEX keyward_key_packages_live
    ON keyward_key_packages (installation_id, history_id) WHERE delete_at IS NULL`
  yield* sql`CREATE INDEX keyward_key_packages_by_deletion
    ON keyward_key_packages (delete_at) WHERE delete_at IS NOT NULL`

  yield* sql`CREATE TABLE keyward_private_keys (
    history_id INTEGER PRIMARY KEY REFERENCES keyward_key_packages (history_id),
    sealing_key_id TEXT NOT NULL REFERENCES keyward_sealing_keys (key_id),
    sealed_keys BLOB NOT NULL
  ) STRICT`
})

/** The number of the schema that a database has; none where it has none of these tables. */
const currentVersion = (table: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const found = yield* sql`SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ${table}`
    if (found.length === 0) return Option.none<number>()
    const [row] = yield* sql`SELECT max(migration_id) AS version FROM ${sql(table)}`
    return Option.liftPredicate(row?.["version"], (version): version is number => typeof version === "number")
  })

/**
 * Brings the tables to the newest of these schemas, by number, and notes in `table` which they have. Run inside a write
 * transaction: two processes that start together wait for each other, and a crash leaves the schema as it was. Refuses a
 * database of a newer schema before it writes anything.
 */
export const migrateTo = (
  table: string,
  migrations: Record<string, Effect.Effect<void, SqlError, SqlClient.SqlClient>>
): Effect.Effect<void, SqlError | Refused, SqlClient.SqlClient> =>
  Effect.gen(function* () {
    const latest = Math.max(...Object.keys(migrations).map((name) => Number.parseInt(name, 10)))
    const version = Option.getOrElse(yield* currentVersion(table), () => 0)
    if (version > latest) {
      return yield* new Refused({
        reason: "NewerSchema",
        detail: `the database has schema ${version}, this release knows ${latest}`
      })
    }
    if (version === latest) return
    yield* Migrator.make({})({ loader: Migrator.fromRecord(migrations), table }).pipe(
      // Two migrations of one number: a bug of the caller.
      Effect.catchTag("MigrationError", (error) => Effect.die(error)),
      // The migrator dies of a statement that fails. A full or read-only disk is no bug: the driver's error comes back.
      Effect.catchSomeDefect((defect) => {
        const cause = defect instanceof Migrator.MigrationError ? defect.cause : defect
        return cause instanceof SqlError ? Option.some(Effect.fail(cause)) : Option.none()
      })
    )
  })

/** The tables of the key package store, by number. */
export const migrate: Effect.Effect<void, SqlError | Refused, SqlClient.SqlClient> = migrateTo("keyward_migrations", {
  "0001_create_ledger": createLedger
})
