/**
 * What generation hands to persistence: a package to publish and the private keys that open its Welcomes.
 *
 * @since 1.0.0
 */
import type * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import type { InboxId } from "../identity/InboxId.ts"
import type { InstallationId } from "../identity/InstallationId.ts"
import type { KeyPackageRef } from "./KeyPackageRef.ts"
import type { Lifetime } from "./Lifetime.ts"

/**
 * The private half of a key package, sealed by the store and erased when the package is retired.
 *
 * @since 1.0.0
 * @category models
 */
export interface KeyPackagePrivateKeys {
  /** X25519 private key of `init_key`, 32 bytes. */
  readonly initKey: Redacted.Redacted<Uint8Array>
  /** X25519 private key of the leaf's `encryption_key`, 32 bytes. */
  readonly encryptionKey: Redacted.Redacted<Uint8Array>
  /** Seed of the X-Wing key, 32 bytes; none in a classical package. */
  readonly postQuantumKey: Option.Option<Redacted.Redacted<Uint8Array>>
}

/**
 * The public half: everything that may be stored in the clear, logged and published.
 *
 * @since 1.0.0
 * @category models
 */
export interface PublicKeyPackage {
  readonly inboxId: InboxId
  readonly installationId: InstallationId
  readonly ref: KeyPackageRef
  /** The TLS serialization (RFC 9420 section 10): 437 bytes classical, 1663 with X-Wing. */
  readonly bytes: Uint8Array
  readonly lifetime: Lifetime
  /** `init_key`, 32 bytes: a Curve25519 Welcome names its package by it. */
  readonly initKey: Uint8Array
  /** X-Wing public key, 1216 bytes: a post-quantum Welcome names its package by it. */
  readonly postQuantumKey: Option.Option<Uint8Array>
}

/**
 * A package that exists in memory only. Nothing is promised until the store holds it.
 *
 * @since 1.0.0
 * @category models
 */
export interface GeneratedKeyPackage {
  readonly keyPackage: PublicKeyPackage
  readonly privateKeys: KeyPackagePrivateKeys
}
