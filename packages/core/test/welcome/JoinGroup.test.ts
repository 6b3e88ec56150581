/** What a stranger may make of a Welcome: a group that is right joins, anything else is a typed failure. */
import { describe, expect, it } from "@effect/vitest"
import * as NodeMlsCrypto from "@keyward/core/crypto/NodeMlsCrypto"
import { ConversationType } from "@keyward/core/gen/xmtp/mls/message_contents/group_metadata_pb"
import { InboxId } from "@keyward/core/identity/InboxId"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as InstallationIdModule from "@keyward/core/identity/InstallationId"
import * as GroupMembership from "@keyward/core/welcome/GroupMembership"
import { joinGroup } from "@keyward/core/welcome/JoinGroup"
import * as Mutation from "@keyward/test-utils/Mutation"
import { ratchetTrees } from "@keyward/test-utils/vectors/WelcomeVectors"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Redacted from "effect/Redacted"
import * as mlsTree from "../../src/internal/mlsTree.ts"
import { readWelcome } from "../../src/internal/mlsWelcome.ts"
import { TlsFailure, TlsReader, writeVectors } from "../../src/internal/tlsReader.ts"
import * as World from "./World.ts"

const alice = World.inboxId("a1")
const bob = World.inboxId("b0")

const idOf = (party: World.Party): InstallationId => party.installationKey.installationId

/** Alice invites Bob to a group; both are what their inboxes say at 5. */
const pair = (options: Partial<World.GroupOptions> = {}) =>
  Effect.gen(function* () {
    const creator = yield* World.party(alice)
    const invited = yield* World.party(bob)
    const { welcome } = yield* World.invite(creator, [invited], { members: { [alice]: 5n, [bob]: 5n }, ...options })
    const inboxes: World.Inboxes = new Map([
      [alice, [[5n, [idOf(creator)]]]],
      [bob, [[5n, [idOf(invited)]]]]
    ])
    return { creator, invited, welcome, inboxes }
  })

const join = (welcome: Uint8Array, party: World.Party, inboxes: World.Inboxes) =>
  joinGroup(welcome, party.joining).pipe(Effect.provide(World.statesLayer(inboxes)))

/** Why it does not join. The joined group itself is no good failure: printing a state never ends. */
const refused = (welcome: Uint8Array, party: World.Party, inboxes: World.Inboxes) =>
  Effect.map(Effect.either(join(welcome, party, inboxes)), (result) =>
    Either.isLeft(result) ? result.left : { _tag: "Joined" }
  )

const it_ = <A, E>(name: string, body: () => Effect.Effect<A, E, World.Crypto>) =>
  it.effect(name, () => Effect.provide(Effect.zipRight(World.atRealTime, body()), World.cryptoLayer), World.TIMEOUT)

describe("joinGroup", () => {
  it_("joins a group, names everyone in it and who invited", () =>
    Effect.gen(function* () {
      const { creator, inboxes, invited, welcome } = yield* pair()
      const joined = yield* join(welcome, invited, inboxes)
      expect(joined.epoch).toBe(1n)
      expect(joined.members).toEqual([
        { inboxId: alice, installationId: idOf(creator), leafIndex: 0 },
        { inboxId: bob, installationId: idOf(invited), leafIndex: 1 }
      ])
      expect(joined.addedBy.inboxId).toBe(alice)
      expect([...joined.groupMembership.members]).toEqual([
        [alice, 5n],
        [bob, 5n]
      ])
      expect(String(joined.state)).toBe("<redacted>")
      expect(JSON.stringify({ ...joined, epoch: 0, groupMembership: 0 })).not.toContain(
        Buffer.from(Redacted.value(joined.state).keySchedule.initSecret).toString("hex")
      )
    })
  )

  it_("joins the same Welcome twice, and two Welcomes for one package, and leaves the keys as they are", () =>
    Effect.gen(function* () {
      const { creator, inboxes, invited, welcome } = yield* pair()
      const before = Redacted.value(invited.joining.privateKeys.encryptionKey).slice()
      const [first, second] = [yield* join(welcome, invited, inboxes), yield* join(welcome, invited, inboxes)]
      expect(Redacted.value(first.state)).toEqual(Redacted.value(second.state))
      const another = yield* World.invite(creator, [invited], { members: { [alice]: 5n, [bob]: 5n } })
      const third = yield* join(another.welcome, invited, inboxes)
      expect(Redacted.value(third.state).keySchedule).not.toEqual(Redacted.value(first.state).keySchedule)
      expect(Redacted.value(invited.joining.privateKeys.encryptionKey)).toEqual(before)
    })
  )

  it_("judges members at the sequence id that the group states: not before, and whatever came after", () =>
    Effect.gen(function* () {
      const { creator, inboxes, invited, welcome } = yield* pair({ members: { [alice]: 5n, [bob]: 6n } })
      const log = (...states: ReadonlyArray<readonly [bigint, ReadonlyArray<InstallationId>]>): World.Inboxes =>
        new Map([...inboxes, [bob, states]])
      const revokedSince = log([5n, []], [6n, [idOf(invited)]], [7n, []])
      expect((yield* join(welcome, invited, revokedSince)).members).toHaveLength(2)
      const addedLater = log([5n, []], [6n, []], [7n, [idOf(invited)]])
      expect(yield* refused(welcome, invited, addedLater)).toMatchObject({
        _tag: "MemberNotAuthorized",
        reason: "NotAnInstallation",
        inboxId: bob,
        installationId: idOf(invited),
        leafIndex: 1
      })
      const neverThat = log([5n, []], [7n, [idOf(invited)]])
      expect(yield* refused(welcome, invited, neverThat)).toMatchObject({
        _tag: "MemberNotAuthorized",
        reason: "NoSuchInbox",
        inboxId: bob
      })
      // A node that is late, and one that does not know the inbox yet.
      const aliceOnly: World.Inboxes = new Map([[alice, [[5n, [idOf(creator)]]]]])
      for (const late of [log([5n, [idOf(invited)]]), aliceOnly]) {
        expect(yield* refused(welcome, invited, late)).toMatchObject({
          _tag: "MembersUnknown",
          inboxId: bob,
          isRetryable: true
        })
      }
    })
  )

  it_("asks for all inboxes at once, and for those that moved on one by one", () =>
    Effect.gen(function* () {
      const { inboxes, invited, welcome } = yield* pair()
      const asked = { get: 0, getAt: 0 }
      yield* Effect.provide(joinGroup(welcome, invited.joining), World.statesLayer(inboxes, asked))
      expect(asked).toEqual({ get: 1, getAt: 0 })
      const moved = new Map([...inboxes, [alice, [...(inboxes.get(alice) ?? []), [9n, []] as const]] as const])
      yield* Effect.provide(joinGroup(welcome, invited.joining), World.statesLayer(moved, asked))
      expect(asked).toEqual({ get: 2, getAt: 1 })
    })
  )

  it_("decides nothing where the logs cannot be read", () =>
    Effect.gen(function* () {
      const { invited, welcome } = yield* pair()
      const error = yield* Effect.flip(Effect.provide(joinGroup(welcome, invited.joining), World.unreachableLayer))
      expect(error).toMatchObject({ _tag: "MembersUnknown", isRetryable: true })
    })
  )

  it_("refuses a member whose inbox does not know the installation: a forged credential", () =>
    Effect.gen(function* () {
      const forger = yield* World.party(alice)
      const real = yield* World.party(alice)
      const invited = yield* World.party(bob)
      const { welcome } = yield* World.invite(forger, [invited], { members: { [alice]: 5n, [bob]: 5n } })
      const inboxes: World.Inboxes = new Map([
        [alice, [[5n, [idOf(real)]]]],
        [bob, [[5n, [idOf(invited)]]]]
      ])
      expect(yield* refused(welcome, invited, inboxes)).toMatchObject({
        _tag: "MemberNotAuthorized",
        reason: "NotAnInstallation",
        inboxId: alice,
        installationId: idOf(forger),
        leafIndex: 0
      })
    })
  )

  it_("refuses a member that the group's own list does not have, without asking anybody", () =>
    Effect.gen(function* () {
      const { invited, welcome } = yield* pair({ members: { [bob]: 5n } })
      const asked = { get: 0, getAt: 0 }
      const error = yield* Effect.flip(
        Effect.provide(joinGroup(welcome, invited.joining), World.statesLayer(new Map(), asked))
      )
      expect(error).toMatchObject({ _tag: "MemberNotAuthorized", reason: "NotInGroup", inboxId: alice })
      expect(asked).toEqual({ get: 0, getAt: 0 })
    })
  )

  it_("refuses a credential that names no inbox", () =>
    Effect.gen(function* () {
      const nobody = InboxId.make("x".repeat(100), { disableValidation: true })
      const creator = yield* World.party(nobody)
      const invited = yield* World.party(bob)
      const { welcome } = yield* World.invite(creator, [invited], { members: { [bob]: 5n } })
      expect(yield* refused(welcome, invited, new Map())).toMatchObject({
        _tag: "MemberNotAuthorized",
        reason: "InvalidCredential",
        inboxId: "x".repeat(64),
        leafIndex: 0
      })
    })
  )

  it_("misses an installation of a listed inbox, unless the group says that it could not be added", () =>
    Effect.gen(function* () {
      const other = yield* World.party(bob)
      const id = InstallationIdModule.toPublicKey(idOf(other))
      const withOther = ({ inboxes, invited }: Effect.Effect.Success<ReturnType<typeof pair>>): World.Inboxes =>
        new Map([...inboxes, [bob, [[5n, [idOf(invited), idOf(other)]]]]])
      const without = yield* pair()
      expect(yield* refused(without.welcome, without.invited, withOther(without))).toMatchObject({
        _tag: "MemberNotAuthorized",
        reason: "MissingFromTree",
        inboxId: bob,
        installationId: idOf(other)
      })
      const failed = yield* pair({ failed: [id] })
      const joined = yield* join(failed.welcome, failed.invited, withOther(failed))
      expect([...joined.groupMembership.failedInstallations]).toEqual([idOf(other)])
    })
  )

  it_("misses an installation of two inboxes that came for the other one only", () =>
    Effect.gen(function* () {
      const { creator, inboxes, invited, welcome } = yield* pair()
      const shared: World.Inboxes = new Map([...inboxes, [bob, [[5n, [idOf(invited), idOf(creator)]]]]])
      expect(yield* refused(welcome, invited, shared)).toMatchObject({
        _tag: "MemberNotAuthorized",
        reason: "MissingFromTree",
        inboxId: bob,
        installationId: idOf(creator)
      })
    })
  )

  it_("joins a DM that is between the two, and no other one", () =>
    Effect.gen(function* () {
      const carol = World.inboxId("ca")
      const dm = (one: string, two: string) => pair({ conversationType: ConversationType.DM, dmMembers: [one, two] })
      for (const [one, two] of [
        [alice, bob],
        [bob, alice]
      ] as const) {
        const { inboxes, invited, welcome } = yield* dm(one, two)
        expect((yield* join(welcome, invited, inboxes)).groupMetadata.conversationType).toBe("Dm")
      }
      for (const [one, two] of [
        [alice, carol],
        [carol, bob],
        [bob, bob],
        [alice, alice]
      ] as const) {
        const { inboxes, invited, welcome } = yield* dm(one, two)
        expect(yield* refused(welcome, invited, inboxes)).toMatchObject({ reason: "NotThisPair" })
      }
    })
  )

  it_("joins a DM only without admins", () =>
    Effect.gen(function* () {
      const dm = (mutableMetadata: Uint8Array | null) =>
        pair({ conversationType: ConversationType.DM, dmMembers: [alice, bob], mutableMetadata })
      const attributes = Uint8Array.of(0x0a, 0)
      const noAdmins = Uint8Array.of(...attributes, 0x12, 0, 0x1a, 0)
      for (const harmless of [attributes, noAdmins]) {
        const { inboxes, invited, welcome } = yield* dm(harmless)
        expect((yield* join(welcome, invited, inboxes)).members).toHaveLength(2)
      }
      for (const [field, reason] of [
        [Uint8Array.of(0x12, 3, 0x0a, 1, 0x61), "DmWithAdmins"],
        [Uint8Array.of(0x1a, 3, 0x0a, 1, 0x61), "DmWithAdmins"],
        [Uint8Array.of(0x1a, 3, 0x0a, 9, 0x61), "NotProtobuf"],
        [null, "MissingExtension"]
      ] as const) {
        const { inboxes, invited, welcome } = yield* dm(field)
        expect(yield* refused(welcome, invited, inboxes)).toMatchObject({ part: "GroupMetadata", reason })
      }
    })
  )

  const metadata = [0xf000, World.metadataBytes()] as const
  const membership = [0xff01, World.membershipBytes({ [alice]: 5n, [bob]: 5n })] as const
  const cases: ReadonlyArray<readonly [string, World.GroupOptions["extensions"] & {}, object]> = [
    ["no list of members", [metadata], { part: "GroupMembership", reason: "MissingExtension" }],
    ["no metadata", [membership], { part: "GroupMetadata", reason: "MissingExtension" }],
    [
      "a list that is no protobuf",
      [metadata, [0xff01, Uint8Array.of(7)]],
      { part: "GroupMembership", reason: "NotProtobuf" }
    ],
    [
      "a list with a member that is no inbox id",
      [metadata, [0xff01, World.membershipBytes({ [alice]: 5n, [bob]: 5n, nobody: 1n })]],
      { part: "GroupMembership", reason: "InvalidInboxId" }
    ],
    [
      "metadata without a length",
      [[0xf000, Uint8Array.of(9, 1)], membership],
      { part: "GroupMetadata", reason: "EndOfStream" }
    ],
    [
      "metadata that is no protobuf",
      [[0xf000, Uint8Array.of(1, 7)], membership],
      { part: "GroupMetadata", reason: "NotProtobuf" }
    ],
    [
      "a kind of conversation of a newer client",
      [[0xf000, Uint8Array.of(2, 8, 99)], membership],
      { _tag: "NotYetUnderstood", feature: "ConversationType", value: 99 }
    ],
    [
      "a group that keeps its data elsewhere",
      [metadata, membership, [0x0006, Uint8Array.of(3, 0x80, 0x00, 0)]],
      { _tag: "NotYetUnderstood", feature: "MigratedGroup" }
    ],
    [
      "a dictionary that is none",
      [metadata, membership, [0x0006, Uint8Array.of(3, 0x80)]],
      { part: "GroupInfo", reason: "EndOfStream" }
    ]
  ]
  for (const [name, extensions, expected] of cases) {
    it_(`refuses ${name}`, () =>
      Effect.gen(function* () {
        const { inboxes, invited, welcome } = yield* pair({ extensions })
        expect(yield* refused(welcome, invited, inboxes)).toMatchObject(expected)
      })
    )
  }

  it_("refuses an extension that our package does not say it understands", () =>
    Effect.gen(function* () {
      const { creator, inboxes, invited, welcome } = yield* pair({
        extensions: [metadata, membership, [0xff00, new Uint8Array(0)]]
      })
      const renamed = World.reseal(welcome, invited.joining, {
        signed: {
          seed: creator.installationKey.seed,
          change: (bytes) => {
            const changed = bytes.slice()
            // It follows the list of members, which ends with a sequence id of 5.
            const at = Buffer.from(bytes).indexOf(Uint8Array.of(0x10, 5, 0xff, 0x00, 0x00))
            changed[at + 3] = 0x77
            return changed
          }
        }
      })
      expect(yield* refused(renamed, invited, inboxes)).toMatchObject({
        _tag: "NotYetUnderstood",
        feature: "GroupContextExtension",
        value: 0xff77
      })
    })
  )

  it_("does not open with another package's keys, nor for another package", () =>
    Effect.gen(function* () {
      const { inboxes, invited, welcome } = yield* pair()
      const other = yield* World.party(bob)
      expect(yield* refused(welcome, other, inboxes)).toMatchObject({ part: "Welcome", reason: "OtherKeyPackage" })
      const mixed = { ...invited, joining: { ...invited.joining, privateKeys: other.joining.privateKeys } }
      expect(yield* refused(welcome, mixed, inboxes)).toMatchObject({ _tag: "UnwrapFailed", layer: "GroupSecrets" })
    })
  )

  it_("refuses other messages, versions and suites by their names", () =>
    Effect.gen(function* () {
      const { inboxes, invited, welcome } = yield* pair()
      const changed = (at: number, value: number) => welcome.map((byte, index) => (index === at ? value : byte))
      const refusal = (at: number, value: number) => refused(changed(at, value), invited, inboxes)
      expect(yield* refusal(1, 2)).toMatchObject({ _tag: "NotYetUnderstood", feature: "ProtocolVersion", value: 2 })
      expect(yield* refusal(3, 2)).toMatchObject({ part: "Welcome", reason: "NotAWelcome" })
      expect(yield* refusal(3, 9)).toMatchObject({ _tag: "NotYetUnderstood", feature: "WireFormat", value: 9 })
      expect(yield* refusal(5, 1)).toMatchObject({ _tag: "NotYetUnderstood", feature: "Ciphersuite", value: 1 })
    })
  )

  it_("is not led astray by huge lengths", () =>
    Effect.gen(function* () {
      const { inboxes, invited } = yield* pair()
      for (const huge of [
        Uint8Array.of(0, 1, 0, 3, 0, 3, 0xbf, 0xff, 0xff, 0xff),
        Uint8Array.of(0, 1, 0, 3, 0, 3, 0xc0, 0, 0, 0, 0, 0, 0, 1),
        Uint8Array.of(0, 1, 0, 3, 0, 3, 0, 0x80, 0, 0, 1)
      ]) {
        expect(yield* refused(huge, invited, inboxes)).toMatchObject({ _tag: "MalformedWelcome", part: "Welcome" })
      }
    })
  )
})

const errors = new Set([
  "UnwrapFailed",
  "MalformedWelcome",
  "NotYetUnderstood",
  "MemberNotAuthorized",
  "MembersUnknown"
])

describe("every bit and every length", () => {
  /** Each variant fails, in a typed way; a defect would fail the test. */
  const allRefused = (
    count: number,
    variant: (index: number) => Uint8Array,
    { inboxes, invited }: Effect.Effect.Success<ReturnType<typeof pair>>
  ) =>
    Effect.gen(function* () {
      const tags = new Map<string, number>()
      for (let index = World.FIRST; index < count; index += World.STRIDE) {
        yield* World.breathe
        const result = yield* Effect.either(join(variant(index), invited, inboxes))
        const tag = Either.isLeft(result) ? result.left._tag : `variant ${index} joins`
        tags.set(tag, (tags.get(tag) ?? 0) + 1)
      }
      for (const tag of tags.keys()) expect(errors).toContain(tag)
      return tags
    })

  it_("of the Welcome itself", () =>
    Effect.gen(function* () {
      const one = yield* pair()
      const { welcome } = one
      yield* allRefused(8 * welcome.length, (bit) => World.flip(welcome, bit), one)
      yield* allRefused(welcome.length, (length) => welcome.subarray(0, length), one)
    })
  )

  it_("of its GroupSecrets and GroupInfo, sealed again by the inviter", () =>
    Effect.gen(function* () {
      const one = yield* pair()
      const { invited, welcome } = one
      const { groupInfo, groupSecrets } = World.contentsOf(welcome, invited.joining)
      const resealed = (changes: World.Changes) => World.reseal(welcome, invited.joining, changes)
      expect((yield* join(resealed({}), invited, one.inboxes)).epoch).toBe(1n)
      yield* allRefused(8 * groupSecrets.length, (bit) => resealed({ groupSecrets: (b) => World.flip(b, bit) }), one)
      yield* allRefused(groupSecrets.length, (n) => resealed({ groupSecrets: (b) => b.subarray(0, n) }), one)
      yield* allRefused(8 * groupInfo.length, (bit) => resealed({ groupInfo: (b) => World.flip(b, bit) }), one)
      yield* allRefused(groupInfo.length, (n) => resealed({ groupInfo: (b) => b.subarray(0, n) }), one)
    })
  )

  it_("of what is signed, signed again by the inviter: what joins is the same group", () =>
    Effect.gen(function* () {
      const one = yield* pair()
      const { creator, inboxes, invited, welcome } = one
      const { groupInfo } = World.contentsOf(welcome, invited.joining)
      const { seed } = creator.installationKey
      let joined = 0
      for (let bit = World.FIRST; bit < 8 * (groupInfo.length - 66); bit += World.STRIDE) {
        yield* World.breathe
        const changed = World.reseal(welcome, invited.joining, {
          signed: { seed, change: (bytes) => World.flip(bytes, bit) }
        })
        const result = yield* Effect.either(join(changed, invited, inboxes))
        if (result._tag === "Left") expect(errors).toContain(result.left._tag)
        else joined++
      }
      // The confirmation tag holds the context, the tree hash the tree: nothing is left to change.
      expect(joined).toBe(0)
    })
  )
})

describe("trees that a stranger makes", () => {
  const crypto = NodeMlsCrypto.make()
  const trees = ratchetTrees.map(({ tree }) => World.bin(tree))

  const judge = (bytes: Uint8Array): string => {
    try {
      const reader = new TlsReader(bytes)
      const tree = mlsTree.read(reader)
      mlsTree.check(tree, mlsTree.hash(tree, crypto), undefined, crypto)
      return "valid"
    } catch (error) {
      if (error instanceof TlsFailure) return error.reason
      if (typeof error === "object" && error !== null && "_tag" in error) {
        return "reason" in error ? String(error.reason) : String(error._tag)
      }
      throw error
    }
  }

  it(`end in a verdict, whatever is changed in them, seed ${World.SEED}`, () => {
    const next = Mutation.generator(World.SEED)
    const verdicts = new Map<string, number>()
    for (let run = 0; run < 3_000; run++) {
      const verdict = judge(Mutation.mutate(next, Mutation.pick(next, trees), Mutation.pick(next, trees)))
      verdicts.set(verdict, (verdicts.get(verdict) ?? 0) + 1)
    }
    expect([...verdicts.keys()]).toEqual(expect.arrayContaining(["EndOfStream", "InvalidParentHash"]))
  })

  /** The first parent of a tree with unmerged leaves, as a place to write others into. */
  const withUnmerged = (unmerged: (leaf: number) => number): string => {
    for (const bytes of trees) {
      const tree = mlsTree.read(new TlsReader(bytes))
      for (const node of tree) {
        if (node?._tag !== "Parent" || node.node.unmergedLeaves.length !== 1) continue
        const [leaf = 0] = node.node.unmergedLeaves
        const changed = bytes.slice()
        const at = node.bytes.byteOffset - bytes.byteOffset + node.bytes.length - 4
        new DataView(changed.buffer).setUint32(at, unmerged(leaf))
        return judge(changed)
      }
    }
    throw new Error("no tree has unmerged leaves")
  }

  it("may not name unmerged leaves that are not there, nor blank ones, nor those of another branch", () => {
    expect(withUnmerged((leaf) => leaf)).toBe("valid")
    for (const unmerged of [3, 8, 63, 64, 127, 0x7fff_ffff, 0xffff_ffff]) {
      expect(withUnmerged((leaf) => (leaf === unmerged ? 1_000 : unmerged))).not.toBe("valid")
    }
    expect(withUnmerged(() => 0xffff_ffff)).toBe("InvalidUnmergedLeaves")
  })

  it("may not be larger than any group", () => {
    const blanks = new Uint8Array(2 + 2 * mlsTree.MAX_LEAVES)
    new DataView(blanks.buffer).setUint16(0, 0x4000 | (2 * mlsTree.MAX_LEAVES))
    expect(judge(blanks)).toBe("TooLarge")
    expect(judge(Uint8Array.of(1, 0))).toBe("NodeOutOfPlace")
    expect(judge(Uint8Array.of(0))).toBe("NodeOutOfPlace")
  })

  const uint16 = (value: number) => Uint8Array.of(value >>> 8, value & 0xff)
  const uint16s = (values: ReadonlyArray<number>) =>
    writeVectors(Uint8Array.from(values.flatMap((v) => [...uint16(v)])))

  /** A tree of one leaf, whose signature nobody has looked at. */
  const ofOneLeaf = (credential: Uint8Array, capable: ReadonlyArray<number>, carried: ReadonlyArray<number> = []) =>
    writeVectors(
      Buffer.concat([
        Uint8Array.of(1, 1), // present, a leaf
        writeVectors(new Uint8Array(32), new Uint8Array(32)),
        credential,
        uint16s([1]),
        uint16s([3]),
        uint16s(capable),
        uint16s(capable),
        uint16s(capable),
        new Uint8Array(17).fill(1, 0, 1), // of a key package, with its lifetime
        writeVectors(Buffer.concat(carried.map((type) => Buffer.concat([uint16(type), Uint8Array.of(0)])))),
        writeVectors(new Uint8Array(64))
      ])
    )
  const basic = Buffer.concat([uint16(1), Uint8Array.of(0)])

  it("may need much and be capable of much: the work grows with the sum, not with the product", () => {
    const MANY = 200_000
    const needed = 0xff00
    const manyNeeded = new Array<number>(MANY).fill(needed)
    const capable = [...new Array<number>(MANY).fill(1), needed]
    const required = { extensionTypes: manyNeeded, proposalTypes: manyNeeded, credentialTypes: manyNeeded }
    const tree = mlsTree.read(new TlsReader(ofOneLeaf(basic, capable)))
    mlsTree.check(tree, mlsTree.hash(tree, crypto), required, crypto)
    const lacking = { ...required, proposalTypes: [...manyNeeded, 0xff01] }
    expect(() => mlsTree.check(tree, mlsTree.hash(tree, crypto), lacking, crypto)).toThrow("MissingCapability")

    const types = Array.from({ length: 0x0fff }, (_, i) => 0xf001 + i)
    expect(judge(ofOneLeaf(basic, [1, ...types], types))).toBe("valid")
    expect(judge(ofOneLeaf(basic, [1, ...types.slice(1)], types))).toBe("MissingCapability")
  }, 10_000)

  it("may not make much of few bytes", () => {
    const chain = (length: number) => Buffer.concat([uint16(2), writeVectors(new Uint8Array(length))])
    expect(judge(ofOneLeaf(chain(64), [2]))).toBe("valid")
    expect(judge(ofOneLeaf(chain(65), [2]))).toBe("TooLarge")
    const secrets = (count: number) =>
      Buffer.concat([Uint8Array.of(0, 1, 0, 3, 0, 3), writeVectors(new Uint8Array(3 * count)), Uint8Array.of(0)])
    expect(readWelcome(secrets(mlsTree.MAX_LEAVES)).secrets).toHaveLength(mlsTree.MAX_LEAVES)
    expect(() => readWelcome(secrets(mlsTree.MAX_LEAVES + 1))).toThrow("TooLarge")
    const failed = Buffer.concat(Array.from({ length: 5_121 }, (_, i) => Uint8Array.of(0x12, 3, i >>> 16, i >>> 8, i)))
    expect(Either.isRight(GroupMembership.decode(failed.subarray(5)))).toBe(true)
    expect(Either.flip(GroupMembership.decode(failed))).toMatchObject({ right: { reason: "TooLarge" } })
  })
})
