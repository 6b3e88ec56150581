/**
 * The dependency rule: imports between packages go one way (see `packages` in lib/source.mjs), nobody reaches into
 * another package's `internal/`, and only the two modules that own the upload receipt import its mint.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { importsOf, packages, readSource, resolveImport, root, sourcesOf } from "../lib/source.mjs"

const MINT = "internal/uploadReceipt.ts"
const MINT_OWNERS = ["lifecycle/Rotation.ts", "lifecycle/UploadReceipt.ts"]

const problems = []
for (const [name, { mayImport }] of Object.entries(packages)) {
  for (const file of sourcesOf(name)) {
    const here = `packages/${name}/src/${file}`
    for (const { specifier } of importsOf(readSource(name, file))) {
      const target = resolveImport(name, file, specifier)
      if (target === undefined) continue
      if (target.file.startsWith("..")) problems.push(`${here} leaves its package: ${specifier}`)
      if (target.name !== name && !mayImport.includes(target.name))
        problems.push(`${here} must not import ${specifier}`)
      if (target.name === name && specifier.startsWith("@")) problems.push(`${here} imports its own package by name`)
      if (target.name !== name && target.file.startsWith("internal/"))
        problems.push(`${here} reaches into ${specifier}`)
      if (name === "core" && target.file === MINT && !MINT_OWNERS.includes(file))
        problems.push(`${here} must not import ${MINT}: only ${MINT_OWNERS.join(" and ")} do`)
    }
  }
  const manifest = JSON.parse(readFileSync(join(root, "packages", name, "package.json"), "utf8"))
  for (const dependency of Object.keys({ ...manifest.dependencies, ...manifest.peerDependencies })) {
    const other = /^@keyward\/(.+)$/.exec(dependency)?.[1]
    if (other !== undefined && !mayImport.includes(other))
      problems.push(`packages/${name}/package.json must not depend on ${dependency}`)
  }
}

if (problems.length > 0) {
  process.stderr.write(`${problems.join("\n")}\n`)
  process.exitCode = 1
}
