/**
 * What is asked of a store with a million rows, against the same with a thousand: an index finds it as fast in both.
 *
 * @since 1.0.0
 */
import { randomBytes } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NodeCrypto from "@keyward/core/crypto/NodeCrypto"
import { InboxId } from "@keyward/core/identity/InboxId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import { newKeyPackage } from "@keyward/core/keypackage/Generation"
import { uploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as AesGcmKeySealer from "@keyward/storage/AesGcmKeySealer"
import * as SqliteKeyPackageStore from "@keyward/storage/SqliteKeyPackageStore"
import Database from "better-sqlite3"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { Case, Work } from "../Harness.ts"

/** Eight superseded, one published, and one that was sent and not answered yet. */
const ROWS_EACH = 10

/** How many installations are asked about in turn, scattered over the database. */
const TARGETS = 50

/** How many are due at any time, and how many a scheduler takes at once. */
const DUE = 16

/**
 * Rows as the store writes them, in the order of creation of a fleet that rotates in turn: the rows of one installation lie
 * far apart. One package in ten is post-quantum.
 */
const fill = (filename: string, installations: number, now: number) => {
  const db = new Database(filename)
  for (const pragma of ["journal_mode = OFF", "synchronous = OFF", "foreign_keys = OFF", "cache_size = -2000000"]) {
    db.pragma(pragma)
  }
  const seal = db.prepare("SELECT key_id FROM keyward_sealing_keys").pluck().get()
  const numbers = "WITH RECURSIVE n (i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i + 1 < ?)"
  const due = (at: string) => `json_object('rotateAt', ${at}, 'probeAt', ${at}), ${at}`
  db.transaction(() => {
    db.prepare(
      `${numbers} INSERT INTO keyward_installations (installation_id, inbox_id, label, created_at, sealing_key_id, sealed_key,
        registration, identity_update, registered_at, schedule, due_at)
      SELECT lower(hex(randomblob(32))), lower(hex(randomblob(32))), 'default', ?, ?, randomblob(60), 'Registered',
        randomblob(300), ?, ${due("CASE WHEN i < ? THEN ? - i ELSE ? + i END")} FROM n`
    ).run(installations, now, seal, now, ...[0, 0, 0].flatMap(() => [DUE, now, now + 1]))
    db.prepare("INSERT INTO keyward_leases SELECT installation_id, 1, ? FROM keyward_installations").run(now + 300_000)
    db.prepare(
      `${numbers} INSERT INTO keyward_key_packages (history_id, installation_id, state, rotation_trigger, ref, key_package,
        not_before, not_after, init_key, post_quantum_key, created_at, exposed_at, published_at, superseded_by,
        superseded_at, delete_at)
      SELECT n.i + 1, s.installation_id, CASE age WHEN 0 THEN 'Exposed' WHEN 1 THEN 'Published' ELSE 'Superseded' END, 'Time',
        lower(hex(randomblob(32))), randomblob(CASE WHEN n.i % 10 = 3 THEN 1663 ELSE 437 END), 1, 2000000000,
        randomblob(32), CASE WHEN n.i % 10 = 3 THEN randomblob(1216) END, 1, 1, CASE WHEN age > 0 THEN 1 END,
        CASE WHEN age > 1 THEN n.i + 1 + ${installations} END, CASE WHEN age > 1 THEN 1 END,
        CASE WHEN age > 5 THEN ? WHEN age > 1 THEN ? END
      FROM (SELECT i, ${ROWS_EACH - 1} - i / ${installations} AS age FROM n) AS n
      JOIN keyward_installations s ON s.seq = 1 + n.i % ${installations}`
    ).run(installations * ROWS_EACH, now - 1, now + 86_400_000)
    db.prepare("INSERT INTO keyward_private_keys SELECT history_id, ?, randomblob(93) FROM keyward_key_packages").run(
      seal
    )
  })()
  db.close()
}

/** A store of this many rows, and what is asked of it. */
const storeOf = async (folder: string, rows: number) => {
  const filename = join(folder, `${rows}.db`)
  const now = DateTime.unsafeMake(1_780_000_000_000)
  const millis = DateTime.toEpochMillis(now)
  const installations = rows / ROWS_EACH
  const layer = SqliteKeyPackageStore.layer({ filename }).pipe(
    Layer.provide(AesGcmKeySealer.layer({ keyId: "bench", key: Redacted.make(randomBytes(32).fill(1)) })),
    Layer.provideMerge(Layer.merge(NodeCrypto.layer, Layer.mock(ApiClient, { uploadKeyPackage: () => Effect.void })))
  )

  // The tables and the sealing key are the store's own.
  const { privateKeys } = await Effect.runPromise(
    Effect.gen(function* () {
      const store = yield* KeyPackageStore
      const key = yield* InstallationKey.generate
      const inboxId = InboxId.make("0".repeat(64))
      yield* store.findOrCreateInstallation({ inboxId, label: "bench", key, at: now })
      return yield* newKeyPackage({ inboxId, installationKey: key, includePostQuantum: false })
    }).pipe(Effect.provide(layer))
  )
  const empty = new Database(filename)
  empty.exec("DELETE FROM keyward_installations; DELETE FROM sqlite_sequence")
  empty.close()
  fill(filename, installations, millis)

  const managed = ManagedRuntime.make(layer)
  const opened = process.hrtime.bigint()
  const runtime = await managed.runtime()
  const openMicros = Number(process.hrtime.bigint() - opened) / 1000
  const run = <A, E>(effect: Effect.Effect<A, E, KeyPackageStore | ApiClient>) => managed.runPromise(effect)

  /** Other hands: they put a row back to where it was before it was marked. */
  const hands = new Database(filename)
  hands.pragma("synchronous = OFF")
  const ids = hands
    .prepare("SELECT installation_id AS id, seq FROM keyward_installations WHERE seq % ? = 0 ORDER BY seq LIMIT ?")
    .all(Math.max(1, Math.floor(installations / TARGETS)), TARGETS) as ReadonlyArray<{ id: string; seq: number }>
  const unpublish = hands.prepare(
    "UPDATE keyward_key_packages SET state = 'Exposed', published_at = NULL WHERE history_id = ?"
  )
  const revive = hands.prepare(
    `UPDATE keyward_key_packages SET state = 'Published', superseded_by = NULL, superseded_at = NULL, delete_at = NULL
    WHERE history_id = ?`
  )

  const store = await run(KeyPackageStore)
  const targets = await Promise.all(
    ids.map(async ({ id, seq }) => {
      const installationId = (await run(store.getHistory(id as never)))[0]?.keyPackage.installationId
      if (installationId === undefined) throw new Error("an installation without rows")
      const newest = Option.getOrThrow(await run(store.getNewest(installationId)))
      if (newest._tag !== "Exposed") throw new Error("the newest row is not the one to publish")
      const lease = { installationId, fence: 1, expiresAt: DateTime.addDuration(now, Duration.minutes(5)) }
      const sending = Effect.provideService(uploadKeyPackage(lease, newest), KeyPackageStore, {
        ...store,
        checkLease: () => Effect.void,
        // Those in the table are no keys.
        getPrivateKeys: () => Effect.succeedSome(privateKeys)
      })
      return { installationId, lease, receipt: await run(sending), newest: newest.historyId, seq }
    })
  )
  let turn = 0
  const next = () => targets[turn++ % targets.length] ?? targets[0] ?? raise()
  const raise = (): never => {
    throw new Error("no installations")
  }

  const works: Readonly<Record<string, Work>> = {
    "findDue and nextDueAt": () =>
      Effect.runPromise(Effect.zipRight(store.findDue({ now, limit: DUE }), store.nextDueAt(now))),
    getLedger: () => Effect.runPromise(store.getLedger(next().installationId)),
    markKeyPackagesBeforeIdToBeDeleted: async () => {
      const { lease, newest, receipt } = next()
      const publication = {
        at: now,
        deleteAt: Option.some(DateTime.addDuration(now, Duration.days(1))),
        reschedule: (schedule: Schedule.Schedule) => Schedule.requestCleaning(now)(schedule)
      }
      const { superseded } = await Effect.runPromise(
        store.markKeyPackagesBeforeIdToBeDeleted(lease, receipt, publication)
      )
      if (superseded.length !== 1) raise()
      unpublish.run(newest)
      revive.run(newest - installations)
    }
  }
  return {
    works,
    openMicros,
    runtime,
    close: async () => {
      hands.close()
      await managed.dispose()
    }
  }
}

/**
 * @since 1.0.0
 * @category cases
 */
export const cases: ReadonlyArray<Case> = [
  {
    id: "due-1m",
    floor: "the same with 1,000 rows",
    target: 2,
    rounds: 51,
    prepare: async () => {
      const folder = mkdtempSync(join(tmpdir(), "keyward-bench-"))
      const large = await storeOf(folder, 1_000_000)
      const small = await storeOf(folder, 1_000)
      const all = (works: Readonly<Record<string, Work>>) => async () => {
        for (const work of Object.values(works)) await work()
      }
      const named = (works: Readonly<Record<string, Work>>, rows: string) =>
        Object.entries(works).map(([name, work]) => [`${name}, ${rows} rows`, work] as const)
      return {
        subject: all(large.works),
        floor: all(small.works),
        parts: Object.fromEntries([...named(large.works, "1,000,000"), ...named(small.works, "1,000")]),
        beside: () =>
          Promise.resolve({
            "opening 1,000,000 rows": large.openMicros,
            "opening 1,000 rows": small.openMicros
          }),
        close: async () => {
          await large.close()
          await small.close()
          rmSync(folder, { recursive: true, force: true })
        }
      }
    }
  }
]
