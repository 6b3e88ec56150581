/**
 * Why a key package is refused. One class per reason, so that a caller can tell an expired package from a forged one.
 *
 * No message carries key bytes.
 *
 * @since 1.0.0
 */
import * as Schema from "effect/Schema"
import type { InvalidMlsCredential } from "../identity/MlsCredential.ts"

const type = (value: number): string => `0x${value.toString(16).padStart(4, "0")}`

/**
 * A field of a key package, named as in RFC 9420 sections 7.2 and 10.
 *
 * @since 1.0.0
 * @category models
 */
export const KeyPackageField = Schema.Literal(
  "key_package",
  "version",
  "cipher_suite",
  "init_key",
  "leaf_node.encryption_key",
  "leaf_node.signature_key",
  "leaf_node.credential.credential_type",
  "leaf_node.credential.identity",
  "leaf_node.capabilities.versions",
  "leaf_node.capabilities.cipher_suites",
  "leaf_node.capabilities.extensions",
  "leaf_node.capabilities.proposals",
  "leaf_node.capabilities.credentials",
  "leaf_node.leaf_node_source",
  "leaf_node.lifetime",
  "leaf_node.parent_hash",
  "leaf_node.extensions",
  "leaf_node.signature",
  "extensions",
  "signature"
)

/**
 * @since 1.0.0
 * @category models
 */
export type KeyPackageField = typeof KeyPackageField.Type

/**
 * The bytes are not one key package in its only canonical form.
 *
 * - `TooLarge`: longer than 1 MiB; not looked at
 * - `EndOfStream`: a value reaches beyond the bytes, or beyond the vector that holds it
 * - `TrailingData`: bytes are left after the last value
 * - `InvalidVectorLength`: a length prefix longer than needed, or of the unused 8-byte form (RFC 9420 section 2.1.2)
 * - `UnknownCiphersuite`, `UnknownLeafNodeSource`: a number that OpenMLS has no meaning for
 * - `DuplicateExtension`: one extension type twice (RFC 9420 section 13.4)
 * - `ExtensionTypeNotValidInLeafNode`: an extension that belongs elsewhere (OpenMLS `extensions/mod.rs`)
 * - `ComponentsNotInOrder`: an app data dictionary whose component ids do not increase
 *
 * @since 1.0.0
 * @category errors
 */
export class KeyPackageDecodeError extends Schema.TaggedError<KeyPackageDecodeError>(
  "@keyward/core/KeyPackageDecodeError"
)("KeyPackageDecodeError", {
  reason: Schema.Literal(
    "TooLarge",
    "EndOfStream",
    "TrailingData",
    "InvalidVectorLength",
    "UnknownCiphersuite",
    "UnknownLeafNodeSource",
    "DuplicateExtension",
    "ExtensionTypeNotValidInLeafNode",
    "ComponentsNotInOrder"
  ),
  field: KeyPackageField,
  /** Bytes from the start of the package. */
  offset: Schema.Number
}) {
  override get message(): string {
    return `not a key package: ${this.reason} in ${this.field} at byte ${this.offset}`
  }
}

/**
 * The package is of another ciphersuite than 0x0003, the only one that XMTP groups use.
 *
 * @since 1.0.0
 * @category errors
 */
export class UnsupportedCiphersuite extends Schema.TaggedError<UnsupportedCiphersuite>(
  "@keyward/core/UnsupportedCiphersuite"
)("UnsupportedCiphersuite", { cipherSuite: Schema.Number }) {
  /** The field at fault. */
  readonly field: KeyPackageField = "cipher_suite"
  override get message(): string {
    return `ciphersuite ${type(this.cipherSuite)} is not used by XMTP`
  }
}

/**
 * The leaf was made for an update or a commit, not for a key package.
 *
 * @since 1.0.0
 * @category errors
 */
export class InvalidLeafNodeSourceType extends Schema.TaggedError<InvalidLeafNodeSourceType>(
  "@keyward/core/InvalidLeafNodeSourceType"
)("InvalidLeafNodeSourceType", { source: Schema.Literal("Update", "Commit") }) {
  /** The field at fault. */
  readonly field: KeyPackageField = "leaf_node.leaf_node_source"
  override get message(): string {
    return `the leaf's source is ${this.source}, not a key package`
  }
}

/**
 * The leaf's signature does not fit its signature key (Ed25519, strict).
 *
 * @since 1.0.0
 * @category errors
 */
export class InvalidLeafNodeSignature extends Schema.TaggedError<InvalidLeafNodeSignature>(
  "@keyward/core/InvalidLeafNodeSignature"
)("InvalidLeafNodeSignature", {}) {
  /** The field at fault. */
  readonly field: KeyPackageField = "leaf_node.signature"
  override get message(): string {
    return "the leaf node's signature is not valid"
  }
}

/**
 * The package is of another protocol version than MLS 1.0.
 *
 * @since 1.0.0
 * @category errors
 */
export class InvalidProtocolVersion extends Schema.TaggedError<InvalidProtocolVersion>(
  "@keyward/core/InvalidProtocolVersion"
)("InvalidProtocolVersion", { version: Schema.Number }) {
  /** The field at fault. */
  readonly field: KeyPackageField = "version"
  override get message(): string {
    return `protocol version ${type(this.version)} is not MLS 1.0`
  }
}

/**
 * `init_key` and the leaf's `encryption_key` are the same key (RFC 9420 section 10.1).
 *
 * @since 1.0.0
 * @category errors
 */
export class InitKeyEqualsEncryptionKey extends Schema.TaggedError<InitKeyEqualsEncryptionKey>(
  "@keyward/core/InitKeyEqualsEncryptionKey"
)("InitKeyEqualsEncryptionKey", {}) {
  /** The field at fault. */
  readonly field: KeyPackageField = "init_key"
  override get message(): string {
    return "the init key equals the leaf's encryption key"
  }
}

/**
 * The package carries an extension that belongs elsewhere (OpenMLS `extensions/mod.rs`).
 *
 * @since 1.0.0
 * @category errors
 */
export class ExtensionTypeNotValidInKeyPackage extends Schema.TaggedError<ExtensionTypeNotValidInKeyPackage>(
  "@keyward/core/ExtensionTypeNotValidInKeyPackage"
)("ExtensionTypeNotValidInKeyPackage", {
  extensionType: Schema.Number,
  /** Bytes from the start of the package. */
  offset: Schema.Number
}) {
  /** The field at fault. */
  readonly field: KeyPackageField = "extensions"
  override get message(): string {
    return `extension ${type(this.extensionType)} at byte ${this.offset} is not allowed in a key package`
  }
}

/**
 * The package's signature does not fit the leaf's signature key (Ed25519, strict).
 *
 * @since 1.0.0
 * @category errors
 */
export class InvalidKeyPackageSignature extends Schema.TaggedError<InvalidKeyPackageSignature>(
  "@keyward/core/InvalidKeyPackageSignature"
)("InvalidKeyPackageSignature", {}) {
  /** The field at fault. */
  readonly field: KeyPackageField = "signature"
  override get message(): string {
    return "the key package's signature is not valid"
  }
}

/**
 * The package carries an extension that its own leaf does not claim to support (RFC 9420 section 10).
 *
 * @since 1.0.0
 * @category errors
 */
export class UnsupportedExtension extends Schema.TaggedError<UnsupportedExtension>(
  "@keyward/core/UnsupportedExtension"
)("UnsupportedExtension", {
  extensionType: Schema.Number,
  /** Bytes from the start of the package. */
  offset: Schema.Number
}) {
  /** The field at fault. */
  readonly field: KeyPackageField = "extensions"
  override get message(): string {
    return `extension ${type(this.extensionType)} at byte ${this.offset} is not in the leaf's capabilities`
  }
}

/**
 * The package may not be used any more: it expires *at* `notAfter`, not after it (OpenMLS `lifetime.rs`).
 *
 * @since 1.0.0
 * @category errors
 */
export class KeyPackageExpired extends Schema.TaggedError<KeyPackageExpired>("@keyward/core/KeyPackageExpired")(
  "KeyPackageExpired",
  {
    /** Seconds since 1970. */
    notAfter: Schema.BigIntFromSelf,
    /** Seconds since 1970. */
    now: Schema.BigIntFromSelf
  }
) {
  /** The field at fault. */
  readonly field: KeyPackageField = "leaf_node.lifetime"
  override get message(): string {
    return `the key package expired: not_after=${this.notAfter}, now=${this.now}`
  }
}

/**
 * The package may not be used yet.
 *
 * @since 1.0.0
 * @category errors
 */
export class KeyPackageNotYetValid extends Schema.TaggedError<KeyPackageNotYetValid>(
  "@keyward/core/KeyPackageNotYetValid"
)("KeyPackageNotYetValid", {
  /** Seconds since 1970. */
  notBefore: Schema.BigIntFromSelf,
  /** Seconds since 1970. */
  now: Schema.BigIntFromSelf
}) {
  /** The field at fault. */
  readonly field: KeyPackageField = "leaf_node.lifetime"
  override get message(): string {
    return `the key package is not valid yet: not_before=${this.notBefore}, now=${this.now}`
  }
}

/**
 * The leaf's credential is not a basic one.
 *
 * @since 1.0.0
 * @category errors
 */
export class WrongCredentialType extends Schema.TaggedError<WrongCredentialType>("@keyward/core/WrongCredentialType")(
  "WrongCredentialType",
  { credentialType: Schema.Number }
) {
  /** The field at fault. */
  readonly field: KeyPackageField = "leaf_node.credential.credential_type"
  override get message(): string {
    return `credential type ${type(this.credentialType)} is not basic`
  }
}

/**
 * Everything that `validateKeyPackage` can say against a package.
 *
 * @since 1.0.0
 * @category errors
 */
export type KeyPackageValidationError =
  | KeyPackageDecodeError
  | UnsupportedCiphersuite
  | InvalidLeafNodeSourceType
  | InvalidLeafNodeSignature
  | InvalidProtocolVersion
  | InitKeyEqualsEncryptionKey
  | ExtensionTypeNotValidInKeyPackage
  | InvalidKeyPackageSignature
  | UnsupportedExtension
  | KeyPackageExpired
  | KeyPackageNotYetValid
  | WrongCredentialType
  | InvalidMlsCredential

/**
 * A package cannot be generated.
 *
 * - `InvalidInstallationKey`: the seed is not 32 bytes
 * - `InstallationKeyMismatch`: the seed is not the one of `installationId`; such a package could not be verified
 * - `Mls`: the MLS library refused
 *
 * @since 1.0.0
 * @category errors
 */
export class KeyPackageGenerationError extends Schema.TaggedError<KeyPackageGenerationError>(
  "@keyward/core/KeyPackageGenerationError"
)("KeyPackageGenerationError", {
  reason: Schema.Literal("InvalidInstallationKey", "InstallationKeyMismatch", "Mls")
}) {
  override get message(): string {
    return `cannot generate a key package: ${this.reason}`
  }
}
