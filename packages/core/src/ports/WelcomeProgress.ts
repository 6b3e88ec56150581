/**
 * How far the app has read the Welcomes of an installation: private keys are not erased while a Welcome that needs them may
 * still be unread.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { InstallationId } from "../identity/InstallationId.ts"

/**
 * What is known of an installation's inbox of Welcomes.
 *
 * @since 1.0.0
 * @category models
 */
export interface WelcomeProgressReport {
  /**
   * The moment at which the latest complete reading began: every Welcome that the network had then has been handed over
   * durably, or failed for good. Only the lowest unresolved Welcome counts, so the time may go backwards; none while no
   * reading has been complete. A time that lies ahead was given by a wrong clock and counts for nothing: forget it for good, since
   * by and by the clock gets there.
   */
  readonly completeAsOf: Option.Option<DateTime.Utc>
  /** When a reading was last tried since the process started, whatever came of it. */
  readonly attemptedAt: Option.Option<DateTime.Utc>
}

/**
 * The progress cannot be told now. Nothing is erased meanwhile.
 *
 * @since 1.0.0
 * @category errors
 */
export class WelcomeProgressError extends Schema.TaggedError<WelcomeProgressError>(
  "@keyward/core/WelcomeProgressError"
)("WelcomeProgressError", {
  installationId: InstallationId,
  cause: Schema.optional(Schema.Defect)
}) {
  override get message(): string {
    return `how far the Welcomes of installation ${this.installationId} are read is not known`
  }
}

/**
 * Says how far an app has read its Welcomes. `WelcomeInbox.layer` does, for all that it reads; an app that reads by other means
 * gives its own; one that has nothing to say gives `layerNone`.
 *
 * @since 1.0.0
 * @category tags
 */
export class WelcomeProgress extends Context.Tag("@keyward/core/WelcomeProgress")<
  WelcomeProgress,
  {
    /** None where the app does not report for this installation: only time decides about its keys then. */
    readonly get: (
      installationId: InstallationId
    ) => Effect.Effect<Option.Option<WelcomeProgressReport>, WelcomeProgressError>
  }
>() {}

/**
 * Reports for no installation: only time decides. Superseded private keys are erased one grace after the network serves their
 * package no more, and a Welcome that nobody has read by then is lost. For what opens no Welcomes, or always within the grace.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerNone: Layer.Layer<WelcomeProgress> = Layer.succeed(WelcomeProgress, { get: () => Effect.succeedNone })
