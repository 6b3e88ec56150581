/**
 * A passkey's client data as libxmtp reads it: serde_json 1 over bytes, into a struct of the two strings `origin` and
 * `challenge`. `JSON.parse` decides otherwise about duplicate keys, a byte order mark, invalid UTF-8 and lone surrogates,
 * and would make another state of the same log.
 *
 * @since 1.0.0
 */

/** The two fields that count. */
export interface ClientData {
  readonly origin: string
  readonly challenge: string
}

/** Thrown inside `parse` alone. */
class Refusal {}

const QUOTE = 0x22
const COMMA = 0x2c
const COLON = 0x3a
const OPEN_ARRAY = 0x5b
const BACKSLASH = 0x5c
const CLOSE_ARRAY = 0x5d
const OPEN_OBJECT = 0x7b
const CLOSE_OBJECT = 0x7d

const escapes: ReadonlyMap<number, string> = new Map(
  Object.entries({ '"': '"', "\\": "\\", "/": "/", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t" }).map(
    ([letter, meaning]) => [letter.charCodeAt(0), meaning]
  )
)

class Scanner {
  position = 0
  readonly bytes: Uint8Array
  readonly #utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  /** The byte here, or -1 at the end. */
  peek(): number {
    return this.bytes[this.position] ?? -1
  }

  /** The first byte that is not white space, or -1 at the end. */
  token(): number {
    for (;;) {
      const byte = this.peek()
      if (byte !== 0x20 && byte !== 0x0a && byte !== 0x09 && byte !== 0x0d) return byte
      this.position++
    }
  }

  expect(byte: number): void {
    if (this.token() !== byte) throw new Refusal()
    this.position++
  }

  #hex4(): number {
    const digits = String.fromCharCode(...this.bytes.subarray(this.position, this.position + 4))
    if (!/^[0-9a-fA-F]{4}$/.test(digits)) throw new Refusal()
    this.position += 4
    return Number.parseInt(digits, 16)
  }

  /** Moves to the next quote or backslash and returns where it started; control characters are refused. */
  #run(): number {
    const start = this.position
    for (;;) {
      const byte = this.peek()
      if (byte === QUOTE || byte === BACKSLASH) return start
      if (byte < 0x20) throw new Refusal()
      this.position++
    }
  }

  /** A string that counts: its escapes must make sense and its bytes be UTF-8. */
  string(): string {
    this.expect(QUOTE)
    let text = ""
    for (;;) {
      const start = this.#run()
      try {
        // Escapes are ASCII, so cutting the text at them never cuts a character.
        if (this.position > start) text += this.#utf8.decode(this.bytes.subarray(start, this.position))
      } catch {
        throw new Refusal()
      }
      if (this.bytes[this.position++] === QUOTE) return text
      const letter = this.bytes[this.position++] ?? -1
      if (letter !== 0x75) {
        const meaning = escapes.get(letter)
        if (meaning === undefined) throw new Refusal()
        text += meaning
        continue
      }
      const unit = this.#hex4()
      if (unit >= 0xdc00 && unit <= 0xdfff) throw new Refusal()
      text += String.fromCharCode(unit)
      if (unit >= 0xd800 && unit <= 0xdbff) {
        if (this.bytes[this.position++] !== BACKSLASH || this.bytes[this.position++] !== 0x75) throw new Refusal()
        const low = this.#hex4()
        if (low < 0xdc00 || low > 0xdfff) throw new Refusal()
        text += String.fromCharCode(low)
      }
    }
  }

  /** A string that is passed over: any bytes, any four hex digits after `\u`. */
  #skipString(): void {
    this.expect(QUOTE)
    for (;;) {
      this.#run()
      if (this.bytes[this.position++] === QUOTE) return
      const letter = this.bytes[this.position++] ?? -1
      if (letter === 0x75) this.#hex4()
      else if (!escapes.has(letter)) throw new Refusal()
    }
  }

  /** `true`, `false`, `null` or a number, up to the first byte that no such token has. */
  #skipLiteral(): void {
    const start = this.position
    while (isLiteralByte(this.peek())) this.position++
    const end = this.position
    const word = end - start > 5 ? "" : String.fromCharCode(...this.bytes.subarray(start, end))
    if (word === "true" || word === "false" || word === "null") return
    if (!isNumber(this.bytes, start, end)) throw new Refusal()
  }

  /** Passes over a value of any depth without recursion. */
  skipValue(): void {
    const enclosing: Array<number> = []
    for (;;) {
      let opened = false
      switch (this.token()) {
        case QUOTE:
          this.#skipString()
          break
        case OPEN_ARRAY:
        case OPEN_OBJECT:
          enclosing.push(this.peek())
          this.position++
          opened = true
          break
        default:
          this.#skipLiteral()
      }
      // Close what ends here; stop after the outermost value, or go on with the next element.
      for (;;) {
        const frame = enclosing.at(-1)
        if (frame === undefined) return
        const next = this.token()
        if (next === (frame === OPEN_ARRAY ? CLOSE_ARRAY : CLOSE_OBJECT)) {
          this.position++
          enclosing.pop()
          opened = false
          continue
        }
        if (!opened) this.expect(COMMA)
        break
      }
      if (enclosing.at(-1) === OPEN_OBJECT) {
        this.#skipKey()
      }
    }
  }

  #skipKey(): void {
    this.token()
    this.#skipString()
    this.expect(COLON)
  }
}

/** Letters, digits, and the signs of a number. */
const isLiteralByte = (byte: number): boolean =>
  (byte >= 0x30 && byte <= 0x39) ||
  (byte >= 0x41 && byte <= 0x5a) ||
  (byte >= 0x61 && byte <= 0x7a) ||
  byte === 0x2b ||
  byte === 0x2d ||
  byte === 0x2e

/** RFC 8259 section 6, of any size: nobody reads the number. */
const isNumber = (bytes: Uint8Array, start: number, end: number): boolean => {
  let at = start
  const digits = (): number => {
    const from = at
    while (at < end && (bytes[at] ?? 0) >= 0x30 && (bytes[at] ?? 0) <= 0x39) at++
    return at - from
  }
  if (bytes[at] === 0x2d) at++
  const leadingZero = bytes[at] === 0x30
  const integer = digits()
  if (integer === 0 || (leadingZero && integer > 1)) return false
  if (at < end && bytes[at] === 0x2e) {
    at++
    if (digits() === 0) return false
  }
  if (at < end && (bytes[at] === 0x65 || bytes[at] === 0x45)) {
    at++
    if (at < end && (bytes[at] === 0x2b || bytes[at] === 0x2d)) at++
    if (digits() === 0) return false
  }
  return at === end
}

/** serde also reads a struct from an array of exactly its fields, in order. */
const parseArray = (scanner: Scanner): ClientData => {
  scanner.expect(OPEN_ARRAY)
  scanner.token()
  const origin = scanner.string()
  scanner.expect(COMMA)
  scanner.token()
  const challenge = scanner.string()
  scanner.expect(CLOSE_ARRAY)
  return { origin, challenge }
}

const parseObject = (scanner: Scanner): ClientData => {
  scanner.expect(OPEN_OBJECT)
  let origin: string | undefined
  let challenge: string | undefined
  let first = true
  while (scanner.token() !== CLOSE_OBJECT) {
    if (!first) scanner.expect(COMMA)
    first = false
    scanner.token()
    const key = scanner.string()
    scanner.expect(COLON)
    if (key === "origin") {
      if (origin !== undefined) throw new Refusal()
      scanner.token()
      origin = scanner.string()
    } else if (key === "challenge") {
      if (challenge !== undefined) throw new Refusal()
      scanner.token()
      challenge = scanner.string()
    } else {
      scanner.skipValue()
    }
  }
  scanner.position++
  if (origin === undefined || challenge === undefined) throw new Refusal()
  return { origin, challenge }
}

/** The client data, or nothing where serde_json would refuse the bytes. */
export const parse = (bytes: Uint8Array): ClientData | undefined => {
  const scanner = new Scanner(bytes)
  try {
    const data = scanner.token() === OPEN_ARRAY ? parseArray(scanner) : parseObject(scanner)
    return scanner.token() === -1 ? data : undefined
  } catch (refusal) {
    if (refusal instanceof Refusal) return undefined
    throw refusal
  }
}
