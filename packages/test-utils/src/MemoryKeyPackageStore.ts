/**
 * The store port in memory, for tests: the same promises as a database, kept by the same transitions, without a disk. It can
 * be told to fail, and remembers what it was asked.
 *
 * @since 1.0.0
 */
import type { InboxId } from "@keyward/core/identity/InboxId"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { InstallationKey } from "@keyward/core/identity/InstallationKey"
import type { KeyPackagePrivateKeys } from "@keyward/core/keypackage/GeneratedKeyPackage"
import type { Installation } from "@keyward/core/lifecycle/Installation"
import * as Lease from "@keyward/core/lifecycle/Lease"
import * as Ledger from "@keyward/core/lifecycle/Ledger"
import { isUploadReceipt } from "@keyward/core/lifecycle/UploadReceipt"
import { KeyPackageStore, StorageError } from "@keyward/core/ports/KeyPackageStore"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Ref from "effect/Ref"

/**
 * The calls of the port, as failures and recordings name them.
 *
 * @since 1.0.0
 * @category models
 */
export type Operation = keyof KeyPackageStore["Type"]

/**
 * One call, in the order of arrival.
 *
 * @since 1.0.0
 * @category models
 */
export interface Call {
  readonly operation: Operation
  readonly args: ReadonlyArray<unknown>
}

/**
 * The other side of a memory store: what a test does to it.
 *
 * @since 1.0.0
 * @category tags
 */
export class MemoryKeyPackageStore extends Context.Tag("@keyward/test-utils/MemoryKeyPackageStore")<
  MemoryKeyPackageStore,
  {
    /** The next calls of this operation fail for these reasons, one each, and write nothing. */
    readonly failNext: (operation: Operation, ...reasons: ReadonlyArray<StorageError["reason"]>) => Effect.Effect<void>
    /** Every call so far, those that failed included. */
    readonly calls: Effect.Effect<ReadonlyArray<Call>>
  }
>() {}

interface StoredInstallation {
  readonly installation: Installation
  readonly key: InstallationKey
  readonly fence: number
  /** When the lease ends; none while nobody holds it. */
  readonly leaseEnd: Option.Option<DateTime.Utc>
  /** Oldest first. */
  readonly history: ReadonlyArray<Ledger.LedgerEntry>
}

/** A value of this is a whole database: a write replaces it, or does not. */
interface State {
  /** In the order of creation. */
  readonly order: ReadonlyArray<InstallationId>
  readonly installations: HashMap.HashMap<InstallationId, StoredInstallation>
  readonly privateKeys: HashMap.HashMap<Ledger.HistoryId, KeyPackagePrivateKeys>
  /** Every ref and init key there is. */
  readonly unique: HashSet.HashSet<string>
  readonly lastHistoryId: number
}

const empty: State = {
  order: [],
  installations: HashMap.empty(),
  privateKeys: HashMap.empty(),
  unique: HashSet.empty(),
  lastHistoryId: 0
}

/** What one operation makes of a state. */
type Step<A, E> = (state: State) => Either.Either<readonly [A, State], E>

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

/** A copy, as a database makes one: what the caller does to its bytes afterwards changes nothing. */
const copy = (secret: Redacted.Redacted<Uint8Array>) => Redacted.make(Redacted.value(secret).slice())

const copyKeys = (keys: KeyPackagePrivateKeys): KeyPackagePrivateKeys => ({
  initKey: copy(keys.initKey),
  encryptionKey: copy(keys.encryptionKey),
  postQuantumKey: Option.map(keys.postQuantumKey, copy)
})

const wholeMillis = (time: DateTime.Utc): DateTime.Utc => DateTime.unsafeMake(Math.floor(DateTime.toEpochMillis(time)))

const make = Effect.gen(function* () {
  const ref = yield* Ref.make(empty)
  const script = yield* Ref.make<ReadonlyArray<readonly [Operation, StorageError["reason"]]>>([])
  const recorded = yield* Ref.make<ReadonlyArray<Call>>([])

  /** Records the call, then fails as the script says or runs the step on the state. */
  const run = <A, E>(
    operation: Operation,
    args: ReadonlyArray<unknown>,
    step: Step<A, E>
  ): Effect.Effect<A, E | StorageError> =>
    Effect.gen(function* () {
      yield* Ref.update(recorded, (calls) => [...calls, { operation, args }])
      const reason = yield* Ref.modify(script, (lines) => {
        const index = lines.findIndex(([name]) => name === operation)
        return index < 0 ? [undefined, lines] : [lines[index]?.[1], lines.toSpliced(index, 1)]
      })
      if (reason !== undefined) return yield* new StorageError({ operation, reason, detail: "scripted" })
      const result = yield* Ref.modify(ref, (state): [Either.Either<A, E>, State] => {
        const stepped = step(state)
        return Either.isLeft(stepped)
          ? [Either.left(stepped.left), state]
          : [Either.right(stepped.right[0]), stepped.right[1]]
      })
      return yield* result
    })

  const read = <A>(operation: Operation, args: ReadonlyArray<unknown>, get: (state: State) => A) =>
    run<A, never>(operation, args, (state) => Either.right([get(state), state]))

  const conflict = (operation: Operation, detail: string) =>
    Either.left(new StorageError({ operation, reason: "Conflict", detail }))

  const requireInstallation = (operation: Operation, state: State, id: InstallationId) =>
    HashMap.get(state.installations, id).pipe(
      Option.match({
        onNone: () => conflict(operation, `there is no installation ${id}`),
        onSome: (stored) => Either.right(stored)
      })
    )

  /** The installation of a lease that still binds. */
  const requireLease = (state: State, lease: Lease.Lease, at: Option.Option<DateTime.Utc>) =>
    HashMap.get(state.installations, lease.installationId).pipe(
      Option.filter(
        ({ fence, leaseEnd }) =>
          fence === lease.fence && Option.exists(leaseEnd, (end) => Option.isNone(at) || Lease.isInForce(end, at.value))
      ),
      Either.fromOption(() => new Lease.LeaseError({ reason: "Lost", installationId: lease.installationId }))
    )

  const put = (state: State, stored: StoredInstallation): State => ({
    ...state,
    installations: HashMap.set(state.installations, stored.installation.installationId, stored)
  })

  const requireEntry = <Tag extends Ledger.LedgerEntry["_tag"]>(
    operation: Operation,
    stored: StoredInstallation,
    known: Ledger.LedgerEntry,
    tag: Tag
  ) => {
    const entry = stored.history.find(
      ({ historyId, keyPackage }) => historyId === known.historyId && keyPackage.ref === known.keyPackage.ref
    )
    return entry !== undefined && Ledger.is(tag)(entry)
      ? Either.right(entry)
      : conflict(
          operation,
          `key package ${known.historyId} is ${entry === undefined ? "not here" : entry._tag}, not ${tag}`
        )
  }

  const store = KeyPackageStore.of({
    findOrCreateInstallation: (intent) =>
      run("findOrCreateInstallation", [intent], (state) => {
        const { at, inboxId, key, label } = intent
        const { installationId } = key
        for (const id of state.order) {
          const found = HashMap.unsafeGet(state.installations, id).installation
          if (found.inboxId === inboxId && found.label === label) return Either.right([found, state])
        }
        if (HashMap.has(state.installations, installationId)) {
          return conflict("findOrCreateInstallation", `installation ${installationId} has another label`)
        }
        const installation: Installation = {
          installationId,
          inboxId,
          label,
          createdAt: at,
          registration: { _tag: "Intended" },
          nextRotationAt: Option.none()
        }
        const stored: StoredInstallation = {
          installation,
          key: { installationId, seed: copy(key.seed) },
          fence: 0,
          leaseEnd: Option.none(),
          history: []
        }
        return Either.right([installation, put({ ...state, order: [...state.order, installationId] }, stored)])
      }),

    getInstallation: (id) =>
      read("getInstallation", [id], ({ installations }) =>
        Option.map(HashMap.get(installations, id), ({ installation }) => installation)
      ),

    getInstallations: (inboxId: InboxId) =>
      read("getInstallations", [inboxId], ({ installations, order }) =>
        order
          .map((id) => HashMap.unsafeGet(installations, id).installation)
          .filter((installation) => installation.inboxId === inboxId)
      ),

    getInstallationKey: (id) =>
      run("getInstallationKey", [id], (state) =>
        Either.map(requireInstallation("getInstallationKey", state, id), ({ key }) => [
          { installationId: id, seed: copy(key.seed) },
          state
        ])
      ),

    saveIdentityUpdate: (lease, identityUpdate) =>
      run("saveIdentityUpdate", [lease, identityUpdate], (state) =>
        Either.gen(function* () {
          const stored = yield* requireLease(state, lease, Option.none())
          if (stored.installation.registration._tag === "Registered") {
            return yield* conflict("saveIdentityUpdate", `installation ${lease.installationId} is registered`)
          }
          const installation: Installation = {
            ...stored.installation,
            registration: { _tag: "Signed", identityUpdate }
          }
          return [installation, put(state, { ...stored, installation })] as const
        })
      ),

    markRegistered: (lease, at) =>
      run("markRegistered", [lease, at], (state) =>
        Either.gen(function* () {
          const stored = yield* requireLease(state, lease, Option.some(at))
          const { registration } = stored.installation
          if (registration._tag === "Registered") return [stored.installation, state] as const
          if (registration._tag === "Intended") {
            return yield* conflict(
              "markRegistered",
              `installation ${lease.installationId} has no signed identity update`
            )
          }
          const installation: Installation = {
            ...stored.installation,
            registration: { _tag: "Registered", identityUpdate: registration.identityUpdate, registeredAt: at }
          }
          return [installation, put(state, { ...stored, installation })] as const
        })
      ),

    acquireLease: (id, options) =>
      run("acquireLease", [id, options], (state) =>
        Either.gen(function* () {
          const { duration, now } = options
          const stored = yield* requireInstallation("acquireLease", state, id)
          if (Option.exists(stored.leaseEnd, (end) => Lease.isInForce(end, now))) {
            return yield* Either.left(new Lease.LeaseError({ reason: "Held", installationId: id }))
          }
          const fence = stored.fence + 1
          const expiresAt = wholeMillis(Lease.expiry(now, duration))
          const lease: Lease.Lease = { installationId: id, fence, expiresAt }
          return [lease, put(state, { ...stored, fence, leaseEnd: Option.some(expiresAt) })] as const
        })
      ),

    checkLease: (lease, now) =>
      run("checkLease", [lease, now], (state) =>
        Either.map(requireLease(state, lease, Option.some(now)), () => [undefined, state])
      ),

    releaseLease: (lease) =>
      run<void, never>("releaseLease", [lease], (state) =>
        Either.match(requireLease(state, lease, Option.none()), {
          onLeft: () => Either.right([undefined, state]),
          onRight: (stored) => Either.right([undefined, put(state, { ...stored, leaseEnd: Option.none() })])
        })
      ),

    insertKeyPackageHistory: (lease, generated, at) =>
      run("insertKeyPackageHistory", [lease, generated, at], (state) =>
        Either.gen(function* () {
          const stored = yield* requireLease(state, lease, Option.some(at))
          const { keyPackage, privateKeys } = generated
          const { inboxId, installationId } = stored.installation
          if (keyPackage.installationId !== installationId || keyPackage.inboxId !== inboxId) {
            return yield* conflict(
              "insertKeyPackageHistory",
              `the key package is not of installation ${installationId}`
            )
          }
          const names = [`ref ${keyPackage.ref}`, `init key ${hex(keyPackage.initKey)}`]
          if (names.some((name) => HashSet.has(state.unique, name))) {
            return yield* conflict("insertKeyPackageHistory", `key package ${keyPackage.ref} is already here`)
          }
          const historyId = Ledger.HistoryId.make(state.lastHistoryId + 1)
          const prepared = Ledger.prepare({ historyId, keyPackage, createdAt: at })
          return [
            prepared,
            put(
              {
                ...state,
                lastHistoryId: historyId,
                privateKeys: HashMap.set(state.privateKeys, historyId, copyKeys(privateKeys)),
                unique: HashSet.union(state.unique, names)
              },
              { ...stored, history: [...stored.history, prepared] }
            )
          ] as const
        })
      ),

    markExposed: (lease, prepared, at) =>
      run("markExposed", [lease, prepared, at], (state) =>
        Either.gen(function* () {
          const stored = yield* requireLease(state, lease, Option.some(at))
          const exposed = Ledger.expose(yield* requireEntry("markExposed", stored, prepared, "Prepared"), at)
          const history = stored.history.map((entry) => (entry.historyId === exposed.historyId ? exposed : entry))
          return [exposed, put(state, { ...stored, history })] as const
        })
      ),

    markKeyPackagesBeforeIdToBeDeleted: (lease, receipt, publication) =>
      run("markKeyPackagesBeforeIdToBeDeleted", [lease, receipt, publication], (state) =>
        Either.gen(function* () {
          const operation = "markKeyPackagesBeforeIdToBeDeleted"
          const { at, deleteAt, nextRotationAt } = publication
          if (!isUploadReceipt(receipt)) {
            return yield* conflict(operation, "nothing shows that the network accepted the package")
          }
          const stored = yield* requireLease(state, lease, Option.some(at))
          const published = Ledger.publish(yield* requireEntry(operation, stored, receipt.exposed, "Exposed"), at)
          const superseded: Array<Ledger.Superseded> = []
          const history = stored.history.map((entry) => {
            if (entry.historyId === published.historyId) return published
            if (entry.historyId > published.historyId || !Ledger.isLive(entry)) return entry
            const next = Ledger.supersede(entry, published, at, deleteAt)
            superseded.push(next)
            return next
          })
          const installation = { ...stored.installation, nextRotationAt: Option.some(wholeMillis(nextRotationAt)) }
          return [{ published, superseded }, put(state, { ...stored, installation, history })] as const
        })
      ),

    getNewest: (id) =>
      read("getNewest", [id], ({ installations }) =>
        Option.flatMap(HashMap.get(installations, id), ({ history }) => Option.fromNullable(history.at(-1)))
      ),

    getHistory: (id) =>
      read("getHistory", [id], ({ installations }) =>
        Option.match(HashMap.get(installations, id), { onNone: () => [], onSome: ({ history }) => history })
      ),

    getPrivateKeys: (id) =>
      read("getPrivateKeys", [id], ({ privateKeys }) => Option.map(HashMap.get(privateKeys, id), copyKeys))
  })

  const control = MemoryKeyPackageStore.of({
    failNext: (operation, ...reasons) =>
      Ref.update(script, (lines) => [...lines, ...reasons.map((reason) => [operation, reason] as const)]),
    calls: Ref.get(recorded)
  })

  return Context.make(KeyPackageStore, store).pipe(Context.add(MemoryKeyPackageStore, control))
})

/**
 * An empty store. Every build of the layer has its own.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<KeyPackageStore | MemoryKeyPackageStore> = Layer.effectContext(make)
