/**
 * Reading the presentation language of MLS (RFC 9420 section 2.1) as OpenMLS does: lengths in their shortest form only, so
 * that what was read and what would be written are the same bytes, and signatures are checked over the bytes that arrived.
 */

/** Why bytes are not what belongs there. */
export type TlsReason = "EndOfStream" | "InvalidVectorLength" | "TrailingData"

/** A refusal, thrown by the reader and turned into a typed error by whoever reads. */
export class TlsFailure {
  readonly reason: TlsReason
  /** Bytes from the start of what is read. */
  readonly offset: number
  constructor(reason: TlsReason, offset: number) {
    this.reason = reason
    this.offset = offset
  }
}

/** A cursor over bytes, which may begin and end within a larger array. What it returns are views. */
export class TlsReader {
  readonly bytes: Uint8Array
  position: number
  readonly #end: number

  constructor(bytes: Uint8Array, start = 0, end = bytes.length) {
    this.bytes = bytes
    this.position = start
    this.#end = end
  }

  get isAtEnd(): boolean {
    return this.position === this.#end
  }

  uint8(): number {
    if (this.position >= this.#end) throw new TlsFailure("EndOfStream", this.position)
    const byte = this.bytes[this.position] ?? 0
    this.position++
    return byte
  }

  uint16(): number {
    return (this.uint8() << 8) | this.uint8()
  }

  uint32(): number {
    return this.uint16() * 0x10000 + this.uint16()
  }

  uint64(): bigint {
    return (BigInt(this.uint32()) << 32n) | BigInt(this.uint32())
  }

  /** The end of the vector that begins here: a length of 1, 2 or 4 bytes, as few as possible, and as many bytes. */
  vectorEnd(): number {
    const start = this.position
    const first = this.uint8()
    let length = first & 0x3f
    switch (first >>> 6) {
      case 0:
        break
      case 1:
        length = (length << 8) | this.uint8()
        if (length < 0x40) throw new TlsFailure("InvalidVectorLength", start)
        break
      case 2:
        length = (length << 24) | (this.uint8() << 16) | this.uint16()
        if (length < 0x4000) throw new TlsFailure("InvalidVectorLength", start)
        break
      default:
        throw new TlsFailure("InvalidVectorLength", start)
    }
    if (length > this.#end - this.position) throw new TlsFailure("EndOfStream", start)
    return this.position + length
  }

  /** `opaque<V>` */
  opaque(): Uint8Array {
    const end = this.vectorEnd()
    const view = this.bytes.subarray(this.position, end)
    this.position = end
    return view
  }

  /** A vector of whatever the reader reads, up to exactly its end. */
  vector<A>(read: (inner: TlsReader) => A): Array<A> {
    const end = this.vectorEnd()
    const inner = new TlsReader(this.bytes, this.position, end)
    const values: Array<A> = []
    while (!inner.isAtEnd) values.push(read(inner))
    this.position = end
    return values
  }

  /** `uint16 …<V>` */
  uint16s(): Array<number> {
    return this.vector((inner) => inner.uint16())
  }

  /** `optional<T>` */
  optional<A>(read: () => A): A | undefined {
    const start = this.position
    switch (this.uint8()) {
      case 0:
        return undefined
      case 1:
        return read()
      default:
        throw new TlsFailure("InvalidVectorLength", start)
    }
  }

  /** Everything since a position. */
  since(start: number): Uint8Array {
    return this.bytes.subarray(start, this.position)
  }

  end(): void {
    if (!this.isAtEnd) throw new TlsFailure("TrailingData", this.position)
  }
}

const lengthOf = (length: number): ReadonlyArray<number> => {
  if (length < 0x40) return [length]
  if (length < 0x4000) return [0x40 | (length >>> 8), length & 0xff]
  return [0x80 | (length >>> 24), (length >>> 16) & 0xff, (length >>> 8) & 0xff, length & 0xff]
}

/** One `opaque<V>` after the other. */
export const writeVectors = (...vectors: ReadonlyArray<Uint8Array>): Uint8Array => {
  const lengths = vectors.map(({ length }) => lengthOf(length))
  const bytes = new Uint8Array(vectors.reduce((sum, { length }, i) => sum + length + (lengths[i]?.length ?? 0), 0))
  let at = 0
  for (const [i, vector] of vectors.entries()) {
    const length = lengths[i] ?? []
    bytes.set(length, at)
    bytes.set(vector, at + length.length)
    at += length.length + vector.length
  }
  return bytes
}
