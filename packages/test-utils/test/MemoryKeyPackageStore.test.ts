/**
 * The memory store keeps the contract of the port, fails as scripted, remembers its calls, and can be shared, copied and damaged.
 */
import { expect, it } from "@effect/vitest"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { Installation } from "@keyward/core/lifecycle/Installation"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Ref from "effect/Ref"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import * as Arbitraries from "../src/Arbitraries.ts"
import * as KeyPackageStoreContract from "../src/contracts/KeyPackageStoreContract.ts"
import { type Database, layer, layerShared, MemoryKeyPackageStore, makeDatabase } from "../src/MemoryKeyPackageStore.ts"
import { proofs } from "./Proofs.ts"

KeyPackageStoreContract.suite("MemoryKeyPackageStore", layer, {
  proofs,
  damage: (id) => Effect.flatMap(MemoryKeyPackageStore, (control) => control.damage(id))
})

const T0 = DateTime.unsafeMake("2026-03-01T00:00:00Z")

const intent = (seed: number) => {
  const [found] = FastCheck.sample(Arbitraries.intent, { numRuns: 1, seed })
  if (found === undefined) throw new Error("no sample")
  return found
}

const packageOf = (installation: Installation, seed: number) => {
  const [found] = FastCheck.sample(Arbitraries.generatedKeyPackage(installation), { numRuns: 1, seed })
  if (found === undefined) throw new Error("no sample")
  return found
}

const insert = (store: KeyPackageStore["Type"], installation: Installation, seed: number) =>
  Effect.gen(function* () {
    const { installationId } = installation
    const lease = yield* store.acquireLease(installationId, { now: T0, duration: Duration.minutes(1) })
    const prepared = yield* store.insertKeyPackageHistory(lease, packageOf(installation, seed), {
      at: T0,
      trigger: "Manual",
      reschedule: (schedule) => schedule
    })
    yield* store.releaseLease(lease)
    return prepared
  })

/** What makes two intents the same one. */
const pick = ({ inboxId, label }: Installation) => ({ inboxId, label })

/** One more process over the database. */
const open = (database: Database) =>
  Effect.map(Layer.build(layerShared(database)), (context) => ({
    store: Context.get(context, KeyPackageStore),
    control: Context.get(context, MemoryKeyPackageStore)
  }))

it.effect("fails as often as it is told, writes nothing then, and remembers every call", () =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const control = yield* MemoryKeyPackageStore
    const wanted = intent(1)
    yield* control.failNext("findOrCreateInstallation", "Busy", "Full")

    const create = store.findOrCreateInstallation(wanted)
    expect(yield* Effect.flip(create)).toMatchObject({ reason: "Busy", isRetryable: true })
    expect(yield* Effect.flip(create)).toMatchObject({ reason: "Full", isRetryable: false })
    expect(yield* store.getInstallation(wanted.key.installationId)).toEqual(Option.none())
    const installation = yield* create
    expect(yield* store.getInstallation(wanted.key.installationId)).toEqual(Option.some(installation))

    expect((yield* control.calls).map(({ operation }) => operation)).toEqual([
      "findOrCreateInstallation",
      "findOrCreateInstallation",
      "getInstallation",
      "findOrCreateInstallation",
      "getInstallation"
    ])
    expect(JSON.stringify(yield* control.calls)).toContain('"seed":"<redacted>"')
  }).pipe(Effect.provide(layer))
)

it.scoped("[53] several stores over one database see each other's writes, and each fails and records for itself", () =>
  Effect.gen(function* () {
    const database = yield* makeDatabase
    const one = yield* open(database)
    const two = yield* open(database)
    const installation = yield* one.store.findOrCreateInstallation(intent(2))
    expect(yield* two.store.findOrCreateInstallation({ ...intent(3), ...pick(installation) })).toEqual(installation)
    const prepared = yield* insert(two.store, installation, 4)
    expect(yield* one.store.getNewest(installation.installationId)).toEqual(Option.some(prepared))

    yield* one.control.failNext("getNewest", "Busy")
    expect(yield* two.store.getNewest(installation.installationId)).toEqual(Option.some(prepared))
    expect(yield* Effect.flip(one.store.getNewest(installation.installationId))).toMatchObject({ reason: "Busy" })
    expect((yield* one.control.calls).map(({ operation }) => operation)).toEqual([
      "findOrCreateInstallation",
      "getNewest",
      "getNewest"
    ])
    yield* two.control.clearCalls
    expect(yield* two.control.calls).toEqual([])

    // One process does not hear what another has brought forward: it finds out when it looks.
    const heard = yield* Effect.forEach([one, two], ({ store }) =>
      Effect.gen(function* () {
        const queue = yield* Queue.unbounded<InstallationId>()
        const lowered = yield* store.deadlineLowered
        yield* Effect.forkScoped(Stream.runForEach(lowered, (id) => Queue.offer(queue, id)))
        return queue
      })
    )
    yield* TestClock.adjust("1 millis")
    yield* one.store.modifySchedule(installation.installationId, Schedule.requestProbe(T0))
    yield* TestClock.adjust("1 millis")
    expect(yield* Effect.forEach(heard, (queue) => Queue.size(queue))).toEqual([1, 0])
    expect(yield* two.store.findDue({ now: T0, limit: 1 })).toHaveLength(1)
  })
)

it.scoped("[69] [70] a snapshot put back undoes every later write, and a clone goes its own way", () =>
  Effect.gen(function* () {
    const one = yield* open(yield* makeDatabase)
    const installation = yield* one.store.findOrCreateInstallation(intent(5))
    const id = installation.installationId
    const old = yield* insert(one.store, installation, 6)
    const snapshot = yield* one.control.snapshot
    const lost = yield* insert(one.store, installation, 7)

    const clone = yield* open(yield* Ref.make(snapshot))
    expect(yield* clone.store.getHistory(id)).toEqual([old])
    const theirs = yield* insert(clone.store, installation, 8)
    expect(theirs.historyId).toBe(lost.historyId)
    expect(yield* one.store.getHistory(id)).toEqual([old, lost])

    yield* one.control.restore(snapshot)
    expect(yield* one.store.getHistory(id)).toEqual([old])
    expect(yield* one.store.getPrivateKeys(lost.historyId)).toEqual(Option.none())
    expect(yield* one.store.findByRef(id, lost.keyPackage.ref)).toEqual(Option.none())
    expect(yield* clone.store.getHistory(id)).toEqual([old, theirs])
  })
)

it.scoped("[65] [66] loses the keys of a row, and damages any of its columns", () =>
  Effect.gen(function* () {
    const { control, store } = yield* open(yield* makeDatabase)
    const installation = yield* store.findOrCreateInstallation(intent(9))
    const id = installation.installationId
    const kept = yield* insert(store, installation, 10)
    const keyless = yield* insert(store, installation, 11)
    const broken = yield* insert(store, installation, 12)
    yield* control.loseKeys(keyless.historyId)
    yield* control.damage(broken.historyId, "initKey")
    expect(yield* store.getPrivateKeys(keyless.historyId)).toEqual(Option.none())
    expect(Option.isSome(yield* store.getPrivateKeys(kept.historyId))).toBe(true)
    expect(yield* store.getLedger(id)).toEqual({
      entries: [kept, keyless],
      unreadable: [{ historyId: broken.historyId, column: "initKey" }],
      quarantined: []
    })
    expect(yield* Effect.flip(store.findByRef(id, broken.keyPackage.ref))).toMatchObject({ reason: "Corrupt" })
  })
)
