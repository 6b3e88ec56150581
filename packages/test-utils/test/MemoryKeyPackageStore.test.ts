/**
 * The memory store keeps the contract of the port, fails as scripted and remembers its calls.
 */
import { expect, it } from "@effect/vitest"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Arbitraries from "../src/Arbitraries.ts"
import * as KeyPackageStoreContract from "../src/contracts/KeyPackageStoreContract.ts"
import { layer, MemoryKeyPackageStore } from "../src/MemoryKeyPackageStore.ts"
import { proofs } from "./Proofs.ts"

KeyPackageStoreContract.suite("MemoryKeyPackageStore", layer, {
  proofs,
  damage: (id) => Effect.flatMap(MemoryKeyPackageStore, (control) => control.damage(id))
})

it.effect("fails as often as it is told, writes nothing then, and remembers every call", () =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const control = yield* MemoryKeyPackageStore
    const [intent] = FastCheck.sample(Arbitraries.intent, { numRuns: 1, seed: 1 })
    if (intent === undefined) throw new Error("no sample")
    yield* control.failNext("findOrCreateInstallation", "Busy", "Full")

    const create = store.findOrCreateInstallation(intent)
    expect(yield* Effect.flip(create)).toMatchObject({ reason: "Busy", isRetryable: true })
    expect(yield* Effect.flip(create)).toMatchObject({ reason: "Full", isRetryable: false })
    expect(yield* store.getInstallation(intent.key.installationId)).toEqual(Option.none())
    const installation = yield* create
    expect(yield* store.getInstallation(intent.key.installationId)).toEqual(Option.some(installation))

    expect((yield* control.calls).map(({ operation }) => operation)).toEqual([
      "findOrCreateInstallation",
      "findOrCreateInstallation",
      "getInstallation",
      "findOrCreateInstallation",
      "getInstallation"
    ])
    expect(JSON.stringify(yield* control.calls)).toContain('"seed":"<redacted>"')
  }).pipe(Effect.provide(layer))
)
