/**
 * The proof that the network accepted a key package.
 *
 * @since 1.0.0
 */
import * as internal from "../internal/uploadReceipt.ts"

/**
 * The network accepted the bytes of this very row. Only `Rotation.uploadKeyPackage` issues one, and it fails with an
 * `ApiClientError` where the upload does: code that marks older packages after a failed upload has nothing to pass and
 * does not compile.
 *
 * @since 1.0.0
 * @category models
 */
export type UploadReceipt = internal.UploadReceipt

/**
 * Whether a value is a genuine receipt. Stores ask before they write, for callers that no compiler checked.
 *
 * @since 1.0.0
 * @category refinements
 */
export const isUploadReceipt: (value: unknown) => value is UploadReceipt = internal.is
