/**
 * What is kept of an installation: who it is and how far its registration has come.
 *
 * @since 1.0.0
 */
import type * as DateTime from "effect/DateTime"
import type { InboxId } from "../identity/InboxId.ts"
import type { InstallationId } from "../identity/InstallationId.ts"
import type { InstallationKey } from "../identity/InstallationKey.ts"
import type { Schedule } from "./Schedule.ts"

/**
 * How far registration has come. Each step is durable before the next begins.
 *
 * - `Intended`: the installation key is durable; nothing has been published
 * - `Signed`: the wallet has signed; these exact bytes of the identity update are the only ones ever published
 * - `Registered`: the inbox's log names the installation as a member
 *
 * @since 1.0.0
 * @category models
 */
export type Registration =
  | { readonly _tag: "Intended" }
  | { readonly _tag: "Signed"; readonly identityUpdate: Uint8Array }
  | { readonly _tag: "Registered"; readonly identityUpdate: Uint8Array; readonly registeredAt: DateTime.Utc }

/**
 * One installation in the store, without its private key.
 *
 * @since 1.0.0
 * @category models
 */
export interface Installation {
  readonly installationId: InstallationId
  readonly inboxId: InboxId
  /** Tells the installations of one inbox in one store apart; a second registration under it resumes the first. */
  readonly label: string
  readonly createdAt: DateTime.Utc
  readonly registration: Registration
  /** What is due, and when. */
  readonly schedule: Schedule
}

/**
 * The wish to have an installation, with a fresh key for the case that there is none yet.
 *
 * @since 1.0.0
 * @category models
 */
export interface InstallationIntent {
  readonly inboxId: InboxId
  readonly label: string
  readonly key: InstallationKey
  readonly at: DateTime.Utc
}
