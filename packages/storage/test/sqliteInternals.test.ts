/**
 * The store's transactions where the port cannot reach them, and the table of result codes.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { describe, expect, it } from "@effect/vitest"
import { StorageError } from "@keyward/core/ports/KeyPackageStore"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Random from "effect/Random"
import * as Schedule from "effect/Schedule"
import * as TestClock from "effect/TestClock"
import { fromDriver, reasonOfCode } from "../src/internal/sqliteErrors.ts"
import * as transactions from "../src/internal/sqliteTransaction.ts"
import { filename, withSql } from "./fixture.ts"

const setUp = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  yield* sql`PRAGMA foreign_keys = ON`
  yield* sql`CREATE TABLE parents (id INTEGER PRIMARY KEY)`
  yield* sql`CREATE TABLE children (parent INTEGER REFERENCES parents (id) DEFERRABLE INITIALLY DEFERRED)`
  return {
    sql,
    count: Effect.map(sql`SELECT * FROM children`, ({ length }) => length),
    ...(yield* transactions.make(sql))
  }
})
const memory = SqliteClient.layer({ filename: ":memory:", disableWAL: true })

describe("a write transaction", () => {
  it.effect("whose COMMIT fails is a failure, leaves nothing, and the connection goes on", () =>
    Effect.gen(function* () {
      const { count, sql, write } = yield* setUp
      // A deferred foreign key is first checked by COMMIT.
      const error = yield* Effect.flip(write(sql`INSERT INTO children VALUES (1)`))
      expect(error).toMatchObject({ _tag: "SqlError", cause: { code: "SQLITE_CONSTRAINT_FOREIGNKEY" } })
      expect(yield* count).toBe(0)
      yield* write(Effect.zipRight(sql`INSERT INTO parents VALUES (1)`, sql`INSERT INTO children VALUES (1)`))
      expect(yield* count).toBe(1)
    }).pipe(Effect.provide(memory))
  )

  it.effect("whose body fails, dies or is interrupted leaves nothing, and lets the next one in", () =>
    Effect.gen(function* () {
      const { count, sql, write } = yield* setUp
      yield* write(sql`INSERT INTO parents VALUES (1)`)
      const insert = sql`INSERT INTO children VALUES (1)`
      expect(yield* Effect.flip(write(Effect.zipRight(insert, Effect.fail("no"))))).toBe("no")
      expect(Exit.isFailure(yield* Effect.exit(write(Effect.zipRight(insert, Effect.die("bug")))))).toBe(true)
      const inside = yield* Deferred.make<void>()
      const fiber = yield* Effect.fork(
        write(insert.pipe(Effect.zipRight(Deferred.succeed(inside, undefined)), Effect.zipRight(Effect.never)))
      )
      yield* Deferred.await(inside)
      const waiting = yield* Effect.fork(write(insert))
      yield* Fiber.interrupt(fiber)
      yield* Fiber.join(waiting)
      expect(yield* count).toBe(1)
    }).pipe(Effect.provide(memory))
  )

  it.effect("holds the write lock from its beginning, so that what it reads first still holds when it writes", () =>
    Effect.gen(function* () {
      const file = yield* filename
      const client = Effect.map(Layer.build(SqliteClient.layer({ filename: file })), Context.get(SqlClient.SqlClient))
      const { count, write } = yield* Effect.provideServiceEffect(setUp, SqlClient.SqlClient, client)
      const other = yield* client
      yield* other`PRAGMA busy_timeout = 0`
      // Statements of any client run on the transaction's connection as long as it is in the context.
      const insert = Effect.mapInputContext(other`INSERT INTO parents VALUES (1)`, (context: Context.Context<never>) =>
        Context.omit(SqlClient.TransactionConnection)(context)
      )
      const error = yield* write(Effect.zipRight(count, Effect.flip(insert)))
      expect(error.cause).toMatchObject({ code: "SQLITE_BUSY" })
      yield* insert
    }).pipe(Effect.scoped)
  )

  it.effect("is not seen by a reader of the same connection before it is committed", () =>
    Effect.gen(function* () {
      const { count, read, sql, write } = yield* setUp
      yield* write(sql`INSERT INTO parents VALUES (1)`)
      const inside = yield* Deferred.make<void>()
      const go = yield* Deferred.make<void>()
      const writer = yield* Effect.fork(
        write(
          sql`INSERT INTO children VALUES (1)`.pipe(
            Effect.zipRight(Deferred.succeed(inside, undefined)),
            Effect.zipRight(Deferred.await(go)),
            Effect.zipRight(Effect.fail("rolled back"))
          )
        )
      )
      yield* Deferred.await(inside)
      const reader = yield* Effect.fork(read(count))
      yield* Effect.yieldNow()
      yield* Deferred.succeed(go, undefined)
      expect(yield* Fiber.join(reader)).toBe(0)
      expect(yield* Effect.flip(Fiber.join(writer))).toBe("rolled back")
    }).pipe(Effect.provide(memory))
  )
})

describe("writes that wait at the same time", () => {
  /** A client that counts its commits, with a table of numbers. */
  const counting = Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE numbers (n INTEGER PRIMARY KEY)`
    const commits = { count: 0 }
    const failNext: Array<{ readonly statement: string; readonly cause: unknown }> = []
    const watched = (connection: Connection): Connection => ({
      ...connection,
      executeUnprepared: (statement, parameters, transform) => {
        const index = failNext.findIndex((failure) => failure.statement === statement)
        const [failure] = index < 0 ? [] : failNext.splice(index, 1)
        if (failure !== undefined) return Effect.fail(new SqlError({ cause: failure.cause, message: "injected" }))
        if (statement === "COMMIT") commits.count++
        return connection.executeUnprepared(statement, parameters, transform)
      }
    })
    const client: SqlClient.SqlClient = Object.assign((...args: Parameters<typeof sql>) => sql(...args), sql, {
      // The same connection each time, as the client itself has.
      reserve: Effect.map(sql.reserve, (connection) => (wrapped ??= watched(connection)))
    })
    let wrapped: Connection | undefined
    const { query, read, write, writeUnsynced } = yield* transactions.make(client)
    return {
      sql,
      commits,
      failNext,
      read,
      write,
      writeUnsynced,
      query,
      insert: (n: number) => query("INSERT INTO numbers VALUES (?)", n),
      numbers: Effect.map(query("SELECT n FROM numbers ORDER BY n"), (rows) => rows.map(({ n }) => Number(n)))
    }
  })
  const range = (from: number, to: number) => Array.from({ length: to - from }, (_, index) => from + index)
  const all = { concurrency: "unbounded" } as const

  it.effect("share a commit, 64 at most, and all are there when they return", () =>
    Effect.gen(function* () {
      const { commits, insert, numbers, read, write } = yield* counting
      yield* Effect.forEach(range(0, 64), (n) => Effect.zipRight(write(insert(n)), read(numbers)), all)
      expect(commits.count).toBe(1)
      expect(yield* read(numbers)).toEqual(range(0, 64))
      yield* Effect.forEach(range(64, 264), (n) => write(insert(n)), all)
      expect(commits.count).toBe(1 + Math.ceil(200 / 64))
      expect(yield* read(numbers)).toEqual(range(0, 264))
    }).pipe(Effect.provide(memory))
  )

  it.effect("are undone one by one: what fails, dies or is interrupted takes nothing else with it", () =>
    Effect.gen(function* () {
      const { commits, insert, numbers, read, write } = yield* counting
      const exits = yield* Effect.forEach(
        range(0, 40),
        (n) => {
          const end = [Effect.void, Effect.fail("no"), Effect.die("bug"), Effect.interrupt][n % 4] ?? Effect.void
          return Effect.exit(write(Effect.zipRight(insert(n), end)))
        },
        all
      )
      expect(commits.count).toBe(1)
      const succeeded = range(0, 40).filter((n) => n % 4 === 0)
      expect(exits.flatMap((exit, n) => (Exit.isSuccess(exit) ? [n] : []))).toEqual(succeeded)
      expect(yield* read(numbers)).toEqual(succeeded)
    }).pipe(Effect.provide(memory))
  )

  it.effect("read what those before them wrote, as if one after the other", () =>
    Effect.gen(function* () {
      const { insert, numbers, query, read, write } = yield* counting
      const next = Effect.flatMap(query("SELECT coalesce(max(n), -1) + 1 AS next FROM numbers"), ([row]) =>
        Effect.as(insert(Number(row?.["next"])), Number(row?.["next"]))
      )
      const given = yield* Effect.forEach(range(0, 100), () => write(next), all)
      expect([...given].sort((a, b) => a - b)).toEqual(range(0, 100))
      expect(yield* read(numbers)).toEqual(range(0, 100))
    }).pipe(Effect.provide(memory))
  )

  it.effect("all fail with the error of their COMMIT, and none has happened", () =>
    Effect.gen(function* () {
      const { failNext, insert, numbers, read, write } = yield* counting
      failNext.push({ statement: "COMMIT", cause: { code: "SQLITE_IOERR_FSYNC" } })
      const exits = yield* Effect.forEach(range(0, 20), (n) => Effect.either(write(insert(n))), all)
      for (const exit of exits) expect(exit).toMatchObject({ left: { cause: { code: "SQLITE_IOERR_FSYNC" } } })
      expect(yield* read(numbers)).toEqual([])
      yield* Effect.forEach(range(0, 20), (n) => write(insert(n)), all)
      expect(yield* read(numbers)).toEqual(range(0, 20))
    }).pipe(Effect.provide(memory))
  )

  it.effect("all fail with the error of their BEGIN, at once", () =>
    Effect.gen(function* () {
      const { failNext, insert, numbers, read, write } = yield* counting
      failNext.push({ statement: "BEGIN IMMEDIATE", cause: { code: "SQLITE_BUSY" } })
      const exits = yield* Effect.forEach(range(0, 20), (n) => Effect.either(write(insert(n))), all)
      for (const exit of exits) expect(exit).toMatchObject({ left: { cause: { code: "SQLITE_BUSY" } } })
      expect(yield* read(numbers)).toEqual([])
    }).pipe(Effect.provide(memory))
  )

  it.effect("[62] one for which SQLite ends the transaction fails alone: the others happen all the same", () =>
    Effect.gen(function* () {
      const { insert, numbers, query, read, write } = yield* counting
      // What SQLite does by itself where the disk is full.
      const breaking = query("ROLLBACK").pipe(Effect.zipRight(Effect.fail("full")))
      const exits = yield* Effect.forEach(
        range(0, 20),
        (n) => Effect.either(write(n === 10 ? Effect.zipRight(insert(n), breaking) : insert(n))),
        all
      )
      expect(exits.flatMap((exit, n) => (exit._tag === "Left" ? [[n, exit.left]] : []))).toEqual([[10, "full"]])
      expect(yield* read(numbers)).toEqual(range(0, 20).filter((n) => n !== 10))
    }).pipe(Effect.provide(memory))
  )

  it.effect("those that wait for their turn, or have just been given it, can be interrupted", () =>
    Effect.gen(function* () {
      const { insert, numbers, read, write } = yield* counting
      const go = yield* Deferred.make<void>()
      const first = yield* Effect.fork(write(Effect.zipRight(Deferred.await(go), insert(0))))
      yield* Effect.yieldNow()
      const waiting = yield* Effect.forEach(range(1, 21), (n) => Effect.fork(write(insert(n))))
      yield* Effect.yieldNow()
      const odd = waiting.filter((_, index) => index % 2 === 0)
      const interrupting = yield* Effect.fork(Effect.forEach(odd, Fiber.interrupt, all))
      yield* Deferred.succeed(go, undefined)
      yield* Fiber.join(interrupting)
      yield* Fiber.join(first)
      yield* Effect.forEach(waiting, Fiber.await)
      const there = yield* read(numbers)
      expect(there.filter((n) => n % 2 === 0)).toEqual(range(0, 21).filter((n) => n % 2 === 0))
      yield* write(insert(99))
      expect(yield* read(numbers)).toContain(99)
    }).pipe(Effect.provide(memory))
  )

  for (const [name, level] of [
    ["OFF", 0],
    ["NORMAL", 1],
    ["FULL", 2],
    ["EXTRA", 3]
  ] as const) {
    it.scoped(
      `leave a connection at synchronous=${name}, whatever became of them, and are as durable as they say`,
      () =>
        Effect.gen(function* () {
          const path = yield* filename
          yield* Effect.gen(function* () {
            const sql = yield* SqlClient.SqlClient
            yield* sql.unsafe("PRAGMA busy_timeout = 0")
            yield* sql.unsafe(`PRAGMA synchronous = ${name}`)
            const { execute, query, write, writeUnsynced } = yield* transactions.make(sql)
            const now = Effect.map(query("SELECT synchronous FROM pragma_synchronous"), ([row]) => row?.["synchronous"])
            expect(yield* write(now)).toBe(Math.max(level, 2))
            expect(yield* now).toBe(level)
            expect(yield* writeUnsynced(now)).toBe(Math.min(level, 1))
            expect(yield* now).toBe(level)
            for (const one of [write, writeUnsynced]) {
              yield* Effect.flip(one(Effect.fail("no")))
              yield* Effect.flip(one(Effect.zipRight(execute("ROLLBACK"), Effect.fail("broken"))))
              expect(yield* now).toBe(level)
              // Another process writes: it cannot even begin.
              yield* withSql(path, (other) =>
                Effect.gen(function* () {
                  yield* other.unsafe("BEGIN IMMEDIATE")
                  yield* Effect.flip(one(Effect.void))
                  yield* other.unsafe("ROLLBACK")
                })
              )
              expect(yield* now).toBe(level)
            }
          }).pipe(Effect.provide(SqliteClient.layer({ filename: path })))
        })
    )
  }

  it.scoped("wait for the disk also as the first of a new file, where nobody has set a level", () =>
    Effect.gen(function* () {
      const file = yield* filename
      yield* Effect.gen(function* () {
        const { query, write } = yield* transactions.make(yield* SqlClient.SqlClient)
        const now = Effect.map(query("SELECT synchronous FROM pragma_synchronous"), ([row]) => row?.["synchronous"])
        expect(yield* write(Effect.zipRight(query("CREATE TABLE numbers (n INTEGER PRIMARY KEY)"), now))).toBe(2)
        expect(yield* write(now)).toBe(2)
      }).pipe(Effect.provide(SqliteClient.layer({ filename: file })))
    })
  )

  it.scoped("leave a private connection at the level that it was configured to before the first of them", () =>
    Effect.gen(function* () {
      const file = yield* filename
      yield* withSql(file, (sql) => sql`CREATE TABLE numbers (n INTEGER PRIMARY KEY)`)
      yield* Effect.gen(function* () {
        const { execute, query, read, write, writeUnsynced } = yield* transactions.make(yield* SqlClient.SqlClient, {
          isPrivate: true
        })
        const now = Effect.map(query("SELECT synchronous FROM pragma_synchronous"), ([row]) => row?.["synchronous"])
        yield* read(execute("PRAGMA synchronous = FULL"))
        for (const [one, inside] of [
          [write, 2],
          [writeUnsynced, 1],
          [write, 2]
        ] as const) {
          expect(yield* one(now)).toBe(inside)
          expect(yield* read(now)).toBe(2)
        }
      }).pipe(Effect.provide(SqliteClient.layer({ filename: file })))
    })
  )

  it.effect("wait for the disk if one of them does, and only then", () =>
    Effect.gen(function* () {
      const { commits, query, sql, write, writeUnsynced } = yield* counting
      const level = Effect.map(query("PRAGMA synchronous"), ([row]) => row?.["synchronous"])
      const kinds = [writeUnsynced, write, writeUnsynced]
      expect(yield* Effect.forEach(kinds, (kind) => kind(level), all)).toEqual([2, 2, 2])
      expect(commits.count).toBe(1)
      expect(yield* Effect.forEach(range(0, 3), () => writeUnsynced(level), all)).toEqual([1, 1, 1])
      expect(yield* sql`PRAGMA synchronous`).toEqual([{ synchronous: 2 }])
    }).pipe(Effect.provide(memory))
  )
})

describe("a database that stays busy", () => {
  const busy = () => new StorageError({ operation: "open", reason: "Busy", detail: "locked" })

  /** When each try was made, in milliseconds. */
  const triesOf = (retry: (call: Effect.Effect<never, StorageError>) => Effect.Effect<never, StorageError>) =>
    Effect.gen(function* () {
      yield* TestClock.setTime(0)
      const tries: Array<number> = []
      const call = Effect.flatMap(Clock.currentTimeMillis, (now) => {
        tries.push(now)
        return Effect.fail(busy())
      })
      const fiber = yield* Effect.fork(Effect.flip(retry(call)))
      yield* TestClock.adjust("1 minute")
      expect((yield* Fiber.join(fiber)).reason).toBe("Busy")
      return tries
    }).pipe(Effect.withRandom(Random.make("busy")))

  it.effect("is tried ten times, after the waits of a schedule that is driven from the first try on", () =>
    Effect.gen(function* () {
      const expected = yield* triesOf(
        Effect.retry(Schedule.exponential("10 millis").pipe(Schedule.jittered, Schedule.intersect(Schedule.recurs(9))))
      )
      expect(expected.length).toBe(10)
      expect(yield* triesOf(transactions.retryBusy)).toEqual(expected)
    })
  )
})

describe("result codes", () => {
  it("extended codes mean what their primary code means, unless they are listed", () => {
    const expected = {
      SQLITE_BUSY: "Busy",
      SQLITE_BUSY_SNAPSHOT: "Busy",
      SQLITE_BUSY_RECOVERY: "Busy",
      SQLITE_LOCKED_SHAREDCACHE: "Busy",
      SQLITE_PROTOCOL: "Busy",
      SQLITE_FULL: "Full",
      SQLITE_READONLY_DIRECTORY: "ReadOnly",
      SQLITE_READONLY_DBMOVED: "Unavailable",
      SQLITE_IOERR_FSYNC: "Unavailable",
      SQLITE_IOERR_SHORT_READ: "Unavailable",
      SQLITE_CANTOPEN_ISDIR: "Unavailable",
      SQLITE_NOMEM: "Unavailable",
      SQLITE_ERROR: "Unavailable",
      SQLITE_CORRUPT_INDEX: "Corrupt",
      SQLITE_NOTADB: "Corrupt",
      SQLITE_CONSTRAINT_UNIQUE: "Conflict",
      SQLITE_CONSTRAINT_PRIMARYKEY: "Conflict",
      SQLITE_CONSTRAINT_CHECK: "Corrupt",
      SQLITE_CONSTRAINT_FOREIGNKEY: "WrongSealingKey",
      SOMETHING_ELSE: "Unavailable"
    }
    for (const [code, reason] of Object.entries(expected)) expect(reasonOfCode(code), code).toBe(reason)
    expect(fromDriver("open", new TypeError("no such folder"))).toMatchObject({
      operation: "open",
      reason: "Unavailable",
      detail: "no such folder"
    })
    expect(fromDriver("open", undefined)).toMatchObject({ reason: "Unavailable" })
  })
})
