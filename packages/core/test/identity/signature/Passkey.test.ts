import { describe, expect, it } from "@effect/vitest"
import { p256 } from "@noble/curves/nist.js"
import { sha256 } from "@noble/hashes/sha2.js"
import { concatBytes, utf8ToBytes } from "@noble/hashes/utils.js"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { noble } from "../../../src/identity/CurveBackend.ts"
import * as Passkey from "../../../src/identity/signature/Passkey.ts"
import type { PasskeySignature } from "../../../src/identity/signature/Signature.ts"
import { SignedText } from "../../../src/identity/signature/SignedText.ts"
import { parse } from "../../../src/internal/clientDataJson.ts"
import { hex, toHex } from "../fixtures.ts"

const SEED = Number(process.env.KEYWARD_TEST_SEED ?? 20_261_123)

const json = (text: string) => parse(utf8ToBytes(text))
const good = { origin: "o", challenge: "c" }

const isJson = (text: string): boolean => {
  try {
    JSON.parse(text)
    return true
  } catch {
    return false
  }
}

describe("client data, as serde_json reads it", () => {
  it.each([
    ["the two fields", '{"origin":"o","challenge":"c"}'],
    [
      "in any order, with others of every kind",
      '{"a":1,"challenge":"c","b":[{"origin":1},null,true],"origin":"o","z":{}}'
    ],
    ["white space everywhere", ' \n{\t"origin" : "o" , "challenge"\r: "c" } \n '],
    ["an array of exactly the two", '["o","c"]'],
    ["escaped field names", '{"\\u006frigin":"o","chal\\u006Cenge":"c"}'],
    ["duplicates of other fields", '{"a":1,"a":2,"origin":"o","challenge":"c"}'],
    ["a number too large for anything", '{"a":1e999,"b":-0.0E+10,"origin":"o","challenge":"c"}'],
    ["a lone surrogate in another field", '{"a":"\\ud800","origin":"o","challenge":"c"}'],
    [
      "a thousand levels in another field",
      `{"a":${"[".repeat(1_000)}${"]".repeat(1_000)},"origin":"o","challenge":"c"}`
    ]
  ])("accepts %s", (_, text) => expect(json(text)).toEqual(good))

  it("accepts bytes that are not UTF-8 in the value of another field, and not in a name", () => {
    const around = (before: string, after: string) =>
      parse(concatBytes(utf8ToBytes(before), Uint8Array.of(0xff), utf8ToBytes(after)))
    expect(around('{"a":"', '","origin":"o","challenge":"c"}')).toEqual(good)
    expect(around('{"a":{"', '":1},"origin":"o","challenge":"c"}')).toEqual(good)
    expect(around('{"', '":1,"origin":"o","challenge":"c"}')).toBeUndefined()
    expect(around('{"origin":"', '","challenge":"c"}')).toBeUndefined()
  })

  it.each([
    ["nothing", ""],
    ["null", "null"],
    ["a string", '"origin"'],
    ["no origin", '{"challenge":"c"}'],
    ["no challenge", '{"origin":"o"}'],
    ["an origin twice", '{"origin":"o","origin":"o","challenge":"c"}'],
    ["an origin twice, once escaped", '{"origin":"o","orig\\u0069n":"o","challenge":"c"}'],
    ["a null origin", '{"origin":null,"challenge":"c"}'],
    ["an origin that is an object first", '{"origin":{},"origin":"o","challenge":"c"}'],
    ["an array of one", '["o"]'],
    ["an array of three", '["o","c","x"]'],
    ["an array that ends in a comma", '["o","c",]'],
    ["an object that ends in a comma", '{"origin":"o","challenge":"c",}'],
    ["an inner array that ends in a comma", '{"a":[1,],"origin":"o","challenge":"c"}'],
    ["an inner object that ends in a comma", '{"a":{"b":1,},"origin":"o","challenge":"c"}'],
    ["something after the end", '{"origin":"o","challenge":"c"}x'],
    ["a byte order mark", '\ufeff{"origin":"o","challenge":"c"}'],
    ["a lone surrogate in the origin", '{"origin":"\\ud800","challenge":"c"}'],
    ["a lone low surrogate in a name", '{"\\udc00":1,"origin":"o","challenge":"c"}'],
    ["a half surrogate pair", '{"origin":"\\ud800\\u0041","challenge":"c"}'],
    ["an unknown escape in another field", '{"a":"\\x","origin":"o","challenge":"c"}'],
    ["a short escape in another field", '{"a":"\\u12","origin":"o","challenge":"c"}'],
    ["a control character in a string", '{"a":"\u0001","origin":"o","challenge":"c"}'],
    ["a leading zero", '{"a":01,"origin":"o","challenge":"c"}'],
    ["a bare minus", '{"a":-,"origin":"o","challenge":"c"}'],
    ["a point without digits", '{"a":1.,"origin":"o","challenge":"c"}'],
    ["an exponent without digits", '{"a":1e,"origin":"o","challenge":"c"}'],
    ["a word that is none", '{"a":nulls,"origin":"o","challenge":"c"}'],
    ["mixed brackets", '{"a":[},"origin":"o","challenge":"c"}'],
    ["an end inside a string", '{"origin":"o'],
    ["an end inside an array", '{"a":[[[']
  ])("refuses %s", (_, text) => expect(json(text)).toBeUndefined())

  it(`reads what JSON.stringify writes, seed ${SEED}`, () => {
    FastCheck.assert(
      FastCheck.property(
        FastCheck.string({ unit: "grapheme" }),
        FastCheck.string({ unit: "binary" }),
        FastCheck.jsonValue(),
        FastCheck.constantFrom(0, 1, 2, "\t"),
        (origin, challenge, other, space) => {
          const text = JSON.stringify({ type: other, origin, other, challenge }, null, space)
          expect(json(text)).toEqual({ origin, challenge })
        }
      ),
      { seed: SEED, numRuns: 300 }
    )
  })

  it(`accepts nothing that JSON.parse refuses, seed ${SEED}`, () => {
    const pieces = [
      "{",
      "}",
      "[",
      "]",
      ",",
      ":",
      '"',
      '"origin"',
      '"challenge"',
      '"o"',
      "1",
      "-",
      "e",
      ".",
      "true",
      "\\"
    ]
    FastCheck.assert(
      FastCheck.property(FastCheck.array(FastCheck.constantFrom(...pieces), { maxLength: 12 }), (noise) => {
        const text = `{"x":${noise.join("")},"origin":"o","challenge":"c"}`
        const ours = json(text)
        if (!isJson(text)) expect(ours, text).toBeUndefined()
        // The standard knows no duplicates; everything else must be read alike.
        else if (ours === undefined) expect(text.match(/"origin"|"challenge"/g)?.length, text).toBeGreaterThan(2)
      }),
      { seed: SEED, numRuns: 2_000 }
    )
  })

  it("takes 1 MiB of escapes, digits or brackets in its stride", () => {
    const size = 2 ** 20
    expect(json(`{"origin":"o","challenge":"${"\\n".repeat(size / 2)}"}`)?.challenge).toHaveLength(size / 2)
    expect(json(`{"a":${"1".repeat(size)},"origin":"o","challenge":"c"}`)).toEqual(good)
    expect(json(`{"a":${"[".repeat(size)}`)).toBeUndefined()
  })
})

describe("passkey signatures", () => {
  const secret = hex("51".repeat(32))
  const text = new SignedText("text")
  const assertion = (publicKey: Uint8Array, challenge = text.base64Url): PasskeySignature => {
    const clientDataJson = utf8ToBytes(JSON.stringify({ type: "webauthn.get", challenge, origin: "https://a.example" }))
    const authenticatorData = hex("ab".repeat(37))
    const message = concatBytes(authenticatorData, sha256(clientDataJson))
    return {
      _tag: "Passkey",
      publicKey,
      authenticatorData,
      clientDataJson,
      bytes: p256.sign(message, secret, { format: "der", lowS: false })
    }
  }
  const uncompressed = p256.getPublicKey(secret, false)
  const compressed = p256.getPublicKey(secret, true)

  it("name the key bytes as given, with the origin as relying party", () => {
    for (const publicKey of [uncompressed, compressed]) {
      expect(Either.getOrThrow(Passkey.verify(noble, text, assertion(publicKey))).signer).toEqual({
        _tag: "Passkey",
        publicKey: toHex(publicKey),
        relyingParty: "https://a.example"
      })
    }
  })

  it("are refused, each for its own reason", () => {
    const signature = assertion(compressed)
    const reason = (changed: Partial<PasskeySignature>) =>
      Either.match(Passkey.verify(noble, text, { ...signature, ...changed }), {
        onRight: () => "valid",
        onLeft: (failure) => failure.reason
      })
    expect(reason({})).toBe("valid")
    expect(reason(assertion(compressed, "dGV4dA=="))).toBe("InvalidClientData")
    expect(reason({ clientDataJson: utf8ToBytes("{}") })).toBe("InvalidClientData")
    expect(reason({ publicKey: new Uint8Array(0) })).toBe("InvalidPublicKey")
    expect(reason({ publicKey: Uint8Array.of(6, ...uncompressed.subarray(1)) })).toBe("InvalidPublicKey")
    expect(reason({ publicKey: p256.getPublicKey(hex("52".repeat(32))) })).toBe("Invalid")
    expect(reason({ authenticatorData: new Uint8Array(0) })).toBe("Invalid")
    expect(reason({ bytes: signature.bytes.subarray(1) })).toBe("Malformed")
    expect(reason({ bytes: Uint8Array.of(...signature.bytes, 0) })).toBe("Malformed")
  })

  it("challenge the whole text in base64url without padding", () => {
    const long = "\u00ff?>".repeat(20_000)
    expect(new SignedText(long).base64Url).toBe(Buffer.from(long).toString("base64url"))
  })
})
