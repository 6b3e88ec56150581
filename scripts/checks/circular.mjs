/**
 * No module of a package waits for itself at load time. Type imports are erased, so they do not count.
 */
import { join } from "node:path"
import madge from "madge"
import { packages, root } from "../lib/source.mjs"

const problems = []
for (const name of Object.keys(packages)) {
  const graph = await madge(join(root, "packages", name, "src"), {
    fileExtensions: ["ts"],
    detectiveOptions: { ts: { skipTypeImports: true } }
  })
  for (const cycle of graph.circular()) problems.push(`packages/${name}/src: ${[...cycle, cycle[0]].join(" -> ")}`)
}

if (problems.length > 0) {
  process.stderr.write(`${problems.join("\n")}\n`)
  process.exitCode = 1
}
