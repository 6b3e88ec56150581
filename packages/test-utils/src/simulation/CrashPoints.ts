/**
 * Dies at every call. A scenario is run once to count the calls of ports that it makes; then, for each call, afresh twice: the
 * process dies just before the call, and just after it was carried out. It is started again, and when all has been quiet for two
 * days the invariants must hold.
 *
 * @since 1.0.0
 */

import type { InstallationId } from "@keyward/core/identity/InstallationId"
import type { LifecycleSettingsShape } from "@keyward/core/lifecycle/LifecycleSettings"
import * as LifecycleRotation from "@keyward/core/lifecycle/Rotation"
import * as KeywardScheduler from "@keyward/core/lifecycle/Scheduler"
import type { KeyPackageStore, StorageError } from "@keyward/core/ports/KeyPackageStore"
import type * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import type * as Layer from "effect/Layer"
import * as Ref from "effect/Ref"
import type { Operation as StoreOperation } from "../MemoryKeyPackageStore.ts"
import * as MemoryKeyPackageStore from "../MemoryKeyPackageStore.ts"
import { App } from "./App.ts"
import { type Violation, Watch } from "./Invariants.ts"
import { NetworkFault } from "./SimulatedNetwork.ts"
import * as StoreState from "./StoreState.ts"
import { type Ports, type Process, World } from "./World.ts"

/**
 * What a scenario is played on: one world, one store, one app whose process may be another one after a crash.
 *
 * @since 1.0.0
 * @category models
 */
export interface Stage {
  readonly world: World
  readonly watch: Watch
  readonly app: App
  /** The installation. It must have been created. */
  readonly id: () => InstallationId
  /** Runs in the process that lives now; does nothing while none does. */
  readonly run: (effect: Effect.Effect<unknown, unknown, KeywardScheduler.Scheduler | Ports>) => void
  readonly advance: (duration: Duration.DurationInput) => Promise<void>
  /** Changes what the store holds behind everybody's back. */
  readonly tamper: (
    change: (control: MemoryKeyPackageStore.MemoryKeyPackageStore["Type"]) => Effect.Effect<void>
  ) => void
}

/**
 * A piece of an installation's life.
 *
 * @since 1.0.0
 * @category models
 */
export interface Scenario {
  readonly name: string
  readonly settings?: Partial<LifecycleSettingsShape> | undefined
  /** What has happened before. Nobody dies here. None: the process starts for the first time in `act`. */
  readonly prepare?: ((stage: Stage) => Promise<void>) | undefined
  /** Where each call is a point. The process may be dead at any moment. */
  readonly act: (stage: Stage) => Promise<void>
  /** What must hold in the end, beside the invariants: what is wrong, if something is. */
  readonly check?: ((stage: Stage) => string | undefined) | undefined
}

/**
 * A moment to die at.
 *
 * @since 1.0.0
 * @category models
 */
export interface Point {
  /** From 1. */
  readonly call: number
  readonly when: "before" | "after"
}

/**
 * What a scenario came to at one point.
 *
 * @since 1.0.0
 * @category models
 */
export interface Death {
  readonly point: Point
  /** The call, by its name; none where the scenario ended before. */
  readonly operation: string | undefined
  readonly violations: ReadonlyArray<Violation>
}

/**
 * What a scenario came to at all points.
 *
 * @since 1.0.0
 * @category models
 */
export interface Report {
  readonly scenario: string
  /** The names of the calls, in their order. */
  readonly calls: ReadonlyArray<string>
  /** Two for each call. */
  readonly deaths: ReadonlyArray<Death>
  /** Of the scenario without a death. */
  readonly violations: ReadonlyArray<Violation>
}

const silence: Effect.Effect<never> = Effect.async(() => {})

const services = (app: App): Layer.Layer<KeywardScheduler.Scheduler, never, Ports> => app.services

/** Plays a scenario to its end, with a death or without. */
const play = async (scenario: Scenario, seed: number, point: Point | undefined) => {
  const world = new World({ seed, settings: scenario.settings, traceLength: 400 })
  const database = Effect.runSync(MemoryKeyPackageStore.makeDatabase)
  const store: Layer.Layer<KeyPackageStore> = MemoryKeyPackageStore.layerShared(database)
  let content: MemoryKeyPackageStore.Content | undefined
  let state: StoreState.StoreState | undefined
  const watch = new Watch(world, () => {
    const now = Effect.runSync(Ref.get(database))
    if (state === undefined || now !== content) {
      content = now
      state = StoreState.ofMemory(now)
    }
    return state
  })
  const app = new App(world, watch, true)
  app.isDiligent = true
  const calls: Array<string> = []
  let isCounting = false
  let died: string | undefined
  let server: Process<KeywardScheduler.Scheduler> | undefined

  const around = <A, E>(operation: string, run: Effect.Effect<A, E>, usual: Effect.Effect<A, E>): Effect.Effect<A, E> =>
    Effect.suspend(() => {
      if (!isCounting || died !== undefined) return usual
      calls.push(operation)
      if (point === undefined || calls.length !== point.call) return usual
      died = operation
      world.note("world", `death ${point.when} ${operation}`)
      server?.kill()
      return point.when === "after" ? Effect.zipRight(run, silence) : silence
    })

  const start = () => {
    server = world.start({
      name: died === undefined ? "first" : "second",
      store,
      services: services(app),
      around: (process) => {
        const usual = world.usual(process)
        return {
          store: <A, E>(operation: StoreOperation, run: Effect.Effect<A, E>): Effect.Effect<A, E | StorageError> =>
            around(operation, run, usual.store(operation, run)),
          api: (operation, run) => around(operation, run, usual.api(operation, run))
        }
      }
    })
  }

  const stage: Stage = {
    world,
    watch,
    app,
    id: () => {
      const [id] = watch.installations
      if (id === undefined) throw new Error("the scenario has no installation yet")
      return id
    },
    run: (effect) => {
      if (server !== undefined && !server.isDead) server.run(effect)
    },
    advance: (duration) => world.advance(duration),
    tamper: (change) =>
      Effect.runSync(
        Effect.provide(
          Effect.flatMap(MemoryKeyPackageStore.MemoryKeyPackageStore, change),
          MemoryKeyPackageStore.layerShared(database)
        )
      )
  }

  if (scenario.prepare !== undefined) {
    start()
    await world.advance("5 minutes")
    await scenario.prepare(stage)
  }
  isCounting = true
  if (server === undefined) start()
  await scenario.act(stage)
  isCounting = false
  if (server?.isDead === true) {
    await world.advance("1 minute")
    start()
  }
  world.network.faultFor = () => undefined
  await world.advance("40 hours")
  watch.checkQuiet()
  const wrong = scenario.check?.(stage)
  if (wrong !== undefined) watch.report("I6", wrong)
  world.end()
  return { calls, died, violations: watch.violations }
}

/**
 * Plays a scenario once whole, and once for each point.
 *
 * @since 1.0.0
 * @category running
 */
export const run = (scenario: Scenario, seed = 1): Effect.Effect<Report> =>
  Effect.promise(async () => {
    const whole = await play(scenario, seed, undefined)
    const deaths: Array<Death> = []
    for (const [index] of whole.calls.entries()) {
      for (const when of ["before", "after"] as const) {
        const point: Point = { call: index + 1, when }
        const { died, violations } = await play(scenario, seed, point)
        deaths.push({ point, operation: died, violations })
      }
    }
    return { scenario: scenario.name, calls: whole.calls, deaths, violations: whole.violations }
  })

/** One registration, and one only, whatever happened. */
const isOneMember = ({ world }: Stage): string | undefined => {
  const { length } = world.network.log(world.inboxId)
  return length === 1 ? undefined : `the log has ${length} updates`
}

const rotate = (stage: Stage) => {
  stage.run(LifecycleRotation.rotateAndUploadKeyPackage({ installationId: stage.id(), includePostQuantum: false }))
}

const probe = (stage: Stage) => {
  const id = stage.id()
  stage.run(Effect.flatMap(KeywardScheduler.Scheduler, (scheduler) => scheduler.probe(id)))
}

/**
 * The pipelines of the library: registration, rotation, a rotation that fails and is tried again, replacement after a Welcome,
 * retirement, repairs of all kinds, confirmation by reading back, a damaged row, another kind of package.
 *
 * @since 1.0.0
 * @category scenarios
 */
export const scenarios: ReadonlyArray<Scenario> = [
  {
    name: "register",
    act: (stage) => stage.advance("2 minutes"),
    check: isOneMember
  },
  {
    name: "register while the network loses half of all answers",
    act: async (stage) => {
      let count = 0
      stage.world.network.faultFor = () => (count++ % 2 === 0 ? NetworkFault.Unheard() : undefined)
      await stage.advance("10 minutes")
    },
    check: isOneMember
  },
  {
    name: "rotate",
    prepare: async () => {},
    act: async (stage) => {
      rotate(stage)
      await stage.advance("1 minute")
    }
  },
  {
    name: "rotate, while the first attempts are accepted and not heard",
    prepare: async () => {},
    act: async (stage) => {
      let count = 0
      stage.world.network.faultFor = ({ operation }) =>
        operation === "uploadKeyPackage" && count++ < 2 ? NetworkFault.Unheard() : undefined
      rotate(stage)
      await stage.advance("1 minute")
    }
  },
  {
    name: "retry: every attempt of a rotation fails, and it is tried again",
    prepare: async () => {},
    act: async (stage) => {
      stage.world.network.faultFor = ({ operation }) =>
        operation === "uploadKeyPackage" ? NetworkFault.Lost() : undefined
      rotate(stage)
      await stage.advance("5 minutes")
      stage.world.network.faultFor = () => undefined
      await stage.advance("10 minutes")
    }
  },
  {
    name: "refused while the node's validation is down",
    prepare: async () => {},
    act: async (stage) => {
      stage.world.network.faultFor = ({ operation }) =>
        operation === "uploadKeyPackage" ? NetworkFault.Refused({ reason: "InvalidRequest" }) : undefined
      rotate(stage)
      await stage.advance("30 minutes")
      stage.world.network.faultFor = () => undefined
      await stage.advance("1 hour")
    }
  },
  {
    name: "supersede after a Welcome",
    prepare: async (stage) => {
      stage.app.invite(1_000)
      await stage.advance("1 minute")
    },
    act: async (stage) => {
      stage.run(stage.app.read)
      await stage.advance("2 minutes")
    }
  },
  {
    name: "retire",
    prepare: async (stage) => {
      rotate(stage)
      await stage.advance("23 hours")
    },
    act: async (stage) => {
      await stage.advance("70 minutes")
      stage.run(stage.app.read)
      await stage.advance("20 minutes")
    }
  },
  {
    name: "repair: the network has forgotten everything",
    prepare: async () => {},
    act: async (stage) => {
      stage.world.network.serve(stage.id(), undefined, "Forgotten")
      probe(stage)
      await stage.advance("15 minutes")
    }
  },
  {
    name: "repair: an older package is served again",
    prepare: async (stage) => {
      rotate(stage)
      await stage.advance("1 minute")
    },
    act: async (stage) => {
      const [older] = stage.world.network.history(stage.id())
      stage.world.network.serve(stage.id(), older?.bytes, "Replay")
      probe(stage)
      await stage.advance("15 minutes")
    }
  },
  {
    name: "repair: an erased package is served again",
    prepare: async (stage) => {
      rotate(stage)
      await stage.advance("3 days")
    },
    act: async (stage) => {
      const [older] = stage.world.network.history(stage.id())
      stage.world.network.serve(stage.id(), older?.bytes, "Replay")
      probe(stage)
      await stage.advance("15 minutes")
    }
  },
  {
    name: "repair: the keys are gone",
    prepare: async (stage) => {
      const row = stage.world.network.served(stage.id())
      if (row?.ref !== undefined) stage.watch.excuses.destroyed.add(row.ref)
      stage.tamper(({ loseKeys, snapshot }) =>
        Effect.flatMap(snapshot, (now) => Effect.forEach(newest(now), loseKeys, { discard: true }))
      )
    },
    act: async (stage) => {
      probe(stage)
      await stage.advance("15 minutes")
    }
  },
  {
    name: "repair: the row is damaged",
    prepare: async (stage) => {
      const row = stage.world.network.served(stage.id())
      if (row?.ref !== undefined) stage.watch.excuses.destroyed.add(row.ref)
      stage.tamper(({ damage, snapshot }) =>
        Effect.flatMap(snapshot, (now) => Effect.forEach(newest(now), (id) => damage(id), { discard: true }))
      )
    },
    act: async (stage) => {
      probe(stage)
      await stage.advance("15 minutes")
    }
  },
  {
    name: "read back: the network shows the new package later",
    settings: { confirmBy: "readBack" },
    prepare: async () => {},
    act: async (stage) => {
      const until = stage.world.now + 30_000
      stage.world.network.faultFor = ({ operation }) =>
        operation === "fetchKeyPackages" && stage.world.now < until ? NetworkFault.Stale({ millis: 30_000 }) : undefined
      rotate(stage)
      await stage.advance("2 minutes")
    }
  },
  {
    name: "another kind of package while one waits",
    prepare: async (stage) => {
      stage.world.network.faultFor = ({ operation }) =>
        operation === "uploadKeyPackage" ? NetworkFault.Lost() : undefined
      rotate(stage)
      await stage.advance("30 seconds")
    },
    act: async (stage) => {
      stage.watch.profileChanges += 1
      const id = stage.id()
      stage.run(LifecycleRotation.rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: true }))
      await stage.advance("1 minute")
      stage.world.network.faultFor = () => undefined
      await stage.advance("10 minutes")
    }
  }
]

const newest = (content: MemoryKeyPackageStore.Content) => {
  const last = StoreState.ofMemory(content)
    .installations.flatMap(({ rows }) => rows)
    .at(-1)
  return last === undefined ? [] : [last.historyId]
}
