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

const read = (text: string): Schedule.Schedule =>
  Either.try(() => JSON.parse(text) as unknown).pipe(
    Either.filterOrLeft(Predicate.isRecord, () => undefined),
    Either.flatMap((parts) => decodeSchedule({ ...nothing, ...parts })),
    Either.getOrElse(() => Schedule.lost)
  )

/** A rotation reads the same text several times, and reading it takes longer than the statement that fetches it. */
const recent = new Map<string, Schedule.Schedule>()
const MAX_RECENT = 1024

const remember = (text: string, schedule: Schedule.Schedule): void => {
  if (recent.size >= MAX_RECENT) recent.clear()
  recent.set(text, schedule)
}

/**
 * A schedule from its column. One that cannot be read is `Schedule.lost`, and stops nothing: what is due is looked for again.
 */
export const decode = (column: unknown): Schedule.Schedule => {
  if (typeof column !== "string") return Schedule.lost
  const known = recent.get(column)
  if (known !== undefined) return known
  const schedule = read(column)
  remember(column, schedule)
  return schedule
}

/** A schedule as a row holds it. */
export interface Columns {
  readonly schedule: string
  /** Milliseconds since 1970; null where nothing is due, ever. */
  readonly due_at: number | null
}

/** The earliest deadline of a schedule, as its column holds it. */
export const dueAt = (schedule: Schedule.Schedule): number | null =>
  Option.getOrNull(Option.map(Schedule.dueAt(schedule), DateTime.toEpochMillis))

/** The columns of a schedule, and the schedule that they hold: times become whole milliseconds. */
export const encode = (schedule: Schedule.Schedule): Columns & { readonly value: Schedule.Schedule } => {
  let isWhole = true
  // Every number of a schedule is a count or a time.
  const text = JSON.stringify(encodeSchedule(schedule), (_, value: unknown) => {
    if (typeof value !== "number" || Number.isInteger(value)) return value
    isWhole = false
    return Math.floor(value)
  })
  const value = isWhole ? schedule : decode(text)
  // What is written is read next.
  if (isWhole) remember(text, schedule)
  return { schedule: text, due_at: dueAt(value), value }
}
