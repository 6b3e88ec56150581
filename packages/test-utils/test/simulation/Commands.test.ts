/** Random commands, done to the model and to the library: [5], [22], [23], [54]. */
import { describe, it } from "@effect/vitest"
import * as MemoryKeyPackageStore from "@keyward/test-utils/MemoryKeyPackageStore"
import * as Commands from "@keyward/test-utils/simulation/Commands"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"

Error.stackTraceLimit = 0

describe("Commands", () => {
  it("model and library come to the same, whatever the commands, over the memory store", { timeout: 120_000 }, () =>
    FastCheck.assert(
      FastCheck.asyncProperty(Commands.commands(), async (commands) => {
        const database = Effect.runSync(MemoryKeyPackageStore.makeDatabase)
        await Commands.run(commands, 1, MemoryKeyPackageStore.layerShared(database))
      }),
      { seed: 20_261_123, numRuns: 100 }
    )
  )
})
