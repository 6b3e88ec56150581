import { spawn } from "node:child_process"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { describe, expect, it } from "@effect/vitest"
import { main, usage } from "@keyward/test-utils/devnode/Cli"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"

const command = fileURLToPath(new URL("../../bin/dev-node.ts", import.meta.url))

/** The command in a process of its own, killed at the end of the scope if it is still there. */
const start = (...args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const lines = yield* Queue.unbounded<string>()
    const child = yield* Effect.acquireRelease(
      Effect.sync(() => spawn(process.execPath, ["--import", "tsx", command, ...args], { stdio: "pipe" })),
      (running) => Effect.sync(() => running.kill("SIGKILL"))
    )
    createInterface(child.stdout).on("line", (line) => lines.unsafeOffer(line))
    let errors = ""
    child.stderr.on("data", (chunk: Buffer) => {
      errors += chunk.toString()
    })
    const exit = new Promise<number | null>((resolve) => child.once("close", resolve))
    return {
      line: lines.take,
      kill: (signal: NodeJS.Signals) => Effect.sync(() => child.kill(signal)),
      exit: Effect.promise(() => exit),
      errors: Effect.sync(() => errors)
    }
  })

describe("dev-node", () => {
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    it.scopedLive(`prints where it listens, serves, and stops cleanly on ${signal}`, () =>
      Effect.gen(function* () {
        const node = yield* start("--port", "0")
        const [, port] = /^listening on http:\/\/127\.0\.0\.1:(\d+)$/.exec(yield* node.line) ?? []
        const [, web] = /^grpc-web on (http:\/\/127\.0\.0\.1:\d+)$/.exec(yield* node.line) ?? []
        expect(Number(port)).toBeGreaterThan(0)
        const response = yield* Effect.promise(() => fetch(`${web}/x`, { method: "OPTIONS" }))
        expect(response.status).toBe(204)

        if (signal === "SIGINT") {
          const second = yield* start("--port", String(port))
          expect(yield* second.exit).toBe(1)
          expect(yield* second.errors).toContain(`cannot listen on 127.0.0.1:${port}: the port is in use`)
        }
        yield* node.kill(signal)
        expect(yield* node.exit).toBe(0)
        expect(yield* node.errors).toBe("")
      })
    )
  }

  it.effect("refuses a command line that it does not understand, and says what it does", () =>
    Effect.gen(function* () {
      for (const args of [
        ["--port"],
        ["--port", "65536"],
        ["--port", "x"],
        ["--grpc-web-port", "-1"],
        ["--what"],
        ["x"]
      ]) {
        const error = yield* Effect.flip(main(args))
        expect([args, error._tag]).toEqual([args, "UsageError"])
        expect(error.message).toContain(usage)
      }
    })
  )
})
