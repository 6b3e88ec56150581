/**
 * Random identity logs, made by this library: most of them right, the others wrong in one of many ways.
 */

import type { AssociationState } from "@keyward/core/identity/AssociationState"
import * as IdentityLog from "@keyward/core/identity/IdentityLog"
import * as IdentityUpdate from "@keyward/core/identity/IdentityUpdate"
import { deriveVerbatim } from "@keyward/core/identity/InboxId"
import * as MemberIdentifier from "@keyward/core/identity/MemberIdentifier"
import * as SignatureText from "@keyward/core/identity/SignatureText"
import type { Signature } from "@keyward/core/identity/signature/Signature"
import type { SmartContractWalletVerifier } from "@keyward/core/ports/SmartContractWalletVerifier"
import * as Mutation from "@keyward/test-utils/Mutation"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import { type Actor, cast, withHighS } from "./Actors.ts"

/** What may be wrong with a log. */
export const flaws = [
  "wrong signer",
  "other text",
  "wrong inbox id",
  "signature of an earlier update",
  "update twice",
  "update twice, signed in another spelling",
  "other chain",
  "flipped bit",
  "mutated bytes",
  "missing update",
  "swapped updates"
] as const

/** One of `flaws`. */
export type Flaw = (typeof flaws)[number]

/** A log to be judged. */
export interface RandomLog {
  /** Under which inbox the node serves it: 64 hex digits. */
  readonly inboxId: string
  readonly updates: ReadonlyArray<Uint8Array>
  /** What was done to it; a log without a flaw may still break a rule, and one with a flaw may keep all. */
  readonly flaw: Flaw | undefined
}

interface Signed {
  readonly unsigned: IdentityUpdate.UnsignedAction
  readonly authority: Actor
  readonly added: Actor | undefined
}

const isRoot = (actor: Actor): boolean => actor.member._tag !== "Installation"

const rootOf = ({ member }: Actor): MemberIdentifier.RootIdentifier =>
  member._tag === "Installation" ? { _tag: "Ethereum", address: `0x${"00".repeat(20)}` } : member

/** An actor who is a member now, or any. */
const aMember = (next: Mutation.Next, actors: ReadonlyArray<Actor>, state: AssociationState | undefined): Actor => {
  const members = actors.filter(({ member }) => state?.members.has(MemberIdentifier.toKey(member)) === true)
  return members.length > 0 && next(30) > 0 ? Mutation.pick(next, members) : Mutation.pick(next, actors)
}

/** One whom the adder may add; at times anybody. */
const aNewMember = (next: Mutation.Next, actors: ReadonlyArray<Actor>, adder: Actor): Actor => {
  const mayAddInstallations = isRoot(adder) || next(6) === 0
  const fit = actors.filter(
    (actor) => !MemberIdentifier.equals(actor.member, adder.member) && (mayAddInstallations || isRoot(actor))
  )
  const usual = fit.filter((actor) => actor.member._tag !== "Ethereum" || next(3) > 0)
  return next(40) === 0 || usual.length === 0 ? Mutation.pick(next, actors) : Mutation.pick(next, usual)
}

/** Whoever may revoke, as far as somebody here is it. */
const recoveryOf = (next: Mutation.Next, actors: ReadonlyArray<Actor>, state: AssociationState | undefined): Actor => {
  const able = actors.filter(
    ({ member }) => state !== undefined && MemberIdentifier.equals(member, state.recoveryIdentifier)
  )
  return able.length > 0 && next(30) > 0 ? Mutation.pick(next, able) : aMember(next, actors, state)
}

/** A name in a log that nobody checks. */
const strangeRoot = (next: Mutation.Next, actors: ReadonlyArray<Actor>): MemberIdentifier.RootIdentifier => {
  const identifier = rootOf(Mutation.pick(next, actors.filter(isRoot)))
  switch (next(8)) {
    case 0:
      return { _tag: "Ethereum", address: MemberIdentifier.toText(identifier).toUpperCase() }
    case 1:
      return { _tag: "Ethereum", address: Mutation.pick(next, ["", "not an\n- address", "\u00e4\ud83d\ude00", "0x12"]) }
    default:
      return identifier
  }
}

const action = (next: Mutation.Next, actors: ReadonlyArray<Actor>, state: AssociationState | undefined): Signed => {
  const kind = next(100)
  if (kind < 1) {
    const authority = Mutation.pick(next, actors.filter(isRoot))
    return {
      unsigned: { _tag: "CreateInbox", owner: rootOf(authority), nonce: BigInt(next(3)) },
      authority,
      added: undefined
    }
  }
  if (kind < 65) {
    const authority = next(10) === 0 ? recoveryOf(next, actors, state) : aMember(next, actors, state)
    const added = aNewMember(next, actors, authority)
    return { unsigned: { _tag: "AddAssociation", newMember: added.member }, authority, added }
  }
  const authority = recoveryOf(next, actors, state)
  if (kind < 88) {
    const strange: MemberIdentifier.MemberIdentifier =
      next(2) === 0 ? MemberIdentifier.installation("0102") : strangeRoot(next, actors)
    const member = next(6) === 0 ? strange : aMember(next, actors, state).member
    return { unsigned: { _tag: "RevokeAssociation", member }, authority, added: undefined }
  }
  const newRecoveryIdentifier = strangeRoot(next, actors)
  return { unsigned: { _tag: "ChangeRecoveryIdentifier", newRecoveryIdentifier }, authority, added: undefined }
}

const founding = (next: Mutation.Next, actors: ReadonlyArray<Actor>): ReadonlyArray<Signed> => {
  const authority = Mutation.pick(next, actors.filter(isRoot))
  const nonce = Mutation.pick(next, [0n, 0n, 1n, 1n, 7n, 2n ** 64n - 1n])
  const create: Signed = {
    unsigned: { _tag: "CreateInbox", owner: rootOf(authority), nonce },
    authority,
    added: undefined
  }
  const added = aNewMember(next, actors, authority)
  const add: Signed = { unsigned: { _tag: "AddAssociation", newMember: added.member }, authority, added }
  return next(4) > 0 ? [create, add] : [create]
}

const timestamp = (next: Mutation.Next, index: number): bigint =>
  next(8) === 0
    ? Mutation.pick(next, [0n, 999_999_999n, 2n ** 63n - 1n, 2n ** 63n, 2n ** 64n - 1n, BigInt(next(2 ** 31)) << 32n])
    : 1_795_420_932_000_000_000n + BigInt(index * 61 + next(60)) * 1_000_000_000n + BigInt(next(1_000_000_000))

const complete = ({ added, authority, unsigned }: Signed, sign: (by: Actor) => Signature): IdentityUpdate.Action => {
  switch (unsigned._tag) {
    case "CreateInbox":
      return { ...unsigned, initialSignature: sign(authority) }
    case "AddAssociation":
      return { ...unsigned, existingMemberSignature: sign(authority), newMemberSignature: sign(added ?? authority) }
    case "RevokeAssociation":
    case "ChangeRecoveryIdentifier":
      return { ...unsigned, recoverySignature: sign(authority) }
  }
}

/** A wallet's signature of the same signer in other bytes: the high s is no other signature to the log, another v is. */
const respelled = (next: Mutation.Next, signature: Signature): Signature => {
  if (signature._tag !== "Erc191") return signature
  const { bytes } = signature
  if (next(2) === 0) return { ...signature, bytes: withHighS(bytes) }
  return {
    ...signature,
    bytes: bytes.map((byte, index) => (index === 64 && byte >= 27 && byte <= 28 ? byte - 27 : byte))
  }
}

const flipped = (next: Mutation.Next, bytes: Uint8Array): Uint8Array => {
  const at = next(bytes.length)
  const bit = 1 << next(8)
  return bytes.map((byte, index) => (index === at ? byte ^ bit : byte))
}

/** The log that this generator makes. */
export const make = (next: Mutation.Next): Effect.Effect<RandomLog, never, SmartContractWalletVerifier> =>
  Effect.gen(function* () {
    const actors = cast(next)
    const flaw = next(2) === 0 ? undefined : Mutation.pick(next, flaws)
    const count = 1 + next(6)
    // Rather late than early: what follows the founding has more rules.
    const flawed = Math.max(next(count), next(count))
    const updates: Array<Uint8Array> = []
    const signatures: Array<Signature> = []
    let state: AssociationState | undefined
    let inboxId = "00".repeat(32)

    for (let index = 0; index < count; index++) {
      const isFlawed = (kind: Flaw): boolean => flaw === kind && index === flawed
      const actions =
        index === 0
          ? founding(next, actors)
          : Array.from({ length: next(25) === 0 ? 0 : 1 + (next(3) === 0 ? next(3) : 0) }, () =>
              action(next, actors, state)
            )
      const [first] = actions
      if (index === 0 && first?.unsigned._tag === "CreateInbox") {
        inboxId = Option.getOrElse(deriveVerbatim(first.unsigned.owner, first.unsigned.nonce), () => inboxId)
      }
      const unsigned = {
        inboxId: isFlawed("wrong inbox id")
          ? Mutation.pick(next, [inboxId.toUpperCase(), "", "11".repeat(32), `${inboxId} `])
          : inboxId,
        clientTimestampNs: timestamp(next, index),
        actions: actions.map((each) => each.unsigned)
      }
      const text = SignatureText.make(unsigned)
      // One wallet often signs once for several actions.
      const shared = new Map<Actor, Signature>()
      const sign = (by: Actor): Signature => {
        const known = shared.get(by)
        if (known !== undefined && next(4) > 0) return known
        const other = isFlawed("wrong signer") && next(2) === 0 ? Mutation.pick(next, actors) : by
        const chained = other.sign(isFlawed("other text") && next(2) === 0 ? `${text} ` : text, next)
        const signature: Signature =
          isFlawed("other chain") && chained._tag === "SmartContractWallet"
            ? {
                ...chained,
                accountId: { ...chained.accountId, chainId: Mutation.pick(next, ["eip155:10", "cosmos:x"]) }
              }
            : isFlawed("signature of an earlier update") && signatures.length > 0 && next(2) === 0
              ? Mutation.pick(next, signatures)
              : chained
        shared.set(by, signature)
        return signature
      }
      const signed = actions.map((each) => complete(each, sign))
      signatures.push(...shared.values())
      const bytes = IdentityUpdate.encode({ ...unsigned, actions: signed })
      updates.push(
        isFlawed("mutated bytes")
          ? Mutation.mutate(next, bytes, updates[0] ?? bytes)
          : isFlawed("flipped bit")
            ? flipped(next, bytes)
            : bytes
      )
      if (isFlawed("update twice")) updates.push(bytes)
      if (isFlawed("update twice, signed in another spelling")) {
        updates.push(
          IdentityUpdate.encode({
            ...unsigned,
            actions: actions.map((each) => complete(each, (by) => respelled(next, sign(by))))
          })
        )
      }

      const after: Either.Either<AssociationState, unknown> = yield* Effect.either(
        state === undefined ? IdentityLog.resolve(updates) : IdentityLog.extend(state, [bytes])
      )
      if (Either.isRight(after)) state = after.right
      // A broken log says nothing more, whatever follows; at times something does.
      else if (next(4) > 0) break
    }
    if (flaw === "missing update") updates.splice(next(updates.length), updates.length > 1 ? 1 : 0)
    if (flaw === "swapped updates") {
      const at = next(updates.length)
      updates.push(...updates.splice(at, 1))
    }
    return { inboxId, updates, flaw }
  })
