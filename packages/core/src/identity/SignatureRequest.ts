/**
 * An identity update on its way to be signed: what it does, the text that all its signers sign, and who they are. Complete
 * with their signatures, and verified here, it becomes the bytes to publish.
 *
 * ```
 * request -> text -> signatures -> verified against signers and rules -> exact bytes
 * ```
 *
 * @since 1.0.0
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as hex from "../internal/hex.ts"
import type { Signer, SignerError } from "../ports/Signer.ts"
import type { SmartContractWalletVerifier } from "../ports/SmartContractWalletVerifier.ts"
import { type AssociationState, applyAll, type VerifiedAction, type VerifiedUpdate } from "./AssociationState.ts"
import { CurveBackend } from "./CurveBackend.ts"
import { verifySignature } from "./IdentityLog.ts"
import * as IdentityUpdate from "./IdentityUpdate.ts"
import type { InboxId } from "./InboxId.ts"
import { fromSeed, type InstallationKey } from "./InstallationKey.ts"
import {
  equals,
  installation,
  type MemberIdentifier,
  type MemberKind,
  type RootIdentifier,
  toKey,
  toText
} from "./MemberIdentifier.ts"
import * as SignatureText from "./SignatureText.ts"
import * as InstallationSignature from "./signature/InstallationSignature.ts"
import type { Signature } from "./signature/Signature.ts"
import { SignedText } from "./signature/SignedText.ts"
import type { VerifiedSignature } from "./signature/VerifiedSignature.ts"

/**
 * Why an identity update was not handed out. Nothing was published.
 *
 * - `MissingSigner`: one who is to sign is not at hand, so nobody was asked; or did not sign
 * - `WrongSigner`: the signature is of somebody who is not to sign, or of another text, which looks the same: both recover
 *   another address
 * - `MalformedSignature`: no signature of its kind
 * - `InvalidSignature`: well formed, and not a signature of this text
 * - `WrongInstallationKey`: seed and id of an installation key do not belong together
 * - `VerifierUnavailable`: a smart contract wallet could not be asked whether it signed
 * - `NotAllowed`: the inbox, as it is known here, does not take this update; `cause` says which rule it breaks
 *
 * @since 1.0.0
 * @category errors
 */
export class SignatureRequestError extends Schema.TaggedError<SignatureRequestError>(
  "@keyward/core/SignatureRequestError"
)("SignatureRequestError", {
  reason: Schema.Literal(
    "MissingSigner",
    "WrongSigner",
    "MalformedSignature",
    "InvalidSignature",
    "WrongInstallationKey",
    "VerifierUnavailable",
    "NotAllowed"
  ),
  /** Who is to sign. */
  expected: Schema.String,
  /** Who the signature says has signed, where it says anything. */
  recovered: Schema.optional(Schema.String),
  detail: Schema.optional(Schema.String),
  cause: Schema.optional(Schema.Defect)
}) {
  /** Whether the same signatures may do better later. */
  get isRetryable(): boolean {
    return this.reason === "VerifierUnavailable"
  }
  override get message(): string {
    const recovered = this.recovered === undefined ? "" : `, the signature is that of ${this.recovered}`
    return `${this.reason}: ${this.expected} was to sign${recovered}${this.detail === undefined ? "" : ` (${this.detail})`}`
  }
}

/**
 * An update before it is signed.
 *
 * @since 1.0.0
 * @category models
 */
export interface SignatureRequest {
  readonly inboxId: InboxId
  /** In whose right it is made: the founder, the member that adds, or the recovery identifier. */
  readonly authority: MemberIdentifier
  readonly update: IdentityUpdate.UnsignedIdentityUpdate
  /** What every signer signs, once for all actions. */
  readonly text: string
  /** Everybody who is to sign, the authority first, nobody twice. */
  readonly signers: ReadonlyArray<MemberIdentifier>
  /** The inbox before the update, where it is known; nothing for a new inbox. */
  readonly state: AssociationState | undefined
}

/**
 * A request for these actions, which have one authority.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (options: {
  readonly inboxId: InboxId
  readonly authority: MemberIdentifier
  readonly actions: ReadonlyArray<IdentityUpdate.UnsignedAction>
  /** Nanoseconds since 1970, unsigned 64-bit. The text shows whole seconds of it. */
  readonly clientTimestampNs: bigint
  /** With it, every rule of the log is checked before the update is handed out. */
  readonly state?: AssociationState | undefined
}): SignatureRequest => {
  const { actions, authority, clientTimestampNs, inboxId, state } = options
  const update = { inboxId, clientTimestampNs, actions }
  const added = actions.flatMap((action) => (action._tag === "AddAssociation" ? [action.newMember] : []))
  const signers = new Map([authority, ...added].map((member) => [toKey(member), member]))
  return { inboxId, authority, update, text: SignatureText.make(update), signers: [...signers.values()], state }
}

/** What every request to an inbox that exists needs. */
interface ToInbox {
  readonly inboxId: InboxId
  /** Nanoseconds since 1970, unsigned 64-bit. */
  readonly clientTimestampNs: bigint
  readonly state?: AssociationState | undefined
}

/**
 * Adds a member: a wallet, a passkey or an installation. Both the member that adds and the new one sign. An installation
 * may add wallets and passkeys; only those may add an installation.
 *
 * @since 1.0.0
 * @category constructors
 */
export const addMember = (
  options: ToInbox & { readonly existingMember: MemberIdentifier; readonly newMember: MemberIdentifier }
): SignatureRequest =>
  make({
    ...options,
    authority: options.existingMember,
    actions: [{ _tag: "AddAssociation", newMember: options.newMember }]
  })

/**
 * Removes members, all in one update that the recovery identifier signs once. The installations that a removed wallet
 * added go with it.
 *
 * @since 1.0.0
 * @category constructors
 */
export const revokeMembers = (
  options: ToInbox & {
    readonly recoveryIdentifier: RootIdentifier
    readonly members: ReadonlyArray<MemberIdentifier>
  }
): SignatureRequest =>
  make({
    ...options,
    authority: options.recoveryIdentifier,
    actions: options.members.map((member) => ({ _tag: "RevokeAssociation", member }))
  })

/**
 * Hands the right to revoke to another wallet or passkey, which does not sign and need not be a member. The recovery
 * identifier so far signs.
 *
 * @since 1.0.0
 * @category constructors
 */
export const changeRecoveryIdentifier = (
  options: ToInbox & {
    readonly recoveryIdentifier: RootIdentifier
    readonly newRecoveryIdentifier: RootIdentifier
  }
): SignatureRequest =>
  make({
    ...options,
    authority: options.recoveryIdentifier,
    actions: [{ _tag: "ChangeRecoveryIdentifier", newRecoveryIdentifier: options.newRecoveryIdentifier }]
  })

/**
 * An update with everybody's signature, verified: the bytes to store and to publish, and what they mean.
 *
 * @since 1.0.0
 * @category models
 */
export interface SignedUpdate {
  /** The `xmtp.identity.associations.IdentityUpdate` protobuf. */
  readonly bytes: Uint8Array
  readonly verified: VerifiedUpdate
}

type Check<A> = Either.Either<A, SignatureRequestError>

/** What a signer has given, once that is certain for all of them. */
type Given<A> = (signer: MemberIdentifier) => A

const collect = <A>(request: SignatureRequest, given: ReadonlyMap<string, A>): Check<Given<A>> => {
  const missing = request.signers.find((signer) => !given.has(toKey(signer)))
  return missing === undefined
    ? // Every signer of the request has just been found, and nobody else is asked for.
      Either.right((signer) => given.get(toKey(signer)) as A)
    : Either.left(new SignatureRequestError({ reason: "MissingSigner", expected: toText(missing) }))
}

const signAction = (
  action: IdentityUpdate.UnsignedAction,
  authority: MemberIdentifier,
  by: Given<Signature>
): IdentityUpdate.Action => {
  switch (action._tag) {
    case "CreateInbox":
      return { ...action, initialSignature: by(authority) }
    case "AddAssociation":
      return { ...action, existingMemberSignature: by(authority), newMemberSignature: by(action.newMember) }
    case "RevokeAssociation":
    case "ChangeRecoveryIdentifier":
      return { ...action, recoverySignature: by(authority) }
  }
}

const verifiedAction = (
  action: IdentityUpdate.UnsignedAction,
  authority: MemberIdentifier,
  by: Given<VerifiedSignature>
): VerifiedAction => {
  switch (action._tag) {
    case "CreateInbox":
      return { unsigned: action, initial: by(authority) }
    case "AddAssociation":
      return { unsigned: action, existing: by(authority), new: by(action.newMember) }
    case "RevokeAssociation":
      return { unsigned: action, recovery: by(authority) }
    case "ChangeRecoveryIdentifier":
      return { unsigned: action, recovery: by(authority) }
  }
}

const notAllowed = ({ authority }: SignatureRequest, detail: string, cause?: unknown) =>
  new SignatureRequestError({ reason: "NotAllowed", expected: toText(authority), detail, cause })

/** The rules of the log, as far as its state is known here. */
const requireAllowed = (request: SignatureRequest, by: Given<VerifiedSignature>): Check<VerifiedUpdate> => {
  const { authority, inboxId, state, update } = request
  const verified: VerifiedUpdate = {
    ...update,
    actions: update.actions.map((action) => verifiedAction(action, authority, by))
  }
  if (update.actions[0]?._tag !== "CreateInbox" && state === undefined) return Either.right(verified)
  return applyAll(state, [verified]).pipe(
    Either.mapLeft((cause) => notAllowed(request, cause.reason, cause)),
    Either.filterOrLeft(
      (next) => next.inboxId === inboxId,
      () => notAllowed(request, "UnexpectedInbox")
    ),
    Either.map(() => verified)
  )
}

const kindOfSigner: Record<Signature["_tag"], MemberKind> = {
  Erc191: "Ethereum",
  SmartContractWallet: "Ethereum",
  LegacyDelegated: "Ethereum",
  InstallationKey: "Installation",
  Passkey: "Passkey"
}

/** Who could have given a signature of this kind. */
const expectedOf = ({ signers }: SignatureRequest, { _tag }: Signature): string => {
  const able = signers.filter((signer) => signer._tag === kindOfSigner[_tag])
  return (able.length === 0 ? signers : able).map(toText).join(" or ")
}

const verify = Effect.fnUntraced(function* (request: SignatureRequest, text: SignedText, signature: Signature) {
  const backend = yield* CurveBackend
  const expected = expectedOf(request, signature)
  const verified = yield* Effect.mapError(verifySignature(backend, text, signature), (failure) => {
    if (failure === "InvalidKey") return new SignatureRequestError({ reason: "MalformedSignature", expected })
    const { cause, detail } = failure
    switch (failure.reason) {
      case "VerifierUnavailable":
        return new SignatureRequestError({ reason: "VerifierUnavailable", expected, detail, cause })
      case "Invalid":
        return new SignatureRequestError({ reason: "InvalidSignature", expected, detail })
      default:
        return new SignatureRequestError({ reason: "MalformedSignature", expected, detail })
    }
  })
  if (request.signers.some((signer) => equals(signer, verified.signer))) return verified
  return yield* new SignatureRequestError({ reason: "WrongSigner", expected, recovered: toText(verified.signer) })
})

/**
 * Completes a request with one signature of every signer, in any order; verifies them, and the rules of the log where its
 * state is known; and gives the exact bytes of the `IdentityUpdate`. The same request and signatures give the same bytes.
 *
 * @since 1.0.0
 * @category combinators
 */
export const complete = (
  request: SignatureRequest,
  signatures: ReadonlyArray<Signature>
): Effect.Effect<SignedUpdate, SignatureRequestError, SmartContractWalletVerifier> =>
  Effect.gen(function* () {
    const { authority, text, update } = request
    const signedText = new SignedText(text)
    const bySigner = new Map<string, Signature>()
    const verifiedBySigner = new Map<string, VerifiedSignature>()
    for (const signature of signatures) {
      const verified = yield* verify(request, signedText, signature)
      bySigner.set(toKey(verified.signer), signature)
      verifiedBySigner.set(toKey(verified.signer), verified)
    }
    const given = yield* collect(request, bySigner)
    const verified = yield* requireAllowed(request, yield* collect(request, verifiedBySigner))
    const actions = update.actions.map((action) => signAction(action, authority, given))
    return { bytes: IdentityUpdate.encode({ ...update, actions }), verified }
  })

/**
 * Somebody who can be asked to sign: a wallet, a passkey, or an installation whose private key is at hand (`Redacted`).
 *
 * @since 1.0.0
 * @category models
 */
export type Party = Context.Tag.Service<Signer> | InstallationKey

/**
 * Who the party is.
 *
 * @since 1.0.0
 * @category conversions
 */
export const identifierOf = (party: Party): MemberIdentifier =>
  "identifier" in party ? party.identifier : installation(party.installationId)

/** What the party's signature will have proven: enough to tell, before anybody is asked, what the log will say. */
const promised = (party: Party): VerifiedSignature => {
  const signer = identifierOf(party)
  const chainId = "signText" in party ? party.smartContractWallet?.chainId : undefined
  const kind =
    signer._tag === "Installation"
      ? "installation-key"
      : signer._tag === "Passkey"
        ? "p256"
        : chainId === undefined
          ? "erc-191"
          : "erc-1271"
  // No signature in hex, so it has never been seen.
  return { signer, kind, chainId, replayKey: `promised by ${toKey(signer)}` }
}

/**
 * The installation's own signature of a request. Fails with `WrongInstallationKey` where the seed is another key's.
 *
 * @since 1.0.0
 * @category signing
 */
export const signWithInstallationKey = (
  { text }: SignatureRequest,
  key: InstallationKey
): Either.Either<Signature, SignatureRequestError> => {
  const { installationId, seed } = key
  return fromSeed(Redacted.value(seed)).installationId === installationId
    ? Either.right({
        _tag: "InstallationKey",
        bytes: InstallationSignature.sign(key, InstallationSignature.contexts.identityUpdate, text),
        publicKey: hex.decode(installationId)
      })
    : Either.left(
        new SignatureRequestError({
          reason: "WrongInstallationKey",
          expected: installationId,
          detail: "the seed is another key's"
        })
      )
}

const ask = Effect.fnUntraced(function* (request: SignatureRequest, party: Party) {
  if (!("identifier" in party)) return yield* signWithInstallationKey(request, party)
  if ("assert" in party) {
    const { authenticatorData, clientDataJson, signature } = yield* party.assert(new SignedText(request.text).bytes)
    const publicKey = hex.decode(party.identifier.publicKey)
    return { _tag: "Passkey", publicKey, bytes: signature, authenticatorData, clientDataJson } satisfies Signature
  }
  const { identifier, signText, smartContractWallet } = party
  if (identifier._tag === "Passkey") {
    return yield* new SignatureRequestError({
      reason: "MissingSigner",
      expected: toText(identifier),
      detail: "a passkey answers with an assertion, not with a signature of the text"
    })
  }
  const bytes = yield* signText(request.text)
  if (smartContractWallet === undefined) return { _tag: "Erc191", bytes } satisfies Signature
  return {
    _tag: "SmartContractWallet",
    accountId: { chainId: `eip155:${smartContractWallet.chainId}`, address: identifier.address },
    blockNumber: yield* smartContractWallet.blockNumber,
    bytes
  } satisfies Signature
})

/**
 * Asks the parties for their signatures, one after the other, and completes the request. Nobody is asked where a signer is
 * missing or the log would refuse the update anyway.
 *
 * @since 1.0.0
 * @category combinators
 */
export const sign = (
  request: SignatureRequest,
  parties: ReadonlyArray<Party>
): Effect.Effect<SignedUpdate, SignerError | SignatureRequestError, SmartContractWalletVerifier> =>
  Effect.gen(function* () {
    const present = yield* collect(request, new Map(parties.map((party) => [toKey(identifierOf(party)), party])))
    yield* requireAllowed(request, (signer) => promised(present(signer)))
    return yield* complete(request, yield* Effect.forEach(request.signers, (signer) => ask(request, present(signer))))
  })
