/**
 * The hash ref by which MLS names a key package.
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import { KEY_PACKAGE_REFERENCE, withLabel } from "../crypto/Labels.ts"
import * as hex from "../internal/hex.ts"
import { MlsCrypto, type MlsCryptoShape } from "../ports/MlsCrypto.ts"

/**
 * A KeyPackageRef (RFC 9420 section 5.2) of ciphersuite 0x0003: 32 bytes as 64 lower-case hex digits.
 *
 * @since 1.0.0
 * @category models
 */
export const KeyPackageRef = hex.Hex32.pipe(Schema.brand("@keyward/core/KeyPackageRef"))

/**
 * @since 1.0.0
 * @category models
 */
export type KeyPackageRef = typeof KeyPackageRef.Type

/**
 * What is hashed to the ref of a serialized key package: a copy of it behind the label.
 *
 * @since 1.0.0
 * @category constructors
 */
export const hashInput = (keyPackage: Uint8Array): Uint8Array => withLabel(KEY_PACKAGE_REFERENCE, keyPackage)

/**
 * The ref by its hash input.
 *
 * @since 1.0.0
 * @category constructors
 */
export const ofHashInput = (crypto: Pick<MlsCryptoShape, "sha256">, input: Uint8Array): KeyPackageRef =>
  KeyPackageRef.make(hex.encode(crypto.sha256(input)), hex.unchecked)

/**
 * The ref of a serialized key package: `SHA-256(RefHashInput("MLS 1.0 KeyPackage Reference", bytes))` (RFC 9420 section
 * 5.2).
 *
 * @since 1.0.0
 * @category constructors
 */
export const hashWith = (crypto: Pick<MlsCryptoShape, "sha256">, keyPackage: Uint8Array): KeyPackageRef =>
  ofHashInput(crypto, hashInput(keyPackage))

/**
 * The ref of a serialized key package, as an Effect.
 *
 * @since 1.0.0
 * @category constructors
 */
export const hash = (keyPackage: Uint8Array): Effect.Effect<KeyPackageRef, never, MlsCrypto> =>
  Effect.map(MlsCrypto, (crypto) => hashWith(crypto, keyPackage))
