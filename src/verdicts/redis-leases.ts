/**
 * Leases in Redis. A key's value is the holder's token, and a sealed record that expires with it: what somebody else puts there is no lease, and what
 * was copied from there is none for much longer.
 */
import { type LeaseTable, TOKEN_LENGTH } from "./lease.ts";
import type { RecordCodec } from "./record-codec.ts";
import type { RedisLink } from "./redis-link.ts";

export interface RedisLeasesOptions {
  readonly link: RedisLink;
  readonly codec: RecordCodec;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

/** Bytes; none is longer. */
const LONGEST = 256;
/** Milliseconds by which the clocks of two instances may differ. */
const CLOCK_SKEW = 10_000;

/** Whoever else has taken it in the meantime keeps it; with nobody there (Redis came back empty) it is taken again. */
const EXTEND = `local there = redis.call("get", KEYS[1])
if there and string.sub(there, 1, ${TOKEN_LENGTH}) ~= string.sub(ARGV[1], 1, ${TOKEN_LENGTH}) then return 0 end
redis.call("set", KEYS[1], ARGV[1], "PX", ARGV[2])
return 1`;
const RELEASE = `local there = redis.call("get", KEYS[1])
if there and string.sub(there, 1, ${TOKEN_LENGTH}) == ARGV[1] then return redis.call("del", KEYS[1]) end
return 0`;
/** In the place of what is no lease, whatever its type, unless it is another by now. */
const REPLACE = `local there = redis.pcall("getrange", KEYS[1], 0, ${LONGEST})
if type(there) == "string" and there ~= ARGV[3] then return 0 end
redis.call("set", KEYS[1], ARGV[1], "PX", ARGV[2])
return 1`;

export class RedisLeases implements LeaseTable {
  readonly #link: RedisLink;
  readonly #codec: RecordCodec;
  readonly #now: () => number;

  constructor({ link, codec, now }: RedisLeasesOptions) {
    this.#link = link;
    this.#codec = codec;
    this.#now = now;
  }

  /** While Redis is away nobody can be asked, and everybody has it. */
  async take(key: string, token: Buffer, ttl: number): Promise<boolean> {
    const taken = await this.#link.ask((redis) => redis.set(key, this.#value(key, token, ttl), "PX", ttl, "NX"));
    if (typeof taken !== "object" || taken.value !== null) return true;
    const there = await this.#link.ask((redis) => redis.getrangeBuffer(key, 0, LONGEST));
    if (there === "away") return true;
    const value = there === "wrong type" ? Buffer.alloc(0) : there.value;
    if (this.#isHeld(key, value)) return false;
    const replaced = await this.#link.ask((redis) => redis.eval(REPLACE, 1, key, this.#value(key, token, ttl), ttl, value));
    return typeof replaced !== "object" || replaced.value === 1;
  }

  extend(key: string, token: Buffer, ttl: number): Promise<unknown> {
    return this.#link.ask((redis) => redis.eval(EXTEND, 1, key, this.#value(key, token, ttl), ttl));
  }

  release(key: string, token: Buffer): Promise<unknown> {
    return this.#link.ask((redis) => redis.eval(RELEASE, 1, key, token));
  }

  #isHeld(key: string, value: Buffer): boolean {
    const opened = this.#codec.open(key, value.subarray(TOKEN_LENGTH));
    return opened !== undefined && opened.expiresAt + CLOCK_SKEW > this.#now();
  }

  #value(key: string, token: Buffer, ttl: number): Buffer {
    return Buffer.concat([token, this.#codec.seal(key, "lease", Math.floor(this.#now()) + ttl)]);
  }
}
