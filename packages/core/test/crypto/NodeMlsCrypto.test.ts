import { describe, expect, it } from "@effect/vitest"
import { rfc9420CryptoBasics } from "@keyward/test-utils/vectors/KeyPackageVectors"
import { ed25519, x25519 } from "@noble/curves/ed25519.js"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Hpke from "../../src/crypto/Hpke.ts"
import * as MlsCiphersuite from "../../src/crypto/MlsCiphersuite.ts"
import * as NodeMlsCrypto from "../../src/crypto/NodeMlsCrypto.ts"
import { isSmallOrder } from "../../src/crypto/SmallOrder.ts"

const crypto = NodeMlsCrypto.make()
const hex = (text: string): Uint8Array => new Uint8Array(Buffer.from(text, "hex"))
const toHex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")
const secret = (bytes: Uint8Array) => Redacted.make(bytes)
const seed32 = FastCheck.uint8Array({ minLength: 32, maxLength: 32 })

/** The order of the group. */
const L = 2n ** 252n + 27742317777372353535851937790883648493n
const littleEndian = (value: bigint): Uint8Array =>
  Uint8Array.from({ length: 32 }, (_, i) => Number((value >> BigInt(8 * i)) & 0xffn))
const toBigint = (bytes: Uint8Array): bigint => bytes.reduceRight((value, byte) => (value << 8n) | BigInt(byte), 0n)

describe("Ed25519", () => {
  it("signs and derives as noble does", () => {
    FastCheck.assert(
      FastCheck.property(seed32, FastCheck.uint8Array({ maxLength: 200 }), (seed, message) => {
        expect(crypto.ed25519PublicKey(secret(seed))).toEqual(ed25519.getPublicKey(seed))
        const signature = crypto.ed25519Sign(secret(seed), message)
        expect(signature).toEqual(ed25519.sign(message, seed))
        expect(crypto.ed25519VerifyStrict(ed25519.getPublicKey(seed), message, signature)).toBe(true)
      }),
      { seed: 8032, numRuns: 30 }
    )
  })

  const seed = new Uint8Array(32).fill(3)
  const publicKey = ed25519.getPublicKey(seed)
  const message = hex("00112233")
  const signature = ed25519.sign(message, seed)

  it("refuses wrong lengths, messages, bits", () => {
    expect(crypto.ed25519VerifyStrict(publicKey, message, signature)).toBe(true)
    expect(crypto.ed25519VerifyStrict(publicKey.subarray(1), message, signature)).toBe(false)
    expect(crypto.ed25519VerifyStrict(publicKey, message, signature.subarray(1))).toBe(false)
    expect(crypto.ed25519VerifyStrict(publicKey, message, new Uint8Array([...signature, 0]))).toBe(false)
    expect(crypto.ed25519VerifyStrict(new Uint8Array(0), message, new Uint8Array(0))).toBe(false)
    for (let bit = 0; bit < 512; bit += 7) {
      const flipped = signature.slice()
      flipped[bit >> 3] = (flipped[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      expect(crypto.ed25519VerifyStrict(publicKey, message, flipped)).toBe(false)
    }
  })

  it("refuses an s that is not reduced", () => {
    const s = toBigint(signature.subarray(32))
    for (let factor = 1n; factor < 15n; factor++) {
      const larger = s + factor * L
      if (larger >= 2n ** 256n) break
      expect(
        crypto.ed25519VerifyStrict(
          publicKey,
          message,
          new Uint8Array([...signature.subarray(0, 32), ...littleEndian(larger)])
        )
      ).toBe(false)
    }
  })

  it("[39] knows all 14 encodings of small order, as key and as R, and no other point", () => {
    const P = 2n ** 255n - 19n
    const found = new Set<string>()
    // Every encoding of a point whose eightfold is zero, found by searching the torsion subgroup with noble.
    const { Point } = ed25519
    const order8 = Point.fromHex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac03fa", true)
    for (let i = 0; i < 8; i++) {
      const point = i === 0 ? Point.ZERO : order8.multiplyUnsafe(BigInt(i))
      const { x, y } = point.toAffine()
      for (const spelling of [y, y + P]) {
        if (spelling >= 2n ** 255n) continue
        // A zero x has no sign, and both spellings of it are read.
        for (const sign of x === 0n ? [0n, 1n] : [x & 1n]) {
          found.add(toHex(littleEndian(spelling | (sign << 255n))))
        }
      }
    }
    expect(found.size).toBe(14)
    for (const encoding of found) {
      expect(isSmallOrder(hex(encoding))).toBe(true)
      // With such a key, R = s·B verifies whenever the challenge's multiple of it vanishes: OpenSSL says yes to some.
      for (let i = 0; i < 24; i++) {
        const text = Uint8Array.of(i)
        const R = Point.BASE.multiply(5n).toBytes()
        const forged = new Uint8Array([...R, ...littleEndian(5n)])
        expect(crypto.ed25519VerifyStrict(hex(encoding), text, forged)).toBe(false)
      }
      expect(
        crypto.ed25519VerifyStrict(publicKey, message, new Uint8Array([...hex(encoding), ...signature.subarray(32)]))
      ).toBe(false)
    }
    FastCheck.assert(
      FastCheck.property(seed32, (random) => {
        expect(isSmallOrder(ed25519.getPublicKey(random))).toBe(false)
      }),
      { seed: 14, numRuns: 50 }
    )
  })

  it("keeps no more verifying keys than it says, and still verifies", () => {
    for (let i = 0; i < 1100; i++) {
      const key = new Uint8Array(32).fill(i & 0xff)
      key[0] = i >> 8
      crypto.ed25519VerifyStrict(key, message, signature)
    }
    expect(crypto.ed25519VerifyStrict(publicKey, message, signature)).toBe(true)
  })

  it("does not sign with a seed that was wiped, though it signed with it before", () => {
    const wiped = Redacted.make(new Uint8Array(32).fill(5))
    crypto.ed25519Sign(wiped, message)
    Redacted.unsafeWipe(wiped)
    expect(() => crypto.ed25519Sign(wiped, message)).toThrow()
  })
})

describe("X25519", () => {
  it("derives and agrees as noble does", () => {
    FastCheck.assert(
      FastCheck.property(seed32, seed32, (one, two) => {
        const publicKey = crypto.x25519PublicKey(secret(one))
        expect(publicKey).toEqual(x25519.getPublicKey(one))
        const theirs = x25519.getPublicKey(two)
        expect(Option.getOrThrow(crypto.x25519(secret(one), theirs))).toEqual(x25519.getSharedSecret(one, theirs))
      }),
      { seed: 7748, numRuns: 30 }
    )
  })

  it("[41] has no secret with a key that leads to zero, or that is none", () => {
    const key = secret(new Uint8Array(32).fill(9))
    expect(Option.isNone(crypto.x25519(key, new Uint8Array(32)))).toBe(true)
    expect(Option.isNone(crypto.x25519(key, littleEndian(1n)))).toBe(true)
    expect(Option.isNone(crypto.x25519(key, new Uint8Array(31)))).toBe(true)
  })
})

describe("ChaCha20-Poly1305", () => {
  it("opens what it seals, and nothing that was changed", () => {
    const key = new Uint8Array(32).fill(1)
    const nonce = new Uint8Array(12).fill(2)
    const sealed = crypto.aeadSeal(key, nonce, hex("aa"), hex("0102030405"))
    expect(Option.getOrThrow(crypto.aeadOpen(key, nonce, hex("aa"), sealed))).toEqual(hex("0102030405"))
    expect(Option.isNone(crypto.aeadOpen(key, nonce, hex("ab"), sealed))).toBe(true)
    expect(Option.isNone(crypto.aeadOpen(key, nonce, hex("aa"), sealed.subarray(1)))).toBe(true)
    expect(Option.isNone(crypto.aeadOpen(key, nonce, hex("aa"), new Uint8Array(15)))).toBe(true)
  })
})

describe("the working group's vectors, suite 3", () => {
  const suite = MlsCiphersuite.make(crypto, { randomBytes: (length) => new Uint8Array(length).fill(4) })
  const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)
  const vector = (bytes: Uint8Array): Uint8Array =>
    bytes.length < 64
      ? new Uint8Array([bytes.length, ...bytes])
      : new Uint8Array([0x40 | (bytes.length >> 8), bytes.length & 0xff, ...bytes])
  const labelled = (label: string, content: Uint8Array) =>
    new Uint8Array([...vector(ascii(`MLS 1.0 ${label}`)), ...vector(content)])

  it("RefHash", async () => {
    const { label, out, value } = rfc9420CryptoBasics.refHash
    const input = new Uint8Array([...vector(ascii(label)), ...vector(hex(value))])
    expect(toHex(await suite.hash.digest(input))).toBe(out)
  })

  it("SignWithLabel", async () => {
    const { content, label, priv, pub, signature } = rfc9420CryptoBasics.signWithLabel
    const message = labelled(label, hex(content))
    expect(await suite.signature.verify(hex(pub), message, hex(signature))).toBe(true)
    expect(toHex(await suite.signature.sign(hex(priv), message))).toBe(signature)
  })

  it("ExpandWithLabel", async () => {
    const { context, label, length, out, secret } = rfc9420CryptoBasics.expandWithLabel
    const info = new Uint8Array([length >> 8, length & 0xff, ...labelled(label, hex(context))])
    expect(toHex(await suite.kdf.expand(hex(secret), info, length))).toBe(out)
  })

  it("EncryptWithLabel, and back", async () => {
    const { ciphertext, context, kem_output, label, plaintext, priv, pub } = rfc9420CryptoBasics.encryptWithLabel
    const info = labelled(label, hex(context))
    const privateKey = await suite.hpke.importPrivateKey(hex(priv))
    expect(toHex(await suite.hpke.open(privateKey, hex(kem_output), hex(ciphertext), info))).toBe(plaintext)
    const publicKey = await suite.hpke.importPublicKey(hex(pub))
    const sealed = await suite.hpke.seal(publicKey, hex(plaintext), info)
    expect(toHex(await suite.hpke.open(privateKey, sealed.enc, sealed.ct, info))).toBe(plaintext)
    await expect(suite.hpke.open(privateKey, sealed.enc, sealed.ct, hex("00"))).rejects.toThrow("tag")
    const exported = await suite.hpke.exportSecret(publicKey, hex("01"), 40, info)
    expect(await suite.hpke.importSecret(privateKey, hex("01"), exported.enc, 40, info)).toEqual(exported.secret)
    expect(exported.secret).toHaveLength(40)
  })
})

describe("HPKE", () => {
  // RFC 9180 appendix A.2.1: DHKEM(X25519), HKDF-SHA256, ChaCha20Poly1305, base mode
  it("is RFC 9180's, over several messages", () => {
    const info = hex("4f6465206f6e2061204772656369616e2055726e")
    const privateKey = Hpke.derivePrivateKey(
      crypto,
      hex("1ac01f181fdf9f352797655161c58b75c656a6cc2716dcb66372da835542e1df")
    )
    expect(toHex(crypto.x25519PublicKey(privateKey))).toBe(
      "4310ee97d88cc1f088a5576c77ab0cf5c3ac797f3d95139c6c84b5429c59662a"
    )
    const sharedSecret = Option.getOrThrow(
      Hpke.decapsulate(crypto, privateKey, hex("1afa08d3dec047a643885163f1180476fa7ddb54c6a8029ea33f95796bf2ac4a"))
    )
    expect(toHex(Redacted.value(sharedSecret))).toBe("0bbe78490412b4bbea4812666f7916932b828bba79942424abb65244930d69a7")
    const context = Hpke.context(crypto, Hpke.KemId.dhkemX25519, sharedSecret, info)
    const plaintext = "4265617574792069732074727574682c20747275746820626561757479"
    const first = context.open(
      hex("436f756e742d30"),
      hex("1c5250d8034ec2b784ba2cfd69dbdb8af406cfe3ff938e131f0def8c8b60b4db21993c62ce81883d2dd1b51a28")
    )
    expect(Option.map(first, toHex)).toEqual(Option.some(plaintext))
    const second = context.open(
      hex("436f756e742d31"),
      hex("6b53c051e4199c518de79594e1c4ab18b96f081549d45ce015be002090bb119e85285337cc95ba5f59992dc98c")
    )
    expect(Option.map(second, toHex)).toEqual(Option.some(plaintext))
  })
})
