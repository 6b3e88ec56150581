/**
 * A smart contract wallet's signature: ERC-1271, or ERC-6492 before the wallet is deployed.
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as hex from "../../internal/hex.ts"
import { SmartContractWalletVerifier } from "../../ports/SmartContractWalletVerifier.ts"
import type { SmartContractWalletSignature } from "./Signature.ts"
import type { SignatureFailure, VerifiedSignature } from "./VerifiedSignature.ts"

/**
 * The EVM chain of a CAIP-2 id: the unsigned 64-bit number after `eip155:` (`signature.rs`, `get_chain_id_u64`).
 *
 * @since 1.0.0
 * @category conversions
 */
export const evmChainId = (chainId: string): Either.Either<bigint, string> => {
  if (!chainId.startsWith("eip155:")) return Either.left("the chain is not eip155")
  const reference = chainId.slice("eip155:".length)
  const value = /^[0-9]+$/.test(reference) ? BigInt(reference) : undefined
  return value === undefined || value > 0xffff_ffff_ffff_ffffn
    ? Either.left("the chain is not an unsigned 64-bit number")
    : Either.right(value)
}

/**
 * Asks the wallet, and then reads who it is (`verified_signature.rs`, `from_smart_contract_wallet`): address and chain are
 * looked at only after a yes. An address without `0x` is taken and stays without it.
 *
 * @since 1.0.0
 * @category verification
 */
export const verify = (
  eip191Hash: Uint8Array,
  signature: SmartContractWalletSignature
): Effect.Effect<VerifiedSignature, SignatureFailure, SmartContractWalletVerifier> =>
  Effect.gen(function* () {
    const verifier = yield* SmartContractWalletVerifier
    const { address, chainId } = signature.accountId
    const valid = yield* verifier
      .isValid({ chainId, address, hash: eip191Hash, signature: signature.bytes, blockNumber: signature.blockNumber })
      .pipe(
        Effect.mapError((cause): SignatureFailure => ({ reason: "VerifierUnavailable", detail: cause.message, cause }))
      )
    if (!valid) return yield* fail("Invalid", "the wallet says no")
    if (!/^(?:0x)?[0-9a-fA-F]{40}$/.test(address)) return yield* fail("InvalidAccount", "not 40 hex digits")
    const chain = evmChainId(chainId)
    if (Either.isLeft(chain)) return yield* fail("InvalidChainId", chain.left)
    return {
      signer: { _tag: "Ethereum", address: address.toLowerCase() },
      kind: "erc-1271",
      replayKey: hex.encode(signature.bytes),
      chainId: chain.right
    }
  })

const fail = (reason: SignatureFailure["reason"], detail: string): Effect.Effect<never, SignatureFailure> =>
  Effect.fail({ reason, detail })
