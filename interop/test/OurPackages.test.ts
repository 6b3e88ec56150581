/**
 * What this library publishes, the real client accepts: packages are valid, and installations are invited.
 */
import { randomBytes } from "node:crypto"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { expect, it } from "@effect/vitest"
import * as NodeCrypto from "@keyward/core/crypto/NodeCrypto"
import * as Identifier from "@keyward/core/identity/Identifier"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import type { Installation } from "@keyward/core/lifecycle/Installation"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import { rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { Signer, SignerError } from "@keyward/core/ports/Signer"
import { layerNone } from "@keyward/core/ports/SmartContractWalletVerifier"
import { WelcomeWrapperAlgorithm } from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import * as V3ApiClient from "@keyward/network/V3ApiClient"
import * as AesGcmKeySealer from "@keyward/storage/AesGcmKeySealer"
import * as SqliteKeyPackageStore from "@keyward/storage/SqliteKeyPackageStore"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import { NodeState } from "@keyward/test-utils/devnode/NodeState"
import * as RealClient from "@keyward/test-utils/RealClient"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { describeReal } from "../src/Available.ts"
import { freshWallet } from "../src/Wallets.ts"

/** A sealed SQLite file in a folder that goes with the scope. */
const store = Layer.unwrapScoped(
  Effect.map(
    Effect.acquireRelease(
      Effect.promise(() => mkdtemp(join(tmpdir(), "keyward-interop-"))),
      (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
    ),
    (folder) => SqliteKeyPackageStore.layer({ filename: join(folder, "keys.db") })
  )
).pipe(
  Layer.provide(AesGcmKeySealer.layer({ keyId: "test", key: Redacted.make(randomBytes(32)) })),
  Layer.provide(NodeCrypto.layer)
)

/** The whole library: SQLite, and gRPC to the node that the real client uses. */
const world = () =>
  Layer.unwrapEffect(Effect.map(DevNode.DevNode, ({ grpcUrl }) => V3ApiClient.layerGrpc({ url: grpcUrl }))).pipe(
    Layer.provideMerge(DevNode.layer()),
    Layer.merge(Layer.mergeAll(store, NodeCrypto.layer, layerNone))
  )

const signerOf = (wallet: RealClient.Wallet) =>
  Layer.succeed(Signer, {
    identifier: Identifier.ethereum(wallet.address),
    signText: (message) =>
      Effect.tryPromise({
        try: async () => new Uint8Array(Buffer.from((await wallet.signMessage({ message })).slice(2), "hex")),
        catch: (cause) => new SignerError({ reason: "Unavailable", cause })
      })
  })

const register = (options: { readonly wallet: RealClient.Wallet; readonly includePostQuantum: boolean }) =>
  Effect.provide(registerInstallation(options), signerOf(options.wallet))

const realClient = (wallet = freshWallet()) =>
  Effect.flatMap(DevNode.DevNode, ({ grpcUrl }) => RealClient.make({ wallet, grpcUrl }))

const welcomesOf = ({ installationId }: Installation) =>
  Effect.flatMap(NodeState, ({ welcomes }) => welcomes.entries(InstallationId.toPublicKey(installationId)))

const newest = ({ installationId }: Installation) =>
  Effect.flatMap(KeyPackageStore, (store) => store.getNewest(installationId)).pipe(
    Effect.flatMap(Option.map(identityOf))
  )

const identityOf = <A>(value: A): A => value

describeReal("the real client and our installations", () => {
  for (const includePostQuantum of [true, false]) {
    const kind = includePostQuantum ? "post-quantum" : "classical"

    it.scopedLive(`reports our ${kind} package valid and invites the installation to a DM and a group`, () =>
      Effect.gen(function* () {
        const alice = yield* realClient()
        const ours = yield* register({ wallet: freshWallet(), includePostQuantum })
        const { keyPackage } = yield* newest(ours)

        const { [ours.installationId]: status } = yield* RealClient.keyPackageStatuses(alice, [ours.installationId])
        expect(status).toEqual({
          lifetime: { notBefore: keyPackage.lifetime.notBefore, notAfter: keyPackage.lifetime.notAfter }
        })

        const conversations = alice.client.conversations()
        const dm = yield* RealClient.call("createDm", () => conversations.createDm(ours.inboxId))
        const group = yield* RealClient.call("createGroup", () => conversations.createGroup([ours.inboxId]))
        for (const conversation of [dm, group]) {
          const members = yield* RealClient.call("listMembers", () => conversation.listMembers())
          expect(members.flatMap(({ installationIds }) => installationIds)).toContain(ours.installationId)
        }

        // The Welcomes are wrapped for the very package that we published.
        const welcomes = yield* welcomesOf(ours)
        expect(welcomes).toHaveLength(2)
        const target = Option.getOrElse(keyPackage.postQuantumKey, () => keyPackage.initKey)
        const algorithm = includePostQuantum
          ? WelcomeWrapperAlgorithm.XWING_MLKEM_768_DRAFT_6
          : WelcomeWrapperAlgorithm.CURVE25519
        for (const { value: welcome } of welcomes) {
          expect(welcome.case).toBe("v1")
          expect(welcome.value.wrapperAlgorithm).toBe(algorithm)
          expect(Buffer.from(welcome.value.hpkePublicKey).equals(target)).toBe(true)
        }
      }).pipe(Effect.provide(world()))
    )
  }

  it.scopedLive("accepts our installation as a second one of its own inbox", () =>
    Effect.gen(function* () {
      const wallet = freshWallet()
      const alice = yield* realClient(wallet)
      const ours = yield* register({ wallet, includePostQuantum: true })
      expect(ours.inboxId).toBe(alice.inboxId)

      const state = yield* RealClient.call("inboxState", () => alice.client.inboxState(true))
      expect(state.installations.map(({ id }) => id).sort()).toEqual([alice.installationId, ours.installationId].sort())
    }).pipe(Effect.provide(world()))
  )

  it.scopedLive("is an installation of our inbox, where we were first", () =>
    Effect.gen(function* () {
      const wallet = freshWallet()
      const ours = yield* register({ wallet, includePostQuantum: true })
      const alice = yield* realClient(wallet)
      expect(alice.inboxId).toBe(ours.inboxId)

      const state = yield* RealClient.call("inboxState", () => alice.client.inboxState(true))
      expect(state.installations.map(({ id }) => id).sort()).toEqual([alice.installationId, ours.installationId].sort())
      expect(state.recoveryIdentifier.identifier).toBe(wallet.address.toLowerCase())
    }).pipe(Effect.provide(world()))
  )

  it.scopedLive("follows our rotations: the package that it invites with is the newest one", () =>
    Effect.gen(function* () {
      const alice = yield* realClient()
      const ours = yield* register({ wallet: freshWallet(), includePostQuantum: true })
      const first = yield* newest(ours)
      yield* rotateAndUploadKeyPackage({ installationId: ours.installationId, includePostQuantum: true })
      const second = yield* newest(ours)
      expect(second.keyPackage.ref).not.toBe(first.keyPackage.ref)

      yield* RealClient.call("createDm", () => alice.client.conversations().createDm(ours.inboxId))
      const [welcome] = yield* welcomesOf(ours)
      const target = yield* second.keyPackage.postQuantumKey
      expect(Buffer.from(welcome?.value.value.hpkePublicKey ?? []).equals(target)).toBe(true)
    }).pipe(Effect.provide(world()))
  )
})
