/**
 * A signature that has been read and hashed, with one question left: what its curve says.
 *
 * @since 1.0.0
 */
import type * as Either from "effect/Either"
import type { Question } from "../CurveBackend.ts"
import type { VerifiedSignature } from "./VerifiedSignature.ts"

/**
 * The question, and what its answer comes to. Whoever verifies many asks all questions first, so that other processors can
 * answer them.
 *
 * @since 1.0.0
 * @category models
 */
export interface Prepared<E> {
  readonly question: Question
  readonly judge: (answer: Uint8Array | undefined) => Either.Either<VerifiedSignature, E>
}
