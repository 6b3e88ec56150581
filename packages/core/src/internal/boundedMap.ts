/**
 * A map that forgets what was set longest ago once it is full.
 */

/** A second bound, where values differ much in size. */
export interface Weights<V> {
  /** The most that all values may weigh together, in the unit of `weightOf`. */
  readonly most: number
  /** What one value weighs, from 0. It must stay the same while the value is in the map. */
  readonly weightOf: (value: V) => number
}

/** Full at so many entries or, where weights are given, at so much weight. */
export class BoundedMap<K, V> {
  readonly #entries = new Map<K, V>()
  readonly #capacity: number
  readonly #weights: Weights<V> | undefined
  #weight = 0

  constructor(capacity: number, weights?: Weights<V>) {
    this.#capacity = capacity
    this.#weights = weights
  }

  get size(): number {
    return this.#entries.size
  }

  get(key: K): V | undefined {
    return this.#entries.get(key)
  }

  /** The entry is now the newest. One that is heavier than all together may be is not kept, and pushes nothing out. */
  set(key: K, value: V): void {
    this.delete(key)
    const weight = this.#weights?.weightOf(value) ?? 0
    const most = this.#weights?.most ?? 0
    if (this.#capacity <= 0 || weight > most) return
    for (const oldest of this.#entries.keys()) {
      if (this.#entries.size < this.#capacity && this.#weight + weight <= most) break
      this.delete(oldest)
    }
    this.#entries.set(key, value)
    this.#weight += weight
  }

  delete(key: K): boolean {
    const value = this.#entries.get(key)
    if (value !== undefined && this.#weights !== undefined) this.#weight -= this.#weights.weightOf(value)
    return this.#entries.delete(key)
  }

  entries(): IterableIterator<[K, V]> {
    return this.#entries.entries()
  }
}
