/**
 * The wire forms of a member's identifier, which identity updates and cached states share
 * (`xmtp.identity.associations.MemberIdentifier`; `xmtp_id/src/associations/serialization.rs`).
 */
import { create } from "@bufbuild/protobuf"
import {
  IdentifierKind,
  MemberIdentifierSchema,
  PasskeySchema,
  type MemberIdentifier as WireMemberIdentifier
} from "../gen/xmtp/identity/associations/association_pb.ts"
import type { MemberIdentifier, RootIdentifier } from "../identity/MemberIdentifier.ts"
import * as hex from "./hex.ts"

/** The field of a relying party, which is not there where there is none. */
export const relyingPartyField = (relyingParty: string | undefined) =>
  relyingParty === undefined ? {} : { relyingParty }

/** The message of an identifier. */
export const toWire = (identifier: MemberIdentifier): WireMemberIdentifier => {
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
        ...relyingPartyField(identifier.relyingParty)
      })
      return create(MemberIdentifierSchema, { kind: { case: "passkey", value } })
    }
  }
}

/** The identifier of a message, verbatim; nothing where the message is missing or empty. */
export const fromWire = (wire: WireMemberIdentifier | undefined): MemberIdentifier | undefined => {
  switch (wire?.kind.case) {
    case "ethereumAddress":
      return { _tag: "Ethereum", address: wire.kind.value }
    case "installationPublicKey":
      return { _tag: "Installation", publicKey: hex.encode(wire.kind.value) }
    case "passkey":
      return {
        _tag: "Passkey",
        publicKey: hex.encode(wire.kind.value.key),
        ...relyingPartyField(wire.kind.value.relyingParty)
      }
    default:
      return undefined
  }
}

/** A root identifier where it is text, kind and relying party: of a founder, and of who may revoke. */
export const rootToWire = (identifier: RootIdentifier) =>
  identifier._tag === "Ethereum"
    ? { text: identifier.address, kind: IdentifierKind.ETHEREUM, relyingParty: undefined }
    : { text: identifier.publicKey, kind: IdentifierKind.PASSKEY, relyingParty: identifier.relyingParty }
