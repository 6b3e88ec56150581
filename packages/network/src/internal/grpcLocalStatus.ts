/**
 * What a status of @grpc/grpc-js means: it uses the same codes for what the node answered and for what happened to the
 * connection.
 *
 * @since 1.0.0
 */
import { ConnectionError, GrpcStatusError, type Metadata, ProtocolError } from "../Transport.ts"

/**
 * The words of grpc-js 1.14 for statuses that it makes itself after the node's headers arrived (`subchannel-call.ts`,
 * `client.ts`, `stream-decoder.ts`).
 */
const brokenAfterHeaders =
  /^(?:Connection dropped|Received RST_STREAM|Call cancelled|Stream refused|Bandwidth exhausted|Protocol not secure|read E|write E)/
const tooLarge = /^Received message larger than max/
const notAnAnswer = /^(?:Received message larger than max|No message received|Too many responses received)/

/**
 * Tells the node's word from the library's. A node's status comes with headers (`content-type` at least), before it or
 * with it; a status without any is about the connection.
 */
export const classify = (
  status: { readonly code: number; readonly details: string; readonly metadata: Metadata },
  sawHeaders: boolean
): GrpcStatusError | ConnectionError | ProtocolError => {
  const { code, details, metadata } = status
  const bare = Object.keys(metadata).length === 0
  if (sawHeaders && notAnAnswer.test(details) && (bare || code === 12)) {
    return new ProtocolError({ detail: details, isTooLarge: tooLarge.test(details) })
  }
  const broken = bare && (!sawHeaders || brokenAfterHeaders.test(details))
  return broken ? new ConnectionError({ detail: details }) : new GrpcStatusError({ code, detail: details, metadata })
}
