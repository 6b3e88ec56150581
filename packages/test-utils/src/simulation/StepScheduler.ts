/**
 * The processor of a simulated process: what its fibers want to run waits here until the world lets it.
 *
 * @since 1.0.0
 */
import * as Fiber from "effect/Fiber"
import { globalValue } from "effect/GlobalValue"
import { defaultShouldYield, type Scheduler, type Task } from "effect/Scheduler"

/**
 * An Effect scheduler that runs nothing by itself. Killed, it forgets everything: fibers stop between two instructions, and no
 * finalizer of theirs runs, as with SIGKILL.
 *
 * @since 1.0.0
 * @category models
 */
export class StepScheduler implements Scheduler {
  readonly shouldYield: Scheduler["shouldYield"] = defaultShouldYield
  /** While true, nothing is ready: the process stands still and does not know it. */
  isPaused = false
  #tasks: Array<Task> = []
  #next = 0
  #isDead = false

  /** Whether nothing will ever run again. */
  get isDead(): boolean {
    return this.#isDead
  }

  /** Whether `step` has something to run. */
  get isReady(): boolean {
    return !this.isPaused && this.#next < this.#tasks.length
  }

  /** For fibers: runs this later. */
  scheduleTask(task: Task): void {
    if (!this.#isDead) this.#tasks.push(task)
  }

  /** Runs one task, the one that has waited longest. */
  step(): void {
    const task = this.#tasks[this.#next]
    this.#next += 1
    if (this.#next === this.#tasks.length) {
      this.#tasks = []
      this.#next = 0
    }
    task?.()
  }

  /** Nothing runs any more, for good. */
  kill(): void {
    this.#isDead = true
    this.#tasks = []
    this.#next = 0
    forgetDead()
  }
}

/**
 * Has the fibers of dead processes forgotten: none of them ever ends, and Effect keeps every fiber without a parent until it does,
 * with all that it ever touched, which is a megabyte for each life. There is no function for it. A release of Effect that keeps
 * them elsewhere costs memory, and nothing else.
 *
 * @since 1.0.0
 * @category running
 */
export const forgetDead = (): void => {
  const scope = globalValue<{ readonly roots?: Set<unknown> }>(Symbol.for("effect/FiberScope/Global"), () => ({}))
  for (const fiber of Fiber.unsafeRoots()) {
    const { currentScheduler } = fiber
    if (currentScheduler instanceof StepScheduler && currentScheduler.isDead) scope.roots?.delete(fiber)
  }
}
