/** The same bytes are verified once, and their lifetime every time. */
import { describe, expect, it } from "@effect/vitest"
import * as NodeMlsCrypto from "@keyward/core/crypto/NodeMlsCrypto"
import * as InboxId from "@keyward/core/identity/InboxId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import { newKeyPackage } from "@keyward/core/keypackage/Generation"
import * as KeyPackageRef from "@keyward/core/keypackage/KeyPackageRef"
import { ExtensionType } from "@keyward/core/keypackage/Profile"
import * as ValidPackages from "@keyward/core/peers/ValidPackages"
import { MlsCrypto } from "@keyward/core/ports/MlsCrypto"
import * as XWing from "@keyward/core/postquantum/XWing"
import * as SeededEntropy from "@keyward/test-utils/SeededEntropy"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import * as Fixtures from "../keypackage/fixtures.ts"

const START = DateTime.unsafeMake("2026-11-23T12:00:00Z")

const layer = (capacity?: number) =>
  Layer.mergeAll(
    ValidPackages.layerMemory({ capacity }),
    NodeMlsCrypto.layer,
    XWing.layer,
    SeededEntropy.layer("valid packages")
  )

const packages = (count: number) =>
  Effect.gen(function* () {
    yield* TestClock.setTime(DateTime.toEpochMillis(START))
    const installationKey = yield* InstallationKey.generate
    const inboxId = InboxId.InboxId.make("5f".repeat(32))
    return yield* Effect.replicateEffect(
      Effect.map(
        newKeyPackage({ inboxId, installationKey, includePostQuantum: false }),
        ({ keyPackage }) => keyPackage.bytes
      ),
      count
    )
  })

/** Validates, and counts the signatures that were verified for it. */
const validate = (batch: ReadonlyArray<Uint8Array>, now = START) =>
  Effect.gen(function* () {
    let verified = 0
    const validPackages = yield* ValidPackages.ValidPackages
    const results = yield* Effect.updateService(validPackages.validate(batch, now), MlsCrypto, (crypto) => ({
      ...crypto,
      ed25519VerifyStrictAll: (signatures: Parameters<typeof crypto.ed25519VerifyStrictAll>[0]) => {
        verified += signatures.length
        return crypto.ed25519VerifyStrictAll(signatures)
      }
    }))
    return { results, verified }
  })

describe("ValidPackages", () => {
  it.effect("verifies the same bytes once, and keeps every result in its place", () =>
    Effect.gen(function* () {
      const [a, b, c] = yield* packages(3)
      if (a === undefined || b === undefined || c === undefined) return expect.fail("no packages")
      expect((yield* validate([a, b])).verified).toBe(4)
      const forged = Uint8Array.from(c)
      forged[forged.length - 1] = (forged[forged.length - 1] ?? 0) ^ 1
      const again = yield* validate([b, forged, c, a])
      expect(again.verified).toBe(4)
      expect(again.results.map(Either.isRight)).toEqual([true, false, true, true])
      expect(again.results.map((result) => Either.getOrUndefined(result)?.ref)).toEqual([
        yield* KeyPackageRef.hash(b),
        undefined,
        yield* KeyPackageRef.hash(c),
        yield* KeyPackageRef.hash(a)
      ])
    }).pipe(Effect.provide(layer()))
  )

  it.effect("never remembers a package that failed", () =>
    Effect.gen(function* () {
      const [a] = yield* packages(1)
      if (a === undefined) return expect.fail("no package")
      const early = DateTime.subtract(START, { hours: 2 })
      expect((yield* validate([a], early)).results.map(Either.isLeft)).toEqual([true])
      expect((yield* validate([a])).results.map(Either.isRight)).toEqual([true])
    }).pipe(Effect.provide(layer()))
  )

  it.effect("[37] a package that was valid is judged by its lifetime each time", () =>
    Effect.gen(function* () {
      const [a] = yield* packages(1)
      if (a === undefined) return expect.fail("no package")
      yield* validate([a])
      const { results, verified } = yield* validate([a], DateTime.add(START, { days: 85 }))
      expect(verified).toBe(0)
      expect(results).toMatchObject([{ _tag: "Left", left: { _tag: "KeyPackageExpired" } }])
    }).pipe(Effect.provide(layer()))
  )

  it.effect("remembers packages up to 16 KiB, and none above", () =>
    Effect.gen(function* () {
      // An application id may have any length; its own is written in two bytes here (RFC 9420 section 2.1.2).
      const withApplicationId = (length: number) => {
        const { leafNode } = Fixtures.baseline
        const data = Uint8Array.of(0x40 | (length >> 8), length & 0xff, ...new Uint8Array(length))
        const extensions = [{ type: ExtensionType.applicationId, data }]
        return Fixtures.sign({ ...Fixtures.baseline, leafNode: { ...leafNode, extensions } })
      }
      const rest = withApplicationId(10_000).length - 10_000
      const largest = withApplicationId(16 * 1024 - rest)
      const tooLarge = withApplicationId(16 * 1024 - rest + 1)
      expect([largest.length, tooLarge.length]).toEqual([16 * 1024, 16 * 1024 + 1])
      const now = Fixtures.at(Fixtures.NOW)
      const first = yield* validate([largest, tooLarge], now)
      expect(first.results.map(Either.isRight)).toEqual([true, true])
      expect(first.verified).toBe(4)
      const again = yield* validate([tooLarge, largest, tooLarge], now)
      expect(again.results.map((result) => Either.getOrUndefined(result)?.ref)).toEqual([
        yield* KeyPackageRef.hash(tooLarge),
        yield* KeyPackageRef.hash(largest),
        yield* KeyPackageRef.hash(tooLarge)
      ])
      expect(again.verified).toBe(4)
    }).pipe(Effect.provide(layer()))
  )

  it.effect("forgets what is beyond its capacity", () =>
    Effect.gen(function* () {
      const [a, b] = yield* packages(2)
      if (a === undefined || b === undefined) return expect.fail("no packages")
      yield* validate([a, b])
      expect((yield* validate([b])).verified).toBe(0)
      expect((yield* validate([a])).verified).toBe(2)
    }).pipe(Effect.provide(layer(1)))
  )
})
