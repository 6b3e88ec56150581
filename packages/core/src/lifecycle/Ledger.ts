/**
 * The publish ledger: what happened to every key package, one state at a time.
 *
 * ```
 * Prepared --send--> Exposed --accepted--> Published --newer one published--> Superseded
 *     \                 \__________________________________________________________^
 *      \___________________________________________________________________________^
 * ```
 *
 * @since 1.0.0
 */
import * as Data from "effect/Data"
import type * as DateTime from "effect/DateTime"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { PublicKeyPackage } from "../keypackage/GeneratedKeyPackage.ts"

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

/** What every row has, whatever its state. */
interface Row {
  readonly historyId: HistoryId
  readonly keyPackage: PublicKeyPackage
  readonly createdAt: DateTime.Utc
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
 * One row of the ledger.
 *
 * @since 1.0.0
 * @category models
 */
export type LedgerEntry = Prepared | Exposed | Published | Superseded

/**
 * A row that a later publication supersedes.
 *
 * @since 1.0.0
 * @category models
 */
export type Live = Prepared | Exposed | Published

const { Prepared, Exposed, Published, Superseded, $is, $match } = Data.taggedEnum<LedgerEntry>()

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
export const isLive = (entry: LedgerEntry): entry is Live => entry._tag !== "Superseded"

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
export const expose = ({ historyId, keyPackage, createdAt }: Prepared, at: DateTime.Utc): Exposed =>
  Exposed({ historyId, keyPackage, createdAt, exposedAt: at })

/**
 * The network accepted the bytes.
 *
 * @since 1.0.0
 * @category transitions
 */
export const publish = ({ historyId, keyPackage, createdAt, exposedAt }: Exposed, at: DateTime.Utc): Published =>
  Published({ historyId, keyPackage, createdAt, exposedAt, publishedAt: at })

/**
 * A later package was published.
 *
 * @since 1.0.0
 * @category transitions
 */
export const supersede = (live: Live, by: Published, at: DateTime.Utc, deleteAt: DateTime.Utc): Superseded =>
  Superseded({
    historyId: live.historyId,
    keyPackage: live.keyPackage,
    createdAt: live.createdAt,
    exposedAt: live._tag === "Prepared" ? Option.none() : Option.some(live.exposedAt),
    publishedAt: live._tag === "Published" ? Option.some(live.publishedAt) : Option.none(),
    supersededBy: by.historyId,
    supersededAt: at,
    deleteAt
  })
