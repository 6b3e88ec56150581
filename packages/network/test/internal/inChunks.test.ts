/**
 * Many questions in few requests: every place has its answer, nothing is asked twice, no chunk is too large, and no more
 * requests are under way than allowed.
 */
import { expect, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { inChunks } from "../../src/internal/inChunks.ts"

it.effect.prop(
  "answers every place, within the limits",
  [
    FastCheck.array(FastCheck.nat(30), { maxLength: 80 }),
    FastCheck.integer({ min: 1, max: 9 }),
    FastCheck.integer({ min: 1, max: 4 })
  ],
  ([questions, size, concurrency]) =>
    Effect.gen(function* () {
      const asked: Array<ReadonlyArray<number>> = []
      let underWay = 0
      let most = 0
      const answers = yield* inChunks(questions, {
        key: String,
        size,
        concurrency,
        ask: (chunk) =>
          Effect.gen(function* () {
            asked.push(chunk)
            underWay += 1
            most = Math.max(most, underWay)
            yield* Effect.yieldNow()
            underWay -= 1
            return chunk.map((question) => `answer ${question}`)
          })
      })
      expect(answers).toEqual(questions.map((question) => `answer ${question}`))
      expect(asked.flat().toSorted()).toEqual([...new Set(questions)].toSorted())
      expect(asked.every(({ length }) => length > 0 && length <= size)).toBe(true)
      expect(asked.length).toBe(Math.ceil(new Set(questions).size / size))
      expect(most).toBe(Math.min(concurrency, asked.length))
    }),
  { fastCheck: { seed: 3 } }
)
