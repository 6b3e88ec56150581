/**
 * The v3 client keeps the contract of the port over real wires, against the dev node.
 */
import * as FetchHttpClient from "@effect/platform/FetchHttpClient"
import * as ApiClientContract from "@keyward/test-utils/contracts/ApiClientContract"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as V3ApiClient from "../src/V3ApiClient.ts"

const overGrpc = Layer.unwrapEffect(
  Effect.map(DevNode.DevNode, ({ grpcUrl }) => V3ApiClient.layerGrpc({ url: grpcUrl }))
).pipe(Layer.provideMerge(DevNode.layer()))

const overGrpcWeb = Layer.unwrapEffect(
  Effect.map(DevNode.DevNode, ({ grpcWebUrl }) => V3ApiClient.layerGrpcWeb({ url: grpcWebUrl }))
).pipe(Layer.provide(FetchHttpClient.layer), Layer.provideMerge(DevNode.layer()))

ApiClientContract.suite("V3ApiClient over gRPC", overGrpc)
ApiClientContract.suite("V3ApiClient over gRPC-Web", overGrpcWeb)
