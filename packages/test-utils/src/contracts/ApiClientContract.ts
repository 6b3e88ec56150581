/**
 * What every layer of the API port must do. A new one runs this suite from its own tests, against a node that is scripted
 * to fail: in memory, or over a real wire.
 *
 * @since 1.0.0
 */
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf"
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire"
import { describe, expect, it } from "@effect/vitest"
import * as Identifier from "@keyward/core/identity/Identifier"
import { InboxId } from "@keyward/core/identity/InboxId"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import {
  ApiClient,
  ApiClientError,
  defaultTimeout,
  limits,
  type Operation,
  type Reason,
  type WelcomeMessageEntry,
  type WelcomeMessageInput
} from "@keyward/core/ports/ApiClient"
import {
  GetIdentityUpdatesRequestSchema,
  GetInboxIdsRequestSchema
} from "@keyward/network/gen/xmtp/identity/api/v1/identity_pb"
import {
  FetchKeyPackagesRequestSchema,
  QueryWelcomeMessagesResponseSchema,
  SendWelcomeMessagesRequestSchema,
  UploadKeyPackageRequestSchema,
  type WelcomeMessage_V1Schema,
  WelcomeMessageSchema
} from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import type * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import * as TestServices from "effect/TestServices"
import * as Arbitraries from "../Arbitraries.ts"
import { GrpcStatus } from "../devnode/GrpcStatus.ts"
import { publishingMoved } from "../devnode/NodeState.ts"
import * as Faults from "../Faults.ts"
import { sessionClients, sessionIdentityUpdates } from "../vectors/IdentityVectors.ts"
import { sessionKeyPackages } from "../vectors/KeyPackageVectors.ts"

/** When every test begins, milliseconds since 1970: the vectors' packages are valid. */
const T0 = 1_795_420_940_000

const bytesOf = (hex: string): Uint8Array => Either.getOrThrow(Encoding.decodeHex(hex))

/** Comparing text is much faster than comparing bytes. */
const hexOf = (bytes: Option.Option<Uint8Array>): string | null =>
  Option.getOrNull(Option.map(bytes, Encoding.encodeHex))

/** A package of the vectors, and the installation that made it. */
const packageAt = (index: number) => {
  const vector = sessionKeyPackages[index]
  if (vector === undefined) throw new Error(`no vector ${index}`)
  const id = InstallationId.make(vector.installationId)
  return { id, key: bytesOf(id), bytes: bytesOf(vector.bytes) }
}

/** Five installations; 5 is the next package of 1. */
const [alice1, bob, carol] = [packageAt(0), packageAt(1), packageAt(2)]
const bobRotated = packageAt(5)

const updates = sessionIdentityUpdates.map(({ identityUpdate }) => bytesOf(identityUpdate))
const updatesOf = (inboxId: string) => updates.filter((_, index) => sessionIdentityUpdates[index]?.inboxId === inboxId)

const client = (name: string) => {
  const found = sessionClients.find((candidate) => candidate.name === name)
  if (found === undefined) throw new Error(`no client ${name}`)
  return { inboxId: InboxId.make(found.inboxId), identifier: Identifier.ethereum(found.address) }
}
const alice = client("alice1")

/** The same random values in every run. */
const sample = <A>(arbitrary: FastCheck.Arbitrary<A>, count: number, seed: number): ReadonlyArray<A> =>
  FastCheck.sample(arbitrary, { numRuns: count, seed })

const strangers = (count: number) => sample(Arbitraries.installationId, count, 1)
const emptyInboxes = (count: number) => sample(Arbitraries.inboxId, count, 2)

const publishAll = Effect.flatMap(ApiClient, (api) => Effect.forEach(updates, api.publishIdentityUpdate))

/** Waits in real time, as the node may be behind a real wire, until the node says so. */
const eventually = <A, E, R>(check: Effect.Effect<Option.Option<A>, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(
    check,
    Option.match({
      onSome: Effect.succeed,
      onNone: () =>
        Effect.zipRight(
          TestServices.provideLive(Effect.sleep("1 millis")),
          Effect.suspend(() => eventually(check))
        )
    })
  )

const arrived = (operation: Operation) =>
  Effect.flatMap(Faults.Faults, (faults) =>
    eventually(Effect.map(faults.callsOf(operation), (calls) => Option.fromNullable(calls[0])))
  )

const filled = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, index) => (seed + 31 * index) % 256)

/** A Welcome of this number; every byte of it says so. */
const welcome = (topic: Uint8Array, seed: number) => ({
  _tag: "Welcome" as const,
  installationKey: topic,
  data: filled(40 + (seed % 7), seed),
  hpkePublicKey: filled(32, seed + 1),
  wrapperAlgorithm: 1 + (seed % 2),
  welcomeMetadata: seed % 3 === 0 ? new Uint8Array(0) : filled(18, seed + 2)
})

const pointer = (topic: Uint8Array, seed: number) => ({
  _tag: "WelcomePointer" as const,
  installationKey: topic,
  welcomePointer: filled(50 + (seed % 7), seed),
  hpkePublicKey: filled(1_216, seed + 1),
  wrapperAlgorithm: 2
})

/** Entries for this topic, of both kinds. */
const invitations = (topic: Uint8Array, count: number, first = 0): ReadonlyArray<WelcomeMessageInput> =>
  Array.from({ length: count }, (_, index) => (index % 4 === 3 ? pointer : welcome)(topic, first + index))

/** What was sent, of what is served. */
const sent = (entry: WelcomeMessageEntry): unknown => {
  if (entry._tag === "Unknown") return entry
  const { createdNs, id, ...input } = entry
  expect(createdNs).toBe(BigInt(T0) * 1_000_000n)
  expect(id > 0n).toBe(true)
  return input
}

const idsOf = (entries: ReadonlyArray<WelcomeMessageEntry>): ReadonlyArray<bigint> =>
  entries.map(({ id }) => (typeof id === "bigint" ? id : Option.getOrThrow(id)))

/** All entries of a topic, page by page, and how long each page was. */
const readAll = (topic: InstallationId | Uint8Array, after: bigint, limit?: number) =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const entries: Array<WelcomeMessageEntry> = []
    const pages: Array<number> = []
    let cursor = after
    for (let hasMore = true; hasMore; ) {
      const page = yield* api.queryWelcomeMessages(topic, { after: cursor, limit })
      entries.push(...page.entries)
      pages.push(page.entries.length)
      expect(page.cursor).toBe(page.entries.length === 0 ? cursor : (idsOf(page.entries).at(-1) ?? 0n))
      cursor = page.cursor
      hasMore = page.hasMore
    }
    return { entries, pages }
  })

/** A response message with these entries, in field 1 each. */
const answerOf = (...entries: ReadonlyArray<Uint8Array>): Faults.Fault => {
  const writer = new BinaryWriter()
  for (const entry of entries) writer.tag(1, WireType.LengthDelimited).bytes(entry)
  return Faults.wrongAnswer(Faults.WrongAnswer.Bytes({ bytes: writer.finish() }))
}

/** What a node would answer to someone who asks for the topic from this cursor. */
const servedTo = (topic: Uint8Array, after: bigint, count = 4) =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    yield* api.sendWelcomeMessages(invitations(topic, count))
    const { entries } = yield* api.queryWelcomeMessages(topic, { after })
    const messages = entries.flatMap((entry) => {
      if (entry._tag !== "Welcome") return []
      const { _tag, ...value } = entry
      return [{ version: { case: "v1" as const, value: value as MessageInitShape<typeof WelcomeMessage_V1Schema> } }]
    })
    return toBinary(QueryWelcomeMessagesResponseSchema, create(QueryWelcomeMessagesResponseSchema, { messages }))
  })

/** A Welcome message of a kind that nobody knows yet. */
const newerKind = (head: { readonly id: number; readonly topic: Uint8Array } | undefined): Uint8Array => {
  const value = new BinaryWriter()
  if (head !== undefined) {
    value.tag(1, WireType.Varint).uint64(head.id).tag(2, WireType.Varint).uint64(5)
    value.tag(3, WireType.LengthDelimited).bytes(head.topic)
  }
  value.tag(77, WireType.LengthDelimited).bytes(Uint8Array.of(1, 2, 3))
  return new BinaryWriter().tag(9, WireType.LengthDelimited).bytes(value.finish()).finish()
}

/** Waits until the node has noticed that its caller of this operation is gone. */
const interruptedAt = (operation: Operation) =>
  Effect.flatMap(Faults.Faults, (faults) =>
    eventually(
      Effect.map(faults.callsOf(operation), (calls) =>
        calls[0]?.outcome._tag === "Interrupted" ? Option.some(calls[0]) : Option.none()
      )
    )
  )

/** The smallest call of each operation that a node answers. */
const smallest: ReadonlyArray<
  readonly [Operation, (api: Context.Tag.Service<ApiClient>) => Effect.Effect<unknown, ApiClientError>]
> = [
  ["uploadKeyPackage", (api) => api.uploadKeyPackage(alice1.bytes)],
  ["fetchKeyPackages", (api) => api.fetchKeyPackages([alice1.id])],
  ["publishIdentityUpdate", (api) => api.publishIdentityUpdate(updates[0] ?? new Uint8Array(0))],
  ["getIdentityUpdates", (api) => api.getIdentityUpdates([{ inboxId: alice.inboxId, after: 0n }])],
  ["getInboxIds", (api) => api.getInboxIds([alice.identifier])],
  ["queryWelcomeMessages", (api) => api.queryWelcomeMessages(alice1.id, { after: 0n })],
  ["sendWelcomeMessages", (api) => api.sendWelcomeMessages(invitations(alice1.key, 1))]
]

/**
 * Declares the suite. The layer is built anew for every test, with a node that knows nothing yet, and whose script of
 * faults the suite writes.
 *
 * @since 1.0.0
 * @category contracts
 */
export const suite = <E>(name: string, layer: Layer.Layer<ApiClient | Faults.Faults, E>): void => {
  const test = <A, E2>(title: string, body: () => Effect.Effect<A, E2, ApiClient | Faults.Faults>) =>
    it.effect(title, () =>
      TestClock.setTime(T0).pipe(
        Effect.zipRight(Effect.provide(Effect.suspend(body), Layer.fresh(layer))),
        Effect.scoped
      )
    )

  describe(`${name} keeps the contract of ApiClient:`, () => {
    describe("key packages", () => {
      test("an uploaded package is served, byte for byte", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          yield* api.uploadKeyPackage(alice1.bytes)
          const [served] = yield* api.fetchKeyPackages([alice1.id])
          expect(served).toEqual(Option.some(alice1.bytes))
        }))

      test("says that the credential is an inbox id", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          yield* api.uploadKeyPackage(alice1.bytes)
          const { request } = yield* arrived("uploadKeyPackage")
          expect(fromBinary(UploadKeyPackageRequestSchema, request).isInboxIdCredential).toBe(true)
        }))

      test("[24] the last one wins, and the same one twice is no failure", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          yield* api.uploadKeyPackage(bob.bytes)
          yield* api.uploadKeyPackage(bobRotated.bytes)
          yield* api.uploadKeyPackage(bobRotated.bytes)
          expect(yield* api.fetchKeyPackages([bob.id])).toEqual([Option.some(bobRotated.bytes)])
          yield* api.uploadKeyPackage(bob.bytes)
          expect(yield* api.fetchKeyPackages([bob.id])).toEqual([Option.some(bob.bytes)])
        }))

      test("an installation without a package is none, and no one asked is no request", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          expect(yield* api.fetchKeyPackages([alice1.id])).toEqual([Option.none()])
          yield* faults.clearCalls
          expect(yield* api.fetchKeyPackages([])).toEqual([])
          expect(yield* api.getIdentityUpdates([])).toEqual([])
          expect(yield* api.getInboxIds([])).toEqual([])
          expect(yield* faults.calls).toEqual([])
        }))

      test("[48] whatever list of ids is asked, each place has its answer, duplicates too", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const known = [alice1, bob, carol]
          yield* Effect.forEach(known, ({ bytes }) => api.uploadKeyPackage(bytes))
          const served = new Map(known.map(({ bytes, id }) => [id, bytes]))
          const pool = [...served.keys(), ...strangers(3)]
          const lists = sample(FastCheck.array(FastCheck.constantFrom(...pool), { maxLength: 12 }), 50, 3)
          yield* Effect.forEach(lists, (ids) =>
            Effect.map(api.fetchKeyPackages(ids), (answers) =>
              expect(answers.map(hexOf)).toEqual(ids.map((id) => hexOf(Option.fromNullable(served.get(id)))))
            )
          )
        }))

      test("thousands of ids are asked once each, a thousand at a time, and answered in order", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* Effect.forEach([alice1, bob, carol], ({ bytes }) => api.uploadKeyPackage(bytes))
          const ids = [alice1.id, ...strangers(998), bob.id, ...strangers(2_500).slice(998), carol.id, alice1.id]
          const answers = yield* api.fetchKeyPackages(ids)
          const found = answers.flatMap((answer, index) =>
            Option.isSome(answer) ? [[index, answer.value] as const] : []
          )
          expect(answers.length).toBe(ids.length)
          expect(found).toEqual([
            [0, alice1.bytes],
            [999, bob.bytes],
            [2_502, carol.bytes],
            [2_503, alice1.bytes]
          ])

          const asked = (yield* faults.callsOf("fetchKeyPackages")).map(
            ({ request }) => fromBinary(FetchKeyPackagesRequestSchema, request).installationKeys
          )
          expect(asked.map(({ length }) => length).sort((one, other) => other - one)).toEqual([1_000, 1_000, 503])
          expect(new Set(asked.flat().map(Encoding.encodeHex)).size).toBe(2_503)
          expect(limits.keyPackagesPerRequest).toBe(1_000)
        }))

      test("[27] an invalid package is refused, and trying again is not suggested", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const broken = alice1.bytes.slice()
          broken[broken.length - 1] = (broken[broken.length - 1] ?? 0) ^ 1
          const error = yield* Effect.flip(api.uploadKeyPackage(broken))
          expect(error).toMatchObject({ operation: "uploadKeyPackage", reason: "InvalidRequest", grpcCode: 3 })
          expect(error.isRetryable).toBe(false)
          expect(error.detail).toBeTypeOf("string")
          expect(yield* api.fetchKeyPackages([alice1.id])).toEqual([Option.none()])
        }))

      test("what is larger than a message may be is not sent", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          const huge = new Uint8Array(limits.messageBytes)
          expect(yield* Effect.flip(api.uploadKeyPackage(huge))).toMatchObject({
            operation: "uploadKeyPackage",
            reason: "RequestTooLarge",
            isRetryable: false
          })
          expect(yield* Effect.flip(api.publishIdentityUpdate(huge))).toMatchObject({ reason: "RequestTooLarge" })
          expect(yield* faults.calls).toEqual([])
        }))
    })

    describe("identity", () => {
      test("the log of an inbox comes back in order, byte for byte, with increasing ids and the node's time", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          yield* publishAll
          const [log = []] = yield* api.getIdentityUpdates([{ inboxId: alice.inboxId, after: 0n }])
          expect(log.map(({ update }) => update)).toEqual(updatesOf(alice.inboxId))
          expect(log.length).toBe(5)
          log.reduce((last, { sequenceId }) => {
            expect(sequenceId > last).toBe(true)
            return sequenceId
          }, 0n)
          expect(log.every(({ serverTimestampNs }) => serverTimestampNs === BigInt(T0) * 1_000_000n)).toBe(true)
        }))

      test("only what comes after the cursor is read, also of one inbox from several cursors", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          yield* publishAll
          const { inboxId } = alice
          const read = (after: bigint) => Effect.map(api.getIdentityUpdates([{ inboxId, after }]), ([log = []]) => log)
          const log = yield* read(0n)
          const second = log[1]?.sequenceId ?? 0n
          const last = log[4]?.sequenceId ?? 0n
          expect(yield* read(second)).toEqual(log.slice(2))
          expect(yield* read(last)).toEqual([])
          expect(yield* api.getIdentityUpdates([last, 0n, second].map((after) => ({ inboxId, after })))).toEqual([
            [],
            log,
            log.slice(2)
          ])
        }))

      test("hundreds of inboxes are asked once each, fifty at a time, and answered in order", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* publishAll
          const [founder, other] = [client("bob").inboxId, client("carol").inboxId]
          const inboxIds = [founder, ...emptyInboxes(48), other, ...emptyInboxes(120).slice(48), alice.inboxId, founder]
          const logs = yield* api.getIdentityUpdates(inboxIds.map((inboxId) => ({ inboxId, after: 0n })))
          expect(logs.map((log) => log.map(({ update }) => update))).toEqual(inboxIds.map(updatesOf))

          const asked = (yield* faults.callsOf("getIdentityUpdates")).map(({ request }) =>
            fromBinary(GetIdentityUpdatesRequestSchema, request).requests.map(({ inboxId }) => inboxId)
          )
          expect(asked.map(({ length }) => length).sort((one, another) => another - one)).toEqual([50, 50, 23])
          expect(new Set(asked.flat()).size).toBe(123)
        }))

      test("the inbox of each identifier, in the order asked", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* publishAll
          const unknown = Identifier.ethereum("0x00000000000000000000000000000000000000aa")
          const passkey: Identifier.Identifier = { _tag: "Passkey", publicKey: "02".repeat(33) }
          const { identifier: bobs, inboxId: bobsInbox } = client("bob")
          expect(yield* api.getInboxIds([unknown, bobs, alice.identifier, passkey, bobs])).toEqual([
            Option.none(),
            Option.some(bobsInbox),
            Option.some(alice.inboxId),
            Option.none(),
            Option.some(bobsInbox)
          ])
          const asked = (yield* faults.callsOf("getInboxIds")).flatMap(
            ({ request }) => fromBinary(GetInboxIdsRequestSchema, request).requests
          )
          expect(asked.length).toBe(4)
          expect(asked.every(({ identifier }) => identifier === identifier.toLowerCase())).toBe(true)
        }))

      test("an identity update that is none is refused", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const [first = new Uint8Array(0)] = updates
          const broken = first.slice()
          broken[broken.length - 1] = (broken[broken.length - 1] ?? 0) ^ 1
          expect((yield* Effect.flip(api.publishIdentityUpdate(broken))).operation).toBe("publishIdentityUpdate")
          expect(yield* api.getIdentityUpdates([{ inboxId: alice.inboxId, after: 0n }])).toEqual([[]])
        }))
    })

    const statuses: ReadonlyArray<readonly [GrpcStatus, Reason, boolean]> = [
      [new GrpcStatus({ code: 2, detail: "store error" }), "Internal", true],
      [new GrpcStatus({ code: 3, detail: "no key package" }), "InvalidRequest", false],
      [new GrpcStatus({ code: 4, detail: "store timed out" }), "Internal", true],
      [new GrpcStatus({ code: 7, detail: "blocked" }), "PermissionDenied", false],
      [new GrpcStatus({ code: 8, detail: "rate limit exceeded" }), "RateLimited", true],
      [new GrpcStatus({ code: 12, detail: "unsupported libxmtp version" }), "UnsupportedClient", false],
      [new GrpcStatus({ code: 13, detail: "store error" }), "Internal", true],
      [new GrpcStatus({ code: 14, detail: "try later" }), "Unavailable", true],
      [publishingMoved, "MigratedToD14n", false]
    ]

    describe("Welcomes", () => {
      test("both kinds come back byte for byte, with increasing ids and the node's time", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const mine = invitations(alice1.key, 9)
          yield* api.sendWelcomeMessages([...mine, ...invitations(bob.key, 2, 50)])
          const page = yield* api.queryWelcomeMessages(alice1.id, { after: 0n })
          expect(page.entries.map(sent)).toEqual(mine)
          const ids = idsOf(page.entries)
          expect(ids).toEqual(ids.toSorted((one, other) => (one < other ? -1 : 1)))
          expect(new Set(ids).size).toBe(9)
          expect({ cursor: page.cursor, hasMore: page.hasMore }).toEqual({ cursor: ids.at(-1), hasMore: false })
          expect((yield* api.queryWelcomeMessages(bob.key, { after: 0n })).entries.map(sent)).toEqual(
            invitations(bob.key, 2, 50)
          )
        }))

      test("the Welcome that pointers point at is read by its own topic, of any length", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const topics = [16, 32, 33].map((length) => filled(length, 200))
          const shared = topics.map((topic, index) => ({
            ...welcome(topic, index),
            hpkePublicKey: new Uint8Array(0),
            wrapperAlgorithm: 3
          }))
          yield* api.sendWelcomeMessages(shared)
          yield* Effect.forEach(topics, (topic, index) =>
            Effect.map(api.queryWelcomeMessages(topic, { after: 0n }), ({ entries }) =>
              expect(entries.map(sent)).toEqual([shared[index]])
            )
          )
        }))

      test("pages of any size, from any cursor, hold every entry once and in order", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          yield* Effect.forEach(
            [0, 1, 2],
            (round) =>
              Effect.zipRight(
                api.sendWelcomeMessages(invitations(alice1.key, 11, 20 * round)),
                api.sendWelcomeMessages(invitations(bob.key, 5, 20 * round))
              ),
            { discard: true }
          )
          const { entries } = yield* readAll(alice1.id, 0n)
          expect(entries.length).toBe(33)
          const ids = idsOf(entries)
          yield* Effect.forEach([1, 2, 10, 11, 32, 33, 34], (limit) =>
            Effect.map(readAll(alice1.id, 0n, limit), (all) => {
              expect(idsOf(all.entries)).toEqual(ids)
              expect(all.pages.slice(0, -1).every((length) => length === limit)).toBe(true)
            })
          )
          yield* Effect.forEach(ids.keys(), (index) =>
            Effect.map(readAll(alice1.id, ids[index] ?? 0n, 7), (rest) =>
              expect(idsOf(rest.entries)).toEqual(ids.slice(index + 1))
            )
          )
        }))

      test("a page has a hundred entries at most, and as many unless asked otherwise", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          yield* api.sendWelcomeMessages(invitations(alice1.key, 230))
          for (const limit of [undefined, 100, 1_000]) {
            expect((yield* readAll(alice1.id, 0n, limit)).pages).toEqual([100, 100, 30])
          }
          expect((yield* readAll(alice1.id, 0n, 0)).pages.length).toBe(231)
          expect(limits.entriesPerPage).toBe(100)
        }))

      test("where nothing is there is an empty page, which keeps the cursor", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const nothing = { entries: [], hasMore: false }
          expect(yield* api.queryWelcomeMessages(alice1.id, { after: 0n })).toEqual({ ...nothing, cursor: 0n })
          yield* api.sendWelcomeMessages(invitations(bob.key, 3))
          expect(yield* api.queryWelcomeMessages(alice1.id, { after: 7n })).toEqual({ ...nothing, cursor: 7n })
          const far = 2n ** 63n - 1n
          expect(yield* api.queryWelcomeMessages(bob.id, { after: far })).toEqual({ ...nothing, cursor: far })
        }))

      test("what was sent twice is there once, and no one to invite is no request", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          const mine = invitations(alice1.key, 4)
          yield* api.sendWelcomeMessages(mine.slice(0, 2))
          yield* api.sendWelcomeMessages(mine)
          expect((yield* readAll(alice1.id, 0n)).entries.map(sent)).toEqual(mine)
          yield* faults.clearCalls
          yield* api.sendWelcomeMessages([])
          expect(yield* faults.calls).toEqual([])
        }))

      test("more than fits one request goes in several, in order; what fits none is not sent, nor the rest", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          const large = [1, 2, 3].map((seed) => ({
            ...welcome(alice1.key, seed),
            data: new Uint8Array(9 << 20).fill(seed)
          }))
          yield* api.sendWelcomeMessages(large)
          const requests = (yield* faults.callsOf("sendWelcomeMessages")).map(({ request }) =>
            fromBinary(SendWelcomeMessagesRequestSchema, request).messages.map(({ version }) =>
              version.case === "v1" ? version.value.data[0] : undefined
            )
          )
          expect(requests).toEqual([[1, 2], [3]])

          yield* faults.clearCalls
          const huge = { ...welcome(alice1.key, 4), data: new Uint8Array(limits.messageBytes) }
          expect(yield* Effect.flip(api.sendWelcomeMessages([welcome(alice1.key, 5), huge]))).toMatchObject({
            operation: "sendWelcomeMessages",
            reason: "RequestTooLarge"
          })
          expect(yield* faults.calls).toEqual([])
        }))

      test("entries that are too large for one answer are read in several, down to one by one", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const large = [1, 2, 3].map((seed) => ({
            ...welcome(alice1.key, seed),
            data: new Uint8Array(18 << 20).fill(seed)
          }))
          yield* api.sendWelcomeMessages([...large, welcome(alice1.key, 4)])
          const { entries, pages } = yield* readAll(alice1.id, 0n)
          expect(entries.map((entry) => (entry._tag === "Welcome" ? entry.data.at(-1) : undefined))).toEqual([
            1,
            2,
            3,
            welcome(alice1.key, 4).data.at(-1)
          ])
          expect(pages).toEqual([1, 3])
        }))

      test("a topic that no one can have is not asked for", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          expect(yield* Effect.flip(api.queryWelcomeMessages(new Uint8Array(0), { after: 0n }))).toMatchObject({
            operation: "queryWelcomeMessages",
            reason: "InvalidRequest",
            isRetryable: false
          })
          expect(yield* faults.calls).toEqual([])
        }))

      test("[48] entries of another topic, out of order, repeated or empty are malformed", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* api.sendWelcomeMessages([...invitations(alice1.key, 4), ...invitations(bob.key, 4)])
          const [entry] = (yield* api.queryWelcomeMessages(alice1.id, { after: 0n })).entries
          const id = idsOf(entry === undefined ? [] : [entry])[0] ?? 0n
          for (const answer of [
            Faults.WrongAnswer.Reversed(),
            Faults.WrongAnswer.Repeated(),
            Faults.WrongAnswer.Emptied(),
            Faults.WrongAnswer.Long(),
            // The answer to a question about someone else, and to one from an earlier cursor.
            Faults.WrongAnswer.Bytes({ bytes: yield* servedTo(bob.key, 0n) }),
            Faults.WrongAnswer.Bytes({ bytes: yield* servedTo(alice1.key, 0n) })
          ]) {
            yield* faults.enqueue("queryWelcomeMessages", Faults.wrongAnswer(answer))
            expect(yield* Effect.flip(api.queryWelcomeMessages(alice1.id, { after: id }))).toMatchObject({
              reason: "MalformedResponse",
              isRetryable: false
            })
          }
        }))

      test("an entry of a kind that is not known yet keeps its place, where it says which", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          const known = newerKind({ id: 8, topic: alice1.key })
          const unsaid = newerKind(undefined)
          const elsewhere = newerKind({ id: 9, topic: bob.key })
          yield* faults.enqueue("queryWelcomeMessages", answerOf(unsaid, known, elsewhere))
          expect(yield* api.queryWelcomeMessages(alice1.id, { after: 3n })).toEqual({
            entries: [Option.none(), Option.some(8n), Option.none()].map((id) => ({ _tag: "Unknown", id })),
            cursor: 8n,
            hasMore: false
          })
        }))
    })

    describe("streams of Welcomes", () => {
      const operation = "subscribeWelcomeMessages"

      /** The first entries of a stream, and a way to wait until so many have come. */
      const collecting = (count: number, after = 0n) =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const entries: Array<WelcomeMessageEntry> = []
          const fiber = yield* api.subscribeWelcomeMessages(alice1.id, after).pipe(
            Stream.take(count),
            Stream.runForEach((entry) => Effect.sync(() => entries.push(entry))),
            Effect.fork
          )
          const come = (wanted: number) =>
            eventually(Effect.sync(() => (entries.length >= wanted ? Option.some(entries) : Option.none())))
          return { entries, fiber, come }
        })

      test("what is there after the cursor comes first, then what is sent, byte for byte, and no one else's", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const mine = invitations(alice1.key, 12)
          yield* api.sendWelcomeMessages([...mine.slice(0, 6), ...invitations(bob.key, 3)])
          const [, second] = idsOf((yield* readAll(alice1.id, 0n)).entries)
          const { come, entries, fiber } = yield* collecting(10, second)
          yield* come(4)
          yield* api.sendWelcomeMessages([...invitations(bob.key, 3, 50), ...mine.slice(6, 9)])
          yield* come(7)
          yield* api.sendWelcomeMessages(mine.slice(9))
          yield* Fiber.join(fiber)
          expect(entries.map(sent)).toEqual(mine.slice(2))
        }))

      test("many entries come whole and in order, however slowly they are taken", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const many = invitations(alice1.key, 300)
          yield* api.sendWelcomeMessages(many)
          const taken = yield* api.subscribeWelcomeMessages(alice1.id, 0n).pipe(
            Stream.tap(() => Effect.yieldNow()),
            Stream.take(300),
            Stream.runCollect
          )
          expect([...taken].map(sent)).toEqual(many)
        }))

      test("who takes no more, or is interrupted, ends the call at the node", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* api.sendWelcomeMessages(invitations(alice1.key, 2))
          yield* Effect.flatMap(collecting(1), ({ fiber }) => Fiber.join(fiber))
          yield* interruptedAt(operation)
          yield* faults.clearCalls
          const { come, fiber } = yield* collecting(3)
          yield* come(2)
          yield* Fiber.interrupt(fiber)
          yield* interruptedAt(operation)
        }))

      test("the node's good end is the end, after all that it sent", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* api.sendWelcomeMessages(invitations(alice1.key, 5))
          yield* faults.enqueue(operation, Faults.cutAfter(3, "end"), Faults.cutAfter(0, "end"))
          const read = Stream.runCollect(api.subscribeWelcomeMessages(alice1.id, 0n))
          expect([...(yield* read)].map(sent)).toEqual(invitations(alice1.key, 3))
          expect([...(yield* read)]).toEqual([])
        }))

      test("[22] a connection that breaks is a failure, after all that came before", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* api.sendWelcomeMessages(invitations(alice1.key, 5))
          // A dropped connection may lose what was on its way, but never bring it out of order.
          yield* faults.enqueue(operation, Faults.cutAfter(3))
          const { entries, fiber } = yield* collecting(5)
          expect(yield* Effect.flip(Fiber.join(fiber))).toMatchObject({
            operation,
            reason: "Transport",
            isRetryable: true
          })
          expect(entries.length).toBeLessThanOrEqual(3)
          expect(entries.map(sent)).toEqual(invitations(alice1.key, entries.length))
          // And it comes back.
          yield* Effect.flatMap(collecting(5), ({ fiber: again }) => Fiber.join(again))
        }))

      test("[27] each status of the node is told by its reason, code and text, before and after entries", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* api.sendWelcomeMessages(invitations(alice1.key, 5))
          for (const [status, reason, isRetryable] of statuses) {
            for (const after of [0, 2]) {
              yield* faults.enqueue(operation, Faults.cutAfter(after, status))
              const { entries, fiber } = yield* collecting(5)
              expect(yield* Effect.flip(Fiber.join(fiber))).toMatchObject({
                operation,
                reason,
                grpcCode: status.code,
                detail: status.detail,
                isRetryable
              })
              expect(entries.length).toBe(after)
            }
          }
        }))

      test("what repeats or changes places comes as the node sends it", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* api.sendWelcomeMessages(invitations(alice1.key, 4))
          const [a, b, c, d] = idsOf((yield* readAll(alice1.id, 0n)).entries)
          yield* faults.enqueue(
            operation,
            Faults.streaming(Faults.StreamFault.Doubled()),
            Faults.streaming(Faults.StreamFault.Swapped())
          )
          for (const expected of [
            [a, a, b, b],
            [b, a, d, c]
          ]) {
            const { entries, fiber } = yield* collecting(4)
            yield* Fiber.join(fiber)
            expect(idsOf(entries)).toEqual(expected)
          }
        }))

      test("[48] what is no entry, or is of another topic, is malformed; a newer kind is passed on", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* api.sendWelcomeMessages(invitations(alice1.key, 1))
          const wrong = (bytes: Uint8Array) => Faults.wrongAnswer(Faults.WrongAnswer.Bytes({ bytes }))
          const [bobs = new Uint8Array(0)] = fromBinary(
            QueryWelcomeMessagesResponseSchema,
            yield* servedTo(bob.key, 0n, 1)
          ).messages.map((message) => toBinary(WelcomeMessageSchema, message))
          for (const fault of [
            Faults.wrongAnswer(Faults.WrongAnswer.Undecodable()),
            wrong(new Uint8Array(0)),
            wrong(bobs)
          ]) {
            yield* faults.enqueue(operation, fault)
            expect(yield* Effect.flip(Stream.runHead(api.subscribeWelcomeMessages(alice1.id, 0n)))).toMatchObject({
              operation,
              reason: "MalformedResponse"
            })
          }
          yield* faults.enqueue(operation, wrong(newerKind({ id: 8, topic: alice1.key })), wrong(newerKind(undefined)))
          for (const id of [Option.some(8n), Option.none()]) {
            expect(yield* Stream.runHead(api.subscribeWelcomeMessages(alice1.id, 0n))).toEqual(
              Option.some({ _tag: "Unknown", id })
            )
          }
        }))
    })

    describe("failures", () => {
      for (const [operation, run] of smallest) {
        test(`[27] ${operation} tells each status of the node by its reason, code and text`, () =>
          Effect.gen(function* () {
            const api = yield* ApiClient
            const faults = yield* Faults.Faults
            yield* Effect.forEach(statuses, ([status, reason, isRetryable]) =>
              Effect.gen(function* () {
                yield* faults.enqueue(operation, Faults.failBeforeSend(status))
                const error = yield* Effect.flip(run(api))
                expect(error).toBeInstanceOf(ApiClientError)
                expect(error).toMatchObject({
                  operation,
                  reason,
                  grpcCode: status.code,
                  detail: status.detail,
                  isRetryable
                })
                expect(error.retryAfter).toBeUndefined()
              })
            )
            expect((yield* faults.calls).length).toBe(statuses.length)
          }))

        test(`[22] ${operation} that is not answered in time is a timeout, and ends at the node too`, () =>
          Effect.gen(function* () {
            const api = yield* ApiClient
            const faults = yield* Faults.Faults
            yield* faults.enqueue(operation, Faults.hang())
            const fiber = yield* Effect.fork(Effect.flip(run(api)))
            yield* arrived(operation)
            yield* TestClock.adjust(defaultTimeout)
            expect(yield* Fiber.join(fiber)).toMatchObject({ operation, reason: "Timeout", isRetryable: true })
            yield* interruptedAt(operation)
          }))

        test(`[48] ${operation} that is answered with what is no answer is malformed`, () =>
          Effect.gen(function* () {
            const api = yield* ApiClient
            const faults = yield* Faults.Faults
            yield* faults.enqueue(operation, Faults.wrongAnswer(Faults.WrongAnswer.Undecodable()))
            expect(yield* Effect.flip(run(api))).toMatchObject({
              operation,
              reason: "MalformedResponse",
              isRetryable: false
            })
          }))
      }

      test("[26] a rate limit says how long to wait", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* faults.enqueue("uploadKeyPackage", Faults.rateLimited(Duration.seconds(7)))
          const error = yield* Effect.flip(api.uploadKeyPackage(alice1.bytes))
          expect(error).toMatchObject({ reason: "RateLimited", grpcCode: 8, isRetryable: true })
          expect(Duration.toMillis(error.retryAfter ?? Duration.zero)).toBe(7_000)
        }))

      test("the node's words come through whole, up to 512 characters", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          const text = `100% näher\n“${"x".repeat(600)}”`
          yield* faults.enqueue("fetchKeyPackages", Faults.failBeforeSend(new GrpcStatus({ code: 13, detail: text })))
          const error = yield* Effect.flip(api.fetchKeyPackages([alice1.id]))
          expect(error.detail).toBe(text.slice(0, 512))
        }))

      test("[22] a connection that breaks is a transport failure, whatever the node did before", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* faults.enqueue("uploadKeyPackage", Faults.drop("beforeSend"), Faults.drop("afterAccept"))
          const lost = { operation: "uploadKeyPackage", reason: "Transport", isRetryable: true }
          expect(yield* Effect.flip(api.uploadKeyPackage(bob.bytes))).toMatchObject(lost)
          expect(yield* api.fetchKeyPackages([bob.id])).toEqual([Option.none()])
          expect(yield* Effect.flip(api.uploadKeyPackage(bob.bytes))).toMatchObject(lost)
          expect(yield* api.fetchKeyPackages([bob.id])).toEqual([Option.some(bob.bytes)])
        }))

      test("[22] a failure after the node accepted is told as it came", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* faults.enqueue("uploadKeyPackage", Faults.failAfterAccept())
          expect(yield* Effect.flip(api.uploadKeyPackage(bob.bytes))).toMatchObject({ reason: "Unavailable" })
          expect(yield* api.fetchKeyPackages([bob.id])).toEqual([Option.some(bob.bytes)])
        }))

      test("nothing is tried again here", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* faults.setRule(() => Option.some(Faults.failBeforeSend()))
          yield* Effect.forEach(smallest, ([, run]) => Effect.flip(run(api)))
          expect((yield* faults.calls).map(({ method }) => method)).toEqual(smallest.map(([operation]) => operation))
        }))

      test("interruption ends the call at the node", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* faults.enqueue("fetchKeyPackages", Faults.hang())
          const fiber = yield* Effect.fork(api.fetchKeyPackages([alice1.id]))
          yield* arrived("fetchKeyPackages")
          yield* Fiber.interrupt(fiber)
          yield* interruptedAt("fetchKeyPackages")
          expect(yield* api.fetchKeyPackages([alice1.id])).toEqual([Option.none()])
        }))

      const wrong: ReadonlyArray<Faults.WrongAnswer> = [Faults.WrongAnswer.Short(), Faults.WrongAnswer.Long()]
      const misplaced: ReadonlyArray<Faults.WrongAnswer> = [
        Faults.WrongAnswer.Reversed(),
        Faults.WrongAnswer.Repeated(),
        Faults.WrongAnswer.Emptied()
      ]
      const malformed = { reason: "MalformedResponse", isRetryable: false }

      test("[48] too few or too many answers are malformed, whatever was asked", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* Effect.forEach(wrong, (answer) =>
            Effect.gen(function* () {
              const fault = Faults.wrongAnswer(answer)
              yield* faults.enqueue("fetchKeyPackages", fault)
              expect(yield* Effect.flip(api.fetchKeyPackages([bob.id, carol.id]))).toMatchObject(malformed)
              yield* faults.enqueue("getIdentityUpdates", fault)
              const requests = [{ inboxId: alice.inboxId, after: 0n }]
              expect(yield* Effect.flip(api.getIdentityUpdates(requests))).toMatchObject(malformed)
              yield* faults.enqueue("getInboxIds", fault)
              expect(yield* Effect.flip(api.getInboxIds([alice.identifier]))).toMatchObject(malformed)
            })
          )
        }))

      test("[48] answers of another inbox or identifier than was asked for are malformed", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* publishAll
          const other = client("bob")
          yield* Effect.forEach(misplaced, (answer) =>
            Effect.gen(function* () {
              const fault = Faults.wrongAnswer(answer)
              yield* faults.enqueue("getIdentityUpdates", fault)
              const requests = [alice, other].map(({ inboxId }) => ({ inboxId, after: 0n }))
              expect(yield* Effect.flip(api.getIdentityUpdates(requests))).toMatchObject(malformed)
              yield* faults.enqueue("getInboxIds", fault)
              const identifiers = [alice.identifier, other.identifier]
              expect(yield* Effect.flip(api.getInboxIds(identifiers))).toMatchObject(malformed)
            })
          )
        }))

      test("one failed request of many fails the call", () =>
        Effect.gen(function* () {
          const api = yield* ApiClient
          const faults = yield* Faults.Faults
          yield* faults.setRule((call) =>
            fromBinary(FetchKeyPackagesRequestSchema, call.request).installationKeys.length < 1_000
              ? Option.some(Faults.failBeforeSend())
              : Option.none()
          )
          expect(yield* Effect.flip(api.fetchKeyPackages(strangers(2_500)))).toMatchObject({ reason: "Unavailable" })
        }))
    })
  })
}
