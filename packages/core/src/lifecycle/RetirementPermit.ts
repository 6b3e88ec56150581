/**
 * The permit to erase the private keys of one key package.
 *
 * @since 1.0.0
 */
import * as internal from "../internal/retirementPermit.ts"

/**
 * Nothing can need these private keys any more. The cleaner issues permits once every condition holds (date of deletion,
 * not served, inbox read); a rotation issues one for a package that never left the process. Code that erases without one does
 * not compile.
 *
 * @since 1.0.0
 * @category models
 */
export type RetirementPermit = internal.RetirementPermit

/**
 * Whether a value is a genuine permit. Stores ask before they erase, for callers that no compiler checked.
 *
 * @since 1.0.0
 * @category refinements
 */
export const isRetirementPermit: (value: unknown) => value is RetirementPermit = internal.is
