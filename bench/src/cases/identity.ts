/**
 * Other people's inboxes and packages: against the real client, on the same node and in the same rounds.
 *
 * @since 1.0.0
 */
import { createHash } from "node:crypto"
import { copyFileSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NodeCrypto from "@keyward/core/crypto/NodeCrypto"
import * as Identifier from "@keyward/core/identity/Identifier"
import * as IdentityUpdate from "@keyward/core/identity/IdentityUpdate"
import type { InboxId } from "@keyward/core/identity/InboxId"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import * as MemberIdentifier from "@keyward/core/identity/MemberIdentifier"
import * as RegistrationUpdate from "@keyward/core/identity/RegistrationUpdate"
import * as SignatureText from "@keyward/core/identity/SignatureText"
import { newKeyPackage } from "@keyward/core/keypackage/Generation"
import * as AssociationStates from "@keyward/core/peers/AssociationStates"
import * as NewestSeen from "@keyward/core/peers/NewestSeen"
import { fetchKeyPackages } from "@keyward/core/peers/PeerKeyPackages"
import * as ValidPackages from "@keyward/core/peers/ValidPackages"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { layerNone } from "@keyward/core/ports/SmartContractWalletVerifier"
import * as V3ApiClient from "@keyward/network/V3ApiClient"
import * as SqliteAssociationStateCache from "@keyward/storage/SqliteAssociationStateCache"
import * as RealClient from "@keyward/test-utils/RealClient"
import * as DateTime from "effect/DateTime"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Scope from "effect/Scope"
import { privateKeyToAccount } from "viem/accounts"
import type { Case, Prepared } from "../Harness.ts"
import { startNode } from "./rotation.ts"

const INBOXES = 1_000

/** A key from a name: the same inboxes in every run. */
const seedOf = (name: string): Uint8Array => new Uint8Array(createHash("sha256").update(name).digest())

const accountOf = (name: string) => privateKeyToAccount(`0x${Buffer.from(seedOf(name)).toString("hex")}`)

/** An update by which the owner revokes an installation: one signature, where adding one takes two. */
const revocation = (
  inboxId: InboxId,
  account: ReturnType<typeof accountOf>,
  installationKey: InstallationKey.InstallationKey,
  clientTimestampNs: bigint
) =>
  Effect.promise(async () => {
    const member = MemberIdentifier.installation(installationKey.installationId)
    const unsigned = {
      inboxId,
      clientTimestampNs,
      actions: [{ _tag: "RevokeAssociation" as const, member }]
    }
    const signature = await account.signMessage({ message: SignatureText.make(unsigned) })
    const bytes = new Uint8Array(Buffer.from(signature.slice(2), "hex"))
    return IdentityUpdate.encode({
      ...unsigned,
      actions: [{ _tag: "RevokeAssociation", member, recoverySignature: { _tag: "Erc191", bytes } }]
    })
  })

/** An inbox whose log has this many updates, each of which adds an installation, and perhaps one that revokes the first. */
const publishInbox = (name: string, updates: number, revokes = false) =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const account = accountOf(name)
    const owner = Identifier.ethereum(account.address)
    const now = BigInt(DateTime.toEpochMillis(yield* DateTime.now)) * 1_000_000n
    const keys = Array.from({ length: updates }, (_, index) => InstallationKey.fromSeed(seedOf(`${name} ${index}`)))
    let inboxId: InboxId | undefined
    for (const [index, installationKey] of keys.entries()) {
      const clientTimestampNs = now + BigInt(index) * 1_000_000_000n
      const request =
        inboxId === undefined
          ? RegistrationUpdate.createInbox({ owner, installationKey, clientTimestampNs })
          : RegistrationUpdate.joinInbox({ inboxId, owner, installationKey, clientTimestampNs })
      const signature = yield* Effect.promise(() => account.signMessage({ message: request.text }))
      const bytes = yield* RegistrationUpdate.complete(request, new Uint8Array(Buffer.from(signature.slice(2), "hex")))
      yield* api.publishIdentityUpdate(bytes)
      inboxId = request.inboxId
    }
    const [first] = keys
    if (inboxId === undefined || first === undefined) {
      return yield* Effect.dieMessage("an inbox has at least one update")
    }
    if (revokes) {
      const time = now + BigInt(updates) * 1_000_000_000n
      yield* api.publishIdentityUpdate(yield* revocation(inboxId, account, first, time))
    }
    return { inboxId, keys }
  })

type Inbox = Effect.Effect.Success<ReturnType<typeof publishInbox>>

/** A node with inboxes on it, shared by the cases of one run. */
const makeWorld = async () => {
  const folder = mkdtempSync(join(tmpdir(), "keyward-bench-"))
  const node = await startNode()
  const shared = ManagedRuntime.make(
    Layer.mergeAll(V3ApiClient.layerGrpc({ url: node.url }), NodeCrypto.layer, layerNone)
  )
  const publishAll = (prefix: string, updates: number, revokes = false): Promise<ReadonlyArray<Inbox>> =>
    shared.runPromise(
      Effect.forEach(
        Array.from({ length: INBOXES }, (_, index) => `${prefix} ${index}`),
        (name) => publishInbox(name, updates, revokes),
        { concurrency: 16 }
      )
    )
  const ofTwo = await publishAll("two", 2)
  let ofThree: Promise<ReadonlyArray<Inbox>> | undefined
  let ofRevoked: Promise<ReadonlyArray<Inbox>> | undefined
  let files = 0
  const newFile = () => join(folder, `cache-${files++}.db`)

  /** The service, fresh as after a start, over the cache in this file. */
  const resolve = async (filename: string, inboxes: ReadonlyArray<Inbox>) => {
    const states = await shared.runPromise(
      Effect.gen(function* () {
        const service = yield* AssociationStates.make()
        return yield* service.get(inboxes.map(({ inboxId }) => inboxId))
      }).pipe(Effect.scoped, Effect.provide(SqliteAssociationStateCache.layer({ filename })))
    )
    if (!states.every(Either.isRight)) throw new Error("an inbox did not resolve")
    return states
  }

  /**
   * Nanoseconds in which a service that runs, and holds what is in the file, learns what the node has: until the states are
   * there, and in the file.
   */
  const timeToCatchUp = (filename: string, inboxes: ReadonlyArray<Inbox>) =>
    shared.runPromise(
      Effect.gen(function* () {
        const api = yield* ApiClient
        const ids = inboxes.map(({ inboxId }) => inboxId)
        let isCut = true
        const whileUncut = Effect.provideService(AssociationStates.make(), ApiClient, {
          ...api,
          getIdentityUpdates: (requests) =>
            isCut ? Effect.succeed(requests.map(() => [])) : api.getIdentityUpdates(requests)
        })
        const scope = yield* Scope.make()
        const service = yield* Scope.extend(whileUncut, scope)
        yield* service.get(ids)
        isCut = false
        const start = process.hrtime.bigint()
        const states = yield* service.get(ids)
        yield* Scope.close(scope, Exit.void)
        const nanos = process.hrtime.bigint() - start
        if (!states.every(Either.isRight)) return yield* Effect.dieMessage("an inbox did not resolve")
        return nanos
      }).pipe(Effect.provide(SqliteAssociationStateCache.layer({ filename })))
    )

  const bindings = await Effect.runPromise(RealClient.load)
  const backend = await new bindings.BackendBuilder("Local" as never).setApiUrl(node.url).build()
  /** What the real client does without a database: everything from the network, every signature verified. */
  const resolveByRealClient = async (inboxes: ReadonlyArray<Inbox>) => {
    const states = await bindings.fetchInboxStatesByInboxIds(
      backend,
      inboxes.map(({ inboxId }) => inboxId)
    )
    if (states.length !== inboxes.length) throw new Error("the real client did not resolve every inbox")
    return states
  }

  return {
    url: node.url,
    folder,
    shared,
    ofTwo,
    /** The third update adds an installation. */
    ofThree: () => (ofThree ??= publishAll("three", 3)),
    /** The third update revokes one. */
    ofRevoked: () => (ofRevoked ??= publishAll("revoked", 2, true)),
    newFile,
    resolve,
    timeToCatchUp,
    resolveByRealClient,
    close: async () => {
      await shared.dispose()
      node.process.kill()
      rmSync(folder, { recursive: true, force: true })
    }
  }
}

type World = Awaited<ReturnType<typeof makeWorld>>

let world: Promise<World> | undefined
let users = 0

/** Prepares a case in the shared world, which goes with the last of them. */
const inWorld = (prepare: (world: World) => Promise<Prepared>) => async (): Promise<Prepared> => {
  world ??= makeWorld()
  users++
  const shared = await world
  const prepared = await prepare(shared)
  return {
    ...prepared,
    close: async () => {
      await prepared.close?.()
      if (--users === 0) await shared.close()
    }
  }
}

/** Runs with a cache of its own, which goes again: a new one, or a copy, so that every run finds the same. */
const withCache =
  <A>(world: World, original: string | undefined, run: (filename: string) => Promise<A>) =>
  async (): Promise<A> => {
    const filename = world.newFile()
    if (original !== undefined) copyFileSync(original, filename)
    const result = await run(filename)
    for (const suffix of ["", "-wal", "-shm"]) rmSync(`${filename}${suffix}`, { force: true })
    return result
  }

/** A cache that knows the first `updates` updates of each log. */
const cacheOf = async (world: World, inboxes: ReadonlyArray<Inbox>, updates: number): Promise<string> => {
  const filename = world.newFile()
  await world.shared.runPromise(
    Effect.gen(function* () {
      const api = yield* ApiClient
      const service = yield* Effect.provideService(AssociationStates.make(), ApiClient, {
        ...api,
        getIdentityUpdates: (requests) =>
          Effect.map(api.getIdentityUpdates(requests), (logs) => logs.map((log) => log.slice(0, updates)))
      })
      return yield* service.get(inboxes.map(({ inboxId }) => inboxId))
    }).pipe(Effect.scoped, Effect.provide(SqliteAssociationStateCache.layer({ filename })))
  )
  return filename
}

/** What asking for nothing new costs: the requests alone. */
const emptyRequests = (world: World, inboxes: ReadonlyArray<Inbox>) => () =>
  world.shared.runPromise(
    Effect.flatMap(ApiClient, (api) =>
      api.getIdentityUpdates(inboxes.map(({ inboxId }) => ({ inboxId, after: 1_000_000n })))
    )
  )

/** 100 packages of 50 inboxes, their states cached. */
const fetch100 = (
  id: string,
  {
    capacity = 0,
    target,
    ...options
  }: {
    /** How many packages are remembered as valid. */
    readonly capacity?: number
    readonly target?: number
    /** How long states are believed without asking for news. */
    readonly maxAge?: Duration.DurationInput
  }
): Case => ({
  id,
  floor: "the real client: fetchKeyPackageStatusesByInstallationIds of the same 100, which looks at no identity",
  target,
  rounds: 151,
  prepare: inWorld(async (world) => {
    const inboxes = world.ofTwo.slice(0, 50)
    const ids: ReadonlyArray<InstallationId> = inboxes.flatMap(({ keys }) =>
      keys.map(({ installationId }) => installationId)
    )
    await world.shared.runPromise(
      Effect.forEach(
        inboxes,
        ({ inboxId, keys }) =>
          Effect.forEach(keys, (installationKey) =>
            Effect.gen(function* () {
              const { keyPackage } = yield* newKeyPackage({ inboxId, installationKey, includePostQuantum: true })
              yield* (yield* ApiClient).uploadKeyPackage(keyPackage.bytes)
            })
          ),
        { concurrency: 8 }
      )
    )
    const scope = Effect.runSync(Scope.make())
    const peers = await world.shared.runPromise(
      Layer.buildWithScope(
        Layer.mergeAll(
          AssociationStates.layer(),
          NewestSeen.layerMemory(),
          ValidPackages.layerMemory({ capacity })
        ).pipe(Layer.provide(SqliteAssociationStateCache.layer({ filename: world.newFile() }))),
        scope
      )
    )
    const real = await Effect.runPromise(
      Scope.extend(RealClient.make({ wallet: accountOf("bench"), grpcUrl: world.url }), scope)
    )
    const fetch = async () => {
      const verdicts = await world.shared.runPromise(Effect.provide(fetchKeyPackages(ids, options), peers))
      if (!verdicts.every(({ _tag }) => _tag === "Usable")) throw new Error("a package is not usable")
    }
    await fetch()
    return {
      subject: fetch,
      floor: () => Effect.runPromise(RealClient.keyPackageStatuses(real, ids)),
      close: () => Effect.runPromise(Scope.close(scope, Exit.void))
    }
  })
})

/** A service that runs has the states after two updates, and each log has one more. */
const extended = (id: string, update: string, inboxesOf: (world: World) => Promise<ReadonlyArray<Inbox>>): Case => ({
  id,
  floor: `the same 1,000 logs, cold; in the third update ${update}`,
  target: 0.34,
  rounds: 7,
  prepare: inWorld(async (world) => {
    const inboxes = await inboxesOf(world)
    const known = await cacheOf(world, inboxes, 2)
    return {
      subject: withCache(world, known, (file) => world.timeToCatchUp(file, inboxes)),
      floor: withCache(world, undefined, (file) => world.timeToCatchUp(file, inboxes)),
      parts: {
        "after a start, with the reading of the cache": withCache(world, known, (file) => world.resolve(file, inboxes)),
        "the real client, which keeps nothing": () => world.resolveByRealClient(inboxes)
      }
    }
  })
})

/**
 * @since 1.0.0
 * @category cases
 */
export const cases: ReadonlyArray<Case> = [
  {
    id: "resolve-cold",
    floor: "the real client: fetchInboxStatesByInboxIds of the same 1,000 inboxes of 2 updates",
    target: 1.1,
    rounds: 7,
    prepare: inWorld(async (world) => ({
      subject: withCache(world, undefined, (file) => world.resolve(file, world.ofTwo)),
      floor: () => world.resolveByRealClient(world.ofTwo)
    }))
  },
  extended("resolve-extended", "an installation is added (two signatures)", ({ ofThree }) => ofThree()),
  extended("resolve-extended-revoked", "an installation is revoked (one signature)", ({ ofRevoked }) => ofRevoked()),
  {
    id: "resolve-cached",
    floor: "20 requests that bring nothing new",
    rounds: 21,
    prepare: inWorld(async (world) => {
      const known = await cacheOf(world, world.ofTwo, 2)
      const nothingNew = Effect.provideService(AssociationStates.make(), ApiClient, {
        ...(await world.shared.runPromise(ApiClient)),
        getIdentityUpdates: (requests) => Effect.succeed(requests.map(() => []))
      })
      const scope = Effect.runSync(Scope.make())
      const cache = await world.shared.runPromise(
        Layer.buildWithScope(SqliteAssociationStateCache.layer({ filename: known }), scope)
      )
      const ids = world.ofTwo.map(({ inboxId }) => inboxId)
      const warm = await world.shared.runPromise(nothingNew.pipe(Effect.provide(cache), Scope.extend(scope)))
      return {
        subject: withCache(world, known, (file) => world.resolve(file, world.ofTwo)),
        floor: emptyRequests(world, world.ofTwo),
        parts: {
          "without network, from SQLite": () =>
            world.shared.runPromise(
              nothingNew.pipe(
                Effect.flatMap((service) => service.get(ids)),
                Effect.scoped,
                Effect.provide(cache)
              )
            ),
          "without network, from memory": () => world.shared.runPromise(warm.get(ids))
        },
        close: () => Effect.runPromise(Scope.close(scope, Exit.void))
      }
    })
  },
  fetch100("fetch-100", { target: 1 }),
  fetch100("fetch-100-believed", { target: 1, maxAge: "1 minute" }),
  fetch100("fetch-100-seen", { capacity: 2_000 })
]
