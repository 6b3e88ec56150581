/**
 * The `ApiClient` port over a node in memory, with no network between. It asks as the real layers ask (deduplicated, in
 * chunks, protobuf both ways) and meets the same script of faults.
 *
 * @since 1.0.0
 */
import type { DescMessage, DescMethod, MessageInitShape, MessageShape } from "@bufbuild/protobuf"
import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import type { Identifier } from "@keyward/core/identity/Identifier"
import { InboxId } from "@keyward/core/identity/InboxId"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import {
  ApiClient,
  ApiClientError,
  defaultTimeout,
  limits,
  type Operation,
  type Reason
} from "@keyward/core/ports/ApiClient"
import { IdentifierKind, IdentityApi } from "@keyward/network/gen/xmtp/identity/api/v1/identity_pb"
import { MlsApi } from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import * as Chunk from "effect/Chunk"
import type * as Context from "effect/Context"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import { layerNode } from "./devnode/DevNode.ts"
import * as Status from "./devnode/GrpcStatus.ts"
import { NodeApi, type NodeError } from "./devnode/NodeApi.ts"
import { type NodeState, publishingMoved } from "./devnode/NodeState.ts"
import type { NodeValidation } from "./devnode/NodeValidation.ts"
import type { Faults } from "./Faults.ts"

/** A method of a generated service that is an operation of the port, with the types of its messages. */
type MethodOf<I extends DescMessage, O extends DescMessage> = DescMethod & {
  readonly input: I
  readonly output: O
  readonly localName: string
}

const reasons: Readonly<Record<number, Reason>> = {
  [Status.code.unknown]: "Internal",
  [Status.code.invalidArgument]: "InvalidRequest",
  [Status.code.deadlineExceeded]: "Internal",
  [Status.code.permissionDenied]: "PermissionDenied",
  [Status.code.resourceExhausted]: "RateLimited",
  [Status.code.unimplemented]: "UnsupportedClient",
  [Status.code.internal]: "Internal",
  [Status.code.unavailable]: "Unavailable"
}

const toApiClientError = (operation: Operation, error: NodeError): ApiClientError => {
  if (error._tag === "ConnectionDropped") return new ApiClientError({ operation, reason: "Transport" })
  const { code, detail, retryAfter } = error
  return new ApiClientError({
    operation,
    reason: detail === publishingMoved.detail ? "MigratedToD14n" : (reasons[code] ?? "Internal"),
    grpcCode: code,
    detail: detail.slice(0, 512),
    ...(retryAfter === undefined ? {} : { retryAfter })
  })
}

const malformed = (operation: Operation, detail: string): ApiClientError =>
  new ApiClientError({ operation, reason: "MalformedResponse", detail })

const isInboxId = Schema.is(InboxId)

const wireIdentifier = (identifier: Identifier) =>
  identifier._tag === "Ethereum"
    ? { identifier: identifier.address, identifierKind: IdentifierKind.ETHEREUM }
    : { identifier: identifier.publicKey, identifierKind: IdentifierKind.PASSKEY }

/**
 * Asks for each distinct key once, `size` at a time, and gives every key its answer, in the order asked.
 */
const inChunks = <K, A, E>(
  keys: ReadonlyArray<K>,
  keyOf: (key: K) => string,
  size: number,
  ask: (keys: ReadonlyArray<K>) => Effect.Effect<ReadonlyArray<A>, E>
): Effect.Effect<(key: K) => A | undefined, E> => {
  const distinct = [...new Map(keys.map((key) => [keyOf(key), key])).values()]
  const chunks = Chunk.chunksOf(Chunk.unsafeFromArray(distinct), size)
  return Effect.map(
    Effect.forEach(chunks, (chunk) => ask(Chunk.toReadonlyArray(chunk))),
    (answers) => {
      const found = new Map(answers.flat().map((answer, index) => [keyOf(distinct[index] as K), answer]))
      return (key) => found.get(keyOf(key))
    }
  )
}

/**
 * A client of the node in the context.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (
  options: {
    /** How long a call waits for its answer. */
    readonly timeout?: Duration.DurationInput | undefined
  } = {}
): Effect.Effect<Context.Tag.Service<ApiClient>, never, NodeApi> =>
  Effect.map(NodeApi, (node) => {
    const { timeout = defaultTimeout } = options

    const call = <I extends DescMessage, O extends DescMessage>(
      operation: Operation,
      method: MethodOf<I, O>,
      request: MessageInitShape<I>
    ): Effect.Effect<MessageShape<O>, ApiClientError> =>
      Effect.gen(function* () {
        const bytes = toBinary(method.input, create(method.input, request))
        if (bytes.length > limits.messageBytes) {
          return yield* new ApiClientError({ operation, reason: "RequestTooLarge", detail: `${bytes.length} bytes` })
        }
        const response = yield* node.call(`/${method.parent.typeName}/${method.name}`, bytes, "memory").pipe(
          Effect.mapError((error) => toApiClientError(operation, error)),
          Effect.timeoutFail({
            duration: timeout,
            onTimeout: () => new ApiClientError({ operation, reason: "Timeout" })
          })
        )
        return yield* Effect.try({
          try: () => fromBinary(method.output, response),
          catch: (cause) => new ApiClientError({ operation, reason: "MalformedResponse", cause })
        })
      })

    const requireCount = (operation: Operation, asked: number, answered: number) =>
      asked === answered ? Effect.void : Effect.fail(malformed(operation, `${answered} answers to ${asked} questions`))

    return {
      uploadKeyPackage: (keyPackage) =>
        Effect.asVoid(
          call("uploadKeyPackage", MlsApi.method.uploadKeyPackage, {
            keyPackage: { keyPackageTlsSerialized: keyPackage },
            isInboxIdCredential: true
          })
        ),

      fetchKeyPackages: Effect.fnUntraced(function* (installationIds) {
        const answer = yield* inChunks(
          installationIds,
          (id) => id,
          limits.keyPackagesPerRequest,
          Effect.fnUntraced(function* (ids) {
            const { keyPackages } = yield* call("fetchKeyPackages", MlsApi.method.fetchKeyPackages, {
              installationKeys: ids.map(InstallationId.toPublicKey)
            })
            yield* requireCount("fetchKeyPackages", ids.length, keyPackages.length)
            return keyPackages.map(({ keyPackageTlsSerialized }) => keyPackageTlsSerialized)
          })
        )
        return installationIds.map((id) => Option.filter(Option.fromNullable(answer(id)), ({ length }) => length > 0))
      }),

      publishIdentityUpdate: (identityUpdate) =>
        Effect.asVoid(call("publishIdentityUpdate", IdentityApi.method.publishIdentityUpdate, { identityUpdate })),

      getIdentityUpdates: Effect.fnUntraced(function* (requests) {
        // An inbox is asked once, from the lowest cursor: a node mixes up two requests for one inbox.
        const lowest = new Map<InboxId, bigint>()
        for (const { after, inboxId } of requests) {
          const known = lowest.get(inboxId)
          lowest.set(inboxId, known === undefined || after < known ? after : known)
        }
        const answer = yield* inChunks(
          [...lowest],
          ([inboxId]) => inboxId,
          limits.inboxesPerRequest,
          Effect.fnUntraced(function* (asked) {
            const operation = "getIdentityUpdates"
            const { responses } = yield* call(operation, IdentityApi.method.getIdentityUpdates, {
              requests: asked.map(([inboxId, sequenceId]) => ({ inboxId, sequenceId }))
            })
            yield* requireCount(operation, asked.length, responses.length)
            if (responses.some(({ inboxId }, index) => inboxId !== asked[index]?.[0])) {
              return yield* malformed(operation, "the answers are not in the order of the questions")
            }
            return responses.map(({ updates }) => updates)
          })
        )
        return requests.map(({ after, inboxId }) =>
          (answer([inboxId, after]) ?? [])
            .filter(({ sequenceId }) => sequenceId > after)
            .map(({ sequenceId, serverTimestampNs, update }) => ({ sequenceId, serverTimestampNs, update }))
        )
      }),

      getInboxIds: Effect.fnUntraced(function* (identifiers) {
        const answer = yield* inChunks(
          identifiers,
          (identifier) => `${identifier._tag}:${wireIdentifier(identifier).identifier}`,
          limits.inboxesPerRequest,
          Effect.fnUntraced(function* (asked) {
            const operation = "getInboxIds"
            const requests = asked.map(wireIdentifier)
            const { responses } = yield* call(operation, IdentityApi.method.getInboxIds, { requests })
            yield* requireCount(operation, asked.length, responses.length)
            return yield* Effect.forEach(responses, ({ identifier, inboxId }, index) => {
              if (identifier !== requests[index]?.identifier) {
                return Effect.fail(malformed(operation, "the answers are not in the order of the questions"))
              }
              if (inboxId === undefined) return Effect.succeed(Option.none<InboxId>())
              return isInboxId(inboxId)
                ? Effect.succeed(Option.some(inboxId))
                : Effect.fail(malformed(operation, "an inbox id is not 64 lower-case hex digits"))
            })
          })
        )
        return identifiers.map((identifier) => Option.flatten(Option.fromNullable(answer(identifier))))
      })
    }
  })

/**
 * A client of the node in the context, such as `DevNode.layerNode()` or a whole `DevNode.layer()`.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<ApiClient, never, NodeApi> = Layer.effect(ApiClient, make())

/**
 * A client with a node of its own, which judges by this library's rules unless given others.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerWithNode = (
  validation?: Layer.Layer<NodeValidation>
): Layer.Layer<ApiClient | NodeApi | NodeState | Faults> => Layer.provideMerge(layer, layerNode(validation))
