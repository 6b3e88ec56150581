/**
 * The ledger: rows of key packages and their sealed private keys, and each transition of a row in one transaction.
 */
import { createHash } from "node:crypto"
import type { SqlError } from "@effect/sql/SqlError"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { KeyPackageRef } from "@keyward/core/keypackage/KeyPackageRef"
import * as Ledger from "@keyward/core/lifecycle/Ledger"
import { isSeenServed } from "@keyward/core/lifecycle/SeenServed"
import { isUploadReceipt } from "@keyward/core/lifecycle/UploadReceipt"
import type { InstallationLedger, KeyPackageStore, Unreadable } from "@keyward/core/ports/KeyPackageStore"
import * as Arr from "effect/Array"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as sealing from "./sealing.ts"
import type { Database } from "./sqliteDatabase.ts"
import { conflict, Refused, toStorageError } from "./sqliteErrors.ts"
import { announce, type Leased, millis, requireLease, reschedule, wholeMillis } from "./sqliteLeases.ts"
import * as rows from "./sqliteRows.ts"
import { traced } from "./traced.ts"

/** SHA-256, 32 bytes. */
export const sha256 = (bytes: Uint8Array): Uint8Array => new Uint8Array(createHash("sha256").update(bytes).digest())

/** The rows of the ledger, those that are set aside included: their `unreadable_column` is not null. */
const SELECT_ALL = `SELECT ${rows.ledgerColumns}, ${rows.quarantineColumns} FROM keyward_key_packages k
  JOIN keyward_installations i ON i.installation_id = k.installation_id
  LEFT JOIN keyward_quarantined_key_packages q ON q.history_id = k.history_id`

/** The rows of the ledger that are not set aside. */
const SELECT = `SELECT ${rows.ledgerColumns} FROM keyward_key_packages k
  JOIN keyward_installations i ON i.installation_id = k.installation_id
  WHERE NOT EXISTS (SELECT 1 FROM keyward_quarantined_key_packages q WHERE q.history_id = k.history_id)`

/** The row that a caller knows, to be found as it is now. */
export interface Known {
  readonly historyId: Ledger.HistoryId
  readonly keyPackage: { readonly ref: KeyPackageRef }
}

/** The row of a lease's installation that a caller knows, as it is now; none where it is gone or set aside. */
export const findKept =
  ({ query }: Pick<Database, "query">) =>
  (
    { installationId }: Pick<Leased, "installationId">,
    known: Known
  ): Effect.Effect<Option.Option<Ledger.Kept>, SqlError | Refused> =>
    query(
      `${SELECT} AND k.history_id = ? AND k.installation_id = ? AND k.ref = ?`,
      known.historyId,
      installationId,
      known.keyPackage.ref
    ).pipe(Effect.flatMap(([raw]) => (raw === undefined ? Effect.succeedNone : Effect.asSome(rows.ledgerEntry(raw)))))

/** The last history id of all: numbers beyond it lose digits. */
const isLast = (id: number): boolean => !Number.isSafeInteger(id)

const first = (raw: ReadonlyArray<rows.Raw>): Effect.Effect<Option.Option<Ledger.Kept>, Refused> =>
  raw[0] === undefined ? Effect.succeedNone : Effect.asSome(rows.ledgerEntry(raw[0]))

/** The rows of one installation, apart by what they are good for. */
const sort = (all: ReadonlyArray<rows.Raw>): InstallationLedger => {
  const entries: Array<Ledger.Kept> = []
  const unreadable: Array<Unreadable> = []
  const quarantined: Array<Ledger.Quarantined> = []
  for (const raw of all) {
    const read =
      raw["unreadable_column"] === null
        ? Either.map(rows.readLedgerEntry(raw), (entry) => void entries.push(entry))
        : Either.map(rows.quarantined(raw), (row) => void quarantined.push(row))
    if (Either.isLeft(read)) unreadable.push(...Option.toArray(rows.unreadable(raw, read.left)))
  }
  return { entries, unreadable, quarantined }
}

/** What a row has to have, and the values that stand in it. */
type Condition = readonly [condition: string, ...values: ReadonlyArray<string | Uint8Array>]

/** The methods of the port that are about rows of the ledger. */
export const make = (
  database: Database
): Pick<
  KeyPackageStore["Type"],
  | "insertKeyPackageHistory"
  | "markExposed"
  | "markKeyPackagesBeforeIdToBeDeleted"
  | "markRejected"
  | "postponeDeletion"
  | "getNewest"
  | "getHistory"
  | "getLedger"
  | "getPrivateKeys"
  | "findByWelcomeKey"
  | "findByRef"
> => {
  const { query, read, sealer, write } = database
  const held = requireLease(database)
  const change = reschedule(database)
  const find = findKept(database)

  /** The row that a write starts from, as the database has it, in one of these states. */
  const requireEntry = <Tag extends Ledger.Kept["_tag"]>(leased: Leased, known: Known, ...tags: ReadonlyArray<Tag>) =>
    Effect.gen(function* () {
      const entry = yield* find(leased, known)
      if (Option.isNone(entry)) {
        return yield* conflict(
          `installation ${leased.installationId} has no key package ${known.keyPackage.ref} with history id ${known.historyId}`
        )
      }
      const isExpected = (kept: Ledger.Kept): kept is Extract<Ledger.Kept, { readonly _tag: Tag }> =>
        tags.some((tag) => tag === kept._tag)
      return isExpected(entry.value)
        ? entry.value
        : yield* conflict(`key package ${known.historyId} is ${entry.value._tag}, not ${tags.join(" or ")}`)
    })

  /** The row that the network has shown to have. */
  const requireProven = (leased: Leased, proof: unknown) =>
    isUploadReceipt(proof)
      ? requireEntry(leased, proof.exposed, "Exposed")
      : isSeenServed(proof)
        ? requireEntry(leased, proof.entry, "Exposed", "Rejected", "Published")
        : conflict("nothing shows that the network has the package")

  /** Every earlier live row that can be read. One that cannot is set aside in its own time, and stops nothing. */
  const supersede = (published: Ledger.Published, at: DateTime.Utc, deleteAt: DateTime.Utc) =>
    Effect.gen(function* () {
      const { historyId, keyPackage } = published
      const earlier = yield* query(
        `${SELECT} AND k.installation_id = ? AND k.history_id < ? AND k.delete_at IS NULL ORDER BY k.history_id`,
        keyPackage.installationId,
        historyId
      )
      const superseded = Arr.filterMap(earlier, (raw) => Either.getRight(rows.readLedgerEntry(raw)))
        .filter(Ledger.isLive)
        .map((entry) => Ledger.supersede(entry, published, at, deleteAt))
      yield* Effect.forEach(
        superseded,
        (entry) =>
          query(
            `UPDATE keyward_key_packages SET state = 'Superseded', superseded_by = ?, superseded_at = ?, delete_at = ?
            WHERE history_id = ?`,
            historyId,
            millis(at),
            millis(deleteAt),
            entry.historyId
          ),
        { discard: true }
      )
      return superseded
    })

  /** One entry of an installation, kept or retired; rows that are set aside are never found. */
  const findEntry = (id: InstallationId, keptBy: Condition, retiredBy: Condition) =>
    Effect.gen(function* () {
      const [kept] = yield* query(`${SELECT} AND k.installation_id = ? AND ${keptBy[0]}`, id, ...keptBy.slice(1))
      if (kept !== undefined) return Option.some<Ledger.LedgerEntry>(yield* rows.ledgerEntry(kept))
      const [retired] = yield* query(
        `SELECT ${rows.retiredColumns} FROM keyward_retired_key_packages WHERE installation_id = ? AND ${retiredBy[0]}`,
        id,
        ...retiredBy.slice(1)
      )
      return retired === undefined ? Option.none() : Option.some<Ledger.LedgerEntry>(yield* rows.retired(retired))
    })

  return {
    insertKeyPackageHistory: traced("SqliteKeyPackageStore.insertKeyPackageHistory")(
      Effect.fnUntraced(function* (lease, { keyPackage, privateKeys }, { at, reschedule, trigger }) {
        const sealed = yield* sealing.sealPrivateKeys(sealer, privateKeys, keyPackage)
        const initKeyHash = sha256(keyPackage.initKey)
        return yield* Effect.gen(function* () {
          const leased = yield* held(lease, at)
          if (keyPackage.installationId !== leased.installationId || keyPackage.inboxId !== leased.inboxId) {
            return yield* conflict(`the key package is not of installation ${leased.installationId}`)
          }
          const [inserted] = yield* query(
            `INSERT INTO keyward_key_packages (installation_id, state, rotation_trigger, ref, key_package, not_before, not_after,
            init_key, post_quantum_key, created_at)
          SELECT ?, 'Prepared', ?, ?, ?, ?, ?, ?, ?, ?
          WHERE NOT EXISTS (SELECT 1 FROM keyward_retired_key_packages WHERE ref = ?)
            AND NOT EXISTS (SELECT 1 FROM keyward_retired_key_packages WHERE init_key_hash = ?)
          RETURNING history_id, (SELECT max(history_id) FROM keyward_retired_key_packages) AS last_retired`,
            keyPackage.installationId,
            trigger,
            keyPackage.ref,
            keyPackage.bytes,
            keyPackage.lifetime.notBefore,
            keyPackage.lifetime.notAfter,
            keyPackage.initKey,
            Option.getOrNull(keyPackage.postQuantumKey),
            millis(at),
            keyPackage.ref,
            initKeyHash
          )
          if (inserted === undefined) return yield* conflict(`key package ${keyPackage.ref} was here and is retired`)
          let id = Number(inserted["history_id"])
          const lastRetired = Number(inserted["last_retired"] ?? 0)
          if (id <= lastRetired) {
            // Other hands have reset the counter: the next id goes on from the tombstones.
            yield* query("UPDATE keyward_key_packages SET history_id = ? WHERE history_id = ?", lastRetired + 1, id)
            id = lastRetired + 1
          }
          if (isLast(id)) return yield* new Refused({ reason: "Full", detail: "there is no history id left" })
          const historyId = Ledger.HistoryId.make(id)
          yield* query(
            "INSERT INTO keyward_private_keys (history_id, sealing_key_id, sealed_keys) VALUES (?, ?, ?)",
            historyId,
            sealed.keyId,
            sealed.bytes
          )
          const prepared = Ledger.prepare({ historyId, keyPackage, createdAt: wholeMillis(at), trigger })
          return [prepared, yield* change(leased, reschedule)] as const
        }).pipe(write("insertKeyPackageHistory"), announce(database, lease.installationId))
      })
    ),

    markExposed: traced("SqliteKeyPackageStore.markExposed")((lease, prepared, at) =>
      Effect.gen(function* () {
        const leased = yield* held(lease, at)
        const exposed = Ledger.expose(yield* requireEntry(leased, prepared, "Prepared"), wholeMillis(at))
        yield* query(
          "UPDATE keyward_key_packages SET state = 'Exposed', exposed_at = ? WHERE history_id = ?",
          millis(at),
          exposed.historyId
        )
        return exposed
      }).pipe(write("markExposed"))
    ),

    markKeyPackagesBeforeIdToBeDeleted: traced("SqliteKeyPackageStore.markKeyPackagesBeforeIdToBeDeleted")(
      (lease, proof, { at, deleteAt, reschedule }) =>
        Effect.gen(function* () {
          const leased = yield* held(lease, at)
          const entry = yield* requireProven(leased, proof)
          const published = entry._tag === "Published" ? entry : Ledger.publish(entry, wholeMillis(at))
          if (entry._tag !== "Published") {
            yield* query(
              `UPDATE keyward_key_packages SET state = 'Published', published_at = ?, rejected_at = NULL, delete_at = NULL
              WHERE history_id = ?`,
              millis(at),
              published.historyId
            )
          }
          const superseded = Option.isNone(deleteAt)
            ? []
            : yield* supersede(published, wholeMillis(at), wholeMillis(deleteAt.value))
          return [{ published, superseded }, yield* change(leased, reschedule)] as const
        }).pipe(write("markKeyPackagesBeforeIdToBeDeleted"), announce(database, lease.installationId))
    ),

    markRejected: traced("SqliteKeyPackageStore.markRejected")((lease, exposed, { at, deleteAt, reschedule }) =>
      Effect.gen(function* () {
        const leased = yield* held(lease, at)
        const entry = yield* requireEntry(leased, exposed, "Exposed")
        const rejected = Ledger.reject(entry, wholeMillis(at), wholeMillis(deleteAt))
        yield* query(
          "UPDATE keyward_key_packages SET state = 'Rejected', rejected_at = ?, delete_at = ? WHERE history_id = ?",
          millis(at),
          millis(deleteAt),
          rejected.historyId
        )
        return [rejected, yield* change(leased, reschedule)] as const
      }).pipe(write("markRejected"), announce(database, lease.installationId))
    ),

    postponeDeletion: traced("SqliteKeyPackageStore.postponeDeletion")((lease, seen, { at, deleteAt }) =>
      Effect.gen(function* () {
        const leased = yield* held(lease, at)
        if (!isSeenServed(seen)) return yield* conflict("nothing shows that the network serves the package")
        const entry = yield* requireEntry(leased, seen.entry, "Superseded", "Rejected")
        const postponed = Ledger.postpone(entry, DateTime.max(entry.deleteAt, wholeMillis(deleteAt)))
        yield* query(
          "UPDATE keyward_key_packages SET delete_at = ? WHERE history_id = ?",
          millis(postponed.deleteAt),
          entry.historyId
        )
        return postponed
      }).pipe(write("postponeDeletion"))
    ),

    getNewest: traced("SqliteKeyPackageStore.getNewest")((id) =>
      query(`${SELECT} AND k.installation_id = ? ORDER BY k.history_id DESC LIMIT 1`, id).pipe(
        Effect.flatMap(first),
        read("getNewest")
      )
    ),

    getHistory: traced("SqliteKeyPackageStore.getHistory")((id) =>
      query(`${SELECT} AND k.installation_id = ? ORDER BY k.history_id`, id).pipe(
        Effect.map(Arr.filterMap((raw) => Either.getRight(rows.readLedgerEntry(raw)))),
        read("getHistory")
      )
    ),

    getLedger: traced("SqliteKeyPackageStore.getLedger")((id) =>
      query(`${SELECT_ALL} WHERE k.installation_id = ? ORDER BY k.history_id`, id).pipe(
        Effect.map(sort),
        read("getLedger")
      )
    ),

    getPrivateKeys: traced("SqliteKeyPackageStore.getPrivateKeys")((id) =>
      query(`${rows.privateKeysSelect} WHERE p.history_id = ?`, id).pipe(
        Effect.flatMap(([raw]) => (raw === undefined ? Effect.succeedNone : Effect.asSome(rows.privateKeys(raw)))),
        read("getPrivateKeys"),
        // Not while the connection is held.
        Effect.flatMap(
          Effect.transposeMapOption((row) =>
            sealing.unsealPrivateKeys(sealer, row).pipe(toStorageError("getPrivateKeys"))
          )
        )
      )
    ),

    findByWelcomeKey: traced("SqliteKeyPackageStore.findByWelcomeKey")((id, publicKey) => {
      const hash = sha256(publicKey)
      const found =
        publicKey.length === 32
          ? findEntry(id, ["k.init_key = ?", publicKey], ["init_key_hash = ?", hash])
          : // By the beginning of the key, which is indexed, and then by all of it.
            findEntry(
              id,
              [
                "substr(k.post_quantum_key, 1, 32) = ? AND k.post_quantum_key = ?",
                publicKey.subarray(0, 32),
                publicKey
              ],
              ["post_quantum_key_hash = ?", hash]
            )
      return found.pipe(read("findByWelcomeKey"))
    }),

    findByRef: traced("SqliteKeyPackageStore.findByRef")((id, ref) =>
      findEntry(id, ["k.ref = ?", ref], ["ref = ?", ref]).pipe(read("findByRef"))
    )
  }
}
