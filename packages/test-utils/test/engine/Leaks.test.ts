/**
 * Nothing secret leaves: [78] logs, errors, spans, events, metrics; [79] JSON and inspect of every value; [80] the raw files
 * after an erasure. The secrets are read off the seeded generator, from which every private byte comes.
 */
import { inspect } from "node:util"
import { describe, expect, it } from "@effect/vitest"
import type { InstallationId } from "@keyward/core/identity/InstallationId"
import { explain } from "@keyward/core/lifecycle/Explanation"
import * as LifecycleEvents from "@keyward/core/lifecycle/LifecycleEvents"
import { queueKeyRotation, rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import * as Scheduler from "@keyward/core/lifecycle/Scheduler"
import { Entropy } from "@keyward/core/ports/Entropy"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Logger from "effect/Logger"
import * as LogLevel from "effect/LogLevel"
import * as Metric from "effect/Metric"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import * as Tracer from "effect/Tracer"
import * as Status from "../../src/devnode/GrpcStatus.ts"
import * as Faults from "../../src/Faults.ts"
import * as SqliteApp from "./SqliteApp.ts"

/** How a secret would look in text: at least this much of it, in any of these forms. */
const spellings = (secret: Uint8Array): ReadonlyArray<string> => {
  const bytes = Buffer.from(secret)
  const part = bytes.subarray(0, 16)
  return [
    part.toString("hex"),
    part.toString("hex").toUpperCase(),
    // Base64 of what stands at any offset: without its ends.
    ...[0, 1, 2].flatMap((offset) => {
      const text = bytes.subarray(offset, offset + 15)
      return [text.toString("base64"), text.toString("base64url")]
    }),
    [...part].join(","),
    [...part].join(", "),
    [...part].map((byte) => byte.toString(16).padStart(2, "0")).join(" "),
    part.toString("latin1")
  ]
}

const expectNowhere = (secrets: ReadonlyArray<Uint8Array>, what: string, text: string) => {
  for (const secret of secrets) {
    for (const spelling of spellings(secret)) {
      if (text.includes(spelling)) expect.fail(`${what} shows a secret: …${spelling.slice(0, 12)}…`)
    }
  }
}

/** A value in every way in which one is printed, its errors' causes included. */
const printed = (value: unknown): string => {
  let json = ""
  try {
    json = JSON.stringify(value, (_, each: unknown) => (typeof each === "bigint" ? `${each}` : each)) ?? ""
  } catch {
    // Circular: inspect shows it.
  }
  return `${json}\n${inspect(value, { depth: 12, showHidden: true, maxArrayLength: null, maxStringLength: null })}\n${String(value)}`
}

/** The seeded generator, and all that it gave. */
const listening = (given: Array<Uint8Array>) =>
  Layer.effect(
    Entropy,
    Effect.map(Entropy, (real) =>
      Entropy.of({
        ...real,
        randomBytes: (length) => {
          const bytes = real.randomBytes(length)
          if (length >= 32) given.push(bytes.slice())
          return bytes
        }
      })
    )
  )

/** Logs, spans and their events as text. */
const recording = (lines: Array<string>) => {
  const tracer = Tracer.make({
    span: (name, parent, context, links, startTime, kind, options) => {
      const attributes = new Map<string, unknown>(Object.entries(options?.attributes ?? {}))
      lines.push(`span ${name}`)
      const span: Tracer.Span = {
        _tag: "Span",
        name,
        spanId: String(lines.length),
        traceId: "trace",
        parent,
        context,
        status: { _tag: "Started", startTime },
        attributes,
        links,
        sampled: true,
        kind,
        end: (_, exit) => {
          lines.push(`end ${name} ${printed(Object.fromEntries(attributes))}`)
          if (exit._tag === "Failure") lines.push(`failure ${name} ${Cause.pretty(exit.cause)} ${printed(exit.cause)}`)
        },
        attribute: (key, value) => {
          attributes.set(key, value)
        },
        event: (event, _, all) => void lines.push(`event ${event} ${printed(all)}`),
        addLinks: () => {}
      }
      return span
    },
    context: (f) => f()
  })
  const logger = Logger.make(({ annotations, cause, message }) => {
    lines.push(`log ${printed(message)} ${Cause.pretty(cause)} ${printed([...annotations])}`)
  })
  return Layer.mergeAll(
    Logger.replace(Logger.defaultLogger, logger),
    Logger.minimumLogLevel(LogLevel.All),
    Layer.setTracer(tracer)
  )
}

describe("leaks", () => {
  it.scoped(
    "[78] [79] [80] no private byte in logs, spans, errors, events, metrics, values, nor in the files once it is erased",
    () => {
      const given: Array<Uint8Array> = []
      const lines: Array<string> = []
      return Effect.gen(function* () {
        yield* SqliteApp.start
        const file = yield* SqliteApp.filename
        const faults = yield* Faults.Faults
        const events: Array<unknown> = []

        yield* Effect.gen(function* () {
          const store = yield* KeyPackageStore
          yield* LifecycleEvents.events().pipe(
            Stream.runForEach((event) => Effect.sync(() => events.push(event))),
            Effect.forkScoped
          )
          yield* Effect.yieldNow()
          const installation = yield* SqliteApp.register
          const id: InstallationId = installation.installationId
          const [first] = yield* store.getHistory(id)
          if (first === undefined) return expect.fail("no package")
          const keys = Option.getOrThrow(yield* store.getPrivateKeys(first.historyId))
          const firstSecrets = [Redacted.value(keys.initKey), Redacted.value(keys.encryptionKey)]
          const [sealed] = yield* SqliteApp.withSql(
            file,
            (sql) => sql`SELECT sealed_keys FROM keyward_private_keys WHERE history_id = ${first.historyId}`
          )
          const blob = sealed?.["sealed_keys"]
          if (!(blob instanceof Uint8Array)) return expect.fail("no sealed keys")
          // The search finds what is there: the sealed bytes now, the public key always.
          expect(SqliteApp.raw(file).includes(Buffer.from(blob))).toBe(true)
          expect(SqliteApp.raw(file).includes(Buffer.from(first.keyPackage.initKey))).toBe(true)

          const values: Array<unknown> = [installation, keys, yield* store.getInstallationKey(id)]
          const keep = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
            Effect.tapBoth(effect, {
              onSuccess: (value) => Effect.sync(() => values.push(value)),
              onFailure: (error) => Effect.sync(() => values.push(error))
            })
          const scheduler = yield* Scheduler.make()
          yield* keep(SqliteApp.withTime(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: true })))
          // Whatever the node answers, with our own bytes in its words.
          yield* faults.setRule((call) =>
            call.method === "uploadKeyPackage"
              ? Option.some(Faults.failBeforeSend(Status.invalidArgument(Buffer.from(call.request).toString("hex"))))
              : Option.none()
          )
          yield* Effect.either(
            keep(SqliteApp.withTime(rotateAndUploadKeyPackage({ installationId: id, includePostQuantum: false })))
          )
          yield* keep(SqliteApp.withTime(explain(id)))
          yield* faults.clear
          yield* keep(SqliteApp.withTime(scheduler.repair(id)))
          yield* queueKeyRotation(id)
          yield* SqliteApp.advance("20 minutes")
          yield* keep(SqliteApp.withTime(scheduler.probe(id)))
          yield* keep(store.getLedger(id))
          const retired = yield* keep(store.getRetired(id))
          expect(retired.map((row) => row.historyId)).toContain(first.historyId)
          // A row that cannot be read says which column, and not what is in it.
          const newest = (yield* store.getHistory(id)).at(-1)
          if (newest === undefined) return expect.fail("no package")
          const newestKeys = Option.getOrThrow(yield* store.getPrivateKeys(newest.historyId))
          yield* SqliteApp.withSql(
            file,
            (sql) =>
              sql`UPDATE keyward_private_keys SET sealed_keys = zeroblob(64) WHERE history_id = ${newest.historyId}`
          )
          yield* Effect.either(keep(store.getPrivateKeys(newest.historyId)))
          yield* keep(SqliteApp.withTime(scheduler.probe(id)))

          const secrets = [...given, ...firstSecrets, Redacted.value(newestKeys.initKey)]
          expect(given.length).toBeGreaterThan(5)
          expect(events.length).toBeGreaterThan(10)
          expect(lines.some((line) => line.startsWith("failure"))).toBe(true)
          expectNowhere(secrets, "a log or span", lines.join("\n"))
          for (const [index, value] of values.entries()) expectNowhere(secrets, `value ${index}`, printed(value))
          for (const event of events) expectNowhere(secrets, "an event", printed(event))
          expectNowhere(secrets, "a metric", printed(yield* Metric.snapshot))

          // Erased and scrubbed: neither the key nor its sealed form, in the file, its WAL or its free pages.
          const files = SqliteApp.raw(file)
          for (const secret of secrets) expect(files.includes(Buffer.from(secret))).toBe(false)
          expect(files.includes(Buffer.from(blob))).toBe(false)
          for (let at = 0; at + 16 <= blob.length; at += 16) {
            expect([at, files.includes(Buffer.from(blob.subarray(at, at + 16)))]).toEqual([at, false])
          }
          expect(files.includes(Buffer.from(first.keyPackage.initKey))).toBe(false)
        }).pipe(
          Effect.scoped,
          Effect.provide(listening(given).pipe(Layer.provideMerge(SqliteApp.layerProcess(file)))),
          Effect.provide(recording(lines)),
          SqliteApp.withShortGrace
        )
      }).pipe(Effect.provide(SqliteApp.layerNetwork))
    }
  )

  it("the search itself finds a secret in every form in which one would be printed", () => {
    const secret = Uint8Array.from({ length: 32 }, (_, index) => (index * 37 + 11) % 256)
    for (const value of [
      secret,
      Buffer.from(secret),
      [...secret],
      { nested: { error: new Error(Buffer.from(secret).toString("hex")) } },
      `x${Buffer.from(secret).toString("base64")}`,
      Buffer.concat([Buffer.from([1]), Buffer.from(secret)]).toString("base64url")
    ]) {
      expect(() => expectNowhere([secret], "it", printed(value))).toThrow("shows a secret")
    }
    expect(() => expectNowhere([secret], "it", printed({ key: Redacted.make(secret) }))).not.toThrow()
  })
})
