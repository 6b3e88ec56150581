/**
 * The dev node is a node to the real client: everything that the client does, it can do here.
 */
import { expect, it } from "@effect/vitest"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import { NodeState } from "@keyward/test-utils/devnode/NodeState"
import * as Faults from "@keyward/test-utils/Faults"
import * as RealClient from "@keyward/test-utils/RealClient"
import type { Message } from "@xmtp/node-bindings"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Queue from "effect/Queue"
import { describeReal } from "../src/Available.ts"
import { freshWallet } from "../src/Wallets.ts"

const register = Effect.flatMap(DevNode.DevNode, ({ grpcUrl }) => RealClient.make({ wallet: freshWallet(), grpcUrl }))

const bytesOf = (hex: string): Uint8Array => Encoding.decodeHex(hex).pipe(Effect.runSync)

const textOf = (message: Message): string => new TextDecoder().decode(message.content.content)

/** Every message that reaches the client from now on, in order. */
const listen = ({ client }: RealClient.RealClient) =>
  Effect.gen(function* () {
    const messages = yield* Queue.unbounded<Message>()
    yield* Effect.acquireRelease(
      RealClient.call("streamAllMessages", async () => {
        const stream = await client.conversations().streamAllMessages(
          (error, message) => {
            if (error === null && message !== undefined) messages.unsafeOffer(message)
          },
          () => {}
        )
        await stream.waitForReady()
        return stream
      }),
      (stream) => Effect.promise(() => stream.endAndWait())
    )
    return messages
  })

/** The next message that is text; membership changes come through the same stream. */
const nextText = (messages: Queue.Dequeue<Message>): Effect.Effect<string> =>
  Effect.flatMap(Queue.take(messages), (message) =>
    message.content.type?.typeId === "text" ? Effect.succeed(textOf(message)) : nextText(messages)
  )

describeReal("the real client on the dev node", () => {
  it.scopedLive("registers: one package and one identity update, in that order, and finds its inbox again", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      const alice = yield* register
      const methods = (yield* faults.calls).map(({ method }) => method)
      expect(methods.filter((method) => method === "uploadKeyPackage")).toHaveLength(1)
      expect(methods.indexOf("uploadKeyPackage")).toBeLessThan(methods.indexOf("publishIdentityUpdate"))

      const node = yield* NodeState
      expect(yield* node.keyPackages.installations).toEqual([alice.installationId])
      const found = yield* RealClient.call("getInboxIdByIdentity", () =>
        alice.client.getInboxIdByIdentity(alice.client.accountIdentifier)
      )
      expect(found).toBe(alice.inboxId)

      const state = yield* RealClient.call("inboxState", () => alice.client.inboxState(true))
      expect(state.installations.map(({ id }) => id)).toEqual([alice.installationId])
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("reports the package of another client, and nothing for an unknown installation", () =>
    Effect.gen(function* () {
      const [alice, bob] = yield* Effect.all([register, register])
      const unknown = "42".repeat(32)
      const statuses = yield* RealClient.keyPackageStatuses(alice, [bob.installationId, unknown])
      expect(statuses[bob.installationId]?.validationError).toBeUndefined()
      expect(statuses[bob.installationId]?.lifetime?.notAfter).toBeGreaterThan(0n)
      expect(statuses[unknown]?.validationError).toContain("EndOfStream")
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("sends a direct message, which arrives through the stream", () =>
    Effect.gen(function* () {
      const node = yield* NodeState
      const [alice, bob] = yield* Effect.all([register, register])
      const inbox = yield* listen(bob)

      const dm = yield* RealClient.call("createDm", () => alice.client.conversations().createDm(bob.inboxId))
      yield* RealClient.call("sendText", () => dm.sendText("hello over the dev node"))

      expect(yield* nextText(inbox)).toBe("hello over the dev node")
      const welcomes = yield* node.welcomes.entries(bytesOf(bob.installationId))
      expect(welcomes.map(({ value }) => value.case)).toEqual(["v1"])
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("makes a group of four by Welcome pointers, which all members can read and write", () =>
    Effect.gen(function* () {
      const node = yield* NodeState
      const [alice, ...others] = yield* Effect.all([register, register, register, register])
      const inboxes = yield* Effect.forEach(others, listen)

      const group = yield* RealClient.call("createGroup", () =>
        alice.client.conversations().createGroup(others.map(({ inboxId }) => inboxId))
      )
      yield* RealClient.call("sendText", () => group.sendText("to all three"))

      for (const inbox of inboxes) expect(yield* nextText(inbox)).toBe("to all three")
      for (const { installationId } of others) {
        const welcomes = yield* node.welcomes.entries(bytesOf(installationId))
        expect(welcomes.map(({ value }) => value.case)).toEqual(["welcomePointer"])
      }

      const [bob] = others
      const theirs = yield* Effect.sync(() => bob?.client.conversations().getConversationById(group.id()))
      yield* RealClient.call("sendText", () => theirs?.sendText("and back") ?? Promise.reject(new Error("no group")))
      yield* RealClient.call("sync", () => group.sync())
      const messages = yield* RealClient.call("listMessages", () => group.listMessages())
      expect(messages.map(textOf)).toContain("and back")
    }).pipe(Effect.provide(DevNode.layer()))
  )

  // The client itself waits five seconds after a Welcome.
  it.scopedLive("rotates its package after a Welcome, and the old one is no longer served", () =>
    Effect.gen(function* () {
      const node = yield* NodeState
      const [alice, bob] = yield* Effect.all([register, register])
      const installation = bytesOf(bob.installationId)
      const [before] = yield* node.keyPackages.fetch([installation])

      yield* RealClient.call("createDm", () => alice.client.conversations().createDm(bob.inboxId))
      yield* RealClient.call("sync", () => bob.client.conversations().sync())
      yield* node.keyPackages
        .history(installation)
        .pipe(Effect.delay("100 millis"), Effect.repeat({ until: (history) => history.length > 1 }))

      const [after] = yield* node.keyPackages.fetch([installation])
      expect(after).not.toEqual(before)
      const statuses = yield* RealClient.keyPackageStatuses(alice, [bob.installationId])
      expect(statuses[bob.installationId]?.validationError).toBeUndefined()
    }).pipe(Effect.provide(DevNode.layer()))
  )

  it.scopedLive("meets the faults that are scripted: an upload that fails is tried again", () =>
    Effect.gen(function* () {
      const faults = yield* Faults.Faults
      yield* faults.enqueue("uploadKeyPackage", Faults.failBeforeSend(), Faults.failAfterAccept())
      const alice = yield* register
      const uploads = yield* faults.callsOf("uploadKeyPackage")
      expect(uploads).toHaveLength(3)
      expect(new Set(uploads.map(({ request }) => Encoding.encodeHex(request))).size).toBe(1)
      const node = yield* NodeState
      expect(yield* node.keyPackages.history(bytesOf(alice.installationId))).toHaveLength(2)
    }).pipe(Effect.provide(DevNode.layer()))
  )
})
