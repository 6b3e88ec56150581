import { expect, it } from "@effect/vitest"
import * as NodeMlsCrypto from "@keyward/core/crypto/NodeMlsCrypto"
import * as InboxId from "@keyward/core/identity/InboxId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import { rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as XWing from "@keyward/core/postquantum/XWing"
import { layerNode } from "@keyward/test-utils/devnode/DevNode"
import * as Status from "@keyward/test-utils/devnode/GrpcStatus"
import * as Faults from "@keyward/test-utils/Faults"
import * as MemoryApiClient from "@keyward/test-utils/MemoryApiClient"
import * as MemoryKeyPackageStore from "@keyward/test-utils/MemoryKeyPackageStore"
import * as SeededEntropy from "@keyward/test-utils/SeededEntropy"
import { DateTime, Effect, Layer, TestClock } from "effect"

const Test = Layer.mergeAll(
  MemoryKeyPackageStore.layer,
  MemoryApiClient.layer.pipe(Layer.provideMerge(layerNode())),
  SeededEntropy.layer("my app"),
  NodeMlsCrypto.layer,
  XWing.layer
)

it.effect("my app survives a node that refuses its key package", () =>
  Effect.gen(function* () {
    yield* TestClock.setTime(Date.parse("2026-11-23T12:00:00Z"))
    const store = yield* KeyPackageStore
    const { installationId } = yield* store.findOrCreateInstallation({
      inboxId: InboxId.InboxId.make("5f".repeat(32)),
      label: "default",
      key: yield* InstallationKey.generate,
      at: yield* DateTime.now
    })
    const faults = yield* Faults.Faults
    yield* faults.enqueue("uploadKeyPackage", Faults.failBeforeSend(Status.invalidArgument("no")))

    const rotate = rotateAndUploadKeyPackage({ installationId, includePostQuantum: true })
    const error = yield* Effect.flip(rotate)
    expect(error._tag).toBe("ApiClientError")

    const { published } = yield* rotate
    expect((yield* faults.callsOf("uploadKeyPackage")).length).toBe(2)
    expect((yield* store.getHistory(installationId)).length).toBe(1)
    expect(published.historyId).toBe(1)
  }).pipe(Effect.provide(Test))
)
