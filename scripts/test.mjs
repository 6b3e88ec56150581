/**
 * The test command of the README and of CI: first the checks (see check.mjs), then the tests of the whole workspace.
 *
 *   pnpm test                       all
 *   pnpm test packages/core -t ref  only these tests, without the checks; the arguments are vitest's own
 *
 * The last line counts every test, and every check as one: `N passed, N failed`, and `, N skipped` where there are any.
 * It fails where anything failed, and where no test ran.
 */
import { spawn } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { runChecks } from "./check.mjs"
import { root } from "./lib/source.mjs"

/** Runs vitest with its own output on the terminal and reads its count from the JSON report. */
const runTests = async (args) => {
  const temporary = mkdtempSync(join(tmpdir(), "keyward-test-"))
  try {
    const report = join(temporary, "report.json")
    const code = await new Promise((resolve, reject) => {
      const child = spawn(
        process.execPath,
        [
          join(root, "node_modules/vitest/vitest.mjs"),
          "run",
          "--reporter=default",
          "--reporter=json",
          `--outputFile.json=${report}`,
          ...args
        ],
        { cwd: root, stdio: ["ignore", "inherit", "inherit"] }
      )
      child.on("error", reject)
      child.on("close", (status) => resolve(status ?? 1))
    })
    if (!existsSync(report)) return { passed: 0, failed: 1, skipped: 0, ran: 0 }
    const { testResults } = JSON.parse(readFileSync(report, "utf8"))
    const count = (...statuses) =>
      testResults.flatMap((file) => file.assertionResults).filter(({ status }) => statuses.includes(status)).length
    const passed = count("passed")
    const failedTests = count("failed")
    // A file that does not load or whose hook fails has no failed test in it, and still failed.
    const failedFiles = testResults.filter(
      (file) => file.status === "failed" && !file.assertionResults.some(({ status }) => status === "failed")
    ).length
    const failed = failedTests + failedFiles
    return {
      passed,
      // An error outside of every test is in vitest's exit code only.
      failed: failed === 0 && code !== 0 ? 1 : failed,
      skipped: count("skipped", "pending", "todo", "disabled"),
      ran: passed + failedTests
    }
  } finally {
    rmSync(temporary, { recursive: true, force: true })
  }
}

const args = process.argv.slice(2).filter((arg, index) => !(index === 0 && arg === "--"))
const checks = args.length === 0 ? await runChecks() : { passed: 0, failed: 0 }
const tests = await runTests(args)
if (tests.ran === 0) process.stdout.write("no test ran\n")
const passed = checks.passed + tests.passed
const failed = checks.failed + tests.failed + (tests.ran === 0 && tests.failed === 0 ? 1 : 0)
process.exitCode = failed > 0 ? 1 : 0
process.stdout.write(`${passed} passed, ${failed} failed${tests.skipped > 0 ? `, ${tests.skipped} skipped` : ""}\n`)
