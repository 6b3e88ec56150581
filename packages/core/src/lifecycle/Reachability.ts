/**
 * Whether an installation can be invited: what the network serves for it, compared with the ledger and the keys.
 *
 * @since 1.0.0
 */
import * as Data from "effect/Data"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as AssociationState from "../identity/AssociationState.ts"
import * as InstallationId from "../identity/InstallationId.ts"
import { inOrder } from "../identity/LogOrder.ts"
import { BoundedMap } from "../internal/boundedMap.ts"
import { hasPrivateKeys } from "../internal/hasPrivateKeys.ts"
import * as seenServed from "../internal/seenServed.ts"
import { withSpan } from "../internal/span.ts"
import * as Codec from "../keypackage/Codec.ts"
import * as KeyPackageRef from "../keypackage/KeyPackageRef.ts"
import { ApiClient, type ApiClientError, type IdentityUpdateLogEntry } from "../ports/ApiClient.ts"
import { type InstallationLedger, KeyPackageStore, type StorageError } from "../ports/KeyPackageStore.ts"
import { MlsCrypto } from "../ports/MlsCrypto.ts"
import type { SmartContractWalletVerifier } from "../ports/SmartContractWalletVerifier.ts"
import * as InboxLog from "./InboxLog.ts"
import type { Installation } from "./Installation.ts"
import type { HistoryId, Published, Retired } from "./Ledger.ts"
import { retryTransient, withinAttempt } from "./RetryPolicy.ts"
import * as Schedule from "./Schedule.ts"
import type { SeenServed } from "./SeenServed.ts"

/**
 * What the public path serves for an installation.
 *
 * - `Nothing`: no package
 * - `Ours`: the bytes of a row whose keys should be here
 * - `Erased`: a package of ours whose keys are erased
 * - `Damaged`: a package of ours whose row cannot be read
 * - `Unknown`: a package that bears our leaf key and that this store never made
 * - `Foreign`: another installation's package, or no package at all
 *
 * @since 1.0.0
 * @category models
 */
export type Served = Data.TaggedEnum<{
  Nothing: {}
  Ours: { readonly seen: SeenServed; readonly hasKeys: boolean }
  Erased: { readonly retired: Retired }
  Damaged: { readonly historyId: HistoryId }
  Unknown: { readonly ref: KeyPackageRef.KeyPackageRef }
  Foreign: { readonly detail: string }
}>

const { Damaged, Erased, Foreign, Nothing, Ours, Unknown } = Data.taggedEnum<Served>()

/**
 * What the inbox's identity log says of the installation. `Unclear` where the log cannot be read or resolved now.
 *
 * @since 1.0.0
 * @category models
 */
export type Membership = "Member" | "Revoked" | "NeverAdded" | "Unclear"

/**
 * What was seen, and when.
 *
 * @since 1.0.0
 * @category models
 */
export interface Observation {
  readonly served: Served
  readonly membership: Membership
  readonly seenAt: DateTime.Utc
  /** A time that the network's own clock has passed: that of the newest entry in the inbox's log. */
  readonly networkTimeAtLeast: Option.Option<DateTime.Utc>
}

/**
 * Whether an installation can be invited, and if not, why.
 *
 * - `Reachable`: the network serves our newest package, and its keys are here
 * - `AcknowledgementMissing`: it serves a package of ours that we do not know to be accepted
 * - `AwaitingConfirmation`: it still serves what it did before, or nothing yet, within the time that it may take
 * - `ServesNothing`, `ServesOlder`, `ServesErased`, `ServesDamaged`, `ServesForeign`: it serves what it should not
 * - `Expired`: it serves our newest package, whose lifetime is over or has not begun
 * - `KeysMissing`: it serves our newest package, and its keys are not here
 * - `DatabaseRestored`: it serves a package of this installation that this store never made
 * - `CloneSuspected`: it does so again, after a package of ours was published in between: another process has a copy of
 *   this store
 * - `Revoked`: the inbox has revoked the installation
 * - `NotRegistered`: the installation was never registered to the end
 *
 * @since 1.0.0
 * @category models
 */
export type Reachability = Data.TaggedEnum<{
  Reachable: { readonly historyId: HistoryId; readonly until: DateTime.Utc }
  AcknowledgementMissing: { readonly seen: SeenServed }
  AwaitingConfirmation: { readonly meanwhile: Option.Option<HistoryId> }
  ServesNothing: {}
  ServesOlder: { readonly seen: SeenServed }
  ServesErased: { readonly retired: Retired }
  ServesDamaged: { readonly historyId: HistoryId }
  ServesForeign: { readonly detail: string }
  Expired: { readonly historyId: HistoryId }
  KeysMissing: { readonly historyId: HistoryId }
  DatabaseRestored: { readonly ref: KeyPackageRef.KeyPackageRef }
  CloneSuspected: { readonly ref: KeyPackageRef.KeyPackageRef }
  Revoked: {}
  NotRegistered: {}
}>

/**
 * @since 1.0.0
 * @category constructors
 */
export const Reachability = Data.taggedEnum<Reachability>()

/** How often a look at the network is tried. */
const ATTEMPTS = 3

/** The key that a package names as its owner, or why there is none. */
const ownerOf = (bytes: Uint8Array): Either.Either<InstallationId.InstallationId, string> =>
  Codec.decode(bytes).pipe(
    Either.mapLeft((error) => error.message),
    Either.filterOrLeft(
      ({ leafNode }) => leafNode.signatureKey.length === 32,
      () => "its leaf has no Ed25519 key"
    ),
    Either.map(({ leafNode }) => InstallationId.fromPublicKey(leafNode.signatureKey))
  )

/** Which of our rows the bytes are, if any. */
const identify = (installation: Installation, ledger: InstallationLedger, bytes: Uint8Array, seenAt: DateTime.Utc) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const crypto = yield* MlsCrypto
    const { installationId } = installation
    const ref = KeyPackageRef.hashWith(crypto, bytes)
    const entry = ledger.entries.find(({ keyPackage }) => keyPackage.ref === ref)
    if (entry !== undefined) {
      return Ours({ seen: seenServed.issue(entry, seenAt), hasKeys: yield* hasPrivateKeys(entry.historyId) })
    }
    const damaged = ledger.quarantined.find((row) => Option.contains(row.ref, ref))
    if (damaged !== undefined) return Damaged({ historyId: damaged.historyId })
    const known = yield* store.findByRef(installationId, ref)
    if (Option.isSome(known) && known.value._tag === "Retired") return Erased({ retired: known.value })
    return Either.match(ownerOf(bytes), {
      onLeft: (detail) => Foreign({ detail: `no key package: ${detail}` }),
      onRight: (owner) =>
        owner === installationId ? Unknown({ ref }) : Foreign({ detail: `the package of installation ${owner}` })
    })
  })

/**
 * What the logs said at the last look, so that a log that has not grown is not resolved again.
 *
 * @since 1.0.0
 * @category models
 */
export interface LogMemory {
  readonly get: (installationId: InstallationId.InstallationId) => RememberedLog | undefined
  readonly set: (installationId: InstallationId.InstallationId, log: RememberedLog) => void
}

/** A log by its last entry, and what it says. */
interface RememberedLog extends InboxAnswer {
  readonly sequenceId: bigint
}

interface InboxAnswer {
  readonly membership: Membership
  readonly time: Option.Option<DateTime.Utc>
}

/** Logs remembered at most. */
const REMEMBERED_LOGS = 10_000

/**
 * A memory of the logs of 10,000 installations.
 *
 * @since 1.0.0
 * @category constructors
 */
export const memory = (): LogMemory => {
  const logs = new BoundedMap<InstallationId.InstallationId, RememberedLog>(REMEMBERED_LOGS)
  return { get: (id) => logs.get(id), set: (id, log) => void logs.set(id, log) }
}

const newestTime = (log: ReadonlyArray<IdentityUpdateLogEntry>): Option.Option<DateTime.Utc> => {
  let newest = 0n
  for (const { serverTimestampNs } of log) if (serverTimestampNs > newest) newest = serverTimestampNs
  return newest === 0n ? Option.none() : DateTime.make(Number(newest / 1_000_000n))
}

const membershipOf = (inbox: InboxLog.InboxLog, installationId: InstallationId.InstallationId) =>
  Option.exists(inbox.state, (state) => AssociationState.hasInstallation(state, installationId))
    ? Effect.succeed<Membership>("Member")
    : Effect.map(
        InboxLog.findAddition(inbox, installationId),
        (addition): Membership => (Option.isSome(addition) ? "Revoked" : "NeverAdded")
      )

/** Asks for the inbox's log, from where it was known. A log that is not to be had, or that nobody can resolve, says nothing. */
const askInbox = ({ inboxId, installationId }: Installation, known: LogMemory | undefined) =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const remembered = known?.get(installationId)
    if (remembered !== undefined) {
      const [news = []] = yield* api
        .getIdentityUpdates([{ inboxId, after: remembered.sequenceId }])
        .pipe(withinAttempt("getIdentityUpdates"), retryTransient(ATTEMPTS))
      if (inOrder(news, remembered.sequenceId).length === 0) return remembered
    }
    const inbox = yield* InboxLog.read(inboxId)
    const answer: InboxAnswer = {
      membership: yield* membershipOf(inbox, installationId),
      time: newestTime(inbox.log)
    }
    const last = inbox.log.at(-1)
    if (last !== undefined) known?.set(installationId, { ...answer, sequenceId: last.sequenceId })
    return answer
  }).pipe(
    Effect.catchAll((error) =>
      Effect.as(Effect.logWarning(error.message), {
        membership: "Unclear",
        time: Option.none<DateTime.Utc>()
      } satisfies InboxAnswer)
    )
  )

/**
 * Asks the network what it serves for the installation, and what the inbox's log says of it. Writes nothing.
 *
 * Fails with the `ApiClientError` where the package cannot be asked for, with `StorageError` where the store cannot be read.
 *
 * @since 1.0.0
 * @category looking
 */
export const look: (
  installation: Installation,
  ledger: InstallationLedger,
  memory?: LogMemory | undefined
) => Effect.Effect<
  Observation,
  ApiClientError | StorageError,
  KeyPackageStore | ApiClient | MlsCrypto | SmartContractWalletVerifier
> = Effect.fnUntraced(function* (installation, ledger, memory) {
  const { installationId } = installation
  const api = yield* ApiClient

  const fetch = api.fetchKeyPackages([installationId]).pipe(withinAttempt("fetchKeyPackages"), retryTransient(ATTEMPTS))
  const [[bytes = Option.none()], inbox] = yield* Effect.all([fetch, askInbox(installation, memory)], {
    concurrency: 2
  })
  const seenAt = yield* DateTime.now
  const served = Option.isNone(bytes) ? Nothing() : yield* identify(installation, ledger, bytes.value, seenAt)
  return { served, membership: inbox.membership, seenAt, networkTimeAtLeast: inbox.time }
}, withSpan("Reachability.look"))

/**
 * The newest package of an installation that the network has accepted.
 *
 * @since 1.0.0
 * @category getters
 */
export const newestPublished = ({ entries }: InstallationLedger): Published | undefined =>
  entries.findLast((entry) => entry._tag === "Published")

const isValidAt = ({ keyPackage: { lifetime } }: Published, at: DateTime.Utc): boolean => {
  const now = BigInt(Math.floor(DateTime.toEpochMillis(at) / 1000))
  return lifetime.notBefore <= now && now < lifetime.notAfter
}

/** Whether a network can have served this before our package of that id, which it accepted, and not have come to that yet. */
const isFromBefore = (served: Served, accepted: HistoryId): boolean => {
  switch (served._tag) {
    case "Nothing":
    case "Unknown":
      return true
    case "Ours":
      return served.seen.entry.historyId < accepted
    case "Erased":
      return served.retired.historyId < accepted
    case "Damaged":
      return served.historyId < accepted
    case "Foreign":
      return false
  }
}

/**
 * What an observation means for the installation.
 *
 * @since 1.0.0
 * @category looking
 */
export const judge = (
  { registration, schedule }: Installation,
  ledger: InstallationLedger,
  { membership, seenAt, served }: Observation
): Reachability => {
  // Once revoked it stays so until the log names it again: a log that cannot be read does not.
  const isRevoked = membership === "Revoked" || (membership !== "Member" && Option.isSome(schedule.revokedAt))
  if (isRevoked) return Reachability.Revoked()
  if (registration._tag !== "Registered") return Reachability.NotRegistered()
  const newest = newestPublished(ledger)
  // What was accepted a moment ago may be on its way still.
  const awaited = Option.filter(schedule.confirmation, ({ until }) => !Schedule.isDue(Option.some(until), seenAt))
  if (Option.exists(awaited, ({ historyId }) => isFromBefore(served, historyId))) {
    const meanwhile =
      served._tag === "Ours" && served.hasKeys ? Option.some(served.seen.entry.historyId) : Option.none()
    return Reachability.AwaitingConfirmation({ meanwhile })
  }
  switch (served._tag) {
    case "Nothing":
      return Reachability.ServesNothing()
    case "Erased":
      return Reachability.ServesErased(served)
    case "Damaged":
      return Reachability.ServesDamaged(served)
    case "Foreign":
      return Reachability.ServesForeign(served)
    case "Unknown": {
      const isAgain = Option.exists(
        schedule.strangers,
        ({ seenAt: first }) => newest !== undefined && DateTime.greaterThanOrEqualTo(newest.publishedAt, first)
      )
      return isAgain ? Reachability.CloneSuspected(served) : Reachability.DatabaseRestored(served)
    }
    case "Ours": {
      const { hasKeys, seen } = served
      const { entry } = seen
      const { historyId } = entry
      // A row that was superseded is old, even if the row that followed it can no longer be read.
      const isNewest = entry._tag !== "Superseded" && (newest === undefined || historyId >= newest.historyId)
      if (!isNewest) return Reachability.ServesOlder({ seen })
      if (!hasKeys) return Reachability.KeysMissing({ historyId })
      if (entry._tag !== "Published") return Reachability.AcknowledgementMissing({ seen })
      if (!isValidAt(entry, seenAt)) return Reachability.Expired({ historyId })
      const until = DateTime.unsafeMake(Number(entry.keyPackage.lifetime.notAfter) * 1000)
      return Reachability.Reachable({ historyId, until })
    }
  }
}
