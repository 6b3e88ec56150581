/**
 * The mint of validated key packages. Only `keypackage/Validation.ts` imports it, and `internal/` is outside the package's
 * exports, so that nobody can call a package valid that was not checked.
 */
import type { InstallationId } from "../identity/InstallationId.ts"
import type { DecodedKeyPackage } from "../keypackage/KeyPackage.ts"
import type { KeyPackageRef } from "../keypackage/KeyPackageRef.ts"
import type { Lifetime } from "../keypackage/Lifetime.ts"

/** What a validated package says. */
export interface ValidatedFields {
  readonly ref: KeyPackageRef
  readonly installationId: InstallationId
  readonly inboxId: string
  readonly lifetime: Lifetime
  readonly decoded: DecodedKeyPackage
}

/** See `keypackage/Validation.ts`. */
class ValidatedKeyPackage {
  /** The hash ref (RFC 9420 section 5.2). */
  readonly ref: KeyPackageRef
  /** The installation that signed the package: its leaf's signature key. */
  readonly installationId: InstallationId
  /** The inbox that the credential names. A claim: any text, until the inbox's identity log confirms it. */
  readonly inboxId: string
  /** The leaf's lifetime, which held when the package was validated. */
  readonly lifetime: Lifetime
  /** Every field, as views on a private copy of the bytes. */
  readonly decoded: DecodedKeyPackage
  // A private field makes the type nominal: no other object has it, whatever its shape.
  readonly #valid = true

  private constructor(fields: ValidatedFields) {
    this.ref = fields.ref
    this.installationId = fields.installationId
    this.inboxId = fields.inboxId
    this.lifetime = fields.lifetime
    this.decoded = fields.decoded
  }

  static is(value: unknown): value is ValidatedKeyPackage {
    return typeof value === "object" && value !== null && #valid in value && value.#valid
  }

  static issue(fields: ValidatedFields): ValidatedKeyPackage {
    return new ValidatedKeyPackage(fields)
  }
}

export type { ValidatedKeyPackage }

/** The package passed every check. */
export const issue = ValidatedKeyPackage.issue

/** Whether a value was issued here, for callers that the compiler does not check. */
export const is = ValidatedKeyPackage.is
