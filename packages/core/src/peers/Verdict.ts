/**
 * What is known of another installation's key package: usable, or exactly why not.
 *
 * @since 1.0.0
 */
import * as Data from "effect/Data"
import type * as DateTime from "effect/DateTime"
import type { IdentityError } from "../identity/IdentityError.ts"
import type { InboxId } from "../identity/InboxId.ts"
import type { InstallationId } from "../identity/InstallationId.ts"
import type { KeyPackageValidationError } from "../keypackage/KeyPackageError.ts"
import type { KeyPackageRef } from "../keypackage/KeyPackageRef.ts"
import type { ValidatedKeyPackage } from "../keypackage/Validation.ts"
import type { InvalidWelcomeWrapperEncryption, WelcomeTarget } from "../keypackage/WelcomeTarget.ts"
import type { ApiClientError } from "../ports/ApiClient.ts"

/**
 * Why an installation cannot be invited now.
 *
 * - `Missing`: the node knows no package of it
 * - `Unreachable`: the node did not answer for this package; nothing is known
 * - `InvalidKeyPackage`: one of MLS's or XMTP's checks of the package itself
 * - `OtherInstallation`: a package of another installation under this one's id
 * - `MalformedInboxId`: the credential names something that is no inbox id, of this many UTF-16 code units
 * - `UnexpectedInbox`: the credential names another inbox than the one that was to be invited
 * - `InboxUnreachable`: the identity log could not be read; nothing is known of the membership
 * - `UnknownInbox`: the inbox named by the credential has no log
 * - `InvalidIdentityLog`: the log does not add up to a state. Retryable where a smart contract wallet could not be asked
 * - `OtherInbox`: the log served for the inbox is that of another
 * - `NotAMember`: the inbox does not name the installation: it never did, or revoked it
 * - `InvalidWelcomeWrapper`: the package is valid, but no Welcome can be wrapped to it
 *
 * @since 1.0.0
 * @category models
 */
export type Reason = Data.TaggedEnum<{
  Missing: {}
  Unreachable: { readonly error: ApiClientError }
  InvalidKeyPackage: { readonly error: KeyPackageValidationError }
  OtherInstallation: { readonly actual: InstallationId }
  MalformedInboxId: { readonly length: number }
  UnexpectedInbox: { readonly expected: InboxId; readonly actual: InboxId }
  InboxUnreachable: { readonly inboxId: InboxId; readonly error: ApiClientError }
  UnknownInbox: { readonly inboxId: InboxId }
  InvalidIdentityLog: { readonly inboxId: InboxId; readonly error: IdentityError }
  OtherInbox: { readonly inboxId: InboxId; readonly error: IdentityError }
  NotAMember: { readonly inboxId: InboxId; readonly sequenceId: bigint }
  InvalidWelcomeWrapper: { readonly inboxId: InboxId; readonly error: InvalidWelcomeWrapperEncryption }
}>

/**
 * @since 1.0.0
 * @category constructors
 */
export const Reason = Data.taggedEnum<Reason>()

/**
 * The reasons that are the inbox's, and so those of every installation that names it.
 *
 * @since 1.0.0
 * @category models
 */
export type InboxReason = Extract<
  Reason,
  { readonly _tag: "InboxUnreachable" | "UnknownInbox" | "InvalidIdentityLog" | "OtherInbox" }
>

/**
 * Whether nothing was learnt, so that asking the same again may give another verdict without anybody changing anything.
 *
 * @since 1.0.0
 * @category refinements
 */
export const isRetryable = (reason: Reason): boolean =>
  reason._tag === "Unreachable" || reason._tag === "InboxUnreachable" || reason._tag === "InvalidIdentityLog"
    ? reason.error.isRetryable
    : false

/**
 * What is remarkable about a usable package. Findings report; they do not refuse.
 *
 * - `OlderThanSeen`: a package made before the newest one ever seen of this installation: a stale or a replaying node
 * - `PolicyViolated`: a strict policy that was asked for, by its name, and what breaks it
 *
 * @since 1.0.0
 * @category models
 */
export type Finding = Data.TaggedEnum<{
  OlderThanSeen: { readonly seen: KeyPackageRef; readonly seenNotBefore: bigint; readonly notBefore: bigint }
  PolicyViolated: { readonly policy: string; readonly detail: string }
}>

/**
 * @since 1.0.0
 * @category constructors
 */
export const Finding = Data.taggedEnum<Finding>()

/**
 * The installation can be invited with this package, judged at this time by this state of its inbox.
 *
 * @since 1.0.0
 * @category models
 */
export interface Usable {
  readonly _tag: "Usable"
  readonly installationId: InstallationId
  readonly inboxId: InboxId
  readonly keyPackage: ValidatedKeyPackage
  /** How a Welcome is to be wrapped, and whether it can be post-quantum. */
  readonly welcomeTarget: WelcomeTarget
  /** The newest update of the inbox's log that was taken into account. */
  readonly sequenceId: bigint
  readonly judgedAt: DateTime.Utc
  readonly findings: ReadonlyArray<Finding>
}

/**
 * The installation cannot be invited now.
 *
 * @since 1.0.0
 * @category models
 */
export interface Unusable {
  readonly _tag: "Unusable"
  readonly installationId: InstallationId
  readonly reason: Reason
  readonly judgedAt: DateTime.Utc
}

/**
 * What is known of one installation.
 *
 * @since 1.0.0
 * @category models
 */
export type Verdict = Usable | Unusable
