/**
 * Whether the real client can run here. It may be missing only where its native module does not load, and that is said
 * aloud; with CI=true it is a failure.
 */
import * as RealClient from "@keyward/test-utils/RealClient"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { describe } from "vitest"

const loaded = await Effect.runPromise(Effect.either(RealClient.load))

if (Either.isLeft(loaded)) {
  if (process.env["CI"] === "true") throw loaded.left
  process.stderr.write(`\n*** INTEROP SKIPPED: ${loaded.left.message}\n\n`)
}

/** `describe`, or `describe.skip` where there is no real client. */
export const describeReal = Either.isRight(loaded) ? describe : describe.skip
