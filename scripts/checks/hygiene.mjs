/**
 * What must not be in the repository: absolute paths of somebody's machine, private keys and tokens, and addresses of a
 * registry in the lockfile (it must install from whichever registry its reader has).
 */
import { execFileSync } from "node:child_process"
import { existsSync, readFileSync, statSync } from "node:fs"
import { join } from "node:path"
import { root } from "../lib/source.mjs"

const FORBIDDEN = [
  [/(?<![\w./~-])\/(?:home|root|Users|tmp|work|workspace|builds|mnt)\/[\w.@-]/, "an absolute path of one machine"],
  [/-----BEGIN [A-Z ]*PRIVATE KEY-----/, "a private key"],
  [
    /_authToken\s*=|\bnpm_[A-Za-z0-9]{36}\b|\bgh[pousr]_[A-Za-z0-9]{36}\b|\bAKIA[0-9A-Z]{16}\b|\bsk-[A-Za-z0-9_-]{32,}/,
    "a token"
  ]
]
const LOCKFILE_ADDRESS = /(?:tarball|registry):\s*["']?https?:/
const MAXIMUM_BYTES = 2 * 1024 * 1024

const listed = execFileSync("git", ["ls-files", "-z", "--cached", "--others", "--exclude-standard"], {
  cwd: root,
  encoding: "utf8",
  maxBuffer: 64 * 1024 * 1024
}).split("\0")

const problems = []
for (const file of new Set(listed)) {
  if (file === "" || file === "scripts/checks/hygiene.mjs") continue
  const path = join(root, file)
  if (!existsSync(path) || !statSync(path).isFile()) continue
  if (statSync(path).size > MAXIMUM_BYTES) {
    problems.push(`${file}: larger than 2 MiB`)
    continue
  }
  readFileSync(path, "utf8")
    .split("\n")
    .forEach((line, index) => {
      for (const [pattern, what] of FORBIDDEN) {
        if (pattern.test(line)) problems.push(`${file}:${index + 1} ${what}`)
      }
      if (file === "pnpm-lock.yaml" && LOCKFILE_ADDRESS.test(line)) problems.push(`${file}:${index + 1} a registry`)
    })
}

if (problems.length > 0) {
  process.stderr.write(`${problems.join("\n")}\n`)
  process.exitCode = 1
}
