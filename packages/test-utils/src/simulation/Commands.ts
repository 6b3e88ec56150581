/**
 * The life of an installation as random commands, for `fc.commands`: each is done to the model and to the library, on whatever
 * store, and both must come to the same.
 *
 * @since 1.0.0
 */
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as ClockGuard from "@keyward/core/lifecycle/ClockGuard"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import { rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import { upkeep } from "@keyward/core/lifecycle/Upkeep"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as WelcomeProgress from "@keyward/core/ports/WelcomeProgress"
import * as Effect from "effect/Effect"
import * as FastCheck from "effect/FastCheck"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Model from "./Model.ts"
import { NetworkFault } from "./SimulatedNetwork.ts"
import { type Ports, type Process, World } from "./World.ts"

const MINUTE = 60_000

/** The rules of this library, in minutes. */
const rules: Model.Rules = { ...Model.rules, grace: 24 * 60, latest: 20 * 60 }

/** How long a command has to be done, minutes. */
const ROOM = 5

/** What a look waits for first, minutes: longer than the wait after any failure that the network is to blame for. */
const REST = 121

/** One wait, minutes. Sums of this and the other two are hardly ever a whole grace. */
const WAIT = 307

/** What the library has, in the words of the model. */
interface Seen {
  readonly packages: ReadonlyArray<Pick<Model.Package, "id" | "state">>
  readonly served: number | undefined
}

/** The model, which commands put another one in the place of. */
interface Held {
  model: Model.Model
}

/**
 * The library in a world, with one installation that is registered and whose first package is published.
 *
 * @since 1.0.0
 * @category models
 */
export class Life {
  readonly #world: World
  readonly #store: Layer.Layer<KeyPackageStore>
  readonly #id: InstallationId
  #process: Process<never>
  /** Uploads that are still on their way, by number. */
  readonly #late = new Map<number, Uint8Array>()

  private constructor(world: World, store: Layer.Layer<KeyPackageStore>, process: Process<never>, id: InstallationId) {
    this.#world = world
    this.#store = store
    this.#process = process
    this.#id = id
  }

  /** A new life over a store: an empty one. */
  static async begin(seed: number, store: Layer.Layer<KeyPackageStore>): Promise<Life> {
    const world = new World({ seed, traceLength: 200 })
    const process = startOn(world, store)
    const { result } = await runIn(world, process, registerInstallation({ includePostQuantum: false }))
    if (result?._tag !== "Success") throw new Error("the installation was not registered")
    return new Life(world, store, process, result.value.installationId)
  }

  /** Nothing runs any more. */
  end(): void {
    this.#world.end()
  }

  /** The process dies, and another takes its place. */
  restart(): void {
    this.#process.kill()
    this.#process = startOn(this.#world, this.#store)
  }

  /** One rotation, each of whose uploads goes like this. */
  async rotate(outcome: (Model.Event & { _tag: "Upload" })["outcome"]): Promise<void> {
    const faults = {
      Accepted: undefined,
      Unheard: NetworkFault.Unheard(),
      Lost: NetworkFault.Lost(),
      Late: NetworkFault.Hang({ isDone: false })
    }
    this.#world.network.faultFor = ({ operation }) => (operation === "uploadKeyPackage" ? faults[outcome] : undefined)
    const installationId = this.#id
    await runIn(this.#world, this.#process, rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }))
    this.#world.network.faultFor = () => undefined
    if (outcome !== "Late") return
    const store = KeyPackageStore
    const { result } = await runIn(
      this.#world,
      this.#process,
      Effect.flatMap(store, (port) => port.getNewest(installationId)),
      0
    )
    if (result?._tag !== "Success" || Option.isNone(result.value)) throw new Error("there is no package")
    this.#late.set(result.value.value.historyId, result.value.value.keyPackage.bytes)
  }

  /** A late upload arrives. */
  land(id: number): void {
    const bytes = this.#late.get(id)
    if (bytes !== undefined) this.#world.network.serve(this.#id, bytes, "Late")
  }

  /** Whatever is due is done, after a look at the network. */
  async look(): Promise<void> {
    await this.wait(REST)
    const effect = Effect.flatMap(ClockGuard.make, (guard) => upkeep(this.#id, { guard, look: true }))
    await runIn(this.#world, this.#process, Effect.provide(effect, WelcomeProgress.layerNone))
  }

  async wait(minutes: number): Promise<void> {
    await this.#world.advance(minutes * MINUTE)
  }

  /** What it has come to. */
  async seen(): Promise<Seen> {
    const id = this.#id
    const { result } = await runIn(
      this.#world,
      this.#process,
      Effect.gen(function* () {
        const store = yield* KeyPackageStore
        return { kept: yield* store.getHistory(id), retired: yield* store.getRetired(id) }
      }),
      0
    )
    if (result?._tag !== "Success") throw new Error("the store cannot be read")
    const { kept, retired } = result.value
    const packages = [...retired, ...kept]
      .map(({ _tag, historyId }) => ({ id: historyId, state: _tag === "Rejected" ? ("Superseded" as const) : _tag }))
      .sort((one, other) => one.id - other.id)
    const ref = this.#world.network.served(id)?.ref
    const shown = [...retired, ...kept.map(({ historyId, keyPackage }) => ({ historyId, ref: keyPackage.ref }))].find(
      (known) => known.ref === ref
    )
    return { packages, served: shown?.historyId }
  }
}

const startOn = (world: World, store: Layer.Layer<KeyPackageStore>): Process<never> =>
  world.start({ name: "life", store, services: Layer.empty as Layer.Layer<never> })

const runIn = async <A, E>(
  world: World,
  process: Process<never>,
  effect: Effect.Effect<A, E, Ports>,
  minutes: number = ROOM
) => {
  const run = process.run(effect)
  await world.advance(minutes === 0 ? 5_000 : minutes * MINUTE)
  return { result: run.exit }
}

const apply = (held: Held, ...events: ReadonlyArray<Model.Event>): void => {
  for (const event of events) held.model = Model.step(held.model, event, rules)
}

/** Both must be the same. */
const compare = async ({ model }: Held, life: Life): Promise<void> => {
  const seen = await life.seen()
  const expected: Seen = { packages: model.packages.map(({ id, state }) => ({ id, state })), served: model.served }
  if (JSON.stringify(seen) !== JSON.stringify(expected)) {
    throw new Error(`the library has ${JSON.stringify(seen)}, the model ${JSON.stringify(expected)}`)
  }
}

type Command = FastCheck.AsyncCommand<Held, Life>

/** Whether this much time may pass: what is late must have arrived. */
const mayPass = ({ late, time }: Model.Model, minutes: number): boolean =>
  late.every(({ before }) => before > time + minutes)

const command = (
  name: string,
  check: (model: Model.Model) => boolean,
  run: (held: Held, life: Life) => Promise<void>
): Command => ({
  check: ({ model }) => check(model),
  run: async (held, life) => {
    await run(held, life)
    await compare(held, life)
  },
  toString: () => name
})

const rotate = (outcome: (Model.Event & { _tag: "Upload" })["outcome"]): Command =>
  command(
    `rotate: ${outcome}`,
    (model) => mayPass(model, ROOM + 1),
    async (held, life) => {
      await life.rotate(outcome)
      apply(held, { _tag: "Prepare" }, { _tag: "Expose" }, { _tag: "Upload", outcome }, { _tag: "Tick", by: ROOM })
    }
  )

/** When a look comes so close to a date that the seconds decide, it is left out. */
const isClear = ({ packages, time }: Model.Model): boolean =>
  packages.every(({ deleteAt }) => deleteAt === undefined || Math.abs(deleteAt - time - REST) > 3 * ROOM)

const look = command(
  "look",
  (model) => mayPass(model, REST + ROOM + 1) && isClear(model),
  async (held, life) => {
    await life.look()
    apply(held, { _tag: "Tick", by: REST }, { _tag: "Look" })
    // What waits is sent again.
    if (Model.waiting(held.model) !== undefined) apply(held, { _tag: "Upload", outcome: "Accepted" })
    apply(held, { _tag: "Clean" }, { _tag: "Tick", by: ROOM })
  }
)

const wait = (times: number): Command =>
  command(
    `wait ${times * WAIT} minutes`,
    (model) => mayPass(model, times * WAIT),
    async (held, life) => {
      await life.wait(times * WAIT)
      apply(held, { _tag: "Tick", by: times * WAIT })
    }
  )

const land = (index: number): Command =>
  command(
    "land",
    ({ late }) => late.length > index,
    async (held, life) => {
      const id = held.model.late[index]?.id ?? 0
      life.land(id)
      apply(held, { _tag: "Land", id })
    }
  )

const restart = command(
  "restart",
  () => true,
  async (_, life) => life.restart()
)

/**
 * Random commands.
 *
 * @since 1.0.0
 * @category arbitraries
 */
export const commands = (maxCommands = 30): FastCheck.Arbitrary<Iterable<Command>> =>
  FastCheck.commands(
    [
      FastCheck.constantFrom("Accepted" as const, "Unheard" as const, "Lost" as const, "Late" as const).map(rotate),
      FastCheck.constant(look),
      FastCheck.constant(look),
      FastCheck.integer({ min: 1, max: 5 }).map(wait),
      FastCheck.integer({ min: 0, max: 1 }).map(land),
      FastCheck.constant(restart)
    ],
    { maxCommands }
  )

/**
 * Does commands to a new life over a store, and to the model; rejects with what differs first.
 *
 * @since 1.0.0
 * @category running
 */
export const run = async (
  commands: Iterable<Command>,
  seed: number,
  store: Layer.Layer<KeyPackageStore>
): Promise<void> => {
  const model: Model.Model = {
    ...Model.empty,
    packages: [{ id: 1, state: "Published", deleteAt: undefined }],
    served: 1
  }
  const real = await Life.begin(seed, store)
  try {
    await FastCheck.asyncModelRun(() => ({ model: { model }, real }), commands)
  } finally {
    real.end()
  }
}
