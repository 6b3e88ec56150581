/** The agent is invited by the network's own client, reads what it is told, and goes on where it was after a restart. */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { expect, it } from "@effect/vitest"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import * as RealClient from "@keyward/test-utils/RealClient"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts"
import * as TextMessage from "../src/TextMessage.ts"

const folder = join(import.meta.dirname, "..")

const { XMTP_URL: _, ...environment } = process.env

const loaded = await Effect.runPromise(Effect.either(RealClient.load))
if (Either.isLeft(loaded)) {
  if (process.env["CI"] === "true") throw loaded.left
  process.stderr.write(`\n*** SKIPPED: ${loaded.left.message}\n\n`)
}
const withReal = it.skipIf(Either.isLeft(loaded))

const exited = (child: ChildProcess) =>
  Effect.async<number | null>((resume) => {
    if (child.exitCode !== null || child.signalCode !== null) return resume(Effect.succeed(child.exitCode))
    child.once("exit", (code) => resume(Effect.succeed(code)))
  })

/** The program, until the scope ends. */
const start = (env: Record<string, string> = {}, main = "src/main.ts") =>
  Effect.acquireRelease(
    Effect.sync(() => {
      const child = spawn(process.execPath, ["--import", "tsx", join(folder, main)], {
        cwd: folder,
        env: { ...environment, ...env }
      })
      const lines: Array<string> = []
      const waiting = new Set<() => void>()
      const note = (line: string) => {
        lines.push(line)
        for (const look of waiting) look()
      }
      createInterface({ input: child.stdout }).on("line", note)
      createInterface({ input: child.stderr }).on("line", (line) => note(`stderr: ${line}`))
      child.once("exit", (code) => note(`exit ${code}`))
      return {
        lines,
        /** The first line like this, once there is one. Fails where the program ends before. */
        line: (pattern: RegExp) =>
          Effect.async<string, Error>((resume) => {
            const look = () => {
              const found = lines.find((line) => pattern.test(line))
              const end = lines.find((line) => line.startsWith("exit "))
              if (found === undefined && end === undefined) return
              waiting.delete(look)
              resume(found === undefined ? Effect.fail(new Error(lines.join("\n"))) : Effect.succeed(found))
            }
            waiting.add(look)
            look()
          }),
        stop: Effect.zipRight(
          Effect.sync(() => child.kill("SIGINT")),
          exited(child)
        )
      }
    }),
    (running) => running.stop
  )

withReal(
  "by itself: a node, a friend, a DM and a group, a rotation five seconds later, and a clean end",
  () =>
    Effect.gen(function* () {
      const agent = yield* start()
      for (const expected of [
        /^node +http:.* in this process/,
        /^package +#1 Published/,
        /^invited +to .*, a DM, by inbox /,
        /^invited +to .*, a group of 2, by inbox /,
        /^message +\S+ hello from libxmtp$/,
        /^message +\S+ welcome to the group$/,
        /^package +#1 Superseded/
      ]) {
        yield* agent.line(expected)
      }
      expect(yield* agent.stop).toBe(0)
      expect(agent.lines.filter((line) => /^stderr|^trouble|^friend/.test(line))).toEqual([])
    }).pipe(Effect.scoped, Effect.runPromise),
  60_000
)

withReal(
  "on any node: reads on after a restart, what it was invited to before and what was said meanwhile",
  () =>
    Effect.gen(function* () {
      const { grpcUrl } = yield* DevNode.DevNode
      const home = yield* Effect.acquireRelease(
        Effect.promise(() => mkdtemp(join(tmpdir(), "keyward-agent-test-"))),
        (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
      )
      const env = {
        XMTP_URL: grpcUrl,
        KEYWARD_DB: join(home, "agent.db"),
        SEALING_KEY: "42".repeat(32),
        WALLET_KEY: generatePrivateKey()
      }
      const { client } = yield* RealClient.make({ wallet: privateKeyToAccount(generatePrivateKey()), grpcUrl })

      const first = yield* start(env)
      const inboxId = (yield* first.line(/^inbox /)).split(/ +/)[1] ?? ""
      const dm = yield* RealClient.call("createDm", () => client.conversations().createDm(inboxId))
      yield* RealClient.call("sendText", () => dm.sendText("before"))
      yield* first.line(/^message +\S+ before$/)
      expect(yield* first.stop).toBe(0)

      yield* RealClient.call("sendText", () => dm.sendText("while you were away"))
      const second = yield* start(env)
      yield* second.line(/^message +\S+ while you were away$/)
      yield* RealClient.call("sendText", () => dm.sendText("and now"))
      yield* second.line(/^message +\S+ and now$/)
      expect(yield* second.line(/^inbox /)).toContain(inboxId)
      expect(yield* second.stop).toBe(0)
      expect(second.lines.filter((line) => /^stderr|^trouble|^invited| before$/.test(line))).toEqual([])
    }).pipe(Effect.provide(DevNode.layer()), Effect.scoped, Effect.runPromise),
  60_000
)

it(
  "goes on with the database of the quickstart, as the same installation",
  () =>
    Effect.gen(function* () {
      const { grpcUrl } = yield* DevNode.DevNode
      const home = yield* Effect.acquireRelease(
        Effect.promise(() => mkdtemp(join(tmpdir(), "keyward-agent-test-"))),
        (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
      )
      const env = {
        XMTP_URL: grpcUrl,
        KEYWARD_DB: join(home, "keyward.db"),
        SEALING_KEY: "42".repeat(32),
        WALLET_KEY: generatePrivateKey()
      }
      const quickstart = yield* start(env, "../quickstart/src/main.ts")
      yield* quickstart.line(/ replaced /)
      yield* quickstart.line(/^exit 0$/)
      const agent = yield* start(env)
      yield* agent.line(/^inbox /)
      expect(yield* agent.stop).toBe(0)
      expect(agent.lines.filter((line) => /^stderr|#1 Published/.test(line))).toEqual([])
    }).pipe(Effect.provide(DevNode.layer()), Effect.scoped, Effect.runPromise),
  60_000
)

it("says what is missing", () =>
  Effect.gen(function* () {
    const nowhere = { XMTP_URL: "http://127.0.0.1:1", KEYWARD_DB: "" }
    const unsealed = yield* start({ ...nowhere, WALLET_KEY: generatePrivateKey() })
    yield* unsealed.line(/^stderr: .*SEALING_KEY/)
    yield* unsealed.line(/^exit 1$/)
    const unsigned = yield* start({ ...nowhere, SEALING_KEY: "42".repeat(32), WALLET_KEY: "0xabc" })
    yield* unsigned.line(/^stderr: .*WALLET_KEY/)
    yield* unsigned.line(/^exit 1$/)
  }).pipe(Effect.scoped, Effect.runPromise))

it("takes bytes that are no text for none", () => {
  const bytes = TextMessage.encode("hello", "1")
  expect(TextMessage.decode(bytes)).toMatchObject({ value: "hello" })
  for (let length = 0; length < bytes.length; length++) {
    expect(TextMessage.decode(bytes.subarray(0, length))).not.toMatchObject({ value: "hello" })
  }
})
