import { describe, expect, it } from "@effect/vitest"
import { edgeSignatures, identityConstants, sessionClients } from "@keyward/test-utils/vectors/IdentityVectors"
import { ed25519ph } from "@noble/curves/ed25519.js"
import { sha512 } from "@noble/hashes/sha2.js"
import { utf8ToBytes } from "@noble/hashes/utils.js"
import { noble } from "../../../src/identity/CurveBackend.ts"
import { contexts, sign, verifyPrehashed } from "../../../src/identity/signature/InstallationSignature.ts"
import { hex, installationKey } from "../fixtures.ts"

describe("installation key signatures", () => {
  it("use the native library's contexts", () => {
    const { contexts: expected } = { contexts: { installationKey: contexts.identityUpdate, public: contexts.public } }
    expect(expected).toEqual({ installationKey: "IDENTITY UPDATE SIGNATURE", public: "PUBLIC SIGNATURE CONTEXT" })
    expect(edgeSignatures.context).toBe(contexts.public)
    expect(identityConstants.signatureText.text).toContain("XMTP : Authenticate to inbox")
  })

  it("get libxmtp's verdict on all 700 crafted ones: small order, torsion, non-canonical", () => {
    expect(edgeSignatures.cases).toHaveLength(700)
    for (const { label, libxmtpAccepts, message, publicKey, signature } of edgeSignatures.cases) {
      const verdict = verifyPrehashed(
        noble,
        contexts.public,
        sha512(utf8ToBytes(message)),
        hex(signature),
        hex(publicKey)
      )
      expect(verdict === "Valid", `${label} ${publicKey} ${signature}`).toBe(libxmtpAccepts)
    }
  })

  it("are not judged by the cofactored rule, which accepts what libxmtp refuses", () => {
    const context = utf8ToBytes(edgeSignatures.context)
    const laxer = edgeSignatures.cases.filter(
      ({ libxmtpAccepts, message, publicKey, signature }) =>
        !libxmtpAccepts && ed25519ph.verify(hex(signature), utf8ToBytes(message), hex(publicKey), { context })
    )
    expect(laxer.length).toBeGreaterThan(0)
  })

  const [client] = sessionClients
  const key = installationKey(client?.installationSeed ?? "")
  const publicKey = hex(key.installationId)
  const digest = sha512(utf8ToBytes("text"))
  const signature = sign(key, contexts.identityUpdate, "text")
  const verdict = (
    bytes: Uint8Array,
    by = publicKey,
    context: (typeof contexts)[keyof typeof contexts] = contexts.identityUpdate
  ) => verifyPrehashed(noble, context, digest, bytes, by)

  it("made here verify here, under their own context alone", () => {
    expect(verdict(signature)).toBe("Valid")
    expect(verdict(signature, publicKey, contexts.public)).toBe("Invalid")
    expect(sign(key, contexts.identityUpdate, "text")).toEqual(signature)
  })

  it("leave a Buffer as it was, whose slice is a view", () => {
    const buffer = Buffer.from(signature)
    expect(verdict(buffer)).toBe("Valid")
    expect(new Uint8Array(buffer)).toEqual(signature)
  })

  it("of another length, with s not below the order, or by a key that is no point", () => {
    expect(verdict(signature.subarray(1))).toBe("Malformed")
    expect(verdict(new Uint8Array(0))).toBe("Malformed")
    const high = signature.slice()
    high.fill(0xff, 32)
    expect(verdict(high)).toBe("Malformed")
    // y = 2 is not on the curve.
    const noPoint = new Uint8Array(32)
    noPoint[0] = 2
    expect(verdict(signature, noPoint)).toBe("InvalidKey")
    expect(verdict(signature.subarray(1), noPoint)).toBe("InvalidKey")
  })
})
