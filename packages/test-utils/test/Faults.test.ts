import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import { describe, expect, it } from "@effect/vitest"
import {
  FetchKeyPackagesRequestSchema,
  FetchKeyPackagesResponseSchema,
  SubscribeWelcomeMessagesRequestSchema,
  UploadKeyPackageRequestSchema,
  WelcomeMessageSchema,
  WelcomeWrapperAlgorithm
} from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import { layerNode } from "@keyward/test-utils/devnode/DevNode"
import * as Status from "@keyward/test-utils/devnode/GrpcStatus"
import { NodeApi } from "@keyward/test-utils/devnode/NodeApi"
import { NodeState } from "@keyward/test-utils/devnode/NodeState"
import { type InboxMembers, NodeValidation } from "@keyward/test-utils/devnode/NodeValidation"
import * as Faults from "@keyward/test-utils/Faults"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"

const call = { method: "uploadKeyPackage", via: "memory", request: new Uint8Array(0) } as const

/** Installations are one byte, and a package's first byte is its installation. */
const node = layerNode(
  Layer.sync(NodeValidation, () => {
    const inbox: InboxMembers = { addresses: new Set(), extend: () => Effect.succeed(inbox) }
    return {
      keyPackage: (keyPackage) => Effect.succeed(keyPackage.subarray(0, 1)),
      emptyInbox: inbox,
      smartContractWallet: () => Effect.succeed(false)
    }
  })
)

const upload = (...keyPackage: ReadonlyArray<number>) =>
  Effect.flatMap(NodeApi, (api) =>
    api.call(
      "/xmtp.mls.api.v1.MlsApi/UploadKeyPackage",
      toBinary(
        UploadKeyPackageRequestSchema,
        create(UploadKeyPackageRequestSchema, { keyPackage: { keyPackageTlsSerialized: Uint8Array.from(keyPackage) } })
      ),
      "memory"
    )
  )

const fetch = (...installations: ReadonlyArray<number>) =>
  Effect.gen(function* () {
    const api = yield* NodeApi
    const installationKeys = installations.map((installation) => Uint8Array.of(installation))
    const request = toBinary(FetchKeyPackagesRequestSchema, create(FetchKeyPackagesRequestSchema, { installationKeys }))
    const response = yield* api.call("/xmtp.mls.api.v1.MlsApi/FetchKeyPackages", request, "memory")
    const { keyPackages } = fromBinary(FetchKeyPackagesResponseSchema, response)
    return keyPackages.map(({ keyPackageTlsSerialized }) => [...keyPackageTlsSerialized])
  })

const served = (installation: number) =>
  Effect.flatMap(NodeState, ({ keyPackages }) =>
    Effect.map(keyPackages.fetch([Uint8Array.of(installation)]), ([keyPackage]) => [...(keyPackage ?? [])])
  )

describe("Faults", () => {
  it.effect("queued faults meet the next calls of their method, in order, before any rule", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      const [one, two, three] = [Faults.hang(), Faults.drop(), Faults.failBeforeSend()]
      yield* faults.enqueue("uploadKeyPackage", one)
      yield* faults.enqueue("uploadKeyPackage", two)
      yield* faults.setRule(({ method }) => (method === "uploadKeyPackage" ? Option.some(three) : Option.none()))
      expect(yield* faults.pending).toBe(2)
      expect((yield* faults.receive({ ...call, method: "getInboxIds" })).fault).toEqual(Option.none())
      for (const expected of [one, two, three, three]) {
        expect((yield* faults.receive(call)).fault).toEqual(Option.some(expected))
      }
      yield* faults.enqueue("uploadKeyPackage", one)
      yield* faults.clear
      expect(yield* faults.pending).toBe(0)
      expect((yield* faults.receive(call)).fault).toEqual(Option.none())
    }).pipe(Effect.provide(Faults.layer))
  )

  it.effect("a call stays pending until its end is noted, and clearing the recording does not disturb it", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      const { end } = yield* faults.receive(call)
      expect((yield* faults.calls).map(({ outcome }) => outcome._tag)).toEqual(["Pending"])
      yield* faults.clearCalls
      yield* faults.receive(call)
      yield* end(Faults.Outcome.Dropped())
      expect((yield* faults.callsOf("uploadKeyPackage")).map(({ outcome }) => outcome._tag)).toEqual(["Pending"])
    }).pipe(Effect.provide(Faults.layer))
  )

  it.effect("before the node is reached nothing is stored; after it accepted, everything is", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      yield* faults.enqueue("uploadKeyPackage", Faults.failBeforeSend(), Faults.drop())
      yield* Effect.flip(upload(1, 1))
      yield* Effect.flip(upload(1, 2))
      expect(yield* served(1)).toEqual([])
      yield* faults.enqueue("uploadKeyPackage", Faults.failAfterAccept(), Faults.drop("afterAccept"))
      yield* Effect.flip(upload(1, 3))
      expect(yield* served(1)).toEqual([1, 3])
      yield* Effect.flip(upload(1, 4))
      expect(yield* served(1)).toEqual([1, 4])

      for (const stage of ["beforeSend", "afterAccept"] as const) {
        yield* faults.enqueue("uploadKeyPackage", Faults.hang(stage))
        const fiber = yield* Effect.fork(upload(1, 5))
        yield* TestClock.adjust("1 day")
        yield* Fiber.interrupt(fiber)
        expect(yield* served(1)).toEqual(stage === "beforeSend" ? [1, 4] : [1, 5])
      }
    }).pipe(Effect.provide(node))
  )

  it.effect("[23] a late upload arrives after its sender has given up and sent a newer one", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      yield* faults.enqueue("uploadKeyPackage", Faults.late("1 minute"))
      const fiber = yield* Effect.fork(upload(1, 1))
      yield* TestClock.adjust("1 second")
      yield* Fiber.interrupt(fiber)
      yield* upload(1, 2)
      expect(yield* served(1)).toEqual([1, 2])
      yield* TestClock.adjust("1 minute")
      expect(yield* served(1)).toEqual([1, 1])
    }).pipe(Effect.provide(node))
  )

  it.effect("a delayed call is answered later, and undone by a caller that does not wait", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      yield* faults.enqueue("uploadKeyPackage", Faults.delay("5 seconds"), Faults.delay("5 seconds"))
      const patient = yield* Effect.fork(upload(1, 1))
      const impatient = yield* Effect.fork(upload(2, 2))
      yield* TestClock.adjust("4 seconds")
      yield* Fiber.interrupt(impatient)
      expect(yield* served(1)).toEqual([])
      yield* TestClock.adjust("1 second")
      yield* Fiber.join(patient)
      expect([yield* served(1), yield* served(2)]).toEqual([[1, 1], []])
    }).pipe(Effect.provide(node))
  )

  it.effect("[31] [48] [49] answers are wrong in the way that the script says", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      yield* upload(1, 1)
      yield* upload(2, 2)
      yield* upload(3, 3)
      const { WrongAnswer } = Faults
      const cases: ReadonlyArray<readonly [Faults.WrongAnswer, ReadonlyArray<ReadonlyArray<number>>]> = [
        [
          WrongAnswer.Short(),
          [
            [1, 1],
            [2, 2]
          ]
        ],
        [WrongAnswer.Long(), [[1, 1], [2, 2], [3, 3], []]],
        [
          WrongAnswer.Reversed(),
          [
            [3, 3],
            [2, 2],
            [1, 1]
          ]
        ],
        [
          WrongAnswer.Repeated(),
          [
            [1, 1],
            [1, 1],
            [1, 1]
          ]
        ],
        [WrongAnswer.Emptied(), [[], [], []]],
        [WrongAnswer.KeyPackage({ keyPackage: Uint8Array.of(9) }), [[9], [9], [9]]],
        [WrongAnswer.Bytes({ bytes: new Uint8Array(0) }), []]
      ]
      for (const [answer, expected] of cases) {
        yield* faults.enqueue("fetchKeyPackages", Faults.wrongAnswer(answer))
        expect([answer._tag, yield* fetch(1, 2, 3)]).toEqual([answer._tag, expected])
      }
      yield* faults.enqueue("fetchKeyPackages", Faults.wrongAnswer(WrongAnswer.Undecodable()))
      expect((yield* Effect.exit(fetch(1, 2, 3)))._tag).toBe("Failure")
      expect(yield* fetch(1, 2, 3)).toEqual([
        [1, 1],
        [2, 2],
        [3, 3]
      ])
    }).pipe(Effect.provide(node))
  )

  describe("streams", () => {
    const installationKey = Uint8Array.of(1)
    const welcomes = [11, 12, 13, 14, 15]

    /** The stream of a topic with these Welcomes: what comes, and how it ends. */
    const received = (fault: Faults.Fault, count: number) =>
      Effect.gen(function* () {
        const api = yield* NodeApi
        const faults = yield* Faults.Faults
        const { welcomes: log } = yield* NodeState
        yield* Effect.forEach(welcomes, (byte) => {
          const value = {
            $typeName: "xmtp.mls.api.v1.WelcomeMessageInput.V1" as const,
            installationKey,
            data: Uint8Array.of(byte),
            hpkePublicKey: new Uint8Array(0),
            wrapperAlgorithm: WelcomeWrapperAlgorithm.SYMMETRIC_KEY,
            welcomeMetadata: new Uint8Array(0)
          }
          return log.append(installationKey, { case: "v1", value }, Option.none())
        })
        yield* faults.enqueue("subscribeWelcomeMessages", fault)
        const request = toBinary(
          SubscribeWelcomeMessagesRequestSchema,
          create(SubscribeWelcomeMessagesRequestSchema, { filters: [{ installationKey }] })
        )
        const bytes: Array<number> = []
        const ending = yield* api.open("/xmtp.mls.api.v1.MlsApi/SubscribeWelcomeMessages", request, "memory").pipe(
          Stream.take(count),
          Stream.runForEach((message) =>
            Effect.sync(() => {
              const { version } = fromBinary(WelcomeMessageSchema, message)
              if (version.case === "v1") bytes.push(version.value.data[0] ?? 0)
            })
          ),
          Effect.match({ onSuccess: () => "end", onFailure: ({ _tag }) => _tag })
        )
        return { bytes, ending }
      }).pipe(Effect.provide(node))

    const { StreamFault } = Faults
    it.effect.each<readonly [string, Faults.Fault, number, ReadonlyArray<number>, string]>([
      ["ends early", Faults.cutAfter(2, "end"), 5, [11, 12], "end"],
      ["is cut", Faults.cutAfter(2), 5, [11, 12], "ConnectionDropped"],
      ["fails", Faults.cutAfter(0, Status.unavailable("restart")), 5, [], "GrpcStatus"],
      ["repeats", Faults.streaming(StreamFault.Doubled()), 5, [11, 11, 12, 12, 13], "end"],
      ["swaps", Faults.streaming(StreamFault.Swapped()), 4, [12, 11, 14, 13], "end"],
      ["leaves out", Faults.streaming(StreamFault.LeftOut({ nth: 2 })), 4, [11, 13, 14, 15], "end"]
    ])("a stream that %s", ([, fault, wanted, bytes, ending]) =>
      Effect.gen(function* () {
        expect(yield* received(fault, wanted)).toEqual({ bytes, ending })
      })
    )

    it.effect("a stream that is slow, or falls silent", () =>
      Effect.gen(function* () {
        const slow = yield* Effect.fork(received(Faults.streaming(StreamFault.Slow({ duration: "1 minute" })), 3))
        yield* TestClock.adjust("2 minutes")
        expect(yield* Fiber.poll(slow)).toEqual(Option.none())
        yield* TestClock.adjust("1 minute")
        expect(yield* Fiber.join(slow)).toEqual({ bytes: [11, 12, 13], ending: "end" })

        const silent = yield* Effect.fork(received(Faults.cutAfter(2, "hang"), 3))
        yield* TestClock.adjust("10 days")
        expect(yield* Fiber.poll(silent)).toEqual(Option.none())
      })
    )
  })
})
