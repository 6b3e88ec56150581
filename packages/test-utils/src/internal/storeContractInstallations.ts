/** The store contract: installations, how far their registration has come, and who may write for them. */
import { describe, expect } from "@effect/vitest"
import * as Lease from "@keyward/core/lifecycle/Lease"
import * as Ledger from "@keyward/core/lifecycle/Ledger"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Arbitraries from "../Arbitraries.ts"
import {
  after,
  conflict,
  expose,
  insertAt,
  install,
  intentOf,
  lease,
  leased,
  lost,
  packageOf,
  prepare,
  publicationAt,
  receiptOf,
  refused,
  reject,
  rejectionAt,
  retirementAt,
  sample,
  T0,
  type Tools
} from "./storeContractKit.ts"

export const declare = <R>({ damage, proofs, property, test }: Tools<R>): void => {
  describe("installations", () => {
    test("an unknown one is none, and has no key, no lease and no history", () =>
      Effect.gen(function* () {
        const store = yield* KeyPackageStore
        const { inboxId, key } = intentOf(1)
        expect(yield* store.getInstallation(key.installationId)).toEqual(Option.none())
        expect(yield* store.getInstallations(inboxId)).toEqual([])
        expect(yield* store.getNewest(key.installationId)).toEqual(Option.none())
        expect(yield* store.getHistory(key.installationId)).toEqual([])
        expect(yield* store.getLedger(key.installationId)).toEqual({ entries: [], unreadable: [], quarantined: [] })
        expect(yield* store.getRetired(key.installationId)).toEqual([])
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
          schedule: Schedule.empty
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
        const prepared = yield* prepare(held, packageOf(installation, 9))
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
        const signed = yield* store.saveIdentityUpdate(held, update, T0)
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
        yield* store.saveIdentityUpdate(held, update, T0)
        const again = yield* store.saveIdentityUpdate(held, new Uint8Array([9]), T0)
        expect(again.registration).toEqual({ _tag: "Signed", identityUpdate: new Uint8Array([9]) })
        expect(yield* store.getInstallation(installation.installationId)).toEqual(Option.some(again))
        yield* store.markRegistered(held, T0)
        expect(yield* refused(store.saveIdentityUpdate(held, update, T0), [installation])).toMatchObject(conflict)
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

    test("[53] every write under a lease that ended, was taken over, given back or never given is refused", () =>
      Effect.gen(function* () {
        const { store, installation, held: stale } = yield* leased(28)
        const { permit, sighting } = proofs
        yield* store.saveIdentityUpdate(stale, new Uint8Array([1]), T0)
        const doomed = yield* reject(stale, packageOf(installation, 29))
        const seen = yield* reject(stale, packageOf(installation, 30))
        const broken = yield* prepare(stale, packageOf(installation, 31))
        const prepared = yield* prepare(stale, packageOf(installation, 32))
        const refusedOne = yield* expose(stale, packageOf(installation, 33))
        const exposed = yield* expose(stale, packageOf(installation, 34))
        const receipt = yield* receiptOf(stale, exposed)
        yield* damage(broken.historyId)
        const { unreadable } = yield* store.getLedger(installation.installationId)
        const writes = (held: Lease.Lease, at: DateTime.Utc): ReadonlyArray<Effect.Effect<unknown, unknown>> => [
          store.saveIdentityUpdate(held, new Uint8Array([2]), at),
          store.markRegistered(held, at),
          store.insertKeyPackageHistory(held, packageOf(installation, 35), insertAt(at)),
          store.markExposed(held, prepared, at),
          store.markRejected(held, refusedOne, rejectionAt(at)),
          store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publicationAt(at)),
          store.postponeDeletion(held, sighting(seen, at), { at, deleteAt: after("4 minutes") }),
          store.retire(held, [permit(doomed, "Rejected")], retirementAt(at)),
          store.quarantine(held, unreadable, { at, latest: after("1 hour") })
        ]

        const ended = writes(stale, after("5 minutes"))
        const at = after("2 minutes")
        for (const write of ended) expect(yield* refused(write, [installation])).toMatchObject(lost)
        yield* store.releaseLease(stale)
        for (const write of writes(stale, at)) expect(yield* refused(write, [installation])).toMatchObject(lost)
        const current = yield* lease(installation, at)
        const strangers = [stale, { ...current, fence: current.fence + 1 }]
        for (const held of strangers) {
          for (const write of writes(held, at)) expect(yield* refused(write, [installation])).toMatchObject(lost)
        }
        // The same writes under the current lease: it was the lease that was wrong.
        for (const write of writes(current, at)) yield* write
      }))
  })
}
