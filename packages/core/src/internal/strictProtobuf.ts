/**
 * Decoding protobuf as strictly as the network's own clients do. prost refuses what protobuf-es lets pass: a wrong wire
 * type on a known field, a nested message over its end, a varint above 64 bits, a tag above 32 bits. A message that we
 * accept and they do not would split our view of an inbox from theirs.
 *
 * @since 1.0.0
 */
import { type DescField, type DescMessage, fromBinary, type MessageShape, ScalarType } from "@bufbuild/protobuf"
import * as Either from "effect/Either"
import { attempt, ProstFailure, ProstReader, RECURSION_LIMIT } from "./prost.ts"

interface FieldRule {
  readonly wireType: number
  /** A repeated number, which may come as one delimited field. */
  readonly packable: boolean
  readonly message: DescMessage | undefined
}

const VARINT = 0
const FIXED64 = 1
const DELIMITED = 2
const FIXED32 = 5

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
  if (field.fieldKind === "map") return { wireType: DELIMITED, packable: false, message: undefined }
  if (field.message !== undefined) return { wireType: DELIMITED, packable: false, message: field.message }
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

/** Reads what prost would read, keeps nothing, and throws prost's refusal with the offset in the whole message. */
const walk = (message: DescMessage, reader: ProstReader, depthLeft: number): void => {
  const known = rulesOf(message)
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    const rule = known.get(field)
    if (rule === undefined) reader.skip(field, depthLeft)
    else if (rule.message !== undefined) {
      const nested = reader.message()
      if (depthLeft === 0) throw new ProstFailure("RecursionLimit", nested.position)
      walk(rule.message, nested, depthLeft - 1)
    } else if (reader.wireType === rule.wireType || (rule.packable && reader.wireType === DELIMITED)) {
      reader.skip(field, depthLeft)
    } else throw new ProstFailure("UnexpectedWireType", reader.position)
  }
}

/** Decodes a message, refusing what prost refuses. The refusal says what and where, and repeats no content. */
export const decode = <Desc extends DescMessage>(
  schema: Desc,
  bytes: Uint8Array
): Either.Either<MessageShape<Desc>, string> => {
  const refusal = attempt(
    () => walk(schema, new ProstReader(bytes), RECURSION_LIMIT),
    ({ offset, reason }) => `${reason} at byte ${offset}`
  )
  if (refusal !== undefined) return Either.left(refusal)
  try {
    // Depth has been judged above, and protobuf-es counts it otherwise.
    return Either.right(fromBinary(schema, bytes, { readUnknownFields: false, recursionLimit: 2 * RECURSION_LIMIT }))
  } catch {
    // The wire is sound by now; what is left to fail is a string that is not UTF-8.
    return Either.left("InvalidUtf8")
  }
}
