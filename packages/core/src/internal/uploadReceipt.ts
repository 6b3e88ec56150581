/**
 * The mint of upload receipts. Only `lifecycle/Rotation.ts` issues any; beside it only
 * `lifecycle/UploadReceipt.ts`, which hands out the type, may import this (checked), and `internal/` is outside the package's
 * exports, so that no
 * app and no store can make a receipt.
 */
import type * as DateTime from "effect/DateTime"
import type { Lease } from "../lifecycle/Lease.ts"
import type { Exposed } from "../lifecycle/Ledger.ts"

/** See `lifecycle/UploadReceipt.ts`. */
class UploadReceipt {
  /** The lease under which the bytes were sent. */
  readonly lease: Lease
  /** The row whose bytes the network accepted. */
  readonly exposed: Exposed
  /** When the acceptance arrived, by our clock. */
  readonly acceptedAt: DateTime.Utc
  // A private field makes the type nominal: no other object has it, whatever its shape.
  readonly #accepted = true

  private constructor(lease: Lease, exposed: Exposed, acceptedAt: DateTime.Utc) {
    this.lease = lease
    this.exposed = exposed
    this.acceptedAt = acceptedAt
  }

  static is(value: unknown): value is UploadReceipt {
    return typeof value === "object" && value !== null && #accepted in value && value.#accepted
  }

  static issue(lease: Lease, exposed: Exposed, acceptedAt: DateTime.Utc): UploadReceipt {
    return new UploadReceipt(lease, exposed, acceptedAt)
  }
}

export type { UploadReceipt }

/** The network said yes to these bytes. */
export const issue = UploadReceipt.issue

/** Whether a value was issued here, for callers that the compiler does not check. */
export const is = UploadReceipt.is
