/**
 * The cryptography of a simulated world: real signatures and hashes, all of them made at once, so that time in the world does not
 * depend on threads. What is expensive and not under test is remembered or imitated.
 *
 * @since 1.0.0
 */
import * as NodeMlsCrypto from "@keyward/core/crypto/NodeMlsCrypto"
import { CurveBackend, noble, type Operations } from "@keyward/core/identity/CurveBackend"
import * as FastCurveBackend from "@keyward/core/identity/FastCurveBackend"
import { MlsCrypto, type MlsCryptoShape } from "@keyward/core/ports/MlsCrypto"
import { PostQuantumKem, type PostQuantumKemShape } from "@keyward/core/ports/PostQuantumKem"
import { shake256 } from "@noble/hashes/sha3.js"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"

/** What is forgotten first is of no account: the answers are always the same. */
const REMEMBERED = 4096

const remembered = new Map<string, Uint8Array | undefined>()

const text = (bytes: Uint8Array): string => Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("latin1")

/** The same answers, several times faster; loaded before any world begins, since a world waits for no library. */
const fast = await Effect.runPromise(FastCurveBackend.make)

const combineEd25519: Operations["combineEd25519"] = (s, k, a) => {
  const key = text(s) + text(k) + text(a)
  if (!remembered.has(key)) {
    if (remembered.size >= REMEMBERED) remembered.clear()
    remembered.set(key, fast.combineEd25519(s, k, a))
  }
  return remembered.get(key)
}

const curves: Operations = { ...noble, name: "simulated", combineEd25519 }

const mls = NodeMlsCrypto.make()

const crypto: MlsCryptoShape = {
  ...mls,
  ed25519VerifyStrictAll: (signatures) =>
    Effect.sync(() =>
      signatures.map(({ message, publicKey, signature }) => mls.ed25519VerifyStrict(publicKey, message, signature))
    )
}

/** A stand-in of the right sizes: a public key is the SHAKE256 of its seed. It protects nothing. */
const kem: PostQuantumKemShape = {
  publicKey: (seed) => shake256(Redacted.value(seed), { dkLen: 1216 }),
  encapsulate: (publicKey, randomness) =>
    publicKey.length === 1216
      ? Option.some({
          ciphertext: shake256(Redacted.value(randomness), { dkLen: 1120 }),
          sharedSecret: Redacted.make(shake256(Redacted.value(randomness), { dkLen: 32 }))
        })
      : Option.none(),
  decapsulate: (_, ciphertext) =>
    ciphertext.length === 1120 ? Option.some(Redacted.make(shake256(ciphertext, { dkLen: 32 }))) : Option.none()
}

/**
 * MLS signatures by node:crypto, without its threads; verified identity signatures, remembered; a post-quantum KEM in sizes
 * only.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<MlsCrypto | PostQuantumKem> = Layer.mergeAll(
  Layer.succeed(MlsCrypto, crypto),
  Layer.succeed(PostQuantumKem, kem),
  Layer.succeed(CurveBackend, curves)
)
