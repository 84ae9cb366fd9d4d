/**
 * Verdicts that several processes share, with the memory of this one in front: it answers first, for a minute, and goes on alone while the records
 * are away.
 *
 * A source's shared record carries a copy of its content's verdict, so that one question is enough. A verdict that is made anew reaches the copy
 * under its own source only; so a copy is compared with the verdict itself the next time that its media is asked for, and the newer one wins. What
 * is found infected is told to all instances, and they compare at once.
 */
import { MemoryVerdictStore, sourceLifetime, verdictLifetime, withVerdict, type Lifetimes } from "./memory.ts";
import { sourceFromJson, sourceToJson, verdictFromJson } from "./record-codec.ts";
import type { Records } from "./records.ts";
import type { KeptVerdict, SourceRecord, VerdictRecord, VerdictStore } from "./store.ts";

export interface SharedVerdictStoreOptions {
  /** Closed by whoever opened it. */
  readonly records: Records;
  readonly ttl: Lifetimes;
  /** Of the memory in front. */
  readonly maxEntries: number;
  readonly maxBytes?: number;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** Milliseconds after which a verdict in memory is compared with the shared one. */
const NEAR_LIFE = 60_000;
/** Messages are keys of verdicts that were found infected: a hint to compare, from anybody. */
const INFECTED = "infected";

export class SharedVerdictStore implements VerdictStore {
  readonly #records: Records;
  readonly #ttl: Lifetimes;
  readonly #memory: MemoryVerdictStore;
  readonly #now: () => number;
  readonly #news: Disposable;
  /** News may have been missed until then (ms since the epoch). */
  #missedUntil = -Infinity;

  constructor({ records, ttl, now = Date.now, ...memory }: SharedVerdictStoreOptions) {
    this.#records = records;
    this.#ttl = ttl;
    this.#now = now;
    this.#memory = new MemoryVerdictStore({ ttl, now, ...memory });
    const compare = (key: string): void => {
      const held = this.#memory.held(key);
      if (held !== undefined) held.checkedAt = -Infinity;
    };
    this.#news = records.subscribe(INFECTED, compare, () => (this.#missedUntil = this.#now()));
  }

  async source(key: string): Promise<SourceRecord | undefined> {
    const near = await this.#memory.source(key);
    if (near !== undefined) return withVerdict(near, await this.verdict(near.content));
    if (sourceLifetime(this.#ttl) < 1) return undefined;
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

  async verdict(key: string, fresh = false): Promise<KeptVerdict | undefined> {
    const held = this.#memory.held(key);
    if (held !== undefined && !fresh && held.checkedAt > Math.max(this.#missedUntil, this.#now() - NEAR_LIFE)) return held.kept;
    const found = await this.#records.get(verdictName(key), verdictFromJson);
    if (found !== undefined) return this.#memory.adoptVerdict(key, { record: found.record, expiresAt: found.expiresAt });
    // The records are away, or came back empty: what is known here counts, and they are not asked again each time.
    const still = this.#memory.held(key);
    if (still !== undefined) still.checkedAt = this.#now();
    return still?.kept;
  }

  async rememberVerdict(key: string, record: VerdictRecord): Promise<KeptVerdict | undefined> {
    const kept = await this.#memory.rememberVerdict(key, record);
    await this.#records.set(verdictName(key), record, verdictLifetime(record, this.#ttl));
    if (record.outcome === "infected") void this.#records.publish(INFECTED, key);
    return kept;
  }

  health(): { readonly degraded: boolean; readonly problems: readonly string[] } {
    return this.#records.health();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#news[Symbol.dispose]();
    await this.#memory[Symbol.asyncDispose]();
  }
}

/** The number is the format's: instances that know another one neither read these nor overwrite them. */
function sourceName(key: string): string {
  return `source2:${key}`;
}

function verdictName(key: string): string {
  return `verdict:${key}`;
}
