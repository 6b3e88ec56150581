/**
 * The store on one SQLite file, the default: no server, and as durable as the disk.
 *
 * Every write is one `BEGIN IMMEDIATE` transaction with `synchronous=FULL`: when a method returns, power may fail. Private
 * keys are sealed by the `KeySealer` before the transaction begins, with the row's identity as associated data. Any number of
 * processes may share the file; each waits for the others for about 5 s and then fails with `Busy`.
 *
 * @since 1.0.0
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { SqlError } from "@effect/sql/SqlError"
import type { InboxId } from "@keyward/core/identity/InboxId"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { GeneratedKeyPackage } from "@keyward/core/keypackage/GeneratedKeyPackage"
import type { KeyPackageRef } from "@keyward/core/keypackage/KeyPackageRef"
import type { InstallationIntent } from "@keyward/core/lifecycle/Installation"
import * as Lease from "@keyward/core/lifecycle/Lease"
import * as Ledger from "@keyward/core/lifecycle/Ledger"
import { isUploadReceipt, type UploadReceipt } from "@keyward/core/lifecycle/UploadReceipt"
import { KeyPackageStore, type Publication, type StorageError } from "@keyward/core/ports/KeyPackageStore"
import { KeySealer } from "@keyward/core/ports/KeySealer"
import * as Arr from "effect/Array"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as sealing from "./internal/sealing.ts"
import { conflict, Refused, toStorageError } from "./internal/sqliteErrors.ts"
import { openFile } from "./internal/sqliteFile.ts"
import * as rows from "./internal/sqliteRows.ts"
import { migrate } from "./internal/sqliteSchema.ts"
import * as transactions from "./internal/sqliteTransaction.ts"

/**
 * Where the database is.
 *
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /** The path of the database file. It is created where there is none; its folder is not. */
  readonly filename: string
}

/** Whole milliseconds since 1970, as the columns hold them. */
const millis = (time: DateTime.Utc): number => Math.floor(DateTime.toEpochMillis(time))

/** The first row, decoded. */
const first = <A>(
  raw: ReadonlyArray<Readonly<Record<string, unknown>>>,
  decode: (row: Readonly<Record<string, unknown>>) => Either.Either<A, Refused>
): Effect.Effect<Option.Option<A>, Refused> => Effect.transposeMapOption(Arr.head(raw), decode)

/** What a connection is set to before its first use. */
const configure = (sql: SqlClient.SqlClient): Effect.Effect<void, SqlError> =>
  Effect.forEach(
    [
      `busy_timeout = ${transactions.BUSY_TIMEOUT_MILLIS}`,
      "foreign_keys = ON",
      // A commit is on the disk before the bytes it allows to send leave the process.
      "synchronous = FULL",
      // macOS only: fsync there does not reach the disk.
      "fullfsync = ON",
      // What is deleted or overwritten is zeroed in the file.
      "secure_delete = ON"
    ],
    (pragma) => sql.unsafe(`PRAGMA ${pragma}`),
    { discard: true }
  )

/** Opens the check value of every sealing key in use, and leaves one for the key that seals from now on. */
const verifySealingKeys = (sql: SqlClient.SqlClient, sealer: KeySealer["Type"]) =>
  Effect.gen(function* () {
    const checks = yield* Effect.forEach(
      yield* sql`SELECT key_id, check_value FROM keyward_sealing_keys`,
      rows.checkValue
    )
    yield* Effect.forEach(checks, (check) => sealing.verifyCheckValue(sealer, check), { discard: true })
    if (checks.some(({ keyId }) => keyId === sealer.keyId)) return
    const { bytes, keyId } = yield* sealing.sealCheckValue(sealer)
    yield* sql`INSERT INTO keyward_sealing_keys ${sql.insert({ key_id: keyId, check_value: bytes })}`
  })

/** A client whose database has this release's schema and was sealed with these keys. */
const open = Effect.gen(function* () {
  const client = yield* SqlClient.SqlClient
  const sealer = yield* KeySealer
  const sql = client.withoutTransforms()
  if (sql.onDialectOrElse({ sqlite: () => false, orElse: () => true })) {
    return yield* Effect.dieMessage("SqliteKeyPackageStore needs the SqlClient of a SQLite database")
  }
  const transaction = yield* transactions.make(sql)
  yield* transaction.read(configure(sql))
  yield* transaction.write(
    Effect.zipRight(Effect.provideService(migrate, SqlClient.SqlClient, sql), verifySealingKeys(sql, sealer))
  )
  return { sql, sealer, ...transaction }
}).pipe(toStorageError("open"), transactions.retryBusy)

/**
 * The store over a SQLite client that the app has already. The client must not be inside a transaction when the store is
 * used; tables are named `keyward_*`. The client's connection is set to `synchronous=FULL`, `secure_delete=ON` and
 * `foreign_keys=ON`; its journal mode is left alone.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make: Effect.Effect<KeyPackageStore["Type"], StorageError, SqlClient.SqlClient | KeySealer> = Effect.gen(
  function* () {
    const { sql, sealer, ...transaction } = yield* open

    /** One durable transaction, with the failures of the driver and of the rows as errors of the operation. */
    const write =
      (operation: string) =>
      <A, E, R>(body: Effect.Effect<A, E | SqlError | Refused, R>) =>
        transaction.write(body).pipe(toStorageError(operation), transactions.retryBusy)

    /** The same, of a lease: it need not outlive a power failure, since no holder does. */
    const writeLease =
      (operation: string) =>
      <A, E, R>(body: Effect.Effect<A, E | SqlError | Refused, R>) =>
        transaction.writeUnsynced(body).pipe(toStorageError(operation), transactions.retryBusy)

    const read =
      (operation: string) =>
      <A, E, R>(body: Effect.Effect<A, E | SqlError | Refused, R>) =>
        transaction.read(body).pipe(toStorageError(operation), transactions.retryBusy)

    const installationSelect = sql.literal(rows.installationSelect)
    const ledgerSelect = sql.literal(rows.ledgerSelect)

    const findInstallation = (id: InstallationId) =>
      Effect.flatMap(sql`${installationSelect} WHERE installation_id = ${id}`, (raw) => first(raw, rows.installation))

    const requireInstallation = (id: InstallationId) =>
      Effect.flatMap(
        findInstallation(id),
        Option.match({
          onSome: Effect.succeed,
          onNone: () => conflict(`there is no installation ${id}`)
        })
      )

    /** Fails with `Lost` unless the lease is the newest one, was not given back and, where `at` is known, has not ended. */
    const requireLease = (lease: Lease.Lease, at: Option.Option<DateTime.Utc>) =>
      Effect.gen(function* () {
        const stored = yield* findLease(lease.installationId)
        const holds = Option.exists(
          stored,
          ({ fence, expiresAt }) =>
            fence === lease.fence &&
            Option.exists(expiresAt, (end) => Option.isNone(at) || Lease.isInForce(end, at.value))
        )
        if (!holds) {
          return yield* new Lease.LeaseError({ reason: "Lost", installationId: lease.installationId })
        }
      })

    const findLease = (id: InstallationId) =>
      Effect.flatMap(
        sql`SELECT installation_id, fence, expires_at FROM keyward_leases WHERE installation_id = ${id}`,
        (raw) => first(raw, rows.lease)
      )

    /** The row that a write starts from, still as the caller knows it. */
    const requireEntry = <Tag extends Ledger.LedgerEntry["_tag"]>(
      lease: Lease.Lease,
      known: { readonly historyId: Ledger.HistoryId; readonly keyPackage: { readonly ref: KeyPackageRef } },
      tag: Tag
    ) =>
      Effect.gen(function* () {
        const { historyId, keyPackage } = known
        const raw = yield* sql`${ledgerSelect} WHERE k.history_id = ${historyId}`
        const entry = yield* first(raw, rows.ledgerEntry)
        if (Option.isNone(entry) || entry.value.keyPackage.ref !== keyPackage.ref) {
          return yield* conflict(`there is no key package ${keyPackage.ref} with history id ${historyId}`)
        }
        if (entry.value.keyPackage.installationId !== lease.installationId) {
          return yield* conflict(`key package ${historyId} is not of installation ${lease.installationId}`)
        }
        if (!Ledger.is(tag)(entry.value)) {
          return yield* conflict(`key package ${historyId} is ${entry.value._tag}, not ${tag}`)
        }
        return entry.value
      })

    return KeyPackageStore.of({
      findOrCreateInstallation: Effect.fn("SqliteKeyPackageStore.findOrCreateInstallation")(function* (
        intent: InstallationIntent
      ) {
        const { inboxId, label, key } = intent
        const { installationId } = key
        const sealed = yield* sealing.sealInstallationKey(sealer, key, { installationId, inboxId })
        return yield* Effect.gen(function* () {
          yield* sql`INSERT INTO keyward_installations ${sql.insert({
            installation_id: installationId,
            inbox_id: inboxId,
            label,
            created_at: millis(intent.at),
            sealing_key_id: sealed.keyId,
            sealed_key: sealed.bytes,
            registration: "Intended"
          })} ON CONFLICT (inbox_id, label) DO NOTHING`
          const raw = yield* sql`${installationSelect} WHERE inbox_id = ${inboxId} AND label = ${label}`
          const found = yield* first(raw, rows.installation)
          return yield* Effect.orElseFail(found, () => conflict(`installation ${installationId} has another label`))
        }).pipe(write("findOrCreateInstallation"))
      }),

      getInstallation: Effect.fn("SqliteKeyPackageStore.getInstallation")((id: InstallationId) =>
        findInstallation(id).pipe(read("getInstallation"))
      ),

      getInstallations: Effect.fn("SqliteKeyPackageStore.getInstallations")((inboxId: InboxId) =>
        sql`${installationSelect} WHERE inbox_id = ${inboxId} ORDER BY seq`.pipe(
          Effect.flatMap(Effect.forEach((raw) => rows.installation(raw))),
          read("getInstallations")
        )
      ),

      getInstallationKey: Effect.fn("SqliteKeyPackageStore.getInstallationKey")((id: InstallationId) =>
        sql`${sql.literal(rows.installationKeySelect)} WHERE installation_id = ${id}`.pipe(
          Effect.flatMap((raw) => first(raw, rows.installationKey)),
          Effect.flatMap(
            Option.match({
              onSome: (row) => sealing.unsealInstallationKey(sealer, row),
              onNone: () => conflict(`there is no installation ${id}`)
            })
          ),
          read("getInstallationKey")
        )
      ),

      saveIdentityUpdate: Effect.fn("SqliteKeyPackageStore.saveIdentityUpdate")(
        (lease: Lease.Lease, identityUpdate: Uint8Array) =>
          Effect.gen(function* () {
            yield* requireLease(lease, Option.none())
            const installation = yield* requireInstallation(lease.installationId)
            if (installation.registration._tag === "Registered") {
              return yield* conflict(`installation ${lease.installationId} is registered`)
            }
            yield* sql`UPDATE keyward_installations SET registration = 'Signed', identity_update = ${identityUpdate}
              WHERE installation_id = ${lease.installationId}`
            return { ...installation, registration: { _tag: "Signed" as const, identityUpdate } }
          }).pipe(write("saveIdentityUpdate"))
      ),

      markRegistered: Effect.fn("SqliteKeyPackageStore.markRegistered")((lease: Lease.Lease, at: DateTime.Utc) =>
        Effect.gen(function* () {
          yield* requireLease(lease, Option.some(at))
          const installation = yield* requireInstallation(lease.installationId)
          const { registration } = installation
          if (registration._tag === "Registered") return installation
          if (registration._tag === "Intended") {
            return yield* conflict(`installation ${lease.installationId} has no signed identity update`)
          }
          yield* sql`UPDATE keyward_installations SET registration = 'Registered', registered_at = ${millis(at)}
            WHERE installation_id = ${lease.installationId}`
          return yield* requireInstallation(lease.installationId)
        }).pipe(write("markRegistered"))
      ),

      acquireLease: Effect.fn("SqliteKeyPackageStore.acquireLease")(
        (id: InstallationId, { now, duration }: { readonly now: DateTime.Utc; readonly duration: Duration.Duration }) =>
          Effect.gen(function* () {
            yield* requireInstallation(id)
            const stored = yield* findLease(id)
            const isHeld = Option.exists(stored, ({ expiresAt }) =>
              Option.exists(expiresAt, (end) => Lease.isInForce(end, now))
            )
            if (isHeld) return yield* new Lease.LeaseError({ reason: "Held", installationId: id })
            const fence = Option.match(stored, { onNone: () => 1, onSome: ({ fence }) => fence + 1 })
            const expiresAt = millis(Lease.expiry(now, duration))
            yield* sql`INSERT INTO keyward_leases ${sql.insert({ installation_id: id, fence, expires_at: expiresAt })}
              ON CONFLICT (installation_id) DO UPDATE SET fence = excluded.fence, expires_at = excluded.expires_at`
            return { installationId: id, fence, expiresAt: DateTime.unsafeMake(expiresAt) }
          }).pipe(writeLease("acquireLease"))
      ),

      checkLease: Effect.fn("SqliteKeyPackageStore.checkLease")((lease: Lease.Lease, now: DateTime.Utc) =>
        requireLease(lease, Option.some(now)).pipe(read("checkLease"))
      ),

      releaseLease: Effect.fn("SqliteKeyPackageStore.releaseLease")((lease: Lease.Lease) =>
        sql`UPDATE keyward_leases SET expires_at = NULL
          WHERE installation_id = ${lease.installationId} AND fence = ${lease.fence}`.pipe(
          Effect.asVoid,
          writeLease("releaseLease")
        )
      ),

      insertKeyPackageHistory: Effect.fn("SqliteKeyPackageStore.insertKeyPackageHistory")(function* (
        lease: Lease.Lease,
        { keyPackage, privateKeys }: GeneratedKeyPackage,
        at: DateTime.Utc
      ) {
        const sealed = yield* sealing.sealPrivateKeys(sealer, privateKeys, keyPackage)
        return yield* Effect.gen(function* () {
          yield* requireLease(lease, Option.some(at))
          const installation = yield* requireInstallation(lease.installationId)
          if (
            keyPackage.installationId !== installation.installationId ||
            keyPackage.inboxId !== installation.inboxId
          ) {
            return yield* conflict(`the key package is not of installation ${lease.installationId}`)
          }
          const [inserted] = yield* sql`INSERT INTO keyward_key_packages ${sql.insert({
            installation_id: keyPackage.installationId,
            state: "Prepared",
            ref: keyPackage.ref,
            key_package: keyPackage.bytes,
            not_before: keyPackage.lifetime.notBefore,
            not_after: keyPackage.lifetime.notAfter,
            init_key: keyPackage.initKey,
            post_quantum_key: Option.getOrNull(keyPackage.postQuantumKey),
            created_at: millis(at)
          })} RETURNING history_id`
          const historyId = Ledger.HistoryId.make(Number(inserted?.["history_id"]))
          yield* sql`INSERT INTO keyward_private_keys ${sql.insert({
            history_id: historyId,
            sealing_key_id: sealed.keyId,
            sealed_keys: sealed.bytes
          })}`
          return yield* requireEntry(lease, { historyId, keyPackage }, "Prepared")
        }).pipe(write("insertKeyPackageHistory"))
      }),

      markExposed: Effect.fn("SqliteKeyPackageStore.markExposed")(
        (lease: Lease.Lease, prepared: Ledger.Prepared, at: DateTime.Utc) =>
          Effect.gen(function* () {
            yield* requireLease(lease, Option.some(at))
            const exposed = Ledger.expose(yield* requireEntry(lease, prepared, "Prepared"), at)
            yield* sql`UPDATE keyward_key_packages SET state = ${exposed._tag}, exposed_at = ${millis(exposed.exposedAt)}
              WHERE history_id = ${exposed.historyId}`
            return exposed
          }).pipe(write("markExposed"))
      ),

      markKeyPackagesBeforeIdToBeDeleted: Effect.fn("SqliteKeyPackageStore.markKeyPackagesBeforeIdToBeDeleted")(
        (lease: Lease.Lease, receipt: UploadReceipt, { at, deleteAt, nextRotationAt }: Publication) =>
          Effect.gen(function* () {
            if (!isUploadReceipt(receipt)) return yield* conflict("nothing shows that the network accepted the package")
            yield* requireLease(lease, Option.some(at))
            const published = Ledger.publish(yield* requireEntry(lease, receipt.exposed, "Exposed"), at)
            const { historyId } = published
            const earlier = yield* sql`${ledgerSelect} WHERE k.installation_id = ${lease.installationId}
              AND k.history_id < ${historyId} AND k.delete_at IS NULL ORDER BY k.history_id`
            // A row that cannot be read gets its date of deletion too, and does not stop the rotation for ever.
            const [unreadable, live] = Arr.separate(earlier.map(rows.ledgerEntry))
            yield* Effect.forEach(
              unreadable,
              ({ detail }) => Effect.logWarning(`superseded an unreadable row: ${detail}`),
              {
                discard: true
              }
            )
            yield* sql`UPDATE keyward_key_packages SET state = ${published._tag}, published_at = ${millis(at)}
              WHERE history_id = ${historyId}`
            yield* sql`UPDATE keyward_key_packages SET state = 'Superseded', superseded_by = ${historyId},
              superseded_at = ${millis(at)}, delete_at = ${millis(deleteAt)}
              WHERE installation_id = ${lease.installationId} AND history_id < ${historyId} AND delete_at IS NULL`
            yield* sql`UPDATE keyward_installations SET next_rotation_at = ${millis(nextRotationAt)}
              WHERE installation_id = ${lease.installationId}`
            const superseded = Arr.filter(live, Ledger.isLive).map((entry) =>
              Ledger.supersede(entry, published, at, deleteAt)
            )
            return { published, superseded }
          }).pipe(write("markKeyPackagesBeforeIdToBeDeleted"))
      ),

      getNewest: Effect.fn("SqliteKeyPackageStore.getNewest")((id: InstallationId) =>
        sql`${ledgerSelect} WHERE k.installation_id = ${id} ORDER BY k.history_id DESC LIMIT 1`.pipe(
          Effect.flatMap((raw) => first(raw, rows.ledgerEntry)),
          read("getNewest")
        )
      ),

      getHistory: Effect.fn("SqliteKeyPackageStore.getHistory")((id: InstallationId) =>
        sql`${ledgerSelect} WHERE k.installation_id = ${id} ORDER BY k.history_id`.pipe(
          Effect.flatMap(Effect.forEach((raw) => rows.ledgerEntry(raw))),
          read("getHistory")
        )
      ),

      getPrivateKeys: Effect.fn("SqliteKeyPackageStore.getPrivateKeys")((id: Ledger.HistoryId) =>
        sql`${sql.literal(rows.privateKeysSelect)} WHERE k.history_id = ${id}`.pipe(
          Effect.flatMap((raw) => first(raw, rows.privateKeys)),
          Effect.flatMap(Effect.transposeMapOption((row) => sealing.unsealPrivateKeys(sealer, row))),
          read("getPrivateKeys")
        )
      )
    })
  }
)

/**
 * The store over the app's own SQLite client, as `make`.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerClient: Layer.Layer<KeyPackageStore, StorageError, SqlClient.SqlClient | KeySealer> = Layer.effect(
  KeyPackageStore,
  make
)

/**
 * The store on a file, created and migrated where needed. Fails with `NewerSchema` or `WrongSealingKey` before anything is
 * written.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<KeyPackageStore, StorageError, KeySealer> =>
  Layer.scoped(
    KeyPackageStore,
    Effect.flatMap(openFile(options), (client) => Effect.provideService(make, SqlClient.SqlClient, client))
  )

/**
 * The same with the path from the configuration.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerConfig = (
  config: Config.Config.Wrap<Options>
): Layer.Layer<KeyPackageStore, StorageError | ConfigError, KeySealer> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(config), layer))

/** How many rows one transaction of `resealAll` takes, so that others can write in between. */
const RESEAL_BATCH = 200

/**
 * Seals every row that an earlier sealing key sealed with the current one, then forgets the keys that seal nothing any more
 * and truncates the WAL. Once it has succeeded, and every process uses the new key, the earlier keys need not be
 * configured any longer. Returns how many rows it sealed. May be stopped and run again at any time.
 *
 * @since 1.0.0
 * @category maintenance
 */
export const resealAll: (options: Options) => Effect.Effect<number, StorageError, KeySealer> = Effect.fn(
  "SqliteKeyPackageStore.resealAll"
)(function* (options) {
  const client = yield* openFile(options)
  const { sql, sealer, ...transaction } = yield* Effect.provideService(open, SqlClient.SqlClient, client)

  const write = <A>(body: Effect.Effect<A, SqlError | Refused>) =>
    transaction.write(body).pipe(toStorageError("resealAll"), transactions.retryBusy)

  const installationKeys = (after: number) =>
    Effect.gen(function* () {
      const raw = yield* sql`${sql.literal(rows.installationKeySelect)} WHERE sealing_key_id <> ${sealer.keyId}
        AND seq > ${after} ORDER BY seq LIMIT ${RESEAL_BATCH}`
      const sealed = yield* Effect.forEach(raw, (row) => rows.installationKey(row))
      yield* Effect.forEach(sealed, (row) =>
        Effect.flatMap(
          sealing.resealInstallationKey(sealer, row),
          ({ keyId, bytes }) =>
            sql`UPDATE keyward_installations SET sealing_key_id = ${keyId}, sealed_key = ${bytes} WHERE seq = ${row.seq}`
        )
      )
      return sealed.map(({ seq }) => seq)
    })

  const privateKeys = (after: number) =>
    Effect.gen(function* () {
      const raw = yield* sql`${sql.literal(rows.privateKeysSelect)} WHERE p.sealing_key_id <> ${sealer.keyId}
        AND p.history_id > ${after} ORDER BY p.history_id LIMIT ${RESEAL_BATCH}`
      const sealed = yield* Effect.forEach(raw, (row) => rows.privateKeys(row))
      yield* Effect.forEach(sealed, (row) =>
        Effect.flatMap(
          sealing.resealPrivateKeys(sealer, row),
          ({ keyId, bytes }) =>
            sql`UPDATE keyward_private_keys SET sealing_key_id = ${keyId}, sealed_keys = ${bytes}
              WHERE history_id = ${row.historyId}`
        )
      )
      return sealed.map(({ historyId }) => historyId as number)
    })

  let count = 0
  for (const batchAfter of [installationKeys, privateKeys]) {
    let after = 0
    while (true) {
      const batch = yield* write(batchAfter(after))
      if (batch.length === 0) break
      count += batch.length
      after = Math.max(...batch)
    }
  }

  yield* write(sql`DELETE FROM keyward_sealing_keys WHERE key_id <> ${sealer.keyId}
    AND NOT EXISTS (SELECT 1 FROM keyward_installations WHERE sealing_key_id = key_id)
    AND NOT EXISTS (SELECT 1 FROM keyward_private_keys WHERE sealing_key_id = key_id)`)
  // SQLite does not fail where a reader keeps it from truncating the WAL: it says so in a row.
  yield* transaction.read(sql`PRAGMA wal_checkpoint(TRUNCATE)`).pipe(
    Effect.filterOrFail(
      ([row]) => row?.["busy"] === 0,
      () => new Refused({ reason: "Busy", detail: "a reader keeps the WAL, which still has what was sealed before" })
    ),
    toStorageError("resealAll"),
    transactions.retryBusy
  )
  return count
}, Effect.scoped)
