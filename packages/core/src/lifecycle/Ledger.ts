/**
 * The publish ledger: what happened to every key package, one state at a time.
 *
 * ```
 * Prepared --send--> Exposed --accepted--> Published --newer one published--> Superseded --retire--> Retired
 *     |                 |  \--refused for good--> Rejected --retire-----------------------------------^
 *     |                 \--newer one published--> Superseded                                         |
 *     \--no longer wanted-----------------------------------------------------------------------------/
 * ```
 *
 * Each transition takes the state that it starts from, so that no other compiles. What a database may not do by itself
 * (publish, supersede, retire) asks for a proof besides; see `UploadReceipt`, `SeenServed` and `RetirementPermit`.
 *
 * @since 1.0.0
 */
import * as Data from "effect/Data"
import type * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { InstallationId } from "../identity/InstallationId.ts"
import type { PublicKeyPackage } from "../keypackage/GeneratedKeyPackage.ts"
import type { KeyPackageRef } from "../keypackage/KeyPackageRef.ts"

/**
 * The place of a package in the order of creation, unique and increasing per database, from 1.
 *
 * @since 1.0.0
 * @category models
 */
export const HistoryId = Schema.Int.pipe(Schema.positive(), Schema.brand("@keyward/core/HistoryId"))

/**
 * @since 1.0.0
 * @category models
 */
export type HistoryId = typeof HistoryId.Type

/**
 * What a package was made for.
 *
 * - `Registration`: the installation's first
 * - `Time`: the last one was old enough
 * - `Welcome`: the last one was used
 * - `Queued`, `Manual`: the app asked, for soon or for now
 * - `Profile`: the last one was not of the kind that is wanted
 * - `Repair`: the network served something else, or its keys were gone
 *
 * @since 1.0.0
 * @category models
 */
export const RotationTrigger = Schema.Literal(
  "Registration",
  "Time",
  "Welcome",
  "Queued",
  "Manual",
  "Profile",
  "Repair"
)

/**
 * @since 1.0.0
 * @category models
 */
export type RotationTrigger = typeof RotationTrigger.Type

/** What every row has while its keys are here, whatever its state. */
interface Row {
  readonly historyId: HistoryId
  readonly keyPackage: PublicKeyPackage
  readonly createdAt: DateTime.Utc
  readonly trigger: RotationTrigger
}

/**
 * Keys and row are durable; nothing has left the process.
 *
 * @since 1.0.0
 * @category states
 */
export interface Prepared extends Row {
  readonly _tag: "Prepared"
}

/**
 * The bytes may have reached the network. Only these very bytes are sent again.
 *
 * @since 1.0.0
 * @category states
 */
export interface Exposed extends Row {
  readonly _tag: "Exposed"
  readonly exposedAt: DateTime.Utc
}

/**
 * The network accepted it.
 *
 * @since 1.0.0
 * @category states
 */
export interface Published extends Row {
  readonly _tag: "Published"
  readonly exposedAt: DateTime.Utc
  readonly publishedAt: DateTime.Utc
}

/**
 * A later package of the installation was published; the keys may be erased from `deleteAt` on.
 *
 * @since 1.0.0
 * @category states
 */
export interface Superseded extends Row {
  readonly _tag: "Superseded"
  /** When it was first sent; none if it never left the process. */
  readonly exposedAt: Option.Option<DateTime.Utc>
  /** When the network accepted it; none if no acceptance ever arrived. */
  readonly publishedAt: Option.Option<DateTime.Utc>
  readonly supersededBy: HistoryId
  readonly supersededAt: DateTime.Utc
  readonly deleteAt: DateTime.Utc
}

/**
 * The network refused it for good, and our own validator agrees; the keys may be erased from `deleteAt` on.
 *
 * @since 1.0.0
 * @category states
 */
export interface Rejected extends Row {
  readonly _tag: "Rejected"
  readonly exposedAt: DateTime.Utc
  readonly rejectedAt: DateTime.Utc
  readonly deleteAt: DateTime.Utc
}

/**
 * Why private keys were erased.
 *
 * - `Superseded`: a later package was published, and the grace for Welcomes under way is over
 * - `Expired`: the package's lifetime and the grace after it are over
 * - `Rejected`: the network refused it for good
 * - `NeverSent`: it was no longer wanted before it was sent
 * - `Unreadable`: its row was damaged, and its raw date of deletion has passed
 *
 * @since 1.0.0
 * @category models
 */
export const RetirementReason = Schema.Literal("Superseded", "Expired", "Rejected", "NeverSent", "Unreadable")

/**
 * @since 1.0.0
 * @category models
 */
export type RetirementReason = typeof RetirementReason.Type

/**
 * The private keys are erased. What is left names the package, so that a late Welcome is explained.
 *
 * @since 1.0.0
 * @category states
 */
export interface Retired {
  readonly _tag: "Retired"
  readonly historyId: HistoryId
  readonly installationId: InstallationId
  readonly ref: KeyPackageRef
  /** SHA-256 of the init key, 32 bytes: a Curve25519 Welcome names its package by that key. */
  readonly initKeyHash: Uint8Array
  /** SHA-256 of the X-Wing key, 32 bytes: a post-quantum Welcome names its package by that key. */
  readonly postQuantumKeyHash: Option.Option<Uint8Array>
  readonly createdAt: DateTime.Utc
  readonly retiredAt: DateTime.Utc
  readonly reason: RetirementReason
}

/**
 * One row of the ledger.
 *
 * @since 1.0.0
 * @category models
 */
export type LedgerEntry = Prepared | Exposed | Published | Superseded | Rejected | Retired

/**
 * A row whose private keys are still here.
 *
 * @since 1.0.0
 * @category models
 */
export type Kept = Exclude<LedgerEntry, Retired>

/**
 * A row that waits for its date of deletion.
 *
 * @since 1.0.0
 * @category models
 */
export type Doomed = Superseded | Rejected

/**
 * A row that a later publication supersedes.
 *
 * @since 1.0.0
 * @category models
 */
export type Live = Prepared | Exposed | Published

/**
 * A row that cannot be read. It is never sent, and erased from `deleteAt` on, which comes from its raw columns.
 *
 * @since 1.0.0
 * @category models
 */
export interface Quarantined {
  readonly historyId: HistoryId
  readonly installationId: InstallationId
  /** The column that is not what this library writes. */
  readonly column: string
  /** The package's ref, where that can be read. */
  readonly ref: Option.Option<KeyPackageRef>
  readonly quarantinedAt: DateTime.Utc
  readonly deleteAt: DateTime.Utc
}

const { Prepared, Exposed, Published, Superseded, Rejected, Retired, $is, $match } = Data.taggedEnum<LedgerEntry>()

/**
 * Whether an entry is in the state named.
 *
 * @since 1.0.0
 * @category refinements
 */
export const is = $is

/**
 * One case per state.
 *
 * @since 1.0.0
 * @category pattern matching
 */
export const match = $match

/**
 * Whether a later publication would supersede the entry.
 *
 * @since 1.0.0
 * @category refinements
 */
export const isLive = (entry: LedgerEntry): entry is Live =>
  entry._tag === "Prepared" || entry._tag === "Exposed" || entry._tag === "Published"

/**
 * Whether the entry waits to be published.
 *
 * @since 1.0.0
 * @category refinements
 */
export const isWaiting = (entry: LedgerEntry): entry is Prepared | Exposed =>
  entry._tag === "Prepared" || entry._tag === "Exposed"

/**
 * Whether the entry waits for its date of deletion.
 *
 * @since 1.0.0
 * @category refinements
 */
export const isDoomed = (entry: LedgerEntry): entry is Doomed =>
  entry._tag === "Superseded" || entry._tag === "Rejected"

/**
 * Whether the entry's private keys are still here.
 *
 * @since 1.0.0
 * @category refinements
 */
export const isKept = (entry: LedgerEntry): entry is Kept => entry._tag !== "Retired"

const rowOf = ({ historyId, keyPackage, createdAt, trigger }: Kept): Row => ({
  historyId,
  keyPackage,
  createdAt,
  trigger
})

/**
 * A package that was just written.
 *
 * @since 1.0.0
 * @category transitions
 */
export const prepare = (row: Omit<Prepared, "_tag">): Prepared => Prepared(row)

/**
 * The bytes are about to be sent.
 *
 * @since 1.0.0
 * @category transitions
 */
export const expose = (prepared: Prepared, at: DateTime.Utc): Exposed => Exposed({ ...rowOf(prepared), exposedAt: at })

/**
 * The network accepted the bytes, or serves them after all.
 *
 * @since 1.0.0
 * @category transitions
 */
export const publish = (sent: Exposed | Rejected, at: DateTime.Utc): Published =>
  Published({ ...rowOf(sent), exposedAt: sent.exposedAt, publishedAt: at })

/**
 * The network refused the bytes for good.
 *
 * @since 1.0.0
 * @category transitions
 */
export const reject = (exposed: Exposed, at: DateTime.Utc, deleteAt: DateTime.Utc): Rejected =>
  Rejected({ ...rowOf(exposed), exposedAt: exposed.exposedAt, rejectedAt: at, deleteAt })

/**
 * A later package was published.
 *
 * @since 1.0.0
 * @category transitions
 */
export const supersede = (live: Live, by: Published, at: DateTime.Utc, deleteAt: DateTime.Utc): Superseded =>
  Superseded({
    ...rowOf(live),
    exposedAt: live._tag === "Prepared" ? Option.none() : Option.some(live.exposedAt),
    publishedAt: live._tag === "Published" ? Option.some(live.publishedAt) : Option.none(),
    supersededBy: by.historyId,
    supersededAt: at,
    deleteAt
  })

/**
 * The network was seen to serve it again: its keys stay longer.
 *
 * @since 1.0.0
 * @category transitions
 */
export const postpone = <A extends Doomed>(doomed: A, deleteAt: DateTime.Utc): A => ({ ...doomed, deleteAt })

/**
 * Its private keys are erased.
 *
 * @since 1.0.0
 * @category transitions
 */
export const retire = (
  { createdAt, historyId, keyPackage }: Kept,
  at: DateTime.Utc,
  reason: RetirementReason,
  sha256: (bytes: Uint8Array) => Uint8Array
): Retired =>
  Retired({
    historyId,
    installationId: keyPackage.installationId,
    ref: keyPackage.ref,
    initKeyHash: sha256(keyPackage.initKey),
    postQuantumKeyHash: Option.map(keyPackage.postQuantumKey, sha256),
    createdAt,
    retiredAt: at,
    reason
  })
