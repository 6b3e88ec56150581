/** The checks themselves: each notices what it is there for, and holds its peace where the world is to blame. */
import { describe, expect, it } from "@effect/vitest"
import * as LifecycleEvents from "@keyward/core/lifecycle/LifecycleEvents"
import * as MemoryKeyPackageStore from "@keyward/test-utils/MemoryKeyPackageStore"
import { App } from "@keyward/test-utils/simulation/App"
import { Watch } from "@keyward/test-utils/simulation/Invariants"
import * as StoreState from "@keyward/test-utils/simulation/StoreState"
import { World } from "@keyward/test-utils/simulation/World"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Ref from "effect/Ref"

const HOUR = 3_600_000

/** A world in which all is well, and a state of its store that a test can falsify. */
const begin = async () => {
  const world = new World({ seed: 1, traceLength: 0 })
  const database = Effect.runSync(MemoryKeyPackageStore.makeDatabase)
  let falsify = (state: StoreState.StoreState): StoreState.StoreState => state
  const watch = new Watch(world, () => falsify(StoreState.ofMemory(Effect.runSync(Ref.get(database)))))
  const app = new App(world, watch, true)
  app.isDiligent = true
  world.start({ name: "it", store: MemoryKeyPackageStore.layerShared(database), services: app.services })
  await world.advance("1 hour")
  const id = app.installationId
  if (id === undefined) throw new Error("the installation was not registered")
  const found = (change: typeof falsify) => {
    falsify = change
    watch.checkQuiet()
    return watch.violations.map(({ invariant, what }) => `${invariant}: ${what}`)
  }
  return { app, found, id, watch, world }
}

/** The state with its rows and its installation changed. */
const changed =
  (
    rows: (row: StoreState.RowState) => ReadonlyArray<StoreState.RowState>,
    installation: (known: StoreState.InstallationState["installation"]) => typeof known = (known) => known
  ) =>
  (state: StoreState.StoreState): StoreState.StoreState => ({
    ...state,
    installations: state.installations.map((known) => ({
      installation: installation(known.installation),
      rows: known.rows.flatMap(rows)
    }))
  })

const withSchedule = (change: Partial<StoreState.InstallationState["installation"]["schedule"]>) =>
  changed(
    (row) => [row],
    (known) => ({ ...known, schedule: { ...known.schedule, ...change } })
  )

describe("Watch", () => {
  it("finds nothing where all is well", async () => {
    const { found } = await begin()
    expect(found((state) => state)).toEqual([])
  })

  const now = DateTime.unsafeMake(0)
  const mistakes: Readonly<Record<string, readonly [RegExp, (state: StoreState.StoreState) => StoreState.StoreState]>> =
    {
      "the keys of what is served are gone": [/^I1: the network serves/, (state) => ({ ...state, keys: new Set() })],
      "the row of what is served is gone": [/^I1: the network serves/, changed(() => [])],
      "keys without a row": [/^I2: the keys of 1 have no row/, changed(() => [])],
      "superseded without a date": [
        /^I2: 1 is Superseded and has no date/,
        changed((row) => [{ ...row, state: "Superseded", deleteAt: undefined }])
      ],
      "a row that waits behind a newer one that is published": [
        /^I2: 1 is Exposed, has no date of deletion/,
        changed((row) => [
          { ...row, state: "Exposed" },
          { ...row, historyId: (row.historyId + 1) as typeof row.historyId }
        ])
      ],
      "a row that nobody sends": [
        /^I6: 2 is Prepared, and nobody sends it/,
        changed((row) => [row, { ...row, historyId: 2 as typeof row.historyId, state: "Prepared" }])
      ],
      "a row that cannot be read": [/^I6: 1 cannot be read/, changed((row) => [{ ...row, state: "Damaged" }])],
      "rows that pile up": [
        /^I5: 4 packages wait/,
        changed((row) => [row, ...Array.from({ length: 4 }, () => ({ ...row, state: "Exposed" as const }))])
      ],
      "nothing was ever registered": [/^I6: there are 0 installations/, () => ({ installations: [], keys: new Set() })],
      "a member that believes to be revoked": [
        /^I6: believes to be revoked/,
        withSchedule({ revokedAt: Option.some(now) })
      ],
      "a package that nothing will ever replace": [
        /^I6: nothing says when its package is to be replaced/,
        withSchedule({ rotateAt: Option.none() })
      ],
      "an alarm that does not end": [
        /^I6: ServesNothing since long/,
        withSchedule({ unreachable: Option.some({ verdict: "ServesNothing", since: now }) })
      ]
    }
  for (const [name, [what, change]] of Object.entries(mistakes)) {
    it(`notices: ${name}`, async () => {
      const { found } = await begin()
      expect(found(change)).toContainEqual(expect.stringMatching(what))
    })
  }

  it("notices that the network serves another package in the end, and nothing is done", async () => {
    const { found, id, world } = await begin()
    world.network.serve(id, undefined, "Forgotten")
    expect(found((state) => state)).toContainEqual(expect.stringMatching(/^I1: the network serves nothing/))
  })

  it("notices what only a node that is behind shows", async () => {
    const { found, id, watch, world } = await begin()
    const other = world.network.served(id)?.bytes?.slice() ?? new Uint8Array()
    other[other.length - 1] = (other.at(-1) ?? 0) ^ 1
    world.network.serve(id, other, "Upload")
    world.network.serve(id, world.network.history(id)[0]?.bytes, "Upload")
    watch.violations.length = 0
    world.network.lag = HOUR
    world.network.changes += 1
    expect(found((state) => state)).toContainEqual(expect.stringMatching(/^I1: the network serves .* whose keys/))
  })

  it("notices a process that has died of a bug", async () => {
    const { found, world } = await begin()
    world.fail("it", "a bug")
    expect(found((state) => state)).toEqual(["I6: it: a bug"])
  })

  it("notices rows that pile up where clocks were set: more of those that no publication waits for", async () => {
    /** So many exposed rows before the published one, and after it. */
    const piled = async (before: number, after: number) => {
      const { found, watch } = await begin()
      watch.excuses.isClockSet = true
      const exposed = (row: StoreState.RowState, id: number): StoreState.RowState => ({
        ...row,
        historyId: id as typeof row.historyId,
        state: "Exposed"
      })
      return found(
        changed((row) => [
          ...Array.from({ length: before }, (_, index) => exposed(row, 1 + index)),
          { ...row, historyId: 100 as typeof row.historyId },
          ...Array.from({ length: after }, (_, index) => exposed(row, 101 + index))
        ])
      ).filter((what) => what.startsWith("I5"))
    }
    expect(await piled(0, 6)).toEqual([])
    expect(await piled(0, 7)).toEqual(["I5: 7 packages wait to be sent"])
    expect(await piled(24, 6)).toEqual([])
    expect(await piled(25, 0)).toEqual(["I5: 25 packages are left behind"])
  })

  it("notices more packages than a budget allows, and not those that people ask for", async () => {
    const { found, id, watch, world } = await begin()
    const made = (trigger: "Repair" | "Manual") => {
      const at = DateTime.unsafeMake(world.now)
      for (let count = 0; count < 4; count++) {
        watch.observe(
          LifecycleEvents.LifecycleEvent.Generated({ installationId: id, historyId: 9 as never, at, trigger })
        )
      }
    }
    made("Manual")
    expect(found((state) => state)).toEqual([])
    made("Repair")
    expect(found((state) => state)).toEqual([expect.stringMatching(/^I5: 4 packages made for Repair/)])
  })

  it("excuses the erasure of what an installation serves that is revoked for two graces, where a clock shows the hard stop, and no other", async () => {
    /** `early` milliseconds before the clock that is furthest ahead shows the hard stop. */
    const lost = async (hours: number, early: number, until = Number.POSITIVE_INFINITY) => {
      const { found, id, watch, world } = await begin()
      const { notAfter = 0 } = world.network.served(id) ?? {}
      watch.excuses.furthestAhead = notAfter + 48 * HOUR - world.now - early
      watch.excuses.suspended.set(id, { since: world.now - hours * HOUR, until })
      return found((state) => ({ ...state, keys: new Set() })).some((what) => what.endsWith("whose keys are not here"))
    }
    expect(await lost(48, 0)).toBe(false)
    expect(await lost(47, 0)).toBe(true)
    expect(await lost(48, 1)).toBe(true)
    // It has long been added again.
    expect(await lost(48, 0, 0)).toBe(true)
  })

  it("excuses what was there before the store was put back, and nothing that came after", async () => {
    const { found, watch, world } = await begin()
    watch.excuses.unsureUntil = world.now + 1
    const lost = found((state) => ({ ...state, keys: new Set() }))
    expect(lost).not.toContainEqual(expect.stringMatching(/whose keys are not here/))
    watch.excuses.unsureUntil = 0
    watch.violations.length = 0
    world.network.changes += 1
    expect(found((state) => ({ ...state, keys: new Set() }))).toContainEqual(
      expect.stringMatching(/whose keys are not here/)
    )
  })
})
