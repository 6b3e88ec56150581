import { inspect } from "node:util"
import { describe, expect, it } from "@effect/vitest"
import { sessionKeyPackages } from "@keyward/test-utils/vectors/KeyPackageVectors"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/TestClock"
import { InboxId } from "../../src/identity/InboxId.ts"
import * as InstallationId from "../../src/identity/InstallationId.ts"
import { assemble } from "../../src/internal/keyPackageAssembly.ts"
import * as Codec from "../../src/keypackage/Codec.ts"
import { newKeyPackage } from "../../src/keypackage/Generation.ts"
import { findExtension } from "../../src/keypackage/KeyPackage.ts"
import * as KeyPackageRef from "../../src/keypackage/KeyPackageRef.ts"
import { Lifetime } from "../../src/keypackage/Lifetime.ts"
import { ExtensionType } from "../../src/keypackage/Profile.ts"
import { welcomeTarget } from "../../src/keypackage/WelcomeTarget.ts"
import { MlsCrypto } from "../../src/ports/MlsCrypto.ts"
import { crypto, hex, inboxId, installationKey, layer, NOW, toHex, validate } from "./fixtures.ts"

describe("packages of the native client", () => {
  it("are nine", () => expect(sessionKeyPackages).toHaveLength(9))

  it.effect.each(sessionKeyPackages.map((vector, index) => ({ index, vector })))(
    "package $index is rebuilt byte for byte, and so is its ref",
    ({ vector }) =>
      Effect.gen(function* () {
        const real = Either.getOrThrow(Codec.decode(hex(vector.bytes)))
        const { source } = real.leafNode
        if (source._tag !== "KeyPackage") return expect.fail("not made for a key package")
        const wrapper = findExtension(real.extensions, ExtensionType.welcomeWrapperEncryption)
        const rebuilt = yield* Effect.promise(() =>
          assemble(crypto, {
            inboxId: InboxId.make(vector.inboxId),
            installationKey: {
              installationId: InstallationId.InstallationId.make(vector.installationId),
              seed: Redacted.make(hex(vector.installationSeed))
            },
            lifetime: new Lifetime({ notBefore: source.notBefore, notAfter: source.notAfter }),
            initKey: hex(vector.initKey),
            encryptionKey: hex(vector.encryptionKey),
            postQuantumKey: wrapper?.data.subarray(3, 3 + 1216)
          })
        )
        expect(toHex(rebuilt)).toBe(vector.bytes)
        expect(KeyPackageRef.hashWith(crypto, rebuilt)).toBe(vector.ref)
        const validated = yield* validate(rebuilt, vector.unixMs)
        expect(validated.ref).toBe(vector.ref)
        expect(validated.installationId).toBe(vector.installationId)
        expect(validated.inboxId).toBe(vector.inboxId)
      })
  )
})

describe("newKeyPackage", () => {
  const generate = (includePostQuantum: boolean, seed = "generation") =>
    TestClock.setTime(NOW).pipe(
      Effect.zipRight(newKeyPackage({ inboxId, installationKey, includePostQuantum })),
      Effect.provide(layer(seed))
    )

  for (const [name, includePostQuantum, size] of [
    ["classical", false, 437],
    ["post-quantum", true, 1663]
  ] as const) {
    it.effect(`a ${name} package is ${size} bytes, valid, and says what was asked for`, () =>
      Effect.gen(function* () {
        const { keyPackage, privateKeys } = yield* generate(includePostQuantum)
        expect(keyPackage.bytes).toHaveLength(size)
        const validated = yield* validate(keyPackage.bytes)
        expect(validated.ref).toBe(keyPackage.ref)
        expect(validated.installationId).toBe(installationKey.installationId)
        expect(validated.inboxId).toBe(inboxId)
        expect(validated.lifetime).toEqual(keyPackage.lifetime)
        expect(validated.lifetime).toEqual(
          new Lifetime({ notBefore: BigInt(NOW / 1000 - 3600), notAfter: BigInt(NOW / 1000 + 7_257_600) })
        )
        expect(Codec.encode(validated.decoded)).toEqual(keyPackage.bytes)

        // The private keys are those of the public keys in the package.
        expect(validated.decoded.initKey).toEqual(keyPackage.initKey)
        expect(crypto.x25519PublicKey(privateKeys.initKey)).toEqual(keyPackage.initKey)
        expect(crypto.x25519PublicKey(privateKeys.encryptionKey)).toEqual(validated.decoded.leafNode.encryptionKey)
        const target = Either.getOrThrow(welcomeTarget(validated))
        expect(target).toEqual({
          algorithm: includePostQuantum ? "XWing" : "Curve25519",
          publicKey: includePostQuantum ? Option.getOrThrow(keyPackage.postQuantumKey) : keyPackage.initKey,
          acceptsWelcomePointers: true
        })
        expect(Option.isSome(privateKeys.postQuantumKey)).toBe(includePostQuantum)
      })
    )
  }

  it.effect("is determined by entropy and clock, and differs with them", () =>
    Effect.gen(function* () {
      const first = yield* generate(true)
      const again = yield* generate(true)
      const other = yield* generate(true, "another")
      expect(again.keyPackage).toEqual(first.keyPackage)
      expect(other.keyPackage.initKey).not.toEqual(first.keyPackage.initKey)
      expect(other.keyPackage.ref).not.toBe(first.keyPackage.ref)
    })
  )

  it.effect("draws every key anew", () =>
    Effect.gen(function* () {
      const first = yield* newKeyPackage({ inboxId, installationKey, includePostQuantum: true })
      const second = yield* newKeyPackage({ inboxId, installationKey, includePostQuantum: true })
      const secrets = [first, second].flatMap(({ privateKeys }) =>
        [privateKeys.initKey, privateKeys.encryptionKey, Option.getOrThrow(privateKeys.postQuantumKey)].map((key) =>
          toHex(Redacted.value(key))
        )
      )
      expect(new Set(secrets).size).toBe(6)
    }).pipe(Effect.provide(layer("fresh")))
  )

  it.effect("[79] shows no private byte, however it is printed", () =>
    Effect.gen(function* () {
      const generated = yield* generate(true)
      const { privateKeys } = generated
      const text = [
        JSON.stringify(generated, (_, value) => (typeof value === "bigint" ? `${value}` : value)),
        inspect(generated, { depth: null, maxArrayLength: null, showHidden: true }),
        `${Object.values(generated)}`
      ].join("\n")
      for (const key of [
        installationKey.seed,
        privateKeys.initKey,
        privateKeys.encryptionKey,
        Option.getOrThrow(privateKeys.postQuantumKey)
      ]) {
        const bytes = Redacted.value(key)
        for (const spelling of [
          toHex(bytes),
          Buffer.from(bytes).toString("base64"),
          Array.from(bytes).join(","),
          Array.from(bytes).join(", "),
          JSON.stringify({ ...bytes }).slice(1, -1)
        ]) {
          expect(text).not.toContain(spelling)
        }
      }
      expect(text).toContain("<redacted>")
    })
  )

  it.effect("refuses an installation key that is not the installation's", () =>
    Effect.gen(function* () {
      const generated = (seed: Uint8Array) =>
        newKeyPackage({
          inboxId,
          installationKey: { ...installationKey, seed: Redacted.make(seed) },
          includePostQuantum: false
        }).pipe(Effect.flip)
      expect((yield* generated(new Uint8Array(32))).reason).toBe("InstallationKeyMismatch")
      expect((yield* generated(new Uint8Array(31))).reason).toBe("InvalidInstallationKey")
    }).pipe(Effect.provide(layer("mismatch")))
  )

  it.effect("is a typed error when signing fails", () =>
    newKeyPackage({ inboxId, installationKey, includePostQuantum: false }).pipe(
      Effect.provideService(MlsCrypto, {
        ...crypto,
        ed25519Sign: () => {
          throw new Error("no")
        }
      }),
      Effect.provide(layer("failing")),
      Effect.flip,
      Effect.map((error) => expect(error).toMatchObject({ _tag: "KeyPackageGenerationError", reason: "Mls" }))
    )
  )
})
