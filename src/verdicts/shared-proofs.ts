/** What one instance found out about a scanner, for the others. */
import { z } from "zod";
import { keyedDigest } from "./keys.ts";
import type { RedisRecords } from "./redis-records.ts";

export interface ProvenSize {
  /** Bytes. */
  readonly size: number;
  /** When it was proven, in ms since the epoch. */
  readonly at: number;
}

/** Milliseconds; after that, an instance that died in the middle of a proof stands in nobody's way. */
const LEASE = 15_000;

const schema = z.strictObject({ size: z.int().min(0), at: z.number().min(0) });

/** Proven sizes in Redis, sealed as verdicts are. Nothing here rejects. */
export class SharedProvenSizes {
  readonly #records: RedisRecords;
  readonly #secret: Buffer;
  readonly #ttl: number;

  /** @param ttl milliseconds that a proof is kept */
  constructor(records: RedisRecords, secret: Buffer, ttl: number) {
    this.#records = records;
    this.#secret = secret;
    this.#ttl = ttl;
  }

  async recall(key: string): Promise<ProvenSize | undefined> {
    return (await this.#records.get(this.#name(key), (content) => schema.safeParse(content).data))?.record;
  }

  async remember(key: string, proof: ProvenSize): Promise<void> {
    await this.#records.set(this.#name(key), proof, this.#ttl);
  }

  /** The right to prove; undefined while another instance is at it. */
  async lease(key: string): Promise<AsyncDisposable | undefined> {
    const lease = await this.#records.lease(this.#name(key), LEASE);
    return lease === "taken" ? undefined : lease;
  }

  /** A service's address is nobody's business who reads Redis. */
  #name(key: string): string {
    return `proof:${keyedDigest(this.#secret, "proven size", [key]).toString("base64url")}`;
  }
}
