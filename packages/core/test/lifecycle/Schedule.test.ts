/** What is due when: the transitions as properties, and the order in which rotations are wanted. */
import { describe, expect, it } from "@effect/vitest"
import { HistoryId, RotationTrigger } from "@keyward/core/lifecycle/Ledger"
import * as Schedule from "@keyward/core/lifecycle/Schedule"
import * as DateTime from "effect/DateTime"
import * as Duration from "effect/Duration"
import * as FastCheck from "effect/FastCheck"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"

const NOW = DateTime.unsafeMake("2026-11-23T12:00:00Z")
const later = (duration: Duration.DurationInput) => DateTime.addDuration(NOW, duration)
const earlier = (duration: Duration.DurationInput) => DateTime.subtractDuration(NOW, duration)
const millis = DateTime.toEpochMillis

const fastCheck = { seed: 4, numRuns: 200 }

/** A time within ten days of now. */
const time = FastCheck.integer({ min: -864_000, max: 864_000 }).map((seconds) => later(Duration.seconds(seconds)))
const maybe = <A>(value: FastCheck.Arbitrary<A>) => FastCheck.option(value, { nil: undefined }).map(Option.fromNullable)
const trigger = FastCheck.constantFrom(...RotationTrigger.literals)
/** Time is never asked for: it has its own deadline. */
const asked = FastCheck.constantFrom(...RotationTrigger.literals.filter((each) => each !== "Time"))
const request = FastCheck.record({ trigger: asked, requestedAt: time, dueAt: time, heldUntil: maybe(time) })
const failures = FastCheck.record({
  count: FastCheck.integer({ min: 1, max: 40 }),
  since: time,
  retryAt: time,
  detail: FastCheck.string()
})
const schedule: FastCheck.Arbitrary<Schedule.Schedule> = FastCheck.record({
  rotateAt: maybe(time),
  requests: FastCheck.uniqueArray(request, { selector: (each) => each.trigger, maxLength: 7 }),
  failures: maybe(failures),
  probeAt: maybe(time),
  probeFailures: maybe(failures),
  cleanAt: maybe(time),
  confirmation: maybe(
    FastCheck.record({ historyId: FastCheck.constant(HistoryId.make(3)), confirmAt: time, until: time })
  ),
  wanted: maybe(
    FastCheck.record({
      includePostQuantum: FastCheck.boolean(),
      version: FastCheck.nat(9),
      profileVersion: FastCheck.nat(9)
    })
  ),
  revokedAt: maybe(time),
  strangers: maybe(FastCheck.record({ count: FastCheck.integer({ min: 1, max: 9 }), seenAt: time })),
  unreachable: maybe(FastCheck.record({ verdict: FastCheck.string(), since: time })),
  seenServedAt: maybe(time)
})

const at = (deadline: Option.Option<DateTime.Utc>) => Option.getOrUndefined(Option.map(deadline, millis))
const times = { startedAt: NOW, madeAt: NOW, rotateAt: later("30 days"), probeAt: later("1 day") }

describe("Schedule", () => {
  it.prop(
    "is the same after it was written down",
    [schedule],
    ([known]) => {
      const json = Schema.parseJson(Schedule.Schedule)
      const back = Schema.decodeSync(json)(Schema.encodeSync(json)(known))
      expect(Schema.encodeSync(json)(back)).toBe(Schema.encodeSync(json)(known))
    },
    { fastCheck }
  )

  it.prop(
    "a request only lowers the deadline of the rotation, whatever was asked for before",
    [schedule, asked, time],
    ([known, wanted, dueAt]) => {
      const free = { ...known, revokedAt: Option.none(), failures: Option.none() }
      const before = at(Schedule.rotationDueAt(free))
      const after = at(Schedule.rotationDueAt(Schedule.requestRotation(wanted, NOW, dueAt)(free)))
      expect(after).toBeDefined()
      if (before !== undefined && after !== undefined) expect(after).toBeLessThanOrEqual(before)
    },
    { fastCheck }
  )

  it.prop(
    "asking again changes nothing but the time of the last request: one request for each trigger",
    [schedule, asked, time],
    ([known, wanted, dueAt]) => {
      const ask = Schedule.requestRotation(wanted, NOW, dueAt)
      const once = ask(known)
      expect(ask(ask(once))).toEqual(once)
      expect(once.requests.filter((each) => each.trigger === wanted).length).toBe(1)
      expect(once.requests.filter((each) => each.trigger !== wanted)).toEqual(
        known.requests.filter((each) => each.trigger !== wanted)
      )
    },
    { fastCheck }
  )

  it.prop(
    "[58] a publication clears what it has served, keeps what came in meanwhile, and forgets the failures",
    [schedule],
    ([known]) => {
      const after = Schedule.published(times)(known)
      expect(after.requests.map((each) => each.trigger)).toEqual(
        known.requests
          .filter(({ requestedAt }) =>
            DateTime.between(requestedAt, { minimum: later("1 millis"), maximum: later("1 hour") })
          )
          .map((each) => each.trigger)
      )
      expect(after.requests.every((each) => Option.isNone(each.heldUntil))).toBe(true)
      expect(after.failures).toEqual(Option.none())
      expect(after.rotateAt).toEqual(Option.some(times.rotateAt))
      // A look that is due sooner stays.
      expect(at(after.probeAt)).toBe(Math.min(millis(times.probeAt), at(known.probeAt) ?? Number.POSITIVE_INFINITY))
    },
    { fastCheck }
  )

  it("[57] a Welcome that came after the package was made may have used that very package: it is replaced again", () => {
    const used = Schedule.requestRotation("Welcome", NOW, NOW)(Schedule.empty)
    const queued = Schedule.requestRotation("Queued", NOW, NOW)(used)
    const waiting = { ...times, startedAt: later("1 hour"), madeAt: earlier("1 minute") }
    expect(Schedule.published(waiting)(queued).requests.map((each) => each.trigger)).toEqual(["Welcome"])
  })

  it("[13] a request that was made under a clock a year ahead is served by the next publication, not by all for a year", () => {
    const far = later("365 days")
    const asked = Schedule.requestRotation("Repair", far, far)(Schedule.empty)
    expect(Schedule.published(times)(asked).requests).toEqual([])
    const meanwhile = Schedule.requestRotation("Queued", later("1 second"), later("5 seconds"))(Schedule.empty)
    expect(Schedule.published(times)(meanwhile).requests.length).toBe(1)
    const early = Schedule.requestRotation("Queued", NOW, earlier("1 hour"))(meanwhile)
    expect(Schedule.published(times)(early).requests[0]?.dueAt).toEqual(early.requests[0]?.requestedAt)
  })

  it.prop(
    "the column that stores index is the earliest of all that is due",
    [schedule],
    ([known]) => {
      const parts = [
        at(Schedule.rotationDueAt(known)),
        at(known.probeAt),
        at(known.cleanAt),
        at(Option.map(known.confirmation, (each) => each.confirmAt))
      ].filter((each) => each !== undefined)
      expect(at(Schedule.dueAt(known))).toBe(parts.length === 0 ? undefined : Math.min(...parts))
    },
    { fastCheck }
  )

  it.prop(
    "nothing is rotated before the wait after a failure is over, and nothing is due that the column does not show",
    [schedule],
    ([known]) => {
      const due = Schedule.dueTriggers(known, NOW)
      const waits = Option.exists(known.failures, ({ retryAt }) => {
        const ahead = millis(retryAt) - millis(NOW)
        return ahead > 0 && ahead <= Duration.toMillis("25 hours")
      })
      if (waits || Option.isSome(known.revokedAt)) expect(due).toEqual([])
      // Every deadline here is near, but for the ones that a clock set back has left: those the column shows as due or as next.
      if (due.length > 0) expect(Option.isSome(Schedule.dueAt(known))).toBe(true)
      expect(new Set(due).size).toBe(due.length)
    },
    { fastCheck }
  )

  it("what the app asked for goes before what time asks for", () => {
    const everything = RotationTrigger.literals
      .filter((each) => each !== "Time")
      .reduce((known, each) => Schedule.requestRotation(each, NOW, NOW)(known), {
        ...Schedule.empty,
        rotateAt: Option.some(NOW)
      } as Schedule.Schedule)
    expect(Schedule.dueTriggers(everything, NOW)).toEqual([
      "Manual",
      "Registration",
      "Repair",
      "Profile",
      "Queued",
      "Welcome",
      "Time"
    ])
  })

  it.prop(
    "[56] nothing is rotated while the installation is revoked, whoever asks",
    [schedule, asked],
    ([known, wanted]) => {
      const revoked = { ...Schedule.requestRotation(wanted, NOW, NOW)(known), revokedAt: Option.some(NOW) }
      expect(Schedule.dueTriggers(revoked, NOW)).toEqual([])
      expect(Schedule.rotationDueAt(revoked)).toEqual(Option.none())
    },
    { fastCheck }
  )

  it.prop(
    "[13] [56] a revocation is as old as the time in which no look was overdue, and none is from the future",
    [schedule, FastCheck.integer({ min: 0, max: 4000 }), FastCheck.integer({ min: -4000, max: 4000 })],
    ([known, ago, next]) => {
      const days = (count: number) => Option.some(DateTime.add(NOW, { days: count }))
      const revoked = { ...known, revokedAt: days(-ago), probeAt: days(next) }
      const overdue = Math.max(0, -next)
      expect(Schedule.revokedSince(revoked, NOW)).toEqual(overdue <= ago ? days(overdue - ago) : Option.none())
      expect(Schedule.revokedSince({ ...revoked, revokedAt: days(ago + 1) }, NOW)).toEqual(Option.none())
      expect(Schedule.revokedSince({ ...revoked, probeAt: Option.none() }, NOW)).toEqual(Option.none())
      expect(Schedule.revokedSince({ ...revoked, revokedAt: Option.none() }, NOW)).toEqual(Option.none())
      // A look counts what was overdue once.
      const looked = Schedule.probeFailed(NOW, () => DateTime.add(NOW, { minutes: 1 }), "")(revoked)
      expect(looked.revokedAt).toEqual(overdue <= ago ? days(overdue - ago) : Option.some(NOW))
      expect(Schedule.revokedSince(looked, NOW)).toEqual(looked.revokedAt)
    },
    { fastCheck }
  )

  it.prop(
    "[13] [15] a clock that went back means look now, never wait: what is further ahead than can be counts as due",
    [time, FastCheck.integer({ min: 9, max: 4000 })],
    ([deadline, days]) => {
      const set = Option.some(deadline)
      expect(Schedule.isDue(set, DateTime.subtractDuration(deadline, Duration.days(days)))).toBe(true)
      expect(Schedule.isDue(set, deadline)).toBe(true)
      expect(Schedule.isDue(set, DateTime.subtractDuration(deadline, Duration.days(7)))).toBe(false)
      expect(Schedule.isDue(Option.none(), deadline)).toBe(false)
    },
    { fastCheck }
  )

  it("[13] a request and a wait written a year ahead are due now; a rotation by age only beyond what it can be", () => {
    const far = later("365 days")
    const queued = Schedule.requestRotation("Queued", far, far)(Schedule.empty)
    expect(Schedule.dueTriggers(queued, NOW)).toEqual(["Queued"])
    const failed = { ...queued, failures: Option.some({ count: 3, since: far, retryAt: far, detail: "" }) }
    expect(Schedule.dueTriggers(failed, NOW)).toEqual(["Queued"])
    const aged = (rotateAt: DateTime.Utc) => ({ ...Schedule.empty, rotateAt: Option.some(rotateAt) })
    expect(Schedule.dueTriggers(aged(later("84 days")), NOW)).toEqual([])
    expect(Schedule.dueTriggers(aged(far), NOW)).toEqual(["Time"])
  })

  it.prop(
    "[75] a budget that is used up holds its own trigger and no other",
    [schedule, trigger],
    ([known, held]) => {
      const until = later("20 minutes")
      const free: Schedule.Schedule = {
        ...known,
        revokedAt: Option.none(),
        failures: Option.none(),
        rotateAt: Option.some(NOW),
        requests: RotationTrigger.literals
          .filter((each) => each !== "Time")
          .map((each) => ({ trigger: each, requestedAt: NOW, dueAt: NOW, heldUntil: Option.none() }))
      }
      const after = Schedule.hold(held, until)(free)
      expect(Schedule.dueTriggers(after, NOW).toSorted()).toEqual(
        RotationTrigger.literals.filter((each) => each !== held).toSorted()
      )
      expect(Schedule.dueTriggers(after, until)).toContain(held)
    },
    { fastCheck }
  )

  it.prop(
    "failures are counted from the first, and each asks for its own wait",
    [schedule, time],
    ([known, first]) => {
      const waits: Array<number> = []
      const retryAt = (count: number) => {
        waits.push(count)
        return later(Duration.minutes(count))
      }
      const free = { ...known, failures: Option.none(), probeFailures: Option.none() }
      const once = Schedule.rotationFailed(first, retryAt, "one")(free)
      const twice = Schedule.rotationFailed(NOW, retryAt, "two")(once)
      expect(waits).toEqual([1, 2])
      expect(twice.failures).toMatchObject(
        Option.some({ count: 2, detail: "two", retryAt: later("2 minutes"), since: DateTime.min(first, NOW) })
      )
      const probed = Schedule.probeFailed(NOW, retryAt, "no answer")(free)
      expect(probed.probeAt).toEqual(Option.some(later("1 minute")))
      expect(Option.map(probed.confirmation, (each) => each.confirmAt)).toEqual(
        Option.map(free.confirmation, () => later("1 minute"))
      )
    },
    { fastCheck }
  )

  it.prop(
    "looks and cleanings are only ever brought forward",
    [schedule, time],
    ([known, when]) => {
      const before = [at(known.probeAt), at(known.cleanAt)].map((each) => each ?? Number.POSITIVE_INFINITY)
      expect([
        at(Schedule.requestProbe(when)(known).probeAt),
        at(Schedule.requestCleaning(when)(known).cleanAt)
      ]).toEqual(before.map((each) => Math.min(each, millis(when))))
    },
    { fastCheck }
  )

  it.prop(
    "[60] a wish gets a later version only where it is another one, and no older release takes its profile back",
    [schedule, FastCheck.boolean(), FastCheck.nat(9)],
    ([known, includePostQuantum, profileVersion]) => {
      const once = Schedule.want(includePostQuantum, profileVersion)(known)
      expect(Schedule.want(includePostQuantum, 0)(once)).toEqual(once)
      const before = Option.getOrUndefined(known.wanted)
      const after = Option.getOrThrow(once.wanted)
      expect(after.includePostQuantum).toBe(includePostQuantum)
      expect(after.profileVersion).toBe(Math.max(profileVersion, before?.profileVersion ?? 0))
      expect(after.version).toBe(
        before === undefined ? 1 : before.version + (before.includePostQuantum === includePostQuantum ? 0 : 1)
      )
    },
    { fastCheck }
  )

  it("a schedule that was lost is looked at and cleaned at once", () => {
    expect(Schedule.isDue(Schedule.dueAt(Schedule.lost), NOW)).toBe(true)
    expect(Schedule.dueAt(Schedule.empty)).toEqual(Option.none())
  })
})
