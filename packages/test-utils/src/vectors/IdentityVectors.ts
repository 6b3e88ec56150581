/**
 * Identity logs with the verdict of the native library, to hold a resolver against. All bytes are lower-case hex, all
 * 64-bit numbers decimal text.
 *
 * The keys in here belong to throwaway test identities.
 *
 * @since 1.0.0
 */
import edge from "./ed25519ph-edge.json" with { type: "json" }
import constants from "./identity-constants.json" with { type: "json" }
import directed from "./identity-directed.json" with { type: "json" }
import randomLogs from "./identity-random-logs.json" with { type: "json" }
import session from "./libxmtp-session.json" with { type: "json" }

/**
 * What libxmtp makes of a log: a state, or its error text. Identifiers are `kind:value`, kind 0 an address and 1 a passkey
 * in hex; installations are `hex@clientTimestampNs`.
 *
 * @since 1.0.0
 * @category models
 */
export type LogVerdict =
  | string
  | {
      readonly inboxId: string
      readonly recovery: string
      readonly installations: ReadonlyArray<string>
      readonly identifiers: ReadonlyArray<string>
    }

/**
 * A log and libxmtp's verdict. A smart contract wallet's signature in it is valid if and only if it is
 * `sha256(lower(account id) || eip191 hash || salt) || salt`.
 *
 * @since 1.0.0
 * @category models
 */
export interface LogVector {
  readonly name?: string | undefined
  readonly inboxId: string
  /** `xmtp.identity.associations.IdentityUpdate`, in the order of the log. */
  readonly updates: ReadonlyArray<string>
  readonly libxmtp: LogVerdict
}

/**
 * Logs made to meet one rule each.
 *
 * @since 1.0.0
 * @category vectors
 */
export const directedLogs: ReadonlyArray<LogVector> = directed

/**
 * Logs of random actions by random signers.
 *
 * @since 1.0.0
 * @category vectors
 */
export const randomIdentityLogs: ReadonlyArray<LogVector> = randomLogs

/**
 * Constants written in libxmtp's own tests, and inbox ids and times that the native library computed.
 *
 * @since 1.0.0
 * @category vectors
 */
export const identityConstants = {
  signatureText: constants["unsigned_actions.rs:670 signature text"],
  legacyKey: constants["verified_signature.rs:310 legacy SignedPublicKey"],
  address: constants["ethereum.rs:147 private key -> address"],
  accountIds: constants["serialization.rs:862 CAIP-10 account ids"] as Readonly<
    Record<string, { readonly chainId?: string; readonly address?: string; readonly error?: string }>
  >,
  timestamps: constants.timestamps as Readonly<Record<string, string>>,
  inboxIds: constants.inboxIds
} as const

/**
 * Crafted Ed25519ph signatures (small order, torsion, non-canonical encodings) with libxmtp's verdict, under the context
 * `edgeSignatures.context`.
 *
 * @since 1.0.0
 * @category vectors
 */
export const edgeSignatures: {
  readonly context: string
  readonly cases: ReadonlyArray<{
    readonly label: string
    readonly message: string
    readonly signature: string
    readonly publicKey: string
    readonly libxmtpAccepts: boolean
  }>
} = edge

/**
 * An installation of the captured session with all its keys.
 *
 * @since 1.0.0
 * @category models
 */
export interface SessionClient {
  readonly name: string
  readonly walletPrivateKey: string
  readonly address: string
  readonly nonce: bigint
  readonly inboxId: string
  readonly installationId: string
  /** The installation's Ed25519 seed. */
  readonly installationSeed: string
}

/** u64le 32, seed, u64le 32, public key, u32le 3. */
const seedOf = (database: { readonly identity: ReadonlyArray<{ readonly installation_keys_hex: string }> }): string =>
  (database.identity[0]?.installation_keys_hex ?? "").slice(16, 80).toLowerCase()

/**
 * The installations of the captured session: `alice1` and `alice2` are of one inbox.
 *
 * @since 1.0.0
 * @category vectors
 */
export const sessionClients: ReadonlyArray<SessionClient> = (["alice1", "alice2", "bob", "carol", "dave"] as const).map(
  (name) => {
    const { address, inboxId, installationId, nonce, walletPrivateKey } = session.clients[name]
    return {
      name,
      address,
      inboxId,
      installationId,
      walletPrivateKey: walletPrivateKey.slice(2),
      nonce: typeof nonce === "number" ? BigInt(nonce) : 1n,
      installationSeed: seedOf(session.localDatabases[name])
    }
  }
)

/**
 * The identity updates that the native client published in the captured session, in order: alice, bob, carol, dave found
 * their inboxes; alice adds an installation, adds a wallet, revokes the installation, changes her recovery address.
 *
 * @since 1.0.0
 * @category vectors
 */
export const sessionIdentityUpdates: ReadonlyArray<{
  readonly inboxId: string
  readonly actions: ReadonlyArray<string>
  readonly clientTimestampNs: string
  readonly identityUpdate: string
}> = session.identityUpdates

/**
 * The logs as the node served them after the captured session.
 *
 * @since 1.0.0
 * @category vectors
 */
export const sessionLogs: ReadonlyArray<{
  readonly inboxId: string
  readonly entries: ReadonlyArray<{ readonly sequenceId: string; readonly identityUpdate: string }>
}> = session.inboxLog

/**
 * What the native client made of those logs, after so many updates of each (`fetchInboxState`).
 *
 * @since 1.0.0
 * @category vectors
 */
export const sessionStates: ReadonlyArray<{
  readonly name: string
  readonly updates: number
  readonly state: {
    readonly inboxId: string
    readonly recoveryIdentifier: { readonly identifier: string }
    readonly installations: ReadonlyArray<{ readonly id: string; readonly clientTimestampNs: string }>
    readonly identifiers: ReadonlyArray<{ readonly identifier: string }>
  }
}> = (
  [
    ["alice_after_install2", 2],
    ["alice_after_add_wallet", 3],
    ["alice_after_revoke_install2", 4],
    ["alice_final", 5],
    ["bob", 1],
    ["carol", 1],
    ["dave", 1]
  ] as const
).map(([name, updates]) => ({ name, updates, state: session.expectedInboxStates[name] }))
