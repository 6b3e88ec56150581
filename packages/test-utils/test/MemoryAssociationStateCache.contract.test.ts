/**
 * The memory cache keeps the contract of the port.
 */
import * as AssociationStateCacheContract from "../src/contracts/AssociationStateCacheContract.ts"
import * as MemoryAssociationStateCache from "../src/MemoryAssociationStateCache.ts"

AssociationStateCacheContract.suite("MemoryAssociationStateCache", MemoryAssociationStateCache.layer)
