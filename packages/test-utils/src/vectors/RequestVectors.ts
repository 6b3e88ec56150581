/**
 * Requests of the native client, whole, to hold an encoder against. All bytes are lower-case hex.
 *
 * The keys in here belong to throwaway test identities.
 *
 * @since 1.0.0
 */
import session from "./libxmtp-session.json" with { type: "json" }

/**
 * A request and what it carries.
 *
 * @since 1.0.0
 * @category models
 */
export interface RequestVector {
  /** The key package (TLS) or the `IdentityUpdate` (protobuf). */
  readonly payload: string
  /** The request message around it (protobuf). */
  readonly request: string
}

/**
 * The nine `UploadKeyPackageRequest`s of a session of the native client (libxmtp 1.11).
 *
 * @since 1.0.0
 * @category vectors
 */
export const sessionUploadRequests: ReadonlyArray<RequestVector> = session.keyPackages.map(
  ({ keyPackageTls, uploadRequest }) => ({ payload: keyPackageTls, request: uploadRequest })
)

/**
 * The eight `PublishIdentityUpdateRequest`s of the same session.
 *
 * @since 1.0.0
 * @category vectors
 */
export const sessionPublishRequests: ReadonlyArray<RequestVector> = session.identityUpdates.map(
  ({ identityUpdate, publishRequest }) => ({ payload: identityUpdate, request: publishRequest })
)

/**
 * A Welcome or a pointer, and how its sender wrote it.
 *
 * @since 1.0.0
 * @category models
 */
export interface SentWelcomeVector {
  readonly isPointer: boolean
  /** The topic. */
  readonly installationKey: string
  readonly wrapperAlgorithm: number
  readonly hpkePublicKey: string
  /** The sealed Welcome, or the sealed pointer. */
  readonly sealed: string
  /** Of a Welcome only. */
  readonly welcomeMetadata: string
  /** The `WelcomeMessageInput` (protobuf). */
  readonly input: string
}

/**
 * The seven Welcomes of the same session: direct ones, a shared one, and the pointers at it.
 *
 * @since 1.0.0
 * @category vectors
 */
export const sessionSentWelcomes: ReadonlyArray<SentWelcomeVector> = session.welcomes.map(
  ({ data, hpkePublicKey, input, installationKey, kind, welcomeMetadata, welcomePointer, wrapperAlgorithm }) => ({
    isPointer: kind === "welcomePointer",
    installationKey,
    wrapperAlgorithm,
    hpkePublicKey,
    sealed: data ?? welcomePointer ?? "",
    welcomeMetadata: welcomeMetadata ?? "",
    input
  })
)
