/**
 * Small mistakes in the engine, each of which a named test must notice.
 *
 *   pnpm mutations                    all
 *   pnpm mutations --only fence,wal   some
 *   pnpm mutations --list             their names
 *
 * Works on a copy of the last commit in a temporary folder, never on this one. Every named test must pass without the mistake
 * and fail with it, by an assertion of its own: a mistake that no test notices, or that nothing can load, fails the command.
 */
import { execFileSync, spawn } from "node:child_process"
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync
} from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { root } from "./lib/source.mjs"

const lifecycle = (name) => `packages/core/src/lifecycle/${name}.ts`
const test = (name) => `packages/core/test/lifecycle/${name}.test.ts`

/** `edits` replace texts that occur once; `title` is part of the title of the test that must notice. */
const mutations = [
  {
    name: "fence",
    mistake: "SQLite takes a write under any lease",
    file: "packages/storage/src/internal/sqliteLeases.ts",
    edits: [["stored?.fence === lease.fence && ", ""]],
    test: "packages/storage/test/SqliteKeyPackageStore.contract.test.ts",
    title: "[53] every write under a lease that ended"
  },
  {
    name: "ignore-failed-upload",
    mistake: "a failed upload is marked as if it were accepted",
    file: lifecycle("Rotation"),
    edits: [
      [
        "emit(LifecycleEvent.UploadFailed({ installationId, historyId, at, detail })))\n    )\n  )",
        "emit(LifecycleEvent.UploadFailed({ installationId, historyId, at, detail })))\n    ),\n    Effect.ignore\n  )"
      ]
    ],
    test: test("Rotation"),
    title: "[22] marks nothing after a failed upload"
  },
  {
    name: "up-to-largest-id",
    mistake: "everything up to the largest id that is due is erased",
    file: lifecycle("Cleaner"),
    edits: [
      [
        "rows.filter((row) => mayErase(row, evidence))",
        "rows.filter((row) => rows.some((other) => other.historyId >= row.historyId && mayErase(other, evidence)))"
      ]
    ],
    test: test("Cleaner"),
    title: "[32] keeps what the network serves"
  },
  {
    name: "sqlite-up-to-id",
    mistake: "SQLite erases the rows before the one that is due, too",
    file: "packages/storage/src/internal/sqliteRetirement.ts",
    edits: [["WHERE history_id = ?`, historyId)", "WHERE history_id <= ?`, historyId)"]],
    test: "packages/storage/test/SqliteKeyPackageStore.contract.test.ts",
    title: "exactly the rows that are named, each once"
  },
  {
    name: "wal",
    mistake: "the WAL is not truncated after an erasure",
    file: "packages/storage/src/internal/sqliteDatabase.ts",
    edits: [["PRAGMA wal_checkpoint(TRUNCATE)", "PRAGMA wal_checkpoint(PASSIVE)"]],
    test: "packages/test-utils/test/engine/Leaks.test.ts",
    title: "[80] no private byte"
  },
  {
    name: "no-scrub",
    mistake: "the engine forgets to scrub the files",
    file: lifecycle("Upkeep"),
    edits: [["    yield* store.scrub\n    if (cleaned.erased > 0)", "    if (cleaned.erased > 0)"]],
    test: "packages/test-utils/test/engine/Leaks.test.ts",
    title: "[80] no private byte"
  },
  {
    name: "network-not-asked",
    mistake: "what the network serves is erased all the same",
    file: lifecycle("Cleaner"),
    edits: [["read.has(row) && !isServed(observation, row) && ", "read.has(row) && "]],
    test: test("Cleaner"),
    title: "[32] keeps what the network serves"
  },
  {
    name: "progress-ignored",
    mistake: "keys go before the Welcomes are read",
    file: lifecycle("Cleaner"),
    edits: [["return read.has(row) && !isServed", "return !isServed"]],
    test: test("Cleaner"),
    title: "[14] waits for a complete reading"
  },
  {
    name: "no-hard-stop",
    mistake: "a reader who never reports keeps keys for ever",
    file: lifecycle("Cleaner"),
    edits: [
      [
        "if (DateTime.greaterThanOrEqualTo(now, hardStop) && (stopped.has(row) ||",
        "if (now === undefined && (stopped.has(row) ||"
      ]
    ],
    test: test("Cleaner"),
    title: "the hard stop ends the wait"
  },
  {
    name: "newest-erased",
    mistake: "the newest package is erased by our own clock alone",
    file: lifecycle("Cleaner"),
    edits: [["!isServed(observation, row) && (!isPublished || hasPassed(deleteAt))", "!isServed(observation, row)"]],
    test: test("Cleaner"),
    title: "[19] the newest published package stays"
  },
  {
    name: "clock-believed",
    mistake: "a clock in doubt may erase",
    file: lifecycle("Cleaner"),
    edits: [[" && (believed.has(row) || (isExpiry && hasPassed(deleteAt)))", ""]],
    test: test("Cleaner"),
    title: "erases nothing by a clock in doubt"
  },
  {
    name: "network-vouches",
    mistake: "the network's time vouches for a date that our own clock has set",
    file: lifecycle("Cleaner"),
    edits: [["(isExpiry && hasPassed(deleteAt))", "hasPassed(deleteAt)"]],
    test: test("Cleaner"),
    title: "erases nothing by a clock in doubt"
  },
  {
    name: "step-unnoticed",
    mistake: "a step of the wall clock is not noticed",
    file: lifecycle("ClockGuard"),
    edits: [["const hasStepped = ahead > TOLERANCE_NANOS ||", "const hasStepped = ahead === 1n ||"]],
    test: test("ClockGuard"),
    title: "has not passed by a step of the wall clock"
  },
  {
    name: "in-use-ignored",
    mistake: "a row that was in use a moment ago is erased by a clock that was ahead from the beginning",
    file: lifecycle("ClockGuard"),
    edits: [["monotonic - seen.inUseAt < nanos", "monotonic < seen.inUseAt"]],
    test: test("ClockGuard"),
    title: "where it was just in use"
  },
  {
    name: "generate-instead",
    mistake: "a new package is made where one waits to be sent again",
    file: lifecycle("Rotation"),
    edits: [[": Option.filter(newest, isFit)\n", ": Option.none()\n"]],
    test: test("Rotation"),
    title: "[74] an outage piles up nothing"
  },
  {
    name: "expose-after-send",
    mistake: "the row is exposed only after its bytes were sent",
    file: lifecycle("Rotation"),
    edits: [
      [
        'const exposed = waiting._tag === "Prepared" ? yield* expose(lease, waiting) : waiting',
        "let exposed = waiting"
      ],
      [
        "  return receipts.issue(lease, exposed",
        '  if (waiting._tag === "Prepared") exposed = yield* expose(lease, waiting)\n  return receipts.issue(lease, exposed'
      ]
    ],
    test: test("Rotation"),
    title: "[22] marks nothing after a failed upload"
  },
  {
    name: "older-sent",
    mistake: "a row that is no longer the newest is sent again",
    file: lifecycle("Rotation"),
    edits: [
      [
        "(lease: Lease, { historyId }: Prepared | Exposed) {",
        "(lease: Lease, entry: Prepared | Exposed) {\n  const { historyId } = entry"
      ],
      [" || newest.value.historyId !== historyId || !isWaiting(newest.value)) {", ") {"],
      ["  return newest.value\n})", "  return entry\n})"]
    ],
    test: test("Rotation"),
    title: "[23] never sends a row again"
  },
  {
    name: "damaged-sent",
    mistake: "bytes that were damaged while they waited are sent",
    file: lifecycle("Rotation"),
    edits: [["KeyPackageRef.hashWith(crypto, keyPackage.bytes) === keyPackage.ref", "crypto !== keyPackage"]],
    test: test("Rotation"),
    title: "[65] bytes that were damaged"
  },
  {
    name: "lease-not-checked",
    mistake: "attempts go on after the lease has run out",
    file: lifecycle("UnderLease"),
    edits: [["      yield* Effect.catchTag(check,", "      if (last === null) yield* Effect.catchTag(check,"]],
    test: test("Rotation"),
    title: "sends nothing once the lease no longer covers"
  },
  {
    name: "requests-cleared",
    mistake: "a publication clears what was asked for meanwhile",
    file: lifecycle("Schedule"),
    edits: [["    requests: schedule.requests\n      .filter(", "    requests: []\n      .filter("]],
    test: test("Schedule"),
    title: "[58] a publication clears"
  },
  {
    name: "future-requests",
    mistake: "what was asked for under a clock that was ahead is asked for for ever",
    file: lifecycle("Schedule"),
    edits: [
      [
        "DateTime.lessThanOrEqualTo(requestedAt, DateTime.addDuration(times.startedAt, LONGEST_ROTATION))",
        "LONGEST_ROTATION !== undefined"
      ]
    ],
    test: test("HardTimes"),
    title: "[13] a year ahead"
  },
  {
    name: "hard-stop-believed",
    mistake: "the hard stop comes by the wall clock, however far it has stepped ahead",
    file: lifecycle("Cleaner"),
    edits: [["guard.hasPassed(hardStopOf(row, grace))", "DateTime.isPast(hardStopOf(row, grace))"]],
    test: test("HardTimes"),
    title: "[13] [14] a clock that is set ahead of all lifetimes"
  },
  {
    name: "reading-believed",
    mistake: "a reading counts by the time that it bears, whatever clock it had",
    file: lifecycle("ClockGuard"),
    edits: [
      [
        "if (dated < nanosAt(millis) || dated - offset < passedAt) return false",
        "if (dated < nanosAt(millis)) return false"
      ]
    ],
    test: test("HardTimes"),
    title: "[13] [14] a reading that a clock set ahead"
  },
  {
    name: "reading-believed-later",
    mistake: "a reading that a clock set ahead has dated counts once that clock is set right and the time has come",
    file: lifecycle("ClockGuard"),
    edits: [["dated > until || dated - offset >= passedAt || isSecondSince(seenAt)", "true"]],
    test: test("HardTimes"),
    title: "until its time had come"
  },
  {
    name: "far-deadlines",
    mistake: "deadlines that lie too far ahead are sought when the scheduler starts, and never again",
    file: lifecycle("Scheduler"),
    edits: [[" || monotonic - soughtAt >= FAR_DEADLINES_SOUGHT", ""]],
    test: test("HardTimes"),
    title: "[13] what was put off while the scheduler slept"
  },
  {
    name: "forgotten-package",
    mistake: "a package that waits is not sent where its schedule was lost",
    file: lifecycle("Upkeep"),
    edits: [["return isForgotten ? ", "return Option.isNone(unreachable) && isForgotten && drifted ? "]],
    test: test("Upkeep"),
    title: "[65] a package that waits to be sent"
  },
  {
    name: "forgotten-kind",
    mistake: "a lost wish for the kind of package is taken from the first package, not from the last",
    file: lifecycle("Upkeep"),
    edits: [["ledger.entries.at(-1)), {", "ledger.entries.at(0)), {"]],
    test: test("Upkeep"),
    title: "[65] a package that waits to be sent"
  },
  {
    name: "keyless-sent",
    mistake: "a package that waits is sent though its private keys are gone",
    file: lifecycle("Rotation"),
    edits: [[" && (yield* hasPrivateKeys(waiting.value.historyId))", ""]],
    test: test("Upkeep"),
    title: "[66] a package that waits, and whose keys are gone"
  },
  {
    name: "keyless-step",
    mistake: "the step alone sends a package whose private keys are gone",
    file: lifecycle("Rotation"),
    edits: [["  if (!(yield* hasPrivateKeys(historyId))) return yield* hasLostKeys(historyId)\n", ""]],
    test: test("Rotation"),
    title: "[65] never sends a package whose private keys are gone"
  },
  {
    name: "seen-prepared",
    mistake: "a package that is seen served and known as prepared only is discarded like one that never left",
    file: lifecycle("Upkeep"),
    edits: [["          yield* expose(lease, seen.entry)\n", ""]],
    test: test("Upkeep"),
    title: "[69] one that is seen served"
  },
  {
    name: "revoked-rotates",
    mistake: "a revoked installation goes on rotating",
    file: lifecycle("Schedule"),
    edits: [["if (waits || Option.isSome(schedule.revokedAt)) return []", "if (waits) return []"]],
    test: test("Schedule"),
    title: "[56] nothing is rotated while"
  },
  {
    name: "revoked-by-the-clock",
    mistake: "a revocation is believed to be as old as a clock that is months ahead makes it",
    file: lifecycle("Schedule"),
    edits: [["DateTime.lessThan(next, now) ? DateTime.addDuration", "false ? DateTime.addDuration"]],
    test: test("Cleaner"),
    title: "[13] [50] the time in which nobody looked"
  },
  {
    name: "failed-look-counts",
    mistake: "a look that fails makes good the time in which it was overdue",
    file: lifecycle("Schedule"),
    edits: [
      ["Option.getOrElse(revokedSince(schedule, now), () => now))", "Option.getOrElse(schedule.revokedAt, () => now))"]
    ],
    test: test("Upkeep"),
    title: "[13] [56] the time in which a look was overdue"
  },
  {
    name: "about-to-be-sent",
    mistake: "a package that another process is about to send is erased as expired by a clock that is far ahead",
    file: lifecycle("Cleaner"),
    edits: [["return Ledger.isWaiting(row)\n", "return Ledger.isWaiting(row) && false\n"]],
    test: test("Cleaner"),
    title: "[13] [53] a package that another process"
  },
  {
    name: "added-again-erased",
    mistake: "the newest package is erased though the log names the installation again",
    file: lifecycle("Cleaner"),
    edits: [[`membership !== "Revoked" || `, ""]],
    test: test("Cleaner"),
    title: "[50] the newest package of a revoked"
  },
  {
    name: "no-budget",
    mistake: "Welcomes may force any number of rotations",
    file: lifecycle("Upkeep"),
    edits: [["if (recent.length < limit) return Option.none()", "if (limit > 0) return Option.none()"]],
    test: test("Scheduler"),
    title: "[75] a flood of Welcomes"
  },
  {
    name: "repair-without-limit",
    mistake: "what the network loses is sent again at every look",
    file: lifecycle("Upkeep"),
    edits: [
      ["  insist || !Option.exists(schedule.probeFailures", "  insist || true || !Option.exists(schedule.probeFailures"]
    ],
    test: test("Upkeep"),
    title: "[25] repairs once within the wait"
  },
  {
    name: "clones-fight",
    mistake: "two copies of a store answer each other at every look",
    file: lifecycle("Upkeep"),
    edits: [
      [
        "          insist ||\n          !Option.exists(\n            schedule.strangers",
        "          true ||\n          !Option.exists(\n            schedule.strangers"
      ]
    ],
    test: test("Scheduler"),
    title: "a clone is suspected"
  },
  {
    name: "not-kept",
    mistake: "an older package that is served again is not kept for longer",
    file: lifecycle("Upkeep"),
    edits: [
      [
        'if (verdict._tag === "ServesOlder") yield* keepServed(',
        'if (seenAt === undefined && verdict._tag === "ServesOlder") yield* keepServed('
      ]
    ],
    test: test("Upkeep"),
    title: "[32] an older package that is served keeps its keys"
  },
  {
    name: "releases-fight",
    mistake: "an older release replaces the package of a newer one",
    file: lifecycle("Upkeep"),
    edits: [
      [
        "      profileVersion <= PROFILE_VERSION &&\n      (profileVersion < PROFILE_VERSION ||",
        "      (profileVersion !== PROFILE_VERSION ||"
      ]
    ],
    test: test("Upkeep"),
    title: "[60] of two releases on one store"
  },
  {
    name: "receipt-confirms",
    mistake: "readBack supersedes on the receipt alone",
    file: lifecycle("Rotation"),
    edits: [
      [
        'const waits = confirmBy === "readBack" && isUploadReceipt(proof)',
        'const waits = confirmBy === "never" && isUploadReceipt(proof)'
      ]
    ],
    test: test("Upkeep"),
    title: "[28] readBack: a network that lags"
  },
  {
    name: "schedule-lost",
    mistake: "a schedule that was lost gets no date of rotation again",
    file: lifecycle("Upkeep"),
    edits: [
      ["rotateAt: Option.orElse(schedule.rotateAt, () => Option.some(rotateAt)),", "rotateAt: schedule.rotateAt,"]
    ],
    test: "packages/test-utils/test/simulation/Simulator.test.ts",
    title: "[65] a schedule that can no longer be read"
  },
  {
    name: "deaf",
    mistake: "the scheduler does not hear of a lowered deadline",
    file: lifecycle("Scheduler"),
    edits: [
      [
        "            if (known !== undefined && known.count <= 1) cooling.delete(installationId)\n          }),\n          Queue.offer(wake, undefined)",
        "            if (known !== undefined && known.count <= 1) cooling.delete(installationId)\n          }),\n          Effect.void"
      ]
    ],
    test: test("Scheduler"),
    title: "[58] a thousand Welcomes"
  },
  {
    name: "signed-again",
    mistake: "a registration that is resumed has other bytes signed",
    file: lifecycle("Registration"),
    edits: [
      [
        'return registration._tag !== "Intended" && (yield* stillApplies(',
        "return addition === undefined && (yield* stillApplies("
      ]
    ],
    test: test("Registration"),
    title: "[10] resumes with the same installation"
  }
]

const args = process.argv.slice(2).filter((arg) => arg !== "--")
if (args[0] === "--list") {
  process.stdout.write(mutations.map(({ mistake, name }) => `${name}: ${mistake}\n`).join(""))
  process.exit(0)
}
if (args.length !== 0 && !(args.length === 2 && args[0] === "--only")) {
  process.stderr.write("usage: pnpm mutations [--list | --only name,name]\n")
  process.exit(2)
}
const only = args[1]?.split(",")
const unknown = only?.filter((wanted) => !mutations.some(({ name }) => name === wanted)) ?? []
if (unknown.length > 0) {
  process.stderr.write(`no such mutation: ${unknown.join(", ")}\n`)
  process.exit(2)
}
const selected = mutations.filter(({ name }) => only === undefined || only.includes(name))

const temporary = mkdtempSync(join(tmpdir(), "keyward-mutations-"))
const copy = join(temporary, "tree")

/** A copy of the commit with this tree's dependencies, in which the packages find each other and not the originals. */
const makeCopy = () => {
  mkdirSync(copy)
  const archive = execFileSync("git", ["archive", "--format=tar", "HEAD"], { cwd: root, maxBuffer: 2 ** 30 })
  execFileSync("tar", ["-x", "-C", copy], { input: archive })
  symlinkSync(join(root, "node_modules"), join(copy, "node_modules"))
  for (const name of readdirSync(join(copy, "packages"))) {
    const from = join(root, "packages", name, "node_modules")
    const to = join(copy, "packages", name, "node_modules")
    if (!existsSync(from)) continue
    mkdirSync(join(to, "@keyward"), { recursive: true })
    for (const entry of readdirSync(from)) {
      if (entry !== "@keyward" && !entry.startsWith(".")) symlinkSync(join(from, entry), join(to, entry))
    }
    for (const other of existsSync(join(from, "@keyward")) ? readdirSync(join(from, "@keyward")) : []) {
      symlinkSync(join(copy, "packages", other), join(to, "@keyward", other))
    }
  }
}

const escaped = (text) => text.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")

/** What the test said: the titles that failed and passed, and whether it could be run at all. */
const runTest = ({ test: file, title }) =>
  new Promise((resolve) => {
    const report = join(temporary, "report.json")
    rmSync(report, { force: true })
    const child = spawn(
      process.execPath,
      [
        join(copy, "node_modules/vitest/vitest.mjs"),
        "run",
        file,
        "-t",
        escaped(title),
        "--reporter=json",
        `--outputFile.json=${report}`,
        "--testTimeout=120000"
      ],
      { cwd: copy, stdio: "ignore" }
    )
    // A mistake may also make a test go on for ever, which vitest cannot end.
    const limit = setTimeout(() => child.kill("SIGKILL"), 300_000)
    child.on("close", (_, signal) => {
      clearTimeout(limit)
      if (signal === "SIGKILL") return resolve({ failed: ["it does not end"], passed: [] })
      if (!existsSync(report)) return resolve({ failed: [], passed: [] })
      const results = JSON.parse(readFileSync(report, "utf8")).testResults.flatMap((each) => each.assertionResults)
      const titles = (status) => results.filter((each) => each.status === status).map((each) => each.title)
      resolve({ failed: titles("failed"), passed: titles("passed") })
    })
  })

/** The file with its edits; undefined where the text to replace does not occur exactly once. */
const mutate = ({ edits, file }) =>
  edits.reduce(
    (text, [from, to]) =>
      text !== undefined && text.split(from).length === 2 ? text.replace(from, () => to) : undefined,
    readFileSync(join(copy, file), "utf8")
  )

const width = Math.max(...selected.map(({ name }) => name.length))
let problems = 0
const report = (mutation, verdict, caught) => {
  if (verdict !== "caught") problems += 1
  process.stdout.write(`${verdict.padEnd(8)} ${mutation.name.padEnd(width)}  ${mutation.mistake}\n`)
  if (caught !== undefined) process.stdout.write(`${" ".repeat(11 + width)}by ${mutation.test}: ${caught}\n`)
}

try {
  makeCopy()
  const sound = new Map()
  for (const mutation of selected) {
    const path = join(copy, mutation.file)
    const original = readFileSync(path, "utf8")
    const mutant = mutate(mutation)
    if (mutant === undefined) {
      report(mutation, "STALE", "the text to replace is not there exactly once")
      continue
    }
    const key = `${mutation.test} ${mutation.title}`
    if (!sound.has(key)) sound.set(key, await runTest(mutation))
    const before = sound.get(key)
    if (before.passed.length === 0 || before.failed.length > 0) {
      report(mutation, "UNSOUND", "the test does not pass, or does not exist, without the mistake")
      continue
    }
    writeFileSync(path, mutant)
    const { failed, passed } = await runTest(mutation)
    writeFileSync(path, original)
    if (failed.length > 0) report(mutation, "caught", failed[0])
    else report(mutation, "MISSED", passed.length === 0 ? "nothing ran" : "the test passes")
  }
} finally {
  rmSync(temporary, { recursive: true, force: true })
}
process.stdout.write(`mutations: ${selected.length - problems} caught, ${problems} not\n`)
process.exitCode = problems === 0 ? 0 : 1
