/**
 * Generates the TypeScript of every `packages/<name>/proto` into `packages/<name>/src/gen`: one `_pb.ts` beside each
 * `.proto`, with erasable syntax only and `.ts` imports, so that Node, tsx and `tsc` read it as they read hand-written code.
 *
 * Run `node scripts/codegen-proto.mjs` after a change of a `.proto` file and commit the result. `--check` writes nothing
 * and fails when the committed code is not what would be generated. The compiler and the plugin are pinned development
 * dependencies and work without a network.
 */
import { execFileSync } from "node:child_process"
import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { dirname, join, relative } from "node:path"
import { fileURLToPath } from "node:url"

const root = dirname(dirname(fileURLToPath(import.meta.url)))
const bin = (name) => join(root, "node_modules", ".bin", process.platform === "win32" ? `${name}.cmd` : name)
const check = process.argv.includes("--check")

const template = (out) =>
  JSON.stringify({
    version: "v2",
    plugins: [
      {
        local: bin("protoc-gen-es"),
        out,
        opt: ["target=ts", "import_extension=ts", "erasable_syntax=true"]
      }
    ]
  })

/** Every generated file below a folder, as path and content. */
const files = (folder) =>
  existsSync(folder)
    ? readdirSync(folder, { recursive: true })
        .filter((name) => name.endsWith("_pb.ts"))
        .sort()
        .map((name) => [name, readFileSync(join(folder, name), "utf8")])
    : []

let stale = 0
for (const name of readdirSync(join(root, "packages"))) {
  const proto = join(root, "packages", name, "proto")
  if (!existsSync(proto)) continue
  const gen = join(root, "packages", name, "src", "gen")
  const out = mkdtempSync(join(tmpdir(), "keyward-proto-"))
  try {
    execFileSync(bin("buf"), ["generate", proto, "--template", template(out)], { stdio: "inherit", cwd: root })
    if (JSON.stringify(files(gen)) === JSON.stringify(files(out))) continue
    stale++
    if (check) {
      console.error(`${relative(root, gen)} is not what ${relative(root, proto)} generates`)
    } else {
      rmSync(gen, { recursive: true, force: true })
      cpSync(out, gen, { recursive: true })
      console.log(`wrote ${files(gen).length} files below ${relative(root, gen)}`)
    }
  } finally {
    rmSync(out, { recursive: true, force: true })
  }
}
if (check && stale > 0) process.exit(1)
