/** From a wallet to a member, and what happens when it stops on the way: [5], [10], [19], [56], [61], [70]. */
import { describe, expect, it } from "@effect/vitest"
import * as AssociationState from "@keyward/core/identity/AssociationState"
import * as FastCurveBackend from "@keyward/core/identity/FastCurveBackend"
import * as IdentityLog from "@keyward/core/identity/IdentityLog"
import * as IdentityUpdate from "@keyward/core/identity/IdentityUpdate"
import * as InboxId from "@keyward/core/identity/InboxId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import * as MemberIdentifier from "@keyward/core/identity/MemberIdentifier"
import * as RegistrationUpdate from "@keyward/core/identity/RegistrationUpdate"
import * as SignatureText from "@keyward/core/identity/SignatureText"
import { validateKeyPackage } from "@keyward/core/keypackage/Validation"
import { revokeInstallations } from "@keyward/core/lifecycle/IdentityOperations"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { Signer, SignerError } from "@keyward/core/ports/Signer"
import * as Status from "@keyward/test-utils/devnode/GrpcStatus"
import * as Faults from "@keyward/test-utils/Faults"
import { MemoryKeyPackageStore } from "@keyward/test-utils/MemoryKeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as TestClock from "effect/TestClock"
import { type Wallet, wallet } from "../identity/fixtures.ts"
import * as TestApp from "./TestApp.ts"

const alice = wallet("11".repeat(32))
const mallory = wallet("22".repeat(32))

const signerOf = ({ identifier, sign }: Wallet, delay: "0 seconds" | "10 seconds" = "0 seconds") => ({
  identifier,
  signText: (text: string) =>
    Effect.delay(
      Effect.sync(() => sign(text)),
      delay
    )
})

const register = (options: { readonly label?: string; readonly includePostQuantum?: boolean } = {}) =>
  registerInstallation({ includePostQuantum: true, ...options })

const neverSigns = { identifier: alice.identifier, signText: () => Effect.dieMessage("the wallet was asked") }

const asAlice = Effect.provideService(Signer, signerOf(alice))

/** The members of an inbox by the node's own log. */
const members = (inboxId: InboxId.InboxId) =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const [log = []] = yield* api.getIdentityUpdates([{ inboxId, after: 0n }])
    if (log.length === 0) return []
    return AssociationState.installationIds(yield* IdentityLog.resolve(log.map((entry) => entry.update)))
  })

/** Adds an installation that is not ours to alice's inbox, as another device of hers would. */
const addElsewhere = (inboxId: InboxId.InboxId) =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const [log = []] = yield* api.getIdentityUpdates([{ inboxId, after: 0n }])
    const installationKey = yield* InstallationKey.generate
    const common = {
      owner: alice.identifier,
      installationKey,
      clientTimestampNs: BigInt(log.length + 1) * 1_000_000_000n
    }
    const request =
      log.length === 0 ? RegistrationUpdate.createInbox(common) : RegistrationUpdate.joinInbox({ ...common, inboxId })
    const update = yield* RegistrationUpdate.complete(request, alice.sign(request.text))
    yield* api.publishIdentityUpdate(update)
  })

describe("Registration", () => {
  it.effect("founds the inbox, publishes package and update in libxmtp's order, and is a member", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const installation = yield* TestApp.withTime(register().pipe(asAlice))
      expect(installation.registration._tag).toBe("Registered")
      expect(installation.inboxId).toBe(InboxId.derive(alice.identifier))
      expect(yield* members(installation.inboxId)).toEqual([installation.installationId])
      const api = yield* ApiClient
      const [served] = yield* api.fetchKeyPackages([installation.installationId])
      expect(served && Option.isSome(served)).toBe(true)
      const order = (yield* faults.calls).map((call) => call.method).slice(0, 5)
      expect(order).toEqual([
        "getInboxIds",
        "getIdentityUpdates",
        "uploadKeyPackage",
        "publishIdentityUpdate",
        "getIdentityUpdates"
      ])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("is the same installation when asked again, without asking the wallet", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const first = yield* TestApp.withTime(register().pipe(asAlice))
      const second = yield* TestApp.withTime(
        register().pipe(
          Effect.provideService(Signer, {
            identifier: alice.identifier,
            signText: () => new SignerError({ reason: "Refused" })
          })
        )
      )
      expect(second).toEqual(first)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("joins an inbox that exists, and another label is another installation", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const inboxId = InboxId.derive(alice.identifier)
      yield* addElsewhere(inboxId)
      const one = yield* TestApp.withTime(register({ label: "one" }).pipe(asAlice))
      yield* TestClock.adjust("1 minute")
      const two = yield* TestApp.withTime(register({ label: "two" }).pipe(asAlice))
      expect([one.inboxId, two.inboxId]).toEqual([inboxId, inboxId])
      const all = yield* members(inboxId)
      expect(all.length).toBe(3)
      expect(all).toEqual(expect.arrayContaining([one.installationId, two.installationId]))
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("refuses an 11th installation before the wallet is asked or anything is sent", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      for (let i = 0; i < 10; i++) yield* addElsewhere(InboxId.derive(alice.identifier))
      yield* faults.clearCalls
      let asked = 0
      const error = yield* Effect.flip(
        register().pipe(
          Effect.provideService(Signer, {
            identifier: alice.identifier,
            signText: (text) => Effect.sync(() => (asked++, alice.sign(text)))
          })
        )
      )
      expect(error).toMatchObject({ _tag: "RegistrationError", reason: "TooManyInstallations" })
      expect(asked).toBe(0)
      const store = yield* KeyPackageStore
      expect(yield* store.getInstallations(InboxId.derive(alice.identifier))).toEqual([])
      expect((yield* faults.calls).map((call) => call.method)).toEqual(["getInboxIds", "getIdentityUpdates"])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("a wallet that refuses spends nothing and leaves the store as it was; the next call registers", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const faults = yield* Faults.Faults
      const refusal = yield* Effect.flip(
        register().pipe(
          Effect.provideService(Signer, {
            identifier: alice.identifier,
            signText: () => new SignerError({ reason: "Refused" })
          })
        )
      )
      expect(refusal).toMatchObject({ _tag: "SignerError", reason: "Refused" })
      expect((yield* faults.callsOf("uploadKeyPackage")).length).toBe(0)
      expect(yield* store.getInstallations(InboxId.derive(alice.identifier))).toEqual([])
      const registered = yield* TestApp.withTime(register().pipe(asAlice))
      expect(registered.registration._tag).toBe("Registered")
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("a wallet that signs something else, or is another one, is named; nothing is published", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      for (const signText of [(text: string) => mallory.sign(text), (text: string) => alice.sign(`${text} and more`)]) {
        const error = yield* Effect.flip(
          register().pipe(
            Effect.provideService(Signer, {
              identifier: alice.identifier,
              signText: (text) => Effect.sync(() => signText(text))
            })
          )
        )
        expect(error).toMatchObject({ _tag: "SignatureRequestError", reason: "WrongSigner" })
      }
      expect((yield* faults.callsOf("uploadKeyPackage")).length).toBe(0)
      expect((yield* faults.callsOf("publishIdentityUpdate")).length).toBe(0)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  const methods = ["getInboxIds", "getIdentityUpdates", "uploadKeyPackage", "publishIdentityUpdate"] as const
  for (const method of methods) {
    for (const stage of ["beforeSend", "afterAccept"] as const) {
      it.effect(`[10] resumes with the same installation and bytes after ${method} failed ${stage}`, () =>
        Effect.gen(function* () {
          yield* TestApp.start
          const faults = yield* Faults.Faults
          const refused = Faults.Fault.Fail({ stage, status: Status.invalidArgument("no") })
          yield* faults.enqueue(method, refused)
          yield* TestApp.withTime(Effect.either(register().pipe(asAlice)))
          const installation = yield* TestApp.withTime(register().pipe(asAlice))
          expect(installation.registration._tag).toBe("Registered")
          expect(yield* members(installation.inboxId)).toEqual([installation.installationId])
          const published = (yield* faults.callsOf("publishIdentityUpdate")).map(({ request }) =>
            Buffer.from(request).toString("hex")
          )
          expect(new Set(published).size).toBe(1)
        }).pipe(Effect.provide(TestApp.layer()))
      )
    }
  }

  const operations = [
    "findOrCreateInstallation",
    "getInstallationKey",
    "acquireLease",
    "saveIdentityUpdate",
    "insertKeyPackageHistory",
    "markExposed",
    "markKeyPackagesBeforeIdToBeDeleted",
    "markRegistered",
    "releaseLease"
  ] as const
  for (const operation of operations) {
    it.effect(`[10] [61] resumes after the store failed at ${operation}, and takes one slot`, () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const memory = yield* MemoryKeyPackageStore
        yield* memory.failNext(operation, "Full")
        yield* TestApp.withTime(Effect.either(register().pipe(asAlice)))
        yield* TestClock.adjust("10 minutes")
        const installation = yield* TestApp.withTime(register().pipe(asAlice))
        expect(installation.registration._tag).toBe("Registered")
        expect(yield* members(installation.inboxId)).toEqual([installation.installationId])
      }).pipe(Effect.provide(TestApp.layer()))
    )
  }

  it.effect("[70] two registrations at once over one store make one installation", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const slow = Effect.provideService(Signer, signerOf(alice, "10 seconds"))
      const first = yield* Effect.fork(Effect.either(register().pipe(slow)))
      const second = yield* Effect.fork(Effect.either(register().pipe(slow)))
      yield* TestClock.adjust("1 hour")
      const results = [yield* Fiber.join(first), yield* Fiber.join(second)]
      expect(results.some((result) => result._tag === "Right")).toBe(true)
      for (const result of results) {
        if (result._tag === "Left") expect(result.left).toMatchObject({ _tag: "LeaseError", reason: "Held" })
      }
      expect((yield* members(InboxId.derive(alice.identifier))).length).toBe(1)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("signs anew, as an addition, where somebody founded the inbox after the wallet had signed", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      yield* faults.enqueue("uploadKeyPackage", Faults.failBeforeSend(Status.invalidArgument("no")))
      yield* TestApp.withTime(Effect.either(register().pipe(asAlice)))
      yield* addElsewhere(InboxId.derive(alice.identifier))
      const installation = yield* TestApp.withTime(register().pipe(asAlice))
      expect((yield* members(installation.inboxId)).length).toBe(2)
      expect(yield* members(installation.inboxId)).toContain(installation.installationId)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("refuses an inbox whose log is full before the wallet is asked", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const inboxId = InboxId.derive(alice.identifier)
      yield* addElsewhere(inboxId)
      const api = yield* ApiClient
      const [founding = []] = yield* api.getIdentityUpdates([{ inboxId, after: 0n }])
      const log = [...founding]
      for (let i = 1n; log.length < 256; i++) {
        // Revoking who is no member changes nothing and takes a place.
        const unsigned: IdentityUpdate.UnsignedIdentityUpdate = {
          inboxId,
          clientTimestampNs: (1000n + i) * 1_000_000_000n,
          actions: [{ _tag: "RevokeAssociation", member: MemberIdentifier.installation("00".repeat(32)) }]
        }
        const recoverySignature = { _tag: "Erc191" as const, bytes: alice.sign(SignatureText.make(unsigned)) }
        const actions = [
          {
            _tag: "RevokeAssociation" as const,
            member: MemberIdentifier.installation("00".repeat(32)),
            recoverySignature
          }
        ]
        const update = IdentityUpdate.encode({ ...unsigned, actions })
        log.push({ sequenceId: 1000n + i, serverTimestampNs: 0n, update })
      }
      const error = yield* Effect.flip(register().pipe(Effect.provideService(Signer, neverSigns))).pipe(
        Effect.updateService(ApiClient, (real) => ({ ...real, getIdentityUpdates: () => Effect.succeed([log]) }))
      )
      expect(error).toMatchObject({ _tag: "RegistrationError", reason: "IdentityLogFull", inboxId })
    }).pipe(Effect.provide(Layer.merge(TestApp.layer(), FastCurveBackend.layer())))
  )

  it.effect("[56] an installation that was revoked before its registration was noted is not added again", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const memory = yield* MemoryKeyPackageStore
      const faults = yield* Faults.Faults
      yield* memory.failNext("markRegistered", "Full")
      yield* TestApp.withTime(Effect.either(register().pipe(asAlice)))
      const inboxId = InboxId.derive(alice.identifier)
      const installationIds = yield* members(inboxId)
      yield* TestApp.withTime(revokeInstallations({ inboxId, installationIds }).pipe(asAlice))
      yield* faults.clearCalls
      const error = yield* Effect.flip(register().pipe(Effect.provideService(Signer, neverSigns)))
      expect(error).toMatchObject({ _tag: "RegistrationError", reason: "InstallationRevoked" })
      expect(yield* members(inboxId)).toEqual([])
      expect((yield* faults.callsOf("publishIdentityUpdate")).length).toBe(0)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("signs nothing for an inbox that the node names and shows no log of", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const other = InboxId.derive(alice.identifier, 7n)
      const error = yield* Effect.flip(register().pipe(Effect.provideService(Signer, neverSigns))).pipe(
        Effect.updateService(ApiClient, (api) => ({ ...api, getInboxIds: () => Effect.succeed([Option.some(other)]) }))
      )
      expect(error).toMatchObject({ _tag: "RegistrationError", reason: "InboxNotVisible", inboxId: other })
      expect(yield* store.getInstallations(other)).toEqual([])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("is not registered while the log does not show it: a node that accepts and forgets", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const error = yield* TestApp.withTime(
        Effect.flip(register().pipe(asAlice)).pipe(
          Effect.updateService(ApiClient, (api) => ({ ...api, publishIdentityUpdate: () => Effect.void }))
        )
      )
      expect(error).toMatchObject({ _tag: "RegistrationError", reason: "NotVisible", isRetryable: true })
      const [installation] = yield* store.getInstallations(InboxId.derive(alice.identifier))
      expect(installation?.registration._tag).toBe("Signed")
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[5] believes the log where every answer to the publication is lost", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      yield* faults.setRule(({ method }) =>
        method === "publishIdentityUpdate" ? Option.some(Faults.failAfterAccept()) : Option.none()
      )
      const installation = yield* TestApp.withTime(register().pipe(asAlice))
      expect(installation.registration._tag).toBe("Registered")
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("[19] a registration that is resumed after its package expired publishes a new one", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const api = yield* ApiClient
      yield* faults.enqueue("publishIdentityUpdate", Faults.failBeforeSend(Status.invalidArgument("no")))
      yield* TestApp.withTime(Effect.either(register().pipe(asAlice)))
      yield* TestClock.adjust("100 days")
      const { installationId } = yield* TestApp.withTime(register().pipe(asAlice))
      const [served] = yield* api.fetchKeyPackages([installationId])
      const bytes = Option.getOrThrow(Option.flatten(Option.fromNullable(served)))
      const valid = yield* validateKeyPackage(bytes, yield* DateTime.now)
      expect(valid.installationId).toBe(installationId)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect(
    "[60] the last registration's wish for a kind of package counts, whatever earlier ones have left behind",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const faults = yield* Faults.Faults
        const store = yield* KeyPackageStore
        const away = (...methods: ReadonlyArray<string>) =>
          faults.setRule(({ method }) =>
            methods.includes(method) ? Option.some(Faults.failBeforeSend(Status.unavailable("away"))) : Option.none()
          )
        const attempt = (includePostQuantum: boolean) =>
          asAlice(TestApp.withTime(register({ includePostQuantum }), "10 minutes"))
        yield* away("publishIdentityUpdate")
        yield* Effect.flip(attempt(false))
        yield* away("publishIdentityUpdate", "uploadKeyPackage")
        yield* Effect.flip(attempt(true))
        yield* faults.clear
        const { installationId } = yield* attempt(false)
        const rows = yield* store.getHistory(installationId)
        const newest = rows.findLast(({ _tag }) => _tag === "Published")
        expect(newest?.historyId).toBe(3)
        const found = yield* store.getInstallation(installationId)
        const wanted = Option.flatMap(found, ({ schedule }) => schedule.wanted)
        expect(Option.getOrThrow(wanted).includePostQuantum).toBe(false)
      }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("has time for every attempt of every step, more than one lease together", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const hangs = Array.from({ length: 5 }, () => Faults.hang())
      yield* faults.enqueue("uploadKeyPackage", ...hangs)
      yield* faults.enqueue("publishIdentityUpdate", ...hangs)
      const installation = yield* TestApp.withTime(register().pipe(asAlice))
      expect(installation.registration._tag).toBe("Registered")
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("asks nobody once it is done: an app starts without a network", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const first = yield* TestApp.withTime(register().pipe(asAlice))
      yield* faults.clearCalls
      yield* faults.setRule(() => Option.some(Faults.drop()))
      expect(yield* register().pipe(Effect.provideService(Signer, neverSigns))).toEqual(first)
      expect(yield* faults.calls).toEqual([])
    }).pipe(Effect.provide(TestApp.layer()))
  )
})
