import { describe, expect, it } from "@effect/vitest"
import {
  type SessionClient,
  sessionClients,
  sessionIdentityUpdates,
  sessionLogs
} from "@keyward/test-utils/vectors/IdentityVectors"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as AssociationState from "../../src/identity/AssociationState.ts"
import * as Identifier from "../../src/identity/Identifier.ts"
import * as IdentityLog from "../../src/identity/IdentityLog.ts"
import * as IdentityUpdate from "../../src/identity/IdentityUpdate.ts"
import { InboxId } from "../../src/identity/InboxId.ts"
import * as RegistrationUpdate from "../../src/identity/RegistrationUpdate.ts"
import { Signer, SignerError } from "../../src/ports/Signer.ts"
import { layerNone } from "../../src/ports/SmartContractWalletVerifier.ts"
import { hex, installationKey, toHex, type Wallet, wallet } from "./fixtures.ts"

const SEED = Number(process.env.KEYWARD_TEST_SEED ?? 20_261_123)

const client = (name: string): SessionClient =>
  sessionClients.find((each) => each.name === name) ?? expect.fail(`no client ${name}`)

/** The captured update that made this client a member. */
const captured = ({ installationId }: SessionClient) =>
  sessionIdentityUpdates.find(
    ({ actions, identityUpdate }) =>
      actions.includes("add") &&
      identityUpdate.includes(`1a661a640a40`) &&
      identityUpdate.includes(`0a221220${installationId}`)
  ) ?? expect.fail("no captured update")

const signerLayer = ({ identifier, sign }: Wallet) =>
  Layer.succeed(Signer, { identifier, signText: (text) => Effect.sync(() => sign(text)) })

/** Nobody here is a smart contract wallet. */
const complete = (...args: Parameters<typeof RegistrationUpdate.complete>) =>
  Effect.provide(RegistrationUpdate.complete(...args), layerNone)
const sign = (...args: Parameters<typeof RegistrationUpdate.sign>) =>
  Effect.provide(RegistrationUpdate.sign(...args), layerNone)

const owner = wallet("42".repeat(32))
const stranger = wallet("43".repeat(32))
const key = installationKey("44".repeat(32))
const clientTimestampNs = 1_795_420_932_378_717_688n
const newInbox = RegistrationUpdate.createInbox({
  owner: owner.identifier,
  installationKey: key,
  clientTimestampNs
})

describe("captured registrations are rebuilt byte for byte", () => {
  it.effect.each(["alice1", "bob", "carol", "dave"])("%s founds an inbox", (name) =>
    Effect.gen(function* () {
      const real = client(name)
      const update = captured(real)
      const request = RegistrationUpdate.createInbox({
        owner: Identifier.ethereum(real.address),
        nonce: real.nonce,
        installationKey: installationKey(real.installationSeed),
        clientTimestampNs: BigInt(update.clientTimestampNs)
      })
      expect(request.inboxId).toBe(real.inboxId)
      // From the wallet's key and the installation's seed alone: both sign deterministically.
      const bytes = yield* Effect.provide(sign(request), signerLayer(wallet(real.walletPrivateKey)))
      expect(toHex(bytes)).toBe(update.identityUpdate)
      expect(bytes).toHaveLength(416)
    })
  )

  it.effect("alice2 joins alice's inbox, with and without its state at hand", () =>
    Effect.gen(function* () {
      const real = client("alice2")
      const update = captured(real)
      const before = sessionLogs.find(({ inboxId }) => inboxId === real.inboxId)?.entries[0]
      const state = yield* IdentityLog.resolve([hex(before?.identityUpdate ?? "")])
      for (const known of [undefined, state]) {
        const request = RegistrationUpdate.joinInbox({
          inboxId: InboxId.make(real.inboxId),
          owner: Identifier.ethereum(real.address),
          installationKey: installationKey(real.installationSeed),
          clientTimestampNs: BigInt(update.clientTimestampNs),
          state: known
        })
        const bytes = yield* complete(request, wallet(real.walletPrivateKey).sign(request.text))
        expect(toHex(bytes)).toBe(update.identityUpdate)
        expect(bytes).toHaveLength(293)
      }
    }).pipe(Effect.provide(layerNone))
  )
})

describe("what is handed out", () => {
  it.effect(`resolves to the installation as a member of the inbox, seed ${SEED}`, () =>
    Effect.forEach(
      FastCheck.sample(
        FastCheck.record({
          walletKey: FastCheck.uint8Array({ minLength: 31, maxLength: 31 }),
          seed: FastCheck.uint8Array({ minLength: 32, maxLength: 32 }),
          nonce: FastCheck.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
          ns: FastCheck.bigInt({ min: 0n, max: 2n ** 64n - 1n })
        }),
        { numRuns: 20, seed: SEED }
      ),
      ({ ns, nonce, seed, walletKey }) =>
        Effect.gen(function* () {
          const founder = wallet(`01${toHex(walletKey)}`)
          const installation = installationKey(toHex(seed))
          const request = RegistrationUpdate.createInbox({
            owner: founder.identifier,
            nonce,
            installationKey: installation,
            clientTimestampNs: ns
          })
          const bytes = yield* complete(request, founder.sign(request.text))
          const state = yield* IdentityLog.resolve([bytes], { expectedInboxId: request.inboxId })
          expect(AssociationState.installationIds(state)).toEqual([installation.installationId])
          expect(AssociationState.isMember(state, founder.identifier)).toBe(true)
          expect(state.recoveryIdentifier).toEqual(founder.identifier)
        }),
      { discard: true }
    ).pipe(Effect.provide(layerNone))
  )

  it("keeps the seed out of sight", () => {
    expect(JSON.stringify(newInbox, (_, value) => (typeof value === "bigint" ? `${value}` : value))).not.toContain(
      "44".repeat(32)
    )
    expect(`${newInbox.installationKey.seed}`).toBe("<redacted>")
  })
})

describe("what is not handed out", () => {
  it.effect.each([
    { name: "another wallet's signature", signature: stranger.sign(newInbox.text) },
    { name: "a signature of another text", signature: owner.sign(`${newInbox.text} `) },
    {
      name: "a signature with the wrong v",
      signature: owner.sign(newInbox.text).map((b, i) => (i === 64 ? 55 - b : b))
    }
  ])("$name names who was to sign and who is recovered", ({ signature }) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(complete(newInbox, signature))
      expect(error).toMatchObject({ _tag: "SignatureRequestError", reason: "WrongSigner", isRetryable: false })
      const expected = owner.identifier._tag === "Ethereum" ? owner.identifier.address : ""
      expect(error.expected).toBe(expected)
      expect(error.recovered).toMatch(/^0x[0-9a-f]{40}$/)
      expect(error.recovered).not.toBe(expected)
      expect(error.message).toContain(error.recovered)
    })
  )

  it.effect.each([
    { name: "64 bytes", signature: owner.sign(newInbox.text).subarray(0, 64) },
    { name: "66 bytes", signature: Uint8Array.of(...owner.sign(newInbox.text), 0) },
    { name: "nothing", signature: new Uint8Array(0) },
    { name: "zeros", signature: new Uint8Array(65) },
    { name: "v of 2", signature: owner.sign(newInbox.text).map((b, i) => (i === 64 ? 2 : b)) }
  ])("no signature at all: $name", ({ signature }) =>
    Effect.gen(function* () {
      const error = yield* Effect.flip(complete(newInbox, signature))
      expect(error.reason).toBe("MalformedSignature")
    })
  )

  it.effect("an update under a seed that is not the installation's", () =>
    Effect.gen(function* () {
      const mixed = { installationId: key.installationId, seed: Redacted.make(hex("45".repeat(32))) }
      const request = RegistrationUpdate.createInbox({
        owner: owner.identifier,
        installationKey: mixed,
        clientTimestampNs
      })
      const error = yield* Effect.flip(complete(request, owner.sign(request.text)))
      expect(error.reason).toBe("WrongInstallationKey")
      expect(error.message).not.toContain("45".repeat(8))
    })
  )

  it.effect("an update that the inbox's own log would refuse", () =>
    Effect.gen(function* () {
      const state = yield* IdentityLog.resolve([yield* complete(newInbox, owner.sign(newInbox.text))])
      const join = (by: Wallet, inboxId: InboxId) => {
        const request = RegistrationUpdate.joinInbox({
          inboxId,
          owner: by.identifier,
          installationKey: installationKey("46".repeat(32)),
          clientTimestampNs,
          state
        })
        return Effect.flip(complete(request, by.sign(request.text)))
      }
      expect(yield* join(stranger, newInbox.inboxId)).toMatchObject({
        reason: "NotAllowed",
        detail: "MissingExistingMember"
      })
      expect(yield* join(owner, InboxId.make("00".repeat(32)))).toMatchObject({
        reason: "NotAllowed",
        detail: "WrongInboxId"
      })
    }).pipe(Effect.provide(layerNone))
  )

  it.effect("a wallet that is not the owner is not asked", () => {
    let asked = 0
    const layer = Layer.succeed(Signer, {
      identifier: stranger.identifier,
      signText: (text) => Effect.sync(() => (asked++, stranger.sign(text)))
    })
    return Effect.gen(function* () {
      const error = yield* Effect.flip(sign(newInbox))
      expect(error).toMatchObject({ _tag: "SignatureRequestError", reason: "MissingSigner" })
      expect(asked).toBe(0)
    }).pipe(Effect.provide(layer))
  })

  it.effect("a wallet's refusal is its own error", () =>
    Effect.gen(function* () {
      const result = yield* Effect.either(sign(newInbox))
      expect(result).toMatchObject(Either.left({ _tag: "SignerError", reason: "Refused" }))
    }).pipe(
      Effect.provide(
        Layer.succeed(Signer, {
          identifier: owner.identifier,
          signText: () => Effect.fail(new SignerError({ reason: "Refused" }))
        })
      )
    )
  )
})

describe("the wallet's bytes", () => {
  it.effect("are sent as the wallet gave them, v of 0 or 1 included", () =>
    Effect.gen(function* () {
      const given = owner.sign(newInbox.text).map((byte, index) => (index === 64 ? byte - 27 : byte))
      const bytes = yield* complete(newInbox, given)
      const { actions } = Either.getOrThrow(IdentityUpdate.decode(bytes))
      expect(actions[0]).toMatchObject({ _tag: "CreateInbox", initialSignature: { _tag: "Erc191", bytes: given } })
    })
  )
})
