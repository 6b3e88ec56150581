/**
 * Calls to a v3 node: bytes sent over the transport, answers read, every failure the one error of the network layer.
 *
 * @since 1.0.0
 */
import { ApiClientError, defaultTimeout, limits, type Operation } from "@keyward/core/ports/ApiClient"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Stream from "effect/Stream"
import { NetworkConfigError } from "../Endpoint.ts"
import { toApiClientError } from "../ErrorMapping.ts"
import { type Metadata, Transport } from "../Transport.ts"
import type { V3CallOptions } from "../V3CallOptions.ts"
import type { PageBounds, Request } from "./v3Requests.ts"
import type { Decoded } from "./v3Responses.ts"

const header = (
  option: keyof V3CallOptions,
  name: string,
  value: string | undefined
): Either.Either<Metadata, NetworkConfigError> =>
  value === undefined
    ? Either.right({})
    : /^[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?$/.test(value)
      ? Either.right({ [name]: value })
      : Either.left(new NetworkConfigError({ option, detail: "must be printable ASCII" }))

/** The calls that the clients of a v3 node are made of. */
export interface V3Calls {
  /** One request, one answer. */
  readonly call: <A>(
    operation: Operation,
    request: Request,
    read: (response: Uint8Array) => Decoded<A>
  ) => Effect.Effect<A, ApiClientError>
  /** One page. Where its entries are too large for one answer, fewer are asked for, down to one. */
  readonly callPage: <A>(
    operation: Operation,
    bounds: PageBounds,
    request: (bounds: PageBounds) => Request,
    read: (bounds: PageBounds, response: Uint8Array) => Decoded<A>
  ) => Effect.Effect<A, ApiClientError>
  /** One request after the other; none is sent where one of them is too large. */
  readonly callAll: (
    operation: Operation,
    requests: ReadonlyArray<Request>,
    read: (response: Uint8Array) => Decoded<void>
  ) => Effect.Effect<void, ApiClientError>
  /** One request, a stream of answers. */
  readonly stream: <A>(
    operation: Operation,
    request: Request,
    read: (message: Uint8Array) => Decoded<A>
  ) => Stream.Stream<A, ApiClientError>
}

/** Calls over the transport of the context. */
export const make = (options: V3CallOptions): Effect.Effect<V3Calls, NetworkConfigError, Transport> =>
  Effect.gen(function* () {
    const transport = yield* Transport
    const timeout = Duration.decode(options.timeout ?? defaultTimeout)
    const metadata: Metadata = {
      ...(yield* header("appVersion", "x-app-version", options.appVersion)),
      ...(yield* header("libxmtpVersion", "x-libxmtp-version", options.libxmtpVersion))
    }

    const checkSize = (operation: Operation, { message }: Request): Effect.Effect<void, ApiClientError> => {
      if (message.length <= limits.messageBytes) return Effect.void
      const detail = `${message.length} bytes, and ${limits.messageBytes} may be sent`
      return new ApiClientError({ operation, reason: "RequestTooLarge", detail })
    }

    const malformed = (operation: Operation) => (detail: string) =>
      new ApiClientError({ operation, reason: "MalformedResponse", detail })

    const send = (request: Request) => transport.unary({ ...request, metadata, timeout })

    const call: V3Calls["call"] = (operation, request, read) =>
      Effect.gen(function* () {
        yield* checkSize(operation, request)
        const response = yield* Effect.catchAll(send(request), (error) => toApiClientError(operation, error))
        return yield* Either.mapLeft(read(response), malformed(operation))
      })

    const callPage: V3Calls["callPage"] = (operation, bounds, request, read) =>
      Effect.matchEffect(send(request(bounds)), {
        onSuccess: (response) => Either.mapLeft(read(bounds, response), malformed(operation)),
        onFailure: (error) =>
          error._tag === "ProtocolError" && error.isTooLarge && bounds.limit > 1
            ? callPage(operation, { ...bounds, limit: Math.ceil(bounds.limit / 10) }, request, read)
            : toApiClientError(operation, error)
      })

    return {
      call,
      callPage,
      callAll: (operation, requests, read) =>
        Effect.zipRight(
          Effect.forEach(requests, (request) => checkSize(operation, request), { discard: true }),
          Effect.forEach(requests, (request) => call(operation, request, read), { discard: true })
        ),
      stream: (operation, request, read) =>
        Stream.fromEffect(checkSize(operation, request)).pipe(
          Stream.flatMap(() =>
            Stream.catchAll(transport.serverStreaming({ ...request, metadata, timeout }), (error) =>
              Stream.fromEffect(toApiClientError(operation, error))
            )
          ),
          Stream.mapEffect((message) => Either.mapLeft(read(message), malformed(operation)))
        )
    }
  })

/** Whether these are the same bytes. */
export const sameBytes = (one: Uint8Array, other: Uint8Array): boolean =>
  one.length === other.length && one.every((byte, index) => byte === other[index])

/** A topic that no node has: it would answer with a failure that looks as if it passed. */
export const emptyTopic = (operation: Operation): ApiClientError =>
  new ApiClientError({ operation, reason: "InvalidRequest", detail: "the topic is empty" })
