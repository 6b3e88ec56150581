/**
 * A certificate of one's own for `localhost`, made when it is needed: no private key lies in the repository.
 */
import { generateKeyPairSync, sign } from "node:crypto"

const der = (tag: number, ...parts: ReadonlyArray<Uint8Array>): Buffer => {
  const content = Buffer.concat(parts)
  const size = content.length
  const length = size < 0x80 ? [size] : size < 0x100 ? [0x81, size] : [0x82, size >> 8, size & 0xff]
  return Buffer.concat([Buffer.from([tag, ...length]), content])
}
const [sequence, set, integer, oid, bits, octets, utf8, time] = [0x30, 0x31, 0x02, 0x06, 0x03, 0x04, 0x0c, 0x18]
const hex = (text: string): Buffer => Buffer.from(text, "hex")
const text = (value: string): Buffer => Buffer.from(value, "ascii")

const ecdsaWithSha256 = der(sequence, der(oid, hex("2a8648ce3d040302")))
const name = der(sequence, der(set, der(sequence, der(oid, hex("550403")), der(utf8, text("localhost")))))
const validity = der(sequence, der(time, text("20200101000000Z")), der(time, text("21200101000000Z")))
const subjectAltName = der(sequence, der(oid, hex("551d11")), der(octets, der(sequence, der(0x82, text("localhost")))))
const isAuthority = der(sequence, der(oid, hex("551d13")), der(octets, der(sequence, hex("0101ff"))))

/** The certificate and its private key, PEM (RFC 5280 section 4.1). */
export const make = (): { readonly certificate: string; readonly key: string } => {
  const { privateKey, publicKey } = generateKeyPairSync("ec", { namedCurve: "P-256" })
  const toBeSigned = der(
    sequence,
    der(0xa0, der(integer, hex("02"))),
    der(integer, hex("01")),
    ecdsaWithSha256,
    name,
    validity,
    name,
    publicKey.export({ format: "der", type: "spki" }),
    der(0xa3, der(sequence, subjectAltName, isAuthority))
  )
  const signature = sign("sha256", toBeSigned, privateKey)
  const whole = der(sequence, toBeSigned, ecdsaWithSha256, der(bits, hex("00"), signature))
  return {
    certificate: `-----BEGIN CERTIFICATE-----\n${whole.toString("base64")}\n-----END CERTIFICATE-----\n`,
    key: privateKey.export({ format: "pem", type: "pkcs8" }).toString()
  }
}
