/**
 * Genuine proofs without the network that they speak of: the mints themselves, which no source may import.
 */
import * as retirementPermit from "../../core/src/internal/retirementPermit.ts"
import * as seenServed from "../../core/src/internal/seenServed.ts"

export const proofs = { sighting: seenServed.issue, permit: retirementPermit.issue }
