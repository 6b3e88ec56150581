/**
 * Databases in folders of their own, gone with the test.
 */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type { KeySealer } from "@keyward/core/ports/KeySealer"
import * as SeededEntropy from "@keyward/test-utils/SeededEntropy"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as retirementPermit from "../../core/src/internal/retirementPermit.ts"
import * as seenServed from "../../core/src/internal/seenServed.ts"
import * as AesGcmKeySealer from "../src/AesGcmKeySealer.ts"

/** A folder that goes with the scope. */
export const folder: Effect.Effect<string, never, Scope.Scope> = Effect.acquireRelease(
  Effect.sync(() => mkdtempSync(join(tmpdir(), "keyward-"))),
  (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
)

/** The path of a database that is not there yet, in a folder that goes with the scope. */
export const filename: Effect.Effect<string, never, Scope.Scope> = Effect.map(folder, (path) =>
  join(path, "keyward.db")
)

/** A sealing key of 32 equal bytes. */
export const sealingKey = (keyId: string, byte: number): AesGcmKeySealer.SealingKey => ({
  keyId,
  key: Redacted.make(new Uint8Array(32).fill(byte))
})

/** The real sealer with a fixed key. */
export const sealer = (
  keyId = "2026-03",
  byte = 7,
  previous: ReadonlyArray<AesGcmKeySealer.SealingKey> = []
): Layer.Layer<KeySealer> =>
  AesGcmKeySealer.layer({ ...sealingKey(keyId, byte), previous }).pipe(
    Layer.provide(SeededEntropy.layer(`${keyId} ${byte}`)),
    Layer.orDie
  )

/** Genuine proofs without the network that they speak of: the mints themselves, which no source may import. */
export const proofs = { sighting: seenServed.issue, permit: retirementPermit.issue }
