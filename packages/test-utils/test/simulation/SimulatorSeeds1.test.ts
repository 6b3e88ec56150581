/** Random lives, seeds 1 to 700: two files, so that two processors share 1,400 of them. */
import { it } from "@effect/vitest"
import { survives } from "./Lives.ts"

it("700 random lives from seed 1 on break no invariant", { timeout: 1_200_000 }, () => survives(1, 700))
