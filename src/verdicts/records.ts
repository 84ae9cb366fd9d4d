/** What processes keep for each other, and how they take turns: in Redis, or with the process that has started them. */

import type { Lease } from "./lease.ts";

/** What readiness says of it. */
export interface RecordsHealth {
  readonly degraded: boolean;
  readonly problems: readonly string[];
}

/** Undefined for what is not a sound record. */
export type ParseRecord<T> = (content: unknown) => T | undefined;

/** A record, and when it expires (ms since the epoch). */
export interface Found<T> {
  readonly record: T;
  readonly expiresAt: number;
}

/** Which record that is there already is not to be replaced. */
export interface Standing<T> {
  readonly parse: ParseRecord<T>;
  readonly stays: (found: Found<T>) => boolean;
}

/**
 * Nothing here rejects, or takes longer than a small limit of its own: what can't be asked knows nothing, and keeps nobody waiting. A record is
 * what JSON can say.
 */
export interface Records {
  /** The record under a name, if it can be had. */
  get<T>(name: string, parse: ParseRecord<T>): Promise<Found<T> | undefined>;
  /** The record under a name, if it is ours, sound and not expired; or why there is none: `away`, that can't be found out. */
  look<T>(name: string, parse: ParseRecord<T>): Promise<Found<T> | "nothing" | "away">;
  /** @param ttl milliseconds; with less than one, what was there is removed */
  set(name: string, record: unknown, ttl: number): Promise<void>;
  /** As `set`, unless what is there already `stays`: then that comes back. Nothing can come in between. */
  setUnless<T>(name: string, record: unknown, ttl: number, standing: Standing<T>): Promise<Found<T> | undefined>;
  /** Returns whether it is gone. */
  delete(name: string): Promise<boolean>;
  /**
   * The right to do what this name stands for; `taken` while another one has it. Where nobody can be asked, everybody has the right. Whoever gets
   * it must let go of it; one that is not (its process died) ends after `ttl` milliseconds, or sooner.
   */
  lease(name: string, ttl: number): Promise<Lease | "taken">;
  /**
   * All records of a hash that are ours, sound and not expired, by field. Undefined when that can't be found out; what is not among them may
   * have been removed.
   */
  hashEntries<T>(name: string, parse: ParseRecord<T>): Promise<ReadonlyMap<string, T> | undefined>;
  /**
   * @param field at most 128 bytes
   * @param record at most about 4000 bytes of JSON
   * @param expiresAt ms since the epoch; never, without it
   * @returns whether it is kept now
   */
  hashSet(name: string, field: string, record: unknown, expiresAt?: number): Promise<boolean>;
  /** A hint to all who listen, this process too, and no more than a hint. What is longer than 1 KiB is not sent. */
  publish(channel: string, message: string): Promise<void>;
  /**
   * @param listener gets what was sent, at most 1 KiB, and maybe never gets what was sent
   * @param onReconnect called each time that listening has begun, the first one too: what was sent until then may have been missed
   */
  subscribe(channel: string, listener: (message: string) => void, onReconnect?: () => void): Disposable;
  health(): RecordsHealth;
}
