/**
 * Fresh wallets for tests.
 */
import type { Wallet } from "@keyward/test-utils/RealClient"
import { generatePrivateKey, privateKeyToAccount } from "viem/accounts"

/** A wallet that nobody has seen before. */
export const freshWallet = (): Wallet => privateKeyToAccount(generatePrivateKey())
