/**
 * `idle --installations 5000 --seconds 60`: that many installations with nothing due, in one process on one SQLite file, under a
 * scheduler and the real clock. Prints how often the store was asked, how much memory they take, and how long after its time a
 * lowered deadline is begun.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as Identifier from "@keyward/core/identity/Identifier"
import * as InboxId from "@keyward/core/identity/InboxId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import { LifecycleSettings } from "@keyward/core/lifecycle/LifecycleSettings"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import * as Scheduler from "@keyward/core/lifecycle/Scheduler"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as Console from "effect/Console"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import { layer } from "../src/chaos/ChaosWorld.ts"
import { aroundStore } from "../src/simulation/Ports.ts"
import { readOptions, showUsage } from "./commandLine.ts"

const USAGE = "idle [--installations N] [--seconds S]"

const values = readOptions(USAGE, {
  installations: { type: "string", default: "5000" },
  seconds: { type: "string", default: "60" }
})
const count = Number(values.installations)
const seconds = Number(values.seconds)
if (!(Number.isSafeInteger(count) && count > 0 && seconds > 0)) {
  showUsage(USAGE)
}

const megabytes = () => {
  globalThis.gc?.()
  return process.memoryUsage().rss / 2 ** 20
}

const folder = mkdtempSync(join(tmpdir(), "keyward-idle-"))

const program = Effect.gen(function* () {
  const store = yield* KeyPackageStore
  const inboxId = InboxId.derive(Identifier.ethereum(`0x${"ab".repeat(20)}`))
  const at = yield* DateTime.now
  const ids = yield* Effect.forEach(
    Array.from({ length: count }, (_, index) => index),
    (index) =>
      Effect.gen(function* () {
        const key = yield* InstallationKey.generate
        const { installationId } = yield* store.findOrCreateInstallation({ inboxId, label: `${index}`, key, at })
        const rotateAt = DateTime.add(at, { hours: 20, seconds: index })
        yield* store.modifySchedule(installationId, Schedule.requestProbe(rotateAt))
        return installationId
      })
  )
  const before = megabytes()

  let calls = 0
  const begun = new Map<string, number>()
  const counted = aroundStore(store, (operation, run) =>
    Effect.suspend(() => {
      calls += 1
      return run
    })
  )
  const watched = KeyPackageStore.of({
    ...counted,
    acquireLease: (id, options) =>
      Effect.zipRight(
        Effect.sync(() => begun.set(id, begun.get(id) ?? performance.timeOrigin + performance.now())),
        counted.acquireLease(id, options)
      )
  })
  // The settings of an app: with the looks of a chaos run, minutes apart, deadlines of a day would be a wrong clock's.
  const settings = { ...(yield* LifecycleSettings), probeInterval: Duration.days(1) }
  yield* Scheduler.make().pipe(
    Effect.provideService(KeyPackageStore, watched),
    Effect.provideService(LifecycleSettings, settings)
  )
  yield* Effect.sleep("2 seconds")
  calls = 0
  yield* Effect.sleep(seconds * 1000)
  yield* Console.log(`${count} idle installations: ${calls} calls of the store in ${seconds} s`)
  yield* Console.log(
    `resident memory ${megabytes().toFixed(0)} MiB, ${before.toFixed(0)} MiB of it before the scheduler was started`
  )

  const late: Array<number> = []
  for (const id of ids.slice(0, 20)) {
    const due = DateTime.add(yield* DateTime.now, { millis: 500 })
    yield* store.modifySchedule(id, Schedule.requestProbe(due))
    yield* Effect.sleep("700 millis")
    late.push((begun.get(id) ?? Number.POSITIVE_INFINITY) - DateTime.toEpochMillis(due))
  }
  late.sort((one, other) => one - other)
  yield* Console.log(
    `a lowered deadline is begun after its time by: median ${late[10]?.toFixed(1)} ms, most ${late.at(-1)?.toFixed(1)} ms`
  )
}).pipe(
  Effect.scoped,
  // The node is never asked in time: what is measured is when the work begins.
  Effect.provide(layer({ filename: join(folder, "idle.db"), nodeUrl: "http://127.0.0.1:9", wallet: 1 })),
  Effect.provide(Layer.mergeAll(Logger.remove(Logger.defaultLogger)))
)

try {
  await Effect.runPromise(program)
} finally {
  rmSync(folder, { recursive: true, force: true })
}
