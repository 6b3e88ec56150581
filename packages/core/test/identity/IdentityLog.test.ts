import { describe, expect, it } from "@effect/vitest"
import * as VectorWallets from "@keyward/test-utils/VectorWallets"
import {
  directedLogs,
  type LogVector,
  randomIdentityLogs,
  sessionLogs,
  sessionStates
} from "@keyward/test-utils/vectors/IdentityVectors"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as AssociationState from "../../src/identity/AssociationState.ts"
import * as CurveBackend from "../../src/identity/CurveBackend.ts"
import type { IdentityError } from "../../src/identity/IdentityError.ts"
import * as IdentityLog from "../../src/identity/IdentityLog.ts"
import * as IdentityUpdate from "../../src/identity/IdentityUpdate.ts"
import { InboxId } from "../../src/identity/InboxId.ts"
import * as InstallationId from "../../src/identity/InstallationId.ts"
import * as MemberIdentifier from "../../src/identity/MemberIdentifier.ts"
import * as RegistrationUpdate from "../../src/identity/RegistrationUpdate.ts"
import * as SignatureText from "../../src/identity/SignatureText.ts"
import {
  layerNone,
  SmartContractWalletVerifier,
  SmartContractWalletVerifierError
} from "../../src/ports/SmartContractWalletVerifier.ts"
import { hex, installationKey, summary, wallet } from "./fixtures.ts"

const SEED = Number(process.env.KEYWARD_TEST_SEED ?? 20_261_123)

/** libxmtp's error texts, and what they are here. The text of a stage is the prefix; the rest is in order of length. */
const meanings: ReadonlyArray<readonly [text: string, meaning: string]> = [
  ["missing field signature", "conversion MissingSignature"],
  ["missing field delegated_key", "conversion MissingDelegatedKey"],
  ["VerifyingKey must be 32 bytes", "conversion InvalidInstallationKey"],
  ["Cannot decompress Edwards point", "conversion InvalidInstallationKey"],
  ["account_id", "conversion InvalidAccountId"],
  ["client_data is invalid", "signature InvalidClientData"],
  ["Invalid public key", "signature InvalidPublicKey"],
  ["invalid parity", "signature Malformed"],
  ["Cannot use scalar with high-bit set", "signature Malformed"],
  ["could not convert slice to array", "signature Malformed"],
  ["Verification equation was not satisfied", "signature Invalid"],
  ["Chain ID is not a valid u64", "signature InvalidChainId"],
  ["invalid addresses", "signature InvalidAccount"],
  ["Missing existing member", "association MissingExistingMember"],
  ["Wrong inbox_id", "association WrongInboxId"],
  ["XID not yet created", "association NotCreated"],
  ["does not match the signer", "association NewMemberIdSignatureMismatch"],
  ["not allowed to add", "association MemberNotAllowed"],
  ["Replay detected", "association Replay"],
  ["Multiple create operations", "association MultipleCreate"],
  ["Legacy key is only allowed", "association LegacySignatureReuse"],
  ["Wrong chain id", "association ChainIdMismatch"],
  ["Signature not allowed for role", "association SignatureNotAllowed"],
  ["Invalid account address", "association InvalidAccountAddress"],
  ["tried to add self", "association AddSelf"]
]

const stages: ReadonlyArray<readonly [prefix: string, stage: string]> = [
  ["[ClientError::Api]", "conversion"],
  ["[ClientError::SignatureValidation]", "signature"],
  ["[ClientError::Association]", "association"]
]

/** What we must answer: the stage always, the reason where libxmtp's text tells it. */
const expectSameRefusal = (error: IdentityError, libxmtp: string) => {
  expect(error.stage).toBe(stages.find(([prefix]) => libxmtp.startsWith(prefix))?.[1])
  const meaning = meanings.find(([text]) => libxmtp.includes(text))?.[1]
  if (meaning !== undefined) expect(`${error.stage} ${error.reason}`).toBe(meaning)
  expect(error.isRetryable).toBe(false)
}

const resolve = (updates: ReadonlyArray<string>, options?: IdentityLog.ResolveOptions) =>
  IdentityLog.resolve(updates.map(hex), options)

const expectSameVerdict = (vector: LogVector) =>
  Effect.gen(function* () {
    const result = yield* Effect.either(resolve(vector.updates))
    if (typeof vector.libxmtp === "string") {
      if (Either.isRight(result)) return expect.fail(`accepted, but libxmtp says ${vector.libxmtp}`)
      return expectSameRefusal(result.left, vector.libxmtp)
    }
    expect(summary(Either.getOrThrow(result))).toEqual({
      ...vector.libxmtp,
      installations: [...vector.libxmtp.installations].sort(),
      identifiers: [...vector.libxmtp.identifiers].sort()
    })
  })

describe("logs resolve as in the native library", () => {
  it.effect.each(directedLogs.map((vector) => ({ name: vector.name ?? "", vector })))("$name", ({ vector }) =>
    expectSameVerdict(vector).pipe(Effect.provide(VectorWallets.layer))
  )

  it.effect("all random logs", () =>
    Effect.forEach(randomIdentityLogs, expectSameVerdict, { discard: true }).pipe(Effect.provide(VectorWallets.layer))
  )

  it.effect.each(sessionStates.map((vector) => ({ name: vector.name, vector })))("captured: $name", ({ vector }) =>
    Effect.gen(function* () {
      const { inboxId, identifiers, installations, recoveryIdentifier } = vector.state
      const log = sessionLogs.find((entry) => entry.inboxId === inboxId)?.entries ?? []
      const state = yield* resolve(log.slice(0, vector.updates).map(({ identityUpdate }) => identityUpdate))
      expect(summary(state)).toEqual({
        inboxId,
        recovery: `0:${recoveryIdentifier.identifier}`,
        installations: installations.map(({ clientTimestampNs, id }) => `${id}@${clientTimestampNs}`).sort(),
        identifiers: identifiers.map(({ identifier }) => `0:${identifier}`).sort()
      })
      for (const { id } of installations) {
        expect(AssociationState.hasInstallation(state, InstallationId.InstallationId.make(id))).toBe(true)
      }
    }).pipe(Effect.provide(layerNone))
  )
})

describe("extending a state", () => {
  const longLogs = randomIdentityLogs.filter(({ updates }) => updates.length > 1)

  it.effect(`gives what resolving the whole log gives, seed ${SEED}`, () =>
    Effect.forEach(
      FastCheck.sample(FastCheck.tuple(FastCheck.constantFrom(...longLogs), FastCheck.nat()), {
        numRuns: 30,
        seed: SEED
      }),
      ([vector, split]) =>
        Effect.gen(function* () {
          const at = 1 + (split % (vector.updates.length - 1))
          const whole = yield* Effect.either(resolve(vector.updates))
          const start = yield* Effect.either(resolve(vector.updates.slice(0, at)))
          if (Either.isLeft(start)) return expect(Either.isLeft(whole)).toBe(true)
          const before = structuredClone({ ...start.right })
          const extended = yield* Effect.either(IdentityLog.extend(start.right, vector.updates.slice(at).map(hex)))
          // The state that was extended is untouched, whatever came of it.
          expect(start.right).toEqual(before)
          if (Either.isRight(whole)) return expect(extended).toEqual(whole)
          if (Either.isRight(extended)) return expect.fail("extended what the whole log refuses")
          expect(`${extended.left.stage} ${extended.left.reason}`).toBe(`${whole.left.stage} ${whole.left.reason}`)
          expect(extended.left.updateIndex).toBe((whole.left.updateIndex ?? 0) - at)
        }),
      { discard: true }
    ).pipe(Effect.provide(VectorWallets.layer))
  )

  it.effect("by nothing changes nothing", () =>
    Effect.gen(function* () {
      const state = yield* resolve(directedLogs[0]?.updates ?? [])
      expect(yield* IdentityLog.extend(state, [])).toEqual(state)
    }).pipe(Effect.provide(layerNone))
  )
})

describe("which inbox", () => {
  const [log] = sessionLogs
  const updates = (log?.entries ?? []).map(({ identityUpdate }) => identityUpdate)

  it.effect("is taken when it is the expected one", () =>
    Effect.gen(function* () {
      const expectedInboxId = InboxId.make(log?.inboxId ?? "")
      expect((yield* resolve(updates, { expectedInboxId })).inboxId).toBe(expectedInboxId)
    }).pipe(Effect.provide(layerNone))
  )

  it.effect("is refused when a node serves another inbox's log", () =>
    Effect.gen(function* () {
      const expectedInboxId = InboxId.make("ab".repeat(32))
      const error = yield* Effect.flip(resolve(updates, { expectedInboxId }))
      expect(error).toMatchObject({ _tag: "IdentityAssociationError", reason: "UnexpectedInbox" })
      expect(error.message).toContain(expectedInboxId)
      expect(error.message).toContain(log?.inboxId)
    }).pipe(Effect.provide(layerNone))
  )
})

describe("a smart contract wallet that cannot be asked", () => {
  const vector = directedLogs.find(({ name }) => name === "SCW account address checksummed/upper")

  it.effect.each(["NoVerifier", "Unavailable"] as const)("is retryable and not invalid: %s", (reason) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(resolve(vector?.updates ?? []))
      expect(error).toMatchObject({
        _tag: "IdentitySignatureError",
        reason: "VerifierUnavailable",
        kind: "SmartContractWallet",
        role: "initial",
        updateIndex: 0,
        actionIndex: 0,
        isRetryable: true
      })
    }).pipe(
      Effect.provide(
        Layer.succeed(SmartContractWalletVerifier, {
          isValid: ({ chainId }) => Effect.fail(new SmartContractWalletVerifierError({ reason, chainId }))
        })
      )
    )
  )
})

describe("equal signatures of a smart contract wallet in one update", () => {
  const signed = (blockNumbers: ReadonlyArray<bigint>): IdentityUpdate.IdentityUpdate => ({
    inboxId: "ab".repeat(32),
    clientTimestampNs: 0n,
    actions: blockNumbers.map((blockNumber) => ({
      _tag: "RevokeAssociation",
      member: MemberIdentifier.installation("00".repeat(32)),
      recoverySignature: {
        _tag: "SmartContractWallet",
        accountId: { chainId: "eip155:1", address: `0x${"11".repeat(20)}` },
        blockNumber,
        bytes: Uint8Array.of(1, 2, 3)
      }
    }))
  })

  it.effect("are asked of the wallet once, and of every block that they name", () => {
    const asked: Array<bigint> = []
    const verifier = Layer.succeed(SmartContractWalletVerifier, {
      isValid: ({ blockNumber }) => Effect.sync(() => asked.push(blockNumber) > 0)
    })
    return Effect.gen(function* () {
      const { actions } = yield* IdentityLog.verifyUpdate(signed([1n, 1n, 2n, 1n]))
      expect(actions.length).toBe(4)
      expect(asked).toEqual([1n, 2n])
    }).pipe(Effect.provide(verifier))
  })
})

describe("the curve backend", () => {
  it.effect("is @noble/curves unless a layer says otherwise", () =>
    Effect.gen(function* () {
      expect((yield* CurveBackend.CurveBackend).name).toBe("@noble/curves")
    })
  )

  it.effect("is the one of the layer, and verifies a repeated signature once", () => {
    let recoveries = 0
    const counting: CurveBackend.Operations = {
      ...CurveBackend.noble,
      name: "counting",
      recoverSecp256k1: (...args) => {
        recoveries++
        return CurveBackend.noble.recoverSecp256k1(...args)
      }
    }
    return Effect.gen(function* () {
      expect((yield* CurveBackend.CurveBackend).name).toBe("counting")
      // Register: the wallet's one signature founds the inbox and adds the installation.
      yield* resolve(directedLogs[0]?.updates ?? [])
      expect(recoveries).toBe(1)
    }).pipe(Effect.provide(Layer.merge(CurveBackend.layer(counting), layerNone)))
  })
})

describe("bad logs", () => {
  const owner = wallet("11".repeat(32))
  const key = installationKey("22".repeat(32))
  const ns = 1_700_000_000_000_000_000n
  const request = RegistrationUpdate.createInbox({
    owner: owner.identifier,
    installationKey: key,
    clientTimestampNs: ns
  })
  const register = RegistrationUpdate.complete(request, owner.sign(request.text))
  const refusal = (updates: ReadonlyArray<Uint8Array>) =>
    Effect.map(Effect.flip(IdentityLog.resolve(updates)), ({ actionIndex, reason, updateIndex }) => ({
      reason,
      updateIndex,
      actionIndex
    }))
  const empty = (inboxId: string, clientTimestampNs: bigint) =>
    IdentityUpdate.encode({ inboxId, clientTimestampNs, actions: [] })

  /** Changes the recovery identifier to any text. */
  const changeRecovery = (address: string) => {
    const unsigned: IdentityUpdate.UnsignedChangeRecoveryIdentifier = {
      _tag: "ChangeRecoveryIdentifier",
      newRecoveryIdentifier: { _tag: "Ethereum", address }
    }
    const update = { inboxId: request.inboxId, clientTimestampNs: ns, actions: [unsigned] }
    const bytes = owner.sign(SignatureText.make(update))
    return IdentityUpdate.encode({
      ...update,
      actions: [{ ...unsigned, recoverySignature: { _tag: "Erc191", bytes } }]
    })
  }

  it.effect("nothing at all is no inbox", () =>
    Effect.gen(function* () {
      expect(yield* refusal([])).toEqual({ reason: "NotCreated", updateIndex: undefined, actionIndex: undefined })
    }).pipe(Effect.provide(layerNone))
  )

  it.effect("out of order, duplicated, with a gap: refused at the update that does not fit", () =>
    Effect.gen(function* () {
      const log = (sessionLogs[0]?.entries ?? []).map(({ identityUpdate }) => hex(identityUpdate))
      const [create = new Uint8Array(), addInstallation = create, addWallet = create, revoke = create] = log
      expect(yield* refusal([addInstallation, create])).toEqual({
        reason: "NotCreated",
        updateIndex: 0,
        actionIndex: 0
      })
      expect(yield* refusal([create, addInstallation, addInstallation])).toEqual({
        reason: "Replay",
        updateIndex: 2,
        actionIndex: 0
      })
      expect(yield* refusal([create, create])).toMatchObject({ reason: "MultipleCreate", updateIndex: 1 })
      // Without the update in between a revocation is a no-op and an addition stands: a gap cannot be seen in the log.
      const gap = yield* IdentityLog.resolve([create, addWallet, revoke])
      expect(AssociationState.installationIds(gap)).toHaveLength(1)
    }).pipe(Effect.provide(layerNone))
  )

  it.effect("bytes that are no update name the update", () =>
    Effect.gen(function* () {
      const first = yield* register
      for (const bytes of [Uint8Array.of(0xff), new Uint8Array(64).fill(0x0a), first.subarray(0, 100)]) {
        expect(yield* refusal([first, bytes])).toMatchObject({ reason: "NotProtobuf", updateIndex: 1 })
      }
    }).pipe(Effect.provide(layerNone))
  )

  it.effect("10,000 updates resolve, and one wrong one at the end fails them all", () =>
    Effect.gen(function* () {
      const log = [yield* register]
      for (let i = 1; i < 10_000; i++) log.push(empty(request.inboxId, ns + BigInt(i)))
      const state = yield* IdentityLog.resolve(log)
      expect(AssociationState.installationIds(state)).toEqual([key.installationId])
      log.push(empty("00".repeat(32), ns))
      expect(yield* refusal(log)).toMatchObject({ reason: "WrongInboxId", updateIndex: 10_000 })
    }).pipe(Effect.provide(layerNone))
  )

  it.live("a long log lets others run, and stops when it is interrupted", () =>
    Effect.gen(function* () {
      const log = [yield* register]
      for (let i = 1; i < 10_000; i++) log.push(empty(request.inboxId, ns + BigInt(i)))
      const fiber = yield* Effect.fork(IdentityLog.resolve(log))
      yield* Effect.yieldNow()
      expect(Exit.isInterrupted(yield* Fiber.interrupt(fiber))).toBe(true)
    }).pipe(Effect.provide(layerNone))
  )

  it.effect("a recovery identifier of 1 MiB of text is taken as it is, and can never sign", () =>
    Effect.gen(function* () {
      const text = "line\n".repeat(2 ** 20 / 5)
      const log = [yield* register, changeRecovery(text)]
      const state = yield* IdentityLog.resolve(log)
      expect(state.recoveryIdentifier).toEqual({ _tag: "Ethereum", address: text })
      // Wallet signatures are deterministic: the same change again is a replay.
      expect(yield* refusal([...log, changeRecovery(text)])).toMatchObject({ reason: "Replay", updateIndex: 2 })
      expect(yield* refusal([...log, changeRecovery("0x")])).toMatchObject({ reason: "MissingExistingMember" })
    }).pipe(Effect.provide(layerNone))
  )
})
