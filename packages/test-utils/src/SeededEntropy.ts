/**
 * Key material that a seed repeats, so that a failing run can be replayed. Never for real keys.
 *
 * @since 1.0.0
 */
import { Entropy } from "@keyward/core/ports/Entropy"
import { shake256 } from "@noble/hashes/sha3.js"
import * as Layer from "effect/Layer"

/**
 * A deterministic source: the SHAKE256 stream (FIPS 202) of the seed. Equal seeds give equal bytes in equal order of asking;
 * every build of the layer starts anew.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (seed: string | number): Layer.Layer<Entropy> =>
  Layer.sync(Entropy, () => {
    const stream = shake256.create({}).update(new TextEncoder().encode(`keyward ${seed}`))
    return { randomBytes: (length) => stream.xof(length) }
  })
