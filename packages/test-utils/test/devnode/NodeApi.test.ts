import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary
} from "@bufbuild/protobuf"
import { describe, expect, it } from "@effect/vitest"
import { IdentityApi } from "@keyward/network/gen/xmtp/identity/api/v1/identity_pb"
import { D14nMigrationApi } from "@keyward/network/gen/xmtp/migration/api/v1/migration_pb"
import {
  MlsApi,
  SortDirection,
  type WelcomeMessageInput_WelcomePointerSchema,
  type WelcomeMessageInputSchema,
  WelcomePointerWrapperAlgorithm,
  WelcomeWrapperAlgorithm
} from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import { layerNode } from "@keyward/test-utils/devnode/DevNode"
import { code, GrpcStatus } from "@keyward/test-utils/devnode/GrpcStatus"
import { NodeApi } from "@keyward/test-utils/devnode/NodeApi"
import { NodeState } from "@keyward/test-utils/devnode/NodeState"
import { type InboxMembers, NodeValidation } from "@keyward/test-utils/devnode/NodeValidation"
import * as Faults from "@keyward/test-utils/Faults"
import { sessionGroupMessages } from "@keyward/test-utils/vectors/GroupMessageVectors"
import { sessionIdentityUpdates, sessionLogs } from "@keyward/test-utils/vectors/IdentityVectors"
import { directedAt, directedKeyPackages, sessionKeyPackages } from "@keyward/test-utils/vectors/KeyPackageVectors"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"

const bytes = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"))
const hex = (value: Uint8Array): string => Buffer.from(value).toString("hex")

type Method<I extends DescMessage, O extends DescMessage> = DescMethod & { readonly input: I; readonly output: O }

const call = <I extends DescMessage, O extends DescMessage>(
  method: Method<I, O>,
  request: MessageInitShape<I>
): Effect.Effect<MessageShape<O>, { readonly _tag: string }, NodeApi> =>
  Effect.gen(function* () {
    const node = yield* NodeApi
    const path = `/${method.parent.typeName}/${method.name}`
    const response = yield* node.call(path, toBinary(method.input, create(method.input, request)), "memory")
    return fromBinary(method.output, response)
  })

/** The status that a call ends with. */
const refused = <A, R>(effect: Effect.Effect<A, { readonly _tag: string }, R>) =>
  Effect.flip(effect).pipe(
    Effect.map((error) => (error instanceof GrpcStatus ? { code: error.code, detail: error.detail } : error._tag))
  )

const upload = (keyPackage: Uint8Array) =>
  call(MlsApi.method.uploadKeyPackage, {
    keyPackage: { keyPackageTlsSerialized: keyPackage },
    isInboxIdCredential: true
  })

const publish = (identityUpdate: Uint8Array) => call(IdentityApi.method.publishIdentityUpdate, { identityUpdate })

const fetch = (installationKeys: ReadonlyArray<string>) =>
  Effect.map(call(MlsApi.method.fetchKeyPackages, { installationKeys: installationKeys.map(bytes) }), (response) =>
    response.keyPackages.map(({ keyPackageTlsSerialized }) => hex(keyPackageTlsSerialized))
  )

const session = sessionKeyPackages
const [first] = session
if (first === undefined) throw new Error("no vectors")

/** A judge that takes everything: the first 32 bytes of a package are its installation key. */
const gullible = Layer.sync(NodeValidation, () => {
  const inbox: InboxMembers = { addresses: new Set(), extend: () => Effect.succeed(inbox) }
  return {
    keyPackage: (keyPackage) => Effect.succeed(keyPackage.subarray(0, 32)),
    emptyInbox: inbox,
    smartContractWallet: ({ signature }) =>
      signature.length > 0 ? Effect.succeed(signature[0] === 1) : Effect.fail("no verifier")
  }
})

describe("NodeApi", () => {
  it.effect("knows every method of the v3 API, and none of the migration API", () =>
    Effect.gen(function* () {
      const node = yield* NodeApi
      for (const service of [MlsApi, IdentityApi]) {
        for (const method of service.methods) {
          const kind = method.methodKind === "unary" ? "unary" : "serverStreaming"
          expect([method.name, node.kindOf(`/${service.typeName}/${method.name}`)]).toEqual([method.name, kind])
        }
      }
      expect(yield* refused(call(D14nMigrationApi.method.fetchD14nCutover, {}))).toMatchObject({
        code: code.unimplemented
      })
    }).pipe(Effect.provide(layerNode()))
  )

  it.effect("serves the last package of each installation, filed by the key inside it, and keeps the history", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(session.at(-1)?.unixMs ?? 0)
      yield* Effect.forEach(session, (keyPackage) => upload(bytes(keyPackage.bytes)))
      const installations = [...new Set(session.map(({ installationId }) => installationId))]
      const last = installations.map((id) => session.findLast(({ installationId }) => installationId === id)?.bytes)
      expect(yield* fetch(installations)).toEqual(last)
      const { keyPackages } = yield* NodeState
      const history = yield* keyPackages.history(bytes(first.installationId))
      expect(history.map((stored) => hex(stored.bytes))).toEqual(
        session.filter(({ installationId }) => installationId === first.installationId).map((stored) => stored.bytes)
      )
    }).pipe(Effect.provide(layerNode()))
  )

  it.effect(
    "[48] leaves the slot of an unknown installation empty; of a key asked twice only the last one is filled",
    () =>
      Effect.gen(function* () {
        yield* TestClock.setTime(first.unixMs)
        yield* upload(bytes(first.bytes))
        const id = first.installationId
        expect(yield* fetch([id, "00".repeat(32), id, "00".repeat(32)])).toEqual(["", "", first.bytes, ""])
        expect(yield* fetch([])).toEqual([])
      }).pipe(Effect.provide(layerNode()))
  )

  it.effect("refuses what libxmtp refuses, in the words of a node, and stores nothing of it", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(directedAt)
      const { keyPackages } = yield* NodeState
      const bad = directedKeyPackages.filter(({ libxmtp }) => libxmtp !== "ok")
      expect(bad.length).toBeGreaterThan(20)
      for (const { bytes: wrong, name } of bad) {
        const status = yield* refused(upload(bytes(wrong)))
        expect([name, status]).toEqual([
          name,
          {
            code: code.invalidArgument,
            detail: expect.stringMatching(/^invalid identity: validation failed with error XMTP Key Package failed /)
          }
        ])
      }
      expect(yield* keyPackages.installations).toEqual([])
      expect(yield* refused(call(MlsApi.method.uploadKeyPackage, {}))).toEqual({
        code: code.invalidArgument,
        detail: "no key package"
      })
    }).pipe(Effect.provide(layerNode()))
  )

  it.effect("takes the native client's identity updates, finds inboxes by address, and serves the logs", () =>
    Effect.gen(function* () {
      yield* Effect.forEach(sessionIdentityUpdates, ({ identityUpdate }) => publish(bytes(identityUpdate)))

      const { responses } = yield* call(IdentityApi.method.getIdentityUpdates, {
        requests: [...sessionLogs.map(({ inboxId }) => ({ inboxId })), { inboxId: "ab".repeat(32) }]
      })
      expect(
        responses.map(({ inboxId, updates }) => ({ inboxId, updates: updates.map(({ update }) => hex(update)) }))
      ).toEqual([
        ...sessionLogs.map(({ entries, inboxId }) => ({
          inboxId,
          updates: entries.map(({ identityUpdate }) => identityUpdate)
        })),
        { inboxId: "ab".repeat(32), updates: [] }
      ])
      const ids = responses.flatMap(({ updates }) => updates.map(({ sequenceId }) => sequenceId))
      expect(ids.toSorted((a, b) => Number(a - b))).toEqual(ids.map((_, index) => BigInt(index + 1)))

      const { updates = [] } = responses[0] ?? {}
      const inboxId = sessionLogs[0]?.inboxId ?? ""
      const later = yield* call(IdentityApi.method.getIdentityUpdates, {
        requests: [{ inboxId, sequenceId: updates[1]?.sequenceId ?? 0n }]
      })
      expect(later.responses[0]?.updates).toEqual(updates.slice(2))
    }).pipe(Effect.provide(layerNode()))
  )

  it.effect("[50] refuses an update that breaks the rules and leaves the log as it was", () =>
    Effect.gen(function* () {
      const update = bytes(sessionIdentityUpdates[0]?.identityUpdate ?? "")
      const inboxId = sessionIdentityUpdates[0]?.inboxId ?? ""
      yield* publish(update)
      expect(yield* refused(publish(update))).toMatchObject({ code: code.invalidArgument })
      const { responses } = yield* call(IdentityApi.method.getIdentityUpdates, { requests: [{ inboxId }] })
      expect(responses[0]?.updates).toHaveLength(1)
      expect(yield* refused(publish(Uint8Array.of(0x0a, 0xff)))).toMatchObject({ code: code.internal })
      expect(yield* refused(call(IdentityApi.method.publishIdentityUpdate, {}))).toEqual({
        code: code.unknown,
        detail: "IdentityUpdate is required"
      })
      expect(
        yield* refused(call(IdentityApi.method.getIdentityUpdates, { requests: [{ inboxId: "not hex" }] }))
      ).toMatchObject({ code: code.unknown })
    }).pipe(Effect.provide(layerNode()))
  )

  it.effect("the 257th update of an inbox finds the log full; other inboxes are not concerned", () =>
    Effect.gen(function* () {
      // IdentityUpdate { inbox_id = 3 }
      const update = (inboxId: string) => Uint8Array.of(0x1a, 2, ...new TextEncoder().encode(inboxId))
      yield* Effect.forEach(Array.from({ length: 256 }), () => publish(update("aa")))
      expect(yield* refused(publish(update("aa")))).toEqual({ code: code.unknown, detail: "inbox log is full" })
      yield* publish(update("bb"))
      const { responses } = yield* call(IdentityApi.method.getIdentityUpdates, {
        requests: [{ inboxId: "aa" }, { inboxId: "bb" }]
      })
      expect(responses.map(({ updates }) => updates.length)).toEqual([256, 1])
    }).pipe(Effect.provide(layerNode(gullible)))
  )

  it.effect("an inbox that is asked twice gets the rows of both questions in both places, as a real node has it", () =>
    Effect.gen(function* () {
      const update = Uint8Array.of(0x1a, 2, 0x61, 0x61)
      yield* publish(update)
      yield* publish(update)
      const { responses } = yield* call(IdentityApi.method.getIdentityUpdates, {
        requests: [{ inboxId: "aa" }, { inboxId: "aa", sequenceId: 1n }]
      })
      const ids = responses.map(({ updates }) => updates.map(({ sequenceId }) => sequenceId))
      expect(ids).toEqual([
        [1n, 2n, 2n],
        [1n, 2n, 2n]
      ])
    }).pipe(Effect.provide(layerNode(gullible)))
  )

  it.effect("an address leads to the inbox that it joined last, and to none once it is revoked everywhere", () =>
    Effect.gen(function* () {
      // The update's other bytes say who is a member afterwards: field 15 as text, comma-separated.
      const update = (inboxId: string, members: string) =>
        Uint8Array.of(
          0x1a,
          2,
          ...new TextEncoder().encode(inboxId),
          0x7a,
          members.length,
          ...new TextEncoder().encode(members)
        )
      const inboxOf = (identifier: string) =>
        Effect.map(call(IdentityApi.method.getInboxIds, { requests: [{ identifier }] }), (found) => found.responses[0])

      yield* publish(update("aa", "0x1,0x2"))
      yield* publish(update("bb", "0x2"))
      expect(yield* inboxOf("0x1")).toMatchObject({ identifier: "0x1", inboxId: "aa" })
      expect((yield* inboxOf("0x2"))?.inboxId).toBe("bb")
      yield* publish(update("bb", "0x3"))
      expect((yield* inboxOf("0x2"))?.inboxId).toBe("aa")
      yield* publish(update("aa", "0x1"))
      expect((yield* inboxOf("0x2"))?.inboxId).toBeUndefined()
      expect((yield* inboxOf("0X1"))?.inboxId).toBeUndefined()
    }).pipe(
      Effect.provide(
        layerNode(
          Layer.sync(NodeValidation, () => {
            const inbox = (addresses: ReadonlySet<string>): InboxMembers => ({
              addresses,
              extend: (update) =>
                Effect.succeed(inbox(new Set(new TextDecoder().decode(update.subarray(6)).split(","))))
            })
            return {
              keyPackage: () => Effect.fail("no"),
              emptyInbox: inbox(new Set()),
              smartContractWallet: () => Effect.succeed(false)
            }
          })
        )
      )
    )
  )

  it.effect("files group messages by group, once each, and marks commits", () =>
    Effect.gen(function* () {
      const messages = sessionGroupMessages.map(({ data }) => ({
        version: { case: "v1" as const, value: { data: bytes(data), shouldPush: true } }
      }))
      yield* call(MlsApi.method.sendGroupMessages, { messages })
      yield* call(MlsApi.method.sendGroupMessages, { messages })
      for (const groupId of new Set(sessionGroupMessages.map((message) => message.groupId))) {
        const expected = sessionGroupMessages.filter((message) => message.groupId === groupId)
        const { messages: served } = yield* call(MlsApi.method.queryGroupMessages, {
          groupId: bytes(groupId),
          pagingInfo: { direction: SortDirection.ASCENDING }
        })
        expect(
          served.map(({ version }) => (version.case === "v1" ? [hex(version.value.data), version.value.isCommit] : []))
        ).toEqual(expected.map(({ data, isCommit }) => [data, isCommit]))
        const { responses } = yield* call(MlsApi.method.getNewestGroupMessage, {
          groupIds: [bytes("00"), bytes(groupId)],
          includeContent: true
        })
        expect(responses[0]?.groupMessage).toBeUndefined()
        expect(responses[1]?.groupMessage).toEqual(served.at(-1))
      }
      expect(yield* refused(call(MlsApi.method.sendGroupMessages, {}))).toEqual({
        code: code.invalidArgument,
        detail: "no group messages to send"
      })
      expect(yield* refused(call(MlsApi.method.queryGroupMessages, {}))).toEqual({
        code: code.unknown,
        detail: "group is required"
      })
    }).pipe(Effect.provide(layerNode(gullible)))
  )

  it.effect(
    "keeps Welcomes and pointers per installation; a Welcome without a key only where it is sealed symmetrically",
    () =>
      Effect.gen(function* () {
        const installationKey = bytes("0b".repeat(32))
        const v1 = {
          installationKey,
          data: bytes("01"),
          hpkePublicKey: bytes("02"),
          welcomeMetadata: bytes("03"),
          wrapperAlgorithm: WelcomeWrapperAlgorithm.XWING_MLKEM_768_DRAFT_6
        }
        const pointer: MessageInitShape<typeof WelcomeMessageInput_WelcomePointerSchema> = {
          installationKey,
          welcomePointer: bytes("04"),
          hpkePublicKey: bytes("05"),
          wrapperAlgorithm: 2
        }
        const send = (...messages: Array<MessageInitShape<typeof WelcomeMessageInputSchema>>) =>
          call(MlsApi.method.sendWelcomeMessages, { messages })

        yield* send({ version: { case: "v1", value: v1 } }, { version: { case: "welcomePointer", value: pointer } })
        yield* send({ version: { case: "v1", value: v1 } })
        const { messages } = yield* call(MlsApi.method.queryWelcomeMessages, {
          installationKey,
          pagingInfo: { direction: SortDirection.ASCENDING }
        })
        expect(messages.map(({ version }) => version)).toMatchObject([
          { case: "v1", value: { id: 1n, ...v1 } },
          { case: "welcomePointer", value: { id: 2n, ...pointer } }
        ])

        const keyless = { ...v1, hpkePublicKey: new Uint8Array(0) }
        const { SYMMETRIC_KEY } = WelcomeWrapperAlgorithm
        yield* send({
          version: { case: "v1", value: { ...keyless, data: bytes("06"), wrapperAlgorithm: SYMMETRIC_KEY } }
        })
        const wrong = [
          { version: { case: "v1" as const, value: keyless } },
          { version: { case: "v1" as const, value: { ...v1, data: new Uint8Array(0) } } },
          {
            version: {
              case: "welcomePointer" as const,
              value: { ...pointer, wrapperAlgorithm: WelcomePointerWrapperAlgorithm.UNSPECIFIED }
            }
          },
          {}
        ]
        for (const message of wrong) {
          expect(yield* refused(send(message))).toMatchObject({ code: code.invalidArgument })
        }
      }).pipe(Effect.provide(layerNode(gullible)))
  )

  for (const acceptsCurve25519Pointers of [undefined, false, true]) {
    const title = acceptsCurve25519Pointers
      ? "told to, takes pointers by Curve25519 beside those by X-Wing, and no others"
      : `takes pointers by X-Wing alone, as real nodes do (${acceptsCurve25519Pointers})`
    it.effect(title, () =>
      Effect.gen(function* () {
        const installationKey = bytes("0b".repeat(32))
        let sent = 0
        const pointer = (wrapperAlgorithm: WelcomePointerWrapperAlgorithm) => ({
          version: {
            case: "welcomePointer" as const,
            // Each is another: a node files the same bytes once.
            value: {
              installationKey,
              welcomePointer: Uint8Array.of(sent++),
              hpkePublicKey: bytes("05"),
              wrapperAlgorithm
            }
          }
        })
        const filed: Array<number> = []
        for (const algorithm of [0, 1, 2, 3, 4]) {
          // One that is refused takes the whole request with it.
          const messages = [2, algorithm].map((number) => pointer(number as WelcomePointerWrapperAlgorithm))
          const send = call(MlsApi.method.sendWelcomeMessages, { messages })
          if (algorithm === 2 || (algorithm === 1 && acceptsCurve25519Pointers)) {
            yield* send
            filed.push(2, algorithm)
          } else {
            const because = "invalid welcome pointer wrapper algorithm"
            expect(yield* refused(send)).toEqual({
              code: code.invalidArgument,
              detail: `${because}: ${because} ${algorithm}`
            })
          }
        }
        const { messages } = yield* call(MlsApi.method.queryWelcomeMessages, {
          installationKey,
          pagingInfo: { direction: SortDirection.ASCENDING }
        })
        expect(
          messages.map(({ version }) => version.case === "welcomePointer" && version.value.wrapperAlgorithm)
        ).toEqual(filed)
      }).pipe(Effect.provide(layerNode(gullible, { acceptsCurve25519Pointers })))
    )
  }

  it.effect("appends to commit logs in order, in batches of at most 10, and reads at most 20 of them", () =>
    Effect.gen(function* () {
      const groupId = bytes("aa")
      const entry = (value: string) => ({ groupId, serializedCommitLogEntry: bytes(value), signature: bytes("01") })
      yield* call(MlsApi.method.batchPublishCommitLog, { requests: [entry("01"), entry("02"), entry("01")] })
      const { responses } = yield* call(MlsApi.method.batchQueryCommitLog, {
        requests: [{ groupId, pagingInfo: { idCursor: 1n } }]
      })
      expect(
        responses[0]?.commitLogEntries.map(({ sequenceId, serializedCommitLogEntry }) => [
          sequenceId,
          hex(serializedCommitLogEntry)
        ])
      ).toEqual([
        [2n, "02"],
        [3n, "01"]
      ])
      const eleven = Array.from({ length: 11 }, () => entry("03"))
      expect(yield* refused(call(MlsApi.method.batchPublishCommitLog, { requests: eleven }))).toMatchObject({
        code: code.invalidArgument
      })
      const many = Array.from({ length: 21 }, () => ({ groupId }))
      expect(yield* refused(call(MlsApi.method.batchQueryCommitLog, { requests: many }))).toMatchObject({
        code: code.invalidArgument
      })
    }).pipe(Effect.provide(layerNode(gullible)))
  )

  it.effect("verifies smart contract wallets one by one: one that cannot be asked does not spoil the others", () =>
    Effect.gen(function* () {
      const { responses } = yield* call(IdentityApi.method.verifySmartContractWalletSignatures, {
        signatures: [{ signature: bytes("01"), blockNumber: 5n }, { signature: bytes("02") }, {}]
      })
      expect(responses).toMatchObject([
        { isValid: true, blockNumber: 5n },
        { isValid: false },
        { isValid: false, error: "no verifier" }
      ])
    }).pipe(Effect.provide(layerNode(gullible)))
  )

  it.effect("after the move to d14n takes no writes and ends the streams, and still answers reads", () =>
    Effect.gen(function* () {
      const node = yield* NodeApi
      const state = yield* NodeState
      yield* upload(bytes("0b".repeat(40)))
      const path = `/${MlsApi.typeName}/SubscribeWelcomeMessages`
      const filter = toBinary(
        MlsApi.method.subscribeWelcomeMessages.input,
        create(MlsApi.method.subscribeWelcomeMessages.input, { filters: [{ installationKey: bytes("0b".repeat(32)) }] })
      )
      const stream = yield* node.open(path, filter, "memory").pipe(Stream.runDrain, Effect.flip, Effect.fork)
      yield* Effect.yieldNow()
      yield* state.migrate
      expect(yield* Fiber.join(stream)).toMatchObject({
        code: code.unavailable,
        detail: expect.stringContaining("V3 streaming")
      })
      expect(yield* refused(upload(bytes("0b".repeat(40))))).toMatchObject({ code: code.unavailable })
      expect(yield* refused(publish(Uint8Array.of(0x1a, 2, 0x61, 0x61)))).toMatchObject({ code: code.unavailable })
      expect(yield* fetch(["0b".repeat(32)])).toEqual(["0b".repeat(40)])
    }).pipe(Effect.provide(layerNode(gullible)))
  )

  it.effect("records every call: method, bytes, times, what it met and how it ended", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      yield* faults.enqueue("uploadKeyPackage", Faults.delay("3 seconds"), Faults.failAfterAccept())
      const fiber = yield* Effect.fork(upload(bytes("0b".repeat(40))))
      yield* TestClock.adjust("3 seconds")
      yield* Fiber.join(fiber)
      yield* Effect.flip(upload(bytes("0b".repeat(40))))
      yield* fetch(["0b".repeat(32)])
      const [slow, lost, read] = yield* faults.calls
      expect(slow).toMatchObject({
        method: "uploadKeyPackage",
        via: "memory",
        at: 0,
        endedAt: 3000,
        outcome: { code: 0 }
      })
      expect(lost).toMatchObject({ at: 3000, outcome: { code: code.unavailable } })
      expect(lost?.fault).toEqual(Option.some(Faults.failAfterAccept()))
      expect(read).toMatchObject({ method: "fetchKeyPackages", outcome: { code: 0, responseBytes: 44 } })
      expect(slow?.request).toEqual(lost?.request)
    }).pipe(Effect.provide(layerNode(gullible)))
  )
})
