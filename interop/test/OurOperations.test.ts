/**
 * The identity operations of this library, seen by the real client: it reads the same log and comes to the same state. And
 * the other way round: what the real client does to its inbox, this library reads alike.
 */
import { expect, it } from "@effect/vitest"
import * as NodeCrypto from "@keyward/core/crypto/NodeCrypto"
import * as AssociationState from "@keyward/core/identity/AssociationState"
import * as Identifier from "@keyward/core/identity/Identifier"
import { InboxId } from "@keyward/core/identity/InboxId"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import { eip191Hash } from "@keyward/core/identity/signature/SignedText"
import * as IdentityOperations from "@keyward/core/lifecycle/IdentityOperations"
import * as InboxLog from "@keyward/core/lifecycle/InboxLog"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import { Signer, SignerError } from "@keyward/core/ports/Signer"
import * as GrpcTransport from "@keyward/network/GrpcTransport"
import * as NodeSmartContractWalletVerifier from "@keyward/network/NodeSmartContractWalletVerifier"
import * as V3ApiClient from "@keyward/network/V3ApiClient"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import * as NodeValidation from "@keyward/test-utils/devnode/NodeValidation"
import * as MemoryKeyPackageStore from "@keyward/test-utils/MemoryKeyPackageStore"
import * as RealClient from "@keyward/test-utils/RealClient"
import * as VectorWallets from "@keyward/test-utils/VectorWallets"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import { describeReal } from "../src/Available.ts"
import { ourLine, theirLine } from "../src/Differential.ts"
import { freshWallet } from "../src/Wallets.ts"

/** A node that judges smart contract wallets by the vectors' rule, and this library over gRPC to it. */
const world = () =>
  Layer.unwrapEffect(
    Effect.map(DevNode.DevNode, ({ grpcUrl }) =>
      Layer.merge(V3ApiClient.layer(), NodeSmartContractWalletVerifier.layer()).pipe(
        Layer.provide(GrpcTransport.layer({ url: grpcUrl }))
      )
    )
  ).pipe(
    Layer.provideMerge(DevNode.layer({ validation: NodeValidation.layerWith(VectorWallets.layer) })),
    Layer.merge(Layer.merge(MemoryKeyPackageStore.layer, NodeCrypto.layer))
  )

const bytesOf = (hex: string) => new Uint8Array(Buffer.from(hex.replace(/^0x/, ""), "hex"))

const signerOf = (wallet: RealClient.Wallet) => ({
  identifier: Identifier.ethereum(wallet.address),
  signText: (message: string) =>
    Effect.tryPromise({
      try: async () => bytesOf(await wallet.signMessage({ message })),
      catch: (cause) => new SignerError({ reason: "Unavailable", cause })
    })
})

const as = (wallet: RealClient.Wallet) => Effect.provideService(Signer, signerOf(wallet))

/** What the real client makes of an inbox, asked anew. */
const theirState = (inboxId: string) =>
  Effect.gen(function* () {
    const { grpcUrl } = yield* DevNode.DevNode
    const bindings = yield* RealClient.load
    const backend = yield* RealClient.backend(grpcUrl)
    const [state] = yield* RealClient.call("fetchInboxStatesByInboxIds", () =>
      bindings.fetchInboxStatesByInboxIds(backend, [inboxId])
    )
    return state === undefined ? expect.fail("no state") : state
  })

/** The state that an operation gave is the one that the real client reads. */
const expectSame = (ours: AssociationState.AssociationState) =>
  Effect.map(theirState(ours.inboxId), (theirs) => expect(ourLine(ours)).toBe(theirLine(theirs)))

describeReal("the real client and our identity operations", () => {
  it.scopedLive("comes to the same state after every one of them", () =>
    Effect.gen(function* () {
      const [owner, second, third, recovery] = [freshWallet(), freshWallet(), freshWallet(), freshWallet()]
      const install = (wallet: RealClient.Wallet, label: string) =>
        registerInstallation({ includePostQuantum: false, label }).pipe(as(wallet))
      const { inboxId, installationId } = yield* install(owner, "first")

      yield* expectSame(yield* IdentityOperations.addWallet({ inboxId, wallet: signerOf(second) }).pipe(as(owner)))
      yield* expectSame(yield* IdentityOperations.addWalletByInstallation({ installationId, wallet: signerOf(third) }))
      const others = [yield* install(second, "second"), yield* install(third, "third"), yield* install(owner, "fourth")]
      yield* expectSame(
        yield* IdentityOperations.changeRecoveryIdentifier({
          inboxId,
          newRecoveryIdentifier: Identifier.ethereum(recovery.address)
        }).pipe(as(owner))
      )
      yield* expectSame(
        yield* IdentityOperations.revokeInstallations({
          inboxId,
          installationIds: others.slice(0, 2).map((other) => other.installationId)
        }).pipe(as(recovery))
      )
      const last = yield* IdentityOperations.revokeMembers({
        inboxId,
        members: [Identifier.ethereum(second.address), Identifier.ethereum(owner.address)]
      }).pipe(as(recovery))
      yield* expectSame(last)
      // Both of the owner's installations went with it; the wallet that one of them had added stays.
      expect(AssociationState.installationIds(last)).toEqual([])
      expect(AssociationState.rootIdentifiers(last)).toEqual([Identifier.ethereum(third.address)])
    }).pipe(Effect.provide(world()))
  )

  it.scopedLive("takes a smart contract wallet that founds an inbox, one that we add, and what they do", () =>
    Effect.gen(function* () {
      const contract = (chainId: bigint) => {
        const address = freshWallet().address.toLowerCase()
        return {
          identifier: Identifier.ethereum(address),
          signText: (text: string) =>
            Effect.sync(() =>
              VectorWallets.sign(
                { chainId: `eip155:${chainId}`, address },
                eip191Hash(new TextEncoder().encode(text)),
                new Uint8Array(3)
              )
            ),
          smartContractWallet: { chainId, blockNumber: Effect.succeed(1n) }
        }
      }
      const [owner, second] = [contract(1n), contract(8453n)]
      const { inboxId, installationId } = yield* registerInstallation({ includePostQuantum: false }).pipe(
        Effect.provideService(Signer, owner)
      )
      yield* expectSame(
        yield* IdentityOperations.addWallet({ inboxId, wallet: second }).pipe(Effect.provideService(Signer, owner))
      )
      yield* expectSame(
        yield* IdentityOperations.addWallet({ inboxId, wallet: signerOf(freshWallet()) }).pipe(
          Effect.provideService(Signer, second)
        )
      )
      yield* expectSame(
        yield* IdentityOperations.revokeInstallations({ inboxId, installationIds: [installationId] }).pipe(
          Effect.provideService(Signer, owner)
        )
      )
    }).pipe(Effect.provide(world()))
  )

  it.scopedLive("is undone by us: its second installation is revoked, and it sees that", () =>
    Effect.gen(function* () {
      const { grpcUrl } = yield* DevNode.DevNode
      const wallet = freshWallet()
      const first = yield* RealClient.make({ wallet, grpcUrl })
      const second = yield* RealClient.make({ wallet, grpcUrl })
      const inboxId = InboxId.make(first.inboxId)
      const read = yield* InboxLog.read(inboxId)
      yield* expectSame(Option.getOrThrow(read.state))

      const installationIds = [InstallationId.make(second.installationId)]
      yield* IdentityOperations.revokeInstallations({ inboxId, installationIds }).pipe(as(wallet))
      const seen = yield* RealClient.call("inboxState", () => first.client.inboxState(true))
      expect(seen.installations.map(({ id }) => id)).toEqual([first.installationId])
    }).pipe(Effect.provide(world()))
  )
})
