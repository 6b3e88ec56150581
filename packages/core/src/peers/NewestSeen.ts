/**
 * The newest key package ever seen of each installation, to tell when the network serves an older one.
 *
 * An upload is not authenticated and the last one wins, so anybody can put an older, still valid package back in place. It
 * is valid, and yet worth knowing about.
 *
 * @since 1.0.0
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import type { InstallationId } from "../identity/InstallationId.ts"
import { BoundedMap } from "../internal/boundedMap.ts"
import type { KeyPackageRef } from "../keypackage/KeyPackageRef.ts"

/**
 * A package that was seen.
 *
 * @since 1.0.0
 * @category models
 */
export interface Seen {
  readonly installationId: InstallationId
  readonly ref: KeyPackageRef
  /** Seconds since 1970 at which its lifetime begins, which says when it was made. */
  readonly notBefore: bigint
}

/**
 * What was seen.
 *
 * @since 1.0.0
 * @category tags
 */
export class NewestSeen extends Context.Tag("@keyward/core/NewestSeen")<
  NewestSeen,
  {
    /**
     * Notes packages that are valid and their installations' own. For each in order: the newer one that has been seen before,
     * if one has.
     */
    readonly see: (packages: ReadonlyArray<Seen>) => Effect.Effect<ReadonlyArray<Option.Option<Seen>>>
  }
>() {}

/**
 * In the memory of the process, for as many installations as given, 10,000 unless said otherwise. Those seen longest ago are
 * forgotten first.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerMemory = (options: { readonly capacity?: number | undefined } = {}): Layer.Layer<NewestSeen> =>
  Layer.sync(NewestSeen, () => {
    const newest = new BoundedMap<InstallationId, Seen>(options.capacity ?? 10_000)
    return {
      see: (packages) =>
        Effect.sync(() =>
          packages.map((seen) => {
            const known = newest.get(seen.installationId)
            const isOlder = known !== undefined && seen.notBefore < known.notBefore
            newest.set(seen.installationId, isOlder ? known : seen)
            return isOlder ? Option.some(known) : Option.none()
          })
        )
    }
  })
