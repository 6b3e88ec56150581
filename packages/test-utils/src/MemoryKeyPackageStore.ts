/**
 * The store port in memory, for tests: the same promises as a database, kept by the same transitions, without a disk. It can
 * be told to fail, to lose and to damage what it holds, and remembers what it was asked.
 *
 * The database is a value apart from the stores over it. Several stores over one database are several processes over one
 * file; fibers that are interrupted between two calls are a process that was killed, since every call has happened or has not.
 *
 * @since 1.0.0
 */
import type { InboxId } from "@keyward/core/identity/InboxId"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { InstallationKey } from "@keyward/core/identity/InstallationKey"
import type { KeyPackagePrivateKeys } from "@keyward/core/keypackage/GeneratedKeyPackage"
import type { KeyPackageRef } from "@keyward/core/keypackage/KeyPackageRef"
import type { Installation } from "@keyward/core/lifecycle/Installation"
import * as Lease from "@keyward/core/lifecycle/Lease"
import * as Ledger from "@keyward/core/lifecycle/Ledger"
import { isRetirementPermit } from "@keyward/core/lifecycle/RetirementPermit"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { isSeenServed } from "@keyward/core/lifecycle/SeenServed"
import { isUploadReceipt } from "@keyward/core/lifecycle/UploadReceipt"
import { type Due, KeyPackageStore, type Reschedule, StorageError } from "@keyward/core/ports/KeyPackageStore"
import { sha256 } from "@noble/hashes/sha2.js"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as HashMap from "effect/HashMap"
import * as HashSet from "effect/HashSet"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Redacted from "effect/Redacted"
import * as Ref from "effect/Ref"
import * as Stream from "effect/Stream"

/**
 * The calls of the port, as failures and recordings name them.
 *
 * @since 1.0.0
 * @category models
 */
export type Operation = Exclude<keyof KeyPackageStore["Type"], "deadlineLowered">

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
 * One key package that is not erased yet.
 *
 * @since 1.0.0
 * @category models
 */
export interface StoredRow {
  readonly entry: Ledger.Kept
  /** The column that cannot be read; none in a sound row. */
  readonly damaged: Option.Option<string>
  readonly quarantined: Option.Option<Ledger.Quarantined>
}

/**
 * One installation with all that belongs to it, but the private keys of its packages.
 *
 * @since 1.0.0
 * @category models
 */
export interface StoredInstallation {
  readonly installation: Installation
  readonly key: InstallationKey
  readonly fence: number
  /** When the lease ends; none while nobody holds it. */
  readonly leaseEnd: Option.Option<DateTime.Utc>
  /** Oldest first. */
  readonly rows: ReadonlyArray<StoredRow>
  /** Oldest first. */
  readonly retired: ReadonlyArray<Ledger.Retired>
}

/**
 * All that a database holds, as a value that never changes: a write puts another one in its place, or does not.
 *
 * @since 1.0.0
 * @category models
 */
export interface Content {
  /** In the order of creation. */
  readonly order: ReadonlyArray<InstallationId>
  readonly installations: HashMap.HashMap<InstallationId, StoredInstallation>
  readonly privateKeys: HashMap.HashMap<Ledger.HistoryId, KeyPackagePrivateKeys>
  /** The name of every ref and of every init key there is, those of tombstones included. */
  readonly names: HashSet.HashSet<string>
  readonly lastHistoryId: number
}

/**
 * What several stores can share, and what outlives them. `Ref.make` of a snapshot is a clone.
 *
 * @since 1.0.0
 * @category models
 */
export type Database = Ref.Ref<Content>

/**
 * An empty database.
 *
 * @since 1.0.0
 * @category constructors
 */
export const makeDatabase: Effect.Effect<Database> = Ref.make<Content>({
  order: [],
  installations: HashMap.empty(),
  privateKeys: HashMap.empty(),
  names: HashSet.empty(),
  lastHistoryId: 0
})

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
    readonly clearCalls: Effect.Effect<void>

    /**
     * The row's column is not what this library writes, from now on: `getLedger` names it, and whatever needs the row itself
     * fails with `Corrupt`. Its date of deletion can still be read, unless that is the column.
     */
    readonly damage: (id: Ledger.HistoryId, column?: string) => Effect.Effect<void>
    /** The row's private keys are gone, and the row is still there. */
    readonly loseKeys: (id: Ledger.HistoryId) => Effect.Effect<void>

    /** All that the database holds now. */
    readonly snapshot: Effect.Effect<Content>
    /** Puts a snapshot back: whatever was written after it, by anybody, never was. */
    readonly restore: (snapshot: Content) => Effect.Effect<void>
  }
>() {}

/** What one operation makes of the content. */
type Step<A, E> = (content: Content) => Either.Either<readonly [A, Content], E>

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

const isSame = (one: Uint8Array, other: Uint8Array): boolean => Buffer.compare(one, other) === 0

/** A copy, as a database makes one: what the caller does to its bytes afterwards changes nothing. */
const copy = (secret: Redacted.Redacted<Uint8Array>) => Redacted.make(Redacted.value(secret).slice())

const copyKeys = (keys: KeyPackagePrivateKeys): KeyPackagePrivateKeys => ({
  initKey: copy(keys.initKey),
  encryptionKey: copy(keys.encryptionKey),
  postQuantumKey: Option.map(keys.postQuantumKey, copy)
})

/** A database holds whole milliseconds. */
const wholeMillis = (time: DateTime.Utc): DateTime.Utc => DateTime.unsafeMake(Math.floor(DateTime.toEpochMillis(time)))

/** A schedule as a database gives it back: whole milliseconds. By hand, since simulations do this a million times. */
const wholeMillisOfSchedule = (schedule: Schedule.Schedule): Schedule.Schedule => {
  const whole = Option.map(wholeMillis)
  const wholeFailures = Option.map((failures: Schedule.Failures) => ({
    ...failures,
    since: wholeMillis(failures.since),
    retryAt: wholeMillis(failures.retryAt)
  }))
  return {
    ...schedule,
    rotateAt: whole(schedule.rotateAt),
    requests: schedule.requests.map((request) => ({
      ...request,
      requestedAt: wholeMillis(request.requestedAt),
      dueAt: wholeMillis(request.dueAt),
      heldUntil: whole(request.heldUntil)
    })),
    failures: wholeFailures(schedule.failures),
    probeAt: whole(schedule.probeAt),
    probeFailures: wholeFailures(schedule.probeFailures),
    cleanAt: whole(schedule.cleanAt),
    confirmation: Option.map(schedule.confirmation, (confirmation) => ({
      ...confirmation,
      confirmAt: wholeMillis(confirmation.confirmAt),
      until: wholeMillis(confirmation.until)
    })),
    revokedAt: whole(schedule.revokedAt),
    strangers: Option.map(schedule.strangers, (strangers) => ({ ...strangers, seenAt: wholeMillis(strangers.seenAt) })),
    unreachable: Option.map(schedule.unreachable, (known) => ({ ...known, since: wholeMillis(known.since) })),
    seenServedAt: whole(schedule.seenServedAt)
  }
}

const isSound = ({ damaged, quarantined }: StoredRow): boolean => Option.isNone(damaged) && Option.isNone(quarantined)

const historyIdOf = ({ entry }: StoredRow): Ledger.HistoryId => entry.historyId

const refName = (ref: KeyPackageRef): string => `ref ${ref}`
const initKeyName = (hash: Uint8Array): string => `init key ${hex(hash)}`
const namesOf = ({ keyPackage }: Pick<Ledger.Kept, "keyPackage">): ReadonlyArray<string> => [
  refName(keyPackage.ref),
  initKeyName(sha256(keyPackage.initKey))
]
const namesOfRetired = ({ initKeyHash, ref }: Ledger.Retired): ReadonlyArray<string> => [
  refName(ref),
  initKeyName(initKeyHash)
]

/** The date of deletion, of the states that have one. */
const deleteAtOf = (row: Ledger.Kept | Ledger.Quarantined): Option.Option<DateTime.Utc> =>
  "deleteAt" in row ? Option.some(row.deleteAt) : Option.none()

const isSameTime = Option.getEquivalence(DateTime.Equivalence)

/** Whether the row is still what it was when its permit was given, and its date of deletion has come. */
const isPermitted = (row: StoredRow, seen: Ledger.Kept | Ledger.Quarantined, at: DateTime.Utc): boolean => {
  const isTheSame =
    "_tag" in seen
      ? isSound(row) && row.entry._tag === seen._tag && row.entry.keyPackage.ref === seen.keyPackage.ref
      : Option.isSome(row.quarantined)
  const deleteAt = deleteAtOf(Option.getOrElse(row.quarantined, () => row.entry))
  return (
    historyIdOf(row) === seen.historyId &&
    isTheSame &&
    isSameTime(deleteAt, deleteAtOf(seen)) &&
    !Option.exists(deleteAt, (time) => DateTime.lessThan(at, time))
  )
}

const rescheduled = (stored: StoredInstallation, reschedule: Reschedule): StoredInstallation => ({
  ...stored,
  installation: {
    ...stored.installation,
    schedule: wholeMillisOfSchedule(reschedule(stored.installation.schedule))
  }
})

const put = (content: Content, stored: StoredInstallation): Content => ({
  ...content,
  installations: HashMap.set(content.installations, stored.installation.installationId, stored)
})

/** The same installation with one row changed. */
const withEntry = (stored: StoredInstallation, entry: Ledger.Kept): StoredInstallation => ({
  ...stored,
  rows: stored.rows.map((row) => (row.entry.historyId === entry.historyId ? { ...row, entry } : row))
})

const dueAtOf = ({ installation }: StoredInstallation): Option.Option<DateTime.Utc> =>
  Schedule.dueAt(installation.schedule)

/** The installations whose next deadline is earlier than it was, or that have one now. */
const lowered = (before: Content, after: Content, id: InstallationId): boolean =>
  Option.exists(Option.flatMap(HashMap.get(after.installations, id), dueAtOf), (now) =>
    Option.match(Option.flatMap(HashMap.get(before.installations, id), dueAtOf), {
      onNone: () => true,
      onSome: (then) => DateTime.lessThan(now, then)
    })
  )

const conflict = (operation: Operation, detail: string) =>
  Either.left(new StorageError({ operation, reason: "Conflict", detail }))

const requireInstallation = (operation: Operation, content: Content, id: InstallationId) =>
  Option.match(HashMap.get(content.installations, id), {
    onNone: () => conflict(operation, `there is no installation ${id}`),
    onSome: (stored) => Either.right(stored)
  })

/** The installation of a lease that still binds. */
const requireLease = (content: Content, lease: Lease.Lease, at: Option.Option<DateTime.Utc>) =>
  HashMap.get(content.installations, lease.installationId).pipe(
    Option.filter(
      ({ fence, leaseEnd }) =>
        fence === lease.fence && Option.exists(leaseEnd, (end) => Option.isNone(at) || Lease.isInForce(end, at.value))
    ),
    Either.fromOption(() => new Lease.LeaseError({ reason: "Lost", installationId: lease.installationId }))
  )

const corrupt = (operation: Operation, { entry, damaged }: StoredRow) =>
  Either.left(
    new StorageError({
      operation,
      reason: "Corrupt",
      detail: `row ${entry.historyId}, column ${Option.getOrElse(damaged, () => "?")}`
    })
  )

/** The row that a write starts from, as the database has it, in one of these states. */
const requireEntry = <Tag extends Ledger.Kept["_tag"]>(
  operation: Operation,
  stored: StoredInstallation,
  known: Ledger.Kept,
  ...tags: ReadonlyArray<Tag>
): Either.Either<Extract<Ledger.Kept, { readonly _tag: Tag }>, StorageError> => {
  const row = stored.rows.find(
    ({ entry }) => entry.historyId === known.historyId && entry.keyPackage.ref === known.keyPackage.ref
  )
  if (row === undefined) return conflict(operation, `key package ${known.historyId} is not here`)
  if (!isSound(row)) return corrupt(operation, row)
  const { entry } = row
  const isExpected = (entry: Ledger.Kept): entry is Extract<Ledger.Kept, { readonly _tag: Tag }> =>
    tags.some((tag) => tag === entry._tag)
  return isExpected(entry)
    ? Either.right(entry)
    : conflict(operation, `key package ${entry.historyId} is ${entry._tag}, not ${tags.join(" or ")}`)
}

const make = (database: Database) =>
  Effect.gen(function* () {
    const lowerings = yield* PubSub.unbounded<InstallationId>()
    const script = yield* Ref.make<ReadonlyArray<readonly [Operation, StorageError["reason"]]>>([])
    const recorded: Array<Call> = []

    /** Records the call, then fails as the script says or runs the step on the content. */
    const run = <A, E>(
      operation: Operation,
      args: ReadonlyArray<unknown>,
      step: Step<A, E>
    ): Effect.Effect<A, E | StorageError> =>
      Effect.gen(function* () {
        recorded.push({ operation, args })
        const reason = yield* Ref.modify(script, (lines) => {
          const index = lines.findIndex(([name]) => name === operation)
          return index < 0 ? [undefined, lines] : [lines[index]?.[1], lines.toSpliced(index, 1)]
        })
        if (reason !== undefined) return yield* new StorageError({ operation, reason, detail: "scripted" })
        const result = yield* Ref.modify(database, (content): [Either.Either<A, E>, Content] => {
          const stepped = step(content)
          return Either.isLeft(stepped)
            ? [Either.left(stepped.left), content]
            : [Either.right(stepped.right[0]), stepped.right[1]]
        })
        return yield* result
      })

    /** A write that may bring something forward: whoever waits for that hears of it once it is written. */
    const runAndTell = <A, E>(
      operation: Operation,
      id: InstallationId,
      args: ReadonlyArray<unknown>,
      step: Step<A, E>
    ): Effect.Effect<A, E | StorageError> =>
      run(operation, args, (content) =>
        Either.map(step(content), ([value, next]) => [[value, lowered(content, next, id)] as const, next] as const)
      ).pipe(
        Effect.tap(([, isLowered]) => (isLowered ? PubSub.publish(lowerings, id) : Effect.void)),
        Effect.map(([value]) => value),
        // Nothing may come between the write and the news of it.
        Effect.uninterruptible
      )

    const read = <A>(operation: Operation, args: ReadonlyArray<unknown>, get: (content: Content) => A) =>
      run<A, never>(operation, args, (content) => Either.right([get(content), content]))

    const rowsOf = (content: Content, id: InstallationId): ReadonlyArray<StoredRow> =>
      Option.match(HashMap.get(content.installations, id), { onNone: () => [], onSome: ({ rows }) => rows })

    const retiredOf = (content: Content, id: InstallationId): ReadonlyArray<Ledger.Retired> =>
      Option.match(HashMap.get(content.installations, id), { onNone: () => [], onSome: ({ retired }) => retired })

    const soundOf = (content: Content, id: InstallationId): ReadonlyArray<Ledger.Kept> =>
      rowsOf(content, id)
        .filter(isSound)
        .map(({ entry }) => entry)

    /** One entry of an installation, kept or retired; rows that are set aside are never found. */
    const findEntry = (
      operation: Operation,
      id: InstallationId,
      args: ReadonlyArray<unknown>,
      isKeptOne: (entry: Ledger.Kept) => boolean,
      isRetiredOne: (entry: Ledger.Retired) => boolean
    ) =>
      run<Option.Option<Ledger.LedgerEntry>, StorageError>(operation, args, (content) => {
        const row = rowsOf(content, id).find(({ entry, quarantined }) => Option.isNone(quarantined) && isKeptOne(entry))
        if (row !== undefined && !isSound(row)) return corrupt(operation, row)
        const entry = row?.entry ?? retiredOf(content, id).find(isRetiredOne)
        return Either.right([Option.fromNullable(entry), content])
      })

    /** Every installation with its next deadline. */
    const deadlines = (content: Content): ReadonlyArray<Due> =>
      content.order.flatMap((installationId) =>
        Option.match(dueAtOf(HashMap.unsafeGet(content.installations, installationId)), {
          onNone: () => [],
          onSome: (dueAt) => [{ installationId, dueAt }]
        })
      )

    const store = KeyPackageStore.of({
      findOrCreateInstallation: (intent) =>
        run("findOrCreateInstallation", [intent], (content) => {
          const { at, inboxId, key, label } = intent
          const { installationId } = key
          for (const id of content.order) {
            const found = HashMap.unsafeGet(content.installations, id).installation
            if (found.inboxId === inboxId && found.label === label) return Either.right([found, content])
          }
          if (HashMap.has(content.installations, installationId)) {
            return conflict("findOrCreateInstallation", `installation ${installationId} has another label`)
          }
          const installation: Installation = {
            installationId,
            inboxId,
            label,
            createdAt: wholeMillis(at),
            registration: { _tag: "Intended" },
            schedule: Schedule.empty
          }
          const stored: StoredInstallation = {
            installation,
            key: { installationId, seed: copy(key.seed) },
            fence: 0,
            leaseEnd: Option.none(),
            rows: [],
            retired: []
          }
          return Either.right([installation, put({ ...content, order: [...content.order, installationId] }, stored)])
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
        run("getInstallationKey", [id], (content) =>
          Either.map(requireInstallation("getInstallationKey", content, id), ({ key }) => [
            { installationId: id, seed: copy(key.seed) },
            content
          ])
        ),

      saveIdentityUpdate: (lease, identityUpdate, at) =>
        run("saveIdentityUpdate", [lease, identityUpdate, at], (content) =>
          Either.gen(function* () {
            const stored = yield* requireLease(content, lease, Option.some(at))
            if (stored.installation.registration._tag === "Registered") {
              return yield* conflict("saveIdentityUpdate", `installation ${lease.installationId} is registered`)
            }
            const installation: Installation = {
              ...stored.installation,
              registration: { _tag: "Signed", identityUpdate: identityUpdate.slice() }
            }
            return [installation, put(content, { ...stored, installation })] as const
          })
        ),

      markRegistered: (lease, at) =>
        run("markRegistered", [lease, at], (content) =>
          Either.gen(function* () {
            const stored = yield* requireLease(content, lease, Option.some(at))
            const { registration } = stored.installation
            if (registration._tag === "Registered") return [stored.installation, content] as const
            if (registration._tag === "Intended") {
              return yield* conflict(
                "markRegistered",
                `installation ${lease.installationId} has no signed identity update`
              )
            }
            const { identityUpdate } = registration
            const installation: Installation = {
              ...stored.installation,
              registration: { _tag: "Registered", identityUpdate, registeredAt: wholeMillis(at) }
            }
            return [installation, put(content, { ...stored, installation })] as const
          })
        ),

      acquireLease: (id, options) =>
        run("acquireLease", [id, options], (content) =>
          Either.gen(function* () {
            const { duration, now } = options
            const stored = yield* requireInstallation("acquireLease", content, id)
            if (Option.exists(stored.leaseEnd, (end) => Lease.isInForce(end, now))) {
              return yield* Either.left(new Lease.LeaseError({ reason: "Held", installationId: id }))
            }
            const fence = stored.fence + 1
            const expiresAt = wholeMillis(Lease.expiry(now, duration))
            const lease: Lease.Lease = { installationId: id, fence, expiresAt }
            return [lease, put(content, { ...stored, fence, leaseEnd: Option.some(expiresAt) })] as const
          })
        ),

      checkLease: (lease, now) =>
        run("checkLease", [lease, now], (content) =>
          Either.map(requireLease(content, lease, Option.some(now)), () => [undefined, content])
        ),

      releaseLease: (lease) =>
        run<void, never>("releaseLease", [lease], (content) =>
          Either.match(requireLease(content, lease, Option.none()), {
            onLeft: () => Either.right([undefined, content]),
            onRight: (stored) => Either.right([undefined, put(content, { ...stored, leaseEnd: Option.none() })])
          })
        ),

      modifySchedule: (id, reschedule) =>
        runAndTell("modifySchedule", id, [id, reschedule], (content) =>
          Either.map(requireInstallation("modifySchedule", content, id), (stored) => {
            const next = rescheduled(stored, reschedule)
            return [next.installation.schedule, put(content, next)] as const
          })
        ),

      findDue: (options) =>
        read("findDue", [options], (content) =>
          deadlines(content)
            .filter(({ dueAt, installationId }) => {
              const isLeftOut = options.except?.has(installationId) ?? false
              return !isLeftOut && Schedule.isDue(Option.some(dueAt), options.now)
            })
            .toSorted((one, other) => DateTime.Order(one.dueAt, other.dueAt))
            .slice(0, options.limit)
        ),

      findDueAfter: (time) =>
        read("findDueAfter", [time], (content) =>
          deadlines(content).filter(({ dueAt }) => DateTime.greaterThan(dueAt, time))
        ),

      nextDueAt: (now) =>
        read("nextDueAt", [now], (content) =>
          deadlines(content).reduce<Option.Option<DateTime.Utc>>(
            (next, { dueAt }) =>
              DateTime.greaterThan(dueAt, now) && !Option.exists(next, (at) => DateTime.lessThan(at, dueAt))
                ? Option.some(dueAt)
                : next,
            Option.none()
          )
        ),

      deadlineLowered: Stream.fromPubSub(lowerings, { scoped: true }),

      insertKeyPackageHistory: (lease, generated, options) =>
        runAndTell("insertKeyPackageHistory", lease.installationId, [lease, generated, options], (content) =>
          Either.gen(function* () {
            const { at, reschedule, trigger } = options
            const stored = yield* requireLease(content, lease, Option.some(at))
            const { keyPackage, privateKeys } = generated
            const { inboxId, installationId } = stored.installation
            if (keyPackage.installationId !== installationId || keyPackage.inboxId !== inboxId) {
              return yield* conflict(
                "insertKeyPackageHistory",
                `the key package is not of installation ${installationId}`
              )
            }
            const names = namesOf(generated)
            if (names.some((name) => HashSet.has(content.names, name))) {
              return yield* conflict("insertKeyPackageHistory", `key package ${keyPackage.ref} is already here`)
            }
            const historyId = Ledger.HistoryId.make(content.lastHistoryId + 1)
            const prepared = Ledger.prepare({ historyId, keyPackage, createdAt: wholeMillis(at), trigger })
            const row: StoredRow = { entry: prepared, damaged: Option.none(), quarantined: Option.none() }
            return [
              prepared,
              put(
                {
                  ...content,
                  lastHistoryId: historyId,
                  privateKeys: HashMap.set(content.privateKeys, historyId, copyKeys(privateKeys)),
                  names: HashSet.union(content.names, names)
                },
                rescheduled({ ...stored, rows: [...stored.rows, row] }, reschedule)
              )
            ] as const
          })
        ),

      markExposed: (lease, prepared, at) =>
        run("markExposed", [lease, prepared, at], (content) =>
          Either.gen(function* () {
            const stored = yield* requireLease(content, lease, Option.some(at))
            const known = yield* requireEntry("markExposed", stored, prepared, "Prepared")
            const exposed = Ledger.expose(known, wholeMillis(at))
            return [exposed, put(content, withEntry(stored, exposed))] as const
          })
        ),

      markKeyPackagesBeforeIdToBeDeleted: (lease, proof, publication) =>
        runAndTell("markKeyPackagesBeforeIdToBeDeleted", lease.installationId, [lease, proof, publication], (content) =>
          Either.gen(function* () {
            const operation = "markKeyPackagesBeforeIdToBeDeleted"
            const at = wholeMillis(publication.at)
            const stored = yield* requireLease(content, lease, Option.some(publication.at))
            const proven = isUploadReceipt(proof)
              ? requireEntry(operation, stored, proof.exposed, "Exposed")
              : isSeenServed(proof)
                ? requireEntry(operation, stored, proof.entry, "Exposed", "Rejected", "Published")
                : conflict(operation, "nothing shows that the network has the package")
            const entry = yield* proven
            const published = entry._tag === "Published" ? entry : Ledger.publish(entry, at)
            const superseded: Array<Ledger.Superseded> = []
            const rows = stored.rows.map((row) => {
              const { entry } = row
              if (entry.historyId === published.historyId) return { ...row, entry: published }
              if (Option.isNone(publication.deleteAt) || !isSound(row)) return row
              if (entry.historyId > published.historyId || !Ledger.isLive(entry)) return row
              const next = Ledger.supersede(entry, published, at, wholeMillis(publication.deleteAt.value))
              superseded.push(next)
              return { ...row, entry: next }
            })
            const next = rescheduled({ ...stored, rows }, publication.reschedule)
            return [{ published, superseded }, put(content, next)] as const
          })
        ),

      markRejected: (lease, exposed, options) =>
        runAndTell("markRejected", lease.installationId, [lease, exposed, options], (content) =>
          Either.gen(function* () {
            const { at, deleteAt, reschedule } = options
            const stored = yield* requireLease(content, lease, Option.some(at))
            const known = yield* requireEntry("markRejected", stored, exposed, "Exposed")
            const rejected = Ledger.reject(known, wholeMillis(at), wholeMillis(deleteAt))
            return [rejected, put(content, rescheduled(withEntry(stored, rejected), reschedule))] as const
          })
        ),

      postponeDeletion: (lease, seen, options) =>
        run("postponeDeletion", [lease, seen, options], (content) =>
          Either.gen(function* () {
            const stored = yield* requireLease(content, lease, Option.some(options.at))
            if (!isSeenServed(seen)) {
              return yield* conflict("postponeDeletion", "nothing shows that the network serves the package")
            }
            const known = yield* requireEntry("postponeDeletion", stored, seen.entry, "Superseded", "Rejected")
            const later = DateTime.max(known.deleteAt, wholeMillis(options.deleteAt))
            const postponed: Ledger.Doomed = Ledger.postpone(known, later)
            return [postponed, put(content, withEntry(stored, postponed))] as const
          })
        ),

      retire: (lease, permits, options) =>
        runAndTell("retire", lease.installationId, [lease, permits, options], (content) =>
          Either.gen(function* () {
            const { at, dropBefore, reschedule } = options
            const stored = yield* requireLease(content, lease, Option.some(at))
            if (!permits.every(isRetirementPermit)) {
              return yield* conflict("retire", "nothing shows that the keys are not needed any more")
            }
            const erased = stored.rows.flatMap((row) => {
              const permit = permits.find(({ row: seen }) => isPermitted(row, seen, at))
              return permit === undefined ? [] : [{ row, reason: permit.reason }]
            })
            const erasedRows = new Set(erased.map(({ row }) => row))
            const quarantined = erased.filter(({ row }) => !isSound(row)).map(({ row }) => historyIdOf(row))
            const retired = erased.flatMap(({ reason, row }) =>
              isSound(row) ? [Ledger.retire(row.entry, wholeMillis(at), reason, sha256)] : []
            )
            const isDropped = ({ retiredAt }: Ledger.Retired) => DateTime.lessThanOrEqualTo(retiredAt, dropBefore)
            const tombstones = [...stored.retired, ...retired].toSorted((a, b) => a.historyId - b.historyId)

            const names = HashSet.mutate(content.names, (names) => {
              for (const { row } of erased) for (const name of namesOf(row.entry)) HashSet.remove(names, name)
              for (const tombstone of retired) for (const name of namesOfRetired(tombstone)) HashSet.add(names, name)
              for (const tombstone of tombstones.filter(isDropped)) {
                for (const name of namesOfRetired(tombstone)) HashSet.remove(names, name)
              }
            })
            const privateKeys = HashMap.removeMany(
              content.privateKeys,
              erased.map(({ row }) => historyIdOf(row))
            )
            const next: StoredInstallation = {
              ...stored,
              rows: stored.rows.filter((row) => !erasedRows.has(row)),
              retired: tombstones.filter((tombstone) => !isDropped(tombstone))
            }
            return [
              { retired, quarantined },
              put({ ...content, names, privateKeys }, rescheduled(next, reschedule))
            ] as const
          })
        ),

      // Nothing is left behind in files that do not exist.
      scrub: read("scrub", [], () => undefined),

      quarantine: (lease, unreadable, options) =>
        run("quarantine", [lease, unreadable, options], (content) =>
          Either.gen(function* () {
            const at = wholeMillis(options.at)
            const latest = wholeMillis(options.latest)
            const stored = yield* requireLease(content, lease, Option.some(options.at))
            const set = new Map<Ledger.HistoryId, Ledger.Quarantined>()
            for (const { historyId } of unreadable) {
              const row = stored.rows.find((row) => historyIdOf(row) === historyId)
              if (row === undefined || Option.isNone(row.damaged) || Option.isSome(row.quarantined)) {
                return yield* conflict("quarantine", `key package ${historyId} is not an unreadable row`)
              }
              const column = row.damaged.value
              const raw = column === "deleteAt" ? Option.none() : deleteAtOf(row.entry)
              set.set(historyId, {
                historyId,
                installationId: lease.installationId,
                column,
                ref: column === "ref" ? Option.none() : Option.some(row.entry.keyPackage.ref),
                quarantinedAt: at,
                deleteAt: DateTime.clamp(
                  Option.getOrElse(raw, () => latest),
                  { minimum: at, maximum: latest }
                )
              })
            }
            const rows = stored.rows.map((row) => {
              const quarantined = Option.fromNullable(set.get(historyIdOf(row)))
              return Option.isSome(quarantined) ? { ...row, quarantined } : row
            })
            return [[...set.values()], put(content, { ...stored, rows })] as const
          })
        ),

      getNewest: (id) =>
        run<Option.Option<Ledger.Kept>, StorageError>("getNewest", [id], (content) => {
          const row = rowsOf(content, id).findLast(({ quarantined }) => Option.isNone(quarantined))
          if (row === undefined) return Either.right([Option.none(), content])
          return isSound(row) ? Either.right([Option.some(row.entry), content]) : corrupt("getNewest", row)
        }),

      getHistory: (id) => read("getHistory", [id], (content) => soundOf(content, id)),

      getLedger: (id) =>
        read("getLedger", [id], (content) => {
          const rows = rowsOf(content, id)
          return {
            entries: soundOf(content, id),
            unreadable: rows.flatMap(({ damaged, entry: { historyId }, quarantined }) =>
              Option.isSome(damaged) && Option.isNone(quarantined) ? [{ historyId, column: damaged.value }] : []
            ),
            quarantined: rows.flatMap(({ quarantined }) => Option.toArray(quarantined))
          }
        }),

      getRetired: (id) => read("getRetired", [id], (content) => retiredOf(content, id)),

      getPrivateKeys: (id) =>
        read("getPrivateKeys", [id], ({ privateKeys }) => Option.map(HashMap.get(privateKeys, id), copyKeys)),

      findByWelcomeKey: (id, publicKey) => {
        const hash = sha256(publicKey)
        return findEntry(
          "findByWelcomeKey",
          id,
          [id, publicKey],
          ({ keyPackage }) =>
            isSame(keyPackage.initKey, publicKey) ||
            Option.exists(keyPackage.postQuantumKey, (key) => isSame(key, publicKey)),
          ({ initKeyHash, postQuantumKeyHash }) =>
            isSame(initKeyHash, hash) || Option.exists(postQuantumKeyHash, (known) => isSame(known, hash))
        )
      },

      findByRef: (id, ref) =>
        findEntry(
          "findByRef",
          id,
          [id, ref],
          ({ keyPackage }) => keyPackage.ref === ref,
          (retired) => retired.ref === ref
        )
    })

    const control = MemoryKeyPackageStore.of({
      failNext: (operation, ...reasons) =>
        Ref.update(script, (lines) => [...lines, ...reasons.map((reason) => [operation, reason] as const)]),
      calls: Effect.sync(() => recorded.slice()),
      clearCalls: Effect.sync(() => {
        recorded.length = 0
      }),
      damage: (id, column = "bytes") =>
        Ref.update(database, (content) => ({
          ...content,
          installations: HashMap.map(content.installations, (stored) => ({
            ...stored,
            rows: stored.rows.map((row) => (historyIdOf(row) === id ? { ...row, damaged: Option.some(column) } : row))
          }))
        })),
      loseKeys: (id) =>
        Ref.update(database, (content) => ({ ...content, privateKeys: HashMap.remove(content.privateKeys, id) })),
      snapshot: Ref.get(database),
      restore: (snapshot) => Ref.set(database, snapshot)
    })

    return Context.make(KeyPackageStore, store).pipe(Context.add(MemoryKeyPackageStore, control))
  })

/**
 * A store over a database that others may use too: one process of several. What it is asked, how it fails and which lowered
 * deadlines it tells of are its own.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerShared = (database: Database): Layer.Layer<KeyPackageStore | MemoryKeyPackageStore> =>
  Layer.effectContext(make(database))

/**
 * A store over an empty database of its own, in every build of the layer.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<KeyPackageStore | MemoryKeyPackageStore> = Layer.unwrapEffect(
  Effect.map(makeDatabase, layerShared)
)
