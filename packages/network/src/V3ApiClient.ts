/**
 * The `ApiClient` of a v3 node, which is what XMTP's clients use today. It does not retry.
 *
 * @since 1.0.0
 */
import type { HttpClient } from "@effect/platform/HttpClient"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import { ApiClient, limits } from "@keyward/core/ports/ApiClient"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { NetworkConfigError } from "./Endpoint.ts"
import type { GrpcTransportOptions } from "./GrpcTransport.ts"
import * as GrpcWebTransport from "./GrpcWebTransport.ts"
import { inChunks } from "./internal/inChunks.ts"
import * as Calls from "./internal/v3Calls.ts"
import * as Requests from "./internal/v3Requests.ts"
import * as Responses from "./internal/v3Responses.ts"
import type { Transport } from "./Transport.ts"
import type { V3CallOptions } from "./V3CallOptions.ts"

/**
 * How the client asks.
 *
 * @since 1.0.0
 * @category models
 */
export interface V3ApiClientOptions extends V3CallOptions {
  /** Requests that one call has under way at once, where it needs several; 4 unless given. */
  readonly concurrency?: number | undefined
}

/**
 * A client over the transport of the context.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (
  options: V3ApiClientOptions = {}
): Effect.Effect<Context.Tag.Service<ApiClient>, NetworkConfigError, Transport> =>
  Effect.gen(function* () {
    const { call, callAll, callPage, stream } = yield* Calls.make(options)
    const concurrency = options.concurrency ?? 4
    if (!(Number.isInteger(concurrency) && concurrency > 0)) {
      return yield* new NetworkConfigError({ option: "concurrency", detail: "must be a whole number above 0" })
    }

    return {
      uploadKeyPackage: (keyPackage) =>
        Effect.suspend(() =>
          call("uploadKeyPackage", Requests.uploadKeyPackage(keyPackage), Responses.uploadKeyPackage)
        ).pipe(Effect.withSpan("ApiClient.uploadKeyPackage", { attributes: { bytes: keyPackage.length } })),

      fetchKeyPackages: (installationIds) =>
        inChunks(installationIds, {
          key: (id) => id,
          size: limits.keyPackagesPerRequest,
          concurrency,
          ask: (ids) =>
            call("fetchKeyPackages", Requests.fetchKeyPackages(ids), (bytes) =>
              Responses.fetchKeyPackages(ids.length, bytes)
            )
        }).pipe(
          Effect.withSpan("ApiClient.fetchKeyPackages", { attributes: { installations: installationIds.length } })
        ),

      publishIdentityUpdate: (identityUpdate) =>
        Effect.suspend(() =>
          call("publishIdentityUpdate", Requests.publishIdentityUpdate(identityUpdate), Responses.publishIdentityUpdate)
        ).pipe(Effect.withSpan("ApiClient.publishIdentityUpdate", { attributes: { bytes: identityUpdate.length } })),

      getIdentityUpdates: (requests) =>
        Effect.suspend(() => {
          // Of an inbox that is asked twice in one request a node mixes up the answers: it is asked once, from its lowest
          // cursor.
          const lowest = new Map<string, bigint>()
          for (const { after, inboxId } of requests) {
            const known = lowest.get(inboxId)
            if (known === undefined || after < known) lowest.set(inboxId, after)
          }
          return inChunks(
            requests.map(({ after, inboxId }) => ({ inboxId, after: lowest.get(inboxId) ?? after })),
            {
              key: ({ inboxId }) => inboxId,
              size: limits.inboxesPerRequest,
              concurrency,
              ask: (asked) =>
                call("getIdentityUpdates", Requests.getIdentityUpdates(asked), (bytes) =>
                  Responses.getIdentityUpdates(asked, bytes)
                )
            }
          )
        }).pipe(
          Effect.map((logs) =>
            logs.map((log, index) => log.filter(({ sequenceId }) => sequenceId > (requests[index]?.after ?? 0n)))
          ),
          Effect.withSpan("ApiClient.getIdentityUpdates", { attributes: { inboxes: requests.length } })
        ),

      getInboxIds: (identifiers) =>
        inChunks(identifiers, {
          key: (identifier) => `${identifier._tag}:${Requests.identifierText(identifier)}`,
          size: limits.inboxesPerRequest,
          concurrency,
          ask: (asked) =>
            call("getInboxIds", Requests.getInboxIds(asked), (bytes) => Responses.getInboxIds(asked, bytes))
        }).pipe(Effect.withSpan("ApiClient.getInboxIds", { attributes: { identifiers: identifiers.length } })),

      queryWelcomeMessages: (topic, page) =>
        Effect.suspend(() => {
          const key = typeof topic === "string" ? InstallationId.toPublicKey(topic) : topic
          if (key.length === 0) return Calls.emptyTopic("queryWelcomeMessages")
          return callPage(
            "queryWelcomeMessages",
            Requests.pageBounds(page),
            (bounds) => Requests.queryWelcomeMessages(key, bounds),
            (bounds, bytes) => Responses.queryWelcomeMessages((served) => Calls.sameBytes(served, key), bounds, bytes)
          )
        }).pipe(Effect.withSpan("ApiClient.queryWelcomeMessages")),

      subscribeWelcomeMessages: (installationId, after) =>
        Stream.suspend(() => {
          const key = InstallationId.toPublicKey(installationId)
          return stream("subscribeWelcomeMessages", Requests.subscribeWelcomeMessages(key, after), (bytes) =>
            Responses.subscribeWelcomeMessages((served) => Calls.sameBytes(served, key), bytes)
          )
        }).pipe(Stream.withSpan("ApiClient.subscribeWelcomeMessages", { attributes: { installationId } })),

      sendWelcomeMessages: (entries) =>
        Effect.suspend(() =>
          callAll("sendWelcomeMessages", Requests.sendWelcomeMessages(entries), Responses.sendWelcomeMessages)
        ).pipe(Effect.withSpan("ApiClient.sendWelcomeMessages", { attributes: { entries: entries.length } }))
    }
  })

/**
 * The client over the transport of the app.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: V3ApiClientOptions = {}): Layer.Layer<ApiClient, NetworkConfigError, Transport> =>
  Layer.effect(ApiClient, make(options))

/**
 * `layer` with options from the configuration of the app.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerConfig = (
  options: Config.Config.Wrap<V3ApiClientOptions>
): Layer.Layer<ApiClient, NetworkConfigError | ConfigError, Transport> =>
  Layer.effect(ApiClient, Effect.flatMap(Config.unwrap(options), make))

/** Loaded when it is wanted: native gRPC needs Node, and this module does not. */
const grpcTransport = (options: GrpcTransportOptions): Layer.Layer<Transport, NetworkConfigError> =>
  Layer.unwrapEffect(
    Effect.map(
      Effect.promise(() => import("./GrpcTransport.ts")),
      ({ layer }) => layer(options)
    )
  )

/**
 * The client of a node that speaks native gRPC, with a channel of its own. For Node.
 *
 * @since 1.0.0
 * @category layers
 * @example
 * ```ts
 * import { ApiClient } from "@keyward/core/ports/ApiClient"
 * import * as V3ApiClient from "@keyward/network/V3ApiClient"
 * import * as Effect from "effect/Effect"
 *
 * export const program = Effect.gen(function* () {
 *   const api = yield* ApiClient
 *   return yield* api.fetchKeyPackages([])
 * }).pipe(Effect.provide(V3ApiClient.layerGrpc({ url: "https://grpc.dev.xmtp.network:443", appVersion: "my-app/1.0.0" })))
 * ```
 */
export const layerGrpc = (
  options: GrpcTransportOptions & V3ApiClientOptions
): Layer.Layer<ApiClient, NetworkConfigError> => Layer.provide(layer(options), grpcTransport(options))

/**
 * `layerGrpc` with options from the configuration of the app.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerGrpcConfig = (
  options: Config.Config.Wrap<GrpcTransportOptions & V3ApiClientOptions>
): Layer.Layer<ApiClient, NetworkConfigError | ConfigError> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layerGrpc))

/**
 * The client of a node that speaks gRPC-Web, over the `HttpClient` of the app.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerGrpcWeb = (
  options: GrpcWebTransport.GrpcWebTransportOptions & V3ApiClientOptions
): Layer.Layer<ApiClient, NetworkConfigError, HttpClient> =>
  Layer.provide(layer(options), GrpcWebTransport.layer(options))

/**
 * `layerGrpcWeb` with options from the configuration of the app.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerGrpcWebConfig = (
  options: Config.Config.Wrap<GrpcWebTransport.GrpcWebTransportOptions & V3ApiClientOptions>
): Layer.Layer<ApiClient, NetworkConfigError | ConfigError, HttpClient> =>
  Layer.unwrapEffect(Effect.map(Config.unwrap(options), layerGrpcWeb))
