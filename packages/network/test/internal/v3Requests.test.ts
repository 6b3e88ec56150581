/**
 * Requests, byte for byte as the native client sends them.
 */
import { fromBinary } from "@bufbuild/protobuf"
import { describe, expect, it } from "@effect/vitest"
import * as Identifier from "@keyward/core/identity/Identifier"
import { InboxId } from "@keyward/core/identity/InboxId"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import { limits, type WelcomeMessageInput } from "@keyward/core/ports/ApiClient"
import {
  sessionPublishRequests,
  sessionSentWelcomes,
  sessionUploadRequests
} from "@keyward/test-utils/vectors/RequestVectors"
import * as Either from "effect/Either"
import * as Encoding from "effect/Encoding"
import * as FastCheck from "effect/FastCheck"
import { SendWelcomeMessagesRequestSchema } from "../../src/gen/xmtp/mls/api/v1/mls_pb.ts"
import * as Requests from "../../src/internal/v3Requests.ts"

const bytesOf = (hex: string): Uint8Array => Either.getOrThrow(Encoding.decodeHex(hex))
const hexOf = Encoding.encodeHex

describe("requests of the native client", () => {
  it("uploads are the same bytes", () => {
    expect(sessionUploadRequests.length).toBe(9)
    for (const { payload, request } of sessionUploadRequests) {
      const { message, path } = Requests.uploadKeyPackage(bytesOf(payload))
      expect(path).toBe("/xmtp.mls.api.v1.MlsApi/UploadKeyPackage")
      expect(hexOf(message)).toBe(request)
    }
  })

  it("published updates are the same bytes", () => {
    expect(sessionPublishRequests.length).toBe(8)
    for (const { payload, request } of sessionPublishRequests) {
      const { message, path } = Requests.publishIdentityUpdate(bytesOf(payload))
      expect(path).toBe("/xmtp.identity.api.v1.IdentityApi/PublishIdentityUpdate")
      expect(hexOf(message)).toBe(request)
    }
  })
})

describe("Welcomes of the native client", () => {
  const entries = sessionSentWelcomes.map(
    ({ hpkePublicKey, installationKey, isPointer, sealed, welcomeMetadata, wrapperAlgorithm }): WelcomeMessageInput => {
      const common = {
        installationKey: bytesOf(installationKey),
        hpkePublicKey: bytesOf(hpkePublicKey),
        wrapperAlgorithm
      }
      return isPointer
        ? { _tag: "WelcomePointer", ...common, welcomePointer: bytesOf(sealed) }
        : { _tag: "Welcome", ...common, data: bytesOf(sealed), welcomeMetadata: bytesOf(welcomeMetadata) }
    }
  )

  it("both kinds are the same bytes, each in field 1 of the request", () => {
    expect(sessionSentWelcomes.map(({ isPointer, wrapperAlgorithm }) => [isPointer, wrapperAlgorithm])).toEqual([
      [false, 2],
      [false, 2],
      [false, 3],
      ...Array.from({ length: 4 }, () => [true, 2])
    ])
    const [request, ...more] = Requests.sendWelcomeMessages(entries)
    expect(more).toEqual([])
    expect(request?.path).toBe("/xmtp.mls.api.v1.MlsApi/SendWelcomeMessages")
    const varint = (value: number) => [(value & 0x7f) | 0x80, value >> 7]
    expect(hexOf(request?.message ?? new Uint8Array(0))).toBe(
      sessionSentWelcomes.map(({ input }) => `0a${hexOf(Uint8Array.from(varint(input.length / 2)))}${input}`).join("")
    )
  })

  it("requests hold as many as fit, in order, and each entry once", () => {
    const size = (data: number) => ({ ...entries[0], data: new Uint8Array(data) }) as WelcomeMessageInput
    FastCheck.assert(
      FastCheck.property(
        FastCheck.array(FastCheck.constantFrom(1, 5 << 20, 9 << 20, 13 << 20), { maxLength: 8 }),
        (sizes) => {
          const requests = Requests.sendWelcomeMessages(sizes.map(size))
          const held = requests.map(({ message }) =>
            fromBinary(SendWelcomeMessagesRequestSchema, message).messages.map(({ version }) =>
              version.case === "v1" ? version.value.data.length : -1
            )
          )
          expect(held.flat()).toEqual(sizes)
          requests.forEach(({ message }, index) => {
            expect(message.length).toBeLessThanOrEqual(limits.messageBytes)
            const next = held[index + 1]?.[0]
            if (next !== undefined) expect(message.length + next).toBeGreaterThan(limits.messageBytes - 4_096)
          })
        }
      ),
      { seed: 4, numRuns: 15 }
    )
  })
})

describe("questions about topics", () => {
  const key = new Uint8Array(32).fill(0x11)

  it("pages ascend from the cursor; a limit is what a node would make of it", () => {
    const page = (after: bigint, limit?: number) =>
      hexOf(Requests.queryWelcomeMessages(key, Requests.pageBounds({ after, limit })).message)
    const topic = `0a20${"11".repeat(32)}`
    expect(page(0n)).toBe(`${topic}120408011064`)
    expect(page(300n, 7)).toBe(`${topic}12070801100718ac02`)
    for (const [limit, size] of [
      [101, 100],
      [Number.POSITIVE_INFINITY, 100],
      [0, 1],
      [-3, 1],
      [7.9, 7]
    ] as const) {
      expect(Requests.pageBounds({ after: 1n, limit })).toEqual({ after: 1n, limit: size })
    }
    expect(hexOf(Requests.queryGroupMessages(key.subarray(0, 2), { after: 2n, limit: 3 }).message)).toBe(
      "0a0211111206080110031802"
    )
  })

  it("subscriptions name topic and cursor", () => {
    expect(Requests.subscribeWelcomeMessages(key, 5n)).toMatchObject({
      path: "/xmtp.mls.api.v1.MlsApi/SubscribeWelcomeMessages"
    })
    expect(hexOf(Requests.subscribeWelcomeMessages(key, 5n).message)).toBe(`0a240a20${"11".repeat(32)}1005`)
    const groups = [0n, 2n].map((after) => ({ groupId: Uint8Array.of(0xaa), after }))
    expect(hexOf(Requests.subscribeGroupMessages(groups).message)).toBe("0a030a01aa0a050a01aa1002")
  })
})

describe("requests by hand", () => {
  it("a fetch lists the public keys", () => {
    const { message, path } = Requests.fetchKeyPackages(
      ["11", "22"].map((byte) => InstallationId.make(byte.repeat(32)))
    )
    expect(path).toBe("/xmtp.mls.api.v1.MlsApi/FetchKeyPackages")
    expect(hexOf(message)).toBe(`0a20${"11".repeat(32)}0a20${"22".repeat(32)}`)
  })

  it("identity updates name inbox and cursor; a cursor of 0 is not written", () => {
    const inboxId = InboxId.make("ab".repeat(32))
    const text = hexOf(new TextEncoder().encode(inboxId))
    const { message, path } = Requests.getIdentityUpdates([
      { inboxId, after: 0n },
      { inboxId, after: 2n ** 64n - 1n }
    ])
    expect(path).toBe("/xmtp.identity.api.v1.IdentityApi/GetIdentityUpdates")
    expect(hexOf(message)).toBe(`0a420a40${text}0a4d0a40${text}10ffffffffffffffffff01`)
  })

  it("inbox ids are asked by lower-case address and kind", () => {
    const address = `0x${"AbCdEf0123".repeat(4)}`
    const { message, path } = Requests.getInboxIds([
      Identifier.ethereum(address),
      { _tag: "Passkey", publicKey: "0a0b" }
    ])
    expect(path).toBe("/xmtp.identity.api.v1.IdentityApi/GetInboxIds")
    const text = (value: string) => hexOf(new TextEncoder().encode(value))
    expect(hexOf(message)).toBe(`0a2e0a2a${text(address.toLowerCase())}10010a080a04${text("0a0b")}1002`)
  })
})
