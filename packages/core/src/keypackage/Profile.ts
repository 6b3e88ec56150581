/**
 * What XMTP puts into a key package: the numbers, and the profile that libxmtp publishes, to the byte.
 *
 * @since 1.0.0
 */
import type { InboxId } from "../identity/InboxId.ts"
import * as MlsCredential from "../identity/MlsCredential.ts"
import type { Capabilities, Credential, Extension } from "./KeyPackage.ts"

/**
 * MLS 1.0 (RFC 9420 section 6).
 *
 * @since 1.0.0
 * @category constants
 */
export const PROTOCOL_VERSION = 0x0001

/**
 * `MLS_128_DHKEMX25519_CHACHA20POLY1305_SHA256_Ed25519` (libxmtp `xmtp_cryptography/src/configuration.rs`).
 *
 * @since 1.0.0
 * @category constants
 */
export const CIPHER_SUITE = 0x0003

/**
 * The basic credential (RFC 9420 section 5.3).
 *
 * @since 1.0.0
 * @category constants
 */
export const BASIC_CREDENTIAL = 0x0001

/**
 * The version of what this release puts into a package: capabilities, extensions, lifetime. A release that changes any of it
 * counts up, and packages of the one before are replaced.
 *
 * @since 1.0.0
 * @category constants
 */
export const PROFILE_VERSION = 1

/**
 * The extension types that a key package or its capabilities name (RFC 9420 section 17.3; libxmtp
 * `xmtp_configuration`).
 *
 * @since 1.0.0
 * @category constants
 */
export const ExtensionType = {
  /** RFC 9420: an application's name for the client. Leaves only. */
  applicationId: 0x0001,
  ratchetTree: 0x0002,
  requiredCapabilities: 0x0003,
  externalPub: 0x0004,
  externalSenders: 0x0005,
  /** draft-ietf-mls-extensions. */
  appDataDictionary: 0x0006,
  /** An early draft-ietf-mls-extensions: the package may be used more than once. XMTP's all are. */
  lastResort: 0x000a,
  /** XMTP's OpenMLS fork: group metadata that never changes. */
  immutableMetadata: 0xf000,
  /** libxmtp: group metadata that changes. */
  mutableMetadata: 0xff00,
  /** libxmtp: group membership. */
  groupMembership: 0xff01,
  /** libxmtp: group permissions. */
  groupPermissions: 0xff02,
  /** libxmtp: the key that Welcomes are wrapped to, when it is not `init_key`. */
  welcomeWrapperEncryption: 0xff03,
  /** libxmtp: the ciphers of Welcome pointers that the installation opens. */
  welcomePointeeEncryptionAeadTypes: 0xff04
} as const

/**
 * The longest package that is looked at, bytes. Real ones are 437 or 1663; a node refuses far smaller ones than this.
 *
 * @since 1.0.0
 * @category constants
 */
export const MAX_KEY_PACKAGE_BYTES = 1024 * 1024

/**
 * The capabilities of libxmtp 1.11 (`xmtp_mls/src/identity.rs`, the order included):
 * `020001 020003 12000a0001f0000006ff02ff00ff01ff03ff04 0400070008 020001`.
 *
 * @since 1.0.0
 * @category constants
 */
export const CAPABILITIES: Capabilities = {
  versions: [PROTOCOL_VERSION],
  cipherSuites: [CIPHER_SUITE],
  extensions: [
    ExtensionType.lastResort,
    ExtensionType.applicationId,
    ExtensionType.immutableMetadata,
    ExtensionType.appDataDictionary,
    ExtensionType.groupPermissions,
    ExtensionType.mutableMetadata,
    ExtensionType.groupMembership,
    ExtensionType.welcomeWrapperEncryption,
    ExtensionType.welcomePointeeEncryptionAeadTypes
  ],
  // group_context_extensions and app_data_update
  proposals: [0x0007, 0x0008],
  credentials: [BASIC_CREDENTIAL]
}

/**
 * The credential of an installation: basic, `0a 40` and the inbox id's 64 hex digits.
 *
 * @since 1.0.0
 * @category constructors
 */
export const credential = (inboxId: InboxId): Credential => ({
  type: BASIC_CREDENTIAL,
  content: MlsCredential.encode({ inboxId })
})

const utf8 = new TextEncoder()

/**
 * The leaf's extensions: the inbox id as application id. The id has a length of its own inside `extension_data`
 * (`40 40` and 64 digits); without it libxmtp cannot read the package.
 *
 * @since 1.0.0
 * @category constructors
 */
export const leafNodeExtensions = (inboxId: InboxId): ReadonlyArray<Extension> => {
  const text = utf8.encode(inboxId)
  const data = new Uint8Array(2 + text.length)
  // A two-byte length, which is the canonical one from 64 bytes on; an inbox id is 64.
  data[0] = 0x40 | (text.length >>> 8)
  data[1] = text.length & 0xff
  data.set(text, 2)
  return [{ type: ExtensionType.applicationId, data }]
}

const lastResort: Extension = { type: ExtensionType.lastResort, data: new Uint8Array(0) }

// WelcomePointeeEncryptionAeadTypesExtension { supported_aead_types: [CHACHA20_POLY1305 = 3] }
const welcomePointers: Extension = {
  type: ExtensionType.welcomePointeeEncryptionAeadTypes,
  data: Uint8Array.of(0x0a, 0x01, 0x03)
}

/**
 * The package's extensions, in libxmtp's order (`xmtp_mls/src/identity.rs`): last resort, Welcome pointers and, with a
 * post-quantum key, the key that Welcomes are wrapped to:
 * `WelcomeWrapperEncryption { pub_key, algorithm: XWING_MLKEM_768_DRAFT_6 = 2 }`.
 *
 * @param postQuantumKey X-Wing public key, 1216 bytes
 * @since 1.0.0
 * @category constructors
 */
export const keyPackageExtensions = (postQuantumKey: Uint8Array | undefined): ReadonlyArray<Extension> => {
  if (postQuantumKey === undefined) return [lastResort, welcomePointers]
  const data = new Uint8Array(3 + postQuantumKey.length + 2)
  data.set([0x0a, 0x80 | (postQuantumKey.length & 0x7f), postQuantumKey.length >>> 7])
  data.set(postQuantumKey, 3)
  data.set([0x10, 0x02], 3 + postQuantumKey.length)
  return [lastResort, welcomePointers, { type: ExtensionType.welcomeWrapperEncryption, data }]
}

/**
 * Whether the number is one of the 15 that RFC 9420 section 13.5 keeps meaningless, so that nobody chokes on new ones.
 *
 * @since 1.0.0
 * @category predicates
 */
export const isGrease = (value: number): boolean =>
  (value & 0x0f0f) === 0x0a0a && value >>> 8 === (value & 0xff) && value !== 0xfafa

/**
 * Whether RFC 9420 itself defines the extension, so that capabilities need not list it (OpenMLS `is_default`).
 *
 * @since 1.0.0
 * @category predicates
 */
export const isDefaultExtension = (type: number): boolean => type >= 0x0001 && type <= 0x0005

/**
 * Whether OpenMLS lets a leaf carry the extension (`extensions/mod.rs` `is_valid_in_leaf_node`).
 *
 * @since 1.0.0
 * @category predicates
 */
export const isValidInLeafNode = (type: number): boolean =>
  !(
    (type >= ExtensionType.ratchetTree && type <= ExtensionType.externalSenders) ||
    type === ExtensionType.lastResort ||
    type === ExtensionType.immutableMetadata
  )

/**
 * Whether OpenMLS lets a key package carry the extension (`extensions/mod.rs` `is_valid_in_key_package`).
 *
 * @since 1.0.0
 * @category predicates
 */
export const isValidInKeyPackage = (type: number): boolean =>
  !(isDefaultExtension(type) || type === ExtensionType.immutableMetadata || isGrease(type))
