/**
 * What a v3 node answers, from bytes. The left side says what is wrong with an answer, and holds none of its bytes.
 *
 * @since 1.0.0
 */
import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf"
import { EmptySchema } from "@bufbuild/protobuf/wkt"
import type { Identifier } from "@keyward/core/identity/Identifier"
import { InboxId } from "@keyward/core/identity/InboxId"
import type { IdentityUpdateLogEntry, IdentityUpdatesRequest } from "@keyward/core/ports/ApiClient"
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
import { FetchKeyPackagesResponseSchema } from "../gen/xmtp/mls/api/v1/mls_pb.ts"
import { identifierText } from "./v3Requests.ts"

/** The answer, or what is wrong with it. */
export type Decoded<A> = Either.Either<A, string>

const decode = <S extends DescMessage>(schema: S, bytes: Uint8Array): Decoded<MessageShape<S>> =>
  Either.try({
    try: () => fromBinary(schema, bytes, { readUnknownFields: false }),
    catch: () => `not a ${schema.typeName}`
  })

const counted = <A>(asked: number, answers: ReadonlyArray<A>): Decoded<ReadonlyArray<A>> =>
  answers.length === asked ? Either.right(answers) : Either.left(`${answers.length} answers to ${asked} questions`)

export const uploadKeyPackage = (bytes: Uint8Array): Decoded<void> => Either.map(decode(EmptySchema, bytes), () => {})

export const publishIdentityUpdate = (bytes: Uint8Array): Decoded<void> =>
  Either.map(decode(PublishIdentityUpdateResponseSchema, bytes), () => {})

/** One package per id, none in an empty place. Copies, so that one kept package does not keep the whole answer. */
export const fetchKeyPackages = (asked: number, bytes: Uint8Array): Decoded<ReadonlyArray<Option.Option<Uint8Array>>> =>
  decode(FetchKeyPackagesResponseSchema, bytes).pipe(
    Either.flatMap(({ keyPackages }) => counted(asked, keyPackages)),
    Either.map((places) =>
      places.map(({ keyPackageTlsSerialized: served }) =>
        served.length === 0 ? Option.none() : Option.some(served.slice())
      )
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
