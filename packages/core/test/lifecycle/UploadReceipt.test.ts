/** A receipt cannot be made by hand: not by the compiler's leave, and not behind its back. */

import { describe, expect, it } from "@effect/vitest"
import type { Lease } from "@keyward/core/lifecycle/Lease"
import type { Exposed, Prepared } from "@keyward/core/lifecycle/Ledger"
import { markKeyPackagesBeforeIdToBeDeleted } from "@keyward/core/lifecycle/Rotation"
import * as UploadReceipt from "@keyward/core/lifecycle/UploadReceipt"
import * as DateTime from "effect/DateTime"

declare const lease: Lease
declare const exposed: Exposed
declare const prepared: Prepared
declare const acceptedAt: DateTime.Utc

/** Never called: each line is refused by the compiler, which the type check proves. */
export const refusedByTheCompiler = (): void => {
  // @ts-expect-error the row that was exposed is no proof that it was accepted
  markKeyPackagesBeforeIdToBeDeleted(exposed)
  // @ts-expect-error nor is a row that never left
  markKeyPackagesBeforeIdToBeDeleted(prepared)
  // @ts-expect-error an object of the same shape is not a receipt
  markKeyPackagesBeforeIdToBeDeleted({ lease, exposed, acceptedAt })
  // @ts-expect-error the receipt's module hands out the type, not the class
  new UploadReceipt.UploadReceipt(lease, exposed, acceptedAt)
  // @ts-expect-error nor its mint
  UploadReceipt.issue(lease, exposed, acceptedAt)
}

describe("UploadReceipt", () => {
  it("is not what merely looks like one", () => {
    const forged = { lease: {}, exposed: {}, acceptedAt: DateTime.unsafeMake(0) }
    expect(UploadReceipt.isUploadReceipt(forged)).toBe(false)
    expect(UploadReceipt.isUploadReceipt(Object.create(UploadReceipt))).toBe(false)
    expect(UploadReceipt.isUploadReceipt(null)).toBe(false)
  })

  it("has no mint outside of the package", async () => {
    const specifier = "@keyward/core/internal/uploadReceipt"
    await expect(import(/* @vite-ignore */ specifier)).rejects.toThrow()
  })
})
