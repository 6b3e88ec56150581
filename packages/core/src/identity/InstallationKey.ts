/**
 * The private key of an installation.
 *
 * @since 1.0.0
 */
import { ed25519 } from "@noble/curves/ed25519.js"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { Entropy } from "../ports/Entropy.ts"
import { fromPublicKey, type InstallationId } from "./InstallationId.ts"

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

/**
 * The key pair of a 32-byte Ed25519 seed.
 *
 * @since 1.0.0
 * @category constructors
 */
export const fromSeed = (seed: Uint8Array): InstallationKey => ({
  installationId: fromPublicKey(ed25519.getPublicKey(seed)),
  seed: Redacted.make(seed)
})

/**
 * A fresh key pair.
 *
 * @since 1.0.0
 * @category constructors
 */
export const generate: Effect.Effect<InstallationKey, never, Entropy> = Effect.map(Entropy, (entropy) =>
  fromSeed(entropy.randomBytes(32))
)
