/** Verdicts in this process: the whole store of a gateway that shares with nobody, and the near part of one that does. */
import { LRUCache } from "lru-cache";
import type { KeptVerdict, SourceRecord, VerdictRecord, VerdictStore } from "./store.ts";

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

/** Of a gateway, however many processes it has. */
export const DEFAULT_MAX_BYTES = 64 * 1024 * 1024;
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

/** A verdict, and when it was last compared with what others know (ms since the epoch). */
export interface HeldVerdict {
  readonly kept: KeptVerdict;
  checkedAt: number;
}

/**
 * Sources are kept without their verdict: each content has one verdict here, whatever source it was learned from. Digests are kept in a string, a character
 * for a byte: of most sources there is one, which is small beside a buffer's own objects; and a buffer may keep what it is a view of.
 */
type HeldSource = Omit<SourceRecord, "verdict" | "pieces"> & { readonly pieces: string };

export class MemoryVerdictStore implements VerdictStore {
  readonly #ttl: Lifetimes;
  readonly #now: () => number;
  readonly #sources: LRUCache<string, HeldSource>;
  readonly #verdicts: LRUCache<string, HeldVerdict>;

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
    this.#verdicts = new LRUCache({ ...limits, sizeCalculation: ({ kept }) => verdictSize(kept.record) });
  }

  source(key: string): Promise<SourceRecord | undefined> {
    const source = this.#sources.get(key);
    return Promise.resolve(source && this.#recordOf(source));
  }

  rememberSource(key: string, record: SourceRecord): Promise<void> {
    this.#rememberSource(key, record, this.#now() + sourceLifetime(this.#ttl));
    if (record.verdict !== undefined) this.adoptVerdict(record.content, record.verdict);
    return Promise.resolve();
  }

  /**
   * Takes over what another store knows until then (ms since the epoch), its verdict as one that is still to be compared: the copy may be older than
   * the verdict itself. What was remembered here in the meantime stands; comes back.
   */
  adoptSource(key: string, record: SourceRecord, until: number): SourceRecord {
    const { verdict, ...source } = record;
    const known = this.#sources.get(key);
    if (known === undefined) this.#rememberSource(key, source, Math.min(until, this.#now() + sourceLifetime(this.#ttl)));
    if (verdict !== undefined) this.adoptVerdict(source.content, verdict, -Infinity);
    return known === undefined ? withVerdict(source, this.#verdicts.get(source.content)?.kept) : this.#recordOf(known);
  }

  forgetSource(key: string): Promise<void> {
    this.#sources.delete(key);
    return Promise.resolve();
  }

  verdict(key: string): Promise<KeptVerdict | undefined> {
    return Promise.resolve(this.#verdicts.get(key)?.kept);
  }

  /** The verdict as it is held here; its `checkedAt` may be set. */
  held(key: string): HeldVerdict | undefined {
    return this.#verdicts.get(key);
  }

  rememberVerdict(key: string, record: VerdictRecord, stays?: (standing: KeptVerdict) => boolean): Promise<KeptVerdict | undefined> {
    const standing = this.#verdicts.get(key)?.kept;
    if (standing !== undefined && stays?.(standing) === true) return Promise.resolve(standing);
    return Promise.resolve(this.#rememberVerdict(key, { record, expiresAt: Infinity }, this.#now()));
  }

  /** Takes over what another store knows, whatever is known here. */
  replaceVerdict(key: string, verdict: KeptVerdict): KeptVerdict | undefined {
    return this.#rememberVerdict(key, verdict, this.#now());
  }

  /**
   * Takes over what another store knows, for no longer than verdicts are kept here, unless what is known here stands; comes back. What was found
   * infected stands until this process scans it anew.
   */
  adoptVerdict(key: string, verdict: KeptVerdict, checkedAt = this.#now()): KeptVerdict | undefined {
    const held = this.#verdicts.get(key);
    if (held === undefined || isOutdone(held.kept.record, verdict.record)) {
      const { record } = verdict;
      const expiresAt = Math.min(verdict.expiresAt, madeAt(record) + verdictLifetime(record, this.#ttl));
      return this.#rememberVerdict(key, { record, expiresAt }, checkedAt);
    }
    held.checkedAt = Math.max(held.checkedAt, checkedAt);
    return held.kept;
  }

  health(): { readonly degraded: boolean; readonly problems: readonly string[] } {
    return { degraded: false, problems: [] };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#sources.clear();
    this.#verdicts.clear();
    return Promise.resolve();
  }

  #recordOf({ content, digest, size, pieces }: HeldSource): SourceRecord {
    return withVerdict({ content, digest, size, pieces: Buffer.from(pieces, "latin1") }, this.#verdicts.get(content)?.kept);
  }

  #rememberSource(key: string, { content, digest, size, pieces }: SourceRecord, until: number): void {
    remember(this.#sources, key, { content, digest, size, pieces: pieces.toString("latin1") }, until - this.#now());
  }

  #rememberVerdict(key: string, { record, expiresAt }: KeptVerdict, checkedAt: number): KeptVerdict | undefined {
    const now = this.#now();
    const kept = { record, expiresAt: Math.floor(Math.min(expiresAt, now + verdictLifetime(record, this.#ttl))) };
    return remember(this.#verdicts, key, { kept, checkedAt }, kept.expiresAt - now) ? kept : undefined;
  }
}

/** A record whose life is over is not kept, nor is the older one that it replaces (to the cache, a time of 0 would mean for ever). */
function remember<Value extends object>(cache: LRUCache<string, Value>, key: string, value: Value, ttl: number): boolean {
  if (ttl >= 1) cache.set(key, value, { ttl: Math.floor(ttl) });
  else cache.delete(key);
  return ttl >= 1;
}

export function withVerdict(source: SourceRecord, verdict: KeptVerdict | undefined): SourceRecord {
  const { content, digest, size, pieces } = source;
  return { content, digest, size, pieces, ...(verdict === undefined ? {} : { verdict }) };
}

/** When the newest of its stamps was given. The refusal of a type has none: it rests on the bytes alone, and nothing outdates it. */
function madeAt(record: VerdictRecord): number {
  return record.outcome === "type_forbidden" ? Infinity : Math.max(...Object.values(record.stamps).map(({ at }) => at));
}

/** Infected outdoes clean, whichever is newer: an engine with older signatures may say the same ISTag. Of two that say the same, the newer one. */
function isOutdone(held: VerdictRecord, other: VerdictRecord): boolean {
  if (held.outcome === "infected" && other.outcome === "clean") return false;
  if (held.outcome === "clean" && other.outcome === "infected") return true;
  return madeAt(held) < madeAt(other);
}

function verdictSize(record: VerdictRecord): number {
  if (record.outcome === "type_forbidden") return RECORD_OVERHEAD + record.mime.length;
  const stamps = Object.entries(record.stamps).reduce((sum, [name, stamp]) => sum + 2 * (name.length + stamp.tag.length) + 64, 0);
  return RECORD_OVERHEAD + stamps + (record.outcome === "infected" ? 2 * (record.threat.length + record.scanner.length) : 0);
}
