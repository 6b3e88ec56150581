/**
 * What a failed call means to the caller: one table from gRPC codes to the reasons of `ApiClientError`.
 *
 * @since 1.0.0
 */
import { ApiClientError, type Operation, type Reason } from "@keyward/core/ports/ApiClient"
import * as Clock from "effect/Clock"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { GrpcStatusError, Metadata, TransportError } from "./Transport.ts"

/**
 * The reason for each gRPC status code (grpc `statuscodes.md`). Codes that are not here count as 2, as gRPC asks.
 *
 * @since 1.0.0
 * @category constants
 */
export const reasonOfCode: Readonly<Record<number, Reason>> = {
  // An OK that came as a failure.
  0: "MalformedResponse",
  // CANCELLED, by someone on the way: this side never hears of its own.
  1: "Transport",
  // UNKNOWN: what a node answers for an error that it gave no status
  2: "Internal",
  // INVALID_ARGUMENT
  3: "InvalidRequest",
  // DEADLINE_EXCEEDED at the node, before this side's own
  4: "Internal",
  // NOT_FOUND, ALREADY_EXISTS
  5: "InvalidRequest",
  6: "InvalidRequest",
  // PERMISSION_DENIED
  7: "PermissionDenied",
  // RESOURCE_EXHAUSTED
  8: "RateLimited",
  // FAILED_PRECONDITION
  9: "InvalidRequest",
  // ABORTED
  10: "Internal",
  // OUT_OF_RANGE
  11: "InvalidRequest",
  // UNIMPLEMENTED: an unknown call, or this client's version refused (xmtp-node-go `gating.go`)
  12: "UnsupportedClient",
  // INTERNAL
  13: "Internal",
  // UNAVAILABLE
  14: "Unavailable",
  // DATA_LOSS
  15: "MalformedResponse",
  // UNAUTHENTICATED
  16: "PermissionDenied"
}

/** Codes whose text says more (libxmtp `d14n.rs`; a gateway's `payer/service.go`; grpc-go's size check). */
const reasonOfText: ReadonlyArray<readonly [code: number, text: RegExp, reason: Reason]> = [
  [
    14,
    /(?:publishing to XMTP V3 is no longer available|XMTP V3 streaming is no longer available)\. Please upgrade your client to XMTP D14N\./,
    "MigratedToD14n"
  ],
  [13, /could not validate key package/, "InvalidRequest"],
  [8, /message larger than max/, "InvalidRequest"]
]

/**
 * The reason for a status.
 *
 * @since 1.0.0
 * @category conversions
 */
export const reasonOf = ({ code, detail }: Pick<GrpcStatusError, "code" | "detail">): Reason =>
  reasonOfText.find(([textCode, text]) => textCode === code && text.test(detail))?.[2] ??
  reasonOfCode[code] ??
  "Internal"

const maxDetail = 512

/**
 * A text as errors carry it: at most 512 UTF-16 units, no character cut in two; none where there is nothing to say.
 *
 * @since 1.0.0
 * @category conversions
 */
export const cut = (detail: string): string | undefined =>
  detail === "" ? undefined : detail.slice(0, maxDetail).replace(/[\uD800-\uDBFF]$/, "")

const wholeNumber = (text: string | undefined): number | undefined =>
  text !== undefined && /^\d{1,9}$/.test(text) ? Number(text) : undefined

/**
 * How long the node asks to wait: `grpc-retry-pushback-ms`, else `retry-after` in seconds or as an HTTP date, which is
 * compared with `now` (milliseconds since 1970). What cannot be read is none.
 *
 * @since 1.0.0
 * @category conversions
 */
export const retryAfterOf = (metadata: Metadata, now: number): Option.Option<Duration.Duration> => {
  const pushback = wholeNumber(metadata["grpc-retry-pushback-ms"])
  // A negative pushback says never (gRFC A6).
  if (metadata["grpc-retry-pushback-ms"]?.startsWith("-") === true) return Option.some(Duration.infinity)
  if (pushback !== undefined) return Option.some(Duration.millis(pushback))
  const header = metadata["retry-after"]
  const seconds = wholeNumber(header)
  if (seconds !== undefined) return Option.some(Duration.seconds(seconds))
  const date = /^[A-Z][a-z]{2}, .* GMT$/.test(header ?? "") ? Date.parse(header ?? "") : Number.NaN
  return Number.isNaN(date) ? Option.none() : Option.some(Duration.millis(Math.max(0, date - now)))
}

/**
 * The one error of the network layer for a call that failed on its way.
 *
 * @since 1.0.0
 * @category conversions
 */
export const toApiClientError = (operation: Operation, error: TransportError): Effect.Effect<never, ApiClientError> =>
  Effect.flatMap(Clock.currentTimeMillis, (now) => {
    switch (error._tag) {
      case "GrpcStatusError":
        return new ApiClientError({
          operation,
          reason: reasonOf(error),
          grpcCode: error.code,
          detail: cut(error.detail),
          retryAfter: Option.getOrUndefined(retryAfterOf(error.metadata, now))
        })
      case "ConnectionError":
        return new ApiClientError({ operation, reason: "Transport", detail: cut(error.detail) })
      case "DeadlineError":
        return new ApiClientError({ operation, reason: "Timeout", detail: error.message })
      case "ProtocolError":
        return new ApiClientError({ operation, reason: "MalformedResponse", detail: cut(error.detail) })
    }
  })
