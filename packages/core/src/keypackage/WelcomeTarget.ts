/**
 * How a Welcome for the owner of a key package is to be wrapped.
 *
 * A separate step from validation: libxmtp calls a package valid whose wrapping extensions it cannot read, and fails
 * only when it wraps a Welcome for it (`xmtp_mls/src/groups/intents.rs`, `Installation::from_verified_key_package`).
 *
 * @since 1.0.0
 */
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { attempt, ProstReader } from "../internal/prost.ts"
import { findExtension, type KeyPackage } from "./KeyPackage.ts"
import { ExtensionType } from "./Profile.ts"
import type { ValidatedKeyPackage } from "./Validation.ts"

/**
 * Where a Welcome is wrapped to.
 *
 * - `Curve25519`: HPKE with X25519; the key is the package's `init_key` unless the extension names another
 * - `XWing`: HPKE with X-Wing; the key is the extension's
 *
 * The key is what the package says: any length, any bytes. It is a view of the package, which others may hold too: not to be
 * changed.
 *
 * @since 1.0.0
 * @category models
 */
export interface WelcomeTarget {
  readonly algorithm: "Curve25519" | "XWing"
  readonly publicKey: Uint8Array
  /** Whether the installation follows Welcome pointers (ChaCha20-Poly1305). */
  readonly acceptsWelcomePointers: boolean
}

/**
 * The package's wrapping extensions cannot be used. The package stays valid; the installation cannot be invited with it.
 *
 * - `Malformed`: not the protobuf message that belongs there
 * - `SymmetricKeyAlgorithm`: the algorithm of pointees, which is no way to wrap to a public key
 * - `UnknownAeadType`: a cipher for pointees that libxmtp has no meaning for
 *
 * @since 1.0.0
 * @category errors
 */
export class InvalidWelcomeWrapperEncryption extends Schema.TaggedError<InvalidWelcomeWrapperEncryption>(
  "@keyward/core/InvalidWelcomeWrapperEncryption"
)("InvalidWelcomeWrapperEncryption", {
  reason: Schema.Literal("Malformed", "SymmetricKeyAlgorithm", "UnknownAeadType"),
  extensionType: Schema.Number
}) {
  override get message(): string {
    return `extension 0x${this.extensionType.toString(16)} cannot be used to wrap a Welcome: ${this.reason}`
  }
}

const X_WING = 2
const SYMMETRIC_KEY = 3
const CHACHA20_POLY1305 = 3

type Result<A> = Either.Either<A, InvalidWelcomeWrapperEncryption>

const refuse = (
  reason: InvalidWelcomeWrapperEncryption["reason"],
  extensionType: number
): Either.Either<never, InvalidWelcomeWrapperEncryption> =>
  Either.left(new InvalidWelcomeWrapperEncryption({ reason, extensionType }))

const EMPTY: Uint8Array = new Uint8Array(0)

/** `WelcomeWrapperEncryption { bytes pub_key = 1; WelcomeWrapperAlgorithm algorithm = 2 }` */
const readWrapper = (data: Uint8Array): Result<Pick<WelcomeTarget, "algorithm" | "publicKey">> => {
  const type = ExtensionType.welcomeWrapperEncryption
  return attempt(
    (): Result<Pick<WelcomeTarget, "algorithm" | "publicKey">> => {
      const reader = new ProstReader(data)
      let publicKey = EMPTY
      let algorithm = 0
      for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
        if (field === 1) publicKey = reader.delimited()
        else if (field === 2) algorithm = reader.int32()
        else reader.skip(field)
      }
      if (algorithm === SYMMETRIC_KEY) return refuse("SymmetricKeyAlgorithm", type)
      // Any other number, unspecified and unknown ones too, means Curve25519 (`mls_ext_wrapper_encryption.rs`).
      return Either.right({ algorithm: algorithm === X_WING ? "XWing" : "Curve25519", publicKey })
    },
    () => refuse("Malformed", type)
  )
}

/** `WelcomePointeeEncryptionAeadTypesExtension { repeated WelcomePointeeEncryptionAeadType supported_aead_types = 1 }` */
const readAeadTypes = (data: Uint8Array): Result<boolean> => {
  const type = ExtensionType.welcomePointeeEncryptionAeadTypes
  return attempt(
    (): Result<boolean> => {
      const reader = new ProstReader(data)
      const types: Array<number> = []
      for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
        if (field === 1) for (const aeadType of reader.int32s()) types.push(aeadType)
        else reader.skip(field)
      }
      if (types.some((aeadType) => aeadType !== CHACHA20_POLY1305)) return refuse("UnknownAeadType", type)
      return Either.right(types.length > 0)
    },
    () => refuse("Malformed", type)
  )
}

const targetOf = (keyPackage: KeyPackage): Result<WelcomeTarget> => {
  const wrapper = findExtension(keyPackage.extensions, ExtensionType.welcomeWrapperEncryption)
  const pointers = findExtension(keyPackage.extensions, ExtensionType.welcomePointeeEncryptionAeadTypes)
  const wrapping =
    wrapper === undefined
      ? Either.right({ algorithm: "Curve25519" as const, publicKey: keyPackage.initKey })
      : readWrapper(wrapper.data)
  if (Either.isLeft(wrapping)) return Either.left(wrapping.left)
  const accepting = pointers === undefined ? Either.right(false) : readAeadTypes(pointers.data)
  return Either.map(accepting, (acceptsWelcomePointers) => ({ ...wrapping.right, acceptsWelcomePointers }))
}

/**
 * Where to wrap a Welcome for the owner of this package.
 *
 * @since 1.0.0
 * @category getters
 */
export const welcomeTarget = (
  keyPackage: ValidatedKeyPackage
): Either.Either<WelcomeTarget, InvalidWelcomeWrapperEncryption> => targetOf(keyPackage.decoded)
