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

/**
 * The whole life of a row: rejection, what a package was made for, tombstones, quarantine, and what is due as data.
 *
 * The rows of before are carried over as they are, also those that other hands have edited: run with
 * `ignore_check_constraints`, so that one of them does not keep the database from being opened.
 */
const completeLifecycle = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient

  // A schedule's missing parts are empty. What was exposed is looked for at once, what waits for its deletion is cleaned.
  yield* sql`ALTER TABLE keyward_installations ADD COLUMN schedule TEXT NOT NULL DEFAULT '{}'`
  yield* sql`ALTER TABLE keyward_installations ADD COLUMN due_at INTEGER`
  yield* sql`UPDATE keyward_installations AS i SET (schedule, due_at) = (
    SELECT json_object('rotateAt', i.next_rotation_at, 'probeAt', probe_at, 'cleanAt', clean_at),
      (SELECT min(value) FROM json_each(json_array(i.next_rotation_at, probe_at, clean_at)))
    FROM (
      SELECT CASE WHEN count(exposed_at) > 0 THEN 0 END AS probe_at, min(delete_at) AS clean_at
      FROM keyward_key_packages AS k WHERE k.installation_id = i.installation_id
    ))`
  yield* sql`DROP INDEX keyward_installations_by_next_rotation`
  yield* sql`ALTER TABLE keyward_installations DROP COLUMN next_rotation_at`
  yield* sql`CREATE INDEX keyward_installations_by_due_at
    ON keyward_installations (due_at, seq) WHERE due_at IS NOT NULL`

  // A table's checks cannot be changed: both tables are made anew. The child is renamed first and dropped first, so that
  // its foreign key never points at the wrong parent.
  yield* sql`DROP INDEX keyward_key_packages_by_installation`
  yield* sql`DROP INDEX keyward_key_packages_live`
  yield* sql`DROP INDEX keyward_key_packages_by_deletion`
  yield* sql`ALTER TABLE keyward_private_keys RENAME TO keyward_private_keys_1`
  yield* sql`ALTER TABLE keyward_key_packages RENAME TO keyward_key_packages_1`

  yield* sql`CREATE TABLE keyward_key_packages (
    history_id INTEGER PRIMARY KEY AUTOINCREMENT,
    installation_id TEXT NOT NULL REFERENCES keyward_installations (installation_id),
    state TEXT NOT NULL,
    rotation_trigger TEXT NOT NULL,
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
    rejected_at INTEGER,
    delete_at INTEGER,
    CHECK (published_at IS NULL OR exposed_at IS NOT NULL),
    CHECK (CASE state
      WHEN 'Prepared' THEN exposed_at IS NULL
      WHEN 'Exposed' THEN exposed_at IS NOT NULL AND published_at IS NULL
      WHEN 'Published' THEN published_at IS NOT NULL
      WHEN 'Superseded' THEN superseded_by IS NOT NULL AND superseded_by > history_id
        AND superseded_at IS NOT NULL AND delete_at IS NOT NULL
      WHEN 'Rejected' THEN exposed_at IS NOT NULL AND published_at IS NULL AND rejected_at IS NOT NULL
        AND delete_at IS NOT NULL
      ELSE 0 END),
    CHECK (state = 'Superseded' OR (superseded_by IS NULL AND superseded_at IS NULL)),
    CHECK (state = 'Rejected' OR rejected_at IS NULL),
    CHECK (state IN ('Superseded', 'Rejected') OR delete_at IS NULL)
  ) STRICT`
  yield* sql`CREATE TABLE keyward_private_keys (
    history_id INTEGER PRIMARY KEY REFERENCES keyward_key_packages (history_id),
    sealing_key_id TEXT NOT NULL REFERENCES keyward_sealing_keys (key_id),
    sealed_keys BLOB NOT NULL
  ) STRICT`
  yield* sql`INSERT INTO keyward_key_packages (history_id, installation_id, state, rotation_trigger, ref, key_package,
      not_before, not_after, init_key, post_quantum_key, created_at, exposed_at, published_at, superseded_by, superseded_at,
      delete_at)
    SELECT history_id, installation_id, state, 'Manual', ref, key_package, not_before, not_after, init_key,
      post_quantum_key, created_at, exposed_at, published_at, superseded_by, superseded_at, delete_at
    FROM keyward_key_packages_1`
  yield* sql`INSERT INTO keyward_private_keys SELECT history_id, sealing_key_id, sealed_keys FROM keyward_private_keys_1`
  // An id is never given out again, also one whose row was gone before.
  yield* sql`DELETE FROM sqlite_sequence WHERE name = 'keyward_key_packages'`
  yield* sql`UPDATE sqlite_sequence SET name = 'keyward_key_packages' WHERE name = 'keyward_key_packages_1'`
  yield* sql`DROP TABLE keyward_private_keys_1`
  yield* sql`DROP TABLE keyward_key_packages_1`

  yield* sql`CREATE INDEX keyward_key_packages_by_installation
    ON keyward_key_packages (installation_id, history_id)`
  // The few rows that a publication supersedes, however long the history is.
  yield* sql`CREATE INDEX keyward_key_packages_live
    ON keyward_key_packages (installation_id, history_id) WHERE delete_at IS NULL`
  // A post-quantum Welcome names its package by this key: its beginning finds it.
  yield* sql`CREATE INDEX keyward_key_packages_by_post_quantum_key
    ON keyward_key_packages (substr(post_quantum_key, 1, 32)) WHERE post_quantum_key IS NOT NULL`

  // Rows that cannot be read. Apart from them: an update of such a row would fail the very checks that it violates.
  yield* sql`CREATE TABLE keyward_quarantined_key_packages (
    history_id INTEGER PRIMARY KEY REFERENCES keyward_key_packages (history_id),
    unreadable_column TEXT NOT NULL,
    quarantined_at INTEGER NOT NULL,
    delete_at INTEGER NOT NULL
  ) STRICT`

  // What is left of a package whose keys are erased.
  yield* sql`CREATE TABLE keyward_retired_key_packages (
    history_id INTEGER PRIMARY KEY,
    installation_id TEXT NOT NULL REFERENCES keyward_installations (installation_id),
    ref TEXT NOT NULL UNIQUE CHECK (length(ref) = 64),
    init_key_hash BLOB NOT NULL UNIQUE CHECK (length(init_key_hash) = 32),
    post_quantum_key_hash BLOB CHECK (length(post_quantum_key_hash) = 32),
    created_at INTEGER NOT NULL,
    retired_at INTEGER NOT NULL,
    reason TEXT NOT NULL
  ) STRICT`
  yield* sql`CREATE INDEX keyward_retired_key_packages_by_installation
    ON keyward_retired_key_packages (installation_id, history_id)`
  yield* sql`CREATE INDEX keyward_retired_key_packages_by_retirement
    ON keyward_retired_key_packages (installation_id, retired_at)`
  yield* sql`CREATE INDEX keyward_retired_key_packages_by_post_quantum_key
    ON keyward_retired_key_packages (post_quantum_key_hash) WHERE post_quantum_key_hash IS NOT NULL`
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

/** The migrations of the key package store, by number. */
export const migrations = {
  "0001_create_ledger": createLedger,
  "0002_complete_lifecycle": completeLifecycle
}

/** The table that says which of them a database has. */
export const MIGRATIONS_TABLE = "keyward_migrations"

/** The tables of the key package store. */
export const migrate: Effect.Effect<void, SqlError | Refused, SqlClient.SqlClient> = migrateTo(
  MIGRATIONS_TABLE,
  migrations
)
