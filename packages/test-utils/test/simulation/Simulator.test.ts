/** Random lives of an installation: [1]-[9], [13]-[16], [18], [19], [22]-[28], [32], [52]-[54], [56]-[58], [61]-[67], [69], [74]. */
import { describe, expect, it } from "@effect/vitest"
import * as Invariants from "@keyward/test-utils/simulation/Invariants"
import * as Simulator from "@keyward/test-utils/simulation/Simulator"
import * as Effect from "effect/Effect"

// Thousands of errors are made on the way, and nobody reads where.
Error.stackTraceLimit = 0

/** Seeds that once failed, each with what it found. */
const found: Readonly<Record<number, string>> = {
  20: "a node that never answered for an inbox's log held up an installation for good",
  1038: "a superseded package that was served again, while the row of its successor was damaged, was never repaired",
  2626: "a deadline written under a clock that was days ahead held up erasing"
}

describe("Simulator", () => {
  it("the same seed gives the same run", async () => {
    const twice = await Effect.runPromise(
      Effect.all([Simulator.run(Simulator.plan(7)), Simulator.run(Simulator.plan(7))])
    )
    expect(twice[1]).toEqual(twice[0])
  })

  for (const [seed, what] of Object.entries(found)) {
    it(`seed ${seed}: ${what}`, { timeout: 60_000 }, async () => {
      const { violations } = await Effect.runPromise(Simulator.run(Simulator.plan(Number(seed))))
      expect(violations.map(Invariants.format)).toEqual([])
    })
  }

  it("2,000 random lives break no invariant", { timeout: 1_200_000 }, async () => {
    const { calls, failed, opened, runs } = await Effect.runPromise(Simulator.runMany({ seed: 1, runs: 2_000 }))
    process.stdout.write(`simulator: seeds 1 to ${runs}, ${calls} calls of ports, ${opened} Welcomes opened\n`)
    expect(failed.flatMap(({ violations }) => violations).map(Invariants.format)).toEqual([])
    expect(runs).toBe(2_000)
    expect(opened).toBeGreaterThan(1_000)
  })
})
