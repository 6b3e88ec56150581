/**
 * The hash ref by which MLS names a key package.
 *
 * @since 1.0.0
 */
import * as Schema from "effect/Schema"
import { Hex32 } from "../internal/hex.ts"

/**
 * A KeyPackageRef (RFC 9420 section 5.2) of ciphersuite 0x0003: 32 bytes as 64 lower-case hex digits.
 *
 * @since 1.0.0
 * @category models
 */
export const KeyPackageRef = Hex32.pipe(Schema.brand("@keyward/core/KeyPackageRef"))

/**
 * @since 1.0.0
 * @category models
 */
export type KeyPackageRef = typeof KeyPackageRef.Type
