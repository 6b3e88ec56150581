/** Requests of every operation: captured ones rebuilt byte for byte, what is signed by whom, and what is never handed out. */
import { describe, expect, it } from "@effect/vitest"
import * as VectorWallets from "@keyward/test-utils/VectorWallets"
import { sessionClients, sessionLogs } from "@keyward/test-utils/vectors/IdentityVectors"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as AssociationState from "../../src/identity/AssociationState.ts"
import * as IdentityLog from "../../src/identity/IdentityLog.ts"
import * as IdentityUpdate from "../../src/identity/IdentityUpdate.ts"
import { InboxId } from "../../src/identity/InboxId.ts"
import * as MemberIdentifier from "../../src/identity/MemberIdentifier.ts"
import * as RegistrationUpdate from "../../src/identity/RegistrationUpdate.ts"
import * as SignatureRequest from "../../src/identity/SignatureRequest.ts"
import type { Signature } from "../../src/identity/signature/Signature.ts"
import { eip191Hash } from "../../src/identity/signature/SignedText.ts"
import { SignerError } from "../../src/ports/Signer.ts"
import { layerNone, SmartContractWalletVerifier } from "../../src/ports/SmartContractWalletVerifier.ts"
import { hex, installationKey, signerOf, toHex, type Wallet, wallet } from "./fixtures.ts"

const alice1 = sessionClients.find(({ name }) => name === "alice1") ?? expect.fail("no alice1")
const alice = wallet(alice1.walletPrivateKey)
const aliceKey = installationKey(alice1.installationSeed)
const aliceLog = (sessionLogs.find(({ inboxId }) => inboxId === alice1.inboxId) ?? expect.fail("no log")).entries.map(
  ({ identityUpdate }) => hex(identityUpdate)
)

/** The captured update at this place of alice's log: its bytes, its one action, and the inbox before it. */
const captured = (index: number) =>
  Effect.gen(function* () {
    const bytes = aliceLog[index] ?? expect.fail(`no update ${index}`)
    const { actions, clientTimestampNs } = Either.getOrThrow(IdentityUpdate.decode(bytes))
    const state = yield* IdentityLog.resolve(aliceLog.slice(0, index))
    const [action] = actions
    const base = { inboxId: InboxId.make(alice1.inboxId), clientTimestampNs, state }
    return { bytes, base, action: action ?? expect.fail("no action") }
  })

describe("captured operations are rebuilt byte for byte", () => {
  it.effect("alice's installation adds a second wallet", () =>
    Effect.gen(function* () {
      const { action, base, bytes } = yield* captured(2)
      if (action._tag !== "AddAssociation") return expect.fail(action._tag)
      const request = SignatureRequest.addMember({
        ...base,
        existingMember: MemberIdentifier.installation(alice1.installationId),
        newMember: action.newMember
      })
      // The installation signs here; the second wallet's signature is the captured one.
      const byKey = yield* SignatureRequest.signWithInstallationKey(request, aliceKey)
      const signed = yield* SignatureRequest.complete(request, [action.newMemberSignature, byKey])
      expect(toHex(signed.bytes)).toBe(toHex(bytes))
    }).pipe(Effect.provide(layerNone))
  )

  it.effect("alice revokes her second installation", () =>
    Effect.gen(function* () {
      const { action, base, bytes } = yield* captured(3)
      if (action._tag !== "RevokeAssociation") return expect.fail(action._tag)
      const request = SignatureRequest.revokeMembers({
        ...base,
        recoveryIdentifier: alice.identifier,
        members: [action.member]
      })
      const signed = yield* SignatureRequest.sign(request, [signerOf(alice)])
      expect(toHex(signed.bytes)).toBe(toHex(bytes))
    }).pipe(Effect.provide(layerNone))
  )

  it.effect("alice hands on the right to revoke", () =>
    Effect.gen(function* () {
      const { action, base, bytes } = yield* captured(4)
      if (action._tag !== "ChangeRecoveryIdentifier") return expect.fail(action._tag)
      const request = SignatureRequest.changeRecoveryIdentifier({
        ...base,
        recoveryIdentifier: alice.identifier,
        newRecoveryIdentifier: action.newRecoveryIdentifier
      })
      const signed = yield* SignatureRequest.sign(request, [signerOf(alice)])
      expect(toHex(signed.bytes)).toBe(toHex(bytes))
    }).pipe(Effect.provide(layerNone))
  )
})

const owner = wallet("71".repeat(32))
const second = wallet("72".repeat(32))
const stranger = wallet("73".repeat(32))
const ownerKey = installationKey("74".repeat(32))
const at = (second: number) => 1_795_420_932_000_000_000n + BigInt(second) * 1_000_000_000n

const founding = RegistrationUpdate.createInbox({
  owner: owner.identifier,
  installationKey: ownerKey,
  clientTimestampNs: at(0)
})
const founded = Effect.gen(function* () {
  const bytes = yield* RegistrationUpdate.complete(founding, owner.sign(founding.text))
  return { bytes, state: yield* IdentityLog.resolve([bytes]), inboxId: founding.inboxId }
})

/** A wallet that counts how often it is asked. */
const counting = (by: Wallet) => {
  const signer = { ...signerOf(by), asked: 0 }
  return Object.assign(signer, {
    signText: (text: string) =>
      Effect.sync(() => {
        signer.asked++
        return by.sign(text)
      })
  })
}

describe("a request", () => {
  it.effect("of several revocations is one text, signed once, with every line", () =>
    Effect.gen(function* () {
      const { bytes, inboxId, state } = yield* founded
      const signer = counting(owner)
      const request = SignatureRequest.revokeMembers({
        inboxId,
        clientTimestampNs: at(1),
        state,
        recoveryIdentifier: owner.identifier,
        members: [MemberIdentifier.installation(ownerKey.installationId), second.identifier]
      })
      expect(request.text.match(/^- .*$/gm)).toEqual([
        "- Revoke messaging access from app",
        "- Unlink address from inbox"
      ])
      const signed = yield* SignatureRequest.sign(request, [signer])
      expect(signer.asked).toBe(1)
      const after = yield* IdentityLog.resolve([bytes, signed.bytes])
      expect(AssociationState.installationIds(after)).toEqual([])
      expect(AssociationState.hasApplied(after, signed.verified)).toBe(true)
      expect(AssociationState.hasApplied(state, signed.verified)).toBe(false)
    }).pipe(Effect.provide(layerNone))
  )

  it.effect("takes signatures in any order, and names who has not signed", () =>
    Effect.gen(function* () {
      const { inboxId, state } = yield* founded
      const request = SignatureRequest.addMember({
        inboxId,
        clientTimestampNs: at(1),
        state,
        existingMember: owner.identifier,
        newMember: second.identifier
      })
      const by = ({ sign }: Wallet): Signature => ({ _tag: "Erc191", bytes: sign(request.text) })
      const one = yield* SignatureRequest.complete(request, [by(owner), by(second)])
      const other = yield* SignatureRequest.complete(request, [by(second), by(owner)])
      expect(toHex(one.bytes)).toBe(toHex(other.bytes))
      const missing = yield* Effect.flip(SignatureRequest.complete(request, [by(owner)]))
      expect(missing).toMatchObject({ reason: "MissingSigner", expected: MemberIdentifier.toText(second.identifier) })
      const wrong = yield* Effect.flip(SignatureRequest.complete(request, [by(owner), by(stranger)]))
      expect(wrong).toMatchObject({ reason: "WrongSigner", recovered: MemberIdentifier.toText(stranger.identifier) })
    }).pipe(Effect.provide(layerNone))
  )

  it.effect(
    "that the log would refuse asks nobody: no member, one's own addition, an installation for an installation",
    () =>
      Effect.gen(function* () {
        const { inboxId, state } = yield* founded
        const base = { inboxId, clientTimestampNs: at(1), state }
        const key = installationKey("75".repeat(32))
        const [asOwner, asSecond, asStranger] = [counting(owner), counting(second), counting(stranger)]
        const refused = [
          [
            SignatureRequest.addMember({
              ...base,
              existingMember: stranger.identifier,
              newMember: second.identifier
            }),
            [asStranger, asSecond],
            "MissingExistingMember"
          ],
          [
            SignatureRequest.addMember({ ...base, existingMember: owner.identifier, newMember: owner.identifier }),
            [asOwner],
            "AddSelf"
          ],
          [
            SignatureRequest.addMember({
              ...base,
              existingMember: MemberIdentifier.installation(ownerKey.installationId),
              newMember: MemberIdentifier.installation(key.installationId)
            }),
            [ownerKey, key],
            "MemberNotAllowed"
          ],
          [
            SignatureRequest.changeRecoveryIdentifier({
              ...base,
              recoveryIdentifier: second.identifier,
              newRecoveryIdentifier: stranger.identifier
            }),
            [asSecond],
            "MissingExistingMember"
          ]
        ] as const
        for (const [request, parties, detail] of refused) {
          const error = yield* Effect.flip(SignatureRequest.sign(request, parties))
          expect(error).toMatchObject({ _tag: "SignatureRequestError", reason: "NotAllowed", detail })
        }
        const missing = yield* Effect.flip(SignatureRequest.sign(refused[0][0], [asStranger]))
        expect(missing).toMatchObject({ reason: "MissingSigner" })
        expect([asOwner.asked, asSecond.asked, asStranger.asked]).toEqual([0, 0, 0])
      }).pipe(Effect.provide(layerNone))
  )

  it.effect("signed again within its second is a replay, seen before it is handed out", () =>
    Effect.gen(function* () {
      const { bytes, inboxId } = yield* founded
      const revoke = (state: AssociationState.AssociationState) =>
        SignatureRequest.sign(
          SignatureRequest.revokeMembers({
            inboxId,
            clientTimestampNs: at(1),
            state,
            recoveryIdentifier: owner.identifier,
            members: [second.identifier]
          }),
          [signerOf(owner)]
        )
      const first = yield* revoke(yield* IdentityLog.resolve([bytes]))
      const again = yield* Effect.flip(revoke(yield* IdentityLog.resolve([bytes, first.bytes])))
      expect(again).toMatchObject({ reason: "NotAllowed", detail: "Replay" })
    }).pipe(Effect.provide(layerNone))
  )

  it.effect("is not completed by a passkey's answer to something else than its assertion", () =>
    Effect.gen(function* () {
      const { inboxId } = yield* founded
      const passkey = { _tag: "Passkey", publicKey: `02${"11".repeat(32)}` } as const
      const request = SignatureRequest.addMember({
        inboxId,
        clientTimestampNs: at(1),
        existingMember: owner.identifier,
        newMember: passkey
      })
      const error = yield* Effect.flip(
        SignatureRequest.sign(request, [signerOf(owner), { ...signerOf(second), identifier: passkey }])
      )
      expect(error).toMatchObject({ reason: "MissingSigner", expected: passkey.publicKey })
    }).pipe(Effect.provide(layerNone))
  )
})

describe("a smart contract wallet", () => {
  const address = `0x${"5c".repeat(20)}`
  const contract = (chainId: bigint) => ({
    identifier: { _tag: "Ethereum", address } as Wallet["identifier"],
    signText: (text: string) =>
      Effect.succeed(
        VectorWallets.sign(
          { chainId: `eip155:${chainId}`, address },
          eip191Hash(new TextEncoder().encode(text)),
          hex("01")
        )
      ),
    smartContractWallet: { chainId, blockNumber: Effect.succeed(123n) }
  })
  const add = (state: AssociationState.AssociationState, inboxId: InboxId, second: number) =>
    SignatureRequest.addMember({
      inboxId,
      clientTimestampNs: at(second),
      state,
      existingMember: owner.identifier,
      newMember: { _tag: "Ethereum", address }
    })

  it.effect("signs with its account and block, becomes a member of its chain, and may act on that chain alone", () =>
    Effect.gen(function* () {
      const { bytes, inboxId, state } = yield* founded
      const added = yield* SignatureRequest.sign(add(state, inboxId, 1), [signerOf(owner), contract(8453n)])
      const after = yield* IdentityLog.resolve([bytes, added.bytes])
      expect(after.members.get(`Ethereum:${address}`)?.addedOnChainId).toBe(8453n)
      const [action] = Either.getOrThrow(IdentityUpdate.decode(added.bytes)).actions
      expect(action?._tag === "AddAssociation" && action.newMemberSignature).toMatchObject({
        _tag: "SmartContractWallet",
        accountId: { chainId: "eip155:8453", address },
        blockNumber: 123n
      })
      const adding = SignatureRequest.addMember({
        inboxId,
        clientTimestampNs: at(2),
        state: after,
        existingMember: { _tag: "Ethereum", address },
        newMember: second.identifier
      })
      yield* SignatureRequest.sign(adding, [contract(8453n), signerOf(second)])
      const moved = counting(second)
      const error = yield* Effect.flip(SignatureRequest.sign(adding, [contract(1n), moved]))
      expect(error).toMatchObject({ reason: "NotAllowed", detail: "ChainIdMismatch" })
      expect(moved.asked).toBe(0)
    }).pipe(Effect.provide(VectorWallets.layer))
  )

  it.effect("that cannot be asked is no invalid signature; one that says no is", () =>
    Effect.gen(function* () {
      const { inboxId, state } = yield* Effect.provide(founded, layerNone)
      const request = add(state, inboxId, 1)
      const parties = [signerOf(owner), contract(8453n)]
      const unreachable = yield* Effect.flip(Effect.provide(SignatureRequest.sign(request, parties), layerNone))
      expect(unreachable).toMatchObject({ reason: "VerifierUnavailable", isRetryable: true })
      const no = yield* Effect.flip(
        Effect.provideService(SignatureRequest.sign(request, parties), SmartContractWalletVerifier, {
          isValid: () => Effect.succeed(false)
        })
      )
      expect(no).toMatchObject({ reason: "InvalidSignature", isRetryable: false })
    })
  )

  it.effect("whose block is not known has not signed", () =>
    Effect.gen(function* () {
      const { inboxId, state } = yield* founded
      const { smartContractWallet, ...rest } = contract(1n)
      const blockNumber = new SignerError({ reason: "Unavailable" })
      const error = yield* Effect.flip(
        SignatureRequest.sign(add(state, inboxId, 1), [
          signerOf(owner),
          { ...rest, smartContractWallet: { ...smartContractWallet, blockNumber } }
        ])
      )
      expect(error).toMatchObject({ _tag: "SignerError", reason: "Unavailable" })
    }).pipe(Effect.provide(VectorWallets.layer))
  )
})
