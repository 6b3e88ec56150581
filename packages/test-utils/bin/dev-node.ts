/**
 * Starts the dev node. SIGINT and SIGTERM stop it: connections are closed and the exit code is 0.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import { main } from "../src/devnode/Cli.ts"

const fiber = Effect.runFork(
  main(process.argv.slice(2)).pipe(
    Effect.tapError(({ message }) => Effect.sync(() => process.stderr.write(`dev-node: ${message}\n`)))
  )
)

const stop = () => Effect.runFork(Fiber.interrupt(fiber))
process.on("SIGINT", stop).on("SIGTERM", stop)

fiber.addObserver((exit) => {
  process.exitCode = Exit.isSuccess(exit) || Exit.isInterrupted(exit) ? 0 : 1
})
