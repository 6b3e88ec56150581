/**
 * A node over native gRPC: HTTP/2 without TLS. Bare `node:http2`, which answers a call in half the time of a gRPC
 * framework, and leaves the order of headers, messages and trailers to us.
 *
 * @since 1.0.0
 */
import * as Http2 from "node:http2"
import type { AddressInfo } from "node:net"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import * as Framing from "./GrpcFraming.ts"
import * as GrpcReply from "./GrpcReply.ts"
import { type ListenError, type ListenOptions, listen, readBody, writeAndDrain } from "./Listen.ts"
import { NodeApi } from "./NodeApi.ts"

/** Bytes that a client may send before it is told to go on: room for a large request in one go. */
const WINDOW = 4 * 1024 * 1024

/** Megabytes that one connection may have waiting, beyond which Node refuses its next call: several of the largest answers. */
const SESSION_MEMORY = 1_024

const HEADERS = { ":status": 200, "content-type": "application/grpc+proto" } as const

const replyOn = (stream: Http2.ServerHttp2Stream): GrpcReply.GrpcReply => {
  const gone = () => stream.destroyed || stream.closed
  let trailers: Record<string, string> = Framing.okTrailers
  return {
    begin: () => {
      if (gone()) return
      stream.respond(HEADERS, { waitForTrailers: true })
      stream.once("wantTrailers", () => stream.sendTrailers(trailers))
    },
    send: (frame) => (gone() ? Effect.void : writeAndDrain(stream, frame)),
    end: (last) => {
      if (gone()) return
      trailers = last
      stream.end()
    },
    refuse: (status) => {
      if (!gone()) stream.respond({ ...HEADERS, ...Framing.trailersOf(status) }, { endStream: true })
    },
    drop: () => stream.session?.destroy()
  }
}

/**
 * Serves the node until the scope ends, which closes every connection.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (options: ListenOptions): Effect.Effect<AddressInfo, ListenError, NodeApi | Scope.Scope> =>
  Effect.gen(function* () {
    const api = yield* NodeApi
    const run = yield* FiberSet.makeRuntime<never>()
    const sessions = new Set<Http2.ServerHttp2Session>()
    const server = Http2.createServer({ maxSessionMemory: SESSION_MEMORY, settings: { initialWindowSize: WINDOW } })

    server.on("session", (session) => {
      sessions.add(session)
      session.once("close", () => sessions.delete(session))
      // A connection that breaks ends its streams, which is all there is to do about it.
      session.on("error", () => {})
      session.setLocalWindowSize(WINDOW)
    })

    server.on("stream", (stream, headers) => {
      const reply = replyOn(stream)
      // A reset by the peer is told by "close"; without a listener it would end the process.
      stream.on("error", () => {})
      readBody(stream, reply.refuse, (body) => {
        const path = headers[":path"] ?? ""
        const timeout = Framing.timeoutOf(headers["grpc-timeout"])
        const fiber = run(GrpcReply.answer(api, { via: "grpc", path, body, timeout }, reply))
        stream.once("close", () => fiber.unsafeInterruptAsFork(FiberId.none))
      })
    })

    return yield* listen(server, options, () => {
      for (const session of sessions) session.destroy()
    })
  })
