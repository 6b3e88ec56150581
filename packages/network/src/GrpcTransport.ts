/**
 * Native gRPC over HTTP/2, for Node: what XMTP nodes speak to native clients.
 *
 * @since 1.0.0
 */

import * as Grpc from "@grpc/grpc-js"
import { limits } from "@keyward/core/ports/ApiClient"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import * as Endpoint from "./Endpoint.ts"
import { classify } from "./internal/grpcLocalStatus.ts"
import * as ServerStream from "./internal/grpcServerStream.ts"
import * as Transport from "./Transport.ts"

/**
 * Where to connect, and how.
 *
 * @since 1.0.0
 * @category models
 */
export interface GrpcTransportOptions {
  /** `http://` or `grpc://` for plain HTTP/2, `https://` or `grpcs://` for TLS. Paths are not used. */
  readonly url: string
  /** How long to wait for a connection; 10 seconds unless given. */
  readonly connectTimeout?: Duration.DurationInput | undefined
  /** Certificates of the authorities to trust, PEM; those of Node unless given. */
  readonly rootCertificates?: string | undefined
}

/**
 * As libxmtp pings (`xmtp_api_grpc/src/grpc_client/native.rs`), but only while a call waits or a stream is open: a
 * connection that died without a word is noticed after 65 seconds.
 */
const keepalive = { time: Duration.seconds(45), timeout: Duration.seconds(20) }

/** How long a lost connection is left alone at most: a node that comes back is noticed soon. */
const maxReconnectBackoff = Duration.seconds(5)

/**
 * Bytes that a node may send ahead of what is read, on each stream: as libxmtp (`native.rs`). With the 64 KiB of HTTP/2 a
 * page of a hundred Welcomes would wait for the node seven times.
 */
const window = 2 * 1024 * 1024

const channelOptions: Grpc.ClientOptions = {
  "grpc.keepalive_time_ms": Duration.toMillis(keepalive.time),
  "grpc.keepalive_timeout_ms": Duration.toMillis(keepalive.timeout),
  "grpc.max_send_message_length": limits.messageBytes,
  "grpc.max_receive_message_length": limits.answerBytes,
  "grpc-node.flow_control_window": window,
  "grpc.max_reconnect_backoff_ms": Duration.toMillis(maxReconnectBackoff),
  // Retrying belongs to the pipelines, which know what may be sent twice.
  "grpc.enable_retries": 0,
  "grpc.service_config_disable_resolution": 1,
  // A connection of its own, which ends with the scope.
  "grpc.use_local_subchannel_pool": 1
}

const toBuffer = (bytes: Uint8Array): Buffer => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
/** A plain view: a Buffer differs from a Uint8Array in more than its name (`slice` shares memory). */
const fromBuffer = (buffer: Buffer): Uint8Array => new Uint8Array(buffer.buffer, buffer.byteOffset, buffer.byteLength)

const toGrpcMetadata = (metadata: Transport.Metadata): Grpc.Metadata => {
  const grpc = new Grpc.Metadata()
  for (const [name, value] of Object.entries(metadata)) grpc.set(name, value)
  return grpc
}

const fromGrpcMetadata = (metadata: Grpc.Metadata): Transport.Metadata =>
  Object.fromEntries(Object.entries(metadata.getMap()).map(([name, value]) => [name, value.toString()]))

const toCarrierError = (error: Grpc.ServiceError, sawHeaders: boolean): Transport.CarrierError =>
  classify({ code: error.code, details: error.details, metadata: fromGrpcMetadata(error.metadata) }, sawHeaders)

const send = (
  client: Grpc.Client,
  { message, metadata, path }: Transport.Request
): Effect.Effect<Uint8Array, Transport.CarrierError> =>
  Effect.async((resume) => {
    let sawHeaders = false
    const call = client.makeUnaryRequest(
      path,
      toBuffer,
      fromBuffer,
      message,
      toGrpcMetadata(metadata),
      {},
      (error, response) => {
        resume(error === null ? Effect.succeed(response ?? new Uint8Array(0)) : toCarrierError(error, sawHeaders))
      }
    )
    call.once("metadata", () => {
      sawHeaders = true
    })
    return Effect.sync(() => call.cancel())
  })

const open = (
  client: Grpc.Client,
  { message, metadata, path }: Transport.Request
): Effect.Effect<ServerStream.ServerStream, never, Scope.Scope> =>
  ServerStream.make(
    () => client.makeServerStreamRequest(path, toBuffer, fromBuffer, message, toGrpcMetadata(metadata), {}),
    toCarrierError
  )

const isConnected = (client: Grpc.Client): boolean =>
  client.getChannel().getConnectivityState(false) === Grpc.connectivityState.READY

/** Fails when there is still no connection by then; never succeeds. */
const unlessConnected = (
  client: Grpc.Client,
  timeout: Duration.Duration
): Effect.Effect<never, Transport.ConnectionError> =>
  Effect.sleep(timeout).pipe(
    Effect.zipRight(
      Effect.suspend(() =>
        isConnected(client)
          ? Effect.never
          : new Transport.ConnectionError({ detail: `no connection within ${Duration.format(timeout)}` })
      )
    )
  )

/**
 * A channel to one node, which connects at the first call, comes back after a loss, and closes with the scope.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (
  options: GrpcTransportOptions
): Effect.Effect<Context.Tag.Service<Transport.Transport>, Endpoint.NetworkConfigError, Scope.Scope> =>
  Effect.gen(function* () {
    const { host, port, tls } = yield* Endpoint.parse(options.url)
    const connectTimeout = Duration.decode(options.connectTimeout ?? "10 seconds")
    const roots = options.rootCertificates
    const credentials = yield* Effect.try({
      try: () =>
        tls
          ? Grpc.credentials.createSsl(roots === undefined ? null : Buffer.from(roots))
          : Grpc.credentials.createInsecure(),
      catch: () => new Endpoint.NetworkConfigError({ option: "rootCertificates", detail: "are not PEM certificates" })
    })
    const client = yield* Effect.acquireRelease(
      Effect.sync(() => new Grpc.Client(`${host}:${port}`, credentials, channelOptions)),
      (open) => Effect.sync(() => open.close())
    )
    const whenConnected = <A>(
      call: Effect.Effect<A, Transport.CarrierError>
    ): Effect.Effect<A, Transport.CarrierError> =>
      Effect.suspend(() =>
        isConnected(client) ? call : Effect.raceFirst(call, unlessConnected(client, connectTimeout))
      )
    return Transport.make({
      unary: (request) => whenConnected(send(client, request)),
      open: (request) =>
        Effect.flatMap(open(client, request), ({ begun, messages }) => Effect.as(whenConnected(begun), messages))
    })
  })

/**
 * The transport over a channel of its own.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: GrpcTransportOptions): Layer.Layer<Transport.Transport, Endpoint.NetworkConfigError> =>
  Layer.scoped(Transport.Transport, make(options))

/**
 * `layer` with options from the configuration of the app.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerConfig = (
  options: Config.Config.Wrap<GrpcTransportOptions>
): Layer.Layer<Transport.Transport, Endpoint.NetworkConfigError | ConfigError> =>
  Layer.scoped(Transport.Transport, Effect.flatMap(Config.unwrap(options), make))
