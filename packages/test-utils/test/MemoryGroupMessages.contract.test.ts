/** The messages of groups in memory keep the contract of the port. */
import * as GroupMessagesContract from "@keyward/test-utils/contracts/GroupMessagesContract"
import { layerNode } from "@keyward/test-utils/devnode/DevNode"
import * as MemoryApiClient from "@keyward/test-utils/MemoryApiClient"
import * as Layer from "effect/Layer"

GroupMessagesContract.suite("memory", Layer.provideMerge(MemoryApiClient.layerGroupMessages, layerNode()))
