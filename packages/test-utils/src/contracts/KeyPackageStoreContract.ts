/**
 * What every layer of the store port must do. A new store runs this suite from its own tests.
 *
 * @since 1.0.0
 */
import { describe, expect, it } from "@effect/vitest"
import type { GeneratedKeyPackage } from "@keyward/core/keypackage/GeneratedKeyPackage"
import type { Installation, InstallationIntent } from "@keyward/core/lifecycle/Installation"
import * as Lease from "@keyward/core/lifecycle/Lease"
import * as Ledger from "@keyward/core/lifecycle/Ledger"
import { uploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore, type Publication, type StorageError } from "@keyward/core/ports/KeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/TestClock"
import * as Arbitraries from "../Arbitraries.ts"

/** When every test begins. */
const T0 = DateTime.unsafeMake("2026-03-01T00:00:00Z")
const after = (duration: Duration.DurationInput): DateTime.Utc => DateTime.addDuration(T0, duration)

/** The network that says yes: what a receipt needs. */
const acceptingApi = Layer.mock(ApiClient, { uploadKeyPackage: () => Effect.void })

/** The same random values in every run. */
const sample = <A>(arbitrary: FastCheck.Arbitrary<A>, count: number, seed: number): ReadonlyArray<A> =>
  FastCheck.sample(arbitrary, { numRuns: count, seed })

const one = <A>(arbitrary: FastCheck.Arbitrary<A>, seed: number): A => sample(arbitrary, 1, seed)[0] as A

/** Another name of the same inbox, or a whole other one. */
const intentOf = (seed: number, changes: Partial<InstallationIntent> = {}): InstallationIntent => ({
  ...one(Arbitraries.intent, seed),
  at: T0,
  ...changes
})

const packageOf = (installation: Installation, seed: number): GeneratedKeyPackage =>
  one(Arbitraries.generatedKeyPackage(installation), seed)

const publicationAt = (at: DateTime.Utc): Publication => ({
  at,
  deleteAt: DateTime.add(at, { hours: 24 }),
  nextRotationAt: DateTime.add(at, { days: 30 })
})

const install = (intent: InstallationIntent) =>
  Effect.flatMap(KeyPackageStore, (store) => store.findOrCreateInstallation(intent))

const lease = (installation: Installation, now: DateTime.Utc = T0, duration: Duration.DurationInput = "5 minutes") =>
  Effect.flatMap(KeyPackageStore, (store) =>
    store.acquireLease(installation.installationId, { now, duration: Duration.decode(duration) })
  )

/** The value as JSON, bytes in hex: comparing the bytes of one key package element by element takes milliseconds. */
const plain = (value: unknown): unknown =>
  JSON.parse(
    JSON.stringify(value, function (this: Record<string, unknown>, key, json: unknown) {
      const own = this[key]
      if (own instanceof Uint8Array) return Buffer.from(own).toString("hex")
      return typeof own === "bigint" ? `${own}n` : json
    })
  )

const expectEqual = (actual: unknown, expected: unknown): void => expect(plain(actual)).toEqual(plain(expected))

/** An installation, its lease, and the store: where most tests begin. */
const leased = (seed: number) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const installation = yield* install(intentOf(seed))
    return { store, installation, held: yield* lease(installation) }
  })

const receiptOf = (held: Lease.Lease, entry: Ledger.Prepared | Ledger.Exposed) =>
  uploadKeyPackage(held, entry).pipe(
    // Newer rows may come in while an upload is under way: this one began when its row was the newest.
    Effect.updateService(KeyPackageStore, (store) => ({
      ...store,
      getNewest: () => Effect.succeed(Option.some(entry))
    })),
    Effect.provide(acceptingApi)
  )

/** Inserts, exposes and publishes. */
const publish = (held: Lease.Lease, generated: GeneratedKeyPackage, at: DateTime.Utc = T0) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const prepared = yield* store.insertKeyPackageHistory(held, generated, at)
    const receipt = yield* receiptOf(held, prepared)
    return yield* store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publicationAt(at))
  })

/** The keys, readable for a comparison. */
const reveal = (keys: {
  readonly initKey: Redacted.Redacted<Uint8Array>
  readonly encryptionKey: Redacted.Redacted<Uint8Array>
  readonly postQuantumKey: Option.Option<Redacted.Redacted<Uint8Array>>
}) => ({
  initKey: Redacted.value(keys.initKey),
  encryptionKey: Redacted.value(keys.encryptionKey),
  postQuantumKey: Option.getOrNull(Option.map(keys.postQuantumKey, Redacted.value))
})

/**
 * Everything that the port shows of these installations: rows, private keys, and whether each lease still binds.
 *
 * @since 1.0.0
 * @category snapshots
 */
export const snapshot = (
  installations: ReadonlyArray<Pick<Installation, "installationId" | "inboxId">>
): Effect.Effect<unknown, StorageError, KeyPackageStore> =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    return yield* Effect.forEach(installations, ({ inboxId, installationId }) =>
      Effect.gen(function* () {
        const history = yield* store.getHistory(installationId)
        return {
          installation: yield* store.getInstallation(installationId),
          ofInbox: yield* store.getInstallations(inboxId),
          seed: Redacted.value((yield* store.getInstallationKey(installationId)).seed),
          newest: yield* store.getNewest(installationId),
          history,
          keys: yield* Effect.forEach(history, ({ historyId }) =>
            Effect.map(store.getPrivateKeys(historyId), Option.map(reveal))
          )
        }
      })
    )
  })

/** The failure of an effect that must fail, and must leave these installations as they were. */
const refused = <A, E, R>(
  effect: Effect.Effect<A, E, R>,
  installations: ReadonlyArray<Pick<Installation, "installationId" | "inboxId">>
) =>
  Effect.gen(function* () {
    const before = yield* snapshot(installations)
    const error = yield* Effect.flip(effect)
    expectEqual(yield* snapshot(installations), before)
    return error
  })

const conflict = { _tag: "StorageError", reason: "Conflict" }
const lost = { _tag: "LeaseError", reason: "Lost" }

/**
 * Declares the suite. The layer is built anew for every test and every run of a property, and must be empty then.
 *
 * @since 1.0.0
 * @category suites
 */
export const suite = <E>(name: string, layer: Layer.Layer<KeyPackageStore, E>): void => {
  const fresh = <A, E2>(effect: Effect.Effect<A, E2, KeyPackageStore>) =>
    TestClock.setTime(DateTime.toEpochMillis(T0)).pipe(
      Effect.zipRight(Effect.provide(effect, Layer.fresh(layer))),
      Effect.scoped
    )

  const test = <A, E2>(title: string, body: () => Effect.Effect<A, E2, KeyPackageStore>) =>
    it.effect(title, () => fresh(Effect.suspend(body)))

  /** A property over fresh stores; `KEYWARD_SEED` replays a run, vitest prints the seed of one that failed. */
  const seed = Number(process.env["KEYWARD_SEED"] ?? 20_260_301)
  const property = <A, E2>(
    title: string,
    arbitrary: FastCheck.Arbitrary<A>,
    body: (value: A) => Effect.Effect<void, E2, KeyPackageStore>
  ) =>
    it.effect.prop(title, [arbitrary], ([value]) => fresh(Effect.suspend(() => body(value))), {
      fastCheck: { seed, numRuns: 25 }
    })

  describe(`${name} keeps the contract of KeyPackageStore:`, () => {
    describe("installations", () => {
      test("an unknown one is none, and has no key, no lease and no history", () =>
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const { inboxId, key } = intentOf(1)
          expect(yield* store.getInstallation(key.installationId)).toEqual(Option.none())
          expect(yield* store.getInstallations(inboxId)).toEqual([])
          expect(yield* store.getNewest(key.installationId)).toEqual(Option.none())
          expect(yield* store.getHistory(key.installationId)).toEqual([])
          expect(yield* store.getPrivateKeys(Ledger.HistoryId.make(1))).toEqual(Option.none())
          expect(yield* Effect.flip(store.getInstallationKey(key.installationId))).toMatchObject(conflict)
          const acquired = store.acquireLease(key.installationId, { now: T0, duration: Duration.minutes(1) })
          expect(yield* Effect.flip(acquired)).toMatchObject(conflict)
        }))

      property("a created one comes back as it was intended", Arbitraries.intent, (intent) =>
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const created = yield* store.findOrCreateInstallation(intent)
          expect(created).toEqual({
            installationId: intent.key.installationId,
            inboxId: intent.inboxId,
            label: intent.label,
            createdAt: intent.at,
            registration: { _tag: "Intended" },
            nextRotationAt: Option.none()
          })
          expect(yield* store.getInstallation(created.installationId)).toEqual(Option.some(created))
          expect(yield* store.getInstallations(created.inboxId)).toEqual([created])
          const key = yield* store.getInstallationKey(created.installationId)
          expect(Redacted.value(key.seed)).toEqual(Redacted.value(intent.key.seed))
        })
      )

      property(
        "[10] the first key stays, however often and with whatever key one asks again",
        FastCheck.tuple(Arbitraries.intent, FastCheck.array(Arbitraries.intent, { minLength: 1, maxLength: 4 })),
        ([first, others]) =>
          Effect.gen(function* () {
            const store = yield* KeyPackageStore
            const created = yield* install(first)
            for (const { at, key } of others) {
              const again = yield* install({ inboxId: first.inboxId, label: first.label, key, at })
              expect(again).toEqual(created)
              expect(yield* store.getInstallation(key.installationId)).toEqual(Option.none())
            }
            expect(yield* store.getInstallations(first.inboxId)).toEqual([created])
            const key = yield* store.getInstallationKey(created.installationId)
            expect(Redacted.value(key.seed)).toEqual(Redacted.value(first.key.seed))
          })
      )

      test("[52] many fibers that register at once make one installation", () =>
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const { inboxId, label } = intentOf(2)
          const made = yield* Effect.forEach(
            sample(Arbitraries.intent, 20, 3),
            (intent) => install({ ...intent, inboxId, label }),
            { concurrency: "unbounded" }
          )
          expect(new Set(made.map(({ installationId }) => installationId)).size).toBe(1)
          expect(yield* store.getInstallations(inboxId)).toHaveLength(1)
        }))

      test("many of one inbox come oldest first, apart from those of another", () =>
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const { inboxId } = intentOf(4)
          const other = yield* install(intentOf(5))
          // Created while the clock runs backwards: the order is that of creation.
          const created = yield* Effect.forEach(sample(Arbitraries.intent, 12, 6), (intent, index) =>
            install({ ...intent, inboxId, label: `device ${index}`, at: DateTime.subtract(T0, { hours: index }) })
          )
          expect(yield* store.getInstallations(inboxId)).toEqual(created)
          expect(yield* store.getInstallations(other.inboxId)).toEqual([other])
        }))

      test("one key is not used for two", () =>
        Effect.gen(function* () {
          const installation = yield* install(intentOf(7))
          const second = install(intentOf(7, { label: "another" }))
          expect(yield* refused(second, [installation])).toMatchObject(conflict)
        }))

      test("[79] private keys are Redacted and print nothing", () =>
        Effect.gen(function* () {
          const { store, installation, held } = yield* leased(8)
          const prepared = yield* store.insertKeyPackageHistory(held, packageOf(installation, 9), T0)
          const key = yield* store.getInstallationKey(installation.installationId)
          const keys = Option.getOrThrow(yield* store.getPrivateKeys(prepared.historyId))
          for (const secret of [key.seed, keys.initKey, keys.encryptionKey, ...Option.toArray(keys.postQuantumKey)]) {
            expect(Redacted.isRedacted(secret)).toBe(true)
            expect(`${secret} ${JSON.stringify(secret)}`).toBe('<redacted> "<redacted>"')
          }
        }))
    })

    describe("registration", () => {
      const update = new Uint8Array([1, 2, 3, 250])

      test("goes from Intended over Signed to Registered, and stays there", () =>
        Effect.gen(function* () {
          const { store, installation, held } = yield* leased(10)
          const signed = yield* store.saveIdentityUpdate(held, update)
          expect(signed).toEqual({ ...installation, registration: { _tag: "Signed", identityUpdate: update } })
          expect(yield* store.getInstallation(installation.installationId)).toEqual(Option.some(signed))
          const registered = yield* store.markRegistered(held, after("1 second"))
          const registration = { _tag: "Registered", identityUpdate: update, registeredAt: after("1 second") }
          expect(registered).toEqual({ ...installation, registration })
          expect(yield* store.markRegistered(held, after("2 seconds"))).toEqual(registered)
          expect(yield* store.getInstallation(installation.installationId)).toEqual(Option.some(registered))
          expect(yield* install(intentOf(10))).toEqual(registered)
        }))

      test("a second signature replaces the first until it is Registered", () =>
        Effect.gen(function* () {
          const { store, installation, held } = yield* leased(11)
          yield* store.saveIdentityUpdate(held, update)
          const again = yield* store.saveIdentityUpdate(held, new Uint8Array([9]))
          expect(again.registration).toEqual({ _tag: "Signed", identityUpdate: new Uint8Array([9]) })
          expect(yield* store.getInstallation(installation.installationId)).toEqual(Option.some(again))
          yield* store.markRegistered(held, T0)
          expect(yield* refused(store.saveIdentityUpdate(held, update), [installation])).toMatchObject(conflict)
        }))

      test("what was not signed is not registered", () =>
        Effect.gen(function* () {
          const { store, installation, held } = yield* leased(12)
          expect(yield* refused(store.markRegistered(held, T0), [installation])).toMatchObject(conflict)
        }))
    })

    describe("leases", () => {
      test("[54] is held by one until it ends, with a larger fence each time", () =>
        Effect.gen(function* () {
          const { store, installation, held } = yield* leased(20)
          expect(held.expiresAt).toEqual(after("5 minutes"))
          yield* store.checkLease(held, T0)
          yield* store.checkLease(held, after("299999 millis"))
          const early = lease(installation, after("299999 millis"))
          expect(yield* refused(early, [installation])).toMatchObject({ _tag: "LeaseError", reason: "Held" })
          const second = yield* lease(installation, after("5 minutes"))
          expect(second.fence).toBeGreaterThan(held.fence)
          yield* store.releaseLease(second)
          const third = yield* lease(installation, after("5 minutes"))
          expect(third.fence).toBeGreaterThan(second.fence)
        }))

      test("is lost at the very instant of its expiry", () =>
        Effect.gen(function* () {
          const { store, held } = yield* leased(21)
          const error = yield* Effect.flip(store.checkLease(held, after("5 minutes")))
          expect(error).toMatchObject(lost)
        }))

      test("is lost once it was given back, and giving it back twice is nothing", () =>
        Effect.gen(function* () {
          const { store, installation, held } = yield* leased(22)
          yield* store.releaseLease(held)
          yield* store.releaseLease(held)
          expect(yield* Effect.flip(store.checkLease(held, T0))).toMatchObject(lost)
          const next = yield* lease(installation)
          // The late release of an earlier holder leaves the later one alone.
          yield* store.releaseLease(held)
          yield* store.checkLease(next, T0)
        }))

      test("never lasts longer than the longest lease", () =>
        Effect.gen(function* () {
          const { store, held } = yield* Effect.flatMap(leased(23), ({ store, installation, held }) =>
            store.releaseLease(held).pipe(
              Effect.zipRight(lease(installation, T0, "3 days")),
              Effect.map((held) => ({ store, held }))
            )
          )
          expect(held.expiresAt).toEqual(DateTime.addDuration(T0, Lease.MAX_DURATION))
          yield* store.checkLease(held, T0)
        }))

      test("[15] one from a clock that was ahead binds nobody", () =>
        Effect.gen(function* () {
          const { store, installation, held } = yield* leased(24)
          const earlier = DateTime.subtract(T0, { days: 2 })
          expect(yield* Effect.flip(store.checkLease(held, earlier))).toMatchObject(lost)
          const next = yield* lease(installation, earlier)
          expect(next.fence).toBeGreaterThan(held.fence)
          yield* store.checkLease(next, earlier)
          expect(yield* Effect.flip(store.checkLease(held, T0))).toMatchObject(lost)
        }))

      test("[76] each installation has its own", () =>
        Effect.gen(function* () {
          const { store, held } = yield* leased(25)
          const other = yield* install(intentOf(26))
          const theirs = yield* lease(other)
          yield* store.checkLease(held, T0)
          yield* store.releaseLease(theirs)
          yield* store.checkLease(held, T0)
        }))

      test("[52] of many fibers that ask at once one gets it", () =>
        Effect.gen(function* () {
          const installation = yield* install(intentOf(27))
          const got = yield* Effect.forEach(Array.from({ length: 30 }), () => Effect.either(lease(installation)), {
            concurrency: "unbounded"
          })
          expect(got.filter(({ _tag }) => _tag === "Right")).toHaveLength(1)
        }))

      test("every write under a lease that was taken over, given back or never given is refused", () =>
        Effect.gen(function* () {
          const { store, installation, held: stale } = yield* leased(28)
          yield* store.saveIdentityUpdate(stale, new Uint8Array([1]))
          const prepared = yield* store.insertKeyPackageHistory(stale, packageOf(installation, 29), T0)
          const exposed = yield* store.markExposed(
            stale,
            yield* store.insertKeyPackageHistory(stale, packageOf(installation, 30), T0),
            T0
          )
          const receipt = yield* receiptOf(stale, exposed)
          const writes = (held: Lease.Lease, at: DateTime.Utc) => ({
            saveIdentityUpdate: store.saveIdentityUpdate(held, new Uint8Array([2])),
            markRegistered: store.markRegistered(held, at),
            insertKeyPackageHistory: store.insertKeyPackageHistory(held, packageOf(installation, 31), at),
            markExposed: store.markExposed(held, prepared, at),
            markKeyPackagesBeforeIdToBeDeleted: store.markKeyPackagesBeforeIdToBeDeleted(
              held,
              receipt,
              publicationAt(at)
            )
          })

          // Ended by its time: every write that says what time it is.
          const { saveIdentityUpdate: _, ...timed } = writes(stale, after("5 minutes"))
          for (const write of Object.values<Effect.Effect<unknown, unknown>>(timed)) {
            expect(yield* refused(write, [installation])).toMatchObject(lost)
          }
          yield* store.releaseLease(stale)
          for (const write of Object.values<Effect.Effect<unknown, unknown>>(writes(stale, T0))) {
            expect(yield* refused(write, [installation])).toMatchObject(lost)
          }
          const current = yield* lease(installation)
          const strangers = [stale, { ...current, fence: current.fence + 1 }]
          for (const held of strangers) {
            for (const write of Object.values<Effect.Effect<unknown, unknown>>(writes(held, T0))) {
              expect(yield* refused(write, [installation])).toMatchObject(lost)
            }
          }
          // The same writes under the current lease: it was the lease that was wrong.
          for (const write of Object.values<Effect.Effect<unknown, unknown>>(writes(current, T0))) yield* write
        }))
    })

    describe("the ledger", () => {
      property("rows and private keys come back equal, in the order of creation", FastCheck.integer(), (seed) =>
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const one = yield* install(intentOf(seed))
          const two = yield* install(intentOf(seed ^ 1))
          const leases = [yield* lease(one), yield* lease(two)] as const
          let last = 0
          for (let round = 0; round < 3; round++) {
            for (const [index, installation] of [one, two].entries()) {
              const held = leases[index] ?? leases[0]
              const generated = packageOf(installation, seed + 10 * round + index)
              const at = after(`${round} minutes`)
              const prepared = yield* store.insertKeyPackageHistory(held, generated, at)
              expectEqual(prepared, {
                _tag: "Prepared",
                historyId: prepared.historyId,
                keyPackage: generated.keyPackage,
                createdAt: at
              })
              expect(prepared.historyId).toBeGreaterThan(last)
              last = prepared.historyId
              expect(yield* store.getNewest(installation.installationId)).toEqual(Option.some(prepared))
              expect((yield* store.getHistory(installation.installationId)).at(-1)).toEqual(prepared)
              const keys = Option.getOrThrow(yield* store.getPrivateKeys(prepared.historyId))
              expectEqual(reveal(keys), reveal(generated.privateKeys))
            }
          }
          for (const { installationId } of [one, two]) {
            const ids = (yield* store.getHistory(installationId)).map(({ historyId }) => historyId)
            expect(ids).toEqual([...ids].sort((a, b) => a - b))
            expect(ids).toHaveLength(3)
          }
        })
      )

      test("refuses a package of another installation or inbox, and a ref or an init key that is there already", () =>
        Effect.gen(function* () {
          const { store, installation, held } = yield* leased(41)
          const other = yield* install(intentOf(42))
          const theirs = yield* lease(other)
          const first = packageOf(installation, 43)
          const next = packageOf(installation, 44)
          yield* store.insertKeyPackageHistory(held, first, T0)
          const change = (changes: Partial<GeneratedKeyPackage["keyPackage"]>): GeneratedKeyPackage => ({
            ...next,
            keyPackage: { ...next.keyPackage, ...changes }
          })
          const attempts = [
            store.insertKeyPackageHistory(held, packageOf(other, 45), T0),
            store.insertKeyPackageHistory(theirs, next, T0),
            store.insertKeyPackageHistory(held, change({ inboxId: other.inboxId }), T0),
            store.insertKeyPackageHistory(held, first, T0),
            store.insertKeyPackageHistory(held, change({ ref: first.keyPackage.ref }), T0),
            store.insertKeyPackageHistory(held, change({ initKey: first.keyPackage.initKey }), T0)
          ]
          for (const attempt of attempts) {
            expect(yield* refused(attempt, [installation, other])).toMatchObject(conflict)
          }
          yield* store.insertKeyPackageHistory(held, next, T0)
        }))

      test("[3] Prepared becomes Exposed once, from its own row and installation", () =>
        Effect.gen(function* () {
          const { store, installation, held } = yield* leased(50)
          const other = yield* install(intentOf(51))
          const theirs = yield* lease(other)
          const prepared = yield* store.insertKeyPackageHistory(held, packageOf(installation, 52), T0)
          const wrong = [
            store.markExposed(theirs, prepared, T0),
            store.markExposed(held, { ...prepared, historyId: Ledger.HistoryId.make(999) }, T0),
            store.markExposed(held, { ...prepared, keyPackage: packageOf(installation, 53).keyPackage }, T0)
          ]
          for (const attempt of wrong) {
            expect(yield* refused(attempt, [installation, other])).toMatchObject(conflict)
          }
          const exposed = yield* store.markExposed(held, prepared, after("1 second"))
          expect(exposed).toEqual({ ...prepared, _tag: "Exposed", exposedAt: after("1 second") })
          expect(yield* store.getNewest(installation.installationId)).toEqual(Option.some(exposed))
          const again = store.markExposed(held, prepared, after("2 seconds"))
          expect(yield* refused(again, [installation])).toMatchObject(conflict)
        }))

      test("[6] publishing supersedes the earlier rows, keeps their keys and sets the next rotation", () =>
        Effect.gen(function* () {
          const { store, installation, held } = yield* leased(60)
          const other = yield* install(intentOf(61))
          const theirs = yield* lease(other)
          const untouched = yield* publish(theirs, packageOf(other, 62))

          const first = yield* publish(held, packageOf(installation, 63))
          expect(first.superseded).toEqual([])
          const waiting = yield* store.insertKeyPackageHistory(held, packageOf(installation, 64), T0)
          const at = after("1 minute")
          const unknown = yield* store.markExposed(
            held,
            yield* store.insertKeyPackageHistory(held, packageOf(installation, 65), T0),
            at
          )
          const candidate = yield* store.insertKeyPackageHistory(held, packageOf(installation, 66), at)
          const newer = yield* store.insertKeyPackageHistory(held, packageOf(installation, 67), at)
          const receipt = yield* receiptOf(held, candidate)
          const publication = publicationAt(at)
          const marked = yield* store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publication)

          expect(marked.published).toEqual(Ledger.publish(receipt.exposed, at))
          expect(marked.superseded).toEqual(
            [first.published, waiting, unknown].map((entry) =>
              Ledger.supersede(entry, marked.published, at, publication.deleteAt)
            )
          )
          expect(yield* store.getHistory(installation.installationId)).toEqual([
            ...marked.superseded,
            marked.published,
            newer
          ])
          for (const { historyId } of marked.superseded) {
            expect(Option.isSome(yield* store.getPrivateKeys(historyId))).toBe(true)
          }
          const stored = Option.getOrThrow(yield* store.getInstallation(installation.installationId))
          expect(stored.nextRotationAt).toEqual(Option.some(publication.nextRotationAt))
          expect(yield* store.getHistory(other.installationId)).toEqual([untouched.published])
        }))

      test("[24] a receipt is good for one publication", () =>
        Effect.gen(function* () {
          const { store, installation, held } = yield* leased(70)
          const prepared = yield* store.insertKeyPackageHistory(held, packageOf(installation, 71), T0)
          const receipt = yield* receiptOf(held, prepared)
          const mark = store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publicationAt(T0))
          yield* mark
          expect(yield* refused(mark, [installation])).toMatchObject(conflict)
        }))

      test("[23] an acceptance that arrives after a later publication marks nothing", () =>
        Effect.gen(function* () {
          const { store, installation, held } = yield* leased(72)
          const early = yield* store.insertKeyPackageHistory(held, packageOf(installation, 73), T0)
          const late = yield* receiptOf(held, early)
          yield* publish(held, packageOf(installation, 74))
          const mark = store.markKeyPackagesBeforeIdToBeDeleted(held, late, publicationAt(T0))
          expect(yield* refused(mark, [installation])).toMatchObject(conflict)
        }))

      test("what only looks like a receipt marks nothing", () =>
        Effect.gen(function* () {
          const { store, installation, held } = yield* leased(75)
          const exposed = yield* store.markExposed(
            held,
            yield* store.insertKeyPackageHistory(held, packageOf(installation, 76), T0),
            T0
          )
          const forged: object = { lease: held, exposed, acceptedAt: T0 }
          const mark = store.markKeyPackagesBeforeIdToBeDeleted(held, forged as never, publicationAt(T0))
          expect(yield* refused(mark, [installation])).toMatchObject(conflict)
        }))

      test("a receipt of another installation marks nothing", () =>
        Effect.gen(function* () {
          const { store, installation, held } = yield* leased(77)
          const other = yield* install(intentOf(78))
          const theirs = yield* lease(other)
          const prepared = yield* store.insertKeyPackageHistory(theirs, packageOf(other, 79), T0)
          const receipt = yield* receiptOf(theirs, prepared)
          const mark = store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publicationAt(T0))
          expect(yield* refused(mark, [installation, other])).toMatchObject(conflict)
        }))

      // Any order of writes, also wrong ones, against the transitions of the ledger itself.
      type Command = { readonly write: "insert" | "expose" | "publish"; readonly whose: 0 | 1; readonly which: number }
      const command: FastCheck.Arbitrary<Command> = FastCheck.record({
        write: FastCheck.constantFrom("insert", "expose", "publish"),
        whose: FastCheck.constantFrom(0, 1),
        which: FastCheck.nat(5)
      })
      property(
        "any order of writes does what the ledger's transitions say, or nothing",
        FastCheck.array(command, { minLength: 5, maxLength: 25, size: "max" }),
        (commands) =>
          Effect.gen(function* () {
            const store = yield* KeyPackageStore
            const owners = yield* Effect.forEach([90, 91], (seed) => install(intentOf(seed)))
            const leases = yield* Effect.forEach(owners, (owner) => lease(owner))
            const model: [Array<Ledger.LedgerEntry>, Array<Ledger.LedgerEntry>] = [[], []]
            const receipts = new Map<number, Effect.Effect.Success<ReturnType<typeof receiptOf>>>()
            for (const [step, { which, whose, write }] of commands.entries()) {
              const at = after(`${step} seconds`)
              const owner = owners[whose] as Installation
              const held = leases[whose] as Lease.Lease
              const rows = model[whose]
              const row = rows[which % Math.max(1, rows.length)]
              if (write === "insert") {
                rows.push(yield* store.insertKeyPackageHistory(held, packageOf(owner, 1_000 + step), at))
              } else if (row !== undefined && write === "expose") {
                const exposing = store.markExposed(held, { ...row, _tag: "Prepared" }, at)
                if (row._tag === "Prepared") {
                  yield* exposing
                  const exposed = Ledger.expose(row, at)
                  rows[rows.indexOf(row)] = exposed
                  receipts.set(row.historyId, yield* receiptOf(held, exposed))
                } else {
                  expect(yield* Effect.flip(exposing)).toMatchObject(conflict)
                }
              } else if (row !== undefined) {
                const receipt = receipts.get(row.historyId)
                if (receipt === undefined) continue
                const publication = publicationAt(at)
                const marking = store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publication)
                if (row._tag === "Exposed") {
                  const published = Ledger.publish(row, at)
                  const superseded: Array<Ledger.Superseded> = []
                  for (const [index, entry] of rows.entries()) {
                    if (entry.historyId === row.historyId) rows[index] = published
                    if (entry.historyId >= row.historyId || !Ledger.isLive(entry)) continue
                    const next = Ledger.supersede(entry, published, at, publication.deleteAt)
                    superseded.push(next)
                    rows[index] = next
                  }
                  expectEqual(yield* marking, { published, superseded })
                } else {
                  expect(yield* Effect.flip(marking)).toMatchObject(conflict)
                }
              }
              for (const [index, owner] of owners.entries()) {
                expectEqual(yield* store.getHistory(owner.installationId), model[index])
              }
            }
          })
      )
    })
  })
}
