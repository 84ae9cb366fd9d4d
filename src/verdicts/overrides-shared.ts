/** Overrides that all instances share, in a hash in Redis. */
import { setTimeout as sleep } from "node:timers/promises";
import type { VerdictKeys } from "./keys.ts";
import { Hints } from "./overrides-hints.ts";
import { fieldName, MAX_OVERRIDES, OverrideLedger, type OverrideRecord } from "./overrides-ledger.ts";
import { asideWords, learnAll, NONE_ASIDE, type ReadOverride, type SetAside } from "./overrides-learning.ts";
import { StandingProblems } from "./overrides-problems.ts";
import {
  announce,
  changedAfter,
  isHint,
  OVERRIDES,
  overridesHash,
  readRevision,
  type Revision,
  type SharedRecords,
} from "./overrides-shared-hash.ts";
import { inTurns } from "./overrides-turns.ts";
import type { Override, OverrideSource } from "./overrides.ts";
import type { StoreLog } from "./redis-link.ts";
import type { SealedHash } from "./sealed-hash.ts";

export interface SharedOverridesOptions {
  /** Closed by whoever opened them. */
  readonly records: SharedRecords;
  readonly keys: VerdictKeys;
  readonly log: StoreLog;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** Milliseconds between two looks for another revision, should a message have been lost. */
const LOOK_INTERVAL = 3000;
/** Milliseconds between two looks. */
const LEAST_INTERVAL = 100;
/** Milliseconds after which all are read again, whatever the revision says: whoever changes it last may have died before, and Redis may lose some. */
const READ_INTERVAL = 60_000;
/** Milliseconds between two times that all are read, unless a revision that is new asks for it: whoever writes to Redis could have it done over and over. */
const READ_PAUSE = 10_000;
const FAILED_PAUSE = 1000;
/** Of the time that reading all takes, the next pause is so many times. */
const READ_SHARE = 9;
/** Milliseconds between two times that Redis gets back what it has lost: somebody may be at it to remove it. */
const RESTORE_INTERVAL = 60_000;
/** Milliseconds without an answer after which an operator is told. */
const SILENCE = 15_000;
/** Milliseconds between two tries to read for the first time, and between two lines in the log meanwhile. */
const FIRST_INTERVAL = 50;
const FIRST_TELL = 5000;

/** What this process has read once stands, whatever becomes of Redis or is written there, until a newer override that is sealed with the secret comes. */
export class SharedOverrides implements OverrideSource {
  readonly #records: SharedRecords;
  readonly #log: StoreLog;
  readonly #now: () => number;
  readonly #hash: SealedHash<ReadOverride>;
  readonly #ledger: OverrideLedger;
  readonly #problems: StandingProblems;
  readonly #hints: Hints;
  readonly #closed = new AbortController();
  readonly #subscription: Disposable;
  readonly #timer: NodeJS.Timeout;
  /** The one up to which all is known here; and the latest that was ever there. */
  #revision: number | undefined;
  #latest = -1;
  /** When it was last known that nothing had changed. */
  #currentAt = -Infinity;
  /** By a clock that nobody sets: when all were read, and when a piece of it was. */
  #readAt = -Infinity;
  #progressAt = performance.now();
  #readAgainAt = -Infinity;
  #restoredAt = -Infinity;
  #aside: SetAside = NONE_ASIDE;
  /** A look is wanted; all are to be read; the last time that this was tried, it failed. */
  #wanted = false;
  #readDue = true;
  #readFailed = false;
  #working = false;
  #restoring = false;

  /** Begins to read at once, and goes on until it is disposed of. */
  constructor({ records, keys, log, now = Date.now }: SharedOverridesOptions) {
    this.#records = records;
    this.#log = log;
    this.#now = now;
    this.#hash = overridesHash(records, keys);
    this.#ledger = new OverrideLedger(now);
    this.#problems = new StandingProblems(log);
    this.#hints = new Hints(async (fields) => void (await this.#readFields(fields)));
    this.#subscription = records.subscribe(
      OVERRIDES,
      (message) => {
        if (isHint(message)) this.#hints.add(message);
      },
      () => {
        this.#readDue = true;
        this.#want();
      },
    );
    this.#timer = setInterval(() => this.#want(), LOOK_INTERVAL).unref();
    this.#want();
  }

  /**
   * Resolves once all have been read, or when there is no more time: a Redis that is away keeps no gateway from starting.
   * @param patience milliseconds in which nothing is read, after which there is no more time either
   */
  async firstRead(limit: AbortSignal, patience = Infinity): Promise<void> {
    const signal = AbortSignal.any([limit, this.#closed.signal]);
    let tellAt = performance.now() + FIRST_TELL;
    while (this.#readAt === -Infinity && !signal.aborted && performance.now() - this.#progressAt < patience) {
      this.#want();
      await sleep(FIRST_INTERVAL, undefined, { signal }).catch(() => undefined);
      if (performance.now() < tellAt) continue;
      tellAt = performance.now() + FIRST_TELL;
      this.#log.info({}, "overrides are still being read from Redis; nothing is served before they are known");
    }
  }

  /** Takes over what was made elsewhere; Redis gets it, too. */
  async adopt(overrides: Iterable<ReadOverride>): Promise<void> {
    await learnAll(this.#ledger, overrides);
    this.#readDue = true;
    this.#want();
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
    this.#hints[Symbol.dispose]();
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
    const revision = await readRevision(this.#records);
    if (revision === undefined) {
      if ((await this.#hash.length()) === undefined) return;
      // It is lost, and maybe overrides with it.
      if (this.#revision !== undefined) this.#readDue = true;
    }
    const isNew = revision !== undefined && revision.at > this.#latest;
    const changed = isNew ? changedAfter(this.#revision, revision) : undefined;
    if (changed !== undefined) {
      if (!(await this.#readFields(changed))) return;
      this.#known(revision);
    }
    if (this.#mayReadAll(isNew && changed === undefined)) await this.#readAll(revision);
    if (!this.#readFailed) this.#currentAt = this.#now();
  }

  /** @param isGap a revision that is new does not tell all that has changed */
  #mayReadAll(isGap: boolean): boolean {
    if (isGap && !this.#readFailed) return true;
    const now = performance.now();
    return (isGap || this.#readDue || now - this.#readAt > READ_INTERVAL) && now >= this.#readAgainAt;
  }

  #known(revision: Revision | undefined): void {
    this.#revision = revision?.at;
    this.#latest = Math.max(this.#latest, revision?.at ?? -1);
  }

  /** Whether all of them could be. */
  async #readFields(fields: readonly string[]): Promise<boolean> {
    for (const field of fields) {
      const found = await this.#hash.get(field);
      if (found === "away") return false;
      if (found.record !== undefined) await learnAll(this.#ledger, [found.record]);
    }
    return true;
  }

  /** @param revision what it was before: a change in the meantime is read once more */
  async #readAll(revision: Revision | undefined): Promise<void> {
    const begun = performance.now();
    this.#readDue = false;
    const entries = await this.#hash.entries(() => (this.#progressAt = performance.now()));
    this.#readFailed = entries === undefined;
    if (entries === undefined) this.#readDue = true;
    else {
      this.#aside = await learnAll(this.#ledger, entries.values());
      this.#known(revision);
      this.#readAt = performance.now();
    }
    const took = performance.now() - begun;
    const pause = Math.max(this.#readFailed ? FAILED_PAUSE : READ_PAUSE, READ_SHARE * took);
    this.#readAgainAt = performance.now() + (this.#readAt === -Infinity ? took : pause);
    if (entries !== undefined) void this.#restore(entries);
  }

  /** What Redis has lost, or has an older one in place of, it gets back: other instances have yet to start. */
  async #restore(entries: ReadonlyMap<string, ReadOverride>): Promise<void> {
    if (this.#restoring || performance.now() - this.#restoredAt < RESTORE_INTERVAL) return;
    this.#restoring = true;
    const restored = await this.#putBack(entries);
    this.#restoring = false;
    if (restored === 0) return;
    this.#restoredAt = performance.now();
    this.#log.warn({ overrides: restored }, "Redis lacked overrides that are known here; they are written there again");
    await announce(this.#records, this.#now());
  }

  async #putBack(entries: ReadonlyMap<string, ReadOverride>): Promise<number> {
    let restored = 0;
    for await (const known of inTurns(this.#ledger.standing())) {
      const { digest, record } = known;
      const field = fieldName(record.kind, digest);
      if (isAsNew(entries.get(field), record)) continue;
      if (this.#closed.signal.aborted) break;
      const result = await this.#hash.exchange(field, record, record.expiresAt, (there) => isAsNew(there, record));
      if (result === "away") break;
      if (result === "set") restored += 1;
      else await learnAll(this.#ledger, [result.stands]);
    }
    return restored;
  }

  #tell(): void {
    const isSilent = this.#readAt > -Infinity && this.#now() - this.#currentAt > SILENCE;
    this.#problems.set([
      ...(isSilent ? ["overrides can't be read from Redis: those that were made in the meantime are not known"] : []),
      ...asideWords(this.#aside, MAX_OVERRIDES),
    ]);
  }
}

function isAsNew(there: ReadOverride | undefined, record: OverrideRecord): boolean {
  return there?.digest !== undefined && there.record.at >= record.at;
}
