/**
 * The packages as a user installs them. Each is packed, its tarball read by publint and attw, and then all are laid out
 * together, without this workspace's sources: a project that imports every public module type-checks, declarations included,
 * and plain Node loads them.
 *
 * Needs a build (`tsc -b`) that is up to date.
 */
import { execFile, execFileSync } from "node:child_process"
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { promisify } from "node:util"
import { filesBelow, importsOf, packages, root } from "../lib/source.mjs"

const run = promisify(execFile)
const bin = (name) => join(root, "node_modules/.bin", name)
const { packageManager } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"))
const pnpm = /pnpm[^/]*\.c?js$/.test(process.env.npm_execpath ?? "")
  ? [process.execPath, process.env.npm_execpath]
  : ["npx", "-y", packageManager]

const temporary = mkdtempSync(join(tmpdir(), "keyward-packed-"))
const problems = []
const failed = (what, error) =>
  problems.push(`${what}\n${`${error.stdout ?? ""}${error.stderr ?? ""}`.trim() || error.message}`)

const checkPackage = async (name) => {
  const folder = join(root, "packages", name)
  const destination = join(temporary, "tarballs", name)
  mkdirSync(destination, { recursive: true })
  await run(pnpm[0], [...pnpm.slice(1), "pack", "--pack-destination", destination], { cwd: folder })
  const tarball = join(
    destination,
    readdirSync(destination).find((file) => file.endsWith(".tgz"))
  )

  const installed = join(temporary, "node_modules/@keyward", name)
  mkdirSync(installed, { recursive: true })
  execFileSync("tar", ["-xzf", tarball, "-C", installed, "--strip-components=1"])
  const files = filesBelow(installed)
  for (const needed of ["LICENSE", "README.md", "package.json", "src/index.ts"]) {
    if (!files.includes(needed)) problems.push(`@keyward/${name}: the tarball lacks ${needed}`)
  }
  for (const file of files) {
    const source = /^build\/(.+)\.js$/.exec(file)?.[1]
    if (source !== undefined && !files.includes(`src/${source}.ts`))
      problems.push(`@keyward/${name}: ${file} has no source any more; remove packages/${name}/build`)
  }
  const manifest = readFileSync(join(installed, "package.json"), "utf8")
  if (/"(?:workspace|catalog):/.test(manifest)) problems.push(`@keyward/${name}: unresolved versions in package.json`)

  await run(bin("publint"), ["run", tarball, "--strict"]).catch((error) => failed(`@keyward/${name}: publint`, error))
  await run(bin("attw"), [tarball, "--profile", "esm-only", "--no-emoji", "--no-color"]).catch((error) =>
    failed(`@keyward/${name}: attw`, error)
  )
}

/** Gives the unpacked package its own dependencies, and the other packages as unpacked here. */
const linkDependencies = (name) => {
  const source = join(root, "packages", name, "node_modules")
  const target = join(temporary, "node_modules/@keyward", name, "node_modules")
  for (const entry of readdirSync(source)) {
    if (entry.startsWith(".") || entry === "@keyward") continue
    const entries = entry.startsWith("@")
      ? readdirSync(join(source, entry)).map((inner) => `${entry}/${inner}`)
      : [entry]
    for (const dependency of entries) {
      mkdirSync(dirname(join(target, dependency)), { recursive: true })
      symlinkSync(join(source, dependency), join(target, dependency))
    }
  }
}

/** Every public module of a package by its public path. Programs would start, and vitest's need a vitest run. */
const publicModules = (name) => {
  const installed = join(temporary, "node_modules/@keyward", name)
  const sources = filesBelow(join(installed, "src")).filter(
    (file) => /^[A-Z]\w*\.ts$/.test(basename(file)) && !/(^|\/)internal\//.test(file)
  )
  return [
    `@keyward/${name}`,
    ...sources
      .filter((file) => {
        const imports = importsOf(readFileSync(join(installed, "src", file), "utf8"))
        return !imports.some(({ specifier, typeOnly }) => !typeOnly && /^(@effect\/)?vitest(\/|$)/.test(specifier))
      })
      .map((file) => `@keyward/${name}/${file.slice(0, -3)}`)
  ]
}

/** The native client's own declarations name a type that they do not declare. */
const THEIRS = /node_modules\/@xmtp\/node-bindings\/dist\/index\.d\.ts\(.*Cannot find name 'InboxId'/

/** A user's project that imports every module: the declarations are whole, those of the dependencies too. */
const typeCheck = async (modules) => {
  const source = modules.map((specifier, index) => `export * as m${index} from ${JSON.stringify(specifier)}\n`)
  writeFileSync(join(temporary, "user.ts"), source.join(""))
  writeFileSync(join(temporary, "package.json"), JSON.stringify({ type: "module" }))
  const compilerOptions = {
    module: "NodeNext",
    target: "ES2022",
    lib: ["ES2023", "DOM", "DOM.Iterable"],
    types: ["node"],
    strict: true,
    exactOptionalPropertyTypes: true,
    noEmit: true,
    skipLibCheck: false,
    typeRoots: [join(root, "node_modules/@types")]
  }
  writeFileSync(join(temporary, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["user.ts"] }))
  await run(bin("tsc"), ["-p", temporary]).catch((error) => {
    const lines = String(error.stdout ?? "")
      .split("\n")
      .filter((line) => /error TS\d+/.test(line))
    if (lines.length === 0 || !lines.every((line) => THEIRS.test(line))) {
      failed("type-checking against the packed modules", error)
    }
  })
}

const LOADER = `
for (const specifier of JSON.parse(process.argv[1])) {
  await import(specifier).catch((error) => {
    process.exitCode = 1
    console.error(specifier + ": " + error.message)
  })
}`

try {
  const names = Object.keys(packages)
  await Promise.all(names.map(checkPackage))
  names.forEach(linkDependencies)
  const modules = names.flatMap(publicModules)
  await typeCheck(modules)
  await run(process.execPath, ["--input-type=module", "--eval", LOADER, JSON.stringify(modules)], {
    cwd: temporary,
    timeout: 120_000
  }).catch((error) => failed("loading the packed modules", error))
} finally {
  rmSync(temporary, { recursive: true, force: true })
}

if (problems.length > 0) {
  process.stderr.write(`${problems.join("\n\n")}\n`)
  process.exitCode = 1
}
