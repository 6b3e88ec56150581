/**
 * What every layer of the port of group messages must do. A new one runs this suite from its own tests, against a node that
 * is scripted to fail: in memory, or over a real wire.
 *
 * @since 1.0.0
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import { describe, expect, it } from "@effect/vitest"
import { ApiClientError, limits } from "@keyward/core/ports/ApiClient"
import { type GroupMessageEntry, type GroupMessageInput, GroupMessages } from "@keyward/core/ports/GroupMessages"
import {
  GroupMessageSchema,
  QueryGroupMessagesResponseSchema,
  SendGroupMessagesRequestSchema
} from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import { GrpcStatus } from "../devnode/GrpcStatus.ts"
import * as Faults from "../Faults.ts"
import { sessionGroupMessages } from "../vectors/GroupMessageVectors.ts"

/** When every test begins, milliseconds since 1970. */
const T0 = 1_795_420_940_000

const bytesOf = (hex: string): Uint8Array => Either.getOrThrow(Encoding.decodeHex(hex))

const [commit, text] = [true, false].map((isCommit) => {
  const vector = sessionGroupMessages.find((message) => message.isCommit === isCommit)
  if (vector === undefined) throw new Error("no such vector")
  return bytesOf(vector.data)
})

/** Where the 16 bytes of the group id begin: after version, wire format and their length. */
const ID_OFFSET = 5

/** The message of this number, in this group: a node reads no further than its head. */
const message = (group: Uint8Array, seed: number): GroupMessageInput => {
  const template = (seed % 3 === 0 ? commit : text) ?? new Uint8Array(0)
  const data = new Uint8Array(template.length + 1)
  data.set(template)
  data.set(group, ID_OFFSET)
  data[template.length] = seed
  return {
    data,
    senderHmac: seed % 2 === 0 ? new Uint8Array(0) : new Uint8Array(32).fill(seed),
    shouldPush: seed % 2 === 1
  }
}

const [groupA, groupB, groupC] = [1, 2, 3].map((byte) => new Uint8Array(16).fill(byte)) as [
  Uint8Array,
  Uint8Array,
  Uint8Array
]

const messages = (group: Uint8Array, count: number, first = 0): ReadonlyArray<GroupMessageInput> =>
  Array.from({ length: count }, (_, index) => message(group, first + index))

/** What was sent, of what is served. */
const sent = (entry: GroupMessageEntry): unknown => {
  if (entry._tag === "Unknown") return entry
  const { data, senderHmac, shouldPush } = entry
  expect(entry.groupId).toEqual(data.slice(ID_OFFSET, ID_OFFSET + 16))
  expect(entry.createdNs).toBe(BigInt(T0) * 1_000_000n)
  expect(entry.isCommit).toBe((data.at(-1) ?? 0) % 3 === 0)
  return { data, senderHmac, shouldPush }
}

const idsOf = (entries: ReadonlyArray<GroupMessageEntry>): ReadonlyArray<bigint> =>
  entries.flatMap((entry) => (entry._tag === "Unknown" ? [] : [entry.id]))

const readAll = (groupId: Uint8Array, limit: number) =>
  Effect.gen(function* () {
    const group = yield* GroupMessages
    const entries: Array<GroupMessageEntry> = []
    let after = 0n
    for (let hasMore = true; hasMore; ) {
      const page = yield* group.queryGroupMessages(groupId, { after, limit })
      entries.push(...page.entries)
      after = page.cursor
      hasMore = page.hasMore
    }
    return entries
  })

/**
 * Declares the suite. The layer is built anew for every test, with a node that knows nothing yet, and whose script of
 * faults the suite writes.
 *
 * @since 1.0.0
 * @category contracts
 */
export const suite = <E>(name: string, layer: Layer.Layer<GroupMessages | Faults.Faults, E>): void => {
  const test = <A, E2>(title: string, body: () => Effect.Effect<A, E2, GroupMessages | Faults.Faults>) =>
    it.effect(title, () =>
      TestClock.setTime(T0).pipe(
        Effect.zipRight(Effect.provide(Effect.suspend(body), Layer.fresh(layer))),
        Effect.scoped
      )
    )

  describe(`${name} keeps the contract of GroupMessages:`, () => {
    test("messages come back byte for byte, in order, on pages of any size, each once", () =>
      Effect.gen(function* () {
        const group = yield* GroupMessages
        const mine = messages(groupA, 13)
        yield* group.sendGroupMessages(mine.slice(0, 7))
        yield* group.sendGroupMessages(messages(groupB, 3))
        yield* group.sendGroupMessages(mine.slice(5))
        for (const limit of [1, 4, 12, 13, 14]) {
          const entries = yield* readAll(groupA, limit)
          expect(entries.map(sent)).toEqual(mine)
          expect(new Set(idsOf(entries)).size).toBe(13)
        }
        const empty = { entries: [], cursor: 5n, hasMore: false }
        expect(yield* group.queryGroupMessages(groupC, { after: 5n })).toEqual(empty)
      }))

    test("nothing to send is no request; too much for one goes in several; too large is not sent", () =>
      Effect.gen(function* () {
        const group = yield* GroupMessages
        const faults = yield* Faults.Faults
        yield* group.sendGroupMessages([])
        const huge = { ...message(groupA, 1), senderHmac: new Uint8Array(limits.messageBytes) }
        expect(yield* Effect.flip(group.sendGroupMessages([message(groupA, 2), huge]))).toMatchObject({
          operation: "sendGroupMessages",
          reason: "RequestTooLarge"
        })
        expect(yield* faults.calls).toEqual([])

        const large = (seed: number) => ({ ...message(groupA, seed), senderHmac: new Uint8Array(20 << 20) })
        yield* group.sendGroupMessages([large(3), message(groupA, 4), large(5)])
        const requests = (yield* faults.callsOf("sendGroupMessages")).map(
          ({ request }) => fromBinary(SendGroupMessagesRequestSchema, request).messages.length
        )
        expect(requests).toEqual([2, 1])
      }))

    test("a stream brings several groups, each from its cursor, then what is sent, and no other group", () =>
      Effect.gen(function* () {
        const group = yield* GroupMessages
        yield* group.sendGroupMessages([...messages(groupA, 4), ...messages(groupB, 4), ...messages(groupC, 4)])
        const [, second = 0n] = idsOf(yield* readAll(groupA, 100))
        const [, , , last = 0n] = idsOf(yield* readAll(groupB, 100))
        const oldCame = yield* Deferred.make<void>()
        const entries: Array<GroupMessageEntry> = []
        const fiber = yield* group
          .subscribeGroupMessages([
            { groupId: groupA, after: second },
            { groupId: groupB, after: last }
          ])
          .pipe(
            Stream.take(5),
            Stream.runForEach((entry) => {
              entries.push(entry)
              return entries.length === 2 ? Deferred.succeed(oldCame, undefined) : Effect.void
            }),
            Effect.fork
          )
        yield* Deferred.await(oldCame)
        const news = [...messages(groupB, 2, 20), ...messages(groupC, 2, 20), ...messages(groupA, 1, 20)]
        yield* group.sendGroupMessages(news)
        yield* Fiber.join(fiber)
        expect(entries.map(sent)).toEqual([
          ...messages(groupA, 2, 2),
          ...messages(groupB, 2, 20),
          ...messages(groupA, 1, 20)
        ])
      }))

    test("[22] [27] streams and calls fail with the one error of the network, and nothing is tried again", () =>
      Effect.gen(function* () {
        const group = yield* GroupMessages
        const faults = yield* Faults.Faults
        yield* group.sendGroupMessages(messages(groupA, 3))
        yield* faults.clearCalls
        const runs = [
          ["queryGroupMessages", group.queryGroupMessages(groupA, { after: 0n })],
          ["sendGroupMessages", group.sendGroupMessages(messages(groupA, 1))],
          ["subscribeGroupMessages", Stream.runDrain(group.subscribeGroupMessages([{ groupId: groupA, after: 0n }]))]
        ] as const
        for (const [operation, run] of runs) {
          const status = new GrpcStatus({ code: 14, detail: "try later" })
          yield* faults.enqueue(operation, Faults.failBeforeSend(status), Faults.drop())
          const error = yield* Effect.flip<unknown, ApiClientError, never>(run)
          expect(error).toBeInstanceOf(ApiClientError)
          expect(error).toMatchObject({ operation, reason: "Unavailable", grpcCode: 14, detail: "try later" })
          expect(yield* Effect.flip<unknown, ApiClientError, never>(run)).toMatchObject({
            operation,
            reason: "Transport"
          })
        }
        expect((yield* faults.calls).length).toBe(6)
        yield* faults.enqueue("subscribeGroupMessages", Faults.cutAfter(2, "end"))
        const read = yield* Stream.runCollect(group.subscribeGroupMessages([{ groupId: groupA, after: 0n }]))
        expect([...read].map(sent)).toEqual(messages(groupA, 2))
      }))

    test("[48] what is of another group, or out of order, is malformed; a group without an id is not asked for", () =>
      Effect.gen(function* () {
        const group = yield* GroupMessages
        const faults = yield* Faults.Faults
        yield* group.sendGroupMessages([...messages(groupA, 3), ...messages(groupB, 1)])
        const bobs = create(GroupMessageSchema, {
          version: { case: "v1", value: { id: 99n, createdNs: 1n, groupId: groupB, data: Uint8Array.of(1) } }
        })
        const page = toBinary(
          QueryGroupMessagesResponseSchema,
          create(QueryGroupMessagesResponseSchema, { messages: [bobs] })
        )
        const { WrongAnswer } = Faults
        for (const answer of [WrongAnswer.Reversed(), WrongAnswer.Emptied(), WrongAnswer.Bytes({ bytes: page })]) {
          yield* faults.enqueue("queryGroupMessages", Faults.wrongAnswer(answer))
          expect(yield* Effect.flip(group.queryGroupMessages(groupA, { after: 0n }))).toMatchObject({
            operation: "queryGroupMessages",
            reason: "MalformedResponse"
          })
        }
        const bytes = toBinary(GroupMessageSchema, bobs)
        yield* faults.enqueue("subscribeGroupMessages", Faults.wrongAnswer(WrongAnswer.Bytes({ bytes })))
        const subscribe = (groupId: Uint8Array) =>
          Stream.runHead(group.subscribeGroupMessages([{ groupId, after: 0n }]))
        expect(yield* Effect.flip(subscribe(groupA))).toMatchObject({ reason: "MalformedResponse" })

        yield* faults.clearCalls
        const noGroup = new Uint8Array(0)
        expect(yield* Effect.flip(subscribe(noGroup))).toMatchObject({ reason: "InvalidRequest" })
        expect(yield* Effect.flip(group.queryGroupMessages(noGroup, { after: 0n }))).toMatchObject({
          reason: "InvalidRequest"
        })
        expect(yield* faults.calls).toEqual([])
        expect(Option.isSome(yield* subscribe(groupB))).toBe(true)
      }))
  })
}
