/**
 * Packages that have been found valid, so that the same bytes are not verified twice.
 *
 * The checks of a package's bytes come out the same every time but for the lifetime, which is looked at again. What depends on
 * the inbox is never remembered here.
 *
 * @since 1.0.0
 */
import * as Arr from "effect/Array"
import * as Context from "effect/Context"
import type * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import type * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import { BoundedMap } from "../internal/boundedMap.ts"
import type { KeyPackageValidationError } from "../keypackage/KeyPackageError.ts"
import type { KeyPackageRef } from "../keypackage/KeyPackageRef.ts"
import { type ValidatedKeyPackage, validateKeyPackages } from "../keypackage/Validation.ts"
import type { MlsCrypto } from "../ports/MlsCrypto.ts"

/** The result of a package's checks. */
type Validation = Either.Either<ValidatedKeyPackage, KeyPackageValidationError>

/**
 * Validates packages, and remembers those that passed by their refs, which are hashes of all their bytes.
 *
 * @since 1.0.0
 * @category tags
 */
export class ValidPackages extends Context.Tag("@keyward/core/ValidPackages")<
  ValidPackages,
  {
    /** `validateKeyPackages`, of which only what was not seen before is verified. */
    readonly validate: (
      packages: ReadonlyArray<Uint8Array>,
      now: DateTime.Utc
    ) => Effect.Effect<ReadonlyArray<Validation>, never, MlsCrypto>
  }
>() {}

/**
 * The largest package that is remembered, in bytes. XMTP's are below 3 KiB, post-quantum ones too, but a valid one may
 * have 1 MiB: thousands of those would take gigabytes.
 */
const MAX_REMEMBERED_BYTES = 16 * 1024

/**
 * In the memory of the process: as many packages as given, 2,000 unless said otherwise, about 5 KiB each. Those that passed
 * longest ago are forgotten first; 0 remembers none. A package above 16 KiB is never remembered, and verified each time.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerMemory = (options: { readonly capacity?: number | undefined } = {}): Layer.Layer<ValidPackages> =>
  Layer.sync(ValidPackages, () => {
    const passed = new BoundedMap<KeyPackageRef, ValidatedKeyPackage>(options.capacity ?? 2_000)
    return {
      validate: Effect.fn("ValidPackages.validate")(function* (packages: ReadonlyArray<Uint8Array>, now: DateTime.Utc) {
        const results = yield* validateKeyPackages(packages, now, (ref) => passed.get(ref))
        const unseen = Arr.getRights(results).filter(
          ({ decoded, ref }) => decoded.bytes.length <= MAX_REMEMBERED_BYTES && passed.get(ref) === undefined
        )
        for (const valid of unseen) passed.set(valid.ref, valid)
        return results
      })
    }
  })
