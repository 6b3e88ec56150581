/**
 * The app around the library, as far as it matters: it registers, reads its Welcomes, says how far it has come, and people invite
 * it.
 *
 * @since 1.0.0
 */
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as Codec from "@keyward/core/keypackage/Codec"
import type { KeyPackageRef } from "@keyward/core/keypackage/KeyPackageRef"
import type { LedgerEntry } from "@keyward/core/lifecycle/Ledger"
import * as Registration from "@keyward/core/lifecycle/Registration"
import * as Rotation from "@keyward/core/lifecycle/Rotation"
import * as Scheduler from "@keyward/core/lifecycle/Scheduler"
import { ApiClient, type ApiClientError } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore, type StorageError } from "@keyward/core/ports/KeyPackageStore"
import { WelcomeProgress, type WelcomeProgressReport } from "@keyward/core/ports/WelcomeProgress"
import type * as Cause from "effect/Cause"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Either from "effect/Either"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Schedule from "effect/Schedule"
import * as Mutation from "../Mutation.ts"
import type { Watch } from "./Invariants.ts"
import type { Serving } from "./SimulatedNetwork.ts"
import type { Ports, World } from "./World.ts"

/**
 * An invitation: made for a package that the network served, posted later.
 *
 * @since 1.0.0
 * @category models
 */
export interface Invitation {
  /** The init key of the package that it was made for, 32 bytes. */
  readonly initKey: Uint8Array
  readonly ref: KeyPackageRef
  readonly notAfter: number
  /** True times, milliseconds since 1970. */
  readonly fetchedAt: number
  readonly postedAt: number
  /** Whether the network served the package in its own right when it was fetched. */
  readonly isFair: boolean
}

/**
 * What the app did with its invitations.
 *
 * @since 1.0.0
 * @category models
 */
export interface Tally {
  opened: number
  /** Not openable, and none of them promised to be. */
  unopened: number
}

/**
 * One installation's app, in however many processes.
 *
 * @since 1.0.0
 * @category models
 */
export class App {
  readonly tally: Tally = { opened: 0, unopened: 0 }
  /** Whether the app tells the library how far it has read. */
  readonly reports: boolean
  /** Whether it reads its Welcomes every eight hours, or when it likes: at least once a day. */
  isDiligent = false
  /** Whether it never comes to the end of a reading. */
  isIdle = false
  /** The label of its installation. */
  readonly label: string
  /** Told of what a Welcome found: the state of the package that it was made for. */
  onOpened: (state: LedgerEntry["_tag"]) => void = () => {}
  readonly #world: World
  readonly #watch: Watch
  readonly #inbox: Array<Invitation> = []
  /** How far the inbox is read, durably. */
  #handled = 0
  #completeAsOf: Option.Option<DateTime.Utc> = Option.none()

  constructor(world: World, watch: Watch, reports: boolean, label = "default") {
    this.#world = world
    this.#watch = watch
    this.reports = reports
    this.label = label
  }

  /** The installation; none before it is created. */
  get installationId(): InstallationId | undefined {
    return this.#watch.labelled(this.label)
  }

  /** Invitations that were posted and not read yet. */
  get unread(): number {
    return this.#inbox.length - this.#handled
  }

  /** Invitations that were posted. */
  get invitations(): number {
    return this.#inbox.length
  }

  /** Somebody fetches the package that a node shows now, and posts a Welcome for it after a while. */
  invite(delayMillis: number): void {
    const { installationId } = this
    const { network, random } = this.#world
    const shown = installationId === undefined ? [] : network.shown(installationId)
    const serving = shown.length > 1 ? Mutation.pick(random, shown) : shown[0]
    if (serving?.ref === undefined || serving.bytes === undefined) return
    const decoded = Codec.decode(serving.bytes)
    if (Either.isLeft(decoded)) return
    const fetchedAt = this.#world.now
    const invitation = {
      initKey: decoded.right.initKey,
      ref: serving.ref,
      notAfter: serving.notAfter,
      fetchedAt,
      isFair: isFair(serving, this.#watch.promise)
    }
    this.#world.at(fetchedAt + delayMillis, () => {
      this.#world.note("inviter", `posts a Welcome for ${invitation.ref.slice(0, 8)}`)
      this.#inbox.push({ ...invitation, postedAt: this.#world.now })
    })
  }

  /** A complete reading of the inbox, in a process. */
  readonly read: Effect.Effect<void, StorageError | ApiClientError | Cause.TimeoutException, Ports> = Effect.gen(
    this,
    function* () {
      const store = yield* KeyPackageStore
      const api = yield* ApiClient
      const id = this.installationId
      if (id === undefined || this.isIdle) return
      const beganAt = yield* DateTime.now
      // A reading is a call to the network, which may fail.
      yield* Effect.timeout(api.getInboxIds([this.#world.wallet.identifier]), "30 seconds")
      const until = this.#inbox.length
      let isUsed = false
      for (let index = this.#handled; index < until; index++) {
        const invitation = this.#inbox[index]
        if (invitation === undefined) continue
        const entry = yield* store.findByWelcomeKey(id, invitation.initKey).pipe(
          Effect.catchIf(
            (error) => error.reason === "Corrupt",
            () => Effect.succeedNone
          )
        )
        const keys =
          Option.isSome(entry) && entry.value._tag !== "Retired"
            ? yield* store.getPrivateKeys(entry.value.historyId)
            : Option.none()
        if (Option.isSome(entry)) this.onOpened(entry.value._tag)
        this.#judge(invitation, Option.isSome(keys))
        isUsed = true
      }
      if (isUsed) yield* Rotation.queueKeyRotationAfterWelcome(id)
      this.#handled = Math.max(this.#handled, until)
      this.#completeAsOf = Option.some(beganAt)
    }
  )

  #judge(invitation: Invitation, isOpened: boolean): void {
    if (isOpened) {
      this.tally.opened += 1
      return
    }
    this.tally.unopened += 1
    if (this.#isPromised(invitation)) {
      this.#watch.report(
        "I3",
        `the Welcome for ${invitation.ref} of ${new Date(invitation.postedAt).toISOString()} is lost`
      )
    }
  }

  /** I3: whether the invitation must be openable now. */
  #isPromised({ isFair, notAfter, postedAt, ref }: Invitation): boolean {
    const { lastKnown, promise } = this.#watch
    if (!isFair || this.#watch.isExcused(ref)) return false
    const { now } = this.#world
    // No date of deletion: the owner believes that it is served.
    const known = lastKnown.get(ref) ?? now
    const isRead = this.reports ? now <= notAfter + promise : now <= known + promise
    return postedAt <= known + promise && postedAt < notAfter && isRead
  }

  /** What a process of the app is made of. */
  get services(): Layer.Layer<Scheduler.Scheduler, never, Ports> {
    return services([this])
  }

  /** Registers, and tries again until that has happened: there is no error. */
  get register(): Effect.Effect<void, never, Ports> {
    const { label } = this
    return Effect.retry(Registration.registerInstallation({ includePostQuantum: false, label }), {
      schedule: Schedule.exponential("1 minute").pipe(Schedule.union(Schedule.spaced("1 hour")))
    }).pipe(Effect.orDie, Effect.asVoid)
  }

  /** What the app does in a process that has just started: what it tells of its readings, and the readings. */
  begin(): {
    readonly report: () => Option.Option<WelcomeProgressReport>
    readonly life: Effect.Effect<never, never, Ports>
  } {
    let attemptedAt: Option.Option<DateTime.Utc> = Option.none()
    const attempt = Effect.map(DateTime.now, (now) => {
      attemptedAt = Option.some(now)
    })
    const readings = Effect.forever(
      Effect.zipRight(
        // An app whose reading fails reads again, later.
        Effect.zipRight(attempt, Effect.ignore(this.read)),
        Effect.suspend(() => Effect.sleep(Duration.hours(this.isDiligent ? 8 : 1 + this.#world.random(24))))
      )
    )
    return {
      report: () => (this.reports ? Option.some({ completeAsOf: this.#completeAsOf, attemptedAt }) : Option.none()),
      life: Effect.zipRight(this.register, readings)
    }
  }
}

/**
 * What a process is made of in which these apps live side by side, each with an installation of its own, and one scheduler for all.
 *
 * @since 1.0.0
 * @category layers
 */
export const services = (apps: ReadonlyArray<App>): Layer.Layer<Scheduler.Scheduler, never, Ports> =>
  Layer.unwrapEffect(
    Effect.sync(() => {
      const lives = apps.map((app) => ({ app, ...app.begin() }))
      const progress = Layer.succeed(WelcomeProgress, {
        get: (id) =>
          Effect.sync(() =>
            Option.flatMap(Option.fromNullable(lives.find(({ app }) => app.installationId === id)), ({ report }) =>
              report()
            )
          )
      })
      const readings = Layer.scopedDiscard(Effect.forEach(lives, ({ life }) => Effect.forkScoped(life)))
      return Layer.provideMerge(readings, Scheduler.layer({ maximumNap: "12 hours" })).pipe(Layer.provide(progress))
    })
  )

const isFair = (serving: Serving, promise: number): boolean =>
  serving.cause === "Upload" || (serving.cause === "Late" && serving.from - serving.sentAt < promise)
