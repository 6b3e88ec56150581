import { create } from "@bufbuild/protobuf"
import { describe, expect, it } from "@effect/vitest"
import { PagingInfoSchema, SortDirection } from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import * as TopicLog from "@keyward/test-utils/devnode/TopicLog"
import * as Chunk from "effect/Chunk"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Stream from "effect/Stream"

const topic = (name: string): Uint8Array => new TextEncoder().encode(name)
const paging = (direction: SortDirection, limit: number, idCursor = 0n) =>
  create(PagingInfoSchema, { direction, limit, idCursor })

/** A log with these values in topic "a". */
const logOf = (count: number) =>
  Effect.gen(function* () {
    const log = yield* TopicLog.make<number>()
    for (let value = 1; value <= count; value++) yield* log.append(topic("a"), value, Option.none())
    return log
  })

/** Walks all pages as a client does: until the reply's cursor is 0. */
const walk = (log: TopicLog.TopicLog<number>, direction: SortDirection, limit: number) =>
  Effect.gen(function* () {
    const seen: Array<number> = []
    let cursor = 0n
    let pages = 0
    do {
      const page = yield* log.query(topic("a"), paging(direction, limit, cursor))
      seen.push(...page.entries.map(({ value }) => value))
      cursor = page.paging.idCursor
      pages++
    } while (cursor !== 0n)
    return { seen, pages }
  })

describe("TopicLog", () => {
  it.effect("ids increase over all topics and are never 0", () =>
    Effect.gen(function* () {
      const log = yield* TopicLog.make<string>()
      const names = ["a", "b", "a", "c"]
      const entries = yield* Effect.forEach(names, (name) => log.append(topic(name), name, Option.none()))
      expect(entries.map(Option.map(({ id }) => id))).toEqual([1n, 2n, 3n, 4n].map(Option.some))
      expect((yield* log.entries(topic("a"))).map(({ id }) => id)).toEqual([1n, 3n])
    })
  )

  it.effect("[24] a duplicate is accepted silently: nothing new, no id spent, nothing streamed", () =>
    Effect.gen(function* () {
      const log = yield* TopicLog.make<string>()
      expect(Option.isSome(yield* log.append(topic("a"), "one", Option.some("same")))).toBe(true)
      expect(Option.isNone(yield* log.append(topic("a"), "one", Option.some("same")))).toBe(true)
      const next = yield* log.append(topic("a"), "two", Option.some("other"))
      expect(Option.map(next, ({ id }) => id)).toEqual(Option.some(2n))
      expect(yield* log.entries(topic("a"))).toHaveLength(2)
    })
  )

  it.effect("the reply's cursor is 0 unless the page is full", () =>
    Effect.gen(function* () {
      const log = yield* logOf(3)
      const short = yield* log.query(topic("a"), paging(SortDirection.ASCENDING, 4))
      expect([short.entries.length, short.paging.idCursor]).toEqual([3, 0n])
      const full = yield* log.query(topic("a"), paging(SortDirection.ASCENDING, 3))
      expect([full.entries.length, full.paging.idCursor]).toEqual([3, 3n])
      const nothing = yield* log.query(topic("b"), undefined)
      expect([nothing.entries.length, nothing.paging.idCursor]).toEqual([0, 0n])
    })
  )

  it.effect("every direction but ASCENDING is descending, and a limit of 0 or above 100 is 100", () =>
    Effect.gen(function* () {
      const log = yield* logOf(150)
      for (const info of [undefined, paging(SortDirection.UNSPECIFIED, 0), paging(SortDirection.DESCENDING, 101)]) {
        const page = yield* log.query(topic("a"), info)
        expect(page.paging).toMatchObject({ direction: SortDirection.DESCENDING, limit: 100, idCursor: 51n })
        expect(page.entries.map(({ value }) => value)).toEqual(Array.from({ length: 100 }, (_, index) => 150 - index))
      }
    })
  )

  it.effect.prop(
    "walking the pages gives every entry once, in order, whatever the page size",
    [FastCheck.integer({ min: 0, max: 230 }), FastCheck.integer({ min: 1, max: 100 })],
    ([count, limit]) =>
      Effect.gen(function* () {
        const log = yield* logOf(count)
        const all = Array.from({ length: count }, (_, index) => index + 1)
        const up = yield* walk(log, SortDirection.ASCENDING, limit)
        expect(up.seen).toEqual(all)
        expect(up.pages).toBe(Math.floor(count / limit) + 1)
        expect((yield* walk(log, SortDirection.DESCENDING, limit)).seen).toEqual(all.toReversed())
      }),
    { fastCheck: { seed: 7, numRuns: 60 } }
  )

  it.effect("a subscription gives what came after its cursor, then what comes, of its topics alone", () =>
    Effect.gen(function* () {
      const log = yield* logOf(3)
      const first = yield* log.subscribe([{ topic: topic("a"), after: 2n }]).pipe(Stream.runHead)
      expect(Option.map(first, ({ id }) => id)).toEqual(Option.some(3n))

      const filters = [
        { topic: topic("a"), after: 1n },
        { topic: topic("a"), after: 0n },
        { topic: topic("b"), after: 0n }
      ]
      const seen = yield* Queue.unbounded<number>()
      const fiber = yield* log.subscribe(filters).pipe(
        Stream.runForEach(({ value }) => seen.offer(value)),
        Effect.fork
      )
      expect(Chunk.toReadonlyArray(yield* seen.takeBetween(2, 2))).toEqual([2, 3])
      yield* log.append(topic("other"), 98, Option.none())
      yield* log.append(topic("b"), 99, Option.none())
      yield* log.append(topic("a"), 100, Option.none())
      expect(Chunk.toReadonlyArray(yield* seen.takeBetween(2, 2))).toEqual([99, 100])
      yield* Fiber.interrupt(fiber)
    })
  )
})
