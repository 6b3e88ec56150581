/** Draws the publish ledger: as a table while it changes, as a timeline at the end. */

import * as Ledger from "@keyward/core/lifecycle/Ledger"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import { bad, dim, good, id, note, say, short } from "./Terminal.ts"

const clock = (at: DateTime.Utc): string => DateTime.formatIso(at).slice(11, 23)
const day = (at: DateTime.Utc): string => DateTime.formatIso(at).slice(0, 16).replace("T", " ")

const state = Ledger.match({
  Prepared: () => note("Prepared"),
  Exposed: () => note("Exposed"),
  Published: () => good("Published"),
  Superseded: () => dim("Superseded"),
  Rejected: () => bad("Rejected"),
  Retired: () => dim("Retired")
})

const remark = Ledger.match({
  Prepared: () => "durable here, never sent",
  Exposed: ({ exposedAt }) => `sent ${clock(exposedAt)}, not acknowledged`,
  Published: ({ publishedAt }) => `accepted ${clock(publishedAt)}`,
  Superseded: ({ supersededBy, deleteAt }) => `by #${supersededBy}; keys kept until ${day(deleteAt)}`,
  Rejected: ({ deleteAt }) => `refused for good; keys kept until ${day(deleteAt)}`,
  Retired: ({ retiredAt }) => `keys erased ${day(retiredAt)}`
})

const kind = (entry: Ledger.Kept): string => (Option.isSome(entry.keyPackage.postQuantumKey) ? "X-Wing" : "classical")

/** One line per package. */
export const table = (history: ReadonlyArray<Ledger.Kept>): Effect.Effect<void> =>
  Effect.forEach(
    history,
    (entry) =>
      say(
        `#${entry.historyId}  ${id(short(entry.keyPackage.ref))}  ${kind(entry).padEnd(9)}  ${`${entry.keyPackage.bytes.length} B`.padStart(6)}  ${state(entry)}${" ".repeat(11 - entry._tag.length)}${dim(remark(entry))}`
      ),
    { discard: true }
  )

/** When a package was made, sent, accepted and replaced: the marks of its line. */
const marks = Ledger.match({
  Prepared: ({ createdAt }) => ({ from: createdAt, served: Option.none(), until: Option.none() }),
  Exposed: ({ createdAt }) => ({ from: createdAt, served: Option.none(), until: Option.none() }),
  Published: ({ createdAt, publishedAt }) => ({
    from: createdAt,
    served: Option.some(publishedAt),
    until: Option.none()
  }),
  Superseded: ({ createdAt, publishedAt, supersededAt }) => ({
    from: createdAt,
    served: publishedAt,
    until: Option.some(supersededAt)
  }),
  Rejected: ({ createdAt, rejectedAt }) => ({ from: createdAt, served: Option.none(), until: Option.some(rejectedAt) }),
  Retired: ({ createdAt, retiredAt }) => ({ from: createdAt, served: Option.none(), until: Option.some(retiredAt) })
})

/** One bar per package over the width of the terminal: made, served by the network, kept for late Welcomes. */
export const timeline = (history: ReadonlyArray<Ledger.Kept>, end: DateTime.Utc): Effect.Effect<void> =>
  Effect.gen(function* () {
    const first = history[0]
    if (first === undefined) return
    const width = 56
    const start = DateTime.toEpochMillis(first.createdAt)
    const span = Math.max(1, DateTime.toEpochMillis(end) - start)
    const column = (at: DateTime.Utc) =>
      Math.min(width - 1, Math.max(0, Math.round(((DateTime.toEpochMillis(at) - start) / span) * (width - 1))))
    for (const entry of history) {
      const { from, served, until } = marks(entry)
      const a = column(from)
      const b = Option.match(served, { onNone: () => width, onSome: column })
      const c = Option.match(until, { onNone: () => width, onSome: column })
      const bar = Array.from({ length: width }, (_, i) =>
        i < a ? " " : i < b ? note("·") : i < c ? good("━") : dim("─")
      )
      yield* say(
        `#${entry.historyId} ${id(short(entry.keyPackage.ref))} ${bar.join("")}${Option.isNone(until) && Option.isSome(served) ? good("▶") : ""}`
      )
    }
    yield* say(dim(`   ${" ".repeat(12)} ${clock(first.createdAt)}${" ".repeat(width - 24)}${clock(end)}`))
    yield* say(
      `${note("·")} made, not yet accepted   ${good("━")} served by the network   ${dim("─")} keys kept for late Welcomes`
    )
  })

/** A failed step, as the program sees it. */
export const failure = (tag: string, message: string): Effect.Effect<void> => say(`${bad(tag)}  ${message}`)
