/**
 * Reading protobuf exactly as prost 0.13 does, the library that libxmtp reads key packages with. Other readers differ in
 * what they skip and what they refuse, and here that would be a different verdict on somebody's package.
 */

import { bytesToHex } from "@noble/hashes/utils.js"

/** Why prost refuses a message. */
export type ProstReason =
  | "InvalidVarint"
  | "InvalidKey"
  | "InvalidWireType"
  | "InvalidTag"
  | "UnexpectedWireType"
  | "UnexpectedEndGroup"
  | "BufferUnderflow"
  | "RecursionLimit"
  | "InvalidUtf8"

/** A refusal, thrown inside this module's readers and turned into a typed error by `attempt`. */
export class ProstFailure {
  readonly reason: ProstReason
  /** Where, in bytes from the start of the outermost message. */
  readonly offset: number
  constructor(reason: ProstReason, offset: number) {
    this.reason = reason
    this.offset = offset
  }
}

/** Runs a reader; a refusal is a value, anything else is a bug and goes on. */
export const attempt = <A, E>(read: () => A, onFailure: (failure: ProstFailure) => E): A | E => {
  try {
    return read()
  } catch (thrown) {
    if (thrown instanceof ProstFailure) return onFailure(thrown)
    throw thrown
  }
}

const VARINT = 0
const FIXED64 = 1
const DELIMITED = 2
const START_GROUP = 3
const END_GROUP = 4
const FIXED32 = 5

/** How deep messages and groups may nest together (prost `RECURSION_LIMIT`). */
export const RECURSION_LIMIT = 100

const strictUtf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

/** Node's own turns bytes into text several times faster; only some platforms have it. */
const { Buffer: NodeBuffer } = globalThis

/** Text of a part of some bytes. */
interface Texts {
  readonly hex: (start: number, end: number) => string
  readonly ascii: (start: number, end: number) => string
}

const textsOf = (bytes: Uint8Array): Texts => {
  if (NodeBuffer === undefined) {
    return {
      hex: (start, end) => bytesToHex(bytes.subarray(start, end)),
      ascii: (start, end) => String.fromCharCode(...bytes.subarray(start, end))
    }
  }
  const buffer = NodeBuffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  return {
    hex: (start, end) => buffer.toString("hex", start, end),
    ascii: (start, end) => buffer.toString("latin1", start, end)
  }
}

/** A cursor over one message. */
export class ProstReader {
  readonly #bytes: Uint8Array
  /** The reader of the outermost message, which makes them when the first text is read. */
  #root: ProstReader = this
  #texts: Texts | undefined
  #position: number
  readonly #end: number
  #wireType = 0

  /** Of the message in these bytes, or in a part of them. */
  constructor(bytes: Uint8Array, start = 0, end = bytes.length) {
    this.#bytes = bytes
    this.#position = start
    this.#end = end
  }

  /** The field number of the next field, or 0 at the end of the message. */
  nextField(): number {
    return this.#position === this.#end ? 0 : this.#key()
  }

  /** The current field as `bytes`. */
  delimited(): Uint8Array {
    const start = this.#start()
    return this.#bytes.subarray(start, this.#position)
  }

  /** The current field as `bytes`, in lower-case hex. */
  hex(): string {
    const start = this.#start()
    return this.#text.hex(start, this.#position)
  }

  /** A reader of the current field, a message. Its offsets count from the start of the outermost one. */
  message(): ProstReader {
    const start = this.#start()
    const reader = new ProstReader(this.#bytes, start, this.#position)
    reader.#root = this.#root
    return reader
  }

  /** Whether the rest of this message is byte for byte the rest of the other one. */
  equals(other: ProstReader): boolean {
    const length = this.#end - this.#position
    if (length !== other.#end - other.#position) return false
    for (let i = 0; i < length; i++) {
      if (this.#bytes[this.#position + i] !== other.#bytes[other.#position + i]) return false
    }
    return true
  }

  /** The current field as `string`. */
  text(): string {
    const field = this.#position
    const start = this.#start()
    const end = this.#position
    let ascii = true
    for (let i = start; i < end && ascii; i++) ascii = (this.#bytes[i] ?? 0) < 0x80
    // The usual identity is 64 hex digits; this is several times faster than the decoder.
    if (ascii && end - start <= 256) return this.#text.ascii(start, end)
    try {
      return strictUtf8.decode(this.#bytes.subarray(start, end))
    } catch {
      throw new ProstFailure("InvalidUtf8", field)
    }
  }

  get #text(): Texts {
    const root = this.#root
    root.#texts ??= textsOf(root.#bytes)
    return root.#texts
  }

  /** Passes over the current field, which is delimited; where its content starts. */
  #start(): number {
    this.#expect(DELIMITED)
    const length = this.#length()
    this.#position += length
    return this.#position - length
  }

  /** The current field as `int32` or an enum: the low 32 bits, signed. */
  int32(): number {
    this.#expect(VARINT)
    return this.#varint().low | 0
  }

  /** The current field as `uint64`. */
  uint64(): bigint {
    this.#expect(VARINT)
    const { high, low } = this.#varint()
    return high === 0 ? BigInt(low) : (BigInt(high) << 32n) | BigInt(low)
  }

  /** The current field as one or several enum values: a repeated field, packed or not. */
  int32s(): ReadonlyArray<number> {
    if (this.#wireType !== DELIMITED) return [this.int32()]
    const length = this.#length()
    const end = this.#position + length
    const values: Array<number> = []
    while (this.#position < end) values.push(this.#varint().low | 0)
    if (this.#position > end) throw new ProstFailure("BufferUnderflow", end)
    return values
  }

  /** Bytes from the start of the outermost message to what is read next. */
  get position(): number {
    return this.#position
  }

  /** The wire type of the current field. */
  get wireType(): number {
    return this.#wireType
  }

  /** Passes over the current field, groups included, which may nest `depthLeft` deep. */
  skip(fieldNumber: number, depthLeft = RECURSION_LIMIT): void {
    this.#skip(this.#wireType, fieldNumber, depthLeft)
  }

  #skip(wireType: number, fieldNumber: number, depthLeft: number): void {
    if (depthLeft === 0) throw new ProstFailure("RecursionLimit", this.#position)
    switch (wireType) {
      case VARINT:
        this.#varint()
        return
      case FIXED64:
        return this.#advance(8)
      case DELIMITED:
        return this.#advance(this.#length())
      case FIXED32:
        return this.#advance(4)
      case START_GROUP:
        for (;;) {
          const inner = this.#key()
          if (this.#wireType === END_GROUP) {
            if (inner !== fieldNumber) throw new ProstFailure("UnexpectedEndGroup", this.#position)
            return
          }
          this.#skip(this.#wireType, inner, depthLeft - 1)
        }
      default:
        throw new ProstFailure("UnexpectedEndGroup", this.#position)
    }
  }

  #key(): number {
    const start = this.#position
    const { low, high } = this.#varint()
    if (high !== 0) throw new ProstFailure("InvalidKey", start)
    const wireType = low & 7
    if (wireType > FIXED32) throw new ProstFailure("InvalidWireType", start)
    const fieldNumber = low >>> 3
    if (fieldNumber === 0) throw new ProstFailure("InvalidTag", start)
    this.#wireType = wireType
    return fieldNumber
  }

  #expect(wireType: number): void {
    if (this.#wireType !== wireType) throw new ProstFailure("UnexpectedWireType", this.#position)
  }

  /** A length that the rest of the message can hold. */
  #length(): number {
    const start = this.#position
    const { low, high } = this.#varint()
    if (high !== 0 || low > this.#end - this.#position) throw new ProstFailure("BufferUnderflow", start)
    return low
  }

  #advance(length: number): void {
    if (length > this.#end - this.#position) throw new ProstFailure("BufferUnderflow", this.#position)
    this.#position += length
  }

  /** Up to ten bytes, the tenth at most 1. Longer forms than needed are accepted. */
  #varint(): { readonly low: number; readonly high: number } {
    const start = this.#position
    let low = 0
    let high = 0
    for (let i = 0; i < 10; i++) {
      const byte = this.#position < this.#end ? this.#bytes[this.#position] : undefined
      if (byte === undefined) throw new ProstFailure("InvalidVarint", start)
      this.#position++
      const bits = byte & 0x7f
      if (i < 4) low = (low | (bits << (7 * i))) >>> 0
      else if (i === 4) {
        low = (low | (bits << 28)) >>> 0
        high = bits >>> 4
      } else high = (high | (bits << (7 * i - 32))) >>> 0
      if (byte < 0x80) {
        if (i === 9 && byte > 1) throw new ProstFailure("InvalidVarint", start)
        return { low, high }
      }
    }
    throw new ProstFailure("InvalidVarint", start)
  }
}
