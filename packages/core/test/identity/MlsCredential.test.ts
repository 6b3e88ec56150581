import { describe, expect, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as MlsCredential from "../../src/identity/MlsCredential.ts"

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"))
const read = (text: string) => {
  const result = MlsCredential.decode(hex(text))
  return Either.isRight(result) ? result.right.inboxId : `${result.left.reason} at ${result.left.offset}`
}

describe("MlsCredential", () => {
  it("writes an inbox id as field 1: 66 bytes", () => {
    const bytes = MlsCredential.encode({ inboxId: "ab".repeat(32) })
    expect(Buffer.from(bytes).toString("hex")).toBe(`0a40${Buffer.from("ab".repeat(32)).toString("hex")}`)
    expect(MlsCredential.encode({ inboxId: "" })).toHaveLength(0)
  })

  it("reads any text back", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.string({ unit: "grapheme", maxLength: 300 }), (inboxId) => {
        expect(MlsCredential.decode(MlsCredential.encode({ inboxId }))).toEqual(Either.right({ inboxId }))
      }),
      { seed: 66, numRuns: 300 }
    )
    // A byte order mark is text like any other.
    expect(read("0a04efbbbf61")).toBe("\ufeffa")
  })

  it("reads as prost does: the last field counts, others and groups are skipped", () => {
    expect(read("")).toBe("")
    expect(read("0a0161")).toBe("a")
    expect(read("0a01610a0162")).toBe("b")
    expect(read("1001" + "0a0161")).toBe("a")
    expect(read("1d01020304" + "0a0161")).toBe("a")
    expect(read("190102030405060708" + "0a0161")).toBe("a")
    expect(read("13" + "1801" + "14" + "0a0161")).toBe("a")
    // the largest field number
    expect(read("f8ffffff0f01" + "0a0161")).toBe("a")
    // longer forms of a number than needed
    expect(read("8a80000161")).toBe("a")
    expect(read("0a81800061")).toBe("a")
  })

  it("refuses as prost does", () => {
    expect(read("0aff")).toBe("InvalidVarint at 1")
    expect(read("0a036161")).toMatch(/BufferUnderflow/)
    expect(read("0a01ff")).toBe("InvalidUtf8 at 1")
    expect(read("0a03eda080")).toBe("InvalidUtf8 at 1")
    expect(read("0801")).toBe("UnexpectedWireType at 1")
    expect(read("0b0c")).toMatch(/UnexpectedWireType/)
    expect(read("14")).toMatch(/UnexpectedEndGroup/)
    expect(read("131c")).toMatch(/UnexpectedEndGroup/)
    expect(read("13")).toMatch(/InvalidVarint/)
    expect(read("00")).toBe("InvalidTag at 0")
    expect(read("0e")).toBe("InvalidWireType at 0")
    expect(read("07")).toBe("InvalidWireType at 0")
    // a key above 32 bits
    expect(read("8a8080801001")).toBe("InvalidKey at 0")
    // a tenth byte above 1, and an eleventh
    expect(read("10ffffffffffffffffff02")).toBe("InvalidVarint at 1")
    expect(read("10ffffffffffffffffffff01")).toBe("InvalidVarint at 1")
    expect(read("10ffffffffffffffffff01")).toBe("")
    expect(read("1d010203")).toMatch(/BufferUnderflow/)
    expect(read("12ffffffff0f")).toMatch(/BufferUnderflow/)
  })

  it("nests groups a hundred deep, not deeper", () => {
    const nested = (depth: number) => "13".repeat(depth) + "14".repeat(depth)
    expect(read(nested(100))).toBe("")
    expect(read(nested(101))).toMatch(/RecursionLimit/)
    expect(read("13".repeat(100_000))).toMatch(/RecursionLimit/)
  })

  it("never does more than refuse", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.uint8Array({ maxLength: 100 }), (bytes) => {
        MlsCredential.decode(bytes)
      }),
      { seed: 5, numRuns: 3000 }
    )
  })
})
