/**
 * The table of failure scenarios in docs/reliability.md: every number has one row, every row names a test or says why there can
 * be none, and every test that is named is there, under that title, in that file.
 */
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { root } from "../lib/source.mjs"

const PAGE = "docs/reliability.md"

const range = (from, to) => Array.from({ length: to - from + 1 }, (_, index) => from + index)
const NUMBERS = [...range(1, 30), ...range(52, 72), ...range(74, 80)]

/** `| 5 | what | `file` "title"; `file` "title" | result |`; a title that goes on is cut with an ellipsis. */
const ROW = /^\| (\d+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$/
const TEST = /`([^`]+\.ts)` "([^"]+?)(…?)"/g

const problems = []
const rows = new Map()
for (const line of readFileSync(join(root, PAGE), "utf8").split("\n")) {
  const row = ROW.exec(line)
  if (row === null) continue
  const number = Number(row[1])
  if (rows.has(number)) problems.push(`${number}: two rows`)
  rows.set(number, { tests: row[3], result: row[4].trim() })
}

for (const number of NUMBERS) if (!rows.has(number)) problems.push(`${number}: no row`)
for (const [number, { result, tests }] of rows) {
  if (!NUMBERS.includes(number)) problems.push(`${number}: no such scenario here`)
  const named = [...tests.matchAll(TEST)]
  if (named.length === 0 && !result.startsWith("cannot apply")) problems.push(`${number}: names no test`)
  if (named.length > 0 && result !== "holds") problems.push(`${number}: has tests, and its result is "${result}"`)
  for (const [, file, title, cut] of named) {
    if (!existsSync(join(root, file))) problems.push(`${number}: there is no ${file}`)
    else {
      const text = readFileSync(join(root, file), "utf8")
      const written = ['"', "`"].map((quote) => `${quote}${title}${cut === "" ? quote : ""}`)
      if (!written.some((each) => text.includes(each))) problems.push(`${number}: ${file} has no test "${title}${cut}"`)
    }
  }
}

if (problems.length > 0) {
  process.stderr.write(`${PAGE}\n${problems.map((problem) => `  ${problem}\n`).join("")}`)
  process.exitCode = 1
}
