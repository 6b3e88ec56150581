/**
 * The messages of groups, for an app that reads what it was invited to. The life of a key package does not need them.
 *
 * @since 1.0.0
 */
import type * as Arr from "effect/Array"
import * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type * as Stream from "effect/Stream"
import type { ApiClientError, Page, PageRequest, UnknownEntry } from "./ApiClient.ts"

/**
 * A message of a group as the node serves it (`GroupMessage.V1`).
 *
 * @since 1.0.0
 * @category models
 */
export interface GroupMessage {
  readonly _tag: "GroupMessage"
  /** Its place in the group: larger than that of every earlier entry, never 0. */
  readonly id: bigint
  /** Nanoseconds since 1970, by the node's clock. */
  readonly createdNs: bigint
  /** As MLS names the group, 16 bytes from libxmtp. */
  readonly groupId: Uint8Array
  /** The MLSMessage, TLS bytes, exactly as sent; anyone may have sent it. */
  readonly data: Uint8Array
  /** Lets members tell their own messages in push notifications; empty where the sender gave none. */
  readonly senderHmac: Uint8Array
  readonly shouldPush: boolean
  /** The node's word for it: a commit or a proposal. */
  readonly isCommit: boolean
}

/**
 * An entry of a group.
 *
 * @since 1.0.0
 * @category models
 */
export type GroupMessageEntry = GroupMessage | UnknownEntry

/**
 * What a member sends; the node reads the group from the MLSMessage, and adds id and time.
 *
 * @since 1.0.0
 * @category models
 */
export type GroupMessageInput = Pick<GroupMessage, "data" | "senderHmac" | "shouldPush">

/**
 * Where a subscription to one group begins.
 *
 * @since 1.0.0
 * @category models
 */
export interface GroupSubscription {
  readonly groupId: Uint8Array
  /** Only entries with a larger id; 0n begins at the oldest. */
  readonly after: bigint
}

/**
 * The messages of groups, free of any transport. A layer maps each failure to one `ApiClientError` and does not retry.
 *
 * @since 1.0.0
 * @category tags
 */
export class GroupMessages extends Context.Tag("@keyward/core/GroupMessages")<
  GroupMessages,
  {
    /**
     * One page of a group. Pages one after the other, each from the `cursor` of the one before, hold every entry once. An
     * answer with an entry of another group, out of order or not after the cursor is `MalformedResponse`; an empty group
     * id is `InvalidRequest`.
     */
    readonly queryGroupMessages: (
      groupId: Uint8Array,
      page: PageRequest
    ) => Effect.Effect<Page<GroupMessageEntry>, ApiClientError>
    /**
     * The entries of these groups, each after its own id, then those that come, as the node sends them. It ends when the
     * node ends it: subscribe again. As with Welcomes, only queries are complete.
     */
    readonly subscribeGroupMessages: (
      groups: Arr.NonEmptyReadonlyArray<GroupSubscription>
    ) => Stream.Stream<GroupMessageEntry, ApiClientError>
    /**
     * Sends messages, as given and in this order, in as few requests as their size allows. One that the node has already
     * is accepted silently; one that is larger than a message may be is `RequestTooLarge`, before anything is sent.
     */
    readonly sendGroupMessages: (messages: ReadonlyArray<GroupMessageInput>) => Effect.Effect<void, ApiClientError>
  }
>() {}
