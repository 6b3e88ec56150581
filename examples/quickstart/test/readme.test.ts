/** The README shows the example programs as they are, and they run. */
import { execFile } from "node:child_process"
import { readFileSync } from "node:fs"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { promisify } from "node:util"
import { expect, it } from "@effect/vitest"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import * as Effect from "effect/Effect"
import { generatePrivateKey } from "viem/accounts"

const folder = join(import.meta.dirname, "..")
const readme = readFileSync(join(folder, "../../README.md"), "utf8")

const shown = [...readme.matchAll(/<!-- example: (\S+) -->\n```ts\n([\s\S]*?)```/g)]

it("the README's programs are the example files, to the letter", () => {
  expect(shown.map(([, path]) => path)).toEqual([
    "examples/quickstart/src/main.ts",
    "examples/quickstart/test/swapping.test.ts"
  ])
  for (const [, path = "", code] of shown) {
    expect(code).toBe(readFileSync(join(folder, "../..", path), "utf8"))
  }
})

it.scopedLive("the quickstart registers and rotates against a node", () =>
  Effect.gen(function* () {
    const { grpcUrl } = yield* DevNode.DevNode
    const home = yield* Effect.acquireRelease(
      Effect.promise(() => mkdtemp(join(tmpdir(), "keyward-quickstart-"))),
      (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
    )
    const { stderr, stdout } = yield* Effect.promise(() =>
      promisify(execFile)(process.execPath, ["--import", "tsx", join(folder, "src/main.ts")], {
        cwd: folder,
        env: {
          ...process.env,
          KEYWARD_DB: join(home, "keyward.db"),
          SEALING_KEY: "42".repeat(32),
          XMTP_URL: grpcUrl,
          WALLET_KEY: generatePrivateKey()
        }
      })
    )
    expect(stderr).toBe("")
    expect(stdout).toMatch(/^[0-9a-f]{64} replaced [0-9a-f]{64}\n$/)
  }).pipe(Effect.provide(DevNode.layer()))
)
