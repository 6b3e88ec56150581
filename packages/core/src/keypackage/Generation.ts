/**
 * Making a key package: fresh keys, libxmtp's profile, two signatures.
 *
 * @since 1.0.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { InboxId } from "../identity/InboxId.ts"
import * as InstallationId from "../identity/InstallationId.ts"
import type { InstallationKey } from "../identity/InstallationKey.ts"
import { equal } from "../internal/equal.ts"
import { assemble } from "../internal/keyPackageAssembly.ts"
import { Entropy } from "../ports/Entropy.ts"
import { MlsCrypto } from "../ports/MlsCrypto.ts"
import { PostQuantumKem } from "../ports/PostQuantumKem.ts"
import type { GeneratedKeyPackage } from "./GeneratedKeyPackage.ts"
import { KeyPackageGenerationError } from "./KeyPackageError.ts"
import * as KeyPackageRef from "./KeyPackageRef.ts"
import * as Lifetime from "./Lifetime.ts"

/**
 * What a new package is made for.
 *
 * @since 1.0.0
 * @category models
 */
export interface NewKeyPackageOptions {
  readonly inboxId: InboxId
  /** Signs the package. */
  readonly installationKey: InstallationKey
  /** Whether Welcomes are to be wrapped to an X-Wing key, which protects them from a later quantum computer. */
  readonly includePostQuantum: boolean
}

/**
 * A new last-resort key package of the installation, with fresh keys, valid from an hour ago until in 84 days. It
 * exists in memory only: its private keys must be stored before it is published.
 *
 * Fails with `KeyPackageGenerationError` if the installation key is not one or not of `installationId`.
 *
 * @since 1.0.0
 * @category constructors
 */
export const newKeyPackage = (
  options: NewKeyPackageOptions
): Effect.Effect<GeneratedKeyPackage, KeyPackageGenerationError, Entropy | MlsCrypto | PostQuantumKem> =>
  Effect.gen(function* () {
    const crypto = yield* MlsCrypto
    const entropy = yield* Entropy
    const kem = yield* PostQuantumKem
    const { inboxId, installationKey } = options

    if (Redacted.value(installationKey.seed).length !== 32) {
      return yield* new KeyPackageGenerationError({ reason: "InvalidInstallationKey" })
    }
    if (
      !equal(crypto.ed25519PublicKey(installationKey.seed), InstallationId.toPublicKey(installationKey.installationId))
    ) {
      return yield* new KeyPackageGenerationError({ reason: "InstallationKeyMismatch" })
    }

    const lifetime = Lifetime.starting(yield* Clock.currentTimeMillis)
    const fresh = () => Redacted.make(entropy.randomBytes(32))
    const privateKeys = {
      initKey: fresh(),
      encryptionKey: fresh(),
      postQuantumKey: options.includePostQuantum ? Option.some(fresh()) : Option.none()
    }
    const initKey = crypto.x25519PublicKey(privateKeys.initKey)
    const postQuantumKey = Option.map(privateKeys.postQuantumKey, kem.publicKey)
    const bytes = yield* Effect.tryPromise({
      try: () =>
        assemble(crypto, {
          inboxId,
          installationKey,
          lifetime,
          initKey,
          encryptionKey: crypto.x25519PublicKey(privateKeys.encryptionKey),
          postQuantumKey: Option.getOrUndefined(postQuantumKey)
        }),
      // The cause stays behind: what a dependency says may quote what it was given.
      catch: () => new KeyPackageGenerationError({ reason: "Mls" })
    })
    return {
      keyPackage: {
        inboxId,
        installationId: installationKey.installationId,
        ref: KeyPackageRef.hashWith(crypto, bytes),
        bytes,
        lifetime,
        initKey,
        postQuantumKey
      },
      privateKeys
    }
  })
