/**
 * Worker threads that compute curve operations before they are asked for.
 *
 * The thread that replays logs never waits for a worker and never depends on one: it goes through the questions from the
 * first on, the workers from the last, and what no worker has answered when it gets there it answers itself. So a worker that
 * is slow, dies or never starts costs time and changes nothing. What workers are given is in the log: no key, no secret.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { answer, type Foreseen, type Operations, type Question } from "../identity/CurveBackend.ts"
import * as threads from "./threads.ts"

/**
 * A table in shared memory: a word of status for each question, then the slots. A slot has up to 97 bytes of arguments, the
 * kind of question (0 recovers, 1 combines), and the answer of 65 or 32 bytes.
 */
const layout = {
  SlotBytes: 176,
  KindAt: 97,
  ResultAt: 104,
  ...threads.status
} as const

/** What a worker is sent. */
export interface Batch {
  readonly bytes: SharedArrayBuffer
  readonly count: number
  readonly layout: typeof layout
}

/** Below that a batch is not worth a message. */
const SMALLEST_BATCH = 16
/** About a second's work, and 750 KiB. What comes after is answered when it is asked for. */
const LARGEST_BATCH = 4_096
/** A worker takes a third of a second of processor time to start: as much as these take. */
const QUESTIONS_BEFORE_START = 1_000

const isWellFormed = (question: Question): boolean =>
  question._tag === "recoverSecp256k1"
    ? question.digest.length === 32 && question.signature.length === 64
    : question.s.length === 32 && question.k.length === 32 && question.a.length === 32

/** Writes a question into its slot, the arguments one after the other. */
const write = (slot: Uint8Array, question: Question): void => {
  if (question._tag === "recoverSecp256k1") {
    slot.set(question.digest)
    slot.set(question.signature, 32)
    slot[96] = question.parity
    slot[layout.KindAt] = 0
  } else {
    slot.set(question.s)
    slot.set(question.k, 32)
    slot.set(question.a, 64)
    slot[layout.KindAt] = 1
  }
}

/** The table of some questions, and who looks into it before computing an answer. */
const tableOf = (questions: ReadonlyArray<Question>, own: Operations) => {
  const count = questions.length
  const bytes = new SharedArrayBuffer((4 + layout.SlotBytes) * count)
  const status = new Int32Array(bytes, 0, count)
  const slots = new Uint8Array(bytes, 4 * count)
  const indexes = new Map<Question, number>()
  for (const [index, question] of questions.entries()) {
    write(slots.subarray(layout.SlotBytes * index, layout.SlotBytes * (index + 1)), question)
    indexes.set(question, index)
  }

  /** A worker's answer, if it has one already; otherwise the question is taken from the workers. */
  const answered = (question: Question): Uint8Array | undefined => {
    const index = indexes.get(question)
    if (index === undefined) return undefined
    if (Atomics.compareExchange(status, index, layout.Open, layout.Ours) !== layout.Done) return undefined
    const start = layout.SlotBytes * index + layout.ResultAt
    return slots.slice(start, start + (question._tag === "recoverSecp256k1" ? 65 : 32))
  }

  const foreseen: Foreseen = {
    answer: (question) => answered(question) ?? answer(own, question),
    release: () => {
      for (let index = 0; index < count; index++) {
        Atomics.compareExchange(status, index, layout.Open, layout.Ours)
      }
    }
  }
  return { batch: { bytes, count, layout } satisfies Batch, foreseen }
}

/**
 * Operations that compute ahead on so many threads what they are told of. The threads start when there has been enough work to
 * be worth it, do not keep the process alive, and end with the scope.
 */
export const make = (own: Operations, workers: number): Effect.Effect<Operations, never, Scope.Scope> =>
  Effect.map(
    threads.make({
      script: "curveWorker.mjs",
      name: "keyward-curves",
      threads: workers,
      tasksBeforeStart: QUESTIONS_BEFORE_START
    }),
    ({ expect, send }) => ({
      ...own,
      foresee: (asked: ReadonlyArray<Question>): Foreseen => {
        const questions = asked.filter(isWellFormed).slice(0, LARGEST_BATCH)
        // What is too small to be helped with is no reason to start anybody.
        if (questions.length < SMALLEST_BATCH || !expect(questions.length)) {
          return { answer: (question) => answer(own, question), release: () => {} }
        }
        const { batch, foreseen } = tableOf(questions, own)
        send(batch)
        return foreseen
      }
    })
  )
