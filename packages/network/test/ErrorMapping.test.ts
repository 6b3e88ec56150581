/**
 * What each gRPC code, text and transport failure means, and when the node says to come back.
 */
import { describe, expect, it } from "@effect/vitest"
import { ApiClientError, type Reason } from "@keyward/core/ports/ApiClient"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as TestClock from "effect/TestClock"
import { cut, reasonOf, reasonOfCode, retryAfterOf, toApiClientError } from "../src/ErrorMapping.ts"
import { ConnectionError, DeadlineError, GrpcStatusError, ProtocolError } from "../src/Transport.ts"

const table: ReadonlyArray<readonly [code: number, reason: Reason, isRetryable: boolean]> = [
  [0, "MalformedResponse", false],
  [1, "Transport", true],
  [2, "Internal", true],
  [3, "InvalidRequest", false],
  [4, "Internal", true],
  [5, "InvalidRequest", false],
  [6, "InvalidRequest", false],
  [7, "PermissionDenied", false],
  [8, "RateLimited", true],
  [9, "InvalidRequest", false],
  [10, "Internal", true],
  [11, "InvalidRequest", false],
  [12, "UnsupportedClient", false],
  [13, "Internal", true],
  [14, "Unavailable", true],
  [15, "MalformedResponse", false],
  [16, "PermissionDenied", false],
  [17, "Internal", true],
  [4711, "Internal", true]
]

describe("codes", () => {
  it.effect.each(table)("%i is %s, retryable: %s", ([code, reason, isRetryable]) =>
    Effect.gen(function* () {
      const status = new GrpcStatusError({ code, detail: "why", metadata: {} })
      const error = yield* Effect.flip(toApiClientError("uploadKeyPackage", status))
      expect(error).toBeInstanceOf(ApiClientError)
      expect(error).toMatchObject({ operation: "uploadKeyPackage", reason, grpcCode: code, detail: "why", isRetryable })
      expect(error.message).toBe(`uploadKeyPackage failed: ${reason} (gRPC ${code}): why`)
    })
  )

  it("has an entry for every code that gRPC defines", () => {
    expect(Object.keys(reasonOfCode).map(Number)).toEqual(Array.from({ length: 17 }, (_, code) => code))
  })

  const moved = "Please upgrade your client to XMTP D14N."
  it.each<readonly [number, string, Reason]>([
    [14, `publishing to XMTP V3 is no longer available. ${moved}`, "MigratedToD14n"],
    [14, `rpc error: XMTP V3 streaming is no longer available. ${moved}`, "MigratedToD14n"],
    [14, "publishing to XMTP V3 is slow", "Unavailable"],
    [13, `publishing to XMTP V3 is no longer available. ${moved}`, "Internal"],
    [13, "error processing payer envelopes: could not validate key package: expired", "InvalidRequest"],
    [14, "could not validate key package", "Unavailable"],
    [8, "grpc: received message larger than max (53000000 vs. 52428800)", "InvalidRequest"]
  ])("%i with the text «%s» is %s", (code, detail, reason) => {
    expect(reasonOf({ code, detail })).toBe(reason)
  })
})

describe("failures without a status", () => {
  it.effect("each has its reason and no code", () =>
    Effect.gen(function* () {
      const run = (error: ConnectionError | DeadlineError | ProtocolError) =>
        Effect.flip(toApiClientError("getInboxIds", error))
      expect(yield* run(new ConnectionError({ detail: "ECONNREFUSED" }))).toMatchObject({
        reason: "Transport",
        detail: "ECONNREFUSED",
        isRetryable: true
      })
      expect(yield* run(new DeadlineError({ timeout: Duration.seconds(30) }))).toMatchObject({
        reason: "Timeout",
        detail: "no answer within 30s",
        isRetryable: true
      })
      expect(yield* run(new ProtocolError({ detail: "no message" }))).toMatchObject({
        reason: "MalformedResponse",
        detail: "no message",
        isRetryable: false
      })
    })
  )
})

describe("[26] when to come back", () => {
  const now = Date.UTC(2026, 10, 23, 12, 0, 0)
  const millis = (metadata: Record<string, string>) =>
    Option.getOrNull(Option.map(retryAfterOf(metadata, now), Duration.toMillis))

  it.each<readonly [Record<string, string>, number | null]>([
    [{}, null],
    [{ "retry-after": "7" }, 7_000],
    [{ "retry-after": "0" }, 0],
    [{ "grpc-retry-pushback-ms": "250" }, 250],
    [{ "grpc-retry-pushback-ms": "250", "retry-after": "7" }, 250],
    // Negative means: do not try again by yourself.
    [{ "grpc-retry-pushback-ms": "-1" }, Number.POSITIVE_INFINITY],
    [{ "grpc-retry-pushback-ms": "-1", "retry-after": "7" }, Number.POSITIVE_INFINITY],
    [{ "retry-after": "soon" }, null],
    [{ "retry-after": "1e3" }, null],
    [{ "retry-after": "99999999999999999999" }, null],
    [{ "retry-after": "Mon, 23 Nov 2026 12:01:30 GMT" }, 90_000],
    [{ "retry-after": "Mon, 23 Nov 2026 11:00:00 GMT" }, 0],
    [{ "retry-after": "Mon, 99 Nov 2026 11:00:00 GMT" }, null]
  ])("%o is %s ms", (metadata, expected) => {
    expect(millis(metadata)).toBe(expected)
  })

  it.effect("reaches the error, by the clock of the caller", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(now)
      const metadata = { "retry-after": "Mon, 23 Nov 2026 12:00:10 GMT" }
      const error = yield* Effect.flip(
        toApiClientError("fetchKeyPackages", new GrpcStatusError({ code: 8, detail: "", metadata }))
      )
      expect(error).toMatchObject({ reason: "RateLimited", detail: undefined })
      expect(Duration.toMillis(error.retryAfter ?? Duration.zero)).toBe(10_000)
    })
  )
})

describe("texts", () => {
  it("are cut at 512, and no character is cut in two", () => {
    expect(cut("")).toBeUndefined()
    expect(cut("x".repeat(512))).toHaveLength(512)
    expect(cut("x".repeat(513))).toHaveLength(512)
    expect(cut(`${"x".repeat(511)}😀`)).toBe("x".repeat(511))
    FastCheck.assert(
      FastCheck.property(FastCheck.string({ unit: "binary", maxLength: 1_100 }), (text) => {
        const short = cut(text) ?? ""
        expect(short.length).toBeLessThanOrEqual(512)
        expect(text.startsWith(short)).toBe(true)
        expect(encodeURIComponent(short)).toBeTypeOf("string")
      }),
      { seed: 26 }
    )
  })
})
