/**
 * `chaos --rounds 200 --seed 1`: processes over one database and one node, killed, stopped and cut off. Prints the seed, what
 * was done, and what was wrong. Fails where anything was.
 *
 * Its own children are started by the same file: `chaos node`, `chaos worker`.
 */
import { fileURLToPath } from "node:url"
import * as Effect from "effect/Effect"
import * as Chaos from "../src/chaos/Chaos.ts"
import * as ChaosNode from "../src/chaos/ChaosNode.ts"
import * as ChaosWorker from "../src/chaos/ChaosWorker.ts"
import type { WorkerOptions } from "../src/chaos/ChaosWorld.ts"
import { readOptions, showUsage } from "./commandLine.ts"

const USAGE = "chaos [--rounds N] [--seed S] [--workers N]"

const [role] = process.argv.slice(2)

const runHere = async (): Promise<void> => {
  const values = readOptions(USAGE, {
    rounds: { type: "string", default: "200" },
    seed: { type: "string" },
    workers: { type: "string", default: "2" }
  })
  const rounds = Number(values.rounds)
  const workers = Number(values.workers)
  const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(values.seed)
  const isCount = (value: number) => Number.isSafeInteger(value) && value > 0
  if (!(isCount(rounds) && isCount(workers) && Number.isSafeInteger(seed) && seed >= 0)) {
    showUsage(USAGE)
  }
  process.stdout.write(`seed ${seed}\n`)
  const started = performance.now()
  const report = await Effect.runPromise(
    Chaos.run({
      rounds,
      seed,
      workers,
      program: fileURLToPath(import.meta.url),
      onRound: (round, kind) => {
        if (round % 10 === 0) process.stdout.write(`round ${round} of ${rounds} (${kind})\n`)
      }
    })
  )
  const { violations, rounds: kinds, ...totals } = report
  process.stdout.write(
    `${rounds} rounds of ${workers} processes in ${((performance.now() - started) / 1000).toFixed(0)} s\n` +
      [...Object.entries(kinds), ...Object.entries(totals)]
        .map(([name, count]) => `  ${name.padEnd(14)} ${String(count).padStart(6)}\n`)
        .join("") +
      violations.map((violation) => `VIOLATION ${violation}\n`).join("") +
      `violations: ${violations.length}\n`
  )
  process.exitCode = violations.length === 0 ? 0 : 1
}

const say = (message: unknown) => void process.send?.(message)
// A child whose parent is gone has nothing left to do.
if (process.send !== undefined) process.on("disconnect", () => process.exit(0))

if (role === "node") {
  await Effect.runPromise(ChaosNode.main(say, (onRequest) => process.on("message", onRequest)))
} else if (role === "worker") {
  const options = await new Promise<WorkerOptions>((resolve) => process.once("message", resolve))
  await Effect.runPromise(ChaosWorker.main(options, say))
} else {
  await runHere()
}
