/**
 * `simulate --runs 100000 --seed 1`: random lives of a few installations, and the invariants of their key packages after every
 * step.
 * Prints the seed; of a run that fails, the smallest that fails likewise, with all that happened in it. `--workers` spreads the
 * runs over processes; `--reached` says how many runs came to each state that matters.
 */
import { fork } from "node:child_process"
import * as Effect from "effect/Effect"
import * as Invariants from "../src/simulation/Invariants.ts"
import * as Simulator from "../src/simulation/Simulator.ts"
import { readOptions, showUsage } from "./commandLine.ts"

const USAGE = "simulate [--runs N] [--seed S] [--workers W] [--no-shrink] [--reached]"

const values = readOptions(USAGE, {
  runs: { type: "string", default: "2000" },
  seed: { type: "string" },
  workers: { type: "string", default: "1" },
  shrink: { type: "boolean", default: true },
  reached: { type: "boolean", default: false }
})
const runs = Number(values.runs)
const workers = Number(values.workers)
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed)
if (![runs, seed, workers].every((number) => Number.isSafeInteger(number) && number >= 0) || workers < 1) {
  showUsage(USAGE)
}

// Thousands of errors are made on the way, and nobody reads where.
Error.stackTraceLimit = 0

const started = performance.now()

const one = async (): Promise<boolean> => {
  let done = 0
  const onRun = () => {
    if (++done % 1000 === 0) process.stderr.write(`${done} runs from seed ${seed} on\n`)
  }
  const summary = await Effect.runPromise(Simulator.runMany({ seed, runs, onRun }))
  const seconds = (performance.now() - started) / 1000
  process.stdout.write(
    `seeds ${seed} to ${seed + summary.runs - 1}: ${summary.runs} runs in ${seconds.toFixed(1)} s, ` +
      `${(summary.lasted / 86_400_000 / 365).toFixed(1)} years of virtual time, ${summary.calls} calls of ports ` +
      `(${summary.mostCallsPerHour} at most by one process in an hour), ${summary.uploads} uploads, ` +
      `${summary.opened} Welcomes opened, ${summary.unopened} not promised and not opened, ` +
      `${summary.failed.length} violations\n`
  )
  if (values.reached) {
    for (const [state, count] of [...summary.reached].toSorted()) process.stdout.write(`${count} runs: ${state}\n`)
  }
  for (const outcome of summary.failed) {
    const least = values.shrink ? await Effect.runPromise(Simulator.shrink(outcome)) : outcome
    for (const violation of least.violations) process.stdout.write(`${Invariants.format(violation)}\n`)
    const { happenings, ...rest } = least.plan
    process.stdout.write(`${JSON.stringify(rest)}\n`)
    for (const each of happenings) process.stdout.write(`  ${JSON.stringify(each)}\n`)
  }
  return summary.failed.length === 0
}

const many = async (): Promise<boolean> => {
  const share = Math.ceil(runs / workers)
  const codes = await Promise.all(
    Array.from({ length: workers }, (_, index) => {
      const count = Math.min(share, runs - index * share)
      if (count <= 0) return Promise.resolve(0)
      const options = values.shrink ? [] : ["--no-shrink"]
      if (values.reached) options.push("--reached")
      const child = fork(
        import.meta.filename,
        ["--seed", `${seed + index * share}`, "--runs", `${count}`, ...options],
        {
          // A life makes much garbage, nearly all of it short-lived: a fifth less time with room for it.
          execArgv: [...process.execArgv, "--max-semi-space-size=128"]
        }
      )
      return new Promise<number>((resolve) => child.on("exit", (code) => resolve(code ?? 1)))
    })
  )
  process.stdout.write(`${runs} runs in ${((performance.now() - started) / 1000).toFixed(1)} s\n`)
  return codes.every((code) => code === 0)
}

process.exitCode = (await (workers > 1 ? many() : one())) ? 0 : 1
