import { fromBinary } from "@bufbuild/protobuf"
import { describe, expect, it } from "@effect/vitest"
import { identityConstants } from "@keyward/test-utils/vectors/IdentityVectors"
import { utf8ToBytes } from "@noble/hashes/utils.js"
import * as Either from "effect/Either"
import { SignedPublicKeySchema } from "../../../src/gen/xmtp/message_contents/public_key_pb.ts"
import { noble } from "../../../src/identity/CurveBackend.ts"
import * as Erc191 from "../../../src/identity/signature/Erc191.ts"
import { delegationText } from "../../../src/identity/signature/LegacyDelegated.ts"
import { accountIdFromText, accountIdToText } from "../../../src/identity/signature/Signature.ts"
import { eip191Hash } from "../../../src/identity/signature/SignedText.ts"
import { evmChainId } from "../../../src/identity/signature/SmartContractWallet.ts"
import { hex } from "../fixtures.ts"

describe("account ids", () => {
  it.each(Object.entries(identityConstants.accountIds))("%s", (text, expected) => {
    const parsed = accountIdFromText(text)
    if (expected.error !== undefined) return expect(Either.isLeft(parsed)).toBe(true)
    expect(Either.getOrThrow(parsed)).toEqual({ chainId: expected.chainId, address: expected.address })
    expect(accountIdToText(Either.getOrThrow(parsed))).toBe(text)
  })

  it("name an EVM chain by an unsigned 64-bit number", () => {
    expect(evmChainId("eip155:18446744073709551615")).toEqual(Either.right(2n ** 64n - 1n))
    expect(evmChainId("eip155:007")).toEqual(Either.right(7n))
    for (const chain of ["eip155:18446744073709551616", "eip155:", "eip155:-1", "eip155:1x", "cosmos:1", "eip1555:1"]) {
      expect(Either.isLeft(evmChainId(chain)), chain).toBe(true)
    }
  })
})

describe("delegation of the network's first version", () => {
  const { account, proto, text } = identityConstants.legacyKey
  // libxmtp's test adds 1 to the first byte of the key to break it, and the vector was written afterwards.
  const { keyBytes: broken, signature } = fromBinary(SignedPublicKeySchema, hex(proto))
  const keyBytes = broken.slice()
  keyBytes[0] = (broken[0] ?? 0) - 1

  const signerOf = (key: Uint8Array) => {
    const { union } = signature ?? { union: { case: undefined } }
    if (union.case === undefined) return expect.fail("the vector has no signature")
    const recoverable = Uint8Array.of(...union.value.bytes, union.value.recovery)
    const verified = Erc191.verify(noble, eip191Hash(utf8ToBytes(delegationText(key))), recoverable)
    return Either.getOrThrow(verified).signer
  }

  it("is asked for with libxmtp's text, and recovers the account", () => {
    expect(delegationText(keyBytes)).toBe(text)
    expect(signerOf(keyBytes)).toEqual({ _tag: "Ethereum", address: account })
  })

  it("of a key that was altered recovers another account", () => {
    expect(signerOf(broken)).not.toEqual({ _tag: "Ethereum", address: account })
  })
})
