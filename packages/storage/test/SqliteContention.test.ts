/**
 * Several connections and several processes on one database file, also killed ones.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { describe, expect, it } from "@effect/vitest"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as Arbitraries from "@keyward/test-utils/Arbitraries"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as SqliteKeyPackageStore from "../src/SqliteKeyPackageStore.ts"
import { filename, sealer } from "./fixture.ts"

const T0 = DateTime.unsafeMake("2026-03-01T00:00:00Z")
const store = (filename: string) => Layer.fresh(SqliteKeyPackageStore.layer({ filename }).pipe(Layer.provide(sealer())))

/** A process with its lines of output so far, gone with the scope. */
const contender = (file: string, number: number, rotations: number) =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const script = fileURLToPath(new URL("contender.ts", import.meta.url))
      const args = ["--import", "tsx", script, file, String(number), String(rotations)]
      const child = spawn(process.execPath, args, {
        // Where tsx is found.
        cwd: fileURLToPath(new URL("..", import.meta.url)),
        stdio: ["ignore", "pipe", "inherit"]
      })
      const lines: Array<string> = []
      const watchers = new Set<() => void>()
      createInterface({ input: child.stdout }).on("line", (line) => {
        lines.push(line)
        for (const watcher of watchers) watcher()
      })
      const closed = new Promise<number | null>((resolve) => child.on("close", resolve))
      return { child, lines, watchers, closed }
    }),
    ({ child }) => Effect.sync(() => child.kill("SIGKILL"))
  )

/** Waits for a number of lines, then ends the process at once, as a power cut does. */
const killAfter = (
  {
    child,
    lines,
    watchers,
    closed
  }: { child: ChildProcess; lines: Array<string>; watchers: Set<() => void>; closed: Promise<number | null> },
  count: number
) =>
  Effect.promise(async () => {
    await new Promise<void>((resolve) => {
      const check = () => lines.length >= count && resolve()
      watchers.add(check)
      check()
    })
    child.kill("SIGKILL")
    await closed
  })

/** What must hold of a database whenever nobody writes: it is whole, each row has its keys, the newest acceptance rules. */
const invariants = (file: string, installationId: InstallationId.InstallationId) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const history = yield* store.getHistory(installationId)
    const published = history.filter(({ _tag }) => _tag === "Published")
    expect(published.length).toBeLessThanOrEqual(1)
    for (const entry of history) {
      expect(Option.isSome(yield* store.getPrivateKeys(entry.historyId))).toBe(true)
      const last = published[0]
      if (last !== undefined && entry.historyId < last.historyId) expect(entry._tag).toBe("Superseded")
    }
    const sql = yield* Effect.map(Layer.build(SqliteClient.layer({ filename: file })), Context.get(SqlClient.SqlClient))
    expect(yield* sql`PRAGMA integrity_check`).toEqual([{ integrity_check: "ok" }])
    expect(yield* sql`PRAGMA foreign_key_check`).toEqual([])
    return history
  }).pipe(Effect.scoped, Effect.provide(store(file)))

/** Milliseconds. Starting processes takes seconds on a busy machine; nothing here waits for a time. */
const TIMEOUT = 180_000

describe("one file, many writers", () => {
  it.live(
    "[61] two connections that write at once both succeed, each id once",
    () =>
      Effect.gen(function* () {
        const file = yield* filename
        const stores = yield* Effect.all(
          Array.from({ length: 2 }, () => Effect.map(Layer.build(store(file)), Context.get(KeyPackageStore))),
          { concurrency: "unbounded" }
        )
        const intents = FastCheck.sample(Arbitraries.intent, { numRuns: 8, seed: 1 })
        const ids = yield* Effect.forEach(
          intents,
          (intent, index) =>
            Effect.gen(function* () {
              const store = stores[index % 2] ?? (yield* Effect.dieMessage("no store"))
              const installation = yield* store.findOrCreateInstallation({ ...intent, label: String(index) })
              const { installationId } = installation
              const lease = yield* store.acquireLease(installationId, { now: T0, duration: Duration.minutes(5) })
              const generated = FastCheck.sample(Arbitraries.generatedKeyPackage(installation), {
                numRuns: 10,
                seed: index
              })
              return yield* Effect.forEach(
                generated,
                (generated) =>
                  Effect.zipRight(
                    // Lets the other connection in between.
                    Effect.yieldNow(),
                    Effect.map(
                      store.insertKeyPackageHistory(lease, generated, {
                        at: T0,
                        trigger: "Manual",
                        reschedule: identity
                      }),
                      ({ historyId }) => historyId
                    )
                  ),
                { concurrency: "unbounded" }
              )
            }),
          { concurrency: "unbounded" }
        )
        expect([...new Set(ids.flat())].sort((a, b) => a - b)).toEqual(
          Array.from({ length: 80 }, (_, index) => index + 1)
        )
      }).pipe(Effect.scoped),
    TIMEOUT
  )

  it.live(
    "[11, 53] processes that start on an empty database make one installation and rotate it in turn",
    () =>
      Effect.gen(function* () {
        const file = yield* filename
        const rotations = 10
        const contenders = yield* Effect.forEach([1, 2, 3], (number) => contender(file, number, rotations))
        const codes = yield* Effect.promise(() => Promise.all(contenders.map(({ closed }) => closed)))
        expect(codes).toEqual([0, 0, 0])
        const installations = new Set(contenders.map(({ lines }) => lines[0]))
        expect(installations.size).toBe(1)
        const published = contenders.flatMap(({ lines }) => lines.slice(1).map(Number)).sort((a, b) => a - b)
        expect(published).toEqual(Array.from({ length: 3 * rotations }, (_, index) => index + 1))

        const installationId = InstallationId.InstallationId.make(contenders[0]?.lines[0] ?? "")
        const history = yield* invariants(file, installationId)
        expect(history.map(({ historyId }) => Number(historyId))).toEqual(published)
        expect(history.at(-1)?._tag).toBe("Published")
      }).pipe(Effect.scoped),
    TIMEOUT
  )

  it.live(
    "[1-7] a process killed between any two steps leaves a whole database, and what it said was published is",
    () =>
      Effect.gen(function* () {
        const file = yield* filename
        for (const [round, count] of [3, 7].entries()) {
          const killed = yield* contender(file, 10 + round, 1_000)
          yield* killAfter(killed, count)
          const installationId = InstallationId.InstallationId.make(killed.lines[0] ?? "")
          const history = yield* invariants(file, installationId)
          const said = killed.lines.slice(1).map(Number)
          expect(said.length).toBeGreaterThan(0)
          for (const id of said) {
            expect(["Published", "Superseded"]).toContain(history.find(({ historyId }) => historyId === id)?._tag)
          }
          // The dead process holds its lease until it ends: the next one need not wait for the clock here.
          yield* Effect.gen(function* () {
            const store = yield* KeyPackageStore
            const now = DateTime.add(yield* DateTime.now, { minutes: 6 })
            const lease = yield* store.acquireLease(installationId, { now, duration: Duration.minutes(1) })
            yield* store.releaseLease(lease)
          }).pipe(Effect.provide(store(file)))
        }
      }).pipe(Effect.scoped),
    TIMEOUT
  )
})
