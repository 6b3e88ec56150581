/**
 * What every cache of identity logs and association states must do.
 *
 * @since 1.0.0
 */
import { describe, expect, it } from "@effect/vitest"
import type { AssociationState, Member } from "@keyward/core/identity/AssociationState"
import type { InboxId } from "@keyward/core/identity/InboxId"
import { type MemberIdentifier, type RootIdentifier, toKey } from "@keyward/core/identity/MemberIdentifier"
import type { IdentityUpdateLogEntry } from "@keyward/core/ports/ApiClient"
import { AssociationStateCache, type StateAt } from "@keyward/core/ports/AssociationStateCache"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Arbitraries from "../Arbitraries.ts"

const hexOf = (length: number) => Arbitraries.bytes(length).map((bytes) => Buffer.from(bytes).toString("hex"))

const relyingParty = FastCheck.option(FastCheck.constantFrom("", "example.org"), { nil: undefined })

const passkey: FastCheck.Arbitrary<RootIdentifier> = FastCheck.record({
  _tag: FastCheck.constant("Passkey" as const),
  publicKey: FastCheck.oneof(hexOf(33), hexOf(65), FastCheck.constant("")),
  relyingParty
})

const root: FastCheck.Arbitrary<RootIdentifier> = FastCheck.oneof(
  FastCheck.record({
    _tag: FastCheck.constant("Ethereum" as const),
    // Verbatim: any text at all can be a recovery address.
    address: FastCheck.oneof(
      hexOf(20).map((hex) => `0x${hex}`),
      FastCheck.string()
    )
  }),
  passkey
)

const identifier: FastCheck.Arbitrary<MemberIdentifier> = FastCheck.oneof(
  root,
  FastCheck.record({ _tag: FastCheck.constant("Installation" as const), publicKey: hexOf(32) })
)

const uint64 = FastCheck.bigInt({ min: 0n, max: 2n ** 64n - 1n })

const member: FastCheck.Arbitrary<Member> = FastCheck.record({
  identifier,
  addedBy: FastCheck.option(identifier, { nil: undefined }),
  clientTimestampNs: FastCheck.option(uint64, { nil: undefined }),
  addedOnChainId: FastCheck.option(uint64, { nil: undefined })
})

/**
 * Any state of an inbox, whether or not a log leads to it.
 *
 * @since 1.0.0
 * @category values
 */
export const associationState = (inboxId: InboxId): FastCheck.Arbitrary<AssociationState> =>
  FastCheck.record({
    inboxId: FastCheck.constant(inboxId),
    members: FastCheck.array(member, { maxLength: 6 }).map(
      (members) => new Map(members.map((one) => [toKey(one.identifier), one]))
    ),
    recoveryIdentifier: root,
    seenSignatures: FastCheck.array(FastCheck.oneof(hexOf(65), hexOf(64)), { maxLength: 6 }).map(
      (signatures) => new Set(signatures)
    )
  })

/** Up to what SQLite holds, and above what a JavaScript number does. */
const sequenceId = FastCheck.oneof(
  FastCheck.bigInt({ min: 1n, max: 30n }),
  FastCheck.bigInt({ min: 2n ** 53n, max: 2n ** 63n - 1n })
)

const entryAt = (id: bigint): FastCheck.Arbitrary<IdentityUpdateLogEntry> =>
  FastCheck.record({
    sequenceId: FastCheck.constant(id),
    serverTimestampNs: FastCheck.bigInt({ min: 0n, max: 2n ** 63n - 1n }),
    update: FastCheck.oneof(Arbitraries.bytes(40), FastCheck.constant(new Uint8Array(0)))
  })

interface Put {
  readonly log: ReadonlyArray<IdentityUpdateLogEntry>
  readonly newest: StateAt
}

const putOf = (inboxId: InboxId): FastCheck.Arbitrary<Put> =>
  FastCheck.uniqueArray(sequenceId, { minLength: 1, maxLength: 4 }).chain((ids) =>
    FastCheck.record({
      log: FastCheck.tuple(...ids.map(entryAt)),
      newest: FastCheck.record({
        sequenceId: FastCheck.constant(ids.reduce((most, id) => (id > most ? id : most))),
        state: associationState(inboxId)
      })
    })
  )

const one = <A>(arbitrary: FastCheck.Arbitrary<A>, seed: number): A => {
  const [value] = FastCheck.sample(arbitrary, { seed, numRuns: 1 })
  if (value === undefined) throw new Error("no sample")
  return value
}

/** States compare without the difference between a relying party that is undefined and one that is not there. */
const plain = (state: AssociationState) => ({
  ...state,
  recoveryIdentifier: { ...state.recoveryIdentifier },
  members: [...state.members]
})

/**
 * The tests of one cache. Each runs on a cache of its own.
 *
 * @since 1.0.0
 * @category suites
 */
export const suite = <E>(name: string, layer: Layer.Layer<AssociationStateCache, E>): void => {
  const onCache = <A, E2>(title: string, body: Effect.Effect<A, E2, AssociationStateCache>) =>
    it.effect(title, () => Effect.provide(body, layer))

  const alice = one(Arbitraries.inboxId, 1)
  const bob = one(Arbitraries.inboxId, 2)
  const carol = one(Arbitraries.inboxId, 3)
  const state = (inboxId: InboxId, seed: number) => one(associationState(inboxId), seed)
  const entry = (id: bigint, seed = Number(id)) => one(entryAt(id), seed)

  describe(name, () => {
    onCache(
      "knows nothing at first",
      Effect.gen(function* () {
        const cache = yield* AssociationStateCache
        expect(yield* cache.getNewest([alice, bob])).toEqual([Option.none(), Option.none()])
        expect(yield* cache.getNewest([])).toEqual([])
        expect(yield* cache.getAt(alice, 1n)).toEqual(Option.none())
        expect(yield* cache.getLog(alice)).toEqual([])
        yield* cache.put([])
      })
    )

    onCache(
      "gives back what was put, each inbox its own, in the order asked",
      Effect.gen(function* () {
        const cache = yield* AssociationStateCache
        yield* cache.put([
          { log: [entry(1n), entry(3n)], newest: { sequenceId: 3n, state: state(alice, 1) } },
          { log: [entry(2n)], newest: { sequenceId: 2n, state: state(bob, 2) } }
        ])
        const newest = yield* cache.getNewest([bob, carol, alice, bob])
        expect(newest.map(Option.map(({ sequenceId }) => sequenceId))).toEqual([
          Option.some(2n),
          Option.none(),
          Option.some(3n),
          Option.some(2n)
        ])
        const [ofBob] = newest
        expect(Option.getOrThrow(Option.map(ofBob ?? Option.none(), (at) => plain(at.state)))).toEqual(
          plain(state(bob, 2))
        )
        expect(yield* cache.getLog(alice)).toEqual([entry(1n), entry(3n)])
        expect(yield* cache.getLog(bob)).toEqual([entry(2n)])
      })
    )

    onCache(
      "keeps every state that was put, and knows the newest by its sequence id",
      Effect.gen(function* () {
        const cache = yield* AssociationStateCache
        yield* cache.put([{ log: [entry(9n)], newest: { sequenceId: 9n, state: state(alice, 9) } }])
        yield* cache.put([{ log: [entry(4n)], newest: { sequenceId: 4n, state: state(alice, 4) } }])
        const [newest] = yield* cache.getNewest([alice])
        expect(Option.map(newest ?? Option.none(), ({ sequenceId }) => sequenceId)).toEqual(Option.some(9n))
        expect(Option.map(yield* cache.getAt(alice, 4n), plain)).toEqual(Option.some(plain(state(alice, 4))))
        expect(yield* cache.getAt(alice, 5n)).toEqual(Option.none())
        expect(yield* cache.getAt(bob, 4n)).toEqual(Option.none())
      })
    )

    onCache(
      "leaves what is there as it is",
      Effect.gen(function* () {
        const cache = yield* AssociationStateCache
        yield* cache.put([{ log: [entry(1n, 100)], newest: { sequenceId: 1n, state: state(alice, 100) } }])
        yield* cache.put([{ log: [entry(1n, 200)], newest: { sequenceId: 1n, state: state(alice, 200) } }])
        expect(yield* cache.getLog(alice)).toEqual([entry(1n, 100)])
        expect(Option.map(yield* cache.getAt(alice, 1n), plain)).toEqual(Option.some(plain(state(alice, 100))))
      })
    )

    onCache(
      "reads a log ascending and up to an id, that id included",
      Effect.gen(function* () {
        const cache = yield* AssociationStateCache
        const large = 2n ** 53n + 1n
        yield* cache.put([
          { log: [entry(large, 5), entry(2n), entry(10n)], newest: { sequenceId: large, state: state(alice, 1) } }
        ])
        expect((yield* cache.getLog(alice)).map(({ sequenceId }) => sequenceId)).toEqual([2n, 10n, large])
        expect(yield* cache.getLog(alice, 10n)).toEqual([entry(2n), entry(10n)])
        expect(yield* cache.getLog(alice, 9n)).toEqual([entry(2n)])
        expect(yield* cache.getLog(alice, 1n)).toEqual([])
      })
    )

    onCache(
      "an inbox with a number that no signed 64 bits hold harms no other inbox",
      Effect.gen(function* () {
        const cache = yield* AssociationStateCache
        const beyond = 2n ** 63n
        yield* cache.put([
          { log: [entry(beyond, 1)], newest: { sequenceId: beyond, state: state(alice, 1) } },
          { log: [entry(2n)], newest: { sequenceId: 2n, state: state(bob, 2) } },
          {
            log: [{ ...entry(3n), serverTimestampNs: beyond }],
            newest: { sequenceId: 3n, state: state(carol, 3) }
          }
        ])
        const [, ofBob] = yield* cache.getNewest([alice, bob, carol])
        expect(Option.map(ofBob ?? Option.none(), ({ sequenceId }) => sequenceId)).toEqual(Option.some(2n))
        expect(yield* cache.getLog(bob, 2n ** 64n - 1n)).toEqual([entry(2n)])
        expect(yield* cache.getAt(bob, beyond)).toEqual(Option.none())
        // Kept or not: never another number.
        const ofAlice = Option.map(yield* cache.getAt(alice, beyond), plain)
        expect([Option.none(), Option.some(plain(state(alice, 1)))]).toContainEqual(ofAlice)
      })
    )

    onCache(
      "keeps its own copy of the bytes",
      Effect.gen(function* () {
        const cache = yield* AssociationStateCache
        const update = new Uint8Array([1, 2, 3])
        yield* cache.put([
          {
            log: [{ sequenceId: 1n, serverTimestampNs: 0n, update }],
            newest: { sequenceId: 1n, state: state(alice, 1) }
          }
        ])
        update.fill(0)
        expect((yield* cache.getLog(alice))[0]?.update).toEqual(new Uint8Array([1, 2, 3]))
      })
    )

    const SEED = 20261123
    it.effect(
      `behaves as a map that takes only what is not there (seed ${SEED})`,
      () =>
        Effect.gen(function* () {
          const scripts = FastCheck.sample(
            FastCheck.array(FastCheck.oneof(putOf(alice), putOf(bob)), { minLength: 1, maxLength: 6 }),
            { seed: SEED, numRuns: 25 }
          )
          for (const script of scripts) {
            yield* Effect.gen(function* () {
              const cache = yield* AssociationStateCache
              const states = new Map<string, AssociationState>()
              const logs = new Map<string, IdentityUpdateLogEntry>()
              for (const put of script) {
                yield* cache.put([put])
                const { inboxId } = put.newest.state
                const at = `${inboxId}/${put.newest.sequenceId}`
                if (!states.has(at)) states.set(at, put.newest.state)
                for (const one of put.log) {
                  const key = `${inboxId}/${one.sequenceId}`
                  if (!logs.has(key)) logs.set(key, one)
                }
              }
              for (const inboxId of [alice, bob]) {
                const ids = [...logs.keys()]
                  .filter((key) => key.startsWith(inboxId))
                  .map((key) => BigInt(key.slice(65)))
                  .sort((a, b) => (a < b ? -1 : 1))
                expect(yield* cache.getLog(inboxId)).toEqual(ids.map((id) => logs.get(`${inboxId}/${id}`)))
                let newest: bigint | undefined
                for (const id of ids) {
                  const expected = states.get(`${inboxId}/${id}`)
                  const found = yield* cache.getAt(inboxId, id)
                  expect(Option.map(found, plain)).toEqual(Option.map(Option.fromNullable(expected), plain))
                  if (expected !== undefined) newest = id
                }
                const [at] = yield* cache.getNewest([inboxId])
                expect(Option.getOrUndefined(Option.map(at ?? Option.none(), ({ sequenceId }) => sequenceId))).toBe(
                  newest
                )
              }
            }).pipe(Effect.provide(layer))
          }
        }),
      60_000
    )
  })
}
