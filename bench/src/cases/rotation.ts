/**
 * One whole rotation: SQLite on disk, a node in another process.
 *
 * @since 1.0.0
 */
import { type ChildProcess, spawn } from "node:child_process"
import { createHash, randomBytes } from "node:crypto"
import { mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { createInterface } from "node:readline"
import { fileURLToPath } from "node:url"
import { create, toBinary } from "@bufbuild/protobuf"
import { Client, credentials } from "@grpc/grpc-js"
import * as NodeCrypto from "@keyward/core/crypto/NodeCrypto"
import { InboxId } from "@keyward/core/identity/InboxId"
import * as InstallationKey from "@keyward/core/identity/InstallationKey"
import type { GeneratedKeyPackage } from "@keyward/core/keypackage/GeneratedKeyPackage"
import { newKeyPackage } from "@keyward/core/keypackage/Generation"
import { rotateAndUploadKeyPackage } from "@keyward/core/lifecycle/Rotation"
import { KeyPackageStore } from "@keyward/core/ports/KeyPackageStore"
import { UploadKeyPackageRequestSchema } from "@keyward/network/gen/xmtp/mls/api/v1/mls_pb"
import * as V3ApiClient from "@keyward/network/V3ApiClient"
import * as AesGcmKeySealer from "@keyward/storage/AesGcmKeySealer"
import * as SqliteKeyPackageStore from "@keyward/storage/SqliteKeyPackageStore"
import * as RealClient from "@keyward/test-utils/RealClient"
import Database from "better-sqlite3"
import * as DateTime from "effect/DateTime"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as ManagedRuntime from "effect/ManagedRuntime"
import * as Option from "effect/Option"
import * as Redacted from "effect/Redacted"
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts"
import type { Case, Work } from "../Harness.ts"

/**
 * A collector that rarely runs, and on one thread. A node of the network has a machine of its own; this one shares two processors
 * with whoever asks it, and its pauses would be measured as theirs.
 */
const CALM = ["--max-semi-space-size=64", "--single-threaded-gc"]

/** The dev node as a process of its own, on the other core. */
export const startNode = async (): Promise<{ readonly url: string; readonly process: ChildProcess }> => {
  const program = fileURLToPath(new URL("../../../packages/test-utils/bin/dev-node.ts", import.meta.url))
  const loader = import.meta.resolve("ts-blank-space/register")
  const child = spawn(process.execPath, [...CALM, "--import", loader, program, "--port", "0"], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  for await (const line of createInterface({ input: child.stdout })) {
    const url = /^listening on (\S+)$/.exec(line)?.[1]
    if (url !== undefined) return { url, process: child }
  }
  throw new Error("the dev node ended before it listened")
}

/** What one rotation writes, with the driver alone: the row and its keys, then the receipt. */
const bareCommits = (filename: string, { keyPackage }: GeneratedKeyPackage) => {
  const db = new Database(filename)
  for (const pragma of ["journal_mode = WAL", "synchronous = FULL", "secure_delete = ON"]) db.pragma(pragma)
  db.exec("CREATE TABLE rows (id INTEGER PRIMARY KEY, ref BLOB UNIQUE, package BLOB, state TEXT)")
  db.exec("CREATE TABLE keys (id INTEGER PRIMARY KEY, sealed BLOB)")
  const insertRow = db.prepare("INSERT INTO rows (ref, package, state) VALUES (?, ?, 'Prepared')")
  const insertKeys = db.prepare("INSERT INTO keys (id, sealed) VALUES (?, ?)")
  const publish = db.prepare("UPDATE rows SET state = 'Published' WHERE id = ?")
  const supersede = db.prepare("UPDATE rows SET state = 'Superseded' WHERE id = ?")
  const write = db.transaction(() => {
    const { lastInsertRowid } = insertRow.run(randomBytes(32), keyPackage.bytes)
    insertKeys.run(lastInsertRowid, randomBytes(124))
    return Number(lastInsertRowid)
  })
  const mark = db.transaction((id: number) => {
    publish.run(id)
    supersede.run(id - 1)
  })
  return { run: () => mark.immediate(write.immediate()), close: () => db.close() }
}

/** One upload, with the gRPC client alone. */
const bareUpload = (url: string, { keyPackage }: GeneratedKeyPackage) => {
  const client = new Client(new URL(url).host, credentials.createInsecure())
  const request = toBinary(
    UploadKeyPackageRequestSchema,
    create(UploadKeyPackageRequestSchema, {
      keyPackage: { keyPackageTlsSerialized: keyPackage.bytes },
      isInboxIdCredential: true
    })
  )
  const bytes = Buffer.from(request)
  return {
    run: () =>
      new Promise<void>((resolve, reject) =>
        client.makeUnaryRequest(
          "/xmtp.mls.api.v1.MlsApi/UploadKeyPackage",
          (message: Buffer) => message,
          (message: Buffer) => message,
          bytes,
          (error) => (error === null ? resolve() : reject(error))
        )
      ),
    close: () => client.close()
  }
}

/** What the real client needs to register: one rotation, the identity update and the look at the log. Microseconds. */
const registerIdentity = (url: string, samples = 15) =>
  Effect.gen(function* () {
    const times: Array<number> = []
    for (let i = 0; i < samples; i++) {
      const wallet = privateKeyToAccount(generatePrivateKey())
      yield* Effect.scoped(
        Effect.gen(function* () {
          const real = yield* RealClient.open({ wallet, grpcUrl: url })
          const register = Option.getOrThrow(yield* RealClient.signRegistration(real, wallet))
          const start = process.hrtime.bigint()
          yield* register
          times.push(Number(process.hrtime.bigint() - start) / 1000)
        })
      )
    }
    return { "registerIdentity of the real client": times.sort((a, b) => a - b)[samples >> 1] ?? Number.NaN }
  }).pipe(Effect.catchTag("RealClientUnavailable", () => Effect.succeed({})))

/**
 * @since 1.0.0
 * @category cases
 */
export const cases: ReadonlyArray<Case> = [
  {
    id: "rotate-sqlite",
    floor: "one generation, two bare better-sqlite3 commits, one bare grpc-js upload",
    prepare: async () => {
      const folder = mkdtempSync(join(tmpdir(), "keyward-bench-"))
      const node = await startNode()
      const managed = ManagedRuntime.make(
        Layer.mergeAll(
          SqliteKeyPackageStore.layer({ filename: join(folder, "keyward.db") }).pipe(
            Layer.provide(AesGcmKeySealer.layer({ keyId: "bench", key: Redacted.make(randomBytes(32)) }))
          ),
          V3ApiClient.layerGrpc({ url: node.url })
        ).pipe(Layer.provideMerge(NodeCrypto.layer))
      )
      const { generated, installation, installationKey } = await managed.runPromise(
        Effect.gen(function* () {
          const store = yield* KeyPackageStore
          const key = yield* InstallationKey.generate
          const inboxId = InboxId.make(createHash("sha256").update(key.installationId).digest("hex"))
          return {
            installationKey: key,
            installation: yield* store.findOrCreateInstallation({
              inboxId,
              label: "bench",
              key,
              at: yield* DateTime.now
            }),
            generated: yield* newKeyPackage({ inboxId, installationKey: key, includePostQuantum: true })
          }
        })
      )
      const { inboxId, installationId } = installation
      const commits = bareCommits(join(folder, "bare.db"), generated)
      const upload = bareUpload(node.url, generated)
      const generate: Work = () =>
        managed.runPromise(newKeyPackage({ inboxId, installationKey, includePostQuantum: true }))
      return {
        subject: () => managed.runPromise(rotateAndUploadKeyPackage({ installationId, includePostQuantum: true })),
        floor: async () => {
          await generate()
          commits.run()
          await upload.run()
        },
        parts: { generate, "two commits": commits.run, upload: upload.run },
        beside: () => Effect.runPromise(registerIdentity(node.url)),
        close: async () => {
          await managed.dispose()
          commits.close()
          upload.close()
          node.process.kill()
          rmSync(folder, { recursive: true, force: true })
        }
      }
    }
  }
]
