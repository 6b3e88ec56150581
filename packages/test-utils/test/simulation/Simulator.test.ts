/** Random lives of a few installations: [1]-[9], [13]-[16], [18], [19], [22]-[28], [32], [52]-[54], [56]-[58], [61]-[67], [69], [74]. */
import { describe, expect, it } from "@effect/vitest"
import * as Invariants from "@keyward/test-utils/simulation/Invariants"
import * as Simulator from "@keyward/test-utils/simulation/Simulator"
import * as Effect from "effect/Effect"

// Thousands of errors are made on the way, and nobody reads where.
Error.stackTraceLimit = 0

const HOUR = 3_600_000

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

  /** A life without any trouble but these. */
  const quiet = (happenings: Simulator.Plan["happenings"], plan: Partial<Simulator.Plan> = {}): Simulator.Plan => ({
    ...Simulator.planOfOne(7),
    isRegistered: true,
    processes: 1,
    skews: [0],
    happenings,
    ...plan
  })

  it("[65] a schedule that can no longer be read gets all of its deadlines back", async () => {
    const what = { _tag: "LoseSchedule" } as const
    const { reached, violations } = await Effect.runPromise(
      Simulator.run(quiet([{ at: HOUR, what }], { span: 2 * HOUR }))
    )
    expect(reached.has("a schedule is lost")).toBe(true)
    expect(violations.map(Invariants.format)).toEqual([])
  })

  it("[15] a package superseded under a clock that was a month behind keeps its keys for a grace all the same", async () => {
    const month = 31 * 24 * HOUR
    const happenings: Simulator.Plan["happenings"] = [
      { at: HOUR, what: { _tag: "Step", process: 0, millis: -month } },
      { at: 2 * HOUR, what: { _tag: "Invite", delay: 20 * HOUR } },
      { at: 3 * HOUR, what: { _tag: "Rotate", process: 0, includePostQuantum: false } },
      { at: 4 * HOUR, what: { _tag: "Step", process: 0, millis: month } },
      { at: 5 * HOUR, what: { _tag: "Probe", process: 0, insist: false } },
      { at: 23 * HOUR, what: { _tag: "Read", process: 0 } }
    ]
    const { violations } = await Effect.runPromise(
      Simulator.run(quiet(happenings, { span: 24 * HOUR, reports: false, settings: {} }))
    )
    expect(violations.map(({ invariant }) => invariant)).toEqual([])
  })

  it("[70] a copy of the store on a second machine: the two answer each other once a day, and the one that stays is well", {
    timeout: 60_000
  }, async () => {
    const what = { _tag: "Clone", duration: 5 * 24 * HOUR } as const
    // From here on the two do not have the same newest package.
    const rotate = { _tag: "Rotate", process: 0, includePostQuantum: false } as const
    const { reached, uploads, violations } = await Effect.runPromise(
      Simulator.run(
        quiet(
          [
            { at: HOUR, what },
            { at: 2 * HOUR, what: rotate }
          ],
          { span: 6 * 24 * HOUR, settings: {} }
        )
      )
    )
    expect([reached.has("DatabaseRestored"), reached.has("CloneSuspected")]).toEqual([true, true])
    expect(violations.map(Invariants.format)).toEqual([])
    // Each of the two once a day at most, and a little.
    expect(uploads).toBeLessThanOrEqual(2 * 6 + 3)
  })

  it("[28] [29] nodes that agree two hours later: nothing is lost, by receipt or by reading back", {
    timeout: 60_000
  }, async () => {
    for (const confirmBy of ["receipt", "readBack"] as const) {
      const happenings = [1, 6, 12, 18, 24, 36].flatMap((hour) => [
        { at: hour * HOUR, what: { _tag: "Rotate", process: 0, includePostQuantum: false } as const },
        { at: hour * HOUR + 60_000, what: { _tag: "Invite", delay: 20 * HOUR } as const }
      ])
      const { tally, violations } = await Effect.runPromise(
        Simulator.run(quiet(happenings, { span: 60 * HOUR, lag: 2 * HOUR, reports: true, settings: { confirmBy } }))
      )
      expect(violations.map(Invariants.format)).toEqual([])
      expect(tally).toEqual({ opened: 6, unopened: 0 })
    }
  })

  it("[13] [50] revoked for ten minutes, beside a clock that is months ahead: no keys of what is served are erased", async () => {
    const happenings: Simulator.Plan["happenings"] = [
      { at: HOUR, what: { _tag: "Revoke", duration: HOUR / 6 } },
      { at: HOUR + 60_000, what: { _tag: "Probe", process: 0, insist: false } },
      // The first look of that process gets no answer.
      { at: HOUR + 110_000, what: { _tag: "Trouble", what: "Lost", percent: 100, duration: 60_000 } },
      { at: HOUR + 120_000, what: { _tag: "Probe", process: 1, insist: false } },
      { at: HOUR + 300_000, what: { _tag: "Probe", process: 1, insist: false } },
      { at: 1.5 * HOUR, what: { _tag: "Invite", delay: HOUR } },
      { at: 3 * HOUR, what: { _tag: "Read", process: 0 } }
    ]
    const { reached, violations } = await Effect.runPromise(
      Simulator.run(quiet(happenings, { processes: 2, skews: [0, 100 * 24 * HOUR], span: 4 * HOUR, settings: {} }))
    )
    expect(reached.has("Revoked")).toBe(true)
    expect(violations.map(Invariants.format)).toEqual([])
  })

  it("[13] [53] a process that stands still before it sends, beside a clock that is a year ahead: the keys are there", async () => {
    const { violations } = await Effect.runPromise(Simulator.run(Simulator.plan(1_000_031_452)))
    expect(violations.map(Invariants.format)).toEqual([])
  })

  it("two processes sign the same update within a second, while nodes are behind: the network takes one, and both go on", async () => {
    const { violations } = await Effect.runPromise(Simulator.run(Simulator.plan(1_400_020_354)))
    expect(violations.map(Invariants.format)).toEqual([])
  })

  it("an installation that is revoked for two minutes, while nodes are an hour and a half behind, is added again", async () => {
    const { violations } = await Effect.runPromise(Simulator.run(Simulator.plan(950_023_851)))
    expect(violations.map(Invariants.format)).toEqual([])
  })

  for (const [seed, what] of Object.entries(found)) {
    it(`seed ${seed}: ${what}`, { timeout: 60_000 }, async () => {
      const { violations } = await Effect.runPromise(Simulator.run(Simulator.planOfOne(Number(seed))))
      expect(violations.map(Invariants.format)).toEqual([])
    })
  }
})
