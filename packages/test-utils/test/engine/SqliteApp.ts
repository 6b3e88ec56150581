/** The whole library on a SQLite file, with a node that needs no wire, faults for it, and time that tests move. */
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as NodeMlsCrypto from "@keyward/core/crypto/NodeMlsCrypto"
import * as Identifier from "@keyward/core/identity/Identifier"
import { eip191Hash } from "@keyward/core/identity/signature/SignedText"
import * as LifecycleEvents from "@keyward/core/lifecycle/LifecycleEvents"
import { LifecycleSettings } from "@keyward/core/lifecycle/LifecycleSettings"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import { Signer } from "@keyward/core/ports/Signer"
import * as WelcomeProgress from "@keyward/core/ports/WelcomeProgress"
import * as XWing from "@keyward/core/postquantum/XWing"
import * as AesGcmKeySealer from "@keyward/storage/AesGcmKeySealer"
import * as SqliteKeyPackageStore from "@keyward/storage/SqliteKeyPackageStore"
import { utf8ToBytes } from "@noble/hashes/utils.js"
import * as Clock from "effect/Clock"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import * as TestClock from "effect/TestClock"
import * as DevNode from "../../src/devnode/DevNode.ts"
import * as NodeValidation from "../../src/devnode/NodeValidation.ts"
import * as MemoryApiClient from "../../src/MemoryApiClient.ts"
import * as SeededEntropy from "../../src/SeededEntropy.ts"
import * as VectorWallets from "../../src/VectorWallets.ts"

/** A date on which fresh packages are valid. */
export const START = DateTime.unsafeMake("2026-11-23T12:00:00Z")

/** The clock at START. */
export const start = TestClock.setTime(DateTime.toEpochMillis(START))

/** The path of a database that is not there yet, gone with the scope. */
export const filename: Effect.Effect<string, never, Scope.Scope> = Effect.map(
  Effect.acquireRelease(
    Effect.sync(() => mkdtempSync(join(tmpdir(), "keyward-engine-"))),
    (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
  ),
  (folder) => join(folder, "keyward.db")
)

const address = `0x${"ab".repeat(20)}`

/** A smart contract wallet by the rule of the vectors. */
export const signer: Signer["Type"] = {
  identifier: Identifier.ethereum(address),
  signText: (text) =>
    Effect.sync(() =>
      VectorWallets.sign({ chainId: "eip155:1", address }, eip191Hash(utf8ToBytes(text)), utf8ToBytes(text))
    ),
  smartContractWallet: { chainId: 1n, blockNumber: Effect.succeed(1n) }
}

/** The node, with all that outlives a process: built once for a test. */
export const layerNetwork = MemoryApiClient.layer.pipe(
  Layer.provideMerge(DevNode.layerNode(NodeValidation.layerWith(VectorWallets.layer)))
)

/** One process on the file. Each has its own entropy. */
export const layerProcess = (file: string, seed: string | number = "engine") =>
  Layer.fresh(
    Layer.mergeAll(
      SqliteKeyPackageStore.layer({ filename: file }).pipe(
        Layer.provide(AesGcmKeySealer.layer({ keyId: "2026-11", key: Redacted.make(new Uint8Array(32).fill(7)) })),
        Layer.orDie
      ),
      NodeMlsCrypto.layer,
      XWing.layer,
      VectorWallets.layer,
      Layer.succeed(Signer, signer),
      LifecycleEvents.layer,
      WelcomeProgress.layerNone
    ).pipe(Layer.provideMerge(SeededEntropy.layer(seed)))
  )

/** Lets everything that waits for the event loop go on, as a database does. */
const breathe = Effect.promise(async () => {
  for (let times = 0; times < 12; times++) await new Promise((resolve) => setImmediate(resolve))
})

/** Lets time pass, in steps short enough for what a database does in between. */
export const advance = (duration: Duration.DurationInput, step: Duration.DurationInput = "1 minute") =>
  Effect.gen(function* () {
    const end = (yield* Clock.currentTimeMillis) + Duration.toMillis(duration)
    while (true) {
      yield* breathe
      const left = end - (yield* Clock.currentTimeMillis)
      if (left <= 0) return
      yield* TestClock.adjust(Math.min(left, Duration.toMillis(step)))
    }
  })

/** Runs to the end, with as much time as its waits need. */
export const withTime = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.gen(function* () {
    const fiber = yield* Effect.fork(effect)
    while (true) {
      yield* breathe
      if (Option.isSome(yield* Fiber.poll(fiber))) return yield* Fiber.join(fiber)
      yield* TestClock.adjust("1 second")
    }
  })

/** Graces of minutes, so that a test need not wait for days of a database's time. */
export const withShortGrace = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.flatMap(LifecycleSettings, (settings) =>
    Effect.provideService(effect, LifecycleSettings, {
      ...settings,
      grace: Duration.minutes(10),
      cleanRetry: Duration.minutes(1)
    })
  )

export const register = withTime(registerInstallation({ includePostQuantum: false }))

/** Other hands in the database. */
export const withSql = <A, E>(
  file: string,
  body: (sql: SqlClient.SqlClient) => Effect.Effect<A, E>
): Effect.Effect<A, E> =>
  Effect.flatMap(SqlClient.SqlClient, body).pipe(
    Effect.provide(Layer.fresh(Layer.orDie(SqliteClient.layer({ filename: file }))))
  )

/** Everything that is in the files of a database. */
export const raw = (file: string): Buffer =>
  Buffer.concat(
    ["", "-wal", "-shm", "-journal"]
      .map((suffix) => file + suffix)
      .filter(existsSync)
      .map((path) => readFileSync(path))
  )
