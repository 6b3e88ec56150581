/**
 * Changing who belongs to an inbox: adding a wallet, revoking members, handing on the right to revoke. Adding an
 * installation is registration.
 *
 * ```
 * log read and resolved -> limits and rules checked -> signed -> verified here -> exact bytes published -> log read back
 * ```
 *
 * Nobody is asked to sign what the rules of the log refuse, as far as they do not depend on the signatures: the very same
 * change twice within one second has the same text and signature, and is refused as a replay after it was signed. An operation that is done already (the wallet is a
 * member, the installation is none) gives the state and signs nothing, so calling again after an unknown outcome is safe.
 *
 * @since 1.0.0
 */
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as AssociationState from "../identity/AssociationState.ts"
import type { Identifier } from "../identity/Identifier.ts"
import type { IdentityError } from "../identity/IdentityError.ts"
import { InboxId } from "../identity/InboxId.ts"
import type { InstallationId } from "../identity/InstallationId.ts"
import * as MemberIdentifier from "../identity/MemberIdentifier.ts"
import * as SignatureRequest from "../identity/SignatureRequest.ts"
import { ApiClient, type ApiClientError } from "../ports/ApiClient.ts"
import { KeyPackageStore, StorageError } from "../ports/KeyPackageStore.ts"
import { Signer, type SignerError } from "../ports/Signer.ts"
import type { SmartContractWalletVerifier } from "../ports/SmartContractWalletVerifier.ts"
import * as InboxLog from "./InboxLog.ts"
import { LifecycleSettings } from "./LifecycleSettings.ts"
import { retryTransient, withinAttempt } from "./RetryPolicy.ts"

/**
 * Why an inbox was not changed, for reasons of the inbox.
 *
 * - `InboxNotFound`: its log is empty. Nothing was signed or published
 * - `IdentityLogFull`: the node takes no further update of this inbox. Nothing was signed or published
 * - `NotRecoveryIdentifier`: only the recovery identifier may do this, and another wallet is at hand. Nothing was signed or
 *   published
 * - `WalletInOtherInbox`: the wallet that is to be added is a member of another inbox, which it could then no longer be
 *   found by. Nothing was signed or published
 * - `NotVisible`: published, but the log does not show it yet; call again
 *
 * @since 1.0.0
 * @category errors
 */
export class IdentityOperationError extends Schema.TaggedError<IdentityOperationError>(
  "@keyward/core/IdentityOperationError"
)("IdentityOperationError", {
  reason: Schema.Literal(
    "InboxNotFound",
    "IdentityLogFull",
    "NotRecoveryIdentifier",
    "WalletInOtherInbox",
    "NotVisible"
  ),
  inboxId: InboxId,
  detail: Schema.optional(Schema.String)
}) {
  override get message(): string {
    const detail = this.detail === undefined ? "" : ` (${this.detail})`
    switch (this.reason) {
      case "InboxNotFound":
        return `inbox ${this.inboxId} does not exist`
      case "IdentityLogFull":
        return `inbox ${this.inboxId} already has ${InboxLog.MAX_IDENTITY_UPDATES} identity updates: the node takes no more`
      case "NotRecoveryIdentifier":
        return `only the recovery identifier of inbox ${this.inboxId} may do this${detail}`
      case "WalletInOtherInbox":
        return `the wallet belongs to another inbox than ${this.inboxId}${detail}`
      case "NotVisible":
        return `the log of inbox ${this.inboxId} does not show the update yet`
    }
  }
  /** Whether the same call may succeed later without anyone's help. */
  get isRetryable(): boolean {
    return this.reason === "NotVisible"
  }
}

/**
 * Why an operation did not finish. After an `ApiClientError`, and after an error of the log that was read back, it is not
 * known whether the update reached the log; calling again finds out.
 *
 * @since 1.0.0
 * @category errors
 */
export type IdentityOperationFailure =
  | ApiClientError
  | IdentityError
  | SignerError
  | SignatureRequest.SignatureRequestError
  | IdentityOperationError

/**
 * What every operation needs.
 *
 * @since 1.0.0
 * @category models
 */
export type IdentityOperationContext = ApiClient | SmartContractWalletVerifier

type Done<R> = Effect.Effect<AssociationState.AssociationState, IdentityOperationFailure, IdentityOperationContext | R>

/** What a request to an inbox starts from. */
interface Base {
  readonly inboxId: InboxId
  readonly clientTimestampNs: bigint
  readonly state: AssociationState.AssociationState
}

/** One operation: `plan` makes the request, or none where nothing is left to do. */
const perform = Effect.fn("IdentityOperations.perform")(function* (
  inboxId: InboxId,
  parties: ReadonlyArray<SignatureRequest.Party>,
  plan: (
    base: Base
  ) => Effect.Effect<
    Option.Option<SignatureRequest.SignatureRequest>,
    ApiClientError | IdentityOperationError,
    ApiClient
  >
) {
  const refuse = (reason: IdentityOperationError["reason"]) => new IdentityOperationError({ reason, inboxId })
  const inbox = yield* InboxLog.read(inboxId)
  if (Option.isNone(inbox.state)) return yield* refuse("InboxNotFound")
  const state = inbox.state.value
  const request = yield* plan({ inboxId, state, clientTimestampNs: yield* InboxLog.clientTimestampNs })
  if (Option.isNone(request)) return state
  if (inbox.log.length >= InboxLog.MAX_IDENTITY_UPDATES) return yield* refuse("IdentityLogFull")

  const { bytes, verified } = yield* SignatureRequest.sign(request.value, parties)
  const isApplied = (after: AssociationState.AssociationState) => AssociationState.hasApplied(after, verified)
  const after = yield* InboxLog.publish(inboxId, bytes, {
    isDone: (now) => Option.exists(now.state, isApplied),
    notVisible: () => refuse("NotVisible")
  })
  return Option.getOrElse(after.state, () => state)
})

/** Fails where the signer may not revoke. */
const requireRecovery = ({ inboxId, state }: Base, signer: Identifier) =>
  MemberIdentifier.equals(state.recoveryIdentifier, signer)
    ? Effect.void
    : new IdentityOperationError({
        reason: "NotRecoveryIdentifier",
        inboxId,
        detail: `that is ${MemberIdentifier.toText(state.recoveryIdentifier)}, at hand is ${MemberIdentifier.toText(signer)}`
      })

/**
 * What adding a wallet takes.
 *
 * @since 1.0.0
 * @category models
 */
export interface NewWallet {
  /** The wallet to add. It signs too. */
  readonly wallet: Context.Tag.Service<Signer>
  /**
   * Whether to add it though it belongs to another inbox. The network then finds it under this inbox only: whoever writes
   * to the wallet no longer reaches the other one. `false` unless given.
   */
  readonly reassign?: boolean | undefined
}

/** Adds in the right of `adder`, who is one of the parties. */
const add = (inboxId: InboxId, adder: SignatureRequest.Party, { reassign = false, wallet }: NewWallet): Done<never> =>
  perform(inboxId, [adder, wallet], (base) =>
    Effect.gen(function* () {
      if (AssociationState.isMember(base.state, wallet.identifier)) return Option.none()
      if (!reassign) {
        const api = yield* ApiClient
        const { uploadAttempts } = yield* LifecycleSettings
        const [known = Option.none()] = yield* api
          .getInboxIds([wallet.identifier])
          .pipe(withinAttempt("getInboxIds"), retryTransient(uploadAttempts))
        if (Option.exists(known, (other) => other !== inboxId)) {
          return yield* new IdentityOperationError({
            reason: "WalletInOtherInbox",
            inboxId,
            detail: Option.getOrUndefined(known)
          })
        }
      }
      const existingMember = SignatureRequest.identifierOf(adder)
      return Option.some(SignatureRequest.addMember({ ...base, existingMember, newMember: wallet.identifier }))
    })
  )

/**
 * Adds a wallet to an inbox. The `Signer` is the member that adds it, or the recovery identifier.
 *
 * @since 1.0.0
 * @category operations
 */
export const addWallet = (options: NewWallet & { readonly inboxId: InboxId }): Done<Signer> =>
  Effect.flatMap(Signer, (signer) => add(options.inboxId, signer, options))

/**
 * Adds a wallet to the inbox of one of our installations, which signs as the member that adds it: only the new wallet is
 * asked (libxmtp `identity_updates.rs`, `associate_identity`). `Conflict` where the store does not hold the installation.
 *
 * @since 1.0.0
 * @category operations
 */
export const addWalletByInstallation = (
  options: NewWallet & { readonly installationId: InstallationId }
): Effect.Effect<
  AssociationState.AssociationState,
  IdentityOperationFailure | StorageError,
  IdentityOperationContext | KeyPackageStore
> =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const { installationId } = options
    const key = yield* store.getInstallationKey(installationId)
    const installation = yield* Effect.flatMap(
      store.getInstallation(installationId),
      Effect.mapError(
        () =>
          new StorageError({
            operation: "getInstallation",
            reason: "Conflict",
            detail: "there is no such installation"
          })
      )
    )
    return yield* add(installation.inboxId, key, options)
  })

/**
 * Removes members from an inbox, all by one signature of the `Signer`, which must be its recovery identifier. The
 * installations that a removed wallet added go with it. Who is no member already is left out.
 *
 * The last member may be revoked, and so may the recovery identifier, which keeps its rights: nobody is left who could
 * add a member then but the recovery identifier.
 *
 * @since 1.0.0
 * @category operations
 */
export const revokeMembers = (options: {
  readonly inboxId: InboxId
  readonly members: ReadonlyArray<MemberIdentifier.MemberIdentifier>
}): Done<Signer> =>
  Effect.flatMap(Signer, (signer) =>
    perform(options.inboxId, [signer], (base) =>
      Effect.gen(function* () {
        const distinct = new Map(options.members.map((member) => [MemberIdentifier.toKey(member), member]))
        const members = [...distinct.values()].filter((member) => AssociationState.isMember(base.state, member))
        if (members.length === 0) return Option.none()
        yield* requireRecovery(base, signer.identifier)
        return Option.some(SignatureRequest.revokeMembers({ ...base, recoveryIdentifier: signer.identifier, members }))
      })
    )
  )

/**
 * `revokeMembers` of installations: lost devices, or free slots of the 10 that an inbox has.
 *
 * @since 1.0.0
 * @category operations
 */
export const revokeInstallations = (options: {
  readonly inboxId: InboxId
  readonly installationIds: ReadonlyArray<InstallationId>
}): Done<Signer> =>
  revokeMembers({ inboxId: options.inboxId, members: options.installationIds.map(MemberIdentifier.installation) })

/**
 * `revokeMembers` of wallets and passkeys.
 *
 * @since 1.0.0
 * @category operations
 */
export const revokeWallets = (options: {
  readonly inboxId: InboxId
  readonly wallets: ReadonlyArray<Identifier>
}): Done<Signer> => revokeMembers({ inboxId: options.inboxId, members: options.wallets })

/**
 * Makes another wallet or passkey the one that may revoke. The `Signer` is the recovery identifier so far; the new one does
 * not sign, need not be a member, and is not checked by anybody: a wrong address takes that right from everybody.
 *
 * @since 1.0.0
 * @category operations
 */
export const changeRecoveryIdentifier = (options: {
  readonly inboxId: InboxId
  readonly newRecoveryIdentifier: Identifier
}): Done<Signer> =>
  Effect.flatMap(Signer, (signer) =>
    perform(options.inboxId, [signer], (base) =>
      Effect.gen(function* () {
        const { newRecoveryIdentifier } = options
        if (MemberIdentifier.equals(base.state.recoveryIdentifier, newRecoveryIdentifier)) return Option.none()
        yield* requireRecovery(base, signer.identifier)
        return Option.some(
          SignatureRequest.changeRecoveryIdentifier({
            ...base,
            recoveryIdentifier: signer.identifier,
            newRecoveryIdentifier
          })
        )
      })
    )
  )
