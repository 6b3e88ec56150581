/**
 * What is due, for which installations, and when: found by an index, however many there are.
 */
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import type { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { Database } from "./sqliteDatabase.ts"
import { conflict } from "./sqliteErrors.ts"
import { announce, millis, reschedule } from "./sqliteLeases.ts"
import * as rows from "./sqliteRows.ts"
import { traced } from "./traced.ts"

/** An id as this library writes it: one that other hands have changed stops nobody else from being found. */
const IS_NAMED = "length(installation_id) = 64 AND installation_id NOT GLOB '*[^0-9a-f]*'"

/** The first of a range of deadlines, without the installations of a JSON array of ids. */
const selectDue = (range: string) => `SELECT installation_id, due_at FROM keyward_installations
  WHERE due_at ${range} ? AND ${IS_NAMED} AND installation_id NOT IN (SELECT value FROM json_each(?))
  ORDER BY due_at, seq LIMIT ?`
const SELECT_PASSED = selectDue("<=")
const SELECT_TOO_FAR_AHEAD = selectDue(">")
const SELECT_AFTER = `SELECT installation_id, due_at FROM keyward_installations WHERE due_at > ? AND ${IS_NAMED}`
const SELECT_NEXT = `SELECT installation_id, due_at FROM keyward_installations
  WHERE due_at > ? AND ${IS_NAMED} ORDER BY due_at, seq LIMIT 1`

/** The methods of the port that are about deadlines. */
export const make = (
  database: Database
): Pick<KeyPackageStore["Type"], "modifySchedule" | "findDue" | "findDueAfter" | "nextDueAt" | "deadlineLowered"> => {
  const { lowered, query, read, write } = database
  const change = reschedule(database)

  return {
    modifySchedule: traced("SqliteKeyPackageStore.modifySchedule")((id, by) =>
      Effect.gen(function* () {
        const [raw] = yield* query("SELECT schedule, due_at FROM keyward_installations WHERE installation_id = ?", id)
        if (raw === undefined) return yield* conflict(`there is no installation ${id}`)
        const changed = yield* change({ installationId: id, schedule: raw["schedule"], dueAt: raw["due_at"] }, by)
        return [changed.schedule, changed] as const
      }).pipe(write("modifySchedule"), announce(database, id))
    ),

    findDue: traced("SqliteKeyPackageStore.findDue")(({ except, limit, now }) =>
      Effect.gen(function* () {
        const excluded = JSON.stringify([...(except ?? [])])
        const passed = yield* query(SELECT_PASSED, millis(now), excluded, limit)
        const furthest = DateTime.addDuration(now, Schedule.MAX_SPAN)
        const tooFarAhead =
          passed.length < limit
            ? yield* query(SELECT_TOO_FAR_AHEAD, millis(furthest), excluded, limit - passed.length)
            : []
        return yield* Effect.forEach([...passed, ...tooFarAhead], rows.due)
      }).pipe(read("findDue"))
    ),

    findDueAfter: traced("SqliteKeyPackageStore.findDueAfter")((time) =>
      query(SELECT_AFTER, millis(time)).pipe(
        Effect.flatMap((found) => Effect.forEach(found, rows.due)),
        read("findDueAfter")
      )
    ),

    nextDueAt: traced("SqliteKeyPackageStore.nextDueAt")((now) =>
      query(SELECT_NEXT, millis(now)).pipe(
        Effect.flatMap(([raw]) =>
          raw === undefined ? Effect.succeedNone : Effect.map(rows.due(raw), ({ dueAt }) => Option.some(dueAt))
        ),
        read("nextDueAt")
      )
    ),

    deadlineLowered: Stream.fromPubSub(lowered, { scoped: true })
  }
}
