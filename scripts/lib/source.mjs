/**
 * What the scripts know about the sources: which packages there are, their files, and what a file imports.
 */
import { readdirSync, readFileSync } from "node:fs"
import { dirname, join, relative, resolve } from "node:path"
import { fileURLToPath } from "node:url"

export const root = resolve(dirname(fileURLToPath(import.meta.url)), "../..")

/** The published packages, each with those that it may import. Arrows point one way; core stands on nothing. */
export const packages = {
  core: { mayImport: [], portable: true },
  storage: { mayImport: ["core"], portable: false },
  network: { mayImport: ["core"], portable: true },
  "test-utils": { mayImport: ["core", "network", "storage"], portable: true }
}

/** Every file below a folder, as paths relative to it with forward slashes, sorted. */
export const filesBelow = (folder) => {
  const walk = (prefix) =>
    readdirSync(join(folder, prefix), { withFileTypes: true }).flatMap((entry) => {
      const path = prefix === "" ? entry.name : `${prefix}/${entry.name}`
      if (entry.isDirectory()) return entry.name === "node_modules" || entry.name === "build" ? [] : walk(path)
      return [path]
    })
  return walk("").sort()
}

/** The TypeScript files of a package's `src`, generated code left out. */
export const sourcesOf = (name) =>
  filesBelow(join(root, "packages", name, "src")).filter((file) => file.endsWith(".ts") && !file.includes("gen/"))

export const readSource = (name, file) => readFileSync(join(root, "packages", name, "src", file), "utf8")

const STATEMENT =
  /^(import|export)\s+(type\s+)?(?:(?:[\w$*]+(?:\s+as\s+[\w$]+)?\s*,?\s*)?(?:\{[^}]*\})?\s*from\s*)?["']([^"']+)["']/gm
const DYNAMIC = /\b(import|require)\(\s*["']([^"']+)["']/g

/** The modules that a source names: the specifier, and whether the compiler erases the import. */
export const importsOf = (text) => [
  ...Array.from(text.matchAll(STATEMENT), (m) => ({ specifier: m[3], typeOnly: m[2] !== undefined })),
  ...Array.from(text.matchAll(DYNAMIC), (m) => ({ specifier: m[2], typeOnly: false }))
]

/** A source without its comments: the same length and lines, so that positions still fit. */
export const withoutComments = (text) =>
  text.replace(/("(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*')|\/\*[\s\S]*?\*\/|(?<![:\\])\/\/[^\n]*/g, (all, string) =>
    string === undefined ? all.replace(/[^\n]/g, " ") : all
  )

/** Where an import of this repository leads: the package and the file in its `src`; undefined for everything else. */
export const resolveImport = (name, file, specifier) => {
  if (specifier.startsWith(".")) {
    const src = join(root, "packages", name, "src")
    const target = relative(src, resolve(src, dirname(file), specifier)).replaceAll("\\", "/")
    return { name, file: target }
  }
  const deep = /^@keyward\/([^/]+)(?:\/(.+))?$/.exec(specifier)
  return deep === null ? undefined : { name: deep[1], file: deep[2] === undefined ? "index.ts" : `${deep[2]}.ts` }
}
