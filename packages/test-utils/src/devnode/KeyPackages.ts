/**
 * The key packages of a node: one is served per installation, the last one uploaded.
 *
 * @since 1.0.0
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"

/**
 * A package as it was uploaded.
 *
 * @since 1.0.0
 * @category models
 */
export interface StoredKeyPackage {
  readonly bytes: Uint8Array
  /** Milliseconds since 1970, by the node's clock. */
  readonly uploadedAt: number
}

/**
 * The table. Nothing is judged here.
 *
 * @since 1.0.0
 * @category models
 */
export interface KeyPackages {
  /** Serves this package for this installation key (32 bytes), until the next one. */
  readonly put: (installationKey: Uint8Array, keyPackage: Uint8Array) => Effect.Effect<void>
  /** Serves nothing for this installation; its history stays. */
  readonly remove: (installationKey: Uint8Array) => Effect.Effect<void>
  /**
   * As many packages as keys, in their order, empty where there is none. Of a key that is asked twice only the last place
   * is filled, as xmtp-node-go does (`pkg/mls/api/v1/service.go`, FetchKeyPackages).
   */
  readonly fetch: (installationKeys: ReadonlyArray<Uint8Array>) => Effect.Effect<ReadonlyArray<Uint8Array>>
  /** Every package of an installation, oldest first, also those that are no longer served. */
  readonly history: (installationKey: Uint8Array) => Effect.Effect<ReadonlyArray<StoredKeyPackage>>
  /** The installation keys for which a package is served, hex. */
  readonly installations: Effect.Effect<ReadonlyArray<string>>
}

const EMPTY = new Uint8Array(0)

/**
 * An empty table.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make: Effect.Effect<KeyPackages> = Effect.sync(() => {
  const served = new Map<string, Uint8Array>()
  const histories = new Map<string, Array<StoredKeyPackage>>()

  return {
    put: (installationKey, keyPackage) =>
      Effect.map(Clock.currentTimeMillis, (uploadedAt) => {
        const key = Encoding.encodeHex(installationKey)
        const bytes = new Uint8Array(keyPackage)
        served.set(key, bytes)
        const history = histories.get(key)
        if (history === undefined) histories.set(key, [{ bytes, uploadedAt }])
        else history.push({ bytes, uploadedAt })
      }),
    remove: (installationKey) =>
      Effect.sync(() => {
        served.delete(Encoding.encodeHex(installationKey))
      }),
    fetch: (installationKeys) =>
      Effect.sync(() => {
        const keys = installationKeys.map((key) => Encoding.encodeHex(key))
        const last = new Map(keys.map((key, index) => [key, index]))
        return keys.map((key, index) => (last.get(key) === index ? (served.get(key) ?? EMPTY) : EMPTY))
      }),
    history: (installationKey) => Effect.sync(() => (histories.get(Encoding.encodeHex(installationKey)) ?? []).slice()),
    installations: Effect.sync(() => [...served.keys()])
  }
})
