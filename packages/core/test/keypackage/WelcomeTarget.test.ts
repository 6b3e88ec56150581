import { describe, expect, it } from "@effect/vitest"
import { directedAt, directedKeyPackages, sessionKeyPackages } from "@keyward/test-utils/vectors/KeyPackageVectors"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { welcomeTarget } from "../../src/keypackage/WelcomeTarget.ts"
import { baseline, hex, sign, toHex, validate } from "./fixtures.ts"

const targetOf = (extensions: ReadonlyArray<readonly [number, string]>) =>
  validate(sign({ ...baseline, extensions: extensions.map(([type, data]) => ({ type, data: hex(data) })) })).pipe(
    Effect.map(welcomeTarget),
    Effect.runSync
  )

describe("welcomeTarget", () => {
  it.effect("of the native client's packages is X-Wing with their key, and Welcome pointers", () =>
    Effect.gen(function* () {
      for (const vector of sessionKeyPackages) {
        const target = Either.getOrThrow(welcomeTarget(yield* validate(hex(vector.bytes), vector.unixMs)))
        expect(target).toMatchObject({ algorithm: "XWing", acceptsWelcomePointers: true })
        expect(target.publicKey).toHaveLength(1216)
        expect(vector.bytes).toContain(toHex(target.publicKey))
      }
    })
  )

  it("without an extension is the init key, without pointers", () => {
    expect(targetOf([])).toEqual(
      Either.right({ algorithm: "Curve25519", publicKey: baseline.initKey, acceptsWelcomePointers: false })
    )
  })

  it("takes every algorithm but 2 and 3 for Curve25519, with the extension's key", () => {
    const curve = (publicKey: string) =>
      Either.right({ algorithm: "Curve25519", publicKey: hex(publicKey), acceptsWelcomePointers: false })
    expect(targetOf([[0xff03, "0a01aa1001"]])).toEqual(curve("aa"))
    expect(targetOf([[0xff03, "0a01aa1000"]])).toEqual(curve("aa"))
    expect(targetOf([[0xff03, "0a01aa"]])).toEqual(curve("aa"))
    expect(targetOf([[0xff03, "0a01aa1009"]])).toEqual(curve("aa"))
    expect(targetOf([[0xff03, ""]])).toEqual(curve(""))
    // -1, in ten bytes; and 2^32 + 2, of which 32 bits count
    expect(targetOf([[0xff03, "10ffffffffffffffffff01"]])).toEqual(curve(""))
    expect(targetOf([[0xff03, "0a01aa108280808010"]])).toMatchObject({ right: { algorithm: "XWing" } })
  })

  it("[42] takes a key of any length, and the last of two", () => {
    expect(targetOf([[0xff03, "0a01aa0a02bbcc1002"]])).toMatchObject({
      right: { algorithm: "XWing", publicKey: hex("bbcc") }
    })
  })

  it("refuses what libxmtp cannot use, and the package stays valid", () => {
    const refused = (type: number, data: string) => Either.getOrThrow(Either.flip(targetOf([[type, data]])))
    expect(refused(0xff03, "0a01aa1003")).toMatchObject({ reason: "SymmetricKeyAlgorithm", extensionType: 0xff03 })
    expect(refused(0xff03, "0a02aa")).toMatchObject({ reason: "Malformed", extensionType: 0xff03 })
    expect(refused(0xff03, "0802")).toMatchObject({ reason: "Malformed" })
    expect(refused(0xff04, "0a0101")).toMatchObject({ reason: "UnknownAeadType", extensionType: 0xff04 })
    expect(refused(0xff04, "0800")).toMatchObject({ reason: "UnknownAeadType" })
    expect(refused(0xff04, "0a02")).toMatchObject({ reason: "Malformed" })
    expect(refused(0xff04, "0a0183")).toMatchObject({ reason: "Malformed" })
  })

  it("reads pointer ciphers packed, unpacked, several and none", () => {
    const accepts = (data: string) => Either.getOrThrow(targetOf([[0xff04, data]])).acceptsWelcomePointers
    expect(accepts("0a0103")).toBe(true)
    expect(accepts("0803")).toBe(true)
    expect(accepts("0a020303")).toBe(true)
    expect(accepts("")).toBe(false)
    expect(accepts("0a00")).toBe(false)
  })

  it.effect("of the directed packages with other wrappers", () =>
    Effect.gen(function* () {
      const found: Record<string, string> = {}
      for (const vector of directedKeyPackages.filter(({ name }) => name.startsWith("wrapper"))) {
        const target = welcomeTarget(yield* validate(hex(vector.bytes), directedAt))
        found[vector.name] = Either.isRight(target) ? target.right.algorithm : target.left.reason
      }
      expect(found).toEqual({
        "wrapper alg 0": "Curve25519",
        "wrapper alg 3": "SymmetricKeyAlgorithm",
        "wrapper alg 9": "Curve25519"
      })
    })
  )
})
