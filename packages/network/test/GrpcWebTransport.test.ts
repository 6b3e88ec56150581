/**
 * gRPC-Web over an `HttpClient` that a test plays.
 */
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import { describe, expect, it } from "@effect/vitest"
import { limits } from "@keyward/core/ports/ApiClient"
import * as Cause from "effect/Cause"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import * as GrpcWebTransport from "../src/GrpcWebTransport.ts"
import { frame } from "../src/internal/grpcWebFraming.ts"

const call = {
  path: "/a.B/C",
  message: Uint8Array.of(1),
  metadata: { "x-app-version": "a/1" },
  timeout: Duration.seconds(30)
}

const answering = (response: (request: HttpClientRequest) => Response, url = "https://example.org/prefix/") =>
  Effect.flatMap(GrpcWebTransport.make({ url }), ({ unary }) => unary(call)).pipe(
    Effect.provide(
      Layer.succeed(
        HttpClient.HttpClient,
        HttpClient.make((request) => Effect.sync(() => HttpClientResponse.fromWeb(request, response(request))))
      )
    )
  )

const headers = { "content-type": "application/grpc-web+proto" }
const ok = frame(new TextEncoder().encode("grpc-status: 0\r\n"))
ok[0] = 0x80
const body = (message: Uint8Array) => Buffer.concat([frame(message), ok])

describe("a call", () => {
  it.effect("is a POST below the URL's path, framed, with the headers of the protocol and no tracing", () =>
    Effect.gen(function* () {
      const seen: Array<HttpClientRequest> = []
      const response = yield* answering((request) => {
        seen.push(request)
        return new Response(body(Uint8Array.of(4, 5)), { headers })
      }).pipe(Effect.withSpan("around"))
      expect(response).toEqual(Uint8Array.of(4, 5))
      const [request] = seen
      expect(request?.method).toBe("POST")
      expect(request?.url).toBe("https://example.org:443/prefix/a.B/C")
      expect(request?.body).toMatchObject({ _tag: "Uint8Array", body: frame(Uint8Array.of(1)) })
      expect({ ...request?.headers }).toEqual({
        accept: "application/grpc-web+proto",
        "content-type": "application/grpc-web+proto",
        "content-length": "6",
        "grpc-timeout": "31000m",
        "x-app-version": "a/1",
        "x-grpc-web": "1"
      })
    })
  )

  it.effect.each(["application/grpc-web", "application/grpc-web+proto; charset=utf-8"])("takes %s", (contentType) =>
    Effect.gen(function* () {
      const response = yield* answering(
        () => new Response(body(Uint8Array.of(1)), { headers: { "content-type": contentType } })
      )
      expect(response).toEqual(Uint8Array.of(1))
    })
  )
})

describe("an answer", () => {
  it.effect("may hold its status in the headers, whatever the HTTP status", () =>
    Effect.gen(function* () {
      for (const status of [200, 503]) {
        const trailers = { "grpc-status": "8", "grpc-message": "too%20fast", "retry-after": "7" }
        const error = yield* Effect.flip(
          answering(() => new Response(null, { status, headers: { ...headers, ...trailers } }))
        )
        expect(error).toMatchObject({ _tag: "GrpcStatusError", code: 8, detail: "too fast" })
        expect(error).toHaveProperty("metadata.retry-after", "7")
      }
    })
  )

  it.effect("is plain bytes, also where the client gives Node's buffers: a slice of it is a copy", () =>
    Effect.gen(function* () {
      const whole = body(Uint8Array.of(4, 5))
      const stream = new ReadableStream({
        start: (controller) => {
          controller.enqueue(whole)
          controller.close()
        }
      })
      const response = yield* answering(() => new Response(stream, { headers }))
      expect(Buffer.isBuffer(response)).toBe(false)
      const copy = response.slice()
      whole.fill(0)
      expect(copy).toEqual(Uint8Array.of(4, 5))
    })
  )

  it.effect("[26] of a proxy is the code that its HTTP status stands for, and says when to come back", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        answering(() => new Response("slow down", { status: 429, headers: { "retry-after": "7" } }))
      )
      expect(error).toMatchObject({ _tag: "GrpcStatusError", code: 8, detail: "HTTP status 429" })
      expect(error).toHaveProperty("metadata.retry-after", "7")
    })
  )

  it.effect("that is a web page is none", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(
        answering(() => new Response("<html>", { headers: { "content-type": "text/html" } }))
      )
      expect(error).toMatchObject({ _tag: "ProtocolError" })
    })
  )

  it.effect("that does not end is left after what a message may have", () =>
    Effect.gen(function* () {
      let sent = 0
      const chunk = new Uint8Array(1024 * 1024)
      const endless = new ReadableStream<Uint8Array>({
        pull: (controller) => {
          sent += chunk.length
          controller.enqueue(chunk)
        }
      })
      const error = yield* Effect.flip(answering(() => new Response(endless, { headers })))
      expect(error).toMatchObject({ _tag: "ProtocolError", isTooLarge: true })
      expect(sent).toBeLessThan(limits.answerBytes + 8 * chunk.length)
    })
  )
})

describe("a stream", () => {
  const reading = (response: () => Response) =>
    Effect.gen(function* () {
      const { serverStreaming } = yield* GrpcWebTransport.make({ url: "https://example.org" })
      const messages: Array<Uint8Array> = []
      const ended = yield* Effect.exit(
        Stream.runForEach(serverStreaming(call), (message) => Effect.sync(() => messages.push(message)))
      )
      return { messages, error: Exit.isSuccess(ended) ? null : Option.getOrNull(Cause.failureOption(ended.cause)) }
    }).pipe(
      Effect.provide(
        Layer.succeed(
          HttpClient.HttpClient,
          HttpClient.make((request) => Effect.sync(() => HttpClientResponse.fromWeb(request, response())))
        )
      )
    )

  /** A body that comes in these pieces, and then stays open where it is told to. */
  const inPieces = (pieces: ReadonlyArray<Uint8Array>, { open = false, onCancel = () => {} } = {}) =>
    new ReadableStream<Uint8Array>({
      start: (controller) => {
        for (const piece of pieces) controller.enqueue(piece)
        if (!open) controller.close()
      },
      cancel: onCancel
    })

  const status = (text: string): Uint8Array => {
    const bytes = frame(new TextEncoder().encode(text))
    bytes[0] = 0x80
    return bytes
  }

  it.effect("brings every message, however the body is cut", () =>
    Effect.gen(function* () {
      const sent = [Uint8Array.of(1, 2, 3), new Uint8Array(0), Uint8Array.of(4), new Uint8Array(300).fill(5)]
      const whole = Uint8Array.from(Buffer.concat([...sent.map(frame), ok]))
      const cuts = FastCheck.sample(FastCheck.array(FastCheck.nat(whole.length), { maxLength: 40 }), {
        seed: 6,
        numRuns: 60
      })
      for (const places of [[], Array.from(whole.keys()), ...cuts]) {
        const edges = [0, ...places.toSorted((one, other) => one - other), whole.length]
        const pieces = edges.slice(1).map((edge, index) => whole.slice(edges[index], edge))
        expect(yield* reading(() => new Response(inPieces(pieces), { headers }))).toEqual({
          messages: sent,
          error: null
        })
      }
    })
  )

  it.effect.each<readonly [string, () => Response, object | null]>([
    [
      "a status in the trailers",
      () =>
        new Response(inPieces([frame(Uint8Array.of(1)), status("grpc-status: 14\r\ngrpc-message: re%20start")]), {
          headers
        }),
      { _tag: "GrpcStatusError", code: 14, detail: "re start" }
    ],
    ["no trailers", () => new Response(inPieces([frame(Uint8Array.of(1))]), { headers }), { _tag: "ConnectionError" }],
    [
      "half a frame",
      () => new Response(inPieces([frame(Uint8Array.of(1)), frame(Uint8Array.of(1)).slice(0, 3)]), { headers }),
      { _tag: "ConnectionError" }
    ],
    [
      "trailers without a status",
      () => new Response(inPieces([frame(Uint8Array.of(1)), status("a: b")]), { headers }),
      { _tag: "ProtocolError" }
    ],
    [
      "a compressed frame",
      () => new Response(inPieces([frame(Uint8Array.of(1)), Uint8Array.of(1, 0, 0, 0, 0)]), { headers }),
      { _tag: "ProtocolError" }
    ],
    [
      "a frame larger than is read",
      () =>
        new Response(inPieces([frame(Uint8Array.of(1)), Uint8Array.of(0, 255, 0, 0, 0)], { open: true }), { headers }),
      { _tag: "ProtocolError", isTooLarge: true }
    ],
    [
      "trailers without an end",
      () =>
        new Response(inPieces([frame(Uint8Array.of(1)), Uint8Array.of(128, 255, 0, 0, 0)], { open: true }), {
          headers
        }),
      { _tag: "ProtocolError" }
    ],
    [
      "an end that is followed by more",
      () => new Response(inPieces([frame(Uint8Array.of(1)), ok, frame(Uint8Array.of(2))], { open: true }), { headers }),
      null
    ]
  ])("with %s keeps what came before", ([, response, expected]) =>
    Effect.gen(function* () {
      const { error, messages } = yield* reading(response)
      expect(messages).toEqual([Uint8Array.of(1)])
      if (expected === null) expect(error).toBeNull()
      else expect(error).toMatchObject(expected)
    })
  )

  it.effect("without messages may be told by its headers alone", () =>
    Effect.gen(function* () {
      const only = (trailers: Record<string, string>, httpStatus = 200) =>
        reading(() => new Response(null, { status: httpStatus, headers: { ...headers, ...trailers } }))
      expect(yield* only({ "grpc-status": "0" })).toEqual({ messages: [], error: null })
      expect((yield* only({ "grpc-status": "12" })).error).toMatchObject({ _tag: "GrpcStatusError", code: 12 })
      expect((yield* only({}, 503)).error).toMatchObject({ _tag: "GrpcStatusError", code: 14 })
      const page = yield* reading(() => new Response("<html>", { headers: { "content-type": "text/html" } }))
      expect(page.error).toMatchObject({ _tag: "ProtocolError" })
    })
  )

  it.effect("that is silent for 4 minutes ends well, and its connection is let go", () =>
    Effect.gen(function* () {
      let cancelled = false
      const onCancel = () => {
        cancelled = true
      }
      const fiber = yield* Effect.fork(
        reading(() => new Response(inPieces([frame(Uint8Array.of(1))], { open: true, onCancel }), { headers }))
      )
      yield* TestClock.adjust("239 seconds")
      expect(yield* Fiber.poll(fiber)).toEqual(Option.none())
      yield* TestClock.adjust("1 seconds")
      expect(yield* Fiber.join(fiber)).toEqual({ messages: [Uint8Array.of(1)], error: null })
      expect(cancelled).toBe(true)
    })
  )

  it.effect("that does not begin in time is given up", () =>
    Effect.gen(function* () {
      const never = Layer.succeed(
        HttpClient.HttpClient,
        HttpClient.make(() => Effect.never)
      )
      const fiber = yield* GrpcWebTransport.make({ url: "https://example.org" }).pipe(
        Effect.flatMap(({ serverStreaming }) => Effect.flip(Stream.runDrain(serverStreaming(call)))),
        Effect.provide(never),
        Effect.fork
      )
      yield* TestClock.adjust("30 seconds")
      expect(yield* Fiber.join(fiber)).toMatchObject({ _tag: "DeadlineError" })
    })
  )
})

describe("a connection", () => {
  const failing = (error: (request: HttpClientRequest) => HttpClientError.HttpClientError) =>
    Effect.flatMap(GrpcWebTransport.make({ url: "http://example.org" }), ({ unary }) => Effect.flip(unary(call))).pipe(
      Effect.provide(
        Layer.succeed(
          HttpClient.HttpClient,
          HttpClient.make((request) => Effect.fail(error(request)))
        )
      )
    )

  it.effect("that cannot be made tells why, and nothing of the request", () =>
    Effect.gen(function* () {
      const cause = new TypeError("fetch failed", { cause: new Error("connect ECONNREFUSED 127.0.0.1:1") })
      const error = yield* failing(
        (request) => new HttpClientError.RequestError({ request, reason: "Transport", cause })
      )
      expect(error).toMatchObject({ _tag: "ConnectionError", detail: "fetch failed: connect ECONNREFUSED 127.0.0.1:1" })
    })
  )

  it.effect("that breaks while the body comes is a connection failure", () =>
    Effect.gen(function* () {
      const broken = new ReadableStream<Uint8Array>({
        start: (controller) => {
          controller.enqueue(frame(Uint8Array.of(1)))
          controller.error(new TypeError("terminated"))
        }
      })
      const error = yield* Effect.flip(answering(() => new Response(broken, { headers })))
      expect(error).toMatchObject({ _tag: "ConnectionError", detail: "terminated" })
    })
  )

  it.effect("of an app whose client filters by status is told by that status", () =>
    Effect.gen(function* () {
      const error = yield* failing(
        (request) =>
          new HttpClientError.ResponseError({
            request,
            reason: "StatusCode",
            response: HttpClientResponse.fromWeb(request, new Response(null, { status: 503 }))
          })
      )
      expect(error).toMatchObject({ _tag: "GrpcStatusError", code: 14 })
    })
  )
})
