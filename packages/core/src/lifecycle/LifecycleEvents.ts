/**
 * What happened to the key packages, as it happens: for logs, metrics and user interfaces. Ids and times only.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"
import type { InstallationId } from "../identity/InstallationId.ts"
import type { HistoryId, RetirementReason, RotationTrigger } from "./Ledger.ts"

/** What every event has. */
interface About {
  readonly installationId: InstallationId
  readonly at: DateTime.Utc
}

/** What an event about one package has. */
interface AboutPackage extends About {
  readonly historyId: HistoryId
}

/**
 * One thing that happened.
 *
 * - `Generated`: a package and its keys are durable
 * - `Exposed`: its bytes are about to be sent
 * - `Published`: the network accepted it, or was seen to serve it
 * - `UploadFailed`: it did not; `detail` says why, and the same bytes are sent again
 * - `RotationFailed`: a rotation broke off, for that or another reason; the next one is not before `retryAt`
 * - `Rejected`: the network refused it for good, and so does our own validator
 * - `Superseded`: a later one was published; its keys may be erased from `deleteAt` on
 * - `Retired`: its private keys were erased
 * - `Quarantined`: its row cannot be read, and is set aside
 * - `Unreachable`: the network does not serve what it should; `verdict` is the tag of a `Reachability`
 * - `Repaired`: it does again
 *
 * @since 1.0.0
 * @category models
 */
export type LifecycleEvent = Data.TaggedEnum<{
  Generated: AboutPackage & { readonly trigger: RotationTrigger }
  Exposed: AboutPackage
  Published: AboutPackage
  UploadFailed: AboutPackage & { readonly detail: string }
  RotationFailed: About & { readonly detail: string; readonly retryAt: DateTime.Utc }
  Rejected: AboutPackage & { readonly detail: string }
  Superseded: AboutPackage & { readonly supersededBy: HistoryId; readonly deleteAt: DateTime.Utc }
  Retired: AboutPackage & { readonly reason: RetirementReason }
  Quarantined: AboutPackage & { readonly column: string; readonly deleteAt: DateTime.Utc }
  Unreachable: About & { readonly verdict: string }
  Repaired: About & { readonly verdict: string }
}>

/**
 * @since 1.0.0
 * @category constructors
 */
export const LifecycleEvent = Data.taggedEnum<LifecycleEvent>()

/**
 * How many of each kind of event there were, tagged `event`.
 *
 * @since 1.0.0
 * @category metrics
 */
export const eventsTotal: Metric.Metric.Counter<number> = Metric.counter("keyward_lifecycle_events_total", {
  description: "What happened to key packages, by kind",
  incremental: true
})

type Kind = LifecycleEvent["_tag"]

/** The counter of each kind that there was so far: a tagged metric is made and hashed once. */
const counters = new Map<Kind, Metric.Metric.Counter<number>>()

const counterOf = (kind: Kind): Metric.Metric.Counter<number> => {
  const known = counters.get(kind)
  if (known !== undefined) return known
  const counter = Metric.tagged(eventsTotal, "event", kind)
  counters.set(kind, counter)
  return counter
}

/**
 * Where events go, and where they can be read. Unless `layer` is given, they are counted and go nowhere.
 *
 * @since 1.0.0
 * @category references
 */
export class LifecycleEvents extends Context.Reference<LifecycleEvents>()("@keyward/core/LifecycleEvents", {
  defaultValue: (): {
    readonly publish: (event: LifecycleEvent) => Effect.Effect<void>
    /** Events from the moment of running. A reader that is too slow loses the oldest. */
    readonly stream: Stream.Stream<LifecycleEvent>
  } => ({ publish: () => Effect.void, stream: Stream.never })
}) {}

/** What a slow reader may fall behind. */
const BUFFER = 4096

/**
 * Events that can be read by any number of readers.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<never> = Layer.scoped(
  LifecycleEvents,
  Effect.map(Effect.acquireRelease(PubSub.sliding<LifecycleEvent>(BUFFER), PubSub.shutdown), (pubSub) => ({
    publish: (event: LifecycleEvent) => Effect.asVoid(PubSub.publish(pubSub, event)),
    stream: Stream.fromPubSub(pubSub)
  }))
)

/**
 * Counts an event, and gives it to whoever reads.
 *
 * @since 1.0.0
 * @category publishing
 */
export const emit = (event: LifecycleEvent): Effect.Effect<void> =>
  Effect.zipRight(
    Metric.update(counterOf(event._tag), 1),
    Effect.flatMap(LifecycleEvents, ({ publish }) => publish(event))
  )

/**
 * Events from the moment of running: the installation's, or everybody's.
 *
 * @since 1.0.0
 * @category reading
 */
export const events = (installationId?: InstallationId): Stream.Stream<LifecycleEvent> =>
  Stream.unwrap(
    Effect.map(LifecycleEvents, ({ stream }) =>
      installationId === undefined ? stream : Stream.filter(stream, (event) => event.installationId === installationId)
    )
  )
