/**
 * Answers of a node: what is taken, and what is told apart as none.
 */
import { create, type MessageInitShape, toBinary } from "@bufbuild/protobuf"
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
import { FetchKeyPackagesResponseSchema } from "../../src/gen/xmtp/mls/api/v1/mls_pb.ts"
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

  it("an empty place is none, the others are copies", () => {
    const bytes = answer(Uint8Array.of(1, 2), new Uint8Array(0))
    const decoded = Either.getOrThrow(Responses.fetchKeyPackages(2, bytes))
    expect(decoded).toEqual([Option.some(Uint8Array.of(1, 2)), Option.none()])
    bytes.fill(0)
    expect(decoded[0]).toEqual(Option.some(Uint8Array.of(1, 2)))
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
