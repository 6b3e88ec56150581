/**
 * The life of a key package in ten steps: a node, a database, a wallet's registration, a rotation, a failed upload that
 * marks nothing, the same bytes again, other people's packages judged, the network's own client as the judge of ours, and a
 * replayed package that is found and repaired.
 */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as NodeCrypto from "@keyward/core/crypto/NodeCrypto"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import { newKeyPackage } from "@keyward/core/keypackage/Generation"
import { explain } from "@keyward/core/lifecycle/Explanation"
import { revokeInstallations } from "@keyward/core/lifecycle/IdentityOperations"
import { LifecycleSettings } from "@keyward/core/lifecycle/LifecycleSettings"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import { rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import * as Scheduler from "@keyward/core/lifecycle/Scheduler"
import * as PeerKeyPackages from "@keyward/core/peers/PeerKeyPackages"
import type { Verdict } from "@keyward/core/peers/Verdict"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { Entropy } from "@keyward/core/ports/Entropy"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as SmartContractWalletVerifier from "@keyward/core/ports/SmartContractWalletVerifier"
import * as WelcomeProgress from "@keyward/core/ports/WelcomeProgress"
import * as V3ApiClient from "@keyward/network/V3ApiClient"
import * as AesGcmKeySealer from "@keyward/storage/AesGcmKeySealer"
import * as SqliteAssociationStateCache from "@keyward/storage/SqliteAssociationStateCache"
import * as SqliteKeyPackageStore from "@keyward/storage/SqliteKeyPackageStore"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import * as Faults from "@keyward/test-utils/Faults"
import * as RealClient from "@keyward/test-utils/RealClient"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts"
import * as LedgerView from "./LedgerView.ts"
import { bad, bold, dim, fact, good, id, note, say, short, step } from "./Terminal.ts"
import * as ViemSigner from "./ViemSigner.ts"

const account = privateKeyToAccount(generatePrivateKey())

/** Everything the program needs from outside, given once. */
const live = (filename: string, nodeUrl: string) =>
  Layer.mergeAll(
    SqliteKeyPackageStore.layer({ filename }).pipe(
      Layer.provide(
        Layer.unwrapEffect(
          Effect.map(Entropy, ({ randomBytes }) =>
            AesGcmKeySealer.layer({ keyId: "demo", key: Redacted.make(randomBytes(32)) })
          )
        )
      )
    ),
    V3ApiClient.layerGrpc({ url: nodeUrl }),
    SqliteAssociationStateCache.layer({ filename }),
    SmartContractWalletVerifier.layerNone,
    WelcomeProgress.layerNone // it is never invited
  ).pipe((ports) =>
    Layer.mergeAll(ViemSigner.layer(account), PeerKeyPackages.layer().pipe(Layer.provideMerge(ports))).pipe(
      Layer.provideMerge(NodeCrypto.layer)
    )
  )

const judge = (nodeUrl: string, installationId: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const client = yield* RealClient.make({ wallet: privateKeyToAccount(generatePrivateKey()), grpcUrl: nodeUrl })
      const { [installationId]: status } = yield* RealClient.keyPackageStatuses(client, [installationId])
      const notAfter = status?.lifetime?.notAfter
      yield* status?.validationError === undefined && notAfter !== undefined
        ? fact("libxmtp says", good(`valid until ${new Date(Number(notAfter) * 1000).toISOString().slice(0, 10)}`))
        : fact("libxmtp says", bad(status?.validationError ?? "nothing"))
    })
  ).pipe(Effect.catchTag("RealClientUnavailable", (error) => say(note(`skipped: ${error.message}`))))

/** What the reasons of this story mean. */
const reasonText: Readonly<Record<string, string>> = {
  NotAMember: "well signed, but its inbox does not name it, or no longer",
  OtherInstallation: "a valid package, of somebody else"
}

/** Bob has an installation and one that he revoked; Mallory signs a package of her own in the name of Bob's inbox. */
const meetOthers = Effect.gen(function* () {
  const api = yield* ApiClient
  const bob = yield* registerInstallation({ label: "phone", includePostQuantum: true })
  const lost = yield* registerInstallation({ label: "lost phone", includePostQuantum: true })
  yield* revokeInstallations({ inboxId: bob.inboxId, installationIds: [lost.installationId] })
  const mallory = yield* InstallationKey.generate
  const forged = yield* newKeyPackage({ inboxId: bob.inboxId, installationKey: mallory, includePostQuantum: true })
  yield* api.uploadKeyPackage(forged.keyPackage.bytes)
  return { bob, lost, mallory, forged }
}).pipe(Effect.provide(ViemSigner.layer(privateKeyToAccount(generatePrivateKey()))))

const showVerdict = (name: string, verdict: Verdict | undefined) => {
  if (verdict === undefined) return fact(name, bad("no verdict"))
  if (verdict._tag === "Unusable") {
    const { _tag } = verdict.reason
    return fact(name, `${bad("Unusable")}  ${_tag}: ${dim(reasonText[_tag] ?? "")}`)
  }
  const { inboxId, sequenceId, welcomeTarget } = verdict
  return fact(
    name,
    `${good("Usable")}    inbox ${id(short(inboxId))} at update ${sequenceId}, by ${welcomeTarget.algorithm}`
  )
}

const judgeOthers = Effect.gen(function* () {
  const { bob, forged, lost, mallory } = yield* meetOthers
  const verdicts = yield* PeerKeyPackages.fetchKeyPackages([
    bob.installationId,
    lost.installationId,
    mallory.installationId
  ])
  yield* showVerdict("Bob's phone", verdicts[0])
  yield* showVerdict("revoked phone", verdicts[1])
  yield* showVerdict("forged by Mal", verdicts[2])

  const faults = yield* Faults.Faults
  const { bytes } = forged.keyPackage
  yield* faults.enqueue("fetchKeyPackages", Faults.wrongAnswer(Faults.WrongAnswer.KeyPackage({ keyPackage: bytes })))
  const [swapped] = yield* PeerKeyPackages.fetchKeyPackages([bob.installationId])
  yield* showVerdict("node that lies", swapped)
})

/** Uploads are not authenticated, and the last one wins: anybody can put back a package that was replaced. */
const replayAndRepair = (installationId: InstallationId) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const api = yield* ApiClient
    const scheduler = yield* Scheduler.make()
    const [oldest] = yield* store.getHistory(installationId)
    if (oldest !== undefined) yield* api.uploadKeyPackage(oldest.keyPackage.bytes)
    const before = yield* explain(installationId)
    yield* say(note(before.sentences[0] ?? ""))
    yield* fact("remedy", before.remedy)
    yield* scheduler.repair(installationId)
    const after = yield* explain(installationId)
    yield* say(good(after.sentences[0] ?? ""))
  }).pipe(Effect.scoped)

const story = Effect.gen(function* () {
  const store = yield* KeyPackageStore
  const faults = yield* Faults.Faults
  const { grpcUrl } = yield* DevNode.DevNode

  yield* step(3, "A wallet registers an installation")
  const { inboxId, installationId } = yield* registerInstallation({ includePostQuantum: true })
  const ledger = store.getHistory(installationId)
  yield* fact("wallet", id(account.address))
  yield* fact("inbox", id(short(inboxId)))
  yield* fact("installation", id(short(installationId)))
  yield* say(dim("installation key durable, then update signed, then package uploaded, then update published"))
  yield* LedgerView.table(yield* ledger)

  yield* step(4, "The package is rotated")
  yield* rotateAndUploadKeyPackage({ installationId, includePostQuantum: true })
  yield* LedgerView.table(yield* ledger)

  yield* step(5, "The next upload fails")
  yield* faults.setRule(({ method }) =>
    method === "uploadKeyPackage" ? Option.some(Faults.failBeforeSend()) : Option.none()
  )
  const attempts = 3
  const error = yield* rotateAndUploadKeyPackage({ installationId, includePostQuantum: true }).pipe(
    Effect.provideService(LifecycleSettings, { ...(yield* LifecycleSettings), uploadAttempts: attempts }),
    Effect.flip
  )
  yield* LedgerView.failure(error._tag, error.message)
  yield* fact("retryable", "isRetryable" in error ? String(error.isRetryable) : "no")
  yield* say(`tried ${attempts} times; ${bold("nothing was marked")}: the package before is still the published one`)
  yield* LedgerView.table(yield* ledger)

  yield* step(6, "The same bytes, once the node is back")
  yield* faults.clear
  yield* Effect.sleep("300 millis")
  const { published } = yield* rotateAndUploadKeyPackage({ installationId, includePostQuantum: true })
  const uploads = (yield* faults.callsOf("uploadKeyPackage")).slice(-attempts - 1)
  const distinct = new Set(uploads.map(({ request }) => Buffer.from(request).toString("hex"))).size
  yield* fact(
    "uploads seen",
    `${uploads.length} by the node, ${distinct === 1 ? good("all with the same bytes") : bad(`${distinct} different ones`)}`
  )
  yield* fact("published", `#${published.historyId} ${id(short(published.keyPackage.ref))}`)
  yield* LedgerView.table(yield* ledger)

  yield* step(7, "Other people's packages, before they are invited")
  yield* judgeOthers

  yield* step(8, "The network's own client judges ours")
  yield* judge(grpcUrl, installationId)

  yield* step(9, "Somebody replays an older package")
  yield* replayAndRepair(installationId)

  yield* step(10, "Timeline")
  yield* LedgerView.timeline(yield* ledger, yield* DateTime.now)
  yield* say("")
})

const program = Effect.gen(function* () {
  const { grpcUrl } = yield* DevNode.DevNode
  const folder = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "keyward-demo-"))),
    (path) => Effect.promise(() => rm(path, { recursive: true, force: true }))
  )
  const filename = join(folder, "keyward.db")
  yield* step(1, "An XMTP node, in memory, on loopback")
  yield* fact("v3 API", grpcUrl)
  yield* step(2, "A database")
  yield* fact("SQLite", filename)
  yield* fact("private keys", "sealed with AES-256-GCM before they are written")
  yield* Effect.provide(story, live(filename, grpcUrl))
})

Effect.runPromise(Effect.scoped(program).pipe(Effect.provide(DevNode.layer()))).catch((error: unknown) => {
  console.error(error)
  process.exitCode = 1
})
