/**
 * A key package as RFC 9420 section 10 lays it out, in memory.
 *
 * @since 1.0.0
 */

/**
 * An extension of a leaf or of a package (RFC 9420 section 13.4).
 *
 * @since 1.0.0
 * @category models
 */
export interface Extension {
  /** `ExtensionType`, 16 bits. */
  readonly type: number
  /** `extension_data` without its length. */
  readonly data: Uint8Array
}

/**
 * A credential (RFC 9420 section 5.3). The content of a type other than basic is not looked into.
 *
 * @since 1.0.0
 * @category models
 */
export interface Credential {
  /** `CredentialType`, 16 bits; 1 is basic. */
  readonly type: number
  /** The vector after the type, without its length: `identity` of a basic credential. */
  readonly content: Uint8Array
}

/**
 * What a client says it can do (RFC 9420 section 7.2): 16-bit numbers, unknown ones and GREASE included.
 *
 * @since 1.0.0
 * @category models
 */
export interface Capabilities {
  readonly versions: ReadonlyArray<number>
  readonly cipherSuites: ReadonlyArray<number>
  readonly extensions: ReadonlyArray<number>
  readonly proposals: ReadonlyArray<number>
  readonly credentials: ReadonlyArray<number>
}

/**
 * Why a leaf was made (RFC 9420 section 7.2). Only a leaf made for a key package has a lifetime.
 *
 * @since 1.0.0
 * @category models
 */
export type LeafNodeSource =
  | {
      readonly _tag: "KeyPackage"
      /** Seconds since 1970, 64 bits. */
      readonly notBefore: bigint
      /** Seconds since 1970, 64 bits. */
      readonly notAfter: bigint
    }
  | { readonly _tag: "Update" }
  | { readonly _tag: "Commit"; readonly parentHash: Uint8Array }

/**
 * The member-to-be (RFC 9420 section 7.2).
 *
 * @since 1.0.0
 * @category models
 */
export interface LeafNode {
  readonly encryptionKey: Uint8Array
  readonly signatureKey: Uint8Array
  readonly credential: Credential
  readonly capabilities: Capabilities
  readonly source: LeafNodeSource
  readonly extensions: ReadonlyArray<Extension>
  readonly signature: Uint8Array
}

/**
 * The fields of a key package (RFC 9420 section 10), good or bad.
 *
 * @since 1.0.0
 * @category models
 */
export interface KeyPackage {
  readonly version: number
  readonly cipherSuite: number
  readonly initKey: Uint8Array
  readonly leafNode: LeafNode
  readonly extensions: ReadonlyArray<Extension>
  readonly signature: Uint8Array
}

/**
 * A key package and the bytes it was read from. Every byte array in it is a view on `bytes`.
 *
 * @since 1.0.0
 * @category models
 */
export interface DecodedKeyPackage extends KeyPackage {
  /** The whole package. */
  readonly bytes: Uint8Array
  /** What the package's signature covers: `KeyPackageTBS`. */
  readonly toBeSigned: Uint8Array
  /** What the leaf's signature covers: `LeafNodeTBS` of a leaf that was made for a key package. */
  readonly leafNodeToBeSigned: Uint8Array
}

/**
 * The extension of this type, if there is one. There is never a second one.
 *
 * @since 1.0.0
 * @category getters
 */
export const findExtension = (extensions: ReadonlyArray<Extension>, type: number): Extension | undefined =>
  extensions.find((extension) => extension.type === type)
