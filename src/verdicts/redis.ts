/** Verdicts that all instances share, with the memory of this process in front: it answers first, and goes on alone while Redis is away. */
import { MemoryVerdictStore, sourceLifetime, verdictLifetime, type Lifetimes } from "./memory.ts";
import { sourceFromJson, sourceToJson, verdictFromJson } from "./record-codec.ts";
import type { RedisRecords } from "./redis-records.ts";
import type { SourceRecord, VerdictRecord, VerdictStore } from "./store.ts";

export interface RedisVerdictStoreOptions {
  /** Closed by whoever opened it. */
  readonly records: RedisRecords;
  readonly ttl: Lifetimes;
  /** Of the memory in front. */
  readonly maxEntries: number;
  readonly maxBytes?: number;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

export class RedisVerdictStore implements VerdictStore {
  readonly #records: RedisRecords;
  readonly #ttl: Lifetimes;
  readonly #memory: MemoryVerdictStore;

  constructor({ records, ttl, ...memory }: RedisVerdictStoreOptions) {
    this.#records = records;
    this.#ttl = ttl;
    this.#memory = new MemoryVerdictStore({ ttl, ...memory });
  }

  async source(key: string): Promise<SourceRecord | undefined> {
    const near = await this.#memory.source(key);
    if (near !== undefined || sourceLifetime(this.#ttl) < 1) return near;
    const found = await this.#records.get(sourceName(key), sourceFromJson);
    return found && this.#memory.adoptSource(key, found.record, found.expiresAt);
  }

  async rememberSource(key: string, record: SourceRecord): Promise<void> {
    await this.#memory.rememberSource(key, record);
    await this.#records.set(sourceName(key), sourceToJson(record), sourceLifetime(this.#ttl));
  }

  async forgetSource(key: string): Promise<void> {
    await this.#memory.forgetSource(key);
    await this.#records.delete(sourceName(key));
  }

  async verdict(key: string): Promise<VerdictRecord | undefined> {
    const near = await this.#memory.verdict(key);
    if (near !== undefined) return near;
    const found = await this.#records.get(verdictName(key), verdictFromJson);
    // Written under a configuration that kept this kind of verdict; this one does not.
    if (found === undefined || verdictLifetime(found.record, this.#ttl) < 1) return undefined;
    return this.#memory.adoptVerdict(key, found.record, found.expiresAt);
  }

  async rememberVerdict(key: string, record: VerdictRecord): Promise<void> {
    await this.#memory.rememberVerdict(key, record);
    await this.#records.set(verdictName(key), record, verdictLifetime(record, this.#ttl));
  }

  health(): { readonly degraded: boolean; readonly problems: readonly string[] } {
    return this.#records.health();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.#memory[Symbol.asyncDispose]();
  }
}

function sourceName(key: string): string {
  return `source:${key}`;
}

function verdictName(key: string): string {
  return `verdict:${key}`;
}
