/**
 * The inbox of Welcomes: reads an installation's topic, opens what is there, and hands each Welcome to the app once, in the
 * order of the topic. How far it has come is what the erasure of private keys waits for.
 *
 * The cursor is moved by queries alone, which are complete. A stream only says when to query: what it leaves out, repeats or
 * swaps changes nothing.
 *
 * Once means: the handler's success and the cursor's move are two writes, unless the handler makes them one. Where the process
 * ends between them, or another reads the same inbox at the same time, the same Welcome is handed over once more, with the
 * same `id`. A handler that keeps its results in a database that the cursor store shares runs `commit` inside its own
 * transaction, and no Welcome is handed over twice; any other must not mind the same `id` again.
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
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Predicate from "effect/Predicate"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import * as Schema from "effect/Schema"
import * as Stream from "effect/Stream"
import { InstallationId } from "../identity/InstallationId.ts"
import { AssociationStateError } from "../peers/AssociationStates.ts"
import { ApiClient, type ApiClientError, type WelcomeMessageEntry } from "../ports/ApiClient.ts"
import type { StorageError } from "../ports/KeyPackageStore.ts"
import {
  completeAsOf,
  type UnresolvedWelcome,
  type WelcomeCursor,
  WelcomeCursorStore
} from "../ports/WelcomeCursorStore.ts"
import { WelcomeProgress, WelcomeProgressError, type WelcomeProgressReport } from "../ports/WelcomeProgress.ts"
import { type OpenContext, type OpenedWelcome, type OpenWelcomeError, openWelcomes } from "./OpenWelcome.ts"

/**
 * The Welcome could not be opened when it was there, and the network does not have it any more.
 *
 * @since 1.0.0
 * @category errors
 */
export class WelcomeGone extends Schema.TaggedError<WelcomeGone>("@keyward/core/WelcomeGone")("WelcomeGone", {
  installationId: InstallationId,
  id: Schema.BigIntFromSelf
}) {
  override get message(): string {
    return `Welcome ${this.id} of installation ${this.installationId} is no longer on the network`
  }
}

/**
 * Opening the Welcome ended in a bug, of this library or of what it stands on. It is tried again, as a later version may know
 * better.
 *
 * @since 1.0.0
 * @category errors
 */
export class OpeningDied extends Schema.TaggedError<OpeningDied>("@keyward/core/OpeningDied")("OpeningDied", {
  installationId: InstallationId,
  id: Schema.BigIntFromSelf,
  /** What kind of defect it was. Never its message, which may quote anything. */
  kind: Schema.String
}) {
  override get message(): string {
    return `opening Welcome ${this.id} of installation ${this.installationId} died of ${this.kind}`
  }
}

/**
 * Somebody else has handed the Welcome over meanwhile: what the handler did is to be undone.
 *
 * @since 1.0.0
 * @category errors
 */
export class AlreadyHandedOver extends Schema.TaggedError<AlreadyHandedOver>("@keyward/core/AlreadyHandedOver")(
  "AlreadyHandedOver",
  { installationId: InstallationId, id: Schema.BigIntFromSelf }
) {
  override get message(): string {
    return `Welcome ${this.id} of installation ${this.installationId} was handed over already`
  }
}

/** What every delivery has. */
interface Delivered {
  readonly installationId: InstallationId
  /** Its place in the topic; the same Welcome always has the same. */
  readonly id: bigint
  /** How often it was tried, this time included; 1 the first time. */
  readonly attempt: number
  /**
   * Moves the cursor now. A handler may run it inside a SQL transaction on the client of the cursor store
   * (`SqliteWelcomeCursorStore.layerClient`): then its writes and the cursor's move are one. A handler need not run it: its
   * success does the same.
   */
  readonly commit: Effect.Effect<void, AlreadyHandedOver | StorageError>
}

/**
 * A Welcome that opened: the installation is a member of the group.
 *
 * @since 1.0.0
 * @category models
 */
export interface Opened extends Delivered {
  readonly _tag: "Opened"
  readonly welcome: OpenedWelcome
}

/**
 * Why a Welcome is handed over without a group.
 *
 * @since 1.0.0
 * @category errors
 */
export type UnopenableReason = OpenWelcomeError | WelcomeGone | OpeningDied

/**
 * A Welcome that never opens here: forged, malformed, too late for its keys, or of a kind that this version does not know.
 * Also one that could not be opened for as long as is tried.
 *
 * @since 1.0.0
 * @category models
 */
export interface Unopenable extends Delivered {
  readonly _tag: "Unopenable"
  readonly error: UnopenableReason
}

/**
 * What the app is handed.
 *
 * @since 1.0.0
 * @category models
 */
export type Delivery = Opened | Unopenable

/**
 * The app's part. Its success means that the Welcome is the app's now, durably. After a failure, a defect, or no end in time,
 * the Welcome is handed over again later; those after it are not held up.
 *
 * @since 1.0.0
 * @category models
 */
export type Handler<R = never> = (delivery: Delivery) => Effect.Effect<unknown, unknown, R>

/**
 * What one reading did.
 *
 * @since 1.0.0
 * @category models
 */
export interface Reading {
  /** How many Welcomes opened and were handed over. */
  readonly opened: number
  /** How many were handed over as unopenable. */
  readonly unopenable: number
  /** How many wait to be tried again, those of earlier readings included. */
  readonly unresolved: number
  /** Whether it came to the end of the topic: not where too many wait already. */
  readonly isComplete: boolean
}

/**
 * How the inbox reads.
 *
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /** Welcomes read and opened at a time, and held in memory; 32 unless given, 100 at most. */
  readonly pageSize?: number | undefined
  /** Welcomes of one installation that may wait to be tried again before no more are read; 1,000 unless given. */
  readonly maximumUnresolved?: number | undefined
  /**
   * How long a Welcome that cannot be opened for now is tried again; 3 days unless given, as libxmtp. At most 10 minutes while
   * as many as may wait do, unless it is the node that could not be asked.
   */
  readonly giveUpAfter?: Duration.DurationInput | undefined
  /** How long a handler may take for one Welcome; 5 minutes unless given. */
  readonly handlerTimeout?: Duration.DurationInput | undefined
  /** How often `run` reads while a stream says when something comes; 5 minutes unless given. */
  readonly pollWhileStreaming?: Duration.DurationInput | undefined
  /** How often `run` reads where there is no stream; 30 seconds unless given. */
  readonly pollInterval?: Duration.DurationInput | undefined
}

/**
 * How entries are opened: one result for each, in order. Asks for the rotation that follows a Welcome, unless all of them were
 * tried before.
 *
 * @since 1.0.0
 * @category models
 */
export type Open<R> = (
  installationId: InstallationId,
  entries: ReadonlyArray<WelcomeMessageEntry>,
  options: { readonly isAgain: boolean }
) => Effect.Effect<ReadonlyArray<Either.Either<OpenedWelcome, OpenWelcomeError>>, StorageError, R>

/**
 * The inboxes of any number of installations. Within a process one reading of an inbox waits for the other; of several
 * processes one should read it.
 *
 * @since 1.0.0
 * @category tags
 */
export class WelcomeInbox extends Context.Tag("@keyward/core/WelcomeInbox")<
  WelcomeInbox,
  {
    /**
     * Reads to the end of the topic, and hands over what is there. Fails where the network or the store does; what was
     * handed over before stays so.
     */
    readonly read: <R>(
      installationId: InstallationId,
      handler: Handler<R>
    ) => Effect.Effect<Reading, ApiClientError | StorageError, R>
    /**
     * Reads, and goes on with what comes, until it is interrupted. A handler that is at work then is interrupted too, and its
     * Welcome is handed over again.
     */
    readonly run: <R>(installationId: InstallationId, handler: Handler<R>) => Effect.Effect<never, never, R>
    /** How far an inbox is read; `layer` gives it to the cleaner. */
    readonly progress: (
      installationId: InstallationId
    ) => Effect.Effect<Option.Option<WelcomeProgressReport>, WelcomeProgressError>
  }
>() {}

/**
 * How many Welcomes met which end, tagged `outcome`: `opened`, `unopenable`, `postponed`.
 *
 * @since 1.0.0
 * @category metrics
 */
export const welcomesTotal: Metric.Metric.Counter<number> = Metric.counter("keyward_welcomes_total", {
  description: "What became of Welcomes, by outcome",
  incremental: true
})

const count = (outcome: "opened" | "unopenable" | "postponed") =>
  Metric.update(Metric.tagged(welcomesTotal, "outcome", outcome), 1)

/** An entry to be opened, or the place of one that is gone. */
interface Task {
  readonly id: bigint
  readonly entry: Option.Option<WelcomeMessageEntry>
  /** What is known of earlier attempts. */
  readonly before: Option.Option<UnresolvedWelcome>
}

const idOf = (entry: WelcomeMessageEntry): Option.Option<bigint> =>
  entry._tag === "Unknown" ? entry.id : Option.some(entry.id)

const isThere = (task: Task): task is Task & { readonly entry: Option.Some<WelcomeMessageEntry> } =>
  Option.isSome(task.entry)

/** Whether the same entry may open later. What a store cannot do now says nothing about the Welcome. */
const isForNow = (error: UnopenableReason): boolean => {
  switch (error._tag) {
    case "StorageError":
    case "ApiClientError":
    case "OpeningDied":
      return true
    case "WelcomeGone":
      return false
    default:
      return error.isRetryable
  }
}

/** Whether it was not to be had from the node, or the store. All else that fails for now a sender may have made up. */
const isOutage = (error: UnopenableReason): boolean => {
  switch (error._tag) {
    case "StorageError":
    case "ApiClientError":
      return true
    case "MembersUnknown":
      return error.cause instanceof AssociationStateError && error.cause.reason._tag === "InboxUnreachable"
    default:
      return false
  }
}

/** Doubles from 1 second. */
const doubling = (times: number, longest: Duration.Duration): Duration.Duration =>
  Duration.min(Duration.seconds(2 ** Math.min(times - 1, 30)), longest)

/** The longest wait before a Welcome is tried again. */
const LONGEST_RETRY = Duration.hours(1)
/** How long a Welcome is tried again where no more are read because of such: a stranger must not stop the inbox for days. */
const PATIENCE_WHEN_FULL = Duration.minutes(10)
/** The longest wait before a node that cannot be reached is asked again. */
const LONGEST_PAUSE = Duration.minutes(1)
/** How long a node that does not stream is not asked for a stream. */
const NO_STREAM_PAUSE = Duration.minutes(10)
/** Welcomes that come together are read together. */
const GATHER = Duration.millis(100)
/** Single entries fetched at the same time. */
const FETCHES_AT_A_TIME = 4

/** What kind of failure it is. Never its message, which may quote anything. */
const kindOf = (cause: Cause.Cause<unknown>): string => {
  const error = Cause.squash(cause)
  if (Predicate.hasProperty(error, "_tag") && typeof error._tag === "string") return error._tag
  return error instanceof Error ? error.name : typeof error
}

/** What this process knows of an inbox beside the store. */
class Reader {
  readonly mutex = Effect.unsafeMakeSemaphore(1)
  /** When the latest reading that has ended began. */
  attemptedAt: DateTime.Utc | undefined = undefined
  /** When what failed is tried again, milliseconds since 1970. What an earlier process left is tried at once. */
  readonly retryAt = new Map<bigint, number>()

  isDue(id: bigint, now: number): boolean {
    const at = this.retryAt.get(id)
    // One that lies ahead of any wait was set under another clock.
    return at === undefined || at <= now || at > now + Duration.toMillis(LONGEST_RETRY)
  }

  /** What another process has resolved meanwhile is not waited for. */
  forgetOthers(unresolved: ReadonlyArray<UnresolvedWelcome>): void {
    const ids = new Set(unresolved.map(({ id }) => id))
    for (const id of this.retryAt.keys()) if (!ids.has(id)) this.retryAt.delete(id)
  }

  /** Milliseconds until the first is tried again. */
  nextRetry(now: number): number {
    let next = Number.POSITIVE_INFINITY
    for (const at of this.retryAt.values()) next = Math.min(next, Math.max(0, at - now))
    return next
  }
}

/**
 * The inboxes over the store and the API in the context, with a way of one's own to open.
 *
 * @since 1.0.0
 * @category constructors
 */
export const makeWith = <R>(
  open: Open<R>,
  options: Options = {}
): Effect.Effect<Context.Tag.Service<WelcomeInbox>, never, WelcomeCursorStore | ApiClient | R> =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const store = yield* WelcomeCursorStore
    const context = yield* Effect.context<R>()
    const { maximumUnresolved = 1000, pageSize = 32 } = options
    const giveUpAfter = Duration.decode(options.giveUpAfter ?? "3 days")
    const handlerTimeout = Duration.decode(options.handlerTimeout ?? "5 minutes")
    const pollWhileStreaming = Duration.decode(options.pollWhileStreaming ?? "5 minutes")
    const pollInterval = Duration.decode(options.pollInterval ?? "30 seconds")

    const readers = new Map<InstallationId, Reader>()
    const readerOf = (installationId: InstallationId): Reader => {
      const known = readers.get(installationId)
      if (known !== undefined) return known
      const fresh = new Reader()
      readers.set(installationId, fresh)
      return fresh
    }

    const read = <R2>(installationId: InstallationId, reader: Reader, handler: Handler<R2>) => {
      const tally = { opened: 0, unopenable: 0, postponed: 0 }
      let isFull = false

      const postpone = (id: bigint, before: Option.Option<UnresolvedWelcome>, why: string) =>
        Effect.gen(function* () {
          const now = yield* DateTime.now
          if (!(yield* store.postpone(installationId, id, now))) {
            // Handed over after all: by another process, or by a handler that committed and failed then.
            reader.retryAt.delete(id)
            return
          }
          const attempts = 1 + Option.match(before, { onNone: () => 0, onSome: (welcome) => welcome.attempts })
          const wait = doubling(attempts, LONGEST_RETRY)
          reader.retryAt.set(id, DateTime.toEpochMillis(now) + Duration.toMillis(wait))
          tally.postponed += 1
          yield* count("postponed")
          yield* Effect.logWarning(
            `Welcome ${id} of installation ${installationId} is tried again in ${Duration.format(wait)}: ${why}`
          )
        })

      const resolve = (id: bigint) =>
        Effect.tap(store.resolve(installationId, id), () => Effect.sync(() => reader.retryAt.delete(id)))

      /** An interruption of the inbox itself passes by here: the Welcome comes again. */
      const handOver = (delivery: Delivery, before: Option.Option<UnresolvedWelcome>) =>
        Effect.gen(function* () {
          const handled = Effect.timeoutFail(handler(delivery), {
            duration: handlerTimeout,
            onTimeout: () => new Cause.TimeoutException()
          })
          // No interruption comes between the handler's success and the move of the cursor.
          const exit = yield* Effect.uninterruptibleMask((restore) =>
            Effect.tap(restore(Effect.exit(handled)), (exit) =>
              Exit.isSuccess(exit) ? resolve(delivery.id) : Effect.void
            )
          )
          if (Exit.isFailure(exit)) {
            return yield* postpone(delivery.id, before, `its handler failed with ${kindOf(exit.cause)}`)
          }
          const outcome = delivery._tag === "Opened" ? "opened" : "unopenable"
          tally[outcome] += 1
          yield* count(outcome)
        })

      const conclude = (
        id: bigint,
        before: Option.Option<UnresolvedWelcome>,
        result: Either.Either<OpenedWelcome, UnopenableReason>
      ) =>
        Effect.gen(function* () {
          if (Either.isLeft(result)) {
            const { left: error } = result
            const now = yield* DateTime.now
            const patience = isFull && !isOutage(error) ? Duration.min(giveUpAfter, PATIENCE_WHEN_FULL) : giveUpAfter
            const isGivenUp =
              error._tag !== "StorageError" &&
              Option.exists(before, ({ firstFailedAt }) =>
                DateTime.greaterThanOrEqualTo(now, DateTime.addDuration(firstFailedAt, patience))
              )
            if (isForNow(error) && !isGivenUp) return yield* postpone(id, before, error.message)
          }
          const common: Delivered = {
            installationId,
            id,
            attempt: 1 + Option.match(before, { onNone: () => 0, onSome: ({ attempts }) => attempts }),
            commit: Effect.flatMap(store.resolve(installationId, id), (did) =>
              did ? Effect.void : new AlreadyHandedOver({ installationId, id })
            )
          }
          yield* handOver(
            Either.match(result, {
              onLeft: (error): Delivery => ({ _tag: "Unopenable", error, ...common }),
              onRight: (welcome): Delivery => ({ _tag: "Opened", welcome, ...common })
            }),
            before
          )
        })

      type Results = ReadonlyArray<Either.Either<OpenedWelcome, UnopenableReason>>

      /** A bug that one of them meets is that one's own: each is opened alone then. */
      const openTogether = (
        tasks: ReadonlyArray<Task & { readonly entry: Option.Some<WelcomeMessageEntry> }>
      ): Effect.Effect<Results, StorageError> =>
        open(
          installationId,
          tasks.map(({ entry }) => entry.value),
          { isAgain: tasks.every(({ before }) => Option.isSome(before)) }
        ).pipe(
          Effect.provide(context),
          Effect.catchAllDefect((defect) => {
            const [only, ...others] = tasks
            return only === undefined || others.length > 0
              ? Effect.map(
                  Effect.forEach(tasks, (one) => openTogether([one])),
                  Arr.flatten
                )
              : Effect.succeed([
                  Either.left(new OpeningDied({ installationId, id: only.id, kind: kindOf(Cause.die(defect)) }))
                ])
          })
        )

      /** Opens them together, hands them over one after the other. */
      const work = (tasks: ReadonlyArray<Task>) =>
        Effect.gen(function* () {
          const results = (yield* openTogether(tasks.filter(isThere)))[Symbol.iterator]()
          for (const task of tasks) {
            const result = isThere(task) ? results.next().value : undefined
            yield* conclude(
              task.id,
              task.before,
              result ?? Either.left(new WelcomeGone({ installationId, id: task.id }))
            )
          }
        })

      const fetchAgain = (before: UnresolvedWelcome) =>
        Effect.map(
          api.queryWelcomeMessages(installationId, { after: before.id - 1n, limit: 1 }),
          ({ entries }): Task => ({
            id: before.id,
            before: Option.some(before),
            entry: Arr.findFirst(entries, (entry) => Option.contains(idOf(entry), before.id))
          })
        )

      const tryAgain = ({ unresolved }: WelcomeCursor) =>
        Effect.gen(function* () {
          reader.forgetOthers(unresolved)
          const now = yield* Clock.currentTimeMillis
          const due = unresolved.filter(({ id }) => reader.isDue(id, now))
          for (const some of Arr.chunksOf(due, pageSize)) {
            yield* work(yield* Effect.forEach(some, fetchAgain, { concurrency: FETCHES_AT_A_TIME }))
          }
        })

      /** `began`: when, by the clock as it is when this is asked. */
      const toTheEnd = (began: Effect.Effect<DateTime.Utc>) =>
        Effect.gen(function* () {
          const waiting = yield* placeOf(store, installationId)
          isFull = waiting.unresolved.length >= maximumUnresolved
          yield* tryAgain(waiting)
          const { position, unresolved } = yield* store.get(installationId)
          tally.postponed = 0
          let after = position
          let isComplete = false
          while (!isComplete && unresolved.length + tally.postponed < maximumUnresolved) {
            const page = yield* api.queryWelcomeMessages(installationId, { after, limit: pageSize })
            // What has no place in the topic cannot be told from itself: nobody is handed it, and the cursor passes it by.
            yield* work(
              page.entries.flatMap((entry) =>
                Option.toArray(idOf(entry)).map((id) => ({ id, entry: Option.some(entry), before: Option.none() }))
              )
            )
            after = page.cursor
            isComplete = !page.hasMore
          }
          if (isComplete) yield* store.completeReading(installationId, { began: yield* began, upTo: after })
          else {
            yield* Effect.logError(
              `no more Welcomes of installation ${installationId} are read: ${maximumUnresolved} wait to be tried again`
            )
          }
          return {
            opened: tally.opened,
            unopenable: tally.unopenable,
            unresolved: unresolved.length + tally.postponed,
            isComplete
          }
        })

      return Effect.flatMap(Effect.all([DateTime.now, Clock.currentTimeNanos]), ([began, startedAt]) =>
        Effect.ensuring(
          // A clock that was set back meanwhile was ahead when it began.
          toTheEnd(Effect.map(ago(startedAt), (byThisClock) => DateTime.min(began, byThisClock))),
          Effect.sync(() => {
            reader.attemptedAt = began
          })
        )
      ).pipe(Effect.withSpan("WelcomeInbox.read", { attributes: { installationId } }), reader.mutex.withPermits(1))
    }

    /** Rings where there is something to be read. Says whether there is a stream now. */
    const listen = (installationId: InstallationId, bell: Queue.Enqueue<void>, isStreaming: { now: boolean }) =>
      Effect.gen(function* () {
        let failures = 0
        while (true) {
          const began = yield* Clock.currentTimeMillis
          isStreaming.now = true
          const ended = yield* Effect.flatMap(store.get(installationId), ({ position }) =>
            Stream.runForEach(api.subscribeWelcomeMessages(installationId, position), () =>
              Queue.offer(bell, undefined)
            )
          ).pipe(Effect.either)
          isStreaming.now = false
          // A node that ends what has lasted a while is well.
          const lasted = (yield* Clock.currentTimeMillis) - began
          failures = lasted < Duration.toMillis(LONGEST_PAUSE) ? failures + 1 : 1
          const isOffered = Either.isRight(ended) || ended.left.isRetryable
          const pause = isOffered ? doubling(failures, LONGEST_PAUSE) : NO_STREAM_PAUSE
          if (Either.isLeft(ended)) {
            yield* Effect.logDebug(`the stream of Welcomes of installation ${installationId}: ${ended.left.message}`)
          }
          yield* Queue.offer(bell, undefined)
          yield* Effect.sleep(yield* earlier(pause))
        }
      })

    const run = <R2>(installationId: InstallationId, handler: Handler<R2>) =>
      Effect.gen(function* () {
        const reader = readerOf(installationId)
        const bell = yield* Queue.sliding<void>(1)
        const isStreaming = { now: false }
        let failures = 0
        let isListening = false
        while (true) {
          const reading = yield* Effect.either(read(installationId, reader, handler))
          if (Either.isLeft(reading)) {
            failures += 1
            yield* Effect.logWarning(`Welcomes of installation ${installationId}: ${reading.left.message}`)
            yield* Effect.sleep(
              Duration.max(yield* earlier(doubling(failures, LONGEST_PAUSE)), retryAfter(reading.left))
            )
            continue
          }
          failures = 0
          if (!isListening) {
            isListening = true
            // From where the first reading ended: what waited there is not sent twice.
            yield* Effect.forkScoped(listen(installationId, bell, isStreaming))
            yield* Effect.yieldNow()
          }
          const now = yield* Clock.currentTimeMillis
          const poll = yield* earlier(isStreaming.now ? pollWhileStreaming : pollInterval)
          const wait = Duration.min(poll, Duration.millis(reader.nextRetry(now)))
          yield* Effect.raceFirst(Effect.zipRight(Queue.take(bell), Effect.sleep(GATHER)), Effect.sleep(wait))
        }
      }).pipe(Effect.scoped)

    return WelcomeInbox.of({
      read: (installationId, handler) => Effect.suspend(() => read(installationId, readerOf(installationId), handler)),
      run,
      progress: (installationId) =>
        Effect.mapBoth(placeOf(store, installationId), {
          onFailure: (cause) => new WelcomeProgressError({ installationId, cause }),
          onSuccess: (cursor) =>
            Option.some({
              completeAsOf: completeAsOf(cursor),
              attemptedAt: Option.fromNullable(readers.get(installationId)?.attemptedAt)
            })
        })
    })
  })

/** What the wall clock of now would have said at a time of the monotonic clock. */
const ago = (startedAt: bigint): Effect.Effect<DateTime.Utc> =>
  Effect.map(Effect.all([DateTime.now, Clock.currentTimeNanos]), ([now, monotonic]) =>
    DateTime.subtract(now, { millis: Number((monotonic - startedAt) / 1_000_000n) })
  )

/** A time at which the network had no Welcome at all. */
const BEFORE_ALL_WELCOMES = DateTime.unsafeMake(0)

/**
 * The place of an installation. Where its latest complete reading lies ahead, a clock was wrong, and nobody knows when it began.
 * That is forgotten for good: by and by the clock gets there, and the reading would count again without anybody having read.
 */
const placeOf = (store: WelcomeCursorStore["Type"], installationId: InstallationId) =>
  Effect.gen(function* () {
    const cursor = yield* store.get(installationId)
    const isAhead = Option.exists(cursor.readAsOf, DateTime.greaterThan(yield* DateTime.now))
    if (!isAhead) return cursor
    yield* store.completeReading(installationId, { began: BEFORE_ALL_WELCOMES, upTo: cursor.position })
    return yield* store.get(installationId)
  })

/** Up to a tenth earlier, so that installations drift apart. */
const earlier = (duration: Duration.Duration): Effect.Effect<Duration.Duration> =>
  Effect.map(Random.next, (random) => Duration.times(duration, 1 - 0.1 * random))

const retryAfter = (error: ApiClientError | StorageError): Duration.Duration =>
  (error._tag === "ApiClientError" ? error.retryAfter : undefined) ?? Duration.zero

/**
 * The inboxes over the store and the API in the context.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (
  options?: Options
): Effect.Effect<Context.Tag.Service<WelcomeInbox>, never, WelcomeCursorStore | OpenContext> =>
  makeWith(openWelcomes, options)

/**
 * The progress of the inbox in the context, for the cleaner.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerProgress: Layer.Layer<WelcomeProgress, never, WelcomeInbox> = Layer.effect(
  WelcomeProgress,
  Effect.map(WelcomeInbox, ({ progress }) => ({ get: progress }))
)

/**
 * The inbox, and its progress, which a scheduler asks for: `Scheduler.layer().pipe(Layer.provideMerge(WelcomeInbox.layer()))`.
 *
 * Private keys wait for the inbox of their installation to be read: run it for every installation that the scheduler keeps.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (
  options?: Options
): Layer.Layer<WelcomeInbox | WelcomeProgress, never, WelcomeCursorStore | OpenContext> =>
  Layer.provideMerge(layerProgress, Layer.effect(WelcomeInbox, make(options)))
