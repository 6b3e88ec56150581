/**
 * One request for what many fibers ask at the same time: thousands of installations that are looked at together cost a few
 * requests.
 */
import * as Arr from "effect/Array"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import type * as Option from "effect/Option"
import type * as Scope from "effect/Scope"
import type { InstallationId } from "../identity/InstallationId.ts"
import { withinAttempt } from "../lifecycle/RetryPolicy.ts"
import {
  ApiClient,
  ApiClientError,
  type IdentityUpdateLogEntry,
  type IdentityUpdatesRequest,
  limits
} from "../ports/ApiClient.ts"
import * as eventLoop from "./eventLoop.ts"

type Answers<A> = Effect.Effect<ReadonlyArray<A>, ApiClientError>

/** Gathers the keys of one turn of the event loop, at most `limit` in a request, and gives each its own answer. */
const gather = <K, A>(
  scope: Scope.Scope,
  limit: number,
  operation: ApiClientError["operation"],
  request: (keys: ReadonlyArray<K>) => Answers<A>
): ((key: K) => Effect.Effect<A, ApiClientError>) => {
  interface Waiting {
    readonly key: K
    readonly answer: Deferred.Deferred<A, ApiClientError>
  }
  let gathered: Array<Waiting> = []

  // Those who ask give up by themselves, which ends no request that they share.
  const ask = (keys: ReadonlyArray<K>): Answers<A> => withinAttempt(operation)(request(keys))

  const askOne = (key: K): Effect.Effect<A, ApiClientError> =>
    Effect.flatMap(ask([key]), ([answer]) =>
      answer === undefined ? new ApiClientError({ operation, reason: "MalformedResponse" }) : Effect.succeed(answer)
    )

  const answer = (some: ReadonlyArray<Waiting>): Effect.Effect<void> => {
    const [first] = some
    if (first === undefined) return Effect.void
    if (some.length === 1) return Effect.asVoid(Deferred.complete(first.answer, askOne(first.key)))
    return Effect.matchCauseEffect(ask(some.map(({ key }) => key)), {
      onSuccess: (answers) =>
        Effect.forEach(
          some,
          ({ answer, key }, index) => {
            const own = answers[index]
            return own === undefined ? Deferred.complete(answer, askOne(key)) : Deferred.succeed(answer, own)
          },
          { discard: true }
        ),
      onFailure: (cause) =>
        Effect.forEach(
          some,
          ({ answer, key }) =>
            // What no repetition helps may be the fault of one: then each is asked alone.
            cause._tag === "Fail" && !cause.error.isRetryable
              ? Deferred.complete(answer, askOne(key))
              : Deferred.failCause(answer, cause),
          { discard: true }
        )
    })
  }

  /** Asks for all that a turn has gathered. Cut short, also before it has begun, nobody goes on waiting. */
  const askTogether = Effect.suspend(() => {
    const all = gathered
    const flush = Effect.suspend(() => {
      gathered = []
      return Effect.forEach(Arr.chunksOf(all, limit), answer, { concurrency: "unbounded", discard: true })
    })
    return Effect.onInterrupt(Effect.interruptible(Effect.zipRight(eventLoop.turn, flush)), () =>
      Effect.suspend(() => {
        if (gathered === all) gathered = []
        return Effect.forEach(all, (waiting) => Deferred.interrupt(waiting.answer), { discard: true })
      })
    )
  })

  return (key) =>
    Effect.gen(function* () {
      const answer = yield* Deferred.make<A, ApiClientError>()
      // The first of a turn has it end, also where it is interrupted itself: the others wait for that.
      yield* Effect.uninterruptible(
        Effect.suspend(() => (gathered.push({ key, answer }) === 1 ? Effect.forkIn(askTogether, scope) : Effect.void))
      )
      return yield* Deferred.await(answer)
    })
}

/**
 * The same API, in which single look-ups of packages and logs that are asked in the same turn of the event loop share a request.
 * A request ends with the scope, and whoever waits for it, or asks later, is interrupted.
 */
export const make = (api: ApiClient["Type"]): Effect.Effect<ApiClient["Type"], never, Scope.Scope> =>
  Effect.map(Effect.scope, (scope) => {
    const fetchOne = gather<InstallationId, Option.Option<Uint8Array>>(
      scope,
      PACKAGES_PER_REQUEST,
      "fetchKeyPackages",
      api.fetchKeyPackages
    )
    const readOne = gather<IdentityUpdatesRequest, ReadonlyArray<IdentityUpdateLogEntry>>(
      scope,
      limits.inboxesPerRequest,
      "getIdentityUpdates",
      api.getIdentityUpdates
    )
    return ApiClient.of({
      ...api,
      fetchKeyPackages: (ids) => {
        const [id] = ids
        return id !== undefined && ids.length === 1 ? Effect.map(fetchOne(id), Arr.of) : api.fetchKeyPackages(ids)
      },
      getIdentityUpdates: (requests) => {
        const [request] = requests
        return request !== undefined && requests.length === 1
          ? Effect.map(readOne(request), Arr.of)
          : api.getIdentityUpdates(requests)
      }
    })
  })

/** Packages asked in one request: 170 KB of answer. */
const PACKAGES_PER_REQUEST = 100
