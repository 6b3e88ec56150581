/** How a node takes identity updates: by the rules of the log, by the chain's word, and what nobody judged. */
import { describe, expect, it } from "@effect/vitest"
import * as Identifier from "@keyward/core/identity/Identifier"
import * as InboxId from "@keyward/core/identity/InboxId"
import * as SignatureRequest from "@keyward/core/identity/SignatureRequest"
import { eip191Hash } from "@keyward/core/identity/signature/SignedText"
import {
  SmartContractWalletVerifier,
  SmartContractWalletVerifierError
} from "@keyward/core/ports/SmartContractWalletVerifier"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import * as Status from "@keyward/test-utils/devnode/GrpcStatus"
import { NodeState } from "@keyward/test-utils/devnode/NodeState"
import * as NodeValidation from "@keyward/test-utils/devnode/NodeValidation"
import * as VectorWallets from "@keyward/test-utils/VectorWallets"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"

const account = { chainId: "eip155:8453", address: `0x${"5c".repeat(20)}` }
const owner = Identifier.ethereum(account.address)
const inboxId = InboxId.derive(owner)

/** An inbox that a smart contract wallet founds. */
const founding = (second = 0) => {
  const request = SignatureRequest.make({
    inboxId,
    authority: owner,
    clientTimestampNs: BigInt(second) * 1_000_000_000n,
    actions: [{ _tag: "CreateInbox", owner, nonce: InboxId.defaultNonce }]
  })
  const hash = eip191Hash(new TextEncoder().encode(request.text))
  return SignatureRequest.complete(request, [
    {
      _tag: "SmartContractWallet",
      accountId: account,
      blockNumber: 1n,
      bytes: VectorWallets.sign(account, hash, Uint8Array.of(1))
    }
  ]).pipe(
    Effect.map((signed) => signed.bytes),
    Effect.provide(VectorWallets.layer)
  )
}

const node = (wallets: Layer.Layer<SmartContractWalletVerifier>) => DevNode.layerNode(NodeValidation.layerWith(wallets))

const publish = Effect.flatMap(founding(), (update) =>
  Effect.flatMap(NodeState, ({ identity }) => identity.publish(update))
)

const log = Effect.flatMap(NodeState, ({ identity }) => identity.read([{ inboxId, sequenceId: 0n }]))

describe("a node's identity log", () => {
  it.effect("takes a smart contract wallet that the chain vouches for, and finds its inbox", () =>
    Effect.gen(function* () {
      yield* publish
      expect((yield* log)[0]).toHaveLength(1)
      const { identity } = yield* NodeState
      expect(yield* identity.inboxIdOf(account.address)).toBe(inboxId)
    }).pipe(Effect.provide(node(VectorWallets.layer)))
  )

  it.effect("refuses for good what the chain says no to, and for now what the chain cannot be asked about", () =>
    Effect.gen(function* () {
      const under = (wallets: Layer.Layer<SmartContractWalletVerifier>) =>
        Effect.all([Effect.flip(publish), log]).pipe(Effect.provide(node(wallets)))
      const [no, afterNo] = yield* under(
        Layer.succeed(SmartContractWalletVerifier, { isValid: () => Effect.succeed(false) })
      )
      expect(no).toMatchObject({ code: Status.code.invalidArgument })
      const [unknown, afterUnknown] = yield* under(
        Layer.succeed(SmartContractWalletVerifier, {
          isValid: ({ chainId }) => new SmartContractWalletVerifierError({ reason: "Unavailable", chainId })
        })
      )
      expect(unknown).toMatchObject({ code: Status.code.unavailable })
      expect([afterNo, afterUnknown]).toEqual([[[]], [[]]])
    })
  )

  it.effect("refuses what breaks a rule of the log, and the 257th update", () =>
    Effect.gen(function* () {
      const { identity } = yield* NodeState
      yield* publish
      const again = yield* Effect.flip(identity.publish(yield* founding(1)))
      expect(again).toMatchObject({
        code: Status.code.invalidArgument,
        detail: expect.stringContaining("MultipleCreate")
      })
      for (let count = 1; count < 256; count++) yield* identity.append(inboxId, Uint8Array.of(0x1a, 0))
      const full = yield* Effect.flip(identity.publish(yield* founding(2)))
      expect(full).toMatchObject({ code: Status.code.unknown, detail: "inbox log is full" })
    }).pipe(Effect.provide(node(VectorWallets.layer)))
  )

  it.effect("serves appended bytes as they are, in their place, and judges on without them", () =>
    Effect.gen(function* () {
      const { identity } = yield* NodeState
      const given = Uint8Array.of(1, 2, 3)
      const first = yield* identity.append(inboxId, given)
      given.fill(0)
      yield* publish
      const [entries = []] = yield* log
      expect(entries.map(({ update }) => update.length > 3)).toEqual([false, true])
      expect(entries[0]).toEqual({ ...first, update: Uint8Array.of(1, 2, 3) })
      expect((entries[1]?.sequenceId ?? 0n) > first.sequenceId).toBe(true)
    }).pipe(Effect.provide(node(VectorWallets.layer)))
  )
})
