/**
 * A handler that writes in the transaction that moves the cursor has each Welcome exactly once, though two processes read the
 * same inbox and each is stopped again and again.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { expect, it } from "@effect/vitest"
import * as InstallationIds from "@keyward/core/identity/InstallationId"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { NoSuchKeyPackage } from "@keyward/core/welcome/WelcomeError"
import * as WelcomeInbox from "@keyward/core/welcome/WelcomeInbox"
import * as MemoryApiClient from "@keyward/test-utils/MemoryApiClient"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import * as SqliteWelcomeCursorStore from "../src/SqliteWelcomeCursorStore.ts"
import { filename } from "./fixture.ts"

const installationId = InstallationIds.InstallationId.make("ab".repeat(32))
const neverOurs = new NoSuchKeyPackage({ installationId, reason: { _tag: "NeverOurs" } })
const COUNT = 60

const post = Effect.flatMap(ApiClient, (api) =>
  api.sendWelcomeMessages(
    Array.from({ length: COUNT }, (_, i) => ({
      _tag: "Welcome" as const,
      installationKey: InstallationIds.toPublicKey(installationId),
      data: Uint8Array.of(i + 1),
      hpkePublicKey: new Uint8Array(32),
      wrapperAlgorithm: 1,
      welcomeMetadata: new Uint8Array(0)
    }))
  )
)

/** Two of them are on one thread here: neither may wait long for the other. */
const connection = (path: string) =>
  Layer.tap(SqliteClient.layer({ filename: path }), (context) =>
    Context.get(context, SqlClient.SqlClient).unsafe("PRAGMA busy_timeout = 1")
  )

/** One process: its own connection, its own inbox. It stops in the middle of a Welcome where `isStopped` says so. */
const runProcess = (path: string, isStopped: (id: bigint, place: string) => boolean) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    yield* sql`CREATE TABLE IF NOT EXISTS joined (id INTEGER NOT NULL) STRICT`
    const inbox = yield* WelcomeInbox.makeWith(
      (_, entries) => Effect.succeed(entries.map(() => Either.left(neverOurs))),
      { pageSize: 7 }
    )
    const stopAt = (id: bigint, place: string) => (isStopped(id, place) ? Effect.never : Effect.yieldNow())
    yield* inbox.run(installationId, ({ commit, id }) =>
      sql.withTransaction(
        Effect.gen(function* () {
          yield* sql`INSERT INTO joined (id) VALUES (${id})`
          yield* stopAt(id, "before the commit")
          yield* commit
          yield* stopAt(id, "after the commit")
        })
      )
    )
  }).pipe(Effect.provide(Layer.provideMerge(SqliteWelcomeCursorStore.layerClient, connection(path))))

it.scoped(
  "[53] two processes on one inbox, stopped before and after the commit of every third Welcome",
  () =>
    Effect.gen(function* () {
      const path = yield* filename
      yield* post
      for (let round = 0; round < 12; round++) {
        const place = round % 2 === 0 ? "before the commit" : "after the commit"
        const stopped = (offset: number) => (id: bigint, at: string) =>
          round < 10 && at === place && (Number(id) + offset + round) % 3 === 0
        const one = yield* Effect.fork(runProcess(path, stopped(0)))
        const two = yield* Effect.fork(runProcess(path, stopped(1)))
        yield* TestClock.adjust(round < 10 ? "10 seconds" : "1 hour")
        // The one that waits for the other's lock gives up in a few seconds.
        const stopping = yield* Effect.fork(Fiber.interruptAll([one, two]))
        yield* TestClock.adjust("10 seconds")
        yield* Fiber.join(stopping)
      }
      const rows = yield* Effect.flatMap(SqlClient.SqlClient, (sql) => sql`SELECT id FROM joined ORDER BY id`).pipe(
        Effect.provide(SqliteClient.layer({ filename: path }))
      )
      expect(rows.map(({ id }) => id)).toEqual(Array.from({ length: COUNT }, (_, i) => i + 1))
    }).pipe(Effect.provide(MemoryApiClient.layerWithNode())),
  60_000
)
