/** Tells instances that share a Redis, but not the secret or the key pair, of each other: they look like one deployment, and are not. */
import { createHash } from "node:crypto";
import { keyedDigest } from "./keys.ts";
import type { RedisLink, StoreLog } from "./redis-link.ts";

/** Milliseconds that it stays after its last instance has gone: then a new secret is no longer another one. */
const TTL = 3 * 60_000;
const INTERVAL = 60_000;
/** Base64url of a SHA-256. */
const DIGEST_LENGTH = 43;
const FORMAT = /^([\w-]{43}) ([\w-]{43}|-)$/;
const LONGEST = DIGEST_LENGTH * 2 + 1;

const OTHER_SECRET =
  "an instance with the same Redis and key prefix has another secret: it shares neither verdicts nor overrides with this one";

export interface FingerprintOptions {
  readonly link: RedisLink;
  readonly key: string;
  readonly secret: Buffer;
  /** What clients encrypt to; compared between those who have one. */
  readonly publicKey?: string;
  readonly log: StoreLog;
}

export class Fingerprint implements Disposable {
  readonly #options: FingerprintOptions;
  readonly #secret: string;
  readonly #publicKey: string;
  readonly #timer: NodeJS.Timeout;
  #problems: readonly string[] = [];

  constructor(options: FingerprintOptions) {
    const { secret, publicKey } = options;
    this.#options = options;
    this.#secret = keyedDigest(secret, "fingerprint", []).toString("base64url");
    this.#publicKey = publicKey === undefined ? "-" : createHash("sha256").update(publicKey).digest("base64url");
    this.#timer = setInterval(() => void this.check(), INTERVAL).unref();
  }

  /** In words for an operator; a hint, for whoever can write to Redis has a say in it. */
  get problems(): readonly string[] {
    return this.#problems;
  }

  /** Leaves ours where there is none, and compares where there is. To be called each time that Redis has come back, too. Never rejects. */
  async check(): Promise<void> {
    const { link, key } = this.#options;
    const own = `${this.#secret} ${this.#publicKey}`;
    const made = await link.ask((redis) => redis.set(key, own, "PX", TTL, "NX"));
    if (typeof made !== "object") return;
    if (made.value !== null) return this.#report([]);
    const answer = await link.ask((redis) => redis.getrange(key, 0, LONGEST));
    if (answer === "away") return;
    const there = answer === "wrong type" ? "none" : answer.value;
    // It has expired in between.
    if (there === "") return;
    this.#report(there === own ? [] : this.#differences(there));
    if (there === own) await link.ask((redis) => redis.pexpire(key, TTL));
  }

  [Symbol.dispose](): void {
    clearInterval(this.#timer);
  }

  /** That others have another secret; undefined as far as is known. */
  get conflict(): string | undefined {
    return this.#problems.find((problem) => problem === OTHER_SECRET);
  }

  #differences(there: string): readonly string[] {
    const [, secret, publicKey] = FORMAT.exec(there) ?? [];
    if (secret === undefined || publicKey === undefined) return ["the fingerprint in Redis is none: something else writes there"];
    const problems: string[] = [];
    if (secret !== this.#secret) {
      problems.push(OTHER_SECRET);
    }
    if (publicKey !== this.#publicKey && publicKey !== "-" && this.#publicKey !== "-") {
      problems.push(
        "an instance with the same Redis and key prefix has another public key: what is encrypted for one, the other can't read",
      );
    }
    return problems;
  }

  #report(problems: readonly string[]): void {
    const news = problems.filter((problem) => !this.#problems.includes(problem));
    this.#problems = problems;
    for (const problem of news) this.#options.log.warn({}, problem);
  }
}
