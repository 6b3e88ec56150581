/**
 * The messages that invite (RFC 9420 section 12.4.3): MLSMessage with a Welcome, GroupSecrets and GroupInfo, read strictly.
 */
import {
  type CustomExtension,
  defaultExtensionTypes,
  type GroupContext,
  type GroupContextExtension,
  makeCustomExtension,
  protocolVersions,
  wireformats
} from "ts-mls"
import { CIPHER_SUITE, ExtensionType, isDefaultExtension } from "../keypackage/Profile.ts"
import { MalformedWelcome, NotYetUnderstood, type WelcomePart } from "../welcome/WelcomeError.ts"
import * as mlsTree from "./mlsTree.ts"
import { TlsFailure, TlsReader } from "./tlsReader.ts"

/** `HPKECiphertext` (RFC 9420 section 7.6) */
export interface HpkeCiphertext {
  readonly kemOutput: Uint8Array
  readonly ciphertext: Uint8Array
}

/** Welcome (RFC 9420 section 12.4.3.1) of ciphersuite 0x0003. */
export interface Welcome {
  readonly secrets: ReadonlyArray<HpkeCiphertext & { readonly newMember: Uint8Array }>
  readonly encryptedGroupInfo: Uint8Array
}

/** GroupSecrets without pre-shared keys. */
export interface GroupSecrets {
  readonly joinerSecret: Uint8Array
  readonly pathSecret: Uint8Array | undefined
}

/** GroupInfo (RFC 9420 section 12.4.3) with the tree that is in it, or was given beside it. */
export interface GroupInfo {
  readonly groupContext: GroupContext
  readonly groupContextBytes: Uint8Array
  readonly required: mlsTree.RequiredCapabilities | undefined
  readonly tree: mlsTree.Tree
  readonly confirmationTag: Uint8Array
  /** A leaf index. */
  readonly signer: number
  readonly toBeSigned: Uint8Array
  readonly signature: Uint8Array
}

/** Reads a part; what the reader refuses is that part's. */
const reading = <A>(part: WelcomePart, read: () => A): A => {
  try {
    return read()
  } catch (thrown) {
    throw thrown instanceof TlsFailure
      ? new MalformedWelcome({ part, reason: thrown.reason, at: thrown.offset })
      : thrown
  }
}

/** Reads exactly one ciphertext: libxmtp allows nothing after the wrapper's (`payload_encryption.rs`). */
export const readHpkeCiphertext = (bytes: Uint8Array): HpkeCiphertext =>
  reading("HpkeCiphertext", () => {
    const reader = new TlsReader(bytes)
    const ciphertext = { kemOutput: reader.opaque(), ciphertext: reader.opaque() }
    reader.end()
    return ciphertext
  })

/** Reads an MLSMessage that is a Welcome. What follows it is not looked at, as in libxmtp (`decrypted_welcome.rs`). */
export const readWelcome = (bytes: Uint8Array): Welcome =>
  reading("Welcome", () => {
    const reader = new TlsReader(bytes)
    const version = reader.uint16()
    if (version !== protocolVersions.mls10) throw new NotYetUnderstood({ feature: "ProtocolVersion", value: version })
    const wireformat = reader.uint16()
    if (wireformat !== wireformats.mls_welcome) {
      if (wireformat === 0 || wireformat > wireformats.mls_key_package) {
        throw new NotYetUnderstood({ feature: "WireFormat", value: wireformat })
      }
      throw new MalformedWelcome({ part: "Welcome", reason: "NotAWelcome" })
    }
    const cipherSuite = reader.uint16()
    if (cipherSuite !== CIPHER_SUITE) throw new NotYetUnderstood({ feature: "Ciphersuite", value: cipherSuite })
    const start = reader.position
    let count = 0
    const secrets = reader.vector((inner) => {
      // Each is for a leaf of its own. Three bytes would make one more, of some hundred bytes in memory.
      if (++count > mlsTree.MAX_LEAVES) throw new MalformedWelcome({ part: "Welcome", reason: "TooLarge", at: start })
      return { newMember: inner.opaque(), kemOutput: inner.opaque(), ciphertext: inner.opaque() }
    })
    return { secrets, encryptedGroupInfo: reader.opaque() }
  })

/** Reads GroupSecrets. XMTP has no pre-shared keys, and libxmtp takes no Welcome that needs one. */
export const readGroupSecrets = (bytes: Uint8Array): GroupSecrets =>
  reading("GroupSecrets", () => {
    const reader = new TlsReader(bytes)
    const secrets = { joinerSecret: reader.opaque(), pathSecret: reader.optional(() => reader.opaque()) }
    const end = reader.vectorEnd()
    if (end !== reader.position) {
      throw new NotYetUnderstood({ feature: "PreSharedKey", value: reader.uint8() })
    }
    reader.end()
    return secrets
  })

interface RawExtension {
  readonly type: number
  readonly data: Uint8Array
}

const readExtensions = (reader: TlsReader): ReadonlyArray<RawExtension> => {
  const seen = new Set<number>()
  return reader.vector((inner) => {
    const start = inner.position
    const type = inner.uint16()
    if (seen.has(type)) throw new MalformedWelcome({ part: "GroupInfo", reason: "DuplicateExtension", at: start })
    seen.add(type)
    return { type, data: inner.opaque() }
  })
}

const readRequiredCapabilities = (data: Uint8Array) => {
  const reader = new TlsReader(data)
  const required = {
    extensionTypes: reader.uint16s(),
    proposalTypes: reader.uint16s(),
    credentialTypes: reader.uint16s()
  }
  reader.end()
  return required
}

const customExtension = (type: number, data: Uint8Array): CustomExtension =>
  makeCustomExtension({ extensionType: type, extensionData: data })

const groupContextExtension = ({ data, type }: RawExtension): GroupContextExtension => {
  if (type === ExtensionType.requiredCapabilities) {
    return { extensionType: defaultExtensionTypes.required_capabilities, extensionData: readRequiredCapabilities(data) }
  }
  // ts-mls holds one sender where the RFC has a list; XMTP has none.
  if (type === ExtensionType.externalSenders) {
    throw new NotYetUnderstood({ feature: "GroupContextExtension", value: type })
  }
  if (isDefaultExtension(type)) throw new MalformedWelcome({ part: "GroupInfo", reason: "ExtensionOutOfPlace" })
  return customExtension(type, data)
}

const readGroupContext = (reader: TlsReader): GroupContext => {
  const version = reader.uint16()
  if (version !== protocolVersions.mls10) throw new NotYetUnderstood({ feature: "ProtocolVersion", value: version })
  const cipherSuite = reader.uint16()
  if (cipherSuite !== CIPHER_SUITE) throw new NotYetUnderstood({ feature: "Ciphersuite", value: cipherSuite })
  return {
    version,
    cipherSuite,
    groupId: reader.opaque(),
    epoch: reader.uint64(),
    treeHash: reader.opaque(),
    confirmedTranscriptHash: reader.opaque(),
    extensions: readExtensions(reader).map(groupContextExtension)
  }
}

/** Reads GroupInfo. The tree is the one in it; one without takes the tree given. */
export const readGroupInfo = (bytes: Uint8Array, givenTree?: Uint8Array): GroupInfo =>
  reading("GroupInfo", () => {
    const reader = new TlsReader(bytes)
    const groupContext = readGroupContext(reader)
    const groupContextBytes = reader.since(0)
    const extensions = readExtensions(reader)
    const confirmationTag = reader.opaque()
    const signer = reader.uint32()
    const toBeSigned = reader.since(0)
    const signature = reader.opaque()
    reader.end()
    const treeBytes = extensions.find(({ type }) => type === ExtensionType.ratchetTree)?.data ?? givenTree
    if (treeBytes === undefined) {
      throw new MalformedWelcome({ part: "RatchetTree", reason: "MissingExtension" })
    }
    const tree = reading("RatchetTree", () => {
      const inner = new TlsReader(treeBytes)
      const nodes = mlsTree.read(inner)
      inner.end()
      return nodes
    })
    const required = groupContext.extensions.find(
      (extension) => extension.extensionType === defaultExtensionTypes.required_capabilities
    )
    return {
      groupContext,
      groupContextBytes,
      required: required === undefined || !isRequired(required) ? undefined : required.extensionData,
      tree,
      confirmationTag,
      signer,
      toBeSigned,
      signature
    }
  })

const isRequired = (
  extension: GroupContextExtension
): extension is Extract<GroupContextExtension, { extensionData: mlsTree.RequiredCapabilities }> =>
  extension.extensionType === defaultExtensionTypes.required_capabilities
