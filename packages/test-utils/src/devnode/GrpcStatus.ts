/**
 * How a node says no.
 *
 * @since 1.0.0
 */
import * as Schema from "effect/Schema"

/**
 * The gRPC status codes that XMTP nodes use (grpc `statuscodes.md`).
 *
 * @since 1.0.0
 * @category constants
 */
export const code = {
  cancelled: 1,
  unknown: 2,
  invalidArgument: 3,
  deadlineExceeded: 4,
  permissionDenied: 7,
  resourceExhausted: 8,
  unimplemented: 12,
  internal: 13,
  unavailable: 14
} as const

/**
 * A call that ended with another status than OK.
 *
 * @since 1.0.0
 * @category errors
 */
export class GrpcStatus extends Schema.TaggedError<GrpcStatus>("@keyward/test-utils/GrpcStatus")("GrpcStatus", {
  code: Schema.Int,
  /** What the node says: the `grpc-message` trailer, free text. */
  detail: Schema.String,
  /** How long the node asks to wait: the `retry-after` trailer, whole seconds. */
  retryAfter: Schema.optional(Schema.DurationFromSelf)
}) {
  override get message(): string {
    return `gRPC status ${this.code}: ${this.detail}`
  }
}

/**
 * The connection broke before an answer arrived. The caller cannot know what became of the request.
 *
 * @since 1.0.0
 * @category errors
 */
export class ConnectionDropped extends Schema.TaggedError<ConnectionDropped>("@keyward/test-utils/ConnectionDropped")(
  "ConnectionDropped",
  {}
) {
  override get message(): string {
    return "the connection was dropped"
  }
}

/**
 * `INVALID_ARGUMENT`: the request is not what the call takes, or what it carries is not valid.
 *
 * @since 1.0.0
 * @category constructors
 */
export const invalidArgument = (detail: string): GrpcStatus => new GrpcStatus({ code: code.invalidArgument, detail })

/**
 * `UNKNOWN`: what a Go server answers for an error that it gave no status.
 *
 * @since 1.0.0
 * @category constructors
 */
export const unknown = (detail: string): GrpcStatus => new GrpcStatus({ code: code.unknown, detail })

/**
 * `UNIMPLEMENTED`: the node does not know the method.
 *
 * @since 1.0.0
 * @category constructors
 */
export const unimplemented = (path: string): GrpcStatus =>
  new GrpcStatus({ code: code.unimplemented, detail: `unknown method ${path}` })

/**
 * `UNAVAILABLE`: for now.
 *
 * @since 1.0.0
 * @category constructors
 */
export const unavailable = (detail: string): GrpcStatus => new GrpcStatus({ code: code.unavailable, detail })
