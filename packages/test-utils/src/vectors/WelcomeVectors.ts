/**
 * Welcomes of others, to hold an opener against. All bytes are lower-case hex, all 64-bit numbers decimal text.
 *
 * The keys in here belong to throwaway test identities.
 *
 * @since 1.0.0
 */
import native from "./native-welcomes.json" with { type: "json" }
import real from "./real-welcomes.json" with { type: "json" }
import rfc9420 from "./rfc9420-welcomes.json" with { type: "json" }

/**
 * A key package with all its private keys.
 *
 * @since 1.0.0
 * @category models
 */
export interface WelcomedInstallation {
  readonly inboxId: string
  /** The installation's Ed25519 seed. */
  readonly seed: string
  readonly keyPackage: string
  /** X25519, private. */
  readonly initKey: string
  /** X25519, private. */
  readonly encryptionKey: string
  /** The X-Wing seed, of a post-quantum package. */
  readonly postQuantumKey?: string | undefined
}

/**
 * A Welcome as the native client sent it.
 *
 * @since 1.0.0
 * @category models
 */
export interface SentWelcome {
  /** The id of the installation that it is for. */
  readonly installationKey: string
  readonly data: string
  readonly hpkePublicKey: string
  readonly wrapperAlgorithm: number
  readonly welcomeMetadata: string
}

/**
 * Groups that the native client (libxmtp 1.11) made with a key package of this library: post-quantum, classical, and with the
 * capabilities of libxmtp 1.10.
 *
 * @since 1.0.0
 * @category vectors
 */
export const realWelcomes: ReadonlyArray<
  WelcomedInstallation & { readonly name: string; readonly welcome: SentWelcome }
> = real

/**
 * An entry of a Welcome topic.
 *
 * @since 1.0.0
 * @category models
 */
export type NativeEntry = {
  readonly id: string
  readonly createdNs: string
  readonly installationKey: string
  readonly hpkePublicKey: string
  readonly wrapperAlgorithm: number
} & (
  | { readonly kind: "Welcome"; readonly data: string; readonly welcomeMetadata: string }
  | { readonly kind: "WelcomePointer"; readonly welcomePointer: string }
)

/**
 * A group of the native client, by its name in the session.
 *
 * @since 1.0.0
 * @category models
 */
export interface NativeGroup {
  readonly groupId: string
  /** The ids of all members' installations, as the native client lists them; sorted. */
  readonly installations: ReadonlyArray<string>
  /** The message that its creator sent after inviting: an MLSMessage with text. */
  readonly messages: ReadonlyArray<{ readonly id: string; readonly data: string }>
}

interface NativeSession {
  readonly installations: Readonly<Record<"pq" | "classic", WelcomedInstallation & { readonly installationId: string }>>
  /** By inbox id: its identity log. */
  readonly inboxes: Readonly<
    Record<
      string,
      {
        readonly name: string
        readonly installationId: string
        readonly log: ReadonlyArray<{ readonly sequenceId: string; readonly update: string }>
      }
    >
  >
  readonly welcomes: ReadonlyArray<NativeEntry & { readonly to: string; readonly group: string }>
  readonly pointees: ReadonlyArray<NativeEntry>
  readonly groups: Readonly<Record<string, NativeGroup>>
}

/**
 * A session in which the native client (libxmtp 1.11) invited two installations of this library to DMs and groups: a DM by
 * X-Wing and one by Curve25519, a group by direct Welcomes, one by a pointer, and one of thirteen members with a history of
 * removals, additions and key updates.
 *
 * @since 1.0.0
 * @category vectors
 */
// What TypeScript reads from JSON does not tell the two kinds of entries apart.
export const nativeSession: NativeSession = native as NativeSession

/**
 * The working group's vectors of ciphersuite 0x0003 (mls-implementations `passive-client-welcome.json`).
 *
 * @since 1.0.0
 * @category vectors
 */
export const passiveClients: ReadonlyArray<{
  readonly keyPackage: string
  readonly signatureKey: string
  readonly encryptionKey: string
  readonly initKey: string
  readonly welcome: string
  /** Where it is not in the Welcome. */
  readonly ratchetTree?: string | undefined
  readonly epochAuthenticator: string
  /** How many pre-shared keys the group needs. */
  readonly preSharedKeys: number
}> = rfc9420.passiveClients

/**
 * The working group's trees of ciphersuite 0x0003 (mls-implementations `tree-validation.json`). All are valid.
 *
 * @since 1.0.0
 * @category vectors
 */
export const ratchetTrees: ReadonlyArray<{
  readonly tree: string
  readonly groupId: string
  /** By node index, of the tree filled up with blanks. */
  readonly treeHashes: ReadonlyArray<string>
}> = rfc9420.trees

/**
 * A Welcome of the working group without a tree (mls-implementations `welcome.json`).
 *
 * @since 1.0.0
 * @category vectors
 */
export const treelessWelcome: {
  readonly initKey: string
  readonly keyPackage: string
  readonly signer: string
  readonly welcome: string
} = rfc9420.welcome
