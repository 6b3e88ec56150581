/** Every verdict about what the network serves, and what `explain` says of it. */
import { describe, expect, it } from "@effect/vitest"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import { explain } from "@keyward/core/lifecycle/Explanation"
import { revokeInstallations } from "@keyward/core/lifecycle/IdentityOperations"
import * as Reachability from "@keyward/core/lifecycle/Reachability"
import * as Registration from "@keyward/core/lifecycle/Registration"
import { queueKeyRotation, rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { Signer } from "@keyward/core/ports/Signer"
import * as NodeState from "@keyward/test-utils/devnode/NodeState"
import * as Faults from "@keyward/test-utils/Faults"
import { MemoryKeyPackageStore } from "@keyward/test-utils/MemoryKeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as TestClock from "effect/TestClock"
import * as Ids from "../../src/identity/InstallationId.ts"
import { signerOf, wallet as walletOf } from "../identity/fixtures.ts"
import * as App from "./SchedulerApp.ts"
import * as TestApp from "./TestApp.ts"

const rotate = (installationId: InstallationId) =>
  TestApp.withTime(rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }))

/** A look, and what it means. */
const verdictOf = (id: InstallationId) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const installation = Option.getOrThrow(yield* store.getInstallation(id))
    const ledger = yield* store.getLedger(id)
    const observation = yield* TestApp.withTime(Reachability.look(installation, ledger))
    return { observation, verdict: Reachability.judge(installation, ledger, observation) }
  })

/** The network serves these bytes, judged by nobody. */
const serve = (id: InstallationId, bytes: Uint8Array | undefined) =>
  Effect.flatMap(NodeState.NodeState, ({ keyPackages }) =>
    bytes === undefined ? keyPackages.remove(Ids.toPublicKey(id)) : keyPackages.put(Ids.toPublicKey(id), bytes)
  )

/** The verdict, what is said of it first, and what helps. */
const expectVerdict = (id: InstallationId, tag: Reachability.Reachability["_tag"], remedy: string, words: RegExp) =>
  Effect.gen(function* () {
    const { verdict } = yield* verdictOf(id)
    expect(verdict._tag).toBe(tag)
    const told = yield* TestApp.withTime(explain(id))
    expect(Option.map(told.reachability, (each) => each._tag)).toEqual(Option.some(tag))
    expect([told.remedy, told.sentences[0]]).toEqual([remedy, expect.stringMatching(words)])
    return verdict
  })

const rowsOf = (id: InstallationId) =>
  Effect.map(App.history(id), (rows) => ({ first: rows[0], newest: rows.at(-1), rows }))

describe("Reachability", () => {
  it.effect("Reachable: the newest package is served and its keys are here; says until when", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      const verdict = yield* expectVerdict(
        id,
        "Reachable",
        "Nothing",
        /^Can be invited: .* key package 1, valid until 2027-02-1\d/
      )
      if (verdict._tag !== "Reachable") return expect.fail(verdict._tag)
      const newest = (yield* rowsOf(id)).newest
      expect(BigInt(DateTime.toEpochMillis(verdict.until)) / 1000n).toBe(newest?.keyPackage.lifetime.notAfter)
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[5] AcknowledgementMissing: what was sent is served, and nobody said so", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      yield* faults.setRule((call) =>
        call.method === "uploadKeyPackage" ? Option.some(Faults.failAfterAccept()) : Option.none()
      )
      yield* Effect.flip(rotate(id))
      yield* faults.clear
      yield* expectVerdict(
        id,
        "AcknowledgementMissing",
        "Wait",
        /^Can be invited: .* 2, whose acceptance never arrived/
      )
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect(
    "[28] AwaitingConfirmation: the package before is still served, or nothing yet, within its time; ServesOlder after it",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const id = yield* App.register()
        const { first } = yield* rowsOf(id)
        yield* rotate(id).pipe(App.withSettings({ confirmBy: "readBack" }))
        yield* serve(id, first?.keyPackage.bytes)
        expect(yield* App.states(id)).toEqual(["Published", "Published"])
        const store = yield* KeyPackageStore
        const now = yield* DateTime.now
        yield* store.modifySchedule(id, (known) => ({
          ...known,
          confirmation: Option.map(known.confirmation, (waiting) => ({
            ...waiting,
            until: DateTime.add(now, { hours: 1 })
          }))
        }))
        yield* expectVerdict(id, "AwaitingConfirmation", "Wait", /^Can be invited: .* still serves key package 1/)
        yield* serve(id, undefined)
        yield* expectVerdict(id, "AwaitingConfirmation", "Wait", /^Cannot be invited yet: .* does not serve it yet/)
        yield* serve(id, first?.keyPackage.bytes)
        yield* TestClock.adjust("1 hour")
        yield* expectVerdict(
          id,
          "ServesOlder",
          "SendAgain",
          /^Can be invited, but not with the newest: .* key package 1, whose keys are kept/
        )
      }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[25] ServesNothing: the network has lost it", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      yield* serve(id, undefined)
      yield* expectVerdict(id, "ServesNothing", "SendAgain", /^Cannot be invited: the network serves no key package/)
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[32] ServesErased: one whose keys are gone; says when and why they went", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      const { first } = yield* rowsOf(id)
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* App.startScheduler()
          yield* queueKeyRotation(id)
          yield* TestClock.adjust("2 days")
        })
      )
      expect(yield* App.states(id)).toEqual(["Published"])
      yield* serve(id, first?.keyPackage.bytes)
      yield* expectVerdict(
        id,
        "ServesErased",
        "SendAgain",
        /^Cannot be invited: .* key package 1, whose keys were erased on 2026-11-24T.* \(Superseded\)/
      )
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[65] ServesDamaged: one whose row cannot be read", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      const memory = yield* MemoryKeyPackageStore
      const { first } = yield* rowsOf(id)
      if (first === undefined) return expect.fail("no row")
      yield* memory.damage(first.historyId)
      const scheduler = yield* App.startScheduler()
      yield* TestApp.withTime(scheduler.probe(id))
      yield* serve(id, first.keyPackage.bytes)
      yield* expectVerdict(
        id,
        "ServesDamaged",
        "SendAgain",
        /^Cannot be invited: .* key package 1, whose row .* damaged/
      )
    }).pipe(Effect.scoped, Effect.provide(App.layer()))
  )

  for (const [title, make] of [
    ["another installation's package", (other: Uint8Array) => other],
    ["what is no package at all", () => new Uint8Array(40)]
  ] as const) {
    it.effect(`[31] ServesForeign: ${title}`, () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const id = yield* App.register()
        const other = yield* App.register({ owner: "22" })
        const { first } = yield* rowsOf(other)
        yield* serve(id, make(first?.keyPackage.bytes ?? new Uint8Array()))
        yield* expectVerdict(
          id,
          "ServesForeign",
          "SendAgain",
          title.startsWith("another") ? new RegExp(`the package of installation ${other}`) : /serves no key package: /
        )
      }).pipe(Effect.provide(App.layer()))
    )
  }

  it.effect("[19] [21] Expired: to the second, and before it began", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      const { first } = yield* rowsOf(id)
      if (first === undefined) return expect.fail("no row")
      const { notAfter, notBefore } = first.keyPackage.lifetime
      const store = yield* KeyPackageStore
      const installation = Option.getOrThrow(yield* store.getInstallation(id))
      const ledger = yield* store.getLedger(id)
      const { observation } = yield* verdictOf(id)
      const at = (seconds: bigint) => {
        const seenAt = DateTime.unsafeMake(Number(seconds) * 1000)
        return Reachability.judge(installation, ledger, { ...observation, seenAt })._tag
      }
      expect([at(notAfter - 1n), at(notAfter), at(notAfter + 1n)]).toEqual(["Reachable", "Expired", "Expired"])
      expect([at(notBefore - 1n), at(notBefore)]).toEqual(["Expired", "Reachable"])
      yield* TestClock.setTime(Number(notAfter) * 1000)
      yield* expectVerdict(id, "Expired", "Rotate", /^Cannot be invited: key package 1, .* is not valid now/)
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[66] KeysMissing: the row is here and its keys are not; keys that do not open are as good as none", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const id = yield* App.register()
      const memory = yield* MemoryKeyPackageStore
      yield* memory.failNext("getPrivateKeys", "Corrupt")
      expect((yield* verdictOf(id)).verdict._tag).toBe("KeysMissing")
      const { first } = yield* rowsOf(id)
      if (first === undefined) return expect.fail("no row")
      yield* memory.loseKeys(first.historyId)
      yield* expectVerdict(id, "KeysMissing", "Rotate", /^Cannot read invitations: the keys of key package 1/)
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect(
    "[69] DatabaseRestored: a package of ours that this store never made; [70] CloneSuspected: again, after one of ours",
    () =>
      Effect.gen(function* () {
        yield* TestApp.start
        const id = yield* App.register()
        const memory = yield* MemoryKeyPackageStore
        const store = yield* KeyPackageStore
        const old = yield* memory.snapshot
        yield* rotate(id)
        const { newest } = yield* rowsOf(id)
        yield* memory.restore(old)
        yield* expectVerdict(
          id,
          "DatabaseRestored",
          "Rotate",
          /^Cannot read invitations: .* restored from an older copy/
        )
        const seenAt = yield* DateTime.now
        yield* store.modifySchedule(id, (known) => ({ ...known, strangers: Option.some({ count: 1, seenAt }) }))
        // Seen, and nothing published since: the same one as before.
        expect((yield* verdictOf(id)).verdict._tag).toBe("DatabaseRestored")
        yield* TestClock.adjust("1 minute")
        yield* rotate(id)
        yield* serve(id, newest?.keyPackage.bytes)
        yield* expectVerdict(
          id,
          "CloneSuspected",
          "FindClone",
          /^Cannot read invitations: .*, once more, .* copy of this store/
        )
      }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[56] Revoked: whatever is served", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const store = yield* KeyPackageStore
      const id = yield* App.register()
      const { inboxId } = Option.getOrThrow(yield* store.getInstallation(id))
      yield* TestApp.withTime(revokeInstallations({ inboxId, installationIds: [id] })).pipe(
        Effect.provideService(Signer, signerOf(walletOf("11".repeat(32))))
      )
      yield* expectVerdict(id, "Revoked", "Register", /^Cannot be invited: the inbox has revoked/)
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[10] NotRegistered: a registration that broke off", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const store = yield* KeyPackageStore
      yield* faults.setRule((call) =>
        call.method === "publishIdentityUpdate" ? Option.some(Faults.failBeforeSend()) : Option.none()
      )
      const wallet = signerOf(walletOf("11".repeat(32)))
      yield* Effect.flip(TestApp.withTime(Registration.registerInstallation({ includePostQuantum: false }))).pipe(
        Effect.provideService(Signer, wallet)
      )
      yield* faults.clear
      const due = yield* store.findDue({ now: DateTime.unsafeMake("2100-01-01T00:00:00Z"), limit: 1 })
      const id = due[0]?.installationId
      if (id === undefined) return expect.fail("no installation")
      yield* expectVerdict(id, "NotRegistered", "Register", /^Cannot be invited: its registration was never finished/)
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("[50] a log that cannot be had says nothing of the membership, and what is served counts", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const id = yield* App.register()
      yield* faults.setRule((call) =>
        call.method === "getIdentityUpdates" ? Option.some(Faults.failBeforeSend()) : Option.none()
      )
      const { observation, verdict } = yield* verdictOf(id)
      expect([observation.membership, verdict._tag]).toEqual(["Unclear", "Reachable"])
    }).pipe(Effect.provide(App.layer()))
  )

  it.effect("a log that has not grown is not resolved again; the network's time is that of its newest entry", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const faults = yield* Faults.Faults
      const store = yield* KeyPackageStore
      const id = yield* App.register()
      const installation = Option.getOrThrow(yield* store.getInstallation(id))
      const ledger = yield* store.getLedger(id)
      const memory = Reachability.memory()
      const look = TestApp.withTime(Reachability.look(installation, ledger, memory))
      const first = yield* look
      expect(first.networkTimeAtLeast).toEqual(Option.some(TestApp.START))
      yield* faults.clearCalls
      const second = yield* look
      expect([second.membership, second.networkTimeAtLeast]).toEqual([first.membership, first.networkTimeAtLeast])
      expect((yield* faults.callsOf("getIdentityUpdates")).length).toBe(1)
    }).pipe(Effect.provide(App.layer()))
  )
})
