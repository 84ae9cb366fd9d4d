/** What instances tell each other through Redis: hints from anybody who can reach it, to look again; never a verdict. */
import type { Redis } from "ioredis";
import type { RedisConnection } from "./redis-connection.ts";
import type { StoreLog } from "./redis-link.ts";

/** Bytes of the longest message that is sent or heeded. */
export const MAX_MESSAGE_BYTES = 1024;
/** Bytes of what comes in without being a message yet, after which the connection is given up: somebody publishes what we would have to hold. */
const MAX_PENDING_BYTES = 256 * 1024;
/** Channels of one command: its answers are as many, and count as bytes that are no message. */
const CHANNELS_AT_ONCE = 500;
/** Milliseconds between two questions whether the connection is still there; no answer ends it. */
const HEARTBEAT = 1000;
/** Milliseconds until the next try to connect. */
const RETRY = { step: 200, most: 2000 };

interface Subscription {
  readonly channel: string;
  readonly onMessage: (message: string) => void;
  readonly onListening: () => void;
}

/** A connection of its own, made for the first subscription and made anew whenever it is lost. Nothing here throws. */
export class RedisSubscriptions implements Disposable {
  readonly #connection: RedisConnection;
  readonly #log: StoreLog;
  readonly #channels = new Map<string, Set<Subscription>>();
  #redis: Redis | undefined;
  #pendingBytes = 0;
  #ready = false;
  #attempts = 0;
  #retry: NodeJS.Timeout | undefined;
  #heartbeat: NodeJS.Timeout | undefined;
  #problem: string | undefined;
  #closed = false;

  constructor(connection: RedisConnection, log: StoreLog) {
    this.#connection = connection;
    this.#log = log;
  }

  /** Why nothing is heard at the moment, in words for an operator. */
  get problem(): string | undefined {
    return this.#channels.size === 0 ? undefined : this.#problem;
  }

  /** @param onListening called each time that listening has begun: what was said until then may have been missed */
  subscribe(channel: string, onMessage: (message: string) => void, onListening: () => void): Disposable {
    const subscription: Subscription = { channel, onMessage, onListening };
    const others = this.#channels.get(channel);
    if (others === undefined) this.#channels.set(channel, new Set([subscription]));
    else others.add(subscription);
    if (this.#redis === undefined && this.#retry === undefined) this.#connect();
    else if (this.#ready) void this.#listen([channel], [subscription]);
    return { [Symbol.dispose]: () => this.#unsubscribe(subscription) };
  }

  [Symbol.dispose](): void {
    this.#closed = true;
    clearTimeout(this.#retry);
    clearInterval(this.#heartbeat);
    this.#channels.clear();
    this.#redis?.disconnect();
  }

  #connect(): void {
    this.#retry = undefined;
    if (this.#closed) return;
    const redis = this.#connection.openListener();
    this.#redis = redis;
    this.#pendingBytes = 0;
    redis.on("connect", () => {
      redis.stream.on("data", ({ length }: Buffer) => {
        this.#pendingBytes += length;
        if (this.#pendingBytes > MAX_PENDING_BYTES) redis.stream.destroy(new Error("a message is far too long"));
      });
    });
    redis.on("messageBuffer", (channel: Buffer, message: Buffer) => {
      this.#pendingBytes = 0;
      if (message.length > MAX_MESSAGE_BYTES) return;
      const subscriptions = [...(this.#channels.get(channel.toString()) ?? [])];
      for (const { onMessage } of subscriptions) this.#tell(() => onMessage(message.toString()));
    });
    redis.on("error", (error: unknown) => this.#lost(this.#connection.words(error)));
    redis.on("ready", () => {
      this.#ready = true;
      void this.#listenAgain(redis);
      this.#heartbeat = setInterval(() => void this.#beat(redis), HEARTBEAT).unref();
    });
    redis.on("end", () => {
      clearInterval(this.#heartbeat);
      this.#ready = false;
      this.#redis = undefined;
      if (this.#closed || this.#channels.size === 0) return;
      this.#lost("the connection was closed");
      this.#attempts += 1;
      this.#retry = setTimeout(() => this.#connect(), Math.min(this.#attempts * RETRY.step, RETRY.most)).unref();
    });
  }

  async #listenAgain(redis: Redis): Promise<void> {
    const channels = [...this.#channels.keys()];
    // Whoever comes later may be the first.
    if (channels.length === 0) this.#problem = undefined;
    for (let from = 0; from < channels.length && redis.status === "ready"; from += CHANNELS_AT_ONCE) {
      const some = channels.slice(from, from + CHANNELS_AT_ONCE).filter((channel) => this.#channels.has(channel));
      const subscriptions = some.flatMap((channel) => [...(this.#channels.get(channel) ?? [])]);
      if (some.length > 0) await this.#listen(some, subscriptions);
    }
  }

  async #beat(redis: Redis): Promise<void> {
    try {
      await redis.ping();
      this.#pendingBytes = 0;
    } catch {
      // Silence ends the connection by itself.
    }
  }

  /** Tells `subscriptions` once Redis has confirmed their channels. */
  async #listen(channels: readonly string[], subscriptions: readonly Subscription[]): Promise<void> {
    const redis = this.#redis;
    if (redis === undefined) return;
    try {
      await redis.subscribe(...channels);
    } catch (error) {
      this.#refused(error);
      // Tried again with the next connection.
      redis.disconnect();
      return;
    }
    // Answers come one after the other: what came in before is no part of a message.
    this.#pendingBytes = 0;
    this.#problem = undefined;
    this.#attempts = 0;
    for (const subscription of subscriptions) {
      if (this.#channels.get(subscription.channel)?.has(subscription) === true) this.#tell(subscription.onListening);
    }
  }

  #refused(error: unknown): void {
    const why = this.#connection.words(error);
    if (this.#problem === undefined && error instanceof Error && error.name === "ReplyError") {
      this.#log.warn({ redis: this.#connection.address, why }, "Redis refuses to pass on messages");
    }
    this.#lost(why);
  }

  #unsubscribe(subscription: Subscription): void {
    const { channel } = subscription;
    const others = this.#channels.get(channel);
    if (others?.delete(subscription) !== true || others.size > 0) return;
    this.#channels.delete(channel);
    if (this.#ready && this.#redis !== undefined) this.#redis.unsubscribe(channel).catch(() => undefined);
  }

  /** Whatever it makes of it, it must not end the process: anybody can send anything. */
  #tell(listener: () => void): void {
    try {
      listener();
    } catch (error) {
      this.#log.warn({ why: this.#connection.words(error) }, "a message from Redis could not be dealt with");
    }
  }

  #lost(why: string): void {
    if (this.#closed) return;
    this.#problem ??= `no messages from other instances: ${why}`;
  }
}
