/** Overrides that all instances share, in a hash in Redis. */
import { randomUUID } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { z } from "zod";
import type { VerdictKeys } from "./keys.ts";
import { digestOf, fieldName, MAX_OVERRIDES, OverrideLedger, type OverrideRecord, overrideFromJson } from "./overrides-ledger.ts";
import { inTurns } from "./overrides-turns.ts";
import { counted, setAside, StandingProblems } from "./overrides-problems.ts";
import type { Override, OverrideSource } from "./overrides.ts";
import type { StoreLog } from "./redis-link.ts";
import type { RedisRecords } from "./redis-records.ts";

export type SharedRecords = Pick<RedisRecords, "get" | "set" | "publish" | "subscribe" | "hashEntries" | "hashSet" | "health">;

export interface SharedOverridesOptions {
  /** Closed by whoever opened them. */
  readonly records: SharedRecords;
  readonly keys: VerdictKeys;
  readonly log: StoreLog;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** The hash of all overrides, and the channel on which it is said that it changed. */
export const OVERRIDES = "overrides";
/** Another text after every change, so that nobody reads all overrides again for nothing. */
const REVISION = "overrides-revision";
/** Milliseconds: ten years. */
const REVISION_LIFETIME = 10 * 365 * 24 * 60 * 60 * 1000;

/** Milliseconds between two looks for another revision, should a message have been lost. */
const LOOK_INTERVAL = 3000;
/** Milliseconds between two looks that messages ask for: anybody can send them. */
const LEAST_INTERVAL = 100;
/** Milliseconds after which all are read again, whatever the revision says: whoever changes it last may have died before, and Redis may lose some. */
const READ_INTERVAL = 60_000;
/** Milliseconds between two times that Redis gets back what it has lost: somebody may be at it to remove it. */
const RESTORE_INTERVAL = 60_000;
/** Milliseconds without an answer after which an operator is told. */
const SILENCE = 15_000;
/** Milliseconds between two tries to read for the first time. */
const FIRST_INTERVAL = 50;

function revisionFrom(content: unknown): string | undefined {
  return z.string().max(100).safeParse(content).data;
}

/** What this process has read once stands, whatever becomes of Redis or is written there, until a newer override that is sealed with the secret comes. */
export class SharedOverrides implements OverrideSource {
  readonly #records: SharedRecords;
  readonly #keys: VerdictKeys;
  readonly #log: StoreLog;
  readonly #now: () => number;
  readonly #ledger: OverrideLedger;
  readonly #problems: StandingProblems;
  readonly #closed = new AbortController();
  readonly #subscription: Disposable;
  readonly #timer: NodeJS.Timeout;
  #revision: string | undefined;
  /** When all were read; and when it was last known that nothing had changed since. */
  #readAt = -Infinity;
  #currentAt = -Infinity;
  #restoredAt = -Infinity;
  #aside = { early: 0, unplaced: 0, misplaced: 0 };
  /** A look is wanted; and it is not to trust the revision. */
  #wanted = false;
  #readDue = true;
  #working = false;

  /** Begins to read at once, and goes on until it is disposed of. */
  constructor({ records, keys, log, now = Date.now }: SharedOverridesOptions) {
    this.#records = records;
    this.#keys = keys;
    this.#log = log;
    this.#now = now;
    this.#ledger = new OverrideLedger(now);
    this.#problems = new StandingProblems(log);
    this.#subscription = records.subscribe(
      OVERRIDES,
      () => this.#want(),
      () => {
        this.#readDue = true;
        this.#want();
      },
    );
    this.#timer = setInterval(() => this.#want(), LOOK_INTERVAL).unref();
    this.#want();
  }

  /** Resolves once all have been read, or when there is no more time: a Redis that is away keeps no gateway from starting. */
  async firstRead(limit: AbortSignal): Promise<void> {
    const signal = AbortSignal.any([limit, this.#closed.signal]);
    while (this.#readAt === -Infinity && !signal.aborted) {
      this.#want();
      await sleep(FIRST_INTERVAL, undefined, { signal }).catch(() => undefined);
    }
  }

  of(digest: string): Override | undefined {
    return this.#ledger.of(digest);
  }

  forgottenAt(digest: string): number {
    return this.#ledger.forgottenAt(digest);
  }

  get allowsAny(): boolean {
    return this.#ledger.allowsAny;
  }

  health(): { readonly degraded: boolean; readonly problems: readonly string[] } {
    const { degraded, problems } = this.#problems.health();
    if (this.#readAt > -Infinity) return { degraded, problems };
    return { degraded: true, problems: ["overrides have not been read yet: what operators blocked or allowed is not known"] };
  }

  [Symbol.asyncDispose](): Promise<void> {
    this.#closed.abort();
    clearInterval(this.#timer);
    this.#subscription[Symbol.dispose]();
    return Promise.resolve();
  }

  #want(): void {
    this.#wanted = true;
    if (!this.#working) void this.#work();
  }

  async #work(): Promise<void> {
    this.#working = true;
    while (this.#wanted && !this.#closed.signal.aborted) {
      this.#wanted = false;
      await this.#look();
      this.#tell();
      if (this.#wanted) await sleep(LEAST_INTERVAL, undefined, { ref: false });
    }
    this.#working = false;
  }

  async #look(): Promise<void> {
    const revision = (await this.#records.get(REVISION, revisionFrom))?.record;
    const isOld = this.#now() - this.#readAt > READ_INTERVAL;
    if (this.#readDue || isOld || revision === undefined || revision !== this.#revision) await this.#read(revision);
    else this.#currentAt = this.#now();
  }

  /** @param revision what it was before: a change in the meantime is read once more */
  async #read(revision: string | undefined): Promise<void> {
    this.#readDue = false;
    const entries = await this.#records.hashEntries(OVERRIDES, overrideFromJson);
    if (entries === undefined) {
      this.#readDue = true;
      return;
    }
    await this.#learn(entries);
    this.#revision = revision;
    this.#readAt = this.#now();
    this.#currentAt = this.#readAt;
    await this.#restore(entries);
  }

  async #learn(entries: ReadonlyMap<string, OverrideRecord>): Promise<void> {
    const aside = { early: 0, unplaced: 0, misplaced: 0 };
    for await (const [field, record] of inTurns(entries)) {
      const digest = digestOf(field, record, this.#keys);
      const learned = digest === undefined ? "misplaced" : this.#ledger.learn(digest, record);
      if (learned === "misplaced") aside.misplaced += 1;
      if (learned === "early") aside.early += 1;
      if (learned === "no_room") aside.unplaced += 1;
    }
    this.#aside = aside;
  }

  /** What Redis has lost, or has an older one in place of, it gets back: other instances have yet to start. */
  async #restore(entries: ReadonlyMap<string, OverrideRecord>): Promise<void> {
    if (this.#now() - this.#restoredAt < RESTORE_INTERVAL) return;
    let restored = 0;
    for await (const { digest, record } of inTurns(this.#ledger.standing())) {
      const field = fieldName(record.kind, digest);
      if ((entries.get(field)?.at ?? -1) >= record.at) continue;
      if (this.#closed.signal.aborted) return;
      if (!(await this.#records.hashSet(OVERRIDES, field, record, record.expiresAt))) break;
      restored += 1;
    }
    if (restored === 0) return;
    this.#restoredAt = this.#now();
    this.#log.warn({ overrides: restored }, "Redis had lost overrides that are known here; they are written there again");
    await announce(this.#records);
  }

  #tell(): void {
    const { early, unplaced, misplaced } = this.#aside;
    const isSilent = this.#readAt > -Infinity && this.#now() - this.#currentAt > SILENCE;
    this.#problems.set([
      ...(isSilent ? ["overrides can't be read from Redis: those that were made in the meantime are not known"] : []),
      ...setAside(early, unplaced, MAX_OVERRIDES),
      ...(misplaced === 0 ? [] : [`${counted(misplaced, "override")} ignored: made under another secret`]),
    ]);
  }
}

/** Says that something has changed. */
export async function announce(records: SharedRecords): Promise<void> {
  await records.set(REVISION, randomUUID(), REVISION_LIFETIME);
  await records.publish(OVERRIDES, "");
}
