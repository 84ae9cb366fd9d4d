/** The right to do something that only one instance should do at a time: a key in Redis that holds its holder's token, and expires. */
import { randomUUID } from "node:crypto";
import type { RedisLink } from "./redis-link.ts";

/** Whoever else has taken it in the meantime keeps it; with nobody there (Redis came back empty) it is taken again. */
const EXTEND = `local holder = redis.call("get", KEYS[1])
if holder == ARGV[1] then return redis.call("pexpire", KEYS[1], ARGV[2]) end
if not holder then redis.call("set", KEYS[1], ARGV[1], "PX", ARGV[2]) return 1 end
return 0`;
const RELEASE = `if redis.call("get", KEYS[1]) == ARGV[1] then return redis.call("del", KEYS[1]) end return 0`;

/** Extended until it is disposed of. It spares work, it guards nothing: with Redis away, two may hold it. */
export class Lease implements AsyncDisposable {
  readonly #link: RedisLink;
  readonly #key: string;
  readonly #token: string;
  readonly #timer: NodeJS.Timeout;

  private constructor(link: RedisLink, key: string, token: string, ttl: number) {
    this.#link = link;
    this.#key = key;
    this.#token = token;
    this.#timer = setInterval(() => void link.ask((redis) => redis.eval(EXTEND, 1, key, token, ttl)), Math.max(1, ttl / 3)).unref();
  }

  /** @param ttl milliseconds that it outlives a holder who died */
  static async take(link: RedisLink, key: string, ttl: number): Promise<Lease | "taken"> {
    const token = randomUUID();
    const answer = await link.ask((redis) => redis.set(key, token, "PX", ttl, "NX"));
    if (typeof answer === "object" && answer.value === null) return "taken";
    return new Lease(link, key, token, ttl);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    await this.#link.ask((redis) => redis.eval(RELEASE, 1, this.#key, this.#token));
  }
}
