/**
 * Every statement that the store sends finds its rows by an index, so that it takes as long with a million rows as with one.
 */
import * as Reactivity from "@effect/experimental/Reactivity"
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { describe, expect, it } from "@effect/vitest"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import * as SqliteKeyPackageStore from "../src/SqliteKeyPackageStore.ts"
import { atT0, filename, insertion, packageOf, populate, proofs, sealer, T0, withSql } from "./fixture.ts"

/** The same client, each statement of whose connection is noted. */
const noting = (client: SqliteClient.SqliteClient, statements: Set<string>): SqlClient.SqlClient => {
  const watched = (connection: Connection): Connection => ({
    ...connection,
    execute: (text, parameters, transform) => {
      statements.add(text)
      return connection.execute(text, parameters, transform)
    }
  })
  const wrapped: SqlClient.SqlClient = Object.assign((...args: Parameters<typeof client>) => client(...args), client, {
    reserve: Effect.map(client.reserve, watched),
    withoutTransforms: () => wrapped
  })
  return wrapped
}

describe("query plans", () => {
  it.effect("[77] every statement of the store walks an index: no table is read whole, nothing is sorted", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      const statements = new Set<string>()
      const client = yield* SqliteClient.make({ filename: file })
      const store = yield* Effect.provideService(
        SqliteKeyPackageStore.make,
        SqlClient.SqlClient,
        noting(client, statements)
      )
      // What opening a database looks through is another matter.
      statements.clear()

      yield* Effect.gen(function* () {
        const { one } = yield* populate
        const id = one.installation.installationId
        yield* store.getInstallations(one.installation.inboxId)
        yield* store.getInstallationKey(id)
        yield* store.checkLease(one.lease, T0)
        yield* store.modifySchedule(id, (schedule) => ({ ...schedule, probeAt: Option.some(T0) }))
        yield* store.findDue({ now: T0, limit: 10, except: new Set([id]) })
        yield* store.findDueAfter(T0)
        yield* store.nextDueAt(T0)
        yield* store.getNewest(id)
        yield* store.getPrivateKeys((yield* store.getHistory(id))[0]?.historyId ?? (0 as never))
        const exposed = yield* store.markExposed(
          one.lease,
          yield* store.insertKeyPackageHistory(one.lease, packageOf(one.installation, 30), insertion),
          T0
        )
        const rejected = yield* store.markRejected(one.lease, exposed, { at: T0, deleteAt: T0, reschedule: identity })
        const seen = proofs.sighting(rejected, T0)
        yield* store.postponeDeletion(one.lease, seen, { at: T0, deleteAt: T0 })
        yield* withSql(
          file,
          (sql) => sql`UPDATE keyward_key_packages SET created_at = 9223372036854775807
          WHERE history_id = 2`
        )
        const { unreadable } = yield* store.getLedger(id)
        const quarantined = yield* store.quarantine(one.lease, unreadable, { at: T0, latest: T0 })
        const permits = [
          proofs.permit(rejected, "Rejected"),
          ...quarantined.map((row) => proofs.permit(row, "Unreadable"))
        ]
        const options = { at: T0, dropBefore: DateTime.unsafeMake(0), reschedule: identity }
        const erased = yield* store.retire(one.lease, permits, options)
        expect([erased.retired.length, erased.quarantined.length]).toEqual([1, 1])
        yield* store.getRetired(id)
        yield* store.findByRef(id, rejected.keyPackage.ref)
        yield* store.findByWelcomeKey(id, rejected.keyPackage.initKey)
        yield* store.findByWelcomeKey(id, new Uint8Array(1216))
        yield* store.releaseLease(one.lease)
      }).pipe(Effect.provideService(KeyPackageStore, store))

      const searching = [...statements].filter((text) => /\b(WHERE|JOIN)\b/.test(text))
      expect(searching.length).toBeGreaterThan(30)
      for (const text of searching) {
        const steps = yield* client.unsafe<{ detail: string }>(
          `EXPLAIN QUERY PLAN ${text}`,
          Array.from(text.matchAll(/\?/g), () => null)
        )
        const plan = steps.map(({ detail }) => detail).join("; ")
        // The ids that `findDue` leaves out are a list of the caller's.
        expect(plan.replaceAll(/SCAN (json_each|CONSTANT ROW)/g, ""), text).not.toMatch(/SCAN/)
        // The installations of one inbox are ten at most.
        if (!/WHERE inbox_id = . ORDER BY seq$/.test(text)) expect(plan, text).not.toMatch(/TEMP B-TREE/)
      }
    }).pipe(Effect.scoped, Effect.provide([sealer(), Reactivity.layer]))
  )
})
