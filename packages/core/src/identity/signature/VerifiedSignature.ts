/**
 * What a signature proves once it has been verified.
 *
 * @since 1.0.0
 */
import type { SignatureReason } from "../IdentityError.ts"
import type { MemberIdentifier } from "../MemberIdentifier.ts"

/**
 * How the signer signed, under libxmtp's names (`xmtp_id/src/associations/signature.rs`, `SignatureKind`).
 *
 * @since 1.0.0
 * @category models
 */
export type SignatureKind = "erc-191" | "erc-1271" | "installation-key" | "legacy-delegated" | "p256"

/**
 * A signature that verifies, and who made it.
 *
 * @since 1.0.0
 * @category models
 */
export interface VerifiedSignature {
  readonly signer: MemberIdentifier
  readonly kind: SignatureKind
  /** The bytes that may be seen once in a log, lower-case hex (libxmtp's `raw_bytes`). */
  readonly replayKey: string
  /** The chain of a smart contract wallet; nothing for every other signer. */
  readonly chainId: bigint | undefined
}

/**
 * Why a signature does not count, before its place in the log is known.
 *
 * @since 1.0.0
 * @category errors
 */
export interface SignatureFailure {
  readonly reason: SignatureReason
  readonly detail?: string | undefined
  readonly cause?: unknown
}
