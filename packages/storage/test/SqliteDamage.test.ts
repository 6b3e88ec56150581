/**
 * What other hands have done to a database: each row that cannot be read is named, set aside and erased on its date, and
 * stops nothing else.
 */
import { describe, expect, it } from "@effect/vitest"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { HistoryId } from "@keyward/core/lifecycle/Ledger"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as Arbitraries from "@keyward/test-utils/Arbitraries"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import {
  atT0,
  filename,
  insertion,
  installed,
  packageOf,
  populate,
  proofs,
  one as randomOne,
  rotate,
  T0,
  withSql,
  withStore
} from "./fixture.ts"

/** Other hands that no check stops. */
const damage = (file: string, ...statements: ReadonlyArray<string>) =>
  withSql(file, (sql) =>
    Effect.forEach(
      ["PRAGMA ignore_check_constraints = ON", "PRAGMA foreign_keys = OFF", ...statements],
      (statement) => sql.unsafe(statement),
      { discard: true }
    )
  )

const dayMillis = 86_400_000
const T0_MILLIS = DateTime.toEpochMillis(T0)
const latest = DateTime.add(T0, { days: 100 })

/** Quarantines whatever cannot be read, of one installation. */
const quarantineAll = (id: InstallationId, lease: Parameters<KeyPackageStore["Type"]["quarantine"]>[0]) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const { unreadable } = yield* store.getLedger(id)
    return yield* store.quarantine(lease, unreadable, { at: T0, latest })
  })

describe("a row of the ledger", () => {
  const edits: ReadonlyArray<readonly [column: string, edit: string]> = [
    ["state", "state = 'Published, surely'"],
    ["rotation_trigger", "rotation_trigger = 'Whim'"],
    ["exposed_at", "state = 'Exposed', exposed_at = NULL"],
    ["ref", "ref = 'xyz'"],
    ["init_key", "init_key = x'00'"],
    ["post_quantum_key", "post_quantum_key = x'0102'"],
    ["not_after", "not_after = -1"],
    ["not_after", "not_after = 9223372036854775807"],
    ["delete_at", "state = 'Exposed', exposed_at = 1, delete_at = 1"],
    ["rejected_at", "state = 'Exposed', exposed_at = 1, rejected_at = 1"],
    ["superseded_by", "state = 'Superseded', superseded_at = 1, delete_at = 1"],
    ["created_at", "created_at = 9223372036854775807"]
  ]
  for (const [column, edit] of edits) {
    it.effect(`[65] ${edit}: is named, set aside and erased, and stops nothing else`, () =>
      Effect.gen(function* () {
        yield* atT0
        const file = yield* filename
        const { one, two } = yield* withStore(file, populate)
        const id = one.installation.installationId
        yield* damage(file, `UPDATE keyward_key_packages SET ${edit} WHERE history_id = 3`)
        yield* withStore(
          file,
          Effect.gen(function* () {
            const store = yield* KeyPackageStore
            const before = yield* store.getLedger(id)
            expect(before.unreadable).toEqual([{ historyId: 3, column }])
            expect(before.quarantined).toEqual([])
            expect(before.entries.map(({ historyId }) => Number(historyId))).toEqual([1, 2, 4])
            expect(yield* store.getHistory(id)).toEqual(before.entries)
            expect((yield* store.getLedger(two.installation.installationId)).unreadable).toEqual([])

            // A rotation goes on beside it, and leaves it as it is.
            const marked = yield* rotate(one.installation, one.lease, 20)
            expect(marked.superseded.map(({ historyId }) => Number(historyId))).toEqual([2, 4])

            const [row, ...others] = yield* quarantineAll(id, one.lease)
            if (row === undefined) return yield* Effect.dieMessage("nothing was set aside")
            expect(others).toEqual([])
            expect(row).toMatchObject({ historyId: 3, installationId: id, column, quarantinedAt: T0 })
            expect(Option.isSome(row.ref)).toBe(column !== "ref")
            expect(DateTime.between(row.deleteAt, { minimum: T0, maximum: latest })).toBe(true)

            const set = yield* store.getLedger(id)
            expect(set.unreadable).toEqual([])
            expect(set.quarantined).toEqual([row])
            expect((yield* store.getHistory(id)).map(({ historyId }) => Number(historyId))).toEqual([1, 2, 4, 6])
            expect(
              yield* store.findByRef(
                id,
                Option.getOrElse(row.ref, () => "xyz" as never)
              )
            ).toEqual(Option.none())

            const permits = [proofs.permit(row, "Unreadable")]
            const options = { dropBefore: DateTime.unsafeMake(0), reschedule: identity }
            // Nothing before its date.
            if (DateTime.lessThan(T0, row.deleteAt)) {
              const early = yield* store.retire(one.lease, permits, { ...options, at: T0 })
              expect(early).toEqual({ retired: [], quarantined: [] })
            }
            const later = yield* store.acquireLease(id, { now: latest, duration: Duration.minutes(5) })
            const erased = yield* store.retire(later, permits, { ...options, at: latest })
            expect(erased).toEqual({ retired: [], quarantined: [3] })
            expect((yield* store.getLedger(id)).quarantined).toEqual([])
            expect(yield* store.getPrivateKeys(row.historyId)).toEqual(Option.none())
          })
        )
        const left = yield* withSql(file, (sql) =>
          Effect.all(
            ["keyward_key_packages", "keyward_private_keys", "keyward_quarantined_key_packages"].map((table) =>
              sql.unsafe(`SELECT 1 FROM ${table} WHERE history_id = 3`)
            )
          )
        )
        expect(left).toEqual([[], [], []])
      }).pipe(Effect.scoped)
    )
  }

  const dates: ReadonlyArray<readonly [title: string, edit: string, deleteAt: number]> = [
    ["its own, within the limits", `delete_at = ${T0_MILLIS + 5 * dayMillis}`, T0_MILLIS + 5 * dayMillis],
    ["its own has passed: now", "delete_at = 5", T0_MILLIS],
    ["its own is too late: the latest", `delete_at = ${T0_MILLIS + 5000 * dayMillis}`, DateTime.toEpochMillis(latest)],
    [
      "none: the end of its lifetime",
      `delete_at = NULL, not_after = ${T0_MILLIS / 1000 + 3 * 86_400}`,
      T0_MILLIS + 3 * dayMillis
    ],
    [
      "no time at all: the end of its lifetime",
      `delete_at = 9223372036854775807, not_after = ${T0_MILLIS / 1000 + 86_400}`,
      T0_MILLIS + dayMillis
    ],
    ["neither: the latest", "delete_at = NULL, not_after = 9223372036854775807", DateTime.toEpochMillis(latest)],
    ["a lifetime that is over says nothing", "delete_at = NULL, not_after = 0", DateTime.toEpochMillis(latest)]
  ]
  for (const [title, edit, expected] of dates) {
    it.effect(`[65] gets a date of deletion from its raw columns: ${title}`, () =>
      Effect.gen(function* () {
        yield* atT0
        const file = yield* filename
        const { one } = yield* withStore(file, populate)
        yield* damage(file, `UPDATE keyward_key_packages SET state = 'Lost', ${edit} WHERE history_id = 1`)
        const set = yield* withStore(file, quarantineAll(one.installation.installationId, one.lease))
        expect(set.map(({ deleteAt }) => DateTime.toEpochMillis(deleteAt))).toEqual([expected])
      }).pipe(Effect.scoped)
    )
  }

  it.effect("[65] that is the newest is Corrupt until it is set aside, and then the one before it is", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one } = yield* withStore(file, populate)
      const id = one.installation.installationId
      yield* damage(file, "UPDATE keyward_key_packages SET created_at = 9223372036854775807 WHERE history_id = 4")
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const error = yield* Effect.flip(store.getNewest(id))
          expect(error).toMatchObject({
            operation: "getNewest",
            reason: "Corrupt",
            detail: "table keyward_key_packages, row 4, column created_at"
          })
          expect(error.cause).toBeUndefined()
          yield* quarantineAll(id, one.lease)
          expect(Option.map(yield* store.getNewest(id), ({ historyId }) => Number(historyId))).toEqual(Option.some(3))
        })
      )
    }).pipe(Effect.scoped)
  )

  it.effect("[65] whose note of being set aside is damaged is set aside again", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one } = yield* withStore(file, populate)
      const id = one.installation.installationId
      yield* damage(file, "UPDATE keyward_key_packages SET state = 'Lost' WHERE history_id = 3")
      yield* withStore(file, quarantineAll(id, one.lease))
      yield* damage(file, "UPDATE keyward_quarantined_key_packages SET delete_at = 9223372036854775807")
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          expect((yield* store.getLedger(id)).unreadable).toEqual([{ historyId: 3, column: "quarantine_delete_at" }])
          expect(yield* quarantineAll(id, one.lease)).toHaveLength(1)
          expect((yield* store.getLedger(id)).quarantined).toHaveLength(1)
        })
      )
    }).pipe(Effect.scoped)
  )

  it.effect("[71] whose id no HistoryId can have is left alone, and stops nothing", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one } = yield* withStore(file, populate)
      const id = one.installation.installationId
      yield* damage(
        file,
        "UPDATE keyward_private_keys SET history_id = -7 WHERE history_id = 3",
        "UPDATE keyward_key_packages SET history_id = -7 WHERE history_id = 3"
      )
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          expect((yield* store.getLedger(id)).unreadable).toEqual([{ historyId: -7, column: "history_id" }])
          yield* rotate(one.installation, one.lease, 20)
          const [row] = yield* quarantineAll(id, one.lease)
          expect(row?.historyId).toBe(-7)
        })
      )
    }).pipe(Effect.scoped)
  )
})

describe("history ids", () => {
  for (const id of ["9007199254740993", "9223372036854775807", "-9223372036854775808"]) {
    it.effect(`[71] [72] ${id}, which no number can name, is found, set aside, and keeps nobody from going on`, () =>
      Effect.gen(function* () {
        yield* atT0
        const file = yield* filename
        const { one } = yield* withStore(file, populate)
        const { installationId } = one.installation
        yield* damage(
          file,
          `UPDATE keyward_private_keys SET history_id = ${id} WHERE history_id = 2`,
          // A row that no check would let through either.
          `UPDATE keyward_key_packages SET history_id = ${id}, state = 'Superseded', delete_at = 7 WHERE history_id = 2`,
          "UPDATE keyward_installations SET due_at = NULL"
        )
        yield* withStore(
          file,
          Effect.gen(function* () {
            const store = yield* KeyPackageStore
            const due = yield* store.findDue({ now: T0, limit: 9 })
            expect(due.map((each) => each.installationId)).toContain(installationId)
            expect((yield* store.getLedger(installationId)).unreadable).toEqual([
              { historyId: -1, column: "history_id" }
            ])
            const { published } = yield* rotate(one.installation, one.lease, 20)
            expect(published.historyId).toBe(6)
            const [row] = yield* quarantineAll(installationId, one.lease)
            if (row === undefined) return yield* Effect.dieMessage("nothing was set aside")
            const erased = yield* store.retire(one.lease, [proofs.permit(row, "Unreadable")], {
              at: T0,
              dropBefore: DateTime.unsafeMake(0),
              reschedule: identity
            })
            expect(erased.quarantined).toEqual([-1])
          })
        )
        const left = yield* withSql(file, (sql) => sql`SELECT history_id FROM keyward_private_keys ORDER BY history_id`)
        expect(left.map((row) => row["history_id"])).toEqual([1, 3, 4, 5, 6])
      }).pipe(Effect.scoped)
    )
  }

  for (const id of ["1152921504606846976", "9223372036854775807"]) {
    it.effect(`[72] go on where they were once a row was inserted as ${id}, which no number can name`, () =>
      Effect.gen(function* () {
        yield* atT0
        const file = yield* filename
        const { one } = yield* withStore(file, populate)
        yield* damage(
          file,
          // The tombstone of a package that came later than all that are left.
          `INSERT INTO keyward_retired_key_packages VALUES (8, '${one.installation.installationId}',
            '${"ab".repeat(32)}', x'${"cd".repeat(32)}', NULL, 1, 1, 'Superseded')`,
          // As an import does, and with it SQLite counts on from there.
          `INSERT INTO keyward_key_packages SELECT ${id}, installation_id, state, rotation_trigger, '${"0e".repeat(32)}',
            key_package, not_before, not_after, randomblob(32), post_quantum_key, created_at, exposed_at, published_at,
            superseded_by, superseded_at, rejected_at, delete_at FROM keyward_key_packages WHERE history_id = 3`
        )
        const marked = yield* withStore(file, rotate(one.installation, one.lease, 20))
        expect(marked.published.historyId).toBe(9)
      }).pipe(Effect.scoped)
    )
  }

  it.effect("[72] of a tombstone that no number can name keeps nobody from going on", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one } = yield* withStore(file, populate)
      yield* damage(
        file,
        `INSERT INTO keyward_retired_key_packages VALUES (9223372036854775807, '${one.installation.installationId}',
          '${"ab".repeat(32)}', x'${"cd".repeat(32)}', NULL, 1, 1, 'Superseded')`
      )
      const marked = yield* withStore(file, rotate(one.installation, one.lease, 20))
      expect(marked.published.historyId).toBe(6)
    }).pipe(Effect.scoped)
  )

  it.effect("[72] whose counter was reset go on from the tombstones", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one } = yield* withStore(file, populate)
      const id = one.installation.installationId
      const retired = yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const permits = (yield* store.getHistory(id)).map((entry) => proofs.permit(entry, "Expired"))
          const lease = yield* store.acquireLease(id, { now: latest, duration: Duration.minutes(5) })
          return yield* store.retire(lease, permits, {
            at: latest,
            dropBefore: DateTime.unsafeMake(0),
            reschedule: identity
          })
        })
      )
      expect(retired.retired.map(({ historyId }) => Number(historyId))).toEqual([1, 2, 3, 4])
      yield* damage(
        file,
        "DELETE FROM keyward_private_keys",
        "DELETE FROM keyward_key_packages",
        "DELETE FROM sqlite_sequence"
      )
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const now = DateTime.add(latest, { days: 1 })
          const lease = yield* store.acquireLease(id, { now, duration: Duration.minutes(5) })
          const options = { ...insertion, at: now }
          const ids: Array<HistoryId> = []
          for (const seed of [30, 31]) {
            const { historyId } = yield* store.insertKeyPackageHistory(
              lease,
              packageOf(one.installation, seed),
              options
            )
            expect(Option.isSome(yield* store.getPrivateKeys(historyId))).toBe(true)
            ids.push(historyId)
          }
          expect(ids).toEqual([5, 6])
        })
      )
    }).pipe(Effect.scoped)
  )

  for (const last of ["9007199254740991", "9223372036854775807"]) {
    it.effect(`[72] that are used up (${last}) are Full, and nothing is lost`, () =>
      Effect.gen(function* () {
        yield* atT0
        const file = yield* filename
        const { one } = yield* withStore(file, populate)
        const id = one.installation.installationId
        yield* damage(file, `UPDATE sqlite_sequence SET seq = ${last} WHERE name = 'keyward_key_packages'`)
        yield* withStore(
          file,
          Effect.gen(function* () {
            const store = yield* KeyPackageStore
            const before = yield* store.getLedger(id)
            const insert = store.insertKeyPackageHistory(one.lease, packageOf(one.installation, 30), insertion)
            expect(yield* Effect.flip(insert)).toMatchObject({
              _tag: "StorageError",
              reason: "Full",
              isRetryable: false
            })
            expect(yield* store.getLedger(id)).toEqual(before)
          })
        )
      }).pipe(Effect.scoped)
    )
  }
})

describe("keys and rows that do not belong together", () => {
  it.effect("[66] a row whose private keys are gone has none, and goes its way", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one } = yield* withStore(file, populate)
      yield* damage(file, "DELETE FROM keyward_private_keys WHERE history_id = 1")
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const id = one.installation.installationId
          const [row] = yield* store.getHistory(id)
          if (row === undefined) return yield* Effect.dieMessage("no row")
          expect(yield* store.getPrivateKeys(row.historyId)).toEqual(Option.none())
          const lease = yield* store.acquireLease(id, { now: latest, duration: Duration.minutes(5) })
          const options = { at: latest, dropBefore: DateTime.unsafeMake(0), reschedule: identity }
          const { retired } = yield* store.retire(lease, [proofs.permit(row, "Superseded")], options)
          expect(retired.map(({ historyId }) => historyId)).toEqual([row.historyId])
        })
      )
    }).pipe(Effect.scoped)
  )

  it.effect("[67] private keys whose row is gone are erased when the store is opened", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* withStore(file, populate)
      yield* damage(file, "DELETE FROM keyward_key_packages WHERE history_id = 2")
      yield* withStore(file, Effect.void)
      const left = yield* withSql(file, (sql) => sql`SELECT history_id FROM keyward_private_keys ORDER BY history_id`)
      expect(left.map(({ history_id }) => history_id)).toEqual([1, 3, 4, 5])
    }).pipe(Effect.scoped)
  )

  it.effect("a sealed key that was damaged is Corrupt and names its row, and the others open", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one } = yield* withStore(file, populate)
      yield* damage(file, "UPDATE keyward_private_keys SET sealed_keys = zeroblob(93) WHERE history_id = 2")
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const [first, second] = yield* store.getHistory(one.installation.installationId)
          expect(yield* Effect.flip(store.getPrivateKeys(second?.historyId ?? (0 as never)))).toMatchObject({
            reason: "Corrupt",
            detail: "table keyward_private_keys, row 2, column sealed_keys"
          })
          expect(Option.isSome(yield* store.getPrivateKeys(first?.historyId ?? (0 as never)))).toBe(true)
        })
      )
    }).pipe(Effect.scoped)
  )
})

describe("a schedule that cannot be read", () => {
  const texts = ["", "not json", "[]", "null", '{"rotateAt":"soon"}', '{"requests":[{"trigger":"Whim"}]}']
  for (const text of texts) {
    it.effect(`${text === "" ? "empty" : text}: looks again, and is written anew by the next change`, () =>
      Effect.gen(function* () {
        yield* atT0
        const file = yield* filename
        const { one } = yield* withStore(file, populate)
        const id = one.installation.installationId
        yield* damage(file, `UPDATE keyward_installations SET schedule = '${text}' WHERE seq = 1`)
        yield* withStore(
          file,
          Effect.gen(function* () {
            const store = yield* KeyPackageStore
            const found = Option.getOrThrow(yield* store.getInstallation(id))
            expect(found.schedule).toEqual(Schedule.lost)
            const due = yield* store.findDue({ now: DateTime.add(T0, { days: 40 }), limit: 10 })
            expect(due.map(({ installationId }) => installationId)).toContain(id)
            const changed = yield* store.modifySchedule(id, Schedule.requestProbe(DateTime.add(T0, { hours: 2 })))
            expect(changed).toEqual(Schedule.lost)
            yield* rotate(one.installation, one.lease, 20)
          })
        )
      }).pipe(Effect.scoped)
    )
  }

  it.effect("one of an earlier release lacks parts, and keeps those that it has", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one } = yield* withStore(file, populate)
      yield* damage(file, `UPDATE keyward_installations SET schedule = '{"rotateAt":${T0_MILLIS}}' WHERE seq = 1`)
      const found = yield* withStore(
        file,
        Effect.flatMap(KeyPackageStore, (store) => store.getInstallation(one.installation.installationId))
      )
      expect(Option.getOrThrow(found).schedule).toEqual({ ...Schedule.empty, rotateAt: Option.some(T0) })
    }).pipe(Effect.scoped)
  )
})

describe("an installation that cannot be named", () => {
  for (const id of ["NOT HEX", "Z".repeat(64), "A".repeat(64), "0".repeat(63)]) {
    it.effect(`${id.slice(0, 8)} x ${id.length}: stops nobody else from being found when something is due`, () =>
      Effect.gen(function* () {
        yield* atT0
        const file = yield* filename
        const { two } = yield* withStore(file, populate)
        const other = two.installation.installationId
        yield* damage(
          file,
          `UPDATE keyward_installations SET installation_id = '${id}', due_at = 1 WHERE seq = 1`,
          `UPDATE keyward_installations SET due_at = ${T0_MILLIS} WHERE seq = 2`
        )
        yield* withStore(
          file,
          Effect.gen(function* () {
            const store = yield* KeyPackageStore
            expect(yield* store.findDue({ now: T0, limit: 1 })).toEqual([{ installationId: other, dueAt: T0 }])
            expect(yield* store.nextDueAt(DateTime.unsafeMake(0))).toEqual(Option.some(T0))
          })
        )
      }).pipe(Effect.scoped)
    )
  }
})

describe("an installation whose numbers are wrong", () => {
  for (const seq of ["9007199254740993", "9223372036854775807", "-5"]) {
    it.effect(`its own is ${seq}: its key opens all the same, and others can be made`, () =>
      Effect.gen(function* () {
        yield* atT0
        const file = yield* filename
        const { one } = yield* withStore(file, populate)
        yield* damage(file, `UPDATE keyward_installations SET seq = ${seq} WHERE seq = 1`)
        yield* withStore(
          file,
          Effect.gen(function* () {
            const store = yield* KeyPackageStore
            const { installationId } = one.installation
            expect(yield* store.getInstallationKey(installationId)).toMatchObject({ installationId })
            const intent = { ...randomOne(Arbitraries.intent, 77), label: "another" }
            expect((yield* store.findOrCreateInstallation(intent)).label).toBe("another")
          })
        )
      }).pipe(Effect.scoped)
    )
  }

  for (const seq of ["1152921504606846976", "9223372036854775807"]) {
    it.effect(`one was inserted as ${seq}: others can be made, and their keys open at once`, () =>
      Effect.gen(function* () {
        yield* atT0
        const file = yield* filename
        yield* withStore(file, populate)
        yield* damage(
          file,
          `INSERT INTO keyward_installations SELECT ${seq}, '${"0e".repeat(32)}', inbox_id, 'other', created_at,
            sealing_key_id, sealed_key, registration, identity_update, registered_at, schedule, due_at
            FROM keyward_installations WHERE seq = 1`
        )
        yield* withStore(
          file,
          Effect.gen(function* () {
            const store = yield* KeyPackageStore
            const { installationId } = (yield* installed(3)).installation
            expect(yield* store.getInstallationKey(installationId)).toMatchObject({ installationId })
          })
        )
      }).pipe(Effect.scoped)
    )
  }

  for (const edit of ["fence = 9223372036854775807", "fence = -1", "expires_at = 9223372036854775807"]) {
    it.effect(`[52] its lease has ${edit}: it can be taken again, with a larger fence than ever`, () =>
      Effect.gen(function* () {
        yield* atT0
        const file = yield* filename
        const { one } = yield* withStore(file, populate)
        yield* damage(file, `UPDATE keyward_leases SET ${edit}`)
        yield* withStore(
          file,
          Effect.gen(function* () {
            const store = yield* KeyPackageStore
            const { installationId } = one.installation
            const lease = yield* store.acquireLease(installationId, { now: T0, duration: Duration.minutes(5) })
            expect(lease.fence).toBeGreaterThan(one.lease.fence)
            expect(yield* Effect.flip(store.checkLease(one.lease, T0))).toMatchObject({ reason: "Lost" })
            yield* store.releaseLease(lease)
            const next = yield* store.acquireLease(installationId, { now: T0, duration: Duration.minutes(5) })
            expect(next.fence).toBe(lease.fence + 1)
          })
        )
      }).pipe(Effect.scoped)
    )
  }

  it.effect("its deadline is gone: what is due is found once the store is opened", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { one, two } = yield* withStore(file, populate)
      const before = yield* withSql(file, (sql) => sql`SELECT seq, schedule, due_at FROM keyward_installations`)
      yield* damage(file, "UPDATE keyward_installations SET due_at = NULL")
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const due = yield* store.findDue({ now: DateTime.add(T0, { days: 2 }), limit: 9 })
          expect(due.map((each) => each.installationId).sort()).toEqual(
            [one, two].map(({ installation }) => installation.installationId).sort()
          )
        })
      )
      const after = yield* withSql(file, (sql) => sql`SELECT seq, schedule, due_at FROM keyward_installations`)
      expect(after).toEqual(before)
      // A schedule that says nothing is due stays as it is.
      yield* damage(file, "UPDATE keyward_installations SET due_at = NULL, schedule = '{}'")
      yield* withStore(file, Effect.void)
      const idle = yield* withSql(file, (sql) => sql`SELECT DISTINCT schedule, due_at FROM keyward_installations`)
      expect(idle).toEqual([{ schedule: "{}", due_at: null }])
    }).pipe(Effect.scoped)
  )

  it.effect("its deadline is another than its schedule says: the next change of nothing puts it right", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const { two } = yield* withStore(file, populate)
      const { installationId } = two.installation
      const [before] = yield* withSql(
        file,
        (sql) => sql`SELECT schedule, due_at FROM keyward_installations WHERE seq = 2`
      )
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          yield* damage(file, "UPDATE keyward_installations SET due_at = 0 WHERE seq = 2")
          expect(yield* store.findDue({ now: T0, limit: 9 })).toHaveLength(1)
          yield* store.modifySchedule(installationId, identity)
          expect(yield* store.findDue({ now: T0, limit: 9 })).toEqual([])
        })
      )
      const [after] = yield* withSql(
        file,
        (sql) => sql`SELECT schedule, due_at FROM keyward_installations WHERE seq = 2`
      )
      expect(after).toEqual(before)
    }).pipe(Effect.scoped)
  )
})

describe("the tables", () => {
  const impossible = [
    "UPDATE keyward_key_packages SET state = 'Sent'",
    "UPDATE keyward_key_packages SET exposed_at = NULL WHERE state = 'Exposed'",
    "UPDATE keyward_key_packages SET published_at = NULL WHERE state = 'Published'",
    "UPDATE keyward_key_packages SET exposed_at = NULL WHERE state = 'Published'",
    "UPDATE keyward_key_packages SET exposed_at = 1 WHERE state = 'Prepared'",
    "UPDATE keyward_key_packages SET delete_at = NULL WHERE state = 'Superseded'",
    "UPDATE keyward_key_packages SET superseded_by = NULL WHERE state = 'Superseded'",
    "UPDATE keyward_key_packages SET superseded_by = history_id WHERE state = 'Superseded'",
    "UPDATE keyward_key_packages SET delete_at = 1 WHERE state = 'Published'",
    "UPDATE keyward_key_packages SET rejected_at = 1 WHERE state = 'Published'",
    "UPDATE keyward_key_packages SET state = 'Rejected' WHERE state = 'Exposed'",
    "UPDATE keyward_key_packages SET state = 'Rejected', rejected_at = 1 WHERE state = 'Exposed'",
    "UPDATE keyward_key_packages SET state = 'Rejected', rejected_at = 1, delete_at = 1 WHERE state = 'Published'",
    "UPDATE keyward_key_packages SET init_key = x'00'",
    "UPDATE keyward_key_packages SET created_at = 'yesterday'",
    "UPDATE keyward_installations SET registration = 'Registered' WHERE registration = 'Intended'",
    "UPDATE keyward_installations SET identity_update = NULL WHERE registration = 'Registered'",
    "UPDATE keyward_installations SET due_at = 'soon'",
    "UPDATE keyward_leases SET fence = 0",
    "INSERT INTO keyward_private_keys SELECT 999, sealing_key_id, sealed_keys FROM keyward_private_keys LIMIT 1",
    "INSERT INTO keyward_quarantined_key_packages VALUES (999, 'state', 1, 1)",
    "DELETE FROM keyward_key_packages WHERE history_id = 1"
  ]
  it.effect("[67] refuse states that cannot be", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* withStore(file, populate)
      yield* withSql(file, (sql) =>
        Effect.gen(function* () {
          yield* sql`PRAGMA foreign_keys = ON`
          for (const statement of impossible) {
            const error = yield* Effect.flip(sql.unsafe(statement))
            expect((error.cause as { code?: string }).code, statement).toMatch(/^SQLITE_CONSTRAINT/)
          }
        })
      )
    }).pipe(Effect.scoped)
  )
})
