/**
 * The span in which a key package may be used.
 *
 * @since 1.0.0
 */
import * as Duration from "effect/Duration"
import * as Schema from "effect/Schema"

/**
 * An MLS lifetime (RFC 9420 section 7.2): two unsigned 64-bit numbers of seconds since 1970. Real packages of others
 * carry anything from 0 to 2^64-1, so these stay bigints.
 *
 * @since 1.0.0
 * @category models
 */
export class Lifetime extends Schema.Class<Lifetime>("@keyward/core/Lifetime")({
  /** Seconds since 1970; the package is not valid before. */
  notBefore: Schema.NonNegativeBigIntFromSelf,
  /** Seconds since 1970; the package is expired from this second on. */
  notAfter: Schema.NonNegativeBigIntFromSelf
}) {}

/** How far before now a fresh package's lifetime begins, for peers whose clock is behind, seconds (libxmtp `lifetime.rs`). */
const BACKDATE = Duration.toSeconds(Duration.hours(1))

/** How long after now a fresh package lives, seconds (libxmtp `lifetime.rs`). */
const SPAN = Duration.toSeconds(Duration.days(84))

/**
 * The lifetime that libxmtp gives a package made now: from one hour ago until in 84 days. A clock that has not been set
 * yet, in the first hour of 1970 or before it, counts from 1970.
 *
 * @param nowMillis milliseconds since 1970
 * @since 1.0.0
 * @category constructors
 */
export const starting = (nowMillis: number): Lifetime => {
  const now = Math.max(0, Math.floor(nowMillis / 1000))
  return new Lifetime({
    notBefore: BigInt(Math.max(0, now - BACKDATE)),
    notAfter: BigInt(now + SPAN)
  })
}
