/** The demo says what it promises to show. */
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import { expect, it } from "@effect/vitest"

const folder = join(import.meta.dirname, "..")

it("the demo shows a failed upload that marks nothing, the same bytes again, and the real client's verdict", async () => {
  const { stderr, stdout } = await promisify(execFile)(
    process.execPath,
    ["--import", "tsx", join(folder, "src/main.ts")],
    {
      cwd: folder,
      env: { ...process.env, NO_COLOR: "1" }
    }
  )
  expect(stderr).toBe("")
  const [, failed = "", again = "", others = "", verdict = "", replayed = ""] = stdout.split(/\n(?=(?:[5-9]|10) {2})/)
  expect(failed).toMatch(/ApiClientError.*uploadKeyPackage failed: Unavailable/)
  expect(failed).toMatch(/#2 .* Published/)
  expect(failed).toMatch(/#3 .* Exposed/)
  expect(again).toMatch(/4 by the node, all with the same bytes/)
  expect(again).toMatch(/#2 .* Superseded/)
  expect(again).toMatch(/#3 .* Published/)
  expect(others).toMatch(/Bob's phone +Usable .*by XWing/)
  expect(others).toMatch(/revoked phone +Unusable +NotAMember/)
  expect(others).toMatch(/forged by Mal +Unusable +NotAMember/)
  expect(others).toMatch(/node that lies +Unusable +OtherInstallation/)
  expect(verdict).toMatch(process.env["CI"] === "true" ? /valid until/ : /valid until|skipped/)
  expect(replayed).toMatch(
    /but not with the newest[^]*remedy +SendAgain[^]*Can be invited: the network serves key package 3/
  )
  expect(stdout).toMatch(/━+▶/)
})
