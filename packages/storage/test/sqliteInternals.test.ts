/**
 * The store's transactions where the port cannot reach them, and the table of result codes.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { describe, expect, it } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import { fromDriver, reasonOfCode } from "../src/internal/sqliteErrors.ts"
import * as transactions from "../src/internal/sqliteTransaction.ts"
import { filename } from "./fixture.ts"

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
