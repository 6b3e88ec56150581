/**
 * The `ApiClient` port, and that of group messages, over a node in memory, with no network between: the real v3 client (its
 * chunks, its checks of answers, its errors) on a transport that calls the node directly. It meets the same script of
 * faults as a dev node.
 *
 * @since 1.0.0
 */
import { type ApiClient, limits } from "@keyward/core/ports/ApiClient"
import type { GroupMessages } from "@keyward/core/ports/GroupMessages"
import * as Transport from "@keyward/network/Transport"
import * as V3ApiClient from "@keyward/network/V3ApiClient"
import * as V3GroupMessages from "@keyward/network/V3GroupMessages"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { layerNode } from "./devnode/DevNode.ts"
import { retryTrailersOf } from "./devnode/GrpcFraming.ts"
import { NodeApi, type NodeError } from "./devnode/NodeApi.ts"
import type { NodeState } from "./devnode/NodeState.ts"
import type { NodeValidation } from "./devnode/NodeValidation.ts"
import type { Faults } from "./Faults.ts"

const toTransportError = (error: NodeError): Transport.GrpcStatusError | Transport.ConnectionError =>
  error._tag === "ConnectionDropped"
    ? new Transport.ConnectionError({ detail: error.message })
    : new Transport.GrpcStatusError({
        code: error.code,
        detail: error.detail,
        metadata: retryTrailersOf(error.retryAfter)
      })

/**
 * The way into the node of the context, without a wire.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerTransport: Layer.Layer<Transport.Transport, never, NodeApi> = Layer.effect(
  Transport.Transport,
  Effect.map(NodeApi, (node) =>
    Transport.make({
      unary: ({ message, path }) =>
        node.call(path, message, "memory").pipe(
          Effect.mapError(toTransportError),
          Effect.filterOrFail(
            (answer) => answer.length <= limits.answerBytes,
            () => new Transport.ProtocolError({ detail: "larger than is read", isTooLarge: true })
          )
        ),
      open: ({ message, path }) => Effect.succeed(Stream.mapError(node.open(path, message, "memory"), toTransportError))
    })
  )
)

/**
 * A client of the node in the context, such as `DevNode.layerNode()` or a whole `DevNode.layer()`.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<ApiClient, never, NodeApi> = V3ApiClient.layer().pipe(
  Layer.provide(layerTransport),
  // Only options can be wrong, and there are none.
  Layer.orDie
)

/**
 * The messages of groups at the node in the context.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerGroupMessages: Layer.Layer<GroupMessages, never, NodeApi> = V3GroupMessages.layer().pipe(
  Layer.provide(layerTransport),
  // Only options can be wrong, and there are none.
  Layer.orDie
)

/**
 * A client with a node of its own, which judges by this library's rules unless given others.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerWithNode = (
  validation?: Layer.Layer<NodeValidation>
): Layer.Layer<ApiClient | NodeApi | NodeState | Faults> => Layer.provideMerge(layer, layerNode(validation))
