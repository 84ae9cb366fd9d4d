/**
 * Leases in Redis. A key's value is the holder's token, and a sealed record that expires with it: what somebody else puts there is no lease, and what
 * was copied from there is none for much longer. Behind that may stand a mark of somebody who has asked for it in vain; anybody can set it who can write
 * there, and it only tells the holder to say aloud that it lets go.
 */
import { type LeaseTable, TOKEN_LENGTH } from "./lease.ts";
import { RecordCodec } from "./record-codec.ts";
import type { RedisLink } from "./redis-link.ts";

export interface RedisLeasesOptions {
  readonly link: RedisLink;
  readonly codec: RecordCodec;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

/** Bytes of a value without the mark; of whatever stands there, one more is read. */
const VALUE_LENGTH = TOKEN_LENGTH + RecordCodec.sealedLength("lease");
/** Milliseconds by which the clocks of two instances may differ. */
const CLOCK_SKEW = 10_000;

/** Whoever else has taken it in the meantime keeps it; with nobody there (Redis came back empty) it is taken again. */
const EXTEND = `local there = redis.call("getrange", KEYS[1], 0, ${VALUE_LENGTH})
if there ~= "" and string.sub(there, 1, ${TOKEN_LENGTH}) ~= string.sub(ARGV[1], 1, ${TOKEN_LENGTH}) then return 0 end
redis.call("set", KEYS[1], ARGV[1] .. string.sub(there, ${VALUE_LENGTH + 1}), "PX", ARGV[2])
return 1`;
/** Whether it was marked. */
const RELEASE = `local there = redis.call("getrange", KEYS[1], 0, ${VALUE_LENGTH})
if string.sub(there, 1, ${TOKEN_LENGTH}) ~= ARGV[1] then return 0 end
redis.call("del", KEYS[1])
return #there > ${VALUE_LENGTH} and 1 or 0`;
/** Takes it where nothing stands; else marks what does, and returns it. In one step, or what its holder does last could fall in between. */
const TAKE = `if redis.call("set", KEYS[1], ARGV[1], "PX", ARGV[2], "NX") then return 1 end
local there = redis.pcall("getrange", KEYS[1], 0, ${VALUE_LENGTH})
if type(there) ~= "string" or #there ~= ${VALUE_LENGTH} then return there end
redis.call("set", KEYS[1], there .. "w", "KEEPTTL")
return there .. "w"`;
/** In the place of what is no lease, whatever its type, unless it is another by now. */
const REPLACE = `local there = redis.pcall("getrange", KEYS[1], 0, ${VALUE_LENGTH})
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
    const there = await this.#link.ask((redis) => redis.callBuffer("eval", TAKE, 1, key, this.#value(key, token, ttl), ttl));
    if (there === "away" || (there !== "wrong type" && there.value === 1)) return true;
    const value = there === "wrong type" || !Buffer.isBuffer(there.value) ? Buffer.alloc(0) : there.value;
    if (this.#isHeld(key, value)) return false;
    const replaced = await this.#link.ask((redis) => redis.eval(REPLACE, 1, key, this.#value(key, token, ttl), ttl, value));
    return typeof replaced !== "object" || replaced.value === 1;
  }

  extend(key: string, token: Buffer, ttl: number): Promise<unknown> {
    return this.#link.ask((redis) => redis.eval(EXTEND, 1, key, this.#value(key, token, ttl), ttl));
  }

  async release(key: string, token: Buffer): Promise<boolean> {
    const released = await this.#link.ask((redis) => redis.eval(RELEASE, 1, key, token));
    return typeof released === "object" && released.value === 1;
  }

  #isHeld(key: string, value: Buffer): boolean {
    const opened = this.#codec.open(key, value.subarray(TOKEN_LENGTH, VALUE_LENGTH));
    return opened !== undefined && opened.expiresAt + CLOCK_SKEW > this.#now();
  }

  #value(key: string, token: Buffer, ttl: number): Buffer {
    return Buffer.concat([token, this.#codec.seal(key, "lease", Math.floor(this.#now()) + ttl)]);
  }
}
