/**
 * Worker threads that compute curve operations before they are asked for.
 *
 * The thread that replays logs never waits for a worker and never depends on one: it goes through the questions from the
 * first on, the workers from the last, and what no worker has answered when it gets there it answers itself. So a worker that
 * is slow, dies or never starts costs time and changes nothing. What workers are given is in the log: no key, no secret.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Foreseen, Operations, Question } from "../identity/CurveBackend.ts"
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

/** The arguments one after the other, as in a slot. */
const argumentsOf = (question: Question): Uint8Array => {
  const bytes = new Uint8Array(layout.KindAt)
  if (question._tag === "recoverSecp256k1") {
    bytes.set(question.digest)
    bytes.set(question.signature, 32)
    bytes[96] = question.parity
  } else {
    bytes.set(question.s)
    bytes.set(question.k, 32)
    bytes.set(question.a, 64)
  }
  return bytes
}

const isWellFormed = (question: Question): boolean =>
  question._tag === "recoverSecp256k1"
    ? question.digest.length === 32 && question.signature.length === 64
    : question.s.length === 32 && question.k.length === 32 && question.a.length === 32

const keyOf = (kind: number, args: Uint8Array): string =>
  `${kind}${Buffer.from(args.buffer, args.byteOffset, args.byteLength).toString("latin1")}`

/** The table of some questions, and the operations that look into it first. */
const tableOf = (questions: ReadonlyArray<Question>, own: Operations) => {
  const count = questions.length
  const bytes = new SharedArrayBuffer((4 + layout.SlotBytes) * count)
  const status = new Int32Array(bytes, 0, count)
  const indexes = new Map<string, number>()
  for (const [index, question] of questions.entries()) {
    const kind = question._tag === "recoverSecp256k1" ? 0 : 1
    const args = argumentsOf(question)
    const slot = new Uint8Array(bytes, 4 * count + layout.SlotBytes * index, layout.SlotBytes)
    slot.set(args)
    slot[layout.KindAt] = kind
    const key = keyOf(kind, args)
    // The same question twice is asked once: the first place is the one that is come to first.
    if (indexes.has(key)) Atomics.store(status, index, layout.Ours)
    else indexes.set(key, index)
  }

  /** A worker's answer, if it has one already; otherwise the question is taken from the workers. */
  const answered = (question: Question, length: number): Uint8Array | undefined => {
    const index = indexes.get(keyOf(question._tag === "recoverSecp256k1" ? 0 : 1, argumentsOf(question)))
    if (index === undefined) return undefined
    if (Atomics.compareExchange(status, index, layout.Open, layout.Ours) !== layout.Done) return undefined
    const result = new Uint8Array(length)
    result.set(new Uint8Array(bytes, 4 * count + layout.SlotBytes * index + layout.ResultAt, length))
    return result
  }

  const foreseen: Foreseen = {
    operations: {
      ...own,
      recoverSecp256k1: (digest, signature, parity) =>
        answered({ _tag: "recoverSecp256k1", digest, signature, parity }, 65) ??
        own.recoverSecp256k1(digest, signature, parity),
      combineEd25519: (s, k, a) => answered({ _tag: "combineEd25519", s, k, a }, 32) ?? own.combineEd25519(s, k, a)
    },
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
          return { operations: own, release: () => {} }
        }
        const { batch, foreseen } = tableOf(questions, own)
        send(batch)
        return foreseen
      }
    })
  )
