/** Sealed values in Redis, under names of ours; and the right to be the only one who does something. */
import { Lease } from "./lease.ts";
import { assertSecret } from "./keys.ts";
import { MAX_VALUE_BYTES, RecordCodec } from "./record-codec.ts";
import { RedisLink, type StoreLog } from "./redis-link.ts";

export interface RedisRecordsOptions {
  /** `redis://`, or `rediss://` for TLS. */
  readonly url: string;
  readonly keyPrefix: string;
  readonly password?: string;
  /** Instances that share records share the secret; what was written under another one is no answer. */
  readonly secret: Buffer;
  readonly log: StoreLog;
  /** Told of every value that Redis holds under a name of ours and that is not what this gateway writes. */
  readonly onDropped?: () => void;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** Milliseconds between two lines in the log about dropped values, and for which health tells of them. */
const DROPPED_INTERVAL = 60_000;

/** Nothing here rejects, or takes longer than the small limit of one operation: a Redis that is away knows nothing. */
export class RedisRecords implements Disposable {
  readonly #options: RedisRecordsOptions;
  readonly #now: () => number;
  readonly #link: RedisLink;
  readonly #codec: RecordCodec;
  #dropped = 0;
  #droppedLogged = -Infinity;

  /** Connects in the background. @throws RangeError when the secret is too short. */
  constructor(options: RedisRecordsOptions) {
    assertSecret(options.secret);
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#codec = new RecordCodec(options.secret);
    this.#link = new RedisLink({ ...options, now: this.#now });
  }

  /** The record under a name, if it is ours, sound and not expired (ms since the epoch). `parse` gives undefined for what is not sound. */
  async get<T>(
    name: string,
    parse: (content: unknown) => T | undefined,
  ): Promise<{ readonly record: T; readonly expiresAt: number } | undefined> {
    const key = this.#key(name);
    // GETRANGE, because GET would bring in whatever somebody put there; one byte more than the longest tells that it is longer.
    const answer = await this.#link.ask((redis) => redis.getrangeBuffer(key, 0, MAX_VALUE_BYTES));
    if (answer === "away") return undefined;
    if (answer === "wrong type") return this.#drop();
    if (answer.value.length === 0) return undefined;
    const opened = this.#codec.open(key, answer.value);
    const record = opened && parse(opened.content);
    if (opened === undefined || record === undefined) return this.#drop();
    return opened.expiresAt > this.#now() ? { record, expiresAt: opened.expiresAt } : undefined;
  }

  /** @param ttl milliseconds; with less than one, what was there is removed */
  async set(name: string, record: unknown, ttl: number): Promise<void> {
    const key = this.#key(name);
    const lifetime = Math.floor(ttl);
    const value = this.#codec.seal(key, record, Math.floor(this.#now()) + lifetime);
    // What can't be kept replaces all the same: an older verdict must not outlive a newer one.
    const keep = lifetime >= 1 && value.length <= MAX_VALUE_BYTES;
    await this.#link.ask<unknown>((redis) => (keep ? redis.set(key, value, "PX", lifetime) : redis.del(key)));
  }

  async delete(name: string): Promise<void> {
    await this.#link.ask((redis) => redis.del(this.#key(name)));
  }

  /**
   * The right to do what this name stands for; `taken` while another one has it. While Redis is away nobody can be asked, and everybody has
   * the right. Whoever gets it must dispose of it; one that is not (its process died) ends after `ttl` milliseconds.
   */
  async lease(name: string, ttl: number): Promise<Lease | "taken"> {
    return Lease.take(this.#link, this.#key(`lease:${name}`), ttl);
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

  [Symbol.dispose](): void {
    this.#link.close();
  }

  #key(name: string): string {
    return `${this.#options.keyPrefix}${name}`;
  }

  #drop(): undefined {
    this.#dropped += 1;
    this.#options.onDropped?.();
    if (this.#now() - this.#droppedLogged < DROPPED_INTERVAL) return;
    this.#droppedLogged = this.#now();
    this.#options.log.warn({ dropped: this.#dropped }, "values in Redis fail their check and are ignored");
  }
}
