/**
 * gRPC-Web over the app's `HttpClient`, for browsers, the edge, proxies: binary `application/grpc-web+proto`, which envoy
 * and d14n nodes speak.
 *
 * @since 1.0.0
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as HttpClient from "@effect/platform/HttpClient"
import type { HttpClientError } from "@effect/platform/HttpClientError"
import * as HttpClientRequest from "@effect/platform/HttpClientRequest"
import type { HttpClientResponse } from "@effect/platform/HttpClientResponse"
import { limits } from "@keyward/core/ports/ApiClient"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as Take from "effect/Take"
import * as Endpoint from "./Endpoint.ts"
import * as Framing from "./internal/grpcWebFraming.ts"
import * as Transport from "./Transport.ts"

/**
 * Where to connect.
 *
 * @since 1.0.0
 * @category models
 */
export interface GrpcWebTransportOptions {
  /** `http://` or `https://`, with the path under which the services are, if any. */
  readonly url: string
}

const CONTENT_TYPE = "application/grpc-web+proto"

/** An answer may name its message format, or not (grpc `PROTOCOL-WEB.md`). */
const isGrpcWeb = (contentType: string | undefined): boolean =>
  /^application\/grpc-web(?:\+proto)?(?:$|[\s;])/.test(contentType ?? "")

/** What the platform says; the request that its errors carry stays out. */
const reasonOf = (cause: unknown): string => {
  if (!(cause instanceof Error)) return "the connection broke"
  return cause.cause instanceof Error && cause.cause.message !== ""
    ? `${cause.message}: ${cause.cause.message}`
    : cause.message
}

const httpStatusError = ({ headers, status }: HttpClientResponse): Transport.GrpcStatusError =>
  new Transport.GrpcStatusError({
    code: Framing.codeOfHttpStatus(status),
    detail: `HTTP status ${status}`,
    metadata: { ...headers }
  })

const toTransportError = (error: HttpClientError): Transport.GrpcStatusError | Transport.ConnectionError =>
  error._tag === "ResponseError" && error.reason === "StatusCode"
    ? httpStatusError(error.response)
    : new Transport.ConnectionError({ detail: reasonOf(error.cause ?? error.description) })

const maxBodyBytes = limits.answerBytes + Framing.overhead

/** The whole body, as long as it is no longer than an answer may be. */
const readBody = (response: HttpClientResponse): Effect.Effect<Uint8Array, Transport.CarrierError> =>
  Effect.gen(function* () {
    const chunks: Array<Uint8Array> = []
    let length = 0
    yield* response.stream.pipe(
      Stream.mapError(toTransportError),
      Stream.runForEach((chunk) => {
        length += chunk.length
        chunks.push(chunk)
        return length > maxBodyBytes ? Framing.tooLarge : Effect.void
      })
    )
    const [first] = chunks
    // A client may give Node's Buffer, whose slices are views where those of its parent are copies.
    if (first !== undefined && chunks.length === 1) return new Uint8Array(first.buffer, first.byteOffset, first.length)
    const body = new Uint8Array(length)
    let offset = 0
    for (const chunk of chunks) {
      body.set(chunk, offset)
      offset += chunk.length
    }
    return body
  })

const checkHead = (response: HttpClientResponse): Effect.Effect<void, Transport.CarrierError> => {
  // An answer without a message may have its trailers in the place of headers.
  const status = Framing.statusOf(response.headers)
  if (status) return Effect.fail(status)
  if (response.status !== 200) return Effect.fail(httpStatusError(response))
  return isGrpcWeb(response.headers["content-type"])
    ? Effect.void
    : Effect.fail(new Transport.ProtocolError({ detail: "the answer is not of gRPC-Web's content type" }))
}

const readMessage = (response: HttpClientResponse): Effect.Effect<Uint8Array, Transport.CarrierError> =>
  Effect.flatMap(Effect.zipRight(checkHead(response), readBody(response)), Framing.parseBody)

/**
 * How long a stream may bring nothing. HTTP has no ping that would tell a quiet stream from a dead one, and `fetch` and
 * proxies break a quiet one after 5 minutes (undici `bodyTimeout`, envoy `stream_idle_timeout`): it ends well before.
 */
const maxSilence = Duration.minutes(4)

const readMessages = (response: HttpClientResponse): Stream.Stream<Uint8Array, Transport.CarrierError> =>
  Stream.suspend(() => {
    if (Framing.statusOf(response.headers) === null) return Stream.empty
    const reader = Framing.makeStreamReader()
    return response.stream.pipe(
      Stream.mapBoth({ onFailure: toTransportError, onSuccess: reader.push }),
      Stream.concat(Stream.succeed([reader.cutOff])),
      Stream.timeoutTo(maxSilence, Stream.succeed([Take.end])),
      Stream.flattenIterables,
      Stream.flattenTake
    )
  })

/**
 * The transport over the `HttpClient` of the context.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (
  options: GrpcWebTransportOptions
): Effect.Effect<Context.Tag.Service<Transport.Transport>, Endpoint.NetworkConfigError, HttpClient.HttpClient> =>
  Effect.gen(function* () {
    const { host, pathPrefix, port, tls } = yield* Endpoint.parse(options.url)
    const base = `${tls ? "https" : "http"}://${host}:${port}${pathPrefix}`
    // Tracing headers would be asked for in a browser's preflight, and are no business of the node.
    const http = HttpClient.withTracerPropagation(yield* HttpClient.HttpClient, false)
    // The answer to a stream lasts for as long as its scope.
    const scoped = HttpClient.withScope(http)
    const toHttp = ({ message, metadata, path }: Transport.Request): HttpClientRequest.HttpClientRequest =>
      HttpClientRequest.post(`${base}${path}`).pipe(
        HttpClientRequest.setHeaders({ ...metadata, accept: CONTENT_TYPE, "x-grpc-web": "1" }),
        HttpClientRequest.bodyUint8Array(Framing.frame(message), CONTENT_TYPE)
      )
    return Transport.make({
      unary: (request) =>
        http.execute(toHttp(request)).pipe(Effect.mapError(toTransportError), Effect.flatMap(readMessage)),
      open: (request) =>
        scoped
          .execute(toHttp(request))
          .pipe(Effect.mapError(toTransportError), Effect.tap(checkHead), Effect.map(readMessages))
    })
  })

/**
 * The transport over the app's `HttpClient`.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (
  options: GrpcWebTransportOptions
): Layer.Layer<Transport.Transport, Endpoint.NetworkConfigError, HttpClient.HttpClient> =>
  Layer.effect(Transport.Transport, make(options))

/**
 * The transport over the platform's `fetch`.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerFetch = (
  options: GrpcWebTransportOptions
): Layer.Layer<Transport.Transport, Endpoint.NetworkConfigError> => Layer.provide(layer(options), FetchHttpClient.layer)

/**
 * `layer` with options from the configuration of the app.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerConfig = (
  options: Config.Config.Wrap<GrpcWebTransportOptions>
): Layer.Layer<Transport.Transport, Endpoint.NetworkConfigError | ConfigError, HttpClient.HttpClient> =>
  Layer.effect(Transport.Transport, Effect.flatMap(Config.unwrap(options), make))
