/**
 * Everybody who can sign an identity update, in all five ways, from a seed.
 */
import { create, toBinary } from "@bufbuild/protobuf"
import { UnsignedPublicKeySchema } from "@keyward/core/gen/xmtp/message_contents/public_key_pb"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import * as MemberIdentifier from "@keyward/core/identity/MemberIdentifier"
import * as Erc191 from "@keyward/core/identity/signature/Erc191"
import * as InstallationSignature from "@keyward/core/identity/signature/InstallationSignature"
import * as LegacyDelegated from "@keyward/core/identity/signature/LegacyDelegated"
import type { Signature } from "@keyward/core/identity/signature/Signature"
import { SignedText } from "@keyward/core/identity/signature/SignedText"
import * as Mutation from "@keyward/test-utils/Mutation"
import * as VectorWallets from "@keyward/test-utils/VectorWallets"
import { p256 } from "@noble/curves/nist.js"
import { secp256k1 } from "@noble/curves/secp256k1.js"
import { sha256 } from "@noble/hashes/sha2.js"
import { bytesToHex, concatBytes, hexToBytes, utf8ToBytes } from "@noble/hashes/utils.js"

/** One who signs. */
export interface Actor {
  readonly member: MemberIdentifier.MemberIdentifier
  /** A signature of the text. The generator decides what is free: salts, blocks, how v is written. */
  readonly sign: (text: string, next: Mutation.Next) => Signature
}

const secretOf = (next: Mutation.Next): Uint8Array => concatBytes(Uint8Array.of(1), Mutation.bytes(next, 31))

const order = secp256k1.Point.CURVE().n

/** r, n - s and v as it was: the same signer to libxmtp, though to nobody else. */
export const withHighS = (signature: Uint8Array): Uint8Array => {
  const s = order - BigInt(`0x${bytesToHex(signature.subarray(32, 64))}`)
  return concatBytes(signature.subarray(0, 32), hexToBytes(s.toString(16).padStart(64, "0")), signature.subarray(64))
}

/** r, s and v, in every spelling that libxmtp takes for the same signer, and at times in one that it does not. */
const signEthereum = (secret: Uint8Array, text: string, next: Mutation.Next): Uint8Array => {
  const recovered = secp256k1.sign(new SignedText(text).eip191Hash, secret, { prehash: false, format: "recovered" })
  const parity = recovered[0] ?? 0
  const r = recovered.subarray(1, 33)
  const s = recovered.subarray(33)
  switch (next(20)) {
    case 0:
      return concatBytes(r, s, Uint8Array.of(parity))
    case 1:
      return concatBytes(r, s, Uint8Array.of(35 + parity + 2 * next(100)))
    case 2:
      return withHighS(concatBytes(r, s, Uint8Array.of(27 + parity)))
    case 3:
      return next(4) > 0
        ? concatBytes(r, s, Uint8Array.of(27 + parity))
        : withHighS(concatBytes(r, s, Uint8Array.of(28 - parity)))
    default:
      return concatBytes(r, s, Uint8Array.of(27 + parity))
  }
}

const ethereumOf = (secret: Uint8Array): MemberIdentifier.EthereumMember => ({
  _tag: "Ethereum",
  address: Erc191.addressOf(secp256k1.getPublicKey(secret, false))
})

const wallet = (secret: Uint8Array): Actor => ({
  member: ethereumOf(secret),
  sign: (text, next) => ({ _tag: "Erc191", bytes: signEthereum(secret, text, next) })
})

/** The same wallet by a key of the network's first version, to which it delegated once. */
const legacy = (secret: Uint8Array, next: Mutation.Next): Actor => {
  const delegate = secretOf(next)
  const keyBytes = toBinary(
    UnsignedPublicKeySchema,
    create(UnsignedPublicKeySchema, {
      createdNs: BigInt(next(1_000)),
      union: { case: "secp256k1Uncompressed", value: { bytes: secp256k1.getPublicKey(delegate, next(2) === 0) } }
    })
  )
  const byWallet = signEthereum(secret, LegacyDelegated.delegationText(keyBytes), () => 19)
  const walletSignature = {
    arm: Mutation.pick(next, ["ecdsaCompact", "walletEcdsaCompact"] as const),
    bytes: byWallet.subarray(0, 64),
    recovery: (byWallet[64] ?? 0) - 27 * next(2)
  }
  return {
    member: ethereumOf(secret),
    sign: (text, by) => ({
      _tag: "LegacyDelegated",
      bytes: signEthereum(delegate, text, by),
      delegatedKey: { keyBytes, walletSignature }
    })
  }
}

const smartContract = (address: string, chains: ReadonlyArray<string>): Actor => ({
  member: { _tag: "Ethereum", address },
  sign: (text, next) => {
    const accountId = {
      chainId: Mutation.pick(next, chains),
      address: next(10) === 0 ? `0x${address.slice(2).toUpperCase()}` : address
    }
    const salt = Mutation.bytes(next, next(5))
    return {
      _tag: "SmartContractWallet",
      accountId,
      blockNumber: BigInt(next(1_000_000)),
      bytes: VectorWallets.sign(accountId, new SignedText(text).eip191Hash, salt)
    }
  }
})

const passkey = (secret: Uint8Array, isCompressed: boolean): Actor => {
  const publicKey = p256.getPublicKey(secret, isCompressed)
  return {
    member: { _tag: "Passkey", publicKey: bytesToHex(publicKey), relyingParty: "https://app.example" },
    sign: (text, next) => {
      const challenge = new SignedText(text).base64Url
      const origin = Mutation.pick(next, ["https://app.example", "https://\u00fc.example", ""])
      const clientDataJson = utf8ToBytes(
        next(4) === 0
          ? JSON.stringify([origin, challenge])
          : JSON.stringify({ type: "webauthn.get", challenge, origin, crossOrigin: false })
      )
      const authenticatorData = Mutation.bytes(next, 37)
      const message = concatBytes(authenticatorData, sha256(clientDataJson))
      return {
        _tag: "Passkey",
        publicKey,
        bytes: p256.sign(message, secret, { format: "der", lowS: next(2) === 0 }),
        authenticatorData,
        clientDataJson
      }
    }
  }
}

const installation = (seed: Uint8Array): Actor => {
  const key = InstallationKey.fromSeed(seed)
  const publicKey = hexToBytes(key.installationId)
  return {
    member: MemberIdentifier.installation(key.installationId),
    sign: (text) => ({
      _tag: "InstallationKey",
      bytes: InstallationSignature.sign(key, InstallationSignature.contexts.identityUpdate, text),
      publicKey
    })
  }
}

/** A cast for one log: three wallets (the first at times also by a legacy key), two contracts, a passkey in both forms, installations. */
export const cast = (next: Mutation.Next): ReadonlyArray<Actor> => {
  const [first, second, third, passkeySecret] = [secretOf(next), secretOf(next), secretOf(next), secretOf(next)]
  const address = () => `0x${bytesToHex(Mutation.bytes(next, 20))}`
  return [
    wallet(first),
    wallet(second),
    wallet(third),
    ...(next(4) === 0 ? [legacy(first, next)] : []),
    smartContract(address(), ["eip155:1"]),
    smartContract(address(), ["eip155:8453", "eip155:8453", "eip155:8453", "eip155:1"]),
    passkey(passkeySecret, true),
    passkey(passkeySecret, false),
    ...Array.from({ length: 4 }, () => installation(Mutation.bytes(next, 32)))
  ]
}
