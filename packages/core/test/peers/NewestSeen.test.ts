/** The memory of the newest packages seen, in the process. */
import * as NewestSeen from "@keyward/core/peers/NewestSeen"
import * as NewestSeenContract from "@keyward/test-utils/contracts/NewestSeenContract"

NewestSeenContract.suite("NewestSeen in memory", NewestSeen.layerMemory)
