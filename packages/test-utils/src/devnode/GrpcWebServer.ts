/**
 * A node over gRPC-Web: HTTP/1.1 with binary bodies, open to every origin, as browsers and the edge reach it.
 *
 * @since 1.0.0
 */
import * as Http from "node:http"
import type { AddressInfo } from "node:net"
import * as Effect from "effect/Effect"
import * as FiberId from "effect/FiberId"
import * as FiberSet from "effect/FiberSet"
import type * as Scope from "effect/Scope"
import * as Framing from "./GrpcFraming.ts"
import * as GrpcReply from "./GrpcReply.ts"
import { type ListenError, type ListenOptions, listen, readBody, writeAndDrain } from "./Listen.ts"
import { NodeApi } from "./NodeApi.ts"

/** The binary form; the base64 form (`grpc-web-text`) is not served. */
const CONTENT_TYPES: ReadonlySet<string | undefined> = new Set(["application/grpc-web", "application/grpc-web+proto"])

const CORS = {
  "access-control-allow-origin": "*",
  "access-control-expose-headers": "grpc-status, grpc-message, retry-after, grpc-retry-pushback-ms"
} as const

const PREFLIGHT = {
  ...CORS,
  "access-control-allow-methods": "POST",
  "access-control-max-age": "7200"
} as const

const HEADERS = { ...CORS, "content-type": "application/grpc-web+proto" } as const

/** The trailers as the last frame of the body (grpc `PROTOCOL-WEB.md`). */
const trailersFrame = (trailers: Record<string, string>): Uint8Array => {
  const text = Object.entries(trailers)
    .map(([name, value]) => `${name}: ${value}\r\n`)
    .join("")
  return Framing.frame(new TextEncoder().encode(text), Framing.flag.trailers)
}

const replyOn = (response: Http.ServerResponse): GrpcReply.GrpcReply => {
  const gone = () => response.destroyed || response.writableEnded
  return {
    begin: () => {
      if (gone()) return
      response.writeHead(200, HEADERS)
      response.flushHeaders()
    },
    send: (frame) => (gone() ? Effect.void : writeAndDrain(response, frame)),
    end: (trailers) => {
      if (!gone()) response.end(trailersFrame(trailers))
    },
    refuse: (status) => {
      if (!gone()) response.writeHead(200, { ...HEADERS, ...Framing.trailersOf(status) }).end()
    },
    drop: () => response.socket?.destroy()
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

    const server = Http.createServer((request, response) => {
      // A peer that goes away is told by "close"; without a listener it would end the process.
      response.on("error", () => {})
      request.on("error", () => {})
      if (request.method === "OPTIONS") {
        const wanted = request.headers["access-control-request-headers"] ?? "*"
        response.writeHead(204, { ...PREFLIGHT, "access-control-allow-headers": wanted }).end()
        return
      }
      if (request.method !== "POST") {
        response.writeHead(405, { ...CORS, allow: "POST, OPTIONS" }).end()
        return
      }
      if (!CONTENT_TYPES.has(request.headers["content-type"])) {
        response.writeHead(415, CORS).end()
        return
      }
      const reply = replyOn(response)
      readBody(request, reply.refuse, (body) => {
        const path = request.url ?? ""
        const timeout = Framing.timeoutOf(request.headers["grpc-timeout"])
        const fiber = run(GrpcReply.answer(api, { via: "grpc-web", path, body, timeout }, reply))
        response.once("close", () => fiber.unsafeInterruptAsFork(FiberId.none))
      })
    })

    return yield* listen(server, options, () => server.closeAllConnections())
  })
