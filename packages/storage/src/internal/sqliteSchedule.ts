/**
 * What is due for an installation, as the database holds it: one text beside its earliest deadline, which is indexed.
 */
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import * as DateTime from "effect/DateTime"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Schema from "effect/Schema"

const encodeSchedule = Schema.encodeSync(Schedule.Schedule)
const decodeSchedule = Schema.decodeUnknownEither(Schedule.Schedule)

/** What a text that does not have every part is completed with: a later release may have added one. */
const nothing = encodeSchedule(Schedule.empty)

const parse = Either.liftPredicate(Predicate.isString, () => undefined)

/**
 * A schedule from its column. One that cannot be read is `Schedule.lost`, and stops nothing: what is due is looked for again.
 */
export const decode = (column: unknown): Schedule.Schedule =>
  parse(column).pipe(
    Either.flatMap((text) => Either.try(() => JSON.parse(text) as unknown)),
    Either.filterOrLeft(Predicate.isRecord, () => undefined),
    Either.flatMap((parts) => decodeSchedule({ ...nothing, ...parts })),
    Either.getOrElse(() => Schedule.lost)
  )

/** A schedule as a row holds it. */
export interface Columns {
  readonly schedule: string
  /** Milliseconds since 1970; null where nothing is due, ever. */
  readonly due_at: number | null
}

/** Times become whole milliseconds. Every number of a schedule is a count or a time. */
const wholeNumbers = (_: string, value: unknown): unknown => (typeof value === "number" ? Math.floor(value) : value)

/** The columns of a schedule, and the schedule that they hold. */
export const encode = (schedule: Schedule.Schedule): Columns & { readonly value: Schedule.Schedule } => {
  const text = JSON.stringify(encodeSchedule(schedule), wholeNumbers)
  const value = decode(text)
  return {
    schedule: text,
    due_at: Option.getOrNull(Option.map(Schedule.dueAt(value), DateTime.toEpochMillis)),
    value
  }
}
