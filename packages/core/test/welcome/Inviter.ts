/** Somebody with an installation and ts-mls, who invites others as libxmtp does: to groups, by sealed Welcomes. */
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as InstallationIds from "@keyward/core/identity/InstallationId"
import * as AssociationStates from "@keyward/core/peers/AssociationStates"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { layerNone } from "@keyward/core/ports/SmartContractWalletVerifier"
import * as WelcomeMetadata from "@keyward/core/welcome/WelcomeMetadata"
import * as WelcomeWrapper from "@keyward/core/welcome/WelcomeWrapper"
import * as MemoryAssociationStateCache from "@keyward/test-utils/MemoryAssociationStateCache"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as App from "../lifecycle/SchedulerApp.ts"
import * as World from "./World.ts"

/** A new world in which Welcomes can be opened, with the states of its inboxes. */
export const layer = (seed: string | number = "inbox") =>
  AssociationStates.layer().pipe(
    Layer.provide(Layer.merge(MemoryAssociationStateCache.layer, layerNone)),
    Layer.provideMerge(App.layer(seed))
  )

/** The package that the network serves, with what it is opened with: the store is everybody's. */
const partyOf = (installationId: InstallationId) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const row = yield* App.servedRow(installationId)
    if (row === undefined) return yield* Effect.dieMessage("no package of ours is served")
    const { keyPackage } = row
    const privateKeys = yield* Effect.flatten(store.getPrivateKeys(row.historyId))
    const installationKey = yield* store.getInstallationKey(installationId)
    const party: World.Party = {
      inboxId: keyPackage.inboxId,
      installationKey,
      joining: { bytes: keyPackage.bytes, privateKeys, installationKey },
      postQuantumKey: Option.getOrUndefined(privateKeys.postQuantumKey)
    }
    return { keyPackage, party }
  })

/** One group for each, or several; one Welcome each. Nobody but ts-mls sees the group's time: `World.atRealTime` first. */
export const invite = (by: InstallationId, invited: InstallationId, times = 1) =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const states = yield* AssociationStates.AssociationStates
    const creator = yield* partyOf(by)
    const target = yield* partyOf(invited)
    const inboxIds = [creator.keyPackage.inboxId, target.keyPackage.inboxId]
    const known = (yield* states.get(inboxIds)).map(Either.getOrThrow)
    const members = Object.fromEntries(known.map(({ sequenceId, state }) => [state.inboxId, sequenceId]))
    const { initKey, postQuantumKey } = target.keyPackage
    const [algorithm, publicKey] = Option.match(postQuantumKey, {
      onNone: () => ["Curve25519", initKey] as const,
      onSome: (key) => ["XWing", key] as const
    })
    const entries = yield* Effect.forEach(Array.from({ length: times }), () =>
      Effect.gen(function* () {
        const { welcome } = yield* World.invite(creator.party, [target.party], { members })
        const metadata = WelcomeMetadata.encode({ messageCursor: 1n })
        const { data, metadata: welcomeMetadata } = yield* WelcomeWrapper.wrap(
          { algorithm, publicKey },
          { data: welcome, metadata }
        )
        return {
          _tag: "Welcome" as const,
          installationKey: InstallationIds.toPublicKey(invited),
          data,
          hpkePublicKey: publicKey,
          wrapperAlgorithm: WelcomeWrapper.algorithmNumbers[algorithm],
          welcomeMetadata
        }
      })
    )
    yield* api.sendWelcomeMessages(entries)
  })
