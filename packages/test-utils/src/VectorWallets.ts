/**
 * Smart contract wallets without a chain: the rule by which the vectors sign. A signature is valid iff it is
 * `sha256(lower(account id) || hash || salt) || salt`, for a salt of any length.
 *
 * @since 1.0.0
 */
import { type AccountId, accountIdToText } from "@keyward/core/identity/signature/Signature"
import { SmartContractWalletVerifier } from "@keyward/core/ports/SmartContractWalletVerifier"
import { sha256 } from "@noble/hashes/sha2.js"
import { bytesToHex, concatBytes, utf8ToBytes } from "@noble/hashes/utils.js"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

/**
 * The signature of such a wallet: `hash` is the EIP-191 hash of the text, 32 bytes.
 *
 * @since 1.0.0
 * @category signing
 */
export const sign = (accountId: AccountId, hash: Uint8Array, salt: Uint8Array): Uint8Array =>
  concatBytes(sha256(concatBytes(utf8ToBytes(accountIdToText(accountId).toLowerCase()), hash, salt)), salt)

/**
 * Judges by the rule, at every block alike.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<SmartContractWalletVerifier> = Layer.succeed(SmartContractWalletVerifier, {
  isValid: ({ address, chainId, hash, signature }) =>
    Effect.sync(() => bytesToHex(sign({ chainId, address }, hash, signature.subarray(32))) === bytesToHex(signature))
})
