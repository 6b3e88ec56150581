/**
 * The five ways to sign an identity update, as a log holds them: nothing here is verified.
 *
 * @since 1.0.0
 */
import { create } from "@bufbuild/protobuf"
import * as Either from "effect/Either"
import {
  LegacyDelegatedSignatureSchema,
  RecoverableEcdsaSignatureSchema,
  RecoverableEd25519SignatureSchema,
  RecoverablePasskeySignatureSchema,
  SignatureSchema,
  SmartContractWalletSignatureSchema,
  type Signature as WireSignature
} from "../../gen/xmtp/identity/associations/signature_pb.ts"
import { SignedPublicKeySchema } from "../../gen/xmtp/message_contents/public_key_pb.ts"
import {
  SignatureSchema as LegacySignatureSchema,
  Signature_ECDSACompactSchema,
  Signature_WalletECDSACompactSchema,
  type Signature as WireLegacySignature
} from "../../gen/xmtp/message_contents/signature_pb.ts"
import type { ConversionReason } from "../IdentityError.ts"

/**
 * A wallet's EIP-191 signature, 65 bytes if it is well formed: r (32), s (32), v (1).
 *
 * @since 1.0.0
 * @category models
 */
export interface Erc191Signature {
  readonly _tag: "Erc191"
  readonly bytes: Uint8Array
}

/**
 * An installation's Ed25519ph signature, 64 bytes if it is well formed. The public key has 32 bytes.
 *
 * @since 1.0.0
 * @category models
 */
export interface InstallationKeySignature {
  readonly _tag: "InstallationKey"
  readonly bytes: Uint8Array
  readonly publicKey: Uint8Array
}

/**
 * A CAIP-10 account id in its two parts: `eip155:1` and an address.
 *
 * @since 1.0.0
 * @category models
 */
export interface AccountId {
  readonly chainId: string
  readonly address: string
}

/**
 * A smart contract wallet's signature (ERC-1271, ERC-6492), judged by the chain at a block.
 *
 * @since 1.0.0
 * @category models
 */
export interface SmartContractWalletSignature {
  readonly _tag: "SmartContractWallet"
  readonly accountId: AccountId
  readonly blockNumber: bigint
  readonly bytes: Uint8Array
}

/**
 * A key of the network's first version and the wallet signature that once delegated to it.
 *
 * @since 1.0.0
 * @category models
 */
export interface DelegatedKey {
  /** An encoded `UnsignedPublicKey`; the wallet signed these bytes in hex. */
  readonly keyBytes: Uint8Array
  /** The wallet's signature: r and s (64 bytes if well formed) and the recovery id; none where the log has none. */
  readonly walletSignature:
    | { readonly arm: "ecdsaCompact" | "walletEcdsaCompact"; readonly bytes: Uint8Array; readonly recovery: number }
    | undefined
}

/**
 * A signature by a delegated key, which speaks for the wallet that delegated to it. Erc191 in form.
 *
 * @since 1.0.0
 * @category models
 */
export interface LegacyDelegatedSignature {
  readonly _tag: "LegacyDelegated"
  readonly bytes: Uint8Array
  readonly delegatedKey: DelegatedKey
}

/**
 * A passkey's WebAuthn assertion. The signature is DER, the public key SEC1.
 *
 * @since 1.0.0
 * @category models
 */
export interface PasskeySignature {
  readonly _tag: "Passkey"
  readonly publicKey: Uint8Array
  readonly bytes: Uint8Array
  readonly authenticatorData: Uint8Array
  readonly clientDataJson: Uint8Array
}

/**
 * A signature of an identity update.
 *
 * @since 1.0.0
 * @category models
 */
export type Signature =
  | Erc191Signature
  | InstallationKeySignature
  | SmartContractWalletSignature
  | LegacyDelegatedSignature
  | PasskeySignature

/** Why a signature on the wire is none. */
interface Refused {
  readonly reason: ConversionReason
  readonly detail: string
}

const refuse = (reason: ConversionReason, detail: string): Either.Either<never, Refused> =>
  Either.left({ reason, detail })

/**
 * Reads a CAIP-10 account id with libxmtp's patterns (`serialization.rs`, `TryFrom<String> for AccountId`).
 *
 * @since 1.0.0
 * @category conversions
 */
export const accountIdFromText = (text: string): Either.Either<AccountId, string> => {
  const parts = text.split(":")
  const [namespace, reference, address] = parts
  if (parts.length !== 3 || namespace === undefined || reference === undefined || address === undefined) {
    return Either.left(`an account id has 3 parts, this has ${parts.length}`)
  }
  const chainId = `${namespace}:${reference}`
  return /^[-a-z0-9]{3,8}:[-_a-zA-Z0-9]{1,32}$/.test(chainId) && /^[-.%a-zA-Z0-9]{1,128}$/.test(address)
    ? Either.right({ chainId, address })
    : Either.left("chain or address of the account id is malformed")
}

/**
 * The account id as text.
 *
 * @since 1.0.0
 * @category conversions
 */
export const accountIdToText = (accountId: AccountId): string => `${accountId.chainId}:${accountId.address}`

const fromWireLegacySignature = (wire: WireLegacySignature | undefined): DelegatedKey["walletSignature"] => {
  switch (wire?.union.case) {
    case "ecdsaCompact":
    case "walletEcdsaCompact":
      return { arm: wire.union.case, bytes: wire.union.value.bytes, recovery: wire.union.value.recovery }
    default:
      return undefined
  }
}

/**
 * A signature from its protobuf message, or what it lacks.
 *
 * @since 1.0.0
 * @category conversions
 */
export const fromWire = (wire: WireSignature | undefined): Either.Either<Signature, Refused> => {
  switch (wire?.signature.case) {
    case "erc191":
      return Either.right({ _tag: "Erc191", bytes: wire.signature.value.bytes })
    case "installationKey": {
      const { bytes, publicKey } = wire.signature.value
      return publicKey.length === 32
        ? Either.right({ _tag: "InstallationKey", bytes, publicKey })
        : refuse("InvalidInstallationKey", `a key has 32 bytes, this has ${publicKey.length}`)
    }
    case "erc6492": {
      const { accountId, blockNumber, signature } = wire.signature.value
      return Either.match(accountIdFromText(accountId), {
        onLeft: (detail) => refuse("InvalidAccountId", detail),
        onRight: (id) => Either.right({ _tag: "SmartContractWallet", accountId: id, blockNumber, bytes: signature })
      })
    }
    case "delegatedErc191": {
      const { delegatedKey, signature } = wire.signature.value
      if (signature === undefined) return refuse("MissingSignature", "of the delegated key")
      if (delegatedKey === undefined) return refuse("MissingDelegatedKey", "nothing says who delegated")
      return Either.right({
        _tag: "LegacyDelegated",
        bytes: signature.bytes,
        delegatedKey: {
          keyBytes: delegatedKey.keyBytes,
          walletSignature: fromWireLegacySignature(delegatedKey.signature)
        }
      })
    }
    case "passkey": {
      const { authenticatorData, clientDataJson, publicKey, signature } = wire.signature.value
      return Either.right({ _tag: "Passkey", publicKey, bytes: signature, authenticatorData, clientDataJson })
    }
    default:
      return refuse("MissingSignature", "empty or absent")
  }
}

const toWireLegacySignature = (signature: NonNullable<DelegatedKey["walletSignature"]>): WireLegacySignature => {
  const { arm, bytes, recovery } = signature
  return create(LegacySignatureSchema, {
    union:
      arm === "ecdsaCompact"
        ? { case: arm, value: create(Signature_ECDSACompactSchema, { bytes, recovery }) }
        : { case: arm, value: create(Signature_WalletECDSACompactSchema, { bytes, recovery }) }
  })
}

const toWireArm = (signature: Signature): WireSignature["signature"] => {
  switch (signature._tag) {
    case "Erc191":
      return { case: "erc191", value: create(RecoverableEcdsaSignatureSchema, { bytes: signature.bytes }) }
    case "InstallationKey":
      return {
        case: "installationKey",
        value: create(RecoverableEd25519SignatureSchema, { bytes: signature.bytes, publicKey: signature.publicKey })
      }
    case "SmartContractWallet":
      return {
        case: "erc6492",
        value: create(SmartContractWalletSignatureSchema, {
          accountId: accountIdToText(signature.accountId),
          blockNumber: signature.blockNumber,
          signature: signature.bytes
        })
      }
    case "LegacyDelegated": {
      const { keyBytes, walletSignature } = signature.delegatedKey
      return {
        case: "delegatedErc191",
        value: create(LegacyDelegatedSignatureSchema, {
          delegatedKey: create(SignedPublicKeySchema, {
            keyBytes,
            ...(walletSignature === undefined ? {} : { signature: toWireLegacySignature(walletSignature) })
          }),
          signature: create(RecoverableEcdsaSignatureSchema, { bytes: signature.bytes })
        })
      }
    }
    case "Passkey":
      return {
        case: "passkey",
        value: create(RecoverablePasskeySignatureSchema, {
          publicKey: signature.publicKey,
          signature: signature.bytes,
          authenticatorData: signature.authenticatorData,
          clientDataJson: signature.clientDataJson
        })
      }
  }
}

/**
 * The protobuf message of a signature.
 *
 * @since 1.0.0
 * @category conversions
 */
export const toWire = (signature: Signature): WireSignature =>
  create(SignatureSchema, { signature: toWireArm(signature) })
