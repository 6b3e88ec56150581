/**
 * An inbox's log as clients file it, in whatever order, and however often, a node serves its entries.
 *
 * @since 1.0.0
 */
import type { IdentityUpdateLogEntry } from "../ports/ApiClient.ts"

/**
 * The entries after a cursor as libxmtp files them (`xmtp_db/src/encrypted_store/identity_update.rs`): by sequence id, and of
 * two entries with one id the first that came. A cursor of 0n leaves out none.
 *
 * @since 1.0.0
 * @category ordering
 */
export const inOrder = (
  entries: ReadonlyArray<IdentityUpdateLogEntry>,
  after: bigint
): ReadonlyArray<IdentityUpdateLogEntry> => {
  if (entries.length === 0) return entries
  const bySequenceId = new Map<bigint, IdentityUpdateLogEntry>()
  for (const entry of entries) {
    if (entry.sequenceId > after && !bySequenceId.has(entry.sequenceId)) bySequenceId.set(entry.sequenceId, entry)
  }
  return [...bySequenceId.values()].sort((a, b) => (a.sequenceId < b.sequenceId ? -1 : 1))
}
