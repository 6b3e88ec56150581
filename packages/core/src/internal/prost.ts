/**
 * Reading protobuf exactly as prost 0.13 does, the library that libxmtp reads key packages with. Other readers differ in
 * what they skip and what they refuse, and here that would be a different verdict on somebody's package.
 */

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
  /** Where in the message, in bytes from its start. */
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

/** Node's own is several times faster; only some platforms have it. */
const { Buffer: NodeBuffer } = globalThis
const fromAscii: (bytes: Uint8Array) => string =
  NodeBuffer === undefined
    ? (bytes) => String.fromCharCode(...bytes)
    : (bytes) => NodeBuffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength).toString("latin1")

/** A cursor over one message. */
export class ProstReader {
  readonly #bytes: Uint8Array
  #position = 0
  #wireType = 0

  constructor(bytes: Uint8Array) {
    this.#bytes = bytes
  }

  /** The field number of the next field, or 0 at the end of the message. */
  nextField(): number {
    return this.#position === this.#bytes.length ? 0 : this.#key()
  }

  /** The current field as `bytes`. */
  delimited(): Uint8Array {
    this.#expect(DELIMITED)
    const length = this.#length()
    this.#position += length
    return this.#bytes.subarray(this.#position - length, this.#position)
  }

  /** The current field as `string`. */
  text(): string {
    const start = this.#position
    const bytes = this.delimited()
    let ascii = true
    for (let i = 0; i < bytes.length && ascii; i++) ascii = (bytes[i] ?? 0) < 0x80
    // The usual identity is 64 hex digits; this is several times faster than the decoder.
    if (ascii && bytes.length <= 256) return fromAscii(bytes)
    try {
      return strictUtf8.decode(bytes)
    } catch {
      throw new ProstFailure("InvalidUtf8", start)
    }
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

  /** Bytes from the start of the message to what is read next. */
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
    if (high !== 0 || low > this.#bytes.length - this.#position) throw new ProstFailure("BufferUnderflow", start)
    return low
  }

  #advance(length: number): void {
    if (length > this.#bytes.length - this.#position) throw new ProstFailure("BufferUnderflow", this.#position)
    this.#position += length
  }

  /** Up to ten bytes, the tenth at most 1. Longer forms than needed are accepted. */
  #varint(): { readonly low: number; readonly high: number } {
    const start = this.#position
    let low = 0
    let high = 0
    for (let i = 0; i < 10; i++) {
      const byte = this.#bytes[this.#position]
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
