/**
 * Bytes that are nearly right: what a decoder must survive. Everything follows from a seed, so that a failing input can be
 * made again.
 *
 * @since 1.0.0
 */

/**
 * Whole numbers from 0 to `limit - 1`; of a limit of 0, always 0.
 *
 * @since 1.0.0
 * @category models
 */
export type Next = (limit: number) => number

/**
 * A generator of numbers from a seed (mulberry32). Not for keys.
 *
 * @since 1.0.0
 * @category constructors
 */
export const generator = (seed: number): Next => {
  let state = seed >>> 0
  return (limit) => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return Math.floor((((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32) * limit)
  }
}

/**
 * Random bytes of this length.
 *
 * @since 1.0.0
 * @category constructors
 */
export const bytes = (next: Next, length: number): Uint8Array => Uint8Array.from({ length }, () => next(256))

/**
 * One of the values. There must be one.
 *
 * @since 1.0.0
 * @category constructors
 */
export const pick = <A>(next: Next, values: ReadonlyArray<A>): A => values[next(values.length)] as A

/**
 * The input with one change, or with up to four: a flipped bit, another byte, a cut, an insertion, a piece of `other` to the
 * end. Half of the mutants keep their length, or nearly none would get past the outermost frame.
 *
 * @since 1.0.0
 * @category combinators
 */
export const mutate = (next: Next, input: Uint8Array, other: Uint8Array): Uint8Array => {
  let mutant = [...input]
  const kinds = next(2) === 0 ? 2 : 5
  for (let changes = 1 + (next(2) === 0 ? 0 : next(4)); changes > 0; changes--) {
    const at = next(mutant.length + 1)
    const kind = next(kinds)
    if (kind === 0 && at < mutant.length) mutant[at] = (mutant[at] ?? 0) ^ (1 << next(8))
    else if (kind === 1 && at < mutant.length) mutant[at] = next(256)
    else if (kind === 2) mutant.splice(at, 1 + next(8))
    else if (kind === 3) mutant.splice(at, 0, ...bytes(next, 1 + next(4)))
    else mutant = [...mutant.slice(0, at), ...other.subarray(next(other.length))]
  }
  return Uint8Array.from(mutant)
}
