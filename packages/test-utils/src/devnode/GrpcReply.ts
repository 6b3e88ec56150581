/**
 * A call from its message to its last trailer, for every transport that frames as gRPC does.
 *
 * @since 1.0.0
 */
import * as Cause from "effect/Cause"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type * as Faults from "../Faults.ts"
import * as Framing from "./GrpcFraming.ts"
import type { GrpcStatus } from "./GrpcStatus.ts"
import * as Status from "./GrpcStatus.ts"
import type { NodeApi, NodeError } from "./NodeApi.ts"

/**
 * The answering half of one call. Each method may be called when the peer has gone already; it then does nothing.
 *
 * @since 1.0.0
 * @category models
 */
export interface GrpcReply {
  /** Sends the headers, at once: a tonic client waits for them before it hands out a stream. */
  readonly begin: () => void
  /** Sends one frame, after `begin`, and waits until the transport takes more. */
  readonly send: (frame: Uint8Array) => Effect.Effect<void>
  /** Ends the answer, after `begin`. */
  readonly end: (trailers: Record<string, string>) => void
  /** Ends the answer before it began: headers and trailers in one. */
  readonly refuse: (status: GrpcStatus) => void
  /** Breaks the connection. */
  readonly drop: () => void
}

/**
 * A request as it came in.
 *
 * @since 1.0.0
 * @category models
 */
export interface GrpcRequest {
  readonly via: Faults.Via
  /** `/<service>/<method>` */
  readonly path: string
  /** The framed message. */
  readonly body: Uint8Array
  readonly timeout: Duration.Duration
}

const internalError = new Status.GrpcStatus({ code: Status.code.internal, detail: "internal error" })

const deadlineExceeded = new Status.GrpcStatus({
  code: Status.code.deadlineExceeded,
  detail: "context deadline exceeded"
})

/** How a failure looks to the caller. A bug of a handler is INTERNAL, and is logged. */
const answerFailure = (
  cause: Cause.Cause<NodeError>,
  drop: () => void,
  fail: (status: GrpcStatus) => void
): Effect.Effect<void> => {
  const failure = Option.getOrUndefined(Cause.failureOption(cause))
  if (failure !== undefined) return Effect.sync(() => (failure._tag === "ConnectionDropped" ? drop() : fail(failure)))
  if (Cause.isInterruptedOnly(cause)) return Effect.void
  return Effect.zipRight(
    Effect.logError("the node failed", cause),
    Effect.sync(() => fail(internalError))
  )
}

/**
 * Carries a call out and answers it.
 *
 * @since 1.0.0
 * @category combinators
 */
export const answer = (
  api: Context.Tag.Service<NodeApi>,
  { body, path, timeout, via }: GrpcRequest,
  reply: GrpcReply
): Effect.Effect<void> => {
  const kind = api.kindOf(path)
  if (kind === undefined) return Effect.sync(() => reply.refuse(Status.unimplemented(path)))
  const message = Framing.unframe(body)
  if (message._tag === "Left") return Effect.sync(() => reply.refuse(message.left))

  if (kind === "unary") {
    const call = api.call(path, message.right, via)
    const timely = Duration.isFinite(timeout)
      ? Effect.timeoutFail(call, { duration: timeout, onTimeout: () => deadlineExceeded })
      : call
    return Effect.matchCauseEffect(timely, {
      onSuccess: (response) =>
        Effect.suspend(() => {
          reply.begin()
          return Effect.map(reply.send(Framing.frame(response)), () => reply.end(Framing.okTrailers))
        }),
      onFailure: (cause) => answerFailure(cause, reply.drop, reply.refuse)
    })
  }

  return Effect.suspend(() => {
    reply.begin()
    return api.open(path, message.right, via).pipe(
      Stream.runForEach((response) => reply.send(Framing.frame(response))),
      Effect.matchCauseEffect({
        onSuccess: () => Effect.sync(() => reply.end(Framing.okTrailers)),
        onFailure: (cause) => answerFailure(cause, reply.drop, (status) => reply.end(Framing.trailersOf(status)))
      })
    )
  })
}
