/** The world itself: time, clocks, death. */
import { describe, expect, it } from "@effect/vitest"
import * as MemoryKeyPackageStore from "@keyward/test-utils/MemoryKeyPackageStore"
import * as SkewedClock from "@keyward/test-utils/simulation/SkewedClock"
import { type Process, World } from "@keyward/test-utils/simulation/World"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"

const startIn = (world: World): Process<never> =>
  world.start({
    name: "it",
    store: Layer.unwrapEffect(Effect.map(MemoryKeyPackageStore.makeDatabase, MemoryKeyPackageStore.layerShared)),
    services: Layer.empty as Layer.Layer<never>
  })

const both = Effect.all([Clock.currentTimeMillis, Clock.currentTimeNanos])

describe("World", () => {
  it("a year passes at once, and sleeps end when they should", async () => {
    const world = new World({ seed: 1 })
    const process = startIn(world)
    const { now } = world
    const woke = process.run(Effect.zipRight(Effect.sleep("200 days"), Clock.currentTimeMillis))
    await world.advance("365 days")
    expect(woke.exit).toEqual(Exit.succeed(now + 200 * 86_400_000))
  })

  it("a killed process runs no finalizer", async () => {
    const world = new World({ seed: 1 })
    const process = startIn(world)
    let isFinalized = false
    const run = process.run(
      Effect.ensuring(
        Effect.sleep("1 minute"),
        Effect.sync(() => {
          isFinalized = true
        })
      )
    )
    await world.advance("1 second")
    process.kill()
    await world.advance("1 hour")
    expect([run.exit, isFinalized]).toEqual([undefined, false])
  })

  it("a paused process does nothing, and what was due meanwhile happens when it goes on", async () => {
    const world = new World({ seed: 1 })
    const process = startIn(world)
    const { now } = world
    const run = process.run(Effect.zipRight(Effect.sleep("1 minute"), Clock.currentTimeMillis))
    await world.advance("1 second")
    process.pause()
    await world.advance("1 hour")
    expect(run.exit).toBeUndefined()
    process.resume()
    await world.advance("1 second")
    expect(run.exit).toEqual(Exit.succeed(now + 3_601_000))
  })

  it("while a machine sleeps its wall clock goes on and its monotonic clock does not, nor do its timers", async () => {
    const world = new World({ seed: 1 })
    const process = startIn(world)
    const before = process.run(both)
    const timer = process.run(Effect.sleep("2 hours"))
    await world.advance("1 hour")
    process.fallAsleep()
    await world.advance("3 days")
    process.wake()
    const after = process.run(both)
    await world.settle()
    if (before.exit?._tag !== "Success" || after.exit?._tag !== "Success") throw new Error("it did not run")
    expect(after.exit.value[0] - before.exit.value[0]).toBe(73 * 3_600_000)
    expect(after.exit.value[1] - before.exit.value[1]).toBe(3_600_000_000_000n)
    await world.advance("59 minutes")
    expect(timer.exit).toBeUndefined()
    await world.advance("2 minutes")
    expect(timer.exit).toEqual(Exit.void)
  })

  it.effect("a skewed clock over a TestClock: the wall clock is off, the monotonic one and sleeps are not", () =>
    Effect.gen(function* () {
      const skew = SkewedClock.skew("1 day", "behind")
      const trueTime = yield* both
      const seen = yield* Effect.provide(both, SkewedClock.layer(skew))
      expect([seen[0] - trueTime[0], seen[1] - trueTime[1]]).toEqual([-86_400_000, 0n])
      yield* TestClock.adjust("1 hour")
      skew.offsetMillis += 2 * 86_400_000
      const later = yield* Effect.provide(both, SkewedClock.layer(skew))
      expect(later[0] - seen[0]).toBe(2 * 86_400_000 + 3_600_000)
      expect(later[1] - seen[1]).toBe(3_600_000_000_000n)
    })
  )

  it("leaves no fiber behind when it has ended, of its killed processes either", async () => {
    const before = Fiber.unsafeRoots().length
    const world = new World({ seed: 1 })
    const first = startIn(world)
    const second = startIn(world)
    for (const process of [first, second]) {
      process.run(Effect.sleep("1 day"))
      process.run(Effect.forkDaemon(Effect.sleep("2 days")))
    }
    await world.advance("1 hour")
    expect(Fiber.unsafeRoots().length).toBeGreaterThan(before + 4)
    first.kill()
    world.end()
    expect(second.isDead).toBe(true)
    expect(Fiber.unsafeRoots()).toHaveLength(before)
  })

  describe("what no process should do is no secret:", () => {
    const failuresOf = async (services: Layer.Layer<never>, run: Effect.Effect<unknown, unknown> = Effect.void) => {
      const world = new World({ seed: 1 })
      const store = Layer.unwrapEffect(
        Effect.map(MemoryKeyPackageStore.makeDatabase, MemoryKeyPackageStore.layerShared)
      )
      world.start({ name: "it", store, services }).run(run)
      await world.advance("1 minute")
      return world.failures.map((failure) => failure.split("\n")[0])
    }

    it("to end by itself", async () => {
      expect(await failuresOf(Layer.effectDiscard(Effect.dieMessage("no start")))).toContainEqual(
        expect.stringContaining("no start")
      )
    })

    it("to die of a defect, also in a fiber that nobody waits for", async () => {
      expect(await failuresOf(Layer.empty, Effect.dieMessage("a bug"))).toContainEqual(expect.stringContaining("a bug"))
      const forked = Layer.scopedDiscard(Effect.forkScoped(Effect.dieMessage("a bug beside")))
      expect(await failuresOf(forked)).toEqual([expect.stringContaining("a bug beside")])
    })

    it("to log an error", async () => {
      expect(await failuresOf(Layer.empty, Effect.logError("it died of it"))).toEqual([
        expect.stringContaining("it died of it")
      ])
      expect(await failuresOf(Layer.empty, Effect.logWarning("a node is down"))).toEqual([])
    })

    it("to go round in circles", async () => {
      expect(await failuresOf(Layer.empty, Effect.forever(Effect.yieldNow()))).toEqual([
        expect.stringContaining("round in circles")
      ])
    })

    it("to fail is none of it", async () => {
      expect(await failuresOf(Layer.empty, Effect.fail("the network is down"))).toEqual([])
    })
  })
})
