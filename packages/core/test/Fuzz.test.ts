/** Mutants of real input against both decoders and whole logs. Many more of them: `pnpm fuzz --runs 200000`. */
import { describe, expect, it } from "@effect/vitest"
import * as Fuzz from "@keyward/test-utils/Fuzz"
import * as Effect from "effect/Effect"

const SEED = Number(process.env.KEYWARD_TEST_SEED ?? 20_261_123)

describe("mutants", () => {
  it.live.each([
    ["key packages", Effect.succeed(Fuzz.keyPackage), 4_000],
    ["identity updates", Effect.succeed(Fuzz.identityUpdate), 4_000],
    ["identity logs", Fuzz.identityLog, 150]
  ] as const)(`of %s decode to what encodes back, or are refused by a typed error, seed ${SEED}`, ([, target, runs]) =>
    Effect.gen(function* () {
      const report = yield* Fuzz.run(yield* target, { runs, seed: SEED })
      expect(report.broken).toEqual([])
      const refused = Object.values(report.refused).reduce((sum, count) => sum + count, 0)
      expect(report.accepted + refused).toBe(runs)
      // They get past the outermost frame, each to another check.
      expect(Object.keys(report.refused).length).toBeGreaterThanOrEqual(5)
    })
  )

  it.live("that break a decoder are told: a throw, and a value of other bytes", () =>
    Effect.gen(function* () {
      const broken = (judge: Fuzz.Target["judge"]) =>
        Effect.map(Fuzz.run({ ...Fuzz.keyPackage, judge }, { runs: 3, seed: SEED }), (report) =>
          report.broken.map(({ detail, input }) => [detail, input.length])
        )
      const thrown = () => {
        throw new Error("of the decoder")
      }
      expect(yield* broken(thrown)).toEqual(Array.from({ length: 3 }, () => ["Error: of the decoder", 1]))
      expect(yield* broken(() => ({ _tag: "Broken", detail: "other" }))).toHaveLength(3)
    })
  )
})
