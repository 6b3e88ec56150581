/** Welcomes that others made: libxmtp's open and join, the working group's too, and the states are ts-mls's own. */
import { describe, expect, it } from "@effect/vitest"
import * as NodeMlsCrypto from "@keyward/core/crypto/NodeMlsCrypto"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import * as Codec from "@keyward/core/keypackage/Codec"
import * as KeyPackageRef from "@keyward/core/keypackage/KeyPackageRef"
import * as AssociationStates from "@keyward/core/peers/AssociationStates"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { layerNone } from "@keyward/core/ports/SmartContractWalletVerifier"
import { type JoiningKeyPackage, joinGroup } from "@keyward/core/welcome/JoinGroup"
import * as WelcomeMetadata from "@keyward/core/welcome/WelcomeMetadata"
import * as WelcomeWrapper from "@keyward/core/welcome/WelcomeWrapper"
import * as MemoryAssociationStateCache from "@keyward/test-utils/MemoryAssociationStateCache"
import {
  nativeSession,
  passiveClients,
  ratchetTrees,
  realWelcomes,
  treelessWelcome,
  type WelcomedInstallation
} from "@keyward/test-utils/vectors/WelcomeVectors"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import {
  clientStateDecoder,
  clientStateEncoder,
  decode,
  encode,
  keyPackageDecoder,
  mlsMessageDecoder,
  processPrivateMessage,
  joinGroup as tsMlsJoinGroup,
  wireformats
} from "ts-mls"
import * as mlsJoin from "../../src/internal/mlsJoin.ts"
import * as mlsTree from "../../src/internal/mlsTree.ts"
import { readWelcome } from "../../src/internal/mlsWelcome.ts"
import { TlsReader } from "../../src/internal/tlsReader.ts"
import * as World from "./World.ts"

const { bin } = World
const crypto = NodeMlsCrypto.make()

const joiningOf = (one: WelcomedInstallation): JoiningKeyPackage => ({
  bytes: bin(one.keyPackage),
  privateKeys: {
    initKey: Redacted.make(bin(one.initKey)),
    encryptionKey: Redacted.make(bin(one.encryptionKey))
  },
  installationKey: InstallationKey.fromSeed(bin(one.seed))
})

const unwrapOf = (
  one: WelcomedInstallation,
  { data, wrapperAlgorithm, welcomeMetadata = "" }: { data: string; wrapperAlgorithm: number; welcomeMetadata?: string }
) =>
  Effect.flatMap(WelcomeWrapper.algorithmOf(wrapperAlgorithm), (algorithm) =>
    WelcomeWrapper.unwrap(
      algorithm,
      Redacted.make(bin(algorithm === "XWing" ? (one.postQuantumKey ?? "") : one.initKey)),
      { data: bin(data), metadata: bin(welcomeMetadata) }
    )
  )

const low = (one: WelcomedInstallation) => ({
  decoded: Either.getOrThrow(Codec.decode(bin(one.keyPackage))),
  ref: bin(KeyPackageRef.hashWith(crypto, bin(one.keyPackage))),
  privateKeys: joiningOf(one).privateKeys
})

/** The same group joined by ts-mls alone. */
const byTsMls = (one: WelcomedInstallation, welcome: Uint8Array) =>
  Effect.promise(async () => {
    const message = decode(mlsMessageDecoder, welcome)
    const keyPackage = decode(keyPackageDecoder, bin(one.keyPackage))
    if (message?.wireformat !== wireformats.mls_welcome || keyPackage === undefined) throw new Error("no Welcome")
    return tsMlsJoinGroup({
      context: World.mlsContext,
      welcome: message.welcome,
      keyPackage,
      privateKeys: {
        initPrivateKey: bin(one.initKey),
        hpkePrivateKey: bin(one.encryptionKey),
        signaturePrivateKey: bin(one.seed)
      }
    })
  })

describe("groups of the native client with packages of this library", () => {
  for (const vector of realWelcomes) {
    it.effect(`${vector.name}: opens, and the state is the one that ts-mls makes, byte for byte`, () =>
      Effect.gen(function* () {
        const contents = yield* unwrapOf(vector, vector.welcome)
        expect(WelcomeMetadata.decode(contents.metadata)).toEqual(Option.some({ messageCursor: expect.any(BigInt) }))
        // The creator's log is not recorded: its one installation is the other leaf.
        const staged = mlsJoin.stage(crypto, readWelcome(contents.data), low(vector))
        const installations = staged.groupInfo.tree.flatMap((node) =>
          node?._tag === "Leaf" ? [InstallationId.make(Buffer.from(node.node.signaturePublicKey).toString("hex"))] : []
        )
        expect(installations).toHaveLength(2)
        const own = InstallationId.make(vector.welcome.installationKey)
        const creator = installations.find((id) => id !== own)
        if (creator === undefined) throw new Error("nobody invited")
        const membership = yield* membershipOf(staged)
        const inboxes: World.Inboxes = new Map(
          [...membership].map(([inbox, at]) => [inbox, [[at, [inbox === vector.inboxId ? own : creator]]]])
        )
        const joined = yield* Effect.provide(joinGroup(contents.data, joiningOf(vector)), World.statesLayer(inboxes))
        expect(joined.members.map(({ installationId }) => installationId).sort()).toEqual([...installations].sort())
        expect(joined.addedBy.installationId).toBe(creator)
        expect(joined.groupMetadata.conversationType).toBe("Group")
        const theirs = yield* byTsMls(vector, contents.data)
        expect(Redacted.value(joined.state)).toEqual(theirs)
        expect(encode(clientStateEncoder, Redacted.value(joined.state))).toEqual(encode(clientStateEncoder, theirs))
      }).pipe(Effect.provide(World.cryptoLayer))
    )
  }
})

const membershipOf = (staged: mlsJoin.Staged) =>
  Effect.gen(function* () {
    const GroupMembership = yield* Effect.promise(() => import("@keyward/core/welcome/GroupMembership"))
    const extension = staged.groupInfo.groupContext.extensions.find(({ extensionType }) => extensionType === 0xff01)
    if (!(extension?.extensionData instanceof Uint8Array)) throw new Error("no membership")
    return Either.getOrThrow(GroupMembership.decode(extension.extensionData)).members
  })

/** The session's identity logs behind the real service. */
const sessionStates = AssociationStates.layer().pipe(
  Layer.provide(MemoryAssociationStateCache.layer),
  Layer.provide(layerNone),
  Layer.provide(
    Layer.mock(ApiClient, {
      getIdentityUpdates: (requests) =>
        Effect.succeed(
          requests.map(({ after, inboxId }) =>
            (nativeSession.inboxes[inboxId]?.log ?? [])
              .map(({ sequenceId, update }) => ({
                sequenceId: BigInt(sequenceId),
                serverTimestampNs: 0n,
                update: bin(update)
              }))
              .filter(({ sequenceId }) => sequenceId > after)
          )
        )
    })
  )
)

describe("a session of the native client", () => {
  for (const [index, entry] of nativeSession.welcomes.entries()) {
    const one = nativeSession.installations[entry.to === "pq" ? "pq" : "classic"]
    const group = nativeSession.groups[entry.group]
    if (group === undefined) throw new Error(entry.group)

    it.effect(`Welcome ${index}, ${entry.group} to ${entry.to}: joined, and its message read`, () =>
      Effect.gen(function* () {
        let contents: WelcomeWrapper.Contents
        if (entry.kind === "Welcome") contents = yield* unwrapOf(one, entry)
        else {
          const { data } = yield* unwrapOf(one, { ...entry, data: entry.welcomePointer })
          const pointer = yield* WelcomeWrapper.decodePointer(data)
          const topic = Buffer.from(pointer.destination).toString("hex")
          const pointee = nativeSession.pointees.find(({ installationKey }) => installationKey === topic)
          if (pointee?.kind !== "Welcome") throw new Error("the pointer points nowhere")
          expect(pointee.wrapperAlgorithm).toBe(3)
          contents = yield* WelcomeWrapper.openPointee(pointer, {
            data: bin(pointee.data),
            metadata: bin(pointee.welcomeMetadata)
          })
        }
        const joined = yield* joinGroup(contents.data, joiningOf(one))
        expect(Buffer.from(joined.groupId).toString("hex")).toBe(group.groupId)
        expect(joined.members.map(({ installationId }) => installationId).sort()).toEqual(group.installations)
        for (const { inboxId, installationId } of joined.members) {
          expect(nativeSession.inboxes[inboxId]?.installationId).toBe(installationId)
        }
        expect(nativeSession.inboxes[joined.addedBy.inboxId]?.name).toBe("alice")
        expect(joined.groupMetadata.conversationType).toBe(entry.group.startsWith("dm") ? "Dm" : "Group")
        expect(joined.groupMetadata.creatorInboxId).toBe(joined.addedBy.inboxId)
        expect(Option.isSome(WelcomeMetadata.decode(contents.metadata))).toBe(true)

        const state = Redacted.value(joined.state)
        expect(state).toEqual(yield* byTsMls(one, contents.data))
        expect(decode(clientStateDecoder, encode(clientStateEncoder, state))).toEqual(state)
        const [message] = group.messages
        const decoded = message === undefined ? undefined : decode(mlsMessageDecoder, bin(message.data))
        if (decoded?.wireformat !== wireformats.mls_private_message) throw new Error("no message")
        const read = yield* Effect.promise(() =>
          processPrivateMessage({ context: World.mlsContext, state, privateMessage: decoded.privateMessage })
        )
        const text = read.kind === "applicationMessage" ? Buffer.from(read.message).toString("latin1") : ""
        expect(text).toMatch(/hello (xwing dm|curve dm|direct group|pointer group|history)/)
      }).pipe(Effect.provide(Layer.merge(World.cryptoLayer, sessionStates)))
    )
  }
})

describe("the working group's vectors of ciphersuite 0x0003", () => {
  for (const [index, vector] of passiveClients.entries()) {
    const one = { inboxId: "", seed: vector.signatureKey, ...vector }
    const tree = vector.ratchetTree === undefined ? undefined : bin(vector.ratchetTree)
    if (vector.preSharedKeys > 0) {
      it(`passive client ${index}: needs a pre-shared key, which XMTP has not`, () => {
        expect(() => mlsJoin.stage(crypto, readWelcome(bin(vector.welcome)), low(one), tree)).toThrow(
          expect.objectContaining({ _tag: "NotYetUnderstood", feature: "PreSharedKey" })
        )
      })
      continue
    }
    it.effect(`passive client ${index}: joins and knows the epoch`, () =>
      Effect.gen(function* () {
        const staged = mlsJoin.stage(crypto, readWelcome(bin(vector.welcome)), low(one), tree)
        yield* mlsJoin.verifySignatures(crypto, staged)
        const state = mlsJoin.complete(crypto, staged, low(one), Redacted.make(bin(vector.signatureKey)))
        expect(Buffer.from(state.keySchedule.epochAuthenticator).toString("hex")).toBe(vector.epochAuthenticator)
      })
    )
  }

  it("a Welcome without a tree opens up to the tree, which XMTP always sends along", () => {
    const { initKey, keyPackage, welcome } = treelessWelcome
    // The other keys are not given, and not needed up to there.
    const zeros = "00".repeat(32)
    const one = { inboxId: "", seed: zeros, keyPackage, initKey, encryptionKey: zeros }
    expect(() => mlsJoin.stage(crypto, readWelcome(bin(welcome)), low(one))).toThrow(
      expect.objectContaining({ _tag: "MalformedWelcome", part: "RatchetTree", reason: "MissingExtension" })
    )
  })

  for (const [index, { groupId, tree, treeHashes }] of ratchetTrees.entries()) {
    const read = () => mlsTree.read(new TlsReader(bin(tree)))

    it(`tree ${index} is valid: hashes, parent hashes, unmerged leaves, signatures`, () => {
      const nodes = read()
      const root = treeHashes[mlsTree.rootOf(nodes.length)]
      mlsTree.check(nodes, bin(root ?? ""), undefined, crypto)
      for (const { message, publicKey, signature } of mlsTree.leafSignatures(nodes, bin(groupId))) {
        expect(crypto.ed25519VerifyStrict(publicKey, message, signature)).toBe(true)
      }
    })

    it(`tree ${index} is not valid with another hash`, () => {
      expect(() => mlsTree.check(read(), new Uint8Array(32), undefined, crypto)).toThrow(
        expect.objectContaining({ reason: "TreeHashMismatch" })
      )
    })
  }
})
