/**
 * An association state as bytes, in the form in which libxmtp keeps it
 * (`xmtp.identity.associations.AssociationState`; `xmtp_id/src/associations/serialization.rs`).
 *
 * The bytes are for a cache: they say what a verified log added up to, and prove nothing by themselves.
 *
 * @since 1.0.0
 */
import { create, toBinary } from "@bufbuild/protobuf"
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import {
  AssociationStateSchema,
  IdentifierKind,
  MemberIdentifierSchema,
  MemberMapSchema,
  MemberSchema,
  PasskeySchema,
  type Member as WireMember,
  type MemberIdentifier as WireMemberIdentifier
} from "../gen/xmtp/identity/associations/association_pb.ts"
import * as hex from "../internal/hex.ts"
import * as strictProtobuf from "../internal/strictProtobuf.ts"
import type { AssociationState, Member } from "./AssociationState.ts"
import { InboxId } from "./InboxId.ts"
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

const encodeRelyingParty = (relyingParty: string | undefined) => (relyingParty === undefined ? {} : { relyingParty })

const encodeIdentifier = (identifier: MemberIdentifier): WireMemberIdentifier => {
  switch (identifier._tag) {
    case "Ethereum":
      return create(MemberIdentifierSchema, { kind: { case: "ethereumAddress", value: identifier.address } })
    case "Installation":
      return create(MemberIdentifierSchema, {
        kind: { case: "installationPublicKey", value: hex.decode(identifier.publicKey) }
      })
    case "Passkey": {
      const value = create(PasskeySchema, {
        key: hex.decode(identifier.publicKey),
        ...encodeRelyingParty(identifier.relyingParty)
      })
      return create(MemberIdentifierSchema, { kind: { case: "passkey", value } })
    }
  }
}

const encodeMember = ({ addedBy, addedOnChainId, clientTimestampNs, identifier }: Member): WireMember =>
  create(MemberSchema, {
    identifier: encodeIdentifier(identifier),
    ...(addedBy === undefined ? {} : { addedByEntity: encodeIdentifier(addedBy) }),
    ...(clientTimestampNs === undefined ? {} : { clientTimestampNs }),
    ...(addedOnChainId === undefined ? {} : { addedOnChainId })
  })

const encodeRecovery = (identifier: RootIdentifier) =>
  identifier._tag === "Ethereum"
    ? { recoveryIdentifier: identifier.address, recoveryIdentifierKind: IdentifierKind.ETHEREUM }
    : {
        recoveryIdentifier: identifier.publicKey,
        recoveryIdentifierKind: IdentifierKind.PASSKEY,
        ...encodeRelyingParty(identifier.relyingParty)
      }

/**
 * The state as bytes. Members and signatures keep their order, so the same state gives the same bytes.
 *
 * @since 1.0.0
 * @category conversions
 */
export const encode = (state: AssociationState): Uint8Array =>
  toBinary(
    AssociationStateSchema,
    create(AssociationStateSchema, {
      inboxId: state.inboxId,
      members: Array.from(state.members.values(), (member) =>
        create(MemberMapSchema, { key: encodeIdentifier(member.identifier), value: encodeMember(member) })
      ),
      ...encodeRecovery(state.recoveryIdentifier),
      seenSignatures: Array.from(state.seenSignatures, hex.decode)
    })
  )

const decodeIdentifier = (wire: WireMemberIdentifier | undefined): MemberIdentifier | undefined => {
  switch (wire?.kind.case) {
    case "ethereumAddress":
      return { _tag: "Ethereum", address: wire.kind.value }
    case "installationPublicKey":
      return { _tag: "Installation", publicKey: hex.encode(wire.kind.value) }
    case "passkey":
      return {
        _tag: "Passkey",
        publicKey: hex.encode(wire.kind.value.key),
        ...encodeRelyingParty(wire.kind.value.relyingParty)
      }
    default:
      return undefined
  }
}

const refuse = (reason: AssociationStateDecodeError["reason"], detail?: string) =>
  Either.left(new AssociationStateDecodeError({ reason, ...(detail === undefined ? {} : { detail }) }))

const isInboxId = Schema.is(InboxId)

/**
 * The state of these bytes.
 *
 * @since 1.0.0
 * @category conversions
 */
export const decode = (bytes: Uint8Array): Either.Either<AssociationState, AssociationStateDecodeError> => {
  const decoding = strictProtobuf.decode(AssociationStateSchema, bytes)
  if (Either.isLeft(decoding)) return refuse("NotProtobuf", decoding.left)
  const wire = decoding.right
  if (!isInboxId(wire.inboxId)) return refuse("InvalidInboxId")

  const members = new Map<string, Member>()
  for (const { key, value } of wire.members) {
    const filedUnder = decodeIdentifier(key)
    const identifier = decodeIdentifier(value?.identifier)
    if (value === undefined || filedUnder === undefined || identifier === undefined) return refuse("InvalidMember")
    const id = toKey(identifier)
    if (!equals(filedUnder, identifier) || members.has(id)) return refuse("InvalidMember")
    members.set(id, {
      identifier,
      addedBy: decodeIdentifier(value.addedByEntity),
      clientTimestampNs: value.clientTimestampNs,
      addedOnChainId: value.addedOnChainId
    })
  }
  return Either.right({
    inboxId: wire.inboxId,
    members,
    // An unknown kind counts as unspecified, which counts as Ethereum.
    recoveryIdentifier:
      wire.recoveryIdentifierKind === IdentifierKind.PASSKEY
        ? { _tag: "Passkey", publicKey: wire.recoveryIdentifier, ...encodeRelyingParty(wire.relyingParty) }
        : { _tag: "Ethereum", address: wire.recoveryIdentifier },
    seenSignatures: new Set(wire.seenSignatures.map(hex.encode))
  })
}
