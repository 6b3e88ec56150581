/**
 * A world of its own: one network, processes with clocks, a database that some of them share, and time that passes when it is
 * told to. Everything in it follows from one seed.
 *
 * The library runs in it unchanged, on real Effect fibers. What is simulated is only what the ports stand for. Fibers run when
 * the world lets them, so that a process can be stopped between any two of its calls, for a while or for good.
 *
 * @since 1.0.0
 */
import * as Identifier from "@keyward/core/identity/Identifier"
import * as InboxId from "@keyward/core/identity/InboxId"
import { eip191Hash } from "@keyward/core/identity/signature/SignedText"
import { type LifecycleEvent, LifecycleEvents } from "@keyward/core/lifecycle/LifecycleEvents"
import { LifecycleSettings, type LifecycleSettingsShape } from "@keyward/core/lifecycle/LifecycleSettings"
import { ApiClient, type Operation as ApiOperation } from "@keyward/core/ports/ApiClient"
import type { Entropy } from "@keyward/core/ports/Entropy"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import type { MlsCrypto } from "@keyward/core/ports/MlsCrypto"
import type { PostQuantumKem } from "@keyward/core/ports/PostQuantumKem"
import { Signer } from "@keyward/core/ports/Signer"
import type { SmartContractWalletVerifier } from "@keyward/core/ports/SmartContractWalletVerifier"
import { utf8ToBytes } from "@noble/hashes/utils.js"
import * as Cause from "effect/Cause"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Option from "effect/Option"
import * as Random from "effect/Random"
import * as Runtime from "effect/Runtime"
import * as Stream from "effect/Stream"
import type { Operation as StoreOperation } from "../MemoryKeyPackageStore.ts"
import * as Mutation from "../Mutation.ts"
import * as SeededEntropy from "../SeededEntropy.ts"
import * as VectorWallets from "../VectorWallets.ts"
import { type AroundApi, type AroundStore, aroundApi, aroundStore } from "./Ports.ts"
import * as SimulatedCrypto from "./SimulatedCrypto.ts"
import { SimulatedNetwork } from "./SimulatedNetwork.ts"
import * as SkewedClock from "./SkewedClock.ts"
import { forgetDead, StepScheduler } from "./StepScheduler.ts"
import { clockOf, Timers } from "./VirtualTime.ts"

/**
 * What every process of a world has: all ports of the library.
 *
 * @since 1.0.0
 * @category models
 */
export type Ports =
  | KeyPackageStore
  | ApiClient
  | Entropy
  | MlsCrypto
  | PostQuantumKem
  | SmartContractWalletVerifier
  | Signer

/**
 * Something that a process was asked to run.
 *
 * @since 1.0.0
 * @category models
 */
export interface Run<A, E> {
  /** How it ended; none while it runs, and for ever where its process was killed. */
  exit: Exit.Exit<A, E> | undefined
}

/**
 * One call of a port, as the trace keeps it.
 *
 * @since 1.0.0
 * @category models
 */
export interface TraceEntry {
  /** True time, milliseconds since 1970. */
  readonly at: number
  /** Who did it; `world` for what happened to the world. */
  readonly who: string
  readonly what: string
}

/**
 * What surrounds the calls of a process.
 *
 * @since 1.0.0
 * @category models
 */
export interface Around {
  readonly store: AroundStore
  readonly api: AroundApi
}

/**
 * How a world is made.
 *
 * @since 1.0.0
 * @category models
 */
export interface WorldOptions {
  readonly seed: number
  /** True time at the beginning, milliseconds since 1970; 2026-11-23T12:00:00Z unless given. */
  readonly start?: number | undefined
  readonly settings?: Partial<LifecycleSettingsShape> | undefined
  /** Entries of the trace that are kept, the latest; 2,000 unless given, 0 for none. */
  readonly traceLength?: number | undefined
}

/**
 * How a process is started.
 *
 * @since 1.0.0
 * @category models
 */
export interface ProcessOptions<X> {
  readonly name: string
  /** Its store, built anew: over a database that outlives it. */
  readonly store: Layer.Layer<KeyPackageStore>
  /** What the process is made of, above the ports: a scheduler, the app's own services. */
  readonly services: Layer.Layer<X, never, Ports>
  /** What surrounds its calls; `World.usual` unless given. */
  readonly around?: ((process: Process<X>) => Around) | undefined
  /** How wrong its clock is; not at all unless given. */
  readonly skew?: SkewedClock.Skew | undefined
}

/** 2026-11-23T12:00:00Z. */
const START = 1_795_435_200_000

/**
 * What a process may do in an hour of its life, in steps of its fibers: far more than the busiest hour of a random life takes. A
 * process that comes here goes round in circles, and would for ever.
 */
const STEPS_PER_HOUR = 100_000

const HOUR = 3_600_000

/** Never answers. `Effect.never` would keep a timer of the platform for each. */
const silence: Effect.Effect<never> = Effect.async(() => {})

/**
 * A process, whatever it is made of.
 *
 * @since 1.0.0
 * @category models
 */
export type AnyProcess = Omit<Process<never>, "run">

/**
 * One process of a world.
 *
 * @since 1.0.0
 * @category models
 */
export class Process<X> {
  readonly name: string
  readonly skew: SkewedClock.Skew
  readonly timers = new Timers()
  /** Its calls of ports so far. */
  calls = 0
  /** Steps of its fibers in an hour, and which hour. */
  #steps = { hour: 0, count: 0 }
  /** When it was started, true time. */
  readonly startedAt: number
  readonly #world: World
  readonly #scheduler = new StepScheduler()
  #sleptMillis = 0
  #asleepSince: number | undefined
  #runtime: Runtime.Runtime<X | Ports> | undefined
  #waiting: Array<(runtime: Runtime.Runtime<X | Ports>) => void> = []

  constructor(world: World, options: ProcessOptions<X>) {
    this.name = options.name
    this.#world = world
    this.startedAt = world.now
    this.skew = options.skew ?? SkewedClock.skew()
    const around = options.around?.(this) ?? world.usual(this)
    // No two processes have the same chances, however they are called: their keys would be the same.
    const seed = `${world.options.seed} ${options.name} ${world.started}`
    const store = Layer.map(options.store, (context) =>
      Context.make(KeyPackageStore, aroundStore(Context.get(context, KeyPackageStore), around.store))
    )
    const api = Layer.sync(ApiClient, () => aroundApi(world.network.clientFor(options.name), around.api))
    const clock = SkewedClock.make(
      clockOf({
        wallMillis: () => Math.floor(world.now),
        awakeMillis: () => this.awakeMillis,
        timers: this.timers
      }),
      this.skew
    )
    const surroundings = Layer.mergeAll(
      Layer.setClock(clock),
      Layer.setRandom(Random.make(seed)),
      Layer.setTracerEnabled(false),
      // What is logged as an error is a bug; so is a fiber that ends with a defect, also where nobody waits for it.
      Logger.replace(Logger.defaultLogger, this.#logger),
      Logger.minimumLogLevel(LogLevel.Error),
      Layer.setUnhandledErrorLogLevel(Option.some(LogLevel.Error)),
      Layer.succeed(LifecycleSettings, world.settings),
      Layer.succeed(LifecycleEvents, {
        publish: (event) => Effect.sync(() => world.onEvent(options.name, event)),
        stream: Stream.never
      })
    )
    const ports = Layer.mergeAll(
      store,
      api,
      SeededEntropy.layer(seed),
      SimulatedCrypto.layer,
      VectorWallets.layer,
      Layer.succeed(Signer, world.wallet)
    )
    const all = options.services.pipe(Layer.provideMerge(ports), Layer.provideMerge(surroundings))
    const life = Effect.scoped(
      Effect.flatMap(Layer.toRuntime(all), (runtime) => {
        this.#runtime = runtime
        for (const begin of this.#waiting.splice(0)) begin(runtime)
        return silence
      })
    )
    // It lives until it is killed.
    Effect.runFork(life, { scheduler: this.#scheduler }).addObserver((exit) => this.#fail(`it ended: ${exit}`))
  }

  /** It has done what no process should, whatever happens to it. */
  #fail(what: string): void {
    if (!this.isDead) this.#world.fail(this.name, what)
  }

  readonly #logger = Logger.make<unknown, void>(({ cause, message }) => {
    if (Cause.isEmpty(cause) || Cause.isDie(cause)) this.#fail(`${String(message)} ${Cause.pretty(cause)}`)
  })

  /** Milliseconds that its machine has been awake, as a monotonic clock counts them. */
  get awakeMillis(): number {
    return (this.#asleepSince ?? this.#world.now) - this.#sleptMillis
  }

  /** What its wall clock shows, milliseconds since 1970. */
  get wallMillis(): number {
    return Math.floor(this.#world.now) + this.skew.offsetMillis
  }

  get isDead(): boolean {
    return this.#scheduler.isDead
  }

  /** Whether a fiber of it could run now. */
  get isReady(): boolean {
    return this.#asleepSince === undefined && this.#scheduler.isReady
  }

  /** When it does something by itself next, true time; none while nothing is planned or its machine sleeps. */
  get nextAt(): number | undefined {
    const at = this.timers.next
    return at === undefined || this.#asleepSince !== undefined ? undefined : at + this.#sleptMillis
  }

  /** Runs in the process, once its services are there. */
  run<A, E>(effect: Effect.Effect<A, E, X | Ports>): Run<A, E> {
    const run: Run<A, E> = { exit: undefined }
    const begin = (runtime: Runtime.Runtime<X | Ports>) => {
      const fiber = Runtime.runFork(runtime)(effect, { scheduler: this.#scheduler, immediate: false })
      fiber.addObserver((exit) => {
        run.exit = exit
        if (Exit.isFailure(exit) && Cause.isDie(exit.cause)) this.#fail(Cause.pretty(exit.cause))
      })
    }
    if (this.#runtime === undefined) this.#waiting.push(begin)
    else begin(this.#runtime)
    return run
  }

  /** SIGKILL: nothing of it runs any more, no finalizer either. What is on its way to the network stays so. */
  kill(): void {
    this.#world.note(this.name, "killed")
    this.#scheduler.kill()
    this.timers.clear()
    this.#waiting = []
    this.#world.forget(this)
  }

  /** A long pause of the collector, a stopped container: nothing runs, time goes on. */
  pause(): void {
    this.#world.note(this.name, "paused")
    this.#scheduler.isPaused = true
  }

  resume(): void {
    this.#world.note(this.name, "resumed")
    this.#scheduler.isPaused = false
  }

  /** Its machine falls asleep: nothing runs, and its monotonic clock stands still. */
  fallAsleep(): void {
    if (this.#asleepSince !== undefined) return
    this.#world.note(this.name, "asleep")
    this.#asleepSince = this.#world.now
  }

  wake(): void {
    if (this.#asleepSince === undefined) return
    this.#world.note(this.name, "awake")
    this.#sleptMillis += this.#world.now - this.#asleepSince
    this.#asleepSince = undefined
  }

  /** Its wall clock is set to another time. */
  stepClock(millis: number): void {
    this.#world.note(this.name, `clock stepped by ${millis} ms`)
    this.skew.offsetMillis += millis
  }

  /** For the world: runs a little. One that goes round in circles is killed, or time would stand still. */
  step(): void {
    const hour = Math.floor(this.#world.now / HOUR)
    if (this.#steps.hour !== hour) this.#steps = { hour, count: 0 }
    this.#steps.count += 1
    if (this.#steps.count > STEPS_PER_HOUR) {
      this.#fail(`it goes round in circles: ${this.#steps.count} steps in an hour`)
      return this.kill()
    }
    this.#scheduler.step()
  }
}

/**
 * A turn of the event loop: promises that are under way come to an end, or to their next wait. Not a timer: no clock has a part in
 * it.
 */
const turn = (): Promise<void> => {
  const { setImmediate } = globalThis
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}

/**
 * A world. Nothing happens in it but inside `advance` and `settle`.
 *
 * @since 1.0.0
 * @category models
 * @example
 * ```ts
 * import * as Scheduler from "@keyward/core/lifecycle/Scheduler"
 * import { registerInstallation } from "@keyward/core/lifecycle/Registration"
 * import * as WelcomeProgress from "@keyward/core/ports/WelcomeProgress"
 * import * as MemoryKeyPackageStore from "@keyward/test-utils/MemoryKeyPackageStore"
 * import { World } from "@keyward/test-utils/simulation/World"
 * import * as Effect from "effect/Effect"
 * import * as Layer from "effect/Layer"
 *
 * const scenario = async () => {
 *   const world = new World({ seed: 1 })
 *   const database = Effect.runSync(MemoryKeyPackageStore.makeDatabase)
 *   const store = MemoryKeyPackageStore.layerShared(database)
 *   const services = Scheduler.layer().pipe(Layer.provide(WelcomeProgress.layerNone))
 *   const server = world.start({ name: "server", store, services })
 *   const registration = server.run(registerInstallation({ includePostQuantum: true }))
 *   await world.advance("1 minute")
 *   world.end()
 *   return registration.exit
 * }
 * ```
 */
export class World {
  readonly options: WorldOptions
  readonly settings: LifecycleSettingsShape
  readonly network: SimulatedNetwork
  /** Chances of this world: whole numbers below a limit. */
  readonly random: Mutation.Next
  /** The wallet that every process of this world signs with, and its inbox. */
  readonly wallet: Context.Tag.Service<Signer>
  readonly inboxId: InboxId.InboxId
  /** How many processes were started so far. */
  started = 0
  /** All processes that live. */
  readonly processes: Array<AnyProcess> = []
  /** Told after every call of a port that was carried out, and after every change of the network. */
  onChange: (who: string, operation: StoreOperation | ApiOperation | "network") => void = () => {}
  /** Told of every call of a port that failed. */
  onFailure: (who: string, operation: StoreOperation | ApiOperation, error: unknown) => void = () => {}
  /** Told of every event of the library. */
  onEvent: (who: string, event: LifecycleEvent) => void = () => {}
  /** What processes have done that none should: ended by themselves, died of a defect, logged an error, gone round in circles. */
  readonly failures: Array<string> = []
  readonly #timers = new Timers()
  readonly #trace: Array<TraceEntry> = []
  #now: number

  constructor(options: WorldOptions) {
    this.options = options
    this.#now = options.start ?? START
    this.random = Mutation.generator(options.seed)
    this.settings = { ...LifecycleSettings.defaultValue(), ...options.settings }
    this.network = new SimulatedNetwork({
      now: () => this.#now,
      at: (millis, task) => this.at(millis, task)
    })
    this.network.onChange = () => this.onChange("network", "network")
    const address = `0x${"5a".repeat(20)}`
    const identifier = Identifier.ethereum(address)
    this.wallet = {
      identifier,
      signText: (text) =>
        Effect.sync(() => {
          const hash = eip191Hash(utf8ToBytes(text))
          return VectorWallets.sign({ chainId: "eip155:1", address }, hash, utf8ToBytes(text))
        }),
      smartContractWallet: { chainId: 1n, blockNumber: Effect.succeed(1n) }
    }
    this.inboxId = InboxId.derive(identifier)
    this.network.name(address, this.inboxId)
  }

  /** True time, milliseconds since 1970. */
  get now(): number {
    return this.#now
  }

  /** What happened lately, oldest first. */
  get trace(): ReadonlyArray<TraceEntry> {
    return this.#trace
  }

  /** Writes into the trace. */
  note(who: string, what: string): void {
    const { traceLength = 2_000 } = this.options
    if (traceLength === 0) return
    this.#trace.push({ at: this.#now, who, what })
    if (this.#trace.length >= 2 * traceLength) this.#trace.splice(0, this.#trace.length - traceLength)
  }

  /** For processes: one has done what none should. */
  fail(who: string, what: string): void {
    this.note(who, what)
    this.failures.push(`${who}: ${what}`)
  }

  /** Has something done at a time, whoever lives then. */
  at(millis: number, task: () => void): void {
    this.#timers.set(millis, task)
  }

  /** Starts a process. It runs with the next `advance`. */
  start<X>(options: ProcessOptions<X>): Process<X> {
    this.started += 1
    const process = new Process(this, options)
    this.processes.push(process)
    this.note(process.name, "started")
    return process
  }

  /** For processes: it is dead. */
  forget(process: AnyProcess): void {
    const index = this.processes.indexOf(process)
    if (index >= 0) this.processes.splice(index, 1)
  }

  /** Kills all processes. A world that is done with and not ended stays in memory. */
  end(): void {
    for (const process of this.processes.slice()) process.kill()
    forgetDead()
  }

  /** Calls that take some time before and after they are done, by chance. */
  usual(process: AnyProcess): Around {
    const gap = (longest: number): Effect.Effect<void> =>
      Effect.suspend(() => (this.random(4) > 0 ? Effect.yieldNow() : Effect.sleep(this.random(longest))))
    return {
      store: (operation, run) => this.surround(process, operation, run, gap(20)),
      api: (operation, run) => this.surround(process, operation, run, gap(500))
    }
  }

  /** One call with a wait before and after, counted, traced and told of. */
  surround<A, E>(
    process: AnyProcess,
    operation: StoreOperation | ApiOperation,
    run: Effect.Effect<A, E>,
    gap: Effect.Effect<void>
  ): Effect.Effect<A, E> {
    return Effect.suspend(() => {
      process.calls += 1
      return Effect.zipRight(
        gap,
        Effect.matchEffect(run, {
          onFailure: (error) => {
            this.note(process.name, `${operation} failed: ${String(error)}`)
            this.onFailure(process.name, operation, error)
            return Effect.zipRight(gap, Effect.fail(error))
          },
          onSuccess: (answer) => {
            this.note(process.name, operation)
            this.onChange(process.name, operation)
            return Effect.as(gap, answer)
          }
        })
      )
    })
  }

  /** Lets everything run that need not wait for time. */
  async settle(): Promise<void> {
    while (true) {
      while (this.#stepOne());
      // Promises, and what waits for a turn of the event loop, come to their end before this does.
      await turn()
      if (!this.processes.some((process) => process.isReady)) return
    }
  }

  /** Lets this much time pass, and everything happen that belongs into it. */
  async advance(duration: Duration.DurationInput): Promise<void> {
    await this.advanceTo(this.#now + Duration.toMillis(duration))
  }

  /** The same, up to a time. */
  async advanceTo(target: number): Promise<void> {
    while (true) {
      await this.settle()
      const next = this.#nextTimers()
      if (next === undefined || next.at > target) break
      this.#now = Math.max(this.#now, next.at)
      next.timers.fire()
    }
    this.#now = Math.max(this.#now, target)
  }

  /** Runs a fiber of a process that can, by chance; false where none can. */
  #stepOne(): boolean {
    const ready = this.processes.filter((process) => process.isReady)
    if (ready.length === 0) return false
    const process = ready.length === 1 ? ready[0] : Mutation.pick(this.random, ready)
    process?.step()
    return true
  }

  #nextTimers(): { readonly at: number; readonly timers: Timers } | undefined {
    const own = this.#timers.next
    let found = own === undefined ? undefined : { at: own, timers: this.#timers }
    for (const { nextAt, timers } of this.processes) {
      if (nextAt !== undefined && (found === undefined || nextAt < found.at)) found = { at: nextAt, timers }
    }
    return found
  }
}

/**
 * The trace as lines.
 *
 * @since 1.0.0
 * @category conversions
 */
export const formatTrace = (trace: ReadonlyArray<TraceEntry>): string =>
  trace.map(({ at, what, who }) => `${new Date(at).toISOString()} ${who}: ${what}`).join("\n")
