/**
 * Everything that can be said about the repository without running its tests. One line for each check, the output only of
 * those that fail.
 *
 *   pnpm check                      all
 *   pnpm check --only types,lint    some
 *   pnpm check --list               their names
 */
import { spawn } from "node:child_process"
import { availableParallelism } from "node:os"
import { join } from "node:path"
import { pathToFileURL } from "node:url"
import { stripVTControlCharacters } from "node:util"
import { root } from "./lib/source.mjs"

const tool = (name, ...args) => [join(root, "node_modules/.bin", name), ...args]
const script = (name, ...args) => [process.execPath, join(root, "scripts", name), ...args]

/** In the order in which they start: what takes long first. `after` names a check whose result this one reads. */
const checks = [
  { name: "types", says: "every file type-checks", command: tool("tsc", "-p", "tsconfig.check.json") },
  { name: "build", says: "the packages build", command: tool("tsc", "-b") },
  {
    name: "effect-diagnostics",
    says: "no floating effect, no lost error type",
    command: tool(
      "effect-language-service",
      "diagnostics",
      "--project",
      "tsconfig.check.json",
      "--strict",
      "--format",
      "text",
      "--severity",
      "error,warning"
    )
  },
  {
    name: "packages",
    says: "the packed packages are sound and load",
    command: script("checks/packed.mjs"),
    after: "build"
  },
  { name: "protobuf", says: "generated protobuf is fresh", command: script("codegen-proto.mjs", "--check") },
  { name: "unused", says: "no unused file, export or dependency", command: tool("knip", "--no-config-hints") },
  { name: "circular", says: "no module waits for itself", command: script("checks/circular.mjs") },
  { name: "format", says: "formatted, imports in order", command: tool("biome", "check", "--colors=off", ".") },
  { name: "lint", says: "oxlint finds nothing", command: tool("oxlint", "--deny-warnings") },
  { name: "rules", says: "injected time, explained escapes, documented exports", command: script("checks/rules.mjs") },
  { name: "arrows", says: "imports between packages go one way", command: script("checks/arrows.mjs") },
  { name: "barrels", says: "index.ts of every package is fresh", command: script("codegen.mjs", "--check") },
  { name: "reliability", says: "every failure scenario has its test", command: script("checks/reliability.mjs") },
  { name: "one-effect", says: "one copy of effect is installed", command: script("checks/effect.mjs") },
  { name: "hygiene", says: "no machine's paths, no secrets", command: script("checks/hygiene.mjs") }
]

const { FORCE_COLOR: _, ...withoutColor } = process.env

const execute = ([command, ...args]) =>
  new Promise((resolve) => {
    const started = performance.now()
    const chunks = []
    const child = spawn(command, args, {
      cwd: root,
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...withoutColor, NO_COLOR: "1" }
    })
    child.stdout.on("data", (chunk) => chunks.push(chunk))
    child.stderr.on("data", (chunk) => chunks.push(chunk))
    const finish = (ok, extra = "") =>
      resolve({
        ok,
        output: stripVTControlCharacters(`${Buffer.concat(chunks)}${extra}`).trim(),
        seconds: (performance.now() - started) / 1000
      })
    child.on("error", (error) => finish(false, String(error)))
    child.on("close", (code, signal) => finish(code === 0, signal === null ? "" : `ended by ${signal}`))
  })

/** Runs the checks, at most two at a time, prints a line for each, and counts. */
export const runChecks = async (only) => {
  const selected = checks.filter(({ name }) => only === undefined || only.includes(name))
  const started = performance.now()
  const done = new Map()
  const width = Math.max(...selected.map(({ name }) => name.length))
  const waiting = [...selected]
  const running = new Set()

  const report = ({ name, says }, result) => {
    done.set(name, result)
    const verdict = result.ok ? "ok  " : "FAIL"
    process.stdout.write(`${verdict}  ${name.padEnd(width)}  ${result.seconds.toFixed(1).padStart(5)} s  ${says}\n`)
    if (!result.ok) process.stdout.write(`${result.output.replace(/^/gm, "      ")}\n`)
  }

  const start = (check) => {
    if (check.after !== undefined && done.get(check.after)?.ok === false) {
      report(check, { ok: false, output: `not run: ${check.after} failed`, seconds: 0 })
      return
    }
    const task = execute(check.command).then((result) => {
      running.delete(task)
      report(check, result)
    })
    running.add(task)
  }

  const slots = Math.max(1, Math.min(2, availableParallelism()))
  while (waiting.length > 0 || running.size > 0) {
    const index = waiting.findIndex(
      ({ after }) => after === undefined || done.has(after) || !selected.some(({ name }) => name === after)
    )
    if (running.size < slots && index !== -1) start(...waiting.splice(index, 1))
    else await Promise.race(running)
  }

  const failed = [...done.values()].filter(({ ok }) => !ok).length
  const passed = done.size - failed
  process.stdout.write(
    `checks: ${passed} ok, ${failed} failed, ${((performance.now() - started) / 1000).toFixed(1)} s\n`
  )
  return { passed, failed }
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const args = process.argv.slice(2).filter((arg) => arg !== "--")
  if (args[0] === "--list") {
    process.stdout.write(checks.map(({ name, says }) => `${name}: ${says}\n`).join(""))
  } else if (args.length === 0 || (args[0] === "--only" && args.length === 2)) {
    const only = args[1]?.split(",")
    const unknown = only?.filter((name) => !checks.some((check) => check.name === name)) ?? []
    if (unknown.length > 0) {
      process.stderr.write(`no such check: ${unknown.join(", ")} (see --list)\n`)
      process.exitCode = 2
    } else if ((await runChecks(only)).failed > 0) process.exitCode = 1
  } else {
    process.stderr.write("usage: pnpm check [--list | --only name,name]\n")
    process.exitCode = 2
  }
}
