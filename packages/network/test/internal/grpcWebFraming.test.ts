/**
 * The frames of a gRPC-Web body: what is written is read, and nothing else is taken for an answer.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { codeOfHttpStatus, decodeDetail, frame, parseBody, statusOf } from "../../src/internal/grpcWebFraming.ts"

const concat = (...parts: ReadonlyArray<Uint8Array>): Uint8Array => Uint8Array.from(parts.flatMap((part) => [...part]))
const trailers = (text: string): Uint8Array => {
  const bytes = frame(new TextEncoder().encode(text))
  bytes[0] = 0x80
  return bytes
}
const ok = trailers("grpc-status: 0\r\n")
const message = Uint8Array.of(1, 2, 3)
const refusal = (body: Uint8Array) => Either.getOrThrow(Either.flip(parseBody(body)))

describe("a body", () => {
  it("gives back whatever message was framed, wherever in memory it lies", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.uint8Array({ maxLength: 300 }), FastCheck.nat(9), (bytes, offset) => {
        const whole = concat(new Uint8Array(offset), frame(bytes), ok)
        expect(parseBody(whole.subarray(offset))).toEqual(Either.right(bytes))
      }),
      { seed: 1 }
    )
  })

  it("that is cut anywhere is no answer", () => {
    const whole = concat(frame(message), ok)
    for (let length = 0; length < whole.length; length++) {
      expect(refusal(whole.subarray(0, length))._tag).toBe("ProtocolError")
    }
  })

  it.each<readonly [string, Uint8Array]>([
    ["no message", ok],
    ["more than one message", concat(frame(message), frame(message), ok)],
    ["something follows the trailers", concat(frame(message), ok, frame(message))],
    ["the trailers hold no status", concat(frame(message), trailers("grpc-message: hm\r\n"))],
    ["compressed though not asked for", concat(Uint8Array.of(1), frame(message).subarray(1), ok)],
    ["unknown flags 64", concat(Uint8Array.of(64), frame(message).subarray(1), ok)]
  ])("%s", (detail, body) => {
    expect(refusal(body)).toMatchObject({ _tag: "ProtocolError", detail })
  })

  it("may end with a status, with or without a message before it", () => {
    const failed = trailers("Grpc-Status:8\r\ngrpc-message: too%20fast\r\nRetry-After: 7\r\n\r\n")
    const expected = { _tag: "GrpcStatusError", code: 8, detail: "too fast", metadata: { "retry-after": "7" } }
    expect(refusal(failed)).toMatchObject(expected)
    expect(refusal(concat(frame(message), failed))).toMatchObject(expected)
  })

  it("is never more than what its frames say, whatever the bytes", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.uint8Array({ maxLength: 64 }), (bytes) => {
        const parsed = parseBody(bytes)
        expect(Either.isLeft(parsed) || parsed.right.length + 10 < bytes.length).toBe(true)
      }),
      { seed: 2, numRuns: 2_000 }
    )
  })
})

describe("a status", () => {
  it("in headers is none, OK, or a failure", () => {
    expect(statusOf({ "content-type": "application/grpc-web" })).toBeUndefined()
    expect(statusOf({ "grpc-status": "0" })).toBeNull()
    expect(statusOf({ "grpc-status": "5", "x-a": "b" })).toMatchObject({
      code: 5,
      detail: "",
      metadata: { "x-a": "b" }
    })
    expect(statusOf({ "grpc-status": "nonsense" })).toMatchObject({ code: 2 })
  })

  it("has a percent-encoded text; what is not valid stays as it came", () => {
    expect(decodeDetail("100%25 n%C3%A4her, %0Aok")).toBe("100% näher, \nok")
    expect(decodeDetail("100% of%zz")).toBe("100% of%zz")
  })

  it.each([
    [400, 13],
    [401, 16],
    [403, 7],
    [404, 12],
    [413, 3],
    [415, 3],
    [429, 8],
    [500, 2],
    [502, 14],
    [503, 14],
    [504, 14],
    [302, 2]
  ])("HTTP %i stands for %i", (status, code) => {
    expect(codeOfHttpStatus(status)).toBe(code)
  })
})
