/**
 * Time that passes when it is told to.
 *
 * @since 1.0.0
 */
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"

interface Timer {
  readonly at: number
  readonly order: number
  readonly task: () => void
  isCancelled: boolean
}

const isBefore = (one: Timer, other: Timer): boolean =>
  one.at < other.at || (one.at === other.at && one.order < other.order)

/**
 * Timers in the order in which they are due; of those due at once, the one that was set first.
 *
 * @since 1.0.0
 * @category models
 */
export class Timers {
  readonly #heap: Array<Timer> = []
  #order = 0

  /** Has the task run at `at`. The result takes it back. */
  set(at: number, task: () => void): () => void {
    const timer: Timer = { at, order: this.#order++, task, isCancelled: false }
    this.#heap.push(timer)
    this.#rise(this.#heap.length - 1)
    return () => {
      timer.isCancelled = true
    }
  }

  /** When the next one is due; none while there is none. */
  get next(): number | undefined {
    while (this.#heap[0]?.isCancelled === true) this.#remove()
    return this.#heap[0]?.at
  }

  /** Takes the next one out and runs it. */
  fire(): void {
    if (this.next === undefined) return
    const timer = this.#remove()
    timer?.task()
  }

  clear(): void {
    this.#heap.length = 0
  }

  #remove(): Timer | undefined {
    const first = this.#heap[0]
    const last = this.#heap.pop()
    if (last !== undefined && this.#heap.length > 0) {
      this.#heap[0] = last
      this.#sink(0)
    }
    return first
  }

  #rise(from: number): void {
    let index = from
    while (index > 0) {
      const parent = (index - 1) >> 1
      if (!this.#swapIfBefore(index, parent)) return
      index = parent
    }
  }

  #sink(from: number): void {
    let index = from
    while (true) {
      const left = 2 * index + 1
      const right = left + 1
      let least = index
      for (const child of [left, right]) {
        const one = this.#heap[child]
        const other = this.#heap[least]
        if (one !== undefined && other !== undefined && isBefore(one, other)) least = child
      }
      if (least === index) return
      this.#swapIfBefore(least, index)
      index = least
    }
  }

  #swapIfBefore(one: number, other: number): boolean {
    const a = this.#heap[one]
    const b = this.#heap[other]
    if (a === undefined || b === undefined || !isBefore(a, b)) return false
    this.#heap[one] = b
    this.#heap[other] = a
    return true
  }
}

/**
 * The clock of one machine: right, and counting while the machine is awake.
 *
 * @since 1.0.0
 * @category models
 */
export interface MachineTime {
  /** Milliseconds since 1970. */
  readonly wallMillis: () => number
  /** Milliseconds that the machine has been awake: timers count these. */
  readonly awakeMillis: () => number
  readonly timers: Timers
}

/**
 * Effect's clock on such a machine.
 *
 * @since 1.0.0
 * @category constructors
 */
export const clockOf = ({ awakeMillis, timers, wallMillis }: MachineTime): Clock.Clock => {
  const nanos = () => BigInt(Math.floor(awakeMillis())) * 1_000_000n
  return {
    [Clock.ClockTypeId]: Clock.ClockTypeId,
    unsafeCurrentTimeMillis: wallMillis,
    unsafeCurrentTimeNanos: nanos,
    currentTimeMillis: Effect.sync(wallMillis),
    currentTimeNanos: Effect.sync(nanos),
    sleep: (duration) =>
      Effect.async<void>((resume) => {
        const cancel = timers.set(awakeMillis() + Duration.toMillis(duration), () => resume(Effect.void))
        return Effect.sync(cancel)
      })
  }
}
