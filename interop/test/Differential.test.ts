/**
 * Logs that nobody thought of: this library and the real client take the same ones, as the same state. More of them:
 * `pnpm --filter @keyward/interop differential --runs 500`.
 */
import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { describeReal } from "../src/Available.ts"
import { run } from "../src/Differential.ts"

const SEED = Number(process.env["KEYWARD_TEST_SEED"] ?? 20_261_123)

describeReal("random identity logs", () => {
  it.live(
    `60 of them come to the same state or refusal here and in the real client, seed ${SEED}`,
    () =>
      Effect.gen(function* () {
        const { accepted, differences, refused } = yield* run({ runs: 60, seed: SEED })
        expect(differences).toEqual([])
        expect(accepted).toBeGreaterThan(10)
        expect(refused).toBeGreaterThan(10)
      }),
    120_000
  )
})
