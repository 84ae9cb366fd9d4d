/** What workers keep for each other, in the memory of their primary: bounded, and gone with it. */
import { LRUCache } from "lru-cache";
import type { KeptJson, MarkedJson, RecordQuestion } from "./messages.ts";

export interface RecordStoreOptions {
  /** Verdicts, and as many sources; the ones used longest ago go first. */
  readonly maxEntries: number;
  /** Bytes of all of these, roughly. */
  readonly maxBytes?: number;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

interface Holder {
  readonly token: string;
  /** Who asked for it. */
  readonly owner: unknown;
  readonly until: number;
  /** Somebody else has asked for it. */
  awaited: boolean;
}

const MAX_BYTES = 64 * 1024 * 1024;
/** Name, bookkeeping and the like of one record, rounded up. */
const RECORD_OVERHEAD = 512;
/** Records that are not of single media; and hashes, and fields of each. */
const FEW = 10_000;
const MAX_HASHES = 1_000;
const MAX_FIELDS = 1_000;
/** Workers admit far fewer requests. */
const MAX_LEASES = 100_000;

/** There may be any number of these; a flood of them pushes out nothing else. */
const OF_MEDIA = /^(?:verdict|(source)\d*):/;

export class RecordStore {
  readonly #now: () => number;
  readonly #sources: LRUCache<string, MarkedJson>;
  readonly #verdicts: LRUCache<string, MarkedJson>;
  readonly #others: LRUCache<string, MarkedJson>;
  readonly #hashes = new Map<string, Map<string, KeptJson>>();
  readonly #leases = new Map<string, Holder>();
  #lastMark = 0;

  constructor({ maxEntries, maxBytes = MAX_BYTES, now = Date.now }: RecordStoreOptions) {
    this.#now = now;
    const cache = (entries: number, maxSize: number): LRUCache<string, MarkedJson> =>
      new LRUCache({
        // Places are made for all of them at once, so no more than can ever fit.
        max: Math.max(1, Math.min(entries, Math.ceil(maxSize / RECORD_OVERHEAD))),
        maxSize,
        sizeCalculation: ({ json }, name) => RECORD_OVERHEAD + name.length + json.length,
      });
    this.#sources = cache(maxEntries, maxBytes / 2);
    this.#verdicts = cache(maxEntries, maxBytes / 2);
    this.#others = cache(FEW, FEW * RECORD_OVERHEAD * 2);
  }

  /** @param owner who asks: what it has leased is free when it is gone */
  answer(question: RecordQuestion, owner: unknown): unknown {
    switch (question.do) {
      case "ping":
        return true;
      case "get":
        return this.#get(question.name) ?? null;
      case "set":
        return this.#set(question.name, question.json, question.ttl);
      case "replace":
        return this.#replace(question.name, question.json, question.ttl, question.mark);
      case "delete":
        return this.#cacheOf(question.name).delete(question.name);
      case "take":
      case "extend":
        return this.#hold(question.name, question.token, question.ttl, owner);
      case "release":
        return this.#release(question.name, question.token);
      case "entries":
        return this.#entries(question.name);
      case "put":
        return this.#put(question.name, question.field, question);
    }
  }

  /** Nobody has to wait for what it had leased. */
  gone(owner: unknown): void {
    for (const [name, holder] of this.#leases) if (holder.owner === owner) this.#leases.delete(name);
  }

  #cacheOf(name: string): LRUCache<string, MarkedJson> {
    const kind = OF_MEDIA.exec(name);
    if (kind === null) return this.#others;
    return kind[1] === undefined ? this.#verdicts : this.#sources;
  }

  #get(name: string): MarkedJson | undefined {
    const cache = this.#cacheOf(name);
    const kept = cache.get(name);
    if (kept === undefined || kept.expiresAt > this.#now()) return kept;
    cache.delete(name);
    return undefined;
  }

  /** What can't be kept replaces all the same: an older record must not outlive a newer one. */
  #set(name: string, json: string, ttl: number): true {
    const cache = this.#cacheOf(name);
    const lifetime = Math.floor(ttl);
    this.#lastMark += 1;
    if (lifetime >= 1) cache.set(name, { json, expiresAt: Math.floor(this.#now()) + lifetime, mark: this.#lastMark });
    else cache.delete(name);
    return true;
  }

  /** What is there instead, if it is not what was seen there. */
  #replace(name: string, json: string, ttl: number, mark: number): true | MarkedJson {
    const there = this.#get(name);
    return there === undefined || there.mark === mark ? this.#set(name, json, ttl) : there;
  }

  /** False while somebody else has it. */
  #hold(name: string, token: string, ttl: number, owner: unknown): boolean {
    const holder = this.#leases.get(name);
    const now = this.#now();
    if (holder !== undefined && holder.token !== token && holder.until > now) {
      holder.awaited = true;
      return false;
    }
    if (holder === undefined && this.#leases.size >= MAX_LEASES) return true;
    this.#leases.set(name, { token, owner, until: now + ttl, awaited: holder?.awaited ?? false });
    return true;
  }

  /** Whether somebody else has asked for it. */
  #release(name: string, token: string): boolean {
    const holder = this.#leases.get(name);
    if (holder?.token !== token) return false;
    this.#leases.delete(name);
    return holder.awaited;
  }

  #entries(name: string): readonly (readonly [field: string, json: string])[] {
    const hash = this.#hashes.get(name);
    if (hash === undefined) return [];
    for (const [field, { expiresAt }] of hash) if (expiresAt <= this.#now()) hash.delete(field);
    if (hash.size === 0) this.#hashes.delete(name);
    return [...hash].map(([field, { json }]) => [field, json]);
  }

  /** Whether it is kept. */
  #put(name: string, field: string, { json, expiresAt }: KeptJson): boolean {
    const hash = this.#hashes.get(name) ?? new Map<string, KeptJson>();
    const full = hash.size >= MAX_FIELDS && !hash.has(field);
    if (full || (hash.size === 0 && this.#hashes.size >= MAX_HASHES)) return false;
    this.#hashes.set(name, hash.set(field, { json, expiresAt }));
    return true;
  }
}
