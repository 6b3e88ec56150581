/**
 * From an inbox's log to who belongs to it.
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"
import { turn } from "../internal/eventLoop.ts"
import * as hex from "../internal/hex.ts"
import type { SmartContractWalletVerifier } from "../ports/SmartContractWalletVerifier.ts"
import { type AssociationState, applyAll, type VerifiedAction, type VerifiedUpdate } from "./AssociationState.ts"
import { CurveBackend, type Operations } from "./CurveBackend.ts"
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
const VERIFICATION = 8
const SMALL_STEP = 1

/** Counts the work of one log over all its updates, and lets others run now and then. */
const makePace = () => {
  let points = 0
  return (cost: number): Effect.Effect<void> =>
    Effect.suspend(() => {
      points += cost
      if (points < POINTS_PER_TURN) return Effect.void
      points = 0
      return turn
    })
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
  switch (signature._tag) {
    case "Erc191":
      return Erc191.verify(backend, text.eip191Hash, signature.bytes)
    case "InstallationKey":
      return InstallationSignature.verify(backend, text.sha512, signature.bytes, signature.publicKey)
    case "LegacyDelegated":
      return LegacyDelegated.verify(backend, text.eip191Hash, signature)
    case "Passkey":
      return Passkey.verify(backend, text, signature)
    case "SmartContractWallet":
      return SmartContractWallet.verify(text.eip191Hash, signature)
  }
}

/** The parts of a signature that its verification reads beside the text. One wallet signature often serves two actions. */
const memoKey = (signature: Signature): string | undefined =>
  signature._tag === "Erc191"
    ? hex.encode(signature.bytes)
    : signature._tag === "InstallationKey"
      ? `${hex.encode(signature.publicKey)}:${hex.encode(signature.bytes)}`
      : undefined

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
  verifyAtPace(update, options?.updateIndex, makePace())

const verifyAtPace = (
  update: IdentityUpdate.IdentityUpdate,
  updateIndex: number | undefined,
  pace: ReturnType<typeof makePace>
): Effect.Effect<VerifiedUpdate, IdentityConversionError | IdentitySignatureError, SmartContractWalletVerifier> =>
  Effect.gen(function* () {
    const backend = yield* CurveBackend
    const text = new SignedText(SignatureText.make(update))
    const memo = new Map<string, VerifiedSignature>()

    const verify = Effect.fnUntraced(function* (signature: Signature, role: SignatureRole, actionIndex: number) {
      const key = memoKey(signature)
      const known = key === undefined ? undefined : memo.get(key)
      yield* pace(known === undefined ? VERIFICATION : SMALL_STEP)
      if (known !== undefined) return known
      const verified = yield* Effect.mapError(verifySignature(backend, text, signature), (failure) =>
        failure === "InvalidKey"
          ? new IdentityConversionError({
              updateIndex,
              actionIndex,
              reason: "InvalidInstallationKey",
              detail: "not a point of the curve"
            })
          : new IdentitySignatureError({ updateIndex, actionIndex, role, kind: signature._tag, ...failure })
      )
      if (key !== undefined) memo.set(key, verified)
      return verified
    })

    const actions: Array<VerifiedAction> = []
    for (const [index, action] of update.actions.entries()) {
      switch (action._tag) {
        case "CreateInbox":
          actions.push({ unsigned: action, initial: yield* verify(action.initialSignature, "initial", index) })
          break
        case "AddAssociation": {
          // libxmtp's order.
          const added = yield* verify(action.newMemberSignature, "new", index)
          const existing = yield* verify(action.existingMemberSignature, "existing", index)
          actions.push({ unsigned: action, existing, new: added })
          break
        }
        case "RevokeAssociation":
          actions.push({ unsigned: action, recovery: yield* verify(action.recoverySignature, "recovery", index) })
          break
        case "ChangeRecoveryIdentifier":
          actions.push({ unsigned: action, recovery: yield* verify(action.recoverySignature, "recovery", index) })
      }
    }
    return { inboxId: update.inboxId, clientTimestampNs: update.clientTimestampNs, actions }
  })

const fold = (
  state: AssociationState | undefined,
  updates: ReadonlyArray<Uint8Array>,
  options: ResolveOptions | undefined
): Effect.Effect<AssociationState, IdentityError, SmartContractWalletVerifier> =>
  Effect.gen(function* () {
    const pace = makePace()
    const decoded: Array<IdentityUpdate.IdentityUpdate> = []
    for (const [updateIndex, bytes] of updates.entries()) {
      yield* pace(SMALL_STEP)
      decoded.push(yield* IdentityUpdate.decode(bytes, { updateIndex }))
    }
    const verified: Array<VerifiedUpdate> = []
    for (const [updateIndex, update] of decoded.entries()) {
      verified.push(yield* verifyAtPace(update, updateIndex, pace))
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
  }).pipe(Effect.withSpan("IdentityLog.resolve", { attributes: { updates: updates.length }, captureStackTrace: false }))

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
): Effect.Effect<AssociationState, IdentityError, SmartContractWalletVerifier> => fold(undefined, updates, options)

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
): Effect.Effect<AssociationState, IdentityError, SmartContractWalletVerifier> => fold(state, newUpdates, options)
