/** The store contract: any order of writes, also wrong ones, against the transitions of the ledger and the schedule. */
import { describe, expect } from "@effect/vitest"
import type { Installation } from "@keyward/core/lifecycle/Installation"
import type * as Lease from "@keyward/core/lifecycle/Lease"
import * as Ledger from "@keyward/core/lifecycle/Ledger"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { KeyPackageStore, type Reschedule } from "@keyward/core/ports/KeyPackageStore"
import { sha256 } from "@noble/hashes/sha2.js"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import {
  after,
  conflict,
  expectEqual,
  insertAt,
  install,
  intentOf,
  lease,
  packageOf,
  receiptOf,
  T0,
  type Tools
} from "./storeContractKit.ts"

/** One write of one of two installations. */
interface Command {
  readonly write: "insert" | "expose" | "accept" | "see" | "reject" | "postpone" | "retire" | "request"
  readonly whose: 0 | 1
  /** Which row it is about, counted from the oldest that ever was. */
  readonly which: number
  /** How much older the caller's idea of that row is than the row: 0 is the row as it is now. */
  readonly staleness: number
  /** How many seconds later the keys may go, where the write says so. */
  readonly wait: number
  /** Whether a publication supersedes, and whether an erasure drops tombstones. */
  readonly isThorough: boolean
}

const command: FastCheck.Arbitrary<Command> = FastCheck.record({
  write: FastCheck.oneof(
    { weight: 4, arbitrary: FastCheck.constantFrom<Command["write"]>("insert", "expose") },
    {
      weight: 6,
      arbitrary: FastCheck.constantFrom<Command["write"]>("accept", "see", "reject", "postpone", "retire", "request")
    }
  ),
  whose: FastCheck.constantFrom(0, 1),
  which: FastCheck.nat(5),
  staleness: FastCheck.oneof(
    { weight: 3, arbitrary: FastCheck.constant(0) },
    { weight: 1, arbitrary: FastCheck.nat(2) }
  ),
  wait: FastCheck.nat(15),
  isThorough: FastCheck.boolean()
})

/** What one installation has, by the pure transitions alone. */
class Model {
  rows: ReadonlyArray<Ledger.Kept> = []
  retired: ReadonlyArray<Ledger.Retired> = []
  schedule: Schedule.Schedule = Schedule.empty
  /** Every state that each row has had, oldest first. */
  readonly versions = new Map<Ledger.HistoryId, Array<Ledger.Kept>>()

  row(id: Ledger.HistoryId): Ledger.Kept | undefined {
    return this.rows.find(({ historyId }) => historyId === id)
  }
  set(entry: Ledger.Kept): void {
    const versions = this.versions.get(entry.historyId)
    if (versions === undefined) {
      this.versions.set(entry.historyId, [entry])
      this.rows = [...this.rows, entry]
    } else {
      versions.push(entry)
      this.rows = this.rows.map((row) => (row.historyId === entry.historyId ? entry : row))
    }
  }
  retire(entry: Ledger.Kept, at: DateTime.Utc, reason: Ledger.RetirementReason): Ledger.Retired {
    const tombstone = Ledger.retire(entry, at, reason, sha256)
    this.rows = this.rows.filter((row) => row !== entry)
    this.retired = [...this.retired, tombstone].sort((a, b) => a.historyId - b.historyId)
    return tombstone
  }
  /** The rows that a publication of this one supersedes. */
  supersede(by: Ledger.Published, at: DateTime.Utc, deleteAt: DateTime.Utc): ReadonlyArray<Ledger.Superseded> {
    const superseded = this.rows
      .filter((row) => row.historyId < by.historyId)
      .filter(Ledger.isLive)
      .map((row) => Ledger.supersede(row, by, at, deleteAt))
    for (const entry of superseded) this.set(entry)
    return superseded
  }
}

export const declare = <R>({ proofs, property }: Tools<R>): void => {
  describe("any order of writes", () => {
    property(
      "does what the transitions of the ledger and the schedule say, or nothing",
      FastCheck.array(command, { minLength: 10, maxLength: 30, size: "max" }),
      (commands) =>
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const owners = yield* Effect.forEach([90, 91], (seed) => install(intentOf(seed)))
          const leases = yield* Effect.forEach(owners, (owner) => lease(owner))
          const models = owners.map(() => new Model())
          const receipts = new Map<number, Effect.Effect.Success<ReturnType<typeof receiptOf>>>()

          for (const [step, { isThorough, staleness, wait, which, whose, write }] of commands.entries()) {
            const at = after(`${step} seconds`)
            const deleteAt = DateTime.add(at, { seconds: wait })
            const owner = owners[whose] as Installation
            const held = leases[whose] as Lease.Lease
            const model = models[whose] as Model
            const ids = [...model.versions.keys()]
            const versions = model.versions.get(ids[which % Math.max(1, ids.length)] as Ledger.HistoryId) ?? []
            const known = versions.at(-1 - (staleness % Math.max(1, versions.length)))
            const row = known === undefined ? undefined : model.row(known.historyId)
            const request = Schedule.requestRotation("Queued", at, deleteAt)
            const refused = <A, E, R2>(attempt: Effect.Effect<A, E, R2>) =>
              Effect.map(Effect.flip(attempt), (error) => expect(error).toMatchObject(conflict))

            if (write === "insert") {
              const generated = packageOf(owner, 1_000 + step)
              const options = { ...insertAt(at, "Queued"), reschedule: request }
              const prepared = yield* store.insertKeyPackageHistory(held, generated, options)
              const { keyPackage } = generated
              const { historyId } = prepared
              expectEqual(prepared, Ledger.prepare({ historyId, keyPackage, createdAt: at, trigger: "Queued" }))
              model.set(prepared)
              model.schedule = request(model.schedule)
            } else if (write === "request") {
              model.schedule = request(model.schedule)
              expectEqual(yield* store.modifySchedule(owner.installationId, request), model.schedule)
            } else if (known === undefined) {
              // Every other write is about a row, and there is none yet.
            } else if (write === "expose") {
              const attempt = store.markExposed(held, { ...known, _tag: "Prepared" }, at)
              if (row?._tag === "Prepared") {
                const exposed = Ledger.expose(row, at)
                expectEqual(yield* attempt, exposed)
                model.set(exposed)
                receipts.set(row.historyId, yield* receiptOf(held, exposed))
              } else {
                yield* refused(attempt)
              }
            } else if (write === "accept" || write === "see") {
              const receipt = receipts.get(known.historyId)
              const proof = write === "accept" ? receipt : proofs.sighting(known, at)
              if (proof === undefined) continue
              const reschedule: Reschedule = Schedule.published({
                startedAt: at,
                madeAt: at,
                rotateAt: deleteAt,
                probeAt: at
              })
              const attempt = store.markKeyPackagesBeforeIdToBeDeleted(held, proof, {
                at,
                deleteAt: isThorough ? Option.some(deleteAt) : Option.none(),
                reschedule
              })
              const published =
                row?._tag === "Exposed" || (row?._tag === "Rejected" && write === "see")
                  ? Ledger.publish(row, at)
                  : row?._tag === "Published" && write === "see"
                    ? row
                    : undefined
              if (published === undefined) {
                yield* refused(attempt)
              } else {
                model.set(published)
                const superseded = isThorough ? model.supersede(published, at, deleteAt) : []
                expectEqual(yield* attempt, { published, superseded })
                model.schedule = reschedule(model.schedule)
              }
            } else if (write === "reject") {
              const reschedule = Schedule.requestCleaning(deleteAt)
              const exposed = { ...known, _tag: "Exposed" as const, exposedAt: at }
              const attempt = store.markRejected(held, exposed, { at, deleteAt, reschedule })
              if (row?._tag === "Exposed") {
                const rejected = Ledger.reject(row, at, deleteAt)
                expectEqual(yield* attempt, rejected)
                model.set(rejected)
                model.schedule = reschedule(model.schedule)
              } else {
                yield* refused(attempt)
              }
            } else if (write === "postpone") {
              const attempt = store.postponeDeletion(held, proofs.sighting(known, at), { at, deleteAt })
              if (row !== undefined && Ledger.isDoomed(row)) {
                const postponed = Ledger.postpone(row, DateTime.max(row.deleteAt, deleteAt))
                expectEqual(yield* attempt, postponed)
                model.set(postponed)
              } else {
                yield* refused(attempt)
              }
            } else {
              // A permit for the row as the caller knows it, and the oldest row's as it is.
              const seen = [known, ...model.rows.slice(0, 1)]
              const dropBefore = isThorough
                ? DateTime.subtract(at, { seconds: wait })
                : DateTime.subtract(T0, { days: 1 })
              const reschedule: Reschedule = (schedule) => ({ ...schedule, cleanAt: Option.none() })
              const permits = seen.map((entry) => proofs.permit(entry, "Expired"))
              const { quarantined, retired } = yield* store.retire(held, permits, { at, dropBefore, reschedule })
              const expected = model.rows
                .filter((row) =>
                  seen.some((entry) => {
                    if (entry.historyId !== row.historyId || entry._tag !== row._tag) return false
                    if (!Ledger.isDoomed(row) || !Ledger.isDoomed(entry)) return true
                    return (
                      DateTime.Equivalence(entry.deleteAt, row.deleteAt) && DateTime.lessThanOrEqualTo(row.deleteAt, at)
                    )
                  })
                )
                .map((row) => model.retire(row, at, "Expired"))
              expectEqual(
                [...retired].sort((a, b) => a.historyId - b.historyId),
                expected
              )
              expect(quarantined).toEqual([])
              model.retired = model.retired.filter(({ retiredAt }) => DateTime.greaterThan(retiredAt, dropBefore))
              model.schedule = reschedule(model.schedule)
            }

            for (const [index, { installationId }] of owners.entries()) {
              expectEqual(yield* store.getHistory(installationId), models[index]?.rows)
            }
            const stored = yield* store.getInstallation(owner.installationId)
            expectEqual(Option.getOrThrow(stored).schedule, model.schedule)
            expectEqual(yield* store.getRetired(owner.installationId), model.retired)
          }

          for (const [index, { installationId }] of owners.entries()) {
            const { retired, rows, versions } = models[index] as Model
            expectEqual(yield* store.getRetired(installationId), retired)
            expectEqual(yield* store.getNewest(installationId), Option.fromNullable(rows.at(-1)))
            const kept = new Set(rows.map(({ historyId }) => historyId))
            for (const historyId of versions.keys()) {
              expect(Option.isSome(yield* store.getPrivateKeys(historyId))).toBe(kept.has(historyId))
            }
          }
        })
    )
  })
}
