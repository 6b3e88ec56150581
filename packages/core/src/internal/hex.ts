/**
 * Lower-case hexadecimal, the text form of every id of the network.
 *
 * @since 1.0.0
 */
import { bytesToHex, hexToBytes } from "@noble/hashes/utils.js"
import * as Schema from "effect/Schema"

/** Node's own does it several times faster; only some platforms have it. */
const { Buffer: NodeBuffer } = globalThis

/** Bytes to lower-case hex. */
export const encode: (bytes: Uint8Array) => string =
  NodeBuffer === undefined
    ? bytesToHex
    : (bytes) => NodeBuffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("hex")

/** Hex of a branded id to bytes. The brand has already proven the text; what is no hex throws. */
export const decode: (hex: string) => Uint8Array =
  NodeBuffer === undefined
    ? hexToBytes
    : (hex) => {
        const bytes = new Uint8Array(hex.length >> 1)
        // It stops at what is no digit.
        const written = NodeBuffer.from(bytes.buffer).write(hex, "hex")
        return 2 * written === hex.length ? bytes : hexToBytes(hex)
      }

const hex32 = /^[0-9a-f]{64}$/

/** Whether a text is that of exactly 32 bytes: several times faster than the schema says it. */
export const isHex32 = (text: string): boolean => hex32.test(text)

/** For `make` of what is such a text by construction. */
export const unchecked = { disableValidation: true } as const

/** Text of exactly 32 bytes in lower-case hex. */
export const Hex32 = Schema.String.pipe(Schema.pattern(hex32, { message: () => "expected 64 lower-case hex digits" }))
