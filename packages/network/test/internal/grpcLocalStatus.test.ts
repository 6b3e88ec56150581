/**
 * Whose word a status of grpc-js is: the node's, or the library's about the connection.
 */
import { expect, it } from "@effect/vitest"
import { classify } from "../../src/internal/grpcLocalStatus.ts"

const headers = { "content-type": "application/grpc" }

it.each<readonly [code: number, details: string, metadata: Record<string, string>, sawHeaders: boolean, tag: string]>([
  // Trailers only: the headers come with the status.
  [14, "try later", headers, false, "GrpcStatusError"],
  [14, "Connection dropped", headers, false, "GrpcStatusError"],
  // Headers first, then bare trailers.
  [13, "store error", {}, true, "GrpcStatusError"],
  [14, "try later", {}, true, "GrpcStatusError"],
  // Nothing arrived.
  [14, "No connection established. Last error: connect ECONNREFUSED", {}, false, "ConnectionError"],
  [14, "Name resolution failed for target dns:nowhere", {}, false, "ConnectionError"],
  [13, "Received RST_STREAM with code 2 (Internal server error)", {}, false, "ConnectionError"],
  [1, "Call cancelled", {}, false, "ConnectionError"],
  // It broke on the way.
  [14, "Connection dropped", {}, true, "ConnectionError"],
  [14, "read ECONNRESET", {}, true, "ConnectionError"],
  [13, "Received RST_STREAM with code 1", {}, true, "ConnectionError"],
  // What arrived is no answer.
  [8, "Received message larger than max (30000000 vs 26214400)", {}, true, "ProtocolError"],
  [12, "No message received", {}, true, "ProtocolError"],
  [12, "No message received", { "x-a": "b" }, true, "ProtocolError"],
  [12, "Too many responses received", {}, true, "ProtocolError"],
  [8, "Received message larger than max (1 vs 2)", headers, false, "GrpcStatusError"]
])("%i «%s» with %o, headers before: %s", (code, details, metadata, sawHeaders, tag) => {
  expect(classify({ code, details, metadata }, sawHeaders)._tag).toBe(tag)
})
