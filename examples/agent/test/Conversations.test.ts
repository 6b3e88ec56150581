/** What the agent keeps of its groups. */
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import { expect, it } from "@effect/vitest"
import * as MlsCiphersuite from "@keyward/core/crypto/MlsCiphersuite"
import * as NodeCrypto from "@keyward/core/crypto/NodeCrypto"
import { InstallationId } from "@keyward/core/identity/InstallationId"
import { AssociationStates } from "@keyward/core/peers/AssociationStates"
import { Entropy } from "@keyward/core/ports/Entropy"
import { GroupMessages } from "@keyward/core/ports/GroupMessages"
import { MlsCrypto } from "@keyward/core/ports/MlsCrypto"
import type * as WelcomeInbox from "@keyward/core/welcome/WelcomeInbox"
import * as PlaintextKeySealer from "@keyward/test-utils/PlaintextKeySealer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { type ClientState, createGroup, defaultCredentialTypes, generateKeyPackage } from "ts-mls"
import * as Conversations from "../src/Conversations.ts"

const live = Layer.mergeAll(
  SqliteClient.layer({ filename: ":memory:" }),
  PlaintextKeySealer.layer,
  NodeCrypto.layer,
  Layer.mock(GroupMessages, {}),
  Layer.mock(AssociationStates, {})
)

const groupId = new Uint8Array(16).fill(7)

/** A group of that id, of one member. */
const aGroup = Effect.gen(function* () {
  const cipherSuite = MlsCiphersuite.make(yield* MlsCrypto, yield* Entropy)
  return yield* Effect.promise(async () => {
    const credential = { credentialType: defaultCredentialTypes.basic, identity: new Uint8Array(3) }
    const { privatePackage, publicPackage } = await generateKeyPackage({ credential, cipherSuite })
    return createGroup({
      context: { cipherSuite, authService: { validateCredential: () => Promise.resolve(true) } },
      groupId,
      keyPackage: publicPackage,
      privateKeyPackage: privatePackage
    })
  })
})

it.effect("a group that we are in is not replaced by another of the same id, unless we were removed", () =>
  Effect.gen(function* () {
    const conversations = yield* Conversations.make
    const inboxId = "a1".repeat(32)
    let commits = 0
    const join = (state: ClientState, messageCursor: bigint) => {
      const member = {
        inboxId,
        installationId: "b2".repeat(32),
        leafIndex: 0
      } as WelcomeInbox.Opened["welcome"]["addedBy"]
      const delivery: WelcomeInbox.Opened = {
        _tag: "Opened",
        installationId: InstallationId.make("b2".repeat(32)),
        id: 1n,
        attempt: 1,
        commit: Effect.sync(() => {
          commits++
        }),
        welcome: {
          id: 1n,
          createdNs: 0n,
          keyPackageRef: "00" as WelcomeInbox.Opened["welcome"]["keyPackageRef"],
          metadata: Option.some({ messageCursor }),
          groupId,
          epoch: 0n,
          members: [member],
          addedBy: member,
          groupMembership: { members: new Map(), failedInstallations: new Set() },
          groupMetadata: { conversationType: "Group", creatorInboxId: inboxId, dmMembers: Option.none() },
          state: Redacted.make(state)
        }
      }
      return conversations.join(delivery)
    }
    const readFrom = Effect.map(conversations.subscriptions, (groups) => groups.map(({ after }) => after))
    const removed: ClientState = { ...(yield* aGroup), groupActiveState: { kind: "removedFromGroup" } }
    yield* join(removed, 3n)
    yield* join(yield* aGroup, 5n)
    expect(yield* readFrom).toEqual([5n])
    yield* join(yield* aGroup, 9n)
    expect(yield* readFrom).toEqual([5n])
    expect(commits).toBe(3)
  }).pipe(Effect.provide(live))
)
