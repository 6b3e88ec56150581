/**
 * Why a Welcome does not open. Whatever a stranger sends ends in one of these; none of them deletes anything.
 *
 * @since 1.0.0
 */
import * as Schema from "effect/Schema"
import { InboxId } from "../identity/InboxId.ts"
import { InstallationId } from "../identity/InstallationId.ts"
import type { AssociationStateError } from "../peers/AssociationStates.ts"

/**
 * A ciphertext does not open with the key that it names: the wrong key, or changed bytes; nobody can tell which.
 *
 * - `KemOutput`: what should carry the shared secret cannot
 * - `Data`: the tag does not fit
 * - `Metadata`: the Welcome's tag fits and its metadata's does not
 *
 * @since 1.0.0
 * @category errors
 */
export class UnwrapFailed extends Schema.TaggedError<UnwrapFailed>("@keyward/core/UnwrapFailed")("UnwrapFailed", {
  /** Which ciphertext: XMTP's around the Welcome, the shared one of a pointer, or one of the two inside the Welcome. */
  layer: Schema.Literal("Wrapper", "Pointee", "GroupSecrets", "GroupInfo"),
  part: Schema.Literal("KemOutput", "Data", "Metadata")
}) {
  override get message(): string {
    return `the Welcome's ${this.layer} does not open: ${this.part}`
  }
  /** The same bytes and the same key never do. */
  readonly isRetryable = false
}

/**
 * What a Welcome is made of, from the outside in.
 *
 * @since 1.0.0
 * @category models
 */
export const WelcomePart = Schema.Literal(
  "HpkeCiphertext",
  "WelcomePointer",
  "Pointee",
  "Welcome",
  "GroupSecrets",
  "GroupInfo",
  "RatchetTree",
  "GroupMembership",
  "GroupMetadata",
  "KeyPackage"
)

/**
 * @since 1.0.0
 * @category models
 */
export type WelcomePart = typeof WelcomePart.Type

/**
 * What is wrong with a part.
 *
 * - `EndOfStream`, `InvalidVectorLength`, `TrailingData`, `UnknownVariant`, `NotProtobuf`: it cannot be read
 * - `TooLarge`: larger than any group of XMTP
 * - `WrongLength`: a key or nonce of another length
 * - `NotAWelcome`: another message of MLS, or a pointer where the Welcome should be
 * - `OtherKeyPackage`: it is not for the key package that it was wrapped to
 * - `DuplicateExtension`, `ExtensionOutOfPlace`, `MissingExtension`
 * - `NodeOutOfPlace`, `InvalidUnmergedLeaves`, `DuplicateKey`, `MissingCapability`, `InvalidParentHash`,
 *   `TreeHashMismatch`, `InvalidLeafSignature`: the tree is not one (RFC 9420 section 12.4.3.1)
 * - `NoSuchSigner`, `InvalidSignature`, `ConfirmationTagMismatch`, `PathSecretMismatch`: the sender does not know the group
 * - `NotInTree`: our key package's leaf is not in the tree
 * - `InvalidInboxId`: a name of a member that is no inbox id
 * - `NotThisPair`: a DM that is not between its sender and us
 * - `DmWithAdmins`: a DM in which somebody is more than the other
 *
 * @since 1.0.0
 * @category models
 */
export const MalformedReason = Schema.Literal(
  "EndOfStream",
  "InvalidVectorLength",
  "TrailingData",
  "UnknownVariant",
  "NotProtobuf",
  "TooLarge",
  "WrongLength",
  "NotAWelcome",
  "OtherKeyPackage",
  "DuplicateExtension",
  "ExtensionOutOfPlace",
  "MissingExtension",
  "NodeOutOfPlace",
  "InvalidUnmergedLeaves",
  "DuplicateKey",
  "MissingCapability",
  "InvalidParentHash",
  "TreeHashMismatch",
  "InvalidLeafSignature",
  "NoSuchSigner",
  "InvalidSignature",
  "ConfirmationTagMismatch",
  "PathSecretMismatch",
  "NotInTree",
  "InvalidInboxId",
  "NotThisPair",
  "DmWithAdmins"
)

/**
 * @since 1.0.0
 * @category models
 */
export type MalformedReason = typeof MalformedReason.Type

/**
 * The Welcome opened and is not what libxmtp would accept. Its sender made it so.
 *
 * @since 1.0.0
 * @category errors
 */
export class MalformedWelcome extends Schema.TaggedError<MalformedWelcome>("@keyward/core/MalformedWelcome")(
  "MalformedWelcome",
  {
    part: WelcomePart,
    reason: MalformedReason,
    /** Where, in bytes from the start of the part or as a node of the tree, where that says something. */
    at: Schema.optional(Schema.Number)
  }
) {
  override get message(): string {
    return `the Welcome's ${this.part} is malformed: ${this.reason}${this.at === undefined ? "" : ` at ${this.at}`}`
  }
  /** The same bytes never join. */
  readonly isRetryable = false
}

/**
 * The Welcome uses something that this version does not know. A later one may open it, so its keys are worth keeping.
 *
 * @since 1.0.0
 * @category errors
 */
export class NotYetUnderstood extends Schema.TaggedError<NotYetUnderstood>("@keyward/core/NotYetUnderstood")(
  "NotYetUnderstood",
  {
    feature: Schema.Literal(
      "EntryKind",
      "WrapperAlgorithm",
      "PointerVersion",
      "PointeeCipher",
      "ProtocolVersion",
      "WireFormat",
      "Ciphersuite",
      "PreSharedKey",
      "GroupContextExtension",
      "RequiredCapability",
      "MigratedGroup",
      "ConversationType"
    ),
    /** The number that stands for it. */
    value: Schema.Number
  }
) {
  override get message(): string {
    return `the Welcome needs a ${this.feature} that is not known here: 0x${this.value.toString(16)}`
  }
  /** Not by this version. */
  readonly isRetryable = false
}

/**
 * The group says something of its members that their inboxes do not say (libxmtp `validated_membership.rs`).
 *
 * - `InvalidCredential`: the leaf's credential names no inbox
 * - `NotInGroup`: the inbox is not in the group's list of members
 * - `NotAnInstallation`: at the sequence id that the group states, the inbox did not have this installation
 * - `MissingFromTree`: the inbox had this installation, and it is neither in the tree nor among those that could not be added
 * - `NoSuchInbox`: the inbox's log is not valid, or went past that sequence id without it
 *
 * @since 1.0.0
 * @category errors
 */
export class MemberNotAuthorized extends Schema.TaggedError<MemberNotAuthorized>("@keyward/core/MemberNotAuthorized")(
  "MemberNotAuthorized",
  {
    /** As the leaf or the list has it: any text, cut to 64 characters. */
    inboxId: Schema.optional(Schema.String),
    /** The leaf's signature key in hex, which is an installation id if it has 32 bytes. */
    installationId: Schema.optional(Schema.String),
    /** Counted from 0 at the left of the tree. */
    leafIndex: Schema.optional(Schema.Number),
    reason: Schema.Literal("InvalidCredential", "NotInGroup", "NotAnInstallation", "MissingFromTree", "NoSuchInbox"),
    /** What the inbox's log had to say. */
    cause: Schema.optional(Schema.Defect)
  }
) {
  override get message(): string {
    return `installation ${this.installationId ?? "?"} of inbox ${this.inboxId ?? "?"} may not be in the group: ${this.reason}`
  }
  /** A state at a sequence id never changes. */
  readonly isRetryable = false
}

/**
 * The members could not be checked, so nothing was decided: open the same Welcome again later. The node could not be asked, or
 * does not show the update yet that the group speaks of.
 *
 * @since 1.0.0
 * @category errors
 */
export class MembersUnknown extends Schema.TaggedError<MembersUnknown>("@keyward/core/MembersUnknown")(
  "MembersUnknown",
  { inboxId: InboxId, cause: Schema.Defect }
) {
  override get message(): string {
    return `the members of inbox ${this.inboxId} cannot be checked now`
  }
  readonly isRetryable = true
}

/**
 * There are no private keys for the Welcome.
 *
 * - `NeverOurs`: no package of this installation was ever known by that key: forged, or the database was lost
 * - `Retired`: the package was ours and its keys were erased
 * - `KeysMissing`: the package is ours and its keys are not there, which must never happen
 *
 * @since 1.0.0
 * @category errors
 */
export class NoSuchKeyPackage extends Schema.TaggedError<NoSuchKeyPackage>("@keyward/core/NoSuchKeyPackage")(
  "NoSuchKeyPackage",
  {
    installationId: InstallationId,
    reason: Schema.Union(
      Schema.TaggedStruct("NeverOurs", {}),
      Schema.TaggedStruct("Retired", { when: Schema.DateTimeUtcFromSelf, why: Schema.String }),
      Schema.TaggedStruct("KeysMissing", {})
    )
  }
) {
  override get message(): string {
    const { reason } = this
    switch (reason._tag) {
      case "NeverOurs":
        return `the Welcome is for no key package of installation ${this.installationId}`
      case "Retired":
        return `the Welcome came too late: its key package was retired (${reason.why})`
      case "KeysMissing":
        return `the private keys of the Welcome's key package are not in the store`
    }
  }
  readonly isRetryable = false
}

/**
 * The Welcome that a pointer points at is not on the network yet: open the pointer again later. libxmtp goes on for three
 * days (`decrypted_welcome.rs`).
 *
 * @since 1.0.0
 * @category errors
 */
export class PointeeNotFound extends Schema.TaggedError<PointeeNotFound>("@keyward/core/PointeeNotFound")(
  "PointeeNotFound",
  {
    /** The topic, in hex. */
    destination: Schema.String
  }
) {
  override get message(): string {
    return `nothing is at ${this.destination} yet, where the Welcome pointer points`
  }
  readonly isRetryable = true
}

/**
 * Why a group cannot be joined with a Welcome that was unwrapped.
 *
 * @since 1.0.0
 * @category errors
 */
export type JoinError = UnwrapFailed | MalformedWelcome | NotYetUnderstood | MemberNotAuthorized | MembersUnknown

/**
 * What the log of a member says, told apart by whether it may say something else later.
 *
 * @since 1.0.0
 * @category conversions
 */
export const ofAssociationState = (error: AssociationStateError): MemberNotAuthorized | MembersUnknown =>
  error.isRetryable
    ? new MembersUnknown({ inboxId: error.inboxId, cause: error })
    : new MemberNotAuthorized({ inboxId: error.inboxId, reason: "NoSuchInbox", cause: error })
