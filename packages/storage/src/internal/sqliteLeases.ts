/**
 * Leases: who may write for an installation, and what every such write reads first.
 */

import type { SqlError } from "@effect/sql/SqlError"
import type { InboxId } from "@keyward/core/identity/InboxId"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as Lease from "@keyward/core/lifecycle/Lease"
import type { Schedule } from "@keyward/core/lifecycle/Schedule"
import type { KeyPackageStore, Reschedule } from "@keyward/core/ports/KeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import type { Database } from "./sqliteDatabase.ts"
import { conflict, type Refused } from "./sqliteErrors.ts"
import * as rows from "./sqliteRows.ts"
import * as schedules from "./sqliteSchedule.ts"
import { traced } from "./traced.ts"

/** Whole milliseconds since 1970, as the columns hold them. */
export const millis = (time: DateTime.Utc): number => Math.floor(DateTime.toEpochMillis(time))

/** A time as it comes back from its column. */
export const wholeMillis = (time: DateTime.Utc): DateTime.Utc => DateTime.unsafeMake(millis(time))

/** What a write under a lease is about. */
export interface Leased {
  readonly installationId: InstallationId
  readonly inboxId: InboxId
  /** The columns of what is due. */
  readonly schedule: unknown
  readonly dueAt: unknown
}

const SELECT_LEASED = `SELECT l.installation_id, l.fence, l.expires_at, i.inbox_id, i.schedule, i.due_at
  FROM keyward_leases l JOIN keyward_installations i ON i.installation_id = l.installation_id
  WHERE l.installation_id = ?`

const UPDATE_DUE_AT = "UPDATE keyward_installations SET due_at = ? WHERE installation_id = ?"
const UPDATE_SCHEDULE = "UPDATE keyward_installations SET schedule = ?, due_at = ? WHERE installation_id = ?"

/** Fails with `Lost` unless the lease is the newest one, was not given back and has not ended at `at`. */
export const requireLease =
  ({ query }: Database) =>
  (lease: Lease.Lease, at: DateTime.Utc): Effect.Effect<Leased, SqlError | Refused | Lease.LeaseError> =>
    Effect.gen(function* () {
      const { installationId } = lease
      const [raw] = yield* query(SELECT_LEASED, installationId)
      const stored = raw === undefined ? undefined : yield* rows.lease(raw)
      const binds = stored?.fence === lease.fence && Option.exists(stored.expiresAt, (end) => Lease.isInForce(end, at))
      if (raw === undefined || !binds) return yield* new Lease.LeaseError({ reason: "Lost", installationId })
      return {
        installationId,
        inboxId: yield* rows.inboxId(raw),
        schedule: raw["schedule"],
        dueAt: raw["due_at"]
      }
    })

/** A schedule that was changed, and whether anything is due earlier than before. */
export interface Rescheduled {
  readonly schedule: Schedule
  readonly isLowered: boolean
}

/** Changes what is due for an installation, from its columns as this transaction has read them. */
export const reschedule =
  ({ query }: Database) =>
  (leased: Omit<Leased, "inboxId">, change: Reschedule): Effect.Effect<Rescheduled, SqlError> =>
    Effect.gen(function* () {
      const before = schedules.decode(leased.schedule)
      const after = change(before)
      // One that could not be read is written anew only where something changes.
      const next = after === before ? undefined : schedules.encode(after)
      // Its deadline is written wherever other hands have made it another.
      const dueAt = next === undefined ? schedules.dueAt(before) : next.due_at
      if (next !== undefined && next.schedule !== leased.schedule) {
        yield* query(UPDATE_SCHEDULE, next.schedule, dueAt, leased.installationId)
      } else if (dueAt !== leased.dueAt) {
        yield* query(UPDATE_DUE_AT, dueAt, leased.installationId)
      }
      const isLowered = dueAt !== null && (typeof leased.dueAt !== "number" || dueAt < leased.dueAt)
      return { schedule: next?.value ?? before, isLowered }
    })

/**
 * Runs a write, and says once it is durable that a deadline was lowered by it. An interrupted one may have become durable all the
 * same: saying so in vain costs one look.
 */
export const announce =
  ({ lowered }: Database, id: InstallationId) =>
  <A, E, R>(write: Effect.Effect<readonly [A, Pick<Rescheduled, "isLowered">], E, R>): Effect.Effect<A, E, R> =>
    write.pipe(
      Effect.onExit((exit) =>
        (Exit.isSuccess(exit) ? exit.value[1].isLowered : Exit.isInterrupted(exit))
          ? PubSub.publish(lowered, id)
          : Effect.void
      ),
      Effect.map(([value]) => value)
    )

/** The methods of the port that are about leases. */
export const make = (
  database: Database
): Pick<KeyPackageStore["Type"], "acquireLease" | "checkLease" | "releaseLease"> => {
  const { query, read, writeLease } = database
  const held = requireLease(database)

  return {
    acquireLease: traced("SqliteKeyPackageStore.acquireLease")((id, { now, duration }) =>
      Effect.gen(function* () {
        const [raw] = yield* query(
          `SELECT i.installation_id, l.fence, l.expires_at FROM keyward_installations i
          LEFT JOIN keyward_leases l ON l.installation_id = i.installation_id WHERE i.installation_id = ?`,
          id
        )
        if (raw === undefined) return yield* conflict(`there is no installation ${id}`)
        const stored = raw["fence"] === null ? undefined : yield* rows.lease(raw)
        if (stored !== undefined && Option.exists(stored.expiresAt, (end) => Lease.isInForce(end, now))) {
          return yield* new Lease.LeaseError({ reason: "Held", installationId: id })
        }
        const fence = (stored?.fence ?? 0) + 1
        const expiresAt = wholeMillis(Lease.expiry(now, duration))
        yield* query(
          `INSERT INTO keyward_leases (installation_id, fence, expires_at) VALUES (?, ?, ?)
          ON CONFLICT (installation_id) DO UPDATE SET fence = excluded.fence, expires_at = excluded.expires_at`,
          id,
          fence,
          millis(expiresAt)
        )
        return { installationId: id, fence, expiresAt }
      }).pipe(writeLease("acquireLease"))
    ),

    checkLease: traced("SqliteKeyPackageStore.checkLease")((lease, now) =>
      held(lease, now).pipe(Effect.asVoid, read("checkLease"))
    ),

    releaseLease: traced("SqliteKeyPackageStore.releaseLease")((lease) =>
      query(
        "UPDATE keyward_leases SET expires_at = NULL WHERE installation_id = ? AND fence = ?",
        lease.installationId,
        lease.fence
      ).pipe(Effect.asVoid, writeLease("releaseLease"))
    )
  }
}
