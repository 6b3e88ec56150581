/**
 * What the calls of the port say to a v3 node, as bytes.
 *
 * @since 1.0.0
 */
import { create, type DescMessage, type DescMethod, type MessageInitShape, toBinary } from "@bufbuild/protobuf"
import type { Identifier } from "@keyward/core/identity/Identifier"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import type { IdentityUpdatesRequest } from "@keyward/core/ports/ApiClient"
import type { SmartContractWalletQuestion } from "@keyward/core/ports/SmartContractWalletVerifier"
import { IdentifierKind, IdentityApi } from "../gen/xmtp/identity/api/v1/identity_pb.ts"
import { MlsApi } from "../gen/xmtp/mls/api/v1/mls_pb.ts"

/** A request: where it goes, and its protobuf message. */
export interface Request {
  readonly path: string
  readonly message: Uint8Array
}

const request = <I extends DescMessage>(
  method: DescMethod & { readonly input: I },
  init: MessageInitShape<I>
): Request => ({
  path: `/${method.parent.typeName}/${method.name}`,
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
