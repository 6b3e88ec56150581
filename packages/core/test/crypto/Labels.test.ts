/** Contents behind their labels, one by one and side by side. */
import { describe, expect, it } from "@effect/vitest"
import * as FastCheck from "effect/FastCheck"
import { KEY_PACKAGE_TBS, LEAF_NODE_TBS, withLabel, withLabels } from "../../src/crypto/Labels.ts"

describe("labels", () => {
  it("a content is behind its label and its own length, of one, two or four bytes", () => {
    const after = (length: number) => Array.from(withLabel(LEAF_NODE_TBS, new Uint8Array(length)).subarray(20, 24))
    expect(Array.from(withLabel(LEAF_NODE_TBS, Uint8Array.of(7)))).toEqual([
      19,
      ...new TextEncoder().encode("MLS 1.0 LeafNodeTBS"),
      1,
      7
    ])
    expect(after(63)).toEqual([63, 0, 0, 0])
    expect(after(64)).toEqual([0x40, 64, 0, 0])
    expect(after(0x4000)).toEqual([0x80, 0, 0x40, 0])
  })

  it("many side by side are what each is alone", () => {
    const content = FastCheck.uint8Array({ maxLength: 200 })
    const labelled = FastCheck.tuple(FastCheck.constantFrom(KEY_PACKAGE_TBS, LEAF_NODE_TBS), content)
    FastCheck.assert(
      FastCheck.property(FastCheck.array(labelled, { maxLength: 20 }), (contents) => {
        expect(withLabels(contents)).toEqual(contents.map((one) => withLabel(...one)))
      }),
      { seed: 11, numRuns: 300 }
    )
  })
})
