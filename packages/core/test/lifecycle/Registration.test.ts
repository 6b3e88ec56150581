/** From a wallet to a member, and what happens when it stops on the way: [10], [61], [70]. */
import { describe, expect, it } from "@effect/vitest"
import * as AssociationState from "@keyward/core/identity/AssociationState"
import * as IdentityLog from "@keyward/core/identity/IdentityLog"
import * as InboxId from "@keyward/core/identity/InboxId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import * as RegistrationUpdate from "@keyward/core/identity/RegistrationUpdate"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { Signer, SignerError } from "@keyward/core/ports/Signer"
import * as Status from "@keyward/test-utils/devnode/GrpcStatus"
import * as Faults from "@keyward/test-utils/Faults"
import { MemoryKeyPackageStore } from "@keyward/test-utils/MemoryKeyPackageStore"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
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
      expect((yield* faults.calls).map((call) => call.method)).toEqual(["getInboxIds", "getIdentityUpdates"])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("a wallet that refuses spends nothing, and the next call continues", () =>
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
      const [intended] = yield* store.getInstallations(InboxId.derive(alice.identifier))
      const registered = yield* TestApp.withTime(register().pipe(asAlice))
      expect(registered.installationId).toBe(intended?.installationId)
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
})
