/**
 * Many questions in few requests.
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"

/**
 * Asks each distinct question once, `size` to a request and `concurrency` requests at a time, and gives every place its
 * answer. Of questions with one key the first is asked. `ask` answers all it is given, in order; an empty list asks nothing.
 */
export const inChunks = <Q, A, E, R>(
  questions: ReadonlyArray<Q>,
  options: {
    readonly key: (question: Q) => string
    readonly size: number
    readonly concurrency: number
    readonly ask: (chunk: ReadonlyArray<Q>) => Effect.Effect<ReadonlyArray<A>, E, R>
  }
): Effect.Effect<ReadonlyArray<A>, E, R> =>
  Effect.suspend(() => {
    const { ask, concurrency, key, size } = options
    const places = new Map<string, number>()
    const distinct: Array<Q> = []
    const placeOf = questions.map((question) => {
      const known = places.get(key(question))
      if (known !== undefined) return known
      places.set(key(question), distinct.length)
      return distinct.push(question) - 1
    })
    const chunks = Array.from({ length: Math.ceil(distinct.length / size) }, (_, index) =>
      distinct.slice(index * size, (index + 1) * size)
    )
    return Effect.map(Effect.forEach(chunks, ask, { concurrency }), (answers) => {
      const flat = answers.flat()
      return placeOf.map((place) => flat[place] as A)
    })
  })
