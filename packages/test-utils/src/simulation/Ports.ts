/**
 * A place to stand between the library and its ports: every call to the store and to the network passes through one function,
 * which can delay it, fail it, count it, or never come back.
 *
 * @since 1.0.0
 */
import type { ApiClient, ApiClientError, Operation as ApiOperation } from "@keyward/core/ports/ApiClient"
import type { KeyPackageStore, StorageError } from "@keyward/core/ports/KeyPackageStore"
import type * as Context from "effect/Context"
import type * as Effect from "effect/Effect"
import type { Operation as StoreOperation } from "../MemoryKeyPackageStore.ts"

/**
 * What surrounds each call of the store. `run` does it, whole or not at all.
 *
 * @since 1.0.0
 * @category models
 */
export type AroundStore = <A, E>(
  operation: StoreOperation,
  run: Effect.Effect<A, E>
) => Effect.Effect<A, E | StorageError>

/**
 * What surrounds each call of the network.
 *
 * @since 1.0.0
 * @category models
 */
export type AroundApi = <A>(
  operation: ApiOperation,
  run: Effect.Effect<A, ApiClientError>
) => Effect.Effect<A, ApiClientError>

/**
 * The same store, every call surrounded. News of lowered deadlines pass as they are.
 *
 * @since 1.0.0
 * @category combinators
 */
export const aroundStore = (
  store: Context.Tag.Service<KeyPackageStore>,
  around: AroundStore
): Context.Tag.Service<KeyPackageStore> => ({
  findOrCreateInstallation: (...args) => around("findOrCreateInstallation", store.findOrCreateInstallation(...args)),
  getInstallation: (...args) => around("getInstallation", store.getInstallation(...args)),
  getInstallations: (...args) => around("getInstallations", store.getInstallations(...args)),
  getInstallationKey: (...args) => around("getInstallationKey", store.getInstallationKey(...args)),
  saveIdentityUpdate: (...args) => around("saveIdentityUpdate", store.saveIdentityUpdate(...args)),
  markRegistered: (...args) => around("markRegistered", store.markRegistered(...args)),
  acquireLease: (...args) => around("acquireLease", store.acquireLease(...args)),
  checkLease: (...args) => around("checkLease", store.checkLease(...args)),
  releaseLease: (...args) => around("releaseLease", store.releaseLease(...args)),
  modifySchedule: (...args) => around("modifySchedule", store.modifySchedule(...args)),
  findDue: (...args) => around("findDue", store.findDue(...args)),
  findDueAfter: (...args) => around("findDueAfter", store.findDueAfter(...args)),
  nextDueAt: (...args) => around("nextDueAt", store.nextDueAt(...args)),
  deadlineLowered: store.deadlineLowered,
  insertKeyPackageHistory: (...args) => around("insertKeyPackageHistory", store.insertKeyPackageHistory(...args)),
  markExposed: (...args) => around("markExposed", store.markExposed(...args)),
  markKeyPackagesBeforeIdToBeDeleted: (...args) =>
    around("markKeyPackagesBeforeIdToBeDeleted", store.markKeyPackagesBeforeIdToBeDeleted(...args)),
  markRejected: (...args) => around("markRejected", store.markRejected(...args)),
  postponeDeletion: (...args) => around("postponeDeletion", store.postponeDeletion(...args)),
  retire: (...args) => around("retire", store.retire(...args)),
  scrub: around("scrub", store.scrub),
  quarantine: (...args) => around("quarantine", store.quarantine(...args)),
  getNewest: (...args) => around("getNewest", store.getNewest(...args)),
  getHistory: (...args) => around("getHistory", store.getHistory(...args)),
  getLedger: (...args) => around("getLedger", store.getLedger(...args)),
  getRetired: (...args) => around("getRetired", store.getRetired(...args)),
  getPrivateKeys: (...args) => around("getPrivateKeys", store.getPrivateKeys(...args)),
  findByWelcomeKey: (...args) => around("findByWelcomeKey", store.findByWelcomeKey(...args)),
  findByRef: (...args) => around("findByRef", store.findByRef(...args))
})

/**
 * The same network, every call surrounded. Streams pass as they are.
 *
 * @since 1.0.0
 * @category combinators
 */
export const aroundApi = (api: Context.Tag.Service<ApiClient>, around: AroundApi): Context.Tag.Service<ApiClient> => ({
  uploadKeyPackage: (...args) => around("uploadKeyPackage", api.uploadKeyPackage(...args)),
  fetchKeyPackages: (...args) => around("fetchKeyPackages", api.fetchKeyPackages(...args)),
  publishIdentityUpdate: (...args) => around("publishIdentityUpdate", api.publishIdentityUpdate(...args)),
  getIdentityUpdates: (...args) => around("getIdentityUpdates", api.getIdentityUpdates(...args)),
  getInboxIds: (...args) => around("getInboxIds", api.getInboxIds(...args)),
  queryWelcomeMessages: (...args) => around("queryWelcomeMessages", api.queryWelcomeMessages(...args)),
  subscribeWelcomeMessages: (...args) => api.subscribeWelcomeMessages(...args),
  sendWelcomeMessages: (...args) => around("sendWelcomeMessages", api.sendWelcomeMessages(...args))
})
