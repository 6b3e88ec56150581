/**
 * The sockets under a node: listening for as long as a scope lives, reading whole bodies, writing no faster than the peer
 * reads.
 *
 * @since 1.0.0
 */
import type { AddressInfo, Server } from "node:net"
import type { Readable, Writable } from "node:stream"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import { maxMessageBytes, tooLarge } from "./GrpcFraming.ts"
import type { GrpcStatus } from "./GrpcStatus.ts"

/**
 * The port cannot be had.
 *
 * @since 1.0.0
 * @category errors
 */
export class ListenError extends Schema.TaggedError<ListenError>("@keyward/test-utils/ListenError")("ListenError", {
  host: Schema.String,
  port: Schema.Int,
  /** The system's word for it: `EADDRINUSE`, `EACCES`. */
  code: Schema.String
}) {
  override get message(): string {
    const why =
      this.code === "EADDRINUSE" ? "the port is in use" : this.code === "EACCES" ? "permission denied" : this.code
    return `cannot listen on ${this.host}:${this.port}: ${why}`
  }
}

/**
 * Where to listen. Port 0 is any free one.
 *
 * @since 1.0.0
 * @category models
 */
export interface ListenOptions {
  readonly host: string
  readonly port: number
}

/**
 * Starts the server, and at the end of the scope stops it: no new connections, then `closeConnections` for those that are
 * there.
 *
 * @since 1.0.0
 * @category constructors
 */
export const listen = (
  server: Server,
  { host, port }: ListenOptions,
  closeConnections: () => void
): Effect.Effect<AddressInfo, ListenError, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.async<AddressInfo, ListenError>((resume) => {
      const fail = (error: NodeJS.ErrnoException) =>
        resume(new ListenError({ host, port, code: error.code ?? error.message }))
      server.once("error", fail)
      server.listen({ host, port }, () => {
        server.off("error", fail)
        const address = server.address()
        resume(
          address === null || typeof address === "string"
            ? new ListenError({ host, port, code: "no TCP address" })
            : Effect.succeed(address)
        )
      })
    }),
    () =>
      Effect.async<void>((resume) => {
        server.close(() => resume(Effect.void))
        closeConnections()
      })
  )

/** The same bytes without `Buffer`, whose `slice` is a view where that of every other array is a copy. */
const plain = ({ buffer, byteLength, byteOffset }: Buffer): Uint8Array => new Uint8Array(buffer, byteOffset, byteLength)

/**
 * Collects a request body and hands it on whole, or refuses it once it is longer than a node takes.
 *
 * @since 1.0.0
 * @category combinators
 */
export const readBody = (
  readable: Readable,
  refuse: (status: GrpcStatus) => void,
  done: (body: Uint8Array) => void
): void => {
  const chunks: Array<Buffer> = []
  let bytes = 0
  readable.on("data", (chunk: Buffer) => {
    bytes += chunk.length
    if (bytes <= maxMessageBytes) chunks.push(chunk)
    else chunks.length = 0
  })
  readable.once("end", () => (bytes > maxMessageBytes ? refuse(tooLarge(bytes)) : done(plain(Buffer.concat(chunks)))))
}

/**
 * Writes, and waits until the peer takes more or has gone.
 *
 * @since 1.0.0
 * @category combinators
 */
export const writeAndDrain = (writable: Writable, bytes: Uint8Array): Effect.Effect<void> =>
  Effect.async((resume) => {
    if (writable.write(bytes)) return resume(Effect.void)
    const done = () => resume(Effect.void)
    writable.once("drain", done).once("close", done)
    return Effect.sync(() => writable.off("drain", done).off("close", done))
  })
