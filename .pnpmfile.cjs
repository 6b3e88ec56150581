/**
 * Lets native packages compile without a download where the running Node brings its C++ headers along, as official builds
 * do: node-gyp looks for them on the network unless it is told `nodedir`. A setting of the user's own wins.
 */
const { existsSync } = require("node:fs")
const { dirname, join } = require("node:path")

const nodedir = dirname(dirname(process.execPath))

const updateConfig = (config) => {
  if (existsSync(join(nodedir, "include/node/node_version.h"))) config.rawConfig.nodedir ??= nodedir
  return config
}

module.exports = { hooks: { updateConfig } }
