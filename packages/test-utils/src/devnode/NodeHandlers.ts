/**
 * The v3 API of a node, call by call, as xmtp-node-go answers it (`pkg/mls/api/v1/service.go`,
 * `pkg/identity/api/v1/identity_service.go`, `pkg/mls/store`).
 *
 * @since 1.0.0
 */
import { createHash } from "node:crypto"
import {
  create,
  type DescMessage,
  type DescMethod,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary
} from "@bufbuild/protobuf"
import { IdentityApi } from "@keyward/network/gen/xmtp/identity/api/v1/identity_pb"
import {
  type GroupMessage,
  GroupMessageSchema,
  MlsApi,
  SortDirection,
  type WelcomeMessage,
  WelcomeMessageSchema,
  WelcomePointerWrapperAlgorithm,
  WelcomeWrapperAlgorithm
} from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as GroupMessageHeader from "./GroupMessageHeader.ts"
import type { GrpcStatus } from "./GrpcStatus.ts"
import * as Status from "./GrpcStatus.ts"
import * as NodeState from "./NodeState.ts"
import { NodeValidation } from "./NodeValidation.ts"
import type { Entry } from "./TopicLog.ts"

/**
 * A method over bytes: protobuf messages in and out.
 *
 * @since 1.0.0
 * @category models
 */
export type Handler =
  | {
      readonly kind: "unary"
      readonly method: DescMethod
      readonly handle: (request: Uint8Array) => Effect.Effect<Uint8Array, GrpcStatus>
    }
  | {
      readonly kind: "serverStreaming"
      readonly method: DescMethod
      readonly handle: (request: Uint8Array) => Stream.Stream<Uint8Array, GrpcStatus>
    }

/** A method of a generated service, with the types of its messages. */
type MethodOf<I extends DescMessage, O extends DescMessage> = DescMethod & { readonly input: I; readonly output: O }

const decode = <I extends DescMessage>(schema: I, bytes: Uint8Array): Effect.Effect<MessageShape<I>, GrpcStatus> =>
  Effect.try({
    try: () => fromBinary(schema, bytes),
    catch: () => new Status.GrpcStatus({ code: Status.code.internal, detail: "grpc: error unmarshalling request" })
  })

const unary = <I extends DescMessage, O extends DescMessage>(
  method: MethodOf<I, O>,
  handle: (request: MessageShape<I>) => Effect.Effect<MessageInitShape<O>, GrpcStatus>
): Handler => ({
  kind: "unary",
  method,
  handle: (bytes) =>
    decode(method.input, bytes).pipe(
      Effect.flatMap(handle),
      Effect.map((response) => toBinary(method.output, create(method.output, response)))
    )
})

const serverStreaming = <I extends DescMessage, O extends DescMessage>(
  method: MethodOf<I, O>,
  handle: (request: MessageShape<I>) => Stream.Stream<MessageShape<O>, GrpcStatus>
): Handler => ({
  kind: "serverStreaming",
  method,
  handle: (bytes) =>
    Stream.unwrap(Effect.map(decode(method.input, bytes), handle)).pipe(
      Stream.map((message) => toBinary(method.output, message))
    )
})

/** Entries that one `BatchPublishCommitLog`, and requests that one `BatchQueryCommitLog` takes. */
const MAX_BATCH_INSERTS = 10
const MAX_BATCH_QUERIES = 20

/** What a node tells duplicates by: SHA-256 of the topic and the data, one after the other. */
const identityOf = (topic: Uint8Array, data: Uint8Array): Option.Option<string> =>
  Option.some(createHash("sha256").update(topic).update(data).digest("base64"))

const toGroupMessage = (
  { createdNs, id, value }: Entry<NodeState.StoredGroupMessage>,
  includeContent = true
): GroupMessage =>
  create(GroupMessageSchema, {
    version: {
      case: "v1",
      value: {
        id,
        createdNs,
        groupId: value.groupId,
        isCommit: value.isCommit,
        ...(includeContent ? { data: value.data, senderHmac: value.senderHmac, shouldPush: value.shouldPush } : {})
      }
    }
  })

const toWelcomeMessage = ({ createdNs, id, value: welcome }: Entry<NodeState.StoredWelcome>): WelcomeMessage => {
  if (welcome.case === "v1") {
    const { data, hpkePublicKey, installationKey, welcomeMetadata, wrapperAlgorithm } = welcome.value
    const value = { id, createdNs, installationKey, data, hpkePublicKey, wrapperAlgorithm, welcomeMetadata }
    return create(WelcomeMessageSchema, { version: { case: "v1", value } })
  }
  const { hpkePublicKey, installationKey, welcomePointer, wrapperAlgorithm } = welcome.value
  const value = { id, createdNs, installationKey, welcomePointer, hpkePublicKey, wrapperAlgorithm }
  return create(WelcomeMessageSchema, { version: { case: "welcomePointer", value } })
}

/**
 * What a node does otherwise than real ones.
 *
 * @since 1.0.0
 * @category models
 */
export interface NodeOptions {
  /**
   * Takes Welcome pointers that are wrapped by Curve25519 too; not unless given. libxmtp makes them for packages without an X-Wing
   * key and writes wrapper algorithm 1 (`mls_sync.rs`, `send_welcomes`), and xmtp-node-go refuses the whole request, since
   * `WelcomePointerWrapperAlgorithm` has X-Wing only. This shows how a receiver would take them.
   */
  readonly acceptsCurve25519Pointers?: boolean | undefined
}

/** Nothing but X-Wing has a name in `WelcomePointerWrapperAlgorithm`: this is the number of Welcomes. */
const CURVE25519: number = WelcomeWrapperAlgorithm.CURVE25519

const checkWelcome = (
  { version }: { readonly version: NodeState.StoredWelcome | { readonly case: undefined } },
  { acceptsCurve25519Pointers = false }: NodeOptions
) => {
  if (version.case === undefined) {
    return Effect.fail(Status.invalidArgument("invalid welcome message: missing version"))
  }
  if (version.case === "v1") {
    const { data, hpkePublicKey, installationKey, wrapperAlgorithm } = version.value
    // Only the shared Welcome of pointers, sealed symmetrically, is for no one's key.
    const needsKey = wrapperAlgorithm !== WelcomeWrapperAlgorithm.SYMMETRIC_KEY
    return data.length === 0 || installationKey.length === 0 || (needsKey && hpkePublicKey.length === 0)
      ? Effect.fail(Status.invalidArgument("invalid welcome message"))
      : Effect.succeed<NodeState.StoredWelcome>(version)
  }
  const { hpkePublicKey, installationKey, welcomePointer, wrapperAlgorithm } = version.value
  if (installationKey.length === 0 || welcomePointer.length === 0 || hpkePublicKey.length === 0) {
    return Effect.fail(Status.invalidArgument("invalid welcome pointer message"))
  }
  return wrapperAlgorithm === WelcomePointerWrapperAlgorithm.XWING_MLKEM_768_DRAFT_6 ||
    (acceptsCurve25519Pointers && wrapperAlgorithm === CURVE25519)
    ? Effect.succeed<NodeState.StoredWelcome>(version)
    : Effect.fail(
        Status.invalidArgument(
          `invalid welcome pointer wrapper algorithm: invalid welcome pointer wrapper algorithm ${wrapperAlgorithm}`
        )
      )
}

const mlsHandlers = (
  node: Context.Tag.Service<NodeState.NodeState>,
  validation: Context.Tag.Service<NodeValidation>,
  options: NodeOptions
): ReadonlyArray<Handler> => {
  const writable = Effect.flatMap(node.isMigrated, (moved) => (moved ? NodeState.publishingMoved : Effect.void))

  const store = (keyPackage: { readonly keyPackageTlsSerialized: Uint8Array } | undefined) =>
    Effect.gen(function* () {
      yield* writable
      if (keyPackage === undefined) return yield* Status.invalidArgument("no key package")
      const bytes = keyPackage.keyPackageTlsSerialized
      const installationKey = yield* Effect.mapError(validation.keyPackage(bytes), (reason) =>
        Status.invalidArgument(`invalid identity: validation failed with error ${reason}`)
      )
      yield* node.keyPackages.put(installationKey, bytes)
      return installationKey
    })

  return [
    unary(MlsApi.method.uploadKeyPackage, ({ keyPackage }) => Effect.as(store(keyPackage), {})),
    unary(MlsApi.method.registerInstallation, ({ keyPackage }) =>
      Effect.map(store(keyPackage), (installationKey) => ({ installationKey }))
    ),
    unary(MlsApi.method.fetchKeyPackages, ({ installationKeys }) =>
      Effect.map(node.keyPackages.fetch(installationKeys), (served) => ({
        keyPackages: served.map((keyPackageTlsSerialized) => ({ keyPackageTlsSerialized }))
      }))
    ),

    unary(MlsApi.method.sendWelcomeMessages, ({ messages }) =>
      Effect.gen(function* () {
        yield* writable
        if (messages.length === 0) return yield* Status.invalidArgument("no welcome messages to send")
        const welcomes = yield* Effect.forEach(messages, (message) => checkWelcome(message, options))
        yield* Effect.forEach(welcomes, (welcome) => {
          const { installationKey } = welcome.value
          const data = welcome.case === "v1" ? welcome.value.data : welcome.value.welcomePointer
          return node.welcomes.append(installationKey, welcome, identityOf(installationKey, data))
        })
        return {}
      })
    ),
    unary(MlsApi.method.queryWelcomeMessages, ({ installationKey, pagingInfo }) =>
      Effect.gen(function* () {
        if (installationKey.length === 0) return yield* Status.unknown("installation is required")
        const page = yield* node.welcomes.query(installationKey, pagingInfo)
        return { messages: page.entries.map(toWelcomeMessage), pagingInfo: page.paging }
      })
    ),
    serverStreaming(MlsApi.method.subscribeWelcomeMessages, ({ filters }) =>
      filters.length === 0
        ? Stream.fail(Status.invalidArgument("no valid filters provided"))
        : filters.some(({ installationKey }) => installationKey.length === 0)
          ? Stream.fail(Status.invalidArgument("a filter is nil or installation key is empty"))
          : node.welcomes
              .subscribe(filters.map(({ idCursor, installationKey }) => ({ topic: installationKey, after: idCursor })))
              .pipe(Stream.map(toWelcomeMessage), Stream.interruptWhenDeferred(node.cutover))
    ),

    unary(MlsApi.method.sendGroupMessages, ({ messages }) =>
      Effect.gen(function* () {
        yield* writable
        if (messages.length === 0) return yield* Status.invalidArgument("no group messages to send")
        const parsed = yield* Effect.forEach(messages, ({ version }) =>
          version.case === undefined
            ? Effect.fail(Status.invalidArgument("invalid group message"))
            : GroupMessageHeader.parse(version.value.data).pipe(
                Effect.mapBoth({
                  onSuccess: (header) => ({ ...version.value, ...header }),
                  onFailure: (reason) =>
                    Status.invalidArgument(`invalid group message: validation failed with error ${reason}`)
                })
              )
        )
        yield* Effect.forEach(parsed, ({ data, groupId, isCommit, senderHmac, shouldPush }) =>
          groupId.length === 0
            ? Effect.fail(Status.invalidArgument("group id is empty"))
            : node.groupMessages.append(
                groupId,
                { groupId, data, senderHmac, shouldPush, isCommit },
                identityOf(groupId, data)
              )
        )
        return {}
      })
    ),
    unary(MlsApi.method.queryGroupMessages, ({ groupId, pagingInfo }) =>
      Effect.gen(function* () {
        if (groupId.length === 0) return yield* Status.unknown("group is required")
        const page = yield* node.groupMessages.query(groupId, pagingInfo)
        return { messages: page.entries.map((entry) => toGroupMessage(entry)), pagingInfo: page.paging }
      })
    ),
    serverStreaming(MlsApi.method.subscribeGroupMessages, ({ filters }) =>
      node.groupMessages.subscribe(filters.map(({ groupId, idCursor }) => ({ topic: groupId, after: idCursor }))).pipe(
        Stream.map((entry) => toGroupMessage(entry)),
        Stream.interruptWhenDeferred(node.cutover)
      )
    ),
    unary(MlsApi.method.getNewestGroupMessage, ({ groupIds, includeContent }) =>
      Effect.gen(function* () {
        if (groupIds.length === 0) return yield* Status.invalidArgument("no group ids provided")
        const responses = yield* Effect.forEach(groupIds, (groupId) =>
          Effect.map(node.groupMessages.entries(groupId), (entries) => {
            const newest = entries.at(-1)
            return newest === undefined ? {} : { groupMessage: toGroupMessage(newest, includeContent) }
          })
        )
        return { responses }
      })
    ),

    unary(MlsApi.method.batchPublishCommitLog, ({ requests }) =>
      Effect.gen(function* () {
        yield* writable
        if (requests.length === 0) return yield* Status.invalidArgument("no log entries to publish")
        if (requests.length > MAX_BATCH_INSERTS) {
          return yield* Status.invalidArgument(`cannot exceed ${MAX_BATCH_INSERTS} inserts in single batch`)
        }
        for (const { groupId, serializedCommitLogEntry, signature } of requests) {
          if (groupId.length === 0 || serializedCommitLogEntry.length === 0 || signature === undefined) {
            return yield* Status.invalidArgument("invalid commit log entry")
          }
          yield* node.commitLog.append(groupId, { serializedCommitLogEntry, signature }, Option.none())
        }
        return {}
      })
    ),
    unary(MlsApi.method.batchQueryCommitLog, ({ requests }) =>
      Effect.gen(function* () {
        if (requests.length === 0) return yield* Status.invalidArgument("no requests to query")
        if (requests.length > MAX_BATCH_QUERIES) {
          return yield* Status.invalidArgument(`cannot exceed ${MAX_BATCH_QUERIES} queries in single batch`)
        }
        const responses = yield* Effect.forEach(requests, ({ groupId, pagingInfo }) =>
          Effect.gen(function* () {
            if (groupId.length === 0) return yield* Status.invalidArgument("invalid request")
            if (pagingInfo?.direction === SortDirection.DESCENDING) {
              return yield* new Status.GrpcStatus({
                code: Status.code.internal,
                detail: "failed to query commit log: descending direction is not supported"
              })
            }
            const page = yield* node.commitLog.query(groupId, {
              $typeName: "xmtp.mls.api.v1.PagingInfo",
              limit: pagingInfo?.limit ?? 0,
              idCursor: pagingInfo?.idCursor ?? 0n,
              direction: SortDirection.ASCENDING
            })
            return {
              groupId,
              pagingInfo: page.paging,
              commitLogEntries: page.entries.map(({ id, value }) => ({ sequenceId: id, ...value }))
            }
          })
        )
        return { responses }
      })
    )
  ]
}

const identityHandlers = (
  node: Context.Tag.Service<NodeState.NodeState>,
  validation: Context.Tag.Service<NodeValidation>
): ReadonlyArray<Handler> => [
  unary(IdentityApi.method.publishIdentityUpdate, ({ identityUpdate }) =>
    Effect.gen(function* () {
      if (yield* node.isMigrated) return yield* NodeState.publishingMoved
      if (identityUpdate === undefined) return yield* Status.unknown("IdentityUpdate is required")
      yield* node.identity.publish(identityUpdate)
      return {}
    })
  ),
  unary(IdentityApi.method.getIdentityUpdates, ({ requests }) =>
    Effect.map(node.identity.read(requests), (logs) => ({
      responses: requests.map(({ inboxId }, index) => ({ inboxId, updates: [...(logs[index] ?? [])] }))
    }))
  ),
  unary(IdentityApi.method.getInboxIds, ({ requests }) =>
    Effect.map(
      Effect.forEach(requests, ({ identifier }) =>
        Effect.map(node.identity.inboxIdOf(identifier), (inboxId) =>
          // The node leaves the kind unset.
          inboxId === undefined ? { identifier } : { identifier, inboxId }
        )
      ),
      (responses) => ({ responses })
    )
  ),
  unary(IdentityApi.method.verifySmartContractWalletSignatures, ({ signatures }) =>
    Effect.map(
      Effect.forEach(signatures, ({ accountId, blockNumber, hash, signature }) =>
        Effect.match(validation.smartContractWallet({ accountId, blockNumber, hash, signature }), {
          onSuccess: (isValid) => (blockNumber === undefined ? { isValid } : { isValid, blockNumber }),
          onFailure: (error) => ({ isValid: false, error })
        })
      ),
      (responses) => ({ responses })
    )
  )
]

/**
 * Every method that the node answers.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (
  options: NodeOptions = {}
): Effect.Effect<ReadonlyArray<Handler>, never, NodeState.NodeState | NodeValidation> =>
  Effect.gen(function* () {
    const node = yield* NodeState.NodeState
    const validation = yield* NodeValidation
    return [...mlsHandlers(node, validation, options), ...identityHandlers(node, validation)]
  })
