/**
 * Other people's key packages: fetched, judged one by one, and checked again when they are used.
 *
 * @since 1.0.0
 */
import * as Arr from "effect/Array"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as AssociationState from "../identity/AssociationState.ts"
import { type InboxId, isInboxId } from "../identity/InboxId.ts"
import type { InstallationId } from "../identity/InstallationId.ts"
import * as MlsCredential from "../identity/MlsCredential.ts"
import { inHalves } from "../internal/inHalves.ts"
import * as Codec from "../keypackage/Codec.ts"
import type { KeyPackageValidationError } from "../keypackage/KeyPackageError.ts"
import { type ValidatedKeyPackage, validateLifetime } from "../keypackage/Validation.ts"
import { welcomeTarget } from "../keypackage/WelcomeTarget.ts"
import { ApiClient, type ApiClientError, limits } from "../ports/ApiClient.ts"
import type { AssociationStateCache, StateAt } from "../ports/AssociationStateCache.ts"
import type { MlsCrypto } from "../ports/MlsCrypto.ts"
import type { SmartContractWalletVerifier } from "../ports/SmartContractWalletVerifier.ts"
import * as AssociationStates from "./AssociationStates.ts"
import * as NewestSeen from "./NewestSeen.ts"
import type { Policy } from "./Policies.ts"
import * as ValidPackages from "./ValidPackages.ts"
import { Finding, Reason, type Unusable, type Usable, type Verdict } from "./Verdict.ts"

/**
 * How to judge.
 *
 * @since 1.0.0
 * @category models
 */
export interface FetchOptions extends AssociationStates.ReadOptions {
  /** What to report beyond libxmtp's checks; nothing unless given. */
  readonly policies?: ReadonlyArray<Policy> | undefined
  /** The inbox that all of them must name, where only that one is to be invited. */
  readonly expectedInboxId?: InboxId | undefined
}

/**
 * What judging needs.
 *
 * @since 1.0.0
 * @category models
 */
export type Requirements =
  | ApiClient
  | AssociationStates.AssociationStates
  | MlsCrypto
  | NewestSeen.NewestSeen
  | ValidPackages.ValidPackages

/** Requests for packages under way at once. */
const REQUESTS_AT_A_TIME = 4

/** What is in an installation's place of an answer. */
type Served =
  | { readonly _tag: "Nothing" }
  | { readonly _tag: "Invalid"; readonly error: KeyPackageValidationError }
  | { readonly _tag: "Valid"; readonly keyPackage: ValidatedKeyPackage }

/** The inbox that bytes name which may be a package: nothing is proven, and nothing lost where there is none. */
const inboxHint = (bytes: Uint8Array): Option.Option<InboxId> =>
  Codec.peekCredential(bytes).pipe(
    Option.flatMap(({ content }) => Either.getRight(MlsCredential.decode(content))),
    Option.map(({ inboxId }) => inboxId),
    Option.filter(isInboxId)
  )

/**
 * What the node serves for each id, or that it could not be asked. A package is its installation's whose key is in it,
 * wherever in an answer it stands: an answer in another order loses nothing.
 */
const fetchAll = (
  installationIds: ReadonlyArray<InstallationId>,
  /** Runs beside the verification of packages that were served. */
  meanwhile: (served: ReadonlyArray<Uint8Array>) => Effect.Effect<void>
): Effect.Effect<
  ReadonlyMap<InstallationId, Either.Either<ValidatedKeyPackage, Reason>>,
  never,
  ApiClient | MlsCrypto | ValidPackages.ValidPackages
> =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const chunks = yield* Effect.forEach(
      Arr.chunksOf(installationIds, limits.keyPackagesPerRequest),
      (ids) =>
        inHalves(ids, (part) =>
          Effect.flatMap(api.fetchKeyPackages(part), (places) => {
            // Duplicates and what else is too much in an answer have no place.
            const own = places.slice(0, part.length)
            return Effect.zipLeft(validatePlaces(own), meanwhile(Arr.getSomes(own)), { concurrent: true })
          })
        ),
      { concurrency: REQUESTS_AT_A_TIME }
    )

    const byKey = new Map<InstallationId, ValidatedKeyPackage>()
    const inOwnPlace = new Map<InstallationId, Either.Either<Served, ApiClientError>>()
    for (const [ids, places] of chunks.flat()) {
      for (const [index, id] of ids.entries()) {
        const served = Either.map(places, (all): Served => all[index] ?? { _tag: "Nothing" })
        inOwnPlace.set(id, served)
        if (Either.isLeft(served) || served.right._tag !== "Valid") continue
        const { keyPackage } = served.right
        if (keyPackage.installationId === id || !byKey.has(keyPackage.installationId)) {
          byKey.set(keyPackage.installationId, keyPackage)
        }
      }
    }

    const judged = installationIds.map((id): [InstallationId, Either.Either<ValidatedKeyPackage, Reason>] => {
      const own = byKey.get(id)
      return [id, own === undefined ? Either.left(reasonOf(inOwnPlace.get(id))) : Either.right(own)]
    })
    return new Map(judged)
  })

const validatePlaces = (bytes: ReadonlyArray<Option.Option<Uint8Array>>) =>
  Effect.gen(function* () {
    const validPackages = yield* ValidPackages.ValidPackages
    const results = yield* validPackages.validate(Arr.getSomes(bytes), yield* DateTime.now)
    let next = 0
    return bytes.map((place): Served => {
      const result = Option.isSome(place) ? results[next++] : undefined
      if (result === undefined) return { _tag: "Nothing" }
      return Either.match(result, {
        onLeft: (error): Served => ({ _tag: "Invalid", error }),
        onRight: (keyPackage): Served => ({ _tag: "Valid", keyPackage })
      })
    })
  })

const reasonOf = (place: Either.Either<Served, ApiClientError> | undefined): Reason => {
  if (place === undefined) return Reason.Missing()
  if (Either.isLeft(place)) return Reason.Unreachable({ error: place.left })
  const served = place.right
  switch (served._tag) {
    case "Nothing":
      return Reason.Missing()
    case "Invalid":
      return Reason.InvalidKeyPackage({ error: served.error })
    case "Valid":
      return Reason.OtherInstallation({ actual: served.keyPackage.installationId })
  }
}

/** The inbox that a package names, if it is one. */
const inboxOf = ({ inboxId }: ValidatedKeyPackage): Either.Either<InboxId, Reason> =>
  isInboxId(inboxId) ? Either.right(inboxId) : Either.left(Reason.MalformedInboxId({ length: inboxId.length }))

type StateAnswer = Either.Either<StateAt, AssociationStates.InboxError>

/** Whether there is a state, and the installation is not in it. */
const lacks = (answer: StateAnswer | undefined, installationId: InstallationId): boolean =>
  answer !== undefined &&
  Either.isRight(answer) &&
  !AssociationState.hasInstallation(answer.right.state, installationId)

/** Whether a state is of more of the log than the one before: an answer that was shared may be an older one. */
const isNewer = ({ sequenceId }: StateAt, before: StateAnswer | undefined): boolean =>
  before === undefined || Either.isLeft(before) || sequenceId > before.right.sequenceId

/** Everything that is asked of a valid package, without the findings. */
const judge = (
  installationId: InstallationId,
  keyPackage: ValidatedKeyPackage,
  stateFor: (installationId: InstallationId, inboxId: InboxId) => StateAnswer | undefined,
  judgedAt: DateTime.Utc,
  expected: InboxId | undefined
): Either.Either<Usable, Reason> => {
  const inbox = inboxOf(keyPackage)
  if (Either.isLeft(inbox)) return Either.left(inbox.left)
  const inboxId = inbox.right
  if (expected !== undefined && inboxId !== expected) {
    return Either.left(Reason.UnexpectedInbox({ expected, actual: inboxId }))
  }
  const known = stateFor(installationId, inboxId)
  if (known === undefined) return Either.left(Reason.UnknownInbox({ inboxId }))
  if (Either.isLeft(known)) return Either.left(known.left.reason)
  const { sequenceId, state } = known.right
  if (!AssociationState.hasInstallation(state, installationId)) {
    return Either.left(Reason.NotAMember({ inboxId, sequenceId }))
  }
  const target = welcomeTarget(keyPackage)
  if (Either.isLeft(target)) return Either.left(Reason.InvalidWelcomeWrapper({ inboxId, error: target.left }))
  // The clock went on while the logs were read.
  const timely = validateLifetime(keyPackage, judgedAt)
  if (Either.isLeft(timely)) return Either.left(Reason.InvalidKeyPackage({ error: timely.left }))
  return Either.right({
    _tag: "Usable",
    installationId,
    inboxId,
    keyPackage,
    welcomeTarget: target.right,
    sequenceId,
    judgedAt,
    findings: []
  })
}

const policyFindings = (
  { keyPackage, welcomeTarget }: Usable,
  policies: ReadonlyArray<Policy>
): Effect.Effect<ReadonlyArray<Finding>, never, MlsCrypto> =>
  Effect.map(
    Effect.forEach(policies, ({ check, name }) =>
      Effect.map(
        check(keyPackage, welcomeTarget),
        Option.map((detail) => Finding.PolicyViolated({ policy: name, detail }))
      )
    ),
    Arr.getSomes
  )

/** The usable ones with what is remarkable about them. */
const withFindings = (
  usables: ReadonlyArray<Usable>,
  policies: ReadonlyArray<Policy>
): Effect.Effect<ReadonlyArray<Usable>, never, NewestSeen.NewestSeen | MlsCrypto> =>
  Effect.gen(function* () {
    const newestSeen = yield* NewestSeen.NewestSeen
    const newer = yield* newestSeen.see(
      usables.map(({ installationId, keyPackage }) => ({
        installationId,
        ref: keyPackage.ref,
        notBefore: keyPackage.lifetime.notBefore
      }))
    )
    const found: Array<Usable> = []
    for (const [index, usable] of usables.entries()) {
      const seen = Option.getOrUndefined(newer[index] ?? Option.none())
      const broken = policies.length === 0 ? [] : yield* policyFindings(usable, policies)
      const { notBefore } = usable.keyPackage.lifetime
      const older =
        seen === undefined ? [] : [Finding.OlderThanSeen({ seen: seen.ref, seenNotBefore: seen.notBefore, notBefore })]
      found.push(older.length + broken.length === 0 ? usable : { ...usable, findings: [...older, ...broken] })
    }
    return found
  })

const unusable = (installationId: InstallationId, reason: Reason, judgedAt: DateTime.Utc): Unusable => ({
  _tag: "Unusable",
  installationId,
  reason,
  judgedAt
})

/**
 * What is known of each installation, one verdict per id in the order asked. Never fails: what goes wrong is the reason of
 * those it concerns, and of nobody else.
 *
 * Per package, in this order: the checks of `validateKeyPackage`; the key in it is the one asked for; its credential names an
 * inbox; it is the expected one, if one is; that inbox's log resolves to that inbox; the installation is a member now; a Welcome can be wrapped to it.
 * One that seems to be none is looked for in the log once more, whatever `maxAge` says: it may have been added since.
 *
 * @since 1.0.0
 * @category judging
 * @example
 * ```ts
 * import type { InstallationId } from "@keyward/core/identity/InstallationId"
 * import { fetchKeyPackages } from "@keyward/core/peers/PeerKeyPackages"
 * import * as Effect from "effect/Effect"
 *
 * export const invitable = (ids: ReadonlyArray<InstallationId>) =>
 *   fetchKeyPackages(ids).pipe(Effect.map((verdicts) => verdicts.filter((verdict) => verdict._tag === "Usable")))
 * ```
 */
export const fetchKeyPackages: (
  installationIds: ReadonlyArray<InstallationId>,
  options?: FetchOptions
) => Effect.Effect<ReadonlyArray<Verdict>, never, Requirements> = Effect.fn("PeerKeyPackages.fetchKeyPackages")(
  function* (installationIds, options = {}) {
    yield* Effect.annotateCurrentSpan("installations", installationIds.length)
    const distinct = Array.from(new Set(installationIds))
    const associationStates = yield* AssociationStates.AssociationStates
    const states = new Map<InboxId, StateAnswer>()
    const asked = new Set<InboxId>()
    /** An inbox is asked for once, however many packages name it. */
    const askFor = (inboxIds: ReadonlyArray<InboxId>) => {
      const unasked = Array.from(new Set(inboxIds)).filter((inboxId) => !asked.has(inboxId))
      if (unasked.length === 0) return Effect.void
      for (const inboxId of unasked) asked.add(inboxId)
      return Effect.map(associationStates.get(unasked, options), (answers) => {
        for (const [inboxId, answer] of Arr.zip(unasked, answers)) states.set(inboxId, answer)
      })
    }
    // The logs are read while the signatures of the packages are verified. What a package seems to name is believed for that.
    const fetched = yield* fetchAll(distinct, (served) =>
      Effect.suspend(() => askFor(served.flatMap((bytes) => Option.toArray(inboxHint(bytes)))))
    )
    const inboxes = Array.from(fetched).flatMap(([installationId, keyPackage]) =>
      Either.match(Either.flatMap(keyPackage, inboxOf), {
        onLeft: () => [],
        onRight: (inboxId) => [{ installationId, inboxId }]
      })
    )
    yield* askFor(inboxes.map(({ inboxId }) => inboxId))
    // An installation may have been added after its inbox was read, and before the answer came that has its package.
    const inDoubt = inboxes.filter(({ inboxId, installationId }) => lacks(states.get(inboxId), installationId))
    /** Why such an inbox could not be read again: says nothing of its members. */
    const unread = new Map<InboxId, AssociationStates.InboxError>()
    if (inDoubt.length > 0) {
      const inboxIds = Array.from(new Set(inDoubt.map(({ inboxId }) => inboxId)))
      for (const [inboxId, answer] of Arr.zip(inboxIds, yield* associationStates.get(inboxIds))) {
        if (Either.isLeft(answer)) unread.set(inboxId, answer.left)
        else if (isNewer(answer.right, states.get(inboxId))) states.set(inboxId, answer)
      }
    }
    const stateFor = (installationId: InstallationId, inboxId: InboxId): StateAnswer | undefined => {
      const known = states.get(inboxId)
      const error = unread.get(inboxId)
      return error !== undefined && lacks(known, installationId) ? Either.left(error) : known
    }

    const judgedAt = yield* DateTime.now
    const byId = new Map<InstallationId, Verdict>()
    const usables: Array<Usable> = []
    for (const [installationId, keyPackage] of fetched) {
      const judged = Either.flatMap(keyPackage, (valid) =>
        judge(installationId, valid, stateFor, judgedAt, options.expectedInboxId)
      )
      if (Either.isRight(judged)) usables.push(judged.right)
      else byId.set(installationId, unusable(installationId, judged.left, judgedAt))
    }
    for (const usable of yield* withFindings(usables, options.policies ?? [])) byId.set(usable.installationId, usable)
    return installationIds.map((id) => byId.get(id) ?? unusable(id, Reason.Missing(), judgedAt))
  }
)

/**
 * What is known of every installation of an inbox, oldest first. Fails where the inbox has no state: there is nobody to name.
 *
 * @since 1.0.0
 * @category judging
 */
export const fetchKeyPackagesForInbox: (
  inboxId: InboxId,
  options?: FetchOptions
) => Effect.Effect<ReadonlyArray<Verdict>, AssociationStates.InboxError, Requirements> = Effect.fn(
  "PeerKeyPackages.fetchKeyPackagesForInbox"
)(function* (inboxId, options = {}) {
  const associationStates = yield* AssociationStates.AssociationStates
  const [known] = yield* associationStates.get([inboxId], options)
  if (known === undefined) return []
  const { state } = yield* known
  return yield* fetchKeyPackages(AssociationState.installationIds(state), { ...options, expectedInboxId: inboxId })
})

/**
 * A verdict at the time of its use: the lifetime has run on since (RFC 9420 section 7.3). Membership is as it was at
 * `sequenceId`; only `fetchKeyPackages` asks again.
 *
 * @since 1.0.0
 * @category judging
 */
export const recheck = (usable: Usable, now: DateTime.Utc): Verdict =>
  Either.match(validateLifetime(usable.keyPackage, now), {
    onLeft: (error) => unusable(usable.installationId, Reason.InvalidKeyPackage({ error }), now),
    onRight: () => usable
  })

/**
 * The services that judging needs beside the app's ports, with their defaults.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (
  options: AssociationStates.Options = {}
): Layer.Layer<
  AssociationStates.AssociationStates | NewestSeen.NewestSeen | ValidPackages.ValidPackages,
  never,
  ApiClient | AssociationStateCache | SmartContractWalletVerifier
> => Layer.mergeAll(AssociationStates.layer(options), NewestSeen.layerMemory(), ValidPackages.layerMemory())
