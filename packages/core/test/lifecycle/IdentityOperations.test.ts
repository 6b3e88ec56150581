/** Operations on an inbox through the ports: what is signed, published and believed, and what is refused before it costs. */
import { describe, expect, it } from "@effect/vitest"
import * as AssociationState from "@keyward/core/identity/AssociationState"
import type { InboxId } from "@keyward/core/identity/InboxId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import * as RegistrationUpdate from "@keyward/core/identity/RegistrationUpdate"
import * as SignatureRequest from "@keyward/core/identity/SignatureRequest"
import * as IdentityOperations from "@keyward/core/lifecycle/IdentityOperations"
import * as InboxLog from "@keyward/core/lifecycle/InboxLog"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { Signer, SignerError } from "@keyward/core/ports/Signer"
import * as Status from "@keyward/test-utils/devnode/GrpcStatus"
import { NodeApi } from "@keyward/test-utils/devnode/NodeApi"
import { NodeState } from "@keyward/test-utils/devnode/NodeState"
import * as Faults from "@keyward/test-utils/Faults"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as TestClock from "effect/TestClock"
import { signerOf, type Wallet, wallet } from "../identity/fixtures.ts"
import * as TestApp from "./TestApp.ts"

const alice = wallet("11".repeat(32))
const second = wallet("22".repeat(32))
const mallory = wallet("33".repeat(32))

/** A wallet that must not be asked. */
const silent = ({ identifier }: Wallet) => ({
  identifier,
  signText: () => Effect.dieMessage("the wallet was asked to sign")
})

const as = (by: Wallet) => Effect.provideService(Signer, signerOf(by))
const asSilent = (by: Wallet) => Effect.provideService(Signer, silent(by))

const register = (by: Wallet, label = "default") =>
  registerInstallation({ includePostQuantum: false, label }).pipe(as(by), TestApp.withTime)

/** Alice's inbox with one installation, a minute ago. */
const start = Effect.gen(function* () {
  yield* TestApp.start
  const installation = yield* register(alice)
  yield* TestClock.adjust("1 minute")
  yield* Effect.flatMap(Faults.Faults, (faults) => faults.clearCalls)
  return installation
})

const published = Effect.flatMap(Faults.Faults, (faults) => faults.callsOf("publishIdentityUpdate"))

const refusal = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const error = yield* Effect.flip(effect)
    expect(yield* published).toEqual([])
    return error
  })

/** Fills an inbox's log up to this length, by updates that change nothing. */
const fillLog = (inboxId: InboxId, length: number) =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const node = yield* NodeState
    const [log = []] = yield* api.getIdentityUpdates([{ inboxId, after: 0n }])
    const { state } = yield* InboxLog.read(inboxId)
    // An update without actions is one that every client accepts.
    const empty = SignatureRequest.make({
      inboxId,
      authority: alice.identifier,
      actions: [],
      clientTimestampNs: 0n,
      state: Option.getOrUndefined(state)
    })
    const { bytes } = yield* SignatureRequest.complete(empty, [{ _tag: "Erc191", bytes: alice.sign(empty.text) }])
    for (let count = log.length; count < length; count++) yield* node.identity.append(inboxId, bytes)
  })

describe("adding a wallet", () => {
  it.effect("by a wallet that is a member: both sign, and it is one", () =>
    Effect.gen(function* () {
      const { inboxId } = yield* start
      const state = yield* IdentityOperations.addWallet({ inboxId, wallet: signerOf(second) }).pipe(as(alice))
      expect(AssociationState.isMember(state, second.identifier)).toBe(true)
      const api = yield* ApiClient
      expect(yield* api.getInboxIds([second.identifier])).toEqual([Option.some(inboxId)])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("by our installation: only the new wallet is asked", () =>
    Effect.gen(function* () {
      const { installationId } = yield* start
      const state = yield* IdentityOperations.addWalletByInstallation({ installationId, wallet: signerOf(second) })
      const added = Option.getOrThrow(AssociationState.getMember(state, second.identifier))
      expect(added.addedBy).toEqual({ _tag: "Installation", publicKey: installationId })
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("by an installation that the store does not hold is a Conflict", () =>
    Effect.gen(function* () {
      yield* start
      const { installationId } = yield* InstallationKey.generate
      const error = yield* refusal(
        IdentityOperations.addWalletByInstallation({ installationId, wallet: silent(second) })
      )
      expect(error).toMatchObject({ _tag: "StorageError", reason: "Conflict" })
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("that is a member asks nobody and publishes nothing", () =>
    Effect.gen(function* () {
      const { inboxId } = yield* start
      const state = yield* IdentityOperations.addWallet({ inboxId, wallet: silent(alice) }).pipe(asSilent(alice))
      expect(AssociationState.isMember(state, alice.identifier)).toBe(true)
      expect(yield* published).toEqual([])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("that has an inbox of its own is refused unless that is said to be wanted", () =>
    Effect.gen(function* () {
      const { inboxId } = yield* start
      const other = yield* register(second)
      yield* TestClock.adjust("1 minute")
      yield* Effect.flatMap(Faults.Faults, (faults) => faults.clearCalls)
      const error = yield* refusal(
        IdentityOperations.addWallet({ inboxId, wallet: silent(second) }).pipe(asSilent(alice))
      )
      expect(error).toMatchObject({ reason: "WalletInOtherInbox", detail: other.inboxId, isRetryable: false })
      yield* IdentityOperations.addWallet({ inboxId, wallet: signerOf(second), reassign: true }).pipe(as(alice))
      const api = yield* ApiClient
      expect(yield* api.getInboxIds([second.identifier])).toEqual([Option.some(inboxId)])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("by a stranger is refused before either is asked", () =>
    Effect.gen(function* () {
      const { inboxId } = yield* start
      const error = yield* refusal(
        IdentityOperations.addWallet({ inboxId, wallet: silent(second) }).pipe(asSilent(mallory))
      )
      expect(error).toMatchObject({ reason: "NotAllowed", detail: "MissingExistingMember" })
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("that refuses leaves the inbox as it was", () =>
    Effect.gen(function* () {
      const { inboxId } = yield* start
      const error = yield* refusal(
        IdentityOperations.addWallet({
          inboxId,
          wallet: { identifier: second.identifier, signText: () => new SignerError({ reason: "Refused" }) }
        }).pipe(as(alice))
      )
      expect(error).toMatchObject({ _tag: "SignerError", reason: "Refused" })
    }).pipe(Effect.provide(TestApp.layer()))
  )
})

describe("revoking", () => {
  it.effect("several installations is one signature and one update; the slot can be taken again", () =>
    Effect.gen(function* () {
      const first = yield* start
      const others = [yield* register(alice, "phone"), yield* register(alice, "laptop")]
      yield* TestClock.adjust("1 minute")
      yield* Effect.flatMap(Faults.Faults, (faults) => faults.clearCalls)
      const state = yield* IdentityOperations.revokeInstallations({
        inboxId: first.inboxId,
        installationIds: [...others, ...others].map(({ installationId }) => installationId)
      }).pipe(as(alice))
      expect(AssociationState.installationIds(state)).toEqual([first.installationId])
      expect((yield* published).length).toBe(1)
      // Again: nobody is left to revoke.
      yield* IdentityOperations.revokeInstallations({
        inboxId: first.inboxId,
        installationIds: others.map(({ installationId }) => installationId)
      }).pipe(asSilent(alice))
      expect((yield* published).length).toBe(1)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("a wallet takes the installations that it added with it", () =>
    Effect.gen(function* () {
      const { inboxId, installationId } = yield* start
      yield* IdentityOperations.addWallet({ inboxId, wallet: signerOf(second) }).pipe(as(alice))
      yield* TestClock.adjust("1 minute")
      yield* register(second, "of the second wallet")
      yield* TestClock.adjust("1 minute")
      const state = yield* IdentityOperations.revokeWallets({ inboxId, wallets: [second.identifier] }).pipe(as(alice))
      expect(AssociationState.installationIds(state)).toEqual([installationId])
      expect(AssociationState.rootIdentifiers(state)).toEqual([alice.identifier])
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("is refused to a member that is not the recovery identifier, before it is asked", () =>
    Effect.gen(function* () {
      const { inboxId, installationId } = yield* start
      yield* IdentityOperations.addWallet({ inboxId, wallet: signerOf(second) }).pipe(as(alice))
      yield* Effect.flatMap(Faults.Faults, (faults) => faults.clearCalls)
      const error = yield* refusal(
        IdentityOperations.revokeInstallations({ inboxId, installationIds: [installationId] }).pipe(asSilent(second))
      )
      expect(error).toMatchObject({ _tag: "IdentityOperationError", reason: "NotRecoveryIdentifier" })
    }).pipe(Effect.provide(TestApp.layer()))
  )
})

describe("changing the recovery identifier", () => {
  it.effect("hands on the right to revoke", () =>
    Effect.gen(function* () {
      const { inboxId, installationId } = yield* start
      const change = { inboxId, newRecoveryIdentifier: second.identifier }
      const state = yield* IdentityOperations.changeRecoveryIdentifier(change).pipe(as(alice))
      expect(state.recoveryIdentifier).toEqual(second.identifier)
      expect(yield* IdentityOperations.changeRecoveryIdentifier(change).pipe(asSilent(alice))).toEqual(state)

      const revoke = IdentityOperations.revokeInstallations({ inboxId, installationIds: [installationId] })
      expect(yield* Effect.flip(revoke.pipe(asSilent(alice)))).toMatchObject({ reason: "NotRecoveryIdentifier" })
      const after = yield* revoke.pipe(as(second))
      expect(AssociationState.installationIds(after)).toEqual([])
    }).pipe(Effect.provide(TestApp.layer()))
  )
})

describe("every operation", () => {
  it.effect("of an inbox that is not there, or whose log is full, is refused before anybody is asked", () =>
    Effect.gen(function* () {
      const { inboxId } = yield* start
      const change = (of: InboxId) =>
        IdentityOperations.changeRecoveryIdentifier({ inboxId: of, newRecoveryIdentifier: second.identifier })
      const nobody = RegistrationUpdate.createInbox({
        owner: mallory.identifier,
        installationKey: yield* InstallationKey.generate,
        clientTimestampNs: 0n
      }).inboxId
      expect(yield* refusal(change(nobody).pipe(asSilent(alice)))).toMatchObject({ reason: "InboxNotFound" })
      yield* fillLog(inboxId, InboxLog.MAX_IDENTITY_UPDATES)
      const full = yield* refusal(change(inboxId).pipe(asSilent(alice)))
      expect(full).toMatchObject({ reason: "IdentityLogFull", isRetryable: false })
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("takes the 256th place of the log", () =>
    Effect.gen(function* () {
      const { inboxId } = yield* start
      yield* fillLog(inboxId, InboxLog.MAX_IDENTITY_UPDATES - 1)
      const change = { inboxId, newRecoveryIdentifier: second.identifier }
      const state = yield* IdentityOperations.changeRecoveryIdentifier(change).pipe(as(alice))
      expect(state.recoveryIdentifier).toEqual(second.identifier)
    }).pipe(Effect.provide(TestApp.layer()))
  )

  for (const stage of ["beforeSend", "afterAccept"] as const) {
    it.effect(`believes the log where the answer is lost ${stage}`, () =>
      Effect.gen(function* () {
        const { inboxId } = yield* start
        const faults = yield* Faults.Faults
        const lost = Array.from({ length: 6 }, () => Faults.Fault.Drop({ stage }))
        yield* faults.enqueue("publishIdentityUpdate", ...lost)
        const change = { inboxId, newRecoveryIdentifier: second.identifier }
        const result = yield* IdentityOperations.changeRecoveryIdentifier(change).pipe(
          as(alice),
          Effect.either,
          TestApp.withTime
        )
        expect(result._tag).toBe(stage === "afterAccept" ? "Right" : "Left")
        const sent = (yield* published).map(({ request }) => Buffer.from(request).toString("hex"))
        expect(sent.length).toBeGreaterThan(1)
        expect(new Set(sent).size).toBe(1)
        if (result._tag === "Left") expect(result.left).toMatchObject({ _tag: "ApiClientError", isRetryable: true })
        // Calling again finds out.
        yield* TestClock.adjust("1 minute")
        yield* faults.clearCalls
        const again = yield* IdentityOperations.changeRecoveryIdentifier(change).pipe(as(alice), TestApp.withTime)
        expect(again.recoveryIdentifier).toEqual(second.identifier)
        expect((yield* published).length).toBe(stage === "afterAccept" ? 0 : 1)
      }).pipe(Effect.provide(TestApp.layer()))
    )
  }

  it.effect("that the node refuses gives the node's answer", () =>
    Effect.gen(function* () {
      const { inboxId } = yield* start
      const faults = yield* Faults.Faults
      yield* faults.enqueue(
        "publishIdentityUpdate",
        Faults.Fault.Fail({ stage: "beforeSend", status: Status.invalidArgument("no") })
      )
      const error = yield* IdentityOperations.changeRecoveryIdentifier({
        inboxId,
        newRecoveryIdentifier: second.identifier
      }).pipe(as(alice), Effect.flip)
      expect(error).toMatchObject({ _tag: "ApiClientError", reason: "InvalidRequest", detail: "no" })
    }).pipe(Effect.provide(TestApp.layer()))
  )

  it.effect("that was accepted and is not shown is NotVisible, and done when called again", () =>
    Effect.gen(function* () {
      const { inboxId } = yield* start
      const faults = yield* Faults.Faults
      const stale = Faults.Fault.Wrong({ answer: Faults.WrongAnswer.Bytes({ bytes: yield* readAnswer(inboxId) }) })
      const change = { inboxId, newRecoveryIdentifier: second.identifier }
      yield* faults.enqueue("getIdentityUpdates", ...Array.from({ length: 7 }, () => stale))
      const error = yield* IdentityOperations.changeRecoveryIdentifier(change).pipe(
        as(alice),
        Effect.flip,
        TestApp.withTime
      )
      expect(error).toMatchObject({ reason: "NotVisible", isRetryable: true })
      const state = yield* IdentityOperations.changeRecoveryIdentifier(change).pipe(asSilent(alice))
      expect(state.recoveryIdentifier).toEqual(second.identifier)
    }).pipe(Effect.provide(TestApp.layer()))
  )
})

/** What the node answers now to a question for this log, in bytes. */
const readAnswer = (inboxId: InboxId) =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const node = yield* NodeApi
    yield* api.getIdentityUpdates([{ inboxId, after: 0n }])
    const faults = yield* Faults.Faults
    const [call] = (yield* faults.callsOf("getIdentityUpdates")).slice(-1)
    const request = call?.request ?? new Uint8Array(0)
    return yield* node.call("/xmtp.identity.api.v1.IdentityApi/GetIdentityUpdates", request, "memory")
  })
