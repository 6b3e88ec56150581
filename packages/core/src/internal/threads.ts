/**
 * Worker threads that are there for the speed only: nothing waits for them, and nothing changes where there are none.
 */
import { availableParallelism } from "node:os"
import { Worker } from "node:worker_threads"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

/** Who has a task of a table in shared memory. Whoever takes one does so by an atomic exchange. */
export const status = {
  /** Nobody has begun. */
  Open: 0,
  /** The asking thread has it. */
  Ours: 1,
  /** A worker has it. */
  Theirs: 2,
  /** A worker has done it. */
  Done: 3,
  /** The worker's library gives no answer; the asking thread finds out why. */
  Refused: 4
} as const

/** The calling thread does its part, and a node or a database has something to do as well. */
const MOST_THREADS = 3

/** How many threads there are unless an app says so: one less than the processors, and at most 3. */
export const defaultCount = (): number => Math.min(MOST_THREADS, availableParallelism() - 1)

/** What threads are to run, and when it is worth it. */
export interface Options {
  /** Plain JavaScript in this folder, which the package has with it wherever it is built to. */
  readonly script: string
  /** As debuggers show it. */
  readonly name: string
  readonly threads: number
  /** Tasks there have to be before any is started: as many as take the processor time of its start. */
  readonly tasksBeforeStart: number
}

/** Threads that run one script. */
export interface Threads {
  /** Counts tasks that have come up, and starts the threads when they are many. Whether there are any now. */
  readonly expect: (tasks: number) => boolean
  /** Sends every thread the same. */
  readonly send: (message: unknown) => void
}

/** They start when there has been enough to do, do not keep the process alive, and end with the scope. */
export const make = ({
  name,
  script,
  tasksBeforeStart,
  threads
}: Options): Effect.Effect<Threads, never, Scope.Scope> =>
  Effect.map(
    Effect.acquireRelease(
      Effect.sync(() => ({ running: new Set<Worker>(), toStart: threads })),
      (pool) =>
        Effect.promise(() => {
          // Whoever goes on asking when the scope has ended starts none that nobody would end.
          pool.toStart = 0
          return Promise.all(Array.from(pool.running, (worker) => worker.terminate()))
        })
    ),
    (pool) => {
      const { running } = pool
      let tasksUntilStart = tasksBeforeStart

      const start = () => {
        try {
          const worker = new Worker(new URL(`../../src/internal/${script}`, import.meta.url), {
            name,
            // It needs nothing of either; a loader of the app's would only delay it.
            env: {},
            execArgv: []
          })
          worker.unref()
          running.add(worker)
          const gone = () => running.delete(worker)
          worker.on("error", gone)
          worker.on("exit", gone)
        } catch {
          // No threads here, as under a permission model: the calling thread does everything.
          pool.toStart = 0
        }
      }

      return {
        expect: (tasks) => {
          tasksUntilStart -= tasks
          if (tasksUntilStart <= 0) for (; pool.toStart > 0; pool.toStart--) start()
          return running.size > 0
        },
        send: (message) => {
          for (const worker of running) worker.postMessage(message)
        }
      }
    }
  )
