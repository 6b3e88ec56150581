/**
 * Random values of the domain, for properties. Their bytes are random too: what looks like a key package here has the right
 * sizes, yet no decoder would accept it.
 *
 * @since 1.0.0
 */
import { InboxId } from "@keyward/core/identity/InboxId"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import type { InstallationKey } from "@keyward/core/identity/InstallationKey"
import type { GeneratedKeyPackage } from "@keyward/core/keypackage/GeneratedKeyPackage"
import { KeyPackageRef } from "@keyward/core/keypackage/KeyPackageRef"
import { Lifetime } from "@keyward/core/keypackage/Lifetime"
import type { Installation, InstallationIntent } from "@keyward/core/lifecycle/Installation"
import { shake256 } from "@noble/hashes/sha3.js"
import * as DateTime from "effect/DateTime"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"

/**
 * This many random bytes, spread from 64 even random bits: drawing each for itself takes milliseconds for one key package. They do
 * not shrink, as a smaller key is no simpler a key.
 *
 * @since 1.0.0
 * @category bytes
 */
export const bytes = (length: number): FastCheck.Arbitrary<Uint8Array> =>
  FastCheck.noBias(FastCheck.noShrink(FastCheck.bigInt({ min: 0n, max: 2n ** 64n - 1n }))).map((bits) =>
    shake256(new TextEncoder().encode(`${bits}`), { dkLen: length })
  )

/**
 * A private key of 32 bytes.
 *
 * @since 1.0.0
 * @category bytes
 */
export const secret: FastCheck.Arbitrary<Redacted.Redacted<Uint8Array>> = bytes(32).map((value) => Redacted.make(value))

const hex32 = bytes(32).map((value) => Buffer.from(value).toString("hex"))

/**
 * @since 1.0.0
 * @category ids
 */
export const inboxId: FastCheck.Arbitrary<InboxId> = hex32.map((value) => InboxId.make(value))

/**
 * @since 1.0.0
 * @category ids
 */
export const installationId: FastCheck.Arbitrary<InstallationId.InstallationId> = bytes(32).map(
  InstallationId.fromPublicKey
)

/**
 * @since 1.0.0
 * @category ids
 */
export const keyPackageRef: FastCheck.Arbitrary<KeyPackageRef> = hex32.map((value) => KeyPackageRef.make(value))

/**
 * Any text, with what breaks careless SQL and careless UTF-8.
 *
 * @since 1.0.0
 * @category values
 */
export const label: FastCheck.Arbitrary<string> = FastCheck.oneof(
  FastCheck.string({ unit: "grapheme", maxLength: 40 }),
  FastCheck.constantFrom("", "default", "'; DROP TABLE keyward_key_packages; --", "%", "été 👩‍👩‍👧", "\u202Eabc")
)

/**
 * A whole millisecond between 2020 and 2100.
 *
 * @since 1.0.0
 * @category values
 */
export const instant: FastCheck.Arbitrary<DateTime.Utc> = FastCheck.integer({
  min: Date.UTC(2020),
  max: Date.UTC(2100)
}).map((millis) => DateTime.unsafeMake(millis))

/**
 * A lifetime whose end is not before its beginning, in seconds that fit a JavaScript number.
 *
 * @since 1.0.0
 * @category values
 */
export const lifetime: FastCheck.Arbitrary<Lifetime> = FastCheck.tuple(
  FastCheck.bigInt({ min: 0n, max: 4_102_444_800n }),
  FastCheck.bigInt({ min: 0n, max: 4_102_444_800n })
).map(([one, other]) => new Lifetime({ notBefore: one < other ? one : other, notAfter: one < other ? other : one }))

/**
 * A key whose id is not the public key of its seed.
 *
 * @since 1.0.0
 * @category keys
 */
export const installationKey: FastCheck.Arbitrary<InstallationKey> = FastCheck.record({ installationId, seed: secret })

/**
 * @since 1.0.0
 * @category values
 */
export const intent: FastCheck.Arbitrary<InstallationIntent> = FastCheck.record({
  inboxId,
  label,
  key: installationKey,
  at: instant
})

/**
 * A package of this installation, classical or with X-Wing, in the sizes of real ones.
 *
 * @since 1.0.0
 * @category keys
 */
export const generatedKeyPackage = ({
  inboxId,
  installationId
}: Pick<Installation, "inboxId" | "installationId">): FastCheck.Arbitrary<GeneratedKeyPackage> =>
  FastCheck.boolean().chain((isPostQuantum) => {
    const onlyPostQuantum = <A>(arbitrary: FastCheck.Arbitrary<A>) =>
      isPostQuantum ? arbitrary.map(Option.some) : FastCheck.constant(Option.none<A>())
    return FastCheck.record({
      keyPackage: FastCheck.record({
        inboxId: FastCheck.constant(inboxId),
        installationId: FastCheck.constant(installationId),
        ref: keyPackageRef,
        bytes: bytes(isPostQuantum ? 1663 : 437),
        lifetime,
        initKey: bytes(32),
        postQuantumKey: onlyPostQuantum(bytes(1216))
      }),
      privateKeys: FastCheck.record({
        initKey: secret,
        encryptionKey: secret,
        postQuantumKey: onlyPostQuantum(secret)
      })
    })
  })
