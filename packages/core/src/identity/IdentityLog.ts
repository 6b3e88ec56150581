/**
 * From an inbox's log to who belongs to it.
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { turn } from "../internal/eventLoop.ts"
import * as hex from "../internal/hex.ts"
import { withSpan } from "../internal/span.ts"
import type { SmartContractWalletVerifier } from "../ports/SmartContractWalletVerifier.ts"
import { type AssociationState, applyAll, type VerifiedAction, type VerifiedUpdate } from "./AssociationState.ts"
import { CurveBackend, type Operations, type Question } from "./CurveBackend.ts"
import {
  IdentityAssociationError,
  IdentityConversionError,
  type IdentityError,
  IdentitySignatureError,
  type SignatureRole
} from "./IdentityError.ts"
import * as IdentityUpdate from "./IdentityUpdate.ts"
import type { InboxId } from "./InboxId.ts"
import * as SignatureText from "./SignatureText.ts"
import * as Erc191 from "./signature/Erc191.ts"
import * as InstallationSignature from "./signature/InstallationSignature.ts"
import * as LegacyDelegated from "./signature/LegacyDelegated.ts"
import * as Passkey from "./signature/Passkey.ts"
import type { Signature } from "./signature/Signature.ts"
import { SignedText } from "./signature/SignedText.ts"
import * as SmartContractWallet from "./signature/SmartContractWallet.ts"
import type { SignatureFailure, VerifiedSignature } from "./signature/VerifiedSignature.ts"

/**
 * How to read a log.
 *
 * @since 1.0.0
 * @category models
 */
export interface ResolveOptions {
  /**
   * The inbox whose log this is said to be. A valid log of another inbox is then refused (`UnexpectedInbox`); libxmtp
   * accepts one, and a node could serve it.
   */
  readonly expectedInboxId?: InboxId | undefined
}

/** What is done between two looks at the event loop: 32 verifications, or 256 smaller steps. */
const POINTS_PER_TURN = 256
/** The same where many logs are in hand, and others wait the longer. */
const POINTS_PER_TURN_OF_MANY = 16
const VERIFICATION = 8
const SMALL_STEP = 1

/** Counts the work of a log, or of several, over all updates; says when it is others' turn. */
const makePace = (pointsPerTurn = POINTS_PER_TURN) => {
  let points = 0
  return (cost: number): boolean => {
    points += cost
    if (points < pointsPerTurn) return false
    points = 0
    return true
  }
}

/**
 * What the verification of one signature comes to.
 *
 * @since 1.0.0
 * @category models
 */
export type Verification = Effect.Effect<
  VerifiedSignature,
  SignatureFailure | "InvalidKey",
  SmartContractWalletVerifier
>

/**
 * Verifies one signature of a text, whatever its kind. The failure is "InvalidKey" where the key of an installation's
 * signature is no point of the curve: libxmtp counts that as a failure of conversion.
 *
 * @since 1.0.0
 * @category verification
 */
export const verifySignature = (backend: Operations, text: SignedText, signature: Signature): Verification => {
  return signature._tag === "SmartContractWallet"
    ? SmartContractWallet.verify(text.eip191Hash, signature)
    : verifyHere(backend, text, signature)
}

/** Every kind but the one that asks a chain. */
const verifyHere = (
  backend: Operations,
  text: SignedText,
  signature: Exclude<Signature, { readonly _tag: "SmartContractWallet" }>
): Either.Either<VerifiedSignature, SignatureFailure | "InvalidKey"> => {
  switch (signature._tag) {
    case "Erc191":
      return Erc191.verify(backend, text.eip191Hash, signature.bytes)
    case "InstallationKey":
      return InstallationSignature.verify(backend, text.sha512, signature.bytes, signature.publicKey)
    case "LegacyDelegated":
      return LegacyDelegated.verify(backend, text.eip191Hash, signature)
    case "Passkey":
      return Passkey.verify(backend, text, signature)
  }
}

/** The parts of a signature that its verification reads beside the text. One wallet signature often serves two actions. */
const memoKey = (signature: Signature): string | undefined => {
  switch (signature._tag) {
    case "Erc191":
      return hex.encode(signature.bytes)
    case "InstallationKey":
      return `${hex.encode(signature.publicKey)}:${hex.encode(signature.bytes)}`
    case "SmartContractWallet": {
      const { address, chainId } = signature.accountId
      return JSON.stringify([chainId, address, String(signature.blockNumber), hex.encode(signature.bytes)])
    }
    default:
      return undefined
  }
}

/**
 * Verifies every signature of an update; the first failure is the update's (libxmtp `unverified.rs`, `to_verified`). What
 * the update does with its signers is not looked at.
 *
 * `updateIndex` names the update in the error.
 *
 * @since 1.0.0
 * @category verification
 */
export const verifyUpdate = (
  update: IdentityUpdate.IdentityUpdate,
  options?: { readonly updateIndex?: number | undefined }
): Effect.Effect<VerifiedUpdate, IdentityConversionError | IdentitySignatureError, SmartContractWalletVerifier> =>
  Effect.flatMap(CurveBackend, (backend) =>
    verifyAtPace({ update, text: textOf(update) }, options?.updateIndex, makePace(), backend)
  )

/** An update and what its signatures sign. */
interface Signed {
  readonly update: IdentityUpdate.IdentityUpdate
  readonly text: SignedText
}

const textOf = (update: IdentityUpdate.IdentityUpdate): SignedText => new SignedText(SignatureText.make(update))

const verifyAtPace = (
  { text, update }: Signed,
  updateIndex: number | undefined,
  pace: ReturnType<typeof makePace>,
  backend: Operations
): Effect.Effect<VerifiedUpdate, IdentityConversionError | IdentitySignatureError, SmartContractWalletVerifier> =>
  Effect.gen(function* () {
    const memo = new Map<string, VerifiedSignature>()
    const actions: Array<VerifiedAction> = []

    // One loop without an effect for each signature: most are verified right here.
    for (const [actionIndex, action] of update.actions.entries()) {
      const signers: Array<VerifiedSignature> = []
      for (const [role, signature] of signaturesOf(action)) {
        const key = memoKey(signature)
        const known = key === undefined ? undefined : memo.get(key)
        if (pace(known === undefined ? VERIFICATION : SMALL_STEP)) yield* turn
        if (known !== undefined) {
          signers.push(known)
          continue
        }
        const verified =
          signature._tag === "SmartContractWallet"
            ? yield* Effect.either(SmartContractWallet.verify(text.eip191Hash, signature))
            : verifyHere(backend, text, signature)
        if (Either.isLeft(verified)) {
          const failure = verified.left
          return yield* failure === "InvalidKey"
            ? new IdentityConversionError({
                updateIndex,
                actionIndex,
                reason: "InvalidInstallationKey",
                detail: "not a point of the curve"
              })
            : new IdentitySignatureError({ updateIndex, actionIndex, role, kind: signature._tag, ...failure })
        }
        if (key !== undefined) memo.set(key, verified.right)
        signers.push(verified.right)
      }
      const verified = withSigners(action, signers)
      if (verified === undefined) return yield* Effect.dieMessage("an action has as many signers as signatures")
      actions.push(verified)
    }
    return { inboxId: update.inboxId, clientTimestampNs: update.clientTimestampNs, actions }
  })

/** The signatures of an action, in the order in which libxmtp verifies them. */
const signaturesOf = (action: IdentityUpdate.Action): ReadonlyArray<readonly [SignatureRole, Signature]> => {
  switch (action._tag) {
    case "CreateInbox":
      return [["initial", action.initialSignature]]
    case "AddAssociation":
      return [
        ["new", action.newMemberSignature],
        ["existing", action.existingMemberSignature]
      ]
    default:
      return [["recovery", action.recoverySignature]]
  }
}

/** An action with its signers, in the order of `signaturesOf`. */
const withSigners = (
  action: IdentityUpdate.Action,
  [first, second]: ReadonlyArray<VerifiedSignature>
): VerifiedAction | undefined => {
  if (first === undefined) return undefined
  switch (action._tag) {
    case "CreateInbox":
      return { unsigned: action, initial: first }
    case "AddAssociation":
      return second === undefined ? undefined : { unsigned: action, new: first, existing: second }
    case "RevokeAssociation":
      return { unsigned: action, recovery: first }
    case "ChangeRecoveryIdentifier":
      return { unsigned: action, recovery: first }
  }
}

/** All updates of a log, before any of them is verified: one that does not decode fails the log first. */
const decodeAll = (
  updates: ReadonlyArray<Uint8Array>,
  pace: ReturnType<typeof makePace>
): Effect.Effect<ReadonlyArray<Signed>, IdentityConversionError> =>
  Effect.gen(function* () {
    const decoded: Array<Signed> = []
    for (const [updateIndex, bytes] of updates.entries()) {
      if (pace(SMALL_STEP)) yield* turn
      const update = yield* IdentityUpdate.decode(bytes, { updateIndex })
      decoded.push({ update, text: textOf(update) })
    }
    return decoded
  })

const fold = (
  state: AssociationState | undefined,
  decode: Effect.Effect<ReadonlyArray<Signed>, IdentityConversionError>,
  options: ResolveOptions | undefined,
  pace: ReturnType<typeof makePace>,
  backend: Operations
): Effect.Effect<AssociationState, IdentityError, SmartContractWalletVerifier> =>
  Effect.gen(function* () {
    const verified: Array<VerifiedUpdate> = []
    for (const [updateIndex, signed] of (yield* decode).entries()) {
      verified.push(yield* verifyAtPace(signed, updateIndex, pace, backend))
    }
    const next = yield* applyAll(state, verified)
    const expected = options?.expectedInboxId
    if (expected !== undefined && next.inboxId !== expected) {
      return yield* new IdentityAssociationError({
        reason: "UnexpectedInbox",
        detail: `expected ${expected}, the log is that of ${next.inboxId}`
      })
    }
    return next
  })

const foldOne = (
  state: AssociationState | undefined,
  updates: ReadonlyArray<Uint8Array>,
  options: ResolveOptions | undefined
): Effect.Effect<AssociationState, IdentityError, SmartContractWalletVerifier> =>
  Effect.suspend(() => {
    const pace = makePace()
    return Effect.flatMap(CurveBackend, (backend) => fold(state, decodeAll(updates, pace), options, pace, backend))
  }).pipe(withSpan("IdentityLog.resolve", { attributes: { updates: updates.length } }))

/**
 * The state that a whole log adds up to: the protobuf bytes of its updates in the order of the node
 * (`xmtp_mls/src/identity_updates.rs`, `get_association_state`). All or nothing, as in every other client: one update that
 * does not decode, verify or follow the rules fails the log. Curve work is done by the `CurveBackend` in use; a long log
 * lets other fibers run, and can be interrupted.
 *
 * @since 1.0.0
 * @category resolving
 * @example
 * ```ts
 * import * as Effect from "effect/Effect"
 * import * as AssociationState from "@keyward/core/identity/AssociationState"
 * import * as IdentityLog from "@keyward/core/identity/IdentityLog"
 *
 * const installations = (log: ReadonlyArray<Uint8Array>) =>
 *   IdentityLog.resolve(log).pipe(Effect.map(AssociationState.installationIds))
 * ```
 */
export const resolve = (
  updates: ReadonlyArray<Uint8Array>,
  options?: ResolveOptions
): Effect.Effect<AssociationState, IdentityError, SmartContractWalletVerifier> => foldOne(undefined, updates, options)

/**
 * The state after further updates, without verifying again what led to it. The result is what resolving the whole log
 * gives; the indexes in an error count from the first new update.
 *
 * @since 1.0.0
 * @category resolving
 */
export const extend = (
  state: AssociationState,
  newUpdates: ReadonlyArray<Uint8Array>,
  options?: ResolveOptions
): Effect.Effect<AssociationState, IdentityError, SmartContractWalletVerifier> => foldOne(state, newUpdates, options)

/**
 * A log among others.
 *
 * @since 1.0.0
 * @category models
 */
export interface LogToResolve extends ResolveOptions {
  /** The state that these updates extend; nothing where the log starts. */
  readonly state?: AssociationState | undefined
  readonly updates: ReadonlyArray<Uint8Array>
}

/** Bytes of a log that is decoded before its turn. Longer ones are none that many are asked for at once. */
const DECODED_AHEAD_BYTES = 32 * 1024

/** The operations that verifying these updates comes to: a rehearsal in which every signature is found wanting. */
const questionsOf = (logs: ReadonlyArray<ReadonlyArray<Signed>>): ReadonlyArray<Question> => {
  const questions: Array<Question> = []
  const listener: Operations = {
    name: "listener",
    recoverSecp256k1: (digest, signature, parity) => {
      questions.push({ _tag: "recoverSecp256k1", digest, signature, parity })
      return undefined
    },
    combineEd25519: (s, k, a) => {
      questions.push({ _tag: "combineEd25519", s, k, a })
      return undefined
    },
    verifyP256: () => false
  }
  for (const log of logs) {
    for (const { text, update } of log) {
      const asked = new Set<string>()
      for (const [, signature] of update.actions.flatMap(signaturesOf)) {
        if (signature._tag !== "Erc191" && signature._tag !== "InstallationKey") continue
        const key = memoKey(signature)
        if (key === undefined || asked.has(key)) continue
        asked.add(key)
        verifyHere(listener, text, signature)
      }
    }
  }
  return questions
}

/**
 * `resolve` or `extend` of each log, in order, `concurrency` at a time: while one waits for a smart contract wallet, the
 * others go on. The curve backend hears of all their signatures before the first is verified, so that one with workers can
 * begin on every processor.
 *
 * @since 1.0.0
 * @category resolving
 */
export const resolveAll = (
  logs: ReadonlyArray<LogToResolve>,
  options: { readonly concurrency: number }
): Effect.Effect<ReadonlyArray<Either.Either<AssociationState, IdentityError>>, never, SmartContractWalletVerifier> =>
  Effect.gen(function* () {
    const backend = yield* CurveBackend
    const pace = makePace(POINTS_PER_TURN_OF_MANY)
    const toFold: Array<LogToResolve & { readonly decode: ReturnType<typeof decodeAll> }> = []
    const ahead: Array<ReadonlyArray<Signed>> = []
    for (const log of logs) {
      const decode = decodeAll(log.updates, pace)
      const isShort = log.updates.reduce((sum, { length }) => sum + length, 0) <= DECODED_AHEAD_BYTES
      const decoded = backend.foresee !== undefined && isShort ? yield* Effect.either(decode) : undefined
      if (decoded !== undefined && Either.isRight(decoded)) ahead.push(decoded.right)
      toFold.push({ ...log, decode: decoded ?? decode })
    }
    const { operations, release } = backend.foresee?.(questionsOf(ahead)) ?? { operations: backend, release: () => {} }
    return yield* Effect.forEach(
      toFold,
      ({ decode, state, ...options }) => Effect.either(fold(state, decode, options, pace, operations)),
      options
    ).pipe(Effect.ensuring(Effect.sync(release)))
  }).pipe(Effect.withSpan("IdentityLog.resolveAll", { attributes: { logs: logs.length }, captureStackTrace: false }))
