/**
 * Whether the members of a group are who the group says they are.
 *
 * @since 1.0.0
 */
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as AssociationState from "../identity/AssociationState.ts"
import type { InboxId } from "../identity/InboxId.ts"
import type { InstallationId } from "../identity/InstallationId.ts"
import { AssociationStateError, AssociationStates, type ReadOptions } from "../peers/AssociationStates.ts"
import type { GroupMembership } from "./GroupMembership.ts"
import { MemberNotAuthorized, MembersUnknown, ofAssociationState } from "./WelcomeError.ts"

/**
 * A leaf of the group's tree, as it names itself.
 *
 * @since 1.0.0
 * @category models
 */
export interface Member {
  readonly inboxId: InboxId
  readonly installationId: InstallationId
  /** Its place, counted from 0 at the left of the tree. */
  readonly leafIndex: number
}

/** States at their sequence ids that are computed at once, where they are not the newest ones. */
const STATES_AT_A_TIME = 4

/**
 * A state at a sequence id never changes, so how long ago it was read does not matter; longer than any process lives.
 */
const EVER = "36500 days"

/** An inbox whose newest state is not the one wanted. */
interface Other {
  readonly inboxId: InboxId
  readonly sequenceId: bigint
  /** The state is known only up to an earlier update, or not at all. */
  readonly isBehind: boolean
}

/** The state of each inbox at the sequence id that the group states, in as few requests as there can be. */
const statesAt = (
  membership: GroupMembership
): Effect.Effect<
  ReadonlyMap<InboxId, AssociationState.AssociationState>,
  MemberNotAuthorized | MembersUnknown,
  AssociationStates
> =>
  Effect.gen(function* () {
    const states = yield* AssociationStates
    const found = new Map<InboxId, AssociationState.AssociationState>()
    /** Takes the states that are just the ones wanted, and gives back the rest. */
    const take = (
      inboxes: ReadonlyArray<readonly [InboxId, bigint]>,
      options: ReadOptions
    ): Effect.Effect<ReadonlyArray<Other>, MemberNotAuthorized | MembersUnknown> =>
      Effect.gen(function* () {
        const answers = yield* states.get(
          inboxes.map(([inboxId]) => inboxId),
          options
        )
        const others: Array<Other> = []
        for (const [index, [inboxId, sequenceId]] of inboxes.entries()) {
          const known = answers[index]
          if (known === undefined) continue
          // A node that could not be asked for many is not asked for each.
          if (Either.isLeft(known) && known.left.isRetryable) return yield* ofAssociationState(known.left)
          if (Either.isRight(known) && known.right.sequenceId === sequenceId) found.set(inboxId, known.right.state)
          else {
            const isBehind = Either.match(known, {
              onLeft: ({ reason }) => reason._tag === "UnknownInbox",
              onRight: (newest) => newest.sequenceId < sequenceId
            })
            others.push({ inboxId, sequenceId, isBehind })
          }
        }
        return others
      })
    const others = yield* take([...membership.members], { maxAge: EVER })
    const behind = others.filter(({ isBehind }) => isBehind)
    const asked =
      behind.length === 0
        ? []
        : yield* take(
            behind.map(({ inboxId, sequenceId }) => [inboxId, sequenceId] as const),
            {}
          )
    // The node may show the update later than the Welcome that speaks of it.
    const unseen = asked.find(({ isBehind }) => isBehind)
    if (unseen !== undefined) {
      const { inboxId, sequenceId } = unseen
      const reason = { _tag: "MissingIdentityUpdate", sequenceId } as const
      return yield* new MembersUnknown({ inboxId, cause: new AssociationStateError({ inboxId, reason }) })
    }
    const rest = [...others.filter(({ isBehind }) => !isBehind), ...asked]
    yield* Effect.forEach(
      rest,
      ({ inboxId, sequenceId }) =>
        Effect.map(Effect.mapError(states.getAt(inboxId, sequenceId), ofAssociationState), (state) => {
          found.set(inboxId, state)
        }),
      { concurrency: STATES_AT_A_TIME, discard: true }
    )
    return found
  })

/**
 * Fails unless each leaf is an installation of its inbox, each inbox is in the group's list, and each installation of the
 * listed inboxes is a leaf, or one of those that could not be added. The leaves' keys are distinct (MLS sees to that).
 *
 * @since 1.0.0
 * @category authorization
 */
export const authorize: (
  membership: GroupMembership,
  members: ReadonlyArray<Member>
) => Effect.Effect<void, MemberNotAuthorized | MembersUnknown, AssociationStates> = Effect.fn(
  "MemberAuthorization.authorize"
)(function* (membership, members) {
  // Before anything is asked: who is not in the list needs no log.
  for (const member of members) {
    if (!membership.members.has(member.inboxId)) {
      return yield* new MemberNotAuthorized({ ...member, reason: "NotInGroup" })
    }
  }
  const states = yield* statesAt(membership)
  /** The inbox that each installation came for. */
  const present = new Map<string, InboxId>()
  for (const member of members) {
    const state = states.get(member.inboxId)
    if (state === undefined || !AssociationState.hasInstallation(state, member.installationId)) {
      return yield* new MemberNotAuthorized({ ...member, reason: "NotAnInstallation" })
    }
    present.set(member.installationId, member.inboxId)
  }
  for (const [inboxId, state] of states) {
    for (const { identifier } of state.members.values()) {
      if (identifier._tag !== "Installation") continue
      const installationId = identifier.publicKey
      if (present.get(installationId) !== inboxId && !membership.failedInstallations.has(installationId)) {
        return yield* new MemberNotAuthorized({ inboxId, installationId, reason: "MissingFromTree" })
      }
    }
  }
})
