/**
 * Chaos: several processes of the library over one SQLite file and one node, killed at random moments and at chosen calls,
 * stopped, and cut off from the network, for many rounds. After each round the database and the node are compared.
 *
 * What is chosen follows from a seed; what the machine makes of it does not.
 *
 * @since 1.0.0
 */
import { type ChildProcess, fork } from "node:child_process"
import { existsSync, mkdtempSync, readFileSync, rmSync, statSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as SqlClient from "@effect/sql/SqlClient"
import * as SqliteClient from "@effect/sql-sqlite-node/SqliteClient"
import * as AssociationState from "@keyward/core/identity/AssociationState"
import * as InboxId from "@keyward/core/identity/InboxId"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import * as KeyPackageRef from "@keyward/core/keypackage/KeyPackageRef"
import * as InboxLog from "@keyward/core/lifecycle/InboxLog"
import { registerInstallation } from "@keyward/core/lifecycle/Registration"
import { rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import * as Scheduler from "@keyward/core/lifecycle/Scheduler"
import { ApiClient } from "@keyward/core/ports/ApiClient"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { MlsCrypto } from "@keyward/core/ports/MlsCrypto"
import { Signer } from "@keyward/core/ports/Signer"
import { sha256 } from "@noble/hashes/sha2.js"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as Option from "effect/Option"
import * as EffectSchedule from "effect/Schedule"
import type * as Scope from "effect/Scope"
import * as Mutation from "../Mutation.ts"
import {
  type Death,
  LABELS,
  layer,
  type NodeMessage,
  type NodeRequest,
  type Place,
  type SeenUpload,
  type WorkerMessage,
  type WorkerOptions
} from "./ChaosWorld.ts"

/**
 * What is done in a round.
 *
 * - `killOne`, `killAll`: SIGKILL at a random moment, while others go on, or to all at once
 * - `killAtCall`: a worker ends itself before or after a chosen call of the store or the network
 * - `killStarting`: SIGKILL while the process starts, several times
 * - `outage`: the node fails, hangs, drops and forgets to answer; a worker is killed meanwhile
 * - `pause`: SIGSTOP for longer than a lease lasts, then SIGCONT: a process that does not know that it was away
 * - `register`: a new inbox and an empty database; the workers are killed while they register
 *
 * @since 1.0.0
 * @category models
 */
export type RoundKind = "killOne" | "killAll" | "killAtCall" | "killStarting" | "outage" | "pause" | "register"

/**
 * The kinds of rounds, in the order in which the first ones are run.
 *
 * @since 1.0.0
 * @category constants
 */
export const KINDS: ReadonlyArray<RoundKind> = [
  "killAtCall",
  "killOne",
  "register",
  "outage",
  "killAll",
  "pause",
  "killStarting"
]

/**
 * What to run.
 *
 * @since 1.0.0
 * @category models
 */
export interface Options {
  readonly rounds: number
  readonly seed: number
  /** The program that is forked, with its role as its argument: `node`, or `worker`, which gets its options as a message. */
  readonly program: string
  /** Processes at a time; 2 unless given. */
  readonly workers?: number | undefined
  /** Told of each round. */
  readonly onRound?: ((round: number, kind: RoundKind) => void) | undefined
}

/**
 * What came of it.
 *
 * @since 1.0.0
 * @category models
 */
export interface Report {
  readonly rounds: Readonly<Record<RoundKind, number>>
  /** SIGKILLs, those of workers to themselves included. */
  readonly kills: number
  readonly databases: number
  /** Uploads that the node has answered or broken off, and those that it accepted. */
  readonly uploads: number
  readonly accepted: number
  /** Uploads of a worker that had been stopped in between, after a newer package: the network served the older one for a time. */
  readonly late: number
  /** Packages whose keys are erased. */
  readonly retired: number
  readonly published: number
  /** Nodes that ended by themselves, with all that they knew: the round is given up, and another database begun. */
  readonly nodeEnds: number
  readonly violations: ReadonlyArray<string>
}

/** The calls at which workers end themselves. */
const CALLS = [
  "findOrCreateInstallation",
  "saveIdentityUpdate",
  "publishIdentityUpdate",
  "markRegistered",
  "acquireLease",
  "checkLease",
  "releaseLease",
  "insertKeyPackageHistory",
  "markExposed",
  "uploadKeyPackage",
  "markKeyPackagesBeforeIdToBeDeleted",
  "modifySchedule",
  "retire",
  "scrub",
  "postponeDeletion",
  "fetchKeyPackages"
]

/** Those at which a registration can end. */
const REGISTRATION_CALLS = [...CALLS.slice(0, 6), ...CALLS.slice(7, 11)]

interface Worker {
  readonly child: ChildProcess
  readonly ready: Promise<boolean>
  readonly gone: Promise<void>
}

/** A child that dies with the scope, by its own pid. */
const forked = (program: string, role: "node" | "worker") =>
  Effect.acquireRelease(
    Effect.sync(() =>
      fork(program, [role], {
        execArgv: ["--import", "tsx"],
        stdio: ["ignore", "ignore", "inherit", "ipc"]
      })
    ),
    (child) => Effect.sync(() => child.kill("SIGKILL"))
  )

const startNode = (program: string) =>
  Effect.gen(function* () {
    const child = yield* forked(program, "node")
    const answers: Array<(message: NodeMessage) => void> = []
    const next = () => new Promise<NodeMessage>((resolve) => answers.push(resolve))
    child.on("message", (message: NodeMessage) => answers.shift()?.(message))
    const listening = yield* Effect.promise(next)
    if (listening._tag !== "Listening") return yield* Effect.dieMessage("the node does not listen")
    let hasEnded = false
    child.once("exit", () => {
      hasEnded = true
      for (const answer of answers.splice(0)) answer({ _tag: "Gone" })
    })
    // Sending to a child that is just ending: what it does not answer is answered above.
    child.on("error", () => {})
    const ask = (request: NodeRequest) =>
      Effect.promise(() => {
        if (hasEnded) return Promise.resolve<NodeMessage>({ _tag: "Gone" })
        const answer = next()
        child.send(request)
        return answer
      })
    return { url: listening.url, ask, hasEnded: () => hasEnded }
  })

/** The private keys of a row fit its package, which says that they were kept and opened. */
const opens = (crypto: MlsCrypto["Type"], store: KeyPackageStore["Type"], id: InstallationId, ref: string) =>
  Effect.gen(function* () {
    const found = yield* store.findByRef(id, KeyPackageRef.KeyPackageRef.make(ref))
    if (Option.isNone(found)) return "is not in the ledger"
    if (found.value._tag === "Retired") return `was erased (${found.value.reason})`
    const keys = yield* store.getPrivateKeys(found.value.historyId)
    if (Option.isNone(keys)) return `has no keys (row ${found.value.historyId})`
    const publicKey = crypto.x25519PublicKey(keys.value.initKey)
    return Buffer.compare(publicKey, found.value.keyPackage.initKey) === 0 ? undefined : "has the keys of another"
  })

const servedRef = (id: InstallationId) =>
  Effect.gen(function* () {
    const api = yield* ApiClient
    const [bytes = Option.none()] = yield* api.fetchKeyPackages([id])
    return Option.map(bytes, (known) => KeyPackageRef.hashWith({ sha256 }, known))
  })

/** An error with what caused it. */
const describe = (error: { readonly _tag: string; readonly message: string; readonly cause?: unknown }): string =>
  `${error._tag}: ${error.message}${error.cause instanceof Error ? ` (${error.cause.message})` : ""}`

/** What holds of the file itself at any moment. */
const judgeFile = (filename: string) =>
  Effect.gen(function* () {
    const sql = yield* SqlClient.SqlClient
    const wrong: Array<string> = []
    // A process may be opening it for the first time, alone.
    yield* sql`PRAGMA busy_timeout = 5000`
    const [integrity] = yield* sql`PRAGMA integrity_check`
    if (integrity?.["integrity_check"] !== "ok") wrong.push(`integrity_check: ${JSON.stringify(integrity)}`)
    if ((yield* sql`PRAGMA foreign_key_check`).length > 0) wrong.push("foreign_key_check")
    const tables = yield* sql`SELECT 1 FROM sqlite_schema WHERE name = 'keyward_private_keys'`
    // The first process was killed before its first migration, or is about to begin it.
    if (tables.length === 0) return wrong
    const keyless = yield* sql`SELECT k.history_id FROM keyward_key_packages k
      LEFT JOIN keyward_private_keys p ON p.history_id = k.history_id WHERE p.history_id IS NULL`
    if (keyless.length > 0) wrong.push(`rows without keys: ${JSON.stringify(keyless)}`)
    const ownerless = yield* sql`SELECT p.history_id FROM keyward_private_keys p
      LEFT JOIN keyward_key_packages k ON p.history_id = k.history_id WHERE k.history_id IS NULL`
    if (ownerless.length > 0) wrong.push(`keys without a row: ${JSON.stringify(ownerless)}`)
    const several = yield* sql`SELECT installation_id FROM keyward_key_packages WHERE state = 'Published'
      GROUP BY installation_id HAVING count(*) > 1`
    if (several.length > 0) wrong.push(`several published: ${JSON.stringify(several)}`)
    return wrong
  }).pipe(Effect.provide(Layer.fresh(SqliteClient.layer({ filename }))))

/**
 * What holds at any moment, also while processes write: read in an order that no rotation can make look wrong. A package that
 * is no longer served when its keys are not found says nothing.
 */
const judgeServed = Effect.gen(function* () {
  const store = yield* KeyPackageStore
  const crypto = yield* MlsCrypto
  const { identifier } = yield* Signer
  const wrong: Array<string> = []
  for (const { installationId, registration } of yield* store.getInstallations(InboxId.derive(identifier))) {
    const served = yield* servedRef(installationId)
    if (Option.isNone(served)) {
      if (registration._tag === "Registered") wrong.push(`${installationId}: nothing is served`)
      continue
    }
    const problem = yield* opens(crypto, store, installationId, served.value)
    if (problem === undefined) continue
    const again = yield* servedRef(installationId)
    if (Option.contains(again, served.value)) wrong.push(`${installationId}: the served package ${problem}`)
  }
  return wrong
})

/** Again while the lease is the dead's, which ends by itself, or was too short for a machine that is busy. */
const patiently = <A, E extends { readonly _tag: string }, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.retry(effect, {
    times: 100,
    schedule: EffectSchedule.spaced("100 millis"),
    while: (error) => error._tag === "LeaseError"
  })

/** Has a process without chaos put everything right, and says what is not. */
const settle = Effect.gen(function* () {
  const store = yield* KeyPackageStore
  const { identifier } = yield* Signer
  const inboxId = InboxId.derive(identifier)
  const wrong: Array<string> = []
  const scheduler = yield* Scheduler.make({ maximumNap: "200 millis" })
  for (const label of LABELS) {
    const { installationId } = yield* patiently(registerInstallation({ label, includePostQuantum: false }))
    yield* patiently(scheduler.repair(installationId))
    // What an outage left waiting is sent by the next rotation, whose time may be a minute away.
    yield* patiently(rotateAndUploadKeyPackage({ installationId, includePostQuantum: false }))
    const { reachability } = yield* patiently(scheduler.probe(installationId))
    if (!Option.exists(reachability, (verdict) => verdict._tag === "Reachable")) {
      wrong.push(
        `${installationId}: not reachable in the end: ${JSON.stringify(Option.map(reachability, (v) => v._tag))}`
      )
    }
    const states = (yield* store.getHistory(installationId)).map((row) => row._tag)
    if (states.at(-1) !== "Published" || states.slice(0, -1).some((state) => state !== "Superseded")) {
      wrong.push(`${installationId}: ${states.join(", ")} in the end`)
    }
  }
  const { state } = yield* InboxLog.read(inboxId)
  const members = Option.match(state, { onNone: () => [], onSome: AssociationState.installationIds })
  if (members.length !== LABELS.length) {
    wrong.push(`the inbox has ${members.length} installations instead of ${LABELS.length}`)
  }
  const ids = (yield* store.getInstallations(inboxId)).map(({ installationId }) => installationId)
  const retired = yield* Effect.forEach(ids, (id) => Effect.map(store.getRetired(id), (rows) => rows.length))
  return { wrong, retired: retired.reduce((sum, count) => sum + count, 0), ids }
}).pipe(Effect.scoped)

/** When a worker was stopped, and what it may have sent late because of it. */
interface Pause {
  readonly from: number
  readonly until: number
}

const inPause = (pauses: ReadonlyArray<Pause>, at: number): boolean =>
  pauses.some(({ from, until }) => from <= at && at <= until)

/** How late a node may notice that a caller has gone, in milliseconds. */
const NOTICE = 250

/**
 * Rotations as the node has seen them: never two packages of one installation at once, never an older one after a newer one,
 * none that the ledger does not know.
 */
const judgeUploads = (
  uploads: ReadonlyArray<SeenUpload>,
  ids: ReadonlyArray<InstallationId>,
  pauses: ReadonlyArray<Pause>
) =>
  Effect.gen(function* () {
    const store = yield* KeyPackageStore
    const wrong: Array<string> = []
    let late = 0
    for (const id of ids) {
      const own = uploads.filter(({ installationId }) => installationId === id).toSorted((a, b) => a.at - b.at)
      const orders = new Map<string, number>()
      for (const ref of new Set(own.map((upload) => upload.ref))) {
        const row = yield* store.findByRef(id, KeyPackageRef.KeyPackageRef.make(ref))
        if (Option.isNone(row)) wrong.push(`${id}: an upload of ${ref}, which the ledger does not know`)
        else orders.set(ref, row.value.historyId)
      }
      own.forEach((upload, index) => {
        const before = own.slice(0, index)
        const over = before.find(
          ({ endedAt, isAccepted, ref }) => ref !== upload.ref && upload.at < endedAt - (isAccepted ? 0 : NOTICE)
        )
        const newer = before.find(
          ({ isAccepted, ref }) => isAccepted && (orders.get(ref) ?? 0) > (orders.get(upload.ref) ?? 0)
        )
        if (over === undefined && (newer === undefined || !upload.isAccepted)) return
        if (inPause(pauses, upload.at)) late += 1
        else if (over !== undefined) wrong.push(`${id}: two rotations at once, ${over.ref} and ${upload.ref}`)
        else wrong.push(`${id}: ${upload.ref} was accepted after ${newer?.ref}, which is newer`)
      })
    }
    return { wrong, late }
  })

/** Rotations as their senders have noted them: the fence never goes back, and each belongs to one process. */
const judgeJournal = (journal: string, pauses: ReadonlyArray<Pause>): ReadonlyArray<string> => {
  if (!existsSync(journal)) return []
  const wrong: Array<string> = []
  const highest = new Map<string, number>()
  const owners = new Map<string, string>()
  // A line that a kill cut short was followed by no upload.
  for (const line of readFileSync(journal, "utf8").split("\n").slice(0, -1)) {
    const [id = "", fenceText = "", pid = "", at = ""] = line.split(" ")
    const fence = Number(fenceText)
    if (fence <= 0) wrong.push(`${id}: sent without a lease`)
    const owner = owners.get(`${id} ${fence}`)
    if (owner !== undefined && owner !== pid) wrong.push(`${id}: fence ${fence} was held by ${owner} and ${pid}`)
    owners.set(`${id} ${fence}`, pid)
    if (fence < (highest.get(id) ?? 0) && !inPause(pauses, Number(at))) {
      wrong.push(`${id}: sent under fence ${fence} after ${highest.get(id)}`)
    }
    highest.set(id, Math.max(fence, highest.get(id) ?? 0))
  }
  return wrong
}

/** One database with its processes. */
class Arena {
  readonly workers: Array<Worker> = []
  readonly pauses: Array<Pause> = []
  readonly journal: string
  readonly place: Place
  readonly startedAt: number
  constructor(place: Place, startedAt: number) {
    this.place = place
    this.startedAt = startedAt
    this.journal = `${place.filename}.journal`
  }
}

/**
 * Runs the rounds. Violations are reported, not thrown.
 *
 * @since 1.0.0
 * @category running
 */
export const run = ({ onRound, program, rounds, seed, workers: width = 2 }: Options): Effect.Effect<Report> =>
  Effect.gen(function* () {
    const next = Mutation.generator(seed)
    const folder = yield* Effect.acquireRelease(
      Effect.sync(() => mkdtempSync(join(tmpdir(), "keyward-chaos-"))),
      (path) => Effect.sync(() => rmSync(path, { recursive: true, force: true }))
    )
    let node = yield* startNode(program)
    const violations: Array<string> = []
    const counts = new Map<RoundKind, number>()
    const totals = { kills: 0, databases: 0, uploads: 0, accepted: 0, late: 0, retired: 0, published: 0, nodeEnds: 0 }
    let dying = new Set<ChildProcess>()
    const spares: Array<ChildProcess> = []
    for (let count = 0; count < width; count++) spares.push(yield* forked(program, "worker"))

    const start = (arena: Arena, death?: Death): Effect.Effect<Worker, never, Scope.Scope> =>
      Effect.gen(function* () {
        const options: WorkerOptions = { ...arena.place, seed: next(2 ** 31), journal: arena.journal, death }
        // Loading the program takes longer than all the rest: the next one does so while this one works.
        spares.push(yield* forked(program, "worker"))
        const child = spares.shift() ?? (yield* forked(program, "worker"))
        if (death !== undefined) dying.add(child)
        const gone = new Promise<void>((resolve) => {
          child.once("exit", (code, signal) => {
            if (signal === "SIGKILL") totals.kills += 1
            else if (!dying.has(child)) violations.push(`a worker ended by itself: ${signal ?? code}`)
            resolve()
          })
        })
        const ready = new Promise<boolean>((resolve) => {
          child.on("message", (message: WorkerMessage) => {
            if (message._tag === "Wrong") violations.push(`a worker: ${message.detail}`)
            else resolve(true)
          })
          void gone.then(() => resolve(false))
        })
        child.send(options)
        const worker = { child, ready, gone }
        arena.workers.push(worker)
        return worker
      })

    const kill = (arena: Arena, worker: Worker) =>
      Effect.promise(async () => {
        worker.child.kill("SIGKILL")
        await worker.gone
        arena.workers.splice(arena.workers.indexOf(worker), 1)
      })

    const isReady = ({ ready }: Worker) => Effect.promise(() => ready)
    const pause = (most: number) => Effect.sleep(next(most))

    /** Lets the workers send up to `most` uploads, but no longer than some seconds, and goes on at a random moment after. */
    const work = (arena: Arena, most: number) =>
      Effect.gen(function* () {
        const size = () => (existsSync(arena.journal) ? statSync(arena.journal).size : 0)
        // A line is about 150 bytes.
        const enough = size() + next(most + 1) * 150
        for (let times = 0; times < 200 && size() < enough; times++) yield* Effect.sleep("20 millis")
        yield* pause(150)
      })
    const one = (arena: Arena) => Mutation.pick(next, arena.workers)

    const fill = (arena: Arena) =>
      Effect.gen(function* () {
        while (arena.workers.length < width) yield* start(arena)
        yield* Effect.forEach(arena.workers, isReady, { concurrency: "unbounded" })
      })

    const judge = (arena: Arena, what: string) =>
      Effect.gen(function* () {
        const { filename } = arena.place
        if (!existsSync(filename)) return
        const wrong = [...(yield* judgeFile(filename)), ...(yield* judgeServed.pipe(provided(arena.place)))]
        violations.push(...wrong.map((each) => `${what}: ${each}`))
      })

    const open = Effect.gen(function* () {
      totals.databases += 1
      const filename = join(folder, `${totals.databases}.db`)
      return new Arena({ filename, nodeUrl: node.url, wallet: totals.databases }, yield* Clock.currentTimeMillis)
    })

    /** Ends the processes of a database, has the rest put right, and compares everything that was recorded. */
    const close = (arena: Arena) =>
      Effect.gen(function* () {
        for (const worker of arena.workers.slice()) yield* kill(arena, worker)
        const what = `database ${arena.place.wallet}`
        yield* judge(arena, what)
        yield* Effect.gen(function* () {
          const { ids, retired, wrong } = yield* settle
          const { uploads } = yield* recorded(arena.startedAt)
          const own = uploads.filter(({ installationId }) => ids.some((id) => id === installationId))
          const judged = yield* judgeUploads(own, ids, arena.pauses)
          violations.push(
            ...[...wrong, ...judged.wrong, ...judgeJournal(arena.journal, arena.pauses)].map(
              (each) => `${what}: ${each}`
            )
          )
          totals.uploads += own.length
          totals.accepted += own.filter(({ isAccepted }) => isAccepted).length
          totals.published += new Set(own.filter(({ isAccepted }) => isAccepted).map(({ ref }) => ref)).size
          totals.late += judged.late
          totals.retired += retired
        }).pipe(provided(arena.place))
        yield* judge(arena, what)
      }).pipe(
        Effect.catchAll((error) =>
          Effect.sync(() => void violations.push(`database ${arena.place.wallet}: ${describe(error)}`))
        )
      )

    const recorded = (since: number) =>
      Effect.flatMap(node.ask({ _tag: "Record", since }), (answer) =>
        Effect.succeed({ uploads: answer._tag === "Uploads" ? answer.uploads : [] })
      )

    const act = (arena: Arena, kind: RoundKind): Effect.Effect<void, never, Scope.Scope> =>
      Effect.gen(function* () {
        switch (kind) {
          case "killOne":
            yield* work(arena, 6)
            return yield* kill(arena, one(arena))
          case "killAll":
            yield* work(arena, 6)
            for (const { child } of arena.workers) child.kill("SIGKILL")
            for (const worker of arena.workers.slice()) yield* kill(arena, worker)
            return
          case "killAtCall": {
            yield* kill(arena, one(arena))
            const death = deathAt(CALLS)
            const victim = yield* start(arena, death)
            yield* Effect.raceFirst(
              Effect.promise(() => victim.gone),
              Effect.sleep("6 seconds")
            )
            return yield* kill(arena, victim)
          }
          case "killStarting":
            yield* kill(arena, one(arena))
            for (let times = 1 + next(3); times > 0; times--) {
              const victim = yield* start(arena)
              yield* pause(1500)
              yield* kill(arena, victim)
            }
            return
          case "outage":
            yield* node.ask({ _tag: "Faults", seed: next(2 ** 31) })
            yield* work(arena, 8)
            yield* kill(arena, one(arena))
            yield* work(arena, 4)
            yield* node.ask({ _tag: "Faults", seed: undefined })
            return
          case "pause": {
            yield* work(arena, 4)
            const victim = one(arena)
            const from = yield* Clock.currentTimeMillis
            victim.child.kill("SIGSTOP")
            yield* Effect.sleep(2200 + next(600))
            victim.child.kill("SIGCONT")
            yield* work(arena, 3)
            const until = yield* Clock.currentTimeMillis
            arena.pauses.push({ from, until: until + 1000 })
            return yield* kill(arena, one(arena))
          }
          case "register": {
            const isChosen = next(2) === 0
            while (arena.workers.length < width) {
              yield* start(arena, isChosen ? deathAt(REGISTRATION_CALLS, 3) : undefined)
            }
            yield* isChosen
              ? Effect.raceFirst(
                  Effect.promise(() => Promise.all(arena.workers.map((w) => w.gone))),
                  Effect.sleep("5 seconds")
                )
              : Effect.sleep(500 + next(3000))
            for (const worker of arena.workers.slice()) yield* kill(arena, worker)
            return
          }
        }
        return kind satisfies never
      })

    const deathAt = (calls: ReadonlyArray<string>, most = 6): Death => ({
      operation: Mutation.pick(next, calls),
      when: next(2) === 0 ? "before" : "after",
      nth: 1 + next(most)
    })

    let arena = yield* open
    for (let round = 1; round <= rounds; round++) {
      const kind = round <= KINDS.length ? (KINDS[round - 1] ?? "killOne") : Mutation.pick(next, KINDS)
      onRound?.(round, kind)
      counts.set(kind, (counts.get(kind) ?? 0) + 1)
      if (kind === "register") {
        yield* close(arena)
        arena = yield* open
      } else yield* fill(arena)
      yield* act(arena, kind)
      if (node.hasEnded()) {
        totals.nodeEnds += 1
        for (const worker of arena.workers.slice()) yield* kill(arena, worker)
        node = yield* startNode(program)
        arena = yield* open
        continue
      }
      yield* Effect.catchAll(judge(arena, `round ${round} (${kind})`), (error) =>
        Effect.sync(() => void violations.push(`round ${round} (${kind}): ${describe(error)}`))
      )
      dying = new Set([...dying].filter((child) => child.exitCode === null))
    }
    yield* close(arena)

    const roundsOf = (kind: RoundKind) => counts.get(kind) ?? 0
    return {
      ...totals,
      violations,
      rounds: {
        killOne: roundsOf("killOne"),
        killAll: roundsOf("killAll"),
        killAtCall: roundsOf("killAtCall"),
        killStarting: roundsOf("killStarting"),
        outage: roundsOf("outage"),
        pause: roundsOf("pause"),
        register: roundsOf("register")
      }
    }
  }).pipe(Effect.scoped)

/** Opens the place for a while. */
const provided =
  (place: Place) =>
  <A, E, R>(effect: Effect.Effect<A, E, R>) =>
    Effect.provide(effect, [Layer.fresh(layer(place)), Logger.remove(Logger.defaultLogger)])
