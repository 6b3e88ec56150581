/**
 * The right to rotate one installation, held by one fiber of one process at a time.
 *
 * @since 1.0.0
 */
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"
import { InstallationId } from "../identity/InstallationId.ts"

/**
 * A held lease. Every write of a rotation shows it; a store refuses the write once another lease was given out.
 *
 * @since 1.0.0
 * @category models
 */
export interface Lease {
  readonly installationId: InstallationId
  /** The fence: larger than that of every earlier lease of this installation. */
  readonly fence: number
  readonly expiresAt: DateTime.Utc
}

/**
 * The longest lease there is. A stored lease that ends later than this from now was written under a wrong clock and
 * counts as expired.
 *
 * @since 1.0.0
 * @category constants
 */
export const MAX_DURATION: Duration.Duration = Duration.minutes(10)

/**
 * When a lease taken now ends: after the duration asked for, `MAX_DURATION` at most.
 *
 * @since 1.0.0
 * @category transitions
 */
export const expiry = (now: DateTime.Utc, duration: Duration.Duration): DateTime.Utc =>
  DateTime.addDuration(now, Duration.min(duration, MAX_DURATION))

/**
 * Whether a lease that ends at `expiresAt` binds at `now`. It ends with the very instant of its expiry, and one that ends
 * further ahead than any lease can was written under a wrong clock and binds nobody.
 *
 * @since 1.0.0
 * @category refinements
 */
export const isInForce = (expiresAt: DateTime.Utc, now: DateTime.Utc): boolean =>
  DateTime.lessThan(now, expiresAt) && DateTime.lessThanOrEqualTo(expiresAt, DateTime.addDuration(now, MAX_DURATION))

/**
 * Another fiber or process rotates this installation.
 *
 * - `Held`: the lease is taken, and ends by itself at its expiry
 * - `Lost`: ours expired or was taken over; nothing was written
 *
 * @since 1.0.0
 * @category errors
 */
export class LeaseError extends Schema.TaggedError<LeaseError>("@keyward/core/LeaseError")("LeaseError", {
  reason: Schema.Literal("Held", "Lost"),
  installationId: InstallationId
}) {
  override get message(): string {
    return this.reason === "Held"
      ? `installation ${this.installationId} is being rotated elsewhere`
      : `the lease on installation ${this.installationId} was lost`
  }
}
