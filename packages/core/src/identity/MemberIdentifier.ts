/**
 * Who can be a member of an inbox, as its log spells it.
 *
 * @since 1.0.0
 */

/**
 * An Ethereum account. The address is text exactly as it came over the wire: libxmtp neither checks nor lower-cases it
 * (`xmtp_id/src/associations/serialization.rs`), and recovered signers are lower case, so any other spelling can be named
 * in a log but can never sign.
 *
 * @since 1.0.0
 * @category models
 */
export interface EthereumMember {
  readonly _tag: "Ethereum"
  readonly address: string
}

/**
 * An installation, by its Ed25519 public key in lower-case hex. The length is free where a log only names a member; an
 * installation that became a member has 32 bytes.
 *
 * @since 1.0.0
 * @category models
 */
export interface InstallationMember {
  readonly _tag: "Installation"
  readonly publicKey: string
}

/**
 * A passkey, by its public key bytes as given, in lower-case hex. Two encodings of one key are two members. The relying
 * party tells nothing apart.
 *
 * @since 1.0.0
 * @category models
 */
export interface PasskeyMember {
  readonly _tag: "Passkey"
  readonly publicKey: string
  readonly relyingParty?: string | undefined
}

/**
 * What can found an inbox and be its recovery identifier: everything but an installation.
 *
 * @since 1.0.0
 * @category models
 */
export type RootIdentifier = EthereumMember | PasskeyMember

/**
 * A member of an inbox, or what a log claims to be one.
 *
 * @since 1.0.0
 * @category models
 */
export type MemberIdentifier = RootIdentifier | InstallationMember

/**
 * The kind of a member, as libxmtp's error texts name it.
 *
 * @since 1.0.0
 * @category models
 */
export type MemberKind = MemberIdentifier["_tag"]

/**
 * The member an installation id stands for.
 *
 * @since 1.0.0
 * @category constructors
 */
export const installation = (publicKeyHex: string): InstallationMember => ({
  _tag: "Installation",
  publicKey: publicKeyHex
})

/**
 * The identifier as signature texts and inbox ids spell it: the address verbatim, or hex of the key.
 *
 * @since 1.0.0
 * @category conversions
 */
export const toText = (identifier: MemberIdentifier): string =>
  identifier._tag === "Ethereum" ? identifier.address : identifier.publicKey

/**
 * A key under which equal identifiers meet: kind and value, without the relying party
 * (`xmtp_id/src/associations/ident/passkey.rs`).
 *
 * @since 1.0.0
 * @category conversions
 */
export const toKey = (identifier: MemberIdentifier): string => `${identifier._tag}:${toText(identifier)}`

/**
 * Whether both name the same member.
 *
 * @since 1.0.0
 * @category equivalences
 */
export const equals = (a: MemberIdentifier, b: MemberIdentifier): boolean =>
  a._tag === b._tag && toText(a) === toText(b)
