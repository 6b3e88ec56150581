/**
 * Seeded entropy repeats itself for one seed and only for one.
 */
import { expect, it } from "@effect/vitest"
import { Entropy } from "@keyward/core/ports/Entropy"
import * as Effect from "effect/Effect"
import * as SeededEntropy from "../src/SeededEntropy.ts"

const draw = (seed: string | number, ...lengths: ReadonlyArray<number>) =>
  Effect.map(Entropy, (entropy) =>
    Buffer.concat(lengths.map((length) => entropy.randomBytes(length))).toString("hex")
  ).pipe(Effect.provide(SeededEntropy.layer(seed)))

it.effect("equal seeds give equal bytes, other seeds and later draws give others", () =>
  Effect.gen(function* () {
    const first = yield* draw("seed", 32, 32)
    expect(first).toHaveLength(128)
    expect(yield* draw("seed", 32, 32)).toBe(first)
    expect(yield* draw("seed", 64)).toBe(first)
    expect(yield* draw("another", 32, 32)).not.toBe(first)
    expect(first.slice(0, 64)).not.toBe(first.slice(64))
    expect(yield* draw(0, 0)).toBe("")
  })
)
