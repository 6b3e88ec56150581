/**
 * What a group is, which never changes: the kind of conversation, and who began it.
 *
 * @since 1.0.0
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import {
  GroupMetadataV1Schema,
  ConversationType as WireType
} from "../gen/xmtp/mls/message_contents/group_metadata_pb.ts"
import { attempt, ProstReader } from "../internal/prost.ts"
import * as strictProtobuf from "../internal/strictProtobuf.ts"
import { MalformedWelcome, NotYetUnderstood } from "./WelcomeError.ts"

/**
 * - `Group`, `Dm`: conversations
 * - `Sync`: between the installations of one inbox
 * - `Oneshot`: no conversation, but one message in the metadata itself; libxmtp makes no group of it
 *
 * @since 1.0.0
 * @category models
 */
export type ConversationType = "Group" | "Dm" | "Sync" | "Oneshot"

/**
 * The extension 0xf000 of the GroupContext (`xmtp.mls.message_contents.GroupMetadataV1`).
 *
 * @since 1.0.0
 * @category models
 */
export interface GroupMetadata {
  readonly conversationType: ConversationType
  /** As the creator wrote it. */
  readonly creatorInboxId: string
  /** The two inboxes of a DM, as the creator wrote them. */
  readonly dmMembers: Option.Option<readonly [string, string]>
}

const types: ReadonlyMap<WireType, ConversationType> = new Map([
  [WireType.GROUP, "Group"],
  [WireType.DM, "Dm"],
  [WireType.SYNC, "Sync"],
  [WireType.ONESHOT, "Oneshot"]
])

/**
 * Reads the extension's content.
 *
 * @since 1.0.0
 * @category conversions
 */
export const decode = (bytes: Uint8Array): Either.Either<GroupMetadata, MalformedWelcome | NotYetUnderstood> =>
  Either.gen(function* () {
    const { conversationType, creatorInboxId, dmMembers } = yield* Either.mapLeft(
      strictProtobuf.decode(GroupMetadataV1Schema, bytes),
      () => new MalformedWelcome({ part: "GroupMetadata", reason: "NotProtobuf" })
    )
    const type = types.get(conversationType)
    if (type === undefined) {
      return yield* Either.left(new NotYetUnderstood({ feature: "ConversationType", value: conversationType }))
    }
    if (dmMembers === undefined) return { conversationType: type, creatorInboxId, dmMembers: Option.none() }
    const { dmMemberOne, dmMemberTwo } = dmMembers
    if (dmMemberOne === undefined || dmMemberTwo === undefined) {
      return yield* Either.left(new MalformedWelcome({ part: "GroupMetadata", reason: "InvalidInboxId" }))
    }
    return {
      conversationType: type,
      creatorInboxId,
      dmMembers: Option.some([dmMemberOne.inboxId, dmMemberTwo.inboxId] as const)
    }
  })

/** `Inboxes { repeated string inbox_ids = 1 }` */
const isEmpty = (inboxes: Uint8Array): boolean => {
  const reader = new ProstReader(inboxes)
  let isEmpty = true
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    if (field === 1) {
      reader.text()
      isEmpty = false
    } else reader.skip(field)
  }
  return isEmpty
}

/**
 * Whether the metadata that may change (extension 0xff00, `xmtp.mls.message_contents.GroupMutableMetadataV1`) names an admin
 * or a super admin. A DM has none.
 *
 * @since 1.0.0
 * @category conversions
 */
export const hasAdmins = (mutableMetadata: Uint8Array): Either.Either<boolean, MalformedWelcome> =>
  attempt(
    (): Either.Either<boolean, MalformedWelcome> => {
      const reader = new ProstReader(mutableMetadata)
      let isFound = false
      for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
        if (field !== 2 && field !== 3) reader.skip(field)
        else if (!isEmpty(reader.delimited())) isFound = true
      }
      return Either.right(isFound)
    },
    () => Either.left(new MalformedWelcome({ part: "GroupMetadata", reason: "NotProtobuf" }))
  )
