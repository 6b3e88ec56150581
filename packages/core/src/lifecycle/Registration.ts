/**
 * Registration: from a wallet to an installation that can be invited, without ever taking a second slot of the inbox.
 *
 * ```
 * log read, limits checked -> wallet signs -> installation key durable -> exact bytes durable
 *   -> key package uploaded -> identity update published -> log read back -> Registered
 * ```
 *
 * The wallet is asked before anything is written and before a lease is taken, since a person may take minutes and may say
 * no. Nothing is published before key and bytes are durable, so a crash or failure anywhere leaves an installation that
 * the next call continues with: same key, same bytes.
 *
 * @since 1.0.0
 */
import * as Arr from "effect/Array"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as AssociationState from "../identity/AssociationState.ts"
import type { IdentityError } from "../identity/IdentityError.ts"
import * as IdentityLog from "../identity/IdentityLog.ts"
import * as InboxId from "../identity/InboxId.ts"
import { InstallationId } from "../identity/InstallationId.ts"
import * as InstallationKey from "../identity/InstallationKey.ts"
import * as RegistrationUpdate from "../identity/RegistrationUpdate.ts"
import type { SignatureRequestError } from "../identity/SignatureRequest.ts"
import * as hex from "../internal/hex.ts"
import { ApiClient } from "../ports/ApiClient.ts"
import { KeyPackageStore } from "../ports/KeyPackageStore.ts"
import { Signer, type SignerError } from "../ports/Signer.ts"
import type { SmartContractWalletVerifier } from "../ports/SmartContractWalletVerifier.ts"
import * as InboxLog from "./InboxLog.ts"
import type { Installation, Registration } from "./Installation.ts"
import type { Lease } from "./Lease.ts"
import { isWaiting, type Kept } from "./Ledger.ts"
import { LifecycleSettings } from "./LifecycleSettings.ts"
import { retryTransient, withinAttempt } from "./RetryPolicy.ts"
import {
  findNewest,
  isFitToPublish,
  type RotationContext,
  type RotationError,
  rotateUnderLease,
  type WantedProfile
} from "./Rotation.ts"
import { underLease, withLease } from "./UnderLease.ts"

/**
 * Why an installation cannot be registered, for reasons of the inbox.
 *
 * - `TooManyInstallations`: the inbox has 10; revoke one first. Nothing was signed, uploaded or published
 * - `IdentityLogFull`: the node takes no further update of this inbox. Nothing was signed, uploaded or published
 * - `InstallationRevoked`: this installation was registered once and has been revoked since. Registering it again would
 *   undo the revocation
 * - `InboxNotVisible`: the node names an inbox of this wallet and shows no log of it; call again
 * - `NotVisible`: published, but the log does not show it yet; call again
 *
 * @since 1.0.0
 * @category errors
 */
export class RegistrationError extends Schema.TaggedError<RegistrationError>("@keyward/core/RegistrationError")(
  "RegistrationError",
  {
    reason: Schema.Literal(
      "TooManyInstallations",
      "IdentityLogFull",
      "InstallationRevoked",
      "InboxNotVisible",
      "NotVisible"
    ),
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
      case "InboxNotVisible":
        return `the wallet is said to belong to inbox ${this.inboxId}, which has no log`
      case "NotVisible":
        return `the log of inbox ${this.inboxId} does not show installation ${this.installationId} yet`
    }
  }
  /** Whether the same call may succeed later without anyone's help. */
  get isRetryable(): boolean {
    return this.reason === "NotVisible" || this.reason === "InboxNotVisible"
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
  /** The wallet's inbox where it is known, for instance from the last registration; asked of the node unless given. */
  readonly inboxId?: InboxId.InboxId | undefined
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

/** The installation in question: in the store already, or about to be. */
interface Candidate {
  readonly inboxId: InboxId.InboxId
  readonly key: InstallationKey.InstallationKey
  readonly registration: Registration
}

const refuse = (reason: RegistrationError["reason"], { inboxId, key }: Candidate): RegistrationError =>
  new RegistrationError({ reason, inboxId, installationId: key.installationId })

const isMember = (inbox: InboxLog.InboxLog, { key }: Candidate): boolean =>
  Option.exists(inbox.state, (state) => AssociationState.hasInstallation(state, key.installationId))

/** Whether the log can still take the saved update: not if someone founded the inbox meanwhile. */
const stillApplies = ({ state }: InboxLog.InboxLog, { inboxId }: Candidate, identityUpdate: Uint8Array) =>
  Option.match(state, {
    onNone: () => IdentityLog.resolve([identityUpdate], { expectedInboxId: inboxId }),
    onSome: (known) => IdentityLog.extend(known, [identityUpdate], { expectedInboxId: inboxId })
  }).pipe(
    Effect.as(true),
    Effect.catchTag("IdentityAssociationError", () => Effect.succeed(false))
  )

/** What is left to do. */
type Progress =
  | { readonly _tag: "Sign" }
  | { readonly _tag: "Publish"; readonly identityUpdate: Uint8Array }
  | { readonly _tag: "Member"; readonly identityUpdate: Uint8Array }

/** Reads off the store and the log what is left to do, and fails where it may not be done, before anything is spent. */
const assess = Effect.fn("Registration.assess")(function* (candidate: Candidate, inbox: InboxLog.InboxLog) {
  const { registration } = candidate
  const addition = yield* InboxLog.findAddition(inbox, candidate.key.installationId)
  if (Option.isSome(addition)) {
    return isMember(inbox, candidate)
      ? ({ _tag: "Member", identityUpdate: addition.value } as Progress)
      : yield* refuse("InstallationRevoked", candidate)
  }
  const installations = Option.match(inbox.state, { onNone: () => [], onSome: AssociationState.installationIds })
  if (installations.length >= InboxLog.MAX_INSTALLATIONS) return yield* refuse("TooManyInstallations", candidate)
  if (inbox.log.length >= InboxLog.MAX_IDENTITY_UPDATES) return yield* refuse("IdentityLogFull", candidate)
  return registration._tag !== "Intended" && (yield* stillApplies(inbox, candidate, registration.identityUpdate))
    ? ({ _tag: "Publish", identityUpdate: registration.identityUpdate } as Progress)
    : ({ _tag: "Sign" } as Progress)
})

/** Asks the wallet. The update is verified against the log before it is handed back. */
const sign = Effect.fn("Registration.sign")(function* (candidate: Candidate, inbox: InboxLog.InboxLog, nonce: bigint) {
  const { inboxId, key: installationKey } = candidate
  const { identifier: owner } = yield* Signer
  const request = { owner, installationKey, clientTimestampNs: yield* InboxLog.clientTimestampNs }
  if (Option.isSome(inbox.state)) {
    return yield* RegistrationUpdate.sign(
      RegistrationUpdate.joinInbox({ ...request, inboxId, state: inbox.state.value })
    )
  }
  // Only the wallet's own inbox of this nonce can be founded; any other must show its log first.
  if (InboxId.derive(owner, nonce) !== inboxId) return yield* refuse("InboxNotVisible", candidate)
  return yield* RegistrationUpdate.sign(RegistrationUpdate.createInbox({ ...request, nonce }))
})

const isSame = (a: Registration, b: Registration): boolean =>
  a._tag === "Intended" || b._tag === "Intended"
    ? a._tag === b._tag
    : a._tag === b._tag && hex.encode(a.identityUpdate) === hex.encode(b.identityUpdate)

/** Saves the exact bytes, and sees to it that the network serves a package that is fit. */
const preparePublication = (
  lease: Lease,
  installation: Installation,
  identityUpdate: Option.Option<Uint8Array>,
  wanted: WantedProfile
) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const { minimumRemainingLifetime } = yield* LifecycleSettings
    const now = yield* DateTime.now
    if (Option.isSome(identityUpdate)) yield* store.saveIdentityUpdate(lease, identityUpdate.value, now)
    const isFit = (entry: Kept) => isFitToPublish(entry, wanted, now, minimumRemainingLifetime)
    const newest = yield* findNewest(installation.installationId)
    const isIntended = ({ keyPackage }: Kept) => Option.isSome(keyPackage.postQuantumKey) === wanted.includePostQuantum
    // What a process with another clock has made since, and this one would not send, replaces nothing. One of another kind does: the
    // app has changed its mind since.
    const rows = Option.exists(newest, (entry) => isWaiting(entry) && isIntended(entry) && !isFit(entry))
      ? yield* store.getHistory(installation.installationId)
      : Option.toArray(newest)
    if (rows.findLast(isFit)?._tag !== "Published")
      yield* rotateUnderLease(lease, installation, { wanted, trigger: "Registration" })
  })

/**
 * One pass. None if somebody else got further meanwhile, which is for the next pass to see.
 *
 * Each of its three writes to the outside has a lease of its own: all attempts of a step fit into one, those of all
 * steps together do not.
 */
const advance = Effect.fn("Registration.advance")(function* (
  inboxId: InboxId.InboxId,
  label: string,
  freshKey: InstallationKey.InstallationKey,
  nonce: bigint,
  wanted: WantedProfile
) {
  const store = yield* KeyPackageStore
  const known = yield* findInstallation(inboxId, label)
  if (Option.exists(known, ({ registration }) => registration._tag === "Registered")) return known

  const candidate: Candidate = Option.isSome(known)
    ? {
        inboxId,
        key: yield* store.getInstallationKey(known.value.installationId),
        registration: known.value.registration
      }
    : { inboxId, key: freshKey, registration: { _tag: "Intended" } }
  const { installationId } = candidate.key
  const inbox = yield* InboxLog.read(inboxId)
  const progress = yield* assess(candidate, inbox)
  const identityUpdate = progress._tag === "Sign" ? yield* sign(candidate, inbox, nonce) : progress.identityUpdate

  const intent = { inboxId, label, key: candidate.key, at: yield* DateTime.now }
  const installation = yield* store.findOrCreateInstallation(intent)
  if (installation.installationId !== installationId) return Option.none()

  const isUndisturbed = yield* withLease(installationId, (lease) =>
    Effect.gen(function* () {
      const current = yield* store.getInstallation(installationId)
      if (!Option.exists(current, (c) => isSame(c.registration, candidate.registration))) return false
      const isNew = progress._tag === "Sign" || candidate.registration._tag === "Intended"
      yield* preparePublication(lease, installation, isNew ? Option.some(identityUpdate) : Option.none(), wanted)
      return true
    })
  )
  if (!isUndisturbed) return Option.none()

  if (progress._tag !== "Member") {
    yield* withLease(installationId, (lease) =>
      InboxLog.publish(inboxId, identityUpdate, {
        isDone: (log) => isMember(log, candidate),
        notVisible: () => refuse("NotVisible", candidate),
        guard: underLease(lease)
      })
    )
  }
  return Option.some(
    yield* withLease(installationId, (lease) => Effect.flatMap(DateTime.now, (now) => store.markRegistered(lease, now)))
  )
})

const findInstallation = (inboxId: InboxId.InboxId, label: string) =>
  Effect.map(
    Effect.flatMap(KeyPackageStore, (store) => store.getInstallations(inboxId)),
    Arr.findFirst((installation) => installation.label === label)
  )

/**
 * Makes the signer's inbox (founded if there is none) have an installation that can be invited: its key is durable, its
 * key package published, and the inbox's log names it as a member.
 *
 * Calling it again with the same wallet and label gives the same installation, finished if it was not; the network is
 * not asked once it is. Two processes over one store make one installation: the second fails with `LeaseError` while the
 * first is at it. A wallet that refuses, or an inbox without room, leaves the store as it was.
 *
 * @since 1.0.0
 * @category pipelines
 */
export const registerInstallation: (
  options: RegisterOptions
) => Effect.Effect<Installation, RegisterInstallationError, RegisterInstallationContext> = Effect.fn(
  "Registration.registerInstallation"
)(function* ({ includePostQuantum, label = "default", nonce = InboxId.defaultNonce, ...options }) {
  const { identifier } = yield* Signer
  const api = yield* ApiClient
  const { uploadAttempts } = yield* LifecycleSettings

  const likely = options.inboxId ?? InboxId.derive(identifier, nonce)
  const finished = yield* findInstallation(likely, label)
  if (Option.isSome(finished) && finished.value.registration._tag === "Registered") return finished.value

  const [asked = Option.none()] =
    options.inboxId === undefined
      ? yield* api.getInboxIds([identifier]).pipe(withinAttempt("getInboxIds"), retryTransient(uploadAttempts))
      : [Option.some(options.inboxId)]
  const inboxId = Option.getOrElse(asked, () => likely)
  const freshKey = yield* InstallationKey.generate
  while (true) {
    const registered = yield* advance(inboxId, label, freshKey, nonce, { includePostQuantum })
    if (Option.isSome(registered)) return registered.value
  }
})
