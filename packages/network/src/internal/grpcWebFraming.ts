/**
 * The body of a gRPC-Web call: frames of 5 bytes and a payload, the last of an answer holding the trailers (grpc
 * `PROTOCOL-WEB.md`).
 *
 * @since 1.0.0
 */
import { limits } from "@keyward/core/ports/ApiClient"
import * as Chunk from "effect/Chunk"
import * as Either from "effect/Either"
import * as Take from "effect/Take"
import { ConnectionError, GrpcStatusError, type Metadata, ProtocolError } from "../Transport.ts"

const PREFIX = 5
const COMPRESSED = 0x01
const TRAILERS = 0x80

/** A request body of one message. */
export const frame = (message: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(PREFIX + message.length)
  new DataView(bytes.buffer).setUint32(1, message.length)
  bytes.set(message, PREFIX)
  return bytes
}

/** Bytes that a body may have beside its message: both prefixes and the trailers. */
export const overhead = 64 * 1024

/** An answer that is longer than is read. */
export const tooLarge = new ProtocolError({
  detail: `the answer is larger than ${limits.answerBytes} bytes`,
  isTooLarge: true
})

/** Percent-decodes a `grpc-message`. What is not valid stays as it came. */
export const decodeDetail = (detail: string): string => {
  try {
    return decodeURIComponent(detail)
  } catch {
    return detail
  }
}

const parseTrailers = (payload: Uint8Array): Metadata =>
  Object.fromEntries(
    new TextDecoder()
      .decode(payload)
      .split("\r\n")
      .flatMap((line) => {
        const colon = line.indexOf(":")
        return colon < 1 ? [] : [[line.slice(0, colon).trim().toLowerCase(), line.slice(colon + 1).trim()]]
      })
  )

/** The status that these headers or trailers hold; undefined where they hold none, and null where it is OK. */
export const statusOf = (metadata: Metadata): GrpcStatusError | null | undefined => {
  const { "grpc-message": detail = "", "grpc-status": status, ...rest } = metadata
  if (status === undefined) return undefined
  if (!/^\d{1,9}$/.test(status)) return new GrpcStatusError({ code: 2, detail: "unreadable status", metadata: rest })
  return status === "0"
    ? null
    : new GrpcStatusError({ code: Number(status), detail: decodeDetail(detail), metadata: rest })
}

/** The one message of an answer's body, or the status that came instead. */
export const parseBody = (body: Uint8Array): Either.Either<Uint8Array, GrpcStatusError | ProtocolError> => {
  const refuse = (detail: string) => Either.left(new ProtocolError({ detail }))
  const view = new DataView(body.buffer, body.byteOffset, body.byteLength)
  let message: Uint8Array | undefined
  for (let offset = 0; offset < body.length; ) {
    if (body.length - offset < PREFIX) return refuse("a frame is cut off")
    const flags = view.getUint8(offset)
    const end = offset + PREFIX + view.getUint32(offset + 1)
    if (end > body.length) return refuse("a frame is cut off")
    const payload = body.subarray(offset + PREFIX, end)
    if ((flags & COMPRESSED) !== 0) return refuse("compressed though not asked for")
    if (flags === TRAILERS) {
      const status = statusOf(parseTrailers(payload))
      if (status === undefined) return refuse("the trailers hold no status")
      if (status !== null) return Either.left(status)
      if (end !== body.length) return refuse("something follows the trailers")
      return message === undefined ? refuse("no message") : Either.right(message)
    }
    if (flags !== 0) return refuse(`unknown flags ${flags}`)
    if (message !== undefined) return refuse("more than one message")
    message = payload
    offset = end
  }
  return refuse("no trailers")
}

/** A frame whose payload is still to come. */
interface Head {
  readonly isTrailers: boolean
  readonly length: number
}

const parseHead = (prefix: Uint8Array): Either.Either<Head, ProtocolError> => {
  const flags = prefix[0] ?? 0
  const length = new DataView(prefix.buffer, prefix.byteOffset).getUint32(1)
  const refuse = (detail: string) => Either.left(new ProtocolError({ detail }))
  if ((flags & COMPRESSED) !== 0) return refuse("compressed though not asked for")
  if (flags !== 0 && flags !== TRAILERS) return refuse(`unknown flags ${flags}`)
  const isTrailers = flags === TRAILERS
  if (isTrailers && length > overhead) return refuse(`trailers of ${length} bytes`)
  if (length > limits.answerBytes) return Either.left(tooLarge)
  return Either.right({ isTrailers, length })
}

/** The end of a stream, from its trailers. */
const parseEnd = (payload: Uint8Array): Take.Take<never, GrpcStatusError | ProtocolError> => {
  const status = statusOf(parseTrailers(payload))
  if (status === undefined) return Take.fail(new ProtocolError({ detail: "the trailers hold no status" }))
  return status === null ? Take.end : Take.fail(status)
}

/** What a stream of messages gives next: some, its end, or a failure. */
export type StreamTake = Take.Take<Uint8Array, GrpcStatusError | ConnectionError | ProtocolError>

/**
 * Reads the body of a stream of messages as it comes, however it is cut. Each byte is copied once, and no more is kept than
 * one message. What follows an end or a failure counts for nothing.
 */
export const makeStreamReader = (): {
  readonly push: (bytes: Uint8Array) => ReadonlyArray<StreamTake>
  /** The body ended, and no trailers came: whoever stands between cut it off. */
  readonly cutOff: StreamTake
} => {
  let head: Head | undefined
  let wanted = new Uint8Array(PREFIX)
  let filled = 0

  const push = (bytes: Uint8Array): ReadonlyArray<StreamTake> => {
    const messages: Array<Uint8Array> = []
    const then = (last?: StreamTake): ReadonlyArray<StreamTake> => [
      ...(messages.length === 0 ? [] : [Take.chunk(Chunk.unsafeFromArray(messages))]),
      ...(last === undefined ? [] : [last])
    ]
    for (let offset = 0; offset < bytes.length; ) {
      const part = bytes.subarray(offset, offset + wanted.length - filled)
      wanted.set(part, filled)
      filled += part.length
      offset += part.length
      // Twice where the payload is empty.
      while (filled === wanted.length) {
        const whole = wanted
        filled = 0
        if (head === undefined) {
          const parsed = parseHead(whole)
          if (Either.isLeft(parsed)) return then(Take.fail(parsed.left))
          head = parsed.right
          wanted = new Uint8Array(head.length)
        } else {
          if (head.isTrailers) return then(parseEnd(whole))
          messages.push(whole)
          head = undefined
          wanted = new Uint8Array(PREFIX)
        }
      }
    }
    return then()
  }

  return { push, cutOff: Take.fail(new ConnectionError({ detail: "the stream was cut off" })) }
}

/**
 * The code that stands for an HTTP status without a gRPC status (grpc `http-grpc-status-mapping.md`). Different from there:
 * 429 is a rate limit and not an outage, 413 and 415 refuse the request itself.
 */
export const codeOfHttpStatus = (status: number): number => {
  switch (status) {
    case 400:
      return 13
    case 401:
      return 16
    case 403:
      return 7
    case 404:
      return 12
    case 413:
    case 415:
      return 3
    case 429:
      return 8
    case 502:
    case 503:
    case 504:
      return 14
    default:
      return 2
  }
}
