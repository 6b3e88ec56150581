/**
 * Rows as SQLite returns them, decoded into the domain. A row that is not what this library writes becomes `Corrupt` with its
 * table, row and column; its values are never shown.
 *
 * The checks are written by hand: they are as strict as a schema of the same columns, in a twentieth of the time, and every
 * write of a rotation reads rows.
 */
import { InboxId } from "@keyward/core/identity/InboxId"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import { KeyPackageRef } from "@keyward/core/keypackage/KeyPackageRef"
import { Lifetime } from "@keyward/core/keypackage/Lifetime"
import type { Installation, Registration } from "@keyward/core/lifecycle/Installation"
import {
  HistoryId,
  type Kept,
  type Quarantined,
  type Retired,
  RetirementReason,
  RotationTrigger
} from "@keyward/core/lifecycle/Ledger"
import type { Unreadable } from "@keyward/core/ports/KeyPackageStore"
import { Sealed } from "@keyward/core/ports/KeySealer"
import * as DateTime from "effect/DateTime"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import { corrupt, type Refused } from "./sqliteErrors.ts"
import * as schedules from "./sqliteSchedule.ts"

/** A row as the driver returns it. */
export type Raw = Readonly<Record<string, unknown>>

/** The furthest from 1970 that a time can be, milliseconds (ECMA-262, time values). */
const MAX_MILLIS = 8.64e15

const HEX_32 = /^[0-9a-f]{64}$/
const unchecked = { disableValidation: true } as const

const isMillis = (value: unknown): value is number =>
  typeof value === "number" && Number.isInteger(value) && Math.abs(value) <= MAX_MILLIS

/** A whole number that has lost no digits on its way here. */
const isCount = (value: unknown): value is number => typeof value === "number" && Number.isSafeInteger(value)

/**
 * Reads the columns of one row. The first that is not what it has to be is remembered, and the row is of no use then: what the
 * getters give for such a column stands for nothing.
 */
class Columns {
  readonly raw: Raw
  unreadable: string | undefined = undefined

  constructor(raw: Raw) {
    this.raw = raw
  }

  /** Notes a column that cannot be read. */
  reject(column: string): void {
    this.unreadable ??= column
  }

  text(column: string): string {
    const value = this.raw[column]
    if (typeof value === "string") return value
    this.reject(column)
    return ""
  }

  /** 32 bytes, as lower-case hex. */
  hex(column: string): string {
    const value = this.raw[column]
    if (typeof value === "string" && HEX_32.test(value)) return value
    this.reject(column)
    return ""
  }

  /** One of these words. */
  word<Word extends string>(column: string, words: ReadonlySet<Word>, otherwise: Word): Word {
    const value = this.raw[column]
    for (const word of words) if (word === value) return word
    this.reject(column)
    return otherwise
  }

  /** The driver's Buffer, seen as the plain byte array of the domain; of this length, where one is given. */
  bytes(column: string, length?: number): Uint8Array {
    const value = this.raw[column]
    if (value instanceof Uint8Array && (length === undefined || value.length === length)) {
      return new Uint8Array(value.buffer, value.byteOffset, value.byteLength)
    }
    this.reject(column)
    return new Uint8Array()
  }

  /** Milliseconds since 1970. */
  time(column: string): DateTime.Utc {
    const value = this.raw[column]
    if (isMillis(value)) return DateTime.unsafeMake(value)
    this.reject(column)
    return DateTime.unsafeMake(0)
  }

  /** Not negative. A number above 2^53 would have lost digits on its way here. */
  count(column: string): number {
    const value = this.raw[column]
    if (isCount(value) && value >= 0) return value
    this.reject(column)
    return 0
  }

  historyId(column: string): HistoryId {
    const value = this.count(column)
    if (value === 0) this.reject(column)
    return HistoryId.make(value, unchecked)
  }

  option<A>(column: string, get: () => A): Option.Option<A> {
    return this.raw[column] === null ? Option.none() : Option.some(get())
  }

  optionalTime(column: string): Option.Option<DateTime.Utc> {
    return this.raw[column] === null ? Option.none() : Option.some(this.time(column))
  }

  /** Columns that a state does not have. */
  absent(...columns: ReadonlyArray<string>): void {
    for (const column of columns) if (this.raw[column] !== null) this.reject(column)
  }

  /** The value, if every column could be read, else the first that could not. */
  result<A>(value: A): Either.Either<A, string> {
    return this.unreadable === undefined ? Either.right(value) : Either.left(this.unreadable)
  }
}

/** How an error names a row. */
const nameOf = (raw: Raw, id: string): string => {
  const value = raw[id]
  return typeof value === "number" || typeof value === "string" ? String(value).slice(0, 64) : "?"
}

/** The failure of a row of this table, which `id` names. */
const orCorrupt =
  (table: string, id: string, raw: Raw) =>
  <A>(row: Either.Either<A, string>): Either.Either<A, Refused> =>
    Either.mapLeft(row, (column) => corrupt(table, nameOf(raw, id), column))

const REGISTRATIONS = new Set(["Intended", "Signed", "Registered"] as const)

/** The columns that `installation` reads. */
export const installationColumns = `seq, installation_id, inbox_id, label, created_at, registration, identity_update,
  registered_at, schedule`

const registration = (columns: Columns): Registration => {
  switch (columns.word("registration", REGISTRATIONS, "Intended")) {
    case "Intended":
      columns.absent("identity_update", "registered_at")
      return { _tag: "Intended" }
    case "Signed":
      columns.absent("registered_at")
      return { _tag: "Signed", identityUpdate: columns.bytes("identity_update") }
    case "Registered":
      return {
        _tag: "Registered",
        identityUpdate: columns.bytes("identity_update"),
        registeredAt: columns.time("registered_at")
      }
  }
}

/** An installation, from the columns of `installationColumns`. A schedule that cannot be read stops nothing. */
export const installation = (raw: Raw): Either.Either<Installation, Refused> => {
  const columns = new Columns(raw)
  const value: Installation = {
    installationId: InstallationId.make(columns.hex("installation_id"), unchecked),
    inboxId: InboxId.make(columns.hex("inbox_id"), unchecked),
    label: columns.text("label"),
    createdAt: columns.time("created_at"),
    registration: registration(columns),
    schedule: schedules.decode(raw["schedule"])
  }
  return orCorrupt("keyward_installations", "seq", raw)(columns.result(value))
}

/** The columns that `ledgerEntry` reads, of `keyward_key_packages k` and `keyward_installations i`. */
export const ledgerColumns = `k.history_id, k.installation_id, i.inbox_id, k.state, k.rotation_trigger, k.ref, k.key_package,
  k.not_before, k.not_after, k.init_key, k.post_quantum_key, k.created_at, k.exposed_at, k.published_at, k.superseded_by,
  k.superseded_at, k.rejected_at, k.delete_at`

const STATES = new Set(["Prepared", "Exposed", "Published", "Superseded", "Rejected"] as const)
const TRIGGERS = new Set(RotationTrigger.literals)

const keptRow = (columns: Columns) => ({
  historyId: columns.historyId("history_id"),
  keyPackage: {
    inboxId: InboxId.make(columns.hex("inbox_id"), unchecked),
    installationId: InstallationId.make(columns.hex("installation_id"), unchecked),
    ref: KeyPackageRef.make(columns.hex("ref"), unchecked),
    bytes: columns.bytes("key_package"),
    lifetime: new Lifetime(
      { notBefore: BigInt(columns.count("not_before")), notAfter: BigInt(columns.count("not_after")) },
      unchecked
    ),
    initKey: columns.bytes("init_key", 32),
    postQuantumKey: columns.option("post_quantum_key", () => columns.bytes("post_quantum_key", 1216))
  },
  createdAt: columns.time("created_at"),
  trigger: columns.word("rotation_trigger", TRIGGERS, "Manual")
})

const kept = (columns: Columns): Kept => {
  const state = columns.word("state", STATES, "Prepared")
  if (state !== "Superseded") columns.absent("superseded_by", "superseded_at")
  if (state !== "Rejected") columns.absent("rejected_at")
  switch (state) {
    case "Prepared":
      columns.absent("exposed_at", "published_at", "delete_at")
      return { _tag: state, ...keptRow(columns) }
    case "Exposed":
      columns.absent("published_at", "delete_at")
      return { _tag: state, ...keptRow(columns), exposedAt: columns.time("exposed_at") }
    case "Published":
      columns.absent("delete_at")
      return {
        _tag: state,
        ...keptRow(columns),
        exposedAt: columns.time("exposed_at"),
        publishedAt: columns.time("published_at")
      }
    case "Superseded":
      return {
        _tag: state,
        ...keptRow(columns),
        exposedAt: columns.optionalTime("exposed_at"),
        publishedAt: columns.optionalTime("published_at"),
        supersededBy: columns.historyId("superseded_by"),
        supersededAt: columns.time("superseded_at"),
        deleteAt: columns.time("delete_at")
      }
    case "Rejected":
      columns.absent("published_at")
      return {
        _tag: state,
        ...keptRow(columns),
        exposedAt: columns.time("exposed_at"),
        rejectedAt: columns.time("rejected_at"),
        deleteAt: columns.time("delete_at")
      }
  }
}

/** A row of the ledger, from `ledgerColumns`, or the first column that cannot be read. */
export const readLedgerEntry = (raw: Raw): Either.Either<Kept, string> => {
  const columns = new Columns(raw)
  return columns.result(kept(columns))
}

/** A row of the ledger, from `ledgerColumns`. */
export const ledgerEntry = (raw: Raw): Either.Either<Kept, Refused> =>
  orCorrupt("keyward_key_packages", "history_id", raw)(readLedgerEntry(raw))

/** How a row that cannot be read is named; none where its id is no number that we could say. */
export const unreadable = (raw: Raw, column: string): Option.Option<Unreadable> => {
  const id = raw["history_id"]
  return isCount(id) ? Option.some({ historyId: HistoryId.make(id, unchecked), column }) : Option.none()
}

/** The columns that `quarantined` reads beside those of the row, of `keyward_quarantined_key_packages q`. */
export const quarantineColumns = `q.unreadable_column, q.quarantined_at, q.delete_at AS quarantine_delete_at`

/** A row that is set aside, from `ledgerColumns` and `quarantineColumns`. Of the row itself only what can be read is. */
export const quarantined = (raw: Raw): Either.Either<Quarantined, string> => {
  const columns = new Columns(raw)
  const ref = raw["ref"]
  const id = raw["history_id"]
  if (!isCount(id)) columns.reject("history_id")
  return columns.result<Quarantined>({
    historyId: HistoryId.make(Number(id), unchecked),
    installationId: InstallationId.make(columns.hex("installation_id"), unchecked),
    column: columns.text("unreadable_column"),
    ref: typeof ref === "string" && HEX_32.test(ref) ? Option.some(KeyPackageRef.make(ref, unchecked)) : Option.none(),
    quarantinedAt: columns.time("quarantined_at"),
    deleteAt: columns.time("quarantine_delete_at")
  })
}

/**
 * When a row that cannot be read is to be erased, milliseconds since 1970: at its raw date of deletion where that is a time, or
 * within `at` and `latest` as near to it as can be; else at the end of its lifetime where that lies within; else at the latest.
 */
export const rawDeleteAt = (raw: Raw, at: number, latest: number): number => {
  const deleteAt = raw["delete_at"]
  if (isMillis(deleteAt)) return Math.min(Math.max(deleteAt, at), latest)
  const notAfter = raw["not_after"]
  const expiry = isCount(notAfter) ? notAfter * 1000 : latest
  return at <= expiry && expiry <= latest ? expiry : latest
}

/** The columns that `retired` reads, of `keyward_retired_key_packages`. */
export const retiredColumns =
  "history_id, installation_id, ref, init_key_hash, post_quantum_key_hash, created_at, retired_at, reason"

const REASONS = new Set(RetirementReason.literals)

/** A tombstone, from `retiredColumns`. */
export const retired = (raw: Raw): Either.Either<Retired, Refused> => {
  const columns = new Columns(raw)
  return orCorrupt(
    "keyward_retired_key_packages",
    "history_id",
    raw
  )(
    columns.result<Retired>({
      _tag: "Retired",
      historyId: columns.historyId("history_id"),
      installationId: InstallationId.make(columns.hex("installation_id"), unchecked),
      ref: KeyPackageRef.make(columns.hex("ref"), unchecked),
      initKeyHash: columns.bytes("init_key_hash", 32),
      postQuantumKeyHash: columns.option("post_quantum_key_hash", () => columns.bytes("post_quantum_key_hash", 32)),
      createdAt: columns.time("created_at"),
      retiredAt: columns.time("retired_at"),
      reason: columns.word("reason", REASONS, "Unreadable")
    })
  )
}

/** An installation's next deadline, from its `installation_id` and `due_at`. One beyond all time is the end of time. */
export const due = (
  raw: Raw
): Either.Either<{ readonly installationId: InstallationId; readonly dueAt: DateTime.Utc }, Refused> => {
  const columns = new Columns(raw)
  const at = raw["due_at"]
  if (typeof at !== "number") columns.reject("due_at")
  return orCorrupt(
    "keyward_installations",
    "installation_id",
    raw
  )(
    columns.result({
      installationId: InstallationId.make(columns.hex("installation_id"), unchecked),
      dueAt: DateTime.unsafeMake(Math.min(Math.max(Number(at), -MAX_MILLIS), MAX_MILLIS))
    })
  )
}

/** The inbox of a row that was joined with its installation. */
export const inboxId = (raw: Raw): Either.Either<InboxId, Refused> => {
  const columns = new Columns(raw)
  return orCorrupt(
    "keyward_installations",
    "installation_id",
    raw
  )(columns.result(InboxId.make(columns.hex("inbox_id"), unchecked)))
}

/** A stored lease: its fence and, while somebody holds it, when it ends. */
export interface StoredLease {
  readonly fence: number
  readonly expiresAt: Option.Option<DateTime.Utc>
}

/** A lease, from its `installation_id`, `fence` and `expires_at`. */
export const lease = (raw: Raw): Either.Either<StoredLease, Refused> => {
  const columns = new Columns(raw)
  const fence = columns.count("fence")
  if (fence === 0) columns.reject("fence")
  return orCorrupt(
    "keyward_leases",
    "installation_id",
    raw
  )(columns.result({ fence, expiresAt: columns.optionalTime("expires_at") }))
}

/** A sealed installation key with what its seal is bound to. */
export interface SealedInstallationKey {
  readonly seq: number
  readonly installationId: InstallationId
  readonly inboxId: InboxId
  readonly sealed: Sealed
}

const sealed = (columns: Columns, bytes: string): Sealed => {
  const keyId = columns.text("sealing_key_id")
  if (keyId === "") columns.reject("sealing_key_id")
  return new Sealed({ keyId, bytes: columns.bytes(bytes) }, unchecked)
}

/** The columns that `installationKey` reads. */
export const installationKeySelect = `SELECT seq, installation_id, inbox_id, sealing_key_id, sealed_key
  FROM keyward_installations`

/** A sealed installation key, from the columns of `installationKeySelect`. */
export const installationKey = (raw: Raw): Either.Either<SealedInstallationKey, Refused> => {
  const columns = new Columns(raw)
  return orCorrupt(
    "keyward_installations",
    "seq",
    raw
  )(
    columns.result({
      seq: columns.count("seq"),
      installationId: InstallationId.make(columns.hex("installation_id"), unchecked),
      inboxId: InboxId.make(columns.hex("inbox_id"), unchecked),
      sealed: sealed(columns, "sealed_key")
    })
  )
}

/** The sealed private keys of a package with what their seal is bound to. */
export interface SealedPrivateKeys {
  readonly historyId: HistoryId
  readonly installationId: InstallationId
  readonly ref: KeyPackageRef
  /** Whether the package has an X-Wing key, and so a third private key. */
  readonly isPostQuantum: boolean
  readonly sealed: Sealed
}

/** The columns that `privateKeys` reads. A row of the ledger whose keys are gone has none. */
export const privateKeysSelect = `SELECT k.history_id, k.installation_id, k.ref,
  k.post_quantum_key IS NOT NULL AS is_post_quantum, p.sealing_key_id, p.sealed_keys
  FROM keyward_private_keys p JOIN keyward_key_packages k ON k.history_id = p.history_id`

/** The sealed private keys of a package, from the columns of `privateKeysSelect`. */
export const privateKeys = (raw: Raw): Either.Either<SealedPrivateKeys, Refused> => {
  const columns = new Columns(raw)
  return orCorrupt(
    "keyward_private_keys",
    "history_id",
    raw
  )(
    columns.result({
      historyId: columns.historyId("history_id"),
      installationId: InstallationId.make(columns.hex("installation_id"), unchecked),
      ref: KeyPackageRef.make(columns.hex("ref"), unchecked),
      isPostQuantum: raw["is_post_quantum"] === 1,
      sealed: sealed(columns, "sealed_keys")
    })
  )
}

/** The check value of a sealing key, from its whole row. */
export const checkValue = (raw: Raw): Either.Either<Sealed, Refused> => {
  const columns = new Columns(raw)
  const keyId = columns.text("key_id")
  if (keyId === "") columns.reject("key_id")
  return orCorrupt(
    "keyward_sealing_keys",
    "key_id",
    raw
  )(columns.result(new Sealed({ keyId, bytes: columns.bytes("check_value") }, unchecked)))
}
