/**
 * Putting a key package together and signing it, by ts-mls. Given the same keys and times it writes the same bytes as
 * libxmtp. No private HPKE key comes near it: a package holds public keys only.
 */

import * as Redacted from "effect/Redacted"
import {
  type Capabilities,
  type CiphersuiteImpl,
  defaultCredentialTypes,
  defaultExtensionTypes,
  encode,
  generateKeyPackageWithKey,
  keyPackageEncoder,
  makeCustomExtension,
  protocolVersions
} from "ts-mls"
import * as MlsCiphersuite from "../crypto/MlsCiphersuite.ts"
import type { InboxId } from "../identity/InboxId.ts"
import type { InstallationKey } from "../identity/InstallationKey.ts"
import type { Lifetime } from "../keypackage/Lifetime.ts"
import { CAPABILITIES, credential, keyPackageExtensions, leafNodeExtensions } from "../keypackage/Profile.ts"
import type { MlsCryptoShape } from "../ports/MlsCrypto.ts"

/** What differs from one package to the next. */
export interface KeyPackageParts {
  readonly inboxId: InboxId
  readonly installationKey: InstallationKey
  readonly lifetime: Lifetime
  /** X25519 public key, 32 bytes. */
  readonly initKey: Uint8Array
  /** X25519 public key, 32 bytes. */
  readonly encryptionKey: Uint8Array
  /** X-Wing public key, 1216 bytes. */
  readonly postQuantumKey: Uint8Array | undefined
}

/** Assembling draws no randomness. If ts-mls ever asked for some, this says so instead of making a key. */
const noEntropy = {
  randomBytes: (): Uint8Array => {
    throw new Error("a key package is assembled from given keys only")
  }
}

const NOTHING = Redacted.make(new Uint8Array(0))

/** The suite of each provider, made once. */
const suites = new WeakMap<MlsCryptoShape, CiphersuiteImpl>()

const suiteOf = (crypto: MlsCryptoShape): CiphersuiteImpl => {
  const known = suites.get(crypto)
  if (known !== undefined) return known
  const fresh = MlsCiphersuite.make(crypto, noEntropy)
  suites.set(crypto, fresh)
  return fresh
}

/**
 * The suite for one package: it signs with the installation's key and hands out the given public keys, first `init_key`,
 * then the leaf's, where ts-mls would make new ones.
 */
const suiteFor = (crypto: MlsCryptoShape, parts: KeyPackageParts): CiphersuiteImpl => {
  const suite = suiteOf(crypto)
  const keys = [parts.initKey, parts.encryptionKey].values()
  return {
    ...suite,
    hpke: {
      ...suite.hpke,
      generateKeyPair: async () => {
        const key = keys.next()
        if (key.done === true) return suite.hpke.generateKeyPair()
        return { publicKey: MlsCiphersuite.publicKey(key.value), privateKey: MlsCiphersuite.privateKey(NOTHING) }
      }
    },
    signature: {
      ...suite.signature,
      sign: async (_signKey, message) => crypto.ed25519Sign(parts.installationKey.seed, message)
    }
  }
}

/** The profile's capabilities in ts-mls's form, which asks for arrays that could be written to; it does not write. */
const capabilities: Capabilities = {
  versions: [protocolVersions.mls10],
  ciphersuites: [...CAPABILITIES.cipherSuites],
  extensions: [...CAPABILITIES.extensions],
  proposals: [...CAPABILITIES.proposals],
  credentials: [...CAPABILITIES.credentials]
}

/** The TLS serialization of the package. Rejects with an error of ts-mls. */
export const assemble = async (crypto: MlsCryptoShape, parts: KeyPackageParts): Promise<Uint8Array> => {
  const { publicPackage } = await generateKeyPackageWithKey({
    cipherSuite: suiteFor(crypto, parts),
    credential: { credentialType: defaultCredentialTypes.basic, identity: credential(parts.inboxId).content },
    capabilities,
    lifetime: parts.lifetime,
    // Without these two, ts-mls would add GREASE, and OpenMLS refuses GREASE extensions in a key package.
    extensions: keyPackageExtensions(parts.postQuantumKey).map(({ data, type }) =>
      makeCustomExtension({ extensionType: type, extensionData: data })
    ),
    leafNodeExtensions: leafNodeExtensions(parts.inboxId).map(({ data }) => ({
      extensionType: defaultExtensionTypes.application_id,
      extensionData: data
    })),
    // The suite signs; ts-mls does not see the seed.
    signatureKeyPair: {
      publicKey: crypto.ed25519PublicKey(parts.installationKey.seed),
      signKey: new Uint8Array(0)
    }
  })
  return encode(keyPackageEncoder, publicPackage)
}
