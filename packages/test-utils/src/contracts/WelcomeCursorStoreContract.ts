/**
 * What every store of the places in Welcome topics must do.
 *
 * @since 1.0.0
 */
import { describe, expect, it } from "@effect/vitest"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as Cursor from "@keyward/core/ports/WelcomeCursorStore"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Arbitraries from "../Arbitraries.ts"
import * as MemoryWelcomeCursorStore from "../MemoryWelcomeCursorStore.ts"

const at = (minutes: number): DateTime.Utc => DateTime.add(DateTime.unsafeMake("2026-11-23T12:00:00.123Z"), { minutes })

const installation = (seed: number): InstallationId => {
  const [id] = FastCheck.sample(Arbitraries.installationId, { seed, numRuns: 1 })
  if (id === undefined) throw new Error("no sample")
  return id
}

/** One call, on either of two installations. */
type Step =
  | { readonly call: "resolve" | "postpone"; readonly who: 0 | 1; readonly id: bigint; readonly minutes: number }
  | { readonly call: "completeReading"; readonly who: 0 | 1; readonly id: bigint; readonly minutes: number }

/** Small ids, so that steps meet, and such as no JavaScript number and no signed 64 bits hold. */
const id = FastCheck.oneof(
  { weight: 5, arbitrary: FastCheck.bigInt({ min: 1n, max: 8n }) },
  { weight: 1, arbitrary: FastCheck.bigInt({ min: 2n ** 53n, max: 2n ** 53n + 3n }) },
  { weight: 1, arbitrary: FastCheck.bigInt({ min: 2n ** 64n - 2n, max: 2n ** 64n - 1n }) }
)

const step: FastCheck.Arbitrary<Step> = FastCheck.record({
  call: FastCheck.constantFrom("resolve" as const, "postpone" as const, "completeReading" as const),
  who: FastCheck.constantFrom(0 as const, 1 as const),
  id,
  minutes: FastCheck.integer({ min: -1000, max: 1000 })
})

/** Compares without the identity of the dates. */
const plain = (cursor: Cursor.WelcomeCursor) => ({
  position: cursor.position,
  readAsOf: Option.map(cursor.readAsOf, DateTime.formatIso),
  unresolved: cursor.unresolved.map((welcome) => ({
    id: welcome.id,
    attempts: welcome.attempts,
    firstFailedAt: DateTime.formatIso(welcome.firstFailedAt),
    completeBefore: Option.map(welcome.completeBefore, DateTime.formatIso)
  }))
})

/**
 * The tests of one store. Each runs on a store of its own.
 *
 * @since 1.0.0
 * @category suites
 */
export const suite = <E>(name: string, layer: Layer.Layer<Cursor.WelcomeCursorStore, E>): void => {
  const onStore = <A, E2>(title: string, body: Effect.Effect<A, E2, Cursor.WelcomeCursorStore>) =>
    it.effect(title, () => Effect.provide(body, layer))

  const alice = installation(1)
  const bob = installation(2)

  describe(name, () => {
    onStore(
      "knows nothing at first",
      Effect.gen(function* () {
        const store = yield* Cursor.WelcomeCursorStore
        expect(plain(yield* store.get(alice))).toEqual(plain(Cursor.start))
        expect(Cursor.resolvedUpTo(yield* store.get(alice))).toBe(0n)
      })
    )

    onStore(
      "resolves an entry once, and knows it from then on, each installation its own",
      Effect.gen(function* () {
        const store = yield* Cursor.WelcomeCursorStore
        expect(yield* store.resolve(alice, 3n)).toBe(true)
        expect(yield* store.resolve(alice, 3n)).toBe(false)
        // Below the position nothing is left to be resolved.
        expect(yield* store.resolve(alice, 2n)).toBe(false)
        expect(yield* store.resolve(alice, 4n)).toBe(true)
        expect((yield* store.get(alice)).position).toBe(4n)
        expect((yield* store.get(bob)).position).toBe(0n)
      })
    )

    onStore(
      "keeps what failed for now, counts its attempts, and lets later entries pass",
      Effect.gen(function* () {
        const store = yield* Cursor.WelcomeCursorStore
        yield* store.resolve(alice, 1n)
        expect(yield* store.postpone(alice, 2n, at(0))).toBe(true)
        yield* store.resolve(alice, 3n)
        yield* store.postpone(alice, 10n, at(1))
        expect(yield* store.postpone(alice, 2n, at(5))).toBe(true)
        const cursor = yield* store.get(alice)
        expect(plain(cursor)).toEqual(
          plain({
            position: 10n,
            readAsOf: Option.none(),
            unresolved: [
              { id: 2n, attempts: 2, firstFailedAt: at(0), completeBefore: Option.none() },
              { id: 10n, attempts: 1, firstFailedAt: at(1), completeBefore: Option.none() }
            ]
          })
        )
        expect(Cursor.resolvedUpTo(cursor)).toBe(1n)
        expect(yield* store.resolve(alice, 2n)).toBe(true)
        expect(yield* store.resolve(alice, 2n)).toBe(false)
        expect(Cursor.resolvedUpTo(yield* store.get(alice))).toBe(9n)
      })
    )

    onStore(
      "what is resolved stays so, whoever says that it failed",
      Effect.gen(function* () {
        const store = yield* Cursor.WelcomeCursorStore
        yield* store.resolve(alice, 5n)
        expect(yield* store.postpone(alice, 5n, at(0))).toBe(false)
        expect(yield* store.postpone(alice, 4n, at(0))).toBe(false)
        expect((yield* store.get(alice)).unresolved).toEqual([])
      })
    )

    onStore(
      "is complete as of the latest reading; what failed since the one before holds it there until it is resolved",
      Effect.gen(function* () {
        const store = yield* Cursor.WelcomeCursorStore
        const asOf = Effect.map(store.get(alice), (cursor) =>
          Option.getOrUndefined(Option.map(Cursor.completeAsOf(cursor), DateTime.formatIso))
        )
        expect(yield* asOf).toBe(undefined)
        yield* store.completeReading(alice, { began: at(0), upTo: 7n })
        expect((yield* store.get(alice)).position).toBe(7n)
        expect(yield* asOf).toBe(DateTime.formatIso(at(0)))
        yield* store.postpone(alice, 8n, at(11))
        yield* store.completeReading(alice, { began: at(10), upTo: 8n })
        expect(yield* asOf).toBe(DateTime.formatIso(at(0)))
        yield* store.postpone(alice, 9n, at(21))
        yield* store.completeReading(alice, { began: at(20), upTo: 9n })
        yield* store.resolve(alice, 8n)
        expect(yield* asOf).toBe(DateTime.formatIso(at(10)))
        yield* store.resolve(alice, 9n)
        expect(yield* asOf).toBe(DateTime.formatIso(at(20)))
        expect(Option.isNone((yield* store.get(bob)).readAsOf)).toBe(true)
      })
    )

    onStore(
      "the latest reading counts, also where its time is earlier; the position never goes back",
      Effect.gen(function* () {
        const store = yield* Cursor.WelcomeCursorStore
        yield* store.completeReading(alice, { began: at(1000), upTo: 7n })
        yield* store.completeReading(alice, { began: at(5), upTo: 3n })
        const { position, readAsOf } = yield* store.get(alice)
        expect(position).toBe(7n)
        expect(Option.map(readAsOf, DateTime.formatIso)).toEqual(Option.some(DateTime.formatIso(at(5))))
      })
    )

    onStore(
      "[13] what failed after a reading under a clock that was ahead says nothing any more, once a reading began earlier",
      Effect.gen(function* () {
        const store = yield* Cursor.WelcomeCursorStore
        const before = Effect.map(store.get(alice), ({ unresolved }) =>
          unresolved.map(({ completeBefore }) => Option.getOrUndefined(Option.map(completeBefore, DateTime.formatIso)))
        )
        yield* store.completeReading(alice, { began: at(5), upTo: 1n })
        yield* store.postpone(alice, 2n, at(6))
        yield* store.completeReading(alice, { began: at(1000), upTo: 2n })
        yield* store.postpone(alice, 3n, at(7))
        expect(yield* before).toEqual([DateTime.formatIso(at(5)), DateTime.formatIso(at(1000))])
        yield* store.completeReading(alice, { began: at(10), upTo: 3n })
        expect(yield* before).toEqual([DateTime.formatIso(at(5)), undefined])
        expect(Option.isNone(Cursor.completeAsOf(yield* store.get(alice)))).toBe(true)
        yield* store.resolve(alice, 3n)
        expect(Option.map(Cursor.completeAsOf(yield* store.get(alice)), DateTime.formatIso)).toEqual(
          Option.some(DateTime.formatIso(at(5)))
        )
      })
    )

    onStore(
      "[52] of many that resolve one entry at once, one did it",
      Effect.gen(function* () {
        const store = yield* Cursor.WelcomeCursorStore
        yield* store.postpone(alice, 6n, at(0))
        for (const entry of [7n, 6n]) {
          const did = yield* Effect.all(
            Array.from({ length: 8 }, () => store.resolve(alice, entry)),
            { concurrency: "unbounded" }
          )
          expect(did.filter((one) => one).length).toBe(1)
        }
      })
    )

    const SEED = 20261123
    it.effect(
      `any calls in any order leave what they leave in memory, for ids of 64 bits (seed ${SEED})`,
      () =>
        Effect.gen(function* () {
          const scripts = FastCheck.sample(FastCheck.array(step, { minLength: 1, maxLength: 20 }), {
            seed: SEED,
            numRuns: 30
          })
          for (const script of scripts) {
            const model = yield* MemoryWelcomeCursorStore.make
            yield* Effect.gen(function* () {
              const store = yield* Cursor.WelcomeCursorStore
              const run = (subject: typeof model, { call, id: entry, minutes, who }: Step) => {
                const owner = who === 0 ? alice : bob
                switch (call) {
                  case "resolve":
                    return subject.resolve(owner, entry)
                  case "postpone":
                    return subject.postpone(owner, entry, at(minutes))
                  case "completeReading":
                    return subject.completeReading(owner, { began: at(minutes), upTo: entry })
                }
              }
              for (const one of script) {
                const did = yield* run(store, one)
                expect(did).toBe(yield* run(model, one))
              }
              for (const owner of [alice, bob]) {
                expect(plain(yield* store.get(owner))).toEqual(plain(yield* model.get(owner)))
              }
            }).pipe(Effect.provide(layer))
          }
        }),
      60_000
    )
  })
}
