/** States as bytes: the same state comes back, byte order is kept, and what is no state is refused. */
import { fromBinary, toBinary } from "@bufbuild/protobuf"
import { describe, expect, it } from "@effect/vitest"
import * as IdentityLog from "@keyward/core/identity/IdentityLog"
import { associationState } from "@keyward/test-utils/contracts/AssociationStateCacheContract"
import { randomIdentityLogs } from "@keyward/test-utils/vectors/IdentityVectors"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import { AssociationStateSchema } from "../../src/gen/xmtp/identity/associations/association_pb.ts"
import { estimateBytes } from "../../src/identity/AssociationState.ts"
import * as Codec from "../../src/identity/AssociationStateCodec.ts"
import { InboxId } from "../../src/identity/InboxId.ts"
import { layerNone } from "../../src/ports/SmartContractWalletVerifier.ts"
import { hex, toHex } from "./fixtures.ts"

const inboxId = InboxId.make("ab".repeat(32))
const SEED = 20261123

describe("AssociationStateCodec", () => {
  it("any state comes back, in the same order, and gives the same bytes again", () => {
    FastCheck.assert(
      FastCheck.property(associationState(inboxId), (state) => {
        const bytes = Codec.encode(state)
        const decoded = Either.getOrThrow(Codec.decode(bytes))
        expect([...decoded.members]).toEqual([...state.members])
        expect([...decoded.seenSignatures]).toEqual([...state.seenSignatures])
        expect(decoded.recoveryIdentifier).toEqual(state.recoveryIdentifier)
        expect(decoded.inboxId).toBe(inboxId)
        expect(Buffer.compare(Codec.encode(decoded), bytes)).toBe(0)
      }),
      { seed: SEED, numRuns: 300 }
    )
  })

  it("writes what a general writer of the messages writes, byte for byte", () => {
    FastCheck.assert(
      FastCheck.property(associationState(inboxId), (state) => {
        const bytes = Codec.encode(state)
        const general = toBinary(AssociationStateSchema, fromBinary(AssociationStateSchema, bytes))
        expect(Buffer.compare(general, bytes)).toBe(0)
      }),
      { seed: SEED, numRuns: 300 }
    )
  })

  it.effect("a log that is cut anywhere, kept as bytes and extended is the whole log", () =>
    Effect.gen(function* () {
      let compared = 0
      for (const { libxmtp, updates } of randomIdentityLogs.slice(0, 60)) {
        if (typeof libxmtp === "string" || updates.length < 2) continue
        const log = updates.map(hex)
        const whole = yield* Effect.either(IdentityLog.resolve(log))
        // A smart contract wallet's, which nobody here can ask.
        if (Either.isLeft(whole)) continue
        const cut = 1 + (compared % (log.length - 1))
        const kept = Either.getOrThrow(Codec.decode(Codec.encode(yield* IdentityLog.resolve(log.slice(0, cut)))))
        const extended = yield* IdentityLog.extend(kept, log.slice(cut))
        expect(toHex(Codec.encode(extended))).toBe(toHex(Codec.encode(whole.right)))
        compared++
      }
      expect(compared).toBeGreaterThan(5)
    }).pipe(Effect.provide(layerNone))
  )

  /** Field 1, an inbox id. */
  const named = [0x0a, 64, ...new TextEncoder().encode(inboxId)]
  const refused: ReadonlyArray<readonly [string, ReadonlyArray<number>, Codec.AssociationStateDecodeError["reason"]]> =
    [
      ["nothing", [], "InvalidInboxId"],
      ["an inbox id of other length", [0x0a, 2, 0x61, 0x62], "InvalidInboxId"],
      ["a length beyond the end", [0x0a, 64, 0x61], "NotProtobuf"],
      ["a wrong wire type", [...named, 0x10, 1], "NotProtobuf"],
      ["a member without anything", [...named, 0x12, 0], "InvalidMember"],
      ["a key without a value", [...named, 0x12, 5, 0x0a, 3, 0x12, 1, 7], "InvalidMember"],
      [
        "a member under another's key",
        [...named, 0x12, 12, 0x0a, 3, 0x12, 1, 7, 0x12, 5, 0x0a, 3, 0x12, 1, 8],
        "InvalidMember"
      ]
    ]
  for (const [what, bytes, reason] of refused) {
    it(`refuses ${what}: ${reason}`, () => {
      const error = Either.getOrThrow(Either.flip(Codec.decode(Uint8Array.from(bytes))))
      expect(error.reason).toBe(reason)
      expect(error.isRetryable).toBe(false)
      expect(error.message).toContain(reason)
    })
  }

  /** A field that no reader knows, which sends the bytes to the general reader. */
  const byGeneralReader = (bytes: Uint8Array) => Codec.decode(Uint8Array.from([...bytes, 0x78, 1]))

  it(`the quick reader and the general one agree on states and on mutants of them (seed ${SEED})`, () => {
    let read = 0
    FastCheck.assert(
      FastCheck.property(
        associationState(inboxId),
        FastCheck.array(FastCheck.tuple(FastCheck.nat(), FastCheck.nat(255)), { maxLength: 2 }),
        (state, flips) => {
          const bytes = Codec.encode(state)
          for (const [at, mask] of flips) bytes[at % bytes.length] = (bytes[at % bytes.length] ?? 0) ^ mask
          const general = byGeneralReader(bytes)
          const quick = Codec.decode(bytes)
          expect(Either.isRight(quick)).toBe(Either.isRight(general))
          if (Either.isLeft(quick) || Either.isLeft(general)) return
          read++
          expect([...quick.right.members]).toEqual([...general.right.members])
          expect({ ...quick.right, members: undefined }).toEqual({ ...general.right, members: undefined })
        }
      ),
      { seed: SEED, numRuns: 3_000 }
    )
    expect(read).toBeGreaterThan(500)
  })

  it(`[47] mutants of a state give a state or a typed error (seed ${SEED})`, () => {
    const [state] = FastCheck.sample(associationState(inboxId), { seed: 7, numRuns: 1 })
    if (state === undefined) throw new Error("no sample")
    const bytes = Codec.encode(state)
    FastCheck.assert(
      FastCheck.property(FastCheck.nat(bytes.length - 1), FastCheck.integer({ min: 1, max: 255 }), (at, mask) => {
        const mutant = bytes.slice()
        mutant[at] = (mutant[at] ?? 0) ^ mask
        const decoded = Codec.decode(mutant)
        if (Either.isRight(decoded)) Codec.encode(decoded.right)
      }),
      { seed: SEED, numRuns: 3_000 }
    )
  })

  it(`what a state is estimated to take in memory is more than its bytes, and not many times more (seed ${SEED})`, () => {
    FastCheck.assert(
      FastCheck.property(associationState(inboxId), (state) => {
        const { length } = Codec.encode(state)
        const estimate = estimateBytes(state)
        expect(estimate).toBeGreaterThan(length)
        expect(estimate).toBeLessThan(1_200 + 4 * length)
      }),
      { seed: SEED, numRuns: 500 }
    )
  })
})
