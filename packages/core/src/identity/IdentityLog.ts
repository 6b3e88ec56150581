/**
 * From an inbox's log to who belongs to it.
 *
 * @since 1.0.0
 */
import * as Arr from "effect/Array"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { inTurns, turn } from "../internal/eventLoop.ts"
import * as hex from "../internal/hex.ts"
import { withSpan } from "../internal/span.ts"
import type { SmartContractWalletVerifier } from "../ports/SmartContractWalletVerifier.ts"
import { type AssociationState, applyAll, type VerifiedAction, type VerifiedUpdate } from "./AssociationState.ts"
import { answer, CurveBackend, type Foreseen, type Operations, type Question } from "./CurveBackend.ts"
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
import type { Prepared } from "./signature/Prepared.ts"
import type { Erc191Signature, InstallationKeySignature, Signature } from "./signature/Signature.ts"
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
const PREPARATION = 2
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

type Pace = ReturnType<typeof makePace>

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

type Failure = SignatureFailure | "InvalidKey"

/**
 * Verifies one signature of a text, whatever its kind. The failure is "InvalidKey" where the key of an installation's
 * signature is no point of the curve: libxmtp counts that as a failure of conversion.
 *
 * @since 1.0.0
 * @category verification
 */
export const verifySignature = (backend: Operations, text: SignedText, signature: Signature): Verification => {
  switch (signature._tag) {
    case "SmartContractWallet":
      return SmartContractWallet.verify(text.eip191Hash, signature)
    case "Erc191":
    case "InstallationKey":
      return Either.flatMap(prepare(text, signature), ({ judge, question }) => judge(answer(backend, question)))
    case "LegacyDelegated":
      return LegacyDelegated.verify(backend, text.eip191Hash, signature)
    case "Passkey":
      return Passkey.verify(backend, text, signature)
  }
}

const prepare = (
  text: SignedText,
  signature: Erc191Signature | InstallationKeySignature
): Either.Either<Prepared<Failure>, Failure> =>
  signature._tag === "Erc191"
    ? Erc191.prepare(text.eip191Hash, signature.bytes)
    : Either.right(InstallationSignature.prepare(text.sha512, signature.bytes, signature.publicKey))

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

/** An update, what its signatures sign, and those that have been prepared, by `memoKey`. */
interface Signed {
  readonly update: IdentityUpdate.IdentityUpdate
  readonly text: SignedText
  readonly prepared: Map<string, Either.Either<Prepared<Failure>, Failure>>
}

const signedOf = (update: IdentityUpdate.IdentityUpdate): Signed => ({
  update,
  text: new SignedText(SignatureText.make(update)),
  prepared: new Map()
})

/** Who answers the curve's questions. */
interface Curves {
  readonly backend: Operations
  readonly answer: Foreseen["answer"]
}

const curvesOf = (backend: Operations): Curves => ({ backend, answer: (question) => answer(backend, question) })

/** Why work on a log stops: it is others' turn, or a chain has to be asked. */
type Pause = "turn" | Effect.Effect<VerifiedSignature, SignatureFailure, SmartContractWalletVerifier>

/** Work in steps. It goes on with nothing after a turn, and with the chain's word. */
type Steps<A> = Generator<Pause, A, Either.Either<VerifiedSignature, SignatureFailure> | undefined>

/** Does the work to its end. Most logs never have to ask a chain, so there is no effect but for the pauses. */
const inFiber = <A>(steps: Steps<A>, first = steps.next()): Effect.Effect<A, never, SmartContractWalletVerifier> =>
  Effect.gen(function* () {
    let step = first
    while (step.done !== true) {
      if (step.value === "turn") {
        yield* turn
        step = steps.next(undefined)
      } else step = steps.next(yield* Effect.either(step.value))
    }
    return step.value
  })

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
    Effect.flatten(inFiber(verifySteps(signedOf(update), options?.updateIndex, makePace(), curvesOf(backend))))
  )

function* verifySteps(
  signed: Signed,
  updateIndex: number | undefined,
  pace: Pace,
  curves: Curves
): Steps<Either.Either<VerifiedUpdate, IdentityConversionError | IdentitySignatureError>> {
  const { update } = signed
  const memo = new Map<string, VerifiedSignature>()
  const actions: Array<VerifiedAction> = []
  for (const [actionIndex, action] of update.actions.entries()) {
    const signers: Array<VerifiedSignature> = []
    for (const [role, signature] of signaturesOf(action)) {
      const key = memoKey(signature)
      const known = key === undefined ? undefined : memo.get(key)
      if (pace(known === undefined ? VERIFICATION : SMALL_STEP)) yield "turn"
      if (known !== undefined) {
        signers.push(known)
        continue
      }
      const verified = yield* verifyOne(signed, signature, key, curves)
      if (Either.isLeft(verified)) {
        const failure = verified.left
        return Either.left(
          failure === "InvalidKey"
            ? new IdentityConversionError({
                updateIndex,
                actionIndex,
                reason: "InvalidInstallationKey",
                detail: "not a point of the curve"
              })
            : new IdentitySignatureError({ updateIndex, actionIndex, role, kind: signature._tag, ...failure })
        )
      }
      if (key !== undefined) memo.set(key, verified.right)
      signers.push(verified.right)
    }
    actions.push(withSigners(action, signers))
  }
  return Either.right({ inboxId: update.inboxId, clientTimestampNs: update.clientTimestampNs, actions })
}

function* verifyOne(
  { prepared, text }: Signed,
  signature: Signature,
  key: string | undefined,
  { answer, backend }: Curves
): Steps<Either.Either<VerifiedSignature, Failure>> {
  switch (signature._tag) {
    case "SmartContractWallet": {
      const said = yield SmartContractWallet.verify(text.eip191Hash, signature)
      if (said === undefined) throw new Error("a chain was asked and nobody says what it said")
      return said
    }
    case "Erc191":
    case "InstallationKey": {
      const known = (key === undefined ? undefined : prepared.get(key)) ?? prepare(text, signature)
      return Either.flatMap(known, ({ judge, question }) => judge(answer(question)))
    }
    case "LegacyDelegated":
      return LegacyDelegated.verify(backend, text.eip191Hash, signature)
    case "Passkey":
      return Passkey.verify(backend, text, signature)
  }
}

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

/** An action with its signers, in the order of `signaturesOf`, which has as many. */
const withSigners = (
  action: IdentityUpdate.Action,
  [first, second]: ReadonlyArray<VerifiedSignature>
): VerifiedAction => {
  if (first === undefined) throw new Error("an action has a signature")
  switch (action._tag) {
    case "CreateInbox":
      return { unsigned: action, initial: first }
    case "AddAssociation":
      if (second === undefined) throw new Error("an addition has two signatures")
      return { unsigned: action, new: first, existing: second }
    case "RevokeAssociation":
      return { unsigned: action, recovery: first }
    case "ChangeRecoveryIdentifier":
      return { unsigned: action, recovery: first }
  }
}

type Decoded = Either.Either<ReadonlyArray<Signed>, IdentityConversionError>

/** All updates of a log, before any of them is verified: one that does not decode fails the log first. */
function* decodeSteps(updates: ReadonlyArray<Uint8Array>, pace: Pace): Steps<Decoded> {
  const decoded: Array<Signed> = []
  for (const [updateIndex, bytes] of updates.entries()) {
    if (pace(SMALL_STEP)) yield "turn"
    const update = IdentityUpdate.decode(bytes, { updateIndex })
    if (Either.isLeft(update)) return Either.left(update.left)
    decoded.push(signedOf(update.right))
  }
  return Either.right(decoded)
}

function* foldSteps(
  { expectedInboxId, state, updates }: LogToResolve,
  ahead: Decoded | undefined,
  pace: Pace,
  curves: Curves
): Steps<Either.Either<AssociationState, IdentityError>> {
  const decoded = ahead ?? (yield* decodeSteps(updates, pace))
  if (Either.isLeft(decoded)) return Either.left(decoded.left)
  const verified: Array<VerifiedUpdate> = []
  for (const [updateIndex, signed] of decoded.right.entries()) {
    if (pace(SMALL_STEP)) yield "turn"
    const one = yield* verifySteps(signed, updateIndex, pace, curves)
    if (Either.isLeft(one)) return Either.left(one.left)
    verified.push(one.right)
  }
  const next = applyAll(state, verified)
  if (Either.isRight(next) && expectedInboxId !== undefined && next.right.inboxId !== expectedInboxId) {
    return Either.left(
      new IdentityAssociationError({
        reason: "UnexpectedInbox",
        detail: `expected ${expectedInboxId}, the log is that of ${next.right.inboxId}`
      })
    )
  }
  return next
}

const foldOne = (log: LogToResolve): Effect.Effect<AssociationState, IdentityError, SmartContractWalletVerifier> =>
  Effect.flatMap(CurveBackend, (backend) =>
    Effect.flatten(inFiber(foldSteps(log, undefined, makePace(), curvesOf(backend))))
  ).pipe(withSpan("IdentityLog.resolve", { attributes: { updates: log.updates.length } }))

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
): Effect.Effect<AssociationState, IdentityError, SmartContractWalletVerifier> =>
  foldOne({ updates, expectedInboxId: options?.expectedInboxId })

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
): Effect.Effect<AssociationState, IdentityError, SmartContractWalletVerifier> =>
  foldOne({ state, updates: newUpdates, expectedInboxId: options?.expectedInboxId })

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

/**
 * How to resolve many logs.
 *
 * @since 1.0.0
 * @category models
 */
export interface ResolveAllOptions {
  /** Logs at a time that are long, or that ask a chain: while one waits for that, the others go on. */
  readonly concurrency: number
  /**
   * Where several calls share it (one permit), their signatures are verified call after call, in the order in which they came,
   * while workers are ahead with those of the next. Calls with few signatures and with very many, long logs and logs that ask a
   * chain go on beside. Without effect where the backend foresees nothing.
   */
  readonly takeTurns?: Effect.Semaphore | undefined
}

/** A log is long beyond so many bytes, or updates: none that many are asked for at once. */
const SHORT_LOG_BYTES = 32 * 1024
const SHORT_LOG_UPDATES = 256

/** Calls with fewer questions wait for nobody: they take a few milliseconds, and workers are not asked about them either. */
const FEW_QUESTIONS = 16
/** Nobody waits for calls with more, some 200 ms: somebody's logs may have tens of thousands of signatures. */
const MANY_QUESTIONS = 1_000

const isShort = ({ updates }: LogToResolve): boolean =>
  updates.length <= SHORT_LOG_UPDATES && updates.reduce((sum, { length }) => sum + length, 0) <= SHORT_LOG_BYTES

const asksChain = (decoded: Decoded | undefined): boolean =>
  decoded !== undefined &&
  Either.isRight(decoded) &&
  decoded.right.some(({ update }) =>
    update.actions.some((action) => signaturesOf(action).some(([, { _tag }]) => _tag === "SmartContractWallet"))
  )

/** Prepares the signatures that a curve decides, each once, and notes the questions in the order of their verification. */
function* prepareSteps({ prepared, text, update }: Signed, pace: Pace, questions: Array<Question>): Steps<void> {
  for (const action of update.actions) {
    for (const [, signature] of signaturesOf(action)) {
      if (signature._tag !== "Erc191" && signature._tag !== "InstallationKey") continue
      const key = memoKey(signature)
      if (key === undefined || prepared.has(key)) continue
      if (pace(PREPARATION)) yield "turn"
      const one = prepare(text, signature)
      prepared.set(key, one)
      if (Either.isRight(one)) questions.push(one.right.question)
    }
  }
}

/** The short logs decoded, by their index, and what they will ask of the curves. */
function* decodeAhead(
  logs: ReadonlyArray<LogToResolve>,
  pace: Pace,
  questions: Array<Question>
): Steps<ReadonlyMap<number, Decoded>> {
  const ahead = new Map<number, Decoded>()
  for (const [index, log] of logs.entries()) {
    if (!isShort(log)) continue
    const decoded = yield* decodeSteps(log.updates, pace)
    ahead.set(index, decoded)
    if (Either.isLeft(decoded)) continue
    for (const signed of decoded.right) yield* prepareSteps(signed, pace, questions)
  }
  return ahead
}

const questionsOf = (decoded: Decoded | undefined): number =>
  decoded === undefined || Either.isLeft(decoded)
    ? 0
    : decoded.right.reduce((sum, { prepared }) => sum + prepared.size, 0)

type Resolution = Either.Either<AssociationState, IdentityError>

/** The work on a log, and where it has come to. */
interface Work {
  /** Short, and asks no chain: verified in the turn of its call. */
  readonly mayWait: boolean
  /** Signatures of it that have been prepared. */
  readonly questions: number
  readonly steps: Steps<Resolution>
  at?: IteratorResult<Pause, Resolution>
}

/** Does what is left of each, so many at a time. Most are through, and cost no fiber. */
const finish = (
  works: ReadonlyArray<Work>,
  concurrency: number
): Effect.Effect<void, never, SmartContractWalletVerifier> =>
  Effect.forEach(
    works.filter(({ at }) => at?.done !== true),
    (work) =>
      Effect.map(inFiber(work.steps, work.at), (value) => {
        work.at = { done: true, value }
      }),
    { concurrency, discard: true }
  )

/**
 * `resolve` or `extend` of each log, in order. Short logs are verified one after the other; those that are long, or wait for a
 * smart contract wallet, keep no other waiting. A curve backend with workers hears of the signatures of all short ones before
 * the first is verified, so that it can begin on every processor.
 *
 * @since 1.0.0
 * @category resolving
 */
export const resolveAll = (
  logs: ReadonlyArray<LogToResolve>,
  { concurrency, takeTurns }: ResolveAllOptions
): Effect.Effect<ReadonlyArray<Either.Either<AssociationState, IdentityError>>, never, SmartContractWalletVerifier> =>
  Effect.gen(function* () {
    const backend = yield* CurveBackend
    const pace = makePace(POINTS_PER_TURN_OF_MANY)
    const questions: Array<Question> = []
    const ahead =
      backend.foresee === undefined ? new Map<number, Decoded>() : yield* inFiber(decodeAhead(logs, pace, questions))

    const verifyAll = (curves: Curves) => {
      const works = logs.map(
        (log, index): Work => ({
          mayWait: isShort(log) && !asksChain(ahead.get(index)),
          questions: questionsOf(ahead.get(index)),
          steps: foldSteps(log, ahead.get(index), pace, curves)
        })
      )
      const [others, short] = Arr.partition(works, ({ mayWait }) => mayWait)
      let next = 0
      /** Verifies short logs until it is others' turn; whether that were all. One that has to ask a chain is left where it is. */
      const verifySome = (): boolean => {
        for (let work = short[next]; work !== undefined; work = short[++next]) {
          work.at = work.steps.next()
          if (work.at.done !== true && work.at.value === "turn") return false
        }
        return true
      }
      const verifyShort = Effect.suspend(() => (verifySome() ? Effect.void : inTurns(verifySome)))
      const toAnswer = short.reduce((sum, { questions }) => sum + questions, 0)
      const waits = takeTurns !== undefined && toAnswer >= FEW_QUESTIONS && toAnswer <= MANY_QUESTIONS
      const inTurn = waits ? takeTurns.withPermits(1)(verifyShort) : verifyShort
      return (
        others.length === 0
          ? inTurn
          : Effect.all([inTurn, finish(others, concurrency)], { concurrency: "unbounded", discard: true })
      ).pipe(
        Effect.zipRight(Effect.suspend(() => finish(short, concurrency))),
        Effect.map(() => works.flatMap(({ at }) => (at?.done === true ? [at.value] : [])))
      )
    }

    return yield* Effect.acquireUseRelease(
      Effect.sync(() => backend.foresee?.(questions)),
      (foreseen) =>
        verifyAll(
          foreseen === undefined ? curvesOf(backend) : { backend, answer: (question) => foreseen.answer(question) }
        ),
      (foreseen) => Effect.sync(() => foreseen?.release())
    )
  }).pipe(Effect.withSpan("IdentityLog.resolveAll", { attributes: { logs: logs.length }, captureStackTrace: false }))
