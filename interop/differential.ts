/**
 * `differential --runs 500 --seed 1`: random identity logs judged by this library and by the real client. Prints the seed, a
 * table and every difference; fails where there is one.
 */
import { parseArgs } from "node:util"
import * as Effect from "effect/Effect"
import { run } from "./src/Differential.ts"

const { values } = parseArgs({
  args: process.argv.slice(2).filter((arg) => arg !== "--"),
  options: { runs: { type: "string", default: "500" }, seed: { type: "string" } }
})
const runs = Number(values.runs)
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 32) : Number(values.seed)
if (!(Number.isSafeInteger(runs) && runs > 0 && Number.isSafeInteger(seed) && seed >= 0)) {
  process.stderr.write("usage: differential [--runs N] [--seed S]\n")
  process.exit(2)
}

process.stdout.write(`${runs} logs, seed ${seed}\n`)
const started = performance.now()
const report = await Effect.runPromise(run({ runs, seed }))
const table = (rows: ReadonlyArray<readonly [string, string]>) =>
  rows.map(([name, value]) => `  ${name.padEnd(42)} ${value}\n`).join("")
process.stdout.write(
  `accepted ${report.accepted}, refused ${report.refused}, ${((performance.now() - started) / 1000).toFixed(1)} s\n` +
    `flaws, and how many of those logs are refused\n` +
    table(Object.entries(report.flaws).map(([flaw, { logs, refused }]) => [flaw, `${refused} of ${logs}`])) +
    `refusals by stage and reason\n` +
    table(Object.entries(report.reasons).map(([reason, count]) => [reason, String(count)])) +
    report.differences.map((difference) => `DIFFERENCE ${JSON.stringify(difference, null, 2)}\n`).join("") +
    `${report.differences.length} differences in ${runs} logs, seed ${seed}\n`,
  // The native client keeps the process alive; what is written must be out before it ends.
  () => process.exit(report.differences.length === 0 ? 0 : 1)
)
