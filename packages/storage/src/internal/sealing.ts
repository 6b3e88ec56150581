/**
 * What the store seals, and the place that each seal is bound to: sealed keys that are moved to another row do not open.
 */
import type { InboxId } from "@keyward/core/identity/InboxId"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { InstallationKey } from "@keyward/core/identity/InstallationKey"
import type { KeyPackagePrivateKeys } from "@keyward/core/keypackage/GeneratedKeyPackage"
import type { KeyPackageRef } from "@keyward/core/keypackage/KeyPackageRef"
import type { KeySealer, SealError, Sealed } from "@keyward/core/ports/KeySealer"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { corrupt, Refused } from "./sqliteErrors.ts"
import type { SealedInstallationKey, SealedPrivateKeys } from "./sqliteRows.ts"

type Sealer = KeySealer["Type"]

/** Every part is hex or a fixed word, so that no two places spell the same. */
const place = (...parts: ReadonlyArray<string>): Uint8Array => new TextEncoder().encode(["keyward", ...parts].join(":"))

const installationKeyPlace = (row: { readonly installationId: InstallationId; readonly inboxId: InboxId }) =>
  place("installation-key", row.installationId, row.inboxId)

const privateKeysPlace = (row: { readonly installationId: InstallationId; readonly ref: KeyPackageRef }) =>
  place("key-package", row.installationId, row.ref)

const checkPlace = place("check-value")
/** What every check value says once it is opened. */
const CHECK = Redacted.make(new TextEncoder().encode("keyward"))

/** The length of each private key, in bytes. */
const KEY_BYTES = 32

/** Reading with a key that is not configured, or a row that was changed: the key itself was proven when the store opened. */
const unsealed = <A>(effect: Effect.Effect<A, SealError>, table: string, rowId: string | number, column: string) =>
  Effect.mapError(effect, (error) =>
    error.reason === "UnknownKey"
      ? new Refused({ reason: "WrongSealingKey", detail: error.message })
      : corrupt(table, rowId, column)
  )

/** The value that proves, whenever the store opens, that a sealing key is the one it was. */
export const sealCheckValue = (sealer: Sealer): Effect.Effect<Sealed> => sealer.seal(CHECK, checkPlace)

/** Fails with `WrongSealingKey` unless the sealer opens the check value. */
export const verifyCheckValue = (sealer: Sealer, check: Sealed): Effect.Effect<void, Refused> =>
  sealer.unseal(check, checkPlace).pipe(
    Effect.mapError((error) => new Refused({ reason: "WrongSealingKey", detail: error.message })),
    Effect.asVoid
  )

/** An installation's seed, sealed for its row. */
export const sealInstallationKey = (
  sealer: Sealer,
  key: InstallationKey,
  row: { readonly installationId: InstallationId; readonly inboxId: InboxId }
): Effect.Effect<Sealed> => sealer.seal(key.seed, installationKeyPlace(row))

/** The installation's key back from its row. */
export const unsealInstallationKey = (
  sealer: Sealer,
  row: SealedInstallationKey
): Effect.Effect<InstallationKey, Refused> =>
  unsealed(sealer.unseal(row.sealed, installationKeyPlace(row)), "keyward_installations", row.seq, "sealed_key").pipe(
    Effect.filterOrFail(
      (seed) => Redacted.value(seed).length === KEY_BYTES,
      () => corrupt("keyward_installations", row.seq, "sealed_key")
    ),
    Effect.map((seed) => ({ installationId: row.installationId, seed }))
  )

/** A package's private keys, sealed as one secret: init key, encryption key and, where there is one, X-Wing seed. */
export const sealPrivateKeys = (
  sealer: Sealer,
  keys: KeyPackagePrivateKeys,
  row: { readonly installationId: InstallationId; readonly ref: KeyPackageRef }
): Effect.Effect<Sealed> =>
  Effect.suspend(() => {
    const parts = [keys.initKey, keys.encryptionKey, ...Option.toArray(keys.postQuantumKey)].map(Redacted.value)
    if (parts.some((part) => part.length !== KEY_BYTES)) return Effect.dieMessage("a private key is not 32 bytes")
    const secret = new Uint8Array(parts.length * KEY_BYTES)
    parts.forEach((part, index) => {
      secret.set(part, index * KEY_BYTES)
    })
    return Effect.ensuring(
      sealer.seal(Redacted.make(secret), privateKeysPlace(row)),
      Effect.sync(() => secret.fill(0))
    )
  })

/** A package's private keys back from its row. */
export const unsealPrivateKeys = (
  sealer: Sealer,
  row: SealedPrivateKeys
): Effect.Effect<KeyPackagePrivateKeys, Refused> =>
  unsealed(sealer.unseal(row.sealed, privateKeysPlace(row)), "keyward_private_keys", row.historyId, "sealed_keys").pipe(
    Effect.map(Redacted.value),
    Effect.filterOrFail(
      (secret) => secret.length === (row.isPostQuantum ? 3 : 2) * KEY_BYTES,
      () => corrupt("keyward_private_keys", row.historyId, "sealed_keys")
    ),
    Effect.map((secret) => {
      const part = (index: number) => Redacted.make(secret.slice(index * KEY_BYTES, (index + 1) * KEY_BYTES))
      return {
        initKey: part(0),
        encryptionKey: part(1),
        postQuantumKey: row.isPostQuantum ? Option.some(part(2)) : Option.none()
      }
    })
  )

/** The same secret under the sealer's current key, still bound to its row. */
export const resealInstallationKey = (sealer: Sealer, row: SealedInstallationKey): Effect.Effect<Sealed, Refused> =>
  Effect.flatMap(unsealInstallationKey(sealer, row), (key) => sealInstallationKey(sealer, key, row))

/** The same secrets under the sealer's current key, still bound to their row. */
export const resealPrivateKeys = (sealer: Sealer, row: SealedPrivateKeys): Effect.Effect<Sealed, Refused> =>
  Effect.flatMap(unsealPrivateKeys(sealer, row), (keys) => sealPrivateKeys(sealer, keys, row))
