/**
 * What must hold whatever goes wrong, as checks of a world:
 *
 * - I1, served implies openable: the private keys of the package that the network serves are here, and when all is quiet it
 *   serves our newest
 * - I2, every key has an owner and a death date
 * - I3, no promised Welcome is lost
 * - I5, bounded: calls and rows stay few, also while nothing works, and packages are made no faster than their budgets allow
 * - I6, no state needs a human, and no process dies of a bug
 *
 * @since 1.0.0
 */
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { KeyPackageRef } from "@keyward/core/keypackage/KeyPackageRef"
import type { RotationTrigger } from "@keyward/core/lifecycle/Ledger"
import type { LifecycleEvent } from "@keyward/core/lifecycle/LifecycleEvents"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Option from "effect/Option"
import type { RowState, StoreState } from "./StoreState.ts"
import { formatTrace, type TraceEntry, type World } from "./World.ts"

/**
 * The invariants.
 *
 * @since 1.0.0
 * @category models
 */
export type Invariant = "I1" | "I2" | "I3" | "I5" | "I6"

/**
 * An invariant that did not hold.
 *
 * @since 1.0.0
 * @category models
 */
export interface Violation {
  readonly invariant: Invariant
  readonly what: string
  /** True time, milliseconds since 1970. */
  readonly at: number
  /** With it the same run can be made again. */
  readonly seed: number
  /** What happened before. */
  readonly trace: ReadonlyArray<TraceEntry>
}

/**
 * A violation in words, its trace included.
 *
 * @since 1.0.0
 * @category conversions
 */
export const format = ({ at, invariant, seed, trace, what }: Violation): string =>
  `${formatTrace(trace)}\n${invariant} at ${new Date(at).toISOString()}, seed ${seed}: ${what}`

/**
 * How long an installation was revoked, true times in milliseconds since 1970. Nobody may invite it; what a process whose
 * clock is ahead erases when it has been revoked for two graces is made anew afterwards.
 *
 * @since 1.0.0
 * @category models
 */
export interface Suspension {
  readonly since: number
  /** Until the last process may have learnt that it is a member again; infinite while it is not. */
  readonly until: number
}

/**
 * What the world has done that no library can make good: exceptions from the invariants.
 *
 * @since 1.0.0
 * @category models
 */
export interface Excuses {
  /** Packages whose keys or row the world destroyed. */
  readonly destroyed: Set<KeyPackageRef>
  /**
   * Packages that were first seen before this true time may lack their keys, and their dates: the store was put back to an older
   * state, or there are two of it. What is made from then on is excused of nothing.
   */
  unsureUntil: number
  /** By how much the grace may be cut because clocks disagreed, milliseconds. */
  disagreement: number
  /** How long a process may stand still between what it sees and what it writes, milliseconds. */
  hesitation: number
  /** Whether wall clocks were set to other times: budgets are counted by them. */
  isClockSet: boolean
  /** How far ahead of the true time a wall clock may be, milliseconds. */
  furthestAhead: number
  /** Installations that the world has revoked for good. */
  readonly revoked: Set<InstallationId>
  /** Installations that are, or were, revoked for a while. */
  readonly suspended: Map<InstallationId, Suspension>
}

const MINUTE = 60_000
const HOUR = 60 * MINUTE

/** The setting that limits how many packages are made for this reason in an hour; none where nothing does. */
const budgetOf = (
  trigger: RotationTrigger
): "welcomeRotationsPerHour" | "repairRotationsPerHour" | "otherRotationsPerHour" | undefined => {
  switch (trigger) {
    case "Manual":
    case "Registration":
      return undefined
    case "Welcome":
      return "welcomeRotationsPerHour"
    case "Repair":
      return "repairRotationsPerHour"
    default:
      return "otherRotationsPerHour"
  }
}

/** How far the bounds of I5 reach. */
const bounds = {
  /** Calls of ports by one process in an hour, for each installation. */
  callsPerHour: 2_500,
  /** Rows that wait to be sent, those included that a publication which waits to be confirmed has left behind. */
  waiting: 3,
  /** The latter alone, where clocks were set: two that disagree each make what the other does not send, at the pace of the budgets. */
  leftBehind: 24
} as const

/**
 * Watches one world and one store.
 *
 * @since 1.0.0
 * @category models
 */
export class Watch {
  readonly violations: Array<Violation> = []
  readonly excuses: Excuses = {
    destroyed: new Set(),
    unsureUntil: Number.NEGATIVE_INFINITY,
    disagreement: 0,
    hesitation: 15 * MINUTE,
    isClockSet: false,
    furthestAhead: 0,
    revoked: new Set(),
    suspended: new Map()
  }
  /** How many installations there must be when all is quiet. */
  expected = 1
  /** How often the app asked for another kind of package, which may leave a package waiting that is not wanted any more. */
  profileChanges = 0
  /** How long after its date of deletion a package may still be here when all is quiet, milliseconds. */
  patience = 14 * HOUR
  /** When a package was last known by its owner to be served, true time. */
  readonly lastKnown = new Map<KeyPackageRef, number>()
  readonly #world: World
  readonly #state: () => StoreState
  readonly #deleteAt = new Map<KeyPackageRef, number>()
  readonly #firstSeen = new Map<KeyPackageRef, number>()
  /** When packages were made that count against a budget, true time, by installation and budget. */
  readonly #made = new Map<string, ReadonlyArray<number>>()
  readonly #callsAt = new Map<string, { readonly hour: number; readonly calls: number }>()
  #checked: { readonly state: StoreState | undefined; readonly changes: number } = { state: undefined, changes: 0 }
  /** The most calls that a process made in an hour. */
  mostCalls = 0

  /** Watches from now on: after each change, and after each event. */
  constructor(world: World, state: () => StoreState) {
    this.#world = world
    this.#state = state
    world.onChange = () => this.check()
    world.onEvent = (_, event) => this.observe(event)
  }

  /** Something does not hold. Only the first of a kind is kept. */
  report(invariant: Invariant, what: string): void {
    if (this.violations.length === 0) {
      for (const { installation, rows } of this.#state().installations) {
        for (const { createdAt, deleteAt, historyId, ref, state } of rows) {
          const times = [createdAt, deleteAt].map((time) => (time === undefined ? "" : new Date(time).toISOString()))
          this.#world.note("store", `${historyId} ${state} ${ref?.slice(0, 8)} made ${times[0]} delete ${times[1]}`)
        }
        this.#world.note("store", JSON.stringify(installation.schedule))
      }
    }
    const { now, options, trace } = this.#world
    if (this.violations.some((known) => known.invariant === invariant)) return
    this.violations.push({ invariant, what, at: now, seed: options.seed, trace: trace.slice() })
  }

  /** How long after a package was last known to be served a Welcome for it is promised to be openable, milliseconds. */
  get promise(): number {
    return Duration.toMillis(this.#world.settings.grace) - this.excuses.disagreement
  }

  /** The installations of the store, oldest first. */
  get installations(): ReadonlyArray<InstallationId> {
    return this.#state().installations.map(({ installation }) => installation.installationId)
  }

  /** The installation with a label; none while there is none. */
  labelled(label: string): InstallationId | undefined {
    return this.#state().installations.find(({ installation }) => installation.label === label)?.installation
      .installationId
  }

  /** Whether the world has done something to this package that no library can make good. */
  isExcused(ref: KeyPackageRef): boolean {
    const { destroyed, unsureUntil } = this.excuses
    return destroyed.has(ref) || (this.#firstSeen.get(ref) ?? Number.NEGATIVE_INFINITY) < unsureUntil
  }

  /** What the library says of itself. To be called with every event: I5, packages made. */
  observe(event: LifecycleEvent): void {
    if (event._tag !== "Generated" || this.excuses.isClockSet) return
    const budget = budgetOf(event.trigger)
    if (budget === undefined) return
    const { now, settings } = this.#world
    const key = `${event.installationId} ${budget}`
    // A little less than the hour of the library, which looks before it makes.
    const made = [...(this.#made.get(key) ?? []).filter((at) => at > now - 50 * MINUTE), now]
    this.#made.set(key, made)
    // What the library counts by can be gone.
    if (this.excuses.unsureUntil > now - HOUR || made.length <= settings[budget] + this.excuses.destroyed.size) return
    this.report("I5", `${made.length} packages made for ${event.trigger} in less than an hour`)
  }

  /** Checks what must hold at every moment. To be called after every change. */
  check(): void {
    for (const failure of this.#world.failures) this.report("I6", failure)
    this.#checkCalls()
    const state = this.#state()
    const { changes } = this.#world.network
    if (state === this.#checked.state && changes === this.#checked.changes) return
    this.#checked = { state, changes }
    this.#checkOwners(state)
    for (const { installation, rows } of state.installations) {
      this.#learn(rows)
      this.#checkServed(state, installation.installationId, rows)
      this.#checkWaiting(rows)
    }
  }

  /** What the owner knows: a date of deletion that moved says that the package was served just before. */
  #learn(rows: ReadonlyArray<RowState>): void {
    const { hesitation } = this.excuses
    for (const { deleteAt, ref, state } of rows) {
      if (ref !== undefined && !this.#firstSeen.has(ref)) this.#firstSeen.set(ref, this.#world.now)
      if (ref === undefined || deleteAt === undefined || state === "Quarantined") continue
      if (this.#deleteAt.get(ref) === deleteAt) continue
      this.#deleteAt.set(ref, deleteAt)
      // A process may have stood still between what it saw and what it wrote.
      const { now } = this.#world
      const seenAt = deleteAt - Duration.toMillis(this.#world.settings.grace)
      this.lastKnown.set(ref, Math.min(now, Math.max(seenAt, now - hesitation)))
    }
  }

  /** I1, the first half: for whatever any node of the network shows. */
  #checkServed(state: StoreState, id: InstallationId, rows: ReadonlyArray<RowState>): void {
    for (const serving of this.#world.network.shown(id)) {
      if (serving.ref === undefined || this.isExcused(serving.ref)) continue
      const isInTime =
        serving.cause === "Upload" || (serving.cause === "Late" && serving.from - serving.sentAt < this.promise)
      if (!isInTime) continue
      const row = rows.find(({ ref }) => ref === serving.ref)
      if (row !== undefined && state.keys.has(row.historyId)) continue
      // Nobody accepts an invitation by a package whose lifetime is over.
      if (serving.notAfter <= this.#world.now) continue
      // What only a node that lags behind still shows is superseded: its keys are promised as long as those of all such packages.
      const supersededAt = this.lastKnown.get(serving.ref)
      const isNewest = this.#world.network.served(id)?.ref === serving.ref
      if (!isNewest && supersededAt !== undefined && this.#world.now - supersededAt >= this.promise) continue
      if (this.#mayBeErasedAhead(id, serving.notAfter) && supersededAt === undefined) {
        this.excuses.destroyed.add(serving.ref)
        continue
      }
      this.report("I1", `the network serves ${serving.ref} (${serving.cause}), whose keys are not here`)
    }
  }

  /** Whether a clock that is ahead may lead to the erasure of what nothing has superseded: at the hard stop, by a long revocation. */
  #mayBeErasedAhead(id: InstallationId, notAfter: number): boolean {
    const { furthestAhead, suspended } = this.excuses
    const { now, settings } = this.#world
    const { since, until } = suspended.get(id) ?? { since: 0, until: 0 }
    const twoGraces = 2 * Duration.toMillis(settings.grace)
    return now <= until && now - since >= twoGraces && now + furthestAhead >= notAfter + twoGraces
  }

  /** I2. */
  #checkOwners({ installations, keys }: StoreState): void {
    const owners = new Set(installations.flatMap(({ rows }) => rows.map(({ historyId }) => historyId)))
    for (const id of keys) if (!owners.has(id)) this.report("I2", `the keys of ${id} have no row`)
    for (const { rows } of installations) {
      for (const { deleteAt, historyId, state } of rows) {
        const isDoomed = state === "Superseded" || state === "Rejected" || state === "Quarantined"
        if (isDoomed && deleteAt === undefined)
          this.report("I2", `${historyId} is ${state} and has no date of deletion`)
      }
    }
  }

  /** I5, rows. */
  #checkWaiting(rows: ReadonlyArray<RowState>): void {
    const newest = rows.findLast(({ state }) => state === "Published")?.historyId ?? 0
    const waiting = rows.filter(({ state }) => state === "Prepared" || state === "Exposed")
    const most = bounds.waiting + this.profileChanges
    if (!this.excuses.isClockSet) {
      if (waiting.length > most) this.report("I5", `${waiting.length} packages wait to be sent`)
      return
    }
    // What is fit by one clock is not by another, and neither sends what the other has made.
    const toSend = waiting.filter(({ historyId }) => historyId > newest).length
    const leftBehind = waiting.length - toSend
    if (toSend > 2 * most) this.report("I5", `${toSend} packages wait to be sent`)
    if (leftBehind > bounds.leftBehind) this.report("I5", `${leftBehind} packages are left behind`)
  }

  /** I5, calls. */
  #checkCalls(): void {
    const hour = Math.floor(this.#world.now / HOUR)
    for (const { calls, name } of this.#world.processes) {
      const known = this.#callsAt.get(name)
      if (known?.hour !== hour || calls < known.calls) {
        this.#callsAt.set(name, { hour, calls })
        continue
      }
      const made = calls - known.calls
      if (made > this.mostCalls) this.mostCalls = made
      if (made > bounds.callsPerHour * this.expected) this.report("I5", `${name} made ${made} calls in an hour`)
    }
  }

  /** Checks what must hold when all has been quiet for a while, and every Welcome read: I1 and I2 in full, and I6. */
  checkQuiet(): void {
    this.check()
    const state = this.#state()
    const { network, now } = this.#world
    if (state.installations.length !== this.expected) {
      this.report("I6", `there are ${state.installations.length} installations instead of ${this.expected}`)
    }
    for (const { installation, rows } of state.installations) {
      const { installationId, schedule } = installation
      const isRevoked = this.excuses.revoked.has(installationId)
      const serving = network.served(installationId)
      const newest = rows.findLast((row) => row.state === "Published")
      if (installation.registration._tag !== "Registered") {
        this.report("I6", `registration stopped at ${installation.registration._tag}`)
      } else if (!isRevoked) {
        if (newest === undefined) this.report("I1", "no package is published")
        else if (serving?.ref !== newest.ref) {
          this.report(
            "I1",
            `the network serves ${serving?.ref ?? "nothing"} and not ${newest.historyId}, ${newest.ref}`
          )
        } else if (!state.keys.has(newest.historyId)) this.report("I1", `the keys of ${newest.historyId} are not here`)
        else if ((newest.notAfter ?? 0) <= now || (newest.notBefore ?? 0) > now) {
          this.report("I1", `${newest.historyId} is not valid now`)
        }
        if (schedule.rotateAt._tag === "None") this.report("I6", "nothing says when its package is to be replaced")
        if (schedule.revokedAt._tag === "Some") this.report("I6", "believes to be revoked, and is a member")
        if (schedule.unreachable._tag === "Some") {
          this.report("I6", `${schedule.unreachable.value.verdict} since long, and nothing is wrong`)
        }
        // A failure of long ago, of a rotation that is not due yet by the right time, waits for its time.
        const isDue = Schedule.dueTriggers(schedule, DateTime.unsafeMake(now)).length > 0
        if (schedule.failures._tag === "Some" && isDue) {
          this.report("I6", `rotation fails: ${schedule.failures.value.detail}`)
        }
      }
      for (const { deleteAt, historyId, notBefore = 0, ref, state } of rows) {
        const isWaiting = state === "Prepared" || state === "Exposed"
        if (state === "Damaged") this.report("I6", `${historyId} cannot be read, and nobody has noticed`)
        // A publication supersedes what was before it when it is confirmed: a rotation of just now may wait for that.
        const isToBeConfirmed = Option.exists(schedule.confirmation, ({ until }) => DateTime.toEpochMillis(until) > now)
        const isInUse = isWaiting || (state === "Published" && !isToBeConfirmed)
        if (isInUse && newest !== undefined && historyId < newest.historyId) {
          this.report("I2", `${historyId} is ${state}, has no date of deletion, and ${newest.historyId} is published`)
        }
        // One that was made under a clock that was ahead is not fit to be sent yet.
        if (isWaiting && !isRevoked && historyId > (newest?.historyId ?? 0) && notBefore <= now) {
          this.report("I6", `${historyId} is ${state}, and nobody sends it`)
        }
        const isServed = ref !== undefined && ref === serving?.ref
        if (deleteAt !== undefined && deleteAt < now - this.patience && !isServed) {
          this.report("I2", `${historyId} is ${state} and should have been erased ${(now - deleteAt) / HOUR} hours ago`)
        }
      }
    }
  }
}
