/** Death at every call of every pipeline: [1]-[10], [12], [22], [66], [67]. */
import { describe, expect, it } from "@effect/vitest"
import * as CrashPoints from "@keyward/test-utils/simulation/CrashPoints"
import * as Invariants from "@keyward/test-utils/simulation/Invariants"
import * as Effect from "effect/Effect"

Error.stackTraceLimit = 0

describe("CrashPoints", () => {
  for (const scenario of CrashPoints.scenarios) {
    it(`survives death at every call: ${scenario.name}`, { timeout: 120_000 }, async () => {
      const { calls, deaths, violations } = await Effect.runPromise(CrashPoints.run(scenario))
      process.stdout.write(`crash points of "${scenario.name}": ${calls.length} calls, ${deaths.length} points\n`)
      expect(violations.map(Invariants.format)).toEqual([])
      for (const { operation, point, violations } of deaths) {
        // No point is skipped: each death came at the call that was counted.
        expect(operation).toBe(calls[point.call - 1])
        expect(violations.map(Invariants.format), `${point.when} call ${point.call}, ${operation}`).toEqual([])
      }
      expect(deaths.length).toBe(2 * calls.length)
      expect(calls.length).toBeGreaterThan(10)
    })
  }
})
