/**
 * The node of a chaos run: a dev node in a process of its own, which fails when it is told to and says what was uploaded.
 *
 * @since 1.0.0
 */
import { fromBinary } from "@bufbuild/protobuf"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import * as Codec from "@keyward/core/keypackage/Codec"
import * as KeyPackageRef from "@keyward/core/keypackage/KeyPackageRef"
import { UploadKeyPackageRequestSchema } from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import { sha256 } from "@noble/hashes/sha2.js"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Runtime from "effect/Runtime"
import * as DevNode from "../devnode/DevNode.ts"
import type { ListenError } from "../devnode/Listen.ts"
import * as NodeValidation from "../devnode/NodeValidation.ts"
import * as Faults from "../Faults.ts"
import * as Mutation from "../Mutation.ts"
import * as VectorWallets from "../VectorWallets.ts"
import type { NodeMessage, NodeRequest, SeenUpload } from "./ChaosWorld.ts"

/** What goes wrong in an outage, besides nothing. */
const FAULTS: ReadonlyArray<Faults.Fault | undefined> = [
  undefined,
  Faults.failBeforeSend(),
  Faults.failAfterAccept(),
  Faults.hang("beforeSend"),
  Faults.hang("afterAccept"),
  Faults.drop("beforeSend"),
  Faults.drop("afterAccept"),
  Faults.rateLimited(),
  Faults.delay("200 millis")
]

const seenUpload = (call: Faults.RecordedCall): Option.Option<SeenUpload> =>
  Option.gen(function* () {
    const { keyPackage } = fromBinary(UploadKeyPackageRequestSchema, call.request)
    const bytes = yield* Option.fromNullable(keyPackage?.keyPackageTlsSerialized)
    const { leafNode } = yield* Either.getRight(Codec.decode(bytes))
    return {
      installationId: InstallationId.fromPublicKey(leafNode.signatureKey),
      ref: KeyPackageRef.hashWith({ sha256 }, bytes),
      at: call.at,
      endedAt: call.endedAt,
      isPending: call.outcome._tag === "Pending",
      isAccepted: call.outcome._tag === "Answered" && call.outcome.code === 0
    }
  })

/**
 * Runs the node until its parent is gone. `say` tells the parent; `listen` gets what it asks.
 *
 * @since 1.0.0
 * @category constructors
 */
export const main = (
  say: (message: NodeMessage) => void,
  listen: (onRequest: (request: NodeRequest) => void) => void
): Effect.Effect<never, ListenError> =>
  Effect.gen(function* () {
    const { grpcUrl } = yield* DevNode.DevNode
    const faults = yield* Faults.Faults
    const runtime = yield* Effect.runtime<never>()

    const answer = (request: NodeRequest): Effect.Effect<NodeMessage> => {
      switch (request._tag) {
        case "Faults": {
          const { seed } = request
          if (seed === undefined) return Effect.as(faults.clear, { _tag: "Done" })
          const next = Mutation.generator(seed)
          return Effect.as(
            faults.setRule(() => Option.fromNullable(Mutation.pick(next, FAULTS))),
            { _tag: "Done" }
          )
        }
        case "Record":
          return Effect.map(faults.callsOf("uploadKeyPackage"), (calls) => ({
            _tag: "Uploads",
            uploads: calls.filter(({ at }) => at >= request.since).flatMap((call) => Option.toArray(seenUpload(call)))
          }))
      }
    }
    listen((request) => Runtime.runFork(runtime)(Effect.map(answer(request), say)))
    say({ _tag: "Listening", url: grpcUrl })
    return yield* Effect.never
  }).pipe(Effect.provide(DevNode.layer({ validation: NodeValidation.layerWith(VectorWallets.layer) })))
