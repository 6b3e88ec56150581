/**
 * Which URLs name a node.
 */
import { describe, expect, it } from "@effect/vitest"
import * as Either from "effect/Either"
import { type Endpoint, parse } from "../src/Endpoint.ts"

describe("a node's URL", () => {
  it.each<readonly [string, Endpoint]>([
    ["http://localhost:5556", { host: "localhost", port: 5556, tls: false, pathPrefix: "" }],
    ["grpc://127.0.0.1:5556", { host: "127.0.0.1", port: 5556, tls: false, pathPrefix: "" }],
    ["https://grpc.dev.xmtp.network:443", { host: "grpc.dev.xmtp.network", port: 443, tls: true, pathPrefix: "" }],
    [
      "grpcs://grpc.production.xmtp.network",
      { host: "grpc.production.xmtp.network", port: 443, tls: true, pathPrefix: "" }
    ],
    ["HTTPS://Example.org/", { host: "example.org", port: 443, tls: true, pathPrefix: "" }],
    ["http://example.org", { host: "example.org", port: 80, tls: false, pathPrefix: "" }],
    ["https://example.org/xmtp/v3/", { host: "example.org", port: 443, tls: true, pathPrefix: "/xmtp/v3" }],
    ["grpc://[::1]:5556", { host: "[::1]", port: 5556, tls: false, pathPrefix: "" }]
  ])("%s", (url, expected) => {
    expect(parse(url)).toEqual(Either.right(expected))
  })

  it.each([
    ["", "url must begin with"],
    ["localhost:5556", "url must begin with"],
    ["ftp://localhost", "url must begin with"],
    ["http://", "url must begin with"],
    ["http://:5556", "url is not a URL"],
    ["http://host:99999", "url is not a URL"],
    ["https://user:secret@host", "url must not hold credentials"],
    ["https://host?key=secret", "url must not hold a query"],
    ["https://host#x", "url must not hold a query"]
  ])("refuses «%s», and repeats nothing of it", (url, message) => {
    const refused = Either.getOrThrow(Either.flip(parse(url)))
    expect(refused._tag).toBe("NetworkConfigError")
    expect(refused.message).toContain(message)
    expect(refused.message).not.toContain("secret")
  })
})
