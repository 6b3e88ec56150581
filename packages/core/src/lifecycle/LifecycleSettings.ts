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
  /** From a Welcome to the rotation that follows: 5 seconds, as libxmtp. A thousand Welcomes make one rotation. */
  readonly welcomeDelay: Duration.Duration
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
  /**
   * When the earlier packages count as superseded: when the network has accepted the new one, or only when it is seen to
   * serve it (networks whose nodes agree later).
   */
  readonly confirmBy: "receipt" | "readBack"
  /** How long `readBack` waits before it asks what is wrong. */
  readonly confirmWithin: Duration.Duration
  /** How often what the network serves is compared with the ledger: at least once a week. */
  readonly probeInterval: Duration.Duration
  /**
   * How long to wait before erasing is tried again where a condition does not hold yet: at first; later as long again as it has
   * not held, up to a 24th of the grace.
   */
  readonly cleanRetry: Duration.Duration
  /** How long the tombstone of a retired package explains a late Welcome. */
  readonly tombstoneLifetime: Duration.Duration
  /** How many packages an hour Welcomes may cause, per installation. */
  readonly welcomeRotationsPerHour: number
  /** How many packages an hour repairs may cause, per installation. */
  readonly repairRotationsPerHour: number
  /** How many packages an hour time, profile and `queueKeyRotation` may cause together, per installation. */
  readonly otherRotationsPerHour: number
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
    welcomeDelay: Duration.seconds(5),
    grace: Duration.hours(24),
    minimumRemainingLifetime: Duration.days(42),
    leaseDuration: Duration.minutes(5),
    attemptTimeout: Duration.seconds(30),
    uploadAttempts: 6,
    confirmBy: "receipt",
    confirmWithin: Duration.minutes(10),
    probeInterval: Duration.hours(24),
    cleanRetry: Duration.minutes(15),
    tombstoneLifetime: Duration.days(365),
    welcomeRotationsPerHour: 6,
    repairRotationsPerHour: 3,
    otherRotationsPerHour: 6
  })
}) {}
