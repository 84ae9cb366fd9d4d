/** The connection to a Redis that may be away, hung or refusing: what is asked of it takes little time, and never fails. */
import { Redis } from "ioredis";

export interface StoreLog {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

export interface RedisLinkOptions {
  /** `redis://`, or `rediss://` for TLS. */
  readonly url: string;
  readonly password?: string;
  readonly log: StoreLog;
  readonly now: () => number;
}

/** Milliseconds that one operation may take. */
const OPERATION_LIMIT = 250;
/** Milliseconds between two tries to find out whether a Redis that did not answer in time does again. */
const PROBE_INTERVAL = 1000;
/** Milliseconds of silence, with an answer due, after which the connection is given up and made anew. */
const SILENCE_LIMIT = 1000;
/** Milliseconds between two lines in the log about errors that Redis answers with, and for which `problem` tells of the last. */
const REFUSAL_INTERVAL = 60_000;
const MAX_WORDS = 200;

/** What came back; or why nothing did: `away` is logged and shown in `problem` by the link itself. */
export type LinkAnswer<T> = { readonly value: T } | "away" | "wrong type";

export class RedisLink {
  readonly #redis: Redis;
  readonly #log: StoreLog;
  readonly #now: () => number;
  readonly #address: string;
  /** Why nothing is asked of it at the moment. */
  #away: string | undefined = "not connected yet";
  #awayLogged = false;
  #probe: NodeJS.Timeout | undefined;
  /** It is there, but answered with an error: out of memory, read-only. */
  #refusal: { readonly words: string; readonly at: number } | undefined;
  #refusalLogged = -Infinity;
  #closing = false;

  constructor(options: RedisLinkOptions) {
    this.#log = options.log;
    this.#now = options.now;
    this.#redis = new Redis(options.url, {
      ...(options.password === undefined ? {} : { password: options.password }),
      commandTimeout: OPERATION_LIMIT,
      socketTimeout: SILENCE_LIMIT,
      connectTimeout: 2000,
      disconnectTimeout: 500,
      // What can't be asked now is not asked later: nothing queues up while it is away.
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
      maxRetriesPerRequest: 0,
      retryStrategy: (attempt) => Math.min(attempt * 200, 2000),
    });
    const { path, host, port } = this.#redis.options;
    this.#address = path ?? `${host}:${port}`;
    this.#redis.on("ready", () => this.#found());
    this.#redis.on("error", (error) => this.#lost(words(error)));
    // Comes after the error that says why, if there was one.
    this.#redis.on("close", () => this.#lost(this.#away ?? "the connection was closed"));
  }

  /** Why it can't be used at the moment, in words for an operator. */
  get problem(): string | undefined {
    const refused = this.#refusal !== undefined && this.#now() - this.#refusal.at < REFUSAL_INTERVAL ? this.#refusal.words : undefined;
    const why = this.#away ?? refused;
    return why === undefined ? undefined : `Redis at ${this.#address}: ${why}`;
  }

  /** Never rejects, and takes no longer than the limit of one operation; while Redis is known to be away, no time at all. */
  async ask<T>(operation: (redis: Redis) => Promise<T>): Promise<LinkAnswer<T>> {
    if (this.#away !== undefined || this.#redis.status !== "ready") return "away";
    try {
      return { value: await operation(this.#redis) };
    } catch (error) {
      if (!(error instanceof Error && error.name === "ReplyError")) this.#lost(words(error));
      // The first word of an error reply is its code.
      else if (error.message.startsWith("WRONGTYPE ")) return "wrong type";
      else this.#refused(words(error));
      return "away";
    }
  }

  close(): void {
    this.#closing = true;
    clearInterval(this.#probe);
    this.#redis.disconnect();
  }

  #lost(why: string): void {
    if (this.#closing) return;
    this.#away = why;
    this.#probe ??= setInterval(() => void this.#ping(), PROBE_INTERVAL).unref();
    if (this.#awayLogged) return;
    this.#awayLogged = true;
    this.#log.warn({ redis: this.#address, why }, "Redis can't be used; verdicts are kept in this process only");
  }

  /** A connection that was kept, for it answered late and not never. A new one reports itself. */
  async #ping(): Promise<void> {
    if (this.#redis.status !== "ready") return;
    try {
      await this.#redis.ping();
      this.#found();
    } catch {
      // Still away.
    }
  }

  #found(): void {
    clearInterval(this.#probe);
    this.#probe = undefined;
    this.#away = undefined;
    if (!this.#awayLogged) return;
    this.#awayLogged = false;
    this.#log.info({ redis: this.#address }, "Redis can be used again");
  }

  #refused(why: string): void {
    this.#refusal = { words: why, at: this.#now() };
    if (this.#now() - this.#refusalLogged < REFUSAL_INTERVAL) return;
    this.#refusalLogged = this.#now();
    this.#log.warn({ redis: this.#address, why }, "Redis refuses to keep or give verdicts");
  }
}

/** Text alone, never the error itself: an error reply carries its command, and that may be AUTH. */
function words(error: unknown): string {
  if (!(error instanceof Error)) return "unknown error";
  const text = "code" in error && typeof error.code === "string" ? error.code : error.message;
  return JSON.stringify(text.slice(0, MAX_WORDS)).slice(1, -1);
}
