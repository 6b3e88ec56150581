/**
 * The memory of the newest packages seen keeps its contract on a file and over an app's client, outlives the process, and is
 * never the reason of a failure.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { describe, expect, it } from "@effect/vitest"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import { KeyPackageRef } from "@keyward/core/keypackage/KeyPackageRef"
import * as NewestSeen from "@keyward/core/peers/NewestSeen"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as NewestSeenContract from "@keyward/test-utils/contracts/NewestSeenContract"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as SqliteKeyPackageStore from "../src/SqliteKeyPackageStore.ts"
import * as SqliteNewestSeen from "../src/SqliteNewestSeen.ts"
import { filename, sealer } from "./fixture.ts"

NewestSeenContract.suite("SqliteNewestSeen on a file", (options) =>
  Layer.unwrapScoped(Effect.map(filename, (filename) => SqliteNewestSeen.layer({ filename, ...options })))
)

// A client that renames columns and keeps a rollback journal: the memory must not mind.
NewestSeenContract.suite("SqliteNewestSeen over a client", (options) =>
  SqliteNewestSeen.layerClient(options).pipe(
    Layer.provide(
      SqliteClient.layer({
        filename: ":memory:",
        disableWAL: true,
        transformQueryNames: (name) => `app_${name}`,
        transformResultNames: (name) => name.toUpperCase()
      })
    )
  )
)

const seen = (index: number, notBefore: bigint): NewestSeen.Seen => ({
  installationId: InstallationId.make(index.toString(16).padStart(64, "0")),
  ref: KeyPackageRef.make("ab".repeat(32)),
  notBefore
})

const see = (...packages: ReadonlyArray<NewestSeen.Seen>) =>
  Effect.flatMap(NewestSeen.NewestSeen, (memory) => memory.see(packages))

const withClient = <A, E>(path: string, body: (sql: SqlClient.SqlClient) => Effect.Effect<A, E>) =>
  Effect.provide(Effect.flatMap(SqlClient.SqlClient, body), SqliteClient.layer({ filename: path }))

describe("SqliteNewestSeen", () => {
  it.scoped(
    "[32] remembers after a restart, beside the key package store, in the place of the memory of the process",
    () =>
      Effect.gen(function* () {
        const path = yield* filename
        const both = Layer.merge(SqliteKeyPackageStore.layerClient, SqliteNewestSeen.layerClient()).pipe(
          Layer.provide(SqliteClient.layer({ filename: path })),
          Layer.provide(sealer())
        )
        yield* Effect.provide(Effect.zipRight(KeyPackageStore, see(seen(1, 10n))), both)
        const merged = Layer.merge(
          NewestSeen.layerMemory(),
          SqliteNewestSeen.layerConfig({ filename: Config.string("FILE"), capacity: Config.succeed(undefined) })
        )
        const answer = yield* see(seen(1, 9n)).pipe(
          Effect.provide(merged),
          Effect.withConfigProvider(ConfigProvider.fromMap(new Map([["FILE", path]])))
        )
        expect(answer).toEqual([Option.some(seen(1, 10n))])
      })
  )

  it.scoped("holds no more than it may, also where it may hold less than it does or has lost count", () =>
    Effect.gen(function* () {
      const path = yield* filename
      const size = withClient(path, (sql) =>
        Effect.map(sql`SELECT count(*) AS size FROM keyward_newest_seen`, ([row]) => row?.["size"])
      )
      const some = (from: number, to: number) =>
        Array.from({ length: to - from }, (_, index) => seen(from + index, 10n))
      const layer = (capacity: number) => SqliteNewestSeen.layer({ filename: path, capacity })
      yield* Effect.provide(see(...some(0, 250)), layer(100))
      expect(yield* size).toBe(100)
      yield* Effect.provide(see(...some(200, 251)), layer(100))
      expect(yield* size).toBe(100)
      yield* withClient(path, (sql) => sql`UPDATE keyward_newest_seen_size SET size = 3`)
      const answer = yield* Effect.provide(see(seen(250, 9n), seen(240, 9n)), layer(5))
      expect(answer).toEqual([Option.some(seen(250, 10n)), Option.none()])
      expect(yield* size).toBe(5)
    })
  )

  it.scoped("leaves the settings of a client alone", () =>
    Effect.gen(function* () {
      const path = yield* filename
      yield* withClient(path, (sql) =>
        Effect.gen(function* () {
          yield* sql.unsafe("PRAGMA synchronous = NORMAL")
          yield* Effect.provide(see(seen(1, 10n)), SqliteNewestSeen.layerClient()).pipe(
            Effect.provideService(SqlClient.SqlClient, sql)
          )
          expect(yield* sql.unsafe("PRAGMA synchronous")).toEqual([{ synchronous: 1 }])
        })
      )
    })
  )

  it.scoped("[65] a count that is gone is counted anew when the memory is opened", () =>
    Effect.gen(function* () {
      const path = yield* filename
      const layer = Layer.fresh(SqliteNewestSeen.layer({ filename: path }))
      yield* Effect.provide(see(seen(1, 10n)), layer)
      yield* withClient(path, (sql) => sql`DELETE FROM keyward_newest_seen_size`)
      expect(yield* Effect.provide(see(seen(1, 9n), seen(2, 9n)), layer)).toEqual([
        Option.some(seen(1, 10n)),
        Option.none()
      ])
      yield* withClient(path, (sql) =>
        Effect.map(sql`SELECT size FROM keyward_newest_seen_size`, (rows) => expect(rows).toEqual([{ size: 2 }]))
      )
    })
  )

  it.scoped("[65] a row that cannot be read is as good as not there, and is replaced", () =>
    Effect.gen(function* () {
      const path = yield* filename
      const layer = SqliteNewestSeen.layer({ filename: path })
      yield* Effect.provide(see(seen(1, 10n), seen(2, 10n)), layer)
      yield* withClient(
        path,
        (sql) =>
          sql`UPDATE keyward_newest_seen SET ref = ${"g".repeat(64)} WHERE installation_id = ${seen(1, 0n).installationId}`
      )
      yield* Effect.gen(function* () {
        expect(yield* see(seen(1, 9n), seen(2, 9n))).toEqual([Option.none(), Option.some(seen(2, 10n))])
        expect(yield* see(seen(1, 8n))).toEqual([Option.some(seen(1, 9n))])
      }).pipe(Effect.provide(layer))
    })
  )

  it.scoped("[64] a database that fails is told in the log, and nothing was seen before", () =>
    Effect.gen(function* () {
      const path = yield* filename
      const warnings: Array<string> = []
      const collect = Logger.make(({ logLevel, message }) => {
        if (logLevel._tag === "Warning") warnings.push(String(message))
      })
      yield* Effect.gen(function* () {
        yield* see(seen(1, 10n))
        yield* withClient(path, (sql) => sql`DROP TABLE keyward_newest_seen_size`)
        expect(yield* see(seen(1, 9n), seen(2, 9n))).toEqual([Option.none(), Option.none()])
        expect(warnings.length).toBe(1)
      }).pipe(Effect.provide(SqliteNewestSeen.layer({ filename: path })), Effect.provide(Logger.add(collect)))
    })
  )
})
