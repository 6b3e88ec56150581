/**
 * A worker of a chaos run: an app that registers, rotates and lets the scheduler do the rest, until somebody kills it, which
 * may be itself.
 *
 * @since 1.0.0
 */
import { appendFileSync } from "node:fs"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import * as Codec from "@keyward/core/keypackage/Codec"
import * as KeyPackageRef from "@keyward/core/keypackage/KeyPackageRef"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import {
  queueKeyRotation,
  queueKeyRotationAfterWelcome,
  rotateAndUploadKeyPackage
} from "@keyward/core/lifecycle/Rotation"
import * as Scheduler from "@keyward/core/lifecycle/Scheduler"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { sha256 } from "@noble/hashes/sha2.js"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Mutation from "../Mutation.ts"
import { aroundApi, aroundStore } from "../simulation/Ports.ts"
import { type Death, LABELS, layer, type WorkerMessage, type WorkerOptions } from "./ChaosWorld.ts"

/** Ends this process as a power cut does. */
const die: Effect.Effect<never> = Effect.zipRight(
  Effect.sync(() => process.kill(process.pid, "SIGKILL")),
  Effect.never
)

/** Has the process end itself at a call. */
const mortal = (death: Death | undefined) => {
  let count = 0
  return <A, E>(operation: string, run: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      if (operation !== death?.operation) return run
      count += 1
      if (count !== death.nth) return run
      return death.when === "before" ? die : Effect.zipRight(run, die)
    })
}

/** The ports with death in them, and with a journal of what was sent under which fence. */
const watched = ({ death, journal, ...place }: WorkerOptions) => {
  const fences = new Map<string, number>()
  const around = mortal(death)
  const note = (bytes: Uint8Array) =>
    Effect.map(Clock.currentTimeMillis, (now) => {
      const decoded = Codec.decode(bytes)
      if (Either.isLeft(decoded)) return
      const installationId = InstallationId.fromPublicKey(decoded.right.leafNode.signatureKey)
      const ref = KeyPackageRef.hashWith({ sha256 }, bytes)
      appendFileSync(journal, `${installationId} ${fences.get(installationId) ?? 0} ${process.pid} ${now} ${ref}\n`)
    })
  const store = Layer.effect(
    KeyPackageStore,
    Effect.map(KeyPackageStore, (real) => {
      const around_ = aroundStore(real, around)
      return KeyPackageStore.of({
        ...around_,
        acquireLease: (id, options) =>
          Effect.tap(around_.acquireLease(id, options), ({ fence }) => Effect.sync(() => fences.set(id, fence)))
      })
    })
  )
  const api = Layer.effect(
    ApiClient,
    Effect.map(ApiClient, (real) => {
      const around_ = aroundApi(real, around)
      return ApiClient.of({
        ...around_,
        uploadKeyPackage: (bytes) => Effect.zipRight(note(bytes), around_.uploadKeyPackage(bytes))
      })
    })
  )
  return Layer.mergeAll(store, api).pipe(Layer.provideMerge(layer(place)))
}

/** What may come of a call in a world where the network fails and another process holds the lease. */
const isExpected = (error: { readonly _tag: string; readonly reason?: unknown }): boolean => {
  switch (error._tag) {
    case "ApiClientError":
    case "LeaseError":
      return true
    case "RegistrationError":
      return error.reason === "NotVisible" || error.reason === "InboxNotVisible"
    case "StorageError":
      // Another process was faster: `Conflict`, as for a row that is no longer the one to send; or busy for seconds.
      return error.reason === "Busy" || error.reason === "Conflict"
    default:
      return false
  }
}

/**
 * Works until it is killed.
 *
 * @since 1.0.0
 * @category constructors
 */
export const main = (options: WorkerOptions, say: (message: WorkerMessage) => void): Effect.Effect<never, unknown> =>
  Effect.gen(function* () {
    const next = Mutation.generator(options.seed)
    const tolerate = <A, E extends { readonly _tag: string; readonly reason?: unknown; readonly message: string }, R>(
      effect: Effect.Effect<A, E, R>
    ) =>
      Effect.catchAll(effect, (error) =>
        Effect.sync(() => {
          if (!isExpected(error)) say({ _tag: "Wrong", detail: `${error._tag}: ${error.message}` })
          return undefined
        })
      )

    const ids: Array<InstallationId.InstallationId> = []
    for (const label of LABELS) {
      let registered = yield* tolerate(registerInstallation({ label, includePostQuantum: next(4) === 0 }))
      while (registered === undefined) {
        yield* Effect.sleep(20 + next(60))
        registered = yield* tolerate(registerInstallation({ label, includePostQuantum: false }))
      }
      ids.push(registered.installationId)
    }
    const scheduler = yield* Scheduler.make({ maximumNap: "200 millis", perMinute: 100_000, burst: 1000 })
    say({ _tag: "Ready" })

    while (true) {
      yield* Effect.sleep(next(80))
      const id = Mutation.pick(next, ids)
      const action = next(10)
      if (action < 4) {
        yield* tolerate(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: next(4) === 0 }))
      } else if (action < 6) yield* tolerate(queueKeyRotation(id))
      else if (action < 8) yield* tolerate(queueKeyRotationAfterWelcome(id))
      else if (action < 9) yield* tolerate(scheduler.repair(id))
      else yield* tolerate(scheduler.probe(id))
    }
  }).pipe(
    Effect.scoped,
    Effect.provide(watched(options)),
    Effect.provide(Logger.remove(Logger.defaultLogger)),
    // Said before the process ends of it.
    Effect.tapErrorCause((cause) => Effect.sync(() => say({ _tag: "Wrong", detail: String(cause) })))
  )
