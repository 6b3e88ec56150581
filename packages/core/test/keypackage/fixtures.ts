import { createHash } from "node:crypto"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { KEY_PACKAGE_TBS, LEAF_NODE_TBS, withLabel } from "../../src/crypto/Labels.ts"
import * as NodeMlsCrypto from "../../src/crypto/NodeMlsCrypto.ts"
import { InboxId } from "../../src/identity/InboxId.ts"
import * as InstallationId from "../../src/identity/InstallationId.ts"
import type { InstallationKey } from "../../src/identity/InstallationKey.ts"
import * as Codec from "../../src/keypackage/Codec.ts"
import type { KeyPackage } from "../../src/keypackage/KeyPackage.ts"
import * as Profile from "../../src/keypackage/Profile.ts"
import { validateKeyPackage } from "../../src/keypackage/Validation.ts"
import { Entropy } from "../../src/ports/Entropy.ts"
import * as XWing from "../../src/postquantum/XWing.ts"

export const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"))
export const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

export const crypto = NodeMlsCrypto.make()

/** A stream of bytes that a seed determines. */
export const seededEntropy = (seed: string): Layer.Layer<Entropy> =>
  Layer.sync(Entropy, () => {
    let counter = 0
    return {
      randomBytes: (length) =>
        new Uint8Array(createHash("shake256", { outputLength: length }).update(`${seed}/${counter++}`).digest())
    }
  })

export const layer = (seed: string) => Layer.mergeAll(NodeMlsCrypto.layer, XWing.layer, seededEntropy(seed))

/** 2026-11-23T07:40:00Z */
export const NOW = 1_795_419_600_000

export const at = (millis: number): DateTime.Utc => DateTime.unsafeMake(millis)

export const installationKeyOf = (seed: Uint8Array): InstallationKey => {
  const redacted = Redacted.make(seed)
  return { installationId: InstallationId.fromPublicKey(crypto.ed25519PublicKey(redacted)), seed: redacted }
}

export const installationKey = installationKeyOf(new Uint8Array(32).fill(7))
export const inboxId = InboxId.make("ab".repeat(32))

/** Writes a package and signs it, whatever is in it. */
export const sign = (fields: KeyPackage, { seed }: InstallationKey = installationKey): Uint8Array => {
  const parse = (keyPackage: KeyPackage) => {
    const bytes = Codec.encode(keyPackage)
    // The leaf's signature and the package's are the ends of what they cover: find both by writing empty ones.
    const without = Codec.encode({ ...keyPackage, signature: new Uint8Array(0) })
    return { bytes, toBeSigned: without.subarray(0, without.length - 1) }
  }
  const leafOnly = (keyPackage: KeyPackage): Uint8Array => {
    const shell = { ...keyPackage, extensions: [], signature: new Uint8Array(0) }
    const bytes = Codec.encode({ ...shell, leafNode: { ...shell.leafNode, signature: new Uint8Array(0) } })
    // version, suite and init_key before the leaf; empty leaf signature, extensions and signature after it
    const before = 4 + keyPackage.initKey.length + (keyPackage.initKey.length < 64 ? 1 : 2)
    return bytes.subarray(before, bytes.length - 3)
  }
  const leafSignature = crypto.ed25519Sign(seed, withLabel(LEAF_NODE_TBS, leafOnly(fields)))
  const signedLeaf = { ...fields, leafNode: { ...fields.leafNode, signature: leafSignature } }
  const signature = crypto.ed25519Sign(seed, withLabel(KEY_PACKAGE_TBS, parse(signedLeaf).toBeSigned))
  return Codec.encode({ ...signedLeaf, signature })
}

/** A classical package of the profile, unsigned. */
export const baseline: KeyPackage = {
  version: Profile.PROTOCOL_VERSION,
  cipherSuite: Profile.CIPHER_SUITE,
  initKey: new Uint8Array(32).fill(1),
  leafNode: {
    encryptionKey: new Uint8Array(32).fill(2),
    signatureKey: InstallationId.toPublicKey(installationKey.installationId),
    credential: Profile.credential(inboxId),
    capabilities: Profile.CAPABILITIES,
    source: { _tag: "KeyPackage", notBefore: BigInt(NOW / 1000 - 3600), notAfter: BigInt(NOW / 1000 + 7_257_600) },
    extensions: Profile.leafNodeExtensions(inboxId),
    signature: new Uint8Array(0)
  },
  extensions: Profile.keyPackageExtensions(undefined),
  signature: new Uint8Array(0)
}

export const validate = (bytes: Uint8Array, now: number = NOW) =>
  validateKeyPackage(bytes, at(now)).pipe(Effect.provide(NodeMlsCrypto.layer))
