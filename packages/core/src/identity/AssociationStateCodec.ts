/**
 * An association state as bytes, in the form in which libxmtp keeps it
 * (`xmtp.identity.associations.AssociationState`; `xmtp_id/src/associations/serialization.rs`).
 *
 * The bytes are for a cache: they say what a verified log added up to, and prove nothing by themselves.
 *
 * @since 1.0.0
 */
import { BinaryWriter, WireType } from "@bufbuild/protobuf/wire"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { AssociationStateSchema, IdentifierKind } from "../gen/xmtp/identity/associations/association_pb.ts"
import * as hex from "../internal/hex.ts"
import * as identifierWire from "../internal/memberIdentifierWire.ts"
import { attempt, ProstReader } from "../internal/prost.ts"
import * as strictProtobuf from "../internal/strictProtobuf.ts"
import type { AssociationState, Member } from "./AssociationState.ts"
import { isInboxId } from "./InboxId.ts"
import { equals, type MemberIdentifier, type RootIdentifier, toKey } from "./MemberIdentifier.ts"

/**
 * The bytes are no association state.
 *
 * - `NotProtobuf`: prost would not decode them
 * - `InvalidInboxId`: not 64 lower-case hex digits
 * - `InvalidMember`: a member without identifier, under the key of another, or twice
 *
 * @since 1.0.0
 * @category errors
 */
export class AssociationStateDecodeError extends Schema.TaggedError<AssociationStateDecodeError>(
  "@keyward/core/AssociationStateDecodeError"
)("AssociationStateDecodeError", {
  reason: Schema.Literal("NotProtobuf", "InvalidInboxId", "InvalidMember"),
  detail: Schema.optional(Schema.String)
}) {
  /** The same bytes will not do better. */
  get isRetryable(): boolean {
    return false
  }
  override get message(): string {
    return `not an association state: ${this.reason}${this.detail === undefined ? "" : ` (${this.detail})`}`
  }
}

const { LengthDelimited, Varint } = WireType

const writeIdentifier = (writer: BinaryWriter, field: number, identifier: MemberIdentifier): void => {
  writer.tag(field, LengthDelimited).fork()
  switch (identifier._tag) {
    case "Ethereum":
      writer.tag(1, LengthDelimited).string(identifier.address)
      break
    case "Installation":
      writer.tag(2, LengthDelimited).bytes(hex.decode(identifier.publicKey))
      break
    case "Passkey": {
      writer.tag(3, LengthDelimited).fork()
      if (identifier.publicKey !== "") writer.tag(1, LengthDelimited).bytes(hex.decode(identifier.publicKey))
      if (identifier.relyingParty !== undefined) writer.tag(2, LengthDelimited).string(identifier.relyingParty)
      writer.join()
    }
  }
  writer.join()
}

const writeMember = (
  writer: BinaryWriter,
  { addedBy, addedOnChainId, clientTimestampNs, identifier }: Member
): void => {
  writer.tag(2, LengthDelimited).fork()
  writeIdentifier(writer, 1, identifier)
  writer.tag(2, LengthDelimited).fork()
  writeIdentifier(writer, 1, identifier)
  if (addedBy !== undefined) writeIdentifier(writer, 2, addedBy)
  if (clientTimestampNs !== undefined) writer.tag(3, Varint).uint64(clientTimestampNs)
  if (addedOnChainId !== undefined) writer.tag(4, Varint).uint64(addedOnChainId)
  writer.join()
  writer.join()
}

/**
 * The state as bytes. Members and signatures keep their order, so the same state gives the same bytes.
 *
 * @since 1.0.0
 * @category conversions
 */
export const encode = (state: AssociationState): Uint8Array => {
  // Field by field: `create` and `toBinary` of the generated messages take twice as long, and every new state is written.
  const recovery = identifierWire.rootToWire(state.recoveryIdentifier)
  const writer = new BinaryWriter()
  writer.tag(1, LengthDelimited).string(state.inboxId)
  for (const member of state.members.values()) writeMember(writer, member)
  if (recovery.text !== "") writer.tag(3, LengthDelimited).string(recovery.text)
  for (const signature of state.seenSignatures) writer.tag(4, LengthDelimited).bytes(hex.decode(signature))
  writer.tag(5, Varint).int32(recovery.kind)
  if (recovery.relyingParty !== undefined) writer.tag(6, LengthDelimited).string(recovery.relyingParty)
  return writer.finish()
}

const readPasskey = (reader: ProstReader): MemberIdentifier | undefined => {
  let publicKey = ""
  let relyingParty: string | undefined
  for (let field = reader.nextField(), last = 0; field !== 0; last = field, field = reader.nextField()) {
    if (field <= last) return undefined
    if (field === 1) publicKey = reader.hex()
    else if (field === 2) relyingParty = reader.text()
    else return undefined
  }
  return { _tag: "Passkey", publicKey, ...identifierWire.relyingPartyField(relyingParty) }
}

const readIdentifier = (reader: ProstReader): MemberIdentifier | undefined => {
  const field = reader.nextField()
  const identifier: MemberIdentifier | undefined =
    field === 1
      ? { _tag: "Ethereum", address: reader.text() }
      : field === 2
        ? { _tag: "Installation", publicKey: reader.hex() }
        : field === 3
          ? readPasskey(reader.message())
          : undefined
  return reader.nextField() === 0 ? identifier : undefined
}

/** The member, if the key that it is filed under is its identifier, byte for byte. */
const readMember = (reader: ProstReader, filedUnder: ProstReader): Member | undefined => {
  let identifier: MemberIdentifier | undefined
  let addedBy: MemberIdentifier | undefined
  let clientTimestampNs: bigint | undefined
  let addedOnChainId: bigint | undefined
  for (let field = reader.nextField(), last = 0; field !== 0; last = field, field = reader.nextField()) {
    if (field <= last) return undefined
    if (field === 1) {
      const own = reader.message()
      if (!own.equals(filedUnder)) return undefined
      identifier = readIdentifier(own)
    } else if (field === 2) {
      addedBy = readIdentifier(reader.message())
      if (addedBy === undefined) return undefined
    } else if (field === 3) clientTimestampNs = reader.uint64()
    else if (field === 4) addedOnChainId = reader.uint64()
    else return undefined
  }
  return identifier === undefined ? undefined : { identifier, addedBy, clientTimestampNs, addedOnChainId }
}

/**
 * Reads what `encode` writes, in one pass and several times faster than the general reader. Nothing where fields come in
 * another order, twice, or are none of ours: whether such bytes are a state is for the general reader to say.
 */
const readCanonical = (bytes: Uint8Array): AssociationState | undefined => {
  const reader = new ProstReader(bytes)
  const members = new Map<string, Member>()
  const seenSignatures = new Set<string>()
  let inboxId: string | undefined
  let recovery = ""
  let recoveryKind = 0
  let relyingParty: string | undefined
  for (let field = reader.nextField(), last = 0; field !== 0; last = field, field = reader.nextField()) {
    if (field < last || (field === last && field !== 2 && field !== 4)) return undefined
    switch (field) {
      case 1:
        inboxId = reader.text()
        break
      case 2: {
        const entry = reader.message()
        if (entry.nextField() !== 1) return undefined
        const key = entry.message()
        if (entry.nextField() !== 2) return undefined
        const member = readMember(entry.message(), key)
        if (entry.nextField() !== 0 || member === undefined) return undefined
        const id = toKey(member.identifier)
        if (members.has(id)) return undefined
        members.set(id, member)
        break
      }
      case 3:
        recovery = reader.text()
        break
      case 4:
        seenSignatures.add(reader.hex())
        break
      case 5:
        recoveryKind = reader.int32()
        break
      case 6:
        relyingParty = reader.text()
        break
      default:
        return undefined
    }
  }
  if (inboxId === undefined || !isInboxId(inboxId)) return undefined
  const recoveryIdentifier = decodeRecovery(recovery, recoveryKind, relyingParty)
  return { inboxId, members, recoveryIdentifier, seenSignatures }
}

// An unknown kind counts as unspecified, which counts as Ethereum.
const decodeRecovery = (text: string, kind: number, relyingParty: string | undefined): RootIdentifier =>
  kind === IdentifierKind.PASSKEY
    ? { _tag: "Passkey", publicKey: text, ...identifierWire.relyingPartyField(relyingParty) }
    : { _tag: "Ethereum", address: text }

const refuse = (reason: AssociationStateDecodeError["reason"], detail?: string) =>
  Either.left(new AssociationStateDecodeError({ reason, ...(detail === undefined ? {} : { detail }) }))

/**
 * The state of these bytes.
 *
 * @since 1.0.0
 * @category conversions
 */
export const decode = (bytes: Uint8Array): Either.Either<AssociationState, AssociationStateDecodeError> => {
  const canonical = attempt(
    () => readCanonical(bytes),
    () => undefined
  )
  if (canonical !== undefined) return Either.right(canonical)
  const decoding = strictProtobuf.decode(AssociationStateSchema, bytes)
  if (Either.isLeft(decoding)) return refuse("NotProtobuf", decoding.left)
  const wire = decoding.right
  if (!isInboxId(wire.inboxId)) return refuse("InvalidInboxId")

  const members = new Map<string, Member>()
  for (const { key, value } of wire.members) {
    const filedUnder = identifierWire.fromWire(key)
    const identifier = identifierWire.fromWire(value?.identifier)
    if (value === undefined || filedUnder === undefined || identifier === undefined) return refuse("InvalidMember")
    const id = toKey(identifier)
    if (!equals(filedUnder, identifier) || members.has(id)) return refuse("InvalidMember")
    members.set(id, {
      identifier,
      addedBy: identifierWire.fromWire(value.addedByEntity),
      clientTimestampNs: value.clientTimestampNs,
      addedOnChainId: value.addedOnChainId
    })
  }
  return Either.right({
    inboxId: wire.inboxId,
    members,
    recoveryIdentifier: decodeRecovery(wire.recoveryIdentifier, wire.recoveryIdentifierKind, wire.relyingParty),
    seenSignatures: new Set(wire.seenSignatures.map(hex.encode))
  })
}
