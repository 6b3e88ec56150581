/**
 * The identity logs of a node, and the table of addresses that it derives from them.
 *
 * @since 1.0.0
 */
import { fromBinary } from "@bufbuild/protobuf"
import { IdentityUpdateSchema } from "@keyward/core/gen/xmtp/identity/associations/association_pb"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import type { GrpcStatus } from "./GrpcStatus.ts"
import * as Status from "./GrpcStatus.ts"
import type { InboxMembers } from "./NodeValidation.ts"

/** Updates that one inbox's log takes (xmtp-node-go `pkg/mls/store/store.go`). */
const MAX_UPDATES = 256

/**
 * One update in the log.
 *
 * @since 1.0.0
 * @category models
 */
export interface LoggedUpdate {
  /** Increasing over all inboxes, never 0. */
  readonly sequenceId: bigint
  /** Nanoseconds since 1970, by the node's clock. */
  readonly serverTimestampNs: bigint
  /** The `IdentityUpdate` protobuf, exactly as published. */
  readonly update: Uint8Array
}

/**
 * Which part of which log to read.
 *
 * @since 1.0.0
 * @category models
 */
export interface LogFilter {
  /** Hex. */
  readonly inboxId: string
  /** Only later entries. */
  readonly sequenceId: bigint
}

/**
 * The logs.
 *
 * @since 1.0.0
 * @category models
 */
export interface IdentityLog {
  /** Judges and appends an update to the log of the inbox that it names. */
  readonly publish: (identityUpdate: Uint8Array) => Effect.Effect<void, GrpcStatus>
  /**
   * Appends bytes to the log of an inbox, judged by nobody: what a hostile node would serve. The inbox's members, as the
   * node sees them, stay as they are.
   */
  readonly append: (inboxId: string, identityUpdate: Uint8Array) => Effect.Effect<LoggedUpdate>
  /** One list per filter, in their order, oldest first. */
  readonly read: (
    filters: ReadonlyArray<LogFilter>
  ) => Effect.Effect<ReadonlyArray<ReadonlyArray<LoggedUpdate>>, GrpcStatus>
  /** The inbox that an address was last associated with and not revoked from, if any. Compared as spelt. */
  readonly inboxIdOf: (address: string) => Effect.Effect<string | undefined>
}

interface AddressRow {
  readonly inboxId: string
  readonly associatedAt: bigint
  revokedAt: bigint | undefined
}

const isHex = (text: string): boolean => /^(?:[0-9a-fA-F]{2})*$/.test(text)

/**
 * Empty logs. The first sequence id is 1.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (emptyInbox: InboxMembers): Effect.Effect<IdentityLog> =>
  Effect.gen(function* () {
    const logs = new Map<string, Array<LoggedUpdate>>()
    const members = new Map<string, InboxMembers>()
    const addresses = new Map<string, Array<AddressRow>>()
    // Judging may wait for a chain; the log must not move meanwhile.
    const one = yield* Effect.makeSemaphore(1)
    let lastId = 0n

    const noteAddresses = (inboxId: string, before: ReadonlySet<string>, after: ReadonlySet<string>): void => {
      for (const address of after) {
        if (before.has(address)) continue
        const rows = addresses.get(address) ?? []
        rows.push({ inboxId, associatedAt: lastId, revokedAt: undefined })
        addresses.set(address, rows)
      }
      for (const address of before) {
        if (after.has(address)) continue
        const row = (addresses.get(address) ?? []).filter((candidate) => candidate.inboxId === inboxId).at(-1)
        if (row !== undefined) row.revokedAt = lastId
      }
    }

    const store = (inboxId: string, identityUpdate: Uint8Array): Effect.Effect<LoggedUpdate> =>
      Effect.map(Clock.currentTimeNanos, (serverTimestampNs) => {
        lastId += 1n
        const logged = { sequenceId: lastId, serverTimestampNs, update: new Uint8Array(identityUpdate) }
        const log = logs.get(inboxId)
        if (log === undefined) logs.set(inboxId, [logged])
        else log.push(logged)
        return logged
      })

    const publish: IdentityLog["publish"] = (identityUpdate) =>
      Effect.gen(function* () {
        const inboxId = yield* Effect.try({
          try: () => fromBinary(IdentityUpdateSchema, identityUpdate).inboxId,
          catch: () =>
            new Status.GrpcStatus({ code: Status.code.internal, detail: "grpc: error unmarshalling request" })
        })
        if (!isHex(inboxId)) return yield* Status.unknown("invalid hexadecimal data in inbox id")
        const log = logs.get(inboxId) ?? []
        if (log.length >= MAX_UPDATES) return yield* Status.unknown("inbox log is full")

        const before = members.get(inboxId) ?? emptyInbox
        const after = yield* before.extend(identityUpdate)

        yield* store(inboxId, identityUpdate)
        members.set(inboxId, after)
        noteAddresses(inboxId, before.addresses, after.addresses)
      }).pipe(one.withPermits(1))

    const read: IdentityLog["read"] = (filters) =>
      Effect.gen(function* () {
        if (!filters.every(({ inboxId }) => isHex(inboxId))) {
          return yield* Status.unknown("invalid hexadecimal data in inbox id")
        }
        // The node joins its log with the filters and files the rows by inbox: an inbox that is asked twice gets, in both
        // places, the rows of both filters (xmtp-node-go `queries.sql`, GetInboxLogFiltered).
        const rows = new Map<string, ReadonlyArray<LoggedUpdate>>()
        for (const { inboxId } of filters) {
          if (rows.has(inboxId)) continue
          const cursors = filters.filter((filter) => filter.inboxId === inboxId).map((filter) => filter.sequenceId)
          rows.set(
            inboxId,
            (logs.get(inboxId) ?? []).flatMap((entry) =>
              cursors.filter((cursor) => entry.sequenceId > cursor).map(() => entry)
            )
          )
        }
        return filters.map(({ inboxId }) => rows.get(inboxId) ?? [])
      })

    return {
      publish,
      append: (inboxId, identityUpdate) => one.withPermits(1)(store(inboxId, identityUpdate)),
      read,
      inboxIdOf: (address) =>
        Effect.sync(
          () =>
            (addresses.get(address) ?? [])
              .filter(({ revokedAt }) => revokedAt === undefined)
              .reduce<AddressRow | undefined>(
                (newest, row) => (newest === undefined || row.associatedAt > newest.associatedAt ? row : newest),
                undefined
              )?.inboxId
        )
    }
  })
