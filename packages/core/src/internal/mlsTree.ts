/**
 * The ratchet tree that a Welcome brings (RFC 9420 sections 7 and 12.4.3.1): read strictly, and checked before anything
 * else walks it. A stranger makes it, so nothing here may depend on its being a tree.
 *
 * ts-mls 2.0.0-rc.10 has its own checks, which refuse valid trees (unmerged leaves at more than one level; 1 of the 14 of
 * the working group's vectors of this suite) and can walk for ever over unmerged leaves beyond the tree.
 */
import {
  type Credential,
  defaultCredentialTypes,
  defaultExtensionTypes,
  type LeafNode,
  type LeafNodeExtension,
  type LeafNodeInfoCommitOmitted,
  type LeafNodeInfoKeyPackage,
  type LeafNodeInfoUpdateOmitted,
  leafNodeSources,
  makeCustomExtension,
  nodeTypes,
  type ParentNode,
  protocolVersions,
  type RatchetTree
} from "ts-mls"
import { LEAF_NODE_TBS, withLabel } from "../crypto/Labels.ts"
import { ExtensionType, isDefaultExtension, isValidInLeafNode } from "../keypackage/Profile.ts"
import type { Ed25519Signature, MlsCryptoShape } from "../ports/MlsCrypto.ts"
import { type MalformedReason, MalformedWelcome, NotYetUnderstood } from "../welcome/WelcomeError.ts"
import { equal } from "./equal.ts"
import * as hex from "./hex.ts"
import type { TlsReader } from "./tlsReader.ts"

/** More leaves than a group of XMTP can have: 250 inboxes of 10 installations. Bounds what a stranger can make us do. */
export const MAX_LEAVES = 4096

/** A leaf, and the bytes that it was read from. */
export interface Leaf {
  readonly _tag: "Leaf"
  readonly node: LeafNode
  /** The whole LeafNode. */
  readonly bytes: Uint8Array
  /** What is signed of it, but for the group and place that follow in an update's or a commit's. */
  readonly toBeSigned: Uint8Array
}

/** A parent, and the bytes that it was read from. */
export interface Parent {
  readonly _tag: "Parent"
  readonly node: ParentNode
  readonly bytes: Uint8Array
}

/** A full binary tree by node index: leaves are even, blanks undefined (RFC 9420 appendix C). */
export type Tree = ReadonlyArray<Leaf | Parent | undefined>

const malformed = (reason: MalformedReason, at?: number): MalformedWelcome =>
  new MalformedWelcome({ part: "RatchetTree", reason, at })

// ---------------------------------------------------------------------------------------------------------------------
// Where nodes are
// ---------------------------------------------------------------------------------------------------------------------

/** How far above the leaves a node is: the ones at the end of its index. */
const levelOf = (index: number): number => 31 - Math.clz32(~index & (index + 1))

const leftOf = (index: number): number => index - (1 << (levelOf(index) - 1))
const rightOf = (index: number): number => index + (1 << (levelOf(index) - 1))

/** The root of a full tree of this many nodes. */
export const rootOf = (nodes: number): number => (nodes - 1) / 2

/** The node above, in a full tree in which this one is not the root. */
export const parentOf = (index: number): number => {
  const step = 1 << levelOf(index)
  return (index & (2 * step)) === 0 ? index + step : index - step
}

/** The leaves below a node, the first and the last. */
const firstLeaf = (index: number): number => (index + 1 - (1 << levelOf(index))) / 2
const lastLeaf = (index: number): number => (index - 1 + (1 << levelOf(index))) / 2

/** Whether `ancestor` is above `index`, or the same node. */
const isUnder = (index: number, ancestor: number): boolean => Math.abs(index - ancestor) < 1 << levelOf(ancestor)

/** The lowest node that is above both. */
export const commonAncestor = (left: number, right: number): number => {
  let node = left
  while (!isUnder(right, node)) node = parentOf(node)
  return node
}

// ---------------------------------------------------------------------------------------------------------------------
// Reading
// ---------------------------------------------------------------------------------------------------------------------

/** A chain of certificates is longer nowhere. A byte would make one more, of a hundred bytes in memory. */
const MAX_CERTIFICATES = 64

const readCertificates = (reader: TlsReader): Array<Uint8Array> => {
  const start = reader.position
  let count = 0
  return reader.vector((inner) => {
    if (++count > MAX_CERTIFICATES) throw malformed("TooLarge", start)
    return inner.opaque()
  })
}

/** Credential (RFC 9420 section 5.3), in the form of ts-mls. */
const readCredential = (reader: TlsReader): Credential => {
  const credentialType = reader.uint16()
  switch (credentialType) {
    case defaultCredentialTypes.basic:
      return { credentialType, identity: reader.opaque() }
    case defaultCredentialTypes.x509:
      return { credentialType, certificates: readCertificates(reader) }
    default:
      return { credentialType, data: reader.opaque() }
  }
}

type Source =
  | Omit<LeafNodeInfoKeyPackage, "extensions">
  | Omit<LeafNodeInfoUpdateOmitted, "extensions">
  | Omit<LeafNodeInfoCommitOmitted, "extensions">

const readSource = (reader: TlsReader): Source => {
  const start = reader.position
  switch (reader.uint8()) {
    case leafNodeSources.key_package:
      return {
        leafNodeSource: leafNodeSources.key_package,
        lifetime: { notBefore: reader.uint64(), notAfter: reader.uint64() }
      }
    case leafNodeSources.update:
      return { leafNodeSource: leafNodeSources.update }
    case leafNodeSources.commit:
      return { leafNodeSource: leafNodeSources.commit, parentHash: reader.opaque() }
    default:
      throw malformed("UnknownVariant", start)
  }
}

const readLeafExtensions = (reader: TlsReader): Array<LeafNodeExtension> => {
  const seen = new Set<number>()
  return reader.vector((inner) => {
    const start = inner.position
    const type = inner.uint16()
    const data = inner.opaque()
    if (!isValidInLeafNode(type)) throw malformed("ExtensionOutOfPlace", start)
    if (seen.has(type)) throw malformed("DuplicateExtension", start)
    seen.add(type)
    return type === ExtensionType.applicationId
      ? { extensionType: defaultExtensionTypes.application_id, extensionData: data }
      : makeCustomExtension({ extensionType: type, extensionData: data })
  })
}

/** ts-mls cannot read a state back in which a leaf lists another version. */
const version10 = (version: number): typeof protocolVersions.mls10 => {
  if (version === protocolVersions.mls10) return protocolVersions.mls10
  throw new NotYetUnderstood({ feature: "ProtocolVersion", value: version })
}

/** LeafNode (RFC 9420 section 7.2). */
const readLeaf = (reader: TlsReader): Leaf => {
  const start = reader.position
  const hpkePublicKey = reader.opaque()
  const signaturePublicKey = reader.opaque()
  const credential = readCredential(reader)
  const capabilities = {
    versions: reader.uint16s().map(version10),
    ciphersuites: reader.uint16s(),
    extensions: reader.uint16s(),
    proposals: reader.uint16s(),
    credentials: reader.uint16s()
  }
  const source = readSource(reader)
  const extensions = readLeafExtensions(reader)
  const toBeSigned = reader.since(start)
  const signature = reader.opaque()
  const node = { hpkePublicKey, signaturePublicKey, credential, capabilities, ...source, extensions, signature }
  return { _tag: "Leaf", node, bytes: reader.since(start), toBeSigned }
}

/** ParentNode (RFC 9420 section 7.1). */
const readParent = (reader: TlsReader): Parent => {
  const start = reader.position
  let unmerged = 0
  const node = {
    hpkePublicKey: reader.opaque(),
    parentHash: reader.opaque(),
    unmergedLeaves: reader.vector((inner) => {
      if (++unmerged > MAX_LEAVES) throw malformed("TooLarge", start)
      return inner.uint32()
    })
  }
  return { _tag: "Parent", node, bytes: reader.since(start) }
}

const readNode = (reader: TlsReader): Leaf | Parent => {
  const start = reader.position
  switch (reader.uint8()) {
    case nodeTypes.leaf:
      return readLeaf(reader)
    case nodeTypes.parent:
      return readParent(reader)
    default:
      throw malformed("UnknownVariant", start)
  }
}

/**
 * `optional<Node> ratchet_tree<V>` (RFC 9420 section 12.4.3.3): the last node is not blank, and blanks are added up to a full
 * tree. Throws `TlsFailure`, `MalformedWelcome` or `NotYetUnderstood`.
 */
export const read = (reader: TlsReader): Tree => {
  let count = 0
  const nodes = reader.vector((inner) => {
    if (++count >= 2 * MAX_LEAVES) throw malformed("TooLarge", count)
    const node = inner.optional(() => readNode(inner))
    // Leaves and parents alternate.
    if (node !== undefined && (node._tag === "Leaf") !== (count % 2 === 1)) throw malformed("NodeOutOfPlace", count - 1)
    return node
  })
  if (nodes.at(-1) === undefined) throw malformed("NodeOutOfPlace", nodes.length)
  while ((nodes.length & (nodes.length + 1)) !== 0) nodes.push(undefined)
  return nodes
}

/** The tree as ts-mls keeps it. */
export const toRatchetTree = (tree: Tree): RatchetTree =>
  tree.map((node) => {
    if (node === undefined) return undefined
    return node._tag === "Leaf"
      ? { nodeType: nodeTypes.leaf, leaf: node.node }
      : { nodeType: nodeTypes.parent, parent: node.node }
  })

// ---------------------------------------------------------------------------------------------------------------------
// Hashing
// ---------------------------------------------------------------------------------------------------------------------

/** What is collected before it is hashed. */
class Bytes {
  readonly #parts: Array<Uint8Array> = []
  #length = 0

  add(...parts: ReadonlyArray<Uint8Array>): this {
    for (const part of parts) {
      this.#parts.push(part)
      this.#length += part.length
    }
    return this
  }

  /** `opaque<V>` */
  opaque(bytes: Uint8Array): this {
    return this.add(vectorLength(bytes.length), bytes)
  }

  done(): Uint8Array {
    const all = new Uint8Array(this.#length)
    let at = 0
    for (const part of this.#parts) {
      all.set(part, at)
      at += part.length
    }
    return all
  }
}

const vectorLength = (length: number): Uint8Array => {
  if (length < 0x40) return Uint8Array.of(length)
  if (length < 0x4000) return Uint8Array.of(0x40 | (length >>> 8), length & 0xff)
  return Uint8Array.of(0x80 | (length >>> 24), (length >>> 16) & 0xff, (length >>> 8) & 0xff, length & 0xff)
}

const uint32 = (value: number): Uint8Array =>
  Uint8Array.of(value >>> 24, (value >>> 16) & 0xff, (value >>> 8) & 0xff, value & 0xff)

const LEAF_INPUT = Uint8Array.of(nodeTypes.leaf)
const PARENT_INPUT = Uint8Array.of(nodeTypes.parent)
const ABSENT = Uint8Array.of(0)
const PRESENT = Uint8Array.of(1)

/** Tree hashes (RFC 9420 section 7.8), of whole subtrees and of those from which leaves are taken away. */
class TreeHashes {
  readonly #tree: Tree
  readonly #sha256: MlsCryptoShape["sha256"]
  readonly #whole: Array<Uint8Array | undefined>

  constructor(tree: Tree, crypto: Pick<MlsCryptoShape, "sha256">) {
    this.#tree = tree
    this.#sha256 = crypto.sha256
    this.#whole = new Array(tree.length)
  }

  of(index: number): Uint8Array {
    return (this.#whole[index] ??= this.without(index, []))
  }

  /** Without some of the leaves below, which are ascending. */
  without(index: number, removed: ReadonlyArray<number>): Uint8Array {
    const node = this.#tree[index]
    if (index % 2 === 0) {
      const input = new Bytes().add(LEAF_INPUT, uint32(index / 2))
      return this.#sha256(
        (node === undefined || removed.length > 0 ? input.add(ABSENT) : input.add(PRESENT, node.bytes)).done()
      )
    }
    const input = new Bytes().add(PARENT_INPUT)
    if (node === undefined) input.add(ABSENT)
    else input.add(PRESENT, removed.length === 0 ? node.bytes : withoutUnmerged(node, removed))
    for (const child of [leftOf(index), rightOf(index)]) {
      const here = within(removed, child)
      input.opaque(here.length === 0 ? this.of(child) : this.without(child, here))
    }
    return this.#sha256(input.done())
  }
}

/** The leaves of an ascending list that are below a node. */
const within = (leaves: ReadonlyArray<number>, index: number): ReadonlyArray<number> => {
  if (leaves.length === 0) return leaves
  const first = firstLeaf(index)
  const last = lastLeaf(index)
  return leaves.filter((leaf) => leaf >= first && leaf <= last)
}

/** A parent's bytes without some of its unmerged leaves. */
const withoutUnmerged = (parent: Leaf | Parent, removed: ReadonlyArray<number>): Uint8Array => {
  if (parent._tag === "Leaf") return parent.bytes
  const { hpkePublicKey, parentHash, unmergedLeaves } = parent.node
  const gone = new Set(removed)
  const kept = new Bytes()
  for (const leaf of unmergedLeaves) if (!gone.has(leaf)) kept.add(uint32(leaf))
  return new Bytes().opaque(hpkePublicKey).opaque(parentHash).opaque(kept.done()).done()
}

// ---------------------------------------------------------------------------------------------------------------------
// Checking
// ---------------------------------------------------------------------------------------------------------------------

/** What the group asks of every member (RFC 9420 section 11.1). */
export interface RequiredCapabilities {
  readonly extensionTypes: ReadonlyArray<number>
  readonly proposalTypes: ReadonlyArray<number>
  readonly credentialTypes: ReadonlyArray<number>
}

/** The proposals that RFC 9420 itself defines need not be listed. */
export const isDefaultProposal = (type: number): boolean => type >= 0x0001 && type <= 0x0007

/** Capabilities, extensions and keys of the leaves, and that no key occurs twice (RFC 9420 section 7.3). */
const checkLeaves = (tree: Tree, required: RequiredCapabilities | undefined): void => {
  const encryptionKeys = new Set<string>()
  const signatureKeys = new Set<string>()
  // All is looked up in sets: a hostile group lists many of what it needs, and many of what it can.
  const extensionTypes = new Set(required?.extensionTypes.filter((type) => !isDefaultExtension(type)))
  const proposalTypes = new Set(required?.proposalTypes.filter((type) => !isDefaultProposal(type)))
  const credentialTypes = new Set(required?.credentialTypes)
  for (const node of tree) if (node?._tag === "Leaf") credentialTypes.add(node.node.credential.credentialType)
  for (const [index, entry] of tree.entries()) {
    if (entry === undefined) continue
    const encryptionKey = hex.encode(entry.node.hpkePublicKey)
    if (encryptionKeys.has(encryptionKey)) throw malformed("DuplicateKey", index)
    encryptionKeys.add(encryptionKey)
    if (entry._tag === "Parent") continue
    const { capabilities, extensions, signaturePublicKey } = entry.node
    const signatureKey = hex.encode(signaturePublicKey)
    if (signatureKeys.has(signatureKey)) throw malformed("DuplicateKey", index)
    signatureKeys.add(signatureKey)
    const carried = extensions.map(({ extensionType }) => extensionType).filter((type) => !isDefaultExtension(type))
    if (
      !includesAll(capabilities.credentials, credentialTypes) ||
      !includesAll(capabilities.extensions, [...extensionTypes, ...carried]) ||
      !includesAll(capabilities.proposals, proposalTypes)
    ) {
      throw malformed("MissingCapability", index)
    }
  }
}

/** Whether a list has every one of these, in a time that grows with the sum of both. */
const includesAll = (list: ReadonlyArray<number>, wanted: Iterable<number>): boolean => {
  const has = new Set(list)
  for (const one of wanted) if (!has.has(one)) return false
  return true
}

/**
 * Unmerged leaves are in ascending order, are leaves below the node that are not blank, and are listed by every parent in
 * between (RFC 9420 section 12.4.3.1).
 */
const checkUnmergedLeaves = (tree: Tree): void => {
  const listed = tree.map((node) => (node?._tag === "Parent" ? new Set(node.node.unmergedLeaves) : undefined))
  for (const [index, node] of tree.entries()) {
    if (node?._tag !== "Parent") continue
    let previous = -1
    for (const leaf of node.node.unmergedLeaves) {
      if (leaf <= previous || leaf < firstLeaf(index) || leaf > lastLeaf(index) || tree[2 * leaf] === undefined) {
        throw malformed("InvalidUnmergedLeaves", index)
      }
      previous = leaf
      for (let above = parentOf(2 * leaf); above !== index; above = parentOf(above)) {
        if (listed[above]?.has(leaf) === false) throw malformed("InvalidUnmergedLeaves", index)
      }
    }
  }
}

/** The nodes that together reach every member below one (RFC 9420 section 4.1.1). */
const resolutionOf = (tree: Tree, index: number, into: Array<number>): Array<number> => {
  const node = tree[index]
  if (node !== undefined) {
    into.push(index)
    if (node._tag === "Parent") for (const leaf of node.node.unmergedLeaves) into.push(2 * leaf)
  } else if (index % 2 === 1) {
    resolutionOf(tree, leftOf(index), into)
    resolutionOf(tree, rightOf(index), into)
  }
  return into
}

const parentHashOf = (node: Leaf | Parent): Uint8Array | undefined => {
  if (node._tag === "Parent") return node.node.parentHash
  return node.node.leafNodeSource === leafNodeSources.commit ? node.node.parentHash : undefined
}

/** Every parent is chained back to a leaf that set it (RFC 9420 section 7.9.2), and so authenticated by that leaf. */
const checkParentHashes = (tree: Tree, hashes: TreeHashes, crypto: Pick<MlsCryptoShape, "sha256">): void => {
  const isValid = new Array<boolean>(tree.length)
  /** Whether the one node of `child`'s resolution that is not an unmerged leaf of the parent vouches for the parent. */
  const isVouchedFor = (parent: Parent, child: number, sibling: number): boolean => {
    const { hpkePublicKey, parentHash, unmergedLeaves } = parent.node
    const unmerged = new Set(within(unmergedLeaves, child).map((leaf) => 2 * leaf))
    const resolution = resolutionOf(tree, child, [])
    const others = resolution.filter((index) => !unmerged.has(index))
    const [voucher] = others
    if (voucher === undefined || others.length !== 1 || resolution.length !== unmerged.size + 1) return false
    const node = tree[voucher]
    const claimed = node === undefined ? undefined : parentHashOf(node)
    if (claimed === undefined || (node?._tag === "Parent" && isValid[voucher] !== true)) return false
    const removed = within(unmergedLeaves, sibling)
    const input = new Bytes()
      .opaque(hpkePublicKey)
      .opaque(parentHash)
      .opaque(removed.length === 0 ? hashes.of(sibling) : hashes.without(sibling, removed))
    return equal(crypto.sha256(input.done()), claimed)
  }
  for (let level = 1; 1 << level <= tree.length; level++) {
    for (let index = (1 << level) - 1; index < tree.length; index += 2 << level) {
      const node = tree[index]
      if (node?._tag !== "Parent") continue
      const left = leftOf(index)
      const right = rightOf(index)
      if (!isVouchedFor(node, left, right) && !isVouchedFor(node, right, left)) {
        throw malformed("InvalidParentHash", index)
      }
      isValid[index] = true
    }
  }
}

/** The hash of the whole tree. */
export const hash = (tree: Tree, crypto: Pick<MlsCryptoShape, "sha256">): Uint8Array =>
  new TreeHashes(tree, crypto).of(rootOf(tree.length))

/**
 * Everything that RFC 9420 section 12.4.3.1 asks of a tree but the leaves' signatures and credentials. Lifetimes are not
 * looked at: members stay when their packages expire, in libxmtp too. Throws `MalformedWelcome`.
 */
export const check = (
  tree: Tree,
  treeHash: Uint8Array,
  required: RequiredCapabilities | undefined,
  crypto: Pick<MlsCryptoShape, "sha256">
): void => {
  checkLeaves(tree, required)
  checkUnmergedLeaves(tree)
  const hashes = new TreeHashes(tree, crypto)
  if (!equal(hashes.of(rootOf(tree.length)), treeHash)) throw malformed("TreeHashMismatch")
  checkParentHashes(tree, hashes, crypto)
}

/** The signatures of all leaves, in order (RFC 9420 section 7.2). */
export const leafSignatures = (
  tree: Tree,
  groupId: Uint8Array
): ReadonlyArray<Ed25519Signature & { readonly index: number }> => {
  const signatures: Array<Ed25519Signature & { readonly index: number }> = []
  for (let index = 0; index < tree.length; index += 2) {
    const leaf = tree[index]
    if (leaf?._tag !== "Leaf") continue
    const { leafNodeSource, signature, signaturePublicKey } = leaf.node
    const content =
      leafNodeSource === leafNodeSources.key_package
        ? leaf.toBeSigned
        : new Bytes()
            .add(leaf.toBeSigned)
            .opaque(groupId)
            .add(uint32(index / 2))
            .done()
    signatures.push({ index, publicKey: signaturePublicKey, message: withLabel(LEAF_NODE_TBS, content), signature })
  }
  return signatures
}
