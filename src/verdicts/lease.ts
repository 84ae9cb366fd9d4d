/**
 * The right to do something that only one instance should do at a time: a key in Redis that its holder extends, and that expires when its holder has
 * died.
 *
 * Its value is the holder's token (16 bytes), and a sealed record that expires with it: what somebody else puts there is no lease, and what was copied
 * from there is none for much longer.
 */
import { randomBytes } from "node:crypto";
import type { RecordCodec } from "./record-codec.ts";
import type { RedisLink } from "./redis-link.ts";

export interface LeaseOptions {
  readonly link: RedisLink;
  readonly codec: RecordCodec;
  readonly key: string;
  /** Milliseconds that it outlives a holder who died. */
  readonly ttl: number;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
}

const TOKEN_LENGTH = 16;
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

/** Extended until it is disposed of. It spares work, it guards nothing: with Redis away, two may hold it. */
export class Lease implements AsyncDisposable {
  readonly #options: LeaseOptions;
  readonly #token = randomBytes(TOKEN_LENGTH);
  #timer: NodeJS.Timeout | undefined;

  private constructor(options: LeaseOptions) {
    this.#options = options;
  }

  static async take(options: LeaseOptions): Promise<Lease | "taken"> {
    const lease = new Lease(options);
    if (!(await lease.#take())) return "taken";
    lease.#keep();
    return lease;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    clearInterval(this.#timer);
    const { link, key } = this.#options;
    await link.ask((redis) => redis.eval(RELEASE, 1, key, this.#token));
  }

  /** While Redis is away nobody can be asked, and everybody has it. */
  async #take(): Promise<boolean> {
    const { link, key, ttl } = this.#options;
    const taken = await link.ask((redis) => redis.set(key, this.#value(), "PX", ttl, "NX"));
    if (typeof taken !== "object" || taken.value !== null) return true;
    const there = await link.ask((redis) => redis.getrangeBuffer(key, 0, LONGEST));
    if (there === "away") return true;
    const value = there === "wrong type" ? Buffer.alloc(0) : there.value;
    if (this.#isHeld(value)) return false;
    const replaced = await link.ask((redis) => redis.eval(REPLACE, 1, key, this.#value(), ttl, value));
    return typeof replaced !== "object" || replaced.value === 1;
  }

  #isHeld(value: Buffer): boolean {
    const { codec, key, now } = this.#options;
    const opened = codec.open(key, value.subarray(TOKEN_LENGTH));
    return opened !== undefined && opened.expiresAt + CLOCK_SKEW > now();
  }

  #keep(): void {
    const { link, key, ttl } = this.#options;
    const extend = (): void => void link.ask((redis) => redis.eval(EXTEND, 1, key, this.#value(), ttl));
    this.#timer = setInterval(extend, Math.max(1, ttl / 3)).unref();
  }

  #value(): Buffer {
    const { codec, key, ttl, now } = this.#options;
    return Buffer.concat([this.#token, codec.seal(key, "lease", Math.floor(now()) + ttl)]);
  }
}
