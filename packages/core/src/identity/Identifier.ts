/**
 * What a person proves ownership with.
 *
 * @since 1.0.0
 */
import * as Schema from "effect/Schema"

/**
 * An Ethereum address, `0x` and 40 lower-case hex digits.
 *
 * @since 1.0.0
 * @category models
 */
export const EthereumAddress = Schema.String.pipe(
  Schema.pattern(/^0x[0-9a-f]{40}$/, { message: () => "expected 0x and 40 lower-case hex digits" }),
  Schema.brand("@keyward/core/EthereumAddress")
)

/**
 * @since 1.0.0
 * @category models
 */
export type EthereumAddress = typeof EthereumAddress.Type

/**
 * An identifier that the network can look an inbox up by (`IDENTIFIER_KIND_*` of the proto).
 *
 * @since 1.0.0
 * @category models
 */
export const Identifier = Schema.Union(
  Schema.TaggedStruct("Ethereum", { address: EthereumAddress }),
  Schema.TaggedStruct("Passkey", {
    /** The public key bytes as given, lower-case hex. */
    publicKey: Schema.String.pipe(Schema.pattern(/^(?:[0-9a-f]{2})+$/))
  })
)

/**
 * @since 1.0.0
 * @category models
 */
export type Identifier = typeof Identifier.Type

/**
 * The identifier of an Ethereum wallet. Accepts any letter case, as wallets print checksummed addresses.
 *
 * @since 1.0.0
 * @category constructors
 */
export const ethereum = (address: string): Identifier => ({
  _tag: "Ethereum",
  address: EthereumAddress.make(address.toLowerCase())
})
