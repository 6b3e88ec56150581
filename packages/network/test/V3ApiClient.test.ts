/**
 * The v3 client over a transport that a test plays: headers, deadlines, concurrency, options, and what errors keep to
 * themselves.
 */
import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import { describe, expect, it } from "@effect/vitest"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import * as TestClock from "effect/TestClock"
import { FetchKeyPackagesRequestSchema, FetchKeyPackagesResponseSchema } from "../src/gen/xmtp/mls/api/v1/mls_pb.ts"
import * as Transport from "../src/Transport.ts"
import * as V3ApiClient from "../src/V3ApiClient.ts"

/** A transport that notes what it is given. */
const recording = (send: (request: Transport.Request) => Effect.Effect<Uint8Array, Transport.CarrierError>) => {
  const requests: Array<Transport.Request> = []
  const layer = Layer.succeed(
    Transport.Transport,
    Transport.make({
      unary: (request) => {
        requests.push(request)
        return send(request)
      },
      open: () => Effect.succeed(Stream.empty)
    })
  )
  return { requests, layer }
}

const nothing = () => Effect.succeed(new Uint8Array(0))
const upload = (bytes: Uint8Array) => Effect.flatMap(ApiClient, (api) => api.uploadKeyPackage(bytes))
const keyPackage = Uint8Array.of(0xde, 0xad, 0xbe, 0xef)

describe("headers", () => {
  it.effect("a client says how long it waits, and nothing of itself unless told", () =>
    Effect.gen(function* () {
      const { layer, requests } = recording(nothing)
      yield* upload(keyPackage).pipe(Effect.provide(V3ApiClient.layer()), Effect.provide(layer))
      expect(requests[0]?.metadata).toEqual({ "grpc-timeout": "31000m" })
    })
  )

  it.effect("app and libxmtp version are sent when they are configured", () =>
    Effect.gen(function* () {
      const { layer, requests } = recording(nothing)
      const options = { appVersion: "my-app/1.2.3 (test)", libxmtpVersion: "1.11.0", timeout: "1500 millis" } as const
      yield* upload(keyPackage).pipe(Effect.provide(V3ApiClient.layer(options)), Effect.provide(layer))
      expect(requests[0]?.metadata).toEqual({
        "x-app-version": "my-app/1.2.3 (test)",
        "x-libxmtp-version": "1.11.0",
        "grpc-timeout": "2500m"
      })
    })
  )

  it.effect("a wait that gRPC cannot write is not told to the node", () =>
    Effect.gen(function* () {
      const { layer, requests } = recording(nothing)
      const run = (timeout: Duration.DurationInput) =>
        upload(keyPackage).pipe(Effect.provide(V3ApiClient.layer({ timeout })), Effect.provide(layer))
      yield* run(Duration.days(2))
      yield* run(Duration.infinity)
      expect(requests.map(({ metadata }) => metadata)).toEqual([{}, {}])
    })
  )
})

describe("options", () => {
  it.effect.each<readonly [V3ApiClient.V3ApiClientOptions, string]>([
    [{ appVersion: "" }, "appVersion must be printable ASCII"],
    [{ appVersion: "a\r\nx-admin: 1" }, "appVersion must be printable ASCII"],
    [{ libxmtpVersion: "1.1.5 " }, "libxmtpVersion must be printable ASCII"],
    [{ concurrency: 0 }, "concurrency must be a whole number above 0"],
    [{ concurrency: 1.5 }, "concurrency must be a whole number above 0"]
  ])("%o are refused when the layer is built", ([options, message]) =>
    Effect.gen(function* () {
      const built = Layer.build(V3ApiClient.layer(options)).pipe(Effect.provide(recording(nothing).layer))
      const error = yield* Effect.scoped(Effect.flip(built))
      expect(error).toMatchObject({ _tag: "NetworkConfigError", message })
    })
  )

  it.effect("a URL that is none is refused when the layer is built", () =>
    Effect.gen(function* () {
      const error = yield* Effect.scoped(Effect.flip(Layer.build(V3ApiClient.layerGrpc({ url: "localhost:5556" }))))
      expect(error).toMatchObject({ _tag: "NetworkConfigError", option: "url" })
    })
  )

  it.effect("come from the configuration of the app", () =>
    Effect.gen(function* () {
      const { layer, requests } = recording(nothing)
      const client = V3ApiClient.layerConfig({
        appVersion: Config.string("APP_VERSION"),
        timeout: Config.duration("TIMEOUT")
      })
      const provider = ConfigProvider.fromMap(
        new Map([
          ["APP_VERSION", "my-app/2"],
          ["TIMEOUT", "4 seconds"]
        ])
      )
      yield* upload(keyPackage).pipe(Effect.provide(client), Effect.provide(layer), Effect.withConfigProvider(provider))
      expect(requests[0]?.metadata).toEqual({ "x-app-version": "my-app/2", "grpc-timeout": "5000m" })
    })
  )
})

describe("many requests", () => {
  const ids = Array.from({ length: 6_500 }, (_, index) => InstallationId.make(index.toString(16).padStart(64, "0")))

  /** Answers each id with itself, when it is let. */
  const echo = (gate: Effect.Effect<void>) =>
    recording(({ message }) =>
      Effect.map(gate, () => {
        const { installationKeys } = fromBinary(FetchKeyPackagesRequestSchema, message)
        const keyPackages = installationKeys.map((keyPackageTlsSerialized) => ({ keyPackageTlsSerialized }))
        return toBinary(FetchKeyPackagesResponseSchema, create(FetchKeyPackagesResponseSchema, { keyPackages }))
      })
    )

  it.effect("at most four are under way at once, and the answers stay in order", () =>
    Effect.gen(function* () {
      let underWay = 0
      let most = 0
      const { layer, requests } = echo(
        Effect.gen(function* () {
          underWay += 1
          most = Math.max(most, underWay)
          yield* Effect.sleep("1 seconds")
          underWay -= 1
        })
      )
      const fetch = Effect.flatMap(ApiClient, (api) => api.fetchKeyPackages(ids))
      const fiber = yield* Effect.fork(fetch.pipe(Effect.provide(V3ApiClient.layer()), Effect.provide(layer)))
      yield* TestClock.adjust("2 seconds")
      const answers = yield* Fiber.join(fiber)
      expect(most).toBe(4)
      expect(requests.length).toBe(7)
      expect(answers.map((answer) => (answer._tag === "Some" ? Encoding.encodeHex(answer.value) : null))).toEqual(ids)
    })
  )

  it.effect("each has its own deadline, and one that misses it ends the others", () =>
    Effect.gen(function* () {
      const { layer } = echo(Effect.never)
      const fetch = Effect.flatMap(ApiClient, (api) => api.fetchKeyPackages(ids))
      const client = V3ApiClient.layer({ timeout: "5 seconds" })
      const fiber = yield* Effect.fork(Effect.flip(fetch.pipe(Effect.provide(client), Effect.provide(layer))))
      yield* TestClock.adjust("5 seconds")
      expect(yield* Fiber.join(fiber)).toMatchObject({ reason: "Timeout", detail: "no answer within 5s" })
    })
  )
})

describe("errors", () => {
  it.effect("never carry what was sent", () =>
    Effect.gen(function* () {
      const failures: ReadonlyArray<Transport.CarrierError> = [
        new Transport.GrpcStatusError({ code: 3, detail: "no", metadata: { "x-trace": "1" } }),
        new Transport.ConnectionError({ detail: "reset" }),
        new Transport.ProtocolError({ detail: "no message" })
      ]
      for (const failure of failures) {
        const { layer } = recording(() => Effect.fail(failure))
        const error = yield* Effect.flip(
          upload(keyPackage).pipe(Effect.provide(V3ApiClient.layer()), Effect.provide(layer))
        )
        const shown = `${error.message} ${JSON.stringify(error)} ${String(error)}`.toLowerCase()
        expect(shown).not.toMatch(/dead.?beef|222,\s*173|3q2\+7w/)
      }
    })
  )
})
