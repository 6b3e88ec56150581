/**
 * The `GroupMessages` of a v3 node. It does not retry.
 *
 * @since 1.0.0
 */
import { GroupMessages } from "@keyward/core/ports/GroupMessages"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import type { NetworkConfigError } from "./Endpoint.ts"
import * as Calls from "./internal/v3Calls.ts"
import * as Requests from "./internal/v3Requests.ts"
import * as Responses from "./internal/v3Responses.ts"
import type { Transport } from "./Transport.ts"
import type { V3CallOptions } from "./V3CallOptions.ts"

/**
 * The messages of groups over the transport of the context.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (
  options: V3CallOptions = {}
): Effect.Effect<Context.Tag.Service<GroupMessages>, NetworkConfigError, Transport> =>
  Effect.map(Calls.make(options), ({ callAll, callPage, stream }) => ({
    queryGroupMessages: (groupId, page) =>
      Effect.suspend(() => {
        if (groupId.length === 0) return Calls.emptyTopic("queryGroupMessages")
        return callPage(
          "queryGroupMessages",
          Requests.pageBounds(page),
          (bounds) => Requests.queryGroupMessages(groupId, bounds),
          (bounds, bytes) => Responses.queryGroupMessages((served) => Calls.sameBytes(served, groupId), bounds, bytes)
        )
      }).pipe(Effect.withSpan("GroupMessages.queryGroupMessages")),

    subscribeGroupMessages: (groups) =>
      Stream.suspend(() => {
        const asked = new Set(groups.map(({ groupId }) => Encoding.encodeHex(groupId)))
        if (asked.has("")) return Stream.fail(Calls.emptyTopic("subscribeGroupMessages"))
        return stream("subscribeGroupMessages", Requests.subscribeGroupMessages(groups), (bytes) =>
          Responses.subscribeGroupMessages((served) => asked.has(Encoding.encodeHex(served)), bytes)
        )
      }).pipe(Stream.withSpan("GroupMessages.subscribeGroupMessages", { attributes: { groups: groups.length } })),

    sendGroupMessages: (messages) =>
      Effect.suspend(() =>
        callAll("sendGroupMessages", Requests.sendGroupMessages(messages), Responses.sendGroupMessages)
      ).pipe(Effect.withSpan("GroupMessages.sendGroupMessages", { attributes: { messages: messages.length } }))
  }))

/**
 * The messages of groups over the transport of the app, which an `ApiClient` may share.
 *
 * @since 1.0.0
 * @category layers
 * @example
 * ```ts
 * import * as GrpcTransport from "@keyward/network/GrpcTransport"
 * import * as V3ApiClient from "@keyward/network/V3ApiClient"
 * import * as V3GroupMessages from "@keyward/network/V3GroupMessages"
 * import * as Layer from "effect/Layer"
 *
 * export const network = Layer.merge(V3ApiClient.layer(), V3GroupMessages.layer()).pipe(
 *   Layer.provide(GrpcTransport.layer({ url: "https://grpc.dev.xmtp.network:443" }))
 * )
 * ```
 */
export const layer = (options: V3CallOptions = {}): Layer.Layer<GroupMessages, NetworkConfigError, Transport> =>
  Layer.effect(GroupMessages, make(options))

/**
 * `layer` with options from the configuration of the app.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerConfig = (
  options: Config.Config.Wrap<V3CallOptions>
): Layer.Layer<GroupMessages, NetworkConfigError | ConfigError, Transport> =>
  Layer.effect(GroupMessages, Effect.flatMap(Config.unwrap(options), make))
