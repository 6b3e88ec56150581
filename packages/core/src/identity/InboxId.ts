/**
 * The id of an inbox: the user behind wallets, passkeys and installations.
 *
 * @since 1.0.0
 */
import * as Schema from "effect/Schema"
import { Hex32 } from "../internal/hex.ts"

/**
 * An inbox id: SHA-256 of the first identifier and a nonce, as 64 lower-case hex digits
 * (libxmtp `xmtp_id/src/associations/member.rs`).
 *
 * @since 1.0.0
 * @category models
 */
export const InboxId = Hex32.pipe(Schema.brand("@keyward/core/InboxId"))

/**
 * @since 1.0.0
 * @category models
 */
export type InboxId = typeof InboxId.Type
