/** The wallet that owns the inbox: here a viem account from the environment. */
import * as Identifier from "@keyward/core/identity/Identifier"
import { Signer, SignerError } from "@keyward/core/ports/Signer"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import { type Hex, hexToBytes } from "viem"
import { privateKeyToAccount } from "viem/accounts"

export const layer = Layer.effect(
  Signer,
  Effect.map(Config.redacted("WALLET_KEY"), (key) => {
    const account = privateKeyToAccount(Redacted.value(key) as Hex)
    return {
      identifier: Identifier.ethereum(account.address),
      signText: (text) =>
        Effect.tryPromise({
          try: async () => hexToBytes(await account.signMessage({ message: text })),
          catch: (cause) => new SignerError({ reason: "Refused", cause })
        })
    }
  })
)
