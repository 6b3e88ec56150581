/**
 * What is typed after the name of a command.
 */
import { type ParseArgsConfig, parseArgs } from "node:util"

type Options = NonNullable<ParseArgsConfig["options"]>

/** Says how the command is used, and ends it. */
export const showUsage = (usage: string, isAsked = false): never => {
  const stream = isAsked ? process.stdout : process.stderr
  stream.write(`usage: ${usage}\n`)
  process.exit(isAsked ? 0 : 2)
}

/** The values of the options. With `--help`, or where there is something else, the command ends with its usage. */
export const readOptions = <const T extends Options>(usage: string, options: T) => {
  const args = process.argv.slice(2).filter((arg) => arg !== "--")
  if (args.includes("--help") || args.includes("-h")) return showUsage(usage, true)
  try {
    return parseArgs({ args, options, allowNegative: true }).values
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : String(error)}\n`)
    return showUsage(usage)
  }
}
