/**
 * The network, as far as the life of a key package needs it: packages, identities, and the Welcomes that packages open.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Stream from "effect/Stream"
import type { Identifier } from "../identity/Identifier.ts"
import type { InboxId } from "../identity/InboxId.ts"
import type { InstallationId } from "../identity/InstallationId.ts"

/**
 * The calls of this port and of `GroupMessages`, as errors and recordings name them.
 *
 * @since 1.0.0
 * @category models
 */
export const Operation = Schema.Literal(
  "uploadKeyPackage",
  "fetchKeyPackages",
  "publishIdentityUpdate",
  "getIdentityUpdates",
  "getInboxIds",
  "queryWelcomeMessages",
  "subscribeWelcomeMessages",
  "sendWelcomeMessages",
  "queryGroupMessages",
  "subscribeGroupMessages",
  "sendGroupMessages"
)

/**
 * @since 1.0.0
 * @category models
 */
export type Operation = typeof Operation.Type

/**
 * Why a call failed.
 *
 * - `InvalidRequest`: the node refused what was sent (gRPC 3; 13 from a gateway that names the key package). Sending the
 *   same again helps only if the node's validation service was down
 * - `RateLimited` (8), `Unavailable` (14), `Internal` (2, 4, 10, 13): transient
 * - `PermissionDenied` (7, 16): this address or credential is blocked
 * - `MigratedToD14n` (14 with the cutover text): this API no longer takes writes
 * - `UnsupportedClient` (12): the node does not know the call or refuses this client's version
 * - `Timeout`: no answer in time; the request may have been carried out
 * - `Transport`: the connection failed or broke
 * - `MalformedResponse`: an answer that is not what the call returns: wrong count, wrong type, undecodable
 * - `RequestTooLarge`: refused here, before anything was sent
 *
 * @since 1.0.0
 * @category errors
 */
export const Reason = Schema.Literal(
  "InvalidRequest",
  "RateLimited",
  "Unavailable",
  "Internal",
  "PermissionDenied",
  "MigratedToD14n",
  "UnsupportedClient",
  "Timeout",
  "Transport",
  "MalformedResponse",
  "RequestTooLarge"
)

/**
 * @since 1.0.0
 * @category errors
 */
export type Reason = typeof Reason.Type

const retryable: ReadonlySet<Reason> = new Set<Reason>([
  "RateLimited",
  "Unavailable",
  "Internal",
  "Timeout",
  "Transport"
])

/**
 * The one error of the network layer.
 *
 * @since 1.0.0
 * @category errors
 */
export class ApiClientError extends Schema.TaggedError<ApiClientError>("@keyward/core/ApiClientError")(
  "ApiClientError",
  {
    operation: Operation,
    reason: Reason,
    /** The gRPC status code, where one arrived. */
    grpcCode: Schema.optional(Schema.Int),
    /** What the node or the transport said, cut to 512 characters; never request bytes. */
    detail: Schema.optional(Schema.String),
    /** How long the node asks to wait before the next try. */
    retryAfter: Schema.optional(Schema.DurationFromSelf),
    cause: Schema.optional(Schema.Defect)
  }
) {
  override get message(): string {
    const code = this.grpcCode === undefined ? "" : ` (gRPC ${this.grpcCode})`
    return `${this.operation} failed: ${this.reason}${code}${this.detail === undefined ? "" : `: ${this.detail}`}`
  }
  /** Whether sending the same request again, later, may succeed. */
  get isRetryable(): boolean {
    return retryable.has(this.reason)
  }
}

/**
 * One entry of an inbox's identity log, as the node serves it.
 *
 * @since 1.0.0
 * @category models
 */
export interface IdentityUpdateLogEntry {
  readonly sequenceId: bigint
  /** Nanoseconds since 1970, by the node's clock. */
  readonly serverTimestampNs: bigint
  /** The `xmtp.identity.associations.IdentityUpdate` protobuf, exactly as served. */
  readonly update: Uint8Array
}

/**
 * Which part of an inbox's log to read.
 *
 * @since 1.0.0
 * @category models
 */
export interface IdentityUpdatesRequest {
  readonly inboxId: InboxId
  /** Only entries with a larger sequence id; 0n reads the whole log. */
  readonly after: bigint
}

/**
 * A Welcome as the node serves it (`WelcomeMessage.V1`): an HPKE ciphertext of an MLS Welcome, or the shared Welcome that
 * pointers point at.
 *
 * @since 1.0.0
 * @category models
 */
export interface Welcome {
  readonly _tag: "Welcome"
  /** Its place in the topic: larger than that of every earlier entry, never 0. */
  readonly id: bigint
  /** Nanoseconds since 1970, by the node's clock. */
  readonly createdNs: bigint
  /** The topic: the key of the installation that it is for (32 bytes), or the `destination` of a pointer. */
  readonly installationKey: Uint8Array
  /** The sealed Welcome, exactly as sent; anyone may have sent it. */
  readonly data: Uint8Array
  /** The public key that it was sealed to; empty in a shared Welcome. */
  readonly hpkePublicKey: Uint8Array
  /** As served: 0 and 1 Curve25519, 2 X-Wing draft 06, 3 symmetric key (`WelcomeWrapperAlgorithm`), or a newer one. */
  readonly wrapperAlgorithm: number
  /** The sealed `WelcomeMetadata`; empty where the sender gave none. */
  readonly welcomeMetadata: Uint8Array
}

/**
 * A pointer to a Welcome that several installations share, as the node serves it (`WelcomeMessage.WelcomePointer`).
 *
 * @since 1.0.0
 * @category models
 */
export interface WelcomePointer {
  readonly _tag: "WelcomePointer"
  /** Its place in the topic: larger than that of every earlier entry, never 0. */
  readonly id: bigint
  /** Nanoseconds since 1970, by the node's clock. */
  readonly createdNs: bigint
  /** The key of the installation that it is for, 32 bytes. */
  readonly installationKey: Uint8Array
  /** The sealed pointer, exactly as sent; anyone may have sent it. */
  readonly welcomePointer: Uint8Array
  /** The public key that it was sealed to. */
  readonly hpkePublicKey: Uint8Array
  /** As served: 2 X-Wing draft 06 (`WelcomePointerWrapperAlgorithm`), or a newer one. */
  readonly wrapperAlgorithm: number
}

/**
 * An entry of a kind that this version does not know: sent by a newer client, served by a newer node. It takes a place in
 * the topic like any other.
 *
 * @since 1.0.0
 * @category models
 */
export interface UnknownEntry {
  readonly _tag: "Unknown"
  /**
   * Its place in the topic, where the entry begins as every known kind does (id 1, created_ns 2, topic 3) and names the
   * topic asked; else none, and only a page's `cursor` leads past it.
   */
  readonly id: Option.Option<bigint>
}

/**
 * An entry of a Welcome topic.
 *
 * @since 1.0.0
 * @category models
 */
export type WelcomeMessageEntry = Welcome | WelcomePointer | UnknownEntry

/**
 * What an inviter sends; the node adds id and time.
 *
 * @since 1.0.0
 * @category models
 */
export type WelcomeMessageInput = Omit<Welcome, "id" | "createdNs"> | Omit<WelcomePointer, "id" | "createdNs">

/**
 * Where Welcomes are filed: an installation, or the `destination` (bytes) that a pointer names.
 *
 * @since 1.0.0
 * @category models
 */
export type WelcomeTopic = InstallationId | Uint8Array

/**
 * Which part of a topic to read.
 *
 * @since 1.0.0
 * @category models
 */
export interface PageRequest {
  /** Only entries with a larger id; 0n begins at the oldest. */
  readonly after: bigint
  /** Entries at most, a whole number from 1; 100 unless given, and 100 where it is more. */
  readonly limit?: number | undefined
}

/**
 * A part of a topic, in ascending order of ids.
 *
 * @since 1.0.0
 * @category models
 */
export interface Page<A> {
  readonly entries: ReadonlyArray<A>
  /** Where the next page begins: `after` for the next request. At least that of this request; no entry lies between. */
  readonly cursor: bigint
  /** Whether there may be more. Where it is false, the node had no more when it answered. */
  readonly hasMore: boolean
}

/**
 * The API of an XMTP network, free of any transport. A layer maps each failure to one `ApiClientError` and does not retry:
 * retrying belongs to the pipeline, which knows what may be sent twice.
 *
 * @since 1.0.0
 * @category tags
 */
export class ApiClient extends Context.Tag("@keyward/core/ApiClient")<
  ApiClient,
  {
    /** Publishes a key package (TLS bytes). The node stores it under the package's own leaf key; the last one wins. */
    readonly uploadKeyPackage: (keyPackage: Uint8Array) => Effect.Effect<void, ApiClientError>
    /**
     * The served package of each installation, in the order asked; none where the node knows no package. Duplicate ids
     * are asked once and answered in every place. The bytes may share the memory of the whole answer: whoever keeps some of them
     * for long copies them.
     */
    readonly fetchKeyPackages: (
      installationIds: ReadonlyArray<InstallationId>
    ) => Effect.Effect<ReadonlyArray<Option.Option<Uint8Array>>, ApiClientError>
    /** Publishes a signed `IdentityUpdate` (protobuf bytes), sent exactly as given. */
    readonly publishIdentityUpdate: (identityUpdate: Uint8Array) => Effect.Effect<void, ApiClientError>
    /** The log of each inbox, in the order asked; entries in the node's order, only those after the request's cursor. */
    readonly getIdentityUpdates: (
      requests: ReadonlyArray<IdentityUpdatesRequest>
    ) => Effect.Effect<ReadonlyArray<ReadonlyArray<IdentityUpdateLogEntry>>, ApiClientError>
    /** The inbox of each identifier, in the order asked; none where there is no inbox yet. */
    readonly getInboxIds: (
      identifiers: ReadonlyArray<Identifier>
    ) => Effect.Effect<ReadonlyArray<Option.Option<InboxId>>, ApiClientError>
    /**
     * One page of a Welcome topic. Pages one after the other, each from the `cursor` of the one before, hold every entry
     * once. An answer with an entry of another topic, out of order or not after the cursor is `MalformedResponse`; an
     * empty topic is `InvalidRequest`. A page has fewer entries than asked where they are too large for one answer.
     */
    readonly queryWelcomeMessages: (
      topic: WelcomeTopic,
      page: PageRequest
    ) => Effect.Effect<Page<WelcomeMessageEntry>, ApiClientError>
    /**
     * The entries of an installation's topic after this id, then those that come, as the node sends them. It ends when
     * the node ends it: subscribe again. It is for promptness and not for completeness: a node may leave out an entry
     * that came while it was busy with those of others, and a connection that breaks may repeat some (xmtp-node-go
     * `worker.go`, `service.go`). A cursor that is to lose nothing is moved by `queryWelcomeMessages` alone.
     */
    readonly subscribeWelcomeMessages: (
      installationId: InstallationId,
      after: bigint
    ) => Stream.Stream<WelcomeMessageEntry, ApiClientError>
    /**
     * Sends Welcomes and pointers, as given, in as few requests as their size allows. A node files those of one request in
     * any order (xmtp-node-go inserts them side by side): a pointer may be there a moment before its Welcome. An entry that
     * the node has already is accepted silently, so that all may be sent again when some were not taken. One that is larger
     * than a message may be is `RequestTooLarge`, before anything is sent.
     */
    readonly sendWelcomeMessages: (entries: ReadonlyArray<WelcomeMessageInput>) => Effect.Effect<void, ApiClientError>
  }
>() {}

/**
 * Limits that every layer keeps (libxmtp `xmtp_api`, `GRPC_PAYLOAD_LIMIT`).
 *
 * @since 1.0.0
 * @category constants
 */
export const limits = {
  /** Installations asked in one request. */
  keyPackagesPerRequest: 1_000,
  /** Inboxes asked in one request. */
  inboxesPerRequest: 50,
  /** Entries of one page (xmtp-node-go `readStore.go`). */
  entriesPerPage: 100,
  /** Bytes of one message that is sent. */
  messageBytes: 25 * 1024 * 1024,
  /** Bytes of one message that is read: whatever a node takes (50 MiB, xmtp-node-go `max-msg-size`), it may serve. */
  answerBytes: 51 * 1024 * 1024
} as const

/**
 * How long a layer waits for one answer, or for a stream to begin, unless it is told otherwise.
 *
 * @since 1.0.0
 * @category constants
 */
export const defaultTimeout: Duration.DurationInput = "30 seconds"
