/**
 * What may be asked of other people's packages beyond what libxmtp asks. Off unless asked for, by name: libxmtp accepts more.
 * A policy reports a `Finding` and refuses nothing; who wants to refuse looks at `Usable.findings`.
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as StrictPolicy from "../keypackage/StrictPolicy.ts"
import type { ValidatedKeyPackage } from "../keypackage/Validation.ts"
import type { WelcomeTarget } from "../keypackage/WelcomeTarget.ts"
import { MlsCrypto } from "../ports/MlsCrypto.ts"
import { PUBLIC_KEY_BYTES } from "../postquantum/XWing.ts"

/**
 * A rule with a name.
 *
 * @since 1.0.0
 * @category models
 */
export interface Policy {
  readonly name: string
  /** What breaks the rule, in words; none where nothing does. */
  readonly check: (
    keyPackage: ValidatedKeyPackage,
    welcomeTarget: WelcomeTarget
  ) => Effect.Effect<Option.Option<string>, never, MlsCrypto>
}

const strict = (name: string, policy: StrictPolicy.StrictPolicy): Policy => ({
  name,
  check: (keyPackage) =>
    Effect.match(StrictPolicy.enforce(keyPackage, policy), {
      onSuccess: () => Option.none(),
      onFailure: ({ rule, value }) => Option.some(`${rule} (${value})`)
    })
})

/**
 * The lifetime is at most so many seconds from end to end (RFC 9420 section 7.2, a MUST that libxmtp leaves out); by default
 * what libxmtp gives its own packages.
 *
 * @since 1.0.0
 * @category policies
 */
export const maximumLifetime = (seconds: bigint = StrictPolicy.MAX_LIFETIME_SECONDS): Policy =>
  strict("maximumLifetime", { maximumLifetime: seconds })

/**
 * The leaf lists what it uses: version, ciphersuite, credential type, extensions (RFC 9420 section 7.2).
 *
 * @since 1.0.0
 * @category policies
 */
export const capabilityClosure: Policy = strict("capabilityClosure", { consistentCapabilities: true })

/**
 * The package is marked for more than one use, as every package of XMTP is served.
 *
 * @since 1.0.0
 * @category policies
 */
export const lastResort: Policy = strict("lastResort", { lastResort: true })

/** Any private key: every multiple of the cofactor times a point of small order is zero. */
const PROBE = Redacted.make(new Uint8Array(32).fill(0x55))
const X25519_BYTES = 32

/**
 * The keys that secrets are to be encrypted to are keys: X25519 of 32 bytes and not of small order, X-Wing of 1216 bytes whose
 * X25519 half (its last 32) is such a key.
 *
 * @since 1.0.0
 * @category policies
 */
export const kemKeyForm: Policy = {
  name: "kemKeyForm",
  check: ({ decoded }, welcomeTarget) =>
    Effect.map(MlsCrypto, (crypto) => {
      const flawOf = (name: string, key: Uint8Array): ReadonlyArray<string> =>
        key.length !== X25519_BYTES
          ? [`${name}: ${key.length} bytes`]
          : Option.isNone(crypto.x25519(PROBE, key))
            ? [`${name}: small order`]
            : []
      const wrapping = welcomeTarget.publicKey
      const flaws = [
        ...flawOf("init_key", decoded.initKey),
        ...flawOf("encryption_key", decoded.leafNode.encryptionKey),
        ...(welcomeTarget.algorithm === "Curve25519"
          ? wrapping === decoded.initKey
            ? []
            : flawOf("Welcome key", wrapping)
          : wrapping.length !== PUBLIC_KEY_BYTES
            ? [`X-Wing key: ${wrapping.length} bytes`]
            : flawOf("X-Wing key's X25519 half", wrapping.subarray(PUBLIC_KEY_BYTES - X25519_BYTES)))
      ]
      return flaws.length === 0 ? Option.none() : Option.some(flaws.join(", "))
    })
}

/**
 * All of them.
 *
 * @since 1.0.0
 * @category policies
 */
export const all: ReadonlyArray<Policy> = [maximumLifetime(), capabilityClosure, kemKeyForm, lastResort]
