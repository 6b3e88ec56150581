/**
 * The SQLite store on real files: durability, sealing, and what goes wrong with disks, schemas, keys and rows.
 */
import { existsSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { inspect } from "node:util"
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { describe, expect, it } from "@effect/vitest"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as Arbitraries from "@keyward/test-utils/Arbitraries"
import { snapshot } from "@keyward/test-utils/contracts/KeyPackageStoreContract"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import * as SqliteKeyPackageStore from "../src/SqliteKeyPackageStore.ts"
import {
  atT0,
  filename,
  insertion,
  installed,
  joinInTime,
  one,
  packageOf,
  populate,
  raw,
  sealer,
  sealingKey,
  T0,
  withSql,
  withStore
} from "./fixture.ts"

describe("durability", () => {
  it.effect("a store that is opened again has everything", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { before, installations } = yield* withStore(
        file,
        Effect.gen(function* () {
          const { installations } = yield* populate
          return { installations, before: yield* snapshot(installations) }
        })
      )
      expect(yield* withStore(file, snapshot(installations))).toEqual(before)
    }).pipe(Effect.scoped)
  )

  it.effect("layerConfig takes the path from the configuration, and says which name is missing", () =>
    Effect.gen(function* () {
      const file = yield* filename
      const layer = SqliteKeyPackageStore.layerConfig({ filename: Config.string("KEYWARD_DB") }).pipe(
        Layer.provide(sealer())
      )
      const open = (entries: ReadonlyArray<readonly [string, string]>) =>
        Effect.scoped(Layer.build(layer)).pipe(Effect.withConfigProvider(ConfigProvider.fromMap(new Map(entries))))
      yield* open([["KEYWARD_DB", file]])
      expect(existsSync(file)).toBe(true)
      expect(String(yield* Effect.flip(open([])))).toContain("KEYWARD_DB")
    }).pipe(Effect.scoped)
  )

  it.effect("[12] the connection is set to survive power loss and to zero what it deletes", () =>
    Effect.gen(function* () {
      const file = yield* filename
      const settings = yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        yield* SqliteKeyPackageStore.make
        return yield* Effect.forEach(["journal_mode", "synchronous", "secure_delete", "foreign_keys"], (name) =>
          Effect.map(sql.unsafe(`PRAGMA ${name}`), ([row]) => Object.values(row ?? {})[0])
        )
      }).pipe(Effect.provide([SqliteClient.layer({ filename: file }), sealer()]))
      expect(settings).toEqual(["wal", 2, 1, 1])
    }).pipe(Effect.scoped)
  )

  it.effect("an empty file gets the schema once; opening again writes nothing", () =>
    Effect.gen(function* () {
      const file = yield* filename
      writeFileSync(file, "")
      yield* withStore(file, Effect.void)
      const first = readFileSync(file)
      const migrations = yield* withSql(file, (sql) => sql`SELECT migration_id, name FROM keyward_migrations`)
      expect(migrations).toEqual([
        { migration_id: 1, name: "create_ledger" },
        { migration_id: 2, name: "complete_lifecycle" }
      ])
      yield* withStore(file, Effect.void)
      yield* withStore(file, Effect.void)
      expect(readFileSync(file).equals(first)).toBe(true)
    }).pipe(Effect.scoped)
  )

  it.effect("[11] a migration that cannot finish leaves no trace of itself", () =>
    Effect.gen(function* () {
      const file = yield* filename
      yield* withSql(file, (sql) => sql`CREATE TABLE theirs (x)`)
      const tables = (sql: SqlClient.SqlClient) => sql`SELECT name FROM sqlite_master`
      for (let pages = 3; pages < 12; pages++) {
        const exit = yield* Effect.exit(
          Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* sql.unsafe(`PRAGMA max_page_count = ${pages}`)
            return yield* SqliteKeyPackageStore.make
          }).pipe(Effect.provide([SqliteClient.layer({ filename: file }), sealer()]))
        )
        expect(exit).toMatchObject({ _tag: "Failure", cause: { error: { _tag: "StorageError", reason: "Full" } } })
        expect(yield* withSql(file, tables)).toEqual([{ name: "theirs" }])
      }
      yield* withStore(file, Effect.void)
    }).pipe(Effect.scoped)
  )
})

describe("sealing keys", () => {
  it.effect("[68] a wrong key is refused, and nothing is written", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* withStore(file, populate)
      const before = readFileSync(file)
      const wrong = [
        ["the right id, another key", sealer("2026-03", 8)],
        ["another id, the earlier key not configured", sealer("2027-03", 8)],
        ["another id, the earlier key wrong", sealer("2027-03", 8, [sealingKey("2026-03", 9)])]
      ] as const
      for (const [title, layer] of wrong) {
        const error = yield* Effect.flip(withStore(file, Effect.void, layer))
        expect(error, title).toMatchObject({ _tag: "StorageError", operation: "open", reason: "WrongSealingKey" })
        expect(readFileSync(file).equals(before), title).toBe(true)
      }
    }).pipe(Effect.scoped)
  )

  it.effect("are rotated: rows of the earlier key open, and after resealing it is not needed any more", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { before, installations } = yield* withStore(
        file,
        Effect.gen(function* () {
          const { installations } = yield* populate
          return { installations, before: yield* snapshot(installations) }
        })
      )
      const rotated = sealer("2027-03", 9, [sealingKey("2026-03", 7)])
      expect(yield* withStore(file, snapshot(installations), rotated)).toEqual(before)
      const keyIds = (sql: SqlClient.SqlClient) =>
        sql`SELECT sealing_key_id AS id FROM keyward_installations UNION ALL
          SELECT sealing_key_id FROM keyward_private_keys ORDER BY id`
      yield* withStore(file, installed(3), rotated)
      const mixed = yield* withSql(file, keyIds)
      expect(mixed.filter(({ id }) => id === "2026-03")).toHaveLength(7)
      expect(mixed.filter(({ id }) => id === "2027-03")).toHaveLength(1)

      const reseal = SqliteKeyPackageStore.resealAll({ filename: file }).pipe(Effect.provide(rotated))
      expect(yield* reseal).toEqual({ count: 7, failures: [] })
      expect(yield* reseal).toEqual({ count: 0, failures: [] })
      expect((yield* withSql(file, keyIds)).every(({ id }) => id === "2027-03")).toBe(true)
      expect(yield* withStore(file, snapshot(installations), sealer("2027-03", 9))).toEqual(before)
      const error = yield* Effect.flip(withStore(file, Effect.void, sealer()))
      expect(error).toMatchObject({ reason: "WrongSealingKey" })
    }).pipe(Effect.scoped)
  )

  it.effect("[80] resealing fails with Busy while a reader keeps the WAL, which still has the old seals", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* withStore(file, installed(1))
      const rotated = sealer("2027-03", 9, [sealingKey("2026-03", 7)])
      const reseal = SqliteKeyPackageStore.resealAll({ filename: file }).pipe(Effect.provide(rotated))
      const error = yield* withSql(file, (other) =>
        Effect.gen(function* () {
          yield* other`BEGIN`
          yield* other`SELECT count(*) FROM keyward_installations`
          const fiber = yield* Effect.fork(Effect.flip(reseal))
          const failed = yield* joinInTime(fiber)
          yield* other`COMMIT`
          return failed
        })
      )
      expect(error).toMatchObject({ _tag: "StorageError", operation: "resealAll", reason: "Busy" })
      expect(yield* reseal).toEqual({ count: 0, failures: [] })
    }).pipe(Effect.scoped)
  )

  it.effect(
    "[65] resealing goes on beside rows that cannot be read, names them, and forgets no key that they need",
    () =>
      Effect.gen(function* () {
        yield* atT0
        const file = yield* filename
        yield* withStore(file, populate)
        yield* withSql(file, (sql) =>
          Effect.all([
            sql`PRAGMA ignore_check_constraints = ON`,
            sql`PRAGMA foreign_keys = OFF`,
            sql`UPDATE keyward_installations SET sealed_key = x'00' WHERE seq = 1`,
            sql`UPDATE keyward_private_keys SET sealed_keys = x'0102' WHERE history_id = 1`,
            // The key that sealed it is not configured, and its note is gone.
            sql`UPDATE keyward_private_keys SET sealing_key_id = 'lost' WHERE history_id = 2`,
            // A check that it violates forbids to write it.
            sql`UPDATE keyward_installations SET registration = 'Registered' WHERE seq = 2`
          ])
        )
        const rotated = sealer("2027-03", 9, [sealingKey("2026-03", 7)])
        const reseal = SqliteKeyPackageStore.resealAll({ filename: file }).pipe(Effect.provide(rotated))
        const { count, failures } = yield* reseal
        expect(count).toBe(4)
        expect(failures.map(({ reason, rowId, table }) => [table, rowId, reason])).toEqual([
          ["keyward_installations", 1, "Corrupt"],
          ["keyward_private_keys", 1, "Corrupt"],
          ["keyward_private_keys", 2, "WrongSealingKey"]
        ])
        const kept = yield* withSql(file, (sql) => sql`SELECT key_id FROM keyward_sealing_keys ORDER BY key_id`)
        expect(kept.map((row) => row["key_id"])).toEqual(["2026-03", "2027-03"])
        expect(yield* reseal).toEqual({ count: 0, failures })
      }).pipe(Effect.scoped)
  )

  it.effect("a new file is for its owner alone", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const modes = yield* withStore(
        file,
        Effect.zipRight(
          installed(1),
          Effect.sync(() => [file, `${file}-wal`].map((path) => statSync(path).mode & 0o777))
        )
      )
      expect(modes).toEqual([0o600, 0o600])
    }).pipe(Effect.scoped)
  )

  it.effect("[60] a process that still seals with a key that was retired is refused", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const { installation, lease } = yield* installed(1)
          yield* SqliteKeyPackageStore.resealAll({ filename: file }).pipe(
            Effect.provide(sealer("2027-03", 9, [sealingKey("2026-03", 7)]))
          )
          const late = store.insertKeyPackageHistory(lease, packageOf(installation, 2), insertion)
          expect(yield* Effect.flip(late)).toMatchObject({ _tag: "StorageError", reason: "WrongSealingKey" })
          expect(yield* store.getHistory(installation.installationId)).toEqual([])
        })
      )
    }).pipe(Effect.scoped)
  )

  it.effect("a sealed key that was moved to another row does not open there", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one, two } = yield* withStore(file, populate)
      yield* withSql(file, (sql) =>
        Effect.zipRight(
          sql`UPDATE keyward_private_keys SET sealed_keys =
            (SELECT sealed_keys FROM keyward_private_keys WHERE history_id = 1) WHERE history_id = 2`,
          sql`UPDATE keyward_installations SET sealed_key =
            (SELECT sealed_key FROM keyward_installations WHERE seq = 1) WHERE seq = 2`
        )
      )
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const [, second] = yield* store.getHistory(one.installation.installationId)
          expect(yield* Effect.flip(store.getPrivateKeys(second?.historyId ?? (0 as never)))).toMatchObject({
            reason: "Corrupt",
            detail: "table keyward_private_keys, row 2, column sealed_keys"
          })
          expect(yield* Effect.flip(store.getInstallationKey(two.installation.installationId))).toMatchObject({
            reason: "Corrupt",
            detail: "table keyward_installations, row 2, column sealed_key"
          })
          yield* store.getInstallationKey(one.installation.installationId)
        })
      )
    }).pipe(Effect.scoped)
  )
})

describe("a disk or file that fails", () => {
  it.effect("a database of a newer schema is refused, and nothing is written", () =>
    Effect.gen(function* () {
      const file = yield* filename
      yield* withStore(file, Effect.void)
      yield* withSql(file, (sql) => sql`INSERT INTO keyward_migrations (migration_id, name) VALUES (9999, 'later')`)
      const before = readFileSync(file)
      const error = yield* Effect.flip(withStore(file, Effect.void))
      expect(error).toMatchObject({
        reason: "NewerSchema",
        detail: "the database has schema 9999, this release knows 2"
      })
      expect(readFileSync(file).equals(before)).toBe(true)
    }).pipe(Effect.scoped)
  )

  it.effect("[63] a read-only file is read; each write is ReadOnly", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one, before } = yield* withStore(
        file,
        Effect.gen(function* () {
          const { one } = yield* populate
          return { one, before: yield* snapshot([one.installation]) }
        })
      )
      const readonly = SqliteClient.layer({ filename: file, readonly: true, disableWAL: true })
      yield* Effect.gen(function* () {
        const store = yield* KeyPackageStore
        expect(yield* snapshot([one.installation])).toEqual(before)
        const error = yield* Effect.flip(
          store.insertKeyPackageHistory(one.lease, packageOf(one.installation, 99), insertion)
        )
        expect(error).toMatchObject({ operation: "insertKeyPackageHistory", reason: "ReadOnly", isRetryable: false })
        expect(yield* snapshot([one.installation])).toEqual(before)
      }).pipe(Effect.provide(SqliteKeyPackageStore.layerClient.pipe(Layer.provide([readonly, sealer()]))))
    }).pipe(Effect.scoped)
  )

  it.effect("a folder that is not there is Unavailable, a file that is no database is Corrupt and left alone", () =>
    Effect.gen(function* () {
      const file = yield* filename
      const missing = yield* Effect.flip(withStore(`${file}/missing/keyward.db`, Effect.void))
      expect(missing).toMatchObject({ _tag: "StorageError", operation: "open", reason: "Unavailable" })
      const text = "this is a text about databases, long enough to look like one. ".repeat(100)
      writeFileSync(file, text)
      const corrupt = yield* Effect.flip(withStore(file, Effect.void))
      expect(corrupt).toMatchObject({ _tag: "StorageError", operation: "open", reason: "Corrupt" })
      expect(readFileSync(file, "utf8")).toBe(text)
    }).pipe(Effect.scoped)
  )

  it.effect("[62] a full disk is Full, nothing is half written, and it goes on once there is room", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const store = yield* SqliteKeyPackageStore.make
        yield* Effect.gen(function* () {
          const { installation, lease } = yield* installed(1)
          const [pages] = yield* sql<{ page_count: number }>`PRAGMA page_count`
          yield* sql.unsafe(`PRAGMA max_page_count = ${(pages?.page_count ?? 0) + 4}`)
          let error: unknown
          let count = 0
          let before: unknown
          for (; count < 100; count++) {
            before = yield* snapshot([installation])
            const generated = packageOf(installation, 100 + count)
            const inserted = yield* Effect.either(store.insertKeyPackageHistory(lease, generated, insertion))
            if (inserted._tag === "Right") continue
            error = inserted.left
            break
          }
          expect(error).toMatchObject({ _tag: "StorageError", reason: "Full", isRetryable: false })
          expect(count).toBeGreaterThan(0)
          expect(yield* snapshot([installation])).toEqual(before)
          yield* sql.unsafe("PRAGMA max_page_count = 100000")
          yield* store.insertKeyPackageHistory(lease, packageOf(installation, 100 + count), insertion)
          expect(yield* store.getHistory(installation.installationId)).toHaveLength(count + 1)
        }).pipe(Effect.provideService(KeyPackageStore, store))
      }).pipe(Effect.provide([SqliteClient.layer({ filename: file }), sealer()]))
    }).pipe(Effect.scoped)
  )

  it.effect("[61] a database that another holds is Busy after a bounded time, and nothing is written", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* withStore(
        file,
        Effect.gen(function* () {
          const { installation, lease } = yield* installed(1)
          const store = yield* KeyPackageStore
          yield* withSql(file, (other) =>
            Effect.gen(function* () {
              yield* other`BEGIN IMMEDIATE`
              const insert = store.insertKeyPackageHistory(lease, packageOf(installation, 2), insertion)
              const fiber = yield* Effect.fork(Effect.flip(insert))
              expect(yield* joinInTime(fiber)).toMatchObject({
                _tag: "StorageError",
                operation: "insertKeyPackageHistory",
                reason: "Busy",
                isRetryable: true
              })
              // Readers do not wait for the writer.
              expect(yield* store.getHistory(installation.installationId)).toEqual([])
              yield* other`ROLLBACK`
              yield* insert
            })
          )
        })
      )
    }).pipe(Effect.scoped)
  )
})

describe("[78] secrets", () => {
  it.effect("are in no file, log, span or error", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const seen: Array<string> = []
      const record = (value: unknown) => {
        seen.push(inspect(value, { depth: 12, maxArrayLength: null, maxStringLength: null, showHidden: true }))
      }
      const logger = Logger.make((entry) => record([entry.message, entry.annotations, entry.cause]))
      const native = yield* Effect.tracer
      const tracer = Tracer.make({
        context: (f, fiber) => native.context(f, fiber),
        span: (name, parent, context, links, startTime, kind, options) => {
          const span = native.span(name, parent, context, links, startTime, kind, options)
          record([name, options])
          const attribute = span.attribute.bind(span)
          span.attribute = (key, value) => {
            record([key, value])
            attribute(key, value)
          }
          const end = span.end.bind(span)
          span.end = (time, exit) => {
            // A successful exit is the method's own result, which belongs to its caller.
            if (Exit.isFailure(exit)) record(exit.cause)
            end(time, exit)
          }
          return span
        }
      })

      const secrets = yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const { one, installations } = yield* populate
          const secrets: Array<Uint8Array> = []
          for (const { installationId } of installations) {
            secrets.push(Redacted.value((yield* store.getInstallationKey(installationId)).seed))
            for (const { historyId } of yield* store.getHistory(installationId)) {
              const keys = Option.getOrThrow(yield* store.getPrivateKeys(historyId))
              secrets.push(
                ...[keys.initKey, keys.encryptionKey, ...Option.toArray(keys.postQuantumKey)].map(Redacted.value)
              )
            }
          }
          // Failures of every kind carry none either.
          record(
            yield* Effect.flip(store.insertKeyPackageHistory(one.lease, packageOf(one.installation, 10), insertion))
          )
          record(yield* Effect.flip(store.markRegistered({ ...one.lease, fence: 99 }, T0)))
          yield* withSql(
            file,
            (sql) => sql`UPDATE keyward_private_keys SET sealed_keys = zeroblob(93) WHERE history_id = 1`
          )
          const [first] = yield* store.getHistory(one.installation.installationId)
          record(yield* Effect.flip(store.getPrivateKeys(first?.historyId ?? (0 as never))))
          expect(secrets.length).toBeGreaterThan(12)
          // While the database is open, its WAL holds what was just written.
          expect(existsSync(`${file}-wal`)).toBe(true)
          const open = raw(file)
          for (const secret of secrets) expect(open.includes(Buffer.from(secret))).toBe(false)
          return secrets
        })
      ).pipe(
        Effect.withTracer(tracer),
        Effect.provide(Logger.replace(Logger.defaultLogger, logger)),
        Logger.withMinimumLogLevel(LogLevel.All)
      )

      const closed = raw(file)
      const text = seen.join("\n")
      expect(text).toContain("SqliteKeyPackageStore.insertKeyPackageHistory")
      for (const secret of secrets) {
        const bytes = Buffer.from(secret)
        expect(closed.includes(bytes)).toBe(false)
        // 16 of the 32 bytes, in the spellings of Node and of JSON.
        const part = bytes.subarray(8, 24)
        expect(text).not.toContain(part.toString("hex"))
        expect(text).not.toContain(part.toString("hex").replace(/(..)(?=.)/g, "$1 "))
        expect(text).not.toContain(part.toString("base64").slice(0, 20))
        expect(text.replace(/\s/g, "")).not.toContain([...part].join(","))
      }
    }).pipe(Effect.scoped)
  )

  it.effect("the search above finds a secret that is there", () =>
    Effect.gen(function* () {
      const file = yield* filename
      const secret = Buffer.from(new Uint8Array(32).map((_, index) => index + 100))
      yield* withSql(file, (sql) => Effect.zipRight(sql`CREATE TABLE t (b)`, sql`INSERT INTO t VALUES (${secret})`))
      expect(raw(file).includes(secret)).toBe(true)
    }).pipe(Effect.scoped)
  )
})

describe("a lowered deadline", () => {
  it.effect("is announced also where its caller is interrupted as it becomes durable", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const announced: Array<string> = []
      const body = Effect.gen(function* () {
        const { one, two } = yield* populate
        const store = yield* KeyPackageStore
        const { installationId } = one.installation
        const lowered = yield* store.deadlineLowered
        yield* Effect.forkScoped(Stream.runForEach(lowered, (id) => Effect.sync(() => announced.push(id))))
        const lower = (hours: number) => Schedule.requestProbe(DateTime.subtract(T0, { hours }))
        // Two writes share a commit: the second interrupts the first, which has run and waits for it.
        const first = yield* Effect.fork(store.modifySchedule(installationId, lower(2)))
        const second = yield* Effect.fork(
          store.modifySchedule(two.installation.installationId, (schedule) => {
            first.unsafeInterruptAsFork(FiberId.none)
            return lower(1)(schedule)
          })
        )
        expect(Exit.isInterrupted(yield* Fiber.await(first))).toBe(true)
        yield* Fiber.join(second)
        const found = Option.getOrThrow(yield* store.getInstallation(installationId))
        expect(found.schedule.probeAt).toEqual(Option.some(DateTime.subtract(T0, { hours: 2 })))
        yield* Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))
        expect(announced.toSorted()).toEqual([installationId, two.installation.installationId].toSorted())
      })
      yield* withStore(file, Effect.scoped(body))
    }).pipe(Effect.scoped)
  )
})

describe("an app's own client", () => {
  it.effect("a store used inside a transaction of that client is a bug, not a wait for ever", () =>
    Effect.gen(function* () {
      const exit = yield* Effect.gen(function* () {
        const sql = yield* SqlClient.SqlClient
        const store = yield* SqliteKeyPackageStore.make
        return yield* Effect.exit(sql.withTransaction(store.findOrCreateInstallation(one(Arbitraries.intent, 1))))
      }).pipe(Effect.provide([SqliteClient.layer({ filename: ":memory:" }), sealer()]))
      expect(inspect(exit, { depth: 5 })).toContain("inside a transaction of its own SqlClient")
    })
  )

  it.effect("a transaction of another client does not catch the store's statements", () =>
    Effect.gen(function* () {
      const file = yield* filename
      const intent = one(Arbitraries.intent, 1)
      const { inboxId } = intent
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          yield* withSql(":memory:", (other) =>
            other
              .withTransaction(Effect.zipRight(store.findOrCreateInstallation(intent), Effect.fail("rolled back")))
              .pipe(Effect.flip)
          )
          expect(yield* store.getInstallations(inboxId)).toHaveLength(1)
        })
      )
    }).pipe(Effect.scoped)
  )
})
