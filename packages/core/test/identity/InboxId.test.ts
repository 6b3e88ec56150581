import { describe, expect, it } from "@effect/vitest"
import { identityConstants, sessionClients } from "@keyward/test-utils/vectors/IdentityVectors"
import * as Option from "effect/Option"
import * as Identifier from "../../src/identity/Identifier.ts"
import * as InboxId from "../../src/identity/InboxId.ts"
import type { RootIdentifier } from "../../src/identity/MemberIdentifier.ts"

const root = (kind: string, identifier: string): RootIdentifier =>
  kind === "passkey" ? { _tag: "Passkey", publicKey: identifier } : { _tag: "Ethereum", address: identifier }

describe("inbox ids", () => {
  it("are the native library's for 60 identifiers and nonces", () => {
    expect(identityConstants.inboxIds).toHaveLength(60)
    for (const { identifier, inboxId, kind, nonce } of identityConstants.inboxIds) {
      // The native library lower-cases an address before it hashes it; the hash itself takes it verbatim.
      expect(InboxId.deriveVerbatim(root(kind, identifier.toLowerCase()), BigInt(nonce))).toEqual(Option.some(inboxId))
      if (kind === "ethereum") expect(InboxId.derive(Identifier.ethereum(identifier), BigInt(nonce))).toBe(inboxId)
    }
  })

  it.each(sessionClients)("of the captured client $name, default nonce where it named none", (client) => {
    const owner = Identifier.ethereum(client.address)
    expect(InboxId.derive(owner, client.nonce)).toBe(client.inboxId)
    if (client.nonce === 1n) expect(InboxId.derive(owner)).toBe(client.inboxId)
  })

  it("do not depend on the letter case that a wallet prints", () => {
    const address = "0xAb16a96D359eC26a11e2C2b3d8f8B8942d5Bfcdb"
    expect(InboxId.derive(Identifier.ethereum(address))).toBe(
      InboxId.derive(Identifier.ethereum(address.toLowerCase()))
    )
  })

  it("need an address of 0x and 40 hex digits", () => {
    const digits = "ab".repeat(20)
    for (const address of [
      digits,
      `0X${digits}`,
      `0x${digits}0`,
      `0x${digits.slice(1)}`,
      `0x${digits.slice(1)}g`,
      ""
    ]) {
      expect(InboxId.deriveVerbatim(root("ethereum", address), 0n)).toEqual(Option.none())
    }
  })

  it("need a nonce of 64 bits", () => {
    const owner = Identifier.ethereum(`0x${"ab".repeat(20)}`)
    expect(() => InboxId.derive(owner, -1n)).toThrow()
    expect(() => InboxId.derive(owner, 2n ** 64n)).toThrow()
    expect(InboxId.derive(owner, 2n ** 64n - 1n)).toMatch(/^[0-9a-f]{64}$/)
  })
})
