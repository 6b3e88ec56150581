/** Inboxes, their installations and packages on a node in memory, and whatever a node should not serve. */
import * as NodeMlsCrypto from "@keyward/core/crypto/NodeMlsCrypto"
import * as IdentityUpdate from "@keyward/core/identity/IdentityUpdate"
import type { InboxId } from "@keyward/core/identity/InboxId"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import { installation } from "@keyward/core/identity/MemberIdentifier"
import * as RegistrationUpdate from "@keyward/core/identity/RegistrationUpdate"
import * as SignatureText from "@keyward/core/identity/SignatureText"
import { newKeyPackage } from "@keyward/core/keypackage/Generation"
import * as PeerKeyPackages from "@keyward/core/peers/PeerKeyPackages"
import type { Unusable, Usable, Verdict } from "@keyward/core/peers/Verdict"
import { ApiClient, type IdentityUpdatesRequest } from "@keyward/core/ports/ApiClient"
import { Entropy } from "@keyward/core/ports/Entropy"
import { layerNone } from "@keyward/core/ports/SmartContractWalletVerifier"
import * as XWing from "@keyward/core/postquantum/XWing"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import { NodeState } from "@keyward/test-utils/devnode/NodeState"
import { Faults } from "@keyward/test-utils/Faults"
import * as MemoryApiClient from "@keyward/test-utils/MemoryApiClient"
import * as MemoryAssociationStateCache from "@keyward/test-utils/MemoryAssociationStateCache"
import * as SeededEntropy from "@keyward/test-utils/SeededEntropy"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/TestClock"
import { type Wallet, wallet } from "../identity/fixtures.ts"

/** The requests for logs as the port received them. */
class LogRequests extends Context.Tag("test/LogRequests")<
  LogRequests,
  Array<ReadonlyArray<IdentityUpdatesRequest>>
>() {}

const recordingClient = Layer.effect(
  ApiClient,
  Effect.gen(function* () {
    const requests = yield* LogRequests
    const api = yield* ApiClient
    return {
      ...api,
      getIdentityUpdates: (asked) => {
        requests.push(asked)
        return api.getIdentityUpdates(asked)
      }
    }
  })
).pipe(Layer.provide(MemoryApiClient.layer), Layer.provideMerge(Layer.sync(LogRequests, () => [])))

/** Everything below the judging: a node, its client, an empty cache, crypto from a seed. */
export const ports = (seed: string | number = "peers") =>
  Layer.mergeAll(
    recordingClient.pipe(Layer.provideMerge(DevNode.layerNode())),
    MemoryAssociationStateCache.layer,
    SeededEntropy.layer(seed),
    NodeMlsCrypto.layer,
    XWing.layer,
    layerNone
  )

/** A new world: nothing in it is shared with another one. */
export const layer = (seed: string | number = "peers") => PeerKeyPackages.layer().pipe(Layer.provideMerge(ports(seed)))

/** What a test in a world may use. */
export type Services = Layer.Layer.Success<ReturnType<typeof layer>>

/** A date on which fresh packages are valid. */
export const START = DateTime.unsafeMake("2026-11-23T12:00:00Z")

/** The clock at START. */
export const start = TestClock.setTime(DateTime.toEpochMillis(START))

const nowNs = Effect.map(DateTime.now, (now) => BigInt(DateTime.toEpochMillis(now)) * 1_000_000n)

export interface Inbox {
  readonly inboxId: InboxId
  readonly owner: Wallet
  readonly first: InstallationKey.InstallationKey
}

const newWallet = Effect.map(Entropy, (entropy) => wallet(Buffer.from(entropy.randomBytes(32)).toString("hex")))

const publish = (bytes: Uint8Array) => Effect.flatMap(ApiClient, (api) => api.publishIdentityUpdate(bytes))

/** An inbox with one installation, on the node. */
export const newInbox = Effect.gen(function* () {
  const owner = yield* newWallet
  const first = yield* InstallationKey.generate
  const request = RegistrationUpdate.createInbox({
    owner: owner.identifier,
    installationKey: first,
    clientTimestampNs: yield* nowNs
  })
  yield* publish(yield* RegistrationUpdate.complete(request, owner.sign(request.text)))
  return { inboxId: request.inboxId, owner, first } satisfies Inbox
})

/** One more installation of an inbox, on the node. */
export const addInstallation = ({ inboxId, owner }: Inbox, known?: InstallationKey.InstallationKey) =>
  Effect.gen(function* () {
    const key = known ?? (yield* InstallationKey.generate)
    const request = RegistrationUpdate.joinInbox({
      inboxId,
      owner: owner.identifier,
      installationKey: key,
      clientTimestampNs: yield* nowNs
    })
    yield* publish(yield* RegistrationUpdate.complete(request, owner.sign(request.text)))
    return key
  })

/** Revokes an installation, on the node. */
export const revoke = ({ inboxId, owner }: Inbox, installationId: InstallationId.InstallationId) =>
  Effect.gen(function* () {
    const action = { _tag: "RevokeAssociation" as const, member: installation(installationId) }
    const update = { inboxId, clientTimestampNs: yield* nowNs, actions: [action] }
    const recoverySignature = { _tag: "Erc191" as const, bytes: owner.sign(SignatureText.make(update)) }
    yield* publish(IdentityUpdate.encode({ ...update, actions: [{ ...action, recoverySignature }] }))
  })

/** A package that names this inbox and is signed by this installation. */
export const packageOf = (
  inboxId: InboxId,
  installationKey: InstallationKey.InstallationKey,
  includePostQuantum = false
) => Effect.map(newKeyPackage({ inboxId, installationKey, includePostQuantum }), ({ keyPackage }) => keyPackage)

/** What the node serves under an id, whatever it is. */
export const serve = (installationId: InstallationId.InstallationId, keyPackage: Uint8Array) =>
  Effect.flatMap(NodeState, (state) => state.keyPackages.put(InstallationId.toPublicKey(installationId), keyPackage))

/** An installation of an inbox whose package is served. */
export const newPeer = Effect.gen(function* () {
  const inbox = yield* newInbox
  const keyPackage = yield* packageOf(inbox.inboxId, inbox.first)
  yield* serve(inbox.first.installationId, keyPackage.bytes)
  return { ...inbox, id: inbox.first.installationId, keyPackage }
})

/** The requests for logs since the last look. */
export const logRequests = Effect.map(LogRequests, (requests) => requests.splice(0))

/** Waits until the node has a call of this method that is not answered yet. Curve work runs beside the test clock. */
export const untilPending = (method: string) =>
  Effect.gen(function* () {
    const faults = yield* Faults
    while (!(yield* faults.callsOf(method)).some(({ outcome }) => outcome._tag === "Pending")) yield* turn
  })

/** One turn of the event loop. */
export const turn = Effect.promise(() => new Promise<void>((resolve) => setImmediate(resolve)))

export const reasonOf = (verdict: Verdict | undefined): Unusable["reason"] => {
  if (verdict?._tag !== "Unusable") throw new Error(`expected an unusable verdict, not ${verdict?._tag}`)
  return verdict.reason
}

export const usable = (verdict: Verdict | undefined): Usable => {
  if (verdict?._tag !== "Usable") {
    throw new Error(`expected a usable verdict, not ${verdict === undefined ? "none" : verdict.reason._tag}`)
  }
  return verdict
}

/** Verdicts by their tags, or their reasons' tags. */
export const tags = (verdicts: ReadonlyArray<Verdict>): ReadonlyArray<string> =>
  verdicts.map((verdict) => (verdict._tag === "Usable" ? "Usable" : verdict.reason._tag))
