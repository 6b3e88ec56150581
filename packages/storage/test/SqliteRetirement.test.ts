/**
 * Erased means gone: from the file, from its WAL and from its free pages.
 */
import { existsSync, readFileSync } from "node:fs"
import { describe, expect, it } from "@effect/vitest"
import type { Kept } from "@keyward/core/lifecycle/Ledger"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import { identity } from "effect/Function"
import * as Option from "effect/Option"
import { atT0, filename, installed, joinInTime, proofs, raw, rotate, T0, withSql, withStore } from "./fixture.ts"

const retireAt = (at: DateTime.Utc) => ({ at, dropBefore: DateTime.unsafeMake(0), reschedule: identity })

/** What the files must not hold any more: the sealed keys, and all that a Welcome could name the package by. */
const tracesOf = (file: string, rows: ReadonlyArray<Kept>) =>
  withSql(file, (sql) =>
    Effect.forEach(rows, ({ historyId, keyPackage }) =>
      Effect.map(
        sql<{ sealed_keys: Uint8Array }>`SELECT sealed_keys FROM keyward_private_keys WHERE history_id = ${historyId}`,
        ([row]) =>
          [row?.sealed_keys, keyPackage.initKey, keyPackage.bytes, ...Option.toArray(keyPackage.postQuantumKey)].map(
            (bytes) => Buffer.from(bytes ?? new Uint8Array())
          )
      )
    )
  )

/** Any 16 bytes of it: what is left of a page is not always whole. */
const isIn = (files: Buffer, secret: Buffer): boolean => {
  for (let start = 0; start + 16 <= secret.length; start += 16) {
    if (files.includes(secret.subarray(start, start + 16))) return true
  }
  return false
}

describe("retirement", () => {
  it.effect("[80] leaves nothing of the keys in file, WAL or free pages, and all of the others", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const { installation, lease } = yield* installed(1)
          const id = installation.installationId
          for (let seed = 0; seed < 40; seed++) yield* rotate(installation, lease, 100 + seed)
          const history = yield* store.getHistory(id)
          // Every third stays, so that pages are neither all kept nor all freed.
          const doomed = history.filter(({ historyId }) => historyId % 3 !== 0 && historyId < 40)
          const kept = history.filter((row) => !doomed.includes(row))
          const traces = yield* tracesOf(file, doomed)
          const keptTraces = yield* tracesOf(file, kept)
          for (const secrets of traces) for (const secret of secrets) expect(isIn(raw(file), secret)).toBe(true)

          const now = DateTime.add(T0, { days: 2 })
          const held = yield* store.acquireLease(id, { now, duration: Duration.minutes(5) })
          const permits = doomed.map((row) => proofs.permit(row, "Superseded"))
          expect((yield* store.retire(held, permits, retireAt(now))).retired).toHaveLength(doomed.length)
          yield* store.scrub

          expect(existsSync(`${file}-wal`) ? readFileSync(`${file}-wal`).length : 0).toBe(0)
          const files = raw(file)
          for (const secrets of traces) for (const secret of secrets) expect(isIn(files, secret)).toBe(false)
          for (const secrets of keptTraces) for (const secret of secrets) expect(files.includes(secret)).toBe(true)
          expect(yield* store.getHistory(id)).toEqual(kept)
        })
      )
    }).pipe(Effect.scoped)
  )

  it.effect("[80] scrubbing fails with Busy while a reader keeps the WAL, and succeeds after it", () =>
    Effect.gen(function* () {
      yield* atT0
      const file = yield* filename
      yield* withStore(
        file,
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const { installation, lease } = yield* installed(1)
          yield* rotate(installation, lease, 10)
          yield* withSql(file, (other) =>
            Effect.gen(function* () {
              yield* other`BEGIN`
              yield* other`SELECT count(*) FROM keyward_installations`
              yield* store.releaseLease(lease)
              const fiber = yield* Effect.fork(Effect.flip(store.scrub))
              const error = yield* joinInTime(fiber)
              expect(error).toMatchObject({ operation: "scrub", reason: "Busy", isRetryable: true })
              yield* other`COMMIT`
            })
          )
          yield* store.scrub
          expect(readFileSync(`${file}-wal`).length).toBe(0)
        })
      )
    }).pipe(Effect.scoped)
  )
})
