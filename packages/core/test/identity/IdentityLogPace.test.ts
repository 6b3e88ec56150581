/** A long log does not keep the event loop to itself, however its work is spread over updates and actions. */
import { describe, expect, it } from "@effect/vitest"
import * as IdentityLog from "@keyward/core/identity/IdentityLog"
import { layerNone, type SmartContractWalletVerifier } from "@keyward/core/ports/SmartContractWalletVerifier"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { logOfRevocations, wallet } from "./fixtures.ts"

const alice = wallet("11".repeat(32))
/** Updates of Alice's inbox. */
const log = (updates: number, actionsEach: number) => logOfRevocations(alice, { updates, actionsEach })

/** How often others came round while the log was resolved. */
const turnsWhile = (updates: ReadonlyArray<Uint8Array>) => turnsOf(IdentityLog.resolve(updates))

const turnsOf = <A, E>(resolve: Effect.Effect<A, E, SmartContractWalletVerifier>) =>
  Effect.gen(function* () {
    let turns = 0
    const others = yield* Effect.async<void>((resume) => {
      const handle = setImmediate(() => resume(Effect.sync(() => turns++)))
      return Effect.sync(() => clearImmediate(handle))
    }).pipe(Effect.forever, Effect.fork)
    yield* Effect.yieldNow()
    yield* Effect.exit(resolve)
    yield* Fiber.interrupt(others)
    return turns
  }).pipe(Effect.provide(layerNone))

describe("the pace of a long log", () => {
  it.live("many updates of few signatures each", () =>
    Effect.gen(function* () {
      expect(yield* turnsWhile(log(64, 1))).toBeGreaterThanOrEqual(2)
    })
  )

  it.live("one update of many actions under one signature", () =>
    Effect.gen(function* () {
      expect(yield* turnsWhile(log(2, 2_000))).toBeGreaterThanOrEqual(7)
    })
  )

  it.live("many updates of no signature at all, also among others", () =>
    Effect.gen(function* () {
      const [founding, nothing] = log(2, 0)
      if (founding === undefined || nothing === undefined) throw new Error("no log")
      const empty = (length: number) => ({ updates: [founding, ...Array.from({ length }, () => nothing)] })
      expect(yield* turnsWhile(empty(2_000).updates)).toBeGreaterThanOrEqual(15)
      const logs = Array.from({ length: 20 }, () => empty(100))
      // 16 of them at a time are decoded, and 16 verified.
      expect(yield* turnsOf(IdentityLog.resolveAll(logs, { concurrency: 4 }))).toBeGreaterThanOrEqual(240)
    })
  )
})
