/** The rules, tried in every order: [5], [6], [22], [23], [74]. */
import { describe, expect, it } from "@effect/vitest"
import * as Model from "@keyward/test-utils/simulation/Model"

const search = (change: Partial<Model.Rules> = {}) =>
  Model.explore({ rules: { ...Model.rules, ...change }, steps: 14, packages: 3 })

describe("Model", () => {
  it("everything that can happen in 14 steps with 3 packages leaves the served package its keys", {
    timeout: 60_000
  }, () => {
    const { counterexample, states } = search()
    process.stdout.write(`model: ${states} states\n`)
    expect(counterexample).toBeUndefined()
    expect(states).toBeGreaterThan(1_000)
  })

  it("finds what is wrong with marking before the receipt, without asking the network", () => {
    const { counterexample } = search({ marksAfterReceipt: false, asksBeforeErasing: false })
    expect(counterexample?.what).toMatch(/^I1/)
  })

  it("finds what is wrong with a grace that is shorter than uploads are late", () => {
    const { counterexample } = search({ grace: 1, latest: 3 })
    expect(counterexample?.what).toMatch(/^I1/)
    expect(counterexample?.path.at(-1)?._tag).toBe("Land")
  })

  it("finds what is wrong with erasing what the network serves", () => {
    const { counterexample } = search({ asksBeforeErasing: false })
    expect(counterexample?.what).toMatch(/^I1/)
  })
})
