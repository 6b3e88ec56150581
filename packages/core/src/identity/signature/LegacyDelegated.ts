/**
 * The signature of a key that a wallet delegated to in the network's first version.
 *
 * @since 1.0.0
 */
import { secp256k1 } from "@noble/curves/secp256k1.js"
import { concatBytes, utf8ToBytes } from "@noble/hashes/utils.js"
import * as Either from "effect/Either"
import { UnsignedPublicKeySchema } from "../../gen/xmtp/message_contents/public_key_pb.ts"
import * as hex from "../../internal/hex.ts"
import * as strictProtobuf from "../../internal/strictProtobuf.ts"
import type { Operations } from "../CurveBackend.ts"
import * as Erc191 from "./Erc191.ts"
import type { LegacyDelegatedSignature } from "./Signature.ts"
import * as SignedText from "./SignedText.ts"
import type { SignatureFailure, VerifiedSignature } from "./VerifiedSignature.ts"

/**
 * What the wallet signed to delegate to a key. The slash at the end is right.
 *
 * @since 1.0.0
 * @category conversions
 */
export const delegationText = (keyBytes: Uint8Array): string =>
  `XMTP : Create Identity\n${hex.encode(keyBytes)}\n\nFor more info: https://xmtp.org/signatures/`

const failed = (reason: "Malformed" | "Invalid" | "InvalidPublicKey", detail: string) =>
  Either.left<SignatureFailure>({ reason, detail })

/** k256's `from_sec1_bytes`: uncompressed (04), compressed (02, 03), compact (05 and x, meaning the even y). */
const decodePublicKey = (bytes: Uint8Array): Uint8Array | undefined => {
  try {
    switch (bytes[0]) {
      case 2:
      case 3:
      case 4:
        return secp256k1.Point.fromBytes(bytes).toBytes(false)
      case 5:
        return secp256k1.Point.fromBytes(concatBytes(Uint8Array.of(2), bytes.subarray(1))).toBytes(false)
      default:
        return undefined
    }
  } catch {
    return undefined
  }
}

/** The delegated key inside an encoded `UnsignedPublicKey`. */
const delegatedPublicKey = (keyBytes: Uint8Array): Either.Either<Uint8Array, SignatureFailure> => {
  const decoded = strictProtobuf.decode(UnsignedPublicKeySchema, keyBytes)
  if (Either.isLeft(decoded)) return failed("Malformed", "the delegated key does not decode")
  const { union } = decoded.right
  if (union.case === undefined) return failed("Malformed", "the delegated key has no key")
  const publicKey = decodePublicKey(union.value.bytes)
  return publicKey === undefined
    ? failed("InvalidPublicKey", "the delegated key is not a point")
    : Either.right(publicKey)
}

/**
 * Verifies the chain wallet -> delegated key -> text (`verified_signature.rs`, `from_legacy_delegated`;
 * `serialization.rs`, `ValidatedLegacySignedPublicKey`). The signer is the wallet, and what may be seen once is the
 * wallet's signature, so one delegation counts once in a log.
 *
 * @since 1.0.0
 * @category verification
 */
export const verify = (
  backend: Operations,
  eip191Hash: Uint8Array,
  signature: LegacyDelegatedSignature
): Either.Either<VerifiedSignature, SignatureFailure> =>
  Either.gen(function* () {
    const byKey = yield* Erc191.verify(backend, eip191Hash, signature.bytes)
    const { keyBytes, walletSignature } = signature.delegatedKey
    if (walletSignature === undefined) return yield* failed("Invalid", "no wallet signed the delegated key")
    // libxmtp casts the recovery id to u8, which keeps its low byte.
    const recoverable = concatBytes(walletSignature.bytes, Uint8Array.of(walletSignature.recovery & 0xff))
    const delegation = SignedText.eip191Hash(utf8ToBytes(delegationText(keyBytes)))
    const byWallet = yield* Erc191.verify(backend, delegation, recoverable)
    const publicKey = yield* delegatedPublicKey(keyBytes)
    if (byKey.signer._tag !== "Ethereum" || byKey.signer.address !== Erc191.addressOf(publicKey)) {
      return yield* failed("Invalid", "another key than the delegated one signed")
    }
    return { ...byWallet, kind: "legacy-delegated" as const }
  })
