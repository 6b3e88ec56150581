/** Inboxes that are what a test says, and groups that a test makes, right ones and wrong ones. */
import { create, toBinary } from "@bufbuild/protobuf"
import * as Hpke from "@keyward/core/crypto/Hpke"
import { GROUP_INFO_TBS, WELCOME, withLabel } from "@keyward/core/crypto/Labels"
import * as MlsCiphersuite from "@keyward/core/crypto/MlsCiphersuite"
import * as NodeMlsCrypto from "@keyward/core/crypto/NodeMlsCrypto"
import { GroupMembershipSchema } from "@keyward/core/gen/xmtp/mls/message_contents/group_membership_pb"
import { ConversationType, GroupMetadataV1Schema } from "@keyward/core/gen/xmtp/mls/message_contents/group_metadata_pb"
import type { AssociationState } from "@keyward/core/identity/AssociationState"
import { InboxId } from "@keyward/core/identity/InboxId"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import * as MemberIdentifier from "@keyward/core/identity/MemberIdentifier"
import { newKeyPackage } from "@keyward/core/keypackage/Generation"
import * as KeyPackageRef from "@keyward/core/keypackage/KeyPackageRef"
import * as AssociationStates from "@keyward/core/peers/AssociationStates"
import { ApiClientError } from "@keyward/core/ports/ApiClient"
import * as XWing from "@keyward/core/postquantum/XWing"
import type { JoiningKeyPackage } from "@keyward/core/welcome/JoinGroup"
import * as SeededEntropy from "@keyward/test-utils/SeededEntropy"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as TestClock from "effect/TestClock"
import * as TestServices from "effect/TestServices"
import {
  type ClientState,
  createCommit,
  createGroup,
  decode,
  defaultExtensionTypes,
  defaultProposalTypes,
  encode,
  type GroupContextExtension,
  type KeyPackage,
  keyPackageDecoder,
  makeCustomExtension,
  mlsMessageEncoder,
  type PrivateKeyPackage,
  unsafeTestingAuthenticationService
} from "ts-mls"
import { welcomeKey } from "../../src/internal/mlsKeySchedule.ts"
import { readGroupSecrets, readWelcome } from "../../src/internal/mlsWelcome.ts"
import { writeVectors } from "../../src/internal/tlsReader.ts"

export const bin = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"))

export const SEED = Number(process.env.KEYWARD_TEST_SEED ?? 20_261_123)

/** Every variant where KEYWARD_TEST_ALL is 1, which takes minutes; else each 29th, from another one for another seed. */
export const isLong = process.env.KEYWARD_TEST_ALL === "1"
export const STRIDE = isLong ? 1 : 29
export const FIRST = SEED % STRIDE
export const TIMEOUT = isLong ? 1_800_000 : 60_000

/** Lets the test runner have its say during long work. */
export const breathe: Effect.Effect<void> = Effect.promise(() => new Promise((resolve) => setImmediate(resolve)))

/** Randomness of tests that need it to differ, not to be unknown. */
export const cryptoLayer = Layer.mergeAll(NodeMlsCrypto.layer, XWing.layer, SeededEntropy.layer("welcome"))

export type Crypto = Layer.Layer.Success<typeof cryptoLayer>

/** ts-mls, which invites here, goes by the platform's clock. */
export const atRealTime: Effect.Effect<void> = Effect.flatMap(
  TestServices.provideLive(Clock.currentTimeMillis),
  TestClock.setTime
)

export const inboxId = (digits: string): InboxId => InboxId.make(digits.repeat(64 / digits.length))

/** What an inbox was at each update: the installations that it then had. */
export type Inboxes = ReadonlyMap<InboxId, ReadonlyArray<readonly [bigint, ReadonlyArray<InstallationId>]>>

const stateOf = (inbox: InboxId, installations: ReadonlyArray<InstallationId>): AssociationState => ({
  inboxId: inbox,
  members: new Map(
    installations.map((id) => {
      const identifier = MemberIdentifier.installation(id)
      const member = { identifier, addedBy: undefined, clientTimestampNs: 1n, addedOnChainId: undefined }
      return [MemberIdentifier.toKey(identifier), member]
    })
  ),
  recoveryIdentifier: { _tag: "Ethereum", address: `0x${"00".repeat(20)}` },
  seenSignatures: new Set()
})

/** The states of these inboxes; who is not among them has no log. Counts what is asked. */
export const statesLayer = (
  inboxes: Inboxes,
  asked: { get: number; getAt: number } = { get: 0, getAt: 0 }
): Layer.Layer<AssociationStates.AssociationStates> =>
  Layer.succeed(AssociationStates.AssociationStates, {
    get: (ids) =>
      Effect.sync(() => {
        asked.get++
        return ids.map((id) => {
          const newest = inboxes.get(id)?.at(-1)
          return newest === undefined
            ? Either.left(unknownInbox(id))
            : Either.right({ sequenceId: newest[0], state: stateOf(id, newest[1]) })
        })
      }),
    getAt: (id, sequenceId) =>
      Effect.suspend(() => {
        asked.getAt++
        const found = inboxes.get(id)?.find(([at]) => at === sequenceId)
        return found === undefined
          ? Effect.fail(
              new AssociationStates.AssociationStateError({
                inboxId: id,
                reason: { _tag: "MissingIdentityUpdate", sequenceId }
              })
            )
          : Effect.succeed(stateOf(id, found[1]))
      })
  })

const unknownInbox = (id: InboxId): AssociationStates.InboxError =>
  new AssociationStates.AssociationStateError({
    inboxId: id,
    reason: { _tag: "UnknownInbox", inboxId: id }
  }) as AssociationStates.InboxError

/** A node that cannot be reached. */
export const unreachableLayer: Layer.Layer<AssociationStates.AssociationStates> = Layer.succeed(
  AssociationStates.AssociationStates,
  {
    get: (ids) =>
      Effect.succeed(
        ids.map((id) =>
          Either.left(
            new AssociationStates.AssociationStateError({
              inboxId: id,
              reason: {
                _tag: "InboxUnreachable",
                inboxId: id,
                error: new ApiClientError({ operation: "getIdentityUpdates", reason: "Unavailable" })
              }
            }) as AssociationStates.InboxError
          )
        )
      ),
    getAt: () => Effect.dieMessage("nobody is asked one by one")
  }
)

/** An installation with a key package of this library. */
export interface Party {
  readonly inboxId: InboxId
  readonly installationKey: InstallationKey.InstallationKey
  readonly joining: JoiningKeyPackage
  readonly postQuantumKey: Redacted.Redacted<Uint8Array> | undefined
}

export const party = (inbox: InboxId, includePostQuantum = true) =>
  Effect.gen(function* () {
    const installationKey = yield* InstallationKey.generate
    const { keyPackage, privateKeys } = yield* newKeyPackage({ inboxId: inbox, installationKey, includePostQuantum })
    return {
      inboxId: inbox,
      installationKey,
      joining: { bytes: keyPackage.bytes, privateKeys, installationKey },
      postQuantumKey: privateKeys.postQuantumKey._tag === "Some" ? privateKeys.postQuantumKey.value : undefined
    } satisfies Party
  })

const mlsKeyPackage = (bytes: Uint8Array): KeyPackage => {
  const decoded = decode(keyPackageDecoder, bytes)
  if (decoded === undefined) throw new Error("not a key package")
  return decoded
}

export const privatePackage = ({ joining }: Party): PrivateKeyPackage => ({
  initPrivateKey: Redacted.value(joining.privateKeys.initKey),
  hpkePrivateKey: Redacted.value(joining.privateKeys.encryptionKey),
  signaturePrivateKey: Redacted.value(joining.installationKey.seed)
})

let counter = 0
export const suite = MlsCiphersuite.make(NodeMlsCrypto.make(), {
  randomBytes: (length) =>
    Uint8Array.from({ length }, (_, i) => (Math.imul(i + 1, 167) + Math.imul(++counter, 91)) & 0xff)
})
export const mlsContext = { cipherSuite: suite, authService: unsafeTestingAuthenticationService }

const vector = (bytes: Uint8Array): Uint8Array =>
  bytes.length < 64
    ? Uint8Array.of(bytes.length, ...bytes)
    : Uint8Array.of(0x40 | (bytes.length >> 8), bytes.length & 0xff, ...bytes)

export interface GroupOptions {
  readonly members: Readonly<Record<string, bigint>>
  readonly failed?: ReadonlyArray<Uint8Array>
  readonly conversationType?: ConversationType
  readonly dmMembers?: readonly [string, string]
  /** Empty unless given; null is none at all. */
  readonly mutableMetadata?: Uint8Array | null
  /** Instead of everything above. */
  readonly extensions?: ReadonlyArray<readonly [number, Uint8Array]>
}

export const membershipBytes = (
  members: Readonly<Record<string, bigint>>,
  failed: ReadonlyArray<Uint8Array> = []
): Uint8Array =>
  toBinary(
    GroupMembershipSchema,
    create(GroupMembershipSchema, { members: { ...members }, failedInstallations: [...failed] })
  )

export const metadataBytes = (
  conversationType: ConversationType = ConversationType.GROUP,
  dmMembers?: readonly [string, string]
): Uint8Array =>
  vector(
    toBinary(
      GroupMetadataV1Schema,
      create(GroupMetadataV1Schema, {
        conversationType,
        creatorInboxId: "creator",
        ...(dmMembers === undefined
          ? {}
          : { dmMembers: { dmMemberOne: { inboxId: dmMembers[0] }, dmMemberTwo: { inboxId: dmMembers[1] } } })
      })
    )
  )

const extensionsOf = (options: GroupOptions): Array<GroupContextExtension> => [
  {
    extensionType: defaultExtensionTypes.required_capabilities,
    extensionData: { extensionTypes: [0xf000, 0xff01], proposalTypes: [7], credentialTypes: [1] }
  },
  ...(
    options.extensions ?? [
      [0xf000, metadataBytes(options.conversationType, options.dmMembers)] as const,
      [0xff01, membershipBytes(options.members, options.failed)] as const,
      ...(options.mutableMetadata === null ? [] : [[0xff00, options.mutableMetadata ?? new Uint8Array(0)] as const])
    ]
  ).map(([extensionType, extensionData]) => makeCustomExtension({ extensionType, extensionData }))
]

/** A group that its creator adds all invited to at once, and the Welcome for them: an MLSMessage. */
export const invite = (creator: Party, invited: ReadonlyArray<Party>, options: GroupOptions) =>
  Effect.promise(async () => {
    const state = await createGroup({
      context: mlsContext,
      groupId: bin("00112233445566778899aabbccddeeff"),
      keyPackage: mlsKeyPackage(creator.joining.bytes),
      privateKeyPackage: privatePackage(creator),
      extensions: extensionsOf(options)
    })
    return addTo(state, invited)
  })

/** The group after the addition, and the Welcome. */
export const addTo = async (
  state: ClientState,
  invited: ReadonlyArray<Party>
): Promise<{ readonly state: ClientState; readonly welcome: Uint8Array }> => {
  const { newState, welcome } = await createCommit({
    context: mlsContext,
    state,
    ratchetTreeExtension: true,
    extraProposals: invited.map(({ joining }) => ({
      proposalType: defaultProposalTypes.add,
      add: { keyPackage: mlsKeyPackage(joining.bytes) }
    }))
  })
  if (welcome === undefined) throw new Error("nobody was added")
  return { state: newState, welcome: encode(mlsMessageEncoder, welcome) }
}

/** What a hostile inviter changes in a Welcome for one package before it is sealed. */
export interface Changes {
  readonly groupSecrets?: (bytes: Uint8Array) => Uint8Array
  /** The whole GroupInfo, signature included. */
  readonly groupInfo?: (bytes: Uint8Array) => Uint8Array
  /** Only what is signed of it, which is then signed again with this seed. */
  readonly signed?: { readonly seed: Redacted.Redacted<Uint8Array>; readonly change: (bytes: Uint8Array) => Uint8Array }
}

const crypto = NodeMlsCrypto.make()
const EMPTY = new Uint8Array(0)

/** What is in a Welcome for one package: GroupSecrets, GroupInfo, and how much of the latter is signed. */
export const contentsOf = (welcome: Uint8Array, { bytes, privateKeys }: JoiningKeyPackage) => {
  const ref = bin(KeyPackageRef.hashWith(crypto, bytes))
  const { encryptedGroupInfo, secrets } = readWelcome(welcome)
  const own = secrets.find(({ newMember }) => Buffer.from(newMember).equals(ref))
  if (own === undefined) throw new Error("not for this package")
  const shared = Option.getOrThrow(Hpke.decapsulate(crypto, privateKeys.initKey, own.kemOutput))
  const context = Hpke.context(crypto, Hpke.KemId.dhkemX25519, shared, withLabel(WELCOME, encryptedGroupInfo))
  const groupSecrets = Option.getOrThrow(context.open(EMPTY, own.ciphertext))
  const { joinerSecret } = readGroupSecrets(groupSecrets)
  const { key, nonce } = welcomeKey(crypto, joinerSecret)
  const groupInfo = Option.getOrThrow(crypto.aeadOpen(key, nonce, EMPTY, encryptedGroupInfo))
  return { ref, groupSecrets, groupInfo, key, nonce }
}

/** The Welcome with other contents, sealed as its inviter would. */
export const reseal = (welcome: Uint8Array, keyPackage: JoiningKeyPackage, changes: Changes): Uint8Array => {
  const { groupInfo, groupSecrets, key, nonce, ref } = contentsOf(welcome, keyPackage)
  let info = changes.groupInfo?.(groupInfo) ?? groupInfo
  if (changes.signed !== undefined) {
    // A signature is 64 bytes behind a length of two.
    const toBeSigned = changes.signed.change(groupInfo.subarray(0, groupInfo.length - 66))
    const signature = crypto.ed25519Sign(changes.signed.seed, withLabel(GROUP_INFO_TBS, toBeSigned))
    info = Uint8Array.of(...toBeSigned, 0x40, 0x40, ...signature)
  }
  const encryptedGroupInfo = crypto.aeadSeal(key, nonce, EMPTY, info)
  const initKey = crypto.x25519PublicKey(keyPackage.privateKeys.initKey)
  const ephemeral = Redacted.make(suite.rng.randomBytes(32))
  const { enc, sharedSecret } = Option.getOrThrow(Hpke.encapsulate(crypto, initKey, ephemeral))
  const context = Hpke.context(crypto, Hpke.KemId.dhkemX25519, sharedSecret, withLabel(WELCOME, encryptedGroupInfo))
  const sealed = context.seal(EMPTY, changes.groupSecrets?.(groupSecrets) ?? groupSecrets)
  const secrets = writeVectors(ref, enc, sealed)
  return Uint8Array.of(0, 1, 0, 3, 0, 3, ...writeVectors(secrets, encryptedGroupInfo))
}

/** One bit the other way. */
export const flip = (bytes: Uint8Array, bit: number): Uint8Array => {
  const flipped = bytes.slice()
  flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
  return flipped
}
