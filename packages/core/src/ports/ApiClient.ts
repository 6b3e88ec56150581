/**
 * The network, as far as the life of a key package needs it.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import type * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type { Identifier } from "../identity/Identifier.ts"
import type { InboxId } from "../identity/InboxId.ts"
import type { InstallationId } from "../identity/InstallationId.ts"

/**
 * The calls of the port, as errors and recordings name them.
 *
 * @since 1.0.0
 * @category models
 */
export const Operation = Schema.Literal(
  "uploadKeyPackage",
  "fetchKeyPackages",
  "publishIdentityUpdate",
  "getIdentityUpdates",
  "getInboxIds"
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
     * are asked once and answered in every place.
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
  /** Bytes of one message, either way. */
  messageBytes: 25 * 1024 * 1024
} as const

/**
 * How long a layer waits for one answer unless it is told otherwise.
 *
 * @since 1.0.0
 * @category constants
 */
export const defaultTimeout: Duration.DurationInput = "30 seconds"
