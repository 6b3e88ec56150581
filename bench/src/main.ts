/**
 * Measures and prints a table, or with `--json` one JSON document. `--only id,id` picks cases.
 *
 * @since 1.0.0
 */
import { parseArgs } from "node:util"
import * as due from "./cases/due.ts"
import * as herd from "./cases/herd.ts"
import * as identity from "./cases/identity.ts"
import * as keypackage from "./cases/keypackage.ts"
import * as rotation from "./cases/rotation.ts"
import * as welcome from "./cases/welcome.ts"
import { type Case, type Measurement, measure } from "./Harness.ts"

/** Every case. A new group is a file in `cases/` and a line here. */
const allCases: ReadonlyArray<Case> = [
  ...keypackage.cases,
  ...rotation.cases,
  ...identity.cases,
  ...welcome.cases,
  ...due.cases,
  ...herd.cases
]

const { values } = parseArgs({
  options: { json: { type: "boolean", default: false }, only: { type: "string" }, rounds: { type: "string" } }
})

const only = values.only?.split(",")
const unknown = only?.filter((id) => !allCases.some((one) => one.id === id)) ?? []
if (unknown.length > 0) {
  process.stderr.write(`no such case: ${unknown.join(", ")}\ncases: ${allCases.map((one) => one.id).join(", ")}\n`)
  process.exit(2)
}
const chosen = allCases.filter((one) => only === undefined || only.includes(one.id))

const table = (measurements: ReadonlyArray<Measurement>): string => {
  const rows = measurements.map((one) => {
    const target = allCases.find(({ id }) => id === one.id)?.target
    return [
      one.id,
      one.medianUs.toFixed(2),
      one.minUs.toFixed(2),
      one.floorUs.toFixed(2),
      one.ratio.toFixed(2),
      target === undefined ? "" : `${one.ratio <= target ? "<=" : "ABOVE"} ${target.toFixed(2)}`,
      one.floor
    ]
  })
  const header = ["case", "median us", "min us", "floor us", "ratio", "target", "the floor"]
  const widths = header.map((title, column) => Math.max(title.length, ...rows.map((row) => (row[column] ?? "").length)))
  const right = (column: number): boolean => column > 0 && column < 5
  return [header, ...rows]
    .map((row) =>
      row
        .map((cell, column) => (right(column) ? cell.padStart(widths[column] ?? 0) : cell.padEnd(widths[column] ?? 0)))
        .join("  ")
        .trimEnd()
    )
    .join("\n")
}

/** The parts of a case and what stands beside it, a line each. */
const details = (measurements: ReadonlyArray<Measurement>): string =>
  measurements
    .flatMap(({ beside = {}, id, parts = {} }) => [
      ...Object.entries(parts).map(([name, us]) => `  ${id}, of that ${name}: ${us.toFixed(0)} us`),
      ...Object.entries(beside).map(([name, us]) => `  beside ${id}, ${name}: ${us.toFixed(0)} us`)
    ])
    .map((line) => `${line}\n`)
    .join("")

const measurements = await measure(chosen, values.rounds === undefined ? undefined : Number(values.rounds))
process.stdout.write(
  values.json ? `${JSON.stringify({ cases: measurements })}\n` : `${table(measurements)}\n${details(measurements)}`
)
