/** The wrapper both ways, pointers, and that nothing but the right key and the right bytes opens anything. */
import { describe, expect, it } from "@effect/vitest"
import { Entropy } from "@keyward/core/ports/Entropy"
import { MlsCrypto } from "@keyward/core/ports/MlsCrypto"
import { PostQuantumKem } from "@keyward/core/ports/PostQuantumKem"
import * as WelcomeMetadata from "@keyward/core/welcome/WelcomeMetadata"
import * as WelcomeWrapper from "@keyward/core/welcome/WelcomeWrapper"
import { realWelcomes } from "@keyward/test-utils/vectors/WelcomeVectors"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as World from "./World.ts"

const EMPTY = new Uint8Array(0)
const algorithms = ["Curve25519", "XWing"] as const

const keyPair = (algorithm: WelcomeWrapper.Algorithm) =>
  Effect.gen(function* () {
    const entropy = yield* Entropy
    const crypto = yield* MlsCrypto
    const kem = yield* PostQuantumKem
    const privateKey = Redacted.make(entropy.randomBytes(32))
    const publicKey = algorithm === "XWing" ? kem.publicKey(privateKey) : crypto.x25519PublicKey(privateKey)
    return { privateKey, target: { algorithm, publicKey } }
  })

const withCrypto = <A, E>(name: string, body: () => Effect.Effect<A, E, World.Crypto>) =>
  it.effect(name, () => Effect.provide(body(), World.cryptoLayer), World.TIMEOUT)

const contents = { data: Uint8Array.from({ length: 300 }, (_, i) => i & 0xff), metadata: Uint8Array.of(8, 105) }

describe("wrap and unwrap", () => {
  for (const algorithm of algorithms) {
    it(`${algorithm}: what was wrapped comes out, whatever it is, seed ${World.SEED}`, () => {
      const runtime = ManagedRuntime.make(World.cryptoLayer)
      const { privateKey, target } = runtime.runSync(keyPair(algorithm))
      const bytes = FastCheck.uint8Array({ maxLength: 5_000 })
      FastCheck.assert(
        FastCheck.property(bytes, bytes, (data, metadata) => {
          const wrapped = runtime.runSync(WelcomeWrapper.wrap(target, { data, metadata }))
          expect(wrapped.metadata).toHaveLength(metadata.length + 16)
          expect(runtime.runSync(WelcomeWrapper.unwrap(algorithm, privateKey, wrapped))).toEqual({ data, metadata })
          // Metadata is opened only where there is some.
          const bare = { data: wrapped.data, metadata: EMPTY }
          expect(runtime.runSync(WelcomeWrapper.unwrap(algorithm, privateKey, bare))).toEqual({ data, metadata: EMPTY })
        }),
        { numRuns: 40, seed: World.SEED }
      )
    })

    withCrypto(`${algorithm}: another key does not open it, which is a failure and no crash`, () =>
      Effect.gen(function* () {
        const { target } = yield* keyPair(algorithm)
        const other = yield* keyPair(algorithm)
        const wrapped = yield* WelcomeWrapper.wrap(target, contents)
        const error = yield* Effect.flip(WelcomeWrapper.unwrap(algorithm, other.privateKey, wrapped))
        expect(error).toMatchObject({ _tag: "UnwrapFailed", layer: "Wrapper", part: "Data", isRetryable: false })
        const wrongKem = algorithm === "XWing" ? "Curve25519" : "XWing"
        expect(yield* Effect.flip(WelcomeWrapper.unwrap(wrongKem, other.privateKey, wrapped))).toMatchObject({
          _tag: "UnwrapFailed",
          part: "KemOutput"
        })
      })
    )

    withCrypto(`${algorithm}: two wraps of the same have nothing in common`, () =>
      Effect.gen(function* () {
        const { target } = yield* keyPair(algorithm)
        const one = yield* WelcomeWrapper.wrap(target, contents)
        const two = yield* WelcomeWrapper.wrap(target, contents)
        expect(one.data).not.toEqual(two.data)
        expect(one.metadata).not.toEqual(two.metadata)
      })
    )

    withCrypto(`${algorithm}: cannot be wrapped to what is no key`, () =>
      Effect.gen(function* () {
        for (const length of [0, 31, 33, 1_215, 1_217]) {
          const publicKey = new Uint8Array(length)
          expect(yield* Effect.flip(WelcomeWrapper.wrap({ algorithm, publicKey }, contents))).toMatchObject({
            _tag: "InvalidWrapperKey",
            length
          })
        }
        // A point of small order, alone or as X-Wing's second half.
        const { target } = yield* keyPair(algorithm)
        const publicKey = target.publicKey.slice().fill(0, target.publicKey.length - 32)
        expect(yield* Effect.flip(WelcomeWrapper.wrap({ algorithm, publicKey }, contents))).toMatchObject({
          _tag: "InvalidWrapperKey"
        })
      })
    )
  }
})

describe("a real Welcome of the native client", () => {
  for (const vector of realWelcomes.slice(0, 2)) {
    const algorithm = vector.postQuantumKey === undefined ? "Curve25519" : "XWing"
    const privateKey = Redacted.make(World.bin(vector.postQuantumKey ?? vector.initKey))
    const data = World.bin(vector.welcome.data)
    const metadata = World.bin(vector.welcome.welcomeMetadata)
    const open = (wrapped: WelcomeWrapper.Wrapped) =>
      Effect.either(WelcomeWrapper.unwrap(algorithm, privateKey, wrapped))
    const isRefused = (result: Either.Either<unknown, { readonly _tag: string }>) =>
      Either.isLeft(result) && ["UnwrapFailed", "MalformedWelcome"].includes(result.left._tag)

    withCrypto(`${algorithm}: opens unchanged`, () =>
      Effect.gen(function* () {
        const opened = yield* WelcomeWrapper.unwrap(algorithm, privateKey, { data, metadata })
        expect([...opened.data.subarray(0, 6)]).toEqual([0, 1, 0, 3, 0, 3])
        expect(Option.isSome(WelcomeMetadata.decode(opened.metadata))).toBe(true)
      })
    )

    withCrypto(`${algorithm}: no other bit of data or metadata opens`, () =>
      Effect.gen(function* () {
        // Each costs a decapsulation, so X-Wing's are fewer still.
        const stride = World.isLong ? 1 : algorithm === "XWing" ? 127 : World.STRIDE
        for (let bit = World.FIRST; bit < 8 * data.length; bit += stride) {
          yield* World.breathe
          const result = yield* open({ data: World.flip(data, bit), metadata })
          if (!isRefused(result)) expect.fail(`bit ${bit} opens`)
        }
        for (let bit = 0; bit < 8 * metadata.length; bit += World.isLong ? 1 : 5) {
          const result = yield* open({ data, metadata: World.flip(metadata, bit) })
          expect(result).toMatchObject({ left: { _tag: "UnwrapFailed", part: "Metadata" } })
        }
      })
    )

    withCrypto(`${algorithm}: no shorter or longer one opens`, () =>
      Effect.gen(function* () {
        for (let length = 0; length < data.length; length++) {
          const result = yield* open({ data: data.subarray(0, length), metadata })
          expect(result).toMatchObject({ left: { _tag: "MalformedWelcome", part: "HpkeCiphertext" } })
        }
        expect(yield* open({ data: Uint8Array.of(...data, 0), metadata })).toMatchObject({
          left: { _tag: "MalformedWelcome", reason: "TrailingData" }
        })
        // An empty one is a Welcome without metadata; libxmtp's rule.
        for (let length = 1; length < metadata.length; length++) {
          expect(isRefused(yield* open({ data, metadata: metadata.subarray(0, length) }))).toBe(true)
        }
      })
    )
  }
})

describe("algorithmOf", () => {
  it("knows libxmtp's numbers; a newer one is said to be newer", () => {
    expect([0, 1, 2].map(WelcomeWrapper.algorithmOf)).toEqual(
      ["Curve25519", "Curve25519", "XWing"].map((name) => Either.right(name))
    )
    expect(WelcomeWrapper.algorithmOf(3)).toMatchObject({ left: { _tag: "MalformedWelcome" } })
    for (const value of [4, 99, -1]) {
      expect(WelcomeWrapper.algorithmOf(value)).toMatchObject({
        left: { _tag: "NotYetUnderstood", feature: "WrapperAlgorithm", value }
      })
    }
  })
})

describe("pointers", () => {
  withCrypto("lead from a wrapper to a shared Welcome, for all who hold them", () =>
    Effect.gen(function* () {
      const pointer = yield* WelcomeWrapper.makePointer
      const pointee = yield* WelcomeWrapper.sealPointee(pointer, contents)
      for (const algorithm of algorithms) {
        const { privateKey, target } = yield* keyPair(algorithm)
        const bytes = Redacted.value(WelcomeWrapper.encodePointer(pointer))
        const { data } = yield* WelcomeWrapper.wrap(target, { data: bytes, metadata: EMPTY })
        const opened = yield* WelcomeWrapper.unwrap(algorithm, privateKey, { data, metadata: EMPTY })
        const received = yield* WelcomeWrapper.decodePointer(opened.data)
        expect(received.destination).toEqual(pointer.destination)
        expect(yield* WelcomeWrapper.openPointee(received, pointee)).toEqual(contents)
      }
    })
  )

  withCrypto("open nothing but the Welcome that they were made for", () =>
    Effect.gen(function* () {
      const pointer = yield* WelcomeWrapper.makePointer
      const pointee = yield* WelcomeWrapper.sealPointee(pointer, contents)
      const open = (by: WelcomeWrapper.Pointer, sealed: WelcomeWrapper.Wrapped) =>
        Effect.flip(WelcomeWrapper.openPointee(by, sealed))
      expect(yield* open(yield* WelcomeWrapper.makePointer, pointee)).toMatchObject({ layer: "Pointee", part: "Data" })
      for (let bit = 0; bit < 8 * pointee.data.length; bit++) {
        const changed = { ...pointee, data: World.flip(pointee.data, bit) }
        expect(yield* open(pointer, changed)).toMatchObject({ layer: "Pointee", part: "Data" })
      }
      for (let length = 0; length < pointee.metadata.length; length++) {
        const changed = { ...pointee, metadata: pointee.metadata.subarray(0, length) }
        expect(yield* open(pointer, changed)).toMatchObject({ layer: "Pointee", part: "Metadata" })
      }
    })
  )

  it("are read as prost reads them, or refused by their fault", () => {
    const runtime = ManagedRuntime.make(World.cryptoLayer)
    const pointer = runtime.runSync(WelcomeWrapper.makePointer)
    expect(pointer.dataNonce).not.toEqual(pointer.metadataNonce)
    const bytes = Redacted.value(WelcomeWrapper.encodePointer(pointer))
    expect(String(WelcomeWrapper.encodePointer(pointer))).toBe("<redacted>")
    expect(WelcomeWrapper.decodePointer(bytes)).toMatchObject({ right: { destination: pointer.destination } })
    expect(WelcomeWrapper.decodePointer(EMPTY)).toMatchObject({ left: { feature: "PointerVersion" } })
    const reasons = new Set<string>()
    for (let length = 1; length < bytes.length; length++) {
      const result = WelcomeWrapper.decodePointer(bytes.subarray(0, length))
      if (Either.isRight(result)) expect.fail(`${length} bytes are a pointer`)
      reasons.add(result.left._tag)
    }
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      const result = WelcomeWrapper.decodePointer(World.flip(bytes, bit))
      if (Either.isLeft(result)) reasons.add(result.left._tag)
    }
    expect([...reasons].sort()).toEqual(["MalformedWelcome", "NotYetUnderstood"])
    const short = { ...pointer, encryptionKey: Redacted.make(new Uint8Array(31)) }
    expect(WelcomeWrapper.decodePointer(Redacted.value(WelcomeWrapper.encodePointer(short)))).toMatchObject({
      left: { reason: "WrongLength" }
    })
  })
})

describe("work per message", () => {
  for (const algorithm of algorithms) {
    withCrypto(`${algorithm}: one decapsulation, whether it opens or not`, () =>
      Effect.gen(function* () {
        const crypto = yield* MlsCrypto
        const kem = yield* PostQuantumKem
        const { privateKey, target } = yield* keyPair(algorithm)
        const wrapped = yield* WelcomeWrapper.wrap(target, contents)
        let decapsulations = 0
        const counting = Layer.merge(
          Layer.succeed(MlsCrypto, {
            ...crypto,
            x25519: (key, publicKey) => {
              if (algorithm === "Curve25519") decapsulations++
              return crypto.x25519(key, publicKey)
            }
          }),
          Layer.succeed(PostQuantumKem, {
            ...kem,
            decapsulate: (seed, ciphertext) => {
              decapsulations++
              return kem.decapsulate(seed, ciphertext)
            }
          })
        )
        yield* Effect.provide(WelcomeWrapper.unwrap(algorithm, privateKey, wrapped), counting)
        expect(decapsulations).toBe(1)
        const changed = { ...wrapped, metadata: World.flip(wrapped.metadata, 3) }
        yield* Effect.either(Effect.provide(WelcomeWrapper.unwrap(algorithm, privateKey, changed), counting))
        expect(decapsulations).toBe(2)
      })
    )
  }
})
