/** Sealed values in Redis, under names of ours; the right to be the only one who does something; and hints from instance to instance. */
import { Fingerprint } from "./fingerprint.ts";
import { assertSecret } from "./keys.ts";
import { Lease } from "./lease.ts";
import { MAX_VALUE_BYTES, RecordCodec } from "./record-codec.ts";
import { openConnection, type RedisConnectionOptions } from "./redis-connection.ts";
import type { Found, ParseRecord, Records, RecordsHealth, Standing } from "./records.ts";
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

/** What is there must be what was seen there, or of a type that no record has; an empty value removes it. */
const REPLACE = `local there = redis.pcall("getrange", KEYS[1], 0, ${MAX_VALUE_BYTES})
if type(there) == "string" and there ~= ARGV[1] then return 0 end
if ARGV[2] == "" then redis.call("del", KEYS[1]) else redis.call("set", KEYS[1], ARGV[2], "PX", ARGV[3]) end
return 1`;
/** Each time, somebody else was quicker. */
const MAX_TRIES = 5;

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
  readonly #hashes: { readonly problem: string | undefined }[] = [];
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
    this.#leases = new RedisLeases({ link: this.#link, codec: this.#codec, now: this.#now });
    this.#subscriptions = new RedisSubscriptions(connection, log);
    this.#fingerprint = new Fingerprint({ ...options, link: this.#link, key: this.#key("fingerprint") });
  }

  async get<T>(name: string, parse: ParseRecord<T>): Promise<Found<T> | undefined> {
    const found = await this.look(name, parse);
    return typeof found === "object" ? found : undefined;
  }

  async look<T>(name: string, parse: ParseRecord<T>): Promise<Found<T> | "nothing" | "away"> {
    const key = this.#key(name);
    const there = await this.#read(key);
    return there === "away" ? "away" : (this.#open(key, there, parse) ?? "nothing");
  }

  async set(name: string, record: unknown, ttl: number): Promise<void> {
    const key = this.#key(name);
    const { value, lifetime } = this.#seal(key, record, ttl);
    await this.#link.ask<unknown>((redis) => (value === undefined ? redis.del(key) : redis.set(key, value, "PX", lifetime)));
  }

  async setUnless<T>(name: string, record: unknown, ttl: number, standing: Standing<T>): Promise<Found<T> | undefined> {
    const key = this.#key(name);
    const { value, lifetime } = this.#seal(key, record, ttl);
    if (value !== undefined) {
      const made = await this.#link.ask((redis) => redis.set(key, value, "PX", lifetime, "NX"));
      if (typeof made !== "object" || made.value !== null) return undefined;
    }
    for (let tries = 0; tries < MAX_TRIES; tries += 1) {
      const there = await this.#read(key);
      if (there === "away") return undefined;
      const found = this.#open(key, there, standing.parse);
      if (found !== undefined && standing.stays(found)) return found;
      const before = there === "wrong type" ? Buffer.alloc(0) : there;
      const done = await this.#link.ask((redis) => redis.eval(REPLACE, 1, key, before, value ?? "", lifetime));
      if (typeof done !== "object" || done.value === 1) return undefined;
    }
    return undefined;
  }

  async delete(name: string): Promise<boolean> {
    return typeof (await this.#link.ask((redis) => redis.del(this.#key(name)))) === "object";
  }

  async lease(name: string, ttl: number): Promise<Lease | "taken"> {
    return Lease.take(this.#leases, this.#key(`lease:${name}`), ttl);
  }

  /**
   * A hash of records, to be kept: it knows what has not changed since it was last read, and `health` tells of it. To be called once for each.
   * @param parse gives undefined for what is not sound in this field
   */
  hash<T>(name: string, parse: (content: unknown, field: string) => T | undefined): SealedHash<T> {
    const hash = this.#hash(name, parse);
    this.#hashes.push(hash);
    return hash;
  }

  async hashEntries<T>(name: string, parse: ParseRecord<T>): Promise<ReadonlyMap<string, T> | undefined> {
    return this.#hash(name, parse).entries();
  }

  async hashSet(name: string, field: string, record: unknown, expiresAt?: number): Promise<boolean> {
    return this.#hash(name, () => undefined).set(field, record, expiresAt);
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

  /** Redis's clock, in ms since the epoch; undefined when it can't be asked. */
  async time(): Promise<number | undefined> {
    const answer = await this.#link.ask((redis) => redis.time());
    if (typeof answer !== "object") return undefined;
    const [seconds, microseconds] = answer.value;
    const time = Number(seconds) * 1000 + Math.floor(Number(microseconds) / 1000);
    return Number.isSafeInteger(time) ? time : undefined;
  }

  /** Whether what is asked of Redis is answered, and done; and whether what other instances say is heard. */
  get status(): { readonly usable: boolean; readonly listening: boolean } {
    const { problem, away } = this.#link;
    return { usable: problem === undefined, listening: !away && this.#subscriptions.problem === undefined };
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
        ...this.#hashes.flatMap((hash) => hash.problem ?? []),
        ...(dropped ? ["values in Redis fail their check: another instance has another secret, or something else writes there"] : []),
      ],
    };
  }

  [Symbol.dispose](): void {
    this.#fingerprint[Symbol.dispose]();
    this.#subscriptions[Symbol.dispose]();
    this.#link.close();
  }

  /** GETRANGE, because GET would bring in whatever somebody put there; one byte more than the longest tells that it is longer. */
  async #read(key: string): Promise<Buffer | "wrong type" | "away"> {
    const answer = await this.#link.ask((redis) => redis.getrangeBuffer(key, 0, MAX_VALUE_BYTES));
    return typeof answer === "object" ? answer.value : answer;
  }

  #open<T>(key: string, there: Buffer | "wrong type", parse: ParseRecord<T>): Found<T> | undefined {
    if (there === "wrong type") return this.#drop();
    if (there.length === 0) return undefined;
    const opened = this.#codec.open(key, there);
    const record = opened && parse(opened.content);
    if (opened === undefined || record === undefined) return this.#drop();
    return opened.expiresAt > this.#now() ? { record, expiresAt: opened.expiresAt } : undefined;
  }

  /** Without a value, what was there is to be removed: what can't be kept replaces all the same, or an older verdict would outlive a newer one. */
  #seal(key: string, record: unknown, ttl: number): { readonly value: Buffer | undefined; readonly lifetime: number } {
    const lifetime = Math.floor(ttl);
    const value = this.#codec.seal(key, record, Math.floor(this.#now()) + lifetime);
    return { value: lifetime >= 1 && value.length <= MAX_VALUE_BYTES ? value : undefined, lifetime };
  }

  #hash<T>(name: string, parse: (content: unknown, field: string) => T | undefined): SealedHash<T> {
    const key = this.#key(name);
    return new SealedHash({ link: this.#link, codec: this.#codec, key, parse, now: this.#now, onDropped: () => this.#drop() });
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
