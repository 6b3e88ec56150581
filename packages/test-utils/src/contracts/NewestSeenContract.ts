/**
 * What every memory of the newest packages seen must do.
 *
 * @since 1.0.0
 */
import { describe, expect, it } from "@effect/vitest"
import { NewestSeen, type Seen } from "@keyward/core/peers/NewestSeen"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import type * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Arbitraries from "../Arbitraries.ts"

const samples = <A>(arbitrary: FastCheck.Arbitrary<A>, count: number, seed: number): ReadonlyArray<A> =>
  FastCheck.sample(FastCheck.uniqueArray(arbitrary, { minLength: count, maxLength: count }), { seed, numRuns: 1 })[0] ??
  []

const installations = samples(Arbitraries.installationId, 4, 1)
const refs = samples(Arbitraries.keyPackageRef, 4, 2)

/** A package of one of four installations. */
const seen = (installation: number, notBefore: bigint, ref = 0): Seen => {
  const [installationId, keyPackageRef] = [installations[installation], refs[ref]]
  if (installationId === undefined || keyPackageRef === undefined) throw new Error("there are four")
  return { installationId, ref: keyPackageRef, notBefore }
}

const none = Option.none<Seen>()

/** Small times, so that they meet, and such as no signed 64 bits hold. */
const notBefore = FastCheck.oneof(
  { weight: 4, arbitrary: FastCheck.bigInt({ min: 0n, max: 5n }) },
  { weight: 1, arbitrary: FastCheck.bigInt({ min: 2n ** 63n - 1n, max: 2n ** 64n - 1n }) }
)

/**
 * The tests of one memory, given how many installations it may remember. Each runs on a memory of its own.
 *
 * @since 1.0.0
 * @category suites
 */
export const suite = <E>(
  name: string,
  layer: (options: { readonly capacity?: number | undefined }) => Layer.Layer<NewestSeen, E>
): void => {
  const remembering = <A, E2>(title: string, body: Effect.Effect<A, E2, NewestSeen>, capacity?: number) =>
    it.effect(title, () => Effect.provide(body, layer({ capacity })))

  const see = (...packages: ReadonlyArray<Seen>) => Effect.flatMap(NewestSeen, (memory) => memory.see(packages))

  describe(name, () => {
    remembering(
      "[32] flags a package that is older than one seen before, with the newer one, as often as it is served",
      Effect.gen(function* () {
        expect(yield* see()).toEqual([])
        expect(yield* see(seen(0, 10n, 1), seen(1, 5n))).toEqual([none, none])
        expect(yield* see(seen(1, 9n), seen(0, 9n))).toEqual([none, Option.some(seen(0, 10n, 1))])
        expect(yield* see(seen(0, 9n))).toEqual([Option.some(seen(0, 10n, 1))])
        expect(yield* see(seen(0, 11n, 2), seen(1, 8n))).toEqual([none, Option.some(seen(1, 9n))])
        expect(yield* see(seen(0, 10n, 1))).toEqual([Option.some(seen(0, 11n, 2))])
      })
    )

    remembering(
      "of the same time, the one seen last is the newest, and neither is older",
      Effect.gen(function* () {
        expect(yield* see(seen(0, 10n, 1), seen(0, 10n, 2))).toEqual([none, none])
        expect(yield* see(seen(0, 3n))).toEqual([Option.some(seen(0, 10n, 2))])
      })
    )

    remembering(
      "forgets the installation that was seen longest ago",
      Effect.gen(function* () {
        yield* see(seen(0, 10n), seen(1, 10n))
        // Seen again, although its package is older.
        yield* see(seen(0, 9n))
        yield* see(seen(2, 10n))
        expect(yield* see(seen(0, 1n))).toEqual([Option.some(seen(0, 10n))])
        expect(yield* see(seen(2, 1n))).toEqual([Option.some(seen(2, 10n))])
        expect(yield* see(seen(1, 1n))).toEqual([none])
        // Which took the place of the one before the last.
        expect(yield* see(seen(0, 1n))).toEqual([none])
      }),
      2
    )

    remembering(
      "remembers nobody where there is room for nobody",
      Effect.gen(function* () {
        yield* see(seen(0, 10n))
        expect(yield* see(seen(0, 9n))).toEqual([none])
      }),
      0
    )

    const SEED = 20261123
    it.effect(
      `tells what a map of the newest would tell (seed ${SEED})`,
      () =>
        Effect.gen(function* () {
          const one = FastCheck.tuple(FastCheck.nat(3), notBefore, FastCheck.nat(3)).map((parts) => seen(...parts))
          const scripts = FastCheck.sample(
            FastCheck.array(FastCheck.array(one, { maxLength: 5 }), { minLength: 1, maxLength: 8 }),
            { seed: SEED, numRuns: 40 }
          )
          for (const script of scripts) {
            yield* Effect.gen(function* () {
              const model = new Map<string, Seen>()
              for (const packages of script) {
                const expected = packages.map((one) => {
                  const known = model.get(one.installationId)
                  const isOlder = known !== undefined && one.notBefore < known.notBefore
                  if (!isOlder) model.set(one.installationId, one)
                  return isOlder ? Option.some(known) : none
                })
                expect(yield* see(...packages)).toEqual(expected)
              }
            }).pipe(Effect.provide(layer({})))
          }
        }),
      60_000
    )
  })
}
