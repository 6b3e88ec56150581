/**
 * The groups that the agent is in, and their messages: ts-mls does the cryptography, SQLite keeps the states, sealed like
 * private keys. A group is joined in the transaction that moves the inbox's cursor: neither is written without the other.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import * as MlsCiphersuite from "@keyward/core/crypto/MlsCiphersuite"
import * as AssociationState from "@keyward/core/identity/AssociationState"
import { InboxId } from "@keyward/core/identity/InboxId"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import * as MlsCredential from "@keyward/core/identity/MlsCredential"
import { AssociationStates } from "@keyward/core/peers/AssociationStates"
import { Entropy } from "@keyward/core/ports/Entropy"
import { type GroupMessageEntry, GroupMessages, type GroupSubscription } from "@keyward/core/ports/GroupMessages"
import { KeySealer, Sealed } from "@keyward/core/ports/KeySealer"
import { MlsCrypto } from "@keyward/core/ports/MlsCrypto"
import type * as WelcomeInbox from "@keyward/core/welcome/WelcomeInbox"
import * as Clock from "effect/Clock"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Runtime from "effect/Runtime"
import * as Schema from "effect/Schema"
import {
  type AuthenticationService,
  type ClientState,
  clientStateDecoder,
  clientStateEncoder,
  createApplicationMessage,
  decode,
  encode,
  isDefaultCredential,
  mlsMessageDecoder,
  mlsMessageEncoder,
  processMessage,
  wireformats
} from "ts-mls"
import * as TextMessage from "./TextMessage.ts"

/** ts-mls does not take a message: it is not for us, or one before it was missed. */
export class MlsError extends Data.TaggedError("MlsError")<{ readonly cause: unknown }> {
  override get message(): string {
    return this.cause instanceof Error ? this.cause.message : String(this.cause)
  }
}

/** Something that somebody said. */
export interface Message {
  readonly groupId: Uint8Array
  readonly text: string
}

const Row = Schema.Struct({
  group_id: Schema.Uint8ArrayFromSelf,
  cursor: Schema.BigInt,
  key_id: Schema.String,
  state: Schema.Uint8ArrayFromSelf
})

const mls = <A>(run: () => Promise<A>) => Effect.tryPromise({ try: run, catch: (cause) => new MlsError({ cause }) })

const isInboxId = Schema.is(InboxId)

/** What ts-mls asks of each new leaf: whether it is an installation of the inbox that it names. */
const authenticationService = Effect.gen(function* () {
  const states = yield* AssociationStates
  const runPromise = Runtime.runPromise(yield* Effect.runtime())
  const service: AuthenticationService = {
    validateCredential: (credential, signaturePublicKey) => {
      if (!isDefaultCredential(credential) || !("identity" in credential)) return Promise.resolve(false)
      const decoded = MlsCredential.decode(credential.identity)
      if (Either.isLeft(decoded) || !isInboxId(decoded.right.inboxId)) return Promise.resolve(false)
      const id = InstallationId.fromPublicKey(signaturePublicKey)
      return runPromise(
        Effect.map(states.get([decoded.right.inboxId]), ([found]) =>
          found !== undefined && Either.isRight(found)
            ? AssociationState.installationIds(found.right.state).includes(id)
            : false
        )
      )
    }
  }
  return service
})

/** The conversations of one agent. */
export const make = Effect.gen(function* () {
  const sql = yield* SqlClient.SqlClient
  const sealer = yield* KeySealer
  const messages = yield* GroupMessages
  const context = {
    cipherSuite: MlsCiphersuite.make(yield* MlsCrypto, yield* Entropy),
    authService: yield* authenticationService
  }
  /** A state is read, changed and written by one at a time. */
  const mutex = yield* Effect.makeSemaphore(1)
  /** What we sent comes back: ts-mls cannot read its own messages. */
  const sent = new Set<string>()

  yield* sql`CREATE TABLE IF NOT EXISTS agent_groups (
    group_id BLOB PRIMARY KEY NOT NULL, cursor TEXT NOT NULL, key_id TEXT NOT NULL, state BLOB NOT NULL
  ) STRICT`

  const seal = (state: ClientState, groupId: Uint8Array) =>
    sealer.seal(Redacted.make(encode(clientStateEncoder, state)), groupId)

  const load = (groupId: Uint8Array) =>
    Effect.gen(function* () {
      const [row] = yield* Schema.decodeUnknown(Schema.Array(Row))(
        yield* sql`SELECT * FROM agent_groups WHERE group_id = ${groupId}`
      )
      if (row === undefined) return yield* new MlsError({ cause: new Error("not a member of this group") })
      const bytes = yield* sealer.unseal(new Sealed({ keyId: row.key_id, bytes: row.state }), groupId)
      const state = decode(clientStateDecoder, Redacted.value(bytes))
      if (state === undefined) return yield* new MlsError({ cause: new Error("the stored state cannot be read") })
      return { state, cursor: row.cursor }
    })

  const save = (groupId: Uint8Array, state: ClientState, cursor: bigint) =>
    Effect.flatMap(
      seal(state, groupId),
      (sealed) => sql`INSERT INTO agent_groups ${sql.insert({
        group_id: groupId,
        cursor: String(cursor),
        key_id: sealed.keyId,
        state: sealed.bytes
      })} ON CONFLICT (group_id) DO UPDATE
        SET cursor = excluded.cursor, key_id = excluded.key_id, state = excluded.state`
    )

  /** Whether we are a member, and were not removed. */
  const isIn = (groupId: Uint8Array) =>
    Effect.gen(function* () {
      const rows = yield* sql`SELECT 1 FROM agent_groups WHERE group_id = ${groupId}`
      return rows.length > 0 && (yield* load(groupId)).state.groupActiveState.kind === "active"
    })

  /** What a message does to the state, and what it says. What cannot be read changes nothing. */
  const take = (entry: GroupMessageEntry, state: ClientState) =>
    Effect.gen(function* () {
      const silent = { state, text: Option.none<string>() }
      if (entry._tag === "Unknown" || sent.delete(Buffer.from(entry.data).toString("hex"))) return silent
      const message = decode(mlsMessageDecoder, entry.data)
      if (
        message === undefined ||
        (message.wireformat !== wireformats.mls_private_message &&
          message.wireformat !== wireformats.mls_public_message)
      ) {
        return silent
      }
      const result = yield* mls(() => processMessage({ context, state, message }))
      const text = result.kind === "applicationMessage" ? TextMessage.decode(result.message) : Option.none()
      return { state: result.newState, text }
    }).pipe(
      Effect.catchTag("MlsError", (error) =>
        Effect.as(Effect.logDebug(`a message was passed over: ${error.message}`), {
          state,
          text: Option.none<string>()
        })
      )
    )

  const readGroup = (groupId: Uint8Array) =>
    Effect.gen(function* () {
      const said: Array<Message> = []
      let { cursor, state } = yield* load(groupId)
      for (let hasMore = true; hasMore; ) {
        const page = yield* messages.queryGroupMessages(groupId, { after: cursor })
        for (const entry of page.entries) {
          const taken = yield* take(entry, state)
          state = taken.state
          if (Option.isSome(taken.text)) said.push({ groupId, text: taken.text.value })
        }
        if (page.cursor > cursor) yield* save(groupId, state, page.cursor)
        cursor = page.cursor
        hasMore = page.hasMore
      }
      return said
    })

  const subscriptions = Effect.map(
    Effect.flatMap(sql`SELECT * FROM agent_groups ORDER BY rowid`, Schema.decodeUnknown(Schema.Array(Row))),
    (rows) => rows.map(({ cursor, group_id }): GroupSubscription => ({ groupId: group_id, after: cursor }))
  )

  return {
    /** Where each group is read up to. */
    subscriptions,

    /**
     * The group is ours from the message on that added us. One that we are in stays as it is: anyone may make a group of the
     * same id.
     */
    join: ({ commit, welcome }: WelcomeInbox.Opened) =>
      Effect.gen(function* () {
        if (!(yield* isIn(welcome.groupId))) {
          const cursor = Option.match(welcome.metadata, {
            onNone: () => 0n,
            onSome: ({ messageCursor }) => messageCursor
          })
          yield* save(welcome.groupId, Redacted.value(welcome.state), cursor)
        }
        yield* commit
      }).pipe(sql.withTransaction, mutex.withPermits(1)),

    /** What was said in all groups since the last time. */
    read: Effect.gen(function* () {
      const groups = yield* subscriptions
      return (yield* Effect.forEach(groups, ({ groupId }) => readGroup(groupId))).flat()
    }).pipe(mutex.withPermits(1)),

    /** Says something in a group. */
    send: (groupId: Uint8Array, text: string) =>
      Effect.gen(function* () {
        const { cursor, state } = yield* load(groupId)
        const payload = TextMessage.encode(text, String(yield* Clock.currentTimeNanos))
        const { message, newState } = yield* mls(() => createApplicationMessage({ context, state, message: payload }))
        const data = encode(mlsMessageEncoder, message)
        // A key that has encrypted must not encrypt again: the new state is kept before anything is sent.
        yield* save(groupId, newState, cursor)
        sent.add(Buffer.from(data).toString("hex"))
        yield* messages.sendGroupMessages([{ data, senderHmac: new Uint8Array(0), shouldPush: true }])
      }).pipe(mutex.withPermits(1))
  }
})
