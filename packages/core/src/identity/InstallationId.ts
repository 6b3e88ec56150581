/**
 * The id of an installation: one device, bot or server of an inbox.
 *
 * @since 1.0.0
 */
import * as Schema from "effect/Schema"
import * as hex from "../internal/hex.ts"

/**
 * An installation id: the installation's Ed25519 public key (32 bytes) as 64 lower-case hex digits. The same key signs
 * the installation's key packages (MLS `signature_key`).
 *
 * @since 1.0.0
 * @category models
 */
export const InstallationId = hex.Hex32.pipe(Schema.brand("@keyward/core/InstallationId"))

/**
 * @since 1.0.0
 * @category models
 */
export type InstallationId = typeof InstallationId.Type

/**
 * The id of the installation that owns this Ed25519 public key (32 bytes).
 *
 * @since 1.0.0
 * @category conversions
 */
export const fromPublicKey = (publicKey: Uint8Array): InstallationId =>
  InstallationId.make(hex.encode(publicKey), publicKey.length === 32 ? hex.unchecked : undefined)

/**
 * The Ed25519 public key (32 bytes) that the id spells.
 *
 * @since 1.0.0
 * @category conversions
 */
export const toPublicKey = (id: InstallationId): Uint8Array => hex.decode(id)
