/**
 * The text of an update and what the signature kinds make of it, each computed once however many actions there are.
 *
 * @since 1.0.0
 */
import { sha512 } from "@noble/hashes/sha2.js"
import { keccak_256 } from "@noble/hashes/sha3.js"
import { concatBytes, utf8ToBytes } from "@noble/hashes/utils.js"

/**
 * The EIP-191 hash of a personal message: keccak-256 (32 bytes) of prefix, length in bytes, and text.
 *
 * @since 1.0.0
 * @category conversions
 */
export const eip191Hash = (text: Uint8Array): Uint8Array =>
  keccak_256(concatBytes(utf8ToBytes(`\x19Ethereum Signed Message:\n${text.length}`), text))

/**
 * A text that signatures are checked against.
 *
 * @since 1.0.0
 * @category models
 */
export class SignedText {
  /** The UTF-8 bytes. */
  readonly bytes: Uint8Array
  #eip191: Uint8Array | undefined
  #sha512: Uint8Array | undefined
  #base64Url: string | undefined

  constructor(text: string) {
    this.bytes = utf8ToBytes(text)
  }

  /** What a wallet signs, 32 bytes. */
  get eip191Hash(): Uint8Array {
    this.#eip191 ??= eip191Hash(this.bytes)
    return this.#eip191
  }

  /** What an installation key signs, 64 bytes. */
  get sha512(): Uint8Array {
    this.#sha512 ??= sha512(this.bytes)
    return this.#sha512
  }

  /** What a passkey signs as its challenge: the whole text in base64url without padding. */
  get base64Url(): string {
    this.#base64Url ??= toBase64Url(this.bytes)
    return this.#base64Url
  }
}

const toBase64Url = (bytes: Uint8Array): string => {
  let binary = ""
  for (let start = 0; start < bytes.length; start += 0x2000) {
    binary += String.fromCharCode(...bytes.subarray(start, start + 0x2000))
  }
  return btoa(binary).replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")
}
