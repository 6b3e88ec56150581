/**
 * Whether a package could still be used: its private keys are here and can be read. One without them would be served, and no
 * Welcome to it opened.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { HistoryId } from "../lifecycle/Ledger.ts"
import { KeyPackageStore, type StorageError } from "../ports/KeyPackageStore.ts"

/** Sealed keys that do not open are as good as none. */
export const hasPrivateKeys = (id: HistoryId): Effect.Effect<boolean, StorageError, KeyPackageStore> =>
  Effect.flatMap(KeyPackageStore, (store) => store.getPrivateKeys(id)).pipe(
    Effect.map(Option.isSome),
    Effect.catchIf(
      (error) => error.reason === "Corrupt",
      () => Effect.succeed(false)
    )
  )
