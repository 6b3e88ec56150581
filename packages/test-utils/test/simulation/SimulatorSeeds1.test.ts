/** Random lives, seeds 1 to 1000: two files, so that two processors share them. */
import { it } from "@effect/vitest"
import { survives } from "./Lives.ts"

it("1,000 random lives from seed 1 on break no invariant", { timeout: 1_200_000 }, () => survives(1, 1000))
