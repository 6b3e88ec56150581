import { createHash } from "node:crypto"
import { describe, expect, it } from "@effect/vitest"
import { xwingVectors } from "@keyward/test-utils/vectors/KeyPackageVectors"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as NodeMlsCrypto from "../../src/crypto/NodeMlsCrypto.ts"
import * as XWing from "../../src/postquantum/XWing.ts"

const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"))
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const native = XWing.makeNative(NodeMlsCrypto.make())
const portable = XWing.makePortable()
const random = (label: string, length: number): Uint8Array =>
  new Uint8Array(createHash("shake256", { outputLength: length }).update(label).digest())

describe.each([
  ["native", native],
  ["portable", portable]
] as const)("X-Wing, %s", (_, kem) => {
  it("gives the three vectors of draft 06", () => {
    expect(xwingVectors).toHaveLength(3)
    for (const vector of xwingVectors) {
      const seed = Redacted.make(hex(vector.seed))
      expect(toHex(kem.publicKey(seed))).toBe(vector.pk)
      const { ciphertext, sharedSecret } = Option.getOrThrow(
        kem.encapsulate(hex(vector.pk), Redacted.make(hex(vector.eseed)))
      )
      expect(toHex(ciphertext)).toBe(vector.ct)
      expect(toHex(Redacted.value(sharedSecret))).toBe(vector.ss)
      expect(toHex(Redacted.value(Option.getOrThrow(kem.decapsulate(seed, hex(vector.ct)))))).toBe(vector.ss)
      // The seed is the caller's: deriving from it leaves it as it is.
      expect(toHex(Redacted.value(seed))).toBe(vector.seed)
    }
  })

  it("[42] has nothing for keys and ciphertexts of another length", () => {
    const seed = Redacted.make(random("seed", 32))
    const publicKey = kem.publicKey(seed)
    const randomness = Redacted.make(random("randomness", 64))
    expect(Option.isNone(kem.encapsulate(publicKey.subarray(1), randomness))).toBe(true)
    expect(Option.isNone(kem.encapsulate(new Uint8Array([...publicKey, 0]), randomness))).toBe(true)
    expect(Option.isNone(kem.decapsulate(seed, new Uint8Array(1119)))).toBe(true)
    // coefficients that are not reduced
    expect(Option.isNone(kem.encapsulate(publicKey.slice().fill(0xff, 0, 1184), randomness))).toBe(true)
    // an X25519 key that leads to zero
    expect(Option.isNone(kem.encapsulate(publicKey.slice().fill(0, 1184), randomness))).toBe(true)
    expect(() => kem.publicKey(Redacted.make(new Uint8Array(31)))).toThrow(RangeError)
  })

  it("opens the same with a seed that is used again and again, until it is wiped", () => {
    const seed = Redacted.make(random("seed", 32))
    const publicKey = kem.publicKey(seed)
    for (let i = 0; i < 20; i++) {
      const { ciphertext, sharedSecret } = Option.getOrThrow(
        kem.encapsulate(publicKey, Redacted.make(random(`randomness ${i}`, 64)))
      )
      const changed = ciphertext.slice()
      changed[i] = (changed[i] ?? 0) ^ 1
      const again = (bytes: Uint8Array) => Redacted.value(Option.getOrThrow(kem.decapsulate(seed, bytes)))
      const afresh = (bytes: Uint8Array) =>
        Redacted.value(Option.getOrThrow(kem.decapsulate(Redacted.make(random("seed", 32)), bytes)))
      expect(again(ciphertext)).toEqual(Redacted.value(sharedSecret))
      expect(again(changed)).toEqual(afresh(changed))
      // What was handed out is the caller's.
      again(ciphertext).fill(0)
    }
    expect(Option.isNone(kem.decapsulate(seed, new Uint8Array(1119)))).toBe(true)
    Redacted.unsafeWipe(seed)
    expect(() => kem.decapsulate(seed, new Uint8Array(1120))).toThrow()
  })

  it("gives another secret for a changed ciphertext, not an error", () => {
    const seed = Redacted.make(random("seed", 32))
    const { ciphertext, sharedSecret } = Option.getOrThrow(
      kem.encapsulate(kem.publicKey(seed), Redacted.make(random("randomness", 64)))
    )
    const changed = ciphertext.slice()
    changed[100] = (changed[100] ?? 0) ^ 1
    const other = Option.getOrThrow(kem.decapsulate(seed, changed))
    expect(Redacted.value(other)).toHaveLength(32)
    expect(Redacted.value(other)).not.toEqual(Redacted.value(sharedSecret))
  })
})

describe("native and portable", () => {
  it("agree on 50 random keys, encapsulations and rejections", () => {
    for (let i = 0; i < 50; i++) {
      const seed = Redacted.make(random(`seed ${i}`, 32))
      const randomness = Redacted.make(random(`randomness ${i}`, 64))
      const publicKey = native.publicKey(seed)
      expect(toHex(portable.publicKey(seed))).toBe(toHex(publicKey))
      const ours = Option.getOrThrow(native.encapsulate(publicKey, randomness))
      const theirs = Option.getOrThrow(portable.encapsulate(publicKey, randomness))
      expect(toHex(ours.ciphertext)).toBe(toHex(theirs.ciphertext))
      expect(Redacted.value(ours.sharedSecret)).toEqual(Redacted.value(theirs.sharedSecret))
      const changed = ours.ciphertext.slice()
      changed[i] = (changed[i] ?? 0) ^ 0x80
      for (const ciphertext of [ours.ciphertext, changed]) {
        expect(Redacted.value(Option.getOrThrow(native.decapsulate(seed, ciphertext)))).toEqual(
          Redacted.value(Option.getOrThrow(portable.decapsulate(seed, ciphertext)))
        )
      }
    }
  })
})
