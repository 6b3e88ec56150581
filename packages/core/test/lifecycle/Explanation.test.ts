/** An installation's state in words. What is said of each verdict is tested with the verdict. */
import { describe, expect, it } from "@effect/vitest"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import { explain } from "@keyward/core/lifecycle/Explanation"
import { rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as NodeState from "@keyward/test-utils/devnode/NodeState"
import * as Faults from "@keyward/test-utils/Faults"
import { MemoryKeyPackageStore } from "@keyward/test-utils/MemoryKeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as TestClock from "effect/TestClock"
import * as App from "./SchedulerApp.ts"
import * as TestApp from "./TestApp.ts"

const rotate = (installationId: InstallationId.InstallationId) =>
  TestApp.withTime(rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }))

/** The network has lost the package. */
const serveNothing = (id: InstallationId.InstallationId) =>
  Effect.flatMap(NodeState.NodeState, ({ keyPackages }) => keyPackages.remove(InstallationId.toPublicKey(id)))

describe("explain", () => {
  it.effect("[74] a network that does not answer is part of the explanation, with what is known without it", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
      yield* Effect.flip(rotate(id))
      const told = yield* TestApp.withTime(explain(id))
      expect(told).toMatchObject({ reachability: Option.none(), remedy: "Wait" })
      const [first = "", ...rest] = told.sentences
      expect(first).toMatch(/^Whether it can be invited is not known: .*Unavailable/)
      expect(rest).toContainEqual("Key packages here: 1 Published, 1 Exposed.")
      expect(rest).toContainEqual(
        expect.stringMatching(/^Rotation has failed 1 times since 2026-11-23T.*Unavailable.*Tried again at /)
      )
      expect(told.nextAt).toEqual(
        Schedule.dueAt(Option.getOrThrow(yield* (yield* KeyPackageStore).getInstallation(id)).schedule)
      )
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("an installation that is not here, a damaged row, and a wrong that lasts", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const memory = yield* MemoryKeyPackageStore
      const stranger = InstallationId.InstallationId.make("ab".repeat(32))
      expect(yield* explain(stranger)).toMatchObject({
        remedy: "Register",
        sentences: [`There is no installation ${stranger} in this store.`]
      })
      const id = yield* App.register()
      yield* rotate(id)
      const first = (yield* App.history(id))[0]
      if (first === undefined) return expect.fail("no row")
      yield* memory.damage(first.historyId)
      yield* serveNothing(id)
      const faults = yield* Faults.Faults
      yield* faults.setRule((call) =>
        call.method === "uploadKeyPackage" ? Option.some(Faults.failBeforeSend()) : Option.none()
      )
      const scheduler = yield* App.startScheduler()
      yield* Effect.either(TestApp.withTime(scheduler.probe(id)))
      const { sentences } = yield* TestApp.withTime(explain(id))
      expect(sentences).toContainEqual("Key packages here: 1 Published, 1 damaged.")
      expect(sentences).toContainEqual(expect.stringMatching(/^ServesNothing since 2026-11-23T/))
    }).pipe(Effect.scoped, Effect.provide(App.layer()))
  )

  it.effect("[15] [16] says that the clock of the machine is behind the network's", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      yield* TestClock.setTime(DateTime.toEpochMillis(TestApp.START) - 365 * 86_400_000)
      const { sentences } = yield* TestApp.withTime(explain(id))
      expect(sentences).toContainEqual(
        expect.stringMatching(/^The clock of this machine is behind: it says 2025-11-23T.* network was at 2026-11-23T/)
      )
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("asks the network and changes nothing", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const memory = yield* MemoryKeyPackageStore
      const api = yield* ApiClient
      const id = yield* App.register()
      yield* serveNothing(id)
      const before = yield* memory.snapshot
      yield* TestApp.withTime(explain(id))
      expect(yield* memory.snapshot).toBe(before)
      expect(yield* api.fetchKeyPackages([id])).toEqual([Option.none()])
    }).pipe(Effect.provide(App.layer()))
  )
})
