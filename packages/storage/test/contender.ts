/**
 * One of several processes on one database: registers the same installation as the others and rotates it over and over.
 * Prints the id of the installation, then each history id that it published, a line each.
 *
 * Arguments: the database file, a number that no other contender has, how many rotations.
 */
import { uploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import { withLease } from "@keyward/core/lifecycle/UnderLease"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as Arbitraries from "@keyward/test-utils/Arbitraries"
import * as Console from "effect/Console"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as SqliteKeyPackageStore from "../src/SqliteKeyPackageStore.ts"
import { sealer } from "./fixture.ts"

const [filename = "", number = "", rotations = ""] = process.argv.slice(2)

const one = <A>(arbitrary: FastCheck.Arbitrary<A>, seed: number): A =>
  FastCheck.sample(arbitrary, { numRuns: 1, seed })[0] as A

const acceptingApi = Layer.mock(ApiClient, { uploadKeyPackage: () => Effect.void })

const program = Effect.gen(function* () {
  const store = yield* KeyPackageStore
  const { inboxId, label } = one(Arbitraries.intent, 1)
  const { key } = one(Arbitraries.intent, 1_000 + Number(number))
  const now = yield* DateTime.now
  const installation = yield* store.findOrCreateInstallation({ inboxId, label, key, at: now })
  yield* Console.log(installation.installationId)

  for (let round = 0; round < Number(rotations); round++) {
    const generated = one(Arbitraries.generatedKeyPackage(installation), 1_000_000 * Number(number) + round)
    const { published } = yield* withLease(installation.installationId, (lease) =>
      Effect.gen(function* () {
        const at = yield* DateTime.now
        const prepared = yield* store.insertKeyPackageHistory(lease, generated, {
          at,
          trigger: "Manual",
          reschedule: identity
        })
        const receipt = yield* uploadKeyPackage(lease, prepared)
        return yield* store.markKeyPackagesBeforeIdToBeDeleted(lease, receipt, {
          at,
          deleteAt: Option.some(DateTime.add(at, { hours: 24 })),
          reschedule: Schedule.published({
            startedAt: at,
            madeAt: at,
            rotateAt: DateTime.add(at, { days: 30 }),
            probeAt: DateTime.add(at, { hours: 1 })
          })
        })
      })
    ).pipe(Effect.retry({ while: (error) => error._tag === "LeaseError" && error.reason === "Held" }))
    yield* Console.log(String(published.historyId))
  }
})

await Effect.runPromise(
  program.pipe(
    Effect.provide(SqliteKeyPackageStore.layer({ filename }).pipe(Layer.provide(sealer()))),
    Effect.provide(acceptingApi)
  )
)
