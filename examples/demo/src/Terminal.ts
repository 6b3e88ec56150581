/** How the demo speaks: numbered steps, indented facts, colours where the terminal has them. */
import { styleText } from "node:util"
import * as Console from "effect/Console"
import type * as Effect from "effect/Effect"

const hasColour = process.stdout.isTTY === true && process.env["NO_COLOR"] === undefined
type Style = Parameters<typeof styleText>[0]
const paint = (style: Style) => (text: string) => (hasColour ? styleText(style, text) : text)

export const bold = paint("bold")
export const dim = paint("dim")
export const good = paint("green")
export const bad = paint("red")
export const note = paint("yellow")
export const id = paint("cyan")

/** An id or hash, short enough to compare by eye. */
export const short = (hex: string): string => `${hex.slice(0, 8)}…${hex.slice(-4)}`

/** Opens a step. */
export const step = (number: number, title: string): Effect.Effect<void> =>
  Console.log(`\n${bold(`${number}  ${title}`)}`)

/** One fact under the step. */
export const fact = (label: string, value: string): Effect.Effect<void> =>
  Console.log(`   ${dim(label.padEnd(14))} ${value}`)

/** A sentence under the step. */
export const say = (text: string): Effect.Effect<void> => Console.log(`   ${text}`)
