/**
 * A thread that verifies Ed25519 signatures beside the thread that asks for them. Plain JavaScript, so that it runs as it is from
 * the sources and beside the built package; `signaturePool.ts` starts it and lays out the table.
 *
 * It only ever says yes: what libsodium refuses is left to the asking thread.
 */
import { createRequire } from "node:module"
import { parentPort } from "node:worker_threads"

const sodium = createRequire(import.meta.url)("sodium-native")

/**
 * From the last signature to the first, as the asking thread comes the other way.
 *
 * @param {import("./signaturePool.ts").Batch} batch
 */
const work = ({ bytes, count, layout: { Done, MessageAt, Open, Refused, SignatureAt, Theirs } }) => {
  const status = new Int32Array(bytes, 0, count)
  const ends = new Uint32Array(bytes, 4 * count, count)
  const slots = new Uint8Array(bytes, 8 * count)
  for (let index = count - 1; index >= 0; index--) {
    if (Atomics.compareExchange(status, index, Open, Theirs) !== Open) continue
    const slot = slots.slice(index === 0 ? 0 : ends[index - 1], ends[index])
    const isValid = sodium.crypto_sign_verify_detached(
      slot.subarray(SignatureAt, MessageAt),
      slot.subarray(MessageAt),
      slot.subarray(0, SignatureAt)
    )
    Atomics.store(status, index, isValid ? Done : Refused)
  }
}

parentPort?.on("message", work)
