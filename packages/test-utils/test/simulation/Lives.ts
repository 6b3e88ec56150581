/** Many random lives, one after the other. */
import { expect } from "@effect/vitest"
import * as Invariants from "@keyward/test-utils/simulation/Invariants"
import * as Simulator from "@keyward/test-utils/simulation/Simulator"
import * as Effect from "effect/Effect"

export const survives = async (seed: number, runs: number): Promise<void> => {
  const { stackTraceLimit } = Error
  // Thousands of errors are made on the way, and nobody reads where.
  Error.stackTraceLimit = 0
  const summary = await Effect.runPromise(Simulator.runMany({ seed, runs }))
  Error.stackTraceLimit = stackTraceLimit
  const { calls, failed, opened } = summary
  process.stdout.write(
    `simulator: seeds ${seed} to ${seed + summary.runs - 1}, ${calls} calls of ports, ${opened} Welcomes opened\n`
  )
  expect(failed.flatMap(({ violations }) => violations).map(Invariants.format)).toEqual([])
  expect(summary.runs).toBe(runs)
  expect(opened).toBeGreaterThan(runs / 2)
}
