/**
 * The cache of identity logs and association states in memory. It keeps the states as bytes, as a database does, so that a
 * test meets the same values.
 *
 * @since 1.0.0
 */
import type { AssociationState } from "@keyward/core/identity/AssociationState"
import * as Codec from "@keyward/core/identity/AssociationStateCodec"
import type { InboxId } from "@keyward/core/identity/InboxId"
import type { IdentityUpdateLogEntry } from "@keyward/core/ports/ApiClient"
import { AssociationStateCache, type StateAt } from "@keyward/core/ports/AssociationStateCache"
import { StorageError } from "@keyward/core/ports/KeyPackageStore"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"

interface Kept {
  readonly log: Map<bigint, IdentityUpdateLogEntry>
  readonly states: Map<bigint, Uint8Array>
}

const decode = (operation: string, bytes: Uint8Array): Effect.Effect<AssociationState, StorageError> =>
  Effect.mapError(
    Codec.decode(bytes),
    ({ message }) => new StorageError({ operation, reason: "Corrupt", detail: message })
  )

const newestOf = (ids: Iterable<bigint>): Option.Option<bigint> => {
  let newest: bigint | undefined
  for (const id of ids) if (newest === undefined || id > newest) newest = id
  return Option.fromNullable(newest)
}

/**
 * An empty cache.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make: Effect.Effect<Context.Tag.Service<AssociationStateCache>> = Effect.sync(() => {
  const inboxes = new Map<InboxId, Kept>()

  const inboxOf = (inboxId: InboxId): Kept => {
    const known = inboxes.get(inboxId)
    if (known !== undefined) return known
    const fresh: Kept = { log: new Map(), states: new Map() }
    inboxes.set(inboxId, fresh)
    return fresh
  }

  const stateAt = (operation: string, inboxId: InboxId, sequenceId: bigint) =>
    Effect.suspend(() =>
      Effect.transposeMapOption(Option.fromNullable(inboxes.get(inboxId)?.states.get(sequenceId)), (bytes) =>
        decode(operation, bytes)
      )
    )

  return {
    getNewest: (inboxIds) =>
      Effect.forEach(inboxIds, (inboxId) =>
        Option.match(newestOf(inboxes.get(inboxId)?.states.keys() ?? []), {
          onNone: () => Effect.succeed(Option.none<StateAt>()),
          onSome: (sequenceId) =>
            Effect.map(
              stateAt("getNewest", inboxId, sequenceId),
              Option.map((state) => ({ sequenceId, state }))
            )
        })
      ),

    getAt: (inboxId, sequenceId) => stateAt("getAt", inboxId, sequenceId),

    getLog: (inboxId, upTo) =>
      Effect.sync(() =>
        [...(inboxes.get(inboxId)?.log.values() ?? [])]
          .filter(({ sequenceId }) => upTo === undefined || sequenceId <= upTo)
          .sort((a, b) => (a.sequenceId < b.sequenceId ? -1 : 1))
      ),

    put: (entries) =>
      Effect.sync(() => {
        for (const { log, newest } of entries) {
          const kept = inboxOf(newest.state.inboxId)
          for (const entry of log) {
            if (!kept.log.has(entry.sequenceId))
              kept.log.set(entry.sequenceId, { ...entry, update: entry.update.slice() })
          }
          if (!kept.states.has(newest.sequenceId)) kept.states.set(newest.sequenceId, Codec.encode(newest.state))
        }
      })
  }
})

/**
 * An empty cache.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<AssociationStateCache> = Layer.effect(AssociationStateCache, make)
