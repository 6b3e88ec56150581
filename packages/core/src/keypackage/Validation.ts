/**
 * Whether somebody's key package may be used.
 *
 * The checks and their order are those of libxmtp (`VerifiedKeyPackageV2::from_bytes`, OpenMLS `KeyPackageIn::validate`),
 * so that the first thing wrong with a package is the same here and there. Three kinds of package are refused that
 * libxmtp accepts: those of another Ed25519 suite than 0x0003, which no XMTP group can use, and those whose
 * extensions carry bytes that OpenMLS drops before it checks the signature.
 *
 * What XMTP says beyond MLS (is this installation a member of that inbox?) is not decided here.
 *
 * @since 1.0.0
 */
import * as Arr from "effect/Array"
import type * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { KEY_PACKAGE_TBS, type Labelled, LEAF_NODE_TBS, withLabel, withLabels } from "../crypto/Labels.ts"
import * as InstallationId from "../identity/InstallationId.ts"
import * as MlsCredential from "../identity/MlsCredential.ts"
import { equal } from "../internal/equal.ts"
import * as hex from "../internal/hex.ts"
import * as internal from "../internal/validatedKeyPackage.ts"
import { MlsCrypto, type MlsCryptoShape } from "../ports/MlsCrypto.ts"
import * as Codec from "./Codec.ts"
import type { DecodedKeyPackage, Extension } from "./KeyPackage.ts"
import {
  ExtensionTypeNotValidInKeyPackage,
  InitKeyEqualsEncryptionKey,
  InvalidKeyPackageSignature,
  InvalidLeafNodeSignature,
  InvalidLeafNodeSourceType,
  InvalidProtocolVersion,
  type KeyPackageDecodeError,
  KeyPackageExpired,
  KeyPackageNotYetValid,
  type KeyPackageValidationError,
  UnsupportedCiphersuite,
  UnsupportedExtension,
  WrongCredentialType
} from "./KeyPackageError.ts"
import * as KeyPackageRef from "./KeyPackageRef.ts"
import { Lifetime } from "./Lifetime.ts"
import {
  BASIC_CREDENTIAL,
  CIPHER_SUITE,
  isDefaultExtension,
  isValidInKeyPackage,
  MAX_KEY_PACKAGE_BYTES,
  PROTOCOL_VERSION
} from "./Profile.ts"

/**
 * A key package that passed every check at some time. Only `validateKeyPackage` makes one. Its lifetime runs on: check it
 * again when the package is used.
 *
 * @since 1.0.0
 * @category models
 */
export type ValidatedKeyPackage = internal.ValidatedKeyPackage

/**
 * Whether a value was made by `validateKeyPackage`.
 *
 * @since 1.0.0
 * @category refinements
 */
export const isValidatedKeyPackage: (value: unknown) => value is ValidatedKeyPackage = internal.is

/** Seconds since 1970, as MLS counts them. */
const seconds = (now: DateTime.Utc): bigint => BigInt(Math.floor(now.epochMillis / 1000))

/** Where an extension begins in the package: its type is just before its data's length. */
const extensionOffset = (keyPackage: DecodedKeyPackage, { data }: Extension): number =>
  data.byteOffset - keyPackage.bytes.byteOffset - 2 - (data.length < 0x40 ? 1 : data.length < 0x4000 ? 2 : 4)

/** A package that is to be judged. */
interface Candidate {
  readonly decoded: DecodedKeyPackage
  readonly ref: KeyPackageRef.KeyPackageRef
}

/** Whether a package of this ref has been found valid already. */
type Seen = (ref: KeyPackageRef.KeyPackageRef) => ValidatedKeyPackage | undefined

/** Decodes a copy of our own, unless it is one that has been seen. */
const read = (
  crypto: MlsCryptoShape,
  bytes: Uint8Array,
  seen: Seen
): Either.Either<Candidate | ValidatedKeyPackage, KeyPackageDecodeError> => {
  // Refused by its length, and not copied for it.
  if (bytes.length > MAX_KEY_PACKAGE_BYTES) return Either.left(Codec.tooLarge())
  // The copy lies where it is hashed.
  const input = KeyPackageRef.hashInput(bytes)
  const ref = KeyPackageRef.ofHashInput(crypto, input)
  const known = seen(ref)
  return known?.ref === ref
    ? Either.right(known)
    : Either.map(Codec.decode(input.subarray(input.length - bytes.length)), (decoded) => ({ decoded, ref }))
}

/** Checks 11 and 12. */
const lifetimeAt = (
  lifetime: Pick<Lifetime, "notAfter" | "notBefore">,
  now: bigint
): Either.Either<void, KeyPackageExpired | KeyPackageNotYetValid> =>
  lifetime.notAfter <= now
    ? Either.left(new KeyPackageExpired({ notAfter: lifetime.notAfter, now }))
    : lifetime.notBefore > now
      ? Either.left(new KeyPackageNotYetValid({ notBefore: lifetime.notBefore, now }))
      : Either.void

/** What the two signatures of a package cover, each with its label. */
const leafContent = (keyPackage: DecodedKeyPackage): Labelled => [LEAF_NODE_TBS, keyPackage.leafNodeToBeSigned]
const packageContent = (keyPackage: DecodedKeyPackage): Labelled => [KEY_PACKAGE_TBS, keyPackage.toBeSigned]

/** Whether a list has a number. A hostile package lists many, and asks for as many: those are looked up in a set. */
const membershipIn = (list: ReadonlyArray<number>): ((one: number) => boolean) => {
  if (list.length <= 32) return (one) => list.includes(one)
  const set = new Set(list)
  return (one) => set.has(one)
}

/** Says whether the two signatures of the package that is judged verify; asked only when the checks come to them. */
interface Signatures {
  readonly leaf: (keyPackage: DecodedKeyPackage) => boolean
  readonly keyPackage: (keyPackage: DecodedKeyPackage) => boolean
}

const verifyNow = (crypto: MlsCryptoShape): Signatures => ({
  leaf: (decoded) =>
    crypto.ed25519VerifyStrict(
      decoded.leafNode.signatureKey,
      withLabel(...leafContent(decoded)),
      decoded.leafNode.signature
    ),
  keyPackage: (decoded) =>
    crypto.ed25519VerifyStrict(decoded.leafNode.signatureKey, withLabel(...packageContent(decoded)), decoded.signature)
})

/** Checks 3 to 14; 1 and 2 are in the decoding: one package in its canonical form. */
const judge = (
  { decoded: keyPackage, ref }: Candidate,
  signatures: Signatures,
  now: bigint
): Either.Either<ValidatedKeyPackage, KeyPackageValidationError> => {
  const { leafNode } = keyPackage

  // 3: the one suite
  if (keyPackage.cipherSuite !== CIPHER_SUITE) {
    return Either.left(new UnsupportedCiphersuite({ cipherSuite: keyPackage.cipherSuite }))
  }

  // 4 and 5: the leaf was made for a key package and is signed
  const { source } = leafNode
  if (source._tag !== "KeyPackage") return Either.left(new InvalidLeafNodeSourceType({ source: source._tag }))
  if (!signatures.leaf(keyPackage)) return Either.left(new InvalidLeafNodeSignature())

  // 6 to 8: version, keys, extensions
  if (keyPackage.version !== PROTOCOL_VERSION) {
    return Either.left(new InvalidProtocolVersion({ version: keyPackage.version }))
  }
  if (equal(keyPackage.initKey, leafNode.encryptionKey)) return Either.left(new InitKeyEqualsEncryptionKey())
  for (const extension of keyPackage.extensions) {
    if (!isValidInKeyPackage(extension.type)) {
      return Either.left(
        new ExtensionTypeNotValidInKeyPackage({
          extensionType: extension.type,
          offset: extensionOffset(keyPackage, extension)
        })
      )
    }
  }

  // 9: the package is signed
  if (!signatures.keyPackage(keyPackage)) return Either.left(new InvalidKeyPackageSignature())

  // 10: the leaf supports what the package carries
  const supports = membershipIn(leafNode.capabilities.extensions)
  for (const extension of keyPackage.extensions) {
    if (!isDefaultExtension(extension.type) && !supports(extension.type)) {
      return Either.left(
        new UnsupportedExtension({
          extensionType: extension.type,
          offset: extensionOffset(keyPackage, extension)
        })
      )
    }
  }

  // 11 and 12: the time
  const timely = lifetimeAt(source, now)
  if (Either.isLeft(timely)) return Either.left(timely.left)

  // 13 and 14: the credential
  if (leafNode.credential.type !== BASIC_CREDENTIAL) {
    return Either.left(new WrongCredentialType({ credentialType: leafNode.credential.type }))
  }
  return Either.map(MlsCredential.decode(leafNode.credential.content), ({ inboxId }) =>
    internal.issue({
      ref,
      installationId: InstallationId.fromPublicKey(leafNode.signatureKey),
      inboxId,
      // As decoded from 64 bits each: no need to check their signs.
      lifetime: new Lifetime({ notBefore: source.notBefore, notAfter: source.notAfter }, hex.unchecked),
      decoded: keyPackage
    })
  )
}

/**
 * Checks a serialized key package at a time. The first check that fails is the error, in libxmtp's order:
 *
 * 1. and 2. `KeyPackageDecodeError`: not exactly one package in its canonical form
 * 3. `UnsupportedCiphersuite`
 * 4. `InvalidLeafNodeSourceType`
 * 5. `InvalidLeafNodeSignature`
 * 6. `InvalidProtocolVersion`
 * 7. `InitKeyEqualsEncryptionKey`
 * 8. `ExtensionTypeNotValidInKeyPackage`
 * 9. `InvalidKeyPackageSignature`
 * 10. `UnsupportedExtension`: not listed in the leaf's capabilities
 * 11. `KeyPackageExpired`: `notAfter <= now`
 * 12. `KeyPackageNotYetValid`: `notBefore > now`
 * 13. `WrongCredentialType`
 * 14. `InvalidMlsCredential`
 *
 * The bytes are copied first, so that a buffer that changes later changes nothing that was proven.
 *
 * @since 1.0.0
 * @category validation
 */
export const validateKeyPackage = (
  bytes: Uint8Array,
  now: DateTime.Utc
): Effect.Effect<ValidatedKeyPackage, KeyPackageValidationError, MlsCrypto> =>
  Effect.flatMap(MlsCrypto, (crypto) =>
    Either.flatMap(
      read(crypto, bytes, () => undefined),
      (one) => conclude(one, verifyNow(crypto), seconds(now))
    )
  )

/** The time alone, of what was valid before. */
const conclude = (
  one: Candidate | ValidatedKeyPackage,
  signatures: Signatures,
  now: bigint
): Either.Either<ValidatedKeyPackage, KeyPackageValidationError> =>
  internal.is(one) ? Either.map(lifetimeAt(one.lifetime, now), () => one) : judge(one, signatures, now)

/** Packages decoded in one turn of the event loop: about a millisecond of ordinary ones. */
const PACKAGES_PER_TURN = 32

/**
 * `validateKeyPackage` of each, in order. Other fibers and sockets come between, also while signatures are verified. Of what
 * has been `seen`, only the lifetime is checked.
 *
 * @since 1.0.0
 * @category validation
 */
export const validateKeyPackages = (
  packages: ReadonlyArray<Uint8Array>,
  now: DateTime.Utc,
  seen: Seen = () => undefined
): Effect.Effect<ReadonlyArray<Either.Either<ValidatedKeyPackage, KeyPackageValidationError>>, never, MlsCrypto> =>
  Effect.gen(function* () {
    const crypto = yield* MlsCrypto
    const turns = Arr.chunksOf(packages, PACKAGES_PER_TURN)
    const judged = yield* Effect.forEach(
      turns,
      (turn) =>
        Effect.gen(function* () {
          const readings = turn.map((bytes) => read(crypto, bytes, seen))
          const decoded = Arr.getRights(readings).flatMap((one) => (internal.is(one) ? [] : [one.decoded]))
          const verified = yield* crypto.ed25519VerifyStrictAll(
            Arr.zipWith(
              decoded.flatMap((one) => [
                { publicKey: one.leafNode.signatureKey, signature: one.leafNode.signature },
                { publicKey: one.leafNode.signatureKey, signature: one.signature }
              ]),
              withLabels(decoded.flatMap((one) => [leafContent(one), packageContent(one)])),
              ({ publicKey, signature }, message) => ({ publicKey, message, signature })
            )
          )
          // What was decoded is judged in its order, by two verdicts each.
          let place = -2
          const signatures: Signatures = {
            leaf: () => verified[place] === true,
            keyPackage: () => verified[place + 1] === true
          }
          return readings.map(
            Either.flatMap((one) => {
              if (!internal.is(one)) place += 2
              return conclude(one, signatures, seconds(now))
            })
          )
        }),
      // The next turns are decoded while the signatures of the first are verified.
      { concurrency: 4 }
    )
    return judged.flat()
  })

/**
 * Checks the lifetime of a validated package once more, at the time of its use (RFC 9420 section 7.3).
 *
 * @since 1.0.0
 * @category validation
 */
export const validateLifetime = (
  keyPackage: ValidatedKeyPackage,
  now: DateTime.Utc
): Either.Either<void, KeyPackageExpired | KeyPackageNotYetValid> => lifetimeAt(keyPackage.lifetime, seconds(now))
