/**
 * Decoding protobuf as strictly as the network's own clients do.
 *
 * @since 1.0.0
 */
import { type DescMessage, fromBinary, type MessageShape } from "@bufbuild/protobuf"
import * as Either from "effect/Either"
import * as strictWire from "./strictWire.ts"

/** Decodes a message, refusing what prost refuses. The refusal says what and where, and repeats no content. */
export const decode = <Desc extends DescMessage>(
  schema: Desc,
  bytes: Uint8Array
): Either.Either<MessageShape<Desc>, string> => {
  const problem = strictWire.find(schema, bytes)
  if (problem !== undefined) return Either.left(`${problem.problem} at byte ${problem.offset}`)
  try {
    return Either.right(fromBinary(schema, bytes))
  } catch {
    // The wire is sound by now; what is left to fail is a string that is not UTF-8.
    return Either.left("a string is not UTF-8")
  }
}
