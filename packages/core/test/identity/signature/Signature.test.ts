import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import { describe, expect, it } from "@effect/vitest"
import { identityConstants } from "@keyward/test-utils/vectors/IdentityVectors"
import { secp256k1 } from "@noble/curves/secp256k1.js"
import { utf8ToBytes } from "@noble/hashes/utils.js"
import * as Either from "effect/Either"
import { SignedPublicKeySchema, UnsignedPublicKeySchema } from "../../../src/gen/xmtp/message_contents/public_key_pb.ts"
import { noble } from "../../../src/identity/CurveBackend.ts"
import * as Erc191 from "../../../src/identity/signature/Erc191.ts"
import * as LegacyDelegated from "../../../src/identity/signature/LegacyDelegated.ts"
import {
  accountIdFromText,
  accountIdToText,
  type LegacyDelegatedSignature
} from "../../../src/identity/signature/Signature.ts"
import { eip191Hash } from "../../../src/identity/signature/SignedText.ts"
import { evmChainId } from "../../../src/identity/signature/SmartContractWallet.ts"
import { hex, toHex, wallet } from "../fixtures.ts"

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
  const { account, proto, text: asked } = identityConstants.legacyKey
  // libxmtp's test adds 1 to the first byte of the key to break it, and the vector was written afterwards.
  const { keyBytes: broken, signature } = fromBinary(SignedPublicKeySchema, hex(proto))
  const keyBytes = broken.slice()
  keyBytes[0] = (broken[0] ?? 0) - 1

  const signerOf = (key: Uint8Array) => {
    const { union } = signature ?? { union: { case: undefined } }
    if (union.case === undefined) return expect.fail("the vector has no signature")
    const recoverable = Uint8Array.of(...union.value.bytes, union.value.recovery)
    const verified = Erc191.verify(noble, eip191Hash(utf8ToBytes(LegacyDelegated.delegationText(key))), recoverable)
    return Either.getOrThrow(verified).signer
  }

  it("is asked for with libxmtp's text, and recovers the account", () => {
    expect(LegacyDelegated.delegationText(keyBytes)).toBe(asked)
    expect(signerOf(keyBytes)).toEqual({ _tag: "Ethereum", address: account })
  })

  it("of a key that was altered recovers another account", () => {
    expect(signerOf(broken)).not.toEqual({ _tag: "Ethereum", address: account })
  })

  const owner = wallet("61".repeat(32))
  const text = "text of an update"

  /** A signature by a delegated key; `recovery` says how the wallet's v is written. */
  const delegated = (seed: number, recovery: (v: number) => number): LegacyDelegatedSignature => {
    const secret = hex(seed.toString(16).padStart(64, "0"))
    const keyBytes = toBinary(
      UnsignedPublicKeySchema,
      create(UnsignedPublicKeySchema, {
        createdNs: 1n,
        union: { case: "secp256k1Uncompressed", value: { bytes: secp256k1.getPublicKey(secret, false) } }
      })
    )
    const bySigner = owner.sign(LegacyDelegated.delegationText(keyBytes))
    return {
      _tag: "LegacyDelegated",
      bytes: wallet(toHex(secret)).sign(text),
      delegatedKey: {
        keyBytes,
        walletSignature: {
          arm: "walletEcdsaCompact",
          bytes: bySigner.subarray(0, 64),
          recovery: recovery(bySigner[64] ?? 0)
        }
      }
    }
  }
  const verifyDelegated = (signature: LegacyDelegatedSignature, signed = text) =>
    LegacyDelegated.verify(noble, eip191Hash(utf8ToBytes(signed)), signature)

  it("speaks for the wallet; of a recovery id only the low byte counts; the wallet's signature may come once", () => {
    const parities = new Set<number>()
    for (let seed = 1; seed <= 6; seed++) {
      for (const offset of [-27, 0, 229, 256, 65_536]) {
        const signature = delegated(seed, (v) => (parities.add(v), v + offset))
        const { bytes = new Uint8Array(), recovery = 0 } = signature.delegatedKey.walletSignature ?? {}
        expect(Either.getOrThrow(verifyDelegated(signature))).toEqual({
          signer: owner.identifier,
          kind: "legacy-delegated",
          replayKey: toHex(Uint8Array.of(...bytes, recovery & 0xff)),
          chainId: undefined
        })
      }
    }
    expect(parities.size).toBe(2)
  })

  it("is refused for another text, another key, no wallet", () => {
    const signature = delegated(7, (v) => v)
    const other = delegated(8, (v) => v)
    const invalid = Either.left({ reason: "Invalid" })
    expect(verifyDelegated(signature, "another text")).toMatchObject(invalid)
    expect(verifyDelegated({ ...signature, bytes: other.bytes })).toMatchObject(invalid)
    const { keyBytes } = signature.delegatedKey
    expect(verifyDelegated({ ...signature, delegatedKey: { keyBytes, walletSignature: undefined } })).toMatchObject(
      invalid
    )
  })
})
