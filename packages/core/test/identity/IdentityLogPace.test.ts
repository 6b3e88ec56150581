/** A long log does not keep the event loop to itself, however its work is spread over updates and actions. */
import { describe, expect, it } from "@effect/vitest"
import * as IdentityLog from "@keyward/core/identity/IdentityLog"
import * as IdentityUpdate from "@keyward/core/identity/IdentityUpdate"
import * as InboxId from "@keyward/core/identity/InboxId"
import * as MemberIdentifier from "@keyward/core/identity/MemberIdentifier"
import * as SignatureText from "@keyward/core/identity/SignatureText"
import { layerNone, type SmartContractWalletVerifier } from "@keyward/core/ports/SmartContractWalletVerifier"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import { wallet } from "./fixtures.ts"

const alice = wallet("11".repeat(32))
const inboxId = InboxId.derive(alice.identifier, 0n)
const nobody = MemberIdentifier.installation("00".repeat(32))

/** Alice's inbox, and updates that revoke nobody many times over, under one signature each. */
const log = (updates: number, actionsEach: number): ReadonlyArray<Uint8Array> =>
  Array.from({ length: updates }, (_, index) => {
    const owner = alice.identifier
    const unsigned: ReadonlyArray<IdentityUpdate.UnsignedAction> =
      index === 0
        ? [{ _tag: "CreateInbox", owner, nonce: 0n }]
        : Array.from({ length: actionsEach }, () => ({ _tag: "RevokeAssociation" as const, member: nobody }))
    const update = { inboxId, clientTimestampNs: BigInt(index) * 1_000_000_000n, actions: unsigned }
    const signature = { _tag: "Erc191" as const, bytes: alice.sign(SignatureText.make(update)) }
    const actions = unsigned.map(
      (action): IdentityUpdate.Action =>
        action._tag === "CreateInbox"
          ? { ...action, initialSignature: signature }
          : { _tag: "RevokeAssociation", member: nobody, recoverySignature: signature }
    )
    return IdentityUpdate.encode({ ...update, actions })
  })

/** How often others came round while the log was resolved. */
const turnsWhile = (updates: ReadonlyArray<Uint8Array>) => turnsOf(IdentityLog.resolve(updates))

const turnsOf = <A, E>(resolve: Effect.Effect<A, E, SmartContractWalletVerifier>) =>
  Effect.gen(function* () {
    let turns = 0
    const others = yield* Effect.async<void>((resume) => {
      const handle = setImmediate(() => resume(Effect.sync(() => turns++)))
      return Effect.sync(() => clearImmediate(handle))
    }).pipe(Effect.forever, Effect.fork)
    yield* Effect.yieldNow()
    yield* Effect.exit(resolve)
    yield* Fiber.interrupt(others)
    return turns
  }).pipe(Effect.provide(layerNone))

describe("the pace of a long log", () => {
  it.live("many updates of few signatures each", () =>
    Effect.gen(function* () {
      expect(yield* turnsWhile(log(64, 1))).toBeGreaterThanOrEqual(2)
    })
  )

  it.live("one update of many actions under one signature", () =>
    Effect.gen(function* () {
      expect(yield* turnsWhile(log(2, 2_000))).toBeGreaterThanOrEqual(7)
    })
  )

  it.live("many updates of no signature at all, also among others", () =>
    Effect.gen(function* () {
      const [founding, nothing] = log(2, 0)
      if (founding === undefined || nothing === undefined) throw new Error("no log")
      const empty = (length: number) => ({ updates: [founding, ...Array.from({ length }, () => nothing)] })
      expect(yield* turnsWhile(empty(2_000).updates)).toBeGreaterThanOrEqual(15)
      const logs = Array.from({ length: 20 }, () => empty(100))
      // 16 of them at a time are decoded, and 16 verified.
      expect(yield* turnsOf(IdentityLog.resolveAll(logs, { concurrency: 4 }))).toBeGreaterThanOrEqual(240)
    })
  )
})
