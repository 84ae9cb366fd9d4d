/** Sizes that instances prove for each other. */
import { z } from "zod";
import { KeyedDigest } from "./keyed-digest.ts";
import type { Records } from "./records.ts";

/** What a scanner was found to scan. */
export interface SharedProof {
  /** Bytes. */
  readonly size: number;
  /** When the proof began, ms since the epoch. */
  readonly at: number;
}

/** None of them ever rejects: a store that can't answer knows of no proof, and gives a lease to whoever asks. */
export interface SharedProofs {
  recall(key: string): Promise<SharedProof | undefined>;
  remember(key: string, proof: SharedProof): Promise<void>;
  /** The right to prove; undefined: another instance is at it. It ends by itself, should its holder be gone. */
  lease(key: string): Promise<AsyncDisposable | undefined>;
}

/** Milliseconds; after that, an instance that died in the middle of a proof stands in nobody's way. */
const LEASE = 15_000;

const schema = z.strictObject({ size: z.int().min(0), at: z.number().min(0) });

export class SharedProvenSizes implements SharedProofs {
  readonly #records: Records;
  readonly #digest: KeyedDigest;
  readonly #ttl: number;

  /** @param ttl milliseconds that a proof is kept */
  constructor(records: Records, secret: Buffer, ttl: number) {
    this.#records = records;
    this.#digest = new KeyedDigest(secret);
    this.#ttl = ttl;
  }

  async recall(key: string): Promise<SharedProof | undefined> {
    return (await this.#records.get(this.#name(key), (content) => schema.safeParse(content).data))?.record;
  }

  async remember(key: string, proof: SharedProof): Promise<void> {
    await this.#records.set(this.#name(key), proof, this.#ttl);
  }

  async lease(key: string): Promise<AsyncDisposable | undefined> {
    const lease = await this.#records.lease(this.#name(key), LEASE);
    return lease === "taken" ? undefined : lease;
  }

  /** A service's address is nobody's business who reads the records. */
  #name(key: string): string {
    return `proof:${this.#digest.name("proven size", [key])}`;
  }
}
