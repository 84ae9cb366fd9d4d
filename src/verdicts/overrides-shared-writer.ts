/** Changes the overrides in Redis. */
import { setTimeout as sleep } from "node:timers/promises";
import type { VerdictKeys } from "./keys.ts";
import {
  digestOf,
  fieldName,
  isEarly,
  MAX_OVERRIDES,
  OVERRIDE_KINDS,
  type OverrideChange,
  OverrideLedger,
  type OverrideRecord,
  overrideFromJson,
} from "./overrides-ledger.ts";
import { setAside } from "./overrides-problems.ts";
import { announce, OVERRIDES, type SharedRecords } from "./overrides-shared.ts";
import { earlyError, type KeptOverrides, type OverrideWriter } from "./overrides-writer.ts";
import { OverrideError } from "./overrides.ts";

export interface SharedOverrideWriterOptions {
  /** Closed by whoever opened them. */
  readonly records: SharedRecords;
  readonly keys: VerdictKeys;
  /** Why nobody would understand what is written, once Redis has answered: gateways with this Redis have another secret. Undefined when they have not. */
  readonly conflict?: () => string | undefined;
  /** Milliseconds since the epoch. */
  readonly now?: () => number;
}

/** Milliseconds in which Redis has to answer: the connection is made meanwhile. */
const PATIENCE = 5000;
const RETRY = 50;

interface Contents {
  readonly entries: ReadonlyMap<string, OverrideRecord>;
  readonly ledger: OverrideLedger;
  readonly problems: readonly string[];
}

export class SharedOverrideWriter implements OverrideWriter {
  readonly #records: SharedRecords;
  readonly #keys: VerdictKeys;
  readonly #conflict: () => string | undefined;
  readonly #now: () => number;

  constructor({ records, keys, conflict = () => undefined, now = Date.now }: SharedOverrideWriterOptions) {
    this.#records = records;
    this.#keys = keys;
    this.#conflict = conflict;
    this.#now = now;
  }

  async read(): Promise<KeptOverrides> {
    const { ledger, problems } = await this.#contents();
    return { records: Array.from(ledger.standing(), ({ record }) => record), problems };
  }

  async write(sha256: Buffer, change: OverrideChange): Promise<void> {
    const { entries, ledger } = await this.#contents();
    const digest = this.#keys.digest(sha256);
    for (const kind of OVERRIDE_KINDS) {
      const known = entries.get(fieldName(kind, digest));
      if (known !== undefined && isEarly(known, this.#now())) throw earlyError(known, `the field ${fieldName(kind, digest)} in Redis`);
    }
    const record = ledger.recordOf(digest, sha256, change);
    if (ledger.learn(digest, record) !== "new") throw new OverrideError(`Redis holds as many as are kept: ${MAX_OVERRIDES}`);
    const field = fieldName(record.kind, digest);
    const conflict = this.#conflict();
    if (conflict !== undefined) throw new OverrideError(conflict);
    if (!(await this.#records.hashSet(OVERRIDES, field, record, record.expiresAt)))
      throw new OverrideError(this.#words("Redis did not keep it"));
    await announce(this.#records);
  }

  async #contents(): Promise<Contents> {
    const entries = await this.#entries();
    const ledger = new OverrideLedger(this.#now);
    const aside = { early: 0, unplaced: 0, misplaced: 0 };
    for (const [field, record] of entries) {
      const digest = digestOf(field, record, this.#keys);
      const learned = digest === undefined ? "misplaced" : ledger.learn(digest, record);
      if (learned === "misplaced") aside.misplaced += 1;
      if (learned === "early") aside.early += 1;
      if (learned === "no_room") aside.unplaced += 1;
    }
    if (aside.misplaced > 0) throw new OverrideError("what Redis holds was made under another secret");
    return { entries, ledger, problems: [...setAside(aside.early, aside.unplaced, MAX_OVERRIDES), ...this.#records.health().problems] };
  }

  async #entries(): Promise<ReadonlyMap<string, OverrideRecord>> {
    for (let waited = 0; waited < PATIENCE; waited += RETRY) {
      const entries = await this.#records.hashEntries(OVERRIDES, overrideFromJson);
      if (entries !== undefined) return entries;
      await sleep(RETRY);
    }
    throw new OverrideError(this.#words("Redis can't be read"));
  }

  #words(what: string): string {
    return [what, ...this.#records.health().problems].join("; ");
  }
}
