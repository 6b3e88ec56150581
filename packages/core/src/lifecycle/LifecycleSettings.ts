/**
 * The numbers of a key package's life.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"

/**
 * Values of a `LifecycleSettings`.
 *
 * @since 1.0.0
 * @category models
 */
export interface LifecycleSettingsShape {
  /** From one publication to the next: 30 days, as libxmtp. */
  readonly rotationInterval: Duration.Duration
  /** How long superseded keys are kept for Welcomes that are under way: 24 hours, as libxmtp. */
  readonly grace: Duration.Duration
  /** A waiting package with less lifetime than this left is not sent any more; a new one is made. */
  readonly minimumRemainingLifetime: Duration.Duration
  /** How long one rotation may take: all attempts end inside it. */
  readonly leaseDuration: Duration.Duration
  /** How long one upload attempt may take. */
  readonly attemptTimeout: Duration.Duration
  /** How often an upload is tried in one rotation, the first attempt included. */
  readonly uploadAttempts: number
}

/**
 * The settings in force. libxmtp's values unless a reason is given.
 *
 * @since 1.0.0
 * @category references
 */
export class LifecycleSettings extends Context.Reference<LifecycleSettings>()("@keyward/core/LifecycleSettings", {
  defaultValue: (): LifecycleSettingsShape => ({
    rotationInterval: Duration.days(30),
    grace: Duration.hours(24),
    minimumRemainingLifetime: Duration.days(42),
    leaseDuration: Duration.minutes(5),
    attemptTimeout: Duration.seconds(30),
    uploadAttempts: 6
  })
}) {}
