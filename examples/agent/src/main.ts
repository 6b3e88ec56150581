/**
 * An agent that can be invited: it registers, waits for invitations, prints each message that it can read, and keeps itself
 * reachable until it is stopped (Ctrl-C).
 *
 * With nothing set, everything is thrown away at the end: a dev node of its own, a new wallet, a temporary database, and the
 * network's own client as a friend who says hello. With `XMTP_URL` it works on that node, as the wallet of `WALLET_KEY`, with
 * the database `KEYWARD_DB` sealed under `SEALING_KEY`, and goes on where it was.
 */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as NodeCrypto from "@keyward/core/crypto/NodeCrypto"
import * as Identifier from "@keyward/core/identity/Identifier"
import * as LifecycleEvents from "@keyward/core/lifecycle/LifecycleEvents"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import * as Scheduler from "@keyward/core/lifecycle/Scheduler"
import * as AssociationStates from "@keyward/core/peers/AssociationStates"
import { Entropy } from "@keyward/core/ports/Entropy"
import { GroupMessages } from "@keyward/core/ports/GroupMessages"
import { Signer, SignerError } from "@keyward/core/ports/Signer"
import * as SmartContractWalletVerifier from "@keyward/core/ports/SmartContractWalletVerifier"
import * as WelcomeInbox from "@keyward/core/welcome/WelcomeInbox"
import * as GrpcTransport from "@keyward/network/GrpcTransport"
import * as V3ApiClient from "@keyward/network/V3ApiClient"
import * as V3GroupMessages from "@keyward/network/V3GroupMessages"
import * as AesGcmKeySealer from "@keyward/storage/AesGcmKeySealer"
import * as SqliteAssociationStateCache from "@keyward/storage/SqliteAssociationStateCache"
import * as SqliteKeyPackageStore from "@keyward/storage/SqliteKeyPackageStore"
import * as SqliteWelcomeCursorStore from "@keyward/storage/SqliteWelcomeCursorStore"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import * as RealClient from "@keyward/test-utils/RealClient"
import * as Arr from "effect/Array"
import * as Cause from "effect/Cause"
import * as Config from "effect/Config"
import { isConfigError } from "effect/ConfigError"
import * as Console from "effect/Console"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { type Hex, hexToBytes } from "viem"
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts"
import * as Conversations from "./Conversations.ts"

/** What the agent is told, or makes up. */
interface Setup {
  readonly nodeUrl: string
  readonly walletKey: Redacted.Redacted
  readonly database: string
  readonly sealingKey: Redacted.Redacted<Uint8Array>
}

const say = (what: string, text: string) => Console.log(`${what.padEnd(10)} ${text}`)

const short = (id: Uint8Array | string) =>
  (typeof id === "string" ? id : Buffer.from(id).toString("hex")).slice(0, 8).concat("…")

const signer = (walletKey: Redacted.Redacted) => {
  const account = privateKeyToAccount(Redacted.value(walletKey) as Hex)
  return Layer.succeed(Signer, {
    identifier: Identifier.ethereum(account.address),
    signText: (text) =>
      Effect.tryPromise({
        try: async () => hexToBytes(await account.signMessage({ message: text })),
        catch: (cause) => new SignerError({ reason: "Refused", cause })
      })
  })
}

/** One database, one connection to the node; the scheduler on the inbox, so that no key goes before its Welcomes are read. */
const live = ({ database, nodeUrl, sealingKey, walletKey }: Setup) => {
  const storage = Layer.mergeAll(
    SqliteKeyPackageStore.layerClient,
    SqliteAssociationStateCache.layerClient,
    SqliteWelcomeCursorStore.layerClient
  ).pipe(
    Layer.provideMerge(
      Layer.merge(SqliteClient.layer({ filename: database }), AesGcmKeySealer.layer({ keyId: "2026", key: sealingKey }))
    )
  )
  const network = Layer.merge(V3ApiClient.layer(), V3GroupMessages.layer()).pipe(
    Layer.provide(GrpcTransport.layer({ url: nodeUrl }))
  )
  return Layer.mergeAll(Scheduler.layer(), signer(walletKey)).pipe(
    Layer.provideMerge(WelcomeInbox.layer()),
    Layer.provideMerge(AssociationStates.layer()),
    Layer.provideMerge(Layer.mergeAll(storage, network, SmartContractWalletVerifier.layerNone, LifecycleEvents.layer)),
    Layer.provideMerge(NodeCrypto.layer)
  )
}

/** Prints what is said in the groups, as it is said: a stream says when to read, and reading misses nothing. */
const follow = (conversations: Effect.Effect.Success<typeof Conversations.make>, joined: Queue.Dequeue<void>) =>
  Effect.gen(function* () {
    const { subscribeGroupMessages } = yield* GroupMessages
    const once = Effect.gen(function* () {
      for (const { groupId, text } of yield* conversations.read) yield* say("message", `${short(groupId)} ${text}`)
      const groups = yield* conversations.subscriptions
      const news = Arr.isNonEmptyReadonlyArray(groups)
        ? Stream.runDrain(Stream.take(subscribeGroupMessages(groups), 1))
        : Effect.never
      yield* Effect.raceFirst(Effect.raceFirst(Queue.take(joined), news), Effect.sleep("30 seconds"))
    })
    return yield* Effect.catchAll(once, (error) =>
      Effect.zipRight(say("trouble", error.message), Effect.sleep("2 seconds"))
    ).pipe(Effect.forever)
  })

const agent = (onReady: (inboxId: string) => Effect.Effect<void>) =>
  Effect.gen(function* () {
    const inbox = yield* WelcomeInbox.WelcomeInbox
    const conversations = yield* Conversations.make
    const joined = yield* Queue.sliding<void>(1)

    yield* LifecycleEvents.events().pipe(
      Stream.runForEach((event) =>
        event._tag === "Published" || event._tag === "Superseded" || event._tag === "Retired"
          ? say("package", `#${event.historyId} ${event._tag}`)
          : Effect.void
      ),
      Effect.fork
    )
    const { inboxId, installationId } = yield* registerInstallation({ includePostQuantum: true })
    yield* say("inbox", inboxId)

    const welcome = inbox.run(installationId, (delivery) => {
      if (delivery._tag === "Unopenable") return say("invited", `but not to be opened: ${delivery.error.message}`)
      const { addedBy, groupId, groupMetadata, members } = delivery.welcome
      const kind = groupMetadata.conversationType === "Dm" ? "DM" : `group of ${members.length}`
      return Effect.zipRight(
        conversations.join(delivery),
        Effect.zipRight(
          say("invited", `to ${short(groupId)}, a ${kind}, by inbox ${short(addedBy.inboxId)}`),
          Queue.offer(joined, undefined)
        )
      )
    })
    yield* Effect.fork(onReady(inboxId))
    return yield* Effect.all([welcome, follow(conversations, joined)], { concurrency: "unbounded", discard: true })
  })

/** The network's own client, which says hello: in a DM, and in a group. */
const friend = (nodeUrl: string) => (inboxId: string) =>
  Effect.gen(function* () {
    const wallet = privateKeyToAccount(generatePrivateKey())
    const { client } = yield* RealClient.make({ wallet, grpcUrl: nodeUrl })
    const conversations = client.conversations()
    const dm = yield* RealClient.call("createDm", () => conversations.createDm(inboxId))
    yield* RealClient.call("sendText", () => dm.sendText("hello from libxmtp"))
    const group = yield* RealClient.call("createGroup", () => conversations.createGroup([inboxId]))
    yield* RealClient.call("sendText", () => group.sendText("welcome to the group"))
  }).pipe(
    Effect.scoped,
    Effect.catchAll((error) => say("friend", error.message))
  )

const temporaryFolder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "keyward-agent-"))),
  (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
)

/** Everything for this run alone. */
const alone = Effect.gen(function* () {
  const { grpcUrl } = yield* DevNode.DevNode
  const folder = yield* temporaryFolder
  const { randomBytes } = yield* Entropy
  const setup: Setup = {
    nodeUrl: grpcUrl,
    walletKey: Redacted.make(generatePrivateKey()),
    database: join(folder, "agent.db"),
    sealingKey: Redacted.make(randomBytes(32))
  }
  yield* say("node", `${grpcUrl}, in this process`)
  return yield* Effect.provide(agent(friend(grpcUrl)), live(setup))
}).pipe(Effect.provide(Layer.merge(DevNode.layer(), NodeCrypto.layer)), Effect.scoped)

const walletKey = Config.validate(Config.redacted("WALLET_KEY"), {
  message: "WALLET_KEY: expected 0x and 64 hex digits",
  validation: (key) => /^0x[0-9a-f]{64}$/i.test(Redacted.value(key))
})

const onNode = (nodeUrl: string) =>
  Effect.gen(function* () {
    const setup: Setup = {
      nodeUrl,
      walletKey: yield* walletKey,
      database: yield* Config.string("KEYWARD_DB"),
      sealingKey: yield* AesGcmKeySealer.key("SEALING_KEY")
    }
    yield* say("node", nodeUrl)
    return yield* Effect.provide(
      agent(() => Effect.void),
      live(setup)
    )
  })

const program = Effect.flatMap(
  Config.option(Config.string("XMTP_URL")),
  Option.match({ onNone: () => alone, onSome: onNode })
)

// Only the whole of a ConfigError names what is missing.
const fiber = Effect.runFork(
  program.pipe(
    Effect.tapError((error) => Console.error(isConfigError(error) ? String(error) : error.message)),
    Effect.tapDefect((bug) => Console.error(Cause.pretty(bug)))
  )
)
const stop = () => Effect.runFork(Fiber.interrupt(fiber))
process.on("SIGINT", stop).on("SIGTERM", stop)
fiber.addObserver((exit) => {
  process.exitCode = Exit.isSuccess(exit) || Exit.isInterrupted(exit) ? 0 : 1
})
