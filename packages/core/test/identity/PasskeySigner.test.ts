/** A passkey as `Signer`: its assertions found inboxes and change them, and one that answers something else does not. */
import { describe, expect, it } from "@effect/vitest"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import { directedLogs } from "@keyward/test-utils/vectors/IdentityVectors"
import { p256 } from "@noble/curves/nist.js"
import { sha256 } from "@noble/hashes/sha2.js"
import { concatBytes, utf8ToBytes } from "@noble/hashes/utils.js"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as TestClock from "effect/TestClock"
import * as AssociationState from "../../src/identity/AssociationState.ts"
import * as IdentityLog from "../../src/identity/IdentityLog.ts"
import * as IdentityUpdate from "../../src/identity/IdentityUpdate.ts"
import { derive, InboxId } from "../../src/identity/InboxId.ts"
import * as MemberIdentifier from "../../src/identity/MemberIdentifier.ts"
import * as SignatureRequest from "../../src/identity/SignatureRequest.ts"
import * as IdentityOperations from "../../src/lifecycle/IdentityOperations.ts"
import { type PasskeyAssertion, type PasskeySigner, Signer, SignerError } from "../../src/ports/Signer.ts"
import { layerNone } from "../../src/ports/SmartContractWalletVerifier.ts"
import * as TestApp from "../lifecycle/TestApp.ts"
import { hex, signerOf, toHex, wallet } from "./fixtures.ts"

/** An authenticator with one key, as a browser answers for it; it can be made to answer another challenge. */
const authenticator = (privateKeyHex: string, otherwise: (challenge: Uint8Array) => Uint8Array = (it) => it) => {
  const privateKey = hex(privateKeyHex)
  const answer = (challenge: Uint8Array): PasskeyAssertion => {
    const clientDataJson = utf8ToBytes(
      JSON.stringify({
        type: "webauthn.get",
        challenge: Buffer.from(otherwise(challenge)).toString("base64url"),
        origin: "https://app.example",
        crossOrigin: false
      })
    )
    // The hash of the relying party, user present and verified, a counter.
    const authenticatorData = concatBytes(sha256(utf8ToBytes("app.example")), Uint8Array.of(0x05, 0, 0, 0, 7))
    const signature = p256.sign(concatBytes(authenticatorData, sha256(clientDataJson)), privateKey, {
      format: "der",
      lowS: false
    })
    return { signature, authenticatorData, clientDataJson }
  }
  const signer: PasskeySigner & { asked: number } = {
    asked: 0,
    identifier: { _tag: "Passkey", publicKey: toHex(p256.getPublicKey(privateKey, false)) },
    assert: (challenge: Uint8Array) => Effect.sync(() => (signer.asked++, answer(challenge)))
  }
  return signer
}

const owner = authenticator("71".repeat(32))
const other = authenticator("72".repeat(32))
const account = wallet("73".repeat(32))

describe("a passkey as Signer", () => {
  it.effect("founds an inbox, adds a wallet, adds and revokes installations, and hands on the right to revoke", () =>
    Effect.gen(function* () {
      yield* TestApp.start
      const register = (label: string) =>
        registerInstallation({ includePostQuantum: false, label }).pipe(TestApp.withTime)
      const first = yield* register("first")
      yield* TestClock.adjust("1 minute")
      const { inboxId } = first

      const added = yield* IdentityOperations.addWallet({ inboxId, wallet: signerOf(account) })
      expect(MemberIdentifier.equals(added.recoveryIdentifier, owner.identifier)).toBe(true)
      expect(AssociationState.isMember(added, owner.identifier)).toBe(true)
      expect(AssociationState.isMember(added, account.identifier)).toBe(true)
      // Another passkey: both are asked.
      const both = yield* IdentityOperations.addWallet({ inboxId, wallet: other })
      expect(AssociationState.isMember(both, other.identifier)).toBe(true)
      expect(other.asked).toBe(1)

      yield* TestClock.adjust("1 minute")
      const { installationId } = first
      const revoked = yield* IdentityOperations.revokeInstallations({ inboxId, installationIds: [installationId] })
      expect(AssociationState.installationIds(revoked)).toEqual([])
      yield* TestClock.adjust("1 minute")
      const handedOn = yield* IdentityOperations.changeRecoveryIdentifier({
        inboxId,
        newRecoveryIdentifier: account.identifier
      })
      expect(handedOn.recoveryIdentifier).toEqual(account.identifier)

      const asked = owner.asked
      const error = yield* Effect.flip(IdentityOperations.revokeWallets({ inboxId, wallets: [account.identifier] }))
      expect(error).toMatchObject({ reason: "NotRecoveryIdentifier" })
      expect(owner.asked).toBe(asked)
    }).pipe(Effect.provideService(Signer, owner), Effect.provide(TestApp.layer()))
  )

  /** A request to found an inbox, which one passkey signs alone. */
  const founding = SignatureRequest.make({
    inboxId: derive(owner.identifier, 1n),
    authority: owner.identifier,
    actions: [{ _tag: "CreateInbox", owner: owner.identifier, nonce: 1n }],
    clientTimestampNs: 1_795_420_932_000_000_000n
  })

  it.effect("that answers another challenge, or with another key, has not signed", () =>
    Effect.gen(function* () {
      const elsewhere = authenticator("71".repeat(32), (challenge) => challenge.subarray(1))
      expect(yield* Effect.flip(SignatureRequest.sign(founding, [elsewhere]))).toMatchObject({
        reason: "MalformedSignature",
        detail: "its challenge is not the text"
      })
      const asOwner = { ...authenticator("74".repeat(32)), identifier: owner.identifier }
      expect(yield* Effect.flip(SignatureRequest.sign(founding, [asOwner]))).toMatchObject({
        reason: "InvalidSignature",
        expected: owner.identifier.publicKey
      })
    }).pipe(Effect.provide(layerNone))
  )

  it.effect("that refuses is a refusal", () =>
    Effect.gen(function* () {
      const assert = () => new SignerError({ reason: "Refused" })
      const error = yield* Effect.flip(SignatureRequest.sign(founding, [{ identifier: owner.identifier, assert }]))
      expect(error).toMatchObject({ _tag: "SignerError", reason: "Refused" })
    }).pipe(Effect.provide(layerNone))
  )

  const ofPasskeys = directedLogs.flatMap(({ libxmtp, name, updates }) =>
    updates.flatMap((update, index) => {
      const decoded = IdentityUpdate.decode(hex(update))
      if (typeof libxmtp === "string" || Either.isLeft(decoded)) return []
      const [action, ...more] = decoded.right.actions
      const signature =
        action?._tag === "CreateInbox"
          ? action.initialSignature
          : action?._tag === "RevokeAssociation"
            ? action.recoverySignature
            : undefined
      if (action === undefined || more.length > 0 || signature?._tag !== "Passkey") return []
      return [{ name, bytes: update, before: updates.slice(0, index), ...decoded.right, action, signature }]
    })
  )

  it.effect("with the answers of the vectors gives their updates, byte for byte", () =>
    Effect.gen(function* () {
      for (const { action, before, bytes, clientTimestampNs, inboxId, name, signature } of ofPasskeys) {
        const { authenticatorData, clientDataJson } = signature
        const identifier = { _tag: "Passkey", publicKey: toHex(signature.publicKey) } as const
        const request = SignatureRequest.make({
          inboxId: InboxId.make(inboxId),
          authority: identifier,
          actions: [action],
          clientTimestampNs,
          state: before.length === 0 ? undefined : yield* IdentityLog.resolve(before.map(hex))
        })
        let asked: Uint8Array | undefined
        const assert = (challenge: Uint8Array) => {
          asked = challenge
          return Effect.succeed({ signature: signature.bytes, authenticatorData, clientDataJson })
        }
        const signed = yield* SignatureRequest.sign(request, [{ identifier, assert }])
        expect(toHex(signed.bytes), name).toBe(bytes)
        expect(asked).toEqual(utf8ToBytes(request.text))
      }
      expect(ofPasskeys.length).toBeGreaterThan(5)
    }).pipe(Effect.provide(layerNone))
  )
})
