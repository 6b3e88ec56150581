/**
 * XMTP's wrapper around a Welcome: nobody but the invited learns which group it is for, and with X-Wing not even who
 * breaks Curve25519 one day.
 *
 * ```
 * data             = HPKECiphertext { kem_output<V>, ciphertext<V> }, sealed at sequence 0
 * welcome_metadata = a bare ciphertext of the same context, sealed at sequence 1
 * ```
 *
 * HPKE base mode with HKDF-SHA-256 and ChaCha20-Poly1305; info is MLS's `EncryptContext` of the label `MLS_WELCOME` and no
 * content; aad is empty (libxmtp `xmtp_mls_common/src/mls_ext/payload_encryption.rs`). A Welcome for many is sealed once
 * with a symmetric key (the pointee), and each gets the key wrapped (the pointer).
 *
 * Each function works once, for one key: the message names its key, and none is tried out.
 *
 * @since 1.0.0
 */
import { create, toBinary } from "@bufbuild/protobuf"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import * as Hpke from "../crypto/Hpke.ts"
import { MLS_WELCOME, withLabel } from "../crypto/Labels.ts"
import {
  WelcomePointeeEncryptionAeadType,
  WelcomePointerSchema
} from "../gen/xmtp/mls/message_contents/welcome_pointer_pb.ts"
import { readHpkeCiphertext } from "../internal/mlsWelcome.ts"
import * as strictProtobuf from "../internal/strictProtobuf.ts"
import { writeVectors } from "../internal/tlsReader.ts"
import type { WelcomeTarget } from "../keypackage/WelcomeTarget.ts"
import { Entropy } from "../ports/Entropy.ts"
import { MlsCrypto, type MlsCryptoShape } from "../ports/MlsCrypto.ts"
import { PostQuantumKem, type PostQuantumKemShape } from "../ports/PostQuantumKem.ts"
import { ENCAPSULATION_SEED_BYTES } from "../postquantum/XWing.ts"
import { MalformedWelcome, NotYetUnderstood, UnwrapFailed } from "./WelcomeError.ts"

/**
 * The KEMs that Welcomes and pointers are wrapped with.
 *
 * @since 1.0.0
 * @category models
 */
export type Algorithm = WelcomeTarget["algorithm"]

/**
 * The numbers of `WelcomeWrapperAlgorithm`. 0, from clients that did not set it, means Curve25519 too.
 *
 * @since 1.0.0
 * @category constants
 */
export const algorithmNumbers = { Curve25519: 1, XWing: 2, SymmetricKey: 3 } as const

/**
 * The algorithm of a Welcome or a pointer. libxmtp writes 1 into a pointer for a package without X-Wing, though the enum of
 * pointers does not list it (`mls_sync.rs` `send_welcomes`). A number that is not known is a newer client's, and 3 is for
 * pointees only.
 *
 * @since 1.0.0
 * @category conversions
 */
export const algorithmOf = (
  wrapperAlgorithm: number
): Either.Either<Algorithm, NotYetUnderstood | MalformedWelcome> => {
  switch (wrapperAlgorithm) {
    case 0:
    case algorithmNumbers.Curve25519:
      return Either.right("Curve25519")
    case algorithmNumbers.XWing:
      return Either.right("XWing")
    case algorithmNumbers.SymmetricKey:
      return Either.left(new MalformedWelcome({ part: "HpkeCiphertext", reason: "UnknownVariant" }))
    default:
      return Either.left(new NotYetUnderstood({ feature: "WrapperAlgorithm", value: wrapperAlgorithm }))
  }
}

/**
 * What is inside: an MLSMessage and the protobuf of `WelcomeMetadata`, or a pointer and nothing.
 *
 * @since 1.0.0
 * @category models
 */
export interface Contents {
  readonly data: Uint8Array
  /** Empty where there is none. */
  readonly metadata: Uint8Array
}

/**
 * The two fields as they travel.
 *
 * @since 1.0.0
 * @category models
 */
export interface Wrapped {
  readonly data: Uint8Array
  /** Empty where there is none. */
  readonly metadata: Uint8Array
}

const EMPTY = new Uint8Array(0)

/** A destination is a topic like that of an installation (libxmtp `welcome_message.rs`). */
const DESTINATION_BYTES = 32

/** `EncryptContext { label<V> = "MLS 1.0 MLS_WELCOME"; content<V> = "" }` */
const INFO = withLabel(MLS_WELCOME, EMPTY)

const kemIds = { Curve25519: Hpke.KemId.dhkemX25519, XWing: Hpke.KemId.xWing } as const

/** Bytes of the public keys. */
const publicKeyBytes = { Curve25519: 32, XWing: 1216 } as const

/**
 * A public key that nothing can be wrapped to: of a wrong length, or no key.
 *
 * @since 1.0.0
 * @category errors
 */
export class InvalidWrapperKey extends Schema.TaggedError<InvalidWrapperKey>("@keyward/core/InvalidWrapperKey")(
  "InvalidWrapperKey",
  { algorithm: Schema.Literal("Curve25519", "XWing"), length: Schema.Number }
) {
  override get message(): string {
    return `${this.length} bytes are no ${this.algorithm} key that a Welcome can be wrapped to`
  }
}

/** `unwrap`, as a plain function. Throws `UnwrapFailed` or `MalformedWelcome`. */
const open = (
  crypto: MlsCryptoShape,
  kem: PostQuantumKemShape,
  algorithm: Algorithm,
  privateKey: Redacted.Redacted<Uint8Array>,
  { data, metadata }: Wrapped
): Contents => {
  const { ciphertext, kemOutput } = readHpkeCiphertext(data)
  const secret =
    algorithm === "XWing" ? kem.decapsulate(privateKey, kemOutput) : Hpke.decapsulate(crypto, privateKey, kemOutput)
  if (Option.isNone(secret)) throw new UnwrapFailed({ layer: "Wrapper", part: "KemOutput" })
  const context = Hpke.context(crypto, kemIds[algorithm], secret.value, INFO)
  const opened = context.open(EMPTY, ciphertext)
  if (Option.isNone(opened)) throw new UnwrapFailed({ layer: "Wrapper", part: "Data" })
  if (metadata.length === 0) return { data: opened.value, metadata: EMPTY }
  const openedMetadata = context.open(EMPTY, metadata)
  if (Option.isNone(openedMetadata)) throw new UnwrapFailed({ layer: "Wrapper", part: "Metadata" })
  return { data: opened.value, metadata: openedMetadata.value }
}

/**
 * Opens a wrapper with the private key that belongs to the public key it names: the init key (Curve25519) or the X-Wing
 * seed, 32 bytes each. A private key of another length is a defect.
 *
 * @since 1.0.0
 * @category unwrapping
 */
export const unwrap = (
  algorithm: Algorithm,
  privateKey: Redacted.Redacted<Uint8Array>,
  wrapped: Wrapped
): Effect.Effect<Contents, UnwrapFailed | MalformedWelcome, MlsCrypto | PostQuantumKem> =>
  Effect.flatMap(Effect.zip(MlsCrypto, PostQuantumKem), ([crypto, kem]) =>
    thrown(() => open(crypto, kem, algorithm, privateKey, wrapped))
  )

const isRefusal = (error: unknown): error is UnwrapFailed | MalformedWelcome =>
  error instanceof UnwrapFailed || error instanceof MalformedWelcome

/** A refusal is a failure; anything else that is thrown is a bug. */
const thrown = <A>(evaluate: () => A): Effect.Effect<A, UnwrapFailed | MalformedWelcome> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(evaluate())
    } catch (error) {
      return isRefusal(error) ? Effect.fail(error) : Effect.die(error)
    }
  })

/**
 * Wraps to a public key, such as `welcomeTarget` finds in a key package. Each call draws an ephemeral key from `Entropy`.
 *
 * @since 1.0.0
 * @category wrapping
 */
export const wrap = (
  target: Pick<WelcomeTarget, "algorithm" | "publicKey">,
  contents: Contents
): Effect.Effect<Wrapped, InvalidWrapperKey, MlsCrypto | PostQuantumKem | Entropy> =>
  Effect.gen(function* () {
    const crypto = yield* MlsCrypto
    const kem = yield* PostQuantumKem
    const entropy = yield* Entropy
    const { algorithm, publicKey } = target
    const invalid = new InvalidWrapperKey({ algorithm, length: publicKey.length })
    if (publicKey.length !== publicKeyBytes[algorithm]) return yield* invalid
    const sent =
      algorithm === "XWing"
        ? Option.map(
            kem.encapsulate(publicKey, Redacted.make(entropy.randomBytes(ENCAPSULATION_SEED_BYTES))),
            ({ ciphertext, sharedSecret }) => ({ enc: ciphertext, sharedSecret })
          )
        : Hpke.encapsulate(crypto, publicKey, Redacted.make(entropy.randomBytes(32)))
    if (Option.isNone(sent)) return yield* invalid
    const context = Hpke.context(crypto, kemIds[algorithm], sent.value.sharedSecret, INFO)
    return {
      data: writeVectors(sent.value.enc, context.seal(EMPTY, contents.data)),
      metadata: context.seal(EMPTY, contents.metadata)
    }
  })

/**
 * Where a shared Welcome is, and what opens it. Whoever has this can read the Welcome.
 *
 * @since 1.0.0
 * @category models
 */
export interface Pointer {
  /** The topic, 32 bytes, of which the first message is the Welcome. */
  readonly destination: Uint8Array
  /** ChaCha20-Poly1305, 32 bytes. */
  readonly encryptionKey: Redacted.Redacted<Uint8Array>
  /** 12 bytes. */
  readonly dataNonce: Uint8Array
  /** 12 bytes, others than the data's. */
  readonly metadataNonce: Uint8Array
}

/**
 * Reads the pointer that a wrapper had in it (`xmtp.mls.message_contents.WelcomePointer`).
 *
 * @since 1.0.0
 * @category pointers
 */
export const decodePointer = (bytes: Uint8Array): Either.Either<Pointer, MalformedWelcome | NotYetUnderstood> => {
  const decoded = strictProtobuf.decode(WelcomePointerSchema, bytes)
  if (Either.isLeft(decoded)) {
    return Either.left(new MalformedWelcome({ part: "WelcomePointer", reason: "NotProtobuf" }))
  }
  const { version } = decoded.right
  if (version.case !== "welcomeV1Pointer") {
    return Either.left(new NotYetUnderstood({ feature: "PointerVersion", value: 0 }))
  }
  const { aeadType, dataNonce, destination, encryptionKey, welcomeMetadataNonce } = version.value
  if (aeadType !== WelcomePointeeEncryptionAeadType.CHACHA20_POLY1305) {
    return Either.left(new NotYetUnderstood({ feature: "PointeeCipher", value: aeadType }))
  }
  if (
    destination.length !== DESTINATION_BYTES ||
    encryptionKey.length !== 32 ||
    dataNonce.length !== 12 ||
    welcomeMetadataNonce.length !== 12
  ) {
    return Either.left(new MalformedWelcome({ part: "WelcomePointer", reason: "WrongLength" }))
  }
  return Either.right({
    destination,
    encryptionKey: Redacted.make(encryptionKey),
    dataNonce,
    metadataNonce: welcomeMetadataNonce
  })
}

/**
 * The pointer's bytes, to be wrapped as `data` with no metadata.
 *
 * @since 1.0.0
 * @category pointers
 */
export const encodePointer = (pointer: Pointer): Redacted.Redacted<Uint8Array> =>
  Redacted.make(
    toBinary(
      WelcomePointerSchema,
      create(WelcomePointerSchema, {
        version: {
          case: "welcomeV1Pointer",
          value: {
            destination: pointer.destination,
            aeadType: WelcomePointeeEncryptionAeadType.CHACHA20_POLY1305,
            encryptionKey: Redacted.value(pointer.encryptionKey),
            dataNonce: pointer.dataNonce,
            welcomeMetadataNonce: pointer.metadataNonce
          }
        }
      })
    )
  )

/**
 * A fresh pointer, for one Welcome only: a nonce must not be used twice.
 *
 * @since 1.0.0
 * @category pointers
 */
export const makePointer: Effect.Effect<Pointer, never, Entropy> = Effect.map(Entropy, (entropy) => {
  const dataNonce = entropy.randomBytes(12)
  // Under one key the two nonces must differ. Twelve random bytes do, but nothing here says that they are random.
  const metadataNonce = dataNonce.slice()
  metadataNonce[11] = (metadataNonce[11] ?? 0) ^ 1
  return {
    destination: entropy.randomBytes(32),
    encryptionKey: Redacted.make(entropy.randomBytes(32)),
    dataNonce,
    metadataNonce
  }
})

/**
 * Opens the Welcome that a pointer points at. As in libxmtp its metadata has a tag even when it is empty.
 *
 * @since 1.0.0
 * @category pointers
 */
export const openPointee = (pointer: Pointer, sealed: Wrapped): Effect.Effect<Contents, UnwrapFailed, MlsCrypto> =>
  Effect.gen(function* () {
    const crypto = yield* MlsCrypto
    const key = Redacted.value(pointer.encryptionKey)
    const data = crypto.aeadOpen(key, pointer.dataNonce, EMPTY, sealed.data)
    if (Option.isNone(data)) return yield* new UnwrapFailed({ layer: "Pointee", part: "Data" })
    const metadata = crypto.aeadOpen(key, pointer.metadataNonce, EMPTY, sealed.metadata)
    if (Option.isNone(metadata)) return yield* new UnwrapFailed({ layer: "Pointee", part: "Metadata" })
    return { data: data.value, metadata: metadata.value }
  })

/**
 * Seals a Welcome for all whom the pointer is sent to.
 *
 * @since 1.0.0
 * @category pointers
 */
export const sealPointee = (pointer: Pointer, contents: Contents): Effect.Effect<Wrapped, never, MlsCrypto> =>
  Effect.map(MlsCrypto, (crypto) => {
    const key = Redacted.value(pointer.encryptionKey)
    return {
      data: crypto.aeadSeal(key, pointer.dataNonce, EMPTY, contents.data),
      metadata: crypto.aeadSeal(key, pointer.metadataNonce, EMPTY, contents.metadata)
    }
  })
