/**
 * Lower-case hexadecimal, the text form of every id of the network.
 *
 * @since 1.0.0
 */
import { bytesToHex, hexToBytes } from "@noble/hashes/utils.js"
import * as Schema from "effect/Schema"

/** Bytes to lower-case hex. */
export const encode = (bytes: Uint8Array): string => bytesToHex(bytes)

/** Hex of a branded id to bytes. The brand has already proven the text. */
export const decode = (hex: string): Uint8Array => hexToBytes(hex)

/** Text of exactly 32 bytes in lower-case hex. */
export const Hex32 = Schema.String.pipe(
  Schema.pattern(/^[0-9a-f]{64}$/, { message: () => "expected 64 lower-case hex digits" })
)
