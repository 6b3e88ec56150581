/**
 * The mint of sightings: that the network serves the bytes of one of our own rows. Only `lifecycle/Reachability.ts` issues any,
 * after it has fetched them; beside it only `lifecycle/SeenServed.ts`, which hands out the type, may import this.
 */
import type * as DateTime from "effect/DateTime"
import type { Kept } from "../lifecycle/Ledger.ts"

/** See `lifecycle/SeenServed.ts`. */
class SeenServed {
  /** The row whose bytes the network serves. */
  readonly entry: Kept
  /** When the answer arrived, by our clock. */
  readonly seenAt: DateTime.Utc
  // A private field makes the type nominal: no other object has it, whatever its shape.
  readonly #seen = true

  private constructor(entry: Kept, seenAt: DateTime.Utc) {
    this.entry = entry
    this.seenAt = seenAt
  }

  static is(value: unknown): value is SeenServed {
    return typeof value === "object" && value !== null && #seen in value && value.#seen
  }

  static issue(entry: Kept, seenAt: DateTime.Utc): SeenServed {
    return new SeenServed(entry, seenAt)
  }
}

export type { SeenServed }

/** The network served these bytes. */
export const issue = SeenServed.issue

/** Whether a value was issued here, for callers that the compiler does not check. */
export const is = SeenServed.is
