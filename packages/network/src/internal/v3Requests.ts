/**
 * What the calls of the port say to a v3 node, as bytes.
 *
 * @since 1.0.0
 */
import { create, type DescMessage, type DescMethod, type MessageInitShape, toBinary } from "@bufbuild/protobuf"
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire"
import type { Identifier } from "@keyward/core/identity/Identifier"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import {
  type IdentityUpdatesRequest,
  limits,
  type PageRequest,
  type WelcomeMessageInput
} from "@keyward/core/ports/ApiClient"
import type { GroupMessageInput, GroupSubscription } from "@keyward/core/ports/GroupMessages"
import type { SmartContractWalletQuestion } from "@keyward/core/ports/SmartContractWalletVerifier"
import { IdentifierKind, IdentityApi } from "../gen/xmtp/identity/api/v1/identity_pb.ts"
import {
  GroupMessageInputSchema,
  MlsApi,
  SortDirection,
  WelcomeMessageInputSchema,
  type WelcomePointerWrapperAlgorithm,
  type WelcomeWrapperAlgorithm
} from "../gen/xmtp/mls/api/v1/mls_pb.ts"

/** A request: where it goes, and its protobuf message. */
export interface Request {
  readonly path: string
  readonly message: Uint8Array
}

const pathOf = (method: DescMethod): string => `/${method.parent.typeName}/${method.name}`

const request = <I extends DescMessage>(
  method: DescMethod & { readonly input: I },
  init: MessageInitShape<I>
): Request => ({
  path: pathOf(method),
  message: toBinary(method.input, create(method.input, init))
})

/** `is_inbox_id_credential` is true, as in every client since inboxes are. */
export const uploadKeyPackage = (keyPackageTlsSerialized: Uint8Array): Request =>
  request(MlsApi.method.uploadKeyPackage, { keyPackage: { keyPackageTlsSerialized }, isInboxIdCredential: true })

export const fetchKeyPackages = (ids: ReadonlyArray<InstallationId.InstallationId>): Request =>
  request(MlsApi.method.fetchKeyPackages, { installationKeys: ids.map(InstallationId.toPublicKey) })

/** The update travels as the bytes that it is. */
export const publishIdentityUpdate = (identityUpdate: Uint8Array): Request =>
  request(IdentityApi.method.publishIdentityUpdate, { identityUpdate })

export const getIdentityUpdates = (requests: ReadonlyArray<IdentityUpdatesRequest>): Request =>
  request(IdentityApi.method.getIdentityUpdates, {
    requests: requests.map(({ after, inboxId }) => ({ inboxId, sequenceId: after }))
  })

/** An identifier as the node compares it: addresses in lower case. */
export const identifierText = (identifier: Identifier): string =>
  identifier._tag === "Ethereum" ? identifier.address.toLowerCase() : identifier.publicKey

export const getInboxIds = (identifiers: ReadonlyArray<Identifier>): Request =>
  request(IdentityApi.method.getInboxIds, {
    requests: identifiers.map((identifier) => ({
      identifier: identifierText(identifier),
      identifierKind: identifier._tag === "Ethereum" ? IdentifierKind.ETHEREUM : IdentifierKind.PASSKEY
    }))
  })

export const verifySmartContractWalletSignatures = (questions: ReadonlyArray<SmartContractWalletQuestion>): Request =>
  request(IdentityApi.method.verifySmartContractWalletSignatures, {
    signatures: questions.map(({ address, blockNumber, chainId, hash, signature }) => ({
      accountId: `${chainId}:${address}`,
      blockNumber,
      signature,
      hash
    }))
  })

/** What is asked for, with the limit that a node would make of it: a whole number of 1 to 100. */
export interface PageBounds {
  readonly after: bigint
  readonly limit: number
}

export const pageBounds = ({ after, limit = limits.entriesPerPage }: PageRequest): PageBounds => ({
  after,
  limit: Math.max(1, Math.min(limits.entriesPerPage, Math.floor(limit)))
})

const paging = ({ after, limit }: PageBounds) => ({ direction: SortDirection.ASCENDING, idCursor: after, limit })

export const queryWelcomeMessages = (installationKey: Uint8Array, page: PageBounds): Request =>
  request(MlsApi.method.queryWelcomeMessages, { installationKey, pagingInfo: paging(page) })

export const subscribeWelcomeMessages = (installationKey: Uint8Array, after: bigint): Request =>
  request(MlsApi.method.subscribeWelcomeMessages, { filters: [{ installationKey, idCursor: after }] })

const toProtoWelcome = (input: WelcomeMessageInput): MessageInitShape<typeof WelcomeMessageInputSchema> => {
  // Numbers stay what they are: the enums are open, and an algorithm may be newer than this version.
  if (input._tag === "Welcome") {
    const { data, hpkePublicKey, installationKey, welcomeMetadata } = input
    const wrapperAlgorithm = input.wrapperAlgorithm as WelcomeWrapperAlgorithm
    return {
      version: { case: "v1", value: { installationKey, data, hpkePublicKey, wrapperAlgorithm, welcomeMetadata } }
    }
  }
  const { hpkePublicKey, installationKey, welcomePointer } = input
  const wrapperAlgorithm = input.wrapperAlgorithm as WelcomePointerWrapperAlgorithm
  return {
    version: { case: "welcomePointer", value: { installationKey, welcomePointer, hpkePublicKey, wrapperAlgorithm } }
  }
}

/**
 * Messages in few requests: each has as many as fit, in order. Field 1 of the request is the list, as in every call that
 * sends several.
 */
const inRequests = (method: DescMethod, messages: ReadonlyArray<Uint8Array>): ReadonlyArray<Request> => {
  const requests: Array<Request> = []
  let parts: Array<Uint8Array> = []
  let length = 0
  const flush = () => {
    if (parts.length === 0) return
    requests.push({ path: pathOf(method), message: concat(parts, length) })
    parts = []
    length = 0
  }
  for (const message of messages) {
    const part = new BinaryWriter().tag(1, WireType.LengthDelimited).bytes(message).finish()
    if (length + part.length > limits.messageBytes) flush()
    parts.push(part)
    length += part.length
  }
  flush()
  return requests
}

const concat = (parts: ReadonlyArray<Uint8Array>, length: number): Uint8Array => {
  const whole = new Uint8Array(length)
  let offset = 0
  for (const part of parts) {
    whole.set(part, offset)
    offset += part.length
  }
  return whole
}

export const sendWelcomeMessages = (inputs: ReadonlyArray<WelcomeMessageInput>): ReadonlyArray<Request> =>
  inRequests(
    MlsApi.method.sendWelcomeMessages,
    inputs.map((input) => toBinary(WelcomeMessageInputSchema, create(WelcomeMessageInputSchema, toProtoWelcome(input))))
  )

export const queryGroupMessages = (groupId: Uint8Array, page: PageBounds): Request =>
  request(MlsApi.method.queryGroupMessages, { groupId, pagingInfo: paging(page) })

export const subscribeGroupMessages = (groups: ReadonlyArray<GroupSubscription>): Request =>
  request(MlsApi.method.subscribeGroupMessages, {
    filters: groups.map(({ after, groupId }) => ({ groupId, idCursor: after }))
  })

export const sendGroupMessages = (inputs: ReadonlyArray<GroupMessageInput>): ReadonlyArray<Request> =>
  inRequests(
    MlsApi.method.sendGroupMessages,
    inputs.map(({ data, senderHmac, shouldPush }) =>
      toBinary(
        GroupMessageInputSchema,
        create(GroupMessageInputSchema, { version: { case: "v1", value: { data, senderHmac, shouldPush } } })
      )
    )
  )
