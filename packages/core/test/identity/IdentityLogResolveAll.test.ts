/** Many logs, and several calls that resolve many: who waits for whom. */
import { describe, expect, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Fiber from "effect/Fiber"
import { answer, CurveBackend, noble, type Operations } from "../../src/identity/CurveBackend.ts"
import * as Identifier from "../../src/identity/Identifier.ts"
import * as IdentityLog from "../../src/identity/IdentityLog.ts"
import * as IdentityUpdate from "../../src/identity/IdentityUpdate.ts"
import * as InboxId from "../../src/identity/InboxId.ts"
import { layerNone, SmartContractWalletVerifier } from "../../src/ports/SmartContractWalletVerifier.ts"
import { logOfRevocations, wallet } from "./fixtures.ts"

const alice = wallet("11".repeat(32))

/** A log of one inbox of Alice's, with so many signatures after that of its founding. */
const log = (nonce: bigint, revocations: number) => logOfRevocations(alice, { nonce, updates: 1 + revocations })

/** A log whose founder is a smart contract wallet. */
const logOfContract = (): ReadonlyArray<Uint8Array> => {
  const address = `0x${"ab".repeat(20)}`
  const owner = Identifier.ethereum(address)
  const signature = {
    _tag: "SmartContractWallet" as const,
    accountId: { chainId: "eip155:1", address },
    blockNumber: 1n,
    bytes: Uint8Array.of(1)
  }
  const actions: ReadonlyArray<IdentityUpdate.Action> = [
    { _tag: "CreateInbox", owner, nonce: 0n, initialSignature: signature }
  ]
  return [IdentityUpdate.encode({ inboxId: InboxId.derive(owner, 0n), clientTimestampNs: 0n, actions })]
}

/** What happens, in its order: calls by their number. */
const listening = () => {
  const events: Array<string> = []
  let calls = 0
  const backend: Operations = {
    ...noble,
    foresee: () => {
      const call = ++calls
      events.push(`${call} foreseen`)
      return {
        answer: (question) => {
          if (events.at(-1) !== `${call} verifies`) events.push(`${call} verifies`)
          return answer(noble, question)
        },
        release: () => events.push(`${call} released`)
      }
    }
  }
  return { events, backend: Effect.provideService(CurveBackend, backend) }
}

/** Lets others run until it is so. */
const until = (isSo: () => boolean) =>
  Effect.iterate(0, { while: () => !isSo(), body: (turns) => Effect.as(Effect.yieldNow(), turns + 1) })

const many = (nonce: bigint) => [{ updates: log(nonce, 9) }, { updates: log(nonce + 1n, 9) }]

describe("several calls that take turns", () => {
  it.live("verify one after the other, and what the next will ask is foreseen meanwhile", () => {
    const { backend, events } = listening()
    return Effect.gen(function* () {
      const takeTurns = yield* Effect.makeSemaphore(1)
      const resolve = (nonce: bigint) => IdentityLog.resolveAll(many(nonce), { concurrency: 4, takeTurns })
      const all = yield* Effect.all([resolve(0n), resolve(10n), resolve(20n)], { concurrency: "unbounded" })
      expect(all.flat().every(Either.isRight)).toBe(true)
      expect(events.filter((event) => event.endsWith("verifies"))).toEqual(["1 verifies", "2 verifies", "3 verifies"])
      expect(events.indexOf("3 foreseen")).toBeLessThan(events.indexOf("2 verifies"))
    }).pipe(backend, Effect.provide(layerNone))
  })

  it.live("a call with few signatures waits for nobody, nor does one with a long log", () => {
    const { backend } = listening()
    return Effect.gen(function* () {
      const takeTurns = yield* Effect.makeSemaphore(1)
      yield* takeTurns.take(1)
      const resolve = (logs: ReadonlyArray<IdentityLog.LogToResolve>) =>
        IdentityLog.resolveAll(logs, { concurrency: 4, takeTurns })
      const waits = yield* Effect.fork(resolve(many(0n)))
      expect((yield* resolve([{ updates: log(0n, 1) }])).every(Either.isRight)).toBe(true)
      const long = { updates: log(0n, 200) }
      expect(long.updates.reduce((sum, { length }) => sum + length, 0)).toBeGreaterThan(32 * 1024)
      expect((yield* resolve([long])).every(Either.isRight)).toBe(true)
      expect(yield* Fiber.poll(waits)).toMatchObject({ _tag: "None" })
      yield* takeTurns.release(1)
      expect((yield* Fiber.join(waits)).every(Either.isRight)).toBe(true)
    }).pipe(backend, Effect.provide(layerNone))
  })

  it.live("a call with very many signatures takes no turn, so that nobody waits for it", () => {
    const { backend, events } = listening()
    return Effect.gen(function* () {
      const takeTurns = yield* Effect.makeSemaphore(1)
      const resolve = (logs: ReadonlyArray<IdentityLog.LogToResolve>) =>
        IdentityLog.resolveAll(logs, { concurrency: 4, takeTurns })
      const one = { updates: log(0n, 150) }
      const large = yield* Effect.fork(resolve(Array.from({ length: 7 }, () => one)))
      yield* until(() => events.includes("1 verifies"))
      expect((yield* resolve(many(10n))).every(Either.isRight)).toBe(true)
      expect(yield* Fiber.poll(large)).toMatchObject({ _tag: "None" })
      yield* Fiber.interrupt(large)
    }).pipe(backend, Effect.provide(layerNone))
  })

  it.live("[50] a smart contract wallet is asked before the turn of the call", () => {
    const { backend } = listening()
    return Effect.gen(function* () {
      const takeTurns = yield* Effect.makeSemaphore(1)
      yield* takeTurns.take(1)
      const asked = yield* Deferred.make<void>()
      const verifier = { isValid: () => Effect.as(Deferred.succeed(asked, undefined), true) }
      const waits = yield* IdentityLog.resolveAll([...many(0n), { updates: logOfContract() }], {
        concurrency: 4,
        takeTurns
      }).pipe(Effect.provideService(SmartContractWalletVerifier, verifier), Effect.fork)
      yield* Deferred.await(asked)
      yield* takeTurns.release(1)
      expect((yield* Fiber.join(waits)).every(Either.isRight)).toBe(true)
    }).pipe(backend)
  })

  it.live("the signatures of a log that asks a chain make its call wait for no turn", () => {
    const { backend } = listening()
    return Effect.gen(function* () {
      const takeTurns = yield* Effect.makeSemaphore(1)
      yield* takeTurns.take(1)
      const logs = [{ updates: [...log(0n, 20), ...logOfContract()] }, { updates: log(1n, 1) }]
      const resolved = yield* IdentityLog.resolveAll(logs, { concurrency: 4, takeTurns })
      expect(resolved.map(Either.isRight)).toEqual([false, true])
    }).pipe(backend, Effect.provideService(SmartContractWalletVerifier, { isValid: () => Effect.succeed(true) }))
  })

  it.live(
    "[50] a log that waits for its smart contract wallet holds up no other call, and no other log of its own",
    () => {
      const { backend, events } = listening()
      return Effect.gen(function* () {
        const takeTurns = yield* Effect.makeSemaphore(1)
        const asked = yield* Deferred.make<void>()
        const says = yield* Deferred.make<boolean>()
        const verifier = { isValid: () => Effect.zipRight(Deferred.succeed(asked, undefined), Deferred.await(says)) }
        const resolve = (logs: ReadonlyArray<IdentityLog.LogToResolve>) =>
          IdentityLog.resolveAll(logs, { concurrency: 1, takeTurns }).pipe(
            Effect.provideService(SmartContractWalletVerifier, verifier)
          )
        const waits = yield* Effect.fork(resolve([{ updates: logOfContract() }, ...many(0n)]))
        yield* Deferred.await(asked)
        expect((yield* resolve(many(10n))).every(Either.isRight)).toBe(true)
        expect(events).toContain("1 verifies")
        expect(yield* Fiber.poll(waits)).toMatchObject({ _tag: "None" })
        yield* Deferred.succeed(says, true)
        expect((yield* Fiber.join(waits)).map(Either.isRight)).toEqual([true, true, true])
      }).pipe(backend)
    }
  )

  it.live("one that is interrupted gives its turn to the next, and asks nothing more", () => {
    const { backend, events } = listening()
    return Effect.gen(function* () {
      const takeTurns = yield* Effect.makeSemaphore(1)
      const resolve = (nonce: bigint) => IdentityLog.resolveAll(many(nonce), { concurrency: 4, takeTurns })
      const first = yield* Effect.fork(resolve(0n))
      yield* until(() => events.includes("1 verifies"))
      yield* Fiber.interrupt(first)
      expect(events.at(-1)).toBe("1 released")
      expect((yield* resolve(10n)).every(Either.isRight)).toBe(true)
      expect(events.filter((event) => event.startsWith("1"))).toEqual(["1 foreseen", "1 verifies", "1 released"])
    }).pipe(backend, Effect.provide(layerNone))
  })
})

describe("many logs", () => {
  it.live("the same log twice, and logs with and without a state, each have their own answer in order", () =>
    Effect.gen(function* () {
      const whole = log(3n, 4)
      const state = yield* IdentityLog.resolve(whole.slice(0, 2))
      const same = { updates: whole }
      const resolved = yield* IdentityLog.resolveAll(
        [
          same,
          { updates: [Uint8Array.of(7)] },
          { state, updates: whole.slice(2) },
          same,
          { updates: whole, expectedInboxId: InboxId.derive(alice.identifier, 4n) },
          { updates: [] },
          { state, updates: [] }
        ],
        { concurrency: 2 }
      )
      const expected = Either.right(yield* IdentityLog.resolve(whole))
      expect([resolved[0], resolved[2], resolved[3]]).toEqual([expected, expected, expected])
      expect(resolved[6]).toEqual(Either.right(state))
      // Only `extend` takes a state.
      const alone: IdentityLog.ResolveOptions = { ...same, state } as IdentityLog.LogToResolve
      expect(yield* Effect.flip(IdentityLog.resolve(whole.slice(2), alone))).toMatchObject({ reason: "NotCreated" })
      const reasons = [1, 4, 5].map((index) => {
        const one = resolved[index]
        return one !== undefined && Either.isLeft(one) ? one.left.reason : undefined
      })
      expect(reasons).toEqual(["NotProtobuf", "UnexpectedInbox", "NotCreated"])
    }).pipe(Effect.provide(layerNone))
  )
})
