/**
 * What a node reads of an MLS group message, which is otherwise opaque to it.
 *
 * @since 1.0.0
 */
import * as Either from "effect/Either"

/**
 * The part of an MLSMessage (RFC 9420 section 6) that a node files it by.
 *
 * @since 1.0.0
 * @category models
 */
export interface GroupMessageHeader {
  readonly groupId: Uint8Array
  /** A commit or a proposal (libxmtp `mls_validation_service/src/handlers.rs`, validate_group_message). */
  readonly isCommit: boolean
}

const PUBLIC_MESSAGE = 1
const PRIVATE_MESSAGE = 2
const PROPOSAL = 2
const COMMIT = 3

/** Sender types of a public message that carry a 4-byte index (RFC 9420 section 6). */
const SENDER_MEMBER = 1
const SENDER_EXTERNAL = 2

/**
 * Reads the header of a message. The left side is the reason, as the network's validation service words it.
 *
 * @since 1.0.0
 * @category decoding
 */
export const parse = (message: Uint8Array): Either.Either<GroupMessageHeader, string> => {
  const view = new DataView(message.buffer, message.byteOffset, message.byteLength)
  let at = 0

  const uint = (bytes: 1 | 2): number => {
    const value = bytes === 1 ? view.getUint8(at) : view.getUint16(at)
    at += bytes
    return value
  }
  const skip = (bytes: number): void => {
    at += bytes
    if (at > message.byteLength) throw new RangeError("EndOfStream")
  }
  // Variable-size vector: a 1, 2 or 4-byte length, told by the two highest bits (RFC 9420 section 2.1.2).
  const vector = (): Uint8Array => {
    const width = [1, 2, 4, 0][view.getUint8(at) >> 6] ?? 0
    if (width === 0) throw new RangeError("InvalidVectorLength")
    const length =
      width === 1 ? view.getUint8(at) : width === 2 ? view.getUint16(at) & 0x3fff : view.getUint32(at) & 0x3fffffff
    skip(width)
    const start = at
    skip(length)
    return new Uint8Array(message.subarray(start, at))
  }

  // A DataView throws a RangeError where the bytes end too early.
  return Either.try({
    try: () => {
      if (uint(2) !== 1) throw new RangeError("UnknownProtocolVersion")
      const wireFormat = uint(2)
      if (wireFormat !== PUBLIC_MESSAGE && wireFormat !== PRIVATE_MESSAGE) throw new RangeError("WrongWireFormat")
      const groupId = vector()
      skip(8) // epoch
      if (wireFormat === PUBLIC_MESSAGE) {
        const sender = uint(1)
        if (sender === SENDER_MEMBER || sender === SENDER_EXTERNAL) skip(4)
        vector() // authenticated_data
      }
      const contentType = uint(1)
      return { groupId, isCommit: contentType === COMMIT || contentType === PROPOSAL }
    },
    catch: () => "TLS Codec error: not an MLS group message"
  })
}
