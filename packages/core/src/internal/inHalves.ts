/**
 * A request for many in which one may spoil the answer of all.
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import type { ApiClientError, Reason } from "../ports/ApiClient.ts"

/** What one of those asked for may bring on all. */
const ofOne: ReadonlySet<Reason> = new Set<Reason>(["MalformedResponse", "RequestTooLarge", "InvalidRequest"])

/** Enough to ask 50 one by one, and to find several among 1,000; a node that answers nonsense is not asked for ever. */
const REQUESTS_AT_MOST = 99

/**
 * Asks for all at once, and where that fails by what may be the fault of one, for each half on its own: so a failure is of
 * the guilty. Gives the parts in which all were asked for, in their order, each with its answer. After 99 requests, what
 * is not asked for again has the error of the part that it was in.
 */
export const inHalves = <I, A, R>(
  all: ReadonlyArray<I>,
  ask: (part: ReadonlyArray<I>) => Effect.Effect<A, ApiClientError, R>
): Effect.Effect<ReadonlyArray<readonly [ReadonlyArray<I>, Either.Either<A, ApiClientError>]>, never, R> =>
  Effect.gen(function* () {
    let parts = [[all, yield* Effect.either(ask(all))] as const]
    let requests = 1
    // Breadth first: the requests there are serve all parts alike.
    for (let isHalved = true; isHalved; ) {
      isHalved = false
      const next: typeof parts = []
      for (const part of parts) {
        const [asked, answer] = part
        const half = Math.ceil(asked.length / 2)
        if (
          Either.isRight(answer) ||
          asked.length < 2 ||
          !ofOne.has(answer.left.reason) ||
          requests + 2 > REQUESTS_AT_MOST
        ) {
          next.push(part)
          continue
        }
        isHalved = true
        requests += 2
        for (const side of [asked.slice(0, half), asked.slice(half)]) {
          next.push([side, yield* Effect.either(ask(side))])
        }
      }
      parts = next
    }
    return parts
  })
