/**
 * Scripted faults and recorded calls, shared by the memory `ApiClient` and the dev node: one script tells both what goes
 * wrong, so that a test means the same over a real wire and over none.
 *
 * @since 1.0.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { GrpcStatus } from "./devnode/GrpcStatus.ts"
import * as Status from "./devnode/GrpcStatus.ts"

/**
 * An answer that is not what the call returns. Lists are the one repeated field that each response has.
 *
 * - `Short`, `Long`: one entry too few, one (empty) too many
 * - `Reversed`: the right entries in the wrong order
 * - `Repeated`: the first entry in every place
 * - `Emptied`: as many entries, all empty
 * - `Undecodable`: bytes that are no protobuf message
 * - `KeyPackage`: this package, of whatever installation, in every place of a `fetchKeyPackages` answer
 * - `Bytes`: these bytes in place of the response message
 *
 * @since 1.0.0
 * @category models
 */
export type WrongAnswer = Data.TaggedEnum<{
  Short: {}
  Long: {}
  Reversed: {}
  Repeated: {}
  Emptied: {}
  Undecodable: {}
  KeyPackage: { readonly keyPackage: Uint8Array }
  Bytes: { readonly bytes: Uint8Array }
}>

/**
 * @since 1.0.0
 * @category constructors
 */
export const WrongAnswer = Data.taggedEnum<WrongAnswer>()

/**
 * What goes wrong with a stream while it runs.
 *
 * - `Cut`: after so many messages it ends: well, by a broken connection, by a status, or never, saying nothing more
 * - `Slow`: each message comes this much after the one before it was taken, by the clock of the node
 * - `Doubled`: each message comes twice
 * - `Swapped`: of each two messages the second comes first; one without a second waits for it
 * - `LeftOut`: the nth message (from 1) never comes, later ones do
 *
 * @since 1.0.0
 * @category models
 */
export type StreamFault = Data.TaggedEnum<{
  Cut: { readonly after: number; readonly ending: "end" | "drop" | "hang" | GrpcStatus }
  Slow: { readonly duration: Duration.DurationInput }
  Doubled: {}
  Swapped: {}
  LeftOut: { readonly nth: number }
}>

/**
 * @since 1.0.0
 * @category constructors
 */
export const StreamFault = Data.taggedEnum<StreamFault>()

/**
 * What goes wrong with one call. `stage` says what the node did before: nothing, or the whole call.
 *
 * - `Fail`: the caller gets this status; where the node accepted, the caller is misled
 * - `Hang`: no answer, until the caller gives up
 * - `Drop`: the connection breaks
 * - `Delay`: the node does the call and answers later; a caller that gives up before undoes it
 * - `Late`: the caller gets no answer, and the node does the call later, whatever the caller does meanwhile: an upload that
 *   overtakes a newer one
 * - `Wrong`: the node does the call and answers something else
 * - `Stream`: something goes wrong while a stream runs; a call that is answered once does not notice
 *
 * @since 1.0.0
 * @category models
 */
export type Fault = Data.TaggedEnum<{
  Fail: { readonly stage: Stage; readonly status: GrpcStatus }
  Hang: { readonly stage: Stage }
  Drop: { readonly stage: Stage }
  Delay: { readonly duration: Duration.DurationInput }
  Late: { readonly duration: Duration.DurationInput }
  Wrong: { readonly answer: WrongAnswer }
  Stream: { readonly how: StreamFault }
}>

/**
 * When a fault strikes: before the node did anything, or after it accepted.
 *
 * @since 1.0.0
 * @category models
 */
export type Stage = "beforeSend" | "afterAccept"

/**
 * @since 1.0.0
 * @category constructors
 */
export const Fault = Data.taggedEnum<Fault>()

/**
 * The node was never reached: it answers `status` and has done nothing.
 *
 * @since 1.0.0
 * @category constructors
 */
export const failBeforeSend = (status: GrpcStatus = Status.unavailable("fault: unavailable")): Fault =>
  Fault.Fail({ stage: "beforeSend", status })

/**
 * The node accepted, and the caller is told otherwise: an unknown outcome.
 *
 * @since 1.0.0
 * @category constructors
 */
export const failAfterAccept = (status: GrpcStatus = Status.unavailable("fault: lost acknowledgement")): Fault =>
  Fault.Fail({ stage: "afterAccept", status })

/**
 * No answer, until the caller's deadline or interruption.
 *
 * @since 1.0.0
 * @category constructors
 */
export const hang = (stage: Stage = "beforeSend"): Fault => Fault.Hang({ stage })

/**
 * The connection breaks.
 *
 * @since 1.0.0
 * @category constructors
 */
export const drop = (stage: Stage = "beforeSend"): Fault => Fault.Drop({ stage })

/**
 * The call takes this much longer, by the clock of the node.
 *
 * @since 1.0.0
 * @category constructors
 */
export const delay = (duration: Duration.DurationInput): Fault => Fault.Delay({ duration })

/**
 * The caller gets no answer; the node does the call this much later, by its clock.
 *
 * @since 1.0.0
 * @category constructors
 */
export const late = (duration: Duration.DurationInput): Fault => Fault.Late({ duration })

/**
 * The node does the call and answers something else.
 *
 * @since 1.0.0
 * @category constructors
 */
export const wrongAnswer = (answer: WrongAnswer): Fault => Fault.Wrong({ answer })

/**
 * A stream that breaks, or ends otherwise, after so many messages.
 *
 * @since 1.0.0
 * @category constructors
 */
export const cutAfter = (messages: number, ending: "end" | "drop" | "hang" | GrpcStatus = "drop"): Fault =>
  Fault.Stream({ how: StreamFault.Cut({ after: messages, ending }) })

/**
 * A stream in which something goes wrong while it runs.
 *
 * @since 1.0.0
 * @category constructors
 */
export const streaming = (how: StreamFault): Fault => Fault.Stream({ how })

/**
 * `RESOURCE_EXHAUSTED`, with or without the time to wait.
 *
 * @since 1.0.0
 * @category constructors
 */
export const rateLimited = (retryAfter?: Duration.Duration): Fault =>
  failBeforeSend(
    new Status.GrpcStatus({
      code: Status.code.resourceExhausted,
      detail: "rate limit exceeded",
      ...(retryAfter === undefined ? {} : { retryAfter })
    })
  )

/**
 * The way that a call came in.
 *
 * @since 1.0.0
 * @category models
 */
export type Via = "memory" | "grpc" | "grpc-web"

/**
 * A call as the node received it.
 *
 * @since 1.0.0
 * @category models
 */
export interface Call {
  /** The method in lower camel case: `uploadKeyPackage`. The operations of `ApiClient` are methods under the same name. */
  readonly method: string
  readonly via: Via
  /** The request message, protobuf. */
  readonly request: Uint8Array
  /** Milliseconds since 1970 at which it arrived, by the node's clock. */
  readonly at: number
}

/**
 * What became of a call: the status code that its caller got (0 is OK), or none, and why.
 *
 * @since 1.0.0
 * @category models
 */
export type Outcome = Data.TaggedEnum<{
  Pending: {}
  Answered: { readonly code: number; readonly responseBytes: number }
  Dropped: {}
  Interrupted: {}
}>

/**
 * @since 1.0.0
 * @category constructors
 */
export const Outcome = Data.taggedEnum<Outcome>()

/**
 * One recorded call.
 *
 * @since 1.0.0
 * @category models
 */
export interface RecordedCall extends Call {
  readonly outcome: Outcome
  /** The fault that it met. */
  readonly fault: Option.Option<Fault>
  /** Milliseconds since 1970 at which it ended; equal to `at` while it is pending. */
  readonly endedAt: number
}

/**
 * A standing rule: which calls meet which fault. Asked only where the queue of the method is empty.
 *
 * @since 1.0.0
 * @category models
 */
export type Rule = (call: Call) => Option.Option<Fault>

/**
 * The script and the recording.
 *
 * @since 1.0.0
 * @category tags
 */
export class Faults extends Context.Tag("@keyward/test-utils/Faults")<
  Faults,
  {
    /** The next calls of this method meet these faults, one each, in this order. */
    readonly enqueue: (method: string, ...faults: ReadonlyArray<Fault>) => Effect.Effect<void>
    /** From now on every call that no queue answers for is judged by this rule. */
    readonly setRule: (rule: Rule) => Effect.Effect<void>
    /** Forgets queues and rule: everything works again. */
    readonly clear: Effect.Effect<void>
    /** Faults that are queued and have met no call yet. */
    readonly pending: Effect.Effect<number>

    /** All calls since the start or the last `clearCalls`, in order of arrival. */
    readonly calls: Effect.Effect<ReadonlyArray<RecordedCall>>
    /** The calls of one method. */
    readonly callsOf: (method: string) => Effect.Effect<ReadonlyArray<RecordedCall>>
    readonly clearCalls: Effect.Effect<void>

    /** For nodes: notes the call and says which fault it meets, and how to note its end. */
    readonly receive: (call: Omit<Call, "at">) => Effect.Effect<{
      readonly fault: Option.Option<Fault>
      readonly end: (outcome: Outcome) => Effect.Effect<void>
    }>
  }
>() {}

const noRule: Rule = () => Option.none()

/**
 * A fresh script without faults.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make: Effect.Effect<Context.Tag.Service<Faults>> = Effect.sync(() => {
  const queues = new Map<string, Array<Fault>>()
  let rule = noRule
  let recorded: Array<RecordedCall> = []

  return {
    enqueue: (method, ...faults) =>
      Effect.sync(() => {
        queues.set(method, [...(queues.get(method) ?? []), ...faults])
      }),
    setRule: (next) =>
      Effect.sync(() => {
        rule = next
      }),
    clear: Effect.sync(() => {
      queues.clear()
      rule = noRule
    }),
    pending: Effect.sync(() => [...queues.values()].reduce((sum, queue) => sum + queue.length, 0)),

    calls: Effect.sync(() => recorded.slice()),
    callsOf: (method) => Effect.sync(() => recorded.filter((call) => call.method === method)),
    clearCalls: Effect.sync(() => {
      recorded = []
    }),

    receive: (partial) =>
      Effect.map(Clock.currentTimeMillis, (at) => {
        const call: Call = { ...partial, at }
        const fault = Option.orElse(Option.fromNullable(queues.get(call.method)?.shift()), () => rule(call))
        const list = recorded
        const index = list.push({ ...call, fault, outcome: Outcome.Pending(), endedAt: at }) - 1
        return {
          fault,
          end: (outcome) =>
            Effect.map(Clock.currentTimeMillis, (endedAt) => {
              list[index] = { ...call, fault, outcome, endedAt }
            })
        }
      })
  }
})

/**
 * A fresh script without faults.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<Faults> = Layer.effect(Faults, make)
