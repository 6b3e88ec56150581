/**
 * What the processes of a chaos run have in common: the wallet, the settings, the ports, and what they tell each other.
 *
 * @since 1.0.0
 */
import * as NodeCrypto from "@keyward/core/crypto/NodeCrypto"
import * as Identifier from "@keyward/core/identity/Identifier"
import { eip191Hash } from "@keyward/core/identity/signature/SignedText"
import { LifecycleSettings, type LifecycleSettingsShape } from "@keyward/core/lifecycle/LifecycleSettings"
import type { UpkeepContext } from "@keyward/core/lifecycle/Upkeep"
import type { StorageError } from "@keyward/core/ports/KeyPackageStore"
import { Signer } from "@keyward/core/ports/Signer"
import * as WelcomeProgress from "@keyward/core/ports/WelcomeProgress"
import type { NetworkConfigError } from "@keyward/network/Endpoint"
import * as V3ApiClient from "@keyward/network/V3ApiClient"
import * as AesGcmKeySealer from "@keyward/storage/AesGcmKeySealer"
import * as SqliteKeyPackageStore from "@keyward/storage/SqliteKeyPackageStore"
import { utf8ToBytes } from "@noble/hashes/utils.js"
import type { ConfigError } from "effect/ConfigError"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as VectorWallets from "../VectorWallets.ts"

/**
 * Where a process works.
 *
 * @since 1.0.0
 * @category models
 */
export interface Place {
  /** The database file, shared. */
  readonly filename: string
  /** The dev node, `http://127.0.0.1:5556`. */
  readonly nodeUrl: string
  /** Which wallet: each number is another inbox. */
  readonly wallet: number
}

/**
 * The installations that each place has, by their labels.
 *
 * @since 1.0.0
 * @category constants
 */
export const LABELS: ReadonlyArray<string> = ["one", "two"]

/**
 * A month in seconds: rotations, leases, graces and probes as short as several processes on a busy machine can keep.
 *
 * @since 1.0.0
 * @category constants
 */
export const settings: LifecycleSettingsShape = {
  rotationInterval: Duration.seconds(2),
  welcomeDelay: Duration.millis(50),
  grace: Duration.seconds(5),
  minimumRemainingLifetime: Duration.days(42),
  leaseDuration: Duration.seconds(2),
  attemptTimeout: Duration.millis(700),
  uploadAttempts: 3,
  confirmBy: "receipt",
  confirmWithin: Duration.seconds(2),
  probeInterval: Duration.seconds(1),
  cleanRetry: Duration.millis(500),
  tombstoneLifetime: Duration.days(365),
  welcomeRotationsPerHour: 100_000,
  repairRotationsPerHour: 100_000,
  otherRotationsPerHour: 100_000
}

/** A smart contract wallet by the rule of the vectors: it signs without elliptic curves, and the node believes it. */
const walletOf = (number: number): Signer["Type"] => {
  const address = `0x${number.toString(16).padStart(40, "c")}`
  return {
    identifier: Identifier.ethereum(address),
    signText: (text) =>
      Effect.sync(() =>
        VectorWallets.sign({ chainId: "eip155:1", address }, eip191Hash(utf8ToBytes(text)), utf8ToBytes(text))
      ),
    smartContractWallet: { chainId: 1n, blockNumber: Effect.succeed(1n) }
  }
}

/**
 * The library as an app would have it, with the settings above: SQLite, sealed keys, gRPC to the node, the real clock. No
 * Welcomes are read.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer = ({
  filename,
  nodeUrl,
  wallet
}: Place): Layer.Layer<UpkeepContext | Signer, StorageError | ConfigError | NetworkConfigError> =>
  Layer.mergeAll(
    SqliteKeyPackageStore.layer({ filename }).pipe(
      Layer.provide(AesGcmKeySealer.layer({ keyId: "chaos", key: Redacted.make(new Uint8Array(32).fill(7)) }))
    ),
    V3ApiClient.layerGrpc({ url: nodeUrl }),
    VectorWallets.layer,
    WelcomeProgress.layerNone,
    Layer.succeed(Signer, walletOf(wallet)),
    Layer.succeed(LifecycleSettings, settings)
  ).pipe(Layer.provideMerge(NodeCrypto.layer))

/**
 * Where a worker ends itself: before or after its nth call of this operation, from 1.
 *
 * @since 1.0.0
 * @category models
 */
export interface Death {
  readonly operation: string
  readonly when: "before" | "after"
  readonly nth: number
}

/**
 * What a worker is started with.
 *
 * @since 1.0.0
 * @category models
 */
export interface WorkerOptions extends Place {
  readonly seed: number
  /** The file to which every upload is written before it is sent, with the fence under which it is. */
  readonly journal: string
  readonly death?: Death | undefined
}

/**
 * What a worker says.
 *
 * @since 1.0.0
 * @category models
 */
export type WorkerMessage =
  | { readonly _tag: "Ready" }
  /** Something failed that no kill and no fault explains. */
  | { readonly _tag: "Wrong"; readonly detail: string }

/**
 * What the node is told.
 *
 * @since 1.0.0
 * @category models
 */
export type NodeRequest =
  | { readonly _tag: "Faults"; readonly seed: number | undefined }
  | { readonly _tag: "Record"; readonly since: number }

/**
 * An upload as the node has seen it.
 *
 * @since 1.0.0
 * @category models
 */
export interface SeenUpload {
  readonly installationId: string
  readonly ref: string
  /** Milliseconds since 1970. */
  readonly at: number
  readonly endedAt: number
  readonly isPending: boolean
  readonly isAccepted: boolean
}

/**
 * What the node says.
 *
 * @since 1.0.0
 * @category models
 */
export type NodeMessage =
  | { readonly _tag: "Listening"; readonly url: string }
  | { readonly _tag: "Done" }
  /** It has ended and will not answer. */
  | { readonly _tag: "Gone" }
  | { readonly _tag: "Uploads"; readonly uploads: ReadonlyArray<SeenUpload> }
