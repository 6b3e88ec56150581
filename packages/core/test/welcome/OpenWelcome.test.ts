/** From the entry of a topic to a group: which package, which failure, and what happens beside it. */
import { describe, expect, it } from "@effect/vitest"
import { InboxId } from "@keyward/core/identity/InboxId"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import * as KeyPackageRef from "@keyward/core/keypackage/KeyPackageRef"
import type { Retired } from "@keyward/core/lifecycle/Ledger"
import { HistoryId } from "@keyward/core/lifecycle/Ledger"
import * as AssociationStates from "@keyward/core/peers/AssociationStates"
import { ApiClient, ApiClientError, type WelcomeMessageEntry } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { layerNone } from "@keyward/core/ports/SmartContractWalletVerifier"
import { openWelcome, openWelcomes } from "@keyward/core/welcome/OpenWelcome"
import * as WelcomeWrapper from "@keyward/core/welcome/WelcomeWrapper"
import * as MemoryAssociationStateCache from "@keyward/test-utils/MemoryAssociationStateCache"
import * as MemoryKeyPackageStore from "@keyward/test-utils/MemoryKeyPackageStore"
import { type NativeEntry, nativeSession } from "@keyward/test-utils/vectors/WelcomeVectors"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/TestClock"
import * as World from "./World.ts"

const { bin } = World
const NOW = DateTime.unsafeMake("2026-11-23T15:00:00Z")

const toEntry = (native: NativeEntry): WelcomeMessageEntry => {
  const common = {
    id: BigInt(native.id),
    createdNs: BigInt(native.createdNs),
    installationKey: bin(native.installationKey),
    hpkePublicKey: bin(native.hpkePublicKey),
    wrapperAlgorithm: native.wrapperAlgorithm
  }
  return native.kind === "Welcome"
    ? { _tag: "Welcome", ...common, data: bin(native.data), welcomeMetadata: bin(native.welcomeMetadata) }
    : { _tag: "WelcomePointer", ...common, welcomePointer: bin(native.welcomePointer) }
}

const entries = nativeSession.welcomes.map((native) => ({ native, entry: toEntry(native) }))
const entriesTo = (name: "pq" | "classic") =>
  entries.filter(({ native }) => native.to === name).map(({ entry }) => entry)
const entryOf = (group: string, to: "pq" | "classic" = "pq"): WelcomeMessageEntry => {
  const found = entries.find(({ native }) => native.group === group && native.to === to)
  if (found === undefined) throw new Error(group)
  return found.entry
}

const ours = nativeSession.installations
const idOf = (name: "pq" | "classic") => InstallationId.make(ours[name].installationId)

/** The session's node: identity logs, and the Welcomes that pointers point at. */
const node = Layer.mock(ApiClient, {
  getIdentityUpdates: (requests) =>
    Effect.succeed(
      requests.map(({ after, inboxId }) =>
        (nativeSession.inboxes[inboxId]?.log ?? [])
          .map(({ sequenceId, update }) => ({
            sequenceId: BigInt(sequenceId),
            serverTimestampNs: 0n,
            update: bin(update)
          }))
          .filter(({ sequenceId }) => sequenceId > after)
      )
    ),
  queryWelcomeMessages: (topic) =>
    Effect.sync(() => {
      const name = typeof topic === "string" ? topic : Buffer.from(topic).toString("hex")
      const found = nativeSession.pointees.filter(({ installationKey }) => installationKey === name).map(toEntry)
      return { entries: found, cursor: 0n, hasMore: false }
    })
})

/** The package as it was inserted when it was made. */
const insert = (name: "pq" | "classic") =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const one = ours[name]
    const bytes = bin(one.keyPackage)
    const inboxId = InboxId.make(one.inboxId)
    const key = InstallationKey.fromSeed(bin(one.seed))
    const { installationId } = yield* store.findOrCreateInstallation({ inboxId, label: name, key, at: NOW })
    const lease = yield* store.acquireLease(installationId, { now: NOW, duration: Duration.minutes(1) })
    const [entry] = entriesTo(name)
    const wrappedTo = entry !== undefined && "hpkePublicKey" in entry ? entry.hpkePublicKey : new Uint8Array(0)
    const generated = {
      keyPackage: {
        inboxId,
        installationId,
        ref: yield* KeyPackageRef.hash(bytes),
        bytes,
        lifetime: { notBefore: 0n, notAfter: 0xffff_ffffn },
        initKey: name === "pq" ? bytes.slice(5, 37) : wrappedTo,
        postQuantumKey: name === "pq" ? Option.some(wrappedTo) : Option.none()
      },
      privateKeys: {
        initKey: Redacted.make(bin(one.initKey)),
        encryptionKey: Redacted.make(bin(one.encryptionKey)),
        postQuantumKey: Option.map(Option.fromNullable(one.postQuantumKey), (seed) => Redacted.make(bin(seed)))
      }
    }
    const prepared = yield* store.insertKeyPackageHistory(lease, generated, {
      at: NOW,
      trigger: "Registration",
      reschedule: identity
    })
    yield* store.releaseLease(lease)
    return prepared
  })

const world = Layer.mergeAll(
  MemoryKeyPackageStore.layer,
  node,
  World.cryptoLayer,
  AssociationStates.layer().pipe(Layer.provide(Layer.mergeAll(MemoryAssociationStateCache.layer, layerNone, node)))
)

type Services = Layer.Layer.Success<typeof world>

const inSession = <A, E>(name: string, body: () => Effect.Effect<A, E, Services>) =>
  it.effect(
    name,
    () =>
      TestClock.setTime(DateTime.toEpochMillis(NOW)).pipe(
        Effect.zipRight(insert("pq")),
        Effect.zipRight(insert("classic")),
        Effect.zipRight(body()),
        Effect.provide(Layer.fresh(world))
      ),
    World.TIMEOUT
  )

/** Runs with a store of which some answers are others. */
const withStore = <A, E, R>(
  change: (store: KeyPackageStore["Type"]) => Partial<KeyPackageStore["Type"]>,
  effect: Effect.Effect<A, E, R>
) =>
  Effect.flatMap(KeyPackageStore, (store) =>
    Effect.provideService(effect, KeyPackageStore, { ...store, ...change(store) })
  )

const withApi = <A, E, R>(change: Partial<ApiClient["Type"]>, effect: Effect.Effect<A, E, R>) =>
  Effect.flatMap(ApiClient, (api) => Effect.provideService(effect, ApiClient, { ...api, ...change }))

/** Why it does not open. Not `flip`: a group that opened after all is no failure that can be printed. */
const refused = <R>(effect: Effect.Effect<unknown, { readonly _tag: string }, R>) =>
  Effect.map(Effect.either(effect), (result) => (Either.isLeft(result) ? result.left : { _tag: "Opened" }))

const scheduled = (name: "pq" | "classic") =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const due = yield* store.findDue({ now: DateTime.addDuration(NOW, Duration.seconds(5)), limit: 10 })
    return due.some(({ installationId }) => installationId === idOf(name))
  })

const keysAreThere = (name: "pq" | "classic") =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const [row] = yield* store.getHistory(idOf(name))
    return row === undefined ? false : Option.isSome(yield* store.getPrivateKeys(row.historyId))
  })

describe("openWelcomes", () => {
  for (const name of ["pq", "classic"] as const) {
    inSession(`opens everything in the topic of ${name}, in order, by direct Welcomes and pointers`, () =>
      Effect.gen(function* () {
        const given = entriesTo(name)
        const results = yield* openWelcomes(idOf(name), given)
        const opened = results.map(Either.getOrThrow)
        expect(opened.map(({ id }) => id)).toEqual(given.map(({ id }) => id))
        const groups = entries.filter(({ native }) => native.to === name).map(({ native }) => native.group)
        expect(opened.map(({ groupId }) => Buffer.from(groupId).toString("hex"))).toEqual(
          groups.map((group) => nativeSession.groups[group]?.groupId)
        )
        for (const one of opened) {
          expect(one.keyPackageRef).toBe(yield* KeyPackageRef.hash(bin(ours[name].keyPackage)))
          expect(one.members.map(({ installationId }) => installationId)).toContain(idOf(name))
          expect(Option.getOrThrow(one.metadata).messageCursor).toBeGreaterThan(0n)
          expect(one.createdNs).toBeGreaterThan(0n)
        }
      })
    )
  }

  inSession("asks for one rotation for all of them, and reads a package's keys once", () =>
    Effect.gen(function* () {
      const memory = yield* MemoryKeyPackageStore.MemoryKeyPackageStore
      yield* memory.clearCalls
      yield* openWelcomes(idOf("pq"), [...entriesTo("pq"), ...entriesTo("pq")])
      const calls = (yield* memory.calls).map(({ operation }) => operation)
      const count = (name: string) => calls.filter((operation) => operation === name).length
      expect(count("modifySchedule")).toBe(1)
      expect(count("getInstallationKey")).toBe(1)
      expect(count("getPrivateKeys")).toBeLessThanOrEqual(4)
      expect(calls.indexOf("modifySchedule")).toBeLessThan(calls.indexOf("getPrivateKeys"))
      expect(yield* scheduled("pq")).toBe(true)
      expect(yield* scheduled("classic")).toBe(false)
    })
  )

  inSession("asks for nothing where there is nothing", () =>
    Effect.gen(function* () {
      expect(yield* openWelcomes(idOf("pq"), [])).toEqual([])
      expect(yield* scheduled("pq")).toBe(false)
    })
  )

  inSession("lets one fail alone", () =>
    Effect.gen(function* () {
      const [first, ...rest] = entriesTo("pq")
      if (first?._tag !== "Welcome") throw new Error("the first is a Welcome")
      const broken = { ...first, data: World.flip(first.data, 9_999) }
      const results = yield* openWelcomes(idOf("pq"), [broken, { _tag: "Unknown", id: Option.none() }, ...rest])
      expect(results.map(Either.isRight)).toEqual([false, false, ...rest.map(() => true)])
      expect(results[1]).toMatchObject({ left: { _tag: "NotYetUnderstood", feature: "EntryKind" } })
    })
  )

  inSession("fails as a whole where the rotation cannot be asked for", () =>
    Effect.gen(function* () {
      const memory = yield* MemoryKeyPackageStore.MemoryKeyPackageStore
      yield* memory.failNext("modifySchedule", "Busy")
      expect(yield* refused(openWelcomes(idOf("pq"), entriesTo("pq")))).toMatchObject({
        _tag: "StorageError",
        isRetryable: true
      })
    })
  )
})

describe("openWelcome", () => {
  inSession("opens the same Welcome as often as asked", () =>
    Effect.gen(function* () {
      const first = yield* openWelcome(idOf("pq"), entryOf("dm-xwing"))
      const second = yield* openWelcome(idOf("pq"), entryOf("dm-xwing"))
      expect(Redacted.value(first.state)).toEqual(Redacted.value(second.state))
    })
  )

  inSession("says that a package was never ours", () =>
    Effect.gen(function* () {
      const entry = entryOf("dm-xwing")
      if (entry._tag !== "Welcome") throw new Error("a Welcome")
      const forged = { ...entry, hpkePublicKey: World.flip(entry.hpkePublicKey, 3) }
      for (const one of [forged, { ...entry, hpkePublicKey: new Uint8Array(0) }, entryOf("dm-curve25519", "classic")]) {
        expect(yield* refused(openWelcome(idOf("pq"), one))).toMatchObject({
          _tag: "NoSuchKeyPackage",
          reason: { _tag: "NeverOurs" }
        })
      }
    })
  )

  const retired: Retired = {
    _tag: "Retired",
    historyId: HistoryId.make(1),
    installationId: idOf("pq"),
    ref: KeyPackageRef.KeyPackageRef.make("00".repeat(32)),
    initKeyHash: new Uint8Array(32),
    postQuantumKeyHash: Option.none(),
    createdAt: NOW,
    retiredAt: NOW,
    reason: "Superseded"
  }

  inSession("says when and why the package was retired, also when it happened just now", () =>
    Effect.gen(function* () {
      const open = openWelcome(idOf("pq"), entryOf("dm-xwing"))
      const found = () => Effect.succeed(Option.some(retired))
      const expected = { _tag: "NoSuchKeyPackage", reason: { _tag: "Retired", when: NOW, why: "Superseded" } }
      expect(yield* refused(withStore(() => ({ findByWelcomeKey: found }), open))).toMatchObject(expected)
      const erased = { getPrivateKeys: () => Effect.succeed(Option.none()), findByRef: found }
      expect(yield* refused(withStore(() => erased, open))).toMatchObject(expected)
    })
  )

  inSession("says that keys are missing, which they never should be", () =>
    Effect.gen(function* () {
      const open = openWelcome(idOf("pq"), entryOf("dm-xwing"))
      const missing = { getPrivateKeys: () => Effect.succeed(Option.none()) }
      expect(yield* refused(withStore(() => missing, open))).toMatchObject({
        _tag: "NoSuchKeyPackage",
        reason: { _tag: "KeysMissing" }
      })
    })
  )

  inSession("does not use a key for another algorithm than its own", () =>
    Effect.gen(function* () {
      const [one, two] = [entryOf("dm-xwing"), entryOf("dm-curve25519", "classic")]
      if (one._tag !== "Welcome" || two._tag !== "Welcome") throw new Error("Welcomes")
      const xwing = { ...one, wrapperAlgorithm: 1 }
      const curve = { ...two, wrapperAlgorithm: 2 }
      const expected = { _tag: "UnwrapFailed", layer: "Wrapper", part: "KemOutput" }
      expect(yield* refused(openWelcome(idOf("pq"), xwing))).toMatchObject(expected)
      expect(yield* refused(openWelcome(idOf("classic"), curve))).toMatchObject(expected)
      expect(yield* refused(openWelcome(idOf("pq"), { ...xwing, wrapperAlgorithm: 7 }))).toMatchObject({
        _tag: "NotYetUnderstood",
        feature: "WrapperAlgorithm",
        value: 7
      })
    })
  )

  inSession("opens what names another package of ours inside than it was wrapped to", () =>
    Effect.gen(function* () {
      // Wrapped anew to the init key of the other package; the group inside stays as it is.
      const store = yield* KeyPackageStore
      const [classic] = yield* store.getHistory(idOf("classic"))
      const entry = entryOf("dm-xwing")
      if (classic === undefined || entry._tag !== "Welcome") throw new Error("both are there")
      const seed = Redacted.make(bin(ours.pq.postQuantumKey ?? ""))
      const inner = yield* WelcomeWrapper.unwrap("XWing", seed, { data: entry.data, metadata: entry.welcomeMetadata })
      const publicKey = classic.keyPackage.initKey
      const wrapped = yield* WelcomeWrapper.wrap({ algorithm: "Curve25519", publicKey }, inner)
      const crossed = {
        ...entry,
        data: wrapped.data,
        welcomeMetadata: wrapped.metadata,
        hpkePublicKey: publicKey,
        wrapperAlgorithm: 1
      }
      const keys = yield* store.getPrivateKeys(classic.historyId)
      const alsoOurs = (real: KeyPackageStore["Type"]) => ({
        findByWelcomeKey: () => Effect.succeed(Option.some(classic)),
        getPrivateKeys: (id: HistoryId) => (id === classic.historyId ? Effect.succeed(keys) : real.getPrivateKeys(id))
      })
      const opened = yield* withStore(alsoOurs, openWelcome(idOf("pq"), crossed))
      expect(opened.keyPackageRef).toBe(yield* KeyPackageRef.hash(bin(ours.pq.keyPackage)))
      const gone = (real: KeyPackageStore["Type"]) => ({
        ...alsoOurs(real),
        getHistory: () => Effect.succeed([])
      })
      expect(yield* refused(withStore(gone, openWelcome(idOf("pq"), crossed)))).toMatchObject({
        _tag: "MalformedWelcome",
        reason: "OtherKeyPackage"
      })
    })
  )

  inSession("waits for what a pointer points at, and refuses what is none", () =>
    Effect.gen(function* () {
      const pointer = entryOf("group-pointer")
      const pages = (found: ReadonlyArray<WelcomeMessageEntry>): Partial<ApiClient["Type"]> => ({
        queryWelcomeMessages: () => Effect.succeed({ entries: found, cursor: 0n, hasMore: false })
      })
      const open = (found: ReadonlyArray<WelcomeMessageEntry>) =>
        refused(withApi(pages(found), openWelcome(idOf("pq"), pointer)))
      expect(yield* open([])).toMatchObject({ _tag: "PointeeNotFound", isRetryable: true })
      expect(yield* open([pointer])).toMatchObject({ part: "Pointee", reason: "NotAWelcome" })
      expect(yield* open([{ _tag: "Unknown", id: Option.some(1n) }])).toMatchObject({ feature: "EntryKind" })
      expect(yield* open([entryOf("dm-xwing")])).toMatchObject({ _tag: "UnwrapFailed", layer: "Pointee" })
      const down = new ApiClientError({ operation: "queryWelcomeMessages", reason: "Unavailable" })
      expect(
        yield* refused(withApi({ queryWelcomeMessages: () => Effect.fail(down) }, openWelcome(idOf("pq"), pointer)))
      ).toMatchObject({ _tag: "ApiClientError", isRetryable: true })
      if (pointer._tag !== "WelcomePointer") throw new Error("a pointer")
      for (let bit = World.FIRST; bit < 8 * pointer.welcomePointer.length; bit += 499) {
        const changed = { ...pointer, welcomePointer: World.flip(pointer.welcomePointer, bit) }
        const { _tag } = yield* refused(openWelcome(idOf("pq"), changed))
        expect(["UnwrapFailed", "MalformedWelcome"]).toContain(_tag)
      }
    })
  )

  inSession("queues the rotation and deletes nothing, whatever comes of it", () =>
    Effect.gen(function* () {
      const memory = yield* MemoryKeyPackageStore.MemoryKeyPackageStore
      yield* memory.clearCalls
      const entry = entryOf("dm-xwing")
      if (entry._tag !== "Welcome") throw new Error("a Welcome")
      for (const one of [
        { ...entry, data: World.flip(entry.data, 20_000) },
        { ...entry, data: entry.data.subarray(0, 100) },
        { ...entry, hpkePublicKey: new Uint8Array(32) },
        entry
      ]) {
        yield* refused(openWelcome(idOf("pq"), one))
        expect(yield* scheduled("pq")).toBe(true)
        expect(yield* keysAreThere("pq")).toBe(true)
      }
      const writes = (yield* memory.calls)
        .map(({ operation }) => operation)
        .filter((operation) => !/^(get|find|next)/.test(operation))
      expect(new Set(writes)).toEqual(new Set(["modifySchedule"]))
    })
  )
})
