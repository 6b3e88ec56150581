/**
 * The mint of permits to erase private keys. Only `lifecycle/Cleaner.ts` (what is due, and not served) and
 * `lifecycle/Rotation.ts` (what was never sent) issue any; beside them only `lifecycle/RetirementPermit.ts`, which hands out the
 * type, may import this.
 */
import type { Kept, Quarantined, RetirementReason } from "../lifecycle/Ledger.ts"

/** See `lifecycle/RetirementPermit.ts`. */
class RetirementPermit {
  /** The row as it was when the permit was given: a row that has changed since is left alone. */
  readonly row: Kept | Quarantined
  readonly reason: RetirementReason
  // A private field makes the type nominal: no other object has it, whatever its shape.
  readonly #permitted = true

  private constructor(row: Kept | Quarantined, reason: RetirementReason) {
    this.row = row
    this.reason = reason
  }

  static is(value: unknown): value is RetirementPermit {
    return typeof value === "object" && value !== null && #permitted in value && value.#permitted
  }

  static issue(row: Kept | Quarantined, reason: RetirementReason): RetirementPermit {
    return new RetirementPermit(row, reason)
  }
}

export type { RetirementPermit }

/** Nothing can need these keys any more. */
export const issue = RetirementPermit.issue

/** Whether a value was issued here, for callers that the compiler does not check. */
export const is = RetirementPermit.is
