/**
 * The identity update that makes an installation a member of an inbox: the wallet's signature, the installation's own.
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"
import { Signer, type SignerError } from "../ports/Signer.ts"
import type { SmartContractWalletVerifier } from "../ports/SmartContractWalletVerifier.ts"
import type { AssociationState } from "./AssociationState.ts"
import type { Identifier } from "./Identifier.ts"
import type { UnsignedAddAssociation } from "./IdentityUpdate.ts"
import { defaultNonce, derive, type InboxId } from "./InboxId.ts"
import type { InstallationKey } from "./InstallationKey.ts"
import { installation } from "./MemberIdentifier.ts"
import * as SignatureRequest from "./SignatureRequest.ts"

/**
 * A registration before the wallet has signed. It holds the installation's private key (`Redacted`).
 *
 * @since 1.0.0
 * @category models
 */
export interface RegistrationRequest extends SignatureRequest.SignatureRequest {
  readonly installationKey: InstallationKey
}

const addInstallation = (key: InstallationKey): UnsignedAddAssociation => ({
  _tag: "AddAssociation",
  newMember: installation(key.installationId)
})

/**
 * Founds an inbox with the wallet as its owner and adds the installation, in one update
 * (`xmtp_mls/src/identity.rs`, `create_identity`). A nonce outside 64 bits throws.
 *
 * @since 1.0.0
 * @category constructors
 */
export const createInbox = (options: {
  readonly owner: Identifier
  /** Which of the owner's inboxes; `InboxId.defaultNonce` unless said otherwise. */
  readonly nonce?: bigint | undefined
  readonly installationKey: InstallationKey
  /** Nanoseconds since 1970, unsigned 64-bit. */
  readonly clientTimestampNs: bigint
}): RegistrationRequest => {
  const { clientTimestampNs, installationKey, nonce = defaultNonce, owner } = options
  const request = SignatureRequest.make({
    inboxId: derive(owner, nonce),
    authority: owner,
    clientTimestampNs,
    actions: [{ _tag: "CreateInbox", owner, nonce }, addInstallation(installationKey)]
  })
  return { ...request, installationKey }
}

/**
 * Adds the installation to an inbox that exists. The wallet must be a member of it or its recovery identifier; given the
 * inbox's state, that and every other rule is checked before the update is handed out.
 *
 * @since 1.0.0
 * @category constructors
 */
export const joinInbox = (options: {
  readonly inboxId: InboxId
  readonly owner: Identifier
  readonly installationKey: InstallationKey
  /** Nanoseconds since 1970, unsigned 64-bit. */
  readonly clientTimestampNs: bigint
  readonly state?: AssociationState | undefined
}): RegistrationRequest => {
  const { clientTimestampNs, inboxId, installationKey, owner, state } = options
  const request = SignatureRequest.make({
    inboxId,
    authority: owner,
    clientTimestampNs,
    actions: [addInstallation(installationKey)],
    state
  })
  return { ...request, installationKey }
}

/**
 * Completes a registration with the wallet's EIP-191 signature (r, s, v: 65 bytes) and the installation's own, and gives
 * the exact bytes of the `IdentityUpdate` to store and publish. Other kinds of wallets: `SignatureRequest.complete`.
 *
 * @since 1.0.0
 * @category combinators
 */
export const complete = (
  request: RegistrationRequest,
  walletSignature: Uint8Array
): Effect.Effect<Uint8Array, SignatureRequest.SignatureRequestError, SmartContractWalletVerifier> =>
  Effect.gen(function* () {
    const byKey = yield* SignatureRequest.signWithInstallationKey(request, request.installationKey)
    const { bytes } = yield* SignatureRequest.complete(request, [{ _tag: "Erc191", bytes: walletSignature }, byKey])
    return bytes
  })

/**
 * Asks the `Signer` for its signature of a registration and completes it. A signer that is not the owner is not asked.
 *
 * @since 1.0.0
 * @category combinators
 */
export const sign = (
  request: RegistrationRequest
): Effect.Effect<
  Uint8Array,
  SignerError | SignatureRequest.SignatureRequestError,
  Signer | SmartContractWalletVerifier
> =>
  Effect.gen(function* () {
    const { bytes } = yield* SignatureRequest.sign(request, [yield* Signer, request.installationKey])
    return bytes
  })
