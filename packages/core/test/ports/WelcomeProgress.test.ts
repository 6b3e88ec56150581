/** Nothing erases private keys without having been told how far the Welcomes are read, or that nobody will say. */
import { describe, expect, it } from "@effect/vitest"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import type { ClockGuard } from "@keyward/core/lifecycle/ClockGuard"
import * as Scheduler from "@keyward/core/lifecycle/Scheduler"
import { type UpkeepContext, upkeep } from "@keyward/core/lifecycle/Upkeep"
import type { WelcomeCursorStore } from "@keyward/core/ports/WelcomeCursorStore"
import * as WelcomeProgress from "@keyward/core/ports/WelcomeProgress"
import type { OpenContext } from "@keyward/core/welcome/OpenWelcome"
import * as WelcomeInbox from "@keyward/core/welcome/WelcomeInbox"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"

/** Every port of an app that reads Welcomes, but for its word on how far it has come. */
declare const ports: Layer.Layer<
  Exclude<UpkeepContext, WelcomeProgress.WelcomeProgress> | OpenContext | WelcomeCursorStore
>
declare const installationId: InstallationId
declare const guard: ClockGuard

const run = (app: Effect.Effect<unknown, unknown>) => app
const launch = (app: Layer.Layer<Scheduler.Scheduler>) => app

/** Never called: the compiler refuses what is marked, and takes the rest, which the type check proves. */
export const judgedByTheCompiler = (): void => {
  // @ts-expect-error a scheduler, and nobody says how far the Welcomes are read
  launch(Scheduler.layer().pipe(Layer.provide(ports)))
  // @ts-expect-error nor here
  run(Scheduler.make().pipe(Effect.zipRight(Effect.never), Effect.scoped, Effect.provide(ports)))
  // @ts-expect-error nor for the upkeep of one installation
  run(upkeep(installationId, { guard, look: true }).pipe(Effect.provide(ports)))
  // @ts-expect-error an inbox beside the scheduler says it to nobody
  launch(Layer.mergeAll(Scheduler.layer(), WelcomeInbox.layer()).pipe(Layer.provide(ports)))
  // @ts-expect-error nor does one that is built on the scheduler
  launch(WelcomeInbox.layer().pipe(Layer.provideMerge(Scheduler.layer()), Layer.provide(ports)))

  launch(Scheduler.layer().pipe(Layer.provideMerge(WelcomeInbox.layer()), Layer.provide(ports)))
  launch(Scheduler.layer().pipe(Layer.provide(WelcomeProgress.layerNone), Layer.provide(ports)))
  run(upkeep(installationId, { guard, look: true }).pipe(Effect.provide([ports, WelcomeProgress.layerNone])))
}

describe("WelcomeProgress", () => {
  it.effect("layerNone reports for no installation", () =>
    Effect.gen(function* () {
      const { get } = yield* WelcomeProgress.WelcomeProgress
      expect(yield* get(InstallationId.make("ab".repeat(32)))).toEqual(Option.none())
    }).pipe(Effect.provide(WelcomeProgress.layerNone))
  )
})
