/**
 * The `SmartContractWalletVerifier` that asks a node, which asks the chain: what XMTP's SDKs do. The node is trusted for the
 * signatures of smart contract wallets, and for no others.
 *
 * @since 1.0.0
 */
import { defaultTimeout, limits } from "@keyward/core/ports/ApiClient"
import {
  type SmartContractWalletQuestion,
  SmartContractWalletVerifier,
  SmartContractWalletVerifierError
} from "@keyward/core/ports/SmartContractWalletVerifier"
import * as Config from "effect/Config"
import type { ConfigError } from "effect/ConfigError"
import type * as Context from "effect/Context"
import * as Deferred from "effect/Deferred"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Encoding from "effect/Encoding"
import * as Layer from "effect/Layer"
import type * as Scope from "effect/Scope"
import { NetworkConfigError } from "./Endpoint.ts"
import * as Requests from "./internal/v3Requests.ts"
import * as Responses from "./internal/v3Responses.ts"
import { Transport, type TransportError } from "./Transport.ts"

/**
 * How the verifier asks.
 *
 * @since 1.0.0
 * @category models
 */
export interface NodeSmartContractWalletVerifierOptions {
  /** How long one request may take; 30 seconds unless given. */
  readonly timeout?: Duration.DurationInput | undefined
  /** Requests under way at once; 4 unless given. Questions that come meanwhile wait, and go together. */
  readonly concurrency?: number | undefined
  /** Answers remembered; 4,096 unless given. The least recently used is forgotten first. */
  readonly capacity?: number | undefined
}

/** Signatures in one request. */
const SIGNATURES_PER_REQUEST = 50

/** Bytes of a signature whose answer is remembered: longer ones would fill the memory that `capacity` is to bound. */
const REMEMBERED_BYTES = 4_096

type Verdict = Deferred.Deferred<boolean, SmartContractWalletVerifierError>

interface Waiting {
  readonly question: SmartContractWalletQuestion
  readonly verdict: Verdict
}

/** Why an exchange gave no answers, and whether that may be the fault of one question among many. */
interface NoAnswer {
  readonly reason: "NoVerifier" | "Unavailable"
  readonly cause: unknown
  readonly isOfOne: boolean
}

const noAnswer = (error: TransportError): NoAnswer => {
  const code = error._tag === "GrpcStatusError" ? error.code : undefined
  // UNIMPLEMENTED: an older node, or another kind. INVALID_ARGUMENT: something in the request.
  return { reason: code === 12 ? "NoVerifier" : "Unavailable", cause: error, isOfOne: code === 3 }
}

const keyOf = ({ address, blockNumber, chainId, hash, signature }: SmartContractWalletQuestion): string =>
  `${chainId}:${address} ${blockNumber} ${Encoding.encodeHex(hash)} ${Encoding.encodeHex(signature)}`

const wholeNumber = (
  option: keyof NodeSmartContractWalletVerifierOptions,
  value: number
): Effect.Effect<number, NetworkConfigError> =>
  Number.isInteger(value) && value > 0
    ? Effect.succeed(value)
    : new NetworkConfigError({ option, detail: "must be a whole number above 0" })

/**
 * A verifier over the transport of the context. Questions of one moment go in one request; a question that is under way is
 * not asked twice; an answer is remembered by account, hash, signature and block, at which a wallet does not change its
 * mind. Failures are not remembered.
 *
 * A wallet that says no is `false`. Everything else that keeps an answer away (no connection, no answer in time, a node
 * that cannot reach the chain, an answer that is none) is `Unavailable`; a node that does not know the call is `NoVerifier`.
 *
 * @since 1.0.0
 * @category constructors
 */
export const make = (
  options: NodeSmartContractWalletVerifierOptions = {}
): Effect.Effect<Context.Tag.Service<SmartContractWalletVerifier>, NetworkConfigError, Transport | Scope.Scope> =>
  Effect.gen(function* () {
    const transport = yield* Transport
    const timeout = Duration.decode(options.timeout ?? defaultTimeout)
    const requests = yield* Effect.makeSemaphore(yield* wholeNumber("concurrency", options.concurrency ?? 4))
    const capacity = yield* wholeNumber("capacity", options.capacity ?? 4_096)
    // Whoever asked first may leave before the answer: the others still wait for it.
    const lifetime = yield* Effect.scope
    const verdicts = new Map<string, Verdict>()
    let waiting: ReadonlyArray<Waiting> = []

    const fail = ({ question, verdict }: Waiting, reason: NoAnswer["reason"], cause?: unknown) =>
      Effect.suspend(() => {
        const key = keyOf(question)
        if (verdicts.get(key) === verdict) verdicts.delete(key)
        return Deferred.fail(
          verdict,
          new SmartContractWalletVerifierError({ reason, chainId: question.chainId, cause })
        )
      })

    const failAll = (chunk: ReadonlyArray<Waiting>, reason: NoAnswer["reason"], cause?: unknown) =>
      Effect.forEach(chunk, (each) => fail(each, reason, cause), { discard: true })

    yield* Effect.addFinalizer(() => Effect.suspend(() => failAll(waiting, "Unavailable", "the verifier was closed")))

    const exchange = (
      chunk: ReadonlyArray<Waiting>
    ): Effect.Effect<ReadonlyArray<Responses.WalletVerdict>, NoAnswer> => {
      const { message, path } = Requests.verifySmartContractWalletSignatures(chunk.map(({ question }) => question))
      return message.length > limits.messageBytes
        ? Effect.fail({ reason: "Unavailable", cause: `${message.length} bytes are too many`, isOfOne: true })
        : transport.unary({ path, message, metadata: {}, timeout }).pipe(
            Effect.mapError(noAnswer),
            Effect.flatMap((response) =>
              Effect.mapError(
                Responses.verifySmartContractWalletSignatures(chunk.length, response),
                (cause): NoAnswer => ({ reason: "Unavailable", cause, isOfOne: false })
              )
            )
          )
    }

    const ask = (chunk: ReadonlyArray<Waiting>): Effect.Effect<void> =>
      Effect.matchEffect(exchange(chunk), {
        onFailure: ({ cause, isOfOne, reason }) => {
          if (!isOfOne || chunk.length === 1) return failAll(chunk, reason, cause)
          const half = Math.ceil(chunk.length / 2)
          return Effect.zipRight(ask(chunk.slice(0, half)), ask(chunk.slice(half)))
        },
        onSuccess: (answers) =>
          Effect.forEach(
            chunk,
            (each, index) => {
              const answer = answers[index]
              return answer?._tag === "Judged"
                ? Deferred.succeed(each.verdict, answer.isValid)
                : fail(each, "Unavailable", answer?.error)
            },
            { discard: true }
          )
      })

    /** Sends what waits once a request may go, and everybody of this moment has asked. */
    const flush = Effect.suspend(() => {
      const chunk = waiting.slice(0, SIGNATURES_PER_REQUEST)
      waiting = waiting.slice(SIGNATURES_PER_REQUEST)
      return chunk.length === 0
        ? Effect.void
        : ask(chunk).pipe(
            Effect.onInterrupt(() => failAll(chunk, "Unavailable", "the verifier was closed")),
            Effect.withSpan("SmartContractWalletVerifier.ask", { attributes: { signatures: chunk.length } })
          )
    }).pipe(requests.withPermits(1))

    const enqueue = (question: SmartContractWalletQuestion) =>
      Effect.gen(function* () {
        const verdict = Deferred.unsafeMake<boolean, SmartContractWalletVerifierError>(yield* Effect.fiberId)
        if (question.signature.length <= REMEMBERED_BYTES) {
          verdicts.set(keyOf(question), verdict)
          const [oldest] = verdicts.keys()
          if (verdicts.size > capacity && oldest !== undefined) verdicts.delete(oldest)
        }
        waiting = [...waiting, { question, verdict }]
        // One flush for every so many questions; one that finds none left does nothing.
        if (waiting.length % SIGNATURES_PER_REQUEST === 1) {
          // A fiber inherits that it cannot be interrupted, and then no time-out could end its request.
          yield* Effect.forkIn(Effect.interruptible(Effect.zipRight(Effect.yieldNow(), flush)), lifetime)
        }
        return verdict
      })

    return {
      isValid: (question) =>
        Effect.suspend(() => {
          const key = keyOf(question)
          const known = verdicts.get(key)
          if (known === undefined) return Effect.flatMap(Effect.uninterruptible(enqueue(question)), Deferred.await)
          verdicts.delete(key)
          verdicts.set(key, known)
          return Deferred.await(known)
        })
    }
  })

/**
 * The verifier over the transport of the app, which is best the one of its `ApiClient`: one connection for both.
 *
 * @since 1.0.0
 * @category layers
 * @example
 * ```ts
 * import * as GrpcTransport from "@keyward/network/GrpcTransport"
 * import * as NodeSmartContractWalletVerifier from "@keyward/network/NodeSmartContractWalletVerifier"
 * import * as V3ApiClient from "@keyward/network/V3ApiClient"
 * import * as Layer from "effect/Layer"
 *
 * export const Network = Layer.merge(V3ApiClient.layer(), NodeSmartContractWalletVerifier.layer()).pipe(
 *   Layer.provide(GrpcTransport.layer({ url: "https://grpc.dev.xmtp.network:443" }))
 * )
 * ```
 */
export const layer = (
  options: NodeSmartContractWalletVerifierOptions = {}
): Layer.Layer<SmartContractWalletVerifier, NetworkConfigError, Transport> =>
  Layer.scoped(SmartContractWalletVerifier, make(options))

/**
 * `layer` with options from the configuration of the app.
 *
 * @since 1.0.0
 * @category layers
 */
export const layerConfig = (
  options: Config.Config.Wrap<NodeSmartContractWalletVerifierOptions>
): Layer.Layer<SmartContractWalletVerifier, NetworkConfigError | ConfigError, Transport> =>
  Layer.scoped(SmartContractWalletVerifier, Effect.flatMap(Config.unwrap(options), make))
