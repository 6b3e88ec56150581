/**
 * Side-by-side measurement: every case against a floor, in the same rounds of the same run.
 *
 * A floor is the least that any implementation would have to do with the tools of this platform, so the ratio says what
 * this code adds. It holds from machine to machine far better than microseconds do.
 *
 * @since 1.0.0
 */

/**
 * Something to run once. Asynchronous work is waited for each time. Where not all of it is to be measured it gives its time
 * itself, a bigint of nanoseconds.
 *
 * @since 1.0.0
 * @category models
 */
export type Work = () => unknown

/**
 * A case that is ready to be measured.
 *
 * @since 1.0.0
 * @category models
 */
export interface Prepared {
  readonly subject: Work
  readonly floor: Work
  /** What the subject is made of, each measured in the same rounds. */
  readonly parts?: Readonly<Record<string, Work>> | undefined
  /** Other figures of the same run, microseconds. */
  readonly beside?: (() => Promise<Readonly<Record<string, number>>>) | undefined
  /** Gives back what was taken. */
  readonly close?: (() => Promise<void>) | undefined
}

/**
 * What is measured, and against what.
 *
 * @since 1.0.0
 * @category models
 */
export interface Case {
  readonly id: string
  /** What the floor is, in words. */
  readonly floor: string
  /** The ratio that is aimed at. */
  readonly target?: number | undefined
  /** At most this many rounds, of work that takes long. */
  readonly rounds?: number | undefined
  /** Each side runs once, as it is: for work of many seconds that is a crowd of its own. */
  readonly once?: boolean | undefined
  readonly prepare: () => Promise<Prepared> | Prepared
}

/**
 * What was measured; times in microseconds per run.
 *
 * @since 1.0.0
 * @category models
 */
export interface Measurement {
  readonly id: string
  readonly medianUs: number
  readonly minUs: number
  readonly floor: string
  /** The median of the floor. */
  readonly floorUs: number
  /** `medianUs / floorUs`. */
  readonly ratio: number
  /** Medians of the parts. */
  readonly parts?: Readonly<Record<string, number>>
  readonly beside?: Readonly<Record<string, number>>
}

/**
 * How long one batch of one side takes, about: a small part of a scheduler's time slice, so that on a busy machine most
 * batches run undisturbed and the median is theirs. What happens rarely (a large collection) is not in a median.
 */
const BATCH_NANOS = 2_000_000n
const WARM_UP_WINDOW_NANOS = 400_000_000n
const WARM_UP_MOST_NANOS = 10_000_000_000n

/** Nanoseconds of so many runs, or the sum of the times that they give. */
const run = async (work: Work, times: number): Promise<bigint> => {
  const start = process.hrtime.bigint()
  let given: bigint | undefined
  for (let i = 0; i < times; i++) {
    const returned = work()
    const result = returned instanceof Promise ? await returned : returned
    if (typeof result === "bigint") given = (given ?? 0n) + result
  }
  return given ?? process.hrtime.bigint() - start
}

const runBatch = async (work: Work, times: number): Promise<bigint> => {
  // Once unmeasured: the other side has just had the processor's caches.
  await run(work, 1)
  return run(work, times)
}

/**
 * Warms up until the work gets no faster, and finds how often it runs in one batch. On a busy machine the compiler, which
 * works beside the program, needs thousands of runs to come round.
 */
const calibrate = async (work: Work): Promise<number> => {
  const start = process.hrtime.bigint()
  let times = 1
  let best = Number.POSITIVE_INFINITY
  let settled = 0
  while (settled < 3 && process.hrtime.bigint() - start < WARM_UP_MOST_NANOS) {
    const windowStart = process.hrtime.bigint()
    let bestOfWindow = Number.POSITIVE_INFINITY
    while (process.hrtime.bigint() - windowStart < WARM_UP_WINDOW_NANOS) {
      const nanos = await runBatch(work, times)
      if (nanos < BATCH_NANOS / 2n) times *= 2
      else bestOfWindow = Math.min(bestOfWindow, Number(nanos) / times)
    }
    settled = bestOfWindow > 0.98 * best ? settled + 1 : 0
    best = Math.min(best, bestOfWindow)
  }
  return Math.max(1, Math.round(Number(BATCH_NANOS) / best))
}

const median = (values: ReadonlyArray<number>): number => {
  const sorted = [...values].sort((left, right) => left - right)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2
}

/** One piece of work and its times so far. */
interface Series {
  readonly work: Work
  readonly times: number
  readonly once: boolean
  readonly micros: Array<number>
}

interface Running {
  readonly definition: Case
  readonly prepared: Prepared
  readonly subject: Series
  readonly floor: Series
  readonly parts: ReadonlyArray<readonly [string, Series]>
}

const series = async (work: Work, once: boolean): Promise<Series> => ({
  work,
  times: once ? 1 : await calibrate(work),
  once,
  micros: []
})

const sample = async ({ micros, once, times, work }: Series): Promise<void> => {
  micros.push(Number(await (once ? run(work, 1) : runBatch(work, times))) / 1000 / times)
}

const round = async ({ floor, parts, subject }: Running, subjectFirst: boolean): Promise<void> => {
  for (const one of subjectFirst ? [subject, floor] : [floor, subject]) await sample(one)
  for (const [, part] of parts) await sample(part)
}

/**
 * Measures the cases in interleaved rounds: case after case, each with its floor right beside it and the two in turns
 * first, so that a slow moment of the machine falls on both.
 *
 * @since 1.0.0
 * @category measuring
 */
export const measure = async (cases: ReadonlyArray<Case>, rounds = 101): Promise<ReadonlyArray<Measurement>> => {
  const running: Array<Running> = []
  try {
    for (const definition of cases) {
      const prepared = await definition.prepare()
      const parts: Array<readonly [string, Series]> = []
      running.push({
        definition,
        prepared,
        subject: await series(prepared.subject, definition.once ?? false),
        floor: await series(prepared.floor, definition.once ?? false),
        parts
      })
      for (const [name, work] of Object.entries(prepared.parts ?? {})) {
        parts.push([name, await series(work, definition.once ?? false)])
      }
    }
    for (let i = 0; i < rounds; i++) {
      for (const one of running) if (i < (one.definition.rounds ?? rounds)) await round(one, i % 2 === 0)
    }

    const measurements: Array<Measurement> = []
    for (const { definition, floor, parts, prepared, subject } of running) {
      const beside = await prepared.beside?.()
      measurements.push({
        id: definition.id,
        medianUs: median(subject.micros),
        minUs: Math.min(...subject.micros),
        floor: definition.floor,
        floorUs: median(floor.micros),
        ratio: median(subject.micros) / median(floor.micros),
        ...(parts.length === 0
          ? {}
          : { parts: Object.fromEntries(parts.map(([name, part]) => [name, median(part.micros)])) }),
        ...(beside === undefined ? {} : { beside })
      })
    }
    return measurements
  } finally {
    for (const { prepared } of running) await prepared.close?.()
  }
}
