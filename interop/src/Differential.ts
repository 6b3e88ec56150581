/**
 * This library and the real client judge the same logs, served by the same node. Whatever one takes the other must take,
 * as the same state.
 */
import * as AssociationState from "@keyward/core/identity/AssociationState"
import { CurveBackend, type Operations } from "@keyward/core/identity/CurveBackend"
import * as FastCurveBackend from "@keyward/core/identity/FastCurveBackend"
import * as IdentityLog from "@keyward/core/identity/IdentityLog"
import { InboxId } from "@keyward/core/identity/InboxId"
import type { RootIdentifier } from "@keyward/core/identity/MemberIdentifier"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import * as GrpcTransport from "@keyward/network/GrpcTransport"
import * as NodeSmartContractWalletVerifier from "@keyward/network/NodeSmartContractWalletVerifier"
import * as V3ApiClient from "@keyward/network/V3ApiClient"
import * as DevNode from "@keyward/test-utils/devnode/DevNode"
import { NodeState } from "@keyward/test-utils/devnode/NodeState"
import * as NodeValidation from "@keyward/test-utils/devnode/NodeValidation"
import * as Mutation from "@keyward/test-utils/Mutation"
import * as RealClient from "@keyward/test-utils/RealClient"
import * as VectorWallets from "@keyward/test-utils/VectorWallets"
import type * as NodeBindings from "@xmtp/node-bindings"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as RandomLogs from "./RandomLogs.ts"

/** What one of the two makes of a log. */
interface Verdict {
  /** The state in one line; nothing where the log is refused. */
  readonly state: string | undefined
  /** Why it is refused, in the judge's own words. */
  readonly refusal: string | undefined
}

/** A log on which the two do not agree. */
export interface Difference {
  readonly index: number
  readonly flaw: RandomLogs.Flaw | undefined
  /** Hex. */
  readonly updates: ReadonlyArray<string>
  readonly ours: Verdict
  readonly theirs: Verdict
}

/** What a run has found. */
export interface Report {
  readonly runs: number
  readonly seed: number
  readonly accepted: number
  readonly refused: number
  /** How many logs had each flaw, and of those how many were refused. */
  readonly flaws: Readonly<Record<string, { readonly logs: number; readonly refused: number }>>
  /** Our refusals by stage and reason. */
  readonly reasons: Readonly<Record<string, number>>
  readonly differences: ReadonlyArray<Difference>
}

const lineOf = (
  inboxId: string,
  recovery: string,
  installations: ReadonlyArray<string>,
  identifiers: ReadonlyArray<string>
): string =>
  JSON.stringify({ inboxId, recovery, installations: installations.toSorted(), identifiers: identifiers.toSorted() })

const rootText = (identifier: RootIdentifier): string =>
  identifier._tag === "Ethereum" ? `0:${identifier.address}` : `1:${identifier.publicKey}`

/** Our state in one line, to compare. */
export const ourLine = (state: AssociationState.AssociationState): string =>
  lineOf(
    state.inboxId,
    rootText(state.recoveryIdentifier),
    AssociationState.members(state).flatMap(({ clientTimestampNs, identifier }) =>
      identifier._tag === "Installation" ? [`${identifier.publicKey}@${clientTimestampNs}`] : []
    ),
    AssociationState.rootIdentifiers(state).map(rootText)
  )

const theirText = ({ identifier, identifierKind }: NodeBindings.Identifier): string => `${identifierKind}:${identifier}`

/** The real client's state in one line, to compare. */
export const theirLine = (state: NodeBindings.InboxState): string =>
  lineOf(
    state.inboxId,
    theirText(state.recoveryIdentifier),
    state.installations.map(({ clientTimestampNs, id }) => `${id}@${clientTimestampNs}`),
    state.identifiers.map(theirText)
  )

/** Reads the log from the node and resolves it, with the reference curves and with the fast ones. */
const ours = Effect.fn("Differential.ours")(function* (inboxId: string, fastCurves: Operations) {
  const api = yield* ApiClient
  const [log = []] = yield* api.getIdentityUpdates([{ inboxId: InboxId.make(inboxId), after: 0n }])
  const updates = log.map(({ update }) => update)
  const resolve = Effect.either(IdentityLog.resolve(updates))
  const reference = yield* resolve
  const fast = yield* Effect.provideService(resolve, CurveBackend, fastCurves)
  const line = (result: typeof reference) => (Either.isRight(result) ? ourLine(result.right) : result.left.message)
  if (line(reference) !== line(fast)) {
    return yield* Effect.dieMessage(`the curve backends differ: ${line(reference)} and ${line(fast)}`)
  }
  return reference
})

const theirs = (bindings: typeof NodeBindings, backend: NodeBindings.Backend, inboxId: string) =>
  RealClient.call("fetchInboxStatesByInboxIds", () => bindings.fetchInboxStatesByInboxIds(backend, [inboxId])).pipe(
    Effect.match({
      onSuccess: ([state]): Verdict => ({ state: state && theirLine(state), refusal: undefined }),
      onFailure: ({ message }): Verdict => ({ state: undefined, refusal: message })
    })
  )

/** Logs under judgement at once: the client waits and tries again where the node's answer is no protobuf. */
const CONCURRENCY = 32

/** A node that judges smart contract wallets by the vectors' rule, and our client of it. */
const world = DevNode.layer({ validation: NodeValidation.layerWith(VectorWallets.layer) })
const client = Layer.unwrapEffect(
  Effect.map(DevNode.DevNode, ({ grpcUrl }) =>
    Layer.merge(V3ApiClient.layer(), NodeSmartContractWalletVerifier.layer()).pipe(
      Layer.provide(GrpcTransport.layer({ url: grpcUrl }))
    )
  )
)

const isHex64 = (text: string): boolean => /^[0-9a-f]{64}$/.test(text)

/** Makes so many logs from the seed, puts them into a node as they are, and compares the verdicts. */
export const run = (options: { readonly runs: number; readonly seed: number }) =>
  Effect.gen(function* () {
    const { runs, seed } = options
    const { grpcUrl } = yield* DevNode.DevNode
    const { identity } = yield* NodeState
    const bindings = yield* RealClient.load
    const backend = yield* RealClient.backend(grpcUrl)
    const fastCurves = yield* FastCurveBackend.make
    const next = Mutation.generator(seed)
    const logs: Array<RandomLogs.RandomLog> = []
    for (let index = 0; index < runs; index++) {
      const log = yield* RandomLogs.make(next).pipe(
        Effect.provide(VectorWallets.layer),
        Effect.provideService(CurveBackend, fastCurves)
      )
      // At times under another inbox's id.
      const inboxId =
        next(25) > 0 && isHex64(log.inboxId) ? log.inboxId : Buffer.from(Mutation.bytes(next, 32)).toString("hex")
      logs.push({ ...log, inboxId })
      for (const update of log.updates) yield* identity.append(inboxId, update)
    }

    const flaws: Record<string, { logs: number; refused: number }> = {}
    const reasons: Record<string, number> = {}
    const differences: Array<Difference> = []
    let accepted = 0
    yield* Effect.forEach(
      logs,
      ({ flaw, inboxId, updates }, index) =>
        Effect.gen(function* () {
          const [our, their] = yield* Effect.all([ours(inboxId, fastCurves), theirs(bindings, backend, inboxId)], {
            concurrency: 2
          })
          const verdict = Either.match(our, {
            onRight: (state): Verdict => ({ state: ourLine(state), refusal: undefined }),
            onLeft: ({ message }): Verdict => ({ state: undefined, refusal: message })
          })
          const count = (flaws[flaw ?? "none"] ??= { logs: 0, refused: 0 })
          count.logs++
          if (Either.isRight(our)) accepted++
          else {
            count.refused++
            const reason = `${our.left.stage}: ${our.left.reason}`
            reasons[reason] = (reasons[reason] ?? 0) + 1
          }
          if (verdict.state !== their.state) {
            const hex = updates.map((update) => Buffer.from(update).toString("hex"))
            differences.push({ index, flaw, updates: hex, ours: verdict, theirs: their })
          }
        }),
      { concurrency: CONCURRENCY, discard: true }
    )
    return { runs, seed, accepted, refused: runs - accepted, flaws, reasons, differences } satisfies Report
  }).pipe(Effect.provide(client), Effect.provide(world))
