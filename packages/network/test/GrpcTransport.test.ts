/**
 * Native gRPC against servers that misbehave as only a server by hand can.
 */
import * as Http2 from "node:http2"
import * as Net from "node:net"
import { describe, expect, it } from "@effect/vitest"
import { limits } from "@keyward/core/ports/ApiClient"
import * as Cause from "effect/Cause"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import * as TestServices from "effect/TestServices"
import * as GrpcTransport from "../src/GrpcTransport.ts"
import { frame } from "../src/internal/grpcWebFraming.ts"
import * as SelfSigned from "./SelfSigned.ts"

const { certificate, key } = SelfSigned.make()

/** The port of a server that listens for as long as the scope lives. */
const listening = (server: Net.Server) =>
  Effect.acquireRelease(
    Effect.async<number>((resume) => {
      server.listen(0, "127.0.0.1", () => {
        const address = server.address()
        resume(Effect.succeed(address === null || typeof address === "string" ? 0 : address.port))
      })
    }),
    () => Effect.sync(() => server.close())
  )

type OnStream = (stream: Http2.ServerHttp2Stream, headers: Http2.IncomingHttpHeaders) => void

const serve = (onStream: OnStream, server: Http2.Http2Server | Http2.Http2SecureServer = Http2.createServer()) =>
  Effect.gen(function* () {
    const sessions = new Set<Http2.ServerHttp2Session>()
    server.on("session", (session: Http2.ServerHttp2Session) => {
      sessions.add(session)
      session.on("error", () => {})
      session.once("close", () => sessions.delete(session))
    })
    server.on("stream", (stream: Http2.ServerHttp2Stream, headers: Http2.IncomingHttpHeaders) => {
      stream.on("error", () => {})
      onStream(stream, headers)
    })
    yield* Effect.addFinalizer(() =>
      Effect.sync(() => {
        for (const session of sessions) session.destroy()
      })
    )
    return { port: yield* listening(server), sessions }
  })

const HEADERS = { ":status": 200, "content-type": "application/grpc" } as const

/** Headers, this body, these trailers. */
const answer =
  (body: Uint8Array, trailers: Record<string, string> = { "grpc-status": "0" }): OnStream =>
  (stream) => {
    stream.respond(HEADERS, { waitForTrailers: true })
    stream.once("wantTrailers", () => stream.sendTrailers(trailers))
    stream.end(body)
  }

const call = { path: "/a.B/C", message: Uint8Array.of(1), metadata: {}, timeout: Duration.seconds(30) }

const callOn = (port: number) =>
  Effect.flatMap(GrpcTransport.make({ url: `http://127.0.0.1:${port}` }), ({ unary }) => unary(call))

describe("a call", () => {
  it.scoped("carries path, headers and message, and brings the message back as plain bytes", () =>
    Effect.gen(function* () {
      let seen: Http2.IncomingHttpHeaders = {}
      const received: Array<Buffer> = []
      const { port } = yield* serve((stream, headers) => {
        seen = headers
        stream.on("data", (chunk: Buffer) => received.push(chunk))
        stream.once("end", () => answer(frame(Uint8Array.of(4, 5)))(stream, headers))
      })
      const { unary } = yield* GrpcTransport.make({ url: `grpc://127.0.0.1:${port}` })
      const whole = Uint8Array.of(9, 1, 2, 3, 9)
      const response = yield* unary({ ...call, message: whole.subarray(1, 4), metadata: { "x-app-version": "a/1" } })
      expect(response).toEqual(Uint8Array.of(4, 5))
      expect(Buffer.isBuffer(response)).toBe(false)
      expect(Uint8Array.from(Buffer.concat(received))).toEqual(frame(Uint8Array.of(1, 2, 3)))
      expect(seen).toMatchObject({
        ":path": "/a.B/C",
        "content-type": "application/grpc",
        te: "trailers",
        "x-app-version": "a/1",
        "grpc-timeout": "31000m"
      })
      expect(seen["x-libxmtp-version"]).toBeUndefined()
    })
  )

  it.scoped("takes a message of many megabytes", () =>
    Effect.gen(function* () {
      const large = new Uint8Array(20 * 1024 * 1024).fill(7)
      const { port } = yield* serve(answer(frame(large)))
      expect((yield* callOn(port)).length).toBe(large.length)
    })
  )
})

describe("an answer", () => {
  it.scoped("that is a status after headers is the node's, with its trailers", () =>
    Effect.gen(function* () {
      const trailers = { "grpc-status": "8", "grpc-message": "100%25 too%20fast", "grpc-retry-pushback-ms": "250" }
      const { port } = yield* serve(answer(new Uint8Array(0), trailers))
      expect(yield* Effect.flip(callOn(port))).toMatchObject({
        _tag: "GrpcStatusError",
        code: 8,
        detail: "100% too fast",
        metadata: { "grpc-retry-pushback-ms": "250" }
      })
    })
  )

  it.scoped("that is larger than a message may be is none", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(answer(frame(new Uint8Array(limits.answerBytes + 1))))
      expect(yield* Effect.flip(callOn(port))).toMatchObject({ _tag: "ProtocolError", isTooLarge: true })
    })
  )

  it.scoped("without a message is none", () =>
    Effect.gen(function* () {
      const { port: none } = yield* serve(answer(new Uint8Array(0)))
      expect(yield* Effect.flip(callOn(none))).toMatchObject({ _tag: "ProtocolError" })
    })
  )

  it.scoped("of a proxy without gRPC is the code that its HTTP status stands for", () =>
    Effect.gen(function* () {
      const { port } = yield* serve((stream) => {
        stream.respond({ ":status": 503, "content-type": "text/html" })
        stream.end("<html>")
      })
      expect(yield* Effect.flip(callOn(port))).toMatchObject({ _tag: "GrpcStatusError", code: 14 })
    })
  )
})

describe("a stream", () => {
  const openOn = (port: number, timeout = call.timeout) =>
    Stream.unwrap(
      Effect.map(GrpcTransport.make({ url: `http://127.0.0.1:${port}` }), ({ serverStreaming }) =>
        serverStreaming({ ...call, timeout })
      )
    )

  /** The length and the first byte of each message, then how it ended. */
  const read = (stream: Stream.Stream<Uint8Array, { readonly _tag: string }, Scope.Scope>) =>
    Effect.gen(function* () {
      const messages: Array<readonly [number, number | undefined]> = []
      const ended = yield* Effect.exit(
        Stream.runForEach(stream, (message) =>
          Effect.sync(() => {
            expect(Buffer.isBuffer(message)).toBe(false)
            messages.push([message.length, message[0]])
          })
        )
      )
      return { messages, error: Exit.isSuccess(ended) ? null : Option.getOrNull(Cause.failureOption(ended.cause)) }
    })

  it.scoped("brings every message, however large or empty, and ends well; the node is told no deadline", () =>
    Effect.gen(function* () {
      let seen: Http2.IncomingHttpHeaders = {}
      const sizes = [3, 0, 1, 20 << 20, 0, ...Array.from({ length: 200 }, (_, index) => index)]
      const body = Buffer.concat(sizes.map((size, index) => frame(new Uint8Array(size).fill(index))))
      const { port } = yield* serve((stream, headers) => {
        seen = headers
        answer(body)(stream, headers)
      })
      const { error, messages } = yield* read(openOn(port))
      expect(error).toBeNull()
      expect(messages).toEqual(sizes.map((size, index) => [size, size === 0 ? undefined : index % 256]))
      expect(seen["grpc-timeout"]).toBeUndefined()
    })
  )

  it.scoped("that ends otherwise fails after all that came before", () =>
    Effect.gen(function* () {
      const body = Buffer.concat(Array.from({ length: 50 }, (_, index) => frame(Uint8Array.of(index))))
      const { port } = yield* serve(answer(body, { "grpc-status": "14", "grpc-message": "restart" }))
      const { error, messages } = yield* read(openOn(port))
      expect(messages.map(([, first]) => first)).toEqual(Array.from({ length: 50 }, (_, index) => index))
      expect(error).toMatchObject({ _tag: "GrpcStatusError", code: 14, detail: "restart" })
    })
  )

  it.scoped("that is refused or ended before it began says so", () =>
    Effect.gen(function* () {
      const only =
        (trailers: Record<string, string>): OnStream =>
        (stream) =>
          stream.respond({ ...HEADERS, ...trailers }, { endStream: true })
      const { port: refused } = yield* serve(only({ "grpc-status": "12", "grpc-message": "unknown" }))
      expect((yield* read(openOn(refused))).error).toMatchObject({ _tag: "GrpcStatusError", code: 12 })
      const { port: empty } = yield* serve(only({ "grpc-status": "0" }))
      expect(yield* read(openOn(empty))).toEqual({ messages: [], error: null })
    })
  )

  it.scoped("whose connection breaks, or that breaks itself, is a connection failure", () =>
    Effect.gen(function* () {
      const breaks: ReadonlyArray<(stream: Http2.ServerHttp2Stream) => void> = [
        (stream) => stream.session?.destroy(),
        (stream) => stream.close(Http2.constants.NGHTTP2_INTERNAL_ERROR)
      ]
      for (const breakIt of breaks) {
        let break_ = () => {}
        const { port } = yield* serve((stream) => {
          stream.respond(HEADERS)
          stream.write(frame(Uint8Array.of(7)))
          break_ = () => breakIt(stream)
        })
        // Broken once the message has come.
        const broken = Stream.tap(openOn(port), () => Effect.sync(() => break_()))
        const { error, messages } = yield* read(broken)
        expect(messages).toEqual([[1, 7]])
        expect(error).toMatchObject({ _tag: "ConnectionError" })
      }
    })
  )

  it.scoped("is to begin in time, and may then be silent for days", () =>
    Effect.gen(function* () {
      const streams: Array<Http2.ServerHttp2Stream> = []
      let onCall = () => {}
      const { port } = yield* serve((stream) => {
        streams.push(stream)
        onCall()
      })
      const called = Effect.async<void>((resume) => {
        onCall = () => resume(Effect.void)
      })
      const late = yield* Effect.fork(read(openOn(port)))
      yield* called
      yield* TestClock.adjust("29999 millis")
      expect(yield* Fiber.poll(late)).toMatchObject({ _tag: "None" })
      yield* TestClock.adjust("1 millis")
      expect((yield* Fiber.join(late)).error).toMatchObject({ _tag: "DeadlineError" })

      const came = yield* Deferred.make<void>()
      const timely = yield* Effect.fork(
        read(Stream.tap(openOn(port), () => Deferred.succeed(came, undefined)).pipe(Stream.take(2)))
      )
      yield* called
      const stream = streams[1]
      stream?.respond(HEADERS)
      stream?.write(frame(Uint8Array.of(1)))
      yield* Deferred.await(came)
      yield* TestClock.adjust("3 days")
      expect(yield* Fiber.poll(timely)).toMatchObject({ _tag: "None" })
      stream?.write(frame(Uint8Array.of(2)))
      expect(yield* Fiber.join(timely)).toEqual({
        messages: [
          [1, 1],
          [1, 2]
        ],
        error: null
      })
    })
  )

  it.scoped("brings no more than is taken, holds up no other call, and ends at the node with whoever takes it", () =>
    Effect.gen(function* () {
      const chunk = frame(new Uint8Array(64 * 1024))
      let written = 0
      let closed = () => {}
      const { port } = yield* serve((stream, headers) => {
        if (headers[":path"] === "/a.B/D") return answer(frame(new Uint8Array(4 << 20)))(stream, headers)
        stream.respond(HEADERS)
        stream.once("close", () => closed())
        const fill = () => {
          // Far more than a patient node would keep for one caller.
          while (written < 256 << 20) {
            written += chunk.length
            if (!stream.write(chunk)) return
          }
        }
        stream.on("drain", fill)
        fill()
      })
      const gone = Effect.async<void>((resume) => {
        closed = () => resume(Effect.void)
      })
      const took = yield* Deferred.make<void>()
      const { serverStreaming, unary } = yield* GrpcTransport.make({ url: `http://127.0.0.1:${port}` })
      const taken = serverStreaming(call).pipe(
        Stream.runForEach(() => Effect.zipRight(Deferred.succeed(took, undefined), Effect.never))
      )
      const fiber = yield* Effect.fork(taken)
      yield* Deferred.await(took)
      // Until nothing moves any more.
      let last = -1
      yield* Effect.repeat(
        Effect.suspend(() => {
          last = written
          return TestServices.provideLive(Effect.sleep("30 millis"))
        }),
        { until: () => written === last }
      )
      expect(written).toBeLessThan(8 << 20)
      expect((yield* unary({ ...call, path: "/a.B/D" })).length).toBe(4 << 20)
      const ending = yield* Effect.fork(gone)
      yield* Effect.yieldNow()
      yield* Fiber.interrupt(fiber)
      yield* Fiber.join(ending)
    })
  )

  it.scoped("that finds no node fails", () =>
    Effect.gen(function* () {
      const port = yield* Effect.scoped(listening(Net.createServer()))
      expect((yield* read(openOn(port))).error).toMatchObject({ _tag: "ConnectionError" })
    })
  )
})

describe("a connection", () => {
  it.scoped("that is refused fails at once", () =>
    Effect.gen(function* () {
      const port = yield* Effect.scoped(listening(Net.createServer()))
      expect(yield* Effect.flip(callOn(port))).toMatchObject({ _tag: "ConnectionError" })
    })
  )

  it.scoped("that is reset before or after headers, or only the stream, is a connection failure", () =>
    Effect.gen(function* () {
      const breaks: ReadonlyArray<OnStream> = [
        (stream) => stream.session?.destroy(),
        (stream) => {
          stream.respond(HEADERS)
          stream.write(frame(Uint8Array.of(1)).subarray(0, 3), () => stream.session?.destroy())
        },
        (stream) => stream.close(Http2.constants.NGHTTP2_INTERNAL_ERROR),
        (stream) => stream.close(Http2.constants.NGHTTP2_CANCEL)
      ]
      for (const onStream of breaks) {
        const { port } = yield* serve(onStream)
        expect(yield* Effect.flip(callOn(port))).toMatchObject({ _tag: "ConnectionError" })
      }
    })
  )

  it.scoped("that never stands is given up after the connect timeout, before the deadline", () =>
    Effect.gen(function* () {
      const accepted: Array<Net.Socket> = []
      let onAccept = () => {}
      const silent = Net.createServer((socket) => {
        accepted.push(socket.on("error", () => {}))
        onAccept()
      })
      yield* Effect.addFinalizer(() =>
        Effect.sync(() => {
          for (const socket of accepted) socket.destroy()
        })
      )
      const port = yield* listening(silent)
      const fiber = yield* Effect.fork(Effect.flip(callOn(port)))
      yield* Effect.async<void>((resume) => {
        if (accepted.length > 0) resume(Effect.void)
        else onAccept = () => resume(Effect.void)
      })
      yield* TestClock.adjust("10 seconds")
      const error = yield* Fiber.join(fiber)
      expect(error).toMatchObject({ _tag: "ConnectionError", detail: "no connection within 10s" })
    })
  )

  it.scoped("that stands is used until the deadline", () =>
    Effect.gen(function* () {
      let onCall = () => {}
      const { port } = yield* serve(() => onCall())
      const called = Effect.async<void>((resume) => {
        onCall = () => resume(Effect.void)
      })
      const fiber = yield* Effect.fork(Effect.flip(callOn(port)))
      yield* called
      yield* TestClock.adjust("29999 millis")
      expect(yield* Fiber.poll(fiber)).toMatchObject({ _tag: "None" })
      yield* TestClock.adjust("1 millis")
      expect(yield* Fiber.join(fiber)).toMatchObject({ _tag: "DeadlineError" })
    })
  )

  it.live("ends with the scope", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { port, sessions } = yield* serve(answer(frame(Uint8Array.of(1))))
        yield* Effect.scoped(callOn(port))
        // The goodbye takes its way through the loopback.
        yield* Effect.repeat(Effect.sleep("1 millis"), { while: () => sessions.size > 0 })
        expect(sessions.size).toBe(0)
      })
    )
  )

  it.scoped("that was lost comes back", () =>
    Effect.gen(function* () {
      let calls = 0
      const { port } = yield* serve((stream, headers) => {
        calls += 1
        if (calls === 1) stream.session?.destroy()
        else answer(frame(Uint8Array.of(2)))(stream, headers)
      })
      const { unary } = yield* GrpcTransport.make({ url: `http://127.0.0.1:${port}` })
      expect(yield* Effect.flip(unary(call))).toMatchObject({ _tag: "ConnectionError" })
      expect(yield* TestServices.provideLive(unary(call))).toEqual(Uint8Array.of(2))
    })
  )
})

describe("TLS", () => {
  const secure = () => Http2.createSecureServer({ cert: certificate, key })

  it.scoped("is spoken for https and grpcs, to nodes whose authority is trusted", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(answer(frame(Uint8Array.of(3))), secure())
      for (const scheme of ["https", "grpcs"]) {
        const url = `${scheme}://localhost:${port}`
        const { unary } = yield* GrpcTransport.make({ url, rootCertificates: certificate })
        expect(yield* unary(call)).toEqual(Uint8Array.of(3))
      }
    })
  )

  it.scoped("is refused to anyone else", () =>
    Effect.gen(function* () {
      const { port } = yield* serve(answer(frame(Uint8Array.of(3))), secure())
      const { unary } = yield* GrpcTransport.make({ url: `https://localhost:${port}` })
      expect(yield* Effect.flip(unary(call))).toMatchObject({ _tag: "ConnectionError" })
    })
  )
})
