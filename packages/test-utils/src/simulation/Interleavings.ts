/**
 * Two rotations at once, in every order of their steps: once in a model of how libxmtp rotates, which loses the keys of the served
 * package in some of these orders, and once with this library's own code, which must lose none.
 *
 * @since 1.0.0
 */
import { rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Ref from "effect/Ref"
import * as MemoryKeyPackageStore from "../MemoryKeyPackageStore.ts"
import { App } from "./App.ts"
import { type Violation, Watch } from "./Invariants.ts"
import { NetworkFault } from "./SimulatedNetwork.ts"
import * as StoreState from "./StoreState.ts"
import { type Process, World } from "./World.ts"

/**
 * A step of a rotation.
 *
 * - `generate`: the keys are made
 * - `store`: keys and row are written; the row gets its number
 * - `upload`: sent, taken and answered
 * - `land`, `answer`: the two halves of an upload that is not one step: the network begins to serve the package; it answers
 * - `mark`: the rows with smaller numbers are marked to be deleted
 *
 * @since 1.0.0
 * @category models
 */
export type Step = "generate" | "store" | "upload" | "land" | "answer" | "mark"

/**
 * Which of the two rotations does a step.
 *
 * @since 1.0.0
 * @category models
 */
export type Actor = "A" | "B"

/**
 * An order of steps.
 *
 * @since 1.0.0
 * @category models
 */
export type Order = ReadonlyArray<readonly [actor: Actor, step: Step]>

const whole: ReadonlyArray<Step> = ["generate", "store", "upload", "mark"]

/** The network begins to serve before it answers; or answers first, and serves when the rotation is long over. */
const inHalves: ReadonlyArray<ReadonlyArray<Step>> = [
  ["generate", "store", "land", "answer", "mark"],
  ["generate", "store", "answer", "mark", "land"]
]

/** Every way to merge two lists. */
const merge = (a: ReadonlyArray<Step>, b: ReadonlyArray<Step>): ReadonlyArray<Order> => {
  const [headA, ...restA] = a
  const [headB, ...restB] = b
  if (headA === undefined) return [b.map((step) => ["B", step] as const)]
  if (headB === undefined) return [a.map((step) => ["A", step] as const)]
  return [
    ...merge(restA, b).map((order): Order => [["A", headA], ...order]),
    ...merge(a, restB).map((order): Order => [["B", headB], ...order])
  ]
}

/**
 * The 70 orders of two rotations of four steps.
 *
 * @since 1.0.0
 * @category orders
 */
export const plain: ReadonlyArray<Order> = merge(whole, whole)

/**
 * The 252 orders in which the upload of one of them is two steps: the network serves what it was given before it answers, or only
 * when the rotation is over.
 *
 * @since 1.0.0
 * @category orders
 */
export const withLateUpload: ReadonlyArray<Order> = inHalves.flatMap((steps) => merge(steps, whole))

/**
 * Whether rotations as libxmtp makes them, in this order, end with a served package whose keys are marked to be deleted
 * (`xmtp_mls/src/identity.rs`, `rotate_and_upload_key_package`): nothing is held, rows are numbered as they are stored, and the
 * one that marks marks every smaller number.
 *
 * @since 1.0.0
 * @category model
 */
export const losesServedKey = (order: Order): boolean => {
  const numbers = new Map<Actor, number>()
  const marked = new Set<Actor>()
  let served: Actor | undefined
  for (const [actor, step] of order) {
    if (step === "store") numbers.set(actor, numbers.size + 1)
    if (step === "upload" || step === "land") served = actor
    if (step === "mark") {
      const own = numbers.get(actor) ?? 0
      for (const [other, number] of numbers) if (number < own) marked.add(other)
    }
  }
  return served !== undefined && marked.has(served)
}

/** The call that a step ends with, and that the next one does not begin before. */
const callOf: Partial<Record<Step, string>> = {
  store: "insertKeyPackageHistory",
  upload: "uploadKeyPackage",
  land: "uploadKeyPackage",
  answer: "uploadKeyPackage",
  mark: "markKeyPackagesBeforeIdToBeDeleted"
}

/**
 * What this library made of an order.
 *
 * @since 1.0.0
 * @category models
 */
export interface Outcome {
  readonly violations: ReadonlyArray<Violation>
  /** How many of the two rotations published a package; the other was held up, or had lost its lease. */
  readonly published: number
}

/**
 * Runs two rotations of this library, in two processes over one store, in this order: each stands still between its steps. Then
 * they run on, time passes, and the invariants are checked.
 *
 * @param stallMillis how much time passes between two steps: more than a lease lasts, and each finds its own expired
 *
 * @since 1.0.0
 * @category running
 */
export const run = (order: Order, stallMillis: number): Effect.Effect<Outcome> =>
  Effect.promise(async () => {
    const world = new World({ seed: 1, traceLength: 300 })
    const database = Effect.runSync(MemoryKeyPackageStore.makeDatabase)
    const store = MemoryKeyPackageStore.layerShared(database)
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
    const first = world.start({ name: "first", store, services: app.services })
    await world.advance("1 minute")
    first.kill()
    const [installationId] = watch.installations
    if (installationId === undefined) throw new Error("the installation was not registered")

    let land: (() => void) | undefined
    const landsLate = order.findIndex(([, step]) => step === "answer") < order.findIndex(([, step]) => step === "land")
    const rotation = (actor: Actor) => {
      const process: Process<never> = world.start({
        name: actor,
        store,
        services: Layer.empty as Layer.Layer<never>,
        around: (self) => {
          const stopAt = <A, E>(operation: string, run: Effect.Effect<A, E>): Effect.Effect<A, E> =>
            Effect.suspend(() => {
              const isStep = Object.values(callOf).includes(operation)
              // A task that waits while the process stands still.
              const stop = Effect.zipRight(
                Effect.sync(() => self.pause()),
                Effect.yieldNow()
              )
              const traced = Effect.tap(run, () => {
                world.note(actor, operation)
                watch.check()
              })
              if (!isStep || isFree) return traced
              const isHalved = operation === "uploadKeyPackage" && actor === "A" && land === undefined && hasHalves
              return Effect.zipRight(stop, isHalved && !landsLate ? Effect.zipLeft(traced, stop) : traced)
            })
          return { store: stopAt, api: stopAt }
        }
      })
      const result = process.run(rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }))
      return { process, result }
    }
    let isFree = false
    const hasHalves = order.some(([, step]) => step === "land")
    if (landsLate) {
      world.network.faultFor = ({ caller, operation }) =>
        caller === "A" && operation === "uploadKeyPackage" && land === undefined
          ? NetworkFault.Accepted({ later: (done) => (land = done) })
          : undefined
    }
    const both: Record<Actor, ReturnType<typeof rotation>> = { A: rotation("A"), B: rotation("B") }
    both.A.process.pause()
    both.B.process.pause()
    for (const [actor, step] of order) {
      world.note("world", `${actor}: ${step}`)
      if (step === "land" && landsLate) land?.()
      else both[actor].process.resume()
      await world.settle()
      both[actor].process.pause()
      await world.advance(stallMillis)
    }
    isFree = true
    both.A.process.resume()
    both.B.process.resume()
    await world.advance("10 minutes")
    if (landsLate) land?.()
    const results = [both.A.result, both.B.result]
    const published = results.filter(({ exit }) => exit?._tag === "Success").length
    both.A.process.kill()
    both.B.process.kill()
    world.network.faultFor = () => undefined
    world.start({ name: "second", store, services: app.services })
    await world.advance("40 hours")
    watch.checkQuiet()
    world.end()
    return { violations: watch.violations, published }
  })
