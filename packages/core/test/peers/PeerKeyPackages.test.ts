/** One verdict per installation: each reason by a real case, and nobody suffers for another. */
import { describe, expect, it } from "@effect/vitest"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import * as Codec from "@keyward/core/keypackage/Codec"
import * as Profile from "@keyward/core/keypackage/Profile"
import { isValidatedKeyPackage } from "@keyward/core/keypackage/Validation"
import * as AssociationStates from "@keyward/core/peers/AssociationStates"
import { fetchKeyPackages, fetchKeyPackagesForInbox, recheck } from "@keyward/core/peers/PeerKeyPackages"
import * as Policies from "@keyward/core/peers/Policies"
import type { Verdict } from "@keyward/core/peers/Verdict"
import { isRetryable } from "@keyward/core/peers/Verdict"
import { ApiClient, ApiClientError, limits } from "@keyward/core/ports/ApiClient"
import { NodeState } from "@keyward/test-utils/devnode/NodeState"
import * as Faults from "@keyward/test-utils/Faults"
import * as Arr from "effect/Array"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Option from "effect/Option"
import * as TestClock from "effect/TestClock"
import * as keyPackageFixtures from "../keypackage/fixtures.ts"
import * as World from "./World.ts"

const inWorld = <A, E>(name: string, body: () => Effect.Effect<A, E, World.Services>) =>
  it.effect(name, () => Effect.zipRight(World.start, body()).pipe(Effect.provide(World.layer(name))))

/** A package of the profile with these fields, signed by this installation. */
const crafted = (
  inboxId: string,
  key: InstallationKey.InstallationKey,
  edit: (baseline: typeof keyPackageFixtures.baseline) => typeof keyPackageFixtures.baseline = (same) => same
): Uint8Array => {
  const { baseline } = keyPackageFixtures
  const now = BigInt(DateTime.toEpochMillis(World.START)) / 1000n
  return keyPackageFixtures.sign(
    edit({
      ...baseline,
      // Real points: the keys of the fixture are not all fit to encrypt to.
      initKey: keyPackageFixtures.crypto.x25519PublicKey(InstallationKey.fromSeed(new Uint8Array(32).fill(3)).seed),
      leafNode: {
        ...baseline.leafNode,
        encryptionKey: keyPackageFixtures.crypto.x25519PublicKey(
          InstallationKey.fromSeed(new Uint8Array(32).fill(4)).seed
        ),
        signatureKey: InstallationId.toPublicKey(key.installationId),
        credential: { type: 1, content: new Uint8Array([0x0a, inboxId.length, ...new TextEncoder().encode(inboxId)]) },
        source: { _tag: "KeyPackage", notBefore: now - 3600n, notAfter: now + 7_257_600n }
      }
    }),
    key
  )
}

describe("a batch of everything", () => {
  inWorld("[31] [33] [37] [50] gives each id its own reason, in the order asked, and leaves the others usable", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const bob = yield* World.newPeer
      const stranger = yield* InstallationKey.generate

      // Right signatures, other inbox: the installation is not a member of the inbox that its package names.
      yield* World.serve(stranger.installationId, (yield* World.packageOf(bob.inboxId, stranger)).bytes)

      // Another installation's package under the id that is asked for.
      const swapped = yield* World.newPeer
      yield* World.serve(swapped.id, alice.keyPackage.bytes)

      // A member no longer.
      const revoked = yield* World.newPeer
      yield* World.revoke(revoked, revoked.id)

      const missing = (yield* World.newInbox).first.installationId

      const expired = yield* World.newPeer
      const now = BigInt(DateTime.toEpochMillis(World.START)) / 1000n
      yield* World.serve(
        expired.id,
        crafted(expired.inboxId, expired.first, (fields) => ({
          ...fields,
          leafNode: { ...fields.leafNode, source: { _tag: "KeyPackage", notBefore: now - 10n, notAfter: now } }
        }))
      )

      // An inbox that nobody has ever seen.
      const homeless = yield* InstallationKey.generate
      yield* World.serve(homeless.installationId, crafted("ab".repeat(32), homeless))

      const nonsense = yield* InstallationKey.generate
      yield* World.serve(nonsense.installationId, crafted("inbox of bob", nonsense))

      // A wrapper that libxmtp does not know how to use.
      const unwrappable = yield* World.newPeer
      const wrapper = { type: Profile.ExtensionType.welcomeWrapperEncryption, data: Uint8Array.of(0x10, 3) }
      yield* World.serve(
        unwrappable.id,
        crafted(unwrappable.inboxId, unwrappable.first, (fields) => ({
          ...fields,
          extensions: [...fields.extensions.filter(({ type }) => type !== wrapper.type), wrapper]
        }))
      )

      const ids = [
        alice.id,
        stranger.installationId,
        swapped.id,
        revoked.id,
        missing,
        expired.id,
        homeless.installationId,
        nonsense.installationId,
        unwrappable.id,
        bob.id,
        alice.id
      ]
      const verdicts = yield* fetchKeyPackages(ids)
      expect(verdicts.map(({ installationId }) => installationId)).toEqual(ids)
      expect(World.tags(verdicts)).toEqual([
        "Usable",
        "NotAMember",
        "OtherInstallation",
        "NotAMember",
        "Missing",
        "InvalidKeyPackage",
        "UnknownInbox",
        "MalformedInboxId",
        "InvalidWelcomeWrapper",
        "Usable",
        "Usable"
      ])
      expect(World.reasonOf(verdicts[1])).toMatchObject({ inboxId: bob.inboxId })
      expect(World.reasonOf(verdicts[2])).toMatchObject({ actual: alice.id })
      expect(World.reasonOf(verdicts[3])).toMatchObject({ inboxId: revoked.inboxId })
      expect(World.reasonOf(verdicts[5])).toMatchObject({ error: { _tag: "KeyPackageExpired" } })
      expect(World.reasonOf(verdicts[7])).toMatchObject({ length: 12 })
      expect(verdicts.flatMap((verdict) => (verdict._tag === "Unusable" ? [isRetryable(verdict.reason)] : []))).toEqual(
        Arr.replicate(false, 8)
      )
    })
  )

  inWorld("a usable verdict names the package, the inbox and the state that it was judged by", () =>
    Effect.gen(function* () {
      const inbox = yield* World.newInbox
      const key = yield* World.addInstallation(inbox)
      const keyPackage = yield* World.packageOf(inbox.inboxId, key, true)
      yield* World.serve(key.installationId, keyPackage.bytes)
      const [verdict] = yield* fetchKeyPackages([key.installationId])
      const usable = World.usable(verdict)
      expect(usable.keyPackage.ref).toBe(keyPackage.ref)
      expect(isValidatedKeyPackage(usable.keyPackage)).toBe(true)
      expect(usable.inboxId).toBe(inbox.inboxId)
      expect(usable.sequenceId).toBe(2n)
      expect(usable.welcomeTarget.algorithm).toBe("XWing")
      expect(usable.welcomeTarget.publicKey).toHaveLength(1216)
      expect(DateTime.toEpochMillis(usable.judgedAt)).toBe(DateTime.toEpochMillis(World.START))
      expect(usable.findings).toEqual([])
    })
  )

  inWorld("nobody asked, nothing asked", () =>
    Effect.gen(function* () {
      expect(yield* fetchKeyPackages([])).toEqual([])
      expect(yield* (yield* Faults.Faults).calls).toEqual([])
    })
  )

  inWorld("duplicate ids cost one look-up and get the same verdict", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const faults = yield* Faults.Faults
      yield* faults.clearCalls
      const verdicts = yield* fetchKeyPackages([alice.id, alice.id, alice.id])
      expect(World.tags(verdicts)).toEqual(["Usable", "Usable", "Usable"])
      expect(verdicts[2]).toBe(verdicts[0])
      expect((yield* faults.calls).map(({ method }) => method)).toEqual(["fetchKeyPackages", "getIdentityUpdates"])
    })
  )
})

describe("identity logs", () => {
  inWorld("a log of another inbox is no proof, though it resolves and names the installation", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const bob = yield* World.newPeer
      // The node serves Bob's log for Alice's inbox: same entries, under her id.
      const state = yield* NodeState
      const [log] = yield* state.identity.read([{ inboxId: bob.inboxId, sequenceId: 0n }])
      const forged = yield* World.packageOf(alice.inboxId, bob.first)
      yield* World.serve(bob.id, forged.bytes)
      const api = yield* ApiClient
      const lying = AssociationStates.make().pipe(
        Effect.provideService(ApiClient, {
          ...api,
          getIdentityUpdates: (requests) => Effect.succeed(requests.map(() => log ?? []))
        })
      )
      const verdicts = yield* fetchKeyPackages([bob.id]).pipe(
        Effect.provideServiceEffect(AssociationStates.AssociationStates, lying),
        Effect.scoped
      )
      expect(World.tags(verdicts)).toEqual(["OtherInbox"])
      expect(World.reasonOf(verdicts[0])).toMatchObject({
        inboxId: alice.inboxId,
        error: { reason: "UnexpectedInbox" }
      })
    })
  )

  inWorld("[50] [51] an installation that is revoked after the fetch is refused at the next one", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const before = World.usable((yield* fetchKeyPackages([alice.id]))[0])
      yield* World.revoke(alice, alice.id)
      const [after] = yield* fetchKeyPackages([alice.id])
      const reason = World.reasonOf(after)
      expect(reason).toMatchObject({ _tag: "NotAMember", inboxId: alice.inboxId, sequenceId: 2n })
      expect(before.sequenceId).toBe(1n)
    })
  )

  inWorld("an installation that is added while a call with many ids is under way is a member", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const second = yield* InstallationKey.generate
      yield* World.serve(second.installationId, (yield* World.packageOf(alice.inboxId, second)).bytes)
      const api = yield* ApiClient
      const world = yield* Effect.context<World.Services>()
      // An answer for each id, and the second one only after the inbox was read because of the first.
      const verdicts = yield* fetchKeyPackages([alice.id, second.installationId]).pipe(
        Effect.provideService(ApiClient, {
          ...api,
          fetchKeyPackages: (ids) =>
            ids.length > 1
              ? new ApiClientError({ operation: "fetchKeyPackages", reason: "InvalidRequest" })
              : Effect.gen(function* () {
                  if (ids[0] === second.installationId) {
                    expect(yield* World.logRequests).toHaveLength(1)
                    yield* Effect.orDie(World.addInstallation(alice, second))
                  }
                  return yield* api.fetchKeyPackages(ids)
                }).pipe(Effect.provide(world))
        })
      )
      expect(World.tags(verdicts)).toEqual(["Usable", "Usable"])
      expect(verdicts.map((verdict) => World.usable(verdict).sequenceId)).toEqual([2n, 2n])
      expect(yield* World.logRequests).toHaveLength(1)
    })
  )

  inWorld(
    "an installation that seems no member is asked for again, and where nobody answers, the verdict says so",
    () =>
      Effect.gen(function* () {
        const alice = yield* World.newPeer
        const second = yield* InstallationKey.generate
        yield* World.serve(second.installationId, (yield* World.packageOf(alice.inboxId, second)).bytes)
        const ids = [alice.id, second.installationId]
        // Believed for an hour, and read a moment ago: it is asked for all the same.
        expect(World.tags(yield* fetchKeyPackages(ids, { maxAge: "1 hour" }))).toEqual(["Usable", "NotAMember"])
        yield* World.addInstallation(alice, second)
        expect(World.tags(yield* fetchKeyPackages(ids, { maxAge: "1 hour" }))).toEqual(["Usable", "Usable"])
        const third = yield* InstallationKey.generate
        yield* World.serve(third.installationId, (yield* World.packageOf(alice.inboxId, third)).bytes)
        const faults = yield* Faults.Faults
        yield* faults.enqueue("getIdentityUpdates", Faults.failBeforeSend())
        const verdicts = yield* fetchKeyPackages([alice.id, third.installationId], { maxAge: "1 hour" })
        expect(World.tags(verdicts)).toEqual(["Usable", "InboxUnreachable"])
        expect(isRetryable(World.reasonOf(verdicts[1]))).toBe(true)
      })
  )

  inWorld("an inbox that cannot be reached fails its installations alone, and may be asked again", () =>
    Effect.gen(function* () {
      const peers = yield* Effect.replicateEffect(World.newPeer, limits.inboxesPerRequest + 1)
      const faults = yield* Faults.Faults
      yield* faults.enqueue("getIdentityUpdates", Faults.failBeforeSend())
      const ids = peers.map(({ id }) => id)
      const first = World.tags(yield* fetchKeyPackages(ids))
      expect(first.slice(0, limits.inboxesPerRequest)).toEqual(
        Arr.replicate("InboxUnreachable", limits.inboxesPerRequest)
      )
      expect(first.slice(limits.inboxesPerRequest)).toEqual(["Usable"])
      expect(new Set(World.tags(yield* fetchKeyPackages(ids)))).toEqual(new Set(["Usable"]))
    })
  )
})

describe("[48] answers that are not what was asked for", () => {
  const all = (tag: string) => [tag, tag, tag]
  /** What becomes of three packages if one answer is wrong, and if all are; what of three logs if all are. */
  const outcomes: ReadonlyArray<
    readonly [Faults.WrongAnswer["_tag"], ReadonlyArray<string>, ReadonlyArray<string>, string]
  > = [
    // Of one, the first is all and the reverse is the same.
    ["Reversed", all("Usable"), all("Usable"), "Usable"],
    ["Short", all("Usable"), all("Unreachable"), "InboxUnreachable"],
    ["Long", all("Usable"), all("Unreachable"), "InboxUnreachable"],
    [
      "Repeated",
      ["Usable", "OtherInstallation", "OtherInstallation"],
      ["Usable", "OtherInstallation", "OtherInstallation"],
      "Usable"
    ],
    ["Emptied", all("Missing"), all("Missing"), "InboxUnreachable"],
    ["Undecodable", all("Usable"), all("Unreachable"), "InboxUnreachable"]
  ]
  const always = (method: string, answer: Faults.WrongAnswer): Faults.Rule => {
    const fault = Option.some(Faults.wrongAnswer(answer))
    return (call) => (call.method === method ? fault : Option.none())
  }
  for (const [tag, once, ever, logs] of outcomes) {
    inWorld(`packages: ${tag}, once and every time`, () =>
      Effect.gen(function* () {
        const ids = (yield* Effect.replicateEffect(World.newPeer, 3)).map(({ id }) => id)
        const faults = yield* Faults.Faults
        const answer = { _tag: tag } as Faults.WrongAnswer
        yield* faults.enqueue("fetchKeyPackages", Faults.wrongAnswer(answer))
        expect(World.tags(yield* fetchKeyPackages(ids))).toEqual(once)
        yield* faults.setRule(always("fetchKeyPackages", answer))
        expect(World.tags(yield* fetchKeyPackages(ids))).toEqual(ever)
        yield* faults.clear
        expect(World.tags(yield* fetchKeyPackages(ids))).toEqual(all("Usable"))
      })
    )
    inWorld(`logs: ${tag} is never taken for the log of an inbox`, () =>
      Effect.gen(function* () {
        const ids = (yield* Effect.replicateEffect(World.newPeer, 3)).map(({ id }) => id)
        const faults = yield* Faults.Faults
        const answer = { _tag: tag } as Faults.WrongAnswer
        yield* faults.setRule(always("getIdentityUpdates", answer))
        expect(World.tags(yield* fetchKeyPackages(ids))).toEqual(all(logs))
        yield* faults.clear
        // A single wrong answer costs no more than asking again.
        yield* faults.enqueue("getIdentityUpdates", Faults.wrongAnswer(answer))
        expect(World.tags(yield* fetchKeyPackages(ids))).toEqual(all("Usable"))
      })
    )
  }

  inWorld("one installation that spoils every answer it is in fails alone", () =>
    Effect.gen(function* () {
      const ids = (yield* Effect.replicateEffect(World.newPeer, 7)).map(({ id }) => id)
      const api = yield* ApiClient
      const asked: Array<number> = []
      const verdicts = yield* fetchKeyPackages(ids).pipe(
        Effect.provideService(ApiClient, {
          ...api,
          fetchKeyPackages: (some) => {
            asked.push(some.length)
            return some.some((id) => id === ids[4])
              ? new ApiClientError({ operation: "fetchKeyPackages", reason: "InvalidRequest" })
              : api.fetchKeyPackages(some)
          }
        })
      )
      expect(World.tags(verdicts)).toEqual(ids.map((_, index) => (index === 4 ? "Unreachable" : "Usable")))
      expect(asked).toEqual([7, 4, 3, 2, 1, 1, 1])
    })
  )

  inWorld("a node that answers nothing but nonsense is asked 99 times at most", () =>
    Effect.gen(function* () {
      const ids = Arr.makeBy(limits.keyPackagesPerRequest, (index) =>
        InstallationId.InstallationId.make(index.toString(16).padStart(64, "0"))
      )
      const faults = yield* Faults.Faults
      yield* faults.setRule(always("fetchKeyPackages", Faults.WrongAnswer.Undecodable()))
      expect(new Set(World.tags(yield* fetchKeyPackages(ids)))).toEqual(new Set(["Unreachable"]))
      expect(yield* faults.callsOf("fetchKeyPackages")).toHaveLength(99)
    })
  )

  inWorld("one package in every place is its owner's alone", () =>
    Effect.gen(function* () {
      const [alice, bob] = yield* Effect.all([World.newPeer, World.newPeer])
      const faults = yield* Faults.Faults
      yield* faults.enqueue(
        "fetchKeyPackages",
        Faults.wrongAnswer(Faults.WrongAnswer.KeyPackage({ keyPackage: bob.keyPackage.bytes }))
      )
      expect(World.tags(yield* fetchKeyPackages([alice.id, bob.id]))).toEqual(["OtherInstallation", "Usable"])
    })
  )

  inWorld("a failed request for packages makes its ids unreachable, and says whether to ask again", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const faults = yield* Faults.Faults
      yield* faults.enqueue("fetchKeyPackages", Faults.failBeforeSend())
      const reason = World.reasonOf((yield* fetchKeyPackages([alice.id]))[0])
      expect(reason._tag).toBe("Unreachable")
      expect(isRetryable(reason)).toBe(true)
    })
  )
})

describe("fetchKeyPackagesForInbox", () => {
  inWorld("judges every installation of the inbox now", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const second = yield* World.addInstallation(alice)
      const third = yield* World.addInstallation(alice)
      yield* World.serve(second.installationId, (yield* World.packageOf(alice.inboxId, second)).bytes)
      yield* World.revoke(alice, third.installationId)
      const verdicts = yield* fetchKeyPackagesForInbox(alice.inboxId)
      const byId = new Map(verdicts.map((verdict) => [verdict.installationId, verdict._tag]))
      expect(byId).toEqual(
        new Map([
          [alice.id, "Usable"],
          [second.installationId, "Usable"]
        ])
      )
    })
  )

  inWorld("an installation whose package names another inbox of its own is not this inbox's", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const other = yield* World.newInbox
      yield* World.serve(alice.id, (yield* World.packageOf(other.inboxId, alice.first)).bytes)
      const [verdict] = yield* fetchKeyPackagesForInbox(alice.inboxId)
      expect(World.reasonOf(verdict)).toMatchObject({ expected: alice.inboxId, actual: other.inboxId })
    })
  )

  inWorld("an inbox without a log is an error", () =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(fetchKeyPackagesForInbox(keyPackageFixtures.inboxId))
      expect(error.reason._tag).toBe("UnknownInbox")
      expect(error.isRetryable).toBe(false)
    })
  )
})

describe("recheck", () => {
  inWorld("a package expires between fetch and use", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const verdict = World.usable((yield* fetchKeyPackages([alice.id]))[0])
      const at = (seconds: bigint) => DateTime.unsafeMake(Number(seconds) * 1000)
      const { notAfter, notBefore } = verdict.keyPackage.lifetime
      expect(recheck(verdict, at(notAfter - 1n))).toBe(verdict)
      const late = recheck(verdict, at(notAfter))
      expect(World.reasonOf(late)).toMatchObject({ error: { _tag: "KeyPackageExpired" } })
      expect(late.judgedAt).toEqual(at(notAfter))
      expect(World.reasonOf(recheck(verdict, at(notBefore - 1n)))).toMatchObject({
        error: { _tag: "KeyPackageNotYetValid" }
      })
    })
  )

  inWorld("[37] a package that expires while the log is read is not usable", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const now = BigInt(DateTime.toEpochMillis(World.START)) / 1000n
      yield* World.serve(
        alice.id,
        crafted(alice.inboxId, alice.first, (fields) => ({
          ...fields,
          leafNode: { ...fields.leafNode, source: { _tag: "KeyPackage", notBefore: now - 1n, notAfter: now + 5n } }
        }))
      )
      yield* (yield* Faults.Faults).enqueue("getIdentityUpdates", Faults.delay("10 seconds"))
      const fiber = yield* Effect.fork(fetchKeyPackages([alice.id]))
      yield* World.untilPending("getIdentityUpdates")
      yield* TestClock.adjust("10 seconds")
      expect(World.reasonOf((yield* Fiber.join(fiber))[0])).toMatchObject({ error: { _tag: "KeyPackageExpired" } })
    })
  )
})

describe("findings", () => {
  inWorld("[32] an older package than the newest seen is reported, and usable", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      yield* TestClock.adjust("1 hour")
      const newer = yield* World.packageOf(alice.inboxId, alice.first)
      yield* World.serve(alice.id, newer.bytes)
      expect(World.usable((yield* fetchKeyPackages([alice.id]))[0]).findings).toEqual([])
      yield* World.serve(alice.id, alice.keyPackage.bytes)
      const replayed = World.usable((yield* fetchKeyPackages([alice.id]))[0])
      expect(replayed.findings).toEqual([
        {
          _tag: "OlderThanSeen",
          seen: newer.ref,
          seenNotBefore: newer.lifetime.notBefore,
          notBefore: alice.keyPackage.lifetime.notBefore
        }
      ])
      // Seeing the older one again does not make it the newest.
      expect(World.usable((yield* fetchKeyPackages([alice.id]))[0]).findings).toHaveLength(1)
    })
  )

  inWorld("a package of the profile breaks no policy; without policies nothing is reported", () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const pq = yield* World.newPeer
      yield* World.serve(pq.id, (yield* World.packageOf(pq.inboxId, pq.first, true)).bytes)
      const verdicts = yield* fetchKeyPackages([alice.id, pq.id], { policies: Policies.all })
      expect(verdicts.map((verdict) => World.usable(verdict).findings)).toEqual([[], []])
    })
  )

  const breaches: ReadonlyArray<
    readonly [string, (fields: typeof keyPackageFixtures.baseline) => typeof keyPackageFixtures.baseline, string]
  > = [
    [
      "maximumLifetime",
      (fields) => ({
        ...fields,
        leafNode: { ...fields.leafNode, source: { _tag: "KeyPackage", notBefore: 0n, notAfter: 2n ** 64n - 1n } }
      }),
      "LifetimeRangeTooLong"
    ],
    [
      "capabilityClosure",
      (fields) => ({
        ...fields,
        leafNode: { ...fields.leafNode, capabilities: { ...fields.leafNode.capabilities, cipherSuites: [1] } }
      }),
      "CiphersuiteNotInCapabilities"
    ],
    ["kemKeyForm", (fields) => ({ ...fields, initKey: new Uint8Array(32) }), "init_key: small order"],
    ["kemKeyForm", (fields) => ({ ...fields, initKey: new Uint8Array(31).fill(9) }), "init_key: 31 bytes"],
    [
      "kemKeyForm",
      (fields) => ({
        ...fields,
        leafNode: { ...fields.leafNode, encryptionKey: Uint8Array.from([1, ...new Uint8Array(31)]) }
      }),
      "encryption_key: small order"
    ],
    [
      "kemKeyForm",
      (fields) => ({
        ...fields,
        extensions: [
          ...fields.extensions.filter(({ type }) => type !== Profile.ExtensionType.welcomeWrapperEncryption),
          { type: Profile.ExtensionType.welcomeWrapperEncryption, data: Uint8Array.of(0x0a, 1, 7, 0x10, 2) }
        ]
      }),
      "X-Wing key: 1 bytes"
    ],
    [
      "lastResort",
      (fields) => ({
        ...fields,
        extensions: fields.extensions.filter(({ type }) => type !== Profile.ExtensionType.lastResort)
      }),
      "MissingLastResort"
    ]
  ]
  for (const [policy, edit, detail] of breaches) {
    inWorld(`[35] [36] [41] [42] [44] ${policy} reports "${detail}", and only when asked`, () =>
      Effect.gen(function* () {
        const alice = yield* World.newPeer
        yield* World.serve(alice.id, crafted(alice.inboxId, alice.first, edit))
        expect(World.usable((yield* fetchKeyPackages([alice.id]))[0]).findings).toEqual([])
        const [strict] = yield* fetchKeyPackages([alice.id], { policies: Policies.all })
        expect(World.usable(strict).findings).toEqual([
          { _tag: "PolicyViolated", policy, detail: expect.stringContaining(detail) }
        ])
      })
    )
  }
})

describe("hostile bytes", () => {
  const SEED = 20261123

  inWorld(`[45] [47] a few thousand mutants of a package: a verdict for each (seed ${SEED})`, () =>
    Effect.gen(function* () {
      const alice = yield* World.newPeer
      const bytes = (yield* World.packageOf(alice.inboxId, alice.first, true)).bytes
      const mutants = FastCheck.sample(
        FastCheck.record({
          flips: FastCheck.array(
            FastCheck.tuple(FastCheck.nat(bytes.length - 1), FastCheck.integer({ min: 1, max: 255 })),
            { minLength: 1, maxLength: 4 }
          ),
          length: FastCheck.oneof(
            { weight: 3, arbitrary: FastCheck.constant(bytes.length) },
            { weight: 1, arbitrary: FastCheck.nat(bytes.length) }
          )
        }),
        { seed: SEED, numRuns: 3_000 }
      ).map(({ flips, length }) => {
        const mutant = bytes.slice(0, length)
        for (const [at, mask] of flips) if (at < length) mutant[at] = (mutant[at] ?? 0) ^ mask
        return mutant
      })
      const same = (mutant: Uint8Array) => Buffer.compare(mutant, bytes) === 0
      const ids = mutants.map((_, index) =>
        InstallationId.fromPublicKey(new Uint8Array(32).map((__, at) => (index >> (8 * at)) & 0xff))
      )
      yield* Effect.forEach(mutants, (mutant, index) => {
        const id = ids[index]
        return id === undefined || mutant.length === 0 || same(mutant) ? Effect.void : World.serve(id, mutant)
      })
      const verdicts = yield* fetchKeyPackages(ids)
      expect(verdicts).toHaveLength(mutants.length)
      const counted = Arr.groupBy(verdicts, (verdict: Verdict) =>
        verdict._tag === "Usable" ? "Usable" : verdict.reason._tag
      )
      // Whatever was changed is signed, so nothing is valid any more.
      expect(new Set(Object.keys(counted))).toEqual(new Set(["InvalidKeyPackage", "Missing"]))
      expect(counted["InvalidKeyPackage"]?.length).toBeGreaterThan(2_900)
      expect(Either.isRight(Codec.decode(bytes))).toBe(true)
    })
  )
})

describe("properties", () => {
  const SEED = 20261123
  const cases = FastCheck.sample(
    FastCheck.record({
      served: FastCheck.array(FastCheck.option(FastCheck.nat(3)), { minLength: 4, maxLength: 4 }),
      asked: FastCheck.array(FastCheck.nat(3), { maxLength: 8 })
    }),
    { seed: SEED, numRuns: 60 }
  )

  inWorld(`an installation is usable exactly if its package is anywhere in the answer (seed ${SEED})`, () =>
    Effect.gen(function* () {
      const peers = yield* Effect.replicateEffect(World.newPeer, 4)
      const { keyPackages } = yield* NodeState
      for (const { asked, served } of cases) {
        for (const [place, { id }] of peers.entries()) {
          const peer = peers[served[place] ?? -1]
          yield* peer === undefined
            ? keyPackages.remove(InstallationId.toPublicKey(id))
            : World.serve(id, peer.keyPackage.bytes)
        }
        const verdicts = yield* fetchKeyPackages(asked.flatMap((place) => peers[place]?.id ?? []))
        const expected = asked.map((place) =>
          asked.some((other) => served[other] === place)
            ? "Usable"
            : served[place] === null
              ? "Missing"
              : "OtherInstallation"
        )
        expect({ asked, served, tags: World.tags(verdicts) }).toEqual({ asked, served, tags: expected })
      }
    })
  )
})
