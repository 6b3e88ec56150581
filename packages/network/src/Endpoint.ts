/**
 * Where a node is, from its URL.
 *
 * @since 1.0.0
 */
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"

/**
 * An option that cannot be used. Made when a layer is built, never by a call.
 *
 * @since 1.0.0
 * @category errors
 */
export class NetworkConfigError extends Schema.TaggedError<NetworkConfigError>("@keyward/network/NetworkConfigError")(
  "NetworkConfigError",
  {
    /** The name of the option. */
    option: Schema.String,
    /** What is wrong with it. */
    detail: Schema.String
  }
) {
  override get message(): string {
    return `${this.option} ${this.detail}`
  }
}

/**
 * The address of a node.
 *
 * @since 1.0.0
 * @category models
 */
export interface Endpoint {
  readonly host: string
  readonly port: number
  /** Whether the scheme asks for TLS: `https` or `grpcs`. */
  readonly tls: boolean
  /** What comes before `/<service>/<method>`, without a slash at its end; empty for a node itself. */
  readonly pathPrefix: string
}

const schemes: Readonly<Record<string, "tls" | "plain">> = {
  "http:": "plain",
  "grpc:": "plain",
  "https:": "tls",
  "grpcs:": "tls"
}

/**
 * Reads `http`, `grpc` (both plain), `https` and `grpcs` (both TLS) URLs; the port is 80 or 443 unless given.
 *
 * @since 1.0.0
 * @category constructors
 */
export const parse = (url: string): Either.Either<Endpoint, NetworkConfigError> => {
  const refuse = (detail: string) => Either.left(new NetworkConfigError({ option: "url", detail }))
  // Only http URLs are taken apart fully by every URL parser.
  const match = /^([a-z]+:)(\/\/.+)$/i.exec(url)
  const scheme = schemes[match?.[1]?.toLowerCase() ?? ""]
  if (scheme === undefined) return refuse("must begin with http://, grpc://, https:// or grpcs://")
  const asHttp = `${scheme === "tls" ? "https:" : "http:"}${match?.[2] ?? ""}`
  if (!URL.canParse(asHttp)) return refuse("is not a URL")
  const { hash, hostname, password, pathname, port, search, username } = new URL(asHttp)
  if (username !== "" || password !== "") return refuse("must not hold credentials")
  if (search !== "" || hash !== "") return refuse("must not hold a query or a fragment")
  return Either.right({
    host: hostname,
    port: port === "" ? (scheme === "tls" ? 443 : 80) : Number(port),
    tls: scheme === "tls",
    pathPrefix: pathname.replace(/\/+$/, "")
  })
}
