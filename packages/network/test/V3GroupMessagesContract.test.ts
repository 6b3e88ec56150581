/**
 * The messages of groups keep the contract of the port over real wires, against the dev node, on a transport that an API
 * client shares.
 */
import * as GroupMessagesContract from "@keyward/test-utils/contracts/GroupMessagesContract"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as GrpcTransport from "../src/GrpcTransport.ts"
import * as GrpcWebTransport from "../src/GrpcWebTransport.ts"
import * as V3ApiClient from "../src/V3ApiClient.ts"
import * as V3GroupMessages from "../src/V3GroupMessages.ts"

const clients = Layer.merge(V3ApiClient.layer(), V3GroupMessages.layer({ appVersion: "my-app/1.0.0" }))

const overGrpc = Layer.unwrapEffect(
  Effect.map(DevNode.DevNode, ({ grpcUrl }) => Layer.provide(clients, GrpcTransport.layer({ url: grpcUrl })))
).pipe(Layer.provideMerge(DevNode.layer()))

const overGrpcWeb = Layer.unwrapEffect(
  Effect.map(DevNode.DevNode, ({ grpcWebUrl }) =>
    Layer.provide(clients, GrpcWebTransport.layerFetch({ url: grpcWebUrl }))
  )
).pipe(Layer.provideMerge(DevNode.layer()))

GroupMessagesContract.suite("V3GroupMessages over gRPC", overGrpc)
GroupMessagesContract.suite("V3GroupMessages over gRPC-Web", overGrpcWeb)
