/** Random commands, done to a model of the rules and to the library over a real SQLite file: [5], [22], [23], [54]. */
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { it } from "@effect/vitest"
import * as PlaintextKeySealer from "@keyward/test-utils/PlaintextKeySealer"
import * as Commands from "@keyward/test-utils/simulation/Commands"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as SqliteKeyPackageStore from "../src/SqliteKeyPackageStore.ts"

it("model and library come to the same, whatever the commands, over SQLite", { timeout: 120_000 }, () => {
  const folder = mkdtempSync(join(tmpdir(), "keyward-commands-"))
  let count = 0
  return FastCheck.assert(
    FastCheck.asyncProperty(Commands.commands(20), async (commands) => {
      const store = SqliteKeyPackageStore.layer({ filename: join(folder, `${++count}.db`) }).pipe(
        Layer.provide(PlaintextKeySealer.layer),
        // A file that cannot be opened is a defect of the test.
        Layer.orDie
      )
      await Commands.run(commands, 1, store)
    }),
    { seed: 20_261_123, numRuns: 15 }
  ).finally(() => rmSync(folder, { recursive: true, force: true }))
})
