/**
 * Thousands of installations that are all due at once: SQLite on disk, a node in another process, the scheduler.
 *
 * @since 1.0.0
 */
import { createHash, randomBytes } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NodeCrypto from "@keyward/core/crypto/NodeCrypto"
import * as Identifier from "@keyward/core/identity/Identifier"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import * as RegistrationUpdate from "@keyward/core/identity/RegistrationUpdate"
import * as LifecycleEvents from "@keyward/core/lifecycle/LifecycleEvents"
import { rotateUnderLease } from "@keyward/core/lifecycle/Rotation"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import * as Scheduler from "@keyward/core/lifecycle/Scheduler"
import { withLease } from "@keyward/core/lifecycle/UnderLease"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { layerNone } from "@keyward/core/ports/SmartContractWalletVerifier"
import * as WelcomeProgress from "@keyward/core/ports/WelcomeProgress"
import * as V3ApiClient from "@keyward/network/V3ApiClient"
import * as AesGcmKeySealer from "@keyward/storage/AesGcmKeySealer"
import * as SqliteKeyPackageStore from "@keyward/storage/SqliteKeyPackageStore"
import * as RealClient from "@keyward/test-utils/RealClient"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts"
import type { Case } from "../Harness.ts"
import { startNode } from "./rotation.ts"

/** The herd; `HERD=500` makes a smaller one. */
const INSTALLATIONS = Number(process.env["HERD"] ?? 5_000)

/** A fifth of the herd: our rotations are to be five times as fast as the real client's registrations. */
const REGISTRATIONS = 1_000

/** How many registrations of the real client are measured; the rest of the thousand would take as long each. */
const SAMPLES = 200

/** A registered installation: its inbox on the node, its first package published, its row in the store. */
const enroll = (name: string, includePostQuantum: boolean) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const api = yield* ApiClient
    const seed = createHash("sha256").update(name).digest()
    const account = privateKeyToAccount(`0x${seed.toString("hex")}`)
    const key = yield* InstallationKey.generate
    const at = yield* DateTime.now
    const request = RegistrationUpdate.createInbox({
      owner: Identifier.ethereum(account.address),
      installationKey: key,
      clientTimestampNs: BigInt(DateTime.toEpochMillis(at)) * 1_000_000n
    })
    const signature = yield* Effect.promise(() => account.signMessage({ message: request.text }))
    const update = yield* RegistrationUpdate.complete(request, new Uint8Array(Buffer.from(signature.slice(2), "hex")))
    const { inboxId } = request
    const installation = yield* store.findOrCreateInstallation({ inboxId, label: "herd", key, at })
    const { installationId } = installation
    yield* withLease(installationId, (lease) =>
      Effect.gen(function* () {
        yield* store.saveIdentityUpdate(lease, update, at)
        yield* rotateUnderLease(lease, installation, { wanted: { includePostQuantum }, trigger: "Registration" })
        yield* api.publishIdentityUpdate(update)
        yield* store.markRegistered(lease, yield* DateTime.now)
      })
    )
    return installationId
  })

const request = (ids: ReadonlyArray<InstallationId>, dueAt: DateTime.Utc) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const now = yield* DateTime.now
    yield* Effect.forEach(ids, (id) => store.modifySchedule(id, Schedule.requestRotation("Queued", now, dueAt)), {
      concurrency: 64,
      discard: true
    })
  })

/** Over when each has a new package. */
const untilPublished = (ids: ReadonlyArray<InstallationId>) =>
  Effect.suspend(() => {
    const waiting = new Set(ids)
    return LifecycleEvents.events().pipe(
      Stream.filter((event) => event._tag === "Published"),
      Stream.tap((event) => Effect.sync(() => waiting.delete(event.installationId))),
      Stream.takeUntil(() => waiting.size === 0),
      Stream.runDrain
    )
  })

/** Long enough to ask for all rotations beforehand. */
const AHEAD = Duration.seconds(10)

/**
 * All are due when the scheduler starts, which looks at each before it rotates; and all are due once more, when it has seen them.
 * Seconds for each.
 */
const stampedes = (ids: ReadonlyArray<InstallationId>) =>
  Effect.scoped(
    Effect.gen(function* () {
      yield* request(ids, yield* DateTime.now)
      const first = yield* Effect.fork(untilPublished(ids))
      yield* Effect.yieldNow()
      const started = process.hrtime.bigint()
      yield* Scheduler.make({ concurrency: 64, perMinute: 6_000_000, burst: INSTALLATIONS })
      yield* first
      const atStart = Number(process.hrtime.bigint() - started) / 1e9

      const again = yield* Effect.fork(untilPublished(ids))
      const dueAt = DateTime.addDuration(yield* DateTime.now, AHEAD)
      yield* request(ids, dueAt)
      yield* Effect.sleep(DateTime.distanceDuration(yield* DateTime.now, dueAt))
      const due = process.hrtime.bigint()
      yield* again
      return { atStart, again: Number(process.hrtime.bigint() - due) / 1e9 }
    })
  )

const median = (values: ReadonlyArray<number>): number =>
  values.toSorted((a, b) => a - b)[values.length >> 1] ?? Number.NaN

/**
 * Seconds that the real client takes for one installation, medians: all of it, from nothing to a registered client, without what
 * the wallet takes to sign; and of that the call `registerIdentity` alone.
 */
const registerOnce = async (url: string) => {
  const wholes: Array<number> = []
  const calls: Array<number> = []
  for (let i = 0; i < SAMPLES; i++) {
    const account = privateKeyToAccount(generatePrivateKey())
    let signing = 0n
    const wallet: RealClient.Wallet = {
      address: account.address,
      signMessage: async (options) => {
        const start = process.hrtime.bigint()
        const signature = await account.signMessage(options)
        signing = process.hrtime.bigint() - start
        return signature
      }
    }
    await Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const start = process.hrtime.bigint()
          const real = yield* RealClient.open({ wallet, grpcUrl: url })
          const register = Option.getOrThrow(yield* RealClient.signRegistration(real, wallet))
          const called = process.hrtime.bigint()
          yield* register
          const end = process.hrtime.bigint()
          wholes.push(Number(end - start - signing) / 1e9)
          calls.push(Number(end - called) / 1e9)
        })
      )
    )
  }
  return { whole: median(wholes), call: median(calls) }
}

const herd = (id: string, includePostQuantum: boolean): Case => ({
  id,
  floor: `${REGISTRATIONS} installations that the real client makes and registers, one after the other`,
  target: 1,
  rounds: 1,
  once: true,
  prepare: async () => {
    const folder = mkdtempSync(join(tmpdir(), "keyward-bench-"))
    const node = await startNode()
    const managed = ManagedRuntime.make(
      Layer.mergeAll(
        SqliteKeyPackageStore.layer({ filename: join(folder, "keyward.db") }).pipe(
          Layer.provide(AesGcmKeySealer.layer({ keyId: "bench", key: Redacted.make(randomBytes(32)) }))
        ),
        V3ApiClient.layerGrpc({ url: node.url }),
        LifecycleEvents.layer,
        layerNone,
        WelcomeProgress.layerNone
      ).pipe(Layer.provideMerge(NodeCrypto.layer))
    )
    const ids = await managed.runPromise(
      Effect.forEach(
        Array.from({ length: INSTALLATIONS }, (_, index) => `herd ${index}`),
        (name) => enroll(name, includePostQuantum),
        { concurrency: 64 }
      )
    )
    let seconds = { atStart: Number.NaN, again: Number.NaN }
    let registration = { whole: Number.NaN, call: Number.NaN }
    return {
      subject: async () => {
        seconds = await managed.runPromise(stampedes(ids))
        return BigInt(Math.round(seconds.atStart * 1e9))
      },
      floor: async () => {
        registration = await registerOnce(node.url)
        return BigInt(Math.round(registration.whole * REGISTRATIONS * 1e9))
      },
      beside: async () => ({
        "one rotation of the herd": (seconds.atStart / INSTALLATIONS) * 1e6,
        "one more, of a herd that was looked at": (seconds.again / INSTALLATIONS) * 1e6,
        "one installation of the real client, from nothing to registered": registration.whole * 1e6,
        "of that, the call registerIdentity": registration.call * 1e6
      }),
      close: async () => {
        await managed.dispose()
        node.process.kill()
        rmSync(folder, { recursive: true, force: true })
      }
    }
  }
})

/**
 * @since 1.0.0
 * @category cases
 */
export const cases: ReadonlyArray<Case> = [herd("herd-5000-classical", false), herd("herd-5000-xwing", true)]
