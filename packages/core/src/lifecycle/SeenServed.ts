/**
 * The proof that the network serves a package of ours.
 *
 * @since 1.0.0
 */
import * as internal from "../internal/seenServed.ts"

/**
 * The public path served the bytes of this very row. Only `Reachability.look` issues one, of what it has just fetched. It
 * publishes a row whose acceptance never arrived, confirms a publication, and keeps the keys of a row that was superseded.
 *
 * @since 1.0.0
 * @category models
 */
export type SeenServed = internal.SeenServed

/**
 * Whether a value is a genuine sighting. Stores ask before they write, for callers that no compiler checked.
 *
 * @since 1.0.0
 * @category refinements
 */
export const isSeenServed: (value: unknown) => value is SeenServed = internal.is
