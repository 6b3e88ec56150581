/**
 * The installations that could not be invited: why, and when they can be again.
 *
 * @since 1.0.0
 */
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as PubSub from "effect/PubSub"
import * as Queue from "effect/Queue"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { InstallationId } from "../identity/InstallationId.ts"
import { BoundedMap } from "../internal/boundedMap.ts"
import { limits } from "../ports/ApiClient.ts"
import { type FetchOptions, fetchKeyPackages, type Requirements } from "./PeerKeyPackages.ts"
import type { Reason, Usable, Verdict } from "./Verdict.ts"

/**
 * What is remembered of an installation that cannot be invited.
 *
 * @since 1.0.0
 * @category models
 */
export interface Unreached {
  readonly installationId: InstallationId
  /** The latest reason. */
  readonly reason: Reason
  /** When it was first found unusable. */
  readonly since: DateTime.Utc
  /** How often it was found unusable in a row. */
  readonly attempts: number
  /** When it is looked at again. */
  readonly nextCheckAt: DateTime.Utc
}

/**
 * The memory and its checks.
 *
 * @since 1.0.0
 * @category tags
 */
export class PeerReachability extends Context.Tag("@keyward/core/PeerReachability")<
  PeerReachability,
  {
    /**
     * Takes note of verdicts: the unusable are looked at again from now on, the usable no longer. A verdict older than the one
     * that is remembered changes nothing.
     */
    readonly remember: (verdicts: ReadonlyArray<Verdict>) => Effect.Effect<void>
    /** Why an installation cannot be invited, as far as is remembered. */
    readonly get: (installationId: InstallationId) => Effect.Effect<Option.Option<Unreached>>
    /** All that is remembered, those noted longest ago first. */
    readonly all: Effect.Effect<ReadonlyArray<Unreached>>
    /** Stops looking at an installation. */
    readonly forget: (installationId: InstallationId) => Effect.Effect<void>
    /**
     * The verdicts by which remembered installations became usable again, from the moment of running the stream. One that
     * reads too slowly loses the oldest.
     */
    readonly usableAgain: Stream.Stream<Usable>
  }
>() {}

/**
 * How often to look.
 *
 * @since 1.0.0
 * @category models
 */
export interface Options extends FetchOptions {
  /** The wait after the first verdict; 30 seconds unless given. Each further one doubles it. */
  readonly initialDelay?: Duration.DurationInput | undefined
  /** The longest wait, whatever a node asks for; 6 hours unless given, and never more than 365 days. */
  readonly maximumDelay?: Duration.DurationInput | undefined
  /**
   * Installations remembered, and as many that can be invited by nothing but a time; 10,000 unless given. Those noted longest
   * ago are forgotten first.
   */
  readonly capacity?: number | undefined
}

/** A timer above 2^31-1 ms fires at once on Node; a day is well below. */
const LONGEST_SLEEP = Duration.days(1)

/** No date that a clock can show plus this is beyond what a date can be. */
const LONGEST_DELAY = Duration.days(365)

/** The least wait after a look that broke off, in milliseconds, so that it is not repeated without a pause. */
const LEAST_PAUSE = 1000

/** What a slow reader of `usableAgain` may fall behind. */
const USABLE_AGAIN_BUFFER = 1024

interface Entry extends Omit<Unreached, "nextCheckAt"> {
  /** Milliseconds since 1970. */
  readonly nextCheckAt: number
  /** When the latest verdict was reached, milliseconds since 1970. */
  readonly judgedAt: number
  /** The wait that led there, milliseconds: a clock that went back must not make it longer. */
  readonly delay: number
}

/** How long a failed request itself asks to wait, in milliseconds; a node may ask for ever. */
const retryAfter = (reason: Reason): number =>
  reason._tag === "Unreachable" || reason._tag === "InboxUnreachable"
    ? Duration.toMillis(reason.error.retryAfter ?? Duration.zero)
    : 0

/** What kind of defect it is. Never its message: that of a foreign policy may quote anything. */
const kindOf = (cause: Cause.Cause<never>): string => {
  const defect = Cause.squash(cause)
  return Predicate.isError(defect) ? defect.name : typeof defect
}

/**
 * The memory, and the fiber that looks again. Nothing is asked while nothing is due; what is due together is asked together.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (
  options: Options = {}
): Effect.Effect<Context.Tag.Service<PeerReachability>, never, Requirements | Scope.Scope> =>
  Effect.gen(function* () {
    const context = yield* Effect.context<Requirements>()
    const initialDelay = Duration.toMillis(options.initialDelay ?? "30 seconds")
    const maximumDelay = Duration.toMillis(Duration.min(options.maximumDelay ?? "6 hours", LONGEST_DELAY))
    const entries = new BoundedMap<InstallationId, Entry>(options.capacity ?? 10_000)
    /** When those that can be invited were last judged so, milliseconds since 1970: an older verdict may still be on its way. */
    const usableAt = new BoundedMap<InstallationId, number>(options.capacity ?? 10_000)
    const wake = yield* Queue.sliding<void>(1)
    const again = yield* Effect.acquireRelease(PubSub.sliding<Usable>(USABLE_AGAIN_BUFFER), PubSub.shutdown)

    /** The wait before the next look, in milliseconds. */
    const delayAfter = (attempts: number, reason: Reason): number =>
      Math.min(Math.max(initialDelay * 2 ** Math.min(attempts - 1, 40), retryAfter(reason)), maximumDelay)

    const remember = (verdicts: ReadonlyArray<Verdict>): Effect.Effect<void> =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const recovered: Array<Usable> = []
        for (const verdict of verdicts) {
          const known = entries.get(verdict.installationId)
          const judgedAt = DateTime.toEpochMillis(verdict.judgedAt)
          // What was judged in the future was judged before the clock went back: it says nothing about which came first.
          const before = known?.judgedAt ?? usableAt.get(verdict.installationId)
          if (before !== undefined && before <= now && judgedAt < before) continue
          if (verdict._tag === "Usable") {
            if (entries.delete(verdict.installationId)) recovered.push(verdict)
            usableAt.set(verdict.installationId, judgedAt)
            continue
          }
          usableAt.delete(verdict.installationId)
          const attempts = (known?.attempts ?? 0) + 1
          const delay = delayAfter(attempts, verdict.reason)
          entries.set(verdict.installationId, {
            installationId: verdict.installationId,
            reason: verdict.reason,
            since: known?.since ?? verdict.judgedAt,
            attempts,
            judgedAt,
            delay,
            nextCheckAt: now + delay
          })
        }
        yield* PubSub.publishAll(again, recovered)
        yield* Queue.offer(wake, undefined)
      })

    const isDue = ({ delay, nextCheckAt }: Entry, now: number): boolean =>
      nextCheckAt <= now || nextCheckAt - now > delay

    /** Waits twice as long as before for those of which nothing else was learnt meanwhile. */
    const putOff = (asked: ReadonlyArray<Entry>): Effect.Effect<void> =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        for (const entry of asked) {
          if (entries.get(entry.installationId) !== entry) continue
          const delay = Math.min(Math.max(entry.delay * 2, LEAST_PAUSE), Math.max(maximumDelay, LEAST_PAUSE))
          entries.set(entry.installationId, { ...entry, delay, nextCheckAt: now + delay })
        }
      })

    const askAgain = (asked: ReadonlyArray<Entry>) =>
      fetchKeyPackages(
        asked.map(({ installationId }) => installationId),
        options
      ).pipe(
        Effect.flatMap((verdicts) =>
          // What was forgotten meanwhile stays forgotten.
          remember(verdicts.filter(({ installationId }) => entries.get(installationId) !== undefined))
        ),
        // Whatever is left is a defect, as of a policy that throws: it must not end the looking. The interruption of this
        // fiber never comes here, as an interrupted fiber runs no handlers.
        Effect.catchAllCause((cause) =>
          Effect.zipRight(
            Effect.logWarning(`looking again at ${asked.length} installations broke off (${kindOf(cause)})`),
            putOff(asked)
          )
        )
      )

    const look = Effect.gen(function* () {
      const now = yield* Clock.currentTimeMillis
      const due: Array<Entry> = []
      let next = Number.POSITIVE_INFINITY
      for (const [, entry] of entries.entries()) {
        if (isDue(entry, now)) due.push(entry)
        else next = Math.min(next, entry.nextCheckAt)
      }
      if (due.length > 0) {
        // The rest is still due at the next turn.
        return yield* askAgain(Arr.take(due, limits.keyPackagesPerRequest))
      }
      const nothing = Queue.take(wake)
      if (next === Number.POSITIVE_INFINITY) return yield* nothing
      return yield* Effect.race(nothing, Effect.sleep(Math.min(next - now, Duration.toMillis(LONGEST_SLEEP))))
    })

    yield* Effect.forkScoped(Effect.provide(Effect.forever(look), context))

    const toUnreached = ({ attempts, installationId, nextCheckAt, reason, since }: Entry): Unreached => ({
      installationId,
      reason,
      since,
      attempts,
      nextCheckAt: DateTime.unsafeMake(nextCheckAt)
    })

    return {
      remember,
      get: (installationId) =>
        Effect.sync(() => Option.map(Option.fromNullable(entries.get(installationId)), toUnreached)),
      all: Effect.sync(() => Array.from(entries.entries(), ([, entry]) => toUnreached(entry))),
      forget: (installationId) => Effect.sync(() => void entries.delete(installationId)),
      usableAgain: Stream.fromPubSub(again)
    }
  })

/**
 * The memory, and the fiber that looks again, until the scope ends.
 *
 * @since 1.0.0
 * @category layers
 * @example
 * ```ts
 * import type { InstallationId } from "@keyward/core/identity/InstallationId"
 * import { fetchKeyPackages } from "@keyward/core/peers/PeerKeyPackages"
 * import { PeerReachability } from "@keyward/core/peers/PeerReachability"
 * import * as Effect from "effect/Effect"
 *
 * export const fetchAndRemember = (ids: ReadonlyArray<InstallationId>) =>
 *   Effect.flatMap(PeerReachability, ({ remember }) => Effect.tap(fetchKeyPackages(ids), remember))
 * ```
 */
export const layer = (options: Options = {}): Layer.Layer<PeerReachability, never, Requirements> =>
  Layer.scoped(PeerReachability, make(options))
