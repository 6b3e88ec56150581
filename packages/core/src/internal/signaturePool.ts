/**
 * Many Ed25519 signatures, verified by the calling thread and by worker threads at once.
 *
 * The calling thread takes them from the first on, a few in each turn of the event loop, the workers from the last. It never
 * waits for a worker: what none has found valid when it gets there it verifies itself. So a worker that is slow, dies or never
 * starts costs time and changes nothing. What workers are given is public: no key, no secret.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import type { Ed25519Signature } from "../ports/MlsCrypto.ts"
import * as eventLoop from "./eventLoop.ts"
import * as threads from "./threads.ts"

/**
 * A table in shared memory: a word of status for each signature, a word for where its slot ends, then the slots: public key,
 * signature, message.
 */
const layout = {
  SignatureAt: 32,
  MessageAt: 96,
  ...threads.status
} as const

/** What a worker is sent. */
export interface Batch {
  readonly bytes: SharedArrayBuffer
  readonly count: number
  readonly layout: typeof layout
}

/** Below that a batch is not worth a message: it is done in less than a millisecond. */
const SMALLEST_BATCH = 12
/** Longer messages are not copied; XMTP's packages are below 3 KiB. */
const LONGEST_MESSAGE = 64 * 1024
/** A worker takes some 12 ms of processor time to start: as much as these take. */
const SIGNATURES_BEFORE_START = 200
/** Verified here in one turn of the event loop: a quarter of a millisecond. */
const SIGNATURES_PER_TURN = 4

const fits = ({ message, publicKey, signature }: Ed25519Signature): boolean =>
  publicKey.length === 32 && signature.length === 64 && message.length <= LONGEST_MESSAGE

/** The table of some signatures. What has no place in it is the asking thread's from the beginning. */
const tableOf = (signatures: ReadonlyArray<Ed25519Signature>) => {
  const count = signatures.length
  const length = signatures.reduce((sum, one) => sum + (fits(one) ? layout.MessageAt + one.message.length : 0), 0)
  const bytes = new SharedArrayBuffer(8 * count + length)
  const status = new Int32Array(bytes, 0, count)
  const ends = new Uint32Array(bytes, 4 * count, count)
  const slots = new Uint8Array(bytes, 8 * count)
  let end = 0
  signatures.forEach((one, index) => {
    if (fits(one)) {
      slots.set(one.publicKey, end)
      slots.set(one.signature, end + layout.SignatureAt)
      slots.set(one.message, end + layout.MessageAt)
      end += layout.MessageAt + one.message.length
    } else {
      status[index] = layout.Ours
    }
    ends[index] = end
  })
  return { status, batch: { bytes, count, layout } satisfies Batch }
}

/** Verifies all in order; answers as `isValid` does. */
export type VerifyAll = (signatures: ReadonlyArray<Ed25519Signature>) => Effect.Effect<ReadonlyArray<boolean>>

/**
 * Verifies with the help of so many threads, which only know valid from not known. They start when there has been enough work to
 * be worth it, do not keep the process alive, and end with the scope.
 */
export const make = (
  isValid: (signature: Ed25519Signature) => boolean,
  workers: number
): Effect.Effect<VerifyAll, never, Scope.Scope> =>
  Effect.map(
    threads.make({
      script: "signatureWorker.mjs",
      name: "keyward-signatures",
      threads: workers,
      tasksBeforeStart: SIGNATURES_BEFORE_START
    }),
    ({ expect, send }) =>
      (signatures) =>
        Effect.suspend(() => {
          const count = signatures.length
          if (count === 0) return Effect.succeed([])
          // What is too small to be helped with is no reason to start anybody.
          const isHelped = count >= SMALLEST_BATCH && expect(count)
          const table = isHelped ? tableOf(signatures) : undefined
          if (table !== undefined) send(table.batch)

          /** Whether a worker has found it valid already; otherwise it is taken from the workers. */
          const isKnownValid = (index: number): boolean =>
            table !== undefined &&
            Atomics.compareExchange(table.status, index, layout.Open, layout.Ours) === layout.Done
          const release = Effect.sync(() => {
            for (let index = 0; table !== undefined && index < count; index++) isKnownValid(index)
          })

          const verdicts: Array<boolean> = []
          const rest = signatures.values()
          /** Verifies a few more. Whether none is left. */
          const verifySome = (): boolean => {
            for (let verified = 0; verified < SIGNATURES_PER_TURN; ) {
              const next = rest.next()
              if (next.done === true) return true
              const isKnown = isKnownValid(verdicts.length)
              if (!isKnown) verified++
              verdicts.push(isKnown || isValid(next.value))
            }
            return verdicts.length === count
          }
          return eventLoop.inTurns(verifySome).pipe(
            Effect.as(verdicts),
            Effect.onInterrupt(() => release)
          )
        })
  )
