/**
 * The one way into a node, whatever the transport: bytes in, bytes out, through the script of faults and the recording.
 *
 * @since 1.0.0
 */
import type { DescMessage } from "@bufbuild/protobuf"
import { fromBinary, toBinary } from "@bufbuild/protobuf"
import { reflect } from "@bufbuild/protobuf/reflect"
import { FetchKeyPackagesResponseSchema } from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import * as Cause from "effect/Cause"
import * as Chunk from "effect/Chunk"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import * as Faults from "../Faults.ts"
import * as Status from "./GrpcStatus.ts"
import { ConnectionDropped, type GrpcStatus } from "./GrpcStatus.ts"
import * as NodeHandlers from "./NodeHandlers.ts"
import type { NodeState } from "./NodeState.ts"
import type { NodeValidation } from "./NodeValidation.ts"

/**
 * How a call ends other than well.
 *
 * @since 1.0.0
 * @category errors
 */
export type NodeError = GrpcStatus | ConnectionDropped

/**
 * The node as its transports see it. A path is `/<service>/<method>`.
 *
 * @since 1.0.0
 * @category tags
 */
export class NodeApi extends Context.Tag("@keyward/test-utils/NodeApi")<
  NodeApi,
  {
    /** Whether the method answers once or streams; undefined where the node does not know it. */
    readonly kindOf: (path: string) => "unary" | "serverStreaming" | undefined
    /** One request message, one response message. */
    readonly call: (path: string, request: Uint8Array, via: Faults.Via) => Effect.Effect<Uint8Array, NodeError>
    /** One request message, response messages until the caller or the node ends it. */
    readonly open: (path: string, request: Uint8Array, via: Faults.Via) => Stream.Stream<Uint8Array, NodeError>
  }
>() {}

const falsify = (schema: DescMessage, response: Uint8Array, answer: Faults.WrongAnswer): Uint8Array => {
  if (answer._tag === "Bytes") return answer.bytes
  // Field 1, a length that reaches beyond the end.
  if (answer._tag === "Undecodable") return Uint8Array.of(0x0a, 0xff, 0x01, 0x00)
  if (answer._tag === "KeyPackage") {
    if (schema.typeName !== FetchKeyPackagesResponseSchema.typeName) return response
    const message = fromBinary(FetchKeyPackagesResponseSchema, response)
    for (const slot of message.keyPackages) slot.keyPackageTlsSerialized = answer.keyPackage
    return toBinary(FetchKeyPackagesResponseSchema, message)
  }

  const field = schema.fields.find((candidate) => candidate.fieldKind === "list")
  if (field?.fieldKind !== "list" || field.listKind !== "message") return response
  const message = reflect(schema, fromBinary(schema, response))
  const list = message.get(field)
  const entries = [...list]
  const empty = () => reflect(field.message)
  list.clear()
  for (const entry of rearranged(entries, empty, answer._tag)) list.add(entry)
  return toBinary(schema, message.message)
}

const rearranged = <A>(
  entries: ReadonlyArray<A>,
  empty: () => A,
  how: "Short" | "Long" | "Reversed" | "Repeated" | "Emptied"
): ReadonlyArray<A> => {
  switch (how) {
    case "Short":
      return entries.slice(0, -1)
    case "Long":
      return [...entries, empty()]
    case "Reversed":
      return entries.toReversed()
    case "Repeated":
      return entries.map((entry) => entries[0] ?? entry)
    case "Emptied":
      return entries.map(empty)
  }
}

const disturb = (
  run: Stream.Stream<Uint8Array, NodeError>,
  how: Faults.StreamFault
): Stream.Stream<Uint8Array, NodeError> => {
  switch (how._tag) {
    case "Cut":
      return Stream.concat(Stream.take(run, how.after), endingOf(how.ending))
    case "Slow":
      return Stream.mapEffect(run, (message) => Effect.delay(Effect.succeed(message), how.duration))
    case "Doubled":
      return Stream.mapConcat(run, (message) => [message, message])
    case "Swapped":
      return Stream.grouped(run, 2).pipe(Stream.map(Chunk.reverse), Stream.flattenChunks)
    case "LeftOut":
      return Stream.zipWithIndex(run).pipe(
        Stream.filter(([, index]) => index + 1 !== how.nth),
        Stream.map(([message]) => message)
      )
  }
}

const endingOf = (ending: "end" | "drop" | "hang" | GrpcStatus): Stream.Stream<never, NodeError> => {
  switch (ending) {
    case "end":
      return Stream.empty
    case "drop":
      return Stream.fail(new ConnectionDropped())
    case "hang":
      return Stream.never
    default:
      return Stream.fail(ending)
  }
}

const outcomeOf = (exit: Exit.Exit<number, NodeError>): Faults.Outcome =>
  Exit.match(exit, {
    onSuccess: (responseBytes) => Faults.Outcome.Answered({ code: 0, responseBytes }),
    onFailure: (cause) =>
      Option.match(Cause.failureOption(cause), {
        onNone: () => Faults.Outcome.Interrupted(),
        onSome: (error) =>
          error._tag === "GrpcStatus"
            ? Faults.Outcome.Answered({ code: error.code, responseBytes: 0 })
            : Faults.Outcome.Dropped()
      })
  })

/**
 * A node over its state, its judge and its script of faults.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (options?: NodeHandlers.NodeOptions) =>
  Effect.gen(function* () {
    const faults = yield* Faults.Faults
    // Calls that are done after their caller has gone live as long as the node.
    const lifetime = yield* Effect.scope
    const handlers = new Map(
      (yield* NodeHandlers.make(options)).map((handler) => [
        `/${handler.method.parent.typeName}/${handler.method.name}`,
        handler
      ])
    )

    const call: Context.Tag.Service<NodeApi>["call"] = (path, request, via) =>
      Effect.gen(function* () {
        const handler = handlers.get(path)
        if (handler?.kind !== "unary") return yield* Status.unimplemented(path)
        const { end, fault } = yield* faults.receive({ method: handler.method.localName, via, request })
        const run = handler.handle(request)
        const meet = Option.match(fault, {
          onNone: () => run,
          onSome: Faults.Fault.$match({
            Fail: ({ stage, status }) => (stage === "beforeSend" ? status : Effect.zipRight(run, status)),
            Hang: ({ stage }) => (stage === "beforeSend" ? Effect.never : Effect.zipRight(run, Effect.never)),
            Drop: ({ stage }) =>
              stage === "beforeSend" ? new ConnectionDropped() : Effect.zipRight(run, new ConnectionDropped()),
            Delay: ({ duration }) => Effect.delay(run, duration),
            Late: ({ duration }) =>
              run.pipe(Effect.delay(duration), Effect.forkIn(lifetime), Effect.zipRight(Effect.never)),
            Wrong: ({ answer }) => Effect.map(run, (response) => falsify(handler.method.output, response, answer)),
            Stream: () => run
          })
        })
        return yield* Effect.onExit(meet, (exit) => end(outcomeOf(Exit.map(exit, (response) => response.length))))
      })

    const open: Context.Tag.Service<NodeApi>["open"] = (path, request, via) =>
      Stream.unwrap(
        Effect.gen(function* () {
          const handler = handlers.get(path)
          if (handler?.kind !== "serverStreaming") return yield* Status.unimplemented(path)
          const { end, fault } = yield* faults.receive({ method: handler.method.localName, via, request })
          const run: Stream.Stream<Uint8Array, NodeError> = handler.handle(request)
          // A stream is accepted once it has delivered a message.
          const cutShort = (stage: Faults.Stage, ending: Stream.Stream<never, NodeError>) =>
            stage === "beforeSend" ? ending : Stream.concat(Stream.take(run, 1), ending)
          const meet = Option.match(fault, {
            onNone: () => run,
            onSome: Faults.Fault.$match({
              Fail: ({ stage, status }) => cutShort(stage, Stream.fail(status)),
              Hang: ({ stage }) => cutShort(stage, Stream.never),
              Drop: ({ stage }) => cutShort(stage, Stream.fail(new ConnectionDropped())),
              Delay: ({ duration }) => Stream.concat(Stream.drain(Stream.fromEffect(Effect.sleep(duration))), run),
              Late: () => Stream.never,
              Wrong: ({ answer }) => Stream.map(run, (message) => falsify(handler.method.output, message, answer)),
              Stream: ({ how }) => disturb(run, how)
            })
          })
          let bytes = 0
          let isWhole = false
          return meet.pipe(
            Stream.tap((message) =>
              Effect.sync(() => {
                bytes += message.length
              })
            ),
            Stream.concat(
              Stream.execute(
                Effect.sync(() => {
                  isWhole = true
                })
              )
            ),
            // A caller that takes no more is gone, as one that is interrupted.
            Stream.ensuringWith((exit) =>
              end(
                Exit.isSuccess(exit) && !isWhole ? Faults.Outcome.Interrupted() : outcomeOf(Exit.map(exit, () => bytes))
              )
            )
          )
        })
      )

    return { kindOf: (path: string) => handlers.get(path)?.kind, call, open }
  })

/**
 * A node over its state, its judge and its script of faults.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (
  options?: NodeHandlers.NodeOptions
): Layer.Layer<NodeApi, never, NodeState | NodeValidation | Faults.Faults> => Layer.scoped(NodeApi, make(options))
