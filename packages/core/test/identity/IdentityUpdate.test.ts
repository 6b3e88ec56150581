import { describe, expect, it } from "@effect/vitest"
import * as Mutation from "@keyward/test-utils/Mutation"
import { directedLogs, randomIdentityLogs, sessionIdentityUpdates } from "@keyward/test-utils/vectors/IdentityVectors"
import * as Either from "effect/Either"
import * as IdentityUpdate from "../../src/identity/IdentityUpdate.ts"
import { hex, toHex } from "./fixtures.ts"

const SEED = Number(process.env.KEYWARD_TEST_SEED ?? 20_261_123)

const allUpdates = [
  ...directedLogs.flatMap(({ updates }) => updates),
  ...randomIdentityLogs.flatMap(({ updates }) => updates),
  ...sessionIdentityUpdates.map(({ identityUpdate }) => identityUpdate)
]

const reason = (bytes: Uint8Array): string | undefined =>
  Either.match(IdentityUpdate.decode(bytes, { updateIndex: 3 }), {
    onRight: () => undefined,
    onLeft: (error) => {
      expect(error.updateIndex).toBe(3)
      return error.reason
    }
  })

describe("an update", () => {
  it("of the native client encodes to the same bytes again", () => {
    for (const { identityUpdate } of sessionIdentityUpdates) {
      const decoded = Either.getOrThrow(IdentityUpdate.decode(hex(identityUpdate)))
      expect(toHex(IdentityUpdate.encode(decoded))).toBe(identityUpdate)
    }
  })

  it("of any vector keeps its meaning when it is encoded again", () => {
    let decodable = 0
    for (const text of allUpdates) {
      const decoded = IdentityUpdate.decode(hex(text))
      if (Either.isLeft(decoded)) continue
      decodable++
      expect(IdentityUpdate.decode(IdentityUpdate.encode(decoded.right))).toEqual(decoded)
    }
    expect(decodable).toBeGreaterThan(500)
  })

  it.each([
    ["no bytes are an update without actions", "", undefined],
    ["an action without kind", "0a00", "MissingAction"],
    ["an action without kind after one without signature", "0a020a000a00", "MissingAction"],
    ["create without signature", "0a020a00", "MissingSignature"],
    ["create with an empty signature", "0a040a021a00", "MissingSignature"],
    ["change of recovery without signature", "0a022200", "MissingSignature"],
    ["revoke of nobody", "0a081a061204" + "0a020a00", "MissingMember"],
    ["revoke of an empty member", "0a0a1a080a0012040a020a00", "MissingMember"],
    ["revoke of an installation of three bytes", "0a0d1a0b0a051203010203" + "12020a00", undefined],
    ["a legacy signature without signature", "0a081a0612042202" + "0a00", "MissingSignature"],
    ["a legacy signature without key", "0a081a0612042202" + "1200", "MissingDelegatedKey"],
    ["an installation's signature without key", "0a061a0412021a00", "InvalidInstallationKey"],
    ["a wallet contract without account", "0a061a0412021200", "InvalidAccountId"],
    ["a passkey identifier that is not hex", "0a0c220a" + "0a027a7a" + "12020a00" + "1802", "InvalidPasskey"],
    ["a passkey identifier with 0x and in upper case", "0a0e220c" + "0a0430784142" + "12020a00" + "1802", undefined]
  ])("%s", (_, text, expected) => {
    expect(reason(hex(text))).toBe(expected)
  })

  it("takes an unknown identifier kind for an address, and 0x and letter case off a passkey", () => {
    const recovery = (text: string) =>
      Either.map(IdentityUpdate.decode(hex(text)), ({ actions: [action] }) =>
        action?._tag === "ChangeRecoveryIdentifier" ? action.newRecoveryIdentifier : undefined
      )
    expect(recovery("0a0e220c" + "0a0430784142" + "12020a00" + "1807")).toEqual(
      Either.right({ _tag: "Ethereum", address: "0xAB" })
    )
    expect(recovery("0a0e220c" + "0a0430784142" + "12020a00" + "1802")).toMatchObject(
      Either.right({ _tag: "Passkey", publicKey: "ab" })
    )
  })

  it("names the action that does not convert", () => {
    const first = sessionIdentityUpdates[0]?.identityUpdate ?? ""
    const error = Either.getOrThrow(Either.flip(IdentityUpdate.decode(hex(`${first}0a020a00`), { updateIndex: 7 })))
    expect(error).toMatchObject({ updateIndex: 7, actionIndex: 2, reason: "MissingSignature", stage: "conversion" })
    expect(error.message).toBe("update 7, action 2: MissingSignature (empty or absent)")
  })
})

describe("what prost refuses", () => {
  it.each([
    ["a wrong wire type on a known field", "0801"],
    ["a wrong wire type inside", "0a03" + "0a01" + "00"],
    ["a message over the end", "0a05"],
    ["a message over its parent's end", "0a020a05" + "0000000000"],
    ["a varint of 65 bits", "10ffffffffffffffffff02"],
    ["a varint of 11 bytes", "10ffffffffffffffffffff01"],
    ["half a varint", "1080"],
    ["a tag above 32 bits", "8080808080010a"],
    ["field number 0", "0000"],
    ["wire type 6", "26"],
    ["wire type 7", "7f00"],
    ["an end of no group", "24"],
    ["a group that does not end", "2b"],
    ["a group that ends as another", "2b34"],
    ["groups 101 deep", `${"2b".repeat(101)}${"2c".repeat(101)}`],
    ["text that is not UTF-8", "1a02c328"],
    ["text that is a lone surrogate", "1a03eda080"]
  ])("%s", (_, text) => {
    expect(reason(hex(text))).toBe("NotProtobuf")
  })

  it.each([
    ["unknown fields of every type", "20012900000000000000003202ffff3d00000000"],
    ["an unknown group with fields inside", "2b0801120100" + "2c"],
    ["groups 100 deep", `${"2b".repeat(100)}${"2c".repeat(100)}`],
    ["a varint longer than it need be", "108180808000"],
    ["a tag longer than it need be", "90808080000a"],
    ["a byte order mark as text", "1a03efbbbf"]
  ])("and not %s", (_, text) => {
    expect(reason(hex(text))).toBeUndefined()
  })

  it("keeps a byte order mark in the text", () => {
    expect(Either.getOrThrow(IdentityUpdate.decode(hex("1a03efbbbf"))).inboxId).toBe("\ufeff")
  })
})

describe("input", () => {
  it("of 1 MiB: noise, nesting and an endless field are refused", () => {
    const size = 2 ** 20
    expect(reason(Mutation.bytes(Mutation.generator(SEED), size))).toBe("NotProtobuf")
    expect(reason(new Uint8Array(size).fill(0x2b))).toBe("NotProtobuf")
    expect(reason(new Uint8Array(size).fill(0xff))).toBe("NotProtobuf")
    expect(reason(new Uint8Array(size))).toBe("NotProtobuf")
  })
})
