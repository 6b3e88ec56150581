/**
 * How a v3 node is asked, whatever it is asked for.
 *
 * @since 1.0.0
 */
import type * as Duration from "effect/Duration"

/**
 * What all calls to a v3 node have in common.
 *
 * @since 1.0.0
 * @category models
 */
export interface V3CallOptions {
  /** How long one request may take, and how long until a stream begins; 30 seconds unless given. */
  readonly timeout?: Duration.DurationInput | undefined
  /** Sent as `x-app-version`: the app's name and version, as `my-app/1.2.3`. */
  readonly appVersion?: string | undefined
  /**
   * Sent as `x-libxmtp-version`: the libxmtp version that this app wants to be treated as. Not sent unless given: a node
   * refuses versions below 1.1.5, and lets those pass who name none.
   */
  readonly libxmtpVersion?: string | undefined
}
