/**
 * Opening what arrives in an installation's Welcome topic: the key package that it names, the wrapper, the pointer if it is
 * one, the group. Nothing is deleted here, whatever comes of it, and the rotation that follows is asked for first.
 *
 * Opening changes nothing, so the same Welcome opens again as long as its keys are there.
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"
import type * as Either from "effect/Either"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import type { InstallationId } from "../identity/InstallationId.ts"
import type { InstallationKey } from "../identity/InstallationKey.ts"
import * as eventLoop from "../internal/eventLoop.ts"
import * as hex from "../internal/hex.ts"
import { readWelcome } from "../internal/mlsWelcome.ts"
import type { KeyPackagePrivateKeys, PublicKeyPackage } from "../keypackage/GeneratedKeyPackage.ts"
import type { KeyPackageRef } from "../keypackage/KeyPackageRef.ts"
import type { LedgerEntry, Retired } from "../lifecycle/Ledger.ts"
import { queueKeyRotationAfterWelcome } from "../lifecycle/Rotation.ts"
import type { AssociationStates } from "../peers/AssociationStates.ts"
import { ApiClient, type ApiClientError, type WelcomeMessageEntry } from "../ports/ApiClient.ts"
import { KeyPackageStore, type StorageError } from "../ports/KeyPackageStore.ts"
import type { MlsCrypto } from "../ports/MlsCrypto.ts"
import type { PostQuantumKem } from "../ports/PostQuantumKem.ts"
import { PUBLIC_KEY_BYTES } from "../postquantum/XWing.ts"
import { type JoinedGroup, joinGroup } from "./JoinGroup.ts"
import {
  type JoinError,
  MalformedWelcome,
  NoSuchKeyPackage,
  NotYetUnderstood,
  PointeeNotFound,
  UnwrapFailed
} from "./WelcomeError.ts"
import * as WelcomeMetadata from "./WelcomeMetadata.ts"
import * as WelcomeWrapper from "./WelcomeWrapper.ts"

/**
 * Why a Welcome did not open. `isRetryable` of each says whether the same entry may open later: the node or the store could
 * not be asked, or a pointer arrived before what it points at. All others are final for this version of this library.
 *
 * @since 1.0.0
 * @category errors
 */
export type OpenWelcomeError = NoSuchKeyPackage | JoinError | PointeeNotFound | ApiClientError | StorageError

/**
 * A Welcome and the group that it led to.
 *
 * @since 1.0.0
 * @category models
 */
export interface OpenedWelcome extends JoinedGroup {
  /** The entry's place in the topic. */
  readonly id: bigint
  /** When the node got it, nanoseconds since 1970. */
  readonly createdNs: bigint
  /** The key package that it was made for. */
  readonly keyPackageRef: KeyPackageRef
  /** What the sender said beside it; none where it said nothing that can be read. */
  readonly metadata: Option.Option<WelcomeMetadata.WelcomeMetadata>
}

/**
 * What opening needs.
 *
 * @since 1.0.0
 * @category models
 */
export type OpenContext = KeyPackageStore | ApiClient | MlsCrypto | PostQuantumKem | AssociationStates

/** X25519 public keys; X-Wing's are `PUBLIC_KEY_BYTES` long. */
const INIT_KEY_BYTES = 32

/** A package of ours with its keys. */
interface Package {
  readonly keyPackage: PublicKeyPackage
  readonly privateKeys: KeyPackagePrivateKeys
}

/** The packages that the Welcomes of one call name, each read from the store once. */
type Packages = Map<string, Package>

const retired = (installationId: InstallationId, { reason, retiredAt }: Retired): NoSuchKeyPackage =>
  new NoSuchKeyPackage({ installationId, reason: { _tag: "Retired", when: retiredAt, why: reason } })

/** The package of a row, unless its keys are gone. */
const packageOf = (
  installationId: InstallationId,
  row: Option.Option<LedgerEntry>
): Effect.Effect<Package, NoSuchKeyPackage | StorageError, KeyPackageStore> =>
  Effect.gen(function* () {
    if (Option.isNone(row)) {
      return yield* new NoSuchKeyPackage({ installationId, reason: { _tag: "NeverOurs" } })
    }
    if (row.value._tag === "Retired") return yield* retired(installationId, row.value)
    const store = yield* KeyPackageStore
    const { historyId, keyPackage } = row.value
    const privateKeys = yield* store.getPrivateKeys(historyId)
    if (Option.isSome(privateKeys)) return { keyPackage, privateKeys: privateKeys.value }
    // It may have been retired since the row was read.
    const now = yield* store.findByRef(installationId, keyPackage.ref)
    return yield* Option.isSome(now) && now.value._tag === "Retired"
      ? retired(installationId, now.value)
      : new NoSuchKeyPackage({ installationId, reason: { _tag: "KeysMissing" } })
  })

const findPackage = (
  installationId: InstallationId,
  publicKey: Uint8Array,
  packages: Packages
): Effect.Effect<Package, NoSuchKeyPackage | StorageError, KeyPackageStore> =>
  Effect.gen(function* () {
    // A stranger may send megabytes as a key.
    if (publicKey.length !== INIT_KEY_BYTES && publicKey.length !== PUBLIC_KEY_BYTES) {
      return yield* packageOf(installationId, Option.none())
    }
    const name = hex.encode(publicKey)
    const known = packages.get(name)
    if (known !== undefined) return known
    const store = yield* KeyPackageStore
    const found = yield* packageOf(installationId, yield* store.findByWelcomeKey(installationId, publicKey))
    packages.set(name, found)
    return found
  })

/** The private key of an algorithm; a classical package has none for X-Wing. */
const privateKeyOf = (
  algorithm: WelcomeWrapper.Algorithm,
  { initKey, postQuantumKey }: KeyPackagePrivateKeys
): Option.Option<Redacted.Redacted<Uint8Array>> => (algorithm === "XWing" ? postQuantumKey : Option.some(initKey))

const unwrap = (wrapperAlgorithm: number, { privateKeys }: Package, wrapped: WelcomeWrapper.Wrapped) =>
  Effect.gen(function* () {
    const algorithm = yield* WelcomeWrapper.algorithmOf(wrapperAlgorithm)
    const privateKey = privateKeyOf(algorithm, privateKeys)
    if (Option.isNone(privateKey)) return yield* new UnwrapFailed({ layer: "Wrapper", part: "KemOutput" })
    return yield* WelcomeWrapper.unwrap(algorithm, privateKey.value, wrapped)
  })

/** The Welcome that a pointer points at: the first message of the topic (libxmtp `welcome_pointer.rs`). */
const fetchPointee = (pointer: WelcomeWrapper.Pointer) =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const { entries } = yield* api.queryWelcomeMessages(pointer.destination, { after: 0n, limit: 1 })
    const [pointee] = entries
    switch (pointee?._tag) {
      case undefined:
        return yield* new PointeeNotFound({ destination: hex.encode(pointer.destination) })
      case "Welcome":
        return yield* WelcomeWrapper.openPointee(pointer, { data: pointee.data, metadata: pointee.welcomeMetadata })
      case "WelcomePointer":
        return yield* new MalformedWelcome({ part: "Pointee", reason: "NotAWelcome" })
      case "Unknown":
        return yield* new NotYetUnderstood({ feature: "EntryKind", value: 0 })
    }
  })

/**
 * The package that the MLS Welcome itself names, where it is not the one that it was wrapped to: libxmtp looks for any whose
 * keys it has. None is ours where none is found.
 */
const findNamedPackage = (
  installationId: InstallationId,
  welcome: Uint8Array
): Effect.Effect<Option.Option<Package>, NoSuchKeyPackage | StorageError, KeyPackageStore> =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const refs = new Set(readWelcome(welcome).secrets.map(({ newMember }) => hex.encode(newMember)))
    const kept = (yield* store.getHistory(installationId)).find(({ keyPackage }) => refs.has(keyPackage.ref))
    if (kept !== undefined) return Option.some(yield* packageOf(installationId, Option.some(kept)))
    const gone = (yield* store.getRetired(installationId)).find(({ ref }) => refs.has(ref))
    if (gone !== undefined) return yield* retired(installationId, gone)
    return Option.none()
  })

/** One entry, with the installation's key read already. */
const openEntry = (
  entry: WelcomeMessageEntry,
  installationKey: InstallationKey,
  packages: Packages
): Effect.Effect<OpenedWelcome, OpenWelcomeError, OpenContext> =>
  Effect.gen(function* () {
    if (entry._tag === "Unknown") return yield* new NotYetUnderstood({ feature: "EntryKind", value: 0 })
    const { installationId } = installationKey
    // What nobody could open here is said before the store is asked.
    yield* WelcomeWrapper.algorithmOf(entry.wrapperAlgorithm)
    const wrappedTo = yield* findPackage(installationId, entry.hpkePublicKey, packages)
    // Decapsulating and verifying keep the processor busy: others first.
    yield* eventLoop.turn
    const contents =
      entry._tag === "Welcome"
        ? yield* unwrap(entry.wrapperAlgorithm, wrappedTo, { data: entry.data, metadata: entry.welcomeMetadata })
        : yield* unwrap(entry.wrapperAlgorithm, wrappedTo, {
            data: entry.welcomePointer,
            metadata: new Uint8Array(0)
          }).pipe(
            Effect.flatMap(({ data }) => WelcomeWrapper.decodePointer(data)),
            Effect.flatMap(fetchPointee)
          )
    const join = ({ keyPackage, privateKeys }: Package) =>
      Effect.map(
        joinGroup(contents.data, { bytes: keyPackage.bytes, privateKeys, installationKey }),
        (joined): OpenedWelcome => ({
          ...joined,
          id: entry.id,
          createdNs: entry.createdNs,
          keyPackageRef: keyPackage.ref,
          metadata: WelcomeMetadata.decode(contents.metadata)
        })
      )
    return yield* Effect.catchIf(
      join(wrappedTo),
      (error) => error._tag === "MalformedWelcome" && error.reason === "OtherKeyPackage",
      (error) =>
        Effect.flatMap(
          findNamedPackage(installationId, contents.data),
          Option.match({ onNone: () => Effect.fail(error), onSome: join })
        )
    )
  }).pipe(
    Effect.withSpan("OpenWelcome.open", {
      attributes: { installationId: installationKey.installationId, entry: entry._tag, id: String(idOf(entry)) },
      captureStackTrace: false
    })
  )

const idOf = (entry: WelcomeMessageEntry): bigint | "unknown" =>
  entry._tag === "Unknown" ? Option.getOrElse(entry.id, () => "unknown" as const) : entry.id

/** Entries under way at once: some wait for a log or a pointee, others compute. */
const ENTRIES_AT_A_TIME = 4

/**
 * Opens the entries of an installation's Welcome topic, one result per entry in their order: the failure of one is its own.
 *
 * First asks for a rotation of the key package, once for all (in 5 seconds, `queueKeyRotationAfterWelcome`), since using a
 * package is what it is rotated for, whatever comes of it; without entries it asks for nothing. Fails, before anything is
 * opened, where the store does not take that or has no key of the installation.
 *
 * @param options `isAgain` where all were tried before: their rotation has been asked for, and one that is tried for ever
 * would ask for ever
 * @since 1.0.0
 * @category opening
 */
export const openWelcomes: (
  installationId: InstallationId,
  entries: ReadonlyArray<WelcomeMessageEntry>,
  options?: { readonly isAgain?: boolean | undefined }
) => Effect.Effect<ReadonlyArray<Either.Either<OpenedWelcome, OpenWelcomeError>>, StorageError, OpenContext> =
  Effect.fn("OpenWelcome.openWelcomes")(function* (installationId, entries, { isAgain = false } = {}) {
    yield* Effect.annotateCurrentSpan({ installationId, entries: entries.length })
    if (entries.length === 0) return []
    if (!isAgain) yield* queueKeyRotationAfterWelcome(installationId)
    const store = yield* KeyPackageStore
    const installationKey = yield* store.getInstallationKey(installationId)
    const packages: Packages = new Map()
    return yield* Effect.forEach(entries, (entry) => Effect.either(openEntry(entry, installationKey, packages)), {
      concurrency: ENTRIES_AT_A_TIME
    })
  })

/**
 * Opens one entry, as `openWelcomes`.
 *
 * @since 1.0.0
 * @category opening
 */
export const openWelcome: (
  installationId: InstallationId,
  entry: WelcomeMessageEntry
) => Effect.Effect<OpenedWelcome, OpenWelcomeError, OpenContext> = Effect.fn("OpenWelcome.openWelcome")(
  function* (installationId, entry) {
    const [opened] = yield* openWelcomes(installationId, [entry])
    return yield* opened ?? Effect.dieMessage("an entry without a result")
  }
)
