/**
 * What prost refuses and protobuf-es lets pass. The network's nodes and clients decode with prost; a message that we
 * accept and they do not would split our view of an inbox from theirs.
 *
 * @since 1.0.0
 */
import { type DescField, type DescMessage, ScalarType } from "@bufbuild/protobuf"

/** Where the bytes stop being a message that prost would read, and why. Offsets are in bytes from the start. */
export interface WireProblem {
  readonly offset: number
  readonly problem: string
}

const VARINT = 0
const FIXED64 = 1
const DELIMITED = 2
const START_GROUP = 3
const END_GROUP = 4
const FIXED32 = 5

/** prost's `RECURSION_LIMIT`: nested messages and groups together. */
const RECURSION_LIMIT = 100

interface FieldRule {
  readonly wireType: number
  readonly packable: boolean
  readonly message: DescMessage | undefined
}

const scalarWireType = (scalar: ScalarType): number => {
  switch (scalar) {
    case ScalarType.STRING:
    case ScalarType.BYTES:
      return DELIMITED
    case ScalarType.DOUBLE:
    case ScalarType.FIXED64:
    case ScalarType.SFIXED64:
      return FIXED64
    case ScalarType.FLOAT:
    case ScalarType.FIXED32:
    case ScalarType.SFIXED32:
      return FIXED32
    default:
      return VARINT
  }
}

const ruleOf = (field: DescField): FieldRule => {
  if (field.message !== undefined) return { wireType: DELIMITED, packable: false, message: field.message }
  if (field.fieldKind === "map") return { wireType: DELIMITED, packable: false, message: undefined }
  const wireType = field.scalar === undefined ? VARINT : scalarWireType(field.scalar)
  return { wireType, packable: field.fieldKind === "list" && wireType !== DELIMITED, message: undefined }
}

const rules = new WeakMap<DescMessage, ReadonlyMap<number, FieldRule>>()

const rulesOf = (message: DescMessage): ReadonlyMap<number, FieldRule> => {
  let known = rules.get(message)
  if (known === undefined) {
    known = new Map(message.fields.map((field) => [field.number, ruleOf(field)]))
    rules.set(message, known)
  }
  return known
}

/** Thrown inside `find` alone. */
class Refusal {
  readonly problem: WireProblem
  constructor(offset: number, problem: string) {
    this.problem = { offset, problem }
  }
}

class Cursor {
  position = 0
  readonly bytes: Uint8Array
  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  /** An unsigned varint below 2^64. Above 2^53 the number is rounded: callers only compare it with smaller limits. */
  varint(end: number): number {
    const start = this.position
    let value = 0
    let factor = 1
    for (let count = 0; count < 10; count++) {
      if (this.position >= end) throw new Refusal(start, "ends inside a varint")
      const byte = this.bytes[this.position++] ?? 0
      value += (byte & 0x7f) * factor
      factor *= 128
      if (byte < 0x80) {
        if (count === 9 && byte > 1) throw new Refusal(start, "varint above 64 bits")
        return value
      }
    }
    throw new Refusal(start, "varint longer than 10 bytes")
  }

  /** The wire type; the field number is `key >>> 3` of the returned value. */
  key(end: number): number {
    const start = this.position
    const key = this.varint(end)
    if (key > 0xffff_ffff) throw new Refusal(start, "tag above 32 bits")
    if ((key & 7) > FIXED32) throw new Refusal(start, "unknown wire type")
    if (key >>> 3 === 0) throw new Refusal(start, "field number 0")
    return key
  }

  skip(length: number, end: number): void {
    if (length > end - this.position) throw new Refusal(this.position, "a field runs over its end")
    this.position += length
  }
}

const skipField = (cursor: Cursor, wireType: number, fieldNumber: number, end: number, depth: number): void => {
  if (depth === 0) throw new Refusal(cursor.position, "nested too deep")
  switch (wireType) {
    case VARINT:
      cursor.varint(end)
      return
    case FIXED64:
      return cursor.skip(8, end)
    case DELIMITED:
      return cursor.skip(cursor.varint(end), end)
    case FIXED32:
      return cursor.skip(4, end)
    case START_GROUP: {
      for (;;) {
        const key = cursor.key(end)
        if ((key & 7) === END_GROUP) {
          if (key >>> 3 !== fieldNumber) throw new Refusal(cursor.position, "unexpected end of a group")
          return
        }
        skipField(cursor, key & 7, key >>> 3, end, depth - 1)
      }
    }
    default:
      throw new Refusal(cursor.position, "unexpected end of a group")
  }
}

const readMessage = (cursor: Cursor, message: DescMessage, end: number, depth: number): void => {
  const known = rulesOf(message)
  while (cursor.position < end) {
    const start = cursor.position
    const key = cursor.key(end)
    const wireType = key & 7
    const rule = known.get(key >>> 3)
    if (rule === undefined) {
      skipField(cursor, wireType, key >>> 3, end, depth)
    } else if (wireType !== rule.wireType && !(rule.packable && wireType === DELIMITED)) {
      throw new Refusal(start, `wrong wire type for field ${key >>> 3} of ${message.typeName}`)
    } else if (rule.message === undefined) {
      skipField(cursor, wireType, key >>> 3, end, depth)
    } else {
      if (depth === 0) throw new Refusal(start, "nested too deep")
      const length = cursor.varint(end)
      if (length > end - cursor.position) throw new Refusal(start, "a message runs over its end")
      readMessage(cursor, rule.message, cursor.position + length, depth - 1)
    }
  }
}

/**
 * The first place where prost 0.13 would refuse these bytes as this message, or nothing: a wrong wire type on a known
 * field, a nested message or group that does not end where it must, a varint above 64 bits, a tag above 32 bits, field
 * number 0, more than 100 levels. Strings are left to the decoder, which checks their UTF-8.
 */
export const find = (message: DescMessage, bytes: Uint8Array): WireProblem | undefined => {
  try {
    readMessage(new Cursor(bytes), message, bytes.length, RECURSION_LIMIT)
    return undefined
  } catch (refusal) {
    if (refusal instanceof Refusal) return refusal.problem
    throw refusal
  }
}
