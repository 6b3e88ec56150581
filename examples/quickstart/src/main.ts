import * as NodeCrypto from "@keyward/core/crypto/NodeCrypto"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import { rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import * as SmartContractWalletVerifier from "@keyward/core/ports/SmartContractWalletVerifier"
import * as V3ApiClient from "@keyward/network/V3ApiClient"
import * as AesGcmKeySealer from "@keyward/storage/AesGcmKeySealer"
import * as SqliteKeyPackageStore from "@keyward/storage/SqliteKeyPackageStore"
import { Config, Console, Effect, Layer } from "effect"
import * as Wallet from "./Wallet.ts" // your Signer: a viem account, a browser wallet, a hardware wallet

const Live = Layer.mergeAll(
  SqliteKeyPackageStore.layerConfig({ filename: Config.string("KEYWARD_DB") }).pipe(
    Layer.provide(
      AesGcmKeySealer.layerConfig({ keyId: Config.succeed("2026"), key: AesGcmKeySealer.key("SEALING_KEY") })
    )
  ),
  V3ApiClient.layerGrpcConfig({ url: Config.string("XMTP_URL") }),
  SmartContractWalletVerifier.layerNone,
  Wallet.layer
).pipe(Layer.provideMerge(NodeCrypto.layer))

const program = Effect.gen(function* () {
  const { installationId } = yield* registerInstallation({ includePostQuantum: true })
  const { published, superseded } = yield* rotateAndUploadKeyPackage({ installationId, includePostQuantum: true })
  yield* Console.log(`${published.keyPackage.ref} replaced ${superseded.map((row) => row.keyPackage.ref)}`)
}).pipe(Effect.catchTag("ApiClientError", (error) => Console.error(`${error.message}; nothing was marked`)))

Effect.runPromise(Effect.provide(program, Live))
