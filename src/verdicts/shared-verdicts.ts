/**
 * Verdicts that several processes share, with the memory of this one in front: it answers first, for a minute, and goes on alone while the records
 * are away.
 *
 * A source's shared record carries a copy of its content's verdict, so that one question is enough. A verdict that is made anew reaches the copy
 * under its own source only; so a copy is compared with the verdict itself the next time that its media is asked for, and the newer one wins. What
 * is found infected is told to all instances, and they compare at once.
 */
import { LRUCache } from "lru-cache";
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
const MAX_OUTDATED = 10_000;
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
  /** Sources whose shared record could not be removed. */
  readonly #outdated: LRUCache<string, true>;

  constructor({ records, ttl, now = Date.now, ...memory }: SharedVerdictStoreOptions) {
    this.#records = records;
    this.#ttl = ttl;
    this.#now = now;
    this.#memory = new MemoryVerdictStore({ ttl, now, ...memory });
    this.#outdated = new LRUCache({ max: MAX_OUTDATED, ttl: Math.max(1, sourceLifetime(ttl)), ttlResolution: 0, perf: { now } });
    const compare = (key: string): void => {
      const held = this.#memory.held(key);
      if (held !== undefined) held.checkedAt = -Infinity;
    };
    this.#news = records.subscribe(INFECTED, compare, () => (this.#missedUntil = this.#now()));
  }

  async source(key: string): Promise<SourceRecord | undefined> {
    const near = await this.#memory.source(key);
    if (near !== undefined) return withVerdict(near, await this.verdict(near.content));
    if (sourceLifetime(this.#ttl) < 1 || this.#outdated.has(key)) return undefined;
    const found = await this.#records.get(sourceName(key), sourceFromJson);
    return found && this.#memory.adoptSource(key, found.record, found.expiresAt);
  }

  async rememberSource(key: string, record: SourceRecord): Promise<void> {
    this.#outdated.delete(key);
    await this.#memory.rememberSource(key, record);
    await this.#records.set(sourceName(key), sourceToJson(record), sourceLifetime(this.#ttl));
  }

  async forgetSource(key: string): Promise<void> {
    await this.#memory.forgetSource(key);
    if (!(await this.#records.delete(sourceName(key)))) this.#outdated.set(key, true);
  }

  async verdict(key: string, fresh = false): Promise<KeptVerdict | undefined> {
    const held = this.#memory.held(key);
    if (held !== undefined && !fresh && held.checkedAt > Math.max(this.#missedUntil, this.#now() - NEAR_LIFE)) return held.kept;
    const found = await this.#records.look(verdictName(key), verdictFromJson);
    if (typeof found === "object") return this.#compared(key, found);
    // What is known here counts. Records that came back empty are not asked again each time; from those that are away, news may still come.
    const still = this.#memory.held(key);
    if (still !== undefined && found === "nothing") still.checkedAt = this.#now();
    return still?.kept;
  }

  async rememberVerdict(key: string, record: VerdictRecord, stays?: (standing: KeptVerdict) => boolean): Promise<KeptVerdict | undefined> {
    const lifetime = verdictLifetime(record, this.#ttl);
    const standing = stays && (await this.#records.setUnless(verdictName(key), record, lifetime, { parse: verdictFromJson, stays }));
    if (standing !== undefined) return this.#memory.replaceVerdict(key, standing);
    const kept = await this.#memory.rememberVerdict(key, record, stays);
    if (kept !== undefined && kept.record !== record) {
      this.#tell(key, kept);
      return kept;
    }
    if (stays === undefined) await this.#records.set(verdictName(key), record, lifetime);
    if (record.outcome === "infected") void this.#records.publish(INFECTED, key);
    return kept;
  }

  #compared(key: string, found: KeptVerdict): KeptVerdict | undefined {
    const kept = this.#memory.adoptVerdict(key, found);
    if (kept?.record.outcome === "infected" && found.record.outcome === "clean") this.#tell(key, kept);
    return kept;
  }

  /** What was found infected here, and the others don't know; nobody waits for that. */
  #tell(key: string, { record, expiresAt }: KeptVerdict): void {
    void this.#records.set(verdictName(key), record, expiresAt - this.#now()).then(() => this.#records.publish(INFECTED, key));
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
