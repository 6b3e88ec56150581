/**
 * The real native XMTP client (libxmtp by `@xmtp/node-bindings`), as an oracle: what it accepts, the network accepts.
 *
 * `@xmtp/node-bindings` is an optional peer, loaded when first used.
 *
 * @since 1.0.0
 */
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import type * as NodeBindings from "@xmtp/node-bindings"
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Schema from "effect/Schema"
import type * as Scope from "effect/Scope"

const textOf = (cause: unknown): string => (cause instanceof Error ? cause.message : String(cause))

/**
 * The native module does not load on this platform.
 *
 * @since 1.0.0
 * @category errors
 */
export class RealClientUnavailable extends Schema.TaggedError<RealClientUnavailable>(
  "@keyward/test-utils/RealClientUnavailable"
)("RealClientUnavailable", { detail: Schema.String }) {
  override get message(): string {
    return `@xmtp/node-bindings does not load here: ${this.detail}`
  }
}

/**
 * The real client failed. The text is its own.
 *
 * @since 1.0.0
 * @category errors
 */
export class RealClientError extends Schema.TaggedError<RealClientError>("@keyward/test-utils/RealClientError")(
  "RealClientError",
  { operation: Schema.String, detail: Schema.String }
) {
  override get message(): string {
    return `${this.operation}: ${this.detail}`
  }
}

/**
 * The wallet that owns the client's inbox; a local viem account is one.
 *
 * @since 1.0.0
 * @category models
 */
export interface Wallet {
  readonly address: string
  /** The EIP-191 signature of the text, `0x` and 130 hex digits. */
  readonly signMessage: (options: { readonly message: string }) => Promise<string>
}

/**
 * How a client is made.
 *
 * @since 1.0.0
 * @category models
 */
export interface RealClientOptions {
  readonly wallet: Wallet
  /** Native gRPC of a v3 node, such as `DevNode.grpcUrl`. */
  readonly grpcUrl: string
  /** Nonce of a new inbox; 1 unless given, as the SDKs have it. */
  readonly nonce?: bigint | undefined
  readonly workers?: NodeBindings.WorkerConfigOptions | undefined
}

/**
 * The native module, or why it does not load.
 *
 * @since 1.0.0
 * @category constructors
 */
export const load: Effect.Effect<typeof NodeBindings, RealClientUnavailable> = Effect.tryPromise({
  try: () => import("@xmtp/node-bindings"),
  catch: (cause) => new RealClientUnavailable({ detail: textOf(cause) })
})

/**
 * One call of the client as an Effect.
 *
 * @since 1.0.0
 * @category combinators
 */
export const call = <A>(operation: string, run: () => Promise<A>): Effect.Effect<A, RealClientError> =>
  Effect.tryPromise({ try: run, catch: (cause) => new RealClientError({ operation, detail: textOf(cause) }) })

/**
 * How the client names an address.
 *
 * @since 1.0.0
 * @category constructors
 */
export const identifierOf = (wallet: Pick<Wallet, "address">): NodeBindings.Identifier => ({
  identifier: wallet.address.toLowerCase(),
  // IdentifierKind.Ethereum: the enum is ambient, and not there at run time for isolated modules.
  identifierKind: 0
})

const temporaryFolder = Effect.acquireRelease(
  call("mkdtemp", () => mkdtemp(join(tmpdir(), "keyward-real-client-"))),
  (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
)

const OFF: NodeBindings.LogOptions = { level: "Off" as NodeBindings.LogLevel }

/** Only names the environment: the address is given. */
const LOCAL = "Local" as NodeBindings.XmtpEnv

/** The history sync server is not there, and the client works without. */
const NO_SYNC = "Disabled" as NodeBindings.SyncWorkerMode

/**
 * The client's connection to a v3 node: all that its functions without a client need.
 *
 * @since 1.0.0
 * @category constructors
 */
export const backend = (
  grpcUrl: string
): Effect.Effect<NodeBindings.Backend, RealClientUnavailable | RealClientError> =>
  Effect.flatMap(load, (bindings) =>
    call("BackendBuilder", () => new bindings.BackendBuilder(LOCAL).setApiUrl(grpcUrl).build())
  )

/**
 * A client that is not registered yet, closed and forgotten at the end of the scope. Its database is plain SQLite in a
 * temporary folder.
 *
 * @since 1.0.0
 * @category constructors
 */
export const open = (
  options: RealClientOptions
): Effect.Effect<RealClient, RealClientUnavailable | RealClientError, Scope.Scope> =>
  Effect.gen(function* () {
    const bindings = yield* load
    const folder = yield* temporaryFolder
    const { grpcUrl, nonce = 1n, wallet, workers } = options
    const identifier = identifierOf(wallet)
    const dbPath = join(folder, "client.db3")
    const node = yield* backend(grpcUrl)
    const known = yield* call("getInboxIdByIdentity", () => bindings.getInboxIdByIdentity(node, identifier))
    const inboxId = known ?? bindings.generateInboxId(identifier, nonce)
    const client = yield* Effect.acquireRelease(
      call("createClient", () =>
        bindings.createClient(
          grpcUrl,
          null,
          { dbPath },
          inboxId,
          identifier,
          NO_SYNC,
          workers,
          OFF,
          false,
          "keyward-interop",
          nonce
        )
      ),
      // Nothing is left to do for a client that does not close.
      (client) => Effect.ignore(call("close", () => client.close()))
    )
    return { client, inboxId, installationId: client.installationId(), dbPath }
  })

/**
 * Lets the wallet sign the client's registration, and gives the call that registers it: key package, identity update, log.
 * None where the installation is registered already.
 *
 * @since 1.0.0
 * @category combinators
 */
export const signRegistration = (
  { client }: RealClient,
  wallet: Wallet
): Effect.Effect<Option.Option<Effect.Effect<void, RealClientError>>, RealClientError> =>
  Effect.gen(function* () {
    const request = yield* call("createInboxSignatureRequest", () => client.createInboxSignatureRequest())
    if (request === null) return Option.none()
    yield* call("sign", async () => {
      const signature = await wallet.signMessage({ message: await request.signatureText() })
      await request.addEcdsaSignature(Buffer.from(signature.replace(/^0x/, ""), "hex"))
    })
    return Option.some(call("registerIdentity", () => client.registerIdentity(request)))
  })

/**
 * A client that is registered with the node, as `open`.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (
  options: RealClientOptions
): Effect.Effect<RealClient, RealClientUnavailable | RealClientError, Scope.Scope> =>
  Effect.gen(function* () {
    const real = yield* open(options)
    const register = yield* signRegistration(real, options.wallet)
    if (Option.isSome(register)) yield* register.value
    return real
  })

/**
 * The client and who it is.
 *
 * @since 1.0.0
 * @category models
 */
export interface RealClient {
  /** The native client itself. */
  readonly client: NodeBindings.Client
  readonly inboxId: string
  /** Hex. */
  readonly installationId: string
  /** The client's SQLite file, not encrypted. */
  readonly dbPath: string
}

/**
 * What the client says of the packages that the node serves for these installations (hex): a lifetime, or why a package is
 * not valid.
 *
 * @since 1.0.0
 * @category combinators
 */
export const keyPackageStatuses = (
  { client }: RealClient,
  installationIds: ReadonlyArray<string>
): Effect.Effect<Record<string, NodeBindings.KeyPackageStatus>, RealClientError> =>
  call("fetchKeyPackageStatusesByInstallationIds", () =>
    client.fetchKeyPackageStatusesByInstallationIds([...installationIds])
  )
