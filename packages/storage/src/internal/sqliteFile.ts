/**
 * Opening a SQLite file.
 */
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

/** Opens a file in WAL mode. The driver throws where it cannot. */
export const openFile = ({
  filename
}: {
  readonly filename: string
}): Effect.Effect<SqliteClient.SqliteClient, StorageError, Scope.Scope> =>
  SqliteClient.make({ filename, prepareCacheTTL: PREPARED_TTL }).pipe(
    Effect.provide(Reactivity.layer),
    Effect.catchAllDefect((cause) => fromDriver("open", cause)),
    transactions.retryBusy
  )
