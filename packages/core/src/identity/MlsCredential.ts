/**
 * The credential of an installation: which inbox it says it belongs to.
 *
 * A claim, not a proof: the inbox's identity log decides whether it is true.
 *
 * @since 1.0.0
 */
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { attempt, ProstReader } from "../internal/prost.ts"

/**
 * The content of the basic credential in a key package's leaf (`xmtp.identity.MlsCredential`).
 *
 * @since 1.0.0
 * @category models
 */
export interface MlsCredential {
  /** As written. libxmtp accepts any text at this point; it is not proven to be an `InboxId`. */
  readonly inboxId: string
}

/**
 * The credential's bytes are no `MlsCredential` by prost's rules.
 *
 * @since 1.0.0
 * @category errors
 */
export class InvalidMlsCredential extends Schema.TaggedError<InvalidMlsCredential>(
  "@keyward/core/InvalidMlsCredential"
)("InvalidMlsCredential", {
  reason: Schema.Literal(
    "InvalidVarint",
    "InvalidKey",
    "InvalidWireType",
    "InvalidTag",
    "UnexpectedWireType",
    "UnexpectedEndGroup",
    "BufferUnderflow",
    "RecursionLimit",
    "InvalidUtf8"
  ),
  /** Bytes from the start of the credential's identity. */
  offset: Schema.Number
}) {
  override get message(): string {
    return `the credential is not an MlsCredential: ${this.reason} at byte ${this.offset} of the identity`
  }
}

const utf8 = new TextEncoder()

/**
 * The credential's bytes as prost writes them: field 1, the inbox id in UTF-8, left out when empty. 66 bytes for an
 * inbox id.
 *
 * @since 1.0.0
 * @category conversions
 */
export const encode = (credential: MlsCredential): Uint8Array => {
  const text = utf8.encode(credential.inboxId)
  if (text.length === 0) return new Uint8Array(0)
  const prefix: Array<number> = [0x0a]
  for (let rest = text.length; ; rest >>>= 7) {
    if (rest < 0x80) {
      prefix.push(rest)
      break
    }
    prefix.push((rest & 0x7f) | 0x80)
  }
  const bytes = new Uint8Array(prefix.length + text.length)
  bytes.set(prefix)
  bytes.set(text, prefix.length)
  return bytes
}

/**
 * Reads a credential as libxmtp does (prost): the last field 1 counts, unknown fields and groups are skipped, a key is
 * at most 32 bits, the text is UTF-8. Nothing at all is the empty inbox id.
 *
 * @since 1.0.0
 * @category conversions
 */
export const decode = (bytes: Uint8Array): Either.Either<MlsCredential, InvalidMlsCredential> =>
  attempt(
    (): Either.Either<MlsCredential, InvalidMlsCredential> => {
      const reader = new ProstReader(bytes)
      let inboxId = ""
      for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
        if (field === 1) inboxId = reader.text()
        else reader.skip(field)
      }
      return Either.right({ inboxId })
    },
    ({ reason, offset }) => Either.left(new InvalidMlsCredential({ reason, offset }))
  )
