/** A few rounds of what `pnpm chaos` runs many of: [1]-[10], [22], [25], [53], [61], [70]. */
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "@effect/vitest"
import * as Chaos from "@keyward/test-utils/chaos/Chaos"
import * as Effect from "effect/Effect"

const program = fileURLToPath(new URL("../../bin/chaos.ts", import.meta.url))

/** Milliseconds. Starting processes takes seconds on a busy machine; nothing here waits for a time. */
const TIMEOUT = 300_000

describe("chaos", () => {
  it.live(
    "[4] [5] [53] two processes over one database, killed, stopped and cut off: nothing is lost, nothing happens twice",
    () =>
      Effect.gen(function* () {
        const seed = Number(process.env["KEYWARD_SEED"] ?? 4)
        const report = yield* Chaos.run({ rounds: Chaos.KINDS.length, seed, program })
        expect({ seed, violations: report.violations }).toEqual({ seed, violations: [] })
        expect(Object.values(report.rounds)).toEqual(Chaos.KINDS.map(() => 1))
        expect(report.kills).toBeGreaterThanOrEqual(Chaos.KINDS.length)
        expect(report.published).toBeGreaterThan(0)
      }),
    TIMEOUT
  )
})
