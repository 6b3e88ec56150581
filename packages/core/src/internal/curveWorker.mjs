/**
 * A thread that computes curve operations ahead of the thread that asks for them. Plain JavaScript, so that it runs as it
 * is from the sources and beside the built package; `curvePool.ts` starts it and lays out the table.
 *
 * It decides nothing: what a library refuses is left to the asking thread.
 */
import { createRequire } from "node:module"
import { parentPort } from "node:worker_threads"

/**
 * A library that does not load is one operation less.
 *
 * @template A
 * @param {() => A | Promise<A>} load
 * @returns {Promise<A | undefined>}
 */
const optional = async (load) => {
  try {
    return await load()
  } catch {
    return undefined
  }
}

const [secp256k1, sodium] = await Promise.all([
  optional(async () => (await import("@bitauth/libauth")).instantiateSecp256k1()),
  optional(() => createRequire(import.meta.url)("sodium-native"))
])

/**
 * @param {Uint8Array} slot
 * @returns {Uint8Array | undefined}
 */
const recover = (slot) => {
  const publicKey = secp256k1?.recoverPublicKeyUncompressed(
    slot.slice(32, 96),
    slot[96] === 1 ? 1 : 0,
    slot.slice(0, 32)
  )
  return typeof publicKey === "string" ? undefined : publicKey
}

/**
 * @param {Uint8Array} slot
 * @returns {Uint8Array | undefined}
 */
const combine = (slot) => {
  if (sodium === undefined) return undefined
  const base = new Uint8Array(32)
  const key = new Uint8Array(32)
  try {
    sodium.crypto_scalarmult_ed25519_base_noclamp(base, slot.slice(0, 32))
    sodium.crypto_scalarmult_ed25519_noclamp(key, slot.slice(32, 64), slot.slice(64, 96))
    sodium.crypto_core_ed25519_sub(key, base, key)
    return key
  } catch {
    return undefined
  }
}

/**
 * From the last slot to the first, as the asking thread comes the other way.
 *
 * @param {import("./curvePool.ts").Batch} batch
 */
const work = ({ bytes, count, layout: { Done, KindAt, Open, Refused, ResultAt, SlotBytes, Theirs } }) => {
  const status = new Int32Array(bytes, 0, count)
  for (let index = count - 1; index >= 0; index--) {
    if (Atomics.compareExchange(status, index, Open, Theirs) !== Open) continue
    const slot = new Uint8Array(bytes, 4 * count + SlotBytes * index, SlotBytes)
    const result = slot[KindAt] === 0 ? recover(slot) : combine(slot)
    if (result !== undefined) slot.set(result, ResultAt)
    Atomics.store(status, index, result === undefined ? Refused : Done)
  }
}

if (secp256k1 !== undefined || sodium !== undefined) parentPort?.on("message", work)
