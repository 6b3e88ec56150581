/**
 * The text that every signature of an identity update signs, as a wallet shows it to its owner.
 *
 * @since 1.0.0
 */
import * as DateTime from "effect/DateTime"
import type { UnsignedAction, UnsignedIdentityUpdate } from "./IdentityUpdate.ts"
import { type MemberKind, toText } from "./MemberIdentifier.ts"

const labels: Record<MemberKind, string> = { Installation: "ID", Ethereum: "Address", Passkey: "Passkey" }

const grants: Record<MemberKind, string> = {
  Installation: "Grant messaging access to app",
  Ethereum: "Link address to inbox",
  Passkey: "Link passkey to inbox"
}

const revocations: Record<MemberKind, string> = {
  Installation: "Revoke messaging access from app",
  Ethereum: "Unlink address from inbox",
  Passkey: "Unlink passkey from inbox"
}

const actionText = (action: UnsignedAction): string => {
  switch (action._tag) {
    case "CreateInbox":
      return `- Create inbox\n  (Owner: ${toText(action.owner)})`
    case "AddAssociation": {
      const { newMember } = action
      return `- ${grants[newMember._tag]}\n  (${labels[newMember._tag]}: ${toText(newMember)})`
    }
    case "RevokeAssociation": {
      const { member } = action
      return `- ${revocations[member._tag]}\n  (${labels[member._tag]}: ${toText(member)})`
    }
    case "ChangeRecoveryIdentifier":
      // "Address", also where it is a passkey.
      return `- Change inbox recovery address\n  (Address: ${toText(action.newRecoveryIdentifier)})`
  }
}

/**
 * Nanoseconds since 1970 as the text shows them: RFC 3339 in UTC, whole seconds, rounded down. libxmtp reads the unsigned
 * number as signed, so from 2^63 on it is a time before 1970 (`unsigned_actions.rs`, `pretty_timestamp`).
 *
 * @since 1.0.0
 * @category conversions
 */
export const timestampText = (clientTimestampNs: bigint): string => {
  const signed = BigInt.asIntN(64, clientTimestampNs)
  const second = 1_000_000_000n
  const floored = signed / second - (signed % second < 0n ? 1n : 0n)
  return `${DateTime.formatIso(DateTime.unsafeMake(Number(floored) * 1_000)).slice(0, 19)}Z`
}

/**
 * The text of an update: UTF-8, LF, no newline at the end (`xmtp_id/src/associations/unsigned_actions.rs`). The nonce, a
 * relying party, a wallet's block number and fractions of a second are not in it.
 *
 * @since 1.0.0
 * @category conversions
 */
export const make = (update: UnsignedIdentityUpdate): string =>
  [
    "XMTP : Authenticate to inbox",
    "",
    `Inbox ID: ${update.inboxId}`,
    `Current time: ${timestampText(update.clientTimestampNs)}`,
    "",
    update.actions.map(actionText).join("\n"),
    "",
    "For more info: https://xmtp.org/signatures"
  ].join("\n")
