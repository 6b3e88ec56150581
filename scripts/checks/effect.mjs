/**
 * One copy of `effect` is installed, and the retired `@effect/schema` is not: two copies mean two sets of tags and types.
 */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { root } from "../lib/source.mjs"

const store = join(root, "node_modules/.pnpm")
const installed = readdirSync(store)
const copies = installed.filter((entry) => entry.startsWith("effect@"))
const problems = []

if (copies.length !== 1) problems.push(`installed copies of effect: ${copies.join(", ") || "none"}`)
if (installed.some((entry) => entry.startsWith("@effect+schema@"))) problems.push("@effect/schema is installed")

const pinned = /^ {2}effect: (\S+)$/m.exec(readFileSync(join(root, "pnpm-workspace.yaml"), "utf8"))?.[1]
for (const copy of copies) {
  const { version } = JSON.parse(readFileSync(join(store, copy, "node_modules/effect/package.json"), "utf8"))
  if (version !== pinned) problems.push(`effect ${version} is installed, ${pinned} is pinned`)
}

if (problems.length > 0) {
  process.stderr.write(`${problems.join("\n")}\n`)
  process.exitCode = 1
}
