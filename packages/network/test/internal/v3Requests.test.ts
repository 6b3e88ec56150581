/**
 * Requests, byte for byte as the native client sends them.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Identifier from "@keyward/core/identity/Identifier"
import { InboxId } from "@keyward/core/identity/InboxId"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import { sessionPublishRequests, sessionUploadRequests } from "@keyward/test-utils/vectors/RequestVectors"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as Requests from "../../src/internal/v3Requests.ts"

const bytesOf = (hex: string): Uint8Array => Either.getOrThrow(Encoding.decodeHex(hex))
const hexOf = Encoding.encodeHex

describe("requests of the native client", () => {
  it("uploads are the same bytes", () => {
    expect(sessionUploadRequests.length).toBe(9)
    for (const { payload, request } of sessionUploadRequests) {
      const { message, path } = Requests.uploadKeyPackage(bytesOf(payload))
      expect(path).toBe("/xmtp.mls.api.v1.MlsApi/UploadKeyPackage")
      expect(hexOf(message)).toBe(request)
    }
  })

  it("published updates are the same bytes", () => {
    expect(sessionPublishRequests.length).toBe(8)
    for (const { payload, request } of sessionPublishRequests) {
      const { message, path } = Requests.publishIdentityUpdate(bytesOf(payload))
      expect(path).toBe("/xmtp.identity.api.v1.IdentityApi/PublishIdentityUpdate")
      expect(hexOf(message)).toBe(request)
    }
  })
})

describe("requests by hand", () => {
  it("a fetch lists the public keys", () => {
    const { message, path } = Requests.fetchKeyPackages(
      ["11", "22"].map((byte) => InstallationId.make(byte.repeat(32)))
    )
    expect(path).toBe("/xmtp.mls.api.v1.MlsApi/FetchKeyPackages")
    expect(hexOf(message)).toBe(`0a20${"11".repeat(32)}0a20${"22".repeat(32)}`)
  })

  it("identity updates name inbox and cursor; a cursor of 0 is not written", () => {
    const inboxId = InboxId.make("ab".repeat(32))
    const text = hexOf(new TextEncoder().encode(inboxId))
    const { message, path } = Requests.getIdentityUpdates([
      { inboxId, after: 0n },
      { inboxId, after: 2n ** 64n - 1n }
    ])
    expect(path).toBe("/xmtp.identity.api.v1.IdentityApi/GetIdentityUpdates")
    expect(hexOf(message)).toBe(`0a420a40${text}0a4d0a40${text}10ffffffffffffffffff01`)
  })

  it("inbox ids are asked by lower-case address and kind", () => {
    const address = `0x${"AbCdEf0123".repeat(4)}`
    const { message, path } = Requests.getInboxIds([
      Identifier.ethereum(address),
      { _tag: "Passkey", publicKey: "0a0b" }
    ])
    expect(path).toBe("/xmtp.identity.api.v1.IdentityApi/GetInboxIds")
    const text = (value: string) => hexOf(new TextEncoder().encode(value))
    expect(hexOf(message)).toBe(`0a2e0a2a${text(address.toLowerCase())}10010a080a04${text("0a0b")}1002`)
  })
})
