/**
 * Everything a node remembers, in memory.
 *
 * @since 1.0.0
 */
import type { WelcomeMessageInput } from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { GrpcStatus } from "./GrpcStatus.ts"
import * as Status from "./GrpcStatus.ts"
import * as IdentityLog from "./IdentityLog.ts"
import * as KeyPackages from "./KeyPackages.ts"
import { NodeValidation } from "./NodeValidation.ts"
import * as TopicLog from "./TopicLog.ts"

/**
 * A group message as a node files it.
 *
 * @since 1.0.0
 * @category models
 */
export interface StoredGroupMessage {
  readonly groupId: Uint8Array
  /** The MLSMessage, TLS bytes. */
  readonly data: Uint8Array
  readonly senderHmac: Uint8Array
  readonly shouldPush: boolean
  /** A commit or a proposal. */
  readonly isCommit: boolean
}

/**
 * An entry of a group's commit log.
 *
 * @since 1.0.0
 * @category models
 */
export interface StoredCommitLogEntry {
  readonly serializedCommitLogEntry: Uint8Array
  /** A `RecoverableEd25519Signature` protobuf. */
  readonly signature: Uint8Array
}

/**
 * A Welcome or a Welcome pointer, without its id and time.
 *
 * @since 1.0.0
 * @category models
 */
export type StoredWelcome = Exclude<WelcomeMessageInput["version"], { readonly case: undefined }>

/**
 * What a migrated node answers to writes. Clients tell the move by this text (libxmtp `xmtp_configuration`, `d14n.rs`).
 *
 * @since 1.0.0
 * @category constants
 */
export const publishingMoved: GrpcStatus = Status.unavailable(
  "publishing to XMTP V3 is no longer available. Please upgrade your client to XMTP D14N."
)

/**
 * What a migrated node answers to streams.
 *
 * @since 1.0.0
 * @category constants
 */
export const streamingMoved: GrpcStatus = Status.unavailable(
  "XMTP V3 streaming is no longer available. Please upgrade your client to XMTP D14N."
)

/**
 * The memory of one node. Tests read it, and write what no client may.
 *
 * @since 1.0.0
 * @category tags
 */
export class NodeState extends Context.Tag("@keyward/test-utils/NodeState")<
  NodeState,
  {
    readonly keyPackages: KeyPackages.KeyPackages
    readonly identity: IdentityLog.IdentityLog
    /** By group id. */
    readonly groupMessages: TopicLog.TopicLog<StoredGroupMessage>
    /** By installation key, or by the topic of a shared Welcome that pointers point at. */
    readonly welcomes: TopicLog.TopicLog<StoredWelcome>
    /** By group id. */
    readonly commitLog: TopicLog.TopicLog<StoredCommitLogEntry>
    /** From now on this API takes no writes and no streams, as after the move to d14n. */
    readonly migrate: Effect.Effect<void>
    readonly isMigrated: Effect.Effect<boolean>
    /** Fails when the node migrates, and never succeeds: ends the streams. */
    readonly cutover: Deferred.Deferred<never, GrpcStatus>
  }
>() {}

/**
 * A node that knows nothing yet.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make: Effect.Effect<Context.Tag.Service<NodeState>, never, NodeValidation> = Effect.gen(function* () {
  const { emptyInbox } = yield* NodeValidation
  const cutover = yield* Deferred.make<never, GrpcStatus>()
  return {
    keyPackages: yield* KeyPackages.make,
    identity: yield* IdentityLog.make(emptyInbox),
    groupMessages: yield* TopicLog.make<StoredGroupMessage>(),
    welcomes: yield* TopicLog.make<StoredWelcome>(),
    commitLog: yield* TopicLog.make<StoredCommitLogEntry>(),
    migrate: Effect.asVoid(Deferred.fail(cutover, streamingMoved)),
    isMigrated: Deferred.isDone(cutover),
    cutover
  }
})

/**
 * A node that knows nothing yet.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<NodeState, never, NodeValidation> = Layer.effect(NodeState, make)
