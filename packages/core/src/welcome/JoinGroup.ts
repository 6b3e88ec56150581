/**
 * From a Welcome to a member: the group that it invites to, checked as libxmtp checks it, and the state to go on from.
 *
 * MLS says that the group is what its members signed (RFC 9420 section 12.4.3.1). Who they are, their inboxes say: every leaf
 * must be an installation of the inbox that its credential names, at the sequence id that the group states
 * (libxmtp `xmtp_mls/src/groups/welcomes/validated_membership.rs`).
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { type ClientState, type GroupContextExtension, isDefaultCredential, type LeafNode } from "ts-mls"
import { InboxId } from "../identity/InboxId.ts"
import { InstallationId } from "../identity/InstallationId.ts"
import type { InstallationKey } from "../identity/InstallationKey.ts"
import * as MlsCredential from "../identity/MlsCredential.ts"
import * as hex from "../internal/hex.ts"
import * as mlsJoin from "../internal/mlsJoin.ts"
import type * as mlsTree from "../internal/mlsTree.ts"
import { readWelcome } from "../internal/mlsWelcome.ts"
import { TlsFailure, TlsReader } from "../internal/tlsReader.ts"
import * as Codec from "../keypackage/Codec.ts"
import type { KeyPackagePrivateKeys } from "../keypackage/GeneratedKeyPackage.ts"
import * as KeyPackageRef from "../keypackage/KeyPackageRef.ts"
import { ExtensionType } from "../keypackage/Profile.ts"
import type * as AssociationStates from "../peers/AssociationStates.ts"
import { MlsCrypto } from "../ports/MlsCrypto.ts"
import * as GroupMembership from "./GroupMembership.ts"
import * as GroupMetadata from "./GroupMetadata.ts"
import * as MemberAuthorization from "./MemberAuthorization.ts"
import {
  type JoinError,
  type MalformedReason,
  MalformedWelcome,
  MemberNotAuthorized,
  NotYetUnderstood,
  UnwrapFailed,
  type WelcomePart
} from "./WelcomeError.ts"

/**
 * Our key package that the Welcome is for.
 *
 * @since 1.0.0
 * @category models
 */
export interface JoiningKeyPackage {
  /** The TLS serialization, as published. */
  readonly bytes: Uint8Array
  readonly privateKeys: Pick<KeyPackagePrivateKeys, "initKey" | "encryptionKey">
  /** The key that signed it, with which the member will sign. */
  readonly installationKey: InstallationKey
}

/**
 * A group that we are a member of from this epoch on.
 *
 * @since 1.0.0
 * @category models
 */
export interface JoinedGroup {
  /** As its creator chose it: whoever knows the id of a group can make another of that id. An app keeps the one that it is in. */
  readonly groupId: Uint8Array
  readonly epoch: bigint
  /** Everyone, us included, from left to right. Each is an installation of its inbox. */
  readonly members: ReadonlyArray<MemberAuthorization.Member>
  /** Who invited us: the member that signed the Welcome's GroupInfo. */
  readonly addedBy: MemberAuthorization.Member
  readonly groupMembership: GroupMembership.GroupMembership
  readonly groupMetadata: GroupMetadata.GroupMetadata
  /** To go on with in ts-mls. It holds the group's secrets and the installation's seed. */
  readonly state: Redacted.Redacted<ClientState>
}

const isInboxId = Schema.is(InboxId)
const isInstallationId = Schema.is(InstallationId)

type Refusal = UnwrapFailed | MalformedWelcome | NotYetUnderstood | MemberNotAuthorized

const isRefusal = (error: unknown): error is Refusal =>
  error instanceof UnwrapFailed ||
  error instanceof MalformedWelcome ||
  error instanceof NotYetUnderstood ||
  error instanceof MemberNotAuthorized

/** What the MLS code throws as a refusal is a failure; anything else is a bug. */
const refusing = <A>(evaluate: () => A): Effect.Effect<A, Refusal> =>
  Effect.suspend(() => {
    try {
      return Effect.succeed(evaluate())
    } catch (error) {
      return isRefusal(error) ? Effect.fail(error) : Effect.die(error)
    }
  })

const memberOf = ({ credential, signaturePublicKey }: LeafNode, leafIndex: number): MemberAuthorization.Member => {
  const installationId = hex.encode(signaturePublicKey)
  const refuse = (inboxId?: string): MemberNotAuthorized =>
    new MemberNotAuthorized({
      inboxId: inboxId?.slice(0, 64),
      installationId: installationId.slice(0, 64),
      leafIndex,
      reason: "InvalidCredential"
    })
  if (!isDefaultCredential(credential) || !("identity" in credential)) throw refuse()
  const decoded = MlsCredential.decode(credential.identity)
  if (Either.isLeft(decoded)) throw refuse()
  const { inboxId } = decoded.right
  if (!isInboxId(inboxId) || !isInstallationId(installationId)) throw refuse(inboxId)
  return { inboxId, installationId, leafIndex }
}

const membersOf = (tree: mlsTree.Tree): ReadonlyArray<MemberAuthorization.Member> => {
  const members: Array<MemberAuthorization.Member> = []
  for (const [index, node] of tree.entries()) if (node?._tag === "Leaf") members.push(memberOf(node.node, index / 2))
  return members
}

/** libxmtp `component_id.rs`: a group that has a registry keeps everything in the dictionary. */
const COMPONENT_REGISTRY = 0x8000

const reading = <A>(part: WelcomePart, bytes: Uint8Array, read: (reader: TlsReader) => A): A => {
  try {
    const reader = new TlsReader(bytes)
    const value = read(reader)
    reader.end()
    return value
  } catch (error) {
    throw error instanceof TlsFailure ? new MalformedWelcome({ part, reason: error.reason, at: error.offset }) : error
  }
}

/** `ComponentData { uint16 component_id; opaque data<V> } component_data<V>` */
const readComponentIds = (dictionary: Uint8Array): ReadonlyArray<number> =>
  reading("GroupInfo", dictionary, (reader) =>
    reader.vector((inner) => {
      const id = inner.uint16()
      inner.opaque()
      return id
    })
  )

/** What the GroupContext says of XMTP. */
const readExtensions = (extensions: ReadonlyArray<GroupContextExtension>) => {
  const find = (type: number): Uint8Array | undefined => {
    const data = extensions.find(({ extensionType }) => extensionType === type)?.extensionData
    return data instanceof Uint8Array ? data : undefined
  }
  const dictionary = find(ExtensionType.appDataDictionary)
  // ts-mls knows none of the proposals that such a group changes itself with.
  if (dictionary !== undefined && readComponentIds(dictionary).includes(COMPONENT_REGISTRY)) {
    throw new NotYetUnderstood({ feature: "MigratedGroup", value: COMPONENT_REGISTRY })
  }
  const mutableMetadata = find(ExtensionType.mutableMetadata)
  const required = (part: "GroupMembership" | "GroupMetadata", type: number): Uint8Array => {
    const data = find(type)
    if (data === undefined) throw new MalformedWelcome({ part, reason: "MissingExtension" })
    return data
  }
  return {
    mutableMetadata,
    groupMembership: orThrow(GroupMembership.decode(required("GroupMembership", ExtensionType.groupMembership))),
    // The fork of OpenMLS puts a length of its own before it.
    groupMetadata: orThrow(
      GroupMetadata.decode(
        reading("GroupMetadata", required("GroupMetadata", ExtensionType.immutableMetadata), (reader) =>
          reader.opaque()
        )
      )
    )
  }
}

const orThrow = <A>(result: Either.Either<A, Refusal>): A => {
  if (Either.isLeft(result)) throw result.left
  return result.right
}

/**
 * A DM is between the one who invites and us, says so, and has no admins: no one is drawn into somebody else's. Among our own
 * installations it is enough that we are in it (libxmtp `groups/mod.rs`, `validate_dm_group`, whose look at the permissions
 * refuses nothing that differs in less than all of them).
 */
const checkDm = (
  { conversationType, dmMembers }: GroupMetadata.GroupMetadata,
  mutableMetadata: Uint8Array | undefined,
  addedBy: InboxId,
  own: InboxId
): void => {
  if (conversationType !== "Dm") return
  const refuse = (reason: MalformedReason) => new MalformedWelcome({ part: "GroupMetadata", reason })
  const pair = Option.getOrElse(dmMembers, (): ReadonlyArray<string> => [])
  if (!pair.includes(own) || !pair.includes(addedBy)) throw refuse("NotThisPair")
  if (addedBy === own) return
  if (mutableMetadata === undefined) throw refuse("MissingExtension")
  if (orThrow(GroupMetadata.hasAdmins(mutableMetadata))) throw refuse("DmWithAdmins")
}

/** The decoded package; one that is none is not a Welcome's fault, but no crash either. */
const decodeKeyPackage = (bytes: Uint8Array) =>
  Either.mapLeft(Codec.decode(bytes), () => new MalformedWelcome({ part: "KeyPackage", reason: "UnknownVariant" }))

/**
 * Joins the group of a Welcome (an MLSMessage, unwrapped) with the key package that it was made for.
 *
 * In this order: the keys open it; the group and its tree are what RFC 9420 section 12.4.3.1 asks for, and nothing in it is
 * unknown here; every signature holds; every member is an installation of its inbox at the stated sequence id; a DM is
 * between those two. Only then is there a state. The cheap checks come first, and nobody is asked before the signatures hold.
 *
 * @param welcome TLS bytes. The state refers to them and to those of the package
 * @since 1.0.0
 * @category joining
 */
export const joinGroup: (
  welcome: Uint8Array,
  keyPackage: JoiningKeyPackage
) => Effect.Effect<JoinedGroup, JoinError, MlsCrypto | AssociationStates.AssociationStates> = Effect.fn(
  "JoinGroup.joinGroup"
)(function* (welcome, { bytes, installationKey, privateKeys }) {
  const crypto = yield* MlsCrypto
  const decoded = yield* decodeKeyPackage(bytes)
  const joining = { decoded, ref: hex.decode(KeyPackageRef.hashWith(crypto, bytes)), privateKeys }
  const opened = yield* refusing(() => {
    const staged = mlsJoin.stage(crypto, readWelcome(welcome), joining)
    const { groupContext, tree } = staged.groupInfo
    return { staged, members: membersOf(tree), ...readExtensions(groupContext.extensions) }
  })
  const { groupMembership, groupMetadata, members, mutableMetadata, staged } = opened
  const { groupContext, signer } = staged.groupInfo
  yield* mlsJoin.verifySignatures(crypto, staged)
  yield* MemberAuthorization.authorize(groupMembership, members)
  const at = (leafIndex: number) => members.find((member) => member.leafIndex === leafIndex)
  const addedBy = at(signer)
  const own = at(staged.ownLeaf)
  if (addedBy === undefined || own === undefined) {
    return yield* new MalformedWelcome({ part: "GroupInfo", reason: "NoSuchSigner" })
  }
  const state = yield* refusing(() => {
    checkDm(groupMetadata, mutableMetadata, addedBy.inboxId, own.inboxId)
    return mlsJoin.complete(crypto, staged, joining, installationKey.seed)
  })
  yield* Effect.annotateCurrentSpan({ epoch: Number(groupContext.epoch), members: members.length })
  return {
    groupId: groupContext.groupId,
    epoch: groupContext.epoch,
    members,
    addedBy,
    groupMembership,
    groupMetadata,
    state: Redacted.make(state)
  }
})
