/**
 * The decoders of what strangers send, held against mutants of real input: each mutant is decoded to a value that encodes
 * back to the same, or refused by a typed error. Nothing else may happen, and none may take long or much memory.
 *
 * @since 1.0.0
 */
import { CurveBackend } from "@keyward/core/identity/CurveBackend"
import * as FastCurveBackend from "@keyward/core/identity/FastCurveBackend"
import * as IdentityLog from "@keyward/core/identity/IdentityLog"
import * as IdentityUpdate from "@keyward/core/identity/IdentityUpdate"
import * as Codec from "@keyward/core/keypackage/Codec"
import type * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Mutation from "./Mutation.ts"
import * as VectorWallets from "./VectorWallets.ts"
import { directedLogs, randomIdentityLogs, sessionIdentityUpdates } from "./vectors/IdentityVectors.ts"
import { rfc9420KeyPackages, sessionKeyPackages } from "./vectors/KeyPackageVectors.ts"

/**
 * What becomes of one input. `Broken` is a decoder that threw, or made a value that does not encode back.
 *
 * @since 1.0.0
 * @category models
 */
export type Outcome =
  | { readonly _tag: "Accepted" }
  /** The reason of the typed error. */
  | { readonly _tag: "Refused"; readonly reason: string }
  | { readonly _tag: "Broken"; readonly detail: string }

/**
 * What is fuzzed.
 *
 * @since 1.0.0
 * @category models
 */
export interface Target {
  readonly name: string
  /** Above this an input is measured again, milliseconds. */
  readonly longMillis: number
  /** An input from the generator: parts that belong together, such as the updates of a log. */
  readonly input: (next: Mutation.Next) => ReadonlyArray<Uint8Array>
  readonly judge: (input: ReadonlyArray<Uint8Array>) => Outcome | Promise<Outcome>
}

/**
 * What a run has found.
 *
 * @since 1.0.0
 * @category models
 */
export interface Report {
  readonly target: string
  readonly runs: number
  readonly accepted: number
  readonly refused: Readonly<Record<string, number>>
  /** The slowest input, milliseconds: the best of several times where the first was long, so that pauses do not count. */
  readonly maxMillis: number
  /** The most memory that one input took, bytes, measured likewise. */
  readonly maxBytes: number
  /** Inputs that broke the decoder, hex of their parts. */
  readonly broken: ReadonlyArray<{ readonly detail: string; readonly input: ReadonlyArray<string> }>
}

const fromHex = (text: string): Uint8Array => Either.getOrThrow(Encoding.decodeHex(text))

const same = (left: Uint8Array, right: Uint8Array): boolean => Encoding.encodeHex(left) === Encoding.encodeHex(right)

const accepted: Outcome = { _tag: "Accepted" }

const mutantOf = (corpus: ReadonlyArray<string>) => (next: Mutation.Next) => [
  Mutation.mutate(next, fromHex(Mutation.pick(next, corpus)), fromHex(Mutation.pick(next, corpus)))
]

/**
 * `Codec.decode` of mutants of real key packages. What it takes has one encoding: the input.
 *
 * @since 1.0.0
 * @category targets
 */
export const keyPackage: Target = {
  name: "key package: decode",
  longMillis: 0.2,
  input: mutantOf([
    ...sessionKeyPackages.map((one) => one.bytes),
    ...rfc9420KeyPackages.suite1,
    ...rfc9420KeyPackages.suite2,
    ...rfc9420KeyPackages.suite3
  ]),
  judge: ([bytes = new Uint8Array(0)]) =>
    Either.match(Codec.decode(bytes), {
      onLeft: ({ reason }): Outcome => ({ _tag: "Refused", reason }),
      onRight: (decoded): Outcome =>
        same(Codec.encode(decoded), bytes) ? accepted : { _tag: "Broken", detail: "encodes to other bytes" }
    })
}

/**
 * `IdentityUpdate.decode` of mutants of real updates. What it takes has a meaning, which encodes and decodes to itself.
 *
 * @since 1.0.0
 * @category targets
 */
export const identityUpdate: Target = {
  name: "identity update: decode",
  longMillis: 0.2,
  input: mutantOf([
    ...directedLogs.flatMap(({ updates }) => updates),
    ...randomIdentityLogs.flatMap(({ updates }) => updates),
    ...sessionIdentityUpdates.map((one) => one.identityUpdate)
  ]),
  judge: ([bytes = new Uint8Array(0)]) =>
    Either.match(IdentityUpdate.decode(bytes), {
      onLeft: ({ reason }): Outcome => ({ _tag: "Refused", reason }),
      onRight: (decoded): Outcome => {
        const encoded = IdentityUpdate.encode(decoded)
        const again = IdentityUpdate.decode(encoded)
        return Either.isRight(again) && same(IdentityUpdate.encode(again.right), encoded)
          ? accepted
          : { _tag: "Broken", detail: "does not decode to itself again" }
      }
    })
}

/**
 * `IdentityLog.resolve` of real logs with one mutant among their updates, by the fast curve backend.
 *
 * @since 1.0.0
 * @category targets
 */
export const identityLog: Effect.Effect<Target> = Effect.map(FastCurveBackend.make, (curves) => ({
  name: "identity log: resolve",
  // Curve operations: a millisecond is nothing.
  longMillis: 20,
  input: (next) => {
    const updates = Mutation.pick(next, randomIdentityLogs).updates.map(fromHex)
    const at = next(updates.length)
    return updates.map((update, index) => (index === at ? Mutation.mutate(next, update, updates[0] ?? update) : update))
  },
  judge: (updates) =>
    IdentityLog.resolve(updates).pipe(
      Effect.match({
        onSuccess: () => accepted,
        onFailure: ({ reason, stage }): Outcome => ({ _tag: "Refused", reason: `${stage}: ${reason}` })
      }),
      Effect.provide(VectorWallets.layer),
      Effect.provideService(CurveBackend, curves),
      Effect.runPromise
    )
}))

/** Above this, an input is measured again. */
const MUCH_BYTES = 2 ** 20

const memory = (): number => {
  const { arrayBuffers, heapUsed } = process.memoryUsage()
  return heapUsed + arrayBuffers
}

interface Measured {
  readonly outcome: Outcome
  readonly millis: number
  readonly bytes: number
}

const measure = async (clock: Clock.Clock, target: Target, input: ReadonlyArray<Uint8Array>): Promise<Measured> => {
  const before = memory()
  const started = clock.unsafeCurrentTimeNanos()
  const outcome = await Promise.resolve()
    .then(() => target.judge(input))
    .catch((defect): Outcome => ({ _tag: "Broken", detail: String(defect) }))
  const millis = Number(clock.unsafeCurrentTimeNanos() - started) / 1e6
  // Less than before: the garbage collector ran, and nothing is known.
  return { outcome, millis, bytes: Math.max(0, memory() - before) }
}

const best = async (clock: Clock.Clock, target: Target, input: ReadonlyArray<Uint8Array>): Promise<Measured> => {
  let measured = await measure(clock, target, input)
  for (let again = 0; again < 10 && (measured.millis > target.longMillis || measured.bytes > MUCH_BYTES); again++) {
    const next = await measure(clock, target, input)
    measured = {
      outcome: measured.outcome,
      millis: Math.min(measured.millis, next.millis),
      bytes: Math.min(measured.bytes, next.bytes)
    }
  }
  return measured
}

/**
 * Holds a target against so many mutants, made from the seed.
 *
 * @since 1.0.0
 * @category running
 */
export const run = (target: Target, options: { readonly runs: number; readonly seed: number }): Effect.Effect<Report> =>
  Effect.clockWith((clock) =>
    Effect.promise(async () => {
      const { runs, seed } = options
      const next = Mutation.generator(seed)
      const refused: Record<string, number> = {}
      const broken: Array<Report["broken"][number]> = []
      let taken = 0
      let maxMillis = 0
      let maxBytes = 0
      for (let index = 0; index < runs; index++) {
        const input = target.input(next)
        const { bytes, millis, outcome } = await best(clock, target, input)
        maxMillis = Math.max(maxMillis, millis)
        maxBytes = Math.max(maxBytes, bytes)
        if (outcome._tag === "Accepted") taken++
        else if (outcome._tag === "Refused") refused[outcome.reason] = (refused[outcome.reason] ?? 0) + 1
        else broken.push({ detail: outcome.detail, input: input.map((part) => Encoding.encodeHex(part)) })
      }
      return { target: target.name, runs, accepted: taken, refused, maxMillis, maxBytes, broken }
    })
  )
