/**
 * Random lives of a few installations, all from seeds: processes that crash, stand still and come back, networks that lose, repeat,
 * delay and lie, stores that fail, clocks that jump; the invariants checked after every step and at the end.
 *
 * @since 1.0.0
 */
import * as AssociationState from "@keyward/core/identity/AssociationState"
import type { InboxId } from "@keyward/core/identity/InboxId"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as RegistrationUpdate from "@keyward/core/identity/RegistrationUpdate"
import { revokeInstallations } from "@keyward/core/lifecycle/IdentityOperations"
import * as InboxLog from "@keyward/core/lifecycle/InboxLog"
import { LeaseError } from "@keyward/core/lifecycle/Lease"
import type { LifecycleEvent } from "@keyward/core/lifecycle/LifecycleEvents"
import type { LifecycleSettingsShape } from "@keyward/core/lifecycle/LifecycleSettings"
import * as Rotation from "@keyward/core/lifecycle/Rotation"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import * as KeywardScheduler from "@keyward/core/lifecycle/Scheduler"
import { ApiClient, type Operation as ApiOperation } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore, StorageError } from "@keyward/core/ports/KeyPackageStore"
import { Signer } from "@keyward/core/ports/Signer"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as HashMap from "effect/HashMap"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"
import type { Operation as StoreOperation } from "../MemoryKeyPackageStore.ts"
import * as MemoryKeyPackageStore from "../MemoryKeyPackageStore.ts"
import * as Mutation from "../Mutation.ts"
import { App, services, type Tally } from "./App.ts"
import { type Violation, Watch } from "./Invariants.ts"
import { NetworkFault } from "./SimulatedNetwork.ts"
import type * as SkewedClock from "./SkewedClock.ts"
import * as StoreState from "./StoreState.ts"
import { type AnyProcess, type Around, type Ports, type Process, World } from "./World.ts"

/**
 * What a network does wrong for a while.
 *
 * @since 1.0.0
 * @category models
 */
export type Trouble =
  | "Lost"
  | "Unheard"
  | "Hang"
  | "HangDone"
  | "Late"
  | "Doubled"
  | "RateLimited"
  | "RateLimitedFor"
  | "ValidationDown"
  | "Internal"
  | "Stale"
  | "Mixed"

/**
 * Something that happens in a run. Durations are milliseconds; `process` counts from 0, and wraps around.
 *
 * @since 1.0.0
 * @category models
 */
export type Happening =
  | { readonly _tag: "Invite"; readonly delay: number }
  | { readonly _tag: "Read"; readonly process: number }
  | { readonly _tag: "Rotate"; readonly process: number; readonly includePostQuantum: boolean }
  | { readonly _tag: "Queue"; readonly process: number }
  | { readonly _tag: "Probe"; readonly process: number; readonly insist: boolean }
  | { readonly _tag: "Trouble"; readonly what: Trouble; readonly percent: number; readonly duration: number }
  | { readonly _tag: "Partition"; readonly process: number; readonly duration: number }
  | { readonly _tag: "Kill"; readonly process: number; readonly duration: number }
  | { readonly _tag: "KillAtCall"; readonly process: number; readonly calls: number; readonly duration: number }
  | { readonly _tag: "Pause"; readonly process: number; readonly duration: number }
  | { readonly _tag: "Sleep"; readonly process: number; readonly duration: number }
  | { readonly _tag: "Step"; readonly process: number; readonly millis: number }
  | {
      readonly _tag: "StoreTrouble"
      readonly process: number
      readonly reason: "Busy" | "Full" | "ReadOnly" | "Unavailable"
      readonly percent: number
      readonly duration: number
    }
  | { readonly _tag: "Damage" }
  | { readonly _tag: "LoseKeys" }
  | { readonly _tag: "Replay"; readonly back: number }
  | { readonly _tag: "Forget"; readonly back: number }
  | { readonly _tag: "ServeOther" }
  | { readonly _tag: "Revoke"; readonly duration: number }
  | { readonly _tag: "Restore"; readonly duration: number }
  /** The process stands still at its next call of this operation. */
  | {
      readonly _tag: "PauseAtCall"
      readonly process: number
      readonly operation: PausePoint
      readonly when: "before" | "after"
      readonly duration: number
    }
  /** What is due for the installation can no longer be read. */
  | { readonly _tag: "LoseSchedule" }
  /** A copy of the database is started on a second machine, which is switched off later. */
  | { readonly _tag: "Clone"; readonly duration: number }

/**
 * A whole run, before it is run.
 *
 * @since 1.0.0
 * @category models
 */
export interface Plan {
  readonly seed: number
  readonly settings: Partial<LifecycleSettingsShape>
  readonly processes: number
  /** Installations of one inbox, side by side in one store. */
  readonly installations: number
  /** How far the slowest node of the network is behind the others, milliseconds. */
  readonly lag: number
  /** Whether the app never comes to the end of a reading until the troubles are over. */
  readonly isIdle: boolean
  /** How wrong the clocks are at the beginning, one for each process, milliseconds. */
  readonly skews: ReadonlyArray<number>
  readonly reports: boolean
  /** Whether the installation is registered before anything goes wrong. */
  readonly isRegistered: boolean
  /** Milliseconds until the troubles are over. */
  readonly span: number
  /** In the order of their times, which are milliseconds from the beginning; `installation` counts from 0, and is 0 unless given. */
  readonly happenings: ReadonlyArray<{ readonly at: number; readonly what: Happening; readonly installation?: number }>
}

/**
 * What a run came to.
 *
 * @since 1.0.0
 * @category models
 */
export interface Outcome {
  readonly plan: Plan
  readonly violations: ReadonlyArray<Violation>
  readonly calls: number
  readonly uploads: number
  readonly mostCallsPerHour: number
  readonly tally: Tally
  /** Virtual time, milliseconds. */
  readonly lasted: number
  /** How often the life came to states that matter, by their names: a state that no life comes to is one that nothing is known of. */
  readonly reached: ReadonlyMap<string, number>
}

const SECOND = 1_000
const MINUTE = 60 * SECOND
const HOUR = 60 * MINUTE
const DAY = 24 * HOUR

const troubles: ReadonlyArray<Trouble> = [
  "Lost",
  "Unheard",
  "Hang",
  "HangDone",
  "Late",
  "Doubled",
  "RateLimited",
  "RateLimitedFor",
  "ValidationDown",
  "Internal",
  "Stale",
  "Mixed"
]

/** How late an upload may be and still count as in time. */
const LATEST = 16 * HOUR

/** How far a reading may be behind. */
const STALEST = 10 * MINUTE

/** A time between, spread evenly over the orders of magnitude. */
const spread = (next: Mutation.Next, least: number, most: number): number =>
  Math.floor(least * (most / least) ** (next(1_000_000) / 1_000_000))

const happening = (next: Mutation.Next): Happening => {
  const process = next(3)
  switch (next(26)) {
    case 0:
    case 1:
    case 2:
    case 3:
      return { _tag: "Invite", delay: next(4) === 0 ? next(30 * HOUR) : spread(next, SECOND, 26 * HOUR) }
    case 4:
      return { _tag: "Read", process }
    case 5:
    case 6:
      return { _tag: "Rotate", process, includePostQuantum: next(4) === 0 }
    case 7:
      return { _tag: "Queue", process }
    case 8:
      return { _tag: "Probe", process, insist: next(2) === 0 }
    case 9:
    case 10:
    case 11:
    case 12: {
      const what = Mutation.pick(next, troubles)
      const percent = Mutation.pick(next, [20, 50, 90, 100])
      return { _tag: "Trouble", what, percent, duration: spread(next, SECOND, 40 * HOUR) }
    }
    case 13:
      return { _tag: "Partition", process, duration: spread(next, SECOND, 3 * DAY) }
    case 14:
      return { _tag: "Kill", process, duration: spread(next, SECOND, 2 * DAY) }
    case 15:
    case 16:
    case 17:
      return { _tag: "KillAtCall", process, calls: 1 + next(40), duration: spread(next, SECOND, 8 * HOUR) }
    case 18:
      return { _tag: "Pause", process, duration: spread(next, SECOND, 4 * HOUR) }
    case 19:
      return { _tag: "Sleep", process, duration: spread(next, MINUTE, 3 * DAY) }
    case 20: {
      const far = spread(next, SECOND, Mutation.pick(next, [HOUR, 3 * DAY, 400 * DAY]))
      return { _tag: "Step", process, millis: next(2) === 0 ? far : -far }
    }
    case 21: {
      const reason = Mutation.pick(next, ["Busy", "Full", "ReadOnly", "Unavailable"] as const)
      const percent = Mutation.pick(next, [10, 50, 100])
      return { _tag: "StoreTrouble", process, reason, percent, duration: spread(next, SECOND, 12 * HOUR) }
    }
    case 22:
      return next(2) === 0 ? { _tag: "Damage" } : { _tag: "LoseKeys" }
    case 23:
      return { _tag: "Replay", back: 1 + next(4) }
    case 24:
      return next(2) === 0 ? { _tag: "Forget", back: next(3) } : { _tag: "ServeOther" }
    default:
      return next(2) === 0
        ? { _tag: "Revoke", duration: spread(next, MINUTE, 3 * DAY) }
        : { _tag: "Restore", duration: spread(next, MINUTE, 3 * DAY) }
  }
}

const PAUSE_POINTS = [
  "insertKeyPackageHistory",
  "markExposed",
  "uploadKeyPackage",
  "markKeyPackagesBeforeIdToBeDeleted",
  "postponeDeletion",
  "fetchKeyPackages",
  "retire"
] as const

/**
 * A call between whose neighbours a lease may end.
 *
 * @since 1.0.0
 * @category models
 */
export type PausePoint = (typeof PAUSE_POINTS)[number]

/**
 * The plan of a seed: that of one installation, and for most seeds something more: others beside it, nodes that do not agree yet,
 * leases that end in the middle of a rotation, a copy of the store on a second machine, an app that does not read for months.
 *
 * @since 1.0.0
 * @category constructors
 */
export const plan = (seed: number): Plan => {
  const next = Mutation.generator(seed ^ 0x31de)
  const one = planOfOne(seed)
  if (next(120) === 0) {
    // Longer than a package lives, and two graces more; nobody asks for much in that time.
    const happenings = one.happenings.map(({ at, what }) => ({ at: Math.floor((at / one.span) * 10 * DAY), what }))
    const settings = { ...one.settings, rotationInterval: Duration.days(30), cleanRetry: Duration.hours(12) }
    const skews = one.skews.slice(0, 1)
    return { ...one, isIdle: true, reports: true, processes: 1, skews, settings, span: 88 * DAY, happenings }
  }
  const installations = Mutation.pick(next, [1, 1, 1, 1, 1, 1, 1, 1, 2, 3])
  const lag = next(3) === 0 ? spread(next, SECOND, 2 * HOUR) : 0
  const more: Array<{ readonly at: number; readonly what: Happening }> = []
  for (let count = next(4); count > 0; count--) {
    const operation = Mutation.pick(next, PAUSE_POINTS)
    const when = next(2) === 0 ? "before" : "after"
    const duration = spread(next, MINUTE, 2 * HOUR)
    more.push({ at: next(one.span), what: { _tag: "PauseAtCall", process: next(3), operation, when, duration } })
  }
  if (next(6) === 0) more.push({ at: next(one.span), what: { _tag: "LoseSchedule" } })
  if (next(10) === 0) more.push({ at: next(one.span), what: { _tag: "Clone", duration: spread(next, HOUR, 3 * DAY) } })
  const happenings = [...one.happenings, ...more].sort((a, b) => a.at - b.at)
  return {
    ...one,
    installations,
    lag,
    settings: lag > 0 && next(2) === 0 ? { ...one.settings, confirmBy: "readBack" } : one.settings,
    happenings: happenings.map((each) => (installations === 1 ? each : { ...each, installation: next(installations) }))
  }
}

/**
 * The life of one installation, on a network whose nodes agree. Most are of a few days with a package replaced every two or three;
 * some are of months, with the numbers that are usual.
 *
 * @since 1.0.0
 * @category constructors
 */
export const planOfOne = (seed: number): Plan => {
  const next = Mutation.generator(seed ^ 0x5eed)
  const isLong = next(150) === 0
  const span = isLong ? 30 * DAY + next(60 * DAY) : spread(next, 2 * HOUR, 3 * DAY)
  const processes = Mutation.pick(next, [1, 1, 1, 2, 2, 3])
  const count = 2 + next(isLong ? 30 : 16)
  const isSkewed = next(5) === 0
  const happenings = Array.from({ length: count }, () => ({ at: next(span), what: happening(next) }))
  return {
    seed,
    settings: {
      ...(isLong ? {} : { rotationInterval: Duration.hours(24 + next(72)) }),
      cleanRetry: Duration.minutes(Mutation.pick(next, [15, 60, 180])),
      confirmBy: next(3) === 0 ? "readBack" : "receipt"
    },
    processes,
    installations: 1,
    lag: 0,
    isIdle: false,
    skews: Array.from({ length: processes }, () =>
      isSkewed ? Mutation.pick(next, [-1, 1]) * spread(next, SECOND, 2 * HOUR) : 0
    ),
    reports: next(3) > 0,
    isRegistered: next(6) > 0,
    span,
    happenings: happenings.sort((one, other) => one.at - other.at)
  }
}

interface Slot {
  process: Process<KeywardScheduler.Scheduler>
  readonly skew: SkewedClock.Skew
  partitionedUntil: number
  storeTrouble:
    | { readonly reason: StorageError["reason"]; readonly percent: number; readonly until: number }
    | undefined
  /** Stands still at its next call of this operation. */
  pausesAt: (Happening & { readonly _tag: "PauseAtCall" }) | undefined
  /** Dies before this many more calls are made. */
  callsLeft: number | undefined
  restartAfter: number
}

const isWrite = (operation: string): boolean => !/^(get|find|next|checkLease)/.test(operation)

/** A run being run. */
class Simulation {
  readonly plan: Plan
  readonly world: World
  readonly watch: Watch
  readonly apps: ReadonlyArray<App>
  readonly tally: Tally = { opened: 0, unopened: 0 }
  readonly reached = new Map<string, number>()
  readonly #database: MemoryKeyPackageStore.Database
  readonly #slots: Array<Slot> = []
  #troubles: Array<{ readonly what: Trouble; readonly percent: number; readonly until: number }> = []
  #isHealed = false
  #started = 0
  #clones = 0
  #calls = 0
  readonly #begin: number
  /** When the troubles are over. */
  #end = 0
  #owner: Process<never> | undefined
  readonly #wanted = new Map<InstallationId, boolean>()

  constructor(plan: Plan) {
    this.plan = plan
    this.world = new World({ seed: plan.seed, settings: plan.settings, traceLength: 1_000 })
    this.#begin = this.world.now
    this.#database = Effect.runSync(MemoryKeyPackageStore.makeDatabase)
    let content: MemoryKeyPackageStore.Content | undefined
    let state: StoreState.StoreState | undefined
    this.watch = new Watch(this.world, () => {
      const now = Effect.runSync(Ref.get(this.#database))
      if (state === undefined || now !== content) {
        content = now
        state = StoreState.ofMemory(now)
      }
      return state
    })
    this.watch.expected = plan.installations
    this.apps = Array.from({ length: plan.installations }, (_, index) => {
      const app = new App(this.world, this.watch, plan.reports, `installation ${index}`)
      app.isIdle = plan.isIdle
      app.onOpened = (state) => this.#reach(`a Welcome finds a package that is ${state}`)
      return app
    })
    this.world.onEvent = (who, event) => {
      // What a copy of the store does is not what the budgets of this one are for.
      if (!who.startsWith(CLONE)) this.watch.observe(event)
      this.#note(event)
    }
    this.world.onFailure = (_, operation, error) => {
      if (error instanceof LeaseError) this.#reach(`lease ${error.reason}: ${operation}`)
    }
    this.world.network.lag = plan.lag
    // Whoever owns the wallet asks the node that takes its updates.
    this.world.network.lagFor = ({ caller }) => (caller === OWNER ? 0 : this.world.random(this.world.network.lag))
    this.world.network.faultFor = ({ caller, operation }) => this.#faultFor(caller, operation)
    this.watch.excuses.disagreement = disagreementOf(plan)
    this.watch.excuses.isClockSet =
      plan.skews.some((skew) => skew !== 0) || plan.happenings.some(({ what }) => what._tag === "Step")
    this.watch.excuses.furthestAhead = furthestAheadOf(plan)
    if (plan.happenings.some(({ what }) => standsStill.includes(what._tag))) this.watch.excuses.hesitation = 6 * HOUR
    // A clock that jumped is not believed for one grace; the end of the troubles sets every clock right.
    if (jumps(plan)) this.watch.patience += Duration.toMillis(this.world.settings.grace)
    // What waits for a reader is asked for once in so long.
    if (plan.isIdle) this.watch.patience += Duration.toMillis(this.world.settings.cleanRetry)
  }

  /** It has come to a state that matters. */
  #reach(state: string): void {
    this.reached.set(state, (this.reached.get(state) ?? 0) + 1)
  }

  #note(event: LifecycleEvent): void {
    switch (event._tag) {
      case "Generated":
        return this.#reach(`made: ${event.trigger}`)
      case "Retired": {
        this.#reach(`erased: ${event.reason}`)
        const app = this.apps.find(({ installationId }) => installationId === event.installationId)
        if (app !== undefined && app.unread > 0) this.#reach("erased while a Welcome is unread")
        if (this.plan.isIdle && !this.#isHealed) this.#reach("erased at the hard stop")
        return
      }
      case "Unreachable":
        return this.#reach(event.verdict)
      default:
        return this.#reach(event._tag)
    }
  }

  #start(index: number, skew: SkewedClock.Skew): Process<KeywardScheduler.Scheduler> {
    return this.world.start({
      name: `process ${index}${this.#started++ < this.plan.processes ? "" : ` (${this.#started})`}`,
      store: MemoryKeyPackageStore.layerShared(this.#database),
      services: services(this.apps),
      skew,
      around: (process) => this.#around(process, index)
    })
  }

  #around(process: AnyProcess, index: number): Around {
    const usual = this.world.usual(process)
    /** Lets the call happen, and the process stand still before or after it. */
    const orStop = <A, E>(operation: string, call: Effect.Effect<A, E>): Effect.Effect<A, E> =>
      Effect.suspend(() => {
        const slot = this.#slots[index]
        const stop = slot?.pausesAt
        if (slot === undefined || stop?.operation !== operation || process.isDead) return call
        slot.pausesAt = undefined
        const still = Effect.zipRight(
          Effect.sync(() => {
            this.#reach(`stands still ${stop.when} ${operation}`)
            slot.process.pause()
            this.world.at(this.world.now + stop.duration, () => slot.process.resume())
          }),
          Effect.yieldNow()
        )
        return stop.when === "before" ? Effect.zipRight(still, call) : Effect.zipLeft(call, still)
      })
    /** Lets the call happen, or the process die before or after it. */
    const orDie = <A, E>(operation: string, run: Effect.Effect<A, E>, call: Effect.Effect<A, E>): Effect.Effect<A, E> =>
      Effect.suspend(() => {
        this.#calls += 1
        const slot = this.#slots[index]
        if (slot?.callsLeft === undefined) return call
        slot.callsLeft -= 1
        if (slot.callsLeft > 0) return call
        slot.callsLeft = undefined
        const isDone = this.world.random(2) === 0
        this.world.note(process.name, `dies ${isDone ? "after" : "before"} ${operation}`)
        this.#kill(slot, index, slot.restartAfter)
        // The fiber goes on to its next wait, and no further.
        return isDone ? Effect.zipRight(run, silence) : silence
      })
    return {
      api: (operation, run) => orDie(operation, run, orStop(operation, usual.api(operation, run))),
      store: <A, E>(operation: StoreOperation, run: Effect.Effect<A, E>) =>
        Effect.suspend(() => {
          const trouble = this.#slots[index]?.storeTrouble
          const isStruck =
            !this.#isHealed &&
            trouble !== undefined &&
            trouble.until > this.world.now &&
            (trouble.reason === "Busy" || trouble.reason === "Unavailable" || isWrite(operation)) &&
            this.world.random(100) < trouble.percent
          const struck: Effect.Effect<A, E | StorageError> = isStruck
            ? new StorageError({ operation, reason: trouble.reason })
            : run
          // A call that is chosen to die takes its process with it: no failure of the effect.
          return orDie(operation, struck, orStop(operation, usual.store(operation, struck)))
        })
    }
  }

  #kill(slot: Slot, index: number, duration: number): void {
    slot.process.kill()
    this.world.at(this.world.now + duration, () => {
      if (slot.process.isDead) slot.process = this.#start(index, slot.skew)
    })
  }

  #faultFor(caller: string, operation: ApiOperation): NetworkFault | undefined {
    if (this.#isHealed || caller === OWNER) return undefined
    const { now } = this.world
    const slot = this.#slots.find(({ process }) => process.name === caller)
    if (slot !== undefined && slot.partitionedUntil > now) {
      return this.world.random(2) === 0 ? NetworkFault.Lost() : NetworkFault.Hang({ isDone: false })
    }
    this.#troubles = this.#troubles.filter(({ until }) => until > now)
    const trouble = this.#troubles.find(({ percent }) => this.world.random(100) < percent)
    const fault = trouble === undefined ? undefined : this.#faultOf(trouble.what, operation)
    if (fault !== undefined) this.#reach(`${operation}: ${fault._tag}`)
    return fault
  }

  #faultOf(what: Trouble, operation: ApiOperation): NetworkFault | undefined {
    const { random } = this.world
    const isUpload = operation === "uploadKeyPackage"
    switch (what) {
      case "Lost":
        return NetworkFault.Lost()
      case "Unheard":
        return NetworkFault.Unheard()
      case "Hang":
        return NetworkFault.Hang({ isDone: false })
      case "HangDone":
        return NetworkFault.Hang({ isDone: true })
      case "Late":
        return isUpload ? NetworkFault.Late({ millis: spread(random, SECOND, LATEST) }) : undefined
      case "Doubled":
        return isUpload ? NetworkFault.Doubled({ millis: spread(random, SECOND, LATEST) }) : undefined
      case "RateLimited":
        return NetworkFault.Refused({ reason: "RateLimited" })
      case "RateLimitedFor":
        return NetworkFault.Refused({
          reason: "RateLimited",
          retryAfter: Duration.millis(spread(random, SECOND, 2 * HOUR))
        })
      case "ValidationDown":
        return isUpload ? NetworkFault.Refused({ reason: "InvalidRequest" }) : undefined
      case "Internal":
        return NetworkFault.Refused({ reason: "Internal" })
      case "Stale":
        return NetworkFault.Stale({ millis: random(STALEST) })
      case "Mixed":
        return this.#faultOf(Mutation.pick(random, troubles), operation)
    }
  }

  /** Runs something as the person whose inbox it is, on a machine where nothing goes wrong. */
  #asOwner(effect: Effect.Effect<unknown, unknown, Ports>): void {
    this.#owner ??= this.world.start({
      name: OWNER,
      store: MemoryKeyPackageStore.layerShared(this.#database),
      services: Layer.empty,
      around: () => ({
        store: <A, E>(_: StoreOperation, run: Effect.Effect<A, E>): Effect.Effect<A, E | StorageError> => run,
        api: (_, run) => run
      })
    })
    this.#owner.run(effect)
  }

  /** Adds an installation to the inbox again, where it was revoked. */
  #addAgain(id: InstallationId): void {
    const { watch, world } = this
    this.#asOwner(addAgain(id, world.inboxId))
    const known = watch.excuses.suspended.get(id)
    if (known === undefined) return
    // A node that is behind says so for a while longer, and a process may have stood still since it looked.
    const until = world.now + Math.max(world.network.lag, STALEST) + watch.excuses.hesitation
    watch.excuses.suspended.set(id, { ...known, until: Math.min(known.until, until) })
  }

  /** Runs all of it. */
  async run(): Promise<Outcome> {
    const { plan, world, watch } = this
    for (const [index, offsetMillis] of plan.skews.entries()) {
      const skew: SkewedClock.Skew = { offsetMillis }
      this.#slots.push({
        skew,
        process: this.#start(index, skew),
        partitionedUntil: 0,
        storeTrouble: undefined,
        pausesAt: undefined,
        callsLeft: undefined,
        restartAfter: 0
      })
    }
    if (plan.isRegistered) await world.advance("5 minutes")
    const begin = world.now
    this.#end = begin + plan.span
    for (const { at, installation = 0, what } of plan.happenings) {
      await world.advanceTo(begin + at)
      if (watch.violations.length > 0) break
      const app = this.apps[installation % this.apps.length]
      if (app !== undefined) this.#happen(what, app)
    }
    if (watch.violations.length === 0) {
      await world.advanceTo(begin + plan.span)
      await this.#heal()
      if (watch.violations.length === 0) watch.checkQuiet()
      for (const { label, unread } of this.apps) {
        if (unread > 0) watch.report("I3", `${unread} Welcomes of ${label} were not read in the end`)
      }
    }
    world.end()
    for (const { tally } of this.apps) {
      this.tally.opened += tally.opened
      this.tally.unopened += tally.unopened
    }
    return {
      plan,
      violations: watch.violations,
      calls: this.#calls,
      uploads: world.network.uploads,
      mostCallsPerHour: watch.mostCalls,
      tally: this.tally,
      lasted: world.now - this.#begin,
      reached: this.reached
    }
  }

  #happen(what: Happening, app: App): void {
    const { watch, world } = this
    const { network, now } = world
    const index = "process" in what ? what.process % this.#slots.length : 0
    const slot = this.#slots[index]
    const id = app.installationId
    if (slot === undefined) return
    const { process } = slot
    world.note("world", JSON.stringify(what))
    switch (what._tag) {
      case "Invite":
        return app.invite(what.delay)
      case "Read":
        return void (process.isDead || process.run(app.read))
      case "Rotate": {
        if (id === undefined || process.isDead) return
        const { includePostQuantum } = what
        if (this.#wanted.get(id) !== includePostQuantum) watch.profileChanges += 1
        this.#wanted.set(id, includePostQuantum)
        return void process.run(Rotation.rotateAndUploadKeyPackage({ installationId: id, includePostQuantum }))
      }
      case "Queue":
        return void (id === undefined || process.isDead || process.run(Rotation.queueKeyRotation(id)))
      case "Probe": {
        if (id === undefined || process.isDead) return
        const probe = Effect.flatMap(KeywardScheduler.Scheduler, (scheduler) =>
          what.insist ? scheduler.repair(id) : scheduler.probe(id)
        )
        return void process.run(probe)
      }
      case "Trouble":
        return void this.#troubles.push({ what: what.what, percent: what.percent, until: now + what.duration })
      case "Partition":
        slot.partitionedUntil = now + what.duration
        return
      case "Kill":
        return process.isDead ? undefined : this.#kill(slot, index, what.duration)
      case "KillAtCall":
        slot.callsLeft = what.calls
        slot.restartAfter = what.duration
        return
      case "Pause":
        process.pause()
        return world.at(now + what.duration, () => process.resume())
      case "Sleep":
        process.fallAsleep()
        return world.at(now + what.duration, () => process.wake())
      case "Step":
        if (Math.abs(what.millis) > MINUTE) this.#reach(what.millis > 0 ? "a clock set ahead" : "a clock set back")
        return process.stepClock(what.millis)
      case "PauseAtCall":
        slot.pausesAt = what
        return
      case "LoseSchedule":
        return id === undefined ? undefined : this.#loseSchedule(id)
      case "Clone":
        return this.#clone(now + what.duration)
      case "StoreTrouble":
        slot.storeTrouble = { reason: what.reason, percent: what.percent, until: now + what.duration }
        return
      case "Damage":
      case "LoseKeys": {
        const rows = this.#rows()
        if (rows.length === 0) return
        const row = Mutation.pick(world.random, rows)
        if (row.ref !== undefined) watch.excuses.destroyed.add(row.ref)
        return this.#tamper(what._tag, row.historyId)
      }
      case "Replay":
      case "Forget": {
        if (id === undefined) return
        const older = network.history(id).toReversed()[what.back]
        if (what._tag === "Replay" && older === undefined) return
        return network.serve(id, older?.bytes, what._tag === "Replay" ? "Replay" : "Forgotten")
      }
      case "ServeOther":
        return id === undefined ? undefined : network.serve(id, Uint8Array.of(1, 2, 3), "Replay")
      case "Revoke": {
        if (id === undefined) return
        const { inboxId } = world
        const known = watch.excuses.suspended.get(id)
        // Who has not yet learnt that it was added again in between goes on counting.
        const since = known !== undefined && now <= known.until ? known.since : now
        watch.excuses.suspended.set(id, { since, until: Number.POSITIVE_INFINITY })
        this.#asOwner(revokeInstallations({ inboxId, installationIds: [id] }))
        return world.at(now + what.duration, () => this.#addAgain(id))
      }
      case "Restore": {
        const snapshot = Effect.runSync(Ref.get(this.#database))
        return world.at(Math.min(now + what.duration, this.#end), () => {
          world.note("world", "the database is put back")
          // What runs on over another database than it knows is sorted out within an hour.
          watch.excuses.unsureUntil = Math.max(watch.excuses.unsureUntil, world.now + HOUR)
          Effect.runSync(Ref.set(this.#database, snapshot))
          // An app whose database may have been put back asks for its registration again, as it does when it starts.
          for (const { process } of this.#slots) {
            if (!process.isDead) for (const { register } of this.apps) process.run(register)
          }
        })
      }
    }
  }

  /** A second machine starts with a copy of the database, and is switched off after a while. */
  #clone(until: number): void {
    const { watch, world } = this
    const copy = Effect.runSync(Ref.make(Effect.runSync(Ref.get(this.#database))))
    const clone = world.start({
      name: `${CLONE}${this.#clones++}`,
      store: MemoryKeyPackageStore.layerShared(copy),
      services: services(this.apps)
    })
    watch.excuses.unsureUntil = Number.POSITIVE_INFINITY
    this.#reach("a copy of the store")
    world.at(Math.min(until, this.#end), () => {
      clone.kill()
      watch.excuses.unsureUntil = world.now + HOUR
    })
  }

  /** A store gives this for a schedule that it cannot read. */
  #loseSchedule(id: InstallationId): void {
    this.#reach("a schedule is lost")
    Effect.runSync(
      Ref.update(this.#database, (content) => ({
        ...content,
        installations: HashMap.modify(content.installations, id, (stored) => ({
          ...stored,
          installation: { ...stored.installation, schedule: Schedule.lost }
        }))
      }))
    )
  }

  #rows(): ReadonlyArray<StoreState.RowState> {
    return StoreState.ofMemory(Effect.runSync(Ref.get(this.#database))).installations.flatMap(({ rows }) => rows)
  }

  #tamper(how: "Damage" | "LoseKeys", id: StoreState.RowState["historyId"]): void {
    const memory = Effect.provide(
      Effect.flatMap(MemoryKeyPackageStore.MemoryKeyPackageStore, (control) =>
        how === "Damage" ? control.damage(id) : control.loseKeys(id)
      ),
      MemoryKeyPackageStore.layerShared(this.#database)
    )
    Effect.runSync(memory)
  }

  /** Everything works again; what was revoked is added again; the app reads on. */
  async #heal(): Promise<void> {
    const { world } = this
    world.note("world", "healed")
    this.#isHealed = true
    this.world.network.lag = 0
    for (const app of this.apps) {
      app.isDiligent = true
      app.isIdle = false
    }
    for (const [index, slot] of this.#slots.entries()) {
      slot.callsLeft = undefined
      slot.pausesAt = undefined
      slot.skew.offsetMillis = 0
      slot.process.wake()
      slot.process.resume()
      if (slot.process.isDead) slot.process = this.#start(index, slot.skew)
    }
    for (const id of this.watch.installations) this.#addAgain(id)
    await world.advance(jumps(this.plan) ? "84 hours" : "60 hours")
  }
}

/** The wallet's owner adds the installation to the inbox again, where it was revoked. */
const addAgain = (id: InstallationId, inboxId: InboxId) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const api = yield* ApiClient
    const { identifier } = yield* Signer
    const { state } = yield* InboxLog.read(inboxId)
    if (Option.isNone(state) || AssociationState.hasInstallation(state.value, id)) return
    const request = RegistrationUpdate.joinInbox({
      owner: identifier,
      inboxId,
      state: state.value,
      installationKey: yield* store.getInstallationKey(id),
      clientTimestampNs: yield* InboxLog.clientTimestampNs
    })
    yield* api.publishIdentityUpdate(yield* RegistrationUpdate.sign(request))
  })

/** How far ahead of the true time the clocks of one store may be, milliseconds, negative where behind; one is right. */
const offsetsOf = ({ happenings, processes, skews }: Plan): ReadonlyArray<number> => {
  const offsets = skews.map((skew) => [skew])
  for (const { what } of happenings) {
    if (what._tag !== "Step") continue
    const own = offsets[what.process % processes]
    own?.push((own.at(-1) ?? 0) + what.millis)
  }
  return [...offsets.flat(), 0]
}

const furthestAheadOf = (plan: Plan): number => Math.max(...offsetsOf(plan))

/** By how much those clocks may disagree: what one process decides by another's time is early by this. */
const disagreementOf = (plan: Plan): number => {
  const isKilled = plan.happenings.some(({ what }) => what._tag === "Kill" || what._tag === "KillAtCall")
  // One process sees every step of its own clock, and knows what to do.
  if (plan.processes === 1 && !isKilled) return 0
  return furthestAheadOf(plan) - Math.min(...offsetsOf(plan))
}

/** After what a process goes on with what it saw long ago. */
const standsStill: ReadonlyArray<Happening["_tag"]> = ["Pause", "Sleep", "PauseAtCall"]

/** What the owner of the wallet is called. */
const OWNER = "owner"

/** How the processes of copies of the store are called. */
const CLONE = "clone "

/** Whether a clock jumps, as it seems to its process. */
const jumps = ({ happenings, skews }: Plan): boolean =>
  skews.some((skew) => skew !== 0) || happenings.some(({ what }) => what._tag === "Step" || what._tag === "Sleep")

const silence: Effect.Effect<never> = Effect.async(() => {})

/**
 * Runs a plan.
 *
 * @since 1.0.0
 * @category running
 */
export const run = (plan: Plan): Effect.Effect<Outcome> => Effect.promise(() => new Simulation(plan).run())

/**
 * The plan with as few happenings as still make it fail in the same way.
 *
 * @since 1.0.0
 * @category running
 */
export const shrink = (outcome: Outcome): Effect.Effect<Outcome> =>
  Effect.gen(function* () {
    let least = outcome
    const isSame = (other: Outcome) => other.violations[0]?.invariant === outcome.violations[0]?.invariant
    let isSmaller = true
    while (isSmaller) {
      isSmaller = false
      for (let index = 0; index < least.plan.happenings.length; index++) {
        const happenings = least.plan.happenings.toSpliced(index, 1)
        const tried = yield* run({ ...least.plan, happenings })
        if (tried.violations.length === 0 || !isSame(tried)) continue
        least = tried
        isSmaller = true
        index -= 1
      }
    }
    return least
  })

/**
 * What many runs came to.
 *
 * @since 1.0.0
 * @category models
 */
export interface Summary {
  readonly runs: number
  readonly calls: number
  readonly uploads: number
  readonly opened: number
  readonly unopened: number
  readonly mostCallsPerHour: number
  /** Virtual time, milliseconds. */
  readonly lasted: number
  /** How many runs came to each state that matters, by its name. */
  readonly reached: ReadonlyMap<string, number>
  /** The runs that failed, `stopAfter` at most. */
  readonly failed: ReadonlyArray<Outcome>
}

/**
 * Runs the plans of `runs` seeds from `seed` on, one after the other.
 *
 * @since 1.0.0
 * @category running
 */
export const runMany = (options: {
  readonly seed: number
  readonly runs: number
  /** Failed runs after which to stop; 1 unless given. */
  readonly stopAfter?: number | undefined
  /** Told of each run. */
  readonly onRun?: ((outcome: Outcome) => void) | undefined
}): Effect.Effect<Summary> =>
  Effect.gen(function* () {
    const { onRun = () => {}, runs, seed, stopAfter = 1 } = options
    const failed: Array<Outcome> = []
    const reached = new Map<string, number>()
    const sum = { runs: 0, calls: 0, uploads: 0, opened: 0, unopened: 0, mostCallsPerHour: 0, lasted: 0 }
    while (sum.runs < runs && failed.length < stopAfter) {
      const outcome = yield* run(plan(seed + sum.runs))
      sum.runs += 1
      sum.calls += outcome.calls
      sum.uploads += outcome.uploads
      sum.opened += outcome.tally.opened
      sum.unopened += outcome.tally.unopened
      sum.mostCallsPerHour = Math.max(sum.mostCallsPerHour, outcome.mostCallsPerHour)
      sum.lasted += outcome.lasted
      for (const state of outcome.reached.keys()) reached.set(state, (reached.get(state) ?? 0) + 1)
      if (outcome.violations.length > 0) failed.push(outcome)
      onRun(outcome)
    }
    return { ...sum, reached, failed }
  })
