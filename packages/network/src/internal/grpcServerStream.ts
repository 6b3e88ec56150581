/**
 * A server stream of @grpc/grpc-js as a `Stream`: messages are taken from it as they are wanted. It holds 16 at most, the
 * next wait in the windows of HTTP/2, and so at the node.
 *
 * @since 1.0.0
 */
import type { ClientReadableStream, ServiceError } from "@grpc/grpc-js"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { CarrierError } from "../Transport.ts"

/** A stream that was asked for. */
export interface ServerStream {
  /** Succeeds when headers came, or the status without any. */
  readonly begun: Effect.Effect<void>
  /** The messages, then how it ended. To be run once. */
  readonly messages: Stream.Stream<Uint8Array, CarrierError>
}

/** Starts the call, and cancels it with the scope. */
export const make = (
  start: () => ClientReadableStream<Uint8Array>,
  toCarrierError: (error: ServiceError, sawHeaders: boolean) => CarrierError
): Effect.Effect<ServerStream, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => {
        const call = start()
        const state = {
          sawHeaders: false,
          /** Its status came; messages may still wait to be read. */
          finished: false,
          /** All messages were read. */
          ended: false,
          failure: undefined as CarrierError | undefined,
          wake: undefined as (() => void) | undefined
        }
        const wake = () => state.wake?.()
        call.once("metadata", () => {
          state.sawHeaders = true
          wake()
        })
        // grpc-js tells its status beside the stream: what came before is still to be read, and then "end" follows.
        call.on("error", (error: ServiceError) => {
          state.failure = toCarrierError(error, state.sawHeaders)
          wake()
        })
        call.once("status", () => {
          state.finished = true
          wake()
        })
        call.once("end", () => {
          state.ended = true
          wake()
        })
        call.on("readable", wake)
        return { call, state }
      }),
      ({ call }) => Effect.sync(() => call.cancel())
    ),
    ({ call, state }) => {
      /** Asks again whenever something happened, until there is an answer. */
      const poll = <A, E>(answer: () => Effect.Effect<A, E> | undefined): Effect.Effect<A, E> =>
        Effect.async((resume) => {
          const attempt = () => {
            const found = answer()
            state.wake = found === undefined ? attempt : undefined
            if (found !== undefined) resume(found)
          }
          attempt()
          return Effect.sync(() => {
            state.wake = undefined
          })
        })

      const take = (): Effect.Effect<Chunk.Chunk<Uint8Array>, Option.Option<CarrierError>> | undefined => {
        const taken: Array<Uint8Array> = []
        for (let message = call.read(); message !== null; message = call.read()) taken.push(message)
        if (taken.length > 0) return Effect.succeed(Chunk.unsafeFromArray(taken))
        return state.ended ? Effect.fail(Option.fromNullable(state.failure)) : undefined
      }

      return {
        begun: poll(() => (state.sawHeaders || state.finished ? Effect.void : undefined)),
        messages: Stream.fromPull(Effect.succeed(poll(take)))
      }
    }
  )
