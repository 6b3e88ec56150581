import * as Http2 from "node:http2"
import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import { describe, expect, it } from "@effect/vitest"
import * as Grpc from "@grpc/grpc-js"
import {
  FetchKeyPackagesRequestSchema,
  FetchKeyPackagesResponseSchema,
  SubscribeWelcomeMessagesRequestSchema,
  type WelcomeMessage,
  WelcomeMessageSchema,
  WelcomeWrapperAlgorithm
} from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import * as Framing from "@keyward/test-utils/devnode/GrpcFraming"
import * as GrpcServer from "@keyward/test-utils/devnode/GrpcServer"
import * as Status from "@keyward/test-utils/devnode/GrpcStatus"
import { NodeState, type StoredWelcome } from "@keyward/test-utils/devnode/NodeState"
import * as Faults from "@keyward/test-utils/Faults"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"

const FETCH = "/xmtp.mls.api.v1.MlsApi/FetchKeyPackages"
const SUBSCRIBE = "/xmtp.mls.api.v1.MlsApi/SubscribeWelcomeMessages"
const id = new Uint8Array(32).fill(7)

const bytesIn = (value: Uint8Array): Buffer => Buffer.from(value)

/** A client of grpc-js, as any Node program has one. */
const grpcJs = Effect.gen(function* () {
  const { grpcUrl } = yield* DevNode.DevNode
  return yield* Effect.acquireRelease(
    Effect.sync(() => new Grpc.Client(new URL(grpcUrl).host, Grpc.credentials.createInsecure())),
    (client) => Effect.sync(() => client.close())
  )
})

const fetch = (client: Grpc.Client, keys: ReadonlyArray<Uint8Array>, options: Grpc.CallOptions = {}) =>
  Effect.async<ReadonlyArray<Uint8Array>, Grpc.ServiceError>((resume) => {
    const call = client.makeUnaryRequest<Uint8Array, Uint8Array>(
      FETCH,
      bytesIn,
      (value) => value,
      toBinary(FetchKeyPackagesRequestSchema, create(FetchKeyPackagesRequestSchema, { installationKeys: [...keys] })),
      new Grpc.Metadata(),
      options,
      (error, response) =>
        resume(
          error === null && response !== undefined
            ? Effect.succeed(
                fromBinary(FetchKeyPackagesResponseSchema, new Uint8Array(response)).keyPackages.map(
                  ({ keyPackageTlsSerialized }) => keyPackageTlsSerialized
                )
              )
            : Effect.fail(error ?? (new Error("no answer") as Grpc.ServiceError))
        )
    )
    return Effect.sync(() => call.cancel())
  })

const welcome = (data: number): StoredWelcome => ({
  case: "v1",
  value: {
    $typeName: "xmtp.mls.api.v1.WelcomeMessageInput.V1",
    installationKey: id,
    data: Uint8Array.of(data),
    hpkePublicKey: Uint8Array.of(1),
    welcomeMetadata: new Uint8Array(0),
    wrapperAlgorithm: WelcomeWrapperAlgorithm.XWING_MLKEM_768_DRAFT_6
  }
})

/** One request on a bare HTTP/2 connection: what comes back, block by block. */
const bare = (path: string, body: Uint8Array | undefined, headers: Http2.OutgoingHttpHeaders = {}) =>
  Effect.gen(function* () {
    const { grpcUrl } = yield* DevNode.DevNode
    const session = yield* Effect.acquireRelease(
      Effect.sync(() => Http2.connect(grpcUrl).on("error", () => {})),
      (connected) => Effect.sync(() => connected.destroy())
    )
    return yield* Effect.async<{
      readonly headers: Http2.IncomingHttpHeaders
      readonly trailers: Http2.IncomingHttpHeaders | undefined
      readonly bytes: number
    }>((resume) => {
      const stream = session.request({
        ":method": "POST",
        ":path": path,
        "content-type": "application/grpc",
        te: "trailers",
        ...headers
      })
      let first: Http2.IncomingHttpHeaders = {}
      let last: Http2.IncomingHttpHeaders | undefined
      let bytes = 0
      stream.on("error", () => {})
      stream.on("response", (received) => {
        first = received
      })
      stream.on("trailers", (received) => {
        last = received
      })
      stream.on("data", (chunk: Buffer) => {
        bytes += chunk.length
      })
      stream.on("close", () => resume(Effect.succeed({ headers: first, trailers: last, bytes })))
      stream.end(body)
    })
  })

describe("GrpcServer", () => {
  it.scopedLive("answers calls of any gRPC client", () =>
    Effect.gen(function* () {
      const client = yield* grpcJs
      const { keyPackages } = yield* NodeState
      const large = new Uint8Array(1_000_000).fill(9)
      yield* keyPackages.put(id, large)
      const [served, missing] = yield* fetch(client, [id, new Uint8Array(32)])
      expect([served?.length, missing?.length]).toEqual([1_000_000, 0])
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("sends headers, message and trailers in that order, and only trailers with an error", () =>
    Effect.gen(function* () {
      const good = yield* bare(FETCH, Framing.frame(new Uint8Array(0)))
      expect(good.headers).toMatchObject({ ":status": 200, "content-type": "application/grpc+proto" })
      expect(good.headers["grpc-status"]).toBeUndefined()
      expect(good.trailers?.["grpc-status"]).toBe("0")
      expect(good.bytes).toBe(5)

      const unknown = yield* bare("/xmtp.migration.api.v1.D14nMigrationApi/FetchD14nCutover", Framing.frame(id))
      expect(unknown.headers).toMatchObject({ ":status": 200, "grpc-status": "12" })
      expect([unknown.trailers, unknown.bytes]).toEqual([undefined, 0])
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("refuses bodies that are not one whole message, each with a status", () =>
    Effect.gen(function* () {
      const cases: ReadonlyArray<readonly [Uint8Array | undefined, string]> = [
        [undefined, "13"],
        [Uint8Array.of(0, 0, 0), "13"],
        [Framing.frame(id).subarray(0, 20), "13"],
        [Uint8Array.of(...Framing.frame(id), 0), "13"],
        [Framing.frame(id, Framing.flag.compressed), "12"],
        [Framing.frame(id, 0x42), "13"],
        // A field 1 that is longer than the message.
        [Framing.frame(Uint8Array.of(0x0a, 0xff)), "13"]
      ]
      for (const [body, status] of cases) {
        expect((yield* bare(FETCH, body)).headers["grpc-status"]).toBe(status)
      }
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("[46] refuses a request of more than 50 MiB without keeping it", () =>
    Effect.gen(function* () {
      const { headers } = yield* bare(FETCH, Framing.frame(new Uint8Array(Framing.maxMessageBytes)))
      expect(headers["grpc-status"]).toBe("8")
      expect(headers["grpc-message"]).toContain("larger than max")
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive(
    "streams: headers before any message, then what is there, then what comes, until the caller leaves",
    () =>
      Effect.gen(function* () {
        const client = yield* grpcJs
        const { welcomes } = yield* NodeState
        const faults = yield* Faults.Faults
        const request = toBinary(
          SubscribeWelcomeMessagesRequestSchema,
          create(SubscribeWelcomeMessagesRequestSchema, { filters: [{ installationKey: id }] })
        )
        const messages = yield* Queue.unbounded<WelcomeMessage>()
        const ready = yield* Queue.unbounded<void>()
        const stream = client.makeServerStreamRequest<Uint8Array, Uint8Array>(
          SUBSCRIBE,
          bytesIn,
          (value) => value,
          request
        )
        stream.on("metadata", () => ready.unsafeOffer(undefined))
        stream.on("data", (bytes: Uint8Array) =>
          messages.unsafeOffer(fromBinary(WelcomeMessageSchema, new Uint8Array(bytes)))
        )
        stream.on("error", () => {})

        yield* ready.take
        for (const data of [1, 2, 3]) {
          yield* welcomes.append(id, welcome(data), Option.none())
          const message = yield* messages.take
          expect(message.version).toMatchObject({ case: "v1", value: { id: BigInt(data), data: Uint8Array.of(data) } })
        }
        stream.cancel()
        yield* faults.calls.pipe(
          Effect.delay("5 millis"),
          Effect.repeat({ until: ([call]) => call?.outcome._tag === "Interrupted" })
        )
      }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("[26] carries a status, its text and the time to wait to the caller", () =>
    Effect.gen(function* () {
      const client = yield* grpcJs
      const faults = yield* Faults.Faults
      yield* faults.enqueue("fetchKeyPackages", Faults.rateLimited(Duration.millis(1500)))
      const error = yield* Effect.flip(fetch(client, [id]))
      expect(error).toMatchObject({ code: 8, details: "rate limit exceeded" })
      expect(error.metadata.get("retry-after")).toEqual(["2"])
      expect(error.metadata.get("grpc-retry-pushback-ms")).toEqual(["1500"])
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("[22] hangs until the caller's deadline, and drops connections, where the script says so", () =>
    Effect.gen(function* () {
      const client = yield* grpcJs
      const faults = yield* Faults.Faults
      yield* faults.enqueue("fetchKeyPackages", Faults.hang(), Faults.drop())
      expect(yield* Effect.flip(fetch(client, [id], { deadline: Date.now() + 50 }))).toMatchObject({ code: 4 })
      expect(yield* Effect.flip(fetch(client, [id]))).toMatchObject({ code: 14 })
      expect(yield* fetch(client, [id])).toHaveLength(1)
      expect((yield* faults.calls).map(({ outcome }) => outcome._tag)).toEqual(["Interrupted", "Dropped", "Answered"])
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("ends a call at the deadline that its caller told", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      yield* faults.enqueue("fetchKeyPackages", Faults.hang())
      const { headers } = yield* bare(FETCH, Framing.frame(new Uint8Array(0)), { "grpc-timeout": "20m" })
      expect(headers["grpc-status"]).toBe(String(Status.code.deadlineExceeded))
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.live("closes every connection when its scope ends, also those with a stream or a call under way", () =>
    Effect.gen(function* () {
      const ended = yield* Effect.gen(function* () {
        const { grpcUrl } = yield* DevNode.DevNode
        const faults = yield* Faults.Faults
        yield* faults.enqueue("fetchKeyPackages", Faults.hang())
        const session = Http2.connect(grpcUrl).on("error", () => {})
        const stream = session.request({ ":method": "POST", ":path": FETCH }).on("error", () => {})
        stream.end(Framing.frame(new Uint8Array(0)))
        yield* faults.calls.pipe(Effect.delay("5 millis"), Effect.repeat({ until: (calls) => calls.length === 1 }))
        return Effect.async<void>((resume) => {
          if (session.closed || session.destroyed) resume(Effect.void)
          else session.once("close", () => resume(Effect.void))
        })
      }).pipe(Effect.provide(DevNode.layer()))
      yield* ended
    })
  )

  it.scopedLive("a port that is taken is an error that names it", () =>
    Effect.gen(function* () {
      const { grpcUrl } = yield* DevNode.DevNode
      const port = Number(new URL(grpcUrl).port)
      const error = yield* Effect.flip(GrpcServer.make({ host: "127.0.0.1", port }))
      expect(error.message).toBe(`cannot listen on 127.0.0.1:${port}: the port is in use`)
    }).pipe(Effect.provide(DevNode.layer()))
  )
})

describe("GrpcFraming", () => {
  it("unframes what it frames", () => {
    FastCheck.assert(
      FastCheck.property(FastCheck.uint8Array({ maxLength: 300 }), (payload) => {
        const message = Framing.unframe(Framing.frame(payload))
        expect(message._tag === "Right" && Buffer.from(message.right).equals(payload)).toBe(true)
      }),
      { seed: 11 }
    )
  })

  it("reads deadlines in every unit; what makes no sense is no deadline", () => {
    const read = (text: string) => Duration.toMillis(Framing.timeoutOf(text))
    expect(["2H", "3M", "4S", "5m", "6000u", "7000000n"].map(read)).toEqual([7_200_000, 180_000, 4000, 5, 6, 7])
    for (const text of ["", "5", "m", "123456789m", "-1S", "1x"]) expect(read(text)).toBe(Number.POSITIVE_INFINITY)
  })

  it("percent-encodes what a header cannot hold, and nothing else that is printable", () => {
    const detail = '100% of "café"\r\ngroup_id=~!#$&\'()*+,/:;=?@[]{}|^`<>\\'
    const encoded = Framing.trailersOf(new Status.GrpcStatus({ code: 3, detail }))["grpc-message"] ?? ""
    expect(encoded).toMatch(/^[\x20-\x7e]*$/)
    expect(encoded).toContain('100%25 of "caf%C3%A9"%0D%0Agroup_id=~!#$&\'()*+,/:;=?@[]{}|^`<>\\')
    expect(decodeURIComponent(encoded)).toBe(detail)
  })
})
