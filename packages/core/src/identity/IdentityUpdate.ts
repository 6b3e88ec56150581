/**
 * One entry of an inbox's log: actions that its members signed together.
 *
 * @since 1.0.0
 */
import { create, toBinary } from "@bufbuild/protobuf"
import * as Either from "effect/Either"
import {
  AddAssociationSchema,
  ChangeRecoveryAddressSchema,
  CreateInboxSchema,
  IdentifierKind,
  IdentityActionSchema,
  IdentityUpdateSchema,
  RevokeAssociationSchema,
  type IdentityAction as WireAction
} from "../gen/xmtp/identity/associations/association_pb.ts"
import * as identifierWire from "../internal/memberIdentifierWire.ts"
import * as strictProtobuf from "../internal/strictProtobuf.ts"
import { type ConversionReason, IdentityConversionError } from "./IdentityError.ts"
import type { MemberIdentifier, RootIdentifier } from "./MemberIdentifier.ts"
import * as Signature from "./signature/Signature.ts"

/**
 * Founds the inbox. The inbox id is bound to owner and nonce; the owner becomes first member and recovery identifier.
 *
 * @since 1.0.0
 * @category models
 */
export interface UnsignedCreateInbox {
  readonly _tag: "CreateInbox"
  readonly owner: RootIdentifier
  /** Unsigned 64-bit. It is not in the signed text. */
  readonly nonce: bigint
}

/**
 * Adds a member, or re-adds one under another parent.
 *
 * @since 1.0.0
 * @category models
 */
export interface UnsignedAddAssociation {
  readonly _tag: "AddAssociation"
  readonly newMember: MemberIdentifier
}

/**
 * Removes a member, and the installations that it added.
 *
 * @since 1.0.0
 * @category models
 */
export interface UnsignedRevokeAssociation {
  readonly _tag: "RevokeAssociation"
  readonly member: MemberIdentifier
}

/**
 * Replaces the recovery identifier, which need not be a member.
 *
 * @since 1.0.0
 * @category models
 */
export interface UnsignedChangeRecoveryIdentifier {
  readonly _tag: "ChangeRecoveryIdentifier"
  readonly newRecoveryIdentifier: RootIdentifier
}

/**
 * An action before it is signed: all that the signed text says of it, and the nonce.
 *
 * @since 1.0.0
 * @category models
 */
export type UnsignedAction =
  | UnsignedCreateInbox
  | UnsignedAddAssociation
  | UnsignedRevokeAssociation
  | UnsignedChangeRecoveryIdentifier

/**
 * `UnsignedCreateInbox` and the owner's signature.
 *
 * @since 1.0.0
 * @category models
 */
export interface CreateInbox extends UnsignedCreateInbox {
  readonly initialSignature: Signature.Signature
}

/**
 * `UnsignedAddAssociation` and both signatures.
 *
 * @since 1.0.0
 * @category models
 */
export interface AddAssociation extends UnsignedAddAssociation {
  readonly existingMemberSignature: Signature.Signature
  readonly newMemberSignature: Signature.Signature
}

/**
 * `UnsignedRevokeAssociation` and the recovery identifier's signature.
 *
 * @since 1.0.0
 * @category models
 */
export interface RevokeAssociation extends UnsignedRevokeAssociation {
  readonly recoverySignature: Signature.Signature
}

/**
 * `UnsignedChangeRecoveryIdentifier` and the signature of the recovery identifier so far.
 *
 * @since 1.0.0
 * @category models
 */
export interface ChangeRecoveryIdentifier extends UnsignedChangeRecoveryIdentifier {
  readonly recoverySignature: Signature.Signature
}

/**
 * A signed action.
 *
 * @since 1.0.0
 * @category models
 */
export type Action = CreateInbox | AddAssociation | RevokeAssociation | ChangeRecoveryIdentifier

interface Update<A> {
  /** The inbox, as the update claims it: any text until the update has been resolved. */
  readonly inboxId: string
  /** Nanoseconds since 1970 by the client's clock, unsigned 64-bit. The text signs whole seconds of it. */
  readonly clientTimestampNs: bigint
  readonly actions: ReadonlyArray<A>
}

/**
 * An update before it is signed. All its signatures sign the same text.
 *
 * @since 1.0.0
 * @category models
 */
export interface UnsignedIdentityUpdate extends Update<UnsignedAction> {}

/**
 * A signed update, as a log holds it. Nothing in it is verified yet.
 *
 * @since 1.0.0
 * @category models
 */
export interface IdentityUpdate extends Update<Action> {}

/** Thrown inside `decode` alone. */
class Refusal {
  readonly reason: ConversionReason
  readonly detail: string | undefined
  constructor(reason: ConversionReason, detail?: string) {
    this.reason = reason
    this.detail = detail
  }
}

/** `const-hex`, as libxmtp reads a passkey's text: an optional `0x`, either letter case. */
const passkeyHex = (text: string): string => {
  const digits = text.startsWith("0x") ? text.slice(2) : text
  if (!/^(?:[0-9a-fA-F]{2})*$/.test(digits)) throw new Refusal("InvalidPasskey", "not hex")
  return digits.toLowerCase()
}

// Unknown kinds count as unspecified, which counts as Ethereum.
const decodeRoot = (text: string, kind: IdentifierKind, relyingParty: string | undefined): RootIdentifier =>
  kind === IdentifierKind.PASSKEY
    ? { _tag: "Passkey", publicKey: passkeyHex(text), relyingParty }
    : { _tag: "Ethereum", address: text }

const decodeMember = (wire: Parameters<typeof identifierWire.fromWire>[0]): MemberIdentifier => {
  const member = identifierWire.fromWire(wire)
  if (member === undefined) throw new Refusal("MissingMember")
  return member
}

const decodeSignature = (wire: Parameters<typeof Signature.fromWire>[0]): Signature.Signature => {
  const signature = Signature.fromWire(wire)
  if (Either.isLeft(signature)) throw new Refusal(signature.left.reason, signature.left.detail)
  return signature.right
}

const decodeAction = (wire: WireAction): Action => {
  switch (wire.kind.case) {
    case "createInbox": {
      const { value } = wire.kind
      return {
        _tag: "CreateInbox",
        owner: decodeRoot(value.initialIdentifier, value.initialIdentifierKind, value.relyingParty),
        nonce: value.nonce,
        initialSignature: decodeSignature(value.initialIdentifierSignature)
      }
    }
    case "add": {
      const { value } = wire.kind
      return {
        _tag: "AddAssociation",
        newMemberSignature: decodeSignature(value.newMemberSignature),
        existingMemberSignature: decodeSignature(value.existingMemberSignature),
        newMember: decodeMember(value.newMemberIdentifier)
      }
    }
    case "revoke": {
      const { value } = wire.kind
      return {
        _tag: "RevokeAssociation",
        recoverySignature: decodeSignature(value.recoveryIdentifierSignature),
        member: decodeMember(value.memberToRevoke)
      }
    }
    case "changeRecoveryAddress": {
      const { value } = wire.kind
      return {
        _tag: "ChangeRecoveryIdentifier",
        newRecoveryIdentifier: decodeRoot(
          value.newRecoveryIdentifier,
          value.newRecoveryIdentifierKind,
          value.relyingParty
        ),
        recoverySignature: decodeSignature(value.existingRecoveryIdentifierSignature)
      }
    }
    default:
      throw new Refusal("MissingAction")
  }
}

/**
 * Decodes an `xmtp.identity.associations.IdentityUpdate` as libxmtp does (`xmtp_id/src/associations/serialization.rs`):
 * what prost refuses is refused, every action needs its parts, identifiers are taken verbatim. Whether the key of an
 * installation's signature is a point of the curve is left to its verification, which decompresses it anyway, and is
 * reported there as this same error.
 *
 * `updateIndex` names the update in the error.
 *
 * @since 1.0.0
 * @category conversions
 */
export const decode = (
  bytes: Uint8Array,
  options?: { readonly updateIndex?: number | undefined }
): Either.Either<IdentityUpdate, IdentityConversionError> => {
  const updateIndex = options?.updateIndex
  const wire = strictProtobuf.decode(IdentityUpdateSchema, bytes)
  if (Either.isLeft(wire)) {
    return Either.left(new IdentityConversionError({ updateIndex, reason: "NotProtobuf", detail: wire.left }))
  }
  const { actions, clientTimestampNs, inboxId } = wire.right
  // libxmtp looks for missing actions before it converts any of them.
  let actionIndex = actions.findIndex((action) => action.kind.case === undefined)
  try {
    if (actionIndex >= 0) throw new Refusal("MissingAction")
    const decoded: Array<Action> = []
    for (const action of actions) {
      actionIndex = decoded.length
      decoded.push(decodeAction(action))
    }
    return Either.right({ inboxId, clientTimestampNs, actions: decoded })
  } catch (refusal) {
    if (!(refusal instanceof Refusal)) throw refusal
    const { detail, reason } = refusal
    return Either.left(new IdentityConversionError({ updateIndex, actionIndex, reason, detail }))
  }
}

const encodeAction = (action: Action): WireAction["kind"] => {
  switch (action._tag) {
    case "CreateInbox": {
      const owner = identifierWire.rootToWire(action.owner)
      return {
        case: "createInbox",
        value: create(CreateInboxSchema, {
          initialIdentifier: owner.text,
          nonce: action.nonce,
          initialIdentifierSignature: Signature.toWire(action.initialSignature),
          initialIdentifierKind: owner.kind,
          ...identifierWire.relyingPartyField(owner.relyingParty)
        })
      }
    }
    case "AddAssociation":
      return {
        case: "add",
        value: create(AddAssociationSchema, {
          newMemberIdentifier: identifierWire.toWire(action.newMember),
          existingMemberSignature: Signature.toWire(action.existingMemberSignature),
          newMemberSignature: Signature.toWire(action.newMemberSignature),
          ...(action.newMember._tag === "Passkey"
            ? identifierWire.relyingPartyField(action.newMember.relyingParty)
            : {})
        })
      }
    case "RevokeAssociation":
      return {
        case: "revoke",
        value: create(RevokeAssociationSchema, {
          memberToRevoke: identifierWire.toWire(action.member),
          recoveryIdentifierSignature: Signature.toWire(action.recoverySignature)
        })
      }
    case "ChangeRecoveryIdentifier": {
      const identifier = identifierWire.rootToWire(action.newRecoveryIdentifier)
      return {
        case: "changeRecoveryAddress",
        value: create(ChangeRecoveryAddressSchema, {
          newRecoveryIdentifier: identifier.text,
          existingRecoveryIdentifierSignature: Signature.toWire(action.recoverySignature),
          newRecoveryIdentifierKind: identifier.kind,
          ...identifierWire.relyingPartyField(identifier.relyingParty)
        })
      }
    }
  }
}

/**
 * Encodes a signed update as libxmtp does, byte for byte: ascending field numbers, the identifier kind always present,
 * zeros left out.
 *
 * @since 1.0.0
 * @category conversions
 */
export const encode = (update: IdentityUpdate): Uint8Array =>
  toBinary(
    IdentityUpdateSchema,
    create(IdentityUpdateSchema, {
      actions: update.actions.map((action) => create(IdentityActionSchema, { kind: encodeAction(action) })),
      clientTimestampNs: update.clientTimestampNs,
      inboxId: update.inboxId
    })
  )
