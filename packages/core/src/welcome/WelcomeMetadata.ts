/**
 * What a Welcome says beside the MLS message.
 *
 * @since 1.0.0
 */
import { create, toBinary } from "@bufbuild/protobuf"
import * as Either from "effect/Either"
import * as Option from "effect/Option"
import { WelcomeMetadataSchema } from "../gen/xmtp/mls/api/v1/welcome_metadata_pb.ts"
import * as strictProtobuf from "../internal/strictProtobuf.ts"

/**
 * `xmtp.mls.api.v1.WelcomeMetadata`
 *
 * @since 1.0.0
 * @category models
 */
export interface WelcomeMetadata {
  /** The sequence id of the commit that added us: the group's messages after it are ours to read. 0 if it is not known. */
  readonly messageCursor: bigint
}

/**
 * The protobuf bytes; none of them for a cursor of 0.
 *
 * @since 1.0.0
 * @category conversions
 */
export const encode = (metadata: WelcomeMetadata): Uint8Array =>
  toBinary(WelcomeMetadataSchema, create(WelcomeMetadataSchema, metadata))

/**
 * None where there is nothing, or nothing that can be read: libxmtp opens the Welcome all the same
 * (`decrypted_welcome.rs`).
 *
 * @since 1.0.0
 * @category conversions
 */
export const decode = (bytes: Uint8Array): Option.Option<WelcomeMetadata> =>
  bytes.length === 0
    ? Option.none()
    : Option.map(Either.getRight(strictProtobuf.decode(WelcomeMetadataSchema, bytes)), ({ messageCursor }) => ({
        messageCursor
      }))
