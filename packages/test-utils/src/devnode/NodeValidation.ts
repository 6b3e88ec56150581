/**
 * How a node judges what is published on it. A real node asks its validation service; here it is a port, so that a test
 * can bring its own judge.
 *
 * @since 1.0.0
 */
import * as NodeMlsCrypto from "@keyward/core/crypto/NodeMlsCrypto"
import type { AssociationState } from "@keyward/core/identity/AssociationState"
import * as IdentityLog from "@keyward/core/identity/IdentityLog"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import { validateKeyPackage } from "@keyward/core/keypackage/Validation"
import { MlsCrypto } from "@keyward/core/ports/MlsCrypto"
import { layerNone, SmartContractWalletVerifier } from "@keyward/core/ports/SmartContractWalletVerifier"
import * as Context from "effect/Context"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import type { GrpcStatus } from "./GrpcStatus.ts"
import * as Status from "./GrpcStatus.ts"

/**
 * The members of an inbox, as far as a node keeps them: enough to look an inbox up, and to judge the next update.
 *
 * @since 1.0.0
 * @category models
 */
export interface InboxMembers {
  /** The Ethereum addresses that are members, as the log spells them. */
  readonly addresses: ReadonlySet<string>
  /** The members after one more `IdentityUpdate` (protobuf), or the status that refuses it. */
  readonly extend: (identityUpdate: Uint8Array) => Effect.Effect<InboxMembers, GrpcStatus>
}

/**
 * The judge.
 *
 * @since 1.0.0
 * @category tags
 */
export class NodeValidation extends Context.Tag("@keyward/test-utils/NodeValidation")<
  NodeValidation,
  {
    /**
     * The installation key (32 bytes) of a valid package. The left side is what is wrong, as the validation service words
     * it.
     */
    readonly keyPackage: (keyPackage: Uint8Array) => Effect.Effect<Uint8Array, string>
    /** An inbox whose log is empty. */
    readonly emptyInbox: InboxMembers
    /** Whether a smart contract wallet's signature is valid. The left side is why that cannot be said. */
    readonly smartContractWallet: (signature: {
      readonly accountId: string
      readonly blockNumber: bigint | undefined
      readonly signature: Uint8Array
      readonly hash: Uint8Array
    }) => Effect.Effect<boolean, string>
  }
>() {}

const membersOf = (
  state: AssociationState | undefined,
  verifier: Context.Tag.Service<SmartContractWalletVerifier>
): InboxMembers => ({
  addresses: new Set(
    [...(state?.members.values() ?? [])].flatMap(({ identifier }) =>
      identifier._tag === "Ethereum" ? [identifier.address] : []
    )
  ),
  extend: (identityUpdate) =>
    (state === undefined ? IdentityLog.resolve([identityUpdate]) : IdentityLog.extend(state, [identityUpdate])).pipe(
      Effect.provideService(SmartContractWalletVerifier, verifier),
      Effect.mapBoth({
        onSuccess: (next) => membersOf(next, verifier),
        // A chain that could not be asked may answer later; everything else is the sender's fault.
        onFailure: ({ isRetryable, message }) =>
          isRetryable ? Status.unavailable(message) : Status.invalidArgument(message)
      })
    )
})

/** CAIP-10: a CAIP-2 chain of two parts, and the account. */
const parseAccount = (
  accountId: string
): Either.Either<{ readonly chainId: string; readonly address: string }, string> => {
  const [namespace, reference, address, ...rest] = accountId.split(":")
  return namespace && reference && address && rest.length === 0
    ? Either.right({ chainId: `${namespace}:${reference}`, address })
    : Either.left("InvalidAccountId")
}

/**
 * Judges as this library does: by its key package validation and its association rules, which are libxmtp's.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<NodeValidation, never, MlsCrypto | SmartContractWalletVerifier> = Layer.effect(
  NodeValidation,
  Effect.gen(function* () {
    const crypto = yield* MlsCrypto
    const verifier = yield* SmartContractWalletVerifier
    return {
      keyPackage: (keyPackage) =>
        DateTime.now.pipe(
          Effect.flatMap((now) => validateKeyPackage(keyPackage, now)),
          Effect.provideService(MlsCrypto, crypto),
          Effect.mapBoth({
            onSuccess: ({ installationId }) => InstallationId.toPublicKey(installationId),
            onFailure: ({ message }) => `XMTP Key Package failed ${message}`
          })
        ),
      emptyInbox: membersOf(undefined, verifier),
      smartContractWallet: ({ accountId, blockNumber, hash, signature }) =>
        Effect.flatMap(parseAccount(accountId), (account) =>
          verifier
            .isValid({ ...account, hash, signature, blockNumber: blockNumber ?? 0n })
            .pipe(Effect.mapError(({ message }) => message))
        )
    }
  })
)

/**
 * `layer` with node:crypto, and this answer about smart contract wallets: `VectorWallets.layer`, or a chain of the test's.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerWith = (wallets: Layer.Layer<SmartContractWalletVerifier>): Layer.Layer<NodeValidation> =>
  Layer.provide(layer, [NodeMlsCrypto.layer, wallets])

/**
 * `layerWith` no chain to ask about smart contract wallets.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerDefault: Layer.Layer<NodeValidation> = layerWith(layerNone)
