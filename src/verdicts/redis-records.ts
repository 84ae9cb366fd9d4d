/** Sealed values in Redis, under names of ours; the right to be the only one who does something; and hints from instance to instance. */
import { Fingerprint } from "./fingerprint.ts";
import { assertSecret } from "./keys.ts";
import { Lease } from "./lease.ts";
import { MAX_VALUE_BYTES, RecordCodec } from "./record-codec.ts";
import { openConnection, type RedisConnectionOptions } from "./redis-connection.ts";
import type { ParseRecord, Records, RecordsHealth } from "./records.ts";
import { RedisLeases } from "./redis-leases.ts";
import { RedisLink, type StoreLog } from "./redis-link.ts";
import { MAX_MESSAGE_BYTES, RedisSubscriptions } from "./redis-subscriptions.ts";
import { SealedHash } from "./sealed-hash.ts";

export interface RedisRecordsOptions {
  readonly connection: RedisConnectionOptions;
  /** Before every name and channel. */
  readonly keyPrefix: string;
  /** Instances that share records share the secret; what was written under another one is no answer. */
  readonly secret: Buffer;
  /** What clients encrypt to, if anything: instances that share records share it too, and `health` tells when they don't. */
  readonly publicKey?: string;
  readonly log: StoreLog;
  /** Told of every value that Redis holds under a name of ours and that is not what this gateway writes. */
  readonly onDropped?: () => void;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** Milliseconds between two lines in the log about dropped values, and for which health tells of them. */
const DROPPED_INTERVAL = 60_000;

/** Whoever can reach Redis reads the names, and who can write there can remove anything, or put back what was. */
export class RedisRecords implements Records, Disposable {
  readonly #options: RedisRecordsOptions;
  readonly #now: () => number;
  readonly #link: RedisLink;
  readonly #subscriptions: RedisSubscriptions;
  readonly #fingerprint: Fingerprint;
  readonly #codec: RecordCodec;
  readonly #leases: RedisLeases;
  #dropped = 0;
  #droppedLogged = -Infinity;

  /** Connects in the background. @throws RangeError when the secret is too short, TypeError when the URL is none of Redis */
  constructor(options: RedisRecordsOptions) {
    assertSecret(options.secret);
    this.#options = options;
    this.#now = options.now ?? Date.now;
    this.#codec = new RecordCodec(options.secret);
    const { log } = options;
    const connection = openConnection(options.connection);
    this.#link = new RedisLink({ connection, log, now: this.#now, onFound: () => void this.#fingerprint.check() });
    this.#leases = new RedisLeases(this.#link);
    this.#subscriptions = new RedisSubscriptions(connection, log);
    this.#fingerprint = new Fingerprint({ ...options, link: this.#link, key: this.#key("fingerprint") });
  }

  async get<T>(name: string, parse: ParseRecord<T>): Promise<{ readonly record: T; readonly expiresAt: number } | undefined> {
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

  async lease(name: string, ttl: number): Promise<Lease | "taken"> {
    return Lease.take(this.#leases, this.#key(`lease:${name}`), ttl);
  }

  async hashEntries<T>(name: string, parse: ParseRecord<T>): Promise<ReadonlyMap<string, T> | undefined> {
    return this.#hash(name).entries(parse);
  }

  async hashSet(name: string, field: string, record: unknown, expiresAt?: number): Promise<boolean> {
    return this.#hash(name).set(field, record, expiresAt);
  }

  /** Whoever can reach Redis reads it, and can send the like. */
  async publish(channel: string, message: string): Promise<void> {
    if (Buffer.byteLength(message) > MAX_MESSAGE_BYTES) return;
    await this.#link.ask((redis) => redis.publish(this.#key(channel), message));
  }

  /** `listener` gets what anybody sends. */
  subscribe(channel: string, listener: (message: string) => void, onReconnect: () => void = () => undefined): Disposable {
    return this.#subscriptions.subscribe(this.#key(channel), listener, onReconnect);
  }

  /** Why other instances with this Redis would not understand what is written here, as far as is known. */
  get conflict(): string | undefined {
    return this.#fingerprint.conflict;
  }

  health(): RecordsHealth {
    const { problem, away } = this.#link;
    const deaf = away ? undefined : this.#subscriptions.problem;
    const dropped = this.#now() - this.#droppedLogged < DROPPED_INTERVAL;
    return {
      degraded: problem !== undefined || deaf !== undefined,
      problems: [
        ...(problem === undefined ? [] : [`${problem}; verdicts are kept in this process only`]),
        ...(deaf === undefined ? [] : [deaf]),
        ...this.#fingerprint.problems,
        ...(dropped ? ["values in Redis fail their check: another instance has another secret, or something else writes there"] : []),
      ],
    };
  }

  [Symbol.dispose](): void {
    this.#fingerprint[Symbol.dispose]();
    this.#subscriptions[Symbol.dispose]();
    this.#link.close();
  }

  #hash(name: string): SealedHash {
    return new SealedHash({ link: this.#link, codec: this.#codec, key: this.#key(name), now: this.#now, onDropped: () => this.#drop() });
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
