/**
 * Keeps every installation of a store reachable: one loop that sleeps until something is due for any of them.
 *
 * It asks the store nothing while nothing is due. It wakes when a deadline is lowered, and at least once a day; what other
 * processes lower on a store that cannot say so is seen at the next of these times.
 *
 * @since 1.0.0
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FiberSet from "effect/FiberSet"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as EffectSchedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Stream from "effect/Stream"
import type { InstallationId } from "../identity/InstallationId.ts"
import * as coalescedReads from "../internal/coalescedReads.ts"
import { ApiClient } from "../ports/ApiClient.ts"
import { KeyPackageStore, type StorageError } from "../ports/KeyPackageStore.ts"
import * as ClockGuard from "./ClockGuard.ts"
import { LifecycleSettings } from "./LifecycleSettings.ts"
import * as Reachability from "./Reachability.ts"
import * as Schedule from "./Schedule.ts"
import { type Report, type UpkeepContext, type UpkeepError, upkeep } from "./Upkeep.ts"

/**
 * How much the scheduler does at a time.
 *
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /** Installations worked on at the same time; 16 unless given. */
  readonly concurrency?: number | undefined
  /**
   * Installations begun in a minute, in the long run; 500 unless given, since an XMTP node takes 600 uploads a minute from one
   * address. What is due beyond that waits its turn, those due longest first. One that asks nothing of the network does not count.
   */
  readonly perMinute?: number | undefined
  /** Installations that may be begun at once after a quiet time; 100 unless given. */
  readonly burst?: number | undefined
  /** The longest sleep; one day unless given, and never more. */
  readonly maximumNap?: Duration.DurationInput | undefined
}

/**
 * The scheduler of one store.
 *
 * @since 1.0.0
 * @category tags
 */
export class Scheduler extends Context.Tag("@keyward/core/Scheduler")<
  Scheduler,
  {
    /**
     * Looks now at what the network serves for an installation, and does what is due for it. Fails with `LeaseError` where
     * another process is at it for longer than a few seconds.
     */
    readonly probe: (installationId: InstallationId) => Effect.Effect<Report, UpkeepError>
    /** The same, and repairs what is wrong however often that was tried lately. */
    readonly repair: (installationId: InstallationId) => Effect.Effect<Report, UpkeepError>
  }
>() {}

/** A timer above 2^31-1 ms fires at once or never; a day is well below. */
const LONGEST_NAP = Duration.days(1)

/**
 * How long one timer runs. A machine that slept stops its timers and not its wall clock: after this long at most the
 * scheduler notices.
 */
const LONGEST_TIMER = 6 * 3_600_000

/** Every installation is looked at after one probe interval at the latest; more than this many is none of this clock's doing. */
const LOOKS_APART = 1.5

/**
 * How often it is asked for deadlines that lie further ahead than that, in nanoseconds of the monotonic clock: a wall clock that was
 * ahead only while the scheduler slept is seen in nothing else.
 */
const FAR_DEADLINES_SOUGHT = 12n * 3_600_000_000_000n

/** A wall clock that is this much behind what it was, in milliseconds, was set back. */
const SET_BACK = 60_000

/** How long the scheduler waits after a bug, in milliseconds. */
const AFTER_A_DEFECT = 60_000

/** The wait after an upkeep that left something due: 1 second doubling to 10 minutes. */
const pauseAfter = (count: number): number => Math.min(1000 * 2 ** Math.min(count - 1, 16), 600_000)

/**
 * Installations being worked on.
 *
 * @since 1.0.0
 * @category metrics
 */
export const activeInstallations: Metric.Metric.Gauge<number> = Metric.gauge("keyward_active_installations", {
  description: "Installations being worked on by the scheduler"
})

/** Lets through `perMinute` a minute in the long run, `burst` at once. */
class TokenBucket {
  readonly #perMilli: number
  readonly #burst: number
  #tokens: number
  #at: number

  constructor(perMinute: number, burst: number, now: number) {
    this.#perMilli = perMinute / 60_000
    this.#burst = burst
    this.#tokens = burst
    this.#at = now
  }

  /** How many may begin now. A clock that went back costs nothing and gives nothing. */
  available(now: number): number {
    const gained = now > this.#at ? (now - this.#at) * this.#perMilli : 0
    this.#tokens = Math.min(this.#burst, this.#tokens + gained)
    this.#at = now
    return Math.floor(this.#tokens)
  }

  take(): void {
    this.#tokens -= 1
  }

  /** What was taken has asked nothing of the network. */
  giveBack(): void {
    this.#tokens = Math.min(this.#burst, this.#tokens + 1)
  }

  /** Milliseconds until one more may begin. */
  get wait(): number {
    return this.#tokens >= 1 ? 0 : Math.ceil((1 - this.#tokens) / this.#perMilli)
  }
}

interface Cooling {
  readonly count: number
  /** Milliseconds since 1970. */
  readonly until: number
}

/** The first moment that a date can be. */
const BEGINNING_OF_TIME = DateTime.unsafeMake(-8.64e15)

/** Sleeps this many milliseconds of the wall clock, or less if it is set back. */
const sleep = (pause: number): Effect.Effect<void> =>
  Effect.gen(function* () {
    const start = yield* Clock.currentTimeMillis
    let now = start
    while (now < start + pause && now >= start - SET_BACK) {
      yield* Effect.sleep(Duration.millis(Math.min(start + pause - now, LONGEST_TIMER)))
      now = yield* Clock.currentTimeMillis
    }
  })

/**
 * The scheduler of the store in the context, which works until the scope is closed. What is interrupted then is durable as far
 * as it came, and due again.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (options: Options = {}): Effect.Effect<Scheduler["Type"], never, UpkeepContext | Scope.Scope> =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    // Installations that are looked at together share requests.
    const api = yield* coalescedReads.make(yield* ApiClient)
    const context = Context.add(yield* Effect.context<UpkeepContext>(), ApiClient, api)
    const guard = yield* ClockGuard.make
    const { leaseDuration, probeInterval } = yield* LifecycleSettings
    const { burst = 100, concurrency = 16, perMinute = 500 } = options
    if (Duration.greaterThan(probeInterval, Duration.days(7))) {
      return yield* Effect.dieMessage("LifecycleSettings: probeInterval must be at most a week")
    }
    const nap = Duration.min(LONGEST_NAP, options.maximumNap ?? LONGEST_NAP)
    // With less than this the loop would begin nothing, or never sleep.
    if (!(burst >= 1 && concurrency >= 1 && perMinute > 0 && Duration.toMillis(nap) >= 1)) {
      return yield* Effect.dieMessage(
        "Scheduler: burst and concurrency must be at least 1, perMinute more than 0, maximumNap at least a millisecond"
      )
    }
    const bucket = new TokenBucket(perMinute, burst, yield* Clock.currentTimeMillis)

    /** One signal stands for any number. */
    const wake = yield* Queue.sliding<void>(1)
    const running = new Set<InstallationId>()
    const cooling = new Map<InstallationId, Cooling>()
    /** Installations that this process has looked at: what others did before it started is seen before anything is done. */
    const lookedAt = new Set<InstallationId>()
    const memory = Reachability.memory()
    /** Installations to look at because the clock was set back, now or before: their deadlines lie too far ahead. */
    const startled = new Set<InstallationId>()
    let latest = yield* Clock.currentTimeMillis
    /** When deadlines that lie too far ahead were last asked for, on the monotonic clock; none before the first round. */
    let soughtAt: bigint | undefined
    const fibers = yield* FiberSet.make<void>()

    const run = (installationId: InstallationId, insist: boolean, look: boolean) =>
      upkeep(installationId, { guard, insist, look: look || !lookedAt.has(installationId), memory }).pipe(
        Effect.tap(() => Effect.sync(() => lookedAt.add(installationId))),
        Effect.provide(context)
      )

    /** Whether the upkeep left something due, which must not be begun again without a pause. */
    const isStillDue = (installationId: InstallationId) =>
      Effect.gen(function* () {
        const installation = yield* store.getInstallation(installationId)
        const now = yield* DateTime.now
        return Option.exists(installation, ({ schedule }) => Schedule.isDue(Schedule.dueAt(schedule), now))
      }).pipe(Effect.orElseSucceed(() => true))

    const coolDown = (installationId: InstallationId, pause: (count: number) => number) =>
      Effect.map(Clock.currentTimeMillis, (now) => {
        const count = (cooling.get(installationId)?.count ?? 0) + 1
        cooling.set(installationId, { count, until: now + pause(count) })
      })

    const work = (installationId: InstallationId, look: boolean): Effect.Effect<void> =>
      Effect.gen(function* () {
        const result = yield* Effect.either(run(installationId, false, look))
        // A lease or a store that was not to be had puts the look off.
        const isPutOff =
          look && Either.isLeft(result) && (result.left._tag === "LeaseError" || result.left._tag === "StorageError")
        if (isPutOff) startled.add(installationId)
        if (Either.isLeft(result)) {
          const error = result.left
          yield* Effect.logWarning(`upkeep of installation ${installationId}: ${error.message}`)
          if (error._tag === "LeaseError" && error.reason === "Held") {
            bucket.giveBack()
            // Somebody else is at it; what it leaves is seen when its lease is over at the latest.
            return yield* coolDown(installationId, (count) =>
              Math.min(pauseAfter(count), Duration.toMillis(leaseDuration))
            )
          }
        }
        // The budget is the network's: keys that wait for a reader of their Welcomes take nothing from rotations.
        if (Either.isRight(result) && !result.right.hasAsked) bucket.giveBack()
        // What has brought something about may be begun again at once; what has not must not.
        const hasProgressed =
          Either.isRight(result) && (Option.isSome(result.right.published) || result.right.erased > 0)
        if (isPutOff || (!hasProgressed && (yield* isStillDue(installationId)))) {
          yield* coolDown(installationId, pauseAfter)
        } else cooling.delete(installationId)
      }).pipe(
        // A defect is a bug, and must not end the upkeep of all others.
        Effect.catchAllDefect((defect) =>
          Effect.zipRight(
            Effect.logError(`upkeep of installation ${installationId} died of ${kindOf(defect)}`),
            coolDown(installationId, pauseAfter)
          )
        ),
        Effect.ensuring(
          Effect.zipRight(
            Effect.sync(() => running.delete(installationId)),
            Effect.zipRight(Metric.set(activeInstallations, running.size), Queue.offer(wake, undefined))
          )
        )
      )

    /** Begins what is due and there is room for, and says how long to sleep. */
    const round = Effect.gen(function* () {
      yield* guard.observe
      const now = yield* DateTime.now
      const millis = DateTime.toEpochMillis(now)
      for (const [id, { until }] of cooling) {
        // A cooled installation keeps its count until it is found well; one whose pause lies ahead of any pause is free.
        if (until <= millis || until > millis + 600_000)
          cooling.set(id, { count: cooling.get(id)?.count ?? 1, until: 0 })
      }
      const resting = [...cooling].filter(([, { until }]) => until > 0)
      const monotonic = yield* Clock.currentTimeNanos
      const isSetBack = millis < latest - SET_BACK
      if (isSetBack || soughtAt === undefined || monotonic - soughtAt >= FAR_DEADLINES_SOUGHT) {
        // Whatever waits longer than from one look to the next was put off under a clock that was ahead.
        const furthest = DateTime.addDuration(now, Duration.times(probeInterval, LOOKS_APART))
        const tooFarAhead = yield* store.findDueAfter(isSetBack ? BEGINNING_OF_TIME : furthest)
        for (const { installationId } of tooFarAhead) startled.add(installationId)
        soughtAt = monotonic
      }
      latest = millis
      const room = Math.min(concurrency - running.size, bucket.available(millis))
      const begin = (installationId: InstallationId) => {
        bucket.take()
        running.add(installationId)
        return FiberSet.run(fibers, work(installationId, startled.delete(installationId)))
      }
      if (room > 0) {
        const except = new Set([...running, ...resting.map(([id]) => id)])
        const due = yield* store.findDue({ now, limit: room, except })
        for (const { installationId } of due) yield* begin(installationId)
        let left = room - due.length
        for (const installationId of startled) {
          if (left === 0) break
          // One that is being worked on, or rests, is looked at afterwards.
          if (except.has(installationId)) continue
          left -= 1
          yield* begin(installationId)
        }
        if (left < room) yield* Metric.set(activeInstallations, running.size)
        if (left === 0 && bucket.wait > 0) return bucket.wait
      } else if (running.size < concurrency) {
        return bucket.wait
      }
      // With all hands busy, the first that is free wakes the loop.
      const next = yield* store.nextDueAt(now)
      const waits = [
        Duration.toMillis(nap),
        ...Option.toArray(next).map((at) => DateTime.toEpochMillis(at) - millis),
        ...resting.map(([, { until }]) => until - millis)
      ]
      return Math.max(0, Math.min(...waits))
    })

    const loop = Effect.gen(function* () {
      const pause = yield* round
      yield* Effect.raceFirst(Queue.take(wake), sleep(pause))
    }).pipe(
      Effect.retry({
        // A store that cannot be read now is asked again, ever more slowly.
        schedule: EffectSchedule.exponential("1 second").pipe(
          EffectSchedule.union(EffectSchedule.spaced("1 minute")),
          EffectSchedule.tapInput((error: StorageError) => Effect.logWarning(error.message))
        )
      }),
      // A defect is a bug, and must not end the upkeep of all, with nobody to say so.
      Effect.catchAllDefect((defect) =>
        Effect.zipRight(Effect.logError(`the scheduler died of ${kindOf(defect)}, and goes on`), sleep(AFTER_A_DEFECT))
      ),
      Effect.forever
    )

    const lowered = yield* store.deadlineLowered
    yield* lowered.pipe(
      Stream.runForEach((installationId) =>
        Effect.zipRight(
          Effect.sync(() => {
            const known = cooling.get(installationId)
            // Something new is asked for: it is not what failed.
            if (known !== undefined && known.count <= 1) cooling.delete(installationId)
          }),
          Queue.offer(wake, undefined)
        )
      ),
      Effect.forkScoped
    )
    // What an earlier process erased may still be in the files.
    yield* Effect.forkScoped(Effect.catchAll(store.scrub, (error) => Effect.logWarning(error.message)))
    yield* Effect.forkScoped(loop)

    /** By hand: waits a little for whoever is at it. */
    const now = (installationId: InstallationId, insist: boolean) =>
      run(installationId, insist, true).pipe(
        Effect.retry({
          schedule: EffectSchedule.spaced("250 millis").pipe(EffectSchedule.intersect(EffectSchedule.recurs(40))),
          while: (error) => error._tag === "LeaseError" && error.reason === "Held"
        })
      )
    return Scheduler.of({ probe: (id) => now(id, false), repair: (id) => now(id, true) })
  })

/** What kind of defect it is. Never its message, which may quote anything. */
const kindOf = (defect: unknown): string => (defect instanceof Error ? defect.name : typeof defect)

/**
 * The scheduler of the store in the context.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options?: Options): Layer.Layer<Scheduler, never, UpkeepContext> =>
  Layer.scoped(Scheduler, make(options))
