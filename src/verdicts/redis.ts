/** Verdicts that all instances share, with the memory of this process in front: it answers first, and goes on alone while Redis is away. */
import { MemoryVerdictStore, sourceLifetime, verdictLifetime, type Lifetimes } from "./memory.ts";
import { MAX_VALUE_BYTES, RecordCodec, sourceFromJson, sourceToJson, verdictFromJson } from "./record-codec.ts";
import { RedisLink, type StoreLog } from "./redis-link.ts";
import { assertSecret } from "./keys.ts";
import type { SourceRecord, VerdictRecord, VerdictStore } from "./store.ts";

export interface RedisVerdictStoreOptions {
  /** `redis://`, or `rediss://` for TLS. */
  readonly url: string;
  readonly keyPrefix: string;
  readonly password?: string;
  /** Instances that share verdicts share the secret; what was written under another one is no answer. */
  readonly secret: Buffer;
  readonly ttl: Lifetimes;
  /** Of the memory in front. */
  readonly maxEntries: number;
  readonly maxBytes?: number;
  readonly log: StoreLog;
  /** Told of every value that Redis holds under a key of ours and that is not what this gateway writes. */
  readonly onDropped?: () => void;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** Milliseconds between two lines in the log about dropped values, and for which health tells of them. */
const DROPPED_INTERVAL = 60_000;

export class RedisVerdictStore implements VerdictStore {
  readonly #options: RedisVerdictStoreOptions;
  readonly #now: () => number;
  readonly #memory: MemoryVerdictStore;
  readonly #link: RedisLink;
  readonly #codec: RecordCodec;
  #dropped = 0;
  #droppedLogged = -Infinity;

  /** Connects in the background. @throws RangeError when the secret is too short. */
  constructor(options: RedisVerdictStoreOptions) {
    assertSecret(options.secret);
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#memory = new MemoryVerdictStore({ ...options, now: this.#now });
    this.#codec = new RecordCodec(options.secret);
    this.#link = new RedisLink({ ...options, now: this.#now });
  }

  async source(key: string): Promise<SourceRecord | undefined> {
    const near = await this.#memory.source(key);
    if (near !== undefined || sourceLifetime(this.#options.ttl) < 1) return near;
    const found = await this.#fetch(this.#sourceKey(key), sourceFromJson);
    return found && this.#memory.adoptSource(key, found.record, found.expiresAt);
  }

  async rememberSource(key: string, record: SourceRecord): Promise<void> {
    await this.#memory.rememberSource(key, record);
    await this.#keep(this.#sourceKey(key), sourceToJson(record), sourceLifetime(this.#options.ttl));
  }

  async forgetSource(key: string): Promise<void> {
    await this.#memory.forgetSource(key);
    await this.#link.ask((redis) => redis.del(this.#sourceKey(key)));
  }

  async verdict(key: string): Promise<VerdictRecord | undefined> {
    const near = await this.#memory.verdict(key);
    if (near !== undefined) return near;
    const found = await this.#fetch(this.#verdictKey(key), verdictFromJson);
    // Written under a configuration that kept this kind of verdict; this one does not.
    if (found === undefined || verdictLifetime(found.record, this.#options.ttl) < 1) return undefined;
    return this.#memory.adoptVerdict(key, found.record, found.expiresAt);
  }

  async rememberVerdict(key: string, record: VerdictRecord): Promise<void> {
    await this.#memory.rememberVerdict(key, record);
    await this.#keep(this.#verdictKey(key), record, verdictLifetime(record, this.#options.ttl));
  }

  health(): { readonly degraded: boolean; readonly problems: readonly string[] } {
    const { problem } = this.#link;
    const dropped = this.#now() - this.#droppedLogged < DROPPED_INTERVAL;
    return {
      degraded: problem !== undefined,
      problems: [
        ...(problem === undefined ? [] : [`${problem}; verdicts are kept in this process only`]),
        ...(dropped ? ["values in Redis fail their check: another instance has another secret, or something else writes there"] : []),
      ],
    };
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#link.close();
    await this.#memory[Symbol.asyncDispose]();
  }

  #sourceKey(key: string): string {
    return `${this.#options.keyPrefix}source:${key}`;
  }

  #verdictKey(key: string): string {
    return `${this.#options.keyPrefix}verdict:${key}`;
  }

  /** The record under a key, if it is ours, sound and not expired. */
  async #fetch<T>(
    redisKey: string,
    parse: (content: unknown) => T | undefined,
  ): Promise<{ readonly record: T; readonly expiresAt: number } | undefined> {
    // GETRANGE, because GET would bring in whatever somebody put there; one byte more than the longest tells that it is longer.
    const answer = await this.#link.ask((redis) => redis.getrangeBuffer(redisKey, 0, MAX_VALUE_BYTES));
    if (answer === "away") return undefined;
    if (answer === "wrong type") return this.#drop();
    if (answer.value.length === 0) return undefined;
    const opened = this.#codec.open(redisKey, answer.value);
    const record = opened && parse(opened.content);
    if (opened === undefined || record === undefined) return this.#drop();
    return opened.expiresAt > this.#now() ? { record, expiresAt: opened.expiresAt } : undefined;
  }

  async #keep(redisKey: string, record: unknown, ttl: number): Promise<void> {
    const lifetime = Math.floor(ttl);
    const value = this.#codec.seal(redisKey, record, Math.floor(this.#now()) + lifetime);
    // What can't be kept replaces all the same: an older verdict must not outlive a newer one.
    const keep = lifetime >= 1 && value.length <= MAX_VALUE_BYTES;
    await this.#link.ask<unknown>((redis) => (keep ? redis.set(redisKey, value, "PX", lifetime) : redis.del(redisKey)));
  }

  #drop(): undefined {
    this.#dropped += 1;
    this.#options.onDropped?.();
    if (this.#now() - this.#droppedLogged < DROPPED_INTERVAL) return;
    this.#droppedLogged = this.#now();
    this.#options.log.warn({ dropped: this.#dropped }, "values in Redis fail their check and are ignored");
  }
}
