/**
 * Transactions on one SQLite connection, whose commits are shared.
 *
 * `SqlClient.withTransaction` is not used: it begins deferred, so that a transaction that reads before it writes fails with
 * SQLITE_BUSY_SNAPSHOT beside another writer, and it turns a COMMIT that fails (a full disk) into a defect.
 */
import * as SqlClient from "@effect/sql/SqlClient"
import type { Connection } from "@effect/sql/SqlConnection"
import { SqlError } from "@effect/sql/SqlError"
import { StorageError } from "@keyward/core/ports/KeyPackageStore"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as FiberId from "effect/FiberId"
import * as Schedule from "effect/Schedule"
import { turn } from "./eventLoop.ts"

/** How long SQLite itself waits for a lock, in milliseconds: short, as it blocks the whole event loop meanwhile. */
export const BUSY_TIMEOUT_MILLIS = 50

/** The waits between tries while another process holds the database: 10 ms doubling, with jitter, about 5 s in all. */
const backoff = Schedule.exponential("10 millis").pipe(Schedule.jittered, Schedule.intersect(Schedule.recurs(9)))

const isBusy = (error: unknown): boolean => error instanceof StorageError && error.isRetryable

/**
 * Tries again while the database is busy, then fails with `Busy`. The schedule begins with the first failure, which is rare:
 * driving one costs more than most statements.
 */
export const retryBusy = <A, E, R>(effect: Effect.Effect<A, E, R>): Effect.Effect<A, E, R> =>
  Effect.catchIf(effect, isBusy, (error) => {
    let next: Effect.Effect<A, E, R> = Effect.fail(error)
    const attempt = Effect.suspend(() => {
      const now = next
      next = effect
      return now
    })
    return Effect.retry(attempt, { schedule: backoff, while: isBusy })
  })

/** Preparing throws, where running fails: both become an `SqlError`. */
const execute = (connection: Connection, statement: string) =>
  Effect.flatten(
    Effect.try({
      try: () => connection.executeUnprepared(statement, [], undefined),
      catch: (cause) => new SqlError({ cause, message: "Failed to prepare statement" })
    })
  )

/** The levels of `PRAGMA synchronous`: whether a commit waits for the disk. */
const NORMAL = 1
const FULL = 2

/** What a statement can be given. */
export type Parameter = string | number | bigint | Uint8Array | null

/** The ways in which the store touches its database. */
export interface Transactions {
  /**
   * One statement inside a body of the below, prepared once per text. It takes the connection as it is: without the client's
   * queue, renaming and spans, which cost more than SQLite itself.
   */
  readonly query: (
    text: string,
    ...parameters: ReadonlyArray<Parameter>
  ) => Effect.Effect<ReadonlyArray<Readonly<Record<string, unknown>>>, SqlError>
  /** The same for what SQLite does while it prepares, as with most pragmas: never prepared ahead. */
  readonly execute: (statement: string) => Effect.Effect<void, SqlError>
  /** Statements of the client itself, inside a body of the below. */
  readonly withClient: <A, E, R>(statements: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>
  /** Statements that hold the connection: nobody else's uncommitted rows are seen. For single reads. */
  readonly read: <A, E, R>(body: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R>
  /**
   * A body that happens for good or not at all, as if in a transaction of its own: what it read still holds when it writes,
   * and when this returns, power may fail. Bodies that wait at the same time share one commit.
   */
  readonly write: <A, E, R>(body: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R>
  /**
   * The same without waiting for the disk. A crash of the process loses nothing; a power failure may lose it, with
   * everything that was running. For what then has no meaning any more: who holds a lease.
   */
  readonly writeUnsynced: <A, E, R>(body: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R>
}

/** How many bodies share a commit at most: the first of them waits for all the others. */
const MAX_GROUP = 64

/** How a group of bodies ended: all of it is durable, or none of it has happened. */
type Outcome =
  | { readonly _tag: "Committed" }
  /** BEGIN or COMMIT failed. */
  | { readonly _tag: "Failed"; readonly error: SqlError }
  /** SQLite ended the transaction because of what one body met: the others have yet to happen. */
  | { readonly _tag: "Broken" }

/** Bodies that share a transaction. */
interface Group {
  readonly isDurable: boolean
  readonly ended: Deferred.Deferred<Outcome>
  isBroken: boolean
}

/** What a waiting body is told. */
type Turn =
  /** To begin a group. */
  | { readonly _tag: "Lead" }
  /** To run in this group now, and say so when done. */
  | { readonly _tag: "Join"; readonly group: Group; readonly done: Deferred.Deferred<void> }
  /** The group that it would have been part of could not begin. */
  | { readonly _tag: "Fail"; readonly error: SqlError }

/** Makes an effect interruptible where its caller is. */
type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** How a body wants to be run. */
interface Options {
  /** Whether it waits for the disk. */
  readonly isDurable: boolean
  /** Whether it shares its transaction with nobody. */
  readonly isAlone: boolean
}

/** A body that waits for its turn. */
interface Waiting extends Options {
  readonly turn: Deferred.Deferred<Turn>
  told: Turn | undefined
}

/** What came of a body whose group has not ended yet. */
interface Ran<A, E> {
  readonly exit: Exit.Exit<A, E | SqlError>
  /** Whether the group was broken by it. */
  readonly hasBroken: boolean
}

const ran = <A, E>(exit: Exit.Exit<A, E | SqlError>, hasBroken: boolean): Ran<A, E> => ({ exit, hasBroken })

const failed = (error: SqlError): Outcome => ({ _tag: "Failed", error })

const SAVEPOINT = "keyward_body"

/** Whose the client of some transactions is. */
export interface Ownership {
  /** Whether nobody else has the client, and so its connection. */
  readonly isPrivate: boolean
}

/** Runs a body that has the connection to itself, and waits for it until then. To be run where nothing can be interrupted. */
type Hold = (restore: Restore) => <A, E, R>(body: Effect.Effect<A, E, R>) => Effect.Effect<A, E | SqlError, R>

/** Holds the connection against all that use the client. */
const holdShared =
  (sql: SqlClient.SqlClient): Hold =>
  (restore) =>
  (body) =>
    Effect.scoped(Effect.zipRight(restore(sql.reserve), body))

/** Holds a connection that nobody else has: one body after the other, in the order in which they come. */
const makeHoldPrivate = (): Hold => {
  interface Waiting {
    readonly turn: Deferred.Deferred<void>
    hasTurn: boolean
  }
  const waiting: Array<Waiting> = []
  let isHeld = false

  const release = (): void => {
    const next = waiting.shift()
    if (next === undefined) {
      isHeld = false
      return
    }
    next.hasTurn = true
    Deferred.unsafeDone(next.turn, Effect.void)
  }

  return (restore) => (body) =>
    Effect.suspend(() => {
      const use = Effect.flatMap(Effect.exit(body), (exit) => {
        release()
        return exit
      })
      if (!isHeld) {
        isHeld = true
        return use
      }
      const member: Waiting = { turn: Deferred.unsafeMake<void>(FiberId.none), hasTurn: false }
      waiting.push(member)
      // Whoever does not want to wait any more leaves, or passes on the turn that it has just been given.
      const leave = Effect.sync(() => {
        if (member.hasTurn) release()
        else waiting.splice(waiting.indexOf(member), 1)
      })
      return Effect.zipRight(
        Effect.onInterrupt(restore(Deferred.await(member.turn)), () => leave),
        use
      )
    })
}

/**
 * The transactions of a client that has one connection, as every SQLite client does.
 *
 * A write that finds nobody writing leads: it begins a transaction, runs its body, lets those that came meanwhile run theirs
 * one after the other, each in its own fiber and in a savepoint of its own, and commits for all of them. An fsync takes longer
 * than a hundred bodies. Whoever is still waiting then leads the next.
 */
export const make = (
  sql: SqlClient.SqlClient,
  { isPrivate }: Ownership = { isPrivate: false }
): Effect.Effect<Transactions, SqlError> =>
  Effect.gen(function* () {
    const own = yield* Effect.scoped(sql.reserve)
    // SQLite may lower its own level when it first reads a file with a WAL: not between a look at the level and a write. Where the
    // file cannot be read, there is no write either.
    yield* Effect.ignore(execute(own, "SELECT 1 FROM sqlite_schema LIMIT 1"))
    const run = (statement: string) => Effect.asVoid(execute(own, statement))
    const setLevel = (level: number) => run(`PRAGMA synchronous = ${level}`)
    /** Never prepared ahead: SQLite answers while it prepares. */
    const readLevel = Effect.map(execute(own, "PRAGMA synchronous"), ([row]) => Number(row?.["synchronous"]))
    let known: number | undefined
    const remembered = Effect.suspend(() =>
      known === undefined
        ? Effect.tap(readLevel, (level) => {
            known = level
          })
        : Effect.succeed(known)
    )
    /**
     * Of a client that others use, too, nobody knows what they have set it to since. A private one is asked at its first write: it is
     * configured after this.
     */
    const getLevel = isPrivate ? remembered : readLevel
    const query: Transactions["query"] = (text, ...parameters) => own.execute(text, parameters, undefined)
    const waiting: Array<Waiting> = []
    let isLed = false
    /** The group that has the connection. */
    let current: Group | undefined

    // Waiting for a connection that one's own fiber holds would never end. It is also wrong: what a caller's transaction
    // rolls back later was not durable when the store said so.
    const refuseNesting = Effect.flatMap(Effect.serviceOption(SqlClient.TransactionConnection), (outer) =>
      outer._tag === "Some" && outer.value[0] === own
        ? Effect.dieMessage("a key package store was used inside a transaction of its own SqlClient")
        : Effect.void
    )

    const withClient = Effect.provideService(SqlClient.TransactionConnection, [own, 0] as const)

    const hold = isPrivate ? makeHoldPrivate() : holdShared(sql)
    /** A private client has no other statements, and no transactions but these. */
    const inTransaction: Transactions["withClient"] = isPrivate ? (body) => body : withClient
    const before = isPrivate ? Effect.void : refuseNesting

    const tell = (member: Waiting, turn: Turn): void => {
      member.told = turn
      Deferred.unsafeDone(member.turn, Effect.succeed(turn))
    }

    /** Tells everybody how the group of the leader ended, that nobody holds the connection, and lets the next in line lead. */
    const end = (outcome: Exit.Exit<Outcome, unknown>): Effect.Effect<void> =>
      Effect.suspend(() => {
        const group = current
        current = undefined
        // Where there is no outcome nobody had joined yet, and only readers wait.
        const known = Exit.getOrElse(outcome, (): Outcome => ({ _tag: "Broken" }))
        if (group !== undefined) Deferred.unsafeDone(group.ended, Effect.succeed(known))
        return passOn
      })

    /** The next in line leads from now on, if there is one. */
    const passOn = Effect.sync(() => {
      const next = waiting.shift()
      if (next === undefined) isLed = false
      else tell(next, { _tag: "Lead" })
    })

    /** Runs a body in a savepoint of its own. */
    const runBody = <A, E, R>(body: Effect.Effect<A, E, R>, group: Group): Effect.Effect<Ran<A, E>, never, R> =>
      Effect.gen(function* () {
        const exit = yield* Effect.exit(Effect.zipRight(query(`SAVEPOINT ${SAVEPOINT}`), inTransaction(body)))
        const undo = Exit.isSuccess(exit) ? Effect.void : query(`ROLLBACK TO ${SAVEPOINT}`)
        const end = yield* Effect.exit(Effect.zipRight(undo, query(`RELEASE ${SAVEPOINT}`)))
        if (Exit.isSuccess(end)) return ran<A, E>(exit, false)
        // There is no savepoint any more, so no transaction: SQLite has rolled it back, as it may where the disk is full.
        group.isBroken = true
        return ran<A, E>(Exit.isSuccess(exit) ? Exit.failCause(end.cause) : exit, true)
      })

    /** Lets one of those that wait run in the group; false where none can. */
    const admit = (group: Group): Effect.Effect<boolean> =>
      Effect.suspend(() => {
        const index = waiting.findIndex(({ isAlone, isDurable }) => !isAlone && (group.isDurable || !isDurable))
        const [next] = index < 0 ? [] : waiting.splice(index, 1)
        if (next === undefined) return Effect.succeed(false)
        const done = Deferred.unsafeMake<void>(FiberId.none)
        tell(next, { _tag: "Join", group, done })
        return Effect.as(Deferred.await(done), true)
      })

    /** Lets those that wait run, as many as one commit may have. */
    const admitAll = (group: Group): Effect.Effect<void> =>
      Effect.gen(function* () {
        for (let count = 1; count < MAX_GROUP && !group.isBroken; count++) {
          if (!(yield* admit(group))) return
        }
      })

    /** Until nobody comes any more who can come without waiting for the outside. */
    const gather: Effect.Effect<void> = Effect.suspend(() => {
      const before = waiting.length
      return Effect.zipRight(
        turn,
        Effect.suspend(() => (before < waiting.length && waiting.length < MAX_GROUP ? gather : Effect.void))
      )
    })

    const commit = (group: Group): Effect.Effect<Outcome> => {
      // SQLite has ended the transaction by itself where ROLLBACK fails: its only complaint is that there is none.
      const rollback = Effect.ignore(run("ROLLBACK"))
      return group.isBroken
        ? Effect.as(rollback, { _tag: "Broken" })
        : run("COMMIT").pipe(
            Effect.as<Outcome>({ _tag: "Committed" }),
            Effect.catchAll((error) => Effect.as(rollback, failed(error)))
          )
    }

    /** Begins a transaction, runs the body and those of others in it, and ends it. To be run while the connection is held. */
    const runGroup = <A, E, R>(restore: Restore, body: Effect.Effect<A, E, R>, { isAlone, isDurable }: Options) =>
      Effect.gen(function* () {
        const group: Group = {
          // Those who do not wait for the disk ride along with those who do.
          isDurable: isDurable || (!isAlone && waiting.some((other) => !other.isAlone && other.isDurable)),
          ended: Deferred.unsafeMake<Outcome>(FiberId.none),
          isBroken: false
        }
        current = group
        // Another process writes, or nobody can: it would be the same for each, one after the other.
        const failAll = (error: SqlError) =>
          Effect.sync(() => {
            for (const member of waiting.splice(0)) tell(member, { _tag: "Fail", error })
          })
        const level = yield* Effect.tapError(getLevel, failAll)
        const needed = group.isDurable ? Math.max(level, FULL) : Math.min(level, NORMAL)
        return yield* Effect.gen(function* () {
          const begin =
            needed === level ? run("BEGIN IMMEDIATE") : Effect.zipRight(setLevel(needed), run("BEGIN IMMEDIATE"))
          yield* Effect.tapError(begin, failAll)
          const mine = yield* runBody(restore(body), group)
          if (!isAlone) yield* admitAll(group)
          const outcome = yield* commit(group)
          return [mine, outcome] as const
        }).pipe(
          // For whoever shares the connection. It fails for want of memory alone, and then nothing else succeeds.
          Effect.ensuring(needed === level ? Effect.void : Effect.ignore(setLevel(level)))
        )
      })

    /** Runs a group of which this body is the first. */
    const lead = <A, E, R>(restore: Restore, body: Effect.Effect<A, E, R>, options: Options) =>
      // The connection is still free, and others get to their writes through reads.
      Effect.zipRight(
        options.isAlone ? Effect.void : restore(gather),
        hold(restore)(runGroup(restore, body, options))
      ).pipe(
        Effect.onExit((exit) => end(Exit.map(exit, ([, outcome]) => outcome))),
        // Only now, when somebody else may lead: it may need another turn.
        Effect.flatMap(([mine, outcome]) => settle(restore, body, options.isDurable, mine, outcome))
      )

    /** What the caller of a body is told once its group has ended. */
    const settle = <A, E, R>(
      restore: Restore,
      body: Effect.Effect<A, E, R>,
      isDurable: boolean,
      { exit, hasBroken }: Ran<A, E>,
      outcome: Outcome
    ): Effect.Effect<A, E | SqlError, R> => {
      switch (outcome._tag) {
        case "Committed":
          return exit
        case "Failed":
          return Exit.isInterrupted(exit) ? exit : Effect.fail(outcome.error)
        case "Broken":
          // It was not this body's doing, so it has another try, with nobody else.
          return hasBroken || Exit.isInterrupted(exit) ? exit : enter(restore, body, { isDurable, isAlone: true })
      }
    }

    /** Waits for a turn, and takes it. */
    const queue = <A, E, R>(
      restore: Restore,
      body: Effect.Effect<A, E, R>,
      options: Options
    ): Effect.Effect<A, E | SqlError, R> =>
      Effect.gen(function* () {
        const member: Waiting = { ...options, turn: Deferred.unsafeMake<Turn>(FiberId.none), told: undefined }
        waiting.push(member)
        // Whoever does not want to wait any more leaves, or passes on the turn that it has just been given.
        const leave = Effect.suspend(() => {
          const { told } = member
          if (told === undefined) {
            waiting.splice(waiting.indexOf(member), 1)
            return Effect.void
          }
          return told._tag === "Lead"
            ? passOn
            : told._tag === "Join"
              ? Deferred.succeed(told.done, undefined)
              : Effect.void
        })
        const turn = yield* Effect.onInterrupt(restore(Deferred.await(member.turn)), () => leave)
        switch (turn._tag) {
          case "Lead":
            return yield* lead(restore, body, options)
          case "Fail":
            return yield* turn.error
          case "Join": {
            const ran = yield* runBody(restore(body), turn.group)
            Deferred.unsafeDone(turn.done, Effect.void)
            const outcome = yield* Deferred.await(turn.group.ended)
            return yield* settle(restore, body, options.isDurable, ran, outcome)
          }
        }
      })

    const enter = <A, E, R>(
      restore: Restore,
      body: Effect.Effect<A, E, R>,
      options: Options
    ): Effect.Effect<A, E | SqlError, R> =>
      Effect.suspend(() => {
        if (isLed) return queue(restore, body, options)
        isLed = true
        return lead(restore, body, options)
      })

    const write =
      (isDurable: boolean) =>
      <A, E, R>(body: Effect.Effect<A, E, R>): Effect.Effect<A, E | SqlError, R> =>
        Effect.uninterruptibleMask((restore) =>
          Effect.zipRight(before, enter(restore, body, { isDurable, isAlone: false }))
        )

    return {
      query,
      execute: run,
      withClient,
      read: (body) =>
        Effect.uninterruptibleMask((restore) => Effect.zipRight(before, hold(restore)(restore(inTransaction(body))))),
      write: write(true),
      writeUnsynced: write(false)
    }
  })
