/** The store contract: the end of private keys, what is left of a package, and rows that cannot be read. */
import { describe, expect } from "@effect/vitest"
import type { Installation } from "@keyward/core/lifecycle/Installation"
import * as Ledger from "@keyward/core/lifecycle/Ledger"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { sha256 } from "@noble/hashes/sha2.js"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import {
  after,
  conflict,
  expectEqual,
  expose,
  GRACE,
  insertAt,
  install,
  intentOf,
  lease,
  leased,
  packageOf,
  packageOfKind,
  prepare,
  publicationAt,
  publish,
  receiptOf,
  refused,
  reject,
  retirementAt,
  T0,
  type Tools
} from "./storeContractKit.ts"

/** When superseded keys of `T0` may go. */
const DUE = DateTime.addDuration(T0, GRACE)

const historyOf = ({ installationId }: Installation) =>
  Effect.flatMap(KeyPackageStore, (store) => store.getHistory(installationId))

/** The ids of the rows whose private keys are here. */
const withKeys = (ids: ReadonlyArray<Ledger.HistoryId>) =>
  Effect.flatMap(KeyPackageStore, (store) =>
    Effect.filter(ids, (id) => Effect.map(store.getPrivateKeys(id), Option.isSome))
  )

export const declare = <R>({ damage, proofs, test }: Tools<R>): void => {
  const { permit, sighting } = proofs

  describe("erasure", () => {
    test("erases the keys of every kind of row that a permit names, leaves tombstones, and nothing comes back", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(400)
        const id = installation.installationId
        yield* publish(held, packageOfKind(installation, 401, true))
        const { published, superseded } = yield* publish(held, packageOfKind(installation, 402, false))
        const rejected = yield* reject(held, packageOf(installation, 403))
        const exposed = yield* expose(held, packageOf(installation, 404))
        const prepared = yield* prepare(held, packageOf(installation, 405))
        const kept = yield* prepare(held, packageOf(installation, 406))
        const reasons = [
          ...superseded.map((entry) => [entry, "Superseded"] as const),
          [published, "Expired"] as const,
          [rejected, "Rejected"] as const,
          [exposed, "Expired"] as const,
          [prepared, "NeverSent"] as const
        ]
        const ids = [...reasons.map(([{ historyId }]) => historyId), kept.historyId]
        expect(yield* withKeys(ids)).toEqual(ids)

        const nextAt = after("1 hour")
        const erased = yield* store.retire(
          held,
          reasons.map(([entry, reason]) => permit(entry, reason)),
          {
            ...retirementAt(DUE),
            reschedule: (schedule) => ({ ...schedule, cleanAt: Option.some(nextAt) })
          }
        )
        const tombstones = reasons.map(([entry, reason]) => Ledger.retire(entry, DUE, reason, sha256))
        expectEqual(
          [...erased.retired].sort((a, b) => a.historyId - b.historyId),
          tombstones
        )
        expect(erased.quarantined).toEqual([])
        expectEqual(yield* store.getRetired(id), tombstones)
        expectEqual(yield* historyOf(installation), [kept])
        expectEqual(yield* store.getLedger(id), { entries: [kept], unreadable: [], quarantined: [] })
        expectEqual(yield* store.getNewest(id), Option.some(kept))
        const { schedule } = Option.getOrThrow(yield* store.getInstallation(id))
        expectEqual(schedule, { ...Schedule.empty, cleanAt: Option.some(nextAt) })

        // No other write brings them back.
        expect(yield* withKeys(ids)).toEqual([kept.historyId])
        const at = DUE
        const attempts: ReadonlyArray<Effect.Effect<unknown, unknown>> = [
          store.markExposed(held, prepared, at),
          store.markKeyPackagesBeforeIdToBeDeleted(held, sighting(exposed, at), publicationAt(at)),
          store.postponeDeletion(held, sighting(rejected, at), { at, deleteAt: after("1 day") })
        ]
        for (const attempt of attempts) expect(yield* refused(attempt, [installation])).toMatchObject(conflict)
        const again = yield* store.retire(
          held,
          reasons.map(([entry, reason]) => permit(entry, reason)),
          retirementAt(at)
        )
        expect(again).toEqual({ retired: [], quarantined: [] })
        expectEqual(yield* store.getRetired(id), tombstones)
        yield* store.scrub
        expect(yield* withKeys(ids)).toEqual([kept.historyId])
        expectEqual(yield* store.getRetired(id), tombstones)
      }))

    test("the newest may go: the one before it is the newest then", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(410)
        const id = installation.installationId
        const { published } = yield* publish(held, packageOf(installation, 411))
        const unfit = yield* prepare(held, packageOf(installation, 412))
        yield* store.retire(held, [permit(unfit, "NeverSent")], retirementAt(T0))
        expectEqual(yield* store.getNewest(id), Option.some(published))
        yield* store.retire(held, [permit(published, "Expired")], retirementAt(T0))
        expectEqual(yield* store.getNewest(id), Option.none())
      }))

    test("[57] a row that changed since its permit was given is left alone, and stops no other", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(415)
        const id = installation.installationId
        yield* publish(held, packageOf(installation, 416))
        yield* publish(held, packageOf(installation, 417))
        const { published, superseded } = yield* publish(held, packageOf(installation, 418))
        const rejected = yield* reject(held, packageOf(installation, 419))
        const seenAgain = yield* reject(held, packageOf(installation, 420))
        const exposed = yield* expose(held, packageOf(installation, 421))
        const prepared = yield* prepare(held, packageOf(installation, 422))
        const history = yield* historyOf(installation)
        const permits = [
          ...history.map((entry) => permit(entry, "Superseded")),
          permit({ ...rejected, historyId: Ledger.HistoryId.make(999) }, "Rejected")
        ]
        // Everything moves on but the two oldest rows and the first of the rejected.
        const at = DUE
        yield* store.postponeDeletion(held, sighting(seenAgain, at), { at, deleteAt: DateTime.add(DUE, { millis: 1 }) })
        const receipt = yield* receiptOf(held, exposed)
        const { published: newest } = yield* store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publicationAt(at))
        const sent = yield* store.markExposed(held, prepared, at)

        const { retired } = yield* store.retire(held, permits, retirementAt(at))
        const [first] = history
        const expected = [first?.historyId, ...superseded.map(({ historyId }) => historyId), rejected.historyId]
        expect(retired.map(({ historyId }) => historyId).sort((a, b) => a - b)).toEqual(expected)
        const left = yield* historyOf(installation)
        expect(left.map(({ _tag, historyId }) => [historyId, _tag])).toEqual([
          [published.historyId, "Superseded"],
          [seenAgain.historyId, "Rejected"],
          [newest.historyId, "Published"],
          [sent.historyId, "Exposed"]
        ])
        const ids = left.map(({ historyId }) => historyId)
        expect(yield* withKeys(ids)).toEqual(ids)
        expect(yield* store.getRetired(id)).toHaveLength(expected.length)
      }))

    test("[13] [21] nothing goes before its date, whatever the permit says", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(425)
        yield* publish(held, packageOf(installation, 426))
        const { superseded } = yield* publish(held, packageOf(installation, 427))
        const rejected = yield* reject(held, packageOf(installation, 428))
        const permits = [...superseded, rejected].map((entry) => permit(entry, "Expired"))
        const before = yield* historyOf(installation)
        const early = yield* store.retire(held, permits, retirementAt(DateTime.subtract(DUE, { millis: 1 })))
        expect(early).toEqual({ retired: [], quarantined: [] })
        expectEqual(yield* historyOf(installation), before)
        const { retired } = yield* store.retire(held, permits, retirementAt(DUE))
        expect(retired).toHaveLength(2)
      }))

    test("exactly the rows that are named, each once", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(430)
        const other = yield* install(intentOf(431))
        const theirs = yield* lease(other)
        const doomed = yield* reject(theirs, packageOf(other, 432))
        const rows = yield* Effect.forEach([433, 434, 435, 436], (seed) => reject(held, packageOf(installation, seed)))
        const middle = rows.slice(1, 3)
        const permits = [...middle, ...middle, doomed].map((entry) => permit(entry, "Rejected"))
        const { retired } = yield* store.retire(held, permits, retirementAt(DUE))
        expect(retired.map(({ historyId }) => historyId).sort((a, b) => a - b)).toEqual(
          middle.map(({ historyId }) => historyId)
        )
        expectEqual(yield* historyOf(installation), [rows[0], rows[3]])
        expectEqual(yield* historyOf(other), [doomed])
        expect(yield* withKeys([doomed.historyId])).toEqual([doomed.historyId])
        expect(yield* store.getRetired(other.installationId)).toEqual([])
      }))

    test("no permit, nothing erased", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(440)
        const rejected = yield* reject(held, packageOf(installation, 441))
        const other = yield* reject(held, packageOf(installation, 442))
        const genuine = permit(rejected, "Rejected")
        const forged: ReadonlyArray<object> = [
          { row: other, reason: "Rejected" },
          { ...permit(other, "Rejected") },
          Object.create(permit(other, "Rejected")),
          sighting(other, T0)
        ]
        for (const permits of forged.map((one) => [genuine, one])) {
          const attempt = store.retire(held, permits as never, retirementAt(DUE))
          expect(yield* refused(attempt, [installation])).toMatchObject(conflict)
        }
        expect(yield* store.retire(held, [], retirementAt(DUE))).toEqual({ retired: [], quarantined: [] })
        expectEqual(yield* historyOf(installation), [rejected, other])
      }))

    test("tombstones stay until they are old enough, those of other installations too", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(445)
        const id = installation.installationId
        const other = yield* install(intentOf(446))
        const theirs = yield* lease(other)
        const retireOne = (lease: typeof held, owner: Installation, seed: number, at: DateTime.Utc) =>
          Effect.flatMap(prepare(lease, packageOf(owner, seed)), (prepared) =>
            store.retire(lease, [permit(prepared, "NeverSent")], retirementAt(at))
          )
        yield* retireOne(held, installation, 447, T0)
        yield* retireOne(held, installation, 448, after("1 second"))
        yield* retireOne(held, installation, 449, after("2 seconds"))
        yield* retireOne(theirs, other, 450, T0)
        const [first, second, third] = yield* store.getRetired(id)
        const drop = (dropBefore: DateTime.Utc) =>
          Effect.zipRight(
            store.retire(held, [], retirementAt(after("3 seconds"), dropBefore)),
            Effect.all([store.getRetired(id), store.getRetired(other.installationId)])
          )
        const [, kept] = yield* drop(DateTime.subtract(T0, { millis: 1 }))
        expect(kept).toHaveLength(1)
        expectEqual(yield* drop(DateTime.subtract(T0, { millis: 1 })), [[first, second, third], kept])
        expectEqual(yield* drop(after("1 second")), [[third], kept])
        expectEqual(yield* drop(after("1 hour")), [[], kept])
        if (first === undefined) throw new Error("no tombstone")
        expect(yield* store.findByRef(id, first.ref)).toEqual(Option.none())
      }))

    test("[71] [72] a history id is never given again, whatever was erased and dropped", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(455)
        let last = 0
        for (let seed = 456; seed < 460; seed++) {
          const prepared = yield* prepare(held, packageOf(installation, seed))
          expect(prepared.historyId).toBeGreaterThan(last)
          last = prepared.historyId
          yield* store.retire(held, [permit(prepared, "NeverSent")], retirementAt(T0))
          yield* store.retire(held, [], retirementAt(after("1 second"), T0))
          expect(yield* store.getRetired(installation.installationId)).toEqual([])
        }
      }))

    test("a retired package does not come back under its ref or its init key", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(460)
        const generated = packageOf(installation, 461)
        const fresh = packageOf(installation, 462)
        const prepared = yield* prepare(held, generated)
        yield* store.retire(held, [permit(prepared, "NeverSent")], retirementAt(T0))
        const { initKey, ref } = generated.keyPackage
        for (const changes of [{ ref }, { initKey }]) {
          const again = { ...fresh, keyPackage: { ...fresh.keyPackage, ...changes } }
          const attempt = store.insertKeyPackageHistory(held, again, insertAt(T0))
          expect(yield* refused(attempt, [installation])).toMatchObject(conflict)
        }
        yield* prepare(held, fresh)
      }))
  })

  describe("looking up a package", () => {
    test("by its ref and by both keys that a Welcome may name, in every state", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(470)
        const id = installation.installationId
        const other = yield* install(intentOf(471))
        yield* publish(held, packageOfKind(installation, 472, true))
        yield* publish(held, packageOfKind(installation, 473, false))
        yield* reject(held, packageOfKind(installation, 474, true))
        yield* expose(held, packageOfKind(installation, 475, true))
        yield* prepare(held, packageOfKind(installation, 476, true))
        const history = yield* historyOf(installation)
        expect(new Set(history.map(({ _tag }) => _tag)).size).toBe(5)
        const namesOf = ({ keyPackage }: Ledger.Kept) => [
          keyPackage.initKey,
          ...Option.toArray(keyPackage.postQuantumKey)
        ]

        for (const entry of history) {
          expectEqual(yield* store.findByRef(id, entry.keyPackage.ref), Option.some(entry))
          expect(yield* store.findByRef(other.installationId, entry.keyPackage.ref)).toEqual(Option.none())
          for (const publicKey of namesOf(entry)) {
            expectEqual(yield* store.findByWelcomeKey(id, publicKey), Option.some(entry))
            expect(yield* store.findByWelcomeKey(other.installationId, publicKey)).toEqual(Option.none())
          }
        }

        const { retired } = yield* store.retire(
          held,
          history.map((entry) => permit(entry, "Expired")),
          retirementAt(DUE)
        )
        expect(retired).toHaveLength(history.length)
        for (const entry of history) {
          const tombstone = Option.fromNullable(retired.find(({ historyId }) => historyId === entry.historyId))
          expect(Option.isSome(tombstone)).toBe(true)
          expectEqual(yield* store.findByRef(id, entry.keyPackage.ref), tombstone)
          expect(yield* store.findByRef(other.installationId, entry.keyPackage.ref)).toEqual(Option.none())
          for (const publicKey of namesOf(entry)) {
            expectEqual(yield* store.findByWelcomeKey(id, publicKey), tombstone)
            expect(yield* store.findByWelcomeKey(other.installationId, publicKey)).toEqual(Option.none())
          }
        }
      }))

    test("what no package is named by finds none", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(480)
        const id = installation.installationId
        const unknown = packageOf(installation, 481).keyPackage
        const { keyPackage } = yield* prepare(held, packageOfKind(installation, 482, true))
        const gone = yield* prepare(held, packageOfKind(installation, 483, true))
        yield* store.retire(held, [permit(gone, "NeverSent")], retirementAt(T0))
        const { initKeyHash, postQuantumKeyHash } = Ledger.retire(gone, T0, "NeverSent", sha256)
        const keys = [
          unknown.initKey,
          new Uint8Array(0),
          keyPackage.initKey.subarray(0, 31),
          Uint8Array.of(...keyPackage.initKey, 0),
          keyPackage.bytes,
          // A tombstone is found by the key, not by what it keeps of it.
          initKeyHash,
          Option.getOrThrow(postQuantumKeyHash)
        ]
        for (const key of keys) expect(yield* store.findByWelcomeKey(id, key)).toEqual(Option.none())
        expect(yield* store.findByRef(id, unknown.ref)).toEqual(Option.none())
      }))
  })

  describe("[65] a row that cannot be read", () => {
    test("is named, left out of the history, and stops nothing else", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(500)
        const id = installation.installationId
        yield* publish(held, packageOf(installation, 501))
        const broken = yield* expose(held, packageOf(installation, 502))
        const { published } = yield* publish(held, packageOf(installation, 503))
        const rejected = yield* reject(held, packageOf(installation, 504))
        const before = yield* historyOf(installation)
        const readable = before.filter(({ historyId }) => historyId !== broken.historyId)
        yield* damage(broken.historyId)

        expectEqual(yield* historyOf(installation), readable)
        const unreadable = [{ historyId: broken.historyId, column: expect.any(String) }]
        const ledger = yield* store.getLedger(id)
        expectEqual(ledger.entries, readable)
        expect(ledger.unreadable).toEqual(unreadable)
        expect(ledger.quarantined).toEqual([])
        expectEqual(yield* store.getNewest(id), Option.some(rejected))

        // Everything else goes on: a rotation, a lookup, an erasure, what is due.
        const next = yield* publish(held, packageOf(installation, 505), DUE)
        expect(next.superseded.map(({ historyId }) => historyId)).toEqual([published.historyId])
        const found = yield* store.findByRef(id, rejected.keyPackage.ref)
        expectEqual(found, Option.some(rejected))
        const permits = readable.filter(Ledger.isDoomed).map((entry) => permit(entry, "Superseded"))
        const { retired } = yield* store.retire(held, permits, retirementAt(DUE))
        expect(retired).toHaveLength(2)
        yield* store.modifySchedule(id, Schedule.requestRotation("Manual", T0, T0))
        expect(yield* store.findDue({ now: T0, limit: 1 })).toHaveLength(1)
        expect((yield* store.getLedger(id)).unreadable).toEqual(unreadable)
      }))

    test("that is the newest is said to be corrupt, until it is set aside", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(510)
        const id = installation.installationId
        const { published } = yield* publish(held, packageOf(installation, 511))
        const broken = yield* prepare(held, packageOf(installation, 512))
        yield* damage(broken.historyId)
        expect(yield* Effect.flip(store.getNewest(id))).toMatchObject({ _tag: "StorageError", reason: "Corrupt" })
        const sent = yield* Effect.either(store.markExposed(held, broken, T0))
        expect(Either.isLeft(sent)).toBe(true)

        const { unreadable } = yield* store.getLedger(id)
        const [quarantined, ...others] = yield* store.quarantine(held, unreadable, { at: T0, latest: after("1 hour") })
        expect(others).toEqual([])
        expect(quarantined).toMatchObject({
          historyId: broken.historyId,
          installationId: id,
          column: unreadable[0]?.column
        })
        expectEqual(quarantined?.quarantinedAt, T0)
        expectEqual(yield* store.getNewest(id), Option.some(published))
        expectEqual(yield* store.getLedger(id), { entries: [published], unreadable: [], quarantined: [quarantined] })
        expectEqual(yield* historyOf(installation), [published])
        // The next package is made as if it were not there.
        const next = yield* publish(held, packageOf(installation, 513))
        expect(next.superseded.map(({ historyId }) => historyId)).toEqual([published.historyId])
        expectEqual((yield* store.getLedger(id)).quarantined, [quarantined])
      }))

    test("has the date of deletion that it had, between now and the latest", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(520)
        const id = installation.installationId
        const exposed = yield* expose(held, packageOf(installation, 521))
        const late = yield* reject(held, packageOf(installation, 522))
        const middle = yield* reject(held, packageOf(installation, 523))
        const early = yield* reject(held, packageOf(installation, 524))
        yield* store.postponeDeletion(held, sighting(late, T0), { at: T0, deleteAt: after("1 day") })
        yield* store.postponeDeletion(held, sighting(middle, T0), { at: T0, deleteAt: after("3 minutes") })
        for (const { historyId } of [exposed, late, middle, early]) yield* damage(historyId)
        const [at, latest] = [after("2 minutes"), after("1 hour")]
        const { unreadable } = yield* store.getLedger(id)
        expect(unreadable).toHaveLength(4)
        const set = yield* store.quarantine(held, unreadable, { at, latest })
        const dates = new Map(set.map(({ deleteAt, historyId }) => [historyId, deleteAt]))
        const isBetween = DateTime.between(dates.get(exposed.historyId) ?? T0, { minimum: at, maximum: latest })
        expect(isBetween).toBe(true)
        expectEqual(dates.get(late.historyId), latest)
        expectEqual(dates.get(middle.historyId), after("3 minutes"))
        expectEqual(dates.get(early.historyId), at)
        expectEqual(
          (yield* store.getLedger(id)).quarantined,
          [...set].sort((a, b) => a.historyId - b.historyId)
        )
      }))

    test("is erased by its own permit, once its date has come, without a tombstone", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(530)
        const id = installation.installationId
        const broken = yield* reject(held, packageOf(installation, 531))
        const rejected = yield* reject(held, packageOf(installation, 532))
        const dueAt = after("2 minutes")
        yield* store.postponeDeletion(held, sighting(broken, T0), { at: T0, deleteAt: dueAt })
        yield* damage(broken.historyId)
        const { unreadable } = yield* store.getLedger(id)
        const ofTheRow = [
          permit(broken, "Rejected"),
          permit({ ...broken, deleteAt: dueAt }, "Rejected"),
          permit(rejected, "Rejected")
        ]
        // A permit for a row that could be read is not one for its remains.
        const unset = yield* store.retire(held, ofTheRow.slice(0, 2), retirementAt(dueAt))
        expect(unset).toEqual({ retired: [], quarantined: [] })
        const [quarantined] = yield* store.quarantine(held, unreadable, { at: T0, latest: after("1 hour") })
        if (quarantined === undefined) throw new Error("nothing was set aside")
        expectEqual(quarantined.deleteAt, dueAt)
        // Nor is one for the remains of a row that can be read.
        const { deleteAt, historyId } = rejected
        const remains = permit({ ...quarantined, deleteAt, historyId }, "Unreadable")
        expect(yield* store.retire(held, [remains], retirementAt(dueAt))).toEqual({ retired: [], quarantined: [] })
        const early = yield* store.retire(
          held,
          [permit(quarantined, "Unreadable"), ...ofTheRow],
          retirementAt(DateTime.subtract(dueAt, { millis: 1 }))
        )
        expect(early.retired.map(({ historyId }) => historyId)).toEqual([rejected.historyId])
        expect(early.quarantined).toEqual([])

        const another = permit({ ...quarantined, deleteAt: T0 }, "Unreadable")
        expect(yield* store.retire(held, [another], retirementAt(dueAt))).toEqual({ retired: [], quarantined: [] })
        const erased = yield* store.retire(held, [permit(quarantined, "Unreadable")], retirementAt(dueAt))
        expect(erased).toEqual({ retired: [], quarantined: [broken.historyId] })
        expect(yield* store.getLedger(id)).toEqual({ entries: [], unreadable: [], quarantined: [] })
        expect(yield* store.getPrivateKeys(broken.historyId)).toEqual(Option.none())
        expect((yield* store.getRetired(id)).map(({ historyId }) => historyId)).toEqual([rejected.historyId])
      }))

    test("is set aside once, and only where it really cannot be read", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(540)
        const other = yield* install(intentOf(541))
        const theirs = yield* lease(other)
        const sound = yield* prepare(held, packageOf(installation, 542))
        const broken = yield* prepare(held, packageOf(installation, 543))
        yield* damage(broken.historyId)
        const { unreadable } = yield* store.getLedger(installation.installationId)
        const options = { at: T0, latest: after("1 hour") }
        const claimed = [{ historyId: sound.historyId, column: "ref" }]
        const attempts = [
          store.quarantine(held, claimed, options),
          store.quarantine(held, [...unreadable, ...claimed], options),
          store.quarantine(held, [{ historyId: Ledger.HistoryId.make(999), column: "ref" }], options),
          store.quarantine(theirs, unreadable, options)
        ]
        for (const attempt of attempts) {
          expect(yield* refused(attempt, [installation, other])).toMatchObject(conflict)
        }
        expect(yield* store.quarantine(held, [], options)).toEqual([])
        yield* store.quarantine(held, unreadable, options)
        const again = store.quarantine(held, unreadable, options)
        expect(yield* refused(again, [installation])).toMatchObject(conflict)
      }))
  })
}
