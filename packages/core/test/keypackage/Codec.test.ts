import { describe, expect, it } from "@effect/vitest"
import { rfc9420KeyPackages, sessionKeyPackages } from "@keyward/test-utils/vectors/KeyPackageVectors"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Mls from "ts-mls"
import * as Codec from "../../src/keypackage/Codec.ts"
import type { DecodedKeyPackage } from "../../src/keypackage/KeyPackage.ts"
import { baseline, hex, sign, toHex } from "./fixtures.ts"

const refusal = (bytes: Uint8Array) => {
  const result = Codec.decode(bytes)
  if (Either.isRight(result)) throw new Error("accepted")
  return { reason: result.left.reason, field: result.left.field, offset: result.left.offset }
}

const everyVector = [
  ...sessionKeyPackages.map(({ bytes }) => bytes),
  ...rfc9420KeyPackages.suite1,
  ...rfc9420KeyPackages.suite2,
  ...rfc9420KeyPackages.suite3
]

describe("real packages", () => {
  it("decode and encode to the same bytes", () => {
    expect(everyVector).toHaveLength(129)
    for (const text of everyVector) {
      expect(toHex(Codec.encode(Either.getOrThrow(Codec.decode(hex(text)))))).toBe(text)
    }
  })

  it("say the same to ts-mls", () => {
    const summary = (decoded: DecodedKeyPackage) => ({
      version: decoded.version,
      cipherSuite: decoded.cipherSuite,
      initKey: toHex(decoded.initKey),
      encryptionKey: toHex(decoded.leafNode.encryptionKey),
      signatureKey: toHex(decoded.leafNode.signatureKey),
      capabilities: Object.values(decoded.leafNode.capabilities),
      source: decoded.leafNode.source,
      leafExtensions: decoded.leafNode.extensions.map(({ data, type }) => [type, toHex(data)]),
      leafSignature: toHex(decoded.leafNode.signature),
      extensions: decoded.extensions.map(({ data, type }) => [type, toHex(data)]),
      signature: toHex(decoded.signature)
    })
    for (const text of everyVector) {
      const bytes = hex(text)
      const theirs = Mls.decode(Mls.keyPackageDecoder, bytes)
      if (theirs === undefined) return expect.fail("ts-mls refuses")
      const { leafNode } = theirs
      const extensions = (list: ReadonlyArray<{ extensionType: number; extensionData: Uint8Array }>) =>
        list.map(({ extensionData, extensionType }) => [extensionType, toHex(extensionData)])
      expect(summary(Either.getOrThrow(Codec.decode(bytes)))).toEqual({
        version: theirs.version,
        cipherSuite: theirs.cipherSuite,
        initKey: toHex(theirs.initKey),
        encryptionKey: toHex(leafNode.hpkePublicKey),
        signatureKey: toHex(leafNode.signaturePublicKey),
        capabilities: [
          leafNode.capabilities.versions,
          leafNode.capabilities.ciphersuites,
          leafNode.capabilities.extensions,
          leafNode.capabilities.proposals,
          leafNode.capabilities.credentials
        ],
        source: {
          _tag: "KeyPackage",
          notBefore: leafNode.lifetime.notBefore,
          notAfter: leafNode.lifetime.notAfter
        },
        leafExtensions: extensions(leafNode.extensions),
        leafSignature: toHex(leafNode.signature),
        extensions: extensions(theirs.extensions),
        signature: toHex(theirs.signature)
      })
    }
  })

  it("every field is a view on the bytes", () => {
    const bytes = sign(baseline)
    const decoded = Either.getOrThrow(Codec.decode(bytes))
    for (const view of [decoded.initKey, decoded.leafNode.signature, decoded.toBeSigned, decoded.extensions[0]?.data]) {
      expect(view?.buffer).toBe(bytes.buffer)
    }
  })
})

describe("refusals", () => {
  const bytes = sign(baseline)
  const withInit = (init: string) => hex(`00010003${init}`)

  it("name the field and the place", () => {
    expect(refusal(hex(""))).toEqual({ reason: "EndOfStream", field: "version", offset: 0 })
    expect(refusal(hex("0001"))).toEqual({ reason: "EndOfStream", field: "cipher_suite", offset: 2 })
    expect(refusal(hex("00010009"))).toEqual({ reason: "UnknownCiphersuite", field: "cipher_suite", offset: 2 })
    expect(refusal(hex(`${toHex(bytes)}00`))).toEqual({
      reason: "TrailingData",
      field: "key_package",
      offset: bytes.length
    })
  })

  it("[46] of a length that is longer than it need be, or of eight bytes", () => {
    for (const prefix of ["4020", "80000020", "80003fff", "c000000000000020"]) {
      expect(refusal(withInit(`${prefix}${"00".repeat(40)}`))).toEqual({
        reason: "InvalidVectorLength",
        field: "init_key",
        offset: 4
      })
    }
  })

  it("[46] of a length of 2^30 - 1, without making room for it", () => {
    expect(refusal(withInit("bfffffff"))).toEqual({ reason: "EndOfStream", field: "init_key", offset: 4 })
  })

  it("[46] of more than 1 MiB, whatever is in it", () => {
    expect(refusal(new Uint8Array(1024 * 1024 + 1))).toEqual({ reason: "TooLarge", field: "key_package", offset: 0 })
    expect(refusal(new Uint8Array(1024 * 1024)).reason).not.toBe("TooLarge")
    expect(refusal(new Uint8Array(16 * 1024 * 1024)).reason).toBe("TooLarge")
  })

  it("[46] of 100,000 extensions, which cannot all be different", () => {
    const extensions = Array.from({ length: 100_000 }, (_, index) => ({
      type: 0x0010 + (index % 0xefe0),
      data: new Uint8Array(0)
    }))
    expect(refusal(Codec.encode({ ...baseline, extensions }))).toMatchObject({
      reason: "DuplicateExtension",
      field: "extensions"
    })
  })

  it("[42] of an extension that occurs twice, in a leaf and in a package", () => {
    const twice = [
      { type: 0x1234, data: hex("01") },
      { type: 0x1234, data: hex("02") }
    ]
    expect(refusal(Codec.encode({ ...baseline, extensions: twice }))).toMatchObject({
      reason: "DuplicateExtension",
      field: "extensions"
    })
    expect(refusal(Codec.encode({ ...baseline, leafNode: { ...baseline.leafNode, extensions: twice } }))).toMatchObject(
      { reason: "DuplicateExtension", field: "leaf_node.extensions" }
    )
  })

  it("of a leaf extension that belongs elsewhere", () => {
    for (const type of [2, 3, 4, 5, 0x000a, 0xf000]) {
      const leafNode = { ...baseline.leafNode, extensions: [{ type, data: hex("") }] }
      expect(refusal(Codec.encode({ ...baseline, leafNode }))).toMatchObject({
        reason: "ExtensionTypeNotValidInLeafNode",
        field: "leaf_node.extensions"
      })
    }
  })

  it("of content that does not fill a known extension", () => {
    const inPackage = (type: number, data: string) =>
      Codec.decode(Codec.encode({ ...baseline, extensions: [{ type, data: hex(data) }] }))
    const reason = (type: number, data: string) => Either.flip(inPackage(type, data)).pipe(Either.getOrThrow).reason
    // last resort: nothing
    expect(Either.isRight(inPackage(10, ""))).toBe(true)
    expect(reason(10, "00")).toBe("TrailingData")
    // app data dictionary: components by increasing id
    expect(Either.isRight(inPackage(6, "00"))).toBe(true)
    expect(Either.isRight(inPackage(6, "08000101aa000201bb"))).toBe(true)
    expect(reason(6, "08000201aa000101bb")).toBe("ComponentsNotInOrder")
    expect(reason(6, "08000101aa000101bb")).toBe("ComponentsNotInOrder")
    expect(reason(6, "")).toBe("EndOfStream")
    expect(reason(6, "0000")).toBe("TrailingData")
    expect(reason(6, "04000102aa")).toBe("EndOfStream")
    // application id: one vector
    expect(reason(1, "03aabb")).toBe("EndOfStream")
    expect(reason(1, "01aabb")).toBe("TrailingData")
    expect(reason(1, "4001aa")).toBe("InvalidVectorLength")
  })
})

describe("properties", () => {
  it("whatever decodes has exactly one form", () => {
    const base = hex(sessionKeyPackages[0]?.bytes ?? "")
    let accepted = 0
    FastCheck.assert(
      FastCheck.property(
        FastCheck.array(
          FastCheck.record({
            at: FastCheck.nat(base.length),
            remove: FastCheck.nat(3),
            insert: FastCheck.uint8Array({ maxLength: 3 })
          }),
          { minLength: 1, maxLength: 3 }
        ),
        (edits) => {
          let bytes = base
          for (const { at, insert, remove } of edits) {
            bytes = new Uint8Array([...bytes.subarray(0, at), ...insert, ...bytes.subarray(at + remove)])
          }
          const result = Codec.decode(bytes)
          if (Either.isRight(result)) {
            accepted++
            expect(toHex(Codec.encode(result.right))).toBe(toHex(bytes))
          }
        }
      ),
      { seed: 9420, numRuns: 2000 }
    )
    expect(accepted).toBeGreaterThan(20)
  })

  it("random bytes never do more than be refused", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.uint8Array({ maxLength: 600 }), (bytes) => {
        Codec.decode(bytes)
        Codec.decode(new Uint8Array([0, 1, 0, 3, ...bytes]))
      }),
      { seed: 13, numRuns: 2000 }
    )
  })
})
