/**
 * Key packages: making, checking and reading them.
 *
 * @since 1.0.0
 */
import { createPrivateKey, createPublicKey, randomBytes, sign, verify } from "node:crypto"
import * as FastMlsCrypto from "@keyward/core/crypto/FastMlsCrypto"
import * as NodeMlsCrypto from "@keyward/core/crypto/NodeMlsCrypto"
import { InboxId } from "@keyward/core/identity/InboxId"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import * as Codec from "@keyward/core/keypackage/Codec"
import { newKeyPackage } from "@keyward/core/keypackage/Generation"
import { validateKeyPackage } from "@keyward/core/keypackage/Validation"
import * as Entropy from "@keyward/core/ports/Entropy"
import type { MlsCrypto } from "@keyward/core/ports/MlsCrypto"
import * as XWing from "@keyward/core/postquantum/XWing"
import { sessionKeyPackages } from "@keyward/test-utils/vectors/KeyPackageVectors"
import * as DateTime from "effect/DateTime"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Redacted from "effect/Redacted"
import * as Mls from "ts-mls"
import type { Case, Work } from "../Harness.ts"

const crypto = NodeMlsCrypto.make()
const seed = Redacted.make<Uint8Array>(new Uint8Array(randomBytes(32)))
const installationKey = {
  installationId: InstallationId.fromPublicKey(crypto.ed25519PublicKey(seed)),
  seed
}
const inboxId = InboxId.make("5f".repeat(32))

/** What is signed of a classical and of a post-quantum package, bytes: label, length, leaf; label, length, package. */
const SIGNED_BYTES = { leaf: 280, classical: 395, postQuantum: 1621 }

/** Two signatures with a key object made once, and two key pairs: 32 random bytes in, the public key out. */
const generationFloor = (signedBytes: number): Work => {
  const d = Buffer.from(Redacted.value(seed)).toString("base64url")
  const key = createPrivateKey({ key: { kty: "OKP", crv: "Ed25519", d, x: d }, format: "jwk" })
  const leaf = randomBytes(SIGNED_BYTES.leaf)
  const keyPackage = randomBytes(signedBytes)
  const keyPair = () => {
    const d = randomBytes(32).toString("base64url")
    return createPrivateKey({ key: { kty: "OKP", crv: "X25519", d, x: d }, format: "jwk" }).export({ format: "jwk" }).x
  }
  return () => [keyPair(), keyPair(), sign(null, leaf, key), sign(null, keyPackage, key)]
}

const generate = async (
  mlsCrypto: Layer.Layer<MlsCrypto>,
  includePostQuantum: boolean
): Promise<{ subject: Work; close: () => Promise<void> }> => {
  const managed = ManagedRuntime.make(Layer.mergeAll(mlsCrypto, XWing.layer, Entropy.layer))
  // Built once, as an application does.
  await managed.runtime()
  return {
    subject: () => managed.runPromise(newKeyPackage({ inboxId, installationKey, includePostQuantum })),
    close: () => managed.dispose()
  }
}

const real = sessionKeyPackages[0]
if (real === undefined) throw new Error("the vectors are gone")
/** A package of the native client, post-quantum, 1663 bytes. */
const bytes = new Uint8Array(Buffer.from(real.bytes, "hex"))
const now = DateTime.unsafeMake(real.unixMs)

/**
 * @since 1.0.0
 * @category cases
 */
export const cases: ReadonlyArray<Case> = [
  {
    id: "generate-classical",
    floor: "node:crypto: 2 Ed25519 signatures (cached key) + 2 X25519 key pairs",
    target: 1.35,
    prepare: async () => ({
      ...(await generate(FastMlsCrypto.layer(), false)),
      floor: generationFloor(SIGNED_BYTES.classical)
    })
  },
  {
    id: "generate-classical-openssl",
    floor: "the same; generated without sodium-native",
    prepare: async () => ({
      ...(await generate(NodeMlsCrypto.layer, false)),
      floor: generationFloor(SIGNED_BYTES.classical)
    })
  },
  {
    id: "generate-xwing",
    floor: "node:crypto: 2 Ed25519 signatures (cached key) + 2 X25519 key pairs; fastest X-Wing key generation here",
    target: 1.15,
    prepare: async () => {
      const classical = generationFloor(SIGNED_BYTES.postQuantum)
      const kem = XWing.make()
      return {
        ...(await generate(FastMlsCrypto.layer(), true)),
        floor: () => [classical(), kem.publicKey(Redacted.make(new Uint8Array(randomBytes(32))))]
      }
    }
  },
  {
    id: "validate",
    floor: "node:crypto: 2 Ed25519 verifications (cached key)",
    target: 1.3,
    prepare: async () => {
      const managed = ManagedRuntime.make(FastMlsCrypto.layer())
      await managed.runtime()
      managed.runSync(validateKeyPackage(bytes, now))
      const d = Buffer.from(Redacted.value(seed)).toString("base64url")
      const privateKey = createPrivateKey({ key: { kty: "OKP", crv: "Ed25519", d, x: d }, format: "jwk" })
      const publicKey = createPublicKey(privateKey)
      const leaf = randomBytes(SIGNED_BYTES.leaf)
      const keyPackage = randomBytes(SIGNED_BYTES.postQuantum)
      const leafSignature = sign(null, leaf, privateKey)
      const signature = sign(null, keyPackage, privateKey)
      return {
        subject: () => managed.runSync(validateKeyPackage(bytes, now)),
        floor: () => [verify(null, leaf, publicKey, leafSignature), verify(null, keyPackage, publicKey, signature)],
        close: () => managed.dispose()
      }
    }
  },
  {
    id: "decode",
    floor: "ts-mls: decode of the same 1663 bytes (lenient)",
    target: 1 / 3,
    prepare: () => {
      if (Either.isLeft(Codec.decode(bytes))) throw new Error("a real package is refused")
      if (Mls.decode(Mls.keyPackageDecoder, bytes) === undefined) throw new Error("ts-mls refuses a real package")
      return {
        subject: () => Codec.decode(bytes),
        floor: () => Mls.decode(Mls.keyPackageDecoder, bytes)
      }
    }
  }
]
