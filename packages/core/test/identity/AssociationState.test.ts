import { describe, expect, it } from "@effect/vitest"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import {
  type AssociationState,
  applyAll,
  getMember,
  isMember,
  type VerifiedAction,
  type VerifiedUpdate
} from "../../src/identity/AssociationState.ts"
import { deriveVerbatim } from "../../src/identity/InboxId.ts"
import type { EthereumMember, MemberIdentifier } from "../../src/identity/MemberIdentifier.ts"
import type { SignatureKind, VerifiedSignature } from "../../src/identity/signature/VerifiedSignature.ts"

// The rules alone: signatures are given as verified, so that each rule is met with nothing else in the way.

const wallet = (digit: string): EthereumMember => ({ _tag: "Ethereum", address: `0x${digit.repeat(40)}` })
const app = (digits: string): MemberIdentifier => ({ _tag: "Installation", publicKey: digits.repeat(32) })
const [alice, bob, carol] = [wallet("a"), wallet("b"), wallet("c")]
const inboxId = Option.getOrThrow(deriveVerbatim(alice, 0n))

let signatures = 0
const by = (
  signer: MemberIdentifier,
  kind: SignatureKind = signer._tag === "Installation" ? "installation-key" : "erc-191",
  chainId?: bigint
): VerifiedSignature => ({ signer, kind, replayKey: `${signatures++}`, chainId })

const found = (initial = by(alice), nonce = 0n): VerifiedAction => ({
  unsigned: { _tag: "CreateInbox", owner: alice, nonce },
  initial
})
const add = (newMember: MemberIdentifier, existing: VerifiedSignature, added = by(newMember)): VerifiedAction => ({
  unsigned: { _tag: "AddAssociation", newMember },
  existing,
  new: added
})
const revoke = (member: MemberIdentifier, recovery = by(alice)): VerifiedAction => ({
  unsigned: { _tag: "RevokeAssociation", member },
  recovery
})
const recoverBy = (newRecoveryIdentifier: EthereumMember, recovery = by(alice)): VerifiedAction => ({
  unsigned: { _tag: "ChangeRecoveryIdentifier", newRecoveryIdentifier },
  recovery
})

const update = (...actions: ReadonlyArray<VerifiedAction>): VerifiedUpdate => ({
  inboxId,
  clientTimestampNs: 7n,
  actions
})
const apply = (...actions: ReadonlyArray<VerifiedAction>) =>
  applyAll(
    undefined,
    actions.map((each) => update(each))
  )
const reason = (result: Either.Either<AssociationState, { readonly reason: string }>) =>
  Either.match(result, { onLeft: (error) => error.reason, onRight: () => "accepted" })

describe("a recovery identifier that is no member", () => {
  it("adds with a signature of its own, and not by a delegated key", () => {
    const revoked = [found(), revoke(alice)]
    expect(reason(apply(...revoked, add(app("01"), by(alice))))).toBe("accepted")
    expect(reason(apply(...revoked, add(app("01"), by(alice, "legacy-delegated"))))).toBe("LegacySignatureReuse")
  })

  it("is the parent of what it adds, and its revocation takes that along", () => {
    const state = Either.getOrThrow(apply(found(), revoke(alice), add(app("01"), by(alice))))
    expect(getMember(state, app("01"))).toMatchObject(
      Option.some({ addedBy: alice, clientTimestampNs: 7n, addedOnChainId: undefined })
    )
    expect(isMember(Either.getOrThrow(applyAll(state, [update(revoke(alice))])), app("01"))).toBe(false)
  })
})

describe("delegated signatures", () => {
  const legacy = (signer: MemberIdentifier) => by(signer, "legacy-delegated")

  it("found and add where the inbox is the adder's with nonce 0", () => {
    expect(reason(apply(found(legacy(alice)), add(app("01"), legacy(alice))))).toBe("accepted")
    expect(reason(apply(found(legacy(alice), 1n)))).toBe("LegacySignatureReuse")
    expect(reason(apply(found(), add(bob, by(alice)), add(app("01"), legacy(bob))))).toBe("LegacySignatureReuse")
  })

  it("of a new member are not looked at when an installation adds it", () => {
    expect(reason(apply(found(), add(app("01"), by(alice)), add(bob, by(app("01")), legacy(bob))))).toBe("accepted")
  })

  it("neither revoke nor change the recovery identifier", () => {
    expect(reason(apply(found(), revoke(bob, legacy(alice))))).toBe("SignatureNotAllowed")
    expect(reason(apply(found(), recoverBy(bob, legacy(alice))))).toBe("SignatureNotAllowed")
  })
})

describe("chains", () => {
  const onChain = (signer: MemberIdentifier, chain: bigint) => by(signer, "erc-1271", chain)

  it("of a member never change, whatever it signs", () => {
    const member = [found(onChain(alice, 1n)), add(bob, onChain(alice, 1n), onChain(bob, 5n))]
    expect(reason(apply(...member, add(app("01"), onChain(bob, 5n))))).toBe("accepted")
    expect(reason(apply(...member, add(app("01"), onChain(bob, 6n))))).toBe("ChainIdMismatch")
    expect(reason(apply(...member, add(app("01"), by(bob))))).toBe("ChainIdMismatch")
    expect(reason(apply(...member, revoke(bob, onChain(alice, 2n))))).toBe("ChainIdMismatch")
    expect(reason(apply(...member, recoverBy(bob, onChain(alice, 2n))))).toBe("ChainIdMismatch")
  })

  it("are read before the signer's right: a member that may not revoke fails by its chain first", () => {
    expect(reason(apply(found(), add(bob, by(alice), onChain(bob, 5n)), revoke(alice, onChain(bob, 6n))))).toBe(
      "ChainIdMismatch"
    )
  })
})

describe("signatures of the wrong kind", () => {
  it("are refused for each role", () => {
    expect(reason(apply(found(by(alice, "p256"))))).toBe("SignatureNotAllowed")
    expect(reason(apply(found(), add(bob, by(alice), by(bob, "installation-key"))))).toBe("SignatureNotAllowed")
    expect(reason(apply(found(), add(bob, by(alice, "p256"))))).toBe("SignatureNotAllowed")
  })
})

describe("replay", () => {
  it("is judged against earlier updates, for both signatures of an addition", () => {
    const [existing, added] = [by(alice), by(app("01"))]
    const first = [found(), add(app("01"), existing, added)]
    expect(reason(apply(...first, add(app("02"), existing)))).toBe("Replay")
    expect(reason(apply(...first, add(app("01"), by(alice), added)))).toBe("Replay")
    expect(reason(apply(...first, revoke(app("01"), existing)))).toBe("Replay")
  })

  it("is not judged within one update", () => {
    const signature = by(alice)
    const together = update(found(signature), add(app("01"), signature), revoke(app("01"), signature))
    const state = Either.getOrThrow(applyAll(undefined, [together]))
    expect(state.members.size).toBe(1)
    expect(reason(applyAll(state, [update(revoke(bob, signature))]))).toBe("Replay")
  })
})

describe("order of the checks of an addition", () => {
  it("is libxmtp's: replay, new signer, self, delegation, new kind, membership, existing kind, installations", () => {
    const seen = by(carol)
    const state = Either.getOrThrow(applyAll(undefined, [update(found(), add(carol, by(alice), seen))]))
    const judge = (action: VerifiedAction) => reason(applyAll(state, [update(action)]))
    expect(judge(add(bob, by(bob), seen))).toBe("Replay")
    expect(judge(add(bob, by(carol), by(carol)))).toBe("NewMemberIdSignatureMismatch")
    expect(judge(add(bob, by(bob), by(bob, "legacy-delegated")))).toBe("AddSelf")
    expect(judge(add(bob, by(wallet("d")), by(bob, "legacy-delegated")))).toBe("LegacySignatureReuse")
    expect(judge(add(bob, by(wallet("d")), by(bob, "p256")))).toBe("SignatureNotAllowed")
    expect(judge(add(app("02"), by(app("03"))))).toBe("MissingExistingMember")
  })
})

describe("all or nothing", () => {
  it("a failing update leaves the state before it as it was, and names itself and its action", () => {
    const state = Either.getOrThrow(apply(found()))
    const before = structuredClone({ ...state })
    const result = applyAll(state, [update(add(bob, by(alice))), update(add(carol, by(alice)), revoke(bob, by(bob)))])
    expect(Either.getOrThrow(Either.flip(result))).toMatchObject({
      reason: "MissingExistingMember",
      updateIndex: 1,
      actionIndex: 1
    })
    expect(state).toEqual(before)
  })
})
