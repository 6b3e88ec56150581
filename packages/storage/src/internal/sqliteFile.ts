/**
 * Opening a SQLite file.
 */
import { closeSync, openSync } from "node:fs"
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import type { StorageError } from "@keyward/core/ports/KeyPackageStore"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { fromDriver } from "./sqliteErrors.ts"
import * as transactions from "./sqliteTransaction.ts"

/**
 * How long a statement, or the failure to prepare it, stays cached. The client caches both, and would otherwise repeat for
 * ten minutes what was wrong for a moment.
 */
const PREPARED_TTL = "1 second"

/**
 * A new file is for its owner alone; SQLite gives its WAL the same mode. One that cannot be made is SQLite's to report.
 */
const createPrivately = (filename: string): Effect.Effect<void> =>
  Effect.sync(() => {
    if (filename === ":memory:" || filename === "") return
    try {
      closeSync(openSync(filename, "ax", 0o600))
    } catch {
      // It is there already, or cannot be made.
    }
  })

/** Opens a file in WAL mode. The driver throws where it cannot. */
export const openFile = ({
  filename
}: {
  readonly filename: string
}): Effect.Effect<SqliteClient.SqliteClient, StorageError, Scope.Scope> =>
  Effect.zipRight(createPrivately(filename), SqliteClient.make({ filename, prepareCacheTTL: PREPARED_TTL })).pipe(
    Effect.provide(Reactivity.layer),
    Effect.catchAllDefect((cause) => fromDriver("open", cause)),
    transactions.retryBusy
  )
