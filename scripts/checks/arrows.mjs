/**
 * The dependency rule: imports between packages go one way (see `packages` in lib/source.mjs), nobody reaches into
 * another package's `internal/`, and only the modules that own a proof import its mint.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { importsOf, packages, readSource, resolveImport, root, sourcesOf } from "../lib/source.mjs"

/** Who may import the mint of a proof: the module that issues it, and the one that hands out its type. */
const MINT_OWNERS = new Map([
  ["internal/uploadReceipt.ts", ["lifecycle/Rotation.ts", "lifecycle/UploadReceipt.ts"]],
  ["internal/seenServed.ts", ["lifecycle/Reachability.ts", "lifecycle/SeenServed.ts"]],
  ["internal/retirementPermit.ts", ["lifecycle/Cleaner.ts", "lifecycle/Rotation.ts", "lifecycle/RetirementPermit.ts"]]
])

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
      const owners = target.name === "core" ? MINT_OWNERS.get(target.file) : undefined
      if (name === "core" && owners !== undefined && !owners.includes(file))
        problems.push(`${here} must not import ${target.file}: only ${owners.join(" and ")} do`)
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
