/**
 * Who belongs to other people's inboxes now: each log verified once, kept, and from then on only extended.
 *
 * @since 1.0.0
 */
import * as Arr from "effect/Array"
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Data from "effect/Data"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as FiberId from "effect/FiberId"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import { type AssociationState, estimateBytes } from "../identity/AssociationState.ts"
import { CurveBackend } from "../identity/CurveBackend.ts"
import type { IdentityError } from "../identity/IdentityError.ts"
import * as IdentityLog from "../identity/IdentityLog.ts"
import type { InboxId } from "../identity/InboxId.ts"
import { inOrder } from "../identity/LogOrder.ts"
import { BoundedMap } from "../internal/boundedMap.ts"
import { inHalves } from "../internal/inHalves.ts"
import * as sharedPuts from "../internal/sharedPuts.ts"
import { ApiClient, type ApiClientError, type IdentityUpdateLogEntry, limits } from "../ports/ApiClient.ts"
import { AssociationStateCache, type StateAt } from "../ports/AssociationStateCache.ts"
import type { StorageError } from "../ports/KeyPackageStore.ts"
import { SmartContractWalletVerifier, SmartContractWalletVerifierError } from "../ports/SmartContractWalletVerifier.ts"
import { type InboxReason, isRetryable, Reason } from "./Verdict.ts"

/**
 * Why there is no state. `MissingIdentityUpdate`, of `getAt` alone: the log has no update of that sequence id.
 *
 * @since 1.0.0
 * @category errors
 */
export class AssociationStateError extends Data.TaggedError("AssociationStateError")<{
  readonly inboxId: InboxId
  readonly reason: InboxReason | { readonly _tag: "MissingIdentityUpdate"; readonly sequenceId: bigint }
}> {
  /** Whether asking again may help: the node, or a smart contract wallet, could not be asked. */
  get isRetryable(): boolean {
    return this.reason._tag === "MissingIdentityUpdate" ? false : isRetryable(this.reason)
  }
  override get message(): string {
    const { reason } = this
    const detail = "error" in reason ? `: ${reason.error.message}` : ""
    return `no state of inbox ${this.inboxId}: ${reason._tag}${detail}`
  }
}

/**
 * An inbox's own error.
 *
 * @since 1.0.0
 * @category errors
 */
export interface InboxError extends AssociationStateError {
  readonly reason: InboxReason
}

/**
 * How fresh a state has to be.
 *
 * @since 1.0.0
 * @category models
 */
export interface ReadOptions {
  /**
   * A state that was read from the node within this time is used without asking again. Zero unless given: a revocation
   * counts as soon as the node knows it.
   */
  readonly maxAge?: Duration.DurationInput | undefined
}

/**
 * The states of inboxes.
 *
 * @since 1.0.0
 * @category tags
 */
export class AssociationStates extends Context.Tag("@keyward/core/AssociationStates")<
  AssociationStates,
  {
    /**
     * The state of each inbox now, one answer per id in the order asked. An inbox is asked for once, however often it is
     * named; callers who come before the node has answered share the answer, later ones ask anew, and always only for what is
     * not known yet. An answer is there when all logs of its request (`limits.inboxesPerRequest`) are verified; the cache has
     * it a moment later, and at the latest when the service ends.
     *
     * A log that does not resolve fails its inbox alone. A node that cannot be reached fails the inboxes of the request. A
     * request that is refused, or whose answer is malformed, is asked in halves, until those are left that it is about.
     */
    readonly get: (
      inboxIds: ReadonlyArray<InboxId>,
      options?: ReadOptions
    ) => Effect.Effect<ReadonlyArray<Either.Either<StateAt, InboxError>>>
    /**
     * The state right after the update of this sequence id, which the log must hold (libxmtp
     * `xmtp_mls/src/identity_updates.rs`, `get_association_state` with `to`).
     */
    readonly getAt: (inboxId: InboxId, sequenceId: bigint) => Effect.Effect<AssociationState, AssociationStateError>
  }
>() {}

/**
 * How the service works.
 *
 * @since 1.0.0
 * @category models
 */
export interface Options {
  /** States kept decoded in memory; 10,000 unless given (about 3 KiB each). All others are read from the cache. */
  readonly capacity?: number | undefined
  /**
   * Bytes of memory that those states take together, by estimate; 64 MiB (67,108,864) unless given. Somebody's inbox may have
   * thousands of members.
   */
  readonly capacityBytes?: number | undefined
  /** Requests under way at once; 4 unless given. */
  readonly concurrency?: number | undefined
  /** How long one smart contract wallet may take to be asked; 30 seconds unless given. */
  readonly walletTimeout?: Duration.DurationInput | undefined
}

/** Logs of one request that are verified at a time: while one waits for a smart contract wallet, the others go on. */
const LOGS_AT_A_TIME = 4

type Result = Either.Either<StateAt, InboxError>

type Results = ReadonlyMap<InboxId, Result>

/** A request under way, and what it will bring. */
type Flight = Deferred.Deferred<Results>

/** Inboxes asked of the cache at a time: a few milliseconds. */
const INBOXES_PER_LOOK_UP = 500

/** Bytes that go into the cache in one transaction, by estimate: some 300 inboxes, about ten milliseconds. */
const BYTES_PER_PUT = 1024 * 1024

/** What a log extends. */
interface Known {
  readonly base: StateAt | undefined
  /** Entries of the base that are not in the cache, as far as is known. */
  readonly unsaved: ReadonlyArray<IdentityUpdateLogEntry>
}

/** A log, and what it extends. */
interface Extension extends Known {
  readonly inboxId: InboxId
  readonly log: ReadonlyArray<IdentityUpdateLogEntry>
  /** Of its last entry. */
  readonly sequenceId: bigint
}

/** What a node has said of the inboxes of a request. */
interface Answered {
  /** When it was asked; milliseconds since 1970. */
  readonly readAt: number
  /** Where nothing is to be verified. */
  readonly results: ReadonlyArray<readonly [InboxId, Result]>
  readonly toResolve: ReadonlyArray<Extension>
}

interface Remembered {
  readonly current: StateAt
  /** Milliseconds since 1970, by the clock that reads it. */
  readonly readAt: number
  /**
   * Its newest entries, as long as the cache has not taken them. They go with the next ones, so that no log there has a hole.
   */
  readonly unsaved: ReadonlyArray<IdentityUpdateLogEntry>
}

/** With the estimate of its state, which is made once. */
interface Weighed extends Remembered {
  /** Bytes of memory. */
  readonly stateBytes: number
}

type Entry = Parameters<Context.Tag.Service<AssociationStateCache>["put"]>[0][number]

const logBytes = (log: ReadonlyArray<IdentityUpdateLogEntry>): number =>
  log.reduce((sum, { update }) => sum + update.length + HEAP_PER_ENTRY, 0)

/** What an entry of a log takes beside its update: two numbers and the objects. */
const HEAP_PER_ENTRY = 200

// The constructor cannot say that the reason is one of these.
const inboxError = (inboxId: InboxId, reason: InboxReason): InboxError =>
  new AssociationStateError({ inboxId, reason }) as InboxError

const refusal = (inboxId: InboxId, error: IdentityError): InboxError =>
  inboxError(
    inboxId,
    error._tag === "IdentityAssociationError" && error.reason === "UnexpectedInbox"
      ? Reason.OtherInbox({ inboxId, error })
      : Reason.InvalidIdentityLog({ inboxId, error })
  )

/** A cache that fails has nothing, and keeps nothing. No verdict depends on it. */
const orMiss =
  <A>(miss: A) =>
  (effect: Effect.Effect<A, StorageError>): Effect.Effect<A> =>
    Effect.catchAll(effect, (error) =>
      Effect.as(Effect.logWarning(`the cache of association states is passed over: ${error.message}`), miss)
    )

/** A wallet that is never answered for must not keep its log, and who waits for it, for ever. */
const withTimeout = (
  verifier: Context.Tag.Service<SmartContractWalletVerifier>,
  duration: Duration.DurationInput
): Context.Tag.Service<SmartContractWalletVerifier> => ({
  isValid: (question) =>
    Effect.timeoutFail(verifier.isValid(question), {
      duration,
      onTimeout: () => new SmartContractWalletVerifierError({ reason: "Unavailable", chainId: question.chainId })
    })
})

/**
 * The service. The curve backend is the one in the context in which it is made.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (
  options: Options = {}
): Effect.Effect<
  Context.Tag.Service<AssociationStates>,
  never,
  ApiClient | AssociationStateCache | SmartContractWalletVerifier | Scope.Scope
> =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const cache = yield* AssociationStateCache
    const verifier = withTimeout(yield* SmartContractWalletVerifier, options.walletTimeout ?? "30 seconds")
    const backend = yield* CurveBackend
    const scope = yield* Effect.scope
    const { capacity = 10_000, capacityBytes = 64 * 1024 * 1024, concurrency = 4 } = options
    /** Decoded states, each with the time of the node's last word on it. */
    const remembered = new BoundedMap<InboxId, Weighed>(capacity, {
      most: capacityBytes,
      weightOf: ({ stateBytes, unsaved }) => stateBytes + logBytes(unsaved)
    })
    const inFlight = new Map<InboxId, Flight>()
    /** The logs of one request are verified before those of the next, which is on its way or in the hands of workers. */
    const takeTurns = yield* Effect.makeSemaphore(1)

    /** An answer that was longer under way than a newer one does not undo it. */
    const remember = (inboxId: InboxId, newest: Remembered): void => {
      const known = remembered.get(inboxId)
      if (known === undefined || known.current.sequenceId < newest.current.sequenceId) {
        remembered.set(inboxId, { ...newest, stateBytes: estimateBytes(newest.current.state) })
      } else if (known.current.sequenceId === newest.current.sequenceId) {
        // The cache may have taken it since.
        remembered.set(inboxId, { ...known, readAt: newest.readAt })
      }
    }

    /** Into the cache. Where it fails, the entries go with those that come next. */
    const puts = yield* sharedPuts.make<Entry>({
      put: (entries) =>
        Effect.map(orMiss(false)(Effect.as(cache.put(entries), true)), (isSaved) => {
          if (!isSaved) return
          for (const { newest } of entries) {
            const { inboxId } = newest.state
            const known = remembered.get(inboxId)
            if (known === undefined) continue
            const unsaved = known.unsaved.filter(({ sequenceId }) => sequenceId > newest.sequenceId)
            remembered.set(inboxId, { ...known, unsaved })
          }
        }),
      weightOf: ({ log, newest }) => logBytes(log) + estimateBytes(newest.state),
      enough: BYTES_PER_PUT
    })

    /** Curve work, at the pace of many short turns of the event loop. */
    const resolveAll = (
      extensions: ReadonlyArray<Pick<Extension, "base" | "inboxId" | "log">>
    ): Effect.Effect<ReadonlyArray<Either.Either<AssociationState, InboxError>>> =>
      IdentityLog.resolveAll(
        extensions.map(({ base, inboxId, log }) => ({
          state: base?.state,
          updates: log.map(({ update }) => update),
          expectedInboxId: inboxId
        })),
        { concurrency: LOGS_AT_A_TIME, takeTurns }
      ).pipe(
        Effect.provideService(SmartContractWalletVerifier, verifier),
        Effect.provideService(CurveBackend, backend),
        Effect.map(
          Arr.zipWith(extensions, (state, { inboxId }) => Either.mapLeft(state, (error) => refusal(inboxId, error)))
        )
      )

    /** The whole log of one inbox. */
    const resolve = (
      inboxId: InboxId,
      log: ReadonlyArray<IdentityUpdateLogEntry>
    ): Effect.Effect<AssociationState, InboxError> =>
      Effect.flatMap(
        resolveAll([{ inboxId, base: undefined, log }]),
        ([state]) => state ?? Effect.dieMessage("a log has no result")
      )

    /** What is known of these inboxes before the node is asked: all of them at once, as that takes half as long. */
    const lookUp = (inboxIds: ReadonlyArray<InboxId>): Effect.Effect<ReadonlyMap<InboxId, Known>> =>
      Effect.gen(function* () {
        const known = new Map<InboxId, Known>()
        const uncached: Array<InboxId> = []
        for (const id of inboxIds) {
          const newest = remembered.get(id)
          if (newest === undefined) uncached.push(id)
          else known.set(id, { base: newest.current, unsaved: newest.unsaved })
        }
        if (uncached.length > 0) yield* puts.flush
        for (const ids of Arr.chunksOf(uncached, INBOXES_PER_LOOK_UP)) {
          const stored = yield* orMiss<ReadonlyArray<Option.Option<StateAt>>>([])(cache.getNewest(ids))
          for (const [index, id] of ids.entries()) {
            known.set(id, { base: Option.getOrUndefined(stored[index] ?? Option.none()), unsaved: [] })
          }
        }
        return known
      })

    /** One request's worth of inboxes. `onAnswer` runs whenever the node has answered for some of them. */
    const ask = (
      inboxIds: ReadonlyArray<InboxId>,
      lookedUp: ReadonlyMap<InboxId, Known>,
      onAnswer: () => void
    ): Effect.Effect<Answered> =>
      Effect.gen(function* () {
        // Others may have learnt more since the looking up.
        const known = new Map<InboxId, Known>()
        for (const id of inboxIds) {
          const newest = remembered.get(id)
          const stored = lookedUp.get(id)
          if (newest !== undefined) known.set(id, { base: newest.current, unsaved: newest.unsaved })
          else if (stored !== undefined) known.set(id, stored)
        }
        const readAt = yield* Clock.currentTimeMillis
        const after = (inboxId: InboxId): bigint => known.get(inboxId)?.base?.sequenceId ?? 0n
        const parts = yield* inHalves(inboxIds, (part) =>
          api
            .getIdentityUpdates(part.map((inboxId) => ({ inboxId, after: after(inboxId) })))
            .pipe(Effect.ensuring(Effect.sync(onAnswer)))
        )
        const results: Array<readonly [InboxId, Result]> = []
        const toResolve: Array<Extension> = []
        for (const [part, answer] of parts) {
          for (const [index, inboxId] of part.entries()) {
            if (Either.isLeft(answer)) {
              const reason = Reason.InboxUnreachable({ inboxId, error: answer.left })
              results.push([inboxId, Either.left(inboxError(inboxId, reason))])
              continue
            }
            const { base, unsaved = [] } = known.get(inboxId) ?? {}
            const log = inOrder(answer.right[index] ?? [], after(inboxId))
            const newest = log.at(-1)
            if (newest !== undefined) toResolve.push({ inboxId, base, unsaved, log, sequenceId: newest.sequenceId })
            else if (base !== undefined) {
              results.push([inboxId, Either.right(base)])
              remember(inboxId, { current: base, readAt, unsaved })
            } else results.push([inboxId, Either.left(inboxError(inboxId, Reason.UnknownInbox({ inboxId })))])
          }
        }
        return { readAt, results, toResolve }
      })

    /** The results of all, and what the cache does not have yet. */
    const judge = ({
      readAt,
      results,
      toResolve
    }: Answered): Effect.Effect<{
      readonly results: ReadonlyArray<readonly [InboxId, Result]>
      readonly extended: ReadonlyArray<Entry>
    }> =>
      Effect.map(resolveAll(toResolve), (states) => {
        const resolved = Arr.zipWith(toResolve, states, ({ inboxId, log, sequenceId, unsaved }, state) => ({
          inboxId,
          log: [...unsaved, ...log],
          result: Either.map(state, (state): StateAt => ({ sequenceId, state }))
        }))
        const extended: Array<Entry> = []
        for (const { inboxId, log, result } of resolved) {
          if (Either.isLeft(result)) continue
          remember(inboxId, { current: result.right, readAt, unsaved: log })
          extended.push({ log, newest: result.right })
        }
        return { results: [...results, ...resolved.map(({ inboxId, result }) => [inboxId, result] as const)], extended }
      })

    /** Reads and tells everybody who waits. Belongs to the service: a caller that goes away takes nothing with it. */
    const fly = (flights: ReadonlyArray<readonly [Flight, ReadonlyArray<InboxId>]>): Effect.Effect<void> => {
      /** Who comes from now on may know of an update that this answer does not: it gets an answer of its own. */
      const close = ([flight, inboxIds]: readonly [Flight, ReadonlyArray<InboxId>]) => {
        for (const inboxId of inboxIds) if (inFlight.get(inboxId) === flight) inFlight.delete(inboxId)
      }
      const land = (one: readonly [Flight, ReadonlyArray<InboxId>], landing: Exit.Exit<Results>) => {
        close(one)
        Deferred.unsafeDone(one[0], landing)
      }
      /** A bug fails its own flight, and the others go on. An interruption passes by: below everybody is told. */
      const orLand = (one: (typeof flights)[number]) => (effect: Effect.Effect<void>) =>
        Effect.catchAllCause(effect, (cause) => Effect.sync(() => land(one, Exit.failCause(cause))))
      const most = Math.max(1, concurrency)
      /** As many again as are asked for are verified, or wait for it, so that there is always something to do. */
      const inHand = Effect.unsafeMakeSemaphore(most)
      const judging: Array<Fiber.Fiber<void>> = []
      const answered = (one: (typeof flights)[number], answer: Answered): Effect.Effect<void> => {
        if (answer.toResolve.length === 0) {
          land(one, Exit.succeed(new Map(answer.results)))
          return Effect.void
        }
        const judged = Effect.flatMap(judge(answer), ({ extended, results }) => {
          land(one, Exit.succeed(new Map(results)))
          return puts.add(extended)
        })
        if (flights.length === 1) return judged
        return Effect.uninterruptibleMask((restore) =>
          restore(inHand.take(1)).pipe(
            Effect.zipRight(Effect.forkIn(Effect.ensuring(restore(orLand(one)(judged)), inHand.release(1)), scope)),
            Effect.map((fiber) => {
              judging.push(fiber)
            })
          )
        )
      }
      return Effect.flatMap(lookUp(flights.flatMap(([, inboxIds]) => inboxIds)), (lookedUp) =>
        Effect.forEach(
          flights,
          (one) =>
            Effect.flatMap(
              ask(one[1], lookedUp, () => close(one)),
              (answer) => answered(one, answer)
            ).pipe(orLand(one)),
          { concurrency: most, discard: true }
        )
      ).pipe(
        Effect.zipRight(Effect.suspend(() => Fiber.joinAll(judging))),
        Effect.zipRight(puts.flush),
        Effect.interruptible,
        // The scope has ended, or a bug: whoever still waits learns it, instead of waiting for ever.
        Effect.onExit((exit) =>
          Effect.sync(() => {
            if (Exit.isFailure(exit)) for (const one of flights) land(one, Exit.failCause(exit.cause))
          })
        )
      )
    }

    const get = (inboxIds: ReadonlyArray<InboxId>, { maxAge = 0 }: ReadOptions = {}) =>
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        const most = Duration.toMillis(maxAge)
        const isFresh = ({ readAt }: Remembered): boolean => most > 0 && readAt <= now && now - readAt <= most
        const fresh = new Map<InboxId, Result>()
        const waiting = new Set<Flight>()
        // Nothing happens between looking and taking a place, so two callers never both start; and who has taken one starts.
        yield* Effect.uninterruptible(
          Effect.suspend(() => {
            const unknown = new Set<InboxId>()
            for (const inboxId of inboxIds) {
              const known = remembered.get(inboxId)
              const flying = inFlight.get(inboxId)
              if (known !== undefined && isFresh(known)) fresh.set(inboxId, Either.right(known.current))
              else if (flying !== undefined) waiting.add(flying)
              else unknown.add(inboxId)
            }
            const started = Arr.chunksOf(unknown, limits.inboxesPerRequest).map((chunk) => {
              const flight: Flight = Deferred.unsafeMake(FiberId.none)
              for (const inboxId of chunk) inFlight.set(inboxId, flight)
              waiting.add(flight)
              return [flight, chunk] as const
            })
            return started.length === 0 ? Effect.void : Effect.forkIn(fly(started), scope)
          })
        )
        const landed = yield* Effect.forEach(waiting, Deferred.await)
        const results = new Map(landed.flatMap((one) => [...one]))
        const answers: Array<Result> = []
        for (const inboxId of inboxIds) {
          const result = fresh.get(inboxId) ?? results.get(inboxId)
          if (result === undefined) return yield* Effect.dieMessage(`inbox ${inboxId} has no answer`)
          answers.push(result)
        }
        return answers
      }).pipe(Effect.withSpan("AssociationStates.get", { attributes: { inboxes: inboxIds.length } }))

    const getAt = (inboxId: InboxId, sequenceId: bigint) =>
      Effect.gen(function* () {
        yield* puts.flush
        const cached = yield* orMiss(Option.none<AssociationState>())(cache.getAt(inboxId, sequenceId))
        if (Option.isSome(cached)) return cached.value
        const upTo = (log: ReadonlyArray<IdentityUpdateLogEntry>) =>
          log.filter((entry) => entry.sequenceId <= sequenceId)
        const endsThere = (log: ReadonlyArray<IdentityUpdateLogEntry>) => log.at(-1)?.sequenceId === sequenceId
        const stored = yield* orMiss<ReadonlyArray<IdentityUpdateLogEntry>>([])(cache.getLog(inboxId, sequenceId))
        const fromNode = Effect.gen(function* () {
          const [served = []] = yield* Effect.mapError(
            api.getIdentityUpdates([{ inboxId, after: 0n }]),
            (error: ApiClientError) => inboxError(inboxId, Reason.InboxUnreachable({ inboxId, error }))
          )
          const log = upTo(inOrder(served, 0n))
          if (!endsThere(log)) {
            return yield* new AssociationStateError({ inboxId, reason: { _tag: "MissingIdentityUpdate", sequenceId } })
          }
          return { log, state: yield* resolve(inboxId, log) }
        })
        // What the cache has of a log may be a part, and then its refusal says nothing of the inbox. A wallet that could not be
        // asked would not answer for the node's log either.
        const { log, state } = yield* endsThere(stored)
          ? resolve(inboxId, stored).pipe(
              Effect.map((state) => ({ log: stored, state })),
              Effect.catchAll((error) => (error.isRetryable ? Effect.fail(error) : fromNode))
            )
          : fromNode
        yield* orMiss<void>(undefined)(cache.put([{ log, newest: { sequenceId, state } }]))
        return state
      }).pipe(Effect.withSpan("AssociationStates.getAt", { attributes: { inboxId } }))

    return { get, getAt }
  })

/**
 * The service. Work that is under way when the scope ends, ends.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (
  options: Options = {}
): Layer.Layer<AssociationStates, never, ApiClient | AssociationStateCache | SmartContractWalletVerifier> =>
  Layer.scoped(AssociationStates, make(options))
