/**
 * Key packages to bytes and back.
 *
 * The decoder accepts exactly one form of every package: what it accepts, the encoder writes identically. So the
 * signatures, which OpenMLS checks over bytes that it wrote anew, can be checked over the bytes that arrived.
 *
 * @since 1.0.0
 */
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import type {
  Capabilities,
  Credential,
  DecodedKeyPackage,
  Extension,
  KeyPackage,
  LeafNodeSource
} from "./KeyPackage.ts"
import { KeyPackageDecodeError, type KeyPackageField } from "./KeyPackageError.ts"
import { ExtensionType, isValidInLeafNode, MAX_KEY_PACKAGE_BYTES } from "./Profile.ts"

// ---------------------------------------------------------------------------------------------------------------------
// Decoding
// ---------------------------------------------------------------------------------------------------------------------

/**
 * Reads forward through the bytes. A refusal is thrown as the typed error it will become, so that the reading code shows
 * the layout and nothing else; `decode` turns it into a value, and nothing else is caught.
 */
class Cursor {
  readonly bytes: Uint8Array
  position = 0

  constructor(bytes: Uint8Array) {
    this.bytes = bytes
  }

  uint8(field: KeyPackageField): number {
    const byte = this.bytes[this.position]
    if (byte === undefined) throw refusal("EndOfStream", field, this.position)
    this.position++
    return byte
  }

  uint16(field: KeyPackageField): number {
    return (this.uint8(field) << 8) | this.uint8(field)
  }

  uint64(field: KeyPackageField): bigint {
    const high = this.uint16(field) * 0x10000 + this.uint16(field)
    const low = this.uint16(field) * 0x10000 + this.uint16(field)
    // Real times fit a double; that saves the arithmetic on bigints.
    return high < 0x200000 ? BigInt(high * 0x100000000 + low) : (BigInt(high) << 32n) | BigInt(low)
  }

  /**
   * The end of the vector that begins here (RFC 9420 section 2.1.2): a length of 1, 2 or 4 bytes, as few as possible,
   * and as many bytes as it says.
   */
  vectorEnd(field: KeyPackageField): number {
    const start = this.position
    const first = this.uint8(field)
    let length = first & 0x3f
    switch (first >>> 6) {
      case 0:
        break
      case 1:
        length = (length << 8) | this.uint8(field)
        if (length < 0x40) throw refusal("InvalidVectorLength", field, start)
        break
      case 2:
        length = (length << 24) | (this.uint8(field) << 16) | this.uint16(field)
        if (length < 0x4000) throw refusal("InvalidVectorLength", field, start)
        break
      default:
        throw refusal("InvalidVectorLength", field, start)
    }
    const end = this.position + length
    if (end > this.bytes.length) throw refusal("EndOfStream", field, start)
    return end
  }

  skipOpaque(field: KeyPackageField): void {
    this.position = this.vectorEnd(field)
  }

  opaque(field: KeyPackageField): Uint8Array {
    const end = this.vectorEnd(field)
    const view = this.bytes.subarray(this.position, end)
    this.position = end
    return view
  }

  uint16s(field: KeyPackageField): ReadonlyArray<number> {
    const end = this.vectorEnd(field)
    if (((end - this.position) & 1) !== 0) throw refusal("EndOfStream", field, end)
    return Array.from({ length: (end - this.position) >>> 1 }, () => this.uint16(field))
  }

  extensions(field: "extensions" | "leaf_node.extensions"): ReadonlyArray<Extension> {
    const end = this.vectorEnd(field)
    const extensions: Array<Extension> = []
    let seen: Set<number> | undefined
    while (this.position < end) {
      const start = this.position
      const type = this.uint16(field)
      if (field === "leaf_node.extensions" && !isValidInLeafNode(type)) {
        throw refusal("ExtensionTypeNotValidInLeafNode", field, start)
      }
      const dataEnd = this.vectorEnd(field)
      if (dataEnd > end) throw refusal("EndOfStream", field, start)
      this.knownExtension(type, field, dataEnd)
      // Real lists are short; a hostile one must not cost its square.
      const duplicate =
        extensions.length < 32
          ? extensions.some((extension) => extension.type === type)
          : (seen ??= new Set(extensions.map((extension) => extension.type))).has(type)
      if (duplicate) throw refusal("DuplicateExtension", field, start)
      seen?.add(type)
      extensions.push({ type, data: this.bytes.subarray(this.position, dataEnd) })
      this.position = dataEnd
    }
    return extensions
  }

  /**
   * OpenMLS reads inside the extensions it knows (`extensions/codec.rs`), and so must refuse what does not fill them. Only
   * those that may occur here count: a package with any other one is refused for its type.
   */
  private knownExtension(type: number, field: KeyPackageField, end: number): void {
    const start = this.position
    if (type === ExtensionType.applicationId) this.opaqueWithin(field, end)
    else if (type === ExtensionType.appDataDictionary) {
      // AppDataDictionary { ComponentData { uint16 component_id; opaque data<V> } component_data<V> }, ids increasing
      const listEnd = this.vectorEnd(field)
      if (listEnd > end) throw refusal("EndOfStream", field, start)
      let previous = -1
      while (this.position < listEnd) {
        const entry = this.position
        const id = this.uint16(field)
        if (id <= previous) throw refusal("ComponentsNotInOrder", field, entry)
        previous = id
        this.opaqueWithin(field, listEnd)
      }
    } else if (type !== ExtensionType.lastResort) return
    if (this.position !== end) throw refusal("TrailingData", field, this.position)
    this.position = start
  }

  private opaqueWithin(field: KeyPackageField, end: number): void {
    const start = this.position
    this.position = this.vectorEnd(field)
    if (this.position > end) throw refusal("EndOfStream", field, start)
  }
}

const refusal = (
  reason: KeyPackageDecodeError["reason"],
  field: KeyPackageField,
  offset: number
): KeyPackageDecodeError => new KeyPackageDecodeError({ reason, field, offset })

/** The suites that OpenMLS has a name for (`traits/src/types.rs`): any other number is a decoding error there. */
const isKnownCipherSuite = (cipherSuite: number): boolean =>
  (cipherSuite >= 0x0001 && cipherSuite <= 0x0007) || cipherSuite === 0x004d || cipherSuite === 0x004f

const readCredential = (cursor: Cursor): Credential => ({
  type: cursor.uint16("leaf_node.credential.credential_type"),
  content: cursor.opaque("leaf_node.credential.identity")
})

const readCapabilities = (cursor: Cursor): Capabilities => ({
  versions: cursor.uint16s("leaf_node.capabilities.versions"),
  cipherSuites: cursor.uint16s("leaf_node.capabilities.cipher_suites"),
  extensions: cursor.uint16s("leaf_node.capabilities.extensions"),
  proposals: cursor.uint16s("leaf_node.capabilities.proposals"),
  credentials: cursor.uint16s("leaf_node.capabilities.credentials")
})

const readSource = (cursor: Cursor): LeafNodeSource => {
  const start = cursor.position
  switch (cursor.uint8("leaf_node.leaf_node_source")) {
    case 1:
      return {
        _tag: "KeyPackage",
        notBefore: cursor.uint64("leaf_node.lifetime"),
        notAfter: cursor.uint64("leaf_node.lifetime")
      }
    case 2:
      return { _tag: "Update" }
    case 3:
      return { _tag: "Commit", parentHash: cursor.opaque("leaf_node.parent_hash") }
    default:
      throw refusal("UnknownLeafNodeSource", "leaf_node.leaf_node_source", start)
  }
}

const readKeyPackage = (bytes: Uint8Array): DecodedKeyPackage => {
  const cursor = new Cursor(bytes)
  const version = cursor.uint16("version")
  const cipherSuite = cursor.uint16("cipher_suite")
  if (!isKnownCipherSuite(cipherSuite)) throw refusal("UnknownCiphersuite", "cipher_suite", 2)
  const initKey = cursor.opaque("init_key")
  const leafStart = cursor.position
  const encryptionKey = cursor.opaque("leaf_node.encryption_key")
  const signatureKey = cursor.opaque("leaf_node.signature_key")
  const credential = readCredential(cursor)
  const capabilities = readCapabilities(cursor)
  const source = readSource(cursor)
  const leafExtensions = cursor.extensions("leaf_node.extensions")
  const leafEnd = cursor.position
  const leafSignature = cursor.opaque("leaf_node.signature")
  const extensions = cursor.extensions("extensions")
  const end = cursor.position
  const signature = cursor.opaque("signature")
  if (cursor.position !== bytes.length) throw refusal("TrailingData", "key_package", cursor.position)
  return {
    version,
    cipherSuite,
    initKey,
    leafNode: {
      encryptionKey,
      signatureKey,
      credential,
      capabilities,
      source,
      extensions: leafExtensions,
      signature: leafSignature
    },
    extensions,
    signature,
    bytes,
    toBeSigned: bytes.subarray(0, end),
    leafNodeToBeSigned: bytes.subarray(leafStart, leafEnd)
  }
}

/**
 * Why `decode` refuses what is longer than a key package may be.
 *
 * @since 1.0.0
 * @category errors
 */
export const tooLarge = (): KeyPackageDecodeError => refusal("TooLarge", "key_package", 0)

/**
 * Reads a key package, the bare TLS form that XMTP publishes (no MLSMessage header). Checks 1 and 2 of libxmtp: exactly
 * one package, minimal lengths, known suite and leaf source, no extension twice, no extension in the leaf that does not
 * belong there. Says nothing about signatures and times. The result refers to `bytes`, which must not be changed.
 *
 * @since 1.0.0
 * @category conversions
 */
export const decode = (bytes: Uint8Array): Either.Either<DecodedKeyPackage, KeyPackageDecodeError> => {
  if (bytes.length > MAX_KEY_PACKAGE_BYTES) return Either.left(tooLarge())
  try {
    return Either.right(readKeyPackage(bytes))
  } catch (thrown) {
    if (thrown instanceof KeyPackageDecodeError) return Either.left(thrown)
    // Not a refusal but a bug here.
    throw thrown
  }
}

/**
 * The credential of what may be a key package, without reading on. Nothing is proven by it: it is for work that can begin
 * before the package is judged. None where the bytes break off before.
 *
 * @since 1.0.0
 * @category conversions
 */
export const peekCredential = (bytes: Uint8Array): Option.Option<Credential> => {
  try {
    const cursor = new Cursor(bytes)
    cursor.uint16("version")
    cursor.uint16("cipher_suite")
    cursor.skipOpaque("init_key")
    cursor.skipOpaque("leaf_node.encryption_key")
    cursor.skipOpaque("leaf_node.signature_key")
    return Option.some(readCredential(cursor))
  } catch (thrown) {
    if (thrown instanceof KeyPackageDecodeError) return Option.none()
    // Not a refusal but a bug here.
    throw thrown
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Encoding
// ---------------------------------------------------------------------------------------------------------------------

/** Writes into a buffer that grows. */
class Writer {
  #buffer = new Uint8Array(2048)
  #length = 0

  uint8(value: number): void {
    this.#reserve(1)[this.#length++] = value
  }

  uint16(value: number): void {
    this.uint8(value >>> 8)
    this.uint8(value & 0xff)
  }

  uint64(value: bigint): void {
    for (let shift = 56n; shift >= 0n; shift -= 8n) this.uint8(Number((value >> shift) & 0xffn))
  }

  length(value: number): void {
    if (value < 0x40) this.uint8(value)
    else if (value < 0x4000) this.uint16(0x4000 | value)
    else {
      this.uint16(0x8000 | (value >>> 16))
      this.uint16(value & 0xffff)
    }
  }

  opaque(bytes: Uint8Array): void {
    this.length(bytes.length)
    this.#reserve(bytes.length).set(bytes, this.#length)
    this.#length += bytes.length
  }

  uint16s(values: ReadonlyArray<number>): void {
    this.length(2 * values.length)
    for (const value of values) this.uint16(value)
  }

  extensions(extensions: ReadonlyArray<Extension>): void {
    const list = new Writer()
    for (const { data, type } of extensions) {
      list.uint16(type)
      list.opaque(data)
    }
    this.opaque(list.done())
  }

  done(): Uint8Array {
    return this.#buffer.slice(0, this.#length)
  }

  #reserve(length: number): Uint8Array {
    if (this.#length + length > this.#buffer.length) {
      const larger = new Uint8Array(2 * (this.#length + length))
      larger.set(this.#buffer)
      this.#buffer = larger
    }
    return this.#buffer
  }
}

/**
 * The TLS form of a key package. The inverse of `decode`; it does not judge, so that tests can write bad packages.
 *
 * @since 1.0.0
 * @category conversions
 */
export const encode = (keyPackage: KeyPackage): Uint8Array => {
  const { leafNode } = keyPackage
  const writer = new Writer()
  writer.uint16(keyPackage.version)
  writer.uint16(keyPackage.cipherSuite)
  writer.opaque(keyPackage.initKey)
  writer.opaque(leafNode.encryptionKey)
  writer.opaque(leafNode.signatureKey)
  writer.uint16(leafNode.credential.type)
  writer.opaque(leafNode.credential.content)
  writer.uint16s(leafNode.capabilities.versions)
  writer.uint16s(leafNode.capabilities.cipherSuites)
  writer.uint16s(leafNode.capabilities.extensions)
  writer.uint16s(leafNode.capabilities.proposals)
  writer.uint16s(leafNode.capabilities.credentials)
  switch (leafNode.source._tag) {
    case "KeyPackage":
      writer.uint8(1)
      writer.uint64(leafNode.source.notBefore)
      writer.uint64(leafNode.source.notAfter)
      break
    case "Update":
      writer.uint8(2)
      break
    case "Commit":
      writer.uint8(3)
      writer.opaque(leafNode.source.parentHash)
      break
  }
  writer.extensions(leafNode.extensions)
  writer.opaque(leafNode.signature)
  writer.extensions(keyPackage.extensions)
  writer.opaque(keyPackage.signature)
  return writer.done()
}
