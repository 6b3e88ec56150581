import { create, fromBinary, toBinary } from "@bufbuild/protobuf"
import { describe, expect, it } from "@effect/vitest"
import {
  FetchKeyPackagesRequestSchema,
  FetchKeyPackagesResponseSchema,
  SubscribeWelcomeMessagesRequestSchema
} from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import * as Framing from "@keyward/test-utils/devnode/GrpcFraming"
import { NodeState } from "@keyward/test-utils/devnode/NodeState"
import * as Faults from "@keyward/test-utils/Faults"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"

const id = new Uint8Array(32).fill(7)
const fetchRequest = toBinary(
  FetchKeyPackagesRequestSchema,
  create(FetchKeyPackagesRequestSchema, { installationKeys: [id] })
)

/** As a page of another origin asks. */
const post = (method: string, message: Uint8Array, headers: Record<string, string> = {}) =>
  Effect.flatMap(DevNode.DevNode, ({ grpcWebUrl }) =>
    Effect.tryPromise((signal) =>
      globalThis.fetch(`${grpcWebUrl}/xmtp.mls.api.v1.MlsApi/${method}`, {
        method: "POST",
        headers: { "content-type": "application/grpc-web+proto", origin: "https://app.example", ...headers },
        body: new Uint8Array(Framing.frame(message)),
        signal
      })
    )
  )

/** The frames of a body: flags and payload. */
const framesOf = (body: Uint8Array): ReadonlyArray<readonly [number, Uint8Array]> => {
  const frames: Array<readonly [number, Uint8Array]> = []
  for (let at = 0; at < body.length; ) {
    const length = new DataView(body.buffer, body.byteOffset + at).getUint32(1)
    frames.push([body[at] ?? 0, body.subarray(at + 5, at + 5 + length)])
    at += 5 + length
  }
  return frames
}

const bodyOf = (response: Response) =>
  Effect.map(
    Effect.promise(() => response.arrayBuffer()),
    (buffer) => framesOf(new Uint8Array(buffer))
  )

const text = (bytes: Uint8Array | undefined): string => new TextDecoder().decode(bytes)

describe("GrpcWebServer", () => {
  it.scopedLive("answers with one message frame and the trailers as the last frame, to every origin", () =>
    Effect.gen(function* () {
      const { keyPackages } = yield* NodeState
      yield* keyPackages.put(id, Uint8Array.of(1, 2, 3))
      const response = yield* post("FetchKeyPackages", fetchRequest)
      expect(response.status).toBe(200)
      expect(response.headers.get("content-type")).toBe("application/grpc-web+proto")
      expect(response.headers.get("access-control-allow-origin")).toBe("*")
      expect(response.headers.get("access-control-expose-headers")).toContain("grpc-status")
      const [message, trailers, ...rest] = yield* bodyOf(response)
      expect(rest).toEqual([])
      expect(message?.[0]).toBe(Framing.flag.message)
      const { keyPackages: served } = fromBinary(FetchKeyPackagesResponseSchema, message?.[1] ?? id)
      expect(served[0]?.keyPackageTlsSerialized).toEqual(Uint8Array.of(1, 2, 3))
      expect([trailers?.[0], text(trailers?.[1])]).toEqual([Framing.flag.trailers, "grpc-status: 0\r\n"])
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("lets a page ask whether it may call", () =>
    Effect.gen(function* () {
      const { grpcWebUrl } = yield* DevNode.DevNode
      const response = yield* Effect.promise(() =>
        globalThis.fetch(`${grpcWebUrl}/xmtp.mls.api.v1.MlsApi/FetchKeyPackages`, {
          method: "OPTIONS",
          headers: {
            origin: "https://app.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "content-type,x-grpc-web,x-app-version"
          }
        })
      )
      expect(response.status).toBe(204)
      expect(response.headers.get("access-control-allow-origin")).toBe("*")
      expect(response.headers.get("access-control-allow-methods")).toBe("POST")
      expect(response.headers.get("access-control-allow-headers")).toBe("content-type,x-grpc-web,x-app-version")
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("puts the status of a failed call into the headers", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      yield* faults.enqueue("fetchKeyPackages", Faults.rateLimited())
      const failed = yield* post("FetchKeyPackages", fetchRequest)
      expect([failed.status, failed.headers.get("grpc-status")]).toEqual([200, "8"])
      expect(failed.headers.get("retry-after")).toBeNull()
      expect(yield* bodyOf(failed)).toEqual([])
      const unknown = yield* post("Subscribe", fetchRequest)
      expect([unknown.status, unknown.headers.get("grpc-status")]).toEqual([200, "12"])
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("speaks nothing but binary gRPC-Web", () =>
    Effect.gen(function* () {
      const { grpcWebUrl } = yield* DevNode.DevNode
      for (const type of ["application/grpc-web-text", "application/json", "application/grpc"]) {
        expect((yield* post("FetchKeyPackages", fetchRequest, { "content-type": type })).status).toBe(415)
      }
      expect((yield* Effect.promise(() => globalThis.fetch(grpcWebUrl))).status).toBe(405)
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("streams: headers at once, each message as it comes", () =>
    Effect.gen(function* () {
      const { welcomes } = yield* NodeState
      const request = toBinary(
        SubscribeWelcomeMessagesRequestSchema,
        create(SubscribeWelcomeMessagesRequestSchema, { filters: [{ installationKey: id }] })
      )
      const response = yield* post("SubscribeWelcomeMessages", request)
      const reader = response.body?.getReader()
      const value = {
        $typeName: "xmtp.mls.api.v1.WelcomeMessageInput.WelcomePointer" as const,
        installationKey: id,
        welcomePointer: Uint8Array.of(5),
        hpkePublicKey: Uint8Array.of(6),
        wrapperAlgorithm: 2 as const
      }
      yield* welcomes.append(id, { case: "welcomePointer", value }, Option.none())
      const chunk = yield* Effect.promise(() => reader?.read() ?? Promise.resolve(undefined))
      expect(chunk?.value?.[0]).toBe(Framing.flag.message)
      yield* Effect.promise(() => reader?.cancel() ?? Promise.resolve())
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("breaks the connection where the script says so", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      yield* faults.enqueue("fetchKeyPackages", Faults.drop("afterAccept"))
      expect((yield* Effect.exit(post("FetchKeyPackages", fetchRequest)))._tag).toBe("Failure")
      expect((yield* faults.calls)[0]).toMatchObject({ via: "grpc-web", outcome: { _tag: "Dropped" } })
    }).pipe(Effect.provide(DevNode.layer()))
  )
})
