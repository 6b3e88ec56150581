/**
 * Key packages and key encapsulations of others, to hold this code against. All bytes are lower-case hex.
 *
 * The keys in here belong to throwaway test identities.
 *
 * @since 1.0.0
 */
import directed from "./key-package-directed.json" with { type: "json" }
import rfc9420 from "./rfc9420-key-packages.json" with { type: "json" }
import session from "./session-key-packages.json" with { type: "json" }
import xwing from "./xwing-draft-06.json" with { type: "json" }

/**
 * A key package that the native client (libxmtp 1.11) uploaded to a node.
 *
 * @since 1.0.0
 * @category models
 */
export interface SessionKeyPackage {
  readonly client: string
  readonly inboxId: string
  readonly installationId: string
  /** The installation's Ed25519 seed. */
  readonly installationSeed: string
  /** When it arrived, milliseconds since 1970. */
  readonly unixMs: number
  readonly initKey: string
  readonly encryptionKey: string
  /** The hash ref that libxmtp wrote into its database. */
  readonly ref: string
  readonly bytes: string
}

/**
 * The nine packages of a session of the native client, five of registrations and four of rotations.
 *
 * @since 1.0.0
 * @category vectors
 */
export const sessionKeyPackages: ReadonlyArray<SessionKeyPackage> = session

/**
 * A package and what libxmtp 1.11 says of it.
 *
 * @since 1.0.0
 * @category models
 */
export interface DirectedKeyPackage {
  readonly name: string
  readonly bytes: string
  /** `ok`, or the native library's error text. */
  readonly libxmtp: string
}

/**
 * Packages made to fail one check, or two to see which comes first. They were judged at `directedAt`.
 *
 * @since 1.0.0
 * @category vectors
 */
export const directedKeyPackages: ReadonlyArray<DirectedKeyPackage> = directed

/**
 * When libxmtp judged the directed packages, milliseconds since 1970 (2026-11-23T07:40:00Z).
 *
 * @since 1.0.0
 * @category vectors
 */
export const directedAt = 1_795_419_600_000

/**
 * Packages of the MLS working group's vectors (mls-implementations cfd4502, `messages.json`), without the MLSMessage
 * header: all 100 of suite 3, ten each of suites 1 and 2. They expired in 2023.
 *
 * @since 1.0.0
 * @category vectors
 */
export const rfc9420KeyPackages: {
  readonly suite1: ReadonlyArray<string>
  readonly suite2: ReadonlyArray<string>
  readonly suite3: ReadonlyArray<string>
} = rfc9420

/**
 * A time at which the packages of suite 3 were valid, milliseconds since 1970.
 *
 * @since 1.0.0
 * @category vectors
 */
export const rfc9420At = 1_678_280_000_000

/**
 * The working group's vectors of labelled operations in suite 3 (`crypto-basics.json`).
 *
 * @since 1.0.0
 * @category vectors
 */
export const rfc9420CryptoBasics: {
  readonly refHash: { readonly label: string; readonly value: string; readonly out: string }
  readonly signWithLabel: {
    readonly priv: string
    readonly pub: string
    readonly label: string
    readonly content: string
    readonly signature: string
  }
  readonly encryptWithLabel: {
    readonly priv: string
    readonly pub: string
    readonly label: string
    readonly context: string
    readonly plaintext: string
    readonly kem_output: string
    readonly ciphertext: string
  }
  readonly expandWithLabel: {
    readonly secret: string
    readonly label: string
    readonly context: string
    readonly length: number
    readonly out: string
  }
} = rfc9420.cryptoBasics

/**
 * A vector of draft-connolly-cfrg-xwing-kem-06: seed, encapsulation seed, shared secret, public key, ciphertext.
 *
 * @since 1.0.0
 * @category models
 */
export interface XWingVector {
  readonly seed: string
  readonly eseed: string
  readonly ss: string
  readonly pk: string
  readonly ct: string
}

/**
 * The three vectors of the X-Wing draft.
 *
 * @since 1.0.0
 * @category vectors
 */
export const xwingVectors: ReadonlyArray<XWingVector> = xwing
