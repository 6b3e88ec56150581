import { inspect } from "node:util"
import { describe, expect, it } from "@effect/vitest"
import {
  directedAt,
  directedKeyPackages,
  rfc9420At,
  rfc9420KeyPackages,
  sessionKeyPackages
} from "@keyward/test-utils/vectors/KeyPackageVectors"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { KEY_PACKAGE_TBS, LEAF_NODE_TBS, withLabel } from "../../src/crypto/Labels.ts"
import * as NodeMlsCrypto from "../../src/crypto/NodeMlsCrypto.ts"
import * as Codec from "../../src/keypackage/Codec.ts"
import type { KeyPackage } from "../../src/keypackage/KeyPackage.ts"
import {
  isValidatedKeyPackage,
  type ValidatedKeyPackage,
  validateKeyPackage,
  validateKeyPackages,
  validateLifetime
} from "../../src/keypackage/Validation.ts"
import { at, baseline, crypto, hex, NOW, sign, toHex, validate } from "./fixtures.ts"

const verdict = (bytes: Uint8Array, now?: number): string => {
  const result = Effect.runSync(Effect.either(validate(bytes, now)))
  return Either.isRight(result) ? "ok" : result.left._tag
}

/** What libxmtp's error text says, in our words. */
const classOf = (libxmtp: string): string => {
  const said: ReadonlyArray<readonly [RegExp, string]> = [
    [/^ok$/, "ok"],
    [/^TLS Codec error/, "KeyPackageDecodeError"],
    [/Invalid LeafNode source type/, "InvalidLeafNodeSourceType"],
    [/leaf node signature is not valid/, "InvalidLeafNodeSignature"],
    [/protocol version is not valid/, "InvalidProtocolVersion"],
    [/init key and the encryption key are equal/, "InitKeyEqualsEncryptionKey"],
    [/not allowed in key packages/, "ExtensionTypeNotValidInKeyPackage"],
    [/key package signature is not valid/, "InvalidKeyPackageSignature"],
    [/not supported in the leaf's capabilities/, "UnsupportedExtension"],
    [/Lifetime is expired/, "KeyPackageExpired"],
    [/Lifetime is in the future/, "KeyPackageNotYetValid"],
    [/wrong credential type/, "WrongCredentialType"],
    [/^decoding proto/, "InvalidMlsCredential"]
  ]
  const match = said.find(([pattern]) => pattern.test(libxmtp))
  if (match === undefined) throw new Error(`unknown verdict: ${libxmtp}`)
  return match[1]
}

describe("libxmtp's verdicts", () => {
  /** Where another verdict is meant: libxmtp accepts, this code refuses. */
  const refusedOnPurpose: Record<string, string> = {
    // Any Ed25519 suite passes libxmtp's validation, but every XMTP group is of suite 3.
    "suite 1": "UnsupportedCiphersuite",
    // OpenMLS drops the bytes inside the extension and checks the signature over what is left; later versions refuse.
    "last_resort payload, signed over canonical": "KeyPackageDecodeError"
  }
  /** Where both refuse, for another reason. */
  const otherReason: Record<string, string> = {
    // The suite is checked before the signature, which is of another kind.
    "suite 2": "UnsupportedCiphersuite",
    // A forbidden extension is refused for its type; nobody reads what is in it.
    "kp ext immutable metadata junk": "ExtensionTypeNotValidInKeyPackage"
  }

  /** A verdict about time says which second it was given in. */
  const judgedAt = (libxmtp: string): number => {
    const second = /now=(\d+)/.exec(libxmtp)?.[1]
    return second === undefined ? directedAt : Number(second) * 1000
  }

  it.each(directedKeyPackages.map((vector) => [vector.name, vector] as const))("%s", (name, vector) => {
    expect(verdict(hex(vector.bytes), judgedAt(vector.libxmtp))).toBe(
      refusedOnPurpose[name] ?? otherReason[name] ?? classOf(vector.libxmtp)
    )
  })

  it("names every exception, and no exception needlessly", () => {
    const differing = directedKeyPackages.filter((vector) => {
      const ours = verdict(hex(vector.bytes), judgedAt(vector.libxmtp))
      return (ours === "ok") !== (vector.libxmtp === "ok")
    })
    expect(differing.map((vector) => vector.name).sort()).toEqual(Object.keys(refusedOnPurpose).sort())
  })
})

describe("the working group's packages", () => {
  it("suite 3: both signatures of all 100 are valid, and only the credential is not XMTP's", () => {
    for (const text of rfc9420KeyPackages.suite3) {
      const decoded = Either.getOrThrow(Codec.decode(hex(text)))
      const { signatureKey, signature } = decoded.leafNode
      const leaf = withLabel(LEAF_NODE_TBS, decoded.leafNodeToBeSigned)
      expect(crypto.ed25519VerifyStrict(signatureKey, leaf, signature)).toBe(true)
      const content = withLabel(KEY_PACKAGE_TBS, decoded.toBeSigned)
      expect(crypto.ed25519VerifyStrict(signatureKey, content, decoded.signature)).toBe(true)
      expect(["ok", "InvalidMlsCredential", "WrongCredentialType"]).toContain(verdict(decoded.bytes, rfc9420At))
      expect(verdict(decoded.bytes, NOW)).toBe("KeyPackageExpired")
    }
  })

  it("suites 1 and 2 are of another suite", () => {
    for (const text of [...rfc9420KeyPackages.suite1, ...rfc9420KeyPackages.suite2]) {
      expect(verdict(hex(text), rfc9420At)).toBe("UnsupportedCiphersuite")
    }
  })
})

describe("the lifetime", () => {
  const second = NOW / 1000
  const living = (notBefore: number, notAfter: number): Uint8Array =>
    sign({
      ...baseline,
      leafNode: {
        ...baseline.leafNode,
        source: { _tag: "KeyPackage", notBefore: BigInt(notBefore), notAfter: BigInt(notAfter) }
      }
    })

  it("[21] ends exactly at not_after and begins exactly at not_before", () => {
    expect(verdict(living(second - 10, second))).toBe("KeyPackageExpired")
    expect(verdict(living(second - 10, second + 1))).toBe("ok")
    expect(verdict(living(second, second + 10))).toBe("ok")
    expect(verdict(living(second + 1, second + 10))).toBe("KeyPackageNotYetValid")
    // Parts of a second do not count.
    expect(verdict(living(second - 10, second + 1), NOW + 999)).toBe("ok")
    expect(verdict(living(second - 10, second + 1), NOW + 1000)).toBe("KeyPackageExpired")
    expect(verdict(living(second + 1, second + 10), NOW + 999)).toBe("KeyPackageNotYetValid")
  })

  it("[36] may be all of time", () => {
    const bytes = sign({
      ...baseline,
      leafNode: { ...baseline.leafNode, source: { _tag: "KeyPackage", notBefore: 0n, notAfter: 2n ** 64n - 1n } }
    })
    expect(verdict(bytes)).toBe("ok")
    expect(Effect.runSync(validate(bytes)).lifetime.notAfter).toBe(2n ** 64n - 1n)
  })

  it.effect("[51] is checked again when the package is used", () =>
    Effect.gen(function* () {
      const validated = yield* validate(living(second - 10, second + 10))
      yield* validateLifetime(validated, at(NOW + 9_000))
      const later = yield* Effect.flip(validateLifetime(validated, at(NOW + 10_000)))
      expect(later).toMatchObject({
        _tag: "KeyPackageExpired",
        notAfter: BigInt(second + 10),
        now: BigInt(second + 10)
      })
      const earlier = yield* Effect.flip(validateLifetime(validated, at(NOW - 11_000)))
      expect(earlier._tag).toBe("KeyPackageNotYetValid")
    })
  )
})

describe("hostile bytes", () => {
  const real = hex(sessionKeyPackages[0]?.bytes ?? "")
  const realAt = sessionKeyPackages[0]?.unixMs ?? 0
  const classic = sign(baseline)

  it("starts from packages that are valid", () => {
    expect(verdict(real, realAt)).toBe("ok")
    expect(verdict(classic)).toBe("ok")
  })

  it("[45] every truncation is a decoding error inside the bytes", () => {
    for (const bytes of [real, classic]) {
      for (let length = 0; length < bytes.length; length++) {
        const result = Codec.decode(bytes.subarray(0, length))
        if (Either.isRight(result)) return expect.fail(`${length} bytes are a package`)
        expect(result.left.offset).toBeGreaterThanOrEqual(0)
        expect(result.left.offset).toBeLessThanOrEqual(length)
      }
    }
  })

  /** The verdicts on a package with each of its bits flipped in turn. */
  const verdictsOfFlips = (bytes: Uint8Array, now: number): ReadonlySet<string> => {
    expect(verdict(bytes, now)).toBe("ok")
    const tags = new Set<string>()
    for (let bit = 0; bit < bytes.length * 8; bit++) {
      const flipped = bytes.slice()
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      const tag = verdict(flipped, now)
      if (tag === "ok") expect.fail(`bit ${bit} does not matter`)
      tags.add(tag)
    }
    return tags
  }

  it.each([
    ["made here, classical", classic, NOW],
    ["of the native client, post-quantum", real, realAt]
  ] as const)("[47] every flipped bit of a package %s is refused with a typed error", (_, bytes, now) => {
    const tags = verdictsOfFlips(bytes, now)
    // The flips reach different checks; a decoder that refused everything would not.
    for (const tag of [
      "KeyPackageDecodeError",
      "UnsupportedCiphersuite",
      "InvalidLeafNodeSignature",
      "InvalidKeyPackageSignature"
    ]) {
      expect(tags).toContain(tag)
    }
  })

  it("[47] every flipped bit of a post-quantum package decodes to a value or a typed error, and re-encodes alike", () => {
    for (let bit = 0; bit < real.length * 8; bit++) {
      const flipped = real.slice()
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      const result = Codec.decode(flipped)
      if (Either.isRight(result) && toHex(Codec.encode(result.right)) !== toHex(flipped)) {
        return expect.fail(`bit ${bit}: a second form of a package is accepted`)
      }
    }
  })

  it("[39] a signature of another package does not fit", () => {
    const other = sign({ ...baseline, initKey: new Uint8Array(32).fill(9) })
    const mixed = classic.slice()
    mixed.set(other.subarray(other.length - 64), classic.length - 64)
    expect(verdict(mixed)).toBe("InvalidKeyPackageSignature")
  })

  it("[40] the init key must not be the leaf's", () => {
    expect(verdict(sign({ ...baseline, initKey: baseline.leafNode.encryptionKey }))).toBe("InitKeyEqualsEncryptionKey")
  })

  it("[43] unknown and GREASE numbers are accepted in capabilities and leaf extensions", () => {
    const { capabilities } = baseline.leafNode
    const some = [0x0a0a, 0x1234, 0xeaea]
    const bytes = sign({
      ...baseline,
      leafNode: {
        ...baseline.leafNode,
        capabilities: {
          versions: [...capabilities.versions, ...some],
          cipherSuites: [...capabilities.cipherSuites, ...some],
          extensions: [...capabilities.extensions, ...some],
          proposals: [...capabilities.proposals, ...some],
          credentials: [...capabilities.credentials, ...some]
        },
        extensions: [
          ...baseline.leafNode.extensions,
          { type: 0x0a0a, data: hex("00") },
          { type: 0x1234, data: hex("") }
        ]
      },
      extensions: [...baseline.extensions, { type: 0x1234, data: hex("ff") }]
    })
    expect(verdict(bytes)).toBe("ok")
  })

  it("says where an extension is that does not belong", () => {
    const bytes = sign({ ...baseline, extensions: [...baseline.extensions, { type: 0xff05, data: hex("0102") }] })
    const result = Effect.runSync(Effect.flip(validate(bytes)))
    expect(result).toMatchObject({ _tag: "UnsupportedExtension", extensionType: 0xff05, field: "extensions" })
    if (result._tag !== "UnsupportedExtension") return expect.fail()
    expect(toHex(bytes.subarray(result.offset, result.offset + 5))).toBe("ff05020102")
  })

  it("[46] judges a package with tens of thousands of signed extensions and capabilities without choking", () => {
    const types = Array.from({ length: 60_000 }, (_, index) => index + 0x0010).filter(
      (type) => type !== 0xf000 && (type & 0x0f0f) !== 0x0a0a
    )
    const bytes = sign({
      ...baseline,
      leafNode: { ...baseline.leafNode, capabilities: { ...baseline.leafNode.capabilities, extensions: types } },
      extensions: types.map((type) => ({ type, data: new Uint8Array(0) }))
    })
    expect(verdict(bytes)).toBe("ok")
  })
})

describe("ValidatedKeyPackage", () => {
  it.effect("cannot be made by hand, nor changed through the bytes it came from", () =>
    Effect.gen(function* () {
      const bytes = sign(baseline)
      const validated = yield* validate(bytes)
      const ref = validated.ref
      bytes.fill(0)
      expect(Codec.encode(validated.decoded)).toEqual(sign(baseline))
      expect(validated.ref).toBe(ref)
      expect(isValidatedKeyPackage(validated)).toBe(true)
      expect(isValidatedKeyPackage({ ...validated })).toBe(false)
      // @ts-expect-error a look-alike is not a validated package
      const fake: ValidatedKeyPackage = { ...validated }
      expect(isValidatedKeyPackage(fake)).toBe(false)
    })
  )

  it.effect("accepts a Buffer like any bytes", () =>
    Effect.gen(function* () {
      const pooled = Buffer.concat([Buffer.from("xx"), sign(baseline)]).subarray(2)
      const validated = yield* validateKeyPackage(pooled, at(NOW)).pipe(Effect.provide(NodeMlsCrypto.layer))
      expect(validated.decoded.initKey).toEqual(baseline.initKey)
    })
  )
})

describe("errors", () => {
  it("[78] carry no key bytes", () => {
    for (const vector of directedKeyPackages) {
      const result = Effect.runSync(Effect.either(validate(hex(vector.bytes), directedAt)))
      if (Either.isRight(result)) continue
      const error = result.left
      const text = `${error.message} ${inspect(error, { depth: null })}`
      expect(text).not.toMatch(/[0-9a-f]{32}/)
      expect(error.message.length).toBeGreaterThan(10)
    }
  })
})

describe("random edits of the profile", () => {
  const bytes = (max: number) => FastCheck.uint8Array({ maxLength: max })
  const number16 = FastCheck.oneof(FastCheck.integer({ min: 0, max: 0xffff }), FastCheck.constantFrom(1, 2, 3, 0x0a0a))
  const extension = FastCheck.record({
    type: FastCheck.oneof(number16, FastCheck.constantFrom(6, 10, 0xf000, 0xff03, 0xff04)),
    data: bytes(80)
  })
  const edit: FastCheck.Arbitrary<KeyPackage> = FastCheck.record(
    {
      version: number16,
      cipherSuite: FastCheck.constantFrom(1, 3, 0x4d, 9),
      initKey: bytes(70),
      encryptionKey: bytes(70),
      capabilities: FastCheck.array(number16, { maxLength: 40 }),
      identity: bytes(70),
      credentialType: number16,
      notBefore: FastCheck.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
      leafExtensions: FastCheck.array(extension, { maxLength: 3 }),
      extensions: FastCheck.array(extension, { maxLength: 3 })
    },
    { requiredKeys: [] }
  ).map((edits) => ({
    ...baseline,
    version: edits.version ?? baseline.version,
    cipherSuite: edits.cipherSuite ?? baseline.cipherSuite,
    initKey: edits.initKey ?? baseline.initKey,
    leafNode: {
      ...baseline.leafNode,
      encryptionKey: edits.encryptionKey ?? baseline.leafNode.encryptionKey,
      credential: {
        type: edits.credentialType ?? 1,
        content: edits.identity ?? baseline.leafNode.credential.content
      },
      capabilities: {
        ...baseline.leafNode.capabilities,
        extensions: edits.capabilities ?? baseline.leafNode.capabilities.extensions
      },
      source: {
        _tag: "KeyPackage",
        notBefore: edits.notBefore ?? BigInt(NOW / 1000 - 3600),
        notAfter: BigInt(NOW / 1000 + 3600)
      },
      extensions: edits.leafExtensions ?? baseline.leafNode.extensions
    },
    extensions: edits.extensions ?? baseline.extensions
  }))

  it("are valid exactly when a plain reading of the rules says so", () => {
    FastCheck.assert(
      FastCheck.property(edit, (keyPackage) => {
        const ours = verdict(sign(keyPackage))
        const { leafNode } = keyPackage
        const known = new Set([1, 2, 3, 4, 5])
        const grease = (type: number) => /^([0-9a-e])a\1a$/.test(type.toString(16).padStart(4, "0"))
        const types = keyPackage.extensions.map(({ type }) => type)
        const acceptable =
          keyPackage.cipherSuite === 3 &&
          keyPackage.version === 1 &&
          toHex(keyPackage.initKey) !== toHex(leafNode.encryptionKey) &&
          types.every((type) => !known.has(type) && type !== 0xf000 && !grease(type)) &&
          types.every((type) => leafNode.capabilities.extensions.includes(type)) &&
          leafNode.source._tag === "KeyPackage" &&
          leafNode.source.notBefore <= BigInt(NOW / 1000) &&
          leafNode.credential.type === 1
        // What the rules say about contents is left to decoding; everything else must agree.
        if (ours === "ok") expect(acceptable).toBe(true)
        else if (ours !== "KeyPackageDecodeError" && ours !== "InvalidMlsCredential") expect(acceptable).toBe(false)
      }),
      { seed: 20261123, numRuns: 400 }
    )
  })
})

describe("what has been seen before", () => {
  const own = sign(baseline)
  const other = sign({ ...baseline, initKey: new Uint8Array(32).fill(3) })
  const forged = Uint8Array.from(other, (byte, index) => (index === other.length - 1 ? byte ^ 1 : byte))

  /** Verdicts on packages where `seen` answers with this one whatever it is asked for. */
  const judged = (packages: ReadonlyArray<Uint8Array>, seen: ValidatedKeyPackage, now = NOW) =>
    validateKeyPackages(packages, at(now), () => seen).pipe(
      Effect.map((results) => results.map(Either.match({ onLeft: ({ _tag }) => _tag, onRight: ({ ref }) => ref }))),
      Effect.provide(NodeMlsCrypto.layer)
    )

  it.effect("is believed of the same bytes only: never of a package with another ref", () =>
    Effect.gen(function* () {
      const seen = yield* validate(own)
      const { ref } = yield* validate(other)
      expect(yield* judged([own, other, forged], seen)).toEqual([seen.ref, ref, "InvalidKeyPackageSignature"])
    })
  )

  it.effect("is held against the time again", () =>
    Effect.gen(function* () {
      const seen = yield* validate(own)
      expect(yield* judged([own], seen, NOW + 7_257_600_000)).toEqual(["KeyPackageExpired"])
    })
  )
})
