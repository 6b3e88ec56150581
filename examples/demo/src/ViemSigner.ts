/** A viem account as the wallet that owns the inbox. */
import * as Identifier from "@keyward/core/identity/Identifier"
import { Signer, SignerError } from "@keyward/core/ports/Signer"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { hexToBytes, type LocalAccount } from "viem"

export const layer = (account: LocalAccount): Layer.Layer<Signer> =>
  Layer.succeed(Signer, {
    identifier: Identifier.ethereum(account.address),
    signText: (text) =>
      Effect.tryPromise({
        try: async () => hexToBytes(await account.signMessage({ message: text })),
        catch: (cause) => new SignerError({ reason: "Refused", cause })
      })
  })
