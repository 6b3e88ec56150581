/**
 * What a store holds, as the invariants look at it.
 *
 * @since 1.0.0
 */
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { KeyPackageRef } from "@keyward/core/keypackage/KeyPackageRef"
import type { Installation } from "@keyward/core/lifecycle/Installation"
import type { HistoryId, LedgerEntry } from "@keyward/core/lifecycle/Ledger"
import { KeyPackageStore, type StorageError } from "@keyward/core/ports/KeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as Option from "effect/Option"
import type { Content } from "../MemoryKeyPackageStore.ts"

/**
 * One key package whose row is there.
 *
 * @since 1.0.0
 * @category models
 */
export interface RowState {
  readonly historyId: HistoryId
  /** None where the row cannot be read that far. */
  readonly ref: KeyPackageRef | undefined
  readonly state: Exclude<LedgerEntry["_tag"], "Retired"> | "Quarantined" | "Damaged"
  /** Milliseconds since 1970. */
  readonly createdAt: number | undefined
  /** Milliseconds since 1970; none in a state without one. */
  readonly deleteAt: number | undefined
  /** The end of the package's lifetime, milliseconds since 1970. */
  readonly notAfter: number | undefined
  readonly notBefore: number | undefined
}

/**
 * One installation with its rows, oldest first.
 *
 * @since 1.0.0
 * @category models
 */
export interface InstallationState {
  readonly installation: Installation
  readonly rows: ReadonlyArray<RowState>
}

/**
 * A whole store.
 *
 * @since 1.0.0
 * @category models
 */
export interface StoreState {
  readonly installations: ReadonlyArray<InstallationState>
  /** The rows whose private keys are here. */
  readonly keys: ReadonlySet<HistoryId>
}

const rowState = (entry: Exclude<LedgerEntry, { readonly _tag: "Retired" }>): RowState => ({
  historyId: entry.historyId,
  ref: entry.keyPackage.ref,
  state: entry._tag,
  createdAt: DateTime.toEpochMillis(entry.createdAt),
  deleteAt: "deleteAt" in entry ? DateTime.toEpochMillis(entry.deleteAt) : undefined,
  notAfter: Number(entry.keyPackage.lifetime.notAfter) * 1000,
  notBefore: Number(entry.keyPackage.lifetime.notBefore) * 1000
})

/**
 * The state of a memory store.
 *
 * @since 1.0.0
 * @category constructors
 */
export const ofMemory = (content: Content): StoreState => ({
  keys: new Set(HashMap.keys(content.privateKeys)),
  installations: content.order.map((id) => {
    const { installation, rows } = HashMap.unsafeGet(content.installations, id)
    return {
      installation,
      rows: rows.map(({ damaged, entry, quarantined }): RowState => {
        const row = rowState(entry)
        if (Option.isSome(quarantined)) {
          return { ...row, state: "Quarantined", deleteAt: DateTime.toEpochMillis(quarantined.value.deleteAt) }
        }
        return Option.isSome(damaged) ? { ...row, state: "Damaged" } : row
      })
    }
  })
})

/**
 * The state of any store, read through its port: slower, and blind to keys that have no row.
 *
 * @since 1.0.0
 * @category constructors
 */
export const ofStore = (ids: ReadonlyArray<InstallationId>): Effect.Effect<StoreState, StorageError, KeyPackageStore> =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const keys = new Set<HistoryId>()
    const installations: Array<InstallationState> = []
    for (const id of ids) {
      const installation = yield* store.getInstallation(id)
      if (Option.isNone(installation)) continue
      const { entries, quarantined, unreadable } = yield* store.getLedger(id)
      const rows = [
        ...entries.map(rowState),
        ...unreadable.map(({ historyId }): RowState => ({ ...UNREADABLE, historyId, state: "Damaged" })),
        ...quarantined.map(
          ({ deleteAt, historyId, ref }): RowState => ({
            ...UNREADABLE,
            historyId,
            ref: Option.getOrUndefined(ref),
            state: "Quarantined",
            deleteAt: DateTime.toEpochMillis(deleteAt)
          })
        )
      ].sort((one, other) => one.historyId - other.historyId)
      for (const { historyId } of rows) {
        const found = yield* Effect.catchIf(
          store.getPrivateKeys(historyId),
          (error) => error.reason === "Corrupt",
          () => Effect.succeedNone
        )
        if (Option.isSome(found)) keys.add(historyId)
      }
      installations.push({ installation: installation.value, rows })
    }
    return { installations, keys }
  })

const UNREADABLE = {
  ref: undefined,
  createdAt: undefined,
  deleteAt: undefined,
  notAfter: undefined,
  notBefore: undefined
}
