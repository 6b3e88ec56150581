/**
 * The id of an inbox: the user behind wallets, passkeys and installations.
 *
 * @since 1.0.0
 */
import { sha256 } from "@noble/hashes/sha2.js"
import { utf8ToBytes } from "@noble/hashes/utils.js"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import * as hex from "../internal/hex.ts"
import type { Identifier } from "./Identifier.ts"
import { type RootIdentifier, toText } from "./MemberIdentifier.ts"

/**
 * An inbox id: SHA-256 of the first identifier and a nonce, as 64 lower-case hex digits
 * (libxmtp `xmtp_id/src/associations/member.rs`).
 *
 * @since 1.0.0
 * @category models
 */
export const InboxId = hex.Hex32.pipe(Schema.brand("@keyward/core/InboxId"))

/**
 * @since 1.0.0
 * @category models
 */
export type InboxId = typeof InboxId.Type

/**
 * Whether a text is an inbox id.
 *
 * @since 1.0.0
 * @category refinements
 */
export const isInboxId = (text: string): text is InboxId => hex.isHex32(text)

/**
 * What tells several inboxes of one identifier apart: an unsigned 64-bit integer.
 *
 * @since 1.0.0
 * @category models
 */
export const InboxNonce = Schema.BigIntFromSelf.pipe(
  Schema.betweenBigInt(0n, 0xffff_ffff_ffff_ffffn),
  Schema.brand("@keyward/core/InboxNonce")
)

/**
 * @since 1.0.0
 * @category models
 */
export type InboxNonce = typeof InboxNonce.Type

/**
 * The nonce that XMTP's SDKs use for an identifier's first inbox (`bindings/node/src/inbox_id.rs`). libxmtp's own Rust
 * default is 0, which only inboxes of the network's first version still need.
 *
 * @since 1.0.0
 * @category constants
 */
export const defaultNonce: InboxNonce = InboxNonce.make(1n)

/**
 * The inbox that this identifier founds with this nonce. A nonce outside 64 bits throws, as every `make` does.
 *
 * @since 1.0.0
 * @category constructors
 */
export const derive = (identifier: Identifier, nonce: bigint = defaultNonce): InboxId =>
  hash(toText(identifier), InboxNonce.make(nonce))

/**
 * The inbox of an identifier as a log spells it, in whatever letter case; none where the address is not `0x` and 40 hex
 * digits, which founds no inbox (libxmtp's `InvalidAccountAddress`).
 *
 * @since 1.0.0
 * @category constructors
 */
export const deriveVerbatim = (identifier: RootIdentifier, nonce: bigint): Option.Option<InboxId> =>
  identifier._tag === "Ethereum" && !/^0x[0-9a-fA-F]{40}$/.test(identifier.address)
    ? Option.none()
    : Option.some(hash(toText(identifier), nonce))

const hash = (text: string, nonce: bigint): InboxId => InboxId.make(hex.encode(sha256(utf8ToBytes(`${text}${nonce}`))))
