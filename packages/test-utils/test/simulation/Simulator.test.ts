/** Random lives of an installation: [1]-[9], [13]-[16], [18], [19], [22]-[28], [32], [52]-[54], [56]-[58], [61]-[67], [69], [74]. */
import { describe, expect, it } from "@effect/vitest"
import * as Invariants from "@keyward/test-utils/simulation/Invariants"
import * as Simulator from "@keyward/test-utils/simulation/Simulator"
import * as Effect from "effect/Effect"

// Thousands of errors are made on the way, and nobody reads where.
Error.stackTraceLimit = 0

/** Seeds that once failed, each with what it found. */
const found: Readonly<Record<number, string>> = {
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

  it("a node that answers nothing for a day and a half holds up nobody when it answers again", async () => {
    const what = { _tag: "Trouble", what: "Hang", percent: 100, duration: 36 * 3_600_000 } as const
    const plan = { ...Simulator.plan(7), happenings: [{ at: 60_000, what }], span: 40 * 3_600_000, isRegistered: true }
    const { violations } = await Effect.runPromise(Simulator.run(plan))
    expect(violations.map(Invariants.format)).toEqual([])
  })

  for (const [seed, what] of Object.entries(found)) {
    it(`seed ${seed}: ${what}`, { timeout: 60_000 }, async () => {
      const { violations } = await Effect.runPromise(Simulator.run(Simulator.plan(Number(seed))))
      expect(violations.map(Invariants.format)).toEqual([])
    })
  }
})
