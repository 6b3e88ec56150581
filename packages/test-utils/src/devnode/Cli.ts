/**
 * The command `dev-node`.
 *
 * @since 1.0.0
 */
import { parseArgs } from "node:util"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Schema from "effect/Schema"
import * as DevNode from "./DevNode.ts"

/**
 * The command line cannot be understood.
 *
 * @since 1.0.0
 * @category errors
 */
export class UsageError extends Schema.TaggedError<UsageError>("@keyward/test-utils/UsageError")("UsageError", {
  detail: Schema.String
}) {
  override get message(): string {
    return `${this.detail}\n\n${usage}`
  }
}

/**
 * What `--help` prints.
 *
 * @since 1.0.0
 * @category constants
 */
export const usage = `An XMTP node in memory, for development: the v3 API on loopback.

  pnpm dev-node [options]

  --port <n>           native gRPC; 0 picks a free port (default 5556)
  --grpc-web-port <n>  gRPC-Web; 0 picks a free port (default 5557, or any free port with --port 0)
  --host <address>     address to listen on (default 127.0.0.1)
  --help               this text`

const portOf = (name: string, text: string): Effect.Effect<number, UsageError> => {
  const port = /^\d{1,5}$/.test(text) ? Number(text) : Number.NaN
  return port <= 65_535
    ? Effect.succeed(port)
    : Effect.fail(new UsageError({ detail: `${name} takes a number from 0 to 65535, not "${text}"` }))
}

/**
 * Runs the command with these arguments until it is interrupted. Prints one line when native gRPC is ready and one for
 * gRPC-Web.
 *
 * @since 1.0.0
 * @category constructors
 */
export const main = (args: ReadonlyArray<string>) =>
  Effect.gen(function* () {
    const { values } = yield* Effect.try({
      try: () =>
        parseArgs({
          args: args.filter((arg) => arg !== "--"),
          options: {
            port: { type: "string", default: "5556" },
            "grpc-web-port": { type: "string" },
            host: { type: "string", default: "127.0.0.1" },
            help: { type: "boolean", default: false }
          }
        }),
      catch: (error) => new UsageError({ detail: error instanceof Error ? error.message : String(error) })
    })
    if (values.help) return yield* Console.log(usage)

    const port = yield* portOf("--port", values.port)
    const grpcWebPort = yield* portOf("--grpc-web-port", values["grpc-web-port"] ?? (port === 0 ? "0" : "5557"))
    yield* Effect.gen(function* () {
      const { grpcUrl, grpcWebUrl } = yield* DevNode.DevNode
      yield* Console.log(`listening on ${grpcUrl}`)
      yield* Console.log(`grpc-web on ${grpcWebUrl}`)
      return yield* Effect.never
    }).pipe(Effect.provide(DevNode.layer({ port, grpcWebPort, host: values.host })))
  })
