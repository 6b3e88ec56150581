/**
 * The rules of packages/<name>/src that no linter knows:
 *
 * - time and randomness are injected (Clock, Entropy, Effect.sleep);
 * - an escape from the types or from typed errors has its reason beside it: a comment on its line or just above its statement;
 * - `effect/Schema`, never `@effect/schema`;
 * - every file opens with a doc block, public ones with `@since`, and every export of a public file says `@since` and
 *   `@category`.
 *
 * Comments do not count as code; generated code and barrels are left out.
 */
import { basename } from "node:path"
import { importsOf, packages, readSource, sourcesOf, withoutComments } from "../lib/source.mjs"

const INJECTED = /\b(Date\.now|Math\.random|setTimeout|setInterval|performance\.now|new Date\(\s*\))/
const ESCAPE = /(\borDie\w*|\bcatchAllCause\b|\bEffect\.ignore\w*|\bas any\b|\bas unknown as\b|@ts-ignore|@ts-nocheck)/
const EXPORT =
  /^export (?:declare )?(?:abstract )?(?:const|let|class|interface|type|function\*?|async function)\s+([\w$]+)/
const COMMENT = /\/\/|\/\*|^\s*\*/

const problems = []
const report = (name, file, line, what) => problems.push(`packages/${name}/src/${file}:${line + 1} ${what}`)

/** Whether a comment stands on the line, or above it without an empty line or the end of a statement in between. */
const hasReason = (lines, code, index) => {
  if (lines[index] !== code[index]) return true
  for (let above = index - 1; above >= Math.max(0, index - 6); above--) {
    if (COMMENT.test(lines[above]) && lines[above] !== code[above]) return true
    if (lines[above].trim() === "") return false
  }
  return false
}

for (const name of Object.keys(packages)) {
  for (const file of sourcesOf(name)) {
    if (file === "index.ts") continue
    const text = readSource(name, file)
    const lines = text.split("\n")
    const code = withoutComments(text).split("\n")
    const isPublic = !/(^|\/)internal\//.test(file) && /^[A-Z]/.test(basename(file))

    code.forEach((line, index) => {
      const injected = INJECTED.exec(line)
      if (injected !== null) report(name, file, index, `${injected[1]}: use Clock, Entropy or Effect.sleep`)
      const escape = ESCAPE.exec(line) ?? /@ts-(?:ignore|nocheck)/.exec(lines[index])
      if (escape !== null && !hasReason(lines, code, index))
        report(name, file, index, `${escape[0]} without its reason beside it`)
    })

    for (const { specifier } of importsOf(text)) {
      if (specifier.startsWith("@effect/schema")) report(name, file, 0, "imports @effect/schema: use effect/Schema")
    }

    const header = /^(?:#![^\n]*\n)?\/\*\*\s([\s\S]*?)\*\//.exec(text)
    if (header === null) report(name, file, 0, "does not open with a doc block")
    else if (isPublic && !header[1].includes("@since ")) report(name, file, 0, "head without @since")

    if (!isPublic) continue
    const seen = new Set()
    lines.forEach((line, index) => {
      const declared = EXPORT.exec(line)?.[1]
      // Overloads share the doc comment of the first.
      if (declared === undefined || (line.startsWith("export function") && seen.has(declared))) return
      seen.add(declared)
      let start = index - 1
      while (start >= 0 && !lines[start].startsWith("/**") && lines[start].trim() !== "") start--
      const doc = lines.slice(Math.max(0, start), index).join("\n")
      const missing = ["@since ", "@category "].filter((tag) => !doc.startsWith("/**") || !doc.includes(tag))
      if (missing.length > 0) report(name, file, index, `export ${declared} without ${missing.join("and ").trim()}`)
    })
  }
}

if (problems.length > 0) {
  process.stderr.write(`${problems.join("\n")}\n`)
  process.exitCode = 1
}
