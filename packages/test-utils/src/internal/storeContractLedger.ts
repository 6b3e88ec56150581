/** The store contract: the ledger's transitions, each with its proof. */
import { describe, expect } from "@effect/vitest"
import type { GeneratedKeyPackage } from "@keyward/core/keypackage/GeneratedKeyPackage"
import * as Ledger from "@keyward/core/lifecycle/Ledger"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
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
  prepare,
  publicationAt,
  publish,
  receiptOf,
  refused,
  reject,
  rejectionAt,
  reveal,
  T0,
  type Tools
} from "./storeContractKit.ts"

export const declare = <R>({ proofs, property, test }: Tools<R>): void => {
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
            const prepared = yield* store.insertKeyPackageHistory(held, generated, insertAt(at))
            expectEqual(prepared, {
              _tag: "Prepared",
              historyId: prepared.historyId,
              keyPackage: generated.keyPackage,
              createdAt: at,
              trigger: "Manual"
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
        yield* store.insertKeyPackageHistory(held, first, insertAt(T0))
        const change = (changes: Partial<GeneratedKeyPackage["keyPackage"]>): GeneratedKeyPackage => ({
          ...next,
          keyPackage: { ...next.keyPackage, ...changes }
        })
        const attempts = [
          prepare(held, packageOf(other, 45)),
          store.insertKeyPackageHistory(theirs, next, insertAt(T0)),
          store.insertKeyPackageHistory(held, change({ inboxId: other.inboxId }), insertAt(T0)),
          store.insertKeyPackageHistory(held, first, insertAt(T0)),
          store.insertKeyPackageHistory(held, change({ ref: first.keyPackage.ref }), insertAt(T0)),
          store.insertKeyPackageHistory(held, change({ initKey: first.keyPackage.initKey }), insertAt(T0))
        ]
        for (const attempt of attempts) {
          expect(yield* refused(attempt, [installation, other])).toMatchObject(conflict)
        }
        yield* store.insertKeyPackageHistory(held, next, insertAt(T0))
      }))

    test("[3] Prepared becomes Exposed once, from its own row and installation", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(50)
        const other = yield* install(intentOf(51))
        const theirs = yield* lease(other)
        const prepared = yield* prepare(held, packageOf(installation, 52))
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

    test("a row says what it was made for", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(54)
        for (const [index, trigger] of Ledger.RotationTrigger.literals.entries()) {
          const generated = packageOf(installation, 540 + index)
          const prepared = yield* store.insertKeyPackageHistory(held, generated, insertAt(T0, trigger))
          const exposed = yield* store.markExposed(held, prepared, T0)
          expect([prepared.trigger, exposed.trigger]).toEqual([trigger, trigger])
          expectEqual(yield* store.getNewest(installation.installationId), Option.some(exposed))
        }
      }))

    test("[6] publishing supersedes the earlier live rows, keeps their keys, and leaves all others alone", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(60)
        const other = yield* install(intentOf(61))
        const theirs = yield* lease(other)
        const untouched = yield* publish(theirs, packageOf(other, 62))

        const first = yield* publish(held, packageOf(installation, 63))
        expect(first.superseded).toEqual([])
        const second = yield* publish(held, packageOf(installation, 68))
        const rejected = yield* reject(held, packageOf(installation, 69))
        const waiting = yield* prepare(held, packageOf(installation, 64))
        const unknown = yield* expose(held, packageOf(installation, 65))
        const at = after("1 minute")
        const candidate = yield* prepare(held, packageOf(installation, 66), at)
        const newer = yield* prepare(held, packageOf(installation, 67), at)
        const receipt = yield* receiptOf(held, candidate)
        const deleteAt = after("3 minutes")
        const publication = publicationAt(at, { deleteAt: Option.some(deleteAt) })
        const marked = yield* store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publication)

        expectEqual(marked.published, Ledger.publish(receipt.exposed, at))
        expectEqual(
          marked.superseded,
          [second.published, waiting, unknown].map((entry) => Ledger.supersede(entry, marked.published, at, deleteAt))
        )
        const [superseded, ...others] = marked.superseded
        expectEqual(yield* store.getHistory(installation.installationId), [
          ...second.superseded,
          superseded,
          rejected,
          ...others,
          marked.published,
          newer
        ])
        for (const { historyId } of yield* store.getHistory(installation.installationId)) {
          expect(Option.isSome(yield* store.getPrivateKeys(historyId))).toBe(true)
        }
        expectEqual(yield* store.getHistory(other.installationId), [untouched.published])
      }))

    test("[54] a publication clears the requests that it has served, and those that came in meanwhile stay", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(160)
        const id = installation.installationId
        const startedAt = after("1 second")
        yield* store.modifySchedule(id, Schedule.requestRotation("Manual", T0, T0))
        const receipt = yield* receiptOf(held, yield* prepare(held, packageOf(installation, 161)))
        const meanwhile = after("2 seconds")
        const asked = yield* store.modifySchedule(id, Schedule.requestRotation("Queued", meanwhile, meanwhile))
        const reschedule = Schedule.published({
          startedAt,
          madeAt: startedAt,
          rotateAt: after("30 days"),
          probeAt: after("1 day")
        })
        yield* store.markKeyPackagesBeforeIdToBeDeleted(
          held,
          receipt,
          publicationAt(after("3 seconds"), { reschedule })
        )
        const { schedule } = Option.getOrThrow(yield* store.getInstallation(id))
        expectEqual(schedule, reschedule(asked))
        expect(schedule.requests.map(({ trigger }) => trigger)).toEqual(["Queued"])
      }))

    test("[28] without a date the earlier rows stay as they are, until the network is seen to serve the new one", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(162)
        const id = installation.installationId
        const { published: first } = yield* publish(held, packageOf(installation, 163))
        const waiting = yield* prepare(held, packageOf(installation, 164))
        const receipt = yield* receiptOf(held, yield* prepare(held, packageOf(installation, 165)))
        const accepted = yield* store.markKeyPackagesBeforeIdToBeDeleted(
          held,
          receipt,
          publicationAt(after("1 second"), { deleteAt: Option.none() })
        )
        expectEqual(accepted, { published: Ledger.publish(receipt.exposed, after("1 second")), superseded: [] })
        expectEqual(yield* store.getHistory(id), [first, waiting, accepted.published])

        const at = after("2 seconds")
        const seen = proofs.sighting(accepted.published, at)
        const confirmed = yield* store.markKeyPackagesBeforeIdToBeDeleted(held, seen, publicationAt(at))
        const superseded = [first, waiting].map((entry) =>
          Ledger.supersede(entry, accepted.published, at, DateTime.addDuration(at, GRACE))
        )
        expectEqual(confirmed, { published: accepted.published, superseded })
        expectEqual(yield* store.getHistory(id), [...superseded, accepted.published])
        // It may be seen again and again, and was published once.
        const later = after("3 seconds")
        const again = proofs.sighting(accepted.published, later)
        expectEqual(yield* store.markKeyPackagesBeforeIdToBeDeleted(held, again, publicationAt(later)), {
          published: accepted.published,
          superseded: []
        })
        expectEqual(yield* store.getHistory(id), [...superseded, accepted.published])
      }))

    test("[22] a sighting publishes what was sent and never acknowledged, and what was refused", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(166)
        const id = installation.installationId
        const { published: first } = yield* publish(held, packageOf(installation, 167))
        const exposed = yield* expose(held, packageOf(installation, 168))
        const rejected = yield* reject(held, packageOf(installation, 169))
        const newer = yield* prepare(held, packageOf(installation, 170))

        const at = after("1 second")
        const sent = yield* store.markKeyPackagesBeforeIdToBeDeleted(
          held,
          proofs.sighting(exposed, at),
          publicationAt(at)
        )
        const deleteAt = DateTime.addDuration(at, GRACE)
        expectEqual(sent.published, Ledger.publish(exposed, at))
        expectEqual(sent.superseded, [Ledger.supersede(first, sent.published, at, deleteAt)])
        expectEqual(yield* store.getHistory(id), [...sent.superseded, sent.published, rejected, newer])

        const afterAll = yield* store.markKeyPackagesBeforeIdToBeDeleted(
          held,
          proofs.sighting(rejected, at),
          publicationAt(at)
        )
        expectEqual(afterAll.published, Ledger.publish(rejected, at))
        expectEqual(afterAll.superseded, [Ledger.supersede(sent.published, afterAll.published, at, deleteAt)])
        expectEqual(yield* store.getHistory(id), [
          ...sent.superseded,
          ...afterAll.superseded,
          afterAll.published,
          newer
        ])
      }))

    test("a sighting of a row that was published meanwhile still holds", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(171)
        const exposed = yield* expose(held, packageOf(installation, 172))
        const receipt = yield* receiptOf(held, exposed)
        const { published } = yield* store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publicationAt(T0))
        const seen = proofs.sighting(exposed, T0)
        expectEqual(yield* store.markKeyPackagesBeforeIdToBeDeleted(held, seen, publicationAt(after("1 second"))), {
          published,
          superseded: []
        })
      }))

    test("a sighting publishes nothing that was never sent or is superseded, nor a row of another installation", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(173)
        const other = yield* install(intentOf(174))
        const theirs = yield* lease(other)
        const { published: first } = yield* publish(held, packageOf(installation, 175))
        const { superseded } = yield* publish(held, packageOf(installation, 176))
        const prepared = yield* prepare(held, packageOf(installation, 177))
        const exposed = yield* expose(held, packageOf(installation, 178))
        const attempts = [
          [held, prepared],
          [held, first],
          ...superseded.map((entry) => [held, entry] as const),
          [theirs, exposed],
          [held, { ...exposed, historyId: Ledger.HistoryId.make(999) }],
          [held, { ...exposed, keyPackage: packageOf(installation, 179).keyPackage }]
        ] as const
        for (const [lease, entry] of attempts) {
          const mark = store.markKeyPackagesBeforeIdToBeDeleted(lease, proofs.sighting(entry, T0), publicationAt(T0))
          expect(yield* refused(mark, [installation, other])).toMatchObject(conflict)
        }
      }))

    test("[27] Exposed becomes Rejected, keeps its keys, and no publication changes its date", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(180)
        const id = installation.installationId
        const exposed = yield* expose(held, packageOf(installation, 181))
        const receipt = yield* receiptOf(held, exposed)
        const [at, deleteAt] = [after("1 second"), after("1 day")]
        const reschedule = Schedule.requestCleaning(deleteAt)
        const rejected = yield* store.markRejected(held, exposed, { at, deleteAt, reschedule })
        expectEqual(rejected, Ledger.reject(exposed, at, deleteAt))
        const { schedule } = Option.getOrThrow(yield* store.getInstallation(id))
        expectEqual(schedule, reschedule(Schedule.empty))
        expect(Option.isSome(yield* store.getPrivateKeys(exposed.historyId))).toBe(true)
        // Only a sighting brings it back: a receipt is of bytes that were not refused yet.
        const late = store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publicationAt(at))
        expect(yield* refused(late, [installation])).toMatchObject(conflict)
        const { published } = yield* publish(held, packageOf(installation, 182), at)
        expectEqual(yield* store.getHistory(id), [rejected, published])
      }))

    test("nothing else is rejected", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(183)
        const other = yield* install(intentOf(184))
        const theirs = yield* lease(other)
        yield* publish(held, packageOf(installation, 185))
        const { published, superseded } = yield* publish(held, packageOf(installation, 186))
        const rejected = yield* reject(held, packageOf(installation, 187))
        const prepared = yield* prepare(held, packageOf(installation, 188))
        const exposed = yield* expose(held, packageOf(installation, 189))
        for (const entry of [published, ...superseded, rejected, prepared]) {
          const attempt = store.markRejected(held, { ...entry, _tag: "Exposed", exposedAt: T0 }, rejectionAt(T0))
          expect(yield* refused(attempt, [installation])).toMatchObject(conflict)
        }
        const attempt = store.markRejected(theirs, exposed, rejectionAt(T0))
        expect(yield* refused(attempt, [installation, other])).toMatchObject(conflict)
      }))

    test("[32] a row that waits for its deletion waits longer, never less long", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(190)
        const id = installation.installationId
        yield* publish(held, packageOf(installation, 191))
        const { published, superseded } = yield* publish(held, packageOf(installation, 192))
        const rejected = yield* reject(held, packageOf(installation, 193))
        const dates = [after("2 minutes"), after("90 seconds"), after("3 minutes"), T0]
        const latest = [dates[0], dates[0], dates[2], dates[2]] as const
        for (const doomed of [...superseded, rejected]) {
          for (const [index, deleteAt] of dates.entries()) {
            // The sighting is of the row as it was first read, whatever was postponed since.
            const seen = proofs.sighting(doomed, T0)
            const postponed = yield* store.postponeDeletion(held, seen, { at: T0, deleteAt })
            expectEqual(postponed, { ...doomed, deleteAt: latest[index] })
          }
        }
        const expected = [...superseded, published, rejected].map((entry) =>
          Ledger.isDoomed(entry) ? { ...entry, deleteAt: after("3 minutes") } : entry
        )
        expectEqual(yield* store.getHistory(id), expected)
      }))

    test("a row that waits for no deletion, or is another installation's, is not postponed", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(194)
        const other = yield* install(intentOf(195))
        const theirs = yield* lease(other)
        const { published } = yield* publish(held, packageOf(installation, 196))
        const rejected = yield* reject(held, packageOf(installation, 197))
        const prepared = yield* prepare(held, packageOf(installation, 198))
        const exposed = yield* expose(held, packageOf(installation, 199))
        const options = { at: T0, deleteAt: after("1 day") }
        const attempts = [
          ...[published, prepared, exposed].map((entry) => [held, entry] as const),
          [theirs, rejected] as const
        ]
        for (const [lease, entry] of attempts) {
          const attempt = store.postponeDeletion(lease, proofs.sighting(entry, T0), options)
          expect(yield* refused(attempt, [installation, other])).toMatchObject(conflict)
        }
      }))

    test("[24] a receipt is good for one publication", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(70)
        const prepared = yield* prepare(held, packageOf(installation, 71))
        const receipt = yield* receiptOf(held, prepared)
        const mark = store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publicationAt(T0))
        yield* mark
        expect(yield* refused(mark, [installation])).toMatchObject(conflict)
      }))

    test("[23] an acceptance that arrives after a later publication marks nothing", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(72)
        const early = yield* prepare(held, packageOf(installation, 73))
        const late = yield* receiptOf(held, early)
        yield* publish(held, packageOf(installation, 74))
        const mark = store.markKeyPackagesBeforeIdToBeDeleted(held, late, publicationAt(T0))
        expect(yield* refused(mark, [installation])).toMatchObject(conflict)
      }))

    test("what only looks like a proof, or proves something else, marks and postpones nothing", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(75)
        const rejected = yield* reject(held, packageOf(installation, 74))
        const exposed = yield* expose(held, packageOf(installation, 76))
        const receipt = yield* receiptOf(held, exposed)
        const forged: ReadonlyArray<object> = [
          { lease: held, exposed, acceptedAt: T0 },
          { entry: exposed, seenAt: T0 },
          { ...receipt },
          Object.create(receipt),
          proofs.permit(exposed, "Expired")
        ]
        for (const proof of forged) {
          const mark = store.markKeyPackagesBeforeIdToBeDeleted(held, proof as never, publicationAt(T0))
          expect(yield* refused(mark, [installation])).toMatchObject(conflict)
        }
        for (const proof of [{ entry: rejected, seenAt: T0 }, { ...proofs.sighting(rejected, T0) }, receipt]) {
          const options = { at: T0, deleteAt: after("1 day") }
          const attempt = store.postponeDeletion(held, proof as never, options)
          expect(yield* refused(attempt, [installation])).toMatchObject(conflict)
        }
      }))

    test("a receipt of another installation marks nothing", () =>
      Effect.gen(function* () {
        const { store, installation, held } = yield* leased(77)
        const other = yield* install(intentOf(78))
        const theirs = yield* lease(other)
        const prepared = yield* prepare(theirs, packageOf(other, 79))
        const receipt = yield* receiptOf(theirs, prepared)
        const mark = store.markKeyPackagesBeforeIdToBeDeleted(held, receipt, publicationAt(T0))
        expect(yield* refused(mark, [installation, other])).toMatchObject(conflict)
      }))

    test("what is answered is what is stored: times are whole milliseconds in both", () =>
      Effect.gen(function* () {
        const { store, held, installation } = yield* leased(200)
        const id = installation.installationId
        const at = after(Duration.millis(1_000.75))
        const first = yield* publish(held, packageOf(installation, 201), at)
        const second = yield* publish(held, packageOf(installation, 202), at)
        const rejected = yield* reject(held, packageOf(installation, 203), at)
        expectEqual(yield* store.getHistory(id), [...second.superseded, second.published, rejected])
        expect(second.superseded.map(({ historyId }) => historyId)).toEqual([first.published.historyId])
        const options = { at, deleteAt: DateTime.addDuration(at, "1 hour") }
        const postponed = yield* store.postponeDeletion(held, proofs.sighting(rejected, at), options)
        expectEqual(yield* store.getNewest(id), Option.some(postponed))
        const { createdAt, exposedAt, publishedAt } = first.published
        const times = [createdAt, exposedAt, publishedAt, rejected.rejectedAt, rejected.deleteAt, postponed.deleteAt]
        const dates = second.superseded.flatMap(({ deleteAt, supersededAt }) => [deleteAt, supersededAt])
        expect([...times, ...dates].map((time) => DateTime.toEpochMillis(time) % 1)).toEqual(Array(8).fill(0))
      }))

    test("[1] [5] a call that is interrupted has happened or has not: no row without its keys, no keys without their row", () =>
      Effect.gen(function* () {
        const { store, held, installation } = yield* leased(204)
        const fibers = yield* Effect.forEach(
          Array.from({ length: 20 }, (_, index) => packageOf(installation, 205 + index)),
          (generated, index) =>
            Effect.fork(
              index % 2 === 0 ? Effect.zipLeft(prepare(held, generated), Effect.never) : prepare(held, generated)
            )
        )
        yield* Effect.yieldNow()
        yield* Fiber.interruptAll(fibers.filter((_, index) => index % 2 === 0))
        yield* Effect.forEach(fibers, Fiber.await)
        const history = yield* store.getHistory(installation.installationId)
        expect(history.length).toBeGreaterThanOrEqual(10)
        const last = Math.max(...history.map(({ historyId }) => historyId))
        const withRow = new Set(history.map(({ historyId }) => historyId))
        for (let id = 1; id <= last + 1; id++) {
          const historyId = Ledger.HistoryId.make(id)
          expect(Option.isSome(yield* store.getPrivateKeys(historyId))).toBe(withRow.has(historyId))
        }
      }))
  })
}
