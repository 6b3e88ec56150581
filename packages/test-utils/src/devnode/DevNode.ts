/**
 * An XMTP node on loopback, in memory: the v3 API over gRPC and gRPC-Web, complete enough for the real client, and scripted
 * to fail where a test wants it.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Faults from "../Faults.ts"
import * as GrpcServer from "./GrpcServer.ts"
import * as GrpcWebServer from "./GrpcWebServer.ts"
import type { ListenError } from "./Listen.ts"
import * as NodeApi from "./NodeApi.ts"
import type { NodeOptions } from "./NodeHandlers.ts"
import * as NodeState from "./NodeState.ts"
import * as NodeValidation from "./NodeValidation.ts"

/**
 * Where a dev node can be reached.
 *
 * @since 1.0.0
 * @category tags
 */
export class DevNode extends Context.Tag("@keyward/test-utils/DevNode")<
  DevNode,
  {
    /** Native gRPC, `http://127.0.0.1:5556`. */
    readonly grpcUrl: string
    /** gRPC-Web, `http://127.0.0.1:5557`. */
    readonly grpcWebUrl: string
  }
>() {}

/**
 * How a dev node is started.
 *
 * @since 1.0.0
 * @category models
 */
export interface DevNodeOptions extends NodeOptions {
  /** Port of native gRPC; any free one unless given. */
  readonly port?: number | undefined
  /** Port of gRPC-Web; any free one unless given. */
  readonly grpcWebPort?: number | undefined
  /** The address to listen on; loopback unless given. */
  readonly host?: string | undefined
  /** Who judges what is published; this library's own rules unless given. */
  readonly validation?: Layer.Layer<NodeValidation.NodeValidation> | undefined
}

/**
 * A node without a network: its state, its script of faults and its way in.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerNode = (
  validation: Layer.Layer<NodeValidation.NodeValidation> = NodeValidation.layerDefault,
  options?: NodeOptions
): Layer.Layer<NodeApi.NodeApi | NodeState.NodeState | Faults.Faults> =>
  NodeApi.layer(options).pipe(
    Layer.provideMerge(NodeState.layer),
    Layer.provideMerge(Faults.layer),
    Layer.provide(validation)
  )

/**
 * A dev node that runs until the scope ends. Two layers are two nodes, each with its own memory.
 *
 * @since 1.0.0
 * @category layers
 * @example
 * ```ts
 * import { DevNode, layer } from "@keyward/test-utils/devnode/DevNode"
 * import * as Effect from "effect/Effect"
 *
 * const program = Effect.gen(function* () {
 *   const { grpcUrl } = yield* DevNode
 *   yield* Effect.log(grpcUrl)
 * }).pipe(Effect.provide(layer()))
 * ```
 */
export const layer = (
  options: DevNodeOptions = {}
): Layer.Layer<DevNode | NodeApi.NodeApi | NodeState.NodeState | Faults.Faults, ListenError> => {
  const { grpcWebPort = 0, host = "127.0.0.1", port = 0, validation, ...nodeOptions } = options
  const servers = Layer.scoped(
    DevNode,
    Effect.gen(function* () {
      const grpc = yield* GrpcServer.make({ host, port })
      const grpcWeb = yield* GrpcWebServer.make({ host, port: grpcWebPort })
      return { grpcUrl: `http://${host}:${grpc.port}`, grpcWebUrl: `http://${host}:${grpcWeb.port}` }
    })
  )
  return Layer.provideMerge(servers, layerNode(validation, nodeOptions))
}
