/**
 * Whether an installation can be invited, in words, and what puts it right.
 *
 * @since 1.0.0
 */
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import type { InstallationId } from "../identity/InstallationId.ts"
import type { ApiClient, ApiClientError } from "../ports/ApiClient.ts"
import { type InstallationLedger, KeyPackageStore, type StorageError } from "../ports/KeyPackageStore.ts"
import type { MlsCrypto } from "../ports/MlsCrypto.ts"
import type { SmartContractWalletVerifier } from "../ports/SmartContractWalletVerifier.ts"
import type { Installation } from "./Installation.ts"
import * as Reachability from "./Reachability.ts"
import * as Schedule from "./Schedule.ts"

/**
 * How what is wrong is put right.
 *
 * - `Nothing`: nothing is wrong
 * - `Wait`: it puts itself right, or the network has to answer first
 * - `SendAgain`: the newest package is sent again
 * - `Rotate`: a new package is made and published
 * - `Register`: `registerInstallation` has to be called, again or with another label
 * - `FindClone`: only one process may use this store; the other one has to be stopped
 *
 * @since 1.0.0
 * @category models
 */
export type Remedy = "Nothing" | "Wait" | "SendAgain" | "Rotate" | "Register" | "FindClone"

/**
 * The state of one installation.
 *
 * @since 1.0.0
 * @category models
 */
export interface Explanation {
  readonly installationId: InstallationId
  /** What the network shows; none where it did not answer, or there is no such installation here. */
  readonly reachability: Option.Option<Reachability.Reachability>
  readonly remedy: Remedy
  /** One sentence for each fact, the answer first. For people and logs: no key bytes. */
  readonly sentences: ReadonlyArray<string>
  /** When the scheduler does something next. */
  readonly nextAt: Option.Option<DateTime.Utc>
}

/** What a verdict means and what helps. */
const meaningOf = (verdict: Reachability.Reachability): readonly [sentence: string, remedy: Remedy] =>
  Reachability.Reachability.$match(verdict, {
    Reachable: ({ historyId, until }) =>
      [
        `Can be invited: the network serves key package ${historyId}, valid until ${DateTime.formatIso(until)}, and its keys are here.`,
        "Nothing"
      ] as const,
    AcknowledgementMissing: ({ seen }) =>
      [
        `Can be invited: the network serves key package ${seen.entry.historyId}, whose acceptance never arrived here.`,
        "Wait"
      ] as const,
    AwaitingConfirmation: ({ meanwhile }) =>
      [
        Option.match(meanwhile, {
          onNone: () =>
            "Cannot be invited yet: the network has accepted the newest key package and does not serve it yet.",
          onSome: (historyId) =>
            `Can be invited: the network still serves key package ${historyId}; the newer one is on its way.`
        }),
        "Wait"
      ] as const,
    ServesNothing: () => ["Cannot be invited: the network serves no key package.", "SendAgain"] as const,
    ServesOlder: ({ seen }) =>
      [
        `Can be invited, but not with the newest: the network serves key package ${seen.entry.historyId}, whose keys are kept as long as it does.`,
        "SendAgain"
      ] as const,
    ServesErased: ({ retired }) =>
      [
        `Cannot be invited: the network serves key package ${retired.historyId}, whose keys were erased on ${DateTime.formatIso(retired.retiredAt)} (${retired.reason}).`,
        "SendAgain"
      ] as const,
    ServesDamaged: ({ historyId }) =>
      [
        `Cannot be invited: the network serves key package ${historyId}, whose row in the store is damaged.`,
        "SendAgain"
      ] as const,
    ServesForeign: ({ detail }) => [`Cannot be invited: the network serves ${detail}.`, "SendAgain"] as const,
    Expired: ({ historyId }) =>
      [`Cannot be invited: key package ${historyId}, which the network serves, is not valid now.`, "Rotate"] as const,
    KeysMissing: ({ historyId }) =>
      [`Cannot read invitations: the keys of key package ${historyId} are not in the store.`, "Rotate"] as const,
    DatabaseRestored: () =>
      [
        "Cannot read invitations: the network serves a key package of this installation that this store never made. It was probably restored from an older copy.",
        "Rotate"
      ] as const,
    CloneSuspected: () =>
      [
        "Cannot read invitations: the network serves, once more, a key package of this installation that this store never made. Another process probably works on a copy of this store.",
        "FindClone"
      ] as const,
    Revoked: () =>
      [
        "Cannot be invited: the inbox has revoked this installation. It stays so until it is added again.",
        "Register"
      ] as const,
    NotRegistered: () => ["Cannot be invited: its registration was never finished.", "Register"] as const
  })

const describeSchedule = ({ schedule }: Installation, now: DateTime.Utc): ReadonlyArray<string> => {
  const sentences: Array<string> = []
  const iso = DateTime.formatIso
  Option.map(schedule.failures, ({ count, detail, retryAt, since }) =>
    sentences.push(
      `Rotation has failed ${count} times since ${iso(since)}, last: ${detail}. Tried again at ${iso(retryAt)}.`
    )
  )
  Option.map(schedule.unreachable, ({ since, verdict }) => sentences.push(`${verdict} since ${iso(since)}.`))
  Option.map(Schedule.rotationDueAt(schedule), (at) =>
    sentences.push(
      DateTime.lessThanOrEqualTo(at, now) ? "A rotation is due." : `The next rotation is due at ${iso(at)}.`
    )
  )
  return sentences
}

const describeLedger = ({ entries, quarantined, unreadable }: InstallationLedger): ReadonlyArray<string> => {
  const counts = new Map<string, number>()
  for (const { _tag } of entries) counts.set(_tag, (counts.get(_tag) ?? 0) + 1)
  const rows = [...counts].map(([state, count]) => `${count} ${state}`)
  if (quarantined.length + unreadable.length > 0) rows.push(`${quarantined.length + unreadable.length} damaged`)
  return [`Key packages here: ${rows.length === 0 ? "none" : rows.join(", ")}.`]
}

const describeClock = ({ networkTimeAtLeast, seenAt }: Reachability.Observation): ReadonlyArray<string> =>
  Option.match(networkTimeAtLeast, {
    onNone: () => [],
    onSome: (time) =>
      DateTime.greaterThan(time, DateTime.add(seenAt, { minutes: 1 }))
        ? [
            `The clock of this machine is behind: it says ${DateTime.formatIso(seenAt)}, and the network was at ${DateTime.formatIso(time)} already.`
          ]
        : []
  })

/**
 * Says whether the installation can be invited, why not, and what helps. Asks the network; changes nothing.
 *
 * Fails with `StorageError` where the store cannot be read. A network that does not answer is part of the explanation.
 *
 * @since 1.0.0
 * @category explaining
 */
export const explain: (
  installationId: InstallationId
) => Effect.Effect<Explanation, StorageError, KeyPackageStore | ApiClient | MlsCrypto | SmartContractWalletVerifier> =
  Effect.fn("Explanation.explain")(function* (installationId) {
    const store = yield* KeyPackageStore
    const found = yield* store.getInstallation(installationId)
    if (Option.isNone(found)) {
      const sentences = [`There is no installation ${installationId} in this store.`]
      return {
        installationId,
        reachability: Option.none(),
        remedy: "Register" as const,
        sentences,
        nextAt: Option.none()
      }
    }
    const installation = found.value
    const ledger = yield* store.getLedger(installationId)
    const now = yield* DateTime.now
    const rest = [...describeLedger(ledger), ...describeSchedule(installation, now)]
    const nextAt = Schedule.dueAt(installation.schedule)
    return yield* Reachability.look(installation, ledger).pipe(
      Effect.map((observation): Explanation => {
        const verdict = Reachability.judge(installation, ledger, observation)
        const [sentence, remedy] = meaningOf(verdict)
        const sentences = [sentence, ...describeClock(observation), ...rest]
        return { installationId, reachability: Option.some(verdict), remedy, sentences, nextAt }
      }),
      Effect.catchTag("ApiClientError", (error: ApiClientError) => {
        const sentences = [`Whether it can be invited is not known: ${error.message}.`, ...rest]
        return Effect.succeed<Explanation>({
          installationId,
          reachability: Option.none(),
          remedy: "Wait",
          sentences,
          nextAt
        })
      })
    )
  })
