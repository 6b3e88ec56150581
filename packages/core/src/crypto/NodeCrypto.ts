/**
 * All the cryptography that Keyward needs, on Node.
 *
 * @since 1.0.0
 */
import * as Layer from "effect/Layer"
import type { CurveBackend } from "../identity/CurveBackend.ts"
import * as FastCurveBackend from "../identity/FastCurveBackend.ts"
import * as Entropy from "../ports/Entropy.ts"
import type { MlsCrypto } from "../ports/MlsCrypto.ts"
import type { PostQuantumKem } from "../ports/PostQuantumKem.ts"
import * as XWing from "../postquantum/XWing.ts"
import * as FastMlsCrypto from "./FastMlsCrypto.ts"

/**
 * node:crypto for MLS, with libsodium where it loads; @noble/post-quantum and node:crypto for X-Wing; the fast backend of
 * identity signatures; and the platform's generator for key material.
 *
 * @since 1.0.0
 * @category layers
 */
export const layer: Layer.Layer<Entropy.Entropy | MlsCrypto | PostQuantumKem | CurveBackend> = Layer.mergeAll(
  Entropy.layer,
  FastMlsCrypto.layer(),
  XWing.layer,
  FastCurveBackend.layer()
)
