/**
 * Answers of a node: what is taken, and what is told apart as none.
 */
import { create, fromBinary, type MessageInitShape, toBinary } from "@bufbuild/protobuf"
import { describe, expect, it } from "@effect/vitest"
import * as Identifier from "@keyward/core/identity/Identifier"
import { InboxId } from "@keyward/core/identity/InboxId"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import {
  GetIdentityUpdatesResponseSchema,
  GetInboxIdsResponseSchema,
  IdentifierKind
} from "../../src/gen/xmtp/identity/api/v1/identity_pb.ts"
import {
  FetchKeyPackagesResponseSchema,
  QueryWelcomeMessagesResponseSchema,
  type WelcomeMessage,
  WelcomeMessageSchema
} from "../../src/gen/xmtp/mls/api/v1/mls_pb.ts"
import * as Responses from "../../src/internal/v3Responses.ts"

const inboxId = InboxId.make("ab".repeat(32))
const address = "0x00000000000000000000000000000000000000aa"
const wallet = Identifier.ethereum(address)
const passkey: Identifier.Identifier = { _tag: "Passkey", publicKey: "0a0b" }
const nonsense = Uint8Array.of(0x0a, 0xff, 0x01, 0x00)

describe("key packages", () => {
  const answer = (...packages: ReadonlyArray<Uint8Array>) =>
    toBinary(
      FetchKeyPackagesResponseSchema,
      create(FetchKeyPackagesResponseSchema, {
        keyPackages: packages.map((keyPackageTlsSerialized) => ({ keyPackageTlsSerialized }))
      })
    )

  it("an empty place is none, the others share the memory of the answer", () => {
    const bytes = answer(Uint8Array.of(1, 2), new Uint8Array(0))
    const decoded = Either.getOrThrow(Responses.fetchKeyPackages(2, bytes))
    expect(decoded).toEqual([Option.some(Uint8Array.of(1, 2)), Option.none()])
    bytes.fill(0)
    expect(decoded[0]).toEqual(Option.some(Uint8Array.of(0, 0)))
  })

  it("[48] a wrong count is told with both numbers", () => {
    expect(Responses.fetchKeyPackages(3, answer(Uint8Array.of(1)))).toEqual(Either.left("1 answers to 3 questions"))
    expect(Responses.fetchKeyPackages(0, answer(Uint8Array.of(1)))).toEqual(Either.left("1 answers to 0 questions"))
  })
})

describe("identity updates", () => {
  const answer = (init: MessageInitShape<typeof GetIdentityUpdatesResponseSchema>) =>
    toBinary(GetIdentityUpdatesResponseSchema, create(GetIdentityUpdatesResponseSchema, init))

  it("numbers beyond 2^53 stay whole", () => {
    const entry = { sequenceId: 2n ** 64n - 1n, serverTimestampNs: 2n ** 53n + 1n, update: Uint8Array.of(7) }
    const bytes = answer({ responses: [{ inboxId: inboxId.toUpperCase(), updates: [entry] }] })
    expect(Responses.getIdentityUpdates([{ inboxId, after: 0n }], bytes)).toEqual(Either.right([[entry]]))
  })

  it("[48] the log of another inbox is no answer", () => {
    const bytes = answer({ responses: [{ inboxId: "cd".repeat(32) }] })
    expect(Either.isLeft(Responses.getIdentityUpdates([{ inboxId, after: 0n }], bytes))).toBe(true)
  })
})

describe("inbox ids", () => {
  const ask = (
    identifier: Identifier.Identifier,
    init: { identifier?: string; inboxId?: string; identifierKind?: IdentifierKind }
  ) =>
    Responses.getInboxIds(
      [identifier],
      toBinary(GetInboxIdsResponseSchema, create(GetInboxIdsResponseSchema, { responses: [init] }))
    )

  it.each<
    readonly [
      string,
      Identifier.Identifier,
      { identifier: string; inboxId?: string; identifierKind?: IdentifierKind },
      boolean
    ]
  >([
    ["an address, kind unset", wallet, { identifier: address, inboxId }, true],
    ["an address, kind given", wallet, { identifier: address, inboxId, identifierKind: IdentifierKind.ETHEREUM }, true],
    ["an address echoed with checksum", wallet, { identifier: address.replace("aa", "AA"), inboxId }, true],
    ["an inbox id in upper case", wallet, { identifier: address, inboxId: inboxId.toUpperCase() }, true],
    ["an address without an inbox", wallet, { identifier: address }, false],
    [
      "an address answered as a passkey",
      wallet,
      { identifier: address, inboxId, identifierKind: IdentifierKind.PASSKEY },
      false
    ],
    ["a passkey", passkey, { identifier: "0a0b", inboxId, identifierKind: IdentifierKind.PASSKEY }, true],
    ["a passkey, kind unset, which is Ethereum", passkey, { identifier: "0a0b", inboxId }, false]
  ])("%s", (_, identifier, init, found) => {
    expect(ask(identifier, init)).toEqual(Either.right([found ? Option.some(inboxId) : Option.none()]))
  })

  it("[48] another identifier, or an inbox id that is none, is no answer", () => {
    expect(Either.isLeft(ask(wallet, { identifier: "0a0b", inboxId }))).toBe(true)
    expect(Either.isLeft(ask(wallet, { inboxId }))).toBe(true)
    expect(ask(wallet, { identifier: address, inboxId: "inbox" })).toEqual(
      Either.left("an inbox id is not 64 hex digits")
    )
    expect(Either.isLeft(ask(wallet, { identifier: address, inboxId: "" }))).toBe(true)
  })
})

describe("[48] whatever arrives", () => {
  const decoders: ReadonlyArray<(bytes: Uint8Array) => Responses.Decoded<unknown>> = [
    Responses.uploadKeyPackage,
    Responses.publishIdentityUpdate,
    (bytes) => Responses.fetchKeyPackages(2, bytes),
    (bytes) => Responses.getIdentityUpdates([{ inboxId, after: 0n }], bytes),
    (bytes) => Responses.getInboxIds([wallet], bytes)
  ]

  it("bytes that are no message are told so, by type and without the bytes", () => {
    for (const decode of decoders) expect(Either.getOrThrow(Either.flip(decode(nonsense)))).toMatch(/^not a [\w.]+$/)
  })

  it("no bytes throw", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.uint8Array({ maxLength: 80 }), (bytes) => {
        for (const decode of decoders) decode(bytes)
      }),
      { seed: 48, numRuns: 1_000 }
    )
  })

  it("an answer to an upload may say more than nothing", () => {
    expect(Responses.uploadKeyPackage(new Uint8Array(0))).toEqual(Either.right(undefined))
    expect(Responses.uploadKeyPackage(Uint8Array.of(0x08, 0x01))).toEqual(Either.right(undefined))
  })
})

describe("pages of Welcomes", () => {
  const topic = new Uint8Array(32).fill(0x11)
  const asked = (served: Uint8Array) => served.length === 32 && served.every((byte) => byte === 0x11)
  const welcome = (id: number, installationKey = topic) =>
    create(WelcomeMessageSchema, {
      version: { case: "v1", value: { id: BigInt(id), installationKey, data: Uint8Array.of(id) } }
    })
  const pointer = (id: number) =>
    create(WelcomeMessageSchema, {
      version: { case: "welcomePointer", value: { id: BigInt(id), installationKey: topic } }
    })
  /** A message with these bytes in a field that is not known. */
  const unknown = (...data: ReadonlyArray<number>) =>
    fromBinary(WelcomeMessageSchema, Uint8Array.of(0x2a, data.length, ...data))
  const withHead = (id: number, served = topic) => unknown(8, id, 16, 1, 26, served.length, ...served)
  const read = (messages: Array<WelcomeMessage>, idCursor?: number, { after = 0n, limit = 100 } = {}) => {
    const response = create(QueryWelcomeMessagesResponseSchema, {
      messages,
      ...(idCursor === undefined ? {} : { pagingInfo: { idCursor: BigInt(idCursor) } })
    })
    const bytes = toBinary(QueryWelcomeMessagesResponseSchema, response)
    return Either.map(Responses.queryWelcomeMessages(asked, { after, limit }, bytes), (page) => ({
      ids: page.entries.map(({ id }) =>
        typeof id === "bigint" ? Number(id) : Option.getOrNull(Option.map(id, Number))
      ),
      cursor: Number(page.cursor),
      hasMore: page.hasMore
    }))
  }

  it.each<readonly [string, ReturnType<typeof read>, object]>([
    ["nothing", read([], undefined, { after: 7n }), { ids: [], cursor: 7, hasMore: false }],
    ["the last page", read([welcome(3), pointer(9)], 0), { ids: [3, 9], cursor: 9, hasMore: false }],
    ["a full page", read([welcome(3), pointer(9)], 9, { limit: 2 }), { ids: [3, 9], cursor: 9, hasMore: true }],
    // As xmtp-node-go skips what it does not know itself, behind a cursor that is past it.
    ["a page with a gap at its end", read([welcome(3)], 8, { limit: 2 }), { ids: [3], cursor: 8, hasMore: true }],
    ["a page of nothing but gaps", read([], 8, { after: 5n }), { ids: [], cursor: 8, hasMore: true }],
    ["a newer kind", read([welcome(3), withHead(5), pointer(9)]), { ids: [3, 5, 9], cursor: 9, hasMore: false }],
    ["a newer kind at the end", read([welcome(3), withHead(5)]), { ids: [3, 5], cursor: 5, hasMore: false }],
    ["a newer kind without an id", read([welcome(3), unknown(1, 2)]), { ids: [3, null], cursor: 3, hasMore: false }],
    [
      "one on a full page",
      read([welcome(3), unknown(10, 0)], 6, { limit: 2 }),
      { ids: [3, null], cursor: 6, hasMore: true }
    ],
    ["one of another topic", read([withHead(5, new Uint8Array(32))]), { ids: [null], cursor: 0, hasMore: false }],
    ["one with an id of 0", read([withHead(0)]), { ids: [null], cursor: 0, hasMore: false }],
    ["one without a time", read([unknown(8, 5, 26, 32, ...topic)]), { ids: [null], cursor: 0, hasMore: false }],
    [
      "one that is text",
      read([unknown(...new TextEncoder().encode("hello"))]),
      { ids: [null], cursor: 0, hasMore: false }
    ]
  ])("%s", (_, actual, expected) => {
    expect(actual).toEqual(Either.right(expected))
  })

  it.each<readonly [string, ReturnType<typeof read>, string]>([
    ["another topic", read([welcome(3, new Uint8Array(32))]), "an entry is of another topic than was asked for"],
    ["no id", read([welcome(0)]), "an entry has no id"],
    ["nothing in an entry", read([welcome(1), create(WelcomeMessageSchema)]), "an entry is empty"],
    ["an entry twice", read([welcome(3), welcome(3)]), "entries are not in order after the cursor"],
    ["disorder", read([welcome(3), welcome(2)]), "entries are not in order after the cursor"],
    ["disorder around a newer kind", read([welcome(3), withHead(2)]), "entries are not in order after the cursor"],
    ["an entry before the cursor", read([welcome(3)], 0, { after: 3n }), "entries are not in order after the cursor"],
    ["a cursor that goes back", read([welcome(3), welcome(5)], 4), "the next page would begin within this one"],
    ["a cursor that stands still", read([], 5, { after: 5n }), "the next page would begin within this one"],
    [
      "a full page without a cursor",
      read([welcome(3), welcome(5)], 0, { limit: 2 }),
      "a full page does not say where the next one begins"
    ]
  ])("%s is no page", (_, actual, expected) => {
    expect(actual).toEqual(Either.left(expected))
  })

  it("entries are copies", () => {
    const bytes = toBinary(
      QueryWelcomeMessagesResponseSchema,
      create(QueryWelcomeMessagesResponseSchema, { messages: [welcome(3)] })
    )
    const page = Either.getOrThrow(Responses.queryWelcomeMessages(asked, { after: 0n, limit: 100 }, bytes))
    bytes.fill(0)
    expect(page.entries[0]).toMatchObject({ _tag: "Welcome", installationKey: topic, data: Uint8Array.of(3) })
  })

  it("whatever the bytes are, there is an answer or a reason", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.uint8Array({ maxLength: 60 }), (bytes) => {
        for (const prefix of [[], [10, bytes.length], [10, bytes.length + 2, 42, bytes.length]]) {
          const answer = Responses.queryWelcomeMessages(
            asked,
            { after: 0n, limit: 100 },
            Uint8Array.from([...prefix, ...bytes])
          )
          expect(Either.isEither(answer)).toBe(true)
        }
      }),
      { seed: 5, numRuns: 2_000 }
    )
  })
})
