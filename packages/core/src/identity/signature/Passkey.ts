/**
 * A passkey's signature: a WebAuthn assertion whose challenge is the text.
 *
 * @since 1.0.0
 */
import { p256 } from "@noble/curves/nist.js"
import { sha256 } from "@noble/hashes/sha2.js"
import { concatBytes } from "@noble/hashes/utils.js"
import * as Either from "effect/Either"
import * as clientDataJson from "../../internal/clientDataJson.ts"
import * as hex from "../../internal/hex.ts"
import type { Operations } from "../CurveBackend.ts"
import type { PasskeySignature } from "./Signature.ts"
import type { SignedText } from "./SignedText.ts"
import type { SignatureFailure, VerifiedSignature } from "./VerifiedSignature.ts"

/**
 * A P-256 public key as p256's `from_sec1_bytes` reads it, as 65 uncompressed bytes: uncompressed (04), compressed (02,
 * 03) and compact (05 and x, meaning the smaller y); not the identity (00) and not hybrid (06, 07).
 */
const decodePublicKey = (bytes: Uint8Array): Uint8Array | undefined => {
  try {
    switch (bytes[0]) {
      case 2:
      case 3:
      case 4:
        return p256.Point.fromBytes(bytes).toBytes(false)
      case 5: {
        const point = p256.Point.fromBytes(concatBytes(Uint8Array.of(2), bytes.subarray(1)))
        const negated = point.negate()
        return (point.y < negated.y ? point : negated).toBytes(false)
      }
      default:
        return undefined
    }
  } catch {
    return undefined
  }
}

/** Strict DER to r and s in [1, n-1], 64 bytes. A high s is allowed. */
const decodeSignature = (der: Uint8Array): Uint8Array | undefined => {
  try {
    return p256.Signature.fromBytes(der, "der").toBytes("compact")
  } catch {
    return undefined
  }
}

/**
 * Verifies a passkey's signature as libxmtp does (`verified_signature.rs`, `from_passkey`). The relying party, the origin,
 * the flags and the counter are not checked; the signer is the key bytes as given, and its relying party is whatever the
 * client data calls the origin.
 *
 * @since 1.0.0
 * @category verification
 */
export const verify = (
  backend: Operations,
  text: SignedText,
  signature: PasskeySignature
): Either.Either<VerifiedSignature, SignatureFailure> => {
  const clientData = clientDataJson.parse(signature.clientDataJson)
  if (clientData === undefined) return Either.left({ reason: "InvalidClientData", detail: "it does not decode" })
  if (clientData.challenge !== text.base64Url) {
    return Either.left({ reason: "InvalidClientData", detail: "its challenge is not the text" })
  }
  const publicKey = decodePublicKey(signature.publicKey)
  if (publicKey === undefined) return Either.left({ reason: "InvalidPublicKey" })
  const rs = decodeSignature(signature.bytes)
  if (rs === undefined) return Either.left({ reason: "Malformed", detail: "not DER of r and s in range" })
  const message = concatBytes(signature.authenticatorData, sha256(signature.clientDataJson))
  if (!backend.verifyP256(publicKey, message, rs)) return Either.left({ reason: "Invalid" })
  return Either.right({
    signer: { _tag: "Passkey", publicKey: hex.encode(signature.publicKey), relyingParty: clientData.origin },
    kind: "p256",
    replayKey: hex.encode(rs),
    chainId: undefined
  })
}
