/**
 * gRPC-Web over an `HttpClient` that a test plays.
 */
import * as HttpClient from "@effect/platform/HttpClient"
import * as HttpClientError from "@effect/platform/HttpClientError"
import type { HttpClientRequest } from "@effect/platform/HttpClientRequest"
import * as HttpClientResponse from "@effect/platform/HttpClientResponse"
import { describe, expect, it } from "@effect/vitest"
import { limits } from "@keyward/core/ports/ApiClient"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
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
