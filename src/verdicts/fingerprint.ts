/** Tells instances that share a Redis, but not the secret or the key pair, of each other: they look like one deployment, and are not. */
import { createHash } from "node:crypto";
import { KeyedDigest } from "./keyed-digest.ts";
import type { RedisLink, StoreLog } from "./redis-link.ts";

/** Milliseconds that it stays after its last instance has gone: then a new secret is no longer another one. */
const TTL = 3 * 60_000;
const INTERVAL = 60_000;
/** Base64url of a SHA-256. */
const DIGEST_LENGTH = 43;
const FORMAT = /^([\w-]{43}) ([\w-]{43}|-)$/;
const LONGEST = DIGEST_LENGTH * 2 + 1;

export interface FingerprintOptions {
  readonly link: RedisLink;
  readonly key: string;
  readonly secret: Buffer;
  /** What clients encrypt to; compared between those who have one. */
  readonly publicKey?: string;
  readonly log: StoreLog;
}

/** `secret`: another one than ours. */
interface Difference {
  readonly of: "secret" | "public key" | "form";
  readonly words: string;
}

/**
 * The first instance leaves its fingerprint in Redis. One that finds another there leaves its own in a second place, where the first one finds it.
 */
export class Fingerprint implements Disposable {
  readonly #options: FingerprintOptions;
  readonly #own: string;
  readonly #secret: string;
  readonly #publicKey: string;
  readonly #timer: NodeJS.Timeout;
  /** In either place. */
  #first: readonly Difference[] = [];
  #second: readonly Difference[] = [];
  #told: readonly string[] = [];

  constructor(options: FingerprintOptions) {
    const { secret, publicKey } = options;
    this.#options = options;
    this.#secret = new KeyedDigest(secret).name("fingerprint", []);
    this.#publicKey = publicKey === undefined ? "-" : createHash("sha256").update(publicKey).digest("base64url");
    this.#own = `${this.#secret} ${this.#publicKey}`;
    this.#timer = setInterval(() => void this.check(), INTERVAL).unref();
  }

  /** In words for an operator; a hint, for whoever can write to Redis has a say in it. */
  get problems(): readonly string[] {
    return [...new Set([...this.#first, ...this.#second].map(({ words }) => words))];
  }

  /** Leaves ours where there is none, and compares where there is. To be called each time that Redis has come back, too. Never rejects. */
  async check(): Promise<void> {
    const { link, key } = this.#options;
    const made = await link.ask((redis) => redis.set(key, this.#own, "PX", TTL, "NX"));
    if (typeof made !== "object") return;
    const there = made.value === null ? await this.#read(key) : this.#own;
    if (there === undefined) return;
    this.#first = this.#differences(key, there);
    if (there === this.#own) await link.ask((redis) => redis.pexpire(key, TTL));
    else await link.ask((redis) => redis.set(`${key}-other`, this.#own, "PX", TTL));
    // What is none means nothing here: it is not ours to tell of.
    const other = FORMAT.exec((await this.#read(`${key}-other`)) ?? "")?.[0] ?? this.#own;
    this.#second = this.#differences(`${key}-other`, other);
    this.#tell();
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  /** That others have another secret, unless it was they who came later; undefined as far as is known. */
  get conflict(): string | undefined {
    return this.#first.find((difference) => difference.of === "secret")?.words;
  }

  /** Undefined when Redis is away, or what was there has expired in between. */
  async #read(key: string): Promise<string | undefined> {
    const answer = await this.#options.link.ask((redis) => redis.getrange(key, 0, LONGEST));
    if (answer === "away" || answer === "wrong type") return answer === "away" ? undefined : "none";
    return answer.value === "" ? undefined : answer.value;
  }

  #differences(key: string, there: string): readonly Difference[] {
    const [, secret, publicKey] = FORMAT.exec(there) ?? [];
    if (secret === undefined || publicKey === undefined) {
      return [{ of: "form", words: `${key} in Redis is no fingerprint: something else writes there; look at it, and delete it` }];
    }
    const differences: Difference[] = [];
    if (secret !== this.#secret) {
      const words =
        "an instance with the same Redis and key prefix has another secret: it shares neither verdicts nor overrides with this one";
      differences.push({ of: "secret", words: `${words} (if there is none, delete ${key} in Redis)` });
    }
    if (publicKey !== this.#publicKey && publicKey !== "-" && this.#publicKey !== "-") {
      differences.push({
        of: "public key",
        words: "an instance with the same Redis and key prefix has another public key: what is encrypted for one, the other can't read",
      });
    }
    return differences;
  }

  #tell(): void {
    const problems = this.problems;
    for (const problem of problems) if (!this.#told.includes(problem)) this.#options.log.warn({}, problem);
    this.#told = problems;
  }
}
