/** The log of one's own inbox, in whatever way a node serves it. */
import { expect, it } from "@effect/vitest"
import * as AssociationState from "@keyward/core/identity/AssociationState"
import * as InboxLog from "@keyward/core/lifecycle/InboxLog"
import { ApiClient, type IdentityUpdateLogEntry } from "@keyward/core/ports/ApiClient"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as World from "../peers/World.ts"

const changes: ReadonlyArray<
  readonly [string, (log: ReadonlyArray<IdentityUpdateLogEntry>) => ReadonlyArray<IdentityUpdateLogEntry>]
> = [
  ["in reverse", (log) => log.toReversed()],
  ["every entry twice", (log) => log.flatMap((entry) => [entry, entry])],
  ["twice, the second time in reverse", (log) => [...log, ...log.toReversed()]],
  [
    "twice, the second time with other bytes",
    (log) => [...log, ...log.map((entry) => ({ ...entry, update: new Uint8Array([1]) }))]
  ]
]
for (const [how, change] of changes) {
  it.effect(`[48] a log ${how} reads the same`, () =>
    Effect.gen(function* () {
      yield* World.start
      const alice = yield* World.newInbox
      const second = yield* World.addInstallation(alice)
      yield* World.revoke(alice, second.installationId)
      const api = yield* ApiClient
      const straight = yield* InboxLog.read(alice.inboxId)
      const changed = yield* InboxLog.read(alice.inboxId).pipe(
        Effect.provideService(ApiClient, {
          ...api,
          getIdentityUpdates: (requests) => Effect.map(api.getIdentityUpdates(requests), (logs) => logs.map(change))
        })
      )
      expect(changed).toEqual(straight)
      expect(changed.log.map(({ sequenceId }) => sequenceId)).toEqual([1n, 2n, 3n])
      expect(Option.map(changed.state, AssociationState.installationIds)).toEqual(
        Option.some([alice.first.installationId])
      )
    }).pipe(Effect.provide(World.layer(how)))
  )
}
