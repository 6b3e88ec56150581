/**
 * Texts as XMTP puts them into a group's messages: a `PlaintextEnvelope` around an `EncodedContent` of the type `text`
 * (xmtp/proto `mls/message_contents/content.proto`).
 */
import { BinaryReader, BinaryWriter, WireType } from "@bufbuild/protobuf/wire"
import * as Option from "effect/Option"

type Fields = ReadonlyMap<number, Uint8Array>

/** The length-delimited fields of a message, the last of each number. Throws where it is none. */
const fieldsOf = (bytes: Uint8Array): Fields => {
  const fields = new Map<number, Uint8Array>()
  const reader = new BinaryReader(bytes)
  while (reader.pos < reader.len) {
    const [number, type] = reader.tag()
    if (type === WireType.LengthDelimited) fields.set(number, reader.bytes())
    else reader.skip(type)
  }
  return fields
}

const inside = (fields: Fields, number: number): Fields => fieldsOf(fields.get(number) ?? new Uint8Array(0))

const utf8 = new TextDecoder()

/** The text of an application message; none where it is something else: a reaction, a change of the group's name. */
export const decode = (bytes: Uint8Array): Option.Option<string> =>
  Option.liftThrowable(() => {
    const content = inside(inside(fieldsOf(bytes), 1), 1)
    const text = content.get(4)
    return utf8.decode(inside(content, 1).get(2)) === "text" && text !== undefined ? utf8.decode(text) : undefined
  })().pipe(Option.flatMap(Option.fromNullable))

const message = (...fields: ReadonlyArray<readonly [number, Uint8Array | string | number]>): Uint8Array => {
  const writer = new BinaryWriter()
  for (const [number, value] of fields) {
    if (typeof value === "number") writer.tag(number, WireType.Varint).uint32(value)
    else if (typeof value === "string") writer.tag(number, WireType.LengthDelimited).string(value)
    else writer.tag(number, WireType.LengthDelimited).bytes(value)
  }
  return writer.finish()
}

/** The key tells this message from another one with the same text: the time in nanoseconds, as the SDKs have it. */
export const encode = (text: string, idempotencyKey: string): Uint8Array => {
  const type = message([1, "xmtp.org"], [2, "text"], [3, 1])
  const encoding = message([1, "encoding"], [2, "UTF-8"])
  const content = message([1, type], [2, encoding], [4, new TextEncoder().encode(text)])
  return message([1, message([1, content], [2, idempotencyKey])])
}
