/**
 * Rows as SQLite returns them, decoded into the domain. A row that is not what this library writes becomes `Corrupt` with its
 * table, row and column; its values are never shown.
 */
import { InboxId } from "@keyward/core/identity/InboxId"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import type { PublicKeyPackage } from "@keyward/core/keypackage/GeneratedKeyPackage"
import { KeyPackageRef } from "@keyward/core/keypackage/KeyPackageRef"
import { Lifetime } from "@keyward/core/keypackage/Lifetime"
import type { Installation, Registration } from "@keyward/core/lifecycle/Installation"
import { HistoryId, type LedgerEntry } from "@keyward/core/lifecycle/Ledger"
import { Sealed } from "@keyward/core/ports/KeySealer"
import type * as DateTime from "effect/DateTime"
import * as Either from "effect/Either"
import type * as Option from "effect/Option"
import * as ParseResult from "effect/ParseResult"
import * as Schema from "effect/Schema"
import { corrupt, type Refused } from "./sqliteErrors.ts"

/** A row as the driver returns it. */
type Raw = Readonly<Record<string, unknown>>

/** The driver's Buffers, seen as the plain byte arrays of the domain. */
const Bytes = Schema.transform(Schema.Uint8ArrayFromSelf, Schema.Uint8ArrayFromSelf, {
  strict: true,
  decode: (bytes) => new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength),
  encode: (bytes) => bytes
})
const bytesOf = (length: number) => Bytes.pipe(Schema.filter((bytes) => bytes.length === length))

/** Milliseconds since 1970. */
const Time = Schema.DateTimeUtcFromNumber
/** Seconds since 1970. A number above 2^53 would have lost digits on its way here. */
const Seconds = Schema.Int.pipe(Schema.nonNegative())
/** The columns that a state does not have. */
const Absent = Schema.Null

/** How an error names a row. */
const nameOf = (raw: Raw, id: string): string => {
  const value = raw[id]
  return typeof value === "number" || typeof value === "string" ? String(value).slice(0, 64) : "?"
}

/** Decodes the rows of one table; `id` is the column that names a row in an error. */
const decoder = <A, I>(table: string, id: string, schema: Schema.Schema<A, I>) => {
  const decode = Schema.decodeUnknownEither(schema)
  return (raw: Raw): Either.Either<A, Refused> =>
    Either.mapLeft(decode(raw), (error) => {
      // Only the path of the first issue is used: its message would show the value.
      const column = ParseResult.ArrayFormatter.formatErrorSync(error)[0]?.path[0]
      return corrupt(table, nameOf(raw, id), String(column ?? "?"))
    })
}

/** Decodes the rows of a table that have the columns of their state: one schema for each value of the column `state`. */
const stateDecoder = <Schemas extends Record<string, Schema.Schema.AnyNoContext>>(
  table: string,
  id: string,
  state: string,
  schemas: Schemas
) => {
  type Row = Schema.Schema.Type<Schemas[keyof Schemas]>
  const decoders = new Map(
    Object.entries(schemas).map(([name, schema]) => [name, decoder<Row, unknown>(table, id, schema)])
  )
  return (raw: Raw): Either.Either<Row, Refused> => {
    const decode = decoders.get(String(raw[state]))
    return decode === undefined ? Either.left(corrupt(table, nameOf(raw, id), state)) : decode(raw)
  }
}

const installationColumns = {
  seq: Schema.Int,
  installation_id: InstallationId,
  inbox_id: InboxId,
  label: Schema.String,
  created_at: Time,
  next_rotation_at: Schema.OptionFromNullOr(Time)
}

const decodeInstallation = stateDecoder("keyward_installations", "seq", "registration", {
  Intended: Schema.Struct({
    ...installationColumns,
    registration: Schema.Literal("Intended"),
    identity_update: Absent,
    registered_at: Absent
  }),
  Signed: Schema.Struct({
    ...installationColumns,
    registration: Schema.Literal("Signed"),
    identity_update: Bytes,
    registered_at: Absent
  }),
  Registered: Schema.Struct({
    ...installationColumns,
    registration: Schema.Literal("Registered"),
    identity_update: Bytes,
    registered_at: Time
  })
})

/** The columns that `installation` reads. */
export const installationSelect = `SELECT seq, installation_id, inbox_id, label, created_at, registration, identity_update,
  registered_at, next_rotation_at FROM keyward_installations`

/** An installation, from the columns of `installationSelect`. */
export const installation = (raw: Raw): Either.Either<Installation, Refused> =>
  Either.map(decodeInstallation(raw), (row): Installation => {
    const registration: Registration =
      row.registration === "Intended"
        ? { _tag: "Intended" }
        : row.registration === "Signed"
          ? { _tag: "Signed", identityUpdate: row.identity_update }
          : { _tag: "Registered", identityUpdate: row.identity_update, registeredAt: row.registered_at }
    return {
      installationId: row.installation_id,
      inboxId: row.inbox_id,
      label: row.label,
      createdAt: row.created_at,
      registration,
      nextRotationAt: row.next_rotation_at
    }
  })

const ledgerColumns = {
  history_id: HistoryId,
  installation_id: InstallationId,
  inbox_id: InboxId,
  ref: KeyPackageRef,
  key_package: Bytes,
  not_before: Seconds,
  not_after: Seconds,
  init_key: bytesOf(32),
  post_quantum_key: Schema.OptionFromNullOr(bytesOf(1216)),
  created_at: Time
}
const notSuperseded = { superseded_by: Absent, superseded_at: Absent, delete_at: Absent }

const decodeLedgerEntry = stateDecoder("keyward_key_packages", "history_id", "state", {
  Prepared: Schema.Struct({
    ...ledgerColumns,
    ...notSuperseded,
    state: Schema.Literal("Prepared"),
    exposed_at: Absent,
    published_at: Absent
  }),
  Exposed: Schema.Struct({
    ...ledgerColumns,
    ...notSuperseded,
    state: Schema.Literal("Exposed"),
    exposed_at: Time,
    published_at: Absent
  }),
  Published: Schema.Struct({
    ...ledgerColumns,
    ...notSuperseded,
    state: Schema.Literal("Published"),
    exposed_at: Time,
    published_at: Time
  }),
  Superseded: Schema.Struct({
    ...ledgerColumns,
    state: Schema.Literal("Superseded"),
    exposed_at: Schema.OptionFromNullOr(Time),
    published_at: Schema.OptionFromNullOr(Time),
    superseded_by: HistoryId,
    superseded_at: Time,
    delete_at: Time
  })
})

/** The columns that `ledgerEntry` reads. */
export const ledgerSelect = `SELECT k.history_id, k.installation_id, i.inbox_id, k.state, k.ref, k.key_package, k.not_before,
  k.not_after, k.init_key, k.post_quantum_key, k.created_at, k.exposed_at, k.published_at, k.superseded_by,
  k.superseded_at, k.delete_at
  FROM keyward_key_packages k JOIN keyward_installations i ON i.installation_id = k.installation_id`

/** A row of the ledger, from the columns of `ledgerSelect`. */
export const ledgerEntry = (raw: Raw): Either.Either<LedgerEntry, Refused> =>
  Either.map(decodeLedgerEntry(raw), (row): LedgerEntry => {
    const keyPackage: PublicKeyPackage = {
      inboxId: row.inbox_id,
      installationId: row.installation_id,
      ref: row.ref,
      bytes: row.key_package,
      lifetime: new Lifetime({ notBefore: BigInt(row.not_before), notAfter: BigInt(row.not_after) }),
      initKey: row.init_key,
      postQuantumKey: row.post_quantum_key
    }
    const shared = { historyId: row.history_id, keyPackage, createdAt: row.created_at }
    switch (row.state) {
      case "Prepared":
        return { _tag: "Prepared", ...shared }
      case "Exposed":
        return { _tag: "Exposed", ...shared, exposedAt: row.exposed_at }
      case "Published":
        return { _tag: "Published", ...shared, exposedAt: row.exposed_at, publishedAt: row.published_at }
      case "Superseded":
        return {
          _tag: "Superseded",
          ...shared,
          exposedAt: row.exposed_at,
          publishedAt: row.published_at,
          supersededBy: row.superseded_by,
          supersededAt: row.superseded_at,
          deleteAt: row.delete_at
        }
    }
  })

/** A stored lease: its fence and, while somebody holds it, when it ends. */
export interface StoredLease {
  readonly fence: number
  readonly expiresAt: Option.Option<DateTime.Utc>
}

const decodeLease = decoder(
  "keyward_leases",
  "installation_id",
  Schema.Struct({
    installation_id: InstallationId,
    fence: Schema.Int.pipe(Schema.positive()),
    expires_at: Schema.OptionFromNullOr(Time)
  })
)

/** A lease, from its whole row. */
export const lease = (raw: Raw): Either.Either<StoredLease, Refused> =>
  Either.map(decodeLease(raw), (row) => ({ fence: row.fence, expiresAt: row.expires_at }))

const sealedColumns = { installation_id: InstallationId, sealing_key_id: Schema.NonEmptyString }

/** A sealed installation key with what its seal is bound to. */
export interface SealedInstallationKey {
  readonly seq: number
  readonly installationId: InstallationId
  readonly inboxId: InboxId
  readonly sealed: Sealed
}

const decodeInstallationKey = decoder(
  "keyward_installations",
  "seq",
  Schema.Struct({ ...sealedColumns, seq: Schema.Int, inbox_id: InboxId, sealed_key: Bytes })
)

/** The columns that `installationKey` reads. */
export const installationKeySelect = `SELECT seq, installation_id, inbox_id, sealing_key_id, sealed_key
  FROM keyward_installations`

/** A sealed installation key, from the columns of `installationKeySelect`. */
export const installationKey = (raw: Raw): Either.Either<SealedInstallationKey, Refused> =>
  Either.map(decodeInstallationKey(raw), (row) => ({
    seq: row.seq,
    installationId: row.installation_id,
    inboxId: row.inbox_id,
    sealed: new Sealed({ keyId: row.sealing_key_id, bytes: row.sealed_key })
  }))

/** The sealed private keys of a package with what their seal is bound to. */
export interface SealedPrivateKeys {
  readonly historyId: HistoryId
  readonly installationId: InstallationId
  readonly ref: KeyPackageRef
  /** Whether the package has an X-Wing key, and so a third private key. */
  readonly isPostQuantum: boolean
  readonly sealed: Sealed
}

const decodePrivateKeys = decoder(
  "keyward_private_keys",
  "history_id",
  Schema.Struct({
    ...sealedColumns,
    history_id: HistoryId,
    ref: KeyPackageRef,
    is_post_quantum: Schema.Literal(0, 1),
    sealed_keys: Bytes
  })
)

/** The columns that `privateKeys` reads. A row of the ledger without keys has null in `sealed_keys`. */
export const privateKeysSelect = `SELECT k.history_id, k.installation_id, k.ref,
  k.post_quantum_key IS NOT NULL AS is_post_quantum, p.sealing_key_id, p.sealed_keys
  FROM keyward_key_packages k LEFT JOIN keyward_private_keys p ON p.history_id = k.history_id`

/** The sealed private keys of a package, from the columns of `privateKeysSelect`. */
export const privateKeys = (raw: Raw): Either.Either<SealedPrivateKeys, Refused> =>
  Either.map(decodePrivateKeys(raw), (row) => ({
    historyId: row.history_id,
    installationId: row.installation_id,
    ref: row.ref,
    isPostQuantum: row.is_post_quantum === 1,
    sealed: new Sealed({ keyId: row.sealing_key_id, bytes: row.sealed_keys })
  }))

const decodeCheckValue = decoder(
  "keyward_sealing_keys",
  "key_id",
  Schema.Struct({ key_id: Schema.NonEmptyString, check_value: Bytes })
)

/** The check value of a sealing key, from its whole row. */
export const checkValue = (raw: Raw): Either.Either<Sealed, Refused> =>
  Either.map(decodeCheckValue(raw), (row) => new Sealed({ keyId: row.key_id, bytes: row.check_value }))
