/**
 * The secrets of an epoch (RFC 9420 section 8), by the names that ts-mls keeps them under.
 */
import type { KeySchedule } from "ts-mls"
import { hkdfExpand } from "../crypto/Hpke.ts"
import { label as labelOf, withLabel } from "../crypto/Labels.ts"
import type { MlsCryptoShape } from "../ports/MlsCrypto.ts"

type Crypto = Pick<MlsCryptoShape, "hmacSha256">

/** Bytes of a secret in ciphersuite 0x0003. */
const SECRET_BYTES = 32
const EMPTY = new Uint8Array(0)
const ZEROS = new Uint8Array(SECRET_BYTES)
/** `ExpandWithLabel` */
export const expandWithLabel = (
  crypto: Crypto,
  secret: Uint8Array,
  label: string,
  context: Uint8Array,
  length: number
): Uint8Array => {
  // KDFLabel { uint16 length; opaque label<V>; opaque context<V> }
  const content = withLabel(labelOf(label), context)
  const info = new Uint8Array(2 + content.length)
  info.set([length >>> 8, length & 0xff])
  info.set(content, 2)
  return hkdfExpand(crypto, secret, info, length)
}

/** `DeriveSecret` */
export const deriveSecret = (crypto: Crypto, secret: Uint8Array, label: string): Uint8Array =>
  expandWithLabel(crypto, secret, label, EMPTY, SECRET_BYTES)

/** `KDF.Extract` of the joiner secret and no pre-shared key: the root of the Welcome's key and of the epoch. */
const memberSecret = (crypto: Crypto, joinerSecret: Uint8Array): Uint8Array => crypto.hmacSha256(joinerSecret, ZEROS)

/** The key and nonce of the GroupInfo in a Welcome. */
export const welcomeKey = (
  crypto: Crypto,
  joinerSecret: Uint8Array
): { readonly key: Uint8Array; readonly nonce: Uint8Array } => {
  const welcomeSecret = deriveSecret(crypto, memberSecret(crypto, joinerSecret), "welcome")
  return {
    key: expandWithLabel(crypto, welcomeSecret, "key", EMPTY, 32),
    nonce: expandWithLabel(crypto, welcomeSecret, "nonce", EMPTY, 12)
  }
}

/** The epoch's secrets, and the root of its secret tree. */
export const epoch = (
  crypto: Crypto,
  joinerSecret: Uint8Array,
  groupContext: Uint8Array
): { readonly keySchedule: KeySchedule; readonly encryptionSecret: Uint8Array } => {
  const secret = expandWithLabel(crypto, memberSecret(crypto, joinerSecret), "epoch", groupContext, SECRET_BYTES)
  const derive = (label: string): Uint8Array => deriveSecret(crypto, secret, label)
  return {
    keySchedule: {
      initSecret: derive("init"),
      senderDataSecret: derive("sender data"),
      exporterSecret: derive("exporter"),
      externalSecret: derive("external"),
      confirmationKey: derive("confirm"),
      membershipKey: derive("membership"),
      resumptionPsk: derive("resumption"),
      epochAuthenticator: derive("authentication")
    },
    encryptionSecret: derive("encryption")
  }
}
