/**
 * Who belongs to a group by its own word: inboxes, each with the last identity update that the group has taken into account.
 *
 * @since 1.0.0
 */
import * as Either from "effect/Either"
import * as Schema from "effect/Schema"
import { InboxId } from "../identity/InboxId.ts"
import * as hex from "../internal/hex.ts"
import { attempt, ProstReader } from "../internal/prost.ts"
import { MalformedWelcome } from "./WelcomeError.ts"

/**
 * The extension 0xff01 of the GroupContext (`xmtp.mls.message_contents.GroupMembership`).
 *
 * @since 1.0.0
 * @category models
 */
export interface GroupMembership {
  /** The sequence id of each inbox's last identity update. */
  readonly members: ReadonlyMap<InboxId, bigint>
  /** Installations of these inboxes that could not be added, in hex; whatever the group says. */
  readonly failedInstallations: ReadonlySet<string>
}

const isInboxId = Schema.is(InboxId)

/** Far more than a group of XMTP can have, which is 250: each is asked for. */
const MAX_INBOXES = 512
/** Each of these inboxes has ten installations at most. */
const MAX_FAILED_INSTALLATIONS = 10 * MAX_INBOXES

const malformed = (reason: "NotProtobuf" | "InvalidInboxId" | "TooLarge"): Either.Either<never, MalformedWelcome> =>
  Either.left(new MalformedWelcome({ part: "GroupMembership", reason }))

/** An entry of `map<string, uint64>`: what is left out is empty or 0. */
const readEntry = (bytes: Uint8Array): readonly [string, bigint] => {
  const reader = new ProstReader(bytes)
  let inboxId = ""
  let sequenceId = 0n
  for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
    if (field === 1) inboxId = reader.text()
    else if (field === 2) sequenceId = reader.uint64()
    else reader.skip(field)
  }
  return [inboxId, sequenceId]
}

/**
 * Reads the extension's content as prost does. Of two entries for one inbox the later one counts.
 *
 * @since 1.0.0
 * @category conversions
 */
export const decode = (bytes: Uint8Array): Either.Either<GroupMembership, MalformedWelcome> =>
  attempt(
    (): Either.Either<GroupMembership, MalformedWelcome> => {
      const reader = new ProstReader(bytes)
      const members = new Map<InboxId, bigint>()
      const failedInstallations = new Set<string>()
      let isValid = true
      for (let field = reader.nextField(); field !== 0; field = reader.nextField()) {
        if (field === 1) {
          const [inboxId, sequenceId] = readEntry(reader.delimited())
          if (isInboxId(inboxId)) members.set(inboxId, sequenceId)
          else isValid = false
        } else if (field === 2) failedInstallations.add(hex.encode(reader.delimited()))
        else reader.skip(field)
        if (members.size > MAX_INBOXES || failedInstallations.size > MAX_FAILED_INSTALLATIONS) {
          return malformed("TooLarge")
        }
      }
      return isValid ? Either.right({ members, failedInstallations }) : malformed("InvalidInboxId")
    },
    () => malformed("NotProtobuf")
  )
