/**
 * Group messages of the native client.
 *
 * @since 1.0.0
 */
import session from "./libxmtp-session.json" with { type: "json" }

/**
 * A group message as a node received it, and what it says of itself.
 *
 * @since 1.0.0
 * @category models
 */
export interface SessionGroupMessage {
  /** The MLSMessage, hex. */
  readonly data: string
  /** Hex. */
  readonly groupId: string
  readonly isCommit: boolean
}

/**
 * The commits and application messages of a session of the native client (libxmtp 1.11).
 *
 * @since 1.0.0
 * @category vectors
 */
export const sessionGroupMessages: ReadonlyArray<SessionGroupMessage> = session.groupMessages
