/** The whole library on memory ports: real crypto from a seed, a memory store, a node without a wire, faults for all; no word on Welcomes. */
import * as NodeMlsCrypto from "@keyward/core/crypto/NodeMlsCrypto"
import * as FastCurveBackend from "@keyward/core/identity/FastCurveBackend"
import * as Identifier from "@keyward/core/identity/Identifier"
import * as InboxId from "@keyward/core/identity/InboxId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { layerNone } from "@keyward/core/ports/SmartContractWalletVerifier"
import * as WelcomeProgress from "@keyward/core/ports/WelcomeProgress"
import * as XWing from "@keyward/core/postquantum/XWing"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import * as MemoryApiClient from "@keyward/test-utils/MemoryApiClient"
import * as MemoryKeyPackageStore from "@keyward/test-utils/MemoryKeyPackageStore"
import * as SeededEntropy from "@keyward/test-utils/SeededEntropy"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"

/** A new world: nothing in it is shared with another one. */
export const layer = (seed: string | number = "test") =>
  Layer.mergeAll(
    MemoryKeyPackageStore.layer,
    MemoryApiClient.layer.pipe(Layer.provideMerge(DevNode.layerNode())),
    SeededEntropy.layer(seed),
    NodeMlsCrypto.layer,
    XWing.layer,
    FastCurveBackend.layer(),
    layerNone,
    WelcomeProgress.layerNone
  )

/** A date on which fresh packages are valid. */
export const START = DateTime.unsafeMake("2026-11-23T12:00:00Z")

/** The clock at START. */
export const start = TestClock.setTime(DateTime.toEpochMillis(START))

/** An installation in the store, not registered anywhere. */
export const newInstallation = Effect.gen(function* () {
  const store = yield* KeyPackageStore
  return yield* store.findOrCreateInstallation({
    inboxId: InboxId.derive(Identifier.ethereum(`0x${"12".repeat(20)}`)),
    label: "default",
    key: yield* InstallationKey.generate,
    at: yield* DateTime.now
  })
})

/** Runs to the end, with as much time as its waits need. */
export const withTime = <A, E, R>(effect: Effect.Effect<A, E, R>, time: "10 minutes" | "1 second" = "10 minutes") =>
  Effect.gen(function* () {
    const fiber = yield* Effect.fork(effect)
    yield* TestClock.adjust(time)
    return yield* Fiber.join(fiber)
  })
