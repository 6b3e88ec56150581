/** Wallets and keys for identity tests. */

import { ed25519 } from "@noble/curves/ed25519.js"
import { secp256k1 } from "@noble/curves/secp256k1.js"
import { bytesToHex, concatBytes, hexToBytes, utf8ToBytes } from "@noble/hashes/utils.js"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as AssociationState from "../../src/identity/AssociationState.ts"
import * as Identifier from "../../src/identity/Identifier.ts"
import * as IdentityUpdate from "../../src/identity/IdentityUpdate.ts"
import * as InboxId from "../../src/identity/InboxId.ts"
import * as InstallationId from "../../src/identity/InstallationId.ts"
import type { InstallationKey } from "../../src/identity/InstallationKey.ts"
import * as MemberIdentifier from "../../src/identity/MemberIdentifier.ts"
import * as SignatureText from "../../src/identity/SignatureText.ts"
import * as Erc191 from "../../src/identity/signature/Erc191.ts"
import { eip191Hash } from "../../src/identity/signature/SignedText.ts"

export const hex = hexToBytes
export const toHex = bytesToHex

export interface Wallet {
  readonly identifier: Identifier.Identifier
  readonly sign: (text: string) => Uint8Array
}

export const wallet = (privateKeyHex: string): Wallet => {
  const privateKey = hex(privateKeyHex)
  return {
    identifier: Identifier.ethereum(Erc191.addressOf(secp256k1.getPublicKey(privateKey, false))),
    sign: (text) => {
      const signature = secp256k1.sign(eip191Hash(utf8ToBytes(text)), privateKey, {
        prehash: false,
        format: "recovered"
      })
      // noble puts the recovery bit first, wallets put v last.
      return concatBytes(signature.subarray(1), Uint8Array.of(27 + (signature[0] ?? 0)))
    }
  }
}

/** A member of no inbox. */
const nobody = MemberIdentifier.installation("00".repeat(32))

/** The log of a wallet's inbox: its founding, then updates that revoke nobody so many times, under one signature each. */
export const logOfRevocations = (
  { identifier: owner, sign }: Wallet,
  { actionsEach = 1, nonce = 0n, updates }: { actionsEach?: number; nonce?: bigint; updates: number }
): ReadonlyArray<Uint8Array> =>
  Array.from({ length: updates }, (_, index) => {
    const unsigned: ReadonlyArray<IdentityUpdate.UnsignedAction> =
      index === 0
        ? [{ _tag: "CreateInbox", owner, nonce }]
        : Array.from({ length: actionsEach }, () => ({ _tag: "RevokeAssociation" as const, member: nobody }))
    const update = {
      inboxId: InboxId.derive(owner, nonce),
      clientTimestampNs: BigInt(index) * 1_000_000_000n,
      actions: unsigned
    }
    const signature = { _tag: "Erc191" as const, bytes: sign(SignatureText.make(update)) }
    const actions = unsigned.map(
      (action): IdentityUpdate.Action =>
        action._tag === "CreateInbox"
          ? { ...action, initialSignature: signature }
          : { _tag: "RevokeAssociation", member: nobody, recoverySignature: signature }
    )
    return IdentityUpdate.encode({ ...update, actions })
  })

/** The wallet as a `Signer`. */
export const signerOf = ({ identifier, sign }: Wallet) => ({
  identifier,
  signText: (text: string) => Effect.sync(() => sign(text))
})

export const installationKey = (seedHex: string): InstallationKey => {
  const seed = hex(seedHex)
  return {
    installationId: InstallationId.fromPublicKey(ed25519.getPublicKey(seed)),
    seed: Redacted.make(seed)
  }
}

const rootText = (identifier: MemberIdentifier.RootIdentifier): string =>
  identifier._tag === "Ethereum" ? `0:${identifier.address}` : `1:${identifier.publicKey}`

/** A state in the form of the vectors, order left out. */
export const summary = (state: AssociationState.AssociationState) => ({
  inboxId: state.inboxId as string,
  recovery: rootText(state.recoveryIdentifier),
  installations: AssociationState.members(state)
    .flatMap(({ clientTimestampNs, identifier }) =>
      identifier._tag === "Installation" ? [`${identifier.publicKey}@${clientTimestampNs}`] : []
    )
    .sort(),
  identifiers: AssociationState.rootIdentifiers(state).map(rootText).sort()
})
