/**
 * Registration: from a wallet to an installation that can be invited, without ever taking a second slot of the inbox.
 *
 * ```
 * installation key durable -> log read, limits checked -> wallet signs -> exact bytes durable
 *   -> key package uploaded -> identity update published -> log read back -> Registered
 * ```
 *
 * The wallet is asked before the lease is taken, since a person may take minutes. A crash or failure anywhere leaves an
 * installation that the next call continues with: same key, same bytes.
 *
 * @since 1.0.0
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as AssociationState from "../identity/AssociationState.ts"
import type { IdentityError } from "../identity/IdentityError.ts"
import * as IdentityLog from "../identity/IdentityLog.ts"
import * as IdentityUpdate from "../identity/IdentityUpdate.ts"
import * as InboxId from "../identity/InboxId.ts"
import { InstallationId } from "../identity/InstallationId.ts"
import * as InstallationKey from "../identity/InstallationKey.ts"
import * as MemberIdentifier from "../identity/MemberIdentifier.ts"
import * as RegistrationUpdate from "../identity/RegistrationUpdate.ts"
import type { SignatureRequestError } from "../identity/SignatureRequest.ts"
import * as hex from "../internal/hex.ts"
import { ApiClient } from "../ports/ApiClient.ts"
import { KeyPackageStore } from "../ports/KeyPackageStore.ts"
import { Signer, type SignerError } from "../ports/Signer.ts"
import type { SmartContractWalletVerifier } from "../ports/SmartContractWalletVerifier.ts"
import * as InboxLog from "./InboxLog.ts"
import type { Installation, Registration } from "./Installation.ts"
import * as Ledger from "./Ledger.ts"
import { LifecycleSettings } from "./LifecycleSettings.ts"
import { retryTransient } from "./RetryPolicy.ts"
import {
  type RotationContext,
  type RotationError,
  rotateUnderLease,
  type WantedProfile,
  withLease
} from "./Rotation.ts"

/**
 * Why an installation cannot be registered, for reasons of the inbox.
 *
 * - `TooManyInstallations`: the inbox has 10; revoke one first. Nothing was signed, uploaded or published
 * - `IdentityLogFull`: the node takes no further update of this inbox. Nothing was signed, uploaded or published
 * - `InstallationRevoked`: this installation was registered once and has been revoked since. Registering it again would
 *   undo the revocation
 * - `NotVisible`: published, but the log does not show it yet; call again
 *
 * @since 1.0.0
 * @category errors
 */
export class RegistrationError extends Schema.TaggedError<RegistrationError>("@keyward/core/RegistrationError")(
  "RegistrationError",
  {
    reason: Schema.Literal("TooManyInstallations", "IdentityLogFull", "InstallationRevoked", "NotVisible"),
    inboxId: InboxId.InboxId,
    installationId: InstallationId
  }
) {
  override get message(): string {
    switch (this.reason) {
      case "TooManyInstallations":
        return `inbox ${this.inboxId} already has ${InboxLog.MAX_INSTALLATIONS} installations: revoke one first`
      case "IdentityLogFull":
        return `inbox ${this.inboxId} already has ${InboxLog.MAX_IDENTITY_UPDATES} identity updates: the node takes no more`
      case "InstallationRevoked":
        return `installation ${this.installationId} was revoked from inbox ${this.inboxId}`
      case "NotVisible":
        return `the log of inbox ${this.inboxId} does not show installation ${this.installationId} yet`
    }
  }
  /** Whether the same call may succeed later without anyone's help. */
  get isRetryable(): boolean {
    return this.reason === "NotVisible"
  }
}

/**
 * What to register.
 *
 * @since 1.0.0
 * @category models
 */
export interface RegisterOptions extends WantedProfile {
  /** Tells the installations of one inbox in one store apart; `"default"` unless given. */
  readonly label?: string | undefined
  /** Which of the wallet's inboxes to create if it has none: 1 unless given, as XMTP's SDKs. */
  readonly nonce?: bigint | undefined
}

/**
 * Why a registration did not finish. What was reached is durable; the next call continues from there.
 *
 * @since 1.0.0
 * @category errors
 */
export type RegisterInstallationError =
  | RotationError
  | IdentityError
  | SignerError
  | SignatureRequestError
  | RegistrationError

/**
 * What a registration needs.
 *
 * @since 1.0.0
 * @category models
 */
export type RegisterInstallationContext = RotationContext | Signer | SmartContractWalletVerifier

const isMember = (inbox: InboxLog.InboxLog, installationId: InstallationId): boolean =>
  Option.exists(inbox.state, (state) => AssociationState.hasInstallation(state, installationId))

/** Fails where the inbox has no room, before anything is spent. */
const requireRoom = ({ inboxId, installationId }: Installation, { log, state }: InboxLog.InboxLog) => {
  const refuse = (reason: RegistrationError["reason"]) => new RegistrationError({ reason, inboxId, installationId })
  const count = Option.match(state, { onNone: () => 0, onSome: (s) => AssociationState.installationIds(s).length })
  if (count >= InboxLog.MAX_INSTALLATIONS) return refuse("TooManyInstallations")
  if (log.length >= InboxLog.MAX_IDENTITY_UPDATES) return refuse("IdentityLogFull")
  return Effect.void
}

/** The newest update of the log that adds the installation, whether or not it was revoked later. */
const findAddition = Effect.fn("Registration.findAddition")(function* (
  inbox: InboxLog.InboxLog,
  installationId: InstallationId
) {
  const self = MemberIdentifier.installation(installationId)
  for (const { update } of inbox.log.toReversed()) {
    const { actions } = yield* IdentityUpdate.decode(update)
    if (actions.some((a) => a._tag === "AddAssociation" && MemberIdentifier.equals(a.newMember, self))) {
      return Option.some(update)
    }
  }
  return Option.none()
})

/** Whether the log can still take the saved update: not if someone founded the inbox meanwhile. */
const stillApplies = ({ state }: InboxLog.InboxLog, identityUpdate: Uint8Array) =>
  Option.match(state, {
    onNone: () => IdentityLog.resolve([identityUpdate]),
    onSome: (known) => IdentityLog.extend(known, [identityUpdate])
  }).pipe(
    Effect.as(true),
    Effect.catchTag("IdentityAssociationError", () => Effect.succeed(false))
  )

/** What is left to do. */
type Progress =
  | { readonly _tag: "Sign" }
  | { readonly _tag: "Publish"; readonly identityUpdate: Uint8Array }
  | { readonly _tag: "Member"; readonly identityUpdate: Uint8Array }

/** Reads off the store and the log what is left to do, and fails where it may not be done. */
const assess = Effect.fn("Registration.assess")(function* (installation: Installation, inbox: InboxLog.InboxLog) {
  const { inboxId, installationId, registration } = installation
  const addition = yield* findAddition(inbox, installationId)
  if (Option.isSome(addition)) {
    return isMember(inbox, installationId)
      ? ({ _tag: "Member", identityUpdate: addition.value } as Progress)
      : yield* new RegistrationError({ reason: "InstallationRevoked", inboxId, installationId })
  }
  yield* requireRoom(installation, inbox)
  return registration._tag !== "Intended" && (yield* stillApplies(inbox, registration.identityUpdate))
    ? ({ _tag: "Publish", identityUpdate: registration.identityUpdate } as Progress)
    : ({ _tag: "Sign" } as Progress)
})

/** Asks the wallet. The update is verified against the log before it is handed back. */
const sign = Effect.fn("Registration.sign")(function* (
  installation: Installation,
  inbox: InboxLog.InboxLog,
  nonce: bigint
) {
  const store = yield* KeyPackageStore
  const signer = yield* Signer
  const request = {
    owner: signer.identifier,
    installationKey: yield* store.getInstallationKey(installation.installationId),
    clientTimestampNs: yield* InboxLog.clientTimestampNs
  }
  return yield* RegistrationUpdate.sign(
    Option.match(inbox.state, {
      onNone: () => RegistrationUpdate.createInbox({ ...request, nonce }),
      onSome: (state) => RegistrationUpdate.joinInbox({ ...request, inboxId: installation.inboxId, state })
    })
  )
})

/** Publishes the exact bytes until the log names the installation. */
const publish = ({ inboxId, installationId }: Installation, identityUpdate: Uint8Array) =>
  InboxLog.publish(inboxId, identityUpdate, {
    isDone: (inbox) => isMember(inbox, installationId),
    notVisible: () => new RegistrationError({ reason: "NotVisible", inboxId, installationId })
  })

const isSame = (a: Registration, b: Registration): boolean =>
  a._tag === "Intended" || b._tag === "Intended"
    ? a._tag === b._tag
    : a._tag === b._tag && hex.encode(a.identityUpdate) === hex.encode(b.identityUpdate)

/** One pass: everything but the wallet's signature happens under the lease. None if somebody else got further meanwhile. */
const advance = Effect.fn("Registration.advance")(function* (
  installation: Installation,
  nonce: bigint,
  wanted: WantedProfile
) {
  const store = yield* KeyPackageStore
  const { installationId, registration } = installation
  const inbox = yield* InboxLog.read(installation.inboxId)
  const progress = yield* assess(installation, inbox)
  const identityUpdate = progress._tag === "Sign" ? yield* sign(installation, inbox, nonce) : progress.identityUpdate

  return yield* withLease(installationId, (lease) =>
    Effect.gen(function* () {
      const current = yield* store.getInstallation(installationId)
      if (!Option.exists(current, (c) => isSame(c.registration, registration))) return Option.none()

      if (progress._tag === "Sign" || registration._tag === "Intended") {
        yield* store.saveIdentityUpdate(lease, identityUpdate)
      }
      const newest = yield* store.getNewest(installationId)
      if (!Option.exists(newest, Ledger.is("Published"))) yield* rotateUnderLease(lease, installation, wanted)
      if (progress._tag !== "Member") yield* publish(installation, identityUpdate)
      return Option.some(yield* store.markRegistered(lease, yield* DateTime.now))
    })
  )
})

/**
 * Makes the signer's inbox (founded if there is none) have an installation that can be invited: its key is durable, its
 * key package published, and the inbox's log names it as a member.
 *
 * Calling it again with the same wallet and label gives the same installation, finished if it was not. Two processes
 * over one store make one installation: the second fails with `LeaseError` while the first is at it.
 *
 * @since 1.0.0
 * @category pipelines
 */
export const registerInstallation: (
  options: RegisterOptions
) => Effect.Effect<Installation, RegisterInstallationError, RegisterInstallationContext> = Effect.fn(
  "Registration.registerInstallation"
)(function* ({ includePostQuantum, label = "default", nonce = InboxId.defaultNonce }) {
  const store = yield* KeyPackageStore
  const signer = yield* Signer
  const api = yield* ApiClient
  const { uploadAttempts } = yield* LifecycleSettings

  const [known = Option.none()] = yield* retryTransient(uploadAttempts)(api.getInboxIds([signer.identifier]))
  const intent = {
    inboxId: Option.getOrElse(known, () => InboxId.derive(signer.identifier, nonce)),
    label,
    key: yield* InstallationKey.generate,
    at: yield* DateTime.now
  }
  while (true) {
    const installation = yield* store.findOrCreateInstallation(intent)
    if (installation.registration._tag === "Registered") return installation
    const registered = yield* advance(installation, nonce, { includePostQuantum })
    if (Option.isSome(registered)) return registered.value
  }
})
