/** A bound by number, a bound by weight, and which entries go. */
import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { BoundedMap } from "../../src/internal/boundedMap.ts"

const entriesOf = (map: BoundedMap<string, number>) => [...map.entries()]

describe("BoundedMap", () => {
  it("forgets what was set longest ago", () => {
    const map = new BoundedMap<string, number>(2)
    map.set("a", 1)
    map.set("b", 2)
    map.set("a", 3)
    map.set("c", 4)
    expect(entriesOf(map)).toEqual([
      ["a", 3],
      ["c", 4]
    ])
    expect(map.get("b")).toBe(undefined)
    expect(new BoundedMap<string, number>(0).size).toBe(0)
  })

  it("forgets as many as weigh as much as the new one, and does not keep one that is too heavy by itself", () => {
    const map = new BoundedMap<string, number>(10, { most: 10, weightOf: (value) => value })
    map.set("a", 4)
    map.set("b", 4)
    map.set("c", 2)
    map.set("d", 5)
    expect(entriesOf(map)).toEqual([
      ["c", 2],
      ["d", 5]
    ])
    map.set("e", 11)
    expect(map.size).toBe(2)
    // Its own former weight does not count, and it is not left there with its former value.
    map.set("d", 8)
    expect(entriesOf(map)).toEqual([
      ["c", 2],
      ["d", 8]
    ])
    map.set("d", 11)
    expect(entriesOf(map)).toEqual([["c", 2]])
  })

  const SEED = 20261123
  it(`keeps the newest that fit both bounds, whatever is set and deleted (seed ${SEED})`, () => {
    const step = FastCheck.record({
      key: FastCheck.constantFrom("a", "b", "c", "d", "e", "f"),
      value: FastCheck.option(FastCheck.nat(12), { nil: undefined })
    })
    FastCheck.assert(
      FastCheck.property(FastCheck.array(step, { maxLength: 40 }), (steps) => {
        const map = new BoundedMap<string, number>(4, { most: 20, weightOf: (value) => value })
        let model: Array<[string, number]> = []
        for (const { key, value } of steps) {
          model = model.filter(([other]) => other !== key)
          if (value === undefined) map.delete(key)
          else {
            map.set(key, value)
            model.push([key, value])
            while (model.length > 4 || model.reduce((sum, [, weight]) => sum + weight, 0) > 20) model.shift()
          }
          expect(entriesOf(map)).toEqual(model)
        }
      }),
      { seed: SEED, numRuns: 500 }
    )
  })
})
