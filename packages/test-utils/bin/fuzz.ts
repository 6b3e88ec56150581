/**
 * `fuzz --runs 200000 --seed 1`: mutants of key packages and identity updates against their decoders, and a tenth as many
 * whole logs. Prints the seed, and for each decoder what became of them, the slowest and the largest. Fails where a decoder
 * broke.
 */
import * as Effect from "effect/Effect"
import * as Fuzz from "../src/Fuzz.ts"
import { readOptions, showUsage } from "./commandLine.ts"

const USAGE = "fuzz [--runs N] [--seed S]"

const values = readOptions(USAGE, { runs: { type: "string", default: "200000" }, seed: { type: "string" } })
const runs = Number(values.runs)
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(values.seed)
if (!(Number.isSafeInteger(runs) && runs > 0 && Number.isSafeInteger(seed) && seed >= 0)) {
  showUsage(USAGE)
}

process.stdout.write(`seed ${seed}\n`)

const report = async (target: Fuzz.Target, count: number): Promise<boolean> => {
  const started = performance.now()
  const { accepted, broken, maxBytes, maxMillis, refused } = await Effect.runPromise(
    Fuzz.run(target, { runs: count, seed })
  )
  process.stdout.write(
    `${target.name}: ${count} mutants in ${((performance.now() - started) / 1000).toFixed(1)} s, ${accepted} accepted, ` +
      `slowest ${maxMillis.toFixed(2)} ms, most memory ${(maxBytes / 1024).toFixed(0)} KiB, ${broken.length} defects\n` +
      Object.entries(refused)
        .sort(([, a], [, b]) => b - a)
        .map(([reason, times]) => `  ${reason.padEnd(42)} ${times}\n`)
        .join("") +
      broken.map((each) => `DEFECT ${JSON.stringify(each)}\n`).join("")
  )
  return broken.length === 0
}

const sound = [
  await report(Fuzz.keyPackage, runs),
  await report(Fuzz.identityUpdate, runs),
  await report(await Effect.runPromise(Fuzz.identityLog), Math.ceil(runs / 10))
]
process.exitCode = sound.every((each) => each) ? 0 : 1
