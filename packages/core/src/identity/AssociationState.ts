/**
 * Who belongs to an inbox: the state that a log adds up to, and the rules by which it does.
 *
 * @since 1.0.0
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as hex from "../internal/hex.ts"
import { type AssociationReason, IdentityAssociationError } from "./IdentityError.ts"
import type {
  UnsignedAddAssociation,
  UnsignedChangeRecoveryIdentifier,
  UnsignedCreateInbox,
  UnsignedRevokeAssociation
} from "./IdentityUpdate.ts"
import { deriveVerbatim, type InboxId } from "./InboxId.ts"
import { fromPublicKey, type InstallationId } from "./InstallationId.ts"
import * as MemberIdentifier from "./MemberIdentifier.ts"
import type { VerifiedSignature } from "./signature/VerifiedSignature.ts"

/**
 * A member and how it came in.
 *
 * @since 1.0.0
 * @category models
 */
export interface Member {
  readonly identifier: MemberIdentifier.MemberIdentifier
  /** Who added it; nothing for the founder. */
  readonly addedBy: MemberIdentifier.MemberIdentifier | undefined
  /** The client's time of the update that added it, nanoseconds since 1970; nothing for the founder. */
  readonly clientTimestampNs: bigint | undefined
  /** The chain of a smart contract wallet, which may never change. */
  readonly addedOnChainId: bigint | undefined
}

/**
 * The state of an inbox at some entry of its log. A value: nothing changes it.
 *
 * @since 1.0.0
 * @category models
 */
export interface AssociationState {
  readonly inboxId: InboxId
  /** By `MemberIdentifier.toKey`. */
  readonly members: ReadonlyMap<string, Member>
  /** Who may revoke and change the recovery identifier, member or not. */
  readonly recoveryIdentifier: MemberIdentifier.RootIdentifier
  /** The signatures that may not come again, lower-case hex. Part of the state: without it a cached state would take a replay. */
  readonly seenSignatures: ReadonlySet<string>
}

/**
 * An action whose signatures have been verified.
 *
 * @since 1.0.0
 * @category models
 */
export type VerifiedAction =
  | { readonly unsigned: UnsignedCreateInbox; readonly initial: VerifiedSignature }
  | { readonly unsigned: UnsignedAddAssociation; readonly existing: VerifiedSignature; readonly new: VerifiedSignature }
  | { readonly unsigned: UnsignedRevokeAssociation; readonly recovery: VerifiedSignature }
  | { readonly unsigned: UnsignedChangeRecoveryIdentifier; readonly recovery: VerifiedSignature }

/**
 * An update whose signatures have been verified.
 *
 * @since 1.0.0
 * @category models
 */
export interface VerifiedUpdate {
  readonly inboxId: string
  readonly clientTimestampNs: bigint
  readonly actions: ReadonlyArray<VerifiedAction>
}

/** A state that is being built: owned by one call of `applyAll`, and dropped whole when any update fails. */
interface Draft {
  readonly inboxId: InboxId
  readonly members: Map<string, Member>
  recoveryIdentifier: MemberIdentifier.RootIdentifier
  readonly seenSignatures: Set<string>
  /**
   * The keys of installations by the key of who added them, made when it is first needed. A key may be out of date: the
   * member says who added it.
   */
  installationsOf: Map<string, Set<string>> | undefined
}

/** Thrown inside `applyAll` alone. */
class Violation {
  readonly reason: AssociationReason
  readonly detail: string | undefined
  constructor(reason: AssociationReason, detail?: string) {
    this.reason = reason
    this.detail = detail
  }
}

const allowedKinds: Record<MemberIdentifier.MemberKind, ReadonlyArray<VerifiedSignature["kind"]>> = {
  Ethereum: ["erc-191", "erc-1271", "legacy-delegated"],
  Installation: ["installation-key"],
  Passkey: ["p256"]
}

const requireAllowedKind = (role: MemberIdentifier.MemberKind, signature: VerifiedSignature): void => {
  if (!allowedKinds[role].includes(signature.kind)) {
    throw new Violation("SignatureNotAllowed", `${signature.kind} for ${role}`)
  }
}

const isLegacy = (signature: VerifiedSignature): boolean => signature.kind === "legacy-delegated"

const requireUnseen = (draft: Draft, signature: VerifiedSignature): void => {
  if (draft.seenSignatures.has(signature.replayKey)) throw new Violation("Replay")
}

const requireSameChain = (member: Member, signature: VerifiedSignature): void => {
  if (member.addedOnChainId !== signature.chainId) {
    throw new Violation(
      "ChainIdMismatch",
      `added with ${member.addedOnChainId ?? 0n}, signs with ${signature.chainId ?? 0n}`
    )
  }
}

const inboxOf = (identifier: MemberIdentifier.RootIdentifier, nonce: bigint): InboxId =>
  Option.getOrThrowWith(
    deriveVerbatim(identifier, nonce),
    () => new Violation("InvalidAccountAddress", "not 0x and 40 hex digits")
  )

const createInbox = (
  draft: Draft | undefined,
  { owner, nonce }: UnsignedCreateInbox,
  initial: VerifiedSignature
): Draft => {
  if (draft !== undefined) throw new Violation("MultipleCreate")
  if (!MemberIdentifier.equals(initial.signer, owner)) throw new Violation("MissingExistingMember")
  requireAllowedKind(owner._tag, initial)
  if (isLegacy(initial) && nonce !== 0n) throw new Violation("LegacySignatureReuse")
  const founder: Member = {
    identifier: owner,
    addedBy: undefined,
    clientTimestampNs: undefined,
    addedOnChainId: initial.chainId
  }
  return {
    inboxId: inboxOf(owner, nonce),
    members: new Map([[MemberIdentifier.toKey(owner), founder]]),
    recoveryIdentifier: owner,
    seenSignatures: new Set(),
    installationsOf: undefined
  }
}

/** The order of the checks is libxmtp's (`association_log.rs`, `AddAssociation::update_state`). */
const addAssociation = (
  draft: Draft,
  { newMember }: UnsignedAddAssociation,
  signatures: { readonly existing: VerifiedSignature; readonly new: VerifiedSignature },
  clientTimestampNs: bigint
): void => {
  requireUnseen(draft, signatures.existing)
  requireUnseen(draft, signatures.new)
  const adder = signatures.existing.signer
  if (!MemberIdentifier.equals(signatures.new.signer, newMember)) throw new Violation("NewMemberIdSignatureMismatch")
  if (MemberIdentifier.equals(signatures.new.signer, adder)) throw new Violation("AddSelf")
  if (adder._tag !== "Installation" && (isLegacy(signatures.new) || isLegacy(signatures.existing))) {
    if (draft.inboxId !== inboxOf(adder, 0n)) throw new Violation("LegacySignatureReuse")
  }
  requireAllowedKind(newMember._tag, signatures.new)
  const member = draft.members.get(MemberIdentifier.toKey(adder))
  if (member !== undefined) {
    requireSameChain(member, signatures.existing)
  } else {
    if (!MemberIdentifier.equals(adder, draft.recoveryIdentifier)) throw new Violation("MissingExistingMember")
    if (isLegacy(signatures.existing)) throw new Violation("LegacySignatureReuse")
  }
  const parent = member?.identifier ?? draft.recoveryIdentifier
  requireAllowedKind(parent._tag, signatures.existing)
  if (adder._tag === "Installation" && newMember._tag === "Installation") {
    throw new Violation("MemberNotAllowed", "an installation may not add an installation")
  }
  noteInstallation(draft, MemberIdentifier.toKey(parent), newMember)
  draft.members.set(MemberIdentifier.toKey(newMember), {
    identifier: signatures.new.signer,
    addedBy: parent,
    clientTimestampNs,
    addedOnChainId: signatures.new.chainId
  })
}

/** What revoking and changing the recovery identifier ask alike. */
const requireRecovery = (draft: Draft, signature: VerifiedSignature): void => {
  requireUnseen(draft, signature)
  const member = draft.members.get(MemberIdentifier.toKey(signature.signer))
  if (member !== undefined) requireSameChain(member, signature)
  if (isLegacy(signature)) throw new Violation("SignatureNotAllowed", "legacy-delegated for Ethereum")
  if (!MemberIdentifier.equals(signature.signer, draft.recoveryIdentifier)) throw new Violation("MissingExistingMember")
}

const noteInstallation = (
  draft: Pick<Draft, "installationsOf">,
  parent: string,
  member: MemberIdentifier.MemberIdentifier
): void => {
  if (member._tag !== "Installation" || draft.installationsOf === undefined) return
  const known = draft.installationsOf.get(parent)
  const key = MemberIdentifier.toKey(member)
  if (known === undefined) draft.installationsOf.set(parent, new Set([key]))
  else known.add(key)
}

/** A log may revoke as often as it has members: looking at all of them each time would take minutes. */
const installationsOf = (draft: Draft, parent: string): ReadonlySet<string> => {
  if (draft.installationsOf === undefined) {
    draft.installationsOf = new Map()
    for (const { addedBy, identifier } of draft.members.values()) {
      if (addedBy !== undefined) noteInstallation(draft, MemberIdentifier.toKey(addedBy), identifier)
    }
  }
  return draft.installationsOf.get(parent) ?? new Set()
}

const revokeAssociation = (draft: Draft, { member }: UnsignedRevokeAssociation, recovery: VerifiedSignature): void => {
  requireRecovery(draft, recovery)
  const parent = MemberIdentifier.toKey(member)
  draft.members.delete(parent)
  // Only installations go with their parent: its wallets, and what those added, stay.
  for (const key of installationsOf(draft, parent)) {
    const addedBy = draft.members.get(key)?.addedBy
    if (addedBy !== undefined && MemberIdentifier.toKey(addedBy) === parent) draft.members.delete(key)
  }
  draft.installationsOf?.delete(parent)
}

const signaturesOf = (action: VerifiedAction): ReadonlyArray<VerifiedSignature> =>
  "initial" in action ? [action.initial] : "new" in action ? [action.existing, action.new] : [action.recovery]

const applyAction = (draft: Draft | undefined, action: VerifiedAction, clientTimestampNs: bigint): Draft => {
  if ("initial" in action) return createInbox(draft, action.unsigned, action.initial)
  if (draft === undefined) throw new Violation("NotCreated")
  if ("new" in action) addAssociation(draft, action.unsigned, action, clientTimestampNs)
  else if (action.unsigned._tag === "RevokeAssociation") revokeAssociation(draft, action.unsigned, action.recovery)
  else {
    requireRecovery(draft, action.recovery)
    draft.recoveryIdentifier = action.unsigned.newRecoveryIdentifier
  }
  return draft
}

/**
 * Applies verified updates in their order to a state, or to nothing where the log starts. All or nothing: the first update
 * that breaks a rule fails all of them (libxmtp `associations/mod.rs`, `get_state`).
 *
 * @since 1.0.0
 * @category transitions
 */
export const applyAll = (
  state: AssociationState | undefined,
  updates: ReadonlyArray<VerifiedUpdate>
): Either.Either<AssociationState, IdentityAssociationError> => {
  let draft: Draft | undefined =
    state === undefined
      ? undefined
      : {
          inboxId: state.inboxId,
          members: new Map(state.members),
          recoveryIdentifier: state.recoveryIdentifier,
          seenSignatures: new Set(state.seenSignatures),
          installationsOf: undefined
        }
  let updateIndex: number | undefined
  let actionIndex: number | undefined
  try {
    for (const [index, { actions, clientTimestampNs, inboxId }] of updates.entries()) {
      updateIndex = index
      for (const [at, action] of actions.entries()) {
        actionIndex = at
        draft = applyAction(draft, action, clientTimestampNs)
      }
      actionIndex = undefined
      if (draft === undefined) throw new Violation("NotCreated")
      if (draft.inboxId !== inboxId) throw new Violation("WrongInboxId", `the log makes ${draft.inboxId}`)
      // Only now: within one update the same signature may serve several actions.
      for (const action of actions) {
        for (const { replayKey } of signaturesOf(action)) draft.seenSignatures.add(replayKey)
      }
    }
    if (draft === undefined) throw new Violation("NotCreated", "the log is empty")
    const { inboxId, members, recoveryIdentifier, seenSignatures } = draft
    return Either.right({ inboxId, members, recoveryIdentifier, seenSignatures })
  } catch (violation) {
    if (!(violation instanceof Violation)) throw violation
    const { detail, reason } = violation
    return Either.left(new IdentityAssociationError({ updateIndex, actionIndex, reason, detail }))
  }
}

/**
 * The member of this identifier, if it is one.
 *
 * @since 1.0.0
 * @category queries
 */
export const getMember = (
  state: AssociationState,
  identifier: MemberIdentifier.MemberIdentifier
): Option.Option<Member> => Option.fromNullable(state.members.get(MemberIdentifier.toKey(identifier)))

/**
 * Whether this identifier is a member.
 *
 * @since 1.0.0
 * @category queries
 */
export const isMember = (state: AssociationState, identifier: MemberIdentifier.MemberIdentifier): boolean =>
  state.members.has(MemberIdentifier.toKey(identifier))

/**
 * Whether this installation is a member.
 *
 * @since 1.0.0
 * @category queries
 */
export const hasInstallation = (state: AssociationState, installationId: InstallationId): boolean =>
  isMember(state, MemberIdentifier.installation(installationId))

/**
 * All members, oldest first by the clients' clocks, the founder last (libxmtp `state.rs`, `members`).
 *
 * @since 1.0.0
 * @category queries
 */
export const members = (state: AssociationState): ReadonlyArray<Member> => {
  const age = (member: Member): bigint => member.clientTimestampNs ?? 0xffff_ffff_ffff_ffffn
  return [...state.members.values()].sort((a, b) => (age(a) < age(b) ? -1 : age(a) > age(b) ? 1 : 0))
}

/**
 * The ids of the installations, oldest first.
 *
 * @since 1.0.0
 * @category queries
 */
export const installationIds = (state: AssociationState): ReadonlyArray<InstallationId> =>
  members(state).flatMap(({ identifier }) =>
    identifier._tag === "Installation" ? [fromPublicKey(hex.decode(identifier.publicKey))] : []
  )

/**
 * The wallets and passkeys that are members, oldest first, the founder last.
 *
 * @since 1.0.0
 * @category queries
 */
export const rootIdentifiers = (state: AssociationState): ReadonlyArray<MemberIdentifier.RootIdentifier> =>
  members(state).flatMap(({ identifier }) => (identifier._tag === "Installation" ? [] : [identifier]))

/**
 * Whether a signature, as a log counts them (`VerifiedSignature.replayKey`), has been used in the log.
 *
 * @since 1.0.0
 * @category queries
 */
export const hasSeen = (state: AssociationState, signature: VerifiedSignature): boolean =>
  state.seenSignatures.has(signature.replayKey)

/**
 * Whether an update is part of the log that led to this state: every one of its signatures has been seen. A member may
 * have been removed since.
 *
 * @since 1.0.0
 * @category queries
 */
export const hasApplied = (state: AssociationState, update: VerifiedUpdate): boolean =>
  update.actions.every((action) => signaturesOf(action).every((signature) => hasSeen(state, signature)))

/** Measured on Node 20: a state without anything in it, what each member and each signature takes beside its text. */
const heap = { state: 700, member: 240, signature: 40 } as const

/** Addresses are any text, of which a letter may take two bytes; keys are ASCII. */
const heapOfText = (identifier: MemberIdentifier.MemberIdentifier | undefined): number => {
  switch (identifier?._tag) {
    case "Ethereum":
      return 2 * identifier.address.length
    case "Installation":
      return identifier.publicKey.length
    case "Passkey":
      return identifier.publicKey.length + 2 * (identifier.relyingParty?.length ?? 0)
    default:
      return 0
  }
}

/**
 * About how many bytes of memory the state takes: 2.5 KB where an inbox has two installations, half a megabyte for a
 * thousand members. For bounds; nothing is measured.
 *
 * @since 1.0.0
 * @category queries
 */
export const estimateBytes = ({ members, recoveryIdentifier, seenSignatures }: AssociationState): number => {
  let bytes = heap.state + heapOfText(recoveryIdentifier)
  // Each member is filed under a text of its own.
  for (const { addedBy, identifier } of members.values()) {
    bytes += heap.member + 2 * heapOfText(identifier) + heapOfText(addedBy)
  }
  for (const signature of seenSignatures) bytes += heap.signature + signature.length
  return bytes
}
