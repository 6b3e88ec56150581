/**
 * The life of one installation's key packages in a few rules, without code of the library: what it is held against, and small
 * enough to try everything that can happen in a few steps.
 *
 * @since 1.0.0
 */

/**
 * A package, by its number.
 *
 * @since 1.0.0
 * @category models
 */
export interface Package {
  readonly id: number
  readonly state: "Prepared" | "Exposed" | "Published" | "Superseded" | "Retired"
  /** When its keys may be erased; none in a state without. */
  readonly deleteAt: number | undefined
}

/**
 * Store and network at a time. Time is a count; what unit it has is the caller's.
 *
 * @since 1.0.0
 * @category models
 */
export interface Model {
  readonly time: number
  readonly packages: ReadonlyArray<Package>
  /** The package that the network serves, by its number; none while there is none. */
  readonly served: number | undefined
  /** Uploads that were sent, not answered, and not lost: they arrive before this time. */
  readonly late: ReadonlyArray<{ readonly id: number; readonly before: number }>
}

/**
 * What can happen.
 *
 * - `Prepare`: keys and row are written
 * - `Expose`: the row of the newest is marked, as its bytes are about to be sent
 * - `Upload`: they are sent: accepted, accepted and not heard, lost, or late
 * - `Land`: a late upload arrives
 * - `Look`: the owner asks what is served, and acts
 * - `Clean`: what is due is erased
 * - `Tick`: time passes
 *
 * @since 1.0.0
 * @category models
 */
export type Event =
  | { readonly _tag: "Prepare" }
  | { readonly _tag: "Expose" }
  | { readonly _tag: "Upload"; readonly outcome: "Accepted" | "Unheard" | "Lost" | "Late" }
  | { readonly _tag: "Land"; readonly id: number }
  | { readonly _tag: "Look" }
  | { readonly _tag: "Clean" }
  | { readonly _tag: "Tick"; readonly by: number }

/**
 * By what rules packages live. Those of this library are `rules`; others show that the search finds what is wrong with them.
 *
 * @since 1.0.0
 * @category models
 */
export interface Rules {
  /** How long superseded keys are kept. */
  readonly grace: number
  /** How late an upload may be: less than the grace, or nothing can be promised. */
  readonly latest: number
  /** Whether the network is asked before keys are erased. */
  readonly asksBeforeErasing: boolean
  /** Whether earlier packages are superseded only when the network has accepted a later one. */
  readonly marksAfterReceipt: boolean
}

/**
 * The rules of this library, in units of a quarter of the grace.
 *
 * @since 1.0.0
 * @category rules
 */
export const rules: Rules = { grace: 4, latest: 3, asksBeforeErasing: true, marksAfterReceipt: true }

/**
 * Nothing yet.
 *
 * @since 1.0.0
 * @category constructors
 */
export const empty: Model = { time: 0, packages: [], served: undefined, late: [] }

/**
 * The newest package, whatever its state.
 *
 * @since 1.0.0
 * @category getters
 */
export const newest = ({ packages }: Model): Package | undefined => packages.at(-1)

/**
 * The package that waits to be sent, if one does: only the newest ever does.
 *
 * @since 1.0.0
 * @category getters
 */
export const waiting = (model: Model): Package | undefined => {
  const last = newest(model)
  return last?.state === "Prepared" || last?.state === "Exposed" ? last : undefined
}

const replace = (model: Model, change: (known: Package) => Package): Model => ({
  ...model,
  packages: model.packages.map(change)
})

/** One package is accepted: the earlier ones are superseded. */
const publish = (model: Model, id: number, { grace }: Rules): Model =>
  replace(model, (known) => {
    if (known.id === id) return { ...known, state: "Published", deleteAt: undefined }
    const isEarlier = known.id < id && known.state !== "Superseded" && known.state !== "Retired"
    return isEarlier ? { ...known, state: "Superseded", deleteAt: model.time + grace } : known
  })

const look = (model: Model, rules: Rules): Model => {
  const served = model.packages.find(({ id }) => id === model.served)
  if (served?.state === "Exposed") return publish(model, served.id, rules)
  const kept =
    served?.state === "Superseded"
      ? replace(model, (known) =>
          known.id === served.id
            ? { ...known, deleteAt: Math.max(known.deleteAt ?? 0, model.time + rules.grace) }
            : known
        )
      : model
  if (served?.state === "Published") return kept
  // What waits to be sent replaces what is served anyway; else the newest published package is sent again.
  const published = kept.packages.findLast(({ state }) => state === "Published")
  return waiting(kept) !== undefined || published === undefined ? kept : { ...kept, served: published.id }
}

const upload = (model: Model, outcome: (Event & { _tag: "Upload" })["outcome"], rules: Rules): Model => {
  const last = newest(model)
  if (last?.state !== "Exposed") return model
  const marked = rules.marksAfterReceipt ? model : publish(model, last.id, rules)
  switch (outcome) {
    case "Accepted":
      return publish({ ...model, served: last.id }, last.id, rules)
    case "Unheard":
      return { ...marked, served: last.id }
    case "Lost":
      return marked
    case "Late":
      return { ...marked, late: [...marked.late, { id: last.id, before: model.time + rules.latest }] }
  }
}

/**
 * What an event makes of it. An event that cannot happen now changes nothing.
 *
 * @since 1.0.0
 * @category transitions
 */
export const step = (model: Model, event: Event, rules: Rules): Model => {
  switch (event._tag) {
    case "Prepare": {
      if (waiting(model) !== undefined) return model
      const id = (newest(model)?.id ?? 0) + 1
      return { ...model, packages: [...model.packages, { id, state: "Prepared", deleteAt: undefined }] }
    }
    case "Expose":
      return replace(model, (known) =>
        known === newest(model) && known.state === "Prepared" ? { ...known, state: "Exposed" } : known
      )
    case "Upload":
      return upload(model, event.outcome, rules)
    case "Land": {
      const index = model.late.findIndex(({ id }) => id === event.id)
      return index < 0 ? model : { ...model, served: event.id, late: model.late.toSpliced(index, 1) }
    }
    case "Look":
      return look(model, rules)
    case "Clean":
      return replace(model, (known) => {
        const isDue = known.deleteAt !== undefined && known.deleteAt <= model.time && known.state === "Superseded"
        const isKept = rules.asksBeforeErasing && known.id === model.served
        return isDue && !isKept ? { ...known, state: "Retired", deleteAt: undefined } : known
      })
    case "Tick": {
      const time = model.time + event.by
      // What is late arrives in time.
      return model.late.some(({ before }) => before <= time) ? model : { ...model, time }
    }
  }
}

/**
 * What does not hold in a state, if something does not: I1 and I2.
 *
 * @since 1.0.0
 * @category invariants
 */
export const violation = ({ packages, served }: Model): string | undefined => {
  const shown = packages.find(({ id }) => id === served)
  if (shown?.state === "Retired") return `I1: the keys of ${shown.id}, which is served, are erased`
  const undated = packages.find(({ deleteAt, state }) => state === "Superseded" && deleteAt === undefined)
  if (undated !== undefined) return `I2: ${undated.id} is superseded and has no date of deletion`
  const published = packages.filter(({ state }) => state === "Published")
  return published.length > 1 ? `${published.length} packages are published` : undefined
}

const events = ({ late }: Model): ReadonlyArray<Event> => [
  { _tag: "Prepare" },
  { _tag: "Expose" },
  { _tag: "Upload", outcome: "Accepted" },
  { _tag: "Upload", outcome: "Unheard" },
  { _tag: "Upload", outcome: "Lost" },
  { _tag: "Upload", outcome: "Late" },
  ...late.map(({ id }): Event => ({ _tag: "Land", id })),
  { _tag: "Look" },
  { _tag: "Clean" },
  { _tag: "Tick", by: 1 }
]

/** The same state at another time is the same state. */
const keyOf = ({ late, packages, served, time }: Model): string => {
  const kept = packages.map(({ deleteAt, id, state }) => [
    id,
    state,
    deleteAt === undefined ? -1 : Math.max(0, deleteAt - time)
  ])
  return JSON.stringify([kept, served, late.map(({ before, id }) => [id, before - time])])
}

/**
 * What a search has found.
 *
 * @since 1.0.0
 * @category models
 */
export interface Search {
  /** States that differ. */
  readonly states: number
  /** The shortest way to a state in which something does not hold, and what; none where everything held. */
  readonly counterexample: { readonly path: ReadonlyArray<Event>; readonly what: string } | undefined
}

/**
 * Tries everything that can happen in so many steps, with so many packages at most.
 *
 * @since 1.0.0
 * @category searching
 */
export const explore = (options: {
  readonly rules: Rules
  readonly steps: number
  readonly packages: number
}): Search => {
  const seen = new Set([keyOf(empty)])
  let frontier: ReadonlyArray<{ readonly model: Model; readonly path: ReadonlyArray<Event> }> = [
    { model: empty, path: [] }
  ]
  for (let depth = 0; depth < options.steps && frontier.length > 0; depth++) {
    const next: Array<{ readonly model: Model; readonly path: ReadonlyArray<Event> }> = []
    for (const { model, path } of frontier) {
      for (const event of events(model)) {
        const after = step(model, event, options.rules)
        const key = keyOf(after)
        if (after.packages.length > options.packages || seen.has(key)) continue
        seen.add(key)
        const way = [...path, event]
        const what = violation(after)
        if (what !== undefined) return { states: seen.size, counterexample: { path: way, what } }
        next.push({ model: after, path: way })
      }
    }
    frontier = next
  }
  return { states: seen.size, counterexample: undefined }
}
