/**
 * The append-only logs of a node: group messages by group, Welcomes by installation, commit log entries by group.
 *
 * @since 1.0.0
 */
import { create } from "@bufbuild/protobuf"
import { type PagingInfo, PagingInfoSchema, SortDirection } from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Option from "effect/Option"
import * as PubSub from "effect/PubSub"
import * as Stream from "effect/Stream"

/** Entries of one page, and the size where none is asked for (xmtp-node-go `pkg/mls/store/readStore.go`). */
const MAX_PAGE_SIZE = 100

/**
 * An entry with its place in the log.
 *
 * @since 1.0.0
 * @category models
 */
export interface Entry<A> {
  /** Larger than that of every earlier entry of the whole log, whatever its topic; never 0. */
  readonly id: bigint
  /** Nanoseconds since 1970, by the node's clock. */
  readonly createdNs: bigint
  readonly value: A
}

/**
 * Where a subscription begins.
 *
 * @since 1.0.0
 * @category models
 */
export interface Filter {
  readonly topic: Uint8Array
  /** Only later entries; 0n is everything. */
  readonly after: bigint
}

/**
 * One log. Topics are told apart by their bytes.
 *
 * @since 1.0.0
 * @category models
 */
export interface TopicLog<A> {
  /** Adds an entry. None where an entry of the same `identity` is there already: a duplicate is accepted silently. */
  readonly append: (
    topic: Uint8Array,
    value: A,
    identity: Option.Option<string>
  ) => Effect.Effect<Option.Option<Entry<A>>>
  /** One page. The reply's cursor is 0 unless the page is full; every direction but ASCENDING is descending. */
  readonly query: (
    topic: Uint8Array,
    paging: PagingInfo | undefined
  ) => Effect.Effect<{ readonly entries: ReadonlyArray<Entry<A>>; readonly paging: PagingInfo }>
  /** All entries of a topic, oldest first. */
  readonly entries: (topic: Uint8Array) => Effect.Effect<ReadonlyArray<Entry<A>>>
  /** What was there after each filter's cursor, then what comes, each entry once. */
  readonly subscribe: (filters: ReadonlyArray<Filter>) => Stream.Stream<Entry<A>>
}

/**
 * An empty log, whose first id is 1.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = <A>(): Effect.Effect<TopicLog<A>> =>
  Effect.gen(function* () {
    const topics = new Map<string, Array<Entry<A>>>()
    const seen = new Set<string>()
    const news = yield* PubSub.unbounded<{ readonly topic: string; readonly entry: Entry<A> }>()
    let lastId = 0n

    const of = (topic: string): Array<Entry<A>> => topics.get(topic) ?? []

    const query: TopicLog<A>["query"] = (topic, paging) =>
      Effect.sync(() => {
        const ascending = paging?.direction === SortDirection.ASCENDING
        const limit =
          paging !== undefined && paging.limit > 0 && paging.limit <= MAX_PAGE_SIZE ? paging.limit : MAX_PAGE_SIZE
        const cursor = paging?.idCursor ?? 0n
        const all = of(Encoding.encodeHex(topic))
        const inReach = cursor === 0n ? all : all.filter(({ id }) => (ascending ? id > cursor : id < cursor))
        const entries = ascending ? inReach.slice(0, limit) : inReach.slice(-limit).reverse()
        return {
          entries,
          paging: create(PagingInfoSchema, {
            limit,
            direction: ascending ? SortDirection.ASCENDING : SortDirection.DESCENDING,
            idCursor: entries.length >= limit ? (entries.at(-1)?.id ?? 0n) : 0n
          })
        }
      })

    const append: TopicLog<A>["append"] = (topic, value, identity) =>
      Effect.gen(function* () {
        const createdNs = yield* Clock.currentTimeNanos
        if (Option.isSome(identity)) {
          if (seen.has(identity.value)) return Option.none()
          seen.add(identity.value)
        }
        lastId += 1n
        const entry: Entry<A> = { id: lastId, createdNs, value }
        const key = Encoding.encodeHex(topic)
        const entries = topics.get(key)
        if (entries === undefined) topics.set(key, [entry])
        else entries.push(entry)
        yield* PubSub.publish(news, { topic: key, entry })
        return Option.some(entry)
      })

    const subscribe: TopicLog<A>["subscribe"] = (filters) =>
      Stream.unwrapScoped(
        Effect.gen(function* () {
          // Subscribed before the past is read, so that nothing falls between; the marks drop what comes twice.
          const live = yield* Stream.fromPubSub(news, { scoped: true })
          const marks = new Map<string, bigint>()
          const past = filters.flatMap(({ after, topic }) => {
            const key = Encoding.encodeHex(topic)
            marks.set(key, 0n)
            return of(key)
              .filter(({ id }) => id > after)
              .map((entry) => ({ topic: key, entry }))
          })
          return Stream.concat(Stream.fromIterable(past), live).pipe(
            Stream.filter(({ entry, topic }) => {
              const mark = marks.get(topic)
              if (mark === undefined || entry.id <= mark) return false
              marks.set(topic, entry.id)
              return true
            }),
            Stream.map(({ entry }) => entry)
          )
        })
      )

    return {
      append,
      query,
      entries: (topic) => Effect.sync(() => of(Encoding.encodeHex(topic)).slice()),
      subscribe
    }
  })
