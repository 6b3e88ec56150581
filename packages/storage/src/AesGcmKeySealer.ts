/**
 * Seals private keys with AES-256-GCM (NIST SP 800-38D) under a key that the app configures.
 *
 * A sealed secret is laid out as `version (1 byte, 0x01) | nonce (12 bytes) | ciphertext | tag (16 bytes)`. The version, the
 * id of the sealing key and the caller's associated data are authenticated, so that a sealed key opens only with the key
 * and in the row that it was sealed for.
 *
 * @since 1.0.0
 */
import { createCipheriv, createDecipheriv, createSecretKey, type KeyObject } from "node:crypto"
import { Entropy } from "@keyward/core/ports/Entropy"
import { KeySealer, SealError, Sealed } from "@keyward/core/ports/KeySealer"
import * as Config from "effect/Config"
import * as ConfigError from "effect/ConfigError"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"

/**
 * The length of a sealing key, in bytes.
 *
 * @since 1.0.0
 * @category constants
 */
export const KEY_BYTES = 32

/** The layout of what is sealed now; the first byte of every sealed secret. */
const VERSION = 1
/** The nonce length that GCM is made for, in bytes. */
const NONCE_BYTES = 12
const TAG_BYTES = 16
const CIPHER = "aes-256-gcm"

/**
 * A sealing key and the name under which it is known in the database.
 *
 * @since 1.0.0
 * @category models
 */
export interface SealingKey {
  /** Any text that is not empty. It is stored in the clear and never used for another key again. */
  readonly keyId: string
  /** 32 uniformly random bytes. */
  readonly key: Redacted.Redacted<Uint8Array>
}

/**
 * The key that seals, and those that it replaced.
 *
 * @since 1.0.0
 * @category models
 */
export interface Options extends SealingKey {
  /** Keys that sealed before: they open what they sealed and seal nothing new. */
  readonly previous?: ReadonlyArray<SealingKey> | undefined
}

/** What GCM authenticates beside the ciphertext. The zero byte ends the key id, which cannot contain one. */
const authenticated = (keyId: string, associatedData: Uint8Array): Uint8Array =>
  Buffer.concat([Uint8Array.of(VERSION), Buffer.from(keyId, "utf8"), Uint8Array.of(0), associatedData])

const seal = (key: KeyObject, nonce: Uint8Array, secret: Uint8Array, aad: Uint8Array): Uint8Array => {
  const cipher = createCipheriv(CIPHER, key, nonce, { authTagLength: TAG_BYTES })
  cipher.setAAD(aad)
  const body = cipher.update(secret)
  const end = cipher.final()
  const sealed = new Uint8Array(1 + NONCE_BYTES + body.length + end.length + TAG_BYTES)
  sealed[0] = VERSION
  sealed.set(nonce, 1)
  sealed.set(body, 1 + NONCE_BYTES)
  sealed.set(end, 1 + NONCE_BYTES + body.length)
  sealed.set(cipher.getAuthTag(), sealed.length - TAG_BYTES)
  return sealed
}

/** Throws where the key, the associated data or a byte differs from what was sealed. */
const unseal = (key: KeyObject, sealed: Uint8Array, aad: Uint8Array): Uint8Array => {
  const decipher = createDecipheriv(CIPHER, key, sealed.subarray(1, 1 + NONCE_BYTES), { authTagLength: TAG_BYTES })
  decipher.setAAD(aad)
  decipher.setAuthTag(sealed.subarray(sealed.length - TAG_BYTES))
  const secret = new Uint8Array(sealed.length - 1 - NONCE_BYTES - TAG_BYTES)
  const body = decipher.update(sealed.subarray(1 + NONCE_BYTES, sealed.length - TAG_BYTES))
  secret.set(body)
  // GCM is a stream mode: nothing is left for final but the check of the tag, which throws.
  decipher.final()
  body.fill(0)
  return secret
}

const invalid = (path: ReadonlyArray<string>, message: string) => ConfigError.InvalidData([...path], message)

/** The keys by id, as opaque native objects that print no bytes. */
const load = (options: Options): Either.Either<ReadonlyMap<string, KeyObject>, ConfigError.ConfigError> =>
  Either.gen(function* () {
    const keys = new Map<string, KeyObject>()
    for (const [path, { keyId, key }] of [
      [[], options] as const,
      ...(options.previous ?? []).map((previous, index) => [["previous", String(index)], previous] as const)
    ]) {
      const bytes = Redacted.value(key)
      if (keyId === "" || keyId.includes("\0")) {
        return yield* Either.left(invalid([...path, "keyId"], "expected a text that is not empty"))
      }
      if (keys.has(keyId)) {
        return yield* Either.left(invalid([...path, "keyId"], `"${keyId}" names two sealing keys`))
      }
      if (bytes.length !== KEY_BYTES) {
        return yield* Either.left(invalid([...path, "key"], `expected ${KEY_BYTES} bytes, found ${bytes.length}`))
      }
      keys.set(keyId, createSecretKey(bytes))
    }
    return keys
  })

/**
 * The sealer over these keys. Fails with a `ConfigError` where a key is not 32 bytes or an id is empty or used twice.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (options: Options): Effect.Effect<KeySealer["Type"], ConfigError.ConfigError, Entropy> =>
  Effect.gen(function* () {
    const entropy = yield* Entropy
    const keys = yield* load(options)
    const current = createSecretKey(Redacted.value(options.key))
    const { keyId } = options
    return {
      keyId,
      seal: (secret, associatedData) =>
        Effect.sync(() => {
          const nonce = entropy.randomBytes(NONCE_BYTES)
          const bytes = seal(current, nonce, Redacted.value(secret), authenticated(keyId, associatedData))
          return new Sealed({ keyId, bytes })
        }),
      unseal: (sealed, associatedData) => {
        const key = keys.get(sealed.keyId)
        if (key === undefined) return new SealError({ reason: "UnknownKey", keyId: sealed.keyId })
        const wrong = () => new SealError({ reason: "WrongKey", keyId: sealed.keyId })
        const { bytes } = sealed
        if (bytes.length < 1 + NONCE_BYTES + TAG_BYTES || bytes[0] !== VERSION) return wrong()
        return Effect.try({
          try: () => Redacted.make(unseal(key, bytes, authenticated(sealed.keyId, associatedData))),
          catch: wrong
        })
      }
    }
  })

/**
 * Seals with AES-256-GCM. Nonces come from the `Entropy` port.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = (options: Options): Layer.Layer<KeySealer, ConfigError.ConfigError, Entropy> =>
  Layer.effect(KeySealer, make(options))

/**
 * The same with keys from the configuration.
 *
 * @example
 * ```ts
 * import * as Config from "effect/Config"
 * import * as AesGcmKeySealer from "@keyward/storage/AesGcmKeySealer"
 *
 * const sealer = AesGcmKeySealer.layerConfig({
 *   keyId: Config.string("SEALING_KEY_ID"),
 *   key: AesGcmKeySealer.key("SEALING_KEY"),
 *   previous: AesGcmKeySealer.keys("PREVIOUS_SEALING_KEYS")
 * })
 * ```
 *
 * @since 1.0.0
 * @category layers
 */
export const layerConfig = (
  config: Config.Config.Wrap<Options>
): Layer.Layer<KeySealer, ConfigError.ConfigError, Entropy> =>
  Layer.effect(KeySealer, Effect.flatMap(Config.unwrap(config), make))

const hexText = /^[0-9a-f]{64}$/i
const base64Text = /^[A-Za-z0-9+/_-]{43}=?$/

const parseKey = (
  name: string,
  text: string
): Either.Either<Redacted.Redacted<Uint8Array>, ConfigError.ConfigError> => {
  const encoding = hexText.test(text) ? "hex" : base64Text.test(text) ? "base64" : undefined
  return encoding === undefined
    ? Either.left(invalid([name], `expected ${KEY_BYTES} bytes in base64 or hex, found ${text.length} characters`))
    : Either.right(Redacted.make(new Uint8Array(Buffer.from(text, encoding))))
}

/**
 * A sealing key in the configuration: 32 bytes in base64 (also the URL alphabet, with or without padding) or hex. The error
 * of any other value does not show it.
 *
 * @since 1.0.0
 * @category config
 */
export const key = (name: string): Config.Config<Redacted.Redacted<Uint8Array>> =>
  Config.redacted(name).pipe(Config.mapOrFail((text) => parseKey(name, Redacted.value(text).trim())))

/** One `id:key` item; the id may hold colons itself. */
const parseItem = (name: string, item: string, index: number): Either.Either<SealingKey, ConfigError.ConfigError> => {
  const colon = item.lastIndexOf(":")
  return colon < 1
    ? Either.left(invalid([name], `item ${index + 1} is not of the form id:key`))
    : Either.map(parseKey(name, item.slice(colon + 1)), (key) => ({ keyId: item.slice(0, colon), key }))
}

/**
 * Earlier sealing keys in the configuration: `id:key` items parted by commas, each key as in `key`. None where the name is
 * not configured.
 *
 * @since 1.0.0
 * @category config
 */
export const keys = (name: string): Config.Config<ReadonlyArray<SealingKey>> =>
  Config.redacted(name).pipe(
    Config.mapOrFail((text) => {
      const items = Redacted.value(text)
        .split(",")
        .map((item) => item.trim())
      return Either.all(items.filter((item) => item !== "").map((item, index) => parseItem(name, item, index)))
    }),
    Config.withDefault<ReadonlyArray<SealingKey>>([])
  )
