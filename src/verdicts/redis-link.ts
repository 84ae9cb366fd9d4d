/** The connection to a Redis that may be away, hung or refusing: what is asked of it takes little time, and never fails. */
import type { RedisCommands, RedisConnection } from "./redis-connection.ts";
import { within } from "./within.ts";

export interface StoreLog {
  info(details: object, message: string): void;
  warn(details: object, message: string): void;
}

export interface RedisLinkOptions {
  readonly connection: RedisConnection;
  readonly log: StoreLog;
  readonly now: () => number;
  /** Told each time that Redis can be used, after it could not. */
  readonly onFound?: () => void;
}

/** Milliseconds between two tries to find out whether a Redis that did not answer does again. */
const PROBE_INTERVAL = 1000;
/** Milliseconds between two lines in the log about errors that Redis answers with, and for which `problem` tells of the last. */
const REFUSAL_INTERVAL = 60_000;

/** What came back; or why nothing did: `away` is logged and shown in `problem` by the link itself. */
export type LinkAnswer<T> = { readonly value: T } | "away" | "wrong type";

export class RedisLink {
  readonly #connection: RedisConnection;
  readonly #log: StoreLog;
  readonly #now: () => number;
  readonly #onFound: () => void;
  /** Why nothing is asked of it at the moment. */
  #away: string | undefined = "not connected yet";
  #awayLogged = false;
  #timer: NodeJS.Timeout | undefined;
  #probing = false;
  /** It is there, but answered with an error: out of memory, read-only. */
  #refusal: { readonly words: string; readonly at: number } | undefined;
  #refusalLogged = -Infinity;
  #closing = false;

  /** Closes the connection when it is closed itself. */
  constructor({ connection, log, now, onFound }: RedisLinkOptions) {
    this.#connection = connection;
    this.#log = log;
    this.#now = now;
    this.#onFound = onFound ?? (() => undefined);
    const { client } = connection;
    client.on("ready", () => void this.#probe());
    // A node of a Cluster that is gone, be it for good: what it held may be away.
    client.on("-node", () => void (this.#away === undefined && this.#probe()));
    client.on("error", (error: unknown) => this.#lost(connection.words(error)));
    // Comes after the error that says why, if there was one.
    client.on("close", () => this.#lost(this.#away ?? "the connection was closed"));
  }

  /** Why it can't be used at the moment, in words for an operator. */
  get problem(): string | undefined {
    const refused = this.#refusal !== undefined && this.#now() - this.#refusal.at < REFUSAL_INTERVAL ? this.#refusal.words : undefined;
    const why = this.#away ?? refused;
    return why === undefined ? undefined : `Redis at ${this.#connection.address}: ${why}`;
  }

  get away(): boolean {
    return this.#away !== undefined;
  }

  /** Never rejects, and takes no longer than the limit of one operation; while Redis is known to be away, no time at all. */
  async ask<T>(operation: (redis: RedisCommands) => Promise<T>): Promise<LinkAnswer<T>> {
    const { client } = this.#connection;
    if (this.#away !== undefined || client.status !== "ready") return "away";
    const sent = this.#connection.gather();
    try {
      return { value: await within(this.#connection.limit, operation(client), sent) };
    } catch (error) {
      // The first word of an error reply is its code. A Cluster that is down says so for some keys only; all of it is let be until it is whole.
      const code = error instanceof Error && error.name === "ReplyError" ? error.message.split(" ", 1)[0] : undefined;
      if (code === undefined || code === "CLUSTERDOWN") this.#lost(this.#connection.words(error));
      else if (code === "WRONGTYPE") return "wrong type";
      else this.#refused(this.#connection.words(error));
      return "away";
    }
  }

  close(): void {
    this.#closing = true;
    clearInterval(this.#timer);
    this.#connection.client.disconnect();
  }

  #lost(why: string): void {
    if (this.#closing) return;
    this.#away = why;
    this.#timer ??= setInterval(() => void this.#probe(), PROBE_INTERVAL).unref();
    if (this.#awayLogged) return;
    this.#awayLogged = true;
    this.#log.warn({ redis: this.#connection.address, why }, "Redis can't be used; verdicts are kept in this process only");
  }

  /** A connection may have been kept, for it answered late and not never; a new one reports itself. */
  async #probe(): Promise<void> {
    if (this.#probing || this.#closing || this.#connection.client.status !== "ready") return;
    this.#probing = true;
    try {
      await this.#connection.probe();
      this.#found();
    } catch (error) {
      this.#lost(this.#connection.words(error));
    } finally {
      this.#probing = false;
    }
  }

  #found(): void {
    if (this.#closing || this.#away === undefined) return;
    clearInterval(this.#timer);
    this.#timer = undefined;
    this.#away = undefined;
    if (this.#awayLogged) this.#log.info({ redis: this.#connection.address }, "Redis can be used again");
    this.#awayLogged = false;
    this.#onFound();
  }

  #refused(why: string): void {
    this.#refusal = { words: why, at: this.#now() };
    if (this.#now() - this.#refusalLogged < REFUSAL_INTERVAL) return;
    this.#refusalLogged = this.#now();
    this.#log.warn({ redis: this.#connection.address, why }, "Redis refuses to keep or give verdicts");
  }
}
