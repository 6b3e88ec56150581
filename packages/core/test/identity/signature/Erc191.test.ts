import { describe, expect, it } from "@effect/vitest"
import { identityConstants } from "@keyward/test-utils/vectors/IdentityVectors"
import { secp256k1 } from "@noble/curves/secp256k1.js"
import { utf8ToBytes } from "@noble/hashes/utils.js"
import * as Either from "effect/Either"
import { noble } from "../../../src/identity/CurveBackend.ts"
import * as Erc191 from "../../../src/identity/signature/Erc191.ts"
import { eip191Hash } from "../../../src/identity/signature/SignedText.ts"
import { hex, toHex, wallet } from "../fixtures.ts"

const order = secp256k1.Point.CURVE().n
const owner = wallet("42".repeat(32))
const digest = eip191Hash(utf8ToBytes("text"))
const signature = owner.sign("text")

const verify = (bytes: Uint8Array) => Erc191.verify(noble, digest, bytes)
const withV = (bytes: Uint8Array, v: number) => Uint8Array.of(...bytes.subarray(0, 64), v)
const withHighS = (bytes: Uint8Array) =>
  Uint8Array.of(
    ...bytes.subarray(0, 32),
    ...hex((order - BigInt(`0x${toHex(bytes.subarray(32, 64))}`)).toString(16).padStart(64, "0")),
    bytes[64] ?? 0
  )
const ownerAddress = owner.identifier._tag === "Ethereum" ? owner.identifier.address : ""
const signer = (bytes: Uint8Array) => Either.getOrThrow(verify(bytes)).signer

describe("wallet signatures", () => {
  it("hash the text and derive addresses as the native library does", () => {
    const { address, eip191OfTestMessage, privateKey } = identityConstants.address
    expect(Erc191.addressOf(secp256k1.getPublicKey(hex(privateKey), false))).toBe(address)
    expect(toHex(eip191Hash(utf8ToBytes("test message")))).toBe(eip191OfTestMessage)
  })

  it("name their signer", () => {
    expect(signer(signature)).toEqual({ _tag: "Ethereum", address: ownerAddress })
  })

  it("of another text name somebody else", () => {
    const other = Erc191.verify(noble, eip191Hash(utf8ToBytes("other")), signature)
    expect(Either.getOrThrow(other).signer).not.toEqual({ _tag: "Ethereum", address: ownerAddress })
  })

  it("with a high s keep v: the true signer's where v was not flipped, another's where it was", () => {
    const high = withHighS(signature)
    expect(signer(high)).toEqual({ _tag: "Ethereum", address: ownerAddress })
    const flipped = withV(high, (signature[64] ?? 0) === 27 ? 28 : 27)
    expect(signer(flipped)).not.toEqual({ _tag: "Ethereum", address: ownerAddress })
    // Low and high s with one v are the same signature to the replay rule; another v is another.
    expect(Either.getOrThrow(verify(high)).replayKey).toBe(toHex(signature))
    expect(Either.getOrThrow(verify(withV(signature, (signature[64] ?? 0) - 27))).replayKey).not.toBe(toHex(signature))
  })

  it("take v as 0, 1, 27, 28 and everything from 35 on, by parity", () => {
    const parity = (signature[64] ?? 0) - 27
    for (let v = 0; v < 256; v++) {
      const meant = v === 0 || v === 27 ? 0 : v === 1 || v === 28 ? 1 : v >= 35 ? (v - 35) % 2 : undefined
      const result = verify(withV(signature, v))
      if (meant === undefined) expect(result).toMatchObject(Either.left({ reason: "Malformed" }))
      else
        expect(signer(withV(signature, v))._tag === "Ethereum" && meant === parity).toBe(
          JSON.stringify(signer(withV(signature, v))) === JSON.stringify({ _tag: "Ethereum", address: ownerAddress })
        )
    }
  })

  it("of another length or with r or s out of range are none", () => {
    const zeroR = signature.slice().fill(0, 0, 32)
    const bigR = signature.slice().fill(0xff, 0, 32)
    const zeroS = signature.slice().fill(0, 32, 64)
    const bigS = signature.slice().fill(0xff, 32, 64)
    const lengths = [new Uint8Array(0), signature.subarray(0, 64), Uint8Array.of(...signature, 0)]
    for (const bytes of [zeroR, bigR, zeroS, bigS, ...lengths]) {
      expect(verify(bytes)).toMatchObject(Either.left({ reason: "Malformed" }))
    }
  })
})
