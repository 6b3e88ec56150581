/**
 * How a request reaches a node: one message there, one message or a stream of them back, whatever carries them. The layers
 * are `GrpcTransport` and `GrpcWebTransport`; an app may bring its own by `Transport.make`.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"

/**
 * Headers or trailers. Names are lower case; of a name that came several times the last value counts.
 *
 * @since 1.0.0
 * @category models
 */
export const Metadata = Schema.Record({ key: Schema.String, value: Schema.String })

/**
 * @since 1.0.0
 * @category models
 */
export type Metadata = typeof Metadata.Type

/**
 * The node answered with another status than OK.
 *
 * @since 1.0.0
 * @category errors
 */
export class GrpcStatusError extends Schema.TaggedError<GrpcStatusError>("@keyward/network/GrpcStatusError")(
  "GrpcStatusError",
  {
    /** The status code: 1 to 16, or a number that gRPC does not define. */
    code: Schema.Int,
    /** The `grpc-message`, percent-decoded. */
    detail: Schema.String,
    /** The trailers, without `grpc-status` and `grpc-message`. */
    metadata: Metadata
  }
) {
  override get message(): string {
    return `gRPC status ${this.code}: ${this.detail}`
  }
}

/**
 * The connection could not be made or broke. The request may have been carried out.
 *
 * @since 1.0.0
 * @category errors
 */
export class ConnectionError extends Schema.TaggedError<ConnectionError>("@keyward/network/ConnectionError")(
  "ConnectionError",
  { detail: Schema.String }
) {
  override get message(): string {
    return `connection failed: ${this.detail}`
  }
}

/**
 * No answer in time. The request may have been carried out.
 *
 * @since 1.0.0
 * @category errors
 */
export class DeadlineError extends Schema.TaggedError<DeadlineError>("@keyward/network/DeadlineError")(
  "DeadlineError",
  { timeout: Schema.DurationFromSelf }
) {
  override get message(): string {
    return `no answer within ${Duration.format(this.timeout)}`
  }
}

/**
 * What came back is not an answer to the call: wrong framing, too large; to a unary call, no message or two.
 *
 * @since 1.0.0
 * @category errors
 */
export class ProtocolError extends Schema.TaggedError<ProtocolError>("@keyward/network/ProtocolError")(
  "ProtocolError",
  {
    detail: Schema.String,
    /** Whether it is one, but longer than `limits.answerBytes`: less may be asked for. */
    isTooLarge: Schema.optionalWith(Schema.Boolean, { default: () => false })
  }
) {
  override get message(): string {
    return `not a gRPC answer: ${this.detail}`
  }
}

/**
 * Every way in which a call fails on its way.
 *
 * @since 1.0.0
 * @category errors
 */
export type TransportError = GrpcStatusError | ConnectionError | DeadlineError | ProtocolError

/**
 * A request on its way.
 *
 * @since 1.0.0
 * @category models
 */
export interface Request {
  /** `/<package>.<service>/<method>` */
  readonly path: string
  /** The request message, protobuf. */
  readonly message: Uint8Array
  readonly metadata: Metadata
}

/**
 * A call: a request, and how long its answer may take. A stream is to begin in that time, and may then last.
 *
 * @since 1.0.0
 * @category models
 */
export interface Call extends Request {
  readonly timeout: Duration.Duration
}

/**
 * The way to one node.
 *
 * @since 1.0.0
 * @category tags
 */
export class Transport extends Context.Tag("@keyward/network/Transport")<
  Transport,
  {
    /** Sends one message and gives the one that answers it. Interruption cancels the call, at the node too. */
    readonly unary: (call: Call) => Effect.Effect<Uint8Array, TransportError>
    /**
     * Sends one message and gives those that answer it, no faster than they are taken. Ends well where the node ends it
     * with OK; interruption, and whoever takes no more, cancel the call, at the node too.
     */
    readonly serverStreaming: (call: Call) => Stream.Stream<Uint8Array, TransportError>
  }
>() {}

/**
 * Every way in which a call fails where nobody looks at the clock.
 *
 * @since 1.0.0
 * @category errors
 */
export type CarrierError = Exclude<TransportError, DeadlineError>

/**
 * How a transport carries requests, without deadlines.
 *
 * @since 1.0.0
 * @category models
 */
export interface Carrier {
  readonly unary: (request: Request) => Effect.Effect<Uint8Array, CarrierError>
  /** Succeeds when the node has begun to answer. The scope ends the call. */
  readonly open: (request: Request) => Effect.Effect<Stream.Stream<Uint8Array, CarrierError>, CarrierError, Scope.Scope>
}

/**
 * How much longer a node is told to work than the caller waits: the caller's clock decides what a timeout is, and the node
 * still stops working for a caller that vanished without a word.
 */
const margin = Duration.seconds(1)

/** A `grpc-timeout` value takes at most 8 digits (grpc `PROTOCOL-HTTP2.md`). */
const maxTimeoutMillis = 99_999_999

/**
 * A transport from what carries its requests. Deadlines are kept here, by the clock of the caller; that of a unary call is
 * told to the node in `grpc-timeout`, that of a stream is not, as it would end the stream.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (carrier: Carrier): Context.Tag.Service<Transport> => {
  const inTime = <A, R>(
    timeout: Duration.Duration,
    answer: Effect.Effect<A, CarrierError, R>
  ): Effect.Effect<A, TransportError, R> =>
    Effect.timeoutFail(answer, { duration: timeout, onTimeout: () => new DeadlineError({ timeout }) })

  return {
    unary: ({ message, metadata, path, timeout }) => {
      const told = Math.ceil(Duration.toMillis(Duration.sum(timeout, margin)))
      const deadline: Metadata = told <= maxTimeoutMillis ? { "grpc-timeout": `${told}m` } : {}
      return inTime(timeout, carrier.unary({ path, message, metadata: { ...metadata, ...deadline } }))
    },
    serverStreaming: ({ message, metadata, path, timeout }) =>
      Stream.unwrapScoped(inTime(timeout, carrier.open({ path, message, metadata })))
  }
}
