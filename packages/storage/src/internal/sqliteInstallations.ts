/**
 * Installations: who they are, their keys, and how far their registration has come.
 */
import type { SqlError } from "@effect/sql/SqlError"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { Installation } from "@keyward/core/lifecycle/Installation"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import type { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as sealing from "./sealing.ts"
import type { Database } from "./sqliteDatabase.ts"
import { conflict, type Refused, toStorageError } from "./sqliteErrors.ts"
import { millis, requireLease } from "./sqliteLeases.ts"
import * as rows from "./sqliteRows.ts"
import * as schedules from "./sqliteSchedule.ts"
import { traced } from "./traced.ts"

const SELECT = `SELECT ${rows.installationColumns} FROM keyward_installations`
const RETURNING = `RETURNING ${rows.installationColumns}`

const first = (raw: ReadonlyArray<rows.Raw>): Effect.Effect<Option.Option<Installation>, Refused> =>
  raw[0] === undefined ? Effect.succeedNone : Effect.asSome(rows.installation(raw[0]))

/** The methods of the port that are about installations. */
export const make = (
  database: Database
): Pick<
  KeyPackageStore["Type"],
  | "findOrCreateInstallation"
  | "getInstallation"
  | "getInstallations"
  | "getInstallationKey"
  | "saveIdentityUpdate"
  | "markRegistered"
> => {
  const { query, read, sealer, write } = database
  const held = requireLease(database)

  const find = (id: InstallationId): Effect.Effect<Option.Option<Installation>, SqlError | Refused> =>
    Effect.flatMap(query(`${SELECT} WHERE installation_id = ?`, id), first)

  const noSuch = (id: InstallationId) => conflict(`there is no installation ${id}`)

  return {
    findOrCreateInstallation: traced("SqliteKeyPackageStore.findOrCreateInstallation")(
      Effect.fnUntraced(function* (intent) {
        const { inboxId, label, key } = intent
        const { installationId } = key
        const sealed = yield* sealing.sealInstallationKey(sealer, key, { installationId, inboxId })
        const { due_at, schedule } = schedules.encode(Schedule.empty)
        return yield* Effect.gen(function* () {
          yield* query(
            `INSERT INTO keyward_installations
            (installation_id, inbox_id, label, created_at, sealing_key_id, sealed_key, registration, schedule, due_at)
          VALUES (?, ?, ?, ?, ?, ?, 'Intended', ?, ?) ON CONFLICT (inbox_id, label) DO NOTHING`,
            installationId,
            inboxId,
            label,
            millis(intent.at),
            sealed.keyId,
            sealed.bytes,
            schedule,
            due_at
          )
          const found = yield* Effect.flatMap(
            query(`${SELECT} WHERE inbox_id = ? AND label = ?`, inboxId, label),
            first
          )
          return yield* Effect.orElseFail(found, () => conflict(`installation ${installationId} has another label`))
        }).pipe(write("findOrCreateInstallation"))
      })
    ),

    getInstallation: traced("SqliteKeyPackageStore.getInstallation")((id) => find(id).pipe(read("getInstallation"))),

    getInstallations: traced("SqliteKeyPackageStore.getInstallations")((inboxId) =>
      query(`${SELECT} WHERE inbox_id = ? ORDER BY seq`, inboxId).pipe(
        Effect.flatMap(Effect.forEach((raw) => rows.installation(raw))),
        read("getInstallations")
      )
    ),

    getInstallationKey: traced("SqliteKeyPackageStore.getInstallationKey")((id) =>
      query(`${rows.installationKeySelect} WHERE installation_id = ?`, id).pipe(
        Effect.flatMap(([raw]) => (raw === undefined ? noSuch(id) : rows.installationKey(raw))),
        read("getInstallationKey"),
        // Not while the connection is held.
        Effect.flatMap((row) => sealing.unsealInstallationKey(sealer, row).pipe(toStorageError("getInstallationKey")))
      )
    ),

    saveIdentityUpdate: traced("SqliteKeyPackageStore.saveIdentityUpdate")((lease, identityUpdate, at) =>
      Effect.gen(function* () {
        const { installationId } = yield* held(lease, at)
        const signed = yield* Effect.flatMap(
          query(
            `UPDATE keyward_installations SET registration = 'Signed', identity_update = ?
            WHERE installation_id = ? AND registration <> 'Registered' ${RETURNING}`,
            identityUpdate,
            installationId
          ),
          first
        )
        return yield* Effect.orElseFail(signed, () => conflict(`installation ${installationId} is registered`))
      }).pipe(write("saveIdentityUpdate"))
    ),

    markRegistered: traced("SqliteKeyPackageStore.markRegistered")((lease, at) =>
      Effect.gen(function* () {
        const { installationId } = yield* held(lease, at)
        const registered = yield* Effect.flatMap(
          query(
            `UPDATE keyward_installations SET registration = 'Registered', registered_at = ?
            WHERE installation_id = ? AND registration = 'Signed' ${RETURNING}`,
            millis(at),
            installationId
          ),
          first
        )
        if (Option.isSome(registered)) return registered.value
        const installation = yield* Effect.flatMap(yield* find(installationId), Effect.succeed).pipe(
          Effect.catchTag("NoSuchElementException", () => noSuch(installationId))
        )
        return installation.registration._tag === "Registered"
          ? installation
          : yield* conflict(`installation ${installationId} has no signed identity update`)
      }).pipe(write("markRegistered"))
    )
  }
}
