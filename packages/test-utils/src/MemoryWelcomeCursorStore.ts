/**
 * The places of installations in their Welcome topics, in memory. It outlives whatever uses it: a test that starts an app
 * again gives it the same one.
 *
 * @since 1.0.0
 */
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as Cursor from "@keyward/core/ports/WelcomeCursorStore"
import type * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"

const byId = (a: Cursor.UnresolvedWelcome, b: Cursor.UnresolvedWelcome): number => (a.id < b.id ? -1 : 1)

/**
 * A store that knows nothing yet.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make: Effect.Effect<Context.Tag.Service<Cursor.WelcomeCursorStore>> = Effect.sync(() => {
  const cursors = new Map<InstallationId, Cursor.WelcomeCursor>()
  const cursorOf = (installationId: InstallationId) => cursors.get(installationId) ?? Cursor.start

  return {
    get: (installationId) => Effect.sync(() => cursorOf(installationId)),

    resolve: (installationId, id) =>
      Effect.sync(() => {
        const cursor = cursorOf(installationId)
        const unresolved = cursor.unresolved.filter((welcome) => welcome.id !== id)
        if (id <= cursor.position && unresolved.length === cursor.unresolved.length) return false
        const position = id > cursor.position ? id : cursor.position
        cursors.set(installationId, { ...cursor, position, unresolved })
        return true
      }),

    postpone: (installationId, id, at) =>
      Effect.sync(() => {
        const cursor = cursorOf(installationId)
        const known = cursor.unresolved.find((welcome) => welcome.id === id)
        if (id <= cursor.position && known === undefined) return false
        const failed: Cursor.UnresolvedWelcome =
          known === undefined
            ? { id, attempts: 1, firstFailedAt: at, completeBefore: cursor.readAsOf }
            : { ...known, attempts: known.attempts + 1 }
        cursors.set(installationId, {
          ...cursor,
          position: id > cursor.position ? id : cursor.position,
          unresolved: [...cursor.unresolved.filter((welcome) => welcome.id !== id), failed].sort(byId)
        })
        return true
      }),

    completeReading: (installationId, { began, upTo }) =>
      Effect.sync(() => {
        const cursor = cursorOf(installationId)
        const position = upTo > cursor.position ? upTo : cursor.position
        const unresolved = cursor.unresolved.map((welcome) => ({
          ...welcome,
          completeBefore: Option.filter(welcome.completeBefore, DateTime.lessThanOrEqualTo(began))
        }))
        cursors.set(installationId, { position, unresolved, readAsOf: Option.some(began) })
      })
  }
})

/**
 * A store that knows nothing yet.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<Cursor.WelcomeCursorStore> = Layer.effect(Cursor.WelcomeCursorStore, make)
