import { describe, expect, it } from "@effect/vitest"
import { sessionKeyPackages } from "@keyward/test-utils/vectors/KeyPackageVectors"
import * as Effect from "effect/Effect"
import type { Capabilities, KeyPackage } from "../../src/keypackage/KeyPackage.ts"
import { CAPABILITIES } from "../../src/keypackage/Profile.ts"
import { enforce, MAX_LIFETIME_SECONDS, type StrictPolicy } from "../../src/keypackage/StrictPolicy.ts"
import { baseline, hex, NOW, sign, validate } from "./fixtures.ts"

const strictest: StrictPolicy = {
  maximumLifetime: MAX_LIFETIME_SECONDS,
  consistentCapabilities: true,
  lastResort: true
}

const judge = (fields: KeyPackage, policy: StrictPolicy): string =>
  validate(sign(fields)).pipe(
    Effect.flatMap((validated) => enforce(validated, policy)),
    Effect.match({ onFailure: (error) => ("rule" in error ? error.rule : error._tag), onSuccess: () => "ok" }),
    Effect.runSync
  )

const capable = (capabilities: Partial<Capabilities>): KeyPackage => ({
  ...baseline,
  leafNode: { ...baseline.leafNode, capabilities: { ...CAPABILITIES, ...capabilities } }
})

const living = (seconds: bigint): KeyPackage => ({
  ...baseline,
  leafNode: {
    ...baseline.leafNode,
    source: { _tag: "KeyPackage", notBefore: BigInt(NOW / 1000), notAfter: BigInt(NOW / 1000) + seconds }
  }
})

describe("StrictPolicy", () => {
  it.effect("accepts every package of the native client at its strictest", () =>
    Effect.gen(function* () {
      for (const vector of sessionKeyPackages) {
        yield* enforce(yield* validate(hex(vector.bytes), vector.unixMs), strictest)
      }
    })
  )

  it.each([
    ["LifetimeRangeTooLong", living(MAX_LIFETIME_SECONDS + 1n)],
    ["VersionNotInCapabilities", capable({ versions: [2] })],
    ["CiphersuiteNotInCapabilities", capable({ cipherSuites: [1] })],
    ["CredentialNotInCapabilities", capable({ credentials: [] })],
    [
      "UnsupportedLeafExtension",
      { ...baseline, leafNode: { ...baseline.leafNode, extensions: [{ type: 0x1234, data: hex("") }] } }
    ],
    ["MissingLastResort", { ...baseline, extensions: [] }]
  ] as const)("[36] [44] names %s, which is off by default", (rule, fields) => {
    expect(judge(fields, strictest)).toBe(rule)
    expect(judge(fields, {})).toBe("ok")
  })

  it("accepts exactly the longest lifetime", () => {
    expect(judge(living(MAX_LIFETIME_SECONDS), strictest)).toBe("ok")
  })
})
