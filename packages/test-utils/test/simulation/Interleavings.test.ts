/** Two rotations at once, in every order of their steps: [23], [52], [53], [54]. */
import { describe, expect, it } from "@effect/vitest"
import * as Interleavings from "@keyward/test-utils/simulation/Interleavings"
import * as Invariants from "@keyward/test-utils/simulation/Invariants"
import * as Effect from "effect/Effect"

Error.stackTraceLimit = 0

const lost = (orders: ReadonlyArray<Interleavings.Order>): number => orders.filter(Interleavings.losesServedKey).length

describe("Interleavings", () => {
  it("libxmtp's steps lose the served package's key in 18 of 70 orders, and in 90 of 252 with a late upload", () => {
    expect([Interleavings.plain.length, lost(Interleavings.plain)]).toEqual([70, 18])
    expect([Interleavings.withLateUpload.length, lost(Interleavings.withLateUpload)]).toEqual([252, 90])
  })

  const suites = { "of whole uploads": Interleavings.plain, "with a late upload": Interleavings.withLateUpload }
  for (const [name, orders] of Object.entries(suites)) {
    for (const [pace, stall] of [
      ["", 0],
      [", each lease over after two or three steps", 2 * 60_000],
      [", each lease over at the next step", 6 * 60_000]
    ] as const) {
      it(`our rotations lose nothing in any of ${orders.length} orders ${name}${pace}`, {
        timeout: 120_000
      }, async () => {
        let published = 0
        for (const order of orders) {
          const outcome = await Effect.runPromise(Interleavings.run(order, stall))
          expect(outcome.violations.map(Invariants.format), JSON.stringify(order)).toEqual([])
          published += outcome.published
        }
        // While its lease lasts one of the two succeeds, always.
        if (stall === 0) expect(published).toBeGreaterThanOrEqual(orders.length)
      })
    }
  }
})
