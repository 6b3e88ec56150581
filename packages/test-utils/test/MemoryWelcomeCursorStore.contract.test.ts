/**
 * The memory store keeps the contract of the port.
 */
import * as WelcomeCursorStoreContract from "../src/contracts/WelcomeCursorStoreContract.ts"
import * as MemoryWelcomeCursorStore from "../src/MemoryWelcomeCursorStore.ts"

WelcomeCursorStoreContract.suite("MemoryWelcomeCursorStore", MemoryWelcomeCursorStore.layer)
