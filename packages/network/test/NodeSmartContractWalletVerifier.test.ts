/** Asking a node about smart contract wallets: answers, failures that are no answers, batches, memory. */
import { describe, expect, it } from "@effect/vitest"
import {
  SmartContractWalletVerifier,
  SmartContractWalletVerifierError
} from "@keyward/core/ports/SmartContractWalletVerifier"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import * as Status from "@keyward/test-utils/devnode/GrpcStatus"
import * as NodeValidation from "@keyward/test-utils/devnode/NodeValidation"
import * as Faults from "@keyward/test-utils/Faults"
import * as MemoryApiClient from "@keyward/test-utils/MemoryApiClient"
import * as VectorWallets from "@keyward/test-utils/VectorWallets"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import * as NodeSmartContractWalletVerifier from "../src/NodeSmartContractWalletVerifier.ts"

const METHOD = "verifySmartContractWalletSignatures"
const hash = new Uint8Array(32).fill(7)
const account = { chainId: "eip155:1", address: `0x${"ab".repeat(20)}` }

const question = (salt: number, blockNumber = 1n) => ({
  ...account,
  hash,
  blockNumber,
  signature: VectorWallets.sign(account, hash, Uint8Array.of(salt, salt >> 8))
})

const ask = (of: ReturnType<typeof question>) =>
  Effect.flatMap(SmartContractWalletVerifier, ({ isValid }) => isValid(of))

const requests = Effect.flatMap(Faults.Faults, (faults) => Effect.map(faults.callsOf(METHOD), (calls) => calls.length))

/** A node that judges by this verifier, and our verifier over it. */
const world = (
  options: NodeSmartContractWalletVerifier.NodeSmartContractWalletVerifierOptions = {},
  judge: Layer.Layer<SmartContractWalletVerifier> = VectorWallets.layer
) =>
  NodeSmartContractWalletVerifier.layer(options).pipe(
    Layer.provide(MemoryApiClient.layerTransport),
    Layer.provideMerge(DevNode.layerNode(NodeValidation.layerWith(judge)))
  )

describe("the node's verifier", () => {
  it.effect("says yes and no as the wallet does", () =>
    Effect.gen(function* () {
      expect(yield* ask(question(1))).toBe(true)
      expect(yield* ask({ ...question(1), address: `0x${"ac".repeat(20)}` })).toBe(false)
      expect(yield* ask({ ...question(1), hash: new Uint8Array(32) })).toBe(false)
    }).pipe(Effect.provide(world()))
  )

  it.effect("remembers answers, a no too, by account, hash, signature and block", () =>
    Effect.gen(function* () {
      for (let times = 0; times < 3; times++) {
        expect(yield* ask(question(1))).toBe(true)
        expect(yield* ask({ ...question(1), chainId: "eip155:2" })).toBe(false)
      }
      expect(yield* requests).toBe(2)
      yield* ask(question(1, 2n))
      yield* ask(question(2))
      expect(yield* requests).toBe(4)
    }).pipe(Effect.provide(world()))
  )

  it.effect("forgets the least recently used first", () =>
    Effect.gen(function* () {
      for (const salt of [1, 2, 1, 3, 1]) yield* ask(question(salt))
      expect(yield* requests).toBe(3)
      yield* ask(question(2))
      expect(yield* requests).toBe(4)
    }).pipe(Effect.provide(world({ capacity: 2 })))
  )

  it.effect("does not fill its memory with long signatures", () =>
    Effect.gen(function* () {
      const long = { ...question(1), signature: new Uint8Array(5_000) }
      expect(yield* ask(long)).toBe(false)
      expect(yield* ask(long)).toBe(false)
      expect(yield* requests).toBe(2)
    }).pipe(Effect.provide(world()))
  )

  it.effect("asks questions of one moment in requests of 50, and each once", () =>
    Effect.gen(function* () {
      const salts = Array.from({ length: 120 }, (_, salt) => salt)
      const verdicts = yield* Effect.forEach([...salts, ...salts], (salt) => ask(question(salt)), {
        concurrency: "unbounded"
      })
      expect(verdicts.every((verdict) => verdict)).toBe(true)
      expect(yield* requests).toBe(3)
    }).pipe(Effect.provide(world()))
  )

  it.effect("keeps to its number of requests at once; what comes meanwhile goes together", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      yield* faults.enqueue(METHOD, Faults.Fault.Delay({ duration: "5 seconds" }))
      const first = yield* Effect.fork(ask(question(1)))
      yield* TestClock.adjust("1 second")
      const rest = yield* Effect.fork(
        Effect.forEach([2, 3, 4], (salt) => ask(question(salt)), { concurrency: "unbounded" })
      )
      yield* TestClock.adjust("1 second")
      expect(yield* requests).toBe(1)
      yield* TestClock.adjust("4 seconds")
      expect([yield* Fiber.join(first), ...(yield* Fiber.join(rest))]).toEqual([true, true, true, true])
      expect(yield* requests).toBe(2)
    }).pipe(Effect.provide(world({ concurrency: 1 })))
  )

  it.effect("goes on for the others when the one who asked first leaves", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      yield* faults.enqueue(METHOD, Faults.Fault.Delay({ duration: "5 seconds" }))
      const first = yield* Effect.fork(ask(question(1)))
      const second = yield* Effect.fork(ask(question(1)))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(first)
      yield* TestClock.adjust("5 seconds")
      expect(yield* Fiber.join(second)).toBe(true)
      expect(yield* requests).toBe(1)
    }).pipe(Effect.provide(world()))
  )
})

describe("what is no answer", () => {
  const faults = {
    "a status": Faults.Fault.Fail({ stage: "beforeSend", status: Status.unavailable("no") }),
    "a refusal": Faults.Fault.Fail({ stage: "beforeSend", status: Status.invalidArgument("no") }),
    "a broken connection": Faults.Fault.Drop({ stage: "beforeSend" }),
    "no answer in time": Faults.Fault.Hang({ stage: "beforeSend" }),
    "too few verdicts": Faults.Fault.Wrong({ answer: Faults.WrongAnswer.Short() }),
    "too many verdicts": Faults.Fault.Wrong({ answer: Faults.WrongAnswer.Long() }),
    "bytes that are no message": Faults.Fault.Wrong({ answer: Faults.WrongAnswer.Undecodable() })
  }
  it.effect.each(Object.entries(faults))("%s is Unavailable, never a no, and is not remembered", ([, fault]) =>
    Effect.gen(function* () {
      const script = yield* Faults.Faults
      yield* script.enqueue(METHOD, fault)
      const asked = yield* Effect.fork(Effect.flip(ask(question(1))))
      yield* TestClock.adjust("2 seconds")
      const error = yield* Fiber.join(asked)
      expect(error).toMatchObject({ reason: "Unavailable", chainId: "eip155:1", isRetryable: true })
      expect(yield* ask(question(1))).toBe(true)
    }).pipe(Effect.provide(world({ timeout: "1 second" })))
  )

  it.effect("a chain that the node cannot reach is Unavailable for its own question alone", () =>
    Effect.gen(function* () {
      const [yes, none] = yield* Effect.forEach(
        [question(1), { ...question(1), chainId: "eip155:2" }],
        (of) => Effect.either(ask(of)),
        { concurrency: "unbounded" }
      )
      expect(yes).toMatchObject({ _tag: "Right", right: true })
      expect(none).toMatchObject({ _tag: "Left", left: { reason: "Unavailable", chainId: "eip155:2" } })
      expect(yield* requests).toBe(1)
    }).pipe(
      Effect.provide(
        world(
          {},
          Layer.succeed(SmartContractWalletVerifier, {
            isValid: ({ chainId }) =>
              chainId === "eip155:1"
                ? Effect.succeed(true)
                : new SmartContractWalletVerifierError({ reason: "NoVerifier", chainId })
          })
        )
      )
    )
  )

  it.effect("a node that does not know the call is NoVerifier", () =>
    Effect.gen(function* () {
      const script = yield* Faults.Faults
      yield* script.enqueue(METHOD, Faults.Fault.Fail({ stage: "beforeSend", status: Status.unimplemented("x") }))
      expect(yield* Effect.flip(ask(question(1)))).toMatchObject({ reason: "NoVerifier" })
    }).pipe(Effect.provide(world()))
  )

  it.effect("a request that the node refuses for one question costs the others nothing", () =>
    Effect.gen(function* () {
      const script = yield* Faults.Faults
      const refused = Faults.Fault.Fail({ stage: "beforeSend", status: Status.invalidArgument("no") })
      // All four, then the first two, then the first alone.
      yield* script.enqueue(METHOD, refused, refused, refused)
      const verdicts = yield* Effect.forEach([1, 2, 3, 4], (salt) => Effect.either(ask(question(salt))), {
        concurrency: "unbounded"
      })
      expect(verdicts.map(({ _tag }) => _tag)).toEqual(["Left", "Right", "Right", "Right"])
    }).pipe(Effect.provide(world()))
  )

  it.effect("settings that make no sense are refused", () =>
    Effect.gen(function* () {
      for (const options of [{ concurrency: 0 }, { capacity: 1.5 }]) {
        const error = yield* NodeSmartContractWalletVerifier.make(options).pipe(
          Effect.provide(MemoryApiClient.layerTransport),
          Effect.provide(DevNode.layerNode()),
          Effect.scoped,
          Effect.flip
        )
        expect(error._tag).toBe("NetworkConfigError")
      }
    })
  )
})
