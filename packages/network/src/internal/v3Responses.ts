/**
 * What a v3 node answers, from bytes. The left side says what is wrong with an answer, and holds none of its bytes.
 *
 * @since 1.0.0
 */
import { type DescMessage, fromBinary, type Message, type MessageShape } from "@bufbuild/protobuf"
import { BinaryReader, WireType } from "@bufbuild/protobuf/wire"
import { EmptySchema } from "@bufbuild/protobuf/wkt"
import type { Identifier } from "@keyward/core/identity/Identifier"
import { InboxId } from "@keyward/core/identity/InboxId"
import type {
  IdentityUpdateLogEntry,
  IdentityUpdatesRequest,
  Page,
  UnknownEntry,
  WelcomeMessageEntry
} from "@keyward/core/ports/ApiClient"
import type { GroupMessageEntry } from "@keyward/core/ports/GroupMessages"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import {
  GetIdentityUpdatesResponseSchema,
  GetInboxIdsResponseSchema,
  IdentifierKind,
  PublishIdentityUpdateResponseSchema,
  VerifySmartContractWalletSignaturesResponseSchema
} from "../gen/xmtp/identity/api/v1/identity_pb.ts"
import {
  FetchKeyPackagesResponseSchema,
  type GroupMessage,
  GroupMessageSchema,
  type PagingInfo,
  QueryGroupMessagesResponseSchema,
  QueryWelcomeMessagesResponseSchema,
  type WelcomeMessage,
  WelcomeMessageSchema
} from "../gen/xmtp/mls/api/v1/mls_pb.ts"
import { identifierText, type PageBounds } from "./v3Requests.ts"

/** The answer, or what is wrong with it. */
export type Decoded<A> = Either.Either<A, string>

const decode = <S extends DescMessage>(
  schema: S,
  bytes: Uint8Array,
  readUnknownFields = false
): Decoded<MessageShape<S>> =>
  Either.try({
    try: () => fromBinary(schema, bytes, { readUnknownFields }),
    catch: () => `not a ${schema.typeName}`
  })

const counted = <A>(asked: number, answers: ReadonlyArray<A>): Decoded<ReadonlyArray<A>> =>
  answers.length === asked ? Either.right(answers) : Either.left(`${answers.length} answers to ${asked} questions`)

const empty = (bytes: Uint8Array): Decoded<void> => Either.map(decode(EmptySchema, bytes), () => {})

export const uploadKeyPackage = empty
export const sendWelcomeMessages = empty
export const sendGroupMessages = empty

export const publishIdentityUpdate = (bytes: Uint8Array): Decoded<void> =>
  Either.map(decode(PublishIdentityUpdateResponseSchema, bytes), () => {})

/** One package per id, none in an empty place, as views of the answer. */
export const fetchKeyPackages = (asked: number, bytes: Uint8Array): Decoded<ReadonlyArray<Option.Option<Uint8Array>>> =>
  decode(FetchKeyPackagesResponseSchema, bytes).pipe(
    Either.flatMap(({ keyPackages }) => counted(asked, keyPackages)),
    Either.map((places) =>
      places.map(({ keyPackageTlsSerialized: served }) => (served.length === 0 ? Option.none() : Option.some(served)))
    )
  )

/** One log per request, of the inbox that was asked for. */
export const getIdentityUpdates = (
  requests: ReadonlyArray<IdentityUpdatesRequest>,
  bytes: Uint8Array
): Decoded<ReadonlyArray<ReadonlyArray<IdentityUpdateLogEntry>>> =>
  decode(GetIdentityUpdatesResponseSchema, bytes).pipe(
    Either.flatMap(({ responses }) => counted(requests.length, responses)),
    Either.filterOrLeft(
      (responses) => responses.every(({ inboxId }, index) => inboxId.toLowerCase() === requests[index]?.inboxId),
      () => "an answer is of another inbox than was asked for"
    ),
    Either.map((responses) =>
      responses.map(({ updates }) =>
        updates.map(({ sequenceId, serverTimestampNs, update }) => ({
          sequenceId,
          serverTimestampNs,
          update: update.slice()
        }))
      )
    )
  )

const isInboxId = Schema.is(InboxId)

/**
 * One inbox per identifier. Nodes leave the kind unset, which is Ethereum (libxmtp, too): what such a node says of a
 * passkey is not about that passkey, so it is none.
 */
export const getInboxIds = (
  identifiers: ReadonlyArray<Identifier>,
  bytes: Uint8Array
): Decoded<ReadonlyArray<Option.Option<InboxId>>> =>
  decode(GetInboxIdsResponseSchema, bytes).pipe(
    Either.flatMap(({ responses }) => counted(identifiers.length, responses)),
    Either.filterOrLeft(
      (responses) =>
        responses.every(({ identifier }, index) => {
          const asked = identifiers[index]
          return asked !== undefined && identifier.toLowerCase() === identifierText(asked)
        }),
      () => "an answer is of another identifier than was asked for"
    ),
    Either.flatMap((responses) =>
      Either.all(
        responses.map(({ identifierKind, inboxId }, index): Decoded<Option.Option<InboxId>> => {
          const kind = identifierKind === IdentifierKind.UNSPECIFIED ? IdentifierKind.ETHEREUM : identifierKind
          const asked = identifiers[index]?._tag === "Ethereum" ? IdentifierKind.ETHEREUM : IdentifierKind.PASSKEY
          if (inboxId === undefined || kind !== asked) return Either.right(Option.none())
          const lower = inboxId.toLowerCase()
          return isInboxId(lower) ? Either.right(Option.some(lower)) : Either.left("an inbox id is not 64 hex digits")
        })
      )
    )
  )

/** What a node says of a smart contract wallet's signature. */
export type WalletVerdict =
  | { readonly _tag: "Judged"; readonly isValid: boolean }
  /** It could not ask the wallet; `isValid` is then false and means nothing. */
  | { readonly _tag: "NotJudged"; readonly error: string }

/** One verdict per signature. */
export const verifySmartContractWalletSignatures = (
  asked: number,
  bytes: Uint8Array
): Decoded<ReadonlyArray<WalletVerdict>> =>
  decode(VerifySmartContractWalletSignaturesResponseSchema, bytes).pipe(
    Either.flatMap(({ responses }) => counted(asked, responses)),
    Either.map((responses) =>
      responses.map(({ error, isValid }) =>
        // A yes is a yes, as in libxmtp, whatever else is said.
        error === undefined || isValid ? { _tag: "Judged", isValid } : { _tag: "NotJudged", error: error.slice(0, 512) }
      )
    )
  )

/** Which topics were asked for. */
export type Asked = (topic: Uint8Array) => boolean

const anotherTopic = "an entry is of another topic than was asked for"

/** What every kind of entry has, known or not. */
interface Head {
  readonly id: bigint
  readonly topic: Uint8Array
}

/** Fields 1 (id), 2 (created_ns) and 3 (topic) of a kind that is not known; undefined where it does not begin so. */
const headOf = (field: Uint8Array): Head | undefined => {
  try {
    const reader = new BinaryReader(field)
    // The field's own length comes first.
    reader.uint32()
    let id: bigint | undefined
    let hasTime = false
    let topic: Uint8Array | undefined
    while (reader.pos < reader.len) {
      const [no, wireType] = reader.tag()
      if (no === 1 && wireType === WireType.Varint) id = BigInt(reader.uint64())
      else if (no === 3 && wireType === WireType.LengthDelimited) topic = reader.bytes()
      else {
        hasTime ||= no === 2 && wireType === WireType.Varint
        reader.skip(wireType, no)
      }
    }
    return id === undefined || topic === undefined || !hasTime ? undefined : { id, topic }
  } catch {
    // Not a message after all, and so none whose head could be known.
    return undefined
  }
}

/** An entry of no known kind. One that holds nothing at all is no newer kind. */
const unknownEntry = ({ $unknown: fields = [] }: Message, asked: Asked): Decoded<UnknownEntry> => {
  if (fields.length === 0) return Either.left("an entry is empty")
  const heads = fields.flatMap(({ data, wireType }) => {
    const head = wireType === WireType.LengthDelimited ? headOf(data) : undefined
    return head !== undefined && head.id > 0n && asked(head.topic) ? [head] : []
  })
  const [head] = heads
  const id = head !== undefined && heads.length === 1 ? Option.some(head.id) : Option.none()
  return Either.right({ _tag: "Unknown", id })
}

const known = <A extends { readonly id: bigint }>(topic: Uint8Array, asked: Asked, entry: A): Decoded<A> =>
  !asked(topic) ? Either.left(anotherTopic) : entry.id === 0n ? Either.left("an entry has no id") : Either.right(entry)

/** Bytes are copied, so that one kept entry does not keep the whole answer. */
const toWelcomeEntry = (asked: Asked, message: WelcomeMessage): Decoded<WelcomeMessageEntry> => {
  const { case: kind, value } = message.version
  switch (kind) {
    case "v1":
      return known(value.installationKey, asked, {
        _tag: "Welcome" as const,
        id: value.id,
        createdNs: value.createdNs,
        installationKey: value.installationKey.slice(),
        data: value.data.slice(),
        hpkePublicKey: value.hpkePublicKey.slice(),
        wrapperAlgorithm: value.wrapperAlgorithm,
        welcomeMetadata: value.welcomeMetadata.slice()
      })
    case "welcomePointer":
      return known(value.installationKey, asked, {
        _tag: "WelcomePointer" as const,
        id: value.id,
        createdNs: value.createdNs,
        installationKey: value.installationKey.slice(),
        welcomePointer: value.welcomePointer.slice(),
        hpkePublicKey: value.hpkePublicKey.slice(),
        wrapperAlgorithm: value.wrapperAlgorithm
      })
    default:
      return unknownEntry(message, asked)
  }
}

const toGroupEntry = (asked: Asked, message: GroupMessage): Decoded<GroupMessageEntry> => {
  const { case: kind, value } = message.version
  if (kind === undefined) return unknownEntry(message, asked)
  return known(value.groupId, asked, {
    _tag: "GroupMessage" as const,
    id: value.id,
    createdNs: value.createdNs,
    groupId: value.groupId.slice(),
    data: value.data.slice(),
    senderHmac: value.senderHmac.slice(),
    shouldPush: value.shouldPush,
    isCommit: value.isCommit
  })
}

const idOf = (entry: { readonly _tag: string; readonly id: bigint | Option.Option<bigint> }): bigint | undefined =>
  typeof entry.id === "bigint" ? entry.id : Option.getOrUndefined(entry.id)

/**
 * Entries in order after the cursor, and where the next page begins: where the node says (it may have left out entries of
 * kinds that it does not know itself), else behind the last entry.
 */
const toPage = <A extends { readonly _tag: string; readonly id: bigint | Option.Option<bigint> }>(
  { after, limit }: PageBounds,
  entries: ReadonlyArray<A>,
  paging: PagingInfo | undefined
): Decoded<Page<A>> => {
  let last = after
  for (const entry of entries) {
    const id = idOf(entry) ?? last + 1n
    if (id <= last) return Either.left("entries are not in order after the cursor")
    last = idOf(entry) ?? last
  }
  const next = paging?.idCursor ?? 0n
  if (next === 0n) {
    return entries.length < limit
      ? Either.right({ entries, cursor: last, hasMore: false })
      : Either.left("a full page does not say where the next one begins")
  }
  if (next < last || next <= after) return Either.left("the next page would begin within this one")
  return Either.right({ entries, cursor: next, hasMore: true })
}

/** One page of Welcomes of the topic that was asked for. */
export const queryWelcomeMessages = (
  asked: Asked,
  page: PageBounds,
  bytes: Uint8Array
): Decoded<Page<WelcomeMessageEntry>> =>
  decode(QueryWelcomeMessagesResponseSchema, bytes, true).pipe(
    Either.flatMap(({ messages, pagingInfo }) =>
      Either.flatMap(Either.all(messages.map((message) => toWelcomeEntry(asked, message))), (entries) =>
        toPage(page, entries, pagingInfo)
      )
    )
  )

/** One entry of a Welcome stream. */
export const subscribeWelcomeMessages = (asked: Asked, bytes: Uint8Array): Decoded<WelcomeMessageEntry> =>
  Either.flatMap(decode(WelcomeMessageSchema, bytes, true), (message) => toWelcomeEntry(asked, message))

/** One page of messages of the group that was asked for. */
export const queryGroupMessages = (
  asked: Asked,
  page: PageBounds,
  bytes: Uint8Array
): Decoded<Page<GroupMessageEntry>> =>
  decode(QueryGroupMessagesResponseSchema, bytes, true).pipe(
    Either.flatMap(({ messages, pagingInfo }) =>
      Either.flatMap(Either.all(messages.map((message) => toGroupEntry(asked, message))), (entries) =>
        toPage(page, entries, pagingInfo)
      )
    )
  )

/** One message of a stream of groups. */
export const subscribeGroupMessages = (asked: Asked, bytes: Uint8Array): Decoded<GroupMessageEntry> =>
  Either.flatMap(decode(GroupMessageSchema, bytes, true), (message) => toGroupEntry(asked, message))
