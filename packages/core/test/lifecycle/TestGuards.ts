/** Clock guards that make up their mind beforehand. */
import type { ClockGuard } from "@keyward/core/lifecycle/ClockGuard"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"

/** Believes the wall clock. */
export const believing: ClockGuard = {
  observe: Effect.void,
  see: () => Effect.void,
  hasPassed: (time) => Effect.map(DateTime.now, DateTime.greaterThanOrEqualTo(time)),
  hasWaited: (_, row) => believing.hasPassed(row.deleteAt),
  hasKnown: () => Effect.succeed(true),
  seeReading: () => Effect.void,
  isReadSince: (_, { date }, __, completeAsOf) => Effect.succeed(DateTime.greaterThanOrEqualTo(completeAsOf, date))
}

/** Believes nothing. */
export const doubting: ClockGuard = {
  ...believing,
  hasPassed: () => Effect.succeed(false),
  hasWaited: () => Effect.succeed(false),
  hasKnown: () => Effect.succeed(false)
}

/** Knows that every row has waited for its date, and does not believe the wall clock. */
export const waiting: ClockGuard = { ...doubting, hasWaited: () => Effect.succeed(true) }
