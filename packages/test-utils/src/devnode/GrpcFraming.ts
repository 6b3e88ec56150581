/**
 * What gRPC and gRPC-Web share on the wire: the 5-byte prefix of a message, deadlines and status trailers (grpc
 * `PROTOCOL-HTTP2.md`, `PROTOCOL-WEB.md`).
 *
 * @since 1.0.0
 */
import * as Duration from "effect/Duration"
import * as Either from "effect/Either"
import type { GrpcStatus } from "./GrpcStatus.ts"
import * as Status from "./GrpcStatus.ts"

const PREFIX = 5

/**
 * Bytes of one request that a node takes (xmtp-node-go `--api.max-msg-size`).
 *
 * @since 1.0.0
 * @category constants
 */
export const maxMessageBytes: number = 50 * 1024 * 1024

/**
 * Flags of a frame: a message, or the trailers that end a gRPC-Web body.
 *
 * @since 1.0.0
 * @category constants
 */
export const flag = { message: 0x00, compressed: 0x01, trailers: 0x80 } as const

/**
 * One frame: flags, length (4 bytes, big endian), payload.
 *
 * @since 1.0.0
 * @category encoding
 */
export const frame = (payload: Uint8Array, flags: number = flag.message): Uint8Array => {
  const bytes = new Uint8Array(PREFIX + payload.length)
  bytes[0] = flags
  new DataView(bytes.buffer).setUint32(1, payload.length)
  bytes.set(payload, PREFIX)
  return bytes
}

/**
 * The message of a request body that holds exactly one.
 *
 * @since 1.0.0
 * @category decoding
 */
export const unframe = (body: Uint8Array): Either.Either<Uint8Array, GrpcStatus> => {
  const refuse = (code: number, detail: string) => Either.left(new Status.GrpcStatus({ code, detail }))
  if (body.length < PREFIX) return refuse(Status.code.internal, "the request has no message")
  if (body[0] === flag.compressed) return refuse(Status.code.unimplemented, "compression is not supported")
  if (body[0] !== flag.message) return refuse(Status.code.internal, `unexpected flags ${body[0]} in a request`)
  const length = new DataView(body.buffer, body.byteOffset).getUint32(1)
  return length === body.length - PREFIX
    ? Either.right(body.subarray(PREFIX))
    : refuse(Status.code.internal, "the request is not one whole message")
}

/**
 * A body larger than the node takes.
 *
 * @since 1.0.0
 * @category constructors
 */
export const tooLarge = (bytes: number): GrpcStatus =>
  new Status.GrpcStatus({
    code: Status.code.resourceExhausted,
    detail: `grpc: received message larger than max (${bytes} vs. ${maxMessageBytes})`
  })

const timeoutUnits: Readonly<Record<string, (amount: number) => Duration.Duration>> = {
  H: Duration.hours,
  M: Duration.minutes,
  S: Duration.seconds,
  m: Duration.millis,
  u: (amount) => Duration.micros(BigInt(amount)),
  n: (amount) => Duration.nanos(BigInt(amount))
}

/**
 * The deadline of a `grpc-timeout` header; infinite where there is none that makes sense.
 *
 * @since 1.0.0
 * @category decoding
 */
export const timeoutOf = (header: string | ReadonlyArray<string> | undefined): Duration.Duration => {
  const match = typeof header === "string" ? /^(\d{1,8})([HMSmun])$/.exec(header) : null
  return timeoutUnits[match?.[2] ?? ""]?.(Number(match?.[1])) ?? Duration.infinity
}

/** `grpc-message` is percent-encoded UTF-8. */
const encodeDetail = (detail: string): string =>
  encodeURIComponent(detail).replace(/%(2[0-4]|2[6-9A-F]|3[A-F]|40|5[BCDEF]|60|7[B-E])/g, (_, hex: string) =>
    String.fromCharCode(Number.parseInt(hex, 16))
  )

/**
 * The trailers of a call that went well.
 *
 * @since 1.0.0
 * @category encoding
 */
export const okTrailers: Readonly<Record<string, string>> = { "grpc-status": "0" }

/**
 * How a node asks for patience: `retry-after` in whole seconds, `grpc-retry-pushback-ms` in milliseconds.
 *
 * @since 1.0.0
 * @category encoding
 */
export const retryTrailersOf = (retryAfter: Duration.Duration | undefined): Record<string, string> =>
  retryAfter === undefined
    ? {}
    : {
        "retry-after": String(Math.ceil(Duration.toSeconds(retryAfter))),
        "grpc-retry-pushback-ms": String(Math.ceil(Duration.toMillis(retryAfter)))
      }

/**
 * The trailers of a call that did not go well.
 *
 * @since 1.0.0
 * @category encoding
 */
export const trailersOf = ({ code, detail, retryAfter }: GrpcStatus): Record<string, string> => ({
  "grpc-status": String(code),
  "grpc-message": encodeDetail(detail),
  ...retryTrailersOf(retryAfter)
})
