/**
 * The identity update that makes an installation a member of an inbox: asked of the wallet as a text, completed with its
 * signature, and verified here before anyone else sees it.
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import * as hex from "../internal/hex.ts"
import { Signer, type SignerError } from "../ports/Signer.ts"
import { type AssociationState, applyAll, type VerifiedAction, type VerifiedUpdate } from "./AssociationState.ts"
import { CurveBackend, type Operations } from "./CurveBackend.ts"
import type { Identifier } from "./Identifier.ts"
import * as IdentityUpdate from "./IdentityUpdate.ts"
import { defaultNonce, derive, type InboxId } from "./InboxId.ts"
import type { InstallationKey } from "./InstallationKey.ts"
import { equals, installation, type MemberIdentifier, toText } from "./MemberIdentifier.ts"
import * as SignatureText from "./SignatureText.ts"
import * as Erc191 from "./signature/Erc191.ts"
import * as InstallationSignature from "./signature/InstallationSignature.ts"
import type { Signature } from "./signature/Signature.ts"
import { SignedText } from "./signature/SignedText.ts"
import type { VerifiedSignature } from "./signature/VerifiedSignature.ts"

/**
 * Why a registration update was not handed out. Nothing was published.
 *
 * - `MalformedSignature`: the wallet's answer is no EIP-191 signature
 * - `WrongSigner`: the signature is another wallet's, or of another text, which looks the same: both recover another
 *   address. Also where the wallet at hand is not the one that was to be asked
 * - `WrongInstallationKey`: seed and id of the installation key do not belong together
 * - `NotAllowed`: the inbox, as it is known here, does not take this update
 *
 * @since 1.0.0
 * @category errors
 */
export class RegistrationUpdateError extends Schema.TaggedError<RegistrationUpdateError>(
  "@keyward/core/RegistrationUpdateError"
)("RegistrationUpdateError", {
  reason: Schema.Literal("MalformedSignature", "WrongSigner", "WrongInstallationKey", "NotAllowed"),
  /** Who was asked to sign. */
  expected: Schema.String,
  /** Who the signature says has signed, where it says anything. */
  recovered: Schema.optional(Schema.String),
  detail: Schema.optional(Schema.String),
  cause: Schema.optional(Schema.Defect)
}) {
  /** The same signature will not do better. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    const recovered = this.recovered === undefined ? "" : `, the signature is that of ${this.recovered}`
    return `${this.reason}: ${this.expected} was to sign${recovered}${this.detail === undefined ? "" : ` (${this.detail})`}`
  }
}

/**
 * What a registration consists of.
 *
 * @since 1.0.0
 * @category models
 */
export type RegistrationAction = IdentityUpdate.UnsignedCreateInbox | IdentityUpdate.UnsignedAddAssociation

/**
 * A registration before the wallet has signed. It holds the installation's private key (`Redacted`).
 *
 * @since 1.0.0
 * @category models
 */
export interface RegistrationRequest {
  readonly inboxId: InboxId
  /** The wallet that is to sign. */
  readonly owner: Identifier
  readonly installationKey: InstallationKey
  readonly update: {
    readonly inboxId: InboxId
    readonly clientTimestampNs: bigint
    readonly actions: ReadonlyArray<RegistrationAction>
  }
  /** What the wallet signs, once for all actions. */
  readonly text: string
  /** The inbox before the update, where it is known; nothing for a new inbox. */
  readonly state: AssociationState | undefined
}

const request = (
  fields: Omit<RegistrationRequest, "text" | "update">,
  clientTimestampNs: bigint,
  actions: ReadonlyArray<RegistrationAction>
): RegistrationRequest => {
  const update = { inboxId: fields.inboxId, clientTimestampNs, actions }
  return { ...fields, update, text: SignatureText.make(update) }
}

const addInstallation = (key: InstallationKey): IdentityUpdate.UnsignedAddAssociation => ({
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
  const { installationKey, nonce = defaultNonce, owner } = options
  return request(
    { inboxId: derive(owner, nonce), owner, installationKey, state: undefined },
    options.clientTimestampNs,
    [{ _tag: "CreateInbox", owner, nonce }, addInstallation(installationKey)]
  )
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
  const { inboxId, installationKey, owner, state } = options
  return request({ inboxId, owner, installationKey, state }, options.clientTimestampNs, [
    addInstallation(installationKey)
  ])
}

interface Signatures<A> {
  readonly wallet: A
  readonly installation: A
}

const signAction = (action: RegistrationAction, by: Signatures<Signature>): IdentityUpdate.Action =>
  action._tag === "CreateInbox"
    ? { ...action, initialSignature: by.wallet }
    : { ...action, existingMemberSignature: by.wallet, newMemberSignature: by.installation }

const verifiedAction = (action: RegistrationAction, by: Signatures<VerifiedSignature>): VerifiedAction =>
  action._tag === "CreateInbox"
    ? { unsigned: action, initial: by.wallet }
    : { unsigned: action, existing: by.wallet, new: by.installation }

const mismatch = (expected: MemberIdentifier, signer: MemberIdentifier) =>
  new RegistrationUpdateError({ reason: "WrongSigner", expected: toText(expected), recovered: toText(signer) })

const verifyWallet = (
  backend: Operations,
  { owner }: RegistrationRequest,
  text: SignedText,
  signature: Uint8Array
): Either.Either<VerifiedSignature, RegistrationUpdateError> =>
  Erc191.verify(backend, text.eip191Hash, signature).pipe(
    Either.mapLeft(
      ({ detail }) => new RegistrationUpdateError({ reason: "MalformedSignature", expected: toText(owner), detail })
    ),
    Either.filterOrLeft(
      ({ signer }) => equals(signer, owner),
      ({ signer }) => mismatch(owner, signer)
    )
  )

const verifyInstallation = (
  backend: Operations,
  { installationKey, owner }: RegistrationRequest,
  text: SignedText,
  signature: Uint8Array
): Either.Either<VerifiedSignature, RegistrationUpdateError> =>
  InstallationSignature.verify(backend, text.sha512, signature, hex.decode(installationKey.installationId)).pipe(
    Either.mapLeft(
      () =>
        new RegistrationUpdateError({
          reason: "WrongInstallationKey",
          expected: toText(owner),
          detail: `the seed is not that of ${installationKey.installationId}`
        })
    )
  )

/** The rules of the log, as far as its state is known here. */
const requireAllowed = (
  { inboxId, owner, state, update }: RegistrationRequest,
  verified: VerifiedUpdate
): Either.Either<void, RegistrationUpdateError> => {
  const founds = update.actions[0]?._tag === "CreateInbox"
  if (!founds && state === undefined) return Either.void
  return applyAll(state, [verified]).pipe(
    Either.filterOrLeft(
      (next) => next.inboxId === inboxId,
      () => undefined
    ),
    Either.mapBoth({
      onRight: () => undefined,
      onLeft: (cause) =>
        new RegistrationUpdateError({
          reason: "NotAllowed",
          expected: toText(owner),
          detail: cause?.reason ?? "UnexpectedInbox",
          cause
        })
    })
  )
}

/**
 * Completes a registration with the wallet's signature (r, s, v: 65 bytes) and the installation's own, verifies both and
 * the rules of the log, and gives the exact bytes of the `IdentityUpdate` to store and publish. The same request and
 * signature give the same bytes.
 *
 * @since 1.0.0
 * @category combinators
 */
export const complete = (
  request: RegistrationRequest,
  walletSignature: Uint8Array
): Effect.Effect<Uint8Array, RegistrationUpdateError> =>
  Effect.gen(function* () {
    const backend = yield* CurveBackend
    const { installationKey, text, update } = request
    const signedText = new SignedText(text)
    const wallet = yield* verifyWallet(backend, request, signedText, walletSignature)
    const bytes = InstallationSignature.sign(installationKey, InstallationSignature.contexts.identityUpdate, text)
    const byKey = yield* verifyInstallation(backend, request, signedText, bytes)
    const verified: Signatures<VerifiedSignature> = { wallet, installation: byKey }
    yield* requireAllowed(request, {
      ...update,
      actions: update.actions.map((action) => verifiedAction(action, verified))
    })
    const signatures: Signatures<Signature> = {
      wallet: { _tag: "Erc191", bytes: walletSignature },
      installation: { _tag: "InstallationKey", bytes, publicKey: hex.decode(installationKey.installationId) }
    }
    return IdentityUpdate.encode({ ...update, actions: update.actions.map((action) => signAction(action, signatures)) })
  })

/**
 * Asks the `Signer` for its signature of a registration and completes it. A signer that is not the owner is not asked.
 *
 * @since 1.0.0
 * @category combinators
 */
export const sign = (
  request: RegistrationRequest
): Effect.Effect<Uint8Array, SignerError | RegistrationUpdateError, Signer> =>
  Effect.gen(function* () {
    const signer = yield* Signer
    if (!equals(signer.identifier, request.owner)) return yield* mismatch(request.owner, signer.identifier)
    return yield* complete(request, yield* signer.signText(request.text))
  })
