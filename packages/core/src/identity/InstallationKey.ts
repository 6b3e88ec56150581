/**
 * The private key of an installation.
 *
 * @since 1.0.0
 */
import type * as Redacted from "effect/Redacted"
import type { InstallationId } from "./InstallationId.ts"

/**
 * An installation's Ed25519 key pair. It signs key packages (pure Ed25519, RFC 8032) and identity updates (Ed25519ph).
 * It lives as long as the installation; losing it burns one of the inbox's 10 slots.
 *
 * @since 1.0.0
 * @category models
 */
export interface InstallationKey {
  readonly installationId: InstallationId
  /** The Ed25519 seed, 32 bytes. */
  readonly seed: Redacted.Redacted<Uint8Array>
}
