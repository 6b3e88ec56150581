/** Many random lives, one after the other. */
import { expect } from "@effect/vitest"
import * as Invariants from "@keyward/test-utils/simulation/Invariants"
import * as Simulator from "@keyward/test-utils/simulation/Simulator"
import * as Effect from "effect/Effect"

/** States that hundreds of lives must come to. */
const STATES = [
  ..."Published Superseded Quarantined Repaired RotationFailed UploadFailed".split(" "),
  ..."ServesNothing ServesOlder ServesDamaged ServesForeign".split(" "),
  ..."KeysMissing Expired DatabaseRestored Revoked".split(" "),
  ...["Registration", "Time", "Welcome", "Queued", "Manual", "Repair"].map((trigger) => `made: ${trigger}`),
  ...["Superseded", "Unreadable"].map((reason) => `erased: ${reason}`),
  ...["Published", "Superseded", "Retired"].map((state) => `a Welcome finds a package that is ${state}`),
  ...["insertKeyPackageHistory", "markExposed", "checkLease", "markKeyPackagesBeforeIdToBeDeleted"].map(
    (operation) => `lease Lost: ${operation}`
  ),
  ...["Lost", "Unheard", "Hang", "Late", "Doubled", "Refused"].map((fault) => `uploadKeyPackage: ${fault}`),
  "lease Held: acquireLease",
  "erased while a Welcome is unread",
  "erased at the hard stop",
  "a clock set ahead",
  "a clock set back",
  "a copy of the store",
  "a schedule is lost"
]

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
  // A state that no life comes to is one that nothing is known of.
  expect(STATES.filter((state) => !summary.reached.has(state))).toEqual([])
}
