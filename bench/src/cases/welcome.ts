/**
 * Welcomes: taking the wrapper off, and joining.
 *
 * @since 1.0.0
 */
import { Chacha20Poly1305 } from "@hpke/chacha20poly1305"
import { CipherSuite, DhkemX25519HkdfSha256, HkdfSha256, type KemInterface } from "@hpke/core"
import { XWing } from "@hpke/hybridkem-x-wing"
import * as FastMlsCrypto from "@keyward/core/crypto/FastMlsCrypto"
import { MLS_WELCOME, withLabel } from "@keyward/core/crypto/Labels"
import * as MlsCiphersuite from "@keyward/core/crypto/MlsCiphersuite"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import * as AssociationStates from "@keyward/core/peers/AssociationStates"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { MlsCrypto } from "@keyward/core/ports/MlsCrypto"
import { layerNone } from "@keyward/core/ports/SmartContractWalletVerifier"
import * as XWingKem from "@keyward/core/postquantum/XWing"
import { joinGroup } from "@keyward/core/welcome/JoinGroup"
import * as WelcomeWrapper from "@keyward/core/welcome/WelcomeWrapper"
import * as MemoryAssociationStateCache from "@keyward/test-utils/MemoryAssociationStateCache"
import { nativeSession, realWelcomes } from "@keyward/test-utils/vectors/WelcomeVectors"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
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

  const managed = ManagedRuntime.make(Layer.merge(FastMlsCrypto.layer, XWingKem.layer))
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

/** The identity logs of a session of the native client, each verified once. */
const sessionStates = AssociationStates.layer().pipe(
  Layer.provide(MemoryAssociationStateCache.layer),
  Layer.provide(layerNone),
  Layer.provide(
    Layer.mock(ApiClient, {
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
  )
)

/** Joining a group of the session; the states of its members are known, as they are in a process that goes on. */
const join = async (group: string): Promise<Prepared> => {
  const { encryptionKey, initKey, keyPackage, postQuantumKey = "", seed } = nativeSession.installations.pq
  const entry = nativeSession.welcomes.find((one) => one.group === group && one.to === "pq")
  if (entry?.kind !== "Welcome") throw new Error("the vectors are gone")
  const managed = ManagedRuntime.make(Layer.mergeAll(FastMlsCrypto.layer, XWingKem.layer, sessionStates))
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
  }
]
