/**
 * Welcomes: taking the wrapper off, and joining.
 *
 * @since 1.0.0
 */
import { createHash } from "node:crypto"
import { Chacha20Poly1305 } from "@hpke/chacha20poly1305"
import { CipherSuite, DhkemX25519HkdfSha256, HkdfSha256, type KemInterface } from "@hpke/core"
import { XWing } from "@hpke/hybridkem-x-wing"
import * as FastMlsCrypto from "@keyward/core/crypto/FastMlsCrypto"
import * as Hpke from "@keyward/core/crypto/Hpke"
import { MLS_WELCOME, withLabel } from "@keyward/core/crypto/Labels"
import * as MlsCiphersuite from "@keyward/core/crypto/MlsCiphersuite"
import { InboxId } from "@keyward/core/identity/InboxId"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import * as KeyPackageRef from "@keyward/core/keypackage/KeyPackageRef"
import * as AssociationStates from "@keyward/core/peers/AssociationStates"
import { ApiClient, type WelcomeMessageEntry } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { MlsCrypto } from "@keyward/core/ports/MlsCrypto"
import { PostQuantumKem } from "@keyward/core/ports/PostQuantumKem"
import { layerNone } from "@keyward/core/ports/SmartContractWalletVerifier"
import * as XWingKem from "@keyward/core/postquantum/XWing"
import { joinGroup } from "@keyward/core/welcome/JoinGroup"
import { openWelcomes } from "@keyward/core/welcome/OpenWelcome"
import * as WelcomeWrapper from "@keyward/core/welcome/WelcomeWrapper"
import * as MemoryAssociationStateCache from "@keyward/test-utils/MemoryAssociationStateCache"
import * as MemoryKeyPackageStore from "@keyward/test-utils/MemoryKeyPackageStore"
import { nativeSession, realWelcomes } from "@keyward/test-utils/vectors/WelcomeVectors"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import { identity } from "effect/Function"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Mls from "ts-mls"
import type { Case, Prepared } from "../Harness.ts"

const bin = (hex: string): Uint8Array => new Uint8Array(Buffer.from(hex, "hex"))

/** X-Wing under the obsolete number that libxmtp keeps using, which the library's types do not list. */
const obsoleteXWing = (): KemInterface => Object.assign(new XWing(), { id: 0x004d })

/** A vector as another library takes it apart: the two lengths of a real Welcome are known. */
const readCiphertext = (data: Uint8Array, kemOutputLength: number) => {
  const lengthBytes = kemOutputLength < 0x40 ? 1 : 2
  const at = lengthBytes + kemOutputLength
  // The second length has two bytes: from 64 up to 16383.
  return { enc: data.subarray(lengthBytes, at), ciphertext: data.subarray(at + 2) }
}

const seedOf = (name: string): Uint8Array => new Uint8Array(createHash("sha256").update(name).digest())

const info = withLabel(MLS_WELCOME, new Uint8Array(0))

const open = async (
  algorithm: WelcomeWrapper.Algorithm,
  name: string,
  kem: KemInterface,
  kemOutputLength: number
): Promise<Prepared> => {
  const vector = realWelcomes.find((one) => one.name === name)
  if (vector === undefined) throw new Error("the vectors are gone")
  const privateKey = bin(vector.postQuantumKey ?? vector.initKey)
  const wrapped = { data: bin(vector.welcome.data), metadata: bin(vector.welcome.welcomeMetadata) }

  const managed = ManagedRuntime.make(Layer.merge(FastMlsCrypto.layer(), XWingKem.layer))
  await managed.runtime()
  const redacted = Redacted.make(privateKey)
  const subject = () => managed.runSync(WelcomeWrapper.unwrap(algorithm, redacted, wrapped))

  const suite = new CipherSuite({ kem, kdf: new HkdfSha256(), aead: new Chacha20Poly1305() })
  // Imported once, which favours it: in an app the next Welcome may be for another package.
  const recipientKey = await suite.kem.importKey("raw", privateKey.slice().buffer, false)
  const { ciphertext, enc } = readCiphertext(wrapped.data, kemOutputLength)
  const floor = async () => {
    const context = await suite.createRecipientContext({ recipientKey, enc, info })
    return [await context.open(ciphertext), await context.open(wrapped.metadata)]
  }

  const [data] = await floor()
  if (data === undefined || !Buffer.from(data).equals(subject().data)) throw new Error("the two do not open the same")
  return { subject, floor, close: () => managed.dispose() }
}

const sessionApi = Layer.mock(ApiClient, {
  getIdentityUpdates: (requests) =>
    Effect.succeed(
      requests.map(({ inboxId }) =>
        (nativeSession.inboxes[inboxId]?.log ?? []).map(({ sequenceId, update }) => ({
          sequenceId: BigInt(sequenceId),
          serverTimestampNs: 0n,
          update: bin(update)
        }))
      )
    )
})

/** The identity logs of a session of the native client, each verified once. */
const sessionStates = AssociationStates.layer().pipe(
  Layer.provide(MemoryAssociationStateCache.layer),
  Layer.provide(layerNone),
  Layer.provide(sessionApi)
)

/** Joining a group of the session; the states of its members are known, as they are in a process that goes on. */
const join = async (group: string): Promise<Prepared> => {
  const { encryptionKey, initKey, keyPackage, postQuantumKey = "", seed } = nativeSession.installations.pq
  const entry = nativeSession.welcomes.find((one) => one.group === group && one.to === "pq")
  if (entry?.kind !== "Welcome") throw new Error("the vectors are gone")
  const managed = ManagedRuntime.make(Layer.mergeAll(FastMlsCrypto.layer(), XWingKem.layer, sessionStates))
  await managed.runtime()
  const { data } = managed.runSync(
    WelcomeWrapper.unwrap("XWing", Redacted.make(bin(postQuantumKey)), {
      data: bin(entry.data),
      metadata: bin(entry.welcomeMetadata)
    })
  )
  const joining = {
    bytes: bin(keyPackage),
    privateKeys: { initKey: Redacted.make(bin(initKey)), encryptionKey: Redacted.make(bin(encryptionKey)) },
    installationKey: InstallationKey.fromSeed(bin(seed))
  }
  const subject = () => managed.runPromise(joinGroup(data, joining))
  const { members } = await subject()
  if (members.length !== nativeSession.groups[group]?.installations.length) throw new Error("another group")

  const cipherSuite = MlsCiphersuite.make(
    managed.runSync(MlsCrypto),
    // Joining draws nothing.
    { randomBytes: (length) => new Uint8Array(length) }
  )
  const context = { cipherSuite, authService: Mls.unsafeTestingAuthenticationService }
  const floor = () => {
    const message = Mls.decode(Mls.mlsMessageDecoder, data)
    const decoded = Mls.decode(Mls.keyPackageDecoder, joining.bytes)
    if (message?.wireformat !== Mls.wireformats.mls_welcome || decoded === undefined) throw new Error("no Welcome")
    return Mls.joinGroup({
      context,
      welcome: message.welcome,
      keyPackage: decoded,
      privateKeys: {
        initPrivateKey: bin(initKey),
        hpkePrivateKey: bin(encryptionKey),
        signaturePrivateKey: bin(seed)
      }
    })
  }
  return { subject, floor, close: () => managed.dispose() }
}

const FLOOD = 1_000

/** An installation of the session as its row says, and what it is invited by. */
const insert = (to: "pq" | "classic", wrappedTo: Uint8Array) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const one = nativeSession.installations[to]
    const at = yield* DateTime.now
    const bytes = bin(one.keyPackage)
    const inboxId = InboxId.make(one.inboxId)
    const key = InstallationKey.fromSeed(bin(one.seed))
    const { installationId } = yield* store.findOrCreateInstallation({ inboxId, label: to, key, at })
    const lease = yield* store.acquireLease(installationId, { now: at, duration: Duration.minutes(1) })
    const postQuantumKey = Option.map(Option.fromNullable(one.postQuantumKey), (seed) => Redacted.make(bin(seed)))
    const privateKeys = {
      initKey: Redacted.make(bin(one.initKey)),
      encryptionKey: Redacted.make(bin(one.encryptionKey)),
      postQuantumKey
    }
    const keyPackage = {
      inboxId,
      installationId,
      ref: yield* KeyPackageRef.hash(bytes),
      bytes,
      lifetime: { notBefore: 0n, notAfter: 0xffff_ffffn },
      initKey: (yield* MlsCrypto).x25519PublicKey(privateKeys.initKey),
      postQuantumKey: Option.as(postQuantumKey, wrappedTo)
    }
    const generated = { keyPackage, privateKeys }
    yield* store.insertKeyPackageHistory(lease, generated, { at, trigger: "Registration", reschedule: identity })
    return { installationId, privateKeys }
  })

/** A thousand Welcomes to one package, wrapped by this algorithm; each is opened, and its group joined. */
const flood = async (algorithm: WelcomeWrapper.Algorithm, to: "pq" | "classic"): Promise<Prepared> => {
  const sent = nativeSession.welcomes.filter((one) => one.to === to && one.kind === "Welcome")
  const toKey = sent[0]?.hpkePublicKey
  if (toKey === undefined) throw new Error("the vectors are gone")
  const entries = Array.from({ length: FLOOD }, (_, index): WelcomeMessageEntry => {
    // The groups of two and three; those of thirteen are `join-13`.
    const one = sent[index % 2]
    if (one?.kind !== "Welcome") throw new Error("the vectors are gone")
    return {
      _tag: "Welcome",
      id: BigInt(index + 1),
      createdNs: 0n,
      installationKey: bin(one.installationKey),
      hpkePublicKey: bin(one.hpkePublicKey),
      wrapperAlgorithm: one.wrapperAlgorithm,
      data: bin(one.data),
      welcomeMetadata: bin(one.welcomeMetadata)
    }
  })
  const managed = ManagedRuntime.make(
    Layer.mergeAll(FastMlsCrypto.layer(), XWingKem.layer, sessionStates, sessionApi, MemoryKeyPackageStore.layer)
  )
  const { installationId, privateKeys } = await managed.runPromise(insert(to, bin(toKey)))
  const subject = async () => {
    const results = await managed.runPromise(openWelcomes(InstallationId.make(installationId), entries))
    if (!results.every(Either.isRight)) throw new Error("a Welcome did not open")
  }

  // Each Welcome has two secrets: its wrapper's, and the one in it.
  const crypto = managed.runSync(MlsCrypto)
  const kem = managed.runSync(PostQuantumKem)
  const initKey = () => Redacted.make(Redacted.value(privateKeys.initKey).slice())
  const inner = crypto.x25519PublicKey(Redacted.make(seedOf(to)))
  const outer = entries.map((entry) =>
    entry._tag === "Welcome" ? readCiphertext(entry.data, algorithm === "XWing" ? 1120 : 32).enc : new Uint8Array(0)
  )
  const floor = () => {
    for (const enc of outer) {
      const opened =
        algorithm === "XWing"
          ? kem.decapsulate(Redacted.make(Redacted.value(Option.getOrThrow(privateKeys.postQuantumKey)).slice()), enc)
          : Hpke.decapsulate(crypto, initKey(), enc)
      if (Option.isNone(opened) || Option.isNone(Hpke.decapsulate(crypto, initKey(), inner))) throw new Error("none")
    }
  }
  /** The same with keys that are expanded once, as the subject does. */
  const kept = () => {
    for (const enc of outer) {
      if (algorithm === "XWing") kem.decapsulate(Option.getOrThrow(privateKeys.postQuantumKey), enc)
      else Hpke.decapsulate(crypto, privateKeys.initKey, enc)
      Hpke.decapsulate(crypto, privateKeys.initKey, inner)
    }
  }
  return {
    subject,
    floor,
    parts: { "the decapsulations alone, with the key expanded once": kept },
    close: () => managed.dispose()
  }
}

const floods = (id: string, algorithm: WelcomeWrapper.Algorithm, to: "pq" | "classic", target?: number): Case => ({
  id,
  floor: `the ${2 * FLOOD} decapsulations in them, each by itself`,
  target,
  rounds: 7,
  prepare: () => flood(algorithm, to)
})

/**
 * @since 1.0.0
 * @category cases
 */
export const cases: ReadonlyArray<Case> = [
  {
    id: "open-xwing",
    floor: "@hpke/core with X-Wing (noble): decapsulate, open data and metadata",
    target: 1,
    prepare: () => open("XWing", "pq", obsoleteXWing(), 1120)
  },
  {
    id: "open-curve25519",
    floor: "@hpke/core with X25519 (WebCrypto): decapsulate, open data and metadata",
    target: 1,
    prepare: () => open("Curve25519", "classic", new DhkemX25519HkdfSha256(), 32)
  },
  {
    id: "join-dm",
    floor: "ts-mls on the same cryptography, members not checked: joinGroup, 2 members",
    target: 1.2,
    prepare: () => join("dm-xwing")
  },
  {
    id: "join-13",
    floor: "ts-mls on the same cryptography, members not checked: joinGroup, 13 members with a history",
    target: 1,
    prepare: () => join("group-history")
  },
  floods("open-1000-xwing", "XWing", "pq", 1.2),
  floods("open-1000-curve25519", "Curve25519", "classic")
]
