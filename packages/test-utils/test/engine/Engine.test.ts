/** The engine on a real SQLite file: crashes of a registration at every call, locked files, rows that other hands have edited. */
import { describe, expect, it } from "@effect/vitest"
import * as AssociationState from "@keyward/core/identity/AssociationState"
import * as Ids from "@keyward/core/identity/InstallationId"
import type { ClockGuard } from "@keyward/core/lifecycle/ClockGuard"
import { explain } from "@keyward/core/lifecycle/Explanation"
import * as InboxLog from "@keyward/core/lifecycle/InboxLog"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import { queueKeyRotation, rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import * as Scheduler from "@keyward/core/lifecycle/Scheduler"
import { upkeep } from "@keyward/core/lifecycle/Upkeep"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as NodeState from "../../src/devnode/NodeState.ts"
import { aroundApi, aroundStore } from "../../src/simulation/Ports.ts"
import * as SqliteApp from "./SqliteApp.ts"

const rotate = (installationId: Ids.InstallationId) =>
  SqliteApp.withTime(rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }))

/** What is served, if it is a row of ours whose keys are here and open. */
const served = (id: Ids.InstallationId) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const api = yield* ApiClient
    const [bytes = Option.none()] = yield* api.fetchKeyPackages([id])
    if (Option.isNone(bytes)) return undefined
    const row = (yield* store.getHistory(id)).find(
      ({ keyPackage }) => Buffer.compare(keyPackage.bytes, bytes.value) === 0
    )
    if (row === undefined) return undefined
    return Option.isSome(yield* store.getPrivateKeys(row.historyId)) ? row : undefined
  })

/** No row without keys, no keys without a row, and a file that is whole. */
const expectWhole = (file: string) =>
  SqliteApp.withSql(file, (sql) =>
    Effect.gen(function* () {
      expect(yield* sql`PRAGMA integrity_check`).toEqual([{ integrity_check: "ok" }])
      expect(yield* sql`PRAGMA foreign_key_check`).toEqual([])
      expect(
        yield* sql`SELECT k.history_id FROM keyward_key_packages k
          LEFT JOIN keyward_private_keys p ON p.history_id = k.history_id WHERE p.history_id IS NULL`
      ).toEqual([])
      expect(
        yield* sql`SELECT history_id FROM keyward_private_keys
          WHERE history_id NOT IN (SELECT history_id FROM keyward_key_packages)`
      ).toEqual([])
    })
  )

/** A process that ends at its nth call of the store or the network, before it or after it; none if it never came to that. */
const crashing = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  nth: number,
  when: "before" | "after",
  seen: Set<string> = new Set()
) =>
  Effect.gen(function* () {
    let count = 0
    const around = <B, F>(operation: string, run: Effect.Effect<B, F>): Effect.Effect<B, F> =>
      Effect.suspend(() => {
        count += 1
        seen.add(operation)
        if (count !== nth) return run
        return when === "before" ? Effect.interrupt : Effect.zipRight(run, Effect.interrupt)
      })
    const exit = yield* effect.pipe(
      Effect.updateService(KeyPackageStore, (store) => aroundStore(store, around)),
      Effect.updateService(ApiClient, (api) => aroundApi(api, around)),
      SqliteApp.withTime,
      Effect.exit
    )
    return Exit.isInterrupted(exit) ? "crashed" : "finished"
  })

/** Milliseconds: a hundred small worlds take a while on a busy machine. */
const TIMEOUT = 180_000

describe("registration", () => {
  for (const when of ["before", "after"] as const) {
    it.scoped(
      `[10] a crash ${when} each call of a registration in turn: the next process finishes it, in the one slot`,
      () =>
        Effect.gen(function* () {
          let nth = 0
          let isDone = false
          while (!isDone) {
            nth += 1
            yield* Effect.gen(function* () {
              yield* SqliteApp.start
              const file = yield* SqliteApp.filename
              const outcome = yield* crashing(registerInstallation({ includePostQuantum: false }), nth, when).pipe(
                Effect.provide(SqliteApp.layerProcess(file, `dies at ${nth}`))
              )
              isDone = outcome === "finished"
              yield* Effect.gen(function* () {
                // The lease of the dead one ends by itself.
                yield* SqliteApp.advance("6 minutes")
                const { inboxId, installationId } = yield* SqliteApp.register
                expect([nth, (yield* served(installationId))?._tag]).toEqual([nth, "Published"])
                const { log, state } = yield* InboxLog.read(inboxId)
                expect([nth, log.length, AssociationState.installationIds(Option.getOrThrow(state))]).toEqual([
                  nth,
                  1,
                  [installationId]
                ])
                const store = yield* KeyPackageStore
                expect((yield* store.getInstallations(inboxId)).length).toBe(1)
              }).pipe(Effect.provide(SqliteApp.layerProcess(file, `resumes ${nth}`)))
              yield* expectWhole(file)
            }).pipe(Effect.scoped, Effect.provide(SqliteApp.layerNetwork))
          }
          // Every call was a crash point.
          expect(nth).toBeGreaterThan(15)
        }),
      TIMEOUT
    )
  }
})

describe("upkeep", () => {
  for (const when of ["before", "after"] as const) {
    it.scoped(
      `[1] [2] [3] [5] [6] [7] [8] [9] a crash ${when} each call of a rotation and an erasure in turn: the next process finishes both`,
      () =>
        Effect.gen(function* () {
          yield* SqliteApp.start
          const file = yield* SqliteApp.filename
          const guard: ClockGuard = {
            observe: Effect.void,
            see: () => Effect.void,
            hasPassed: () => Effect.succeed(true),
            hasWaited: () => Effect.succeed(true),
            hasKnown: () => Effect.succeed(true),
            seeReading: () => Effect.void,
            isReadSince: () => Effect.succeed(true)
          }
          const id = yield* Effect.gen(function* () {
            const { installationId } = yield* SqliteApp.register
            yield* rotate(installationId)
            return installationId
          }).pipe(Effect.provide(SqliteApp.layerProcess(file, "first")))

          const seen = new Set<string>()
          let nth = 0
          let isDone = false
          while (!isDone) {
            nth += 1
            yield* Effect.gen(function* () {
              yield* queueKeyRotation(id)
              // The package before the last is to be erased, the last to be replaced.
              yield* SqliteApp.advance("11 minutes")
              isDone = (yield* crashing(upkeep(id, { guard, look: true }), nth, when, seen)) === "finished"
            }).pipe(Effect.provide(SqliteApp.layerProcess(file, `dies at ${nth}`)))
            yield* expectWhole(file)
            yield* Effect.gen(function* () {
              // The lease of the dead one ends by itself.
              yield* SqliteApp.advance("6 minutes")
              yield* SqliteApp.withTime(upkeep(id, { guard, look: true }))
              yield* SqliteApp.withTime(upkeep(id, { guard, look: false }))
              expect([nth, (yield* served(id))?._tag]).toEqual([nth, "Published"])
              const store = yield* KeyPackageStore
              const states = (yield* store.getHistory(id)).map((row) => row._tag)
              expect([nth, states.filter((state) => state === "Published").length]).toEqual([nth, 1])
              // What was superseded before is erased by now, whoever was at it.
              expect([nth, states.length <= 3]).toEqual([nth, true])
            }).pipe(Effect.provide(SqliteApp.layerProcess(file, `resumes ${nth}`)))
            yield* expectWhole(file)
          }
          const steps = [
            "insertKeyPackageHistory",
            "markExposed",
            "uploadKeyPackage",
            "markKeyPackagesBeforeIdToBeDeleted",
            "retire",
            "scrub"
          ]
          expect([...seen]).toEqual(expect.arrayContaining(steps))
          expect(nth).toBeGreaterThan(seen.size)
        }).pipe(SqliteApp.withShortGrace, Effect.provide(SqliteApp.layerNetwork)),
      TIMEOUT
    )
  }
})

describe("files", () => {
  it.scoped("[61] a file that another process holds for a minute: the rotation that was due happens after it", () =>
    Effect.gen(function* () {
      yield* SqliteApp.start
      const file = yield* SqliteApp.filename
      yield* Effect.gen(function* () {
        const { installationId } = yield* SqliteApp.register
        yield* Scheduler.make()
        yield* SqliteApp.advance("1 minute")
        yield* queueKeyRotation(installationId)
        yield* SqliteApp.withSql(file, (sql) =>
          Effect.gen(function* () {
            yield* sql.unsafe("BEGIN EXCLUSIVE")
            yield* SqliteApp.advance("1 minute", "5 seconds")
            yield* sql.unsafe("ROLLBACK")
          })
        )
        yield* SqliteApp.advance("11 minutes", "5 seconds")
        expect(yield* served(installationId)).toMatchObject({ historyId: 2, _tag: "Published" })
      }).pipe(Effect.scoped, Effect.provide(SqliteApp.layerProcess(file)))
      yield* expectWhole(file)
    }).pipe(Effect.provide(SqliteApp.layerNetwork))
  )

  for (const [title, edit] of [
    [
      "bytes of the published package",
      "UPDATE keyward_key_packages SET key_package = zeroblob(10) WHERE state = 'Published'"
    ],
    ["the sealed keys", "UPDATE keyward_private_keys SET sealed_keys = zeroblob(80) WHERE history_id = 2"],
    ["the schedule", 'UPDATE keyward_installations SET schedule = \'{"rotateAt": "soon"}\''],
    [
      "a lease for a year",
      "INSERT OR REPLACE INTO keyward_leases SELECT installation_id, 9, 1827403200000 FROM keyward_installations"
    ],
    [
      "a deadline in a year",
      "UPDATE keyward_installations SET due_at = 1827403200000, schedule = '{\"rotateAt\": 1827403200000}'"
    ]
  ] as const) {
    it.scoped(`[65] edited by hand, ${title}: repaired by the next look, and explained`, () =>
      Effect.gen(function* () {
        yield* SqliteApp.start
        const file = yield* SqliteApp.filename
        yield* Effect.gen(function* () {
          const { installationId } = yield* SqliteApp.register
          yield* rotate(installationId)
          yield* SqliteApp.withSql(file, (sql) =>
            Effect.zipRight(sql.unsafe("PRAGMA ignore_check_constraints = ON"), sql.unsafe(edit))
          )
          const scheduler = yield* Scheduler.make()
          yield* SqliteApp.advance("30 seconds", "10 seconds")
          if (title.startsWith("bytes")) {
            // What is here cannot be sent again: another package is made.
            const { keyPackages } = yield* NodeState.NodeState
            yield* keyPackages.remove(Ids.toPublicKey(installationId))
          }
          yield* SqliteApp.withTime(scheduler.probe(installationId))
          const row = yield* served(installationId)
          expect(row).toMatchObject({ _tag: "Published" })
          const told = yield* SqliteApp.withTime(explain(installationId))
          expect(told).toMatchObject({ remedy: "Nothing", reachability: Option.some({ _tag: "Reachable" }) })
        }).pipe(Effect.scoped, Effect.provide(SqliteApp.layerProcess(file)))
      }).pipe(Effect.provide(SqliteApp.layerNetwork))
    )
  }

  it.scoped("[53] two processes with schedulers on one file: one rotation for one wish", () =>
    Effect.gen(function* () {
      yield* SqliteApp.start
      const file = yield* SqliteApp.filename
      yield* Effect.gen(function* () {
        const { installationId } = yield* SqliteApp.register
        const other = Effect.provide(SqliteApp.layerProcess(file, "other"))
        const running = yield* Effect.fork(
          other(Effect.scoped(Effect.zipRight(Scheduler.make({ maximumNap: "10 seconds" }), Effect.never)))
        )
        yield* Scheduler.make({ maximumNap: "10 seconds" })
        yield* SqliteApp.advance("1 minute", "5 seconds")
        for (let times = 1; times <= 3; times++) {
          yield* queueKeyRotation(installationId)
          yield* SqliteApp.advance("2 minutes", "5 seconds")
          expect(yield* served(installationId)).toMatchObject({ historyId: 1 + times, _tag: "Published" })
        }
        yield* Fiber.interrupt(running)
      }).pipe(Effect.scoped, Effect.provide(SqliteApp.layerProcess(file)))
      yield* expectWhole(file)
    }).pipe(Effect.provide(SqliteApp.layerNetwork))
  )
})
