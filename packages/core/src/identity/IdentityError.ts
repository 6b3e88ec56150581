/**
 * Why an identity log is refused. libxmtp reads a log in three stages, and refuses the whole log at the first failure of
 * any: conversion of all updates, then all signatures, then the association rules.
 *
 * @since 1.0.0
 */
import * as Schema from "effect/Schema"

const where = {
  /** The place of the update in what was resolved, from 0; none where the log as a whole is meant. */
  updateIndex: Schema.optional(Schema.Int),
  /** The place of the action in its update, from 0; none where the update as a whole is meant. */
  actionIndex: Schema.optional(Schema.Int)
}

const place = (error: { readonly updateIndex?: number | undefined; readonly actionIndex?: number | undefined }) =>
  (error.updateIndex === undefined ? "" : `update ${error.updateIndex}`) +
  (error.actionIndex === undefined ? "" : `, action ${error.actionIndex}`) +
  (error.updateIndex === undefined ? "" : ": ")

/**
 * Why bytes are not an identity update.
 *
 * - `NotProtobuf`: prost would not decode them
 * - `MissingAction`, `MissingSignature`, `MissingMember`, `MissingDelegatedKey`: a part that must be there is not
 * - `InvalidInstallationKey`: a signer's Ed25519 key is not 32 bytes or not a point of the curve
 * - `InvalidAccountId`: a smart contract wallet's id is not CAIP-10
 * - `InvalidPasskey`: a passkey identifier is not hex
 *
 * @since 1.0.0
 * @category errors
 */
export const ConversionReason = Schema.Literal(
  "NotProtobuf",
  "MissingAction",
  "MissingSignature",
  "MissingMember",
  "MissingDelegatedKey",
  "InvalidInstallationKey",
  "InvalidAccountId",
  "InvalidPasskey"
)

/**
 * @since 1.0.0
 * @category errors
 */
export type ConversionReason = typeof ConversionReason.Type

/**
 * The bytes of an update are not an identity update.
 *
 * @since 1.0.0
 * @category errors
 */
export class IdentityConversionError extends Schema.TaggedError<IdentityConversionError>(
  "@keyward/core/IdentityConversionError"
)("IdentityConversionError", {
  ...where,
  reason: ConversionReason,
  /** What exactly, without content of the update. */
  detail: Schema.optional(Schema.String)
}) {
  /** The stage that refused the log. */
  get stage() {
    return "conversion" as const
  }
  /** Reading the same log again cannot help. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${place(this)}${this.reason}${this.detail === undefined ? "" : ` (${this.detail})`}`
  }
}

/**
 * Why a signature does not count.
 *
 * - `Malformed`: not a signature of its kind: length, range, recovery byte, DER
 * - `Invalid`: well formed, and does not verify
 * - `InvalidPublicKey`: the key it brings is none
 * - `InvalidClientData`: a passkey's client data does not decode or its challenge is not the text
 * - `InvalidAccount`: a smart contract wallet whose address is not 40 hex digits
 * - `InvalidChainId`: a smart contract wallet whose chain is not `eip155:` and an unsigned 64-bit integer
 * - `VerifierUnavailable`: the smart contract wallet could not be asked; nothing is known about the signature
 *
 * @since 1.0.0
 * @category errors
 */
export const SignatureReason = Schema.Literal(
  "Malformed",
  "Invalid",
  "InvalidPublicKey",
  "InvalidClientData",
  "InvalidAccount",
  "InvalidChainId",
  "VerifierUnavailable"
)

/**
 * @since 1.0.0
 * @category errors
 */
export type SignatureReason = typeof SignatureReason.Type

/**
 * Which signature of an action: the founder's, the member's that adds, the member's that is added, the recovery
 * identifier's.
 *
 * @since 1.0.0
 * @category models
 */
export const SignatureRole = Schema.Literal("initial", "existing", "new", "recovery")

/**
 * @since 1.0.0
 * @category models
 */
export type SignatureRole = typeof SignatureRole.Type

/**
 * A signature of an update does not count.
 *
 * @since 1.0.0
 * @category errors
 */
export class IdentitySignatureError extends Schema.TaggedError<IdentitySignatureError>(
  "@keyward/core/IdentitySignatureError"
)("IdentitySignatureError", {
  ...where,
  role: SignatureRole,
  /** The kind of signature, as the update names it. */
  kind: Schema.Literal("Erc191", "InstallationKey", "SmartContractWallet", "LegacyDelegated", "Passkey"),
  reason: SignatureReason,
  detail: Schema.optional(Schema.String),
  cause: Schema.optional(Schema.Defect)
}) {
  /** The stage that refused the log. */
  get stage() {
    return "signature" as const
  }
  /** Whether reading the same log again may help: only where a smart contract wallet could not be asked. */
  get isRetryable(): boolean {
    return this.reason === "VerifierUnavailable"
  }
  override get message(): string {
    const detail = this.detail === undefined ? "" : ` (${this.detail})`
    return `${place(this)}${this.role} signature (${this.kind}): ${this.reason}${detail}`
  }
}

/**
 * Which association rule an action breaks (libxmtp `association_log.rs`, under the same names).
 *
 * - `NotCreated`: there is no inbox yet; also the answer to an empty log
 * - `AddSelf`: an identifier adds itself (libxmtp's `Generic "tried to add self"`)
 * - `UnexpectedInbox`: a valid log, of another inbox than the one asked for. libxmtp does not ask
 *
 * @since 1.0.0
 * @category errors
 */
export const AssociationReason = Schema.Literal(
  "NotCreated",
  "MultipleCreate",
  "MissingExistingMember",
  "NewMemberIdSignatureMismatch",
  "AddSelf",
  "LegacySignatureReuse",
  "SignatureNotAllowed",
  "MemberNotAllowed",
  "ChainIdMismatch",
  "InvalidAccountAddress",
  "Replay",
  "WrongInboxId",
  "UnexpectedInbox"
)

/**
 * @since 1.0.0
 * @category errors
 */
export type AssociationReason = typeof AssociationReason.Type

/**
 * An update breaks the association rules.
 *
 * @since 1.0.0
 * @category errors
 */
export class IdentityAssociationError extends Schema.TaggedError<IdentityAssociationError>(
  "@keyward/core/IdentityAssociationError"
)("IdentityAssociationError", {
  ...where,
  reason: AssociationReason,
  detail: Schema.optional(Schema.String)
}) {
  /** The stage that refused the log. */
  get stage() {
    return "association" as const
  }
  /** Reading the same log again cannot help. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `${place(this)}${this.reason}${this.detail === undefined ? "" : ` (${this.detail})`}`
  }
}

/**
 * Why an identity log is refused, by stage.
 *
 * @since 1.0.0
 * @category errors
 */
export type IdentityError = IdentityConversionError | IdentitySignatureError | IdentityAssociationError
