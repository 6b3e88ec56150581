/**
 * What is sealed opens with its key, in its place, unchanged; and with nothing else.
 */
import { inspect } from "node:util"
import { describe, expect, it } from "@effect/vitest"
import { KeySealer, Sealed } from "@keyward/core/ports/KeySealer"
import * as SeededEntropy from "@keyward/test-utils/SeededEntropy"
import * as Config from "effect/Config"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as AesGcmKeySealer from "../src/AesGcmKeySealer.ts"
import { sealer, sealingKey } from "./fixture.ts"

const utf8 = (text: string) => new TextEncoder().encode(text)
const place = utf8("row 1")
const secret = Redacted.make(utf8("a private key of 32 bytes, about"))

const seal = (
  layer: Layer.Layer<KeySealer>,
  value: Redacted.Redacted<Uint8Array> = secret,
  associatedData: Uint8Array = place
) => Effect.flatMap(KeySealer, (sealer) => sealer.seal(value, associatedData)).pipe(Effect.provide(layer))
const unseal = (layer: Layer.Layer<KeySealer>, sealed: Sealed, associatedData: Uint8Array = place) =>
  Effect.flatMap(KeySealer, (sealer) => sealer.unseal(sealed, associatedData)).pipe(Effect.provide(layer))

describe("AesGcmKeySealer", () => {
  it.effect.prop(
    "opens what it sealed",
    [FastCheck.uint8Array({ maxLength: 200 }), FastCheck.uint8Array({ maxLength: 100 })],
    ([value, associatedData]) =>
      Effect.gen(function* () {
        const sealed = yield* seal(sealer(), Redacted.make(value), associatedData)
        const opened = yield* unseal(sealer(), sealed, associatedData)
        expect(Redacted.value(opened)).toEqual(value)
      }),
    { fastCheck: { seed: 1 } }
  )

  it.effect("writes version, nonce, ciphertext and tag, as another implementation of AES-GCM reads them", () =>
    Effect.gen(function* () {
      const { bytes, keyId } = yield* seal(sealer("a", 7))
      expect(keyId).toBe("a")
      expect(bytes).toHaveLength(1 + 12 + 32 + 16)
      expect(bytes[0]).toBe(1)
      const opened = yield* Effect.promise(async () => {
        const raw = new Uint8Array(32).fill(7)
        const key = await crypto.subtle.importKey("raw", raw, "AES-GCM", false, ["decrypt"])
        const additionalData = new Uint8Array([1, ...utf8("a"), 0, ...place])
        return crypto.subtle.decrypt({ name: "AES-GCM", iv: bytes.slice(1, 13), additionalData }, key, bytes.slice(13))
      })
      expect(new Uint8Array(opened)).toEqual(Redacted.value(secret))
    })
  )

  it.effect("takes a new nonce each time", () =>
    Effect.gen(function* () {
      const sealer = yield* KeySealer
      const sealed = yield* Effect.replicateEffect(sealer.seal(secret, place), 100)
      const nonces = sealed.map(({ bytes }) => Buffer.from(bytes.subarray(1, 13)).toString("hex"))
      expect(new Set(nonces).size).toBe(100)
    }).pipe(Effect.provide(sealer()))
  )

  it.effect("[68] does not open with one bit changed, cut anywhere, elsewhere, or with another key", () =>
    Effect.gen(function* () {
      const layer = sealer()
      const sealed = yield* seal(layer)
      const wrong = { _tag: "SealError", reason: "WrongKey", keyId: sealed.keyId }
      const tampered: Array<Uint8Array> = []
      for (let bit = 0; bit < sealed.bytes.length * 8; bit++) {
        const bytes = sealed.bytes.slice()
        bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
        tampered.push(bytes)
      }
      for (let length = 0; length < sealed.bytes.length; length++) tampered.push(sealed.bytes.slice(0, length))
      tampered.push(new Uint8Array([...sealed.bytes, 0]))
      for (const bytes of tampered) {
        const error = yield* Effect.flip(unseal(layer, new Sealed({ keyId: sealed.keyId, bytes })))
        expect(error).toMatchObject(wrong)
      }
      expect(yield* Effect.flip(unseal(layer, sealed, utf8("row 2")))).toMatchObject(wrong)
      expect(yield* Effect.flip(unseal(sealer("2026-03", 8), sealed))).toMatchObject(wrong)
      // The id is authenticated too: the same bytes under another id of the same key.
      const renamed = new Sealed({ keyId: "renamed", bytes: sealed.bytes })
      expect(yield* Effect.flip(unseal(sealer("renamed", 7), renamed))).toMatchObject({ reason: "WrongKey" })
      expect(yield* Effect.flip(unseal(sealer("other"), sealed))).toMatchObject({
        reason: "UnknownKey",
        keyId: "2026-03"
      })
    })
  )

  it.effect("opens with an earlier key and seals with the current one", () =>
    Effect.gen(function* () {
      const old = yield* seal(sealer("old", 1))
      const both = sealer("new", 2, [sealingKey("old", 1)])
      expect(Redacted.value(yield* unseal(both, old))).toEqual(Redacted.value(secret))
      expect((yield* seal(both)).keyId).toBe("new")
    })
  )

  it.effect("[79] prints no key", () =>
    Effect.gen(function* () {
      const service = yield* KeySealer
      const text = inspect(service, { depth: 10, showHidden: true }) + JSON.stringify(service)
      expect(text).not.toMatch(/07,? ?07|7, 7/)
    }).pipe(Effect.provide(sealer("a", 7)))
  )
})

describe("AesGcmKeySealer.layerConfig", () => {
  const build = (entries: Record<string, string>) =>
    Layer.build(
      AesGcmKeySealer.layerConfig({
        keyId: Config.string("ID"),
        key: AesGcmKeySealer.key("KEY"),
        previous: AesGcmKeySealer.keys("PREVIOUS")
      }).pipe(Layer.provide(SeededEntropy.layer(1)))
    ).pipe(
      Effect.map((context) => Layer.succeedContext(context)),
      Effect.withConfigProvider(ConfigProvider.fromMap(new Map(Object.entries(entries)))),
      Effect.scoped
    )
  const raw = Buffer.from(new Uint8Array(32).map((_, index) => 251 - index))

  it.effect("reads hex, base64 and base64url", () =>
    Effect.gen(function* () {
      const sealed = yield* seal(yield* build({ ID: "a", KEY: raw.toString("hex") }))
      for (const KEY of [
        raw.toString("hex").toUpperCase(),
        raw.toString("base64"),
        raw.toString("base64").replace("=", ""),
        `${raw.toString("base64url")}\n`
      ]) {
        const layer = yield* build({ ID: "a", KEY })
        expect(Redacted.value(yield* unseal(layer, sealed))).toEqual(Redacted.value(secret))
      }
      const rotated = yield* build({
        ID: "b",
        KEY: Buffer.alloc(32, 9).toString("hex"),
        PREVIOUS: `z:${Buffer.alloc(32, 3).toString("base64")}, a:${raw.toString("base64")}`
      })
      expect(Redacted.value(yield* unseal(rotated, sealed))).toEqual(Redacted.value(secret))
    })
  )

  it.effect("refuses any other value with an error that does not show it", () =>
    Effect.gen(function* () {
      const good = { ID: "a", KEY: raw.toString("hex") }
      const cases: ReadonlyArray<readonly [Record<string, string>, RegExp]> = [
        [{ ID: "a" }, /KEY/],
        [
          { ...good, KEY: raw.toString("hex").slice(2) },
          /KEY.*expected 32 bytes in base64 or hex, found 62 characters/
        ],
        [{ ...good, KEY: Buffer.alloc(31, 5).toString("base64") }, /KEY/],
        [{ ...good, KEY: Buffer.alloc(33, 5).toString("base64") }, /KEY/],
        [{ ...good, KEY: "correct horse battery staple" }, /KEY/],
        [{ ...good, ID: "" }, /keyId/],
        [{ ...good, PREVIOUS: `a:${raw.toString("hex")}` }, /"a" names two sealing keys/],
        [{ ...good, PREVIOUS: "b" }, /item 1 is not of the form id:key/],
        [{ ...good, PREVIOUS: "b:abcdef" }, /PREVIOUS/]
      ]
      for (const [entries, expected] of cases) {
        const exit = yield* Effect.exit(build(entries))
        expect(Exit.isFailure(exit)).toBe(true)
        const text = inspect(exit, { depth: 10 }) + JSON.stringify(exit)
        expect(text.replace(/\s+/g, " ")).toMatch(expected)
        expect(text).not.toContain("horse")
        expect(text.toLowerCase()).not.toContain(raw.toString("hex").slice(4, 20))
        expect(text).not.toContain(raw.toString("base64").slice(4, 20))
      }
    })
  )

  it.effect("layer refuses a key of another length", () =>
    Effect.gen(function* () {
      for (const length of [0, 16, 31, 33, 64]) {
        const layer = AesGcmKeySealer.layer({ keyId: "a", key: Redacted.make(new Uint8Array(length)) })
        const exit = yield* Effect.exit(Effect.scoped(Layer.build(layer.pipe(Layer.provide(SeededEntropy.layer(1))))))
        expect(JSON.stringify(exit)).toContain(`expected 32 bytes, found ${length}`)
      }
    })
  )
})
