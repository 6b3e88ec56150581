import { describe, expect, it } from "@effect/vitest"
import * as GroupMessageHeader from "@keyward/test-utils/devnode/GroupMessageHeader"
import { sessionGroupMessages } from "@keyward/test-utils/vectors/GroupMessageVectors"
import * as Either from "effect/Either"

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

/** A public message (RFC 9420 section 6.2) up to its content type. */
const publicMessage = (sender: ReadonlyArray<number>, contentType: number): Uint8Array =>
  Uint8Array.of(0, 1, 0, 1, 2, 0xaa, 0xbb, ...new Array<number>(8).fill(0), ...sender, 3, 1, 2, 3, contentType)

describe("GroupMessageHeader", () => {
  it("reads group and kind of every message of the native client", () => {
    expect(sessionGroupMessages.length).toBeGreaterThan(0)
    for (const { data, groupId, isCommit } of sessionGroupMessages) {
      const header = Either.getOrThrow(GroupMessageHeader.parse(Buffer.from(data, "hex")))
      expect({ groupId: hex(header.groupId), isCommit: header.isCommit }).toEqual({ groupId, isCommit })
    }
    expect(new Set(sessionGroupMessages.map(({ isCommit }) => isCommit)).size).toBe(2)
  })

  it("reads public messages of every kind of sender; commits and proposals count as commits", () => {
    const senders = [[1, 0, 0, 0, 7], [2, 0, 0, 0, 7], [3], [4]]
    for (const sender of senders) {
      for (const [contentType, isCommit] of [
        [1, false],
        [2, true],
        [3, true]
      ] as const) {
        const header = Either.getOrThrow(GroupMessageHeader.parse(publicMessage(sender, contentType)))
        expect({ groupId: hex(header.groupId), isCommit: header.isCommit }).toEqual({ groupId: "aabb", isCommit })
      }
    }
  })

  it("[45] refuses a header cut at any byte, and what is not a group message", () => {
    const whole = publicMessage([1, 0, 0, 0, 7], 3)
    for (let length = 0; length < whole.length; length++) {
      expect(Either.isLeft(GroupMessageHeader.parse(whole.subarray(0, length)))).toBe(true)
    }
    const changed = (index: number, value: number) => whole.map((byte, at) => (at === index ? value : byte))
    for (const wrong of [changed(1, 2), changed(3, 3), changed(3, 5), changed(4, 0xc0), changed(4, 0xbf)]) {
      expect(Either.isLeft(GroupMessageHeader.parse(wrong))).toBe(true)
    }
  })
})
