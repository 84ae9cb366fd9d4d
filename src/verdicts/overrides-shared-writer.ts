/** Changes the overrides in Redis. */
import { setTimeout as sleep } from "node:timers/promises";
import type { VerdictKeys } from "./keys.ts";
import {
  fieldName,
  isEarly,
  MAX_CLOCK_SKEW,
  MAX_OVERRIDES,
  OVERRIDE_KINDS,
  type OverrideChange,
  OverrideLedger,
  type OverrideRecord,
} from "./overrides-ledger.ts";
import { asideWords, learnAll, type ReadOverride } from "./overrides-learning.ts";
import { announce, overridesHash, type SharedRecords } from "./overrides-shared-hash.ts";
import { earlyError, type KeptOverrides, type OverrideWriter } from "./overrides-writer.ts";
import { OverrideError } from "./overrides.ts";
import type { SealedHash } from "./sealed-hash.ts";

export interface SharedOverrideWriterOptions {
  /** Closed by whoever opened them. */
  readonly records: SharedRecords;
  readonly keys: VerdictKeys;
  /** Why nobody would understand what is written, once Redis has answered: gateways with this Redis have another secret. Undefined when they have not. */
  readonly conflict?: () => string | undefined;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
  /** Contents that gateways keep at most. */
  readonly most?: number;
}

/** Milliseconds in which Redis has to answer: the connection is made meanwhile. */
const PATIENCE = 5000;
const RETRY = 50;
/** Commands that may change the same override at once. */
const RIVALS = 20;

export class SharedOverrideWriter implements OverrideWriter {
  readonly #records: SharedRecords;
  readonly #keys: VerdictKeys;
  readonly #hash: SealedHash<ReadOverride>;
  readonly #conflict: () => string | undefined;
  readonly #now: () => number;
  readonly #most: number;

  constructor({ records, keys, conflict = () => undefined, now = Date.now, most = MAX_OVERRIDES }: SharedOverrideWriterOptions) {
    this.#records = records;
    this.#keys = keys;
    this.#hash = overridesHash(records, keys);
    this.#conflict = conflict;
    this.#now = now;
    this.#most = most;
  }

  async read(): Promise<KeptOverrides> {
    const entries = await this.#answer(() => this.#hash.entries());
    const ledger = new OverrideLedger(this.#now, this.#most);
    const aside = await learnAll(ledger, entries.values());
    return this.#kept(ledger, asideWords(aside, this.#most));
  }

  async readOf(sha256: Buffer): Promise<KeptOverrides> {
    const ledger = new OverrideLedger(this.#now, this.#most);
    const aside = await learnAll(ledger, await this.#recordsOf(this.#keys.digest(sha256)));
    return this.#kept(ledger, asideWords(aside, this.#most));
  }

  async write(sha256: Buffer, change: OverrideChange): Promise<void> {
    const digest = this.#keys.digest(sha256);
    for (let rival = 0; rival <= RIVALS; rival += 1) {
      const known = await this.#recordsOf(digest);
      const time = await this.#time();
      const conflict = this.#conflict();
      if (conflict !== undefined) throw new OverrideError(conflict);
      if (known.length === 0) await this.#checkRoom(digest);
      const record = await this.#recordFor(known, sha256, change, time);
      const field = fieldName(record.kind, digest);
      const result = await this.#hash.exchange(field, record, record.expiresAt, (there) => there.record.at >= record.at);
      if (result === "away") throw new OverrideError(this.#words("Redis did not keep it"));
      if (result === "set") return announce(this.#records, time, field);
    }
    throw new OverrideError("others are changing it over and over: try again");
  }

  /** What a change makes of what is known. @throws OverrideError when it would not be the newest */
  async #recordFor(known: readonly ReadOverride[], sha256: Buffer, change: OverrideChange, time: number): Promise<OverrideRecord> {
    const digest = this.#keys.digest(sha256);
    const early = known.find(({ record }) => isEarly(record, time));
    if (early !== undefined) throw earlyError(early.record, `the field ${fieldName(early.record.kind, digest)} in Redis`);
    const ledger = new OverrideLedger(() => time);
    await learnAll(ledger, known);
    return ledger.recordOf(digest, sha256, change);
  }

  /**
   * Of this machine or of Redis, whichever is later: a change must be newer than the verdicts that it ends. @throws OverrideError when they differ by so
   * much that gateways, whose clocks Redis's is like, would take a change for one from the future.
   */
  async #time(): Promise<number> {
    const own = this.#now();
    // Where Redis does not let this user ask, there is nothing to compare.
    const theirs = (await this.#records.time()) ?? own;
    if (Math.abs(own - theirs) <= MAX_CLOCK_SKEW) return Math.max(own, theirs);
    const [here, there] = [own, theirs].map((time) => new Date(time).toISOString());
    throw new OverrideError(`this machine's clock says ${here}, and that of Redis ${there}: set them, or gateways may not heed the change`);
  }

  /** Counts only where there may be too many: every content has a field. */
  async #checkRoom(digest: string): Promise<void> {
    if ((await this.#answer(() => this.#hash.length())) < this.#most) return;
    const ledger = new OverrideLedger(this.#now, this.#most);
    await learnAll(ledger, (await this.#answer(() => this.#hash.entries())).values());
    const one: OverrideRecord = { kind: "forget", sha256: "", reason: "", at: 0 };
    if (ledger.learn(digest, one) === "no_room") throw new OverrideError(`Redis holds as many as are kept: ${this.#most}`);
  }

  async #recordsOf(digest: string): Promise<readonly ReadOverride[]> {
    const found: ReadOverride[] = [];
    for (const kind of OVERRIDE_KINDS) {
      const { record } = await this.#answer(async () => {
        const answer = await this.#hash.get(fieldName(kind, digest));
        return answer === "away" ? undefined : answer;
      });
      if (record?.digest !== undefined) found.push(record);
    }
    return found;
  }

  #kept(ledger: OverrideLedger, problems: readonly string[]): KeptOverrides {
    return { records: Array.from(ledger.standing(), ({ record }) => record), problems: [...problems, ...this.#records.health().problems] };
  }

  async #answer<T>(ask: () => Promise<T | undefined>): Promise<T> {
    for (let waited = 0; waited < PATIENCE; waited += RETRY) {
      const answer = await ask();
      if (answer !== undefined) return answer;
      if (this.#hash.problem !== undefined) break;
      await sleep(RETRY);
    }
    throw new OverrideError(this.#words("Redis can't be read"));
  }

  #words(what: string): string {
    return [what, ...this.#records.health().problems].join("; ");
  }
}
