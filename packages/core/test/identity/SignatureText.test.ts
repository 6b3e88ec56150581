import { describe, expect, it } from "@effect/vitest"
import { identityConstants } from "@keyward/test-utils/vectors/IdentityVectors"
import * as SignatureText from "../../src/identity/SignatureText.ts"

describe("the signed text", () => {
  it("is libxmtp's for every action", () => {
    const { account, clientTimestampNs, inboxId, nonce, text } = identityConstants.signatureText
    const address = { _tag: "Ethereum", address: "0x4567890abcdef1234567890abcdef12345678123" } as const
    const app = { _tag: "Installation", publicKey: "010203" } as const
    const made = SignatureText.make({
      inboxId,
      clientTimestampNs: BigInt(clientTimestampNs),
      actions: [
        { _tag: "CreateInbox", owner: { _tag: "Ethereum", address: account }, nonce: BigInt(nonce) },
        { _tag: "AddAssociation", newMember: address },
        { _tag: "AddAssociation", newMember: app },
        { _tag: "RevokeAssociation", member: address },
        { _tag: "RevokeAssociation", member: app },
        {
          _tag: "ChangeRecoveryIdentifier",
          newRecoveryIdentifier: { _tag: "Ethereum", address: "0x7890abcdef1234567890abcdef12345678123456" }
        }
      ]
    })
    expect(made).toBe(text)
  })

  it("labels passkeys, and calls a recovery passkey an address", () => {
    const passkey = { _tag: "Passkey", publicKey: "0a0b" } as const
    const made = SignatureText.make({
      inboxId: "x",
      clientTimestampNs: 0n,
      actions: [
        { _tag: "CreateInbox", owner: passkey, nonce: 1n },
        { _tag: "AddAssociation", newMember: passkey },
        { _tag: "RevokeAssociation", member: passkey },
        { _tag: "ChangeRecoveryIdentifier", newRecoveryIdentifier: passkey }
      ]
    })
    expect(made.split("\n").slice(5, 13)).toEqual([
      "- Create inbox",
      "  (Owner: 0a0b)",
      "- Link passkey to inbox",
      "  (Passkey: 0a0b)",
      "- Unlink passkey from inbox",
      "  (Passkey: 0a0b)",
      "- Change inbox recovery address",
      "  (Address: 0a0b)"
    ])
  })

  it.each(Object.entries(identityConstants.timestamps))("shows %s ns as the native library does", (ns, text) => {
    expect(SignatureText.timestampText(BigInt(ns))).toBe(text)
  })
})
