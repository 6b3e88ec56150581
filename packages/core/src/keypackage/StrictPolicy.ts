/**
 * What RFC 9420 asks of a key package beyond what libxmtp checks when it receives one.
 *
 * All off by default: libxmtp accepts such packages, and a stricter client would find its peers unreachable. OpenMLS makes
 * the checks of capabilities later, when a member is added, so a package that fails them cannot be used in the end.
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { findExtension } from "./KeyPackage.ts"
import { ExtensionType, isDefaultExtension } from "./Profile.ts"
import type { ValidatedKeyPackage } from "./Validation.ts"

/**
 * The longest lifetime that libxmtp gives its own packages: 84 days and one hour, seconds (OpenMLS `lifetime.rs`, whose
 * `has_acceptable_range` nobody calls).
 *
 * @since 1.0.0
 * @category constants
 */
export const MAX_LIFETIME_SECONDS = 7_261_200n

/**
 * Which rules to hold a package to; each is off unless set.
 *
 * @since 1.0.0
 * @category models
 */
export interface StrictPolicy {
  /** The longest acceptable span from `notBefore` to `notAfter`, seconds (RFC 9420 section 7.2). */
  readonly maximumLifetime?: bigint | undefined
  /** Whether the leaf must list what it uses: version, suite, credential type, extensions (RFC 9420 section 7.2). */
  readonly consistentCapabilities?: boolean | undefined
  /** Whether the package must be marked for more than one use, as every package of XMTP is. */
  readonly lastResort?: boolean | undefined
}

/**
 * A package that libxmtp accepts breaks a rule that was asked for.
 *
 * - `LifetimeRangeTooLong`: `notAfter - notBefore` is more than the maximum
 * - `VersionNotInCapabilities`, `CiphersuiteNotInCapabilities`, `CredentialNotInCapabilities`, `UnsupportedLeafExtension`:
 *   `value` is used, but not listed
 * - `MissingLastResort`: the package is for a single use
 *
 * @since 1.0.0
 * @category errors
 */
export class StrictPolicyViolation extends Schema.TaggedError<StrictPolicyViolation>(
  "@keyward/core/StrictPolicyViolation"
)("StrictPolicyViolation", {
  rule: Schema.Literal(
    "LifetimeRangeTooLong",
    "VersionNotInCapabilities",
    "CiphersuiteNotInCapabilities",
    "CredentialNotInCapabilities",
    "UnsupportedLeafExtension",
    "MissingLastResort"
  ),
  /** The number at fault: seconds of lifetime, or a 16-bit type. */
  value: Schema.BigIntFromSelf
}) {
  override get message(): string {
    return `the key package breaks a rule that was asked for: ${this.rule} (${this.value})`
  }
}

const violation = (rule: StrictPolicyViolation["rule"], value: bigint | number) =>
  Either.left(new StrictPolicyViolation({ rule, value: BigInt(value) }))

const check = (
  { decoded, lifetime }: ValidatedKeyPackage,
  policy: StrictPolicy
): Either.Either<void, StrictPolicyViolation> => {
  const span = lifetime.notAfter - lifetime.notBefore
  if (policy.maximumLifetime !== undefined && span > policy.maximumLifetime) {
    return violation("LifetimeRangeTooLong", span)
  }
  if (policy.consistentCapabilities === true) {
    const { capabilities, credential, extensions } = decoded.leafNode
    if (!capabilities.versions.includes(decoded.version)) return violation("VersionNotInCapabilities", decoded.version)
    if (!capabilities.cipherSuites.includes(decoded.cipherSuite)) {
      return violation("CiphersuiteNotInCapabilities", decoded.cipherSuite)
    }
    if (!capabilities.credentials.includes(credential.type)) {
      return violation("CredentialNotInCapabilities", credential.type)
    }
    const supported = new Set(capabilities.extensions)
    for (const { type } of extensions) {
      if (!isDefaultExtension(type) && !supported.has(type)) return violation("UnsupportedLeafExtension", type)
    }
  }
  if (policy.lastResort === true && findExtension(decoded.extensions, ExtensionType.lastResort) === undefined) {
    return violation("MissingLastResort", ExtensionType.lastResort)
  }
  return Either.void
}

/**
 * Holds a valid package to the rules that are set.
 *
 * @since 1.0.0
 * @category validation
 */
export const enforce = (
  keyPackage: ValidatedKeyPackage,
  policy: StrictPolicy
): Effect.Effect<void, StrictPolicyViolation> => Effect.suspend(() => check(keyPackage, policy))
