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

const label = (text: string): Label => {
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
 * `SignContent` (RFC 9420 section 5.1.2) and `RefHashInput` (5.2), which have one layout: label and content, each
 * behind its length. The content is shorter than 2^30 bytes.
 *
 * @since 1.0.0
 * @category constructors
 */
export const withLabel = (label: Label, content: Uint8Array): Uint8Array => {
  const length = content.length
  const lengthBytes = length < 0x40 ? 1 : length < 0x4000 ? 2 : 4
  const bytes = new Uint8Array(label.length + lengthBytes + length)
  bytes.set(label)
  let at = label.length
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
  return bytes
}
