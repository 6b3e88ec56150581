/** Random lives, seeds 1 to 540: two files, so that two processors share them. */
import { it } from "@effect/vitest"
import { survives } from "./Lives.ts"

it("540 random lives from seed 1 on break no invariant", { timeout: 1_200_000 }, () => survives(1, 540))
