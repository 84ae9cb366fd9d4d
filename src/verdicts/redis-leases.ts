/** Leases in Redis: a key that holds its holder's token. */
import type { LeaseTable } from "./lease.ts";
import type { RedisLink } from "./redis-link.ts";

/** Nobody is there when Redis came back empty. */
const EXTEND = `local holder = redis.call("get", KEYS[1])
if holder == ARGV[1] then return redis.call("pexpire", KEYS[1], ARGV[2]) end
if not holder then redis.call("set", KEYS[1], ARGV[1], "PX", ARGV[2]) return 1 end
return 0`;
const RELEASE = `if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) end return 0`;

export class RedisLeases implements LeaseTable {
  readonly #link: RedisLink;

  constructor(link: RedisLink) {
    this.#link = link;
  }

  async take(key: string, token: string, ttl: number): Promise<boolean> {
    const answer = await this.#link.ask((redis) => redis.set(key, token, "PX", ttl, "NX"));
    return typeof answer === "string" || answer.value !== null;
  }

  extend(key: string, token: string, ttl: number): Promise<unknown> {
    return this.#link.ask((redis) => redis.eval(EXTEND, 1, key, token, ttl));
  }

  release(key: string, token: string): Promise<unknown> {
    return this.#link.ask((redis) => redis.eval(RELEASE, 1, key, token));
  }
}
