/** Verdicts in this process: the whole store of a gateway without Redis, and the near part of one with it. */
import { LRUCache } from "lru-cache";
import type { SourceRecord, VerdictRecord, VerdictStore } from "./store.ts";

/** How long records are kept, in milliseconds; 0 is not at all. What a source held is kept as long as the longer of the two. */
export interface Lifetimes {
  readonly clean: number;
  /** Of infected files, and of types that are forbidden. */
  readonly infected: number;
}

export interface MemoryVerdictStoreOptions {
  /** At most this many verdicts, and as many sources; the one used longest ago goes first. */
  readonly maxEntries: number;
  /** Bytes of all records together, roughly. */
  readonly maxBytes?: number;
  readonly ttl: Lifetimes;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

const DEFAULT_MAX_BYTES = 64 * 1024 * 1024;
/** Key, bookkeeping and small fields of one record, rounded up. */
const RECORD_OVERHEAD = 512;

/** Milliseconds that this verdict is kept. */
export function verdictLifetime(record: VerdictRecord, ttl: Lifetimes): number {
  return record.outcome === "clean" ? ttl.clean : ttl.infected;
}

/** Milliseconds that what a source held is kept. */
export function sourceLifetime(ttl: Lifetimes): number {
  return Math.max(ttl.clean, ttl.infected);
}

export class MemoryVerdictStore implements VerdictStore {
  readonly #ttl: Lifetimes;
  readonly #now: () => number;
  readonly #sources: LRUCache<string, SourceRecord>;
  readonly #verdicts: LRUCache<string, VerdictRecord>;

  constructor(options: MemoryVerdictStoreOptions) {
    this.#ttl = options.ttl;
    this.#now = options.now ?? Date.now;
    const maxSize = Math.max(1, Math.floor((options.maxBytes ?? DEFAULT_MAX_BYTES) / 2));
    const limits = {
      // Places are made for all of them at once, so no more than can ever fit.
      max: Math.max(1, Math.min(options.maxEntries, Math.ceil(maxSize / RECORD_OVERHEAD))),
      maxSize,
      perf: { now: this.#now },
      // The clock is asked each time: a record never outlives its time by the resolution of a timer.
      ttlResolution: 0,
    };
    this.#sources = new LRUCache({ ...limits, sizeCalculation: (record) => RECORD_OVERHEAD + record.pieces.length });
    this.#verdicts = new LRUCache({ ...limits, sizeCalculation: verdictSize });
  }

  source(key: string): Promise<SourceRecord | undefined> {
    return Promise.resolve(this.#sources.get(key));
  }

  rememberSource(key: string, record: SourceRecord): Promise<void> {
    remember(this.#sources, key, detached(record), sourceLifetime(this.#ttl));
    return Promise.resolve();
  }

  /** Takes over what another store knows until then (ms since the epoch). What was remembered here stands; comes back. */
  adoptSource(key: string, record: SourceRecord, until: number): SourceRecord {
    const known = this.#sources.get(key);
    if (known !== undefined) return known;
    remember(this.#sources, key, detached(record), Math.min(sourceLifetime(this.#ttl), until - this.#now()));
    return record;
  }

  forgetSource(key: string): Promise<void> {
    this.#sources.delete(key);
    return Promise.resolve();
  }

  verdict(key: string): Promise<VerdictRecord | undefined> {
    return Promise.resolve(this.#verdicts.get(key));
  }

  rememberVerdict(key: string, record: VerdictRecord): Promise<void> {
    remember(this.#verdicts, key, record, verdictLifetime(record, this.#ttl));
    return Promise.resolve();
  }

  /** Takes over what another store knows until then (ms since the epoch). What was remembered here is newer and stands; comes back. */
  adoptVerdict(key: string, record: VerdictRecord, until: number): VerdictRecord {
    const known = this.#verdicts.get(key);
    if (known !== undefined) return known;
    remember(this.#verdicts, key, record, Math.min(verdictLifetime(record, this.#ttl), until - this.#now()));
    return record;
  }

  health(): { readonly degraded: boolean; readonly problems: readonly string[] } {
    return { degraded: false, problems: [] };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#sources.clear();
    this.#verdicts.clear();
    return Promise.resolve();
  }
}

/** A record whose life is over is not kept, nor is the older one that it replaces (to the cache, a time of 0 would mean for ever). */
function remember<Value extends object>(cache: LRUCache<string, Value>, key: string, value: Value, ttl: number): void {
  if (ttl >= 1) cache.set(key, value, { ttl: Math.floor(ttl) });
  else cache.delete(key);
}

/** A copy that keeps nothing larger alive: the caller's pieces may be a view. */
function detached(record: SourceRecord): SourceRecord {
  const pieces = Buffer.allocUnsafeSlow(record.pieces.length);
  record.pieces.copy(pieces);
  return { ...record, pieces };
}

function verdictSize(record: VerdictRecord): number {
  if (record.outcome === "type_forbidden") return RECORD_OVERHEAD + record.mime.length;
  const stamps = Object.entries(record.stamps).reduce((sum, [name, stamp]) => sum + 2 * (name.length + stamp.tag.length) + 64, 0);
  return RECORD_OVERHEAD + stamps + (record.outcome === "infected" ? 2 * (record.threat.length + record.scanner.length) : 0);
}
