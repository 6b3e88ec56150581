/**
 * An XMTP network in a simulated world: one truth, told to each process through whatever goes wrong between. It knows what it
 * served when, which no real node tells.
 *
 * @since 1.0.0
 */
import { fromBinary } from "@bufbuild/protobuf"
import {
  type IdentityAction,
  type IdentityUpdate,
  IdentityUpdateSchema
} from "@keyward/core/gen/xmtp/identity/associations/association_pb"
import type { Signature } from "@keyward/core/gen/xmtp/identity/associations/signature_pb"
import { InboxId } from "@keyward/core/identity/InboxId"
import * as InstallationId from "@keyward/core/identity/InstallationId"
import * as Codec from "@keyward/core/keypackage/Codec"
import * as KeyPackageRef from "@keyward/core/keypackage/KeyPackageRef"
import {
  type ApiClient,
  ApiClientError,
  type IdentityUpdateLogEntry,
  type Operation
} from "@keyward/core/ports/ApiClient"
import { sha256 } from "@noble/hashes/sha2.js"
import type * as Context from "effect/Context"
import * as Data from "effect/Data"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"

/**
 * What goes wrong with one call.
 *
 * - `Lost`: it never arrives, and the connection breaks
 * - `Unheard`: it is done, and the connection breaks before the answer
 * - `Hang`: no answer ever, whether or not it is done
 * - `Late`: no answer ever; it is done so many milliseconds later, whatever the caller does meanwhile
 * - `Doubled`: done and answered, and done once more so many milliseconds later
 * - `Accepted`: answered as if it were done; done when the test says so, by calling what it is given
 * - `Refused`: not done, and answered with this error
 * - `Stale`: a reading of what was true so many milliseconds ago; a write is done
 * - `Wrong`: key packages are answered with these bytes, or with nothing; other calls are done
 *
 * @since 1.0.0
 * @category models
 */
export type NetworkFault = Data.TaggedEnum<{
  Lost: {}
  Unheard: {}
  Hang: { readonly isDone: boolean }
  Late: { readonly millis: number }
  Doubled: { readonly millis: number }
  Accepted: { readonly later: (land: () => void) => void }
  Refused: { readonly reason: ApiClientError["reason"]; readonly retryAfter?: Duration.Duration }
  Stale: { readonly millis: number }
  Wrong: { readonly bytes: Uint8Array | undefined }
}>

/**
 * @since 1.0.0
 * @category constructors
 */
export const NetworkFault = Data.taggedEnum<NetworkFault>()

const signaturesIn = ({ kind }: IdentityAction): ReadonlyArray<Signature | undefined> => {
  switch (kind.case) {
    case "add":
      return [kind.value.existingMemberSignature, kind.value.newMemberSignature]
    case "revoke":
      return [kind.value.recoveryIdentifierSignature]
    case "changeRecoveryAddress":
      return [kind.value.existingRecoveryIdentifierSignature]
    case "createInbox":
      return [kind.value.initialIdentifierSignature]
    default:
      return []
  }
}

/** The signatures of wallets and installations, hex. */
const signaturesOf = ({ actions }: IdentityUpdate): ReadonlyArray<string> =>
  actions.flatMap(signaturesIn).flatMap((signed) => {
    const signature = signed?.signature
    return signature?.case === "erc191" || signature?.case === "installationKey"
      ? [Buffer.from(signature.value.bytes).toString("hex")]
      : []
  })

/**
 * Why a package is served from some moment on.
 *
 * - `Upload`: somebody uploaded it, and the network took it at once
 * - `Late`: an upload arrived long after it was sent, or once more
 * - `Replay`: somebody else uploaded a copy; uploads bear no signature
 * - `Forgotten`: the network lost what came later, or everything
 *
 * @since 1.0.0
 * @category models
 */
export type Cause = "Upload" | "Late" | "Replay" | "Forgotten"

/**
 * What was served for an installation from a moment on.
 *
 * @since 1.0.0
 * @category models
 */
export interface Serving {
  /** None: nothing. */
  readonly bytes: Uint8Array | undefined
  readonly ref: KeyPackageRef.KeyPackageRef | undefined
  /** True time, milliseconds since 1970. */
  readonly from: number
  readonly cause: Cause
  /** When it was sent; equal to `from` unless it was late. */
  readonly sentAt: number
  /** The end of its lifetime, milliseconds since 1970; 0 for what is no package. */
  readonly notAfter: number
}

/**
 * A call, as faults are chosen by it.
 *
 * @since 1.0.0
 * @category models
 */
export interface NetworkCall {
  readonly caller: string
  readonly operation: Operation
}

/**
 * What the network needs of the world.
 *
 * @since 1.0.0
 * @category models
 */
export interface NetworkWorld {
  /** True time, milliseconds since 1970. */
  readonly now: () => number
  /** Has something done at this time. */
  readonly at: (millis: number, task: () => void) => void
}

/** Never answers. `Effect.never` would keep a timer of the platform for each. */
const silence: Effect.Effect<never> = Effect.async(() => {})

const refOf = (bytes: Uint8Array): KeyPackageRef.KeyPackageRef => KeyPackageRef.hashWith({ sha256 }, bytes)

interface Judged {
  readonly owner: InstallationId.InstallationId
  readonly notBefore: bigint
  readonly notAfter: bigint
}

/**
 * The network. Tests read all of it, and do to it what no client may.
 *
 * @since 1.0.0
 * @category models
 */
export class SimulatedNetwork {
  /** Asked for each call; none unless a test says otherwise. */
  faultFor: (call: NetworkCall) => NetworkFault | undefined = () => undefined
  /** Told of every change. */
  onChange: () => void = () => {}
  /** By how much the slowest of its nodes is behind, milliseconds: how old what readers are shown may be. */
  lag = 0
  /** How far behind the node is that is asked; 0 unless a test says otherwise, and less than `lag`. */
  lagFor: (call: NetworkCall) => number = () => 0
  /** How often anything in it has changed. */
  changes = 0
  /** Every upload that reached the network, the refused ones included. */
  uploads = 0

  readonly #world: NetworkWorld
  readonly #served = new Map<InstallationId.InstallationId, Array<Serving>>()
  readonly #logs = new Map<InboxId, Array<IdentityUpdateLogEntry>>()
  readonly #inboxes = new Map<string, InboxId>()
  readonly #judged = new Map<string, Judged | undefined>()
  #sequenceId = 0n

  constructor(world: NetworkWorld) {
    this.#world = world
  }

  /** What is served now; none while nothing ever was. */
  served(id: InstallationId.InstallationId): Serving | undefined {
    return this.#served.get(id)?.at(-1)
  }

  /** What was served at a time. */
  servedAt(id: InstallationId.InstallationId, millis: number): Serving | undefined {
    return this.#served.get(id)?.findLast(({ from }) => from <= millis)
  }

  /** What its nodes show now: what was served at some time within the lag. */
  shown(id: InstallationId.InstallationId): ReadonlyArray<Serving> {
    const history = this.#served.get(id) ?? []
    const since = this.#world.now() - this.lag
    const first = history.findLastIndex(({ from }) => from <= since)
    return history.slice(Math.max(0, first))
  }

  /** All that was ever served, oldest first. */
  history(id: InstallationId.InstallationId): ReadonlyArray<Serving> {
    return this.#served.get(id) ?? []
  }

  /** Serves these bytes from now on, or nothing. */
  serve(
    id: InstallationId.InstallationId,
    bytes: Uint8Array | undefined,
    cause: Cause,
    sentAt: number = this.#world.now()
  ): void {
    const serving: Serving = {
      bytes,
      ref: bytes === undefined ? undefined : refOf(bytes),
      from: this.#world.now(),
      cause,
      sentAt,
      notAfter: bytes === undefined ? 0 : Number(this.#judge(bytes)?.notAfter ?? 0n) * 1000
    }
    const history = this.#served.get(id)
    if (history === undefined) this.#served.set(id, [serving])
    else history.push(serving)
    this.changes += 1
    this.onChange()
  }

  /** The log of an inbox. */
  log(inboxId: InboxId): ReadonlyArray<IdentityUpdateLogEntry> {
    return this.#logs.get(inboxId) ?? []
  }

  /** Appends an update to the log of an inbox, judged by nobody. Bytes that are there already change nothing. */
  append(inboxId: InboxId, update: Uint8Array): void {
    const log = this.#logs.get(inboxId) ?? []
    if (log.some((entry) => Buffer.compare(entry.update, update) === 0)) return
    this.#sequenceId += 1n
    const serverTimestampNs = BigInt(Math.floor(this.#world.now())) * 1_000_000n
    this.#logs.set(inboxId, [...log, { sequenceId: this.#sequenceId, serverTimestampNs, update }])
    this.changes += 1
    this.onChange()
  }

  /** Owner and lifetime of a package; none where it is not one. */
  #judge(bytes: Uint8Array): Judged | undefined {
    const ref = refOf(bytes)
    if (!this.#judged.has(ref)) {
      const judged = Either.match(Codec.decode(bytes), {
        onLeft: () => undefined,
        onRight: ({ leafNode }): Judged | undefined =>
          leafNode.source._tag === "KeyPackage"
            ? {
                owner: InstallationId.fromPublicKey(leafNode.signatureKey),
                notBefore: leafNode.source.notBefore,
                notAfter: leafNode.source.notAfter
              }
            : undefined
      })
      this.#judged.set(ref, judged)
    }
    return this.#judged.get(ref)
  }

  /** Takes an upload, or says why not. */
  #upload(bytes: Uint8Array, cause: Cause, sentAt: number): Either.Either<void, ApiClientError> {
    this.uploads += 1
    const judged = this.#judge(bytes)
    const seconds = BigInt(Math.floor(this.#world.now() / 1000))
    if (judged === undefined || seconds < judged.notBefore || seconds >= judged.notAfter) {
      return Either.left(
        new ApiClientError({
          operation: "uploadKeyPackage",
          reason: "InvalidRequest",
          grpcCode: 3,
          detail: judged === undefined ? "no key package" : "its lifetime is over or has not begun"
        })
      )
    }
    this.serve(judged.owner, bytes, cause, sentAt)
    return Either.right(undefined)
  }

  /**
   * Takes an update, or says why not, as a node that resolves the log with it: an inbox is created once, nothing is added to it
   * before, and no signature of a wallet or an installation counts twice, so neither do the same bytes. Of two processes that sign the
   * same within a second the text is the same, and so are the signatures.
   */
  #publish(bytes: Uint8Array): Either.Either<void, ApiClientError> {
    const update = fromBinary(IdentityUpdateSchema, bytes)
    const id = InboxId.make(update.inboxId)
    const log = this.log(id)
    const creates = update.actions.some(({ kind }) => kind.case === "createInbox")
    const refuse = (detail: string) =>
      Either.left(
        new ApiClientError({ operation: "publishIdentityUpdate", reason: "InvalidRequest", grpcCode: 3, detail })
      )
    if (creates !== (log.length === 0)) return refuse(creates ? "the inbox is there already" : "there is no such inbox")
    const seen = new Set(log.flatMap((entry) => signaturesOf(fromBinary(IdentityUpdateSchema, entry.update))))
    if (signaturesOf(update).some((signature) => seen.has(signature))) return refuse("a signature was used before")
    this.append(id, bytes)
    return Either.right(undefined)
  }

  /** Says which inbox an Ethereum address belongs to as soon as its log has begun. */
  name(address: string, inboxId: InboxId): void {
    this.#inboxes.set(address, inboxId)
  }

  /** The network as one process sees it. */
  clientFor(caller: string): Context.Tag.Service<ApiClient> {
    const world = this.#world

    /** One call. `perform` says what it comes to at a time, and whether it is done late. */
    const call = <A>(
      operation: Operation,
      perform: (how: {
        readonly asOf: number
        readonly isLate: boolean
        readonly sentAt: number
      }) => Either.Either<A, ApiClientError>,
      falsify: (answer: A, bytes: Uint8Array | undefined) => A = (answer) => answer,
      unheard?: { readonly answer: A }
    ): Effect.Effect<A, ApiClientError> =>
      Effect.suspend(() => {
        const sentAt = world.now()
        const now = () => perform({ asOf: world.now(), isLate: false, sentAt })
        const later = (millis: number) =>
          world.at(sentAt + millis, () => void perform({ asOf: world.now(), isLate: true, sentAt }))
        const broken = () => new ApiClientError({ operation, reason: "Transport", detail: "the connection broke" })
        const fault = this.faultFor({ caller, operation })
        if (fault === undefined) {
          const behind = this.lag === 0 ? 0 : this.lagFor({ caller, operation })
          return behind === 0 ? now() : perform({ asOf: world.now() - behind, isLate: false, sentAt })
        }
        return NetworkFault.$match(fault, {
          Lost: broken,
          Unheard: () => (now(), broken()),
          Hang: ({ isDone }) => (isDone ? (now(), silence) : silence),
          Late: ({ millis }) => (later(millis), silence),
          Doubled: ({ millis }) => (later(millis), now()),
          Accepted: ({ later }) => {
            if (unheard === undefined) return now()
            later(() => void perform({ asOf: world.now(), isLate: true, sentAt }))
            return Effect.succeed(unheard.answer)
          },
          Refused: ({ reason, retryAfter }) =>
            Effect.fail(new ApiClientError({ operation, reason, ...(retryAfter === undefined ? {} : { retryAfter }) })),
          Stale: ({ millis }) => perform({ asOf: world.now() - millis, isLate: false, sentAt }),
          Wrong: ({ bytes }) => Either.map(now(), (answer) => falsify(answer, bytes))
        })
      })

    const notSimulated = (operation: Operation) =>
      new ApiClientError({ operation, reason: "UnsupportedClient", detail: "not in this simulation" })

    return {
      uploadKeyPackage: (bytes) =>
        call<void>(
          "uploadKeyPackage",
          ({ isLate, sentAt }) => this.#upload(bytes, isLate ? "Late" : "Upload", sentAt),
          undefined,
          { answer: undefined }
        ),
      fetchKeyPackages: (ids) =>
        call<ReadonlyArray<Option.Option<Uint8Array>>>(
          "fetchKeyPackages",
          ({ asOf }) => Either.right(ids.map((id) => Option.fromNullable(this.servedAt(id, asOf)?.bytes))),
          (answer, bytes) => answer.map(() => Option.fromNullable(bytes))
        ),
      publishIdentityUpdate: (update) => call("publishIdentityUpdate", () => this.#publish(update)),
      getIdentityUpdates: (requests) =>
        call<ReadonlyArray<ReadonlyArray<IdentityUpdateLogEntry>>>("getIdentityUpdates", ({ asOf }) => {
          const latest = BigInt(Math.floor(asOf)) * 1_000_000n
          return Either.right(
            requests.map(({ after, inboxId }) =>
              this.log(inboxId).filter((entry) => entry.sequenceId > after && entry.serverTimestampNs <= latest)
            )
          )
        }),
      getInboxIds: (identifiers) =>
        call<ReadonlyArray<Option.Option<InboxId>>>("getInboxIds", () =>
          Either.right(
            identifiers.map((identifier) =>
              Option.fromNullable(
                identifier._tag === "Ethereum" ? this.#inboxes.get(identifier.address) : undefined
              ).pipe(Option.filter((inboxId) => this.log(inboxId).length > 0))
            )
          )
        ),
      queryWelcomeMessages: () => notSimulated("queryWelcomeMessages"),
      subscribeWelcomeMessages: () => Stream.fail(notSimulated("subscribeWelcomeMessages")),
      sendWelcomeMessages: () => notSimulated("sendWelcomeMessages")
    }
  }
}
