/**
 * What MLS signs and hashes: the content, behind a label that keeps one use apart from another.
 *
 * @since 1.0.0
 */

/**
 * A label of RFC 9420, with its length before it.
 *
 * @since 1.0.0
 * @category models
 */
export type Label = Uint8Array

/**
 * A content and the label that goes before it.
 *
 * @since 1.0.0
 * @category models
 */
export type Labelled = readonly [label: Label, content: Uint8Array]

/**
 * The label of this name: `MLS 1.0 ` before it, and the length of both before that. ASCII, at most 55 characters.
 *
 * @since 1.0.0
 * @category constructors
 */
export const label = (text: string): Label => {
  const bytes = new TextEncoder().encode(`MLS 1.0 ${text}`)
  return Uint8Array.of(bytes.length, ...bytes)
}

/**
 * The label of a leaf's signature (RFC 9420 section 7.2).
 *
 * @since 1.0.0
 * @category constants
 */
export const LEAF_NODE_TBS: Label = label("LeafNodeTBS")

/**
 * The label of a key package's signature (RFC 9420 section 10).
 *
 * @since 1.0.0
 * @category constants
 */
export const KEY_PACKAGE_TBS: Label = label("KeyPackageTBS")

/**
 * The label of a key package's hash ref (RFC 9420 section 5.2).
 *
 * @since 1.0.0
 * @category constants
 */
export const KEY_PACKAGE_REFERENCE: Label = label("KeyPackage Reference")

/**
 * The label of a GroupInfo's signature (RFC 9420 section 12.4.3).
 *
 * @since 1.0.0
 * @category constants
 */
export const GROUP_INFO_TBS: Label = label("GroupInfoTBS")

/**
 * The label under which a Welcome's group secrets are encrypted (RFC 9420 section 12.4.3.1).
 *
 * @since 1.0.0
 * @category constants
 */
export const WELCOME: Label = label("Welcome")

/**
 * The label under which XMTP wraps a whole Welcome once more (libxmtp `WELCOME_HPKE_LABEL`).
 *
 * @since 1.0.0
 * @category constants
 */
export const MLS_WELCOME: Label = label("MLS_WELCOME")

const lengthBytesOf = (length: number): number => (length < 0x40 ? 1 : length < 0x4000 ? 2 : 4)

const sizeOf = (label: Label, { length }: Uint8Array): number => label.length + lengthBytesOf(length) + length

/** Writes label and content, and says where they end. */
const write = (bytes: Uint8Array, start: number, label: Label, content: Uint8Array): number => {
  const length = content.length
  const lengthBytes = lengthBytesOf(length)
  bytes.set(label, start)
  let at = start + label.length
  if (lengthBytes === 1) bytes[at++] = length
  else if (lengthBytes === 2) {
    bytes[at++] = 0x40 | (length >>> 8)
    bytes[at++] = length & 0xff
  } else {
    bytes[at++] = 0x80 | (length >>> 24)
    bytes[at++] = (length >>> 16) & 0xff
    bytes[at++] = (length >>> 8) & 0xff
    bytes[at++] = length & 0xff
  }
  bytes.set(content, at)
  return at + length
}

/**
 * `SignContent` (RFC 9420 section 5.1.2), `RefHashInput` (5.2) and `EncryptContext` (5.1.3), which have one layout: label
 * and content, each behind its length. The content is shorter than 2^30 bytes.
 *
 * @since 1.0.0
 * @category constructors
 */
export const withLabel = (label: Label, content: Uint8Array): Uint8Array => {
  const bytes = new Uint8Array(sizeOf(label, content))
  write(bytes, 0, label, content)
  return bytes
}

/**
 * `withLabel` of each, side by side in one piece of memory: many small ones cost the collector more than their bytes do.
 *
 * @since 1.0.0
 * @category constructors
 */
export const withLabels = (contents: ReadonlyArray<Labelled>): ReadonlyArray<Uint8Array> => {
  const bytes = new Uint8Array(contents.reduce((sum, [label, content]) => sum + sizeOf(label, content), 0))
  let end = 0
  return contents.map(([label, content]) => {
    const start = end
    end = write(bytes, start, label, content)
    return bytes.subarray(start, end)
  })
}
