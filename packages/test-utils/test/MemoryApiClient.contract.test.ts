/**
 * The memory client keeps the contract of the port.
 */
import * as ApiClientContract from "../src/contracts/ApiClientContract.ts"
import * as MemoryApiClient from "../src/MemoryApiClient.ts"

ApiClientContract.suite("MemoryApiClient", MemoryApiClient.layerWithNode())
