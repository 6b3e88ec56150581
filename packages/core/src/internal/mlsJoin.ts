/**
 * Joining a group by a Welcome (RFC 9420 section 12.4.3.1), in three steps: everything that costs little, the signatures, and
 * the state. The result is a state of ts-mls, which goes on from there.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type { ClientState } from "ts-mls"
import * as Hpke from "../crypto/Hpke.ts"
import { GROUP_INFO_TBS, WELCOME, withLabel } from "../crypto/Labels.ts"
import type { KeyPackagePrivateKeys } from "../keypackage/GeneratedKeyPackage.ts"
import type { DecodedKeyPackage } from "../keypackage/KeyPackage.ts"
import { isDefaultExtension } from "../keypackage/Profile.ts"
import type { MlsCryptoShape } from "../ports/MlsCrypto.ts"
import { MalformedWelcome, NotYetUnderstood, UnwrapFailed } from "../welcome/WelcomeError.ts"
import { constantTimeEqual, equal } from "./equal.ts"
import * as keySchedule from "./mlsKeySchedule.ts"
import * as mlsTree from "./mlsTree.ts"
import { type GroupInfo, type GroupSecrets, readGroupInfo, readGroupSecrets, type Welcome } from "./mlsWelcome.ts"

const EMPTY = new Uint8Array(0)

/** The key package that the Welcome is for, with its private keys. */
export interface JoiningKeyPackage {
  readonly decoded: DecodedKeyPackage
  /** The hash ref, 32 bytes. */
  readonly ref: Uint8Array
  readonly privateKeys: Pick<KeyPackagePrivateKeys, "initKey" | "encryptionKey">
}

/** A Welcome that opened and adds up; nobody's signature has been looked at. */
export interface Staged {
  readonly groupInfo: GroupInfo
  readonly secrets: GroupSecrets
  /** Our leaf, as an index of leaves. */
  readonly ownLeaf: number
}

const openGroupSecrets = (
  crypto: MlsCryptoShape,
  welcome: Welcome,
  { privateKeys, ref }: JoiningKeyPackage
): GroupSecrets => {
  const secret = welcome.secrets.find(({ newMember }) => equal(newMember, ref))
  if (secret === undefined) throw new MalformedWelcome({ part: "Welcome", reason: "OtherKeyPackage" })
  const shared = Hpke.decapsulate(crypto, privateKeys.initKey, secret.kemOutput)
  if (Option.isNone(shared)) throw new UnwrapFailed({ layer: "GroupSecrets", part: "KemOutput" })
  const info = withLabel(WELCOME, welcome.encryptedGroupInfo)
  const opened = Hpke.context(crypto, Hpke.KemId.dhkemX25519, shared.value, info).open(EMPTY, secret.ciphertext)
  if (Option.isNone(opened)) throw new UnwrapFailed({ layer: "GroupSecrets", part: "Data" })
  return readGroupSecrets(opened.value)
}

const openGroupInfo = (
  crypto: MlsCryptoShape,
  welcome: Welcome,
  { joinerSecret }: GroupSecrets,
  givenTree: Uint8Array | undefined
): GroupInfo => {
  const { key, nonce } = keySchedule.welcomeKey(crypto, joinerSecret)
  const opened = crypto.aeadOpen(key, nonce, EMPTY, welcome.encryptedGroupInfo)
  if (Option.isNone(opened)) throw new UnwrapFailed({ layer: "GroupInfo", part: "Data" })
  return readGroupInfo(opened.value, givenTree)
}

/** The whole LeafNode within a key package. */
const leafBytes = ({ bytes, leafNode, leafNodeToBeSigned }: DecodedKeyPackage): Uint8Array => {
  const { signature } = leafNode
  return bytes.subarray(
    leafNodeToBeSigned.byteOffset - bytes.byteOffset,
    signature.byteOffset - bytes.byteOffset + signature.length
  )
}

const findOwnLeaf = (tree: mlsTree.Tree, keyPackage: DecodedKeyPackage): number => {
  const own = leafBytes(keyPackage)
  const index = tree.findIndex((node) => node?._tag === "Leaf" && equal(node.bytes, own))
  if (index === -1) throw new MalformedWelcome({ part: "RatchetTree", reason: "NotInTree" })
  return index / 2
}

/** What the group uses has to be in our own capabilities (RFC 9420 section 13.4). */
const checkUnderstood = ({ groupContext, required }: GroupInfo, { leafNode }: DecodedKeyPackage): void => {
  const { credentials, extensions, proposals } = leafNode.capabilities
  for (const { extensionType } of groupContext.extensions) {
    if (!isDefaultExtension(extensionType) && !extensions.includes(extensionType)) {
      throw new NotYetUnderstood({ feature: "GroupContextExtension", value: extensionType })
    }
  }
  if (required === undefined) return
  const unknown =
    required.extensionTypes.find((type) => !isDefaultExtension(type) && !extensions.includes(type)) ??
    required.proposalTypes.find((type) => !mlsTree.isDefaultProposal(type) && !proposals.includes(type)) ??
    required.credentialTypes.find((type) => !credentials.includes(type))
  if (unknown !== undefined) throw new NotYetUnderstood({ feature: "RequiredCapability", value: unknown })
}

/**
 * Opens the Welcome with the keys of a package and reads what is in it. Throws `UnwrapFailed`, `MalformedWelcome` or
 * `NotYetUnderstood`.
 */
export const stage = (
  crypto: MlsCryptoShape,
  welcome: Welcome,
  keyPackage: JoiningKeyPackage,
  givenTree?: Uint8Array
): Staged => {
  const secrets = openGroupSecrets(crypto, welcome, keyPackage)
  const groupInfo = openGroupInfo(crypto, welcome, secrets, givenTree)
  checkUnderstood(groupInfo, keyPackage.decoded)
  const ownLeaf = findOwnLeaf(groupInfo.tree, keyPackage.decoded)
  mlsTree.check(groupInfo.tree, groupInfo.groupContext.treeHash, groupInfo.required, crypto)
  return { groupInfo, secrets, ownLeaf }
}

/** Up to here the calling fiber verifies itself; a turn of the event loop, or of the thread pool, costs about this many. */
const SIGNATURES_IN_PLACE = 6

/** Verifies the signatures of the GroupInfo and of every leaf but ours, which is the one that we signed. */
export const verifySignatures = (
  crypto: MlsCryptoShape,
  { groupInfo, ownLeaf }: Staged
): Effect.Effect<void, MalformedWelcome> =>
  Effect.gen(function* () {
    const { groupContext, signature, signer, toBeSigned, tree } = groupInfo
    const signerLeaf = tree[2 * signer]
    if (signerLeaf?._tag !== "Leaf") {
      return yield* new MalformedWelcome({ part: "GroupInfo", reason: "NoSuchSigner" })
    }
    const signatures = mlsTree.leafSignatures(tree, groupContext.groupId).filter(({ index }) => index !== 2 * ownLeaf)
    const all = [
      {
        publicKey: signerLeaf.node.signaturePublicKey,
        message: withLabel(GROUP_INFO_TBS, toBeSigned),
        signature
      },
      ...signatures
    ]
    const verdicts =
      all.length <= SIGNATURES_IN_PLACE
        ? all.map(({ message, publicKey, signature }) => crypto.ed25519VerifyStrict(publicKey, message, signature))
        : yield* crypto.ed25519VerifyStrictAll(all)
    const failed = verdicts.indexOf(false)
    if (failed === 0) return yield* new MalformedWelcome({ part: "GroupInfo", reason: "InvalidSignature" })
    if (failed > 0) {
      const at = signatures[failed - 1]?.index
      return yield* new MalformedWelcome({ part: "RatchetTree", reason: "InvalidLeafSignature", at })
    }
  })

/** The private keys above our leaf that the inviter shares with us, checked against the public ones in the tree. */
const pathKeys = (crypto: MlsCryptoShape, { groupInfo, ownLeaf, secrets }: Staged): Record<number, Uint8Array> => {
  const keys: Record<number, Uint8Array> = {}
  if (secrets.pathSecret === undefined) return keys
  const { signer, tree } = groupInfo
  const root = mlsTree.rootOf(tree.length)
  let secret = secrets.pathSecret
  // The path has a secret for each node that is not blank: a commit that has a path fills it.
  for (let index = mlsTree.commonAncestor(2 * ownLeaf, 2 * signer); ; index = mlsTree.parentOf(index)) {
    const node = tree[index]
    if (node?._tag === "Parent") {
      const privateKey = Hpke.derivePrivateKey(crypto, keySchedule.deriveSecret(crypto, secret, "node"))
      if (!equal(crypto.x25519PublicKey(privateKey), node.node.hpkePublicKey)) {
        throw new MalformedWelcome({ part: "GroupSecrets", reason: "PathSecretMismatch", at: index })
      }
      keys[index] = Redacted.value(privateKey)
      secret = keySchedule.deriveSecret(crypto, secret, "path")
    }
    if (index === root) return keys
  }
}

/** The state at the group's epoch. Throws `MalformedWelcome`. */
export const complete = (
  crypto: MlsCryptoShape,
  staged: Staged,
  { privateKeys }: JoiningKeyPackage,
  signatureKey: Redacted.Redacted<Uint8Array>
): ClientState => {
  const { groupInfo, ownLeaf, secrets } = staged
  const { confirmationTag, groupContext, groupContextBytes, tree } = groupInfo
  const epoch = keySchedule.epoch(crypto, secrets.joinerSecret, groupContextBytes)
  const tag = crypto.hmacSha256(epoch.keySchedule.confirmationKey, groupContext.confirmedTranscriptHash)
  if (!constantTimeEqual(tag, confirmationTag)) {
    throw new MalformedWelcome({ part: "GroupInfo", reason: "ConfirmationTagMismatch" })
  }
  return {
    groupContext,
    ratchetTree: mlsTree.toRatchetTree(tree),
    privatePath: {
      leafIndex: ownLeaf,
      privateKeys: {
        ...pathKeys(crypto, staged),
        // A copy: ts-mls wipes keys that it replaces, and these bytes are the store's.
        [2 * ownLeaf]: Redacted.value(privateKeys.encryptionKey).slice()
      }
    },
    signaturePrivateKey: Redacted.value(signatureKey).slice(),
    unappliedProposals: {},
    confirmationTag,
    historicalReceiverData: new Map(),
    groupActiveState: { kind: "active" },
    keySchedule: epoch.keySchedule,
    secretTree: {
      leafWidth: (tree.length + 1) / 2,
      intermediateNodes: { [mlsTree.rootOf(tree.length)]: epoch.encryptionSecret },
      leafNodes: {}
    }
  }
}
