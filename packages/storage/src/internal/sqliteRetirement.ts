/**
 * The end of a row: its keys are erased and a tombstone is left, or, where it cannot be read, it is set aside until its date
 * of deletion.
 */
import * as Ledger from "@keyward/core/lifecycle/Ledger"
import { isRetirementPermit, type RetirementPermit } from "@keyward/core/lifecycle/RetirementPermit"
import type { KeyPackageStore, Unreadable } from "@keyward/core/ports/KeyPackageStore"
import * as Arr from "effect/Array"
import type * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type { Database } from "./sqliteDatabase.ts"
import { conflict } from "./sqliteErrors.ts"
import { announce, type Leased, millis, requireLease, reschedule, wholeMillis } from "./sqliteLeases.ts"
import { findKept, sha256 } from "./sqliteLedger.ts"
import * as rows from "./sqliteRows.ts"
import { traced } from "./traced.ts"

/** What the table holds of a row, in whatever condition, and whether it is set aside. */
const SELECT_RAW = `SELECT ${rows.ledgerColumns}, ${rows.quarantineColumns} FROM keyward_key_packages k
  JOIN keyward_installations i ON i.installation_id = k.installation_id
  LEFT JOIN keyward_quarantined_key_packages q ON q.history_id = k.history_id
  WHERE k.history_id = ? AND k.installation_id = ?`

const deleteAtOf = (row: Ledger.Kept | Ledger.Quarantined): Option.Option<number> =>
  "deleteAt" in row ? Option.some(millis(row.deleteAt)) : Option.none()

/** Whether a row is still what its permit was given for, and its date of deletion, where it has one, has come. */
const isPermitted = (
  now: Ledger.Kept | Ledger.Quarantined,
  then: RetirementPermit["row"],
  at: DateTime.Utc
): boolean => {
  const isSameKind = "_tag" in now ? "_tag" in then && now._tag === then._tag : !("_tag" in then)
  const deleteAt = deleteAtOf(now)
  return (
    isSameKind &&
    Option.getOrUndefined(deleteAt) === Option.getOrUndefined(deleteAtOf(then)) &&
    !Option.exists(deleteAt, (time) => millis(at) < time)
  )
}

/** The methods of the port that are about the end of a row. */
export const make = (
  database: Database
): Pick<KeyPackageStore["Type"], "retire" | "scrub" | "quarantine" | "getRetired"> => {
  const { query, read, scrub, write } = database
  const held = requireLease(database)
  const change = reschedule(database)
  const find = findKept(database)

  /** Every trace of a row. */
  const erase = (historyId: Ledger.HistoryId) =>
    Effect.forEach(
      ["keyward_quarantined_key_packages", "keyward_private_keys", "keyward_key_packages"],
      (table) => query(`DELETE FROM ${table} WHERE history_id = ?`, historyId),
      { discard: true }
    )

  const retireKept = (leased: Leased, row: Ledger.Kept, reason: Ledger.RetirementReason, at: DateTime.Utc) =>
    Effect.gen(function* () {
      // One that cannot be read any more is not what it was.
      const now = yield* find(leased, row).pipe(
        Effect.catchTag("Refused", (refused) =>
          refused.reason === "Corrupt" ? Effect.succeedNone : Effect.fail(refused)
        )
      )
      if (!Option.exists(now, (entry) => isPermitted(entry, row, at))) return Option.none()
      const tombstone = Ledger.retire(Option.getOrThrow(now), wholeMillis(at), reason, sha256)
      yield* erase(row.historyId)
      // In the place of one that other hands have put there: nothing may keep the keys from being erased.
      yield* query(
        `INSERT OR REPLACE INTO keyward_retired_key_packages (${rows.retiredColumns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
        tombstone.historyId,
        tombstone.installationId,
        tombstone.ref,
        tombstone.initKeyHash,
        Option.getOrNull(tombstone.postQuantumKeyHash),
        millis(tombstone.createdAt),
        millis(tombstone.retiredAt),
        tombstone.reason
      )
      return Option.some(tombstone)
    })

  const findRaw = ({ installationId }: Leased, historyId: Ledger.HistoryId) =>
    Effect.map(query(SELECT_RAW, historyId, installationId), Arr.head)

  const eraseQuarantined = (leased: Leased, row: Ledger.Quarantined, at: DateTime.Utc) =>
    Effect.gen(function* () {
      const now = Option.flatMap(yield* findRaw(leased, row.historyId), (raw) => Either.getRight(rows.quarantined(raw)))
      if (!Option.exists(now, (found) => isPermitted(found, row, at))) return false
      yield* erase(row.historyId)
      return true
    })

  const setAside = (leased: Leased, { historyId }: Unreadable, at: DateTime.Utc, latest: DateTime.Utc) =>
    Effect.gen(function* () {
      const noSuch = conflict(
        `key package ${historyId} is not an unreadable row of installation ${leased.installationId}`
      )
      const raw = yield* Effect.flatMap(
        findRaw(leased, historyId),
        Effect.orElseFail(() => noSuch)
      )
      // One that is set aside already stays so, unless that was damaged too.
      const row: Either.Either<unknown, string> =
        raw["unreadable_column"] === null ? rows.readLedgerEntry(raw) : rows.quarantined(raw)
      if (Either.isRight(row)) return yield* noSuch
      yield* query(
        `INSERT INTO keyward_quarantined_key_packages (history_id, unreadable_column, quarantined_at, delete_at)
        VALUES (?, ?, ?, ?) ON CONFLICT (history_id) DO UPDATE SET unreadable_column = excluded.unreadable_column,
          quarantined_at = excluded.quarantined_at, delete_at = excluded.delete_at`,
        historyId,
        row.left,
        millis(at),
        rows.rawDeleteAt(raw, millis(at), millis(latest))
      )
      const [now] = yield* query(SELECT_RAW, historyId, leased.installationId)
      return yield* Either.mapLeft(rows.quarantined(now ?? raw), () => noSuch)
    })

  return {
    retire: traced("SqliteKeyPackageStore.retire")((lease, permits, { at, dropBefore, reschedule }) =>
      Effect.gen(function* () {
        const leased = yield* held(lease, at)
        if (!permits.every(isRetirementPermit)) {
          return yield* conflict("nothing shows that the keys are not needed any more")
        }
        const retired: Array<Ledger.Retired> = []
        const quarantined: Array<Ledger.HistoryId> = []
        for (const { reason, row } of permits.toSorted((a, b) => a.row.historyId - b.row.historyId)) {
          if ("_tag" in row) retired.push(...Option.toArray(yield* retireKept(leased, row, reason, at)))
          else if (yield* eraseQuarantined(leased, row, at)) quarantined.push(row.historyId)
        }
        yield* query(
          "DELETE FROM keyward_retired_key_packages WHERE installation_id = ? AND retired_at <= ?",
          leased.installationId,
          millis(dropBefore)
        )
        return [{ retired, quarantined }, yield* change(leased, reschedule)] as const
      }).pipe(write("retire"), announce(database, lease.installationId))
    ),

    scrub: Effect.withSpan(scrub("scrub"), "SqliteKeyPackageStore.scrub"),

    quarantine: traced("SqliteKeyPackageStore.quarantine")((lease, unreadable, { at, latest }) =>
      Effect.gen(function* () {
        const leased = yield* held(lease, at)
        return yield* Effect.forEach(unreadable, (row) => setAside(leased, row, at, latest))
      }).pipe(write("quarantine"))
    ),

    getRetired: traced("SqliteKeyPackageStore.getRetired")((id) =>
      query(
        `SELECT ${rows.retiredColumns} FROM keyward_retired_key_packages WHERE installation_id = ? ORDER BY history_id`,
        id
      ).pipe(Effect.map(Arr.filterMap((raw) => Either.getRight(rows.retired(raw)))), read("getRetired"))
    )
  }
}
