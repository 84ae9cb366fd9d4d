/** Records that belong together: the fields of a hash in Redis, each sealed under its own name. */
import { inTurns } from "./overrides-turns.ts";
import type { RecordCodec } from "./record-codec.ts";
import type { LinkAnswer, RedisLink } from "./redis-link.ts";
import { COMPARE_AND_SET, FIELD, PAGE, readExchange, readField, readPage, REMOVE } from "./sealed-hash-scripts.ts";

/** Whoever can write to Redis decides what is there: no more of it is read, or held, than this. */
const LIMITS = { fieldBytes: 128, valueBytes: 4096, fields: 350_000, pages: 20_000 };
const FIELDS_PER_PAGE = 500;
/** Of a record without one: the last moment that a sealed value can name exactly. */
const NEVER = Number.MAX_SAFE_INTEGER;
/** Milliseconds that an expired record is left in Redis, for clocks differ. */
const KEPT_EXPIRED = 24 * 60 * 60_000;
/** Times that somebody else may have been faster. */
const EXCHANGES = 10;

export interface SealedHashOptions<T> {
  readonly link: RedisLink;
  readonly codec: RecordCodec;
  readonly key: string;
  /** Undefined for what is not sound in this field. */
  readonly parse: (content: unknown, field: string) => T | undefined;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Told of every field that is not what this gateway writes. */
  readonly onDropped: () => void;
}

interface Opened<T> {
  readonly field: string;
  readonly record: T;
  readonly expiresAt: number;
}

/** What a page held when it was last read. */
interface Page<T> {
  readonly mark: string;
  readonly records: readonly Opened<T>[];
}

/** What became of a record: `stands` with the one that stays in its place; `away`: Redis could not be asked, or did not keep it. */
export type Exchange<T> = "set" | "away" | { readonly stands: T };

export class SealedHash<T> {
  readonly #options: SealedHashOptions<T>;
  /** By the cursor that they begin at. */
  #pages: ReadonlyMap<string, Page<T>> = new Map();
  #problem: string | undefined;

  constructor(options: SealedHashOptions<T>) {
    this.#options = options;
  }

  /** Why it can't be used though Redis answers, in words for an operator, until all of it could be read again. */
  get problem(): string | undefined {
    return this.#problem;
  }

  /**
   * All records that are ours, sound and not expired, by field. Undefined when Redis can't be asked, or holds more than can be ours: that says
   * nothing of what is there. What has not changed since the last time is neither sent nor opened again.
   * @param onProgress told of each piece that has been read
   */
  async entries(onProgress: () => void = () => undefined): Promise<ReadonlyMap<string, T> | undefined> {
    const { onDropped } = this.#options;
    const length = await this.length();
    if (length === undefined) return undefined;
    if (length > LIMITS.fields) {
      onDropped();
      return this.#unusable(`holds more than ${LIMITS.fields} fields`);
    }
    const pages = new Map<string, Page<T>>();
    let cursor = "0";
    let seen = 0;
    for (let count = 0; count < LIMITS.pages; count += 1) {
      const from = cursor;
      const page = await this.#page(from, this.#pages.get(from));
      if (page === undefined) {
        // The next try begins anew, but opens none of these again.
        if (pages.size > this.#pages.size) this.#pages = pages;
        return undefined;
      }
      onProgress();
      pages.set(from, page);
      ({ cursor } = page);
      seen += page.seen;
      if (seen > LIMITS.fields) break;
      if (cursor === "0") {
        this.#pages = pages;
        this.#problem = undefined;
        return this.#standing(pages);
      }
    }
    onDropped();
    return this.#unusable(`holds more than ${LIMITS.fields} fields`);
  }

  /** Fields that are there, whatever they hold. */
  async length(): Promise<number | undefined> {
    const { link, key } = this.#options;
    return this.#answered(await link.ask((redis) => redis.hlen(key)), (length) => length);
  }

  /** One record, if it is ours, sound and not expired; `away`: Redis can't be asked. */
  async get(field: string): Promise<{ readonly record: T | undefined } | "away"> {
    const { link, key, onDropped, now } = this.#options;
    const answer = await link.ask((redis) => redis.callBuffer("eval", FIELD, 1, key, field, LIMITS.valueBytes));
    const found = this.#answered(answer, readField);
    if (found === undefined) return "away";
    if (found === "none") return { record: undefined };
    const opened = found === "too long" ? undefined : this.#open(field, found);
    if (opened === undefined) onDropped();
    return { record: opened !== undefined && opened.expiresAt > now() ? opened.record : undefined };
  }

  /** @param expiresAt ms since the epoch. @returns whether Redis has it now */
  async set(field: string, record: unknown, expiresAt?: number): Promise<boolean> {
    const { link, key } = this.#options;
    const value = this.#seal(field, record, expiresAt);
    return value !== undefined && typeof (await link.ask((redis) => redis.hset(key, field, value))) === "object";
  }

  /**
   * Keeps a record, unless another one that is sound is to stand, be it that it was written in this very moment.
   * @param expiresAt ms since the epoch
   */
  async exchange(field: string, content: unknown, expiresAt: number | undefined, stands: (there: T) => boolean): Promise<Exchange<T>> {
    const { link, key } = this.#options;
    const value = this.#seal(field, content, expiresAt);
    if (value === undefined) return "away";
    let expected = "";
    for (let times = 0; times < EXCHANGES; times += 1) {
      const mark = expected;
      const answer = await link.ask((redis) => redis.callBuffer("eval", COMPARE_AND_SET, 1, key, field, value, mark, LIMITS.valueBytes));
      const result = this.#answered(answer, readExchange);
      if (result === undefined) return "away";
      if (result === "set") return "set";
      const there = this.#open(field, result.value);
      if (there !== undefined && stands(there.record)) return { stands: there.record };
      expected = result.mark;
    }
    return "away";
  }

  /** The page that begins at a cursor; with the next cursor, and how many fields it has. */
  async #page(from: string, known: Page<T> | undefined): Promise<(Page<T> & { cursor: string; seen: number }) | undefined> {
    const { link, key, onDropped } = this.#options;
    const { fieldBytes, valueBytes } = LIMITS;
    const answer = await link.ask((redis) =>
      redis.callBuffer("eval", PAGE, 1, key, from, FIELDS_PER_PAGE, fieldBytes, valueBytes, known?.mark ?? ""),
    );
    const found = this.#answered(answer, readPage);
    if (found === undefined) return undefined;
    const { cursor, unfit, fit, mark, fields } = found;
    const seen = fit + unfit;
    if (fields === "unchanged") return { mark, records: known?.records ?? [], cursor, seen };
    for (let dropped = 0; dropped < Math.min(unfit, FIELDS_PER_PAGE); dropped += 1) onDropped();
    const records: Opened<T>[] = [];
    let removed = 0;
    for await (const [field, value] of inTurns(fields)) {
      const opened = this.#open(field, value);
      if (opened === undefined) onDropped();
      else if (this.#removeExpired(opened, value)) removed += 1;
      else records.push(opened);
    }
    return { mark: removed === 0 ? mark : "", records, cursor, seen };
  }

  #standing(pages: ReadonlyMap<string, Page<T>>): ReadonlyMap<string, T> {
    const now = this.#options.now();
    const entries = new Map<string, T>();
    for (const { records } of pages.values()) {
      for (const { field, record, expiresAt } of records) if (expiresAt > now) entries.set(field, record);
    }
    return entries;
  }

  #removeExpired({ field, expiresAt }: Opened<T>, value: Buffer): boolean {
    const { link, key, now } = this.#options;
    if (expiresAt + KEPT_EXPIRED >= now()) return false;
    void link.ask((redis) => redis.eval(REMOVE, 1, key, field, value));
    return true;
  }

  #seal(field: string, record: unknown, expiresAt = NEVER): Buffer | undefined {
    const { codec, key } = this.#options;
    const value = codec.seal(nameOf(key, field), record, Math.floor(expiresAt));
    return Buffer.byteLength(field) > LIMITS.fieldBytes || value.length > LIMITS.valueBytes ? undefined : value;
  }

  #open(field: string, value: Buffer): Opened<T> | undefined {
    const { codec, key, parse } = this.#options;
    const opened = codec.open(nameOf(key, field), value);
    const record = opened && parse(opened.content, field);
    return opened === undefined || record === undefined ? undefined : { field, record, expiresAt: opened.expiresAt };
  }

  /** What was answered, as it is read; undefined when nothing was, or what is no answer to it. */
  #answered<Answer, Result>(answer: LinkAnswer<Answer>, read: (value: Answer) => Result | undefined): Result | undefined {
    if (answer === "away") return undefined;
    const result = answer === "wrong type" ? undefined : read(answer.value);
    if (result !== undefined) return result;
    this.#options.onDropped();
    return this.#unusable("is no hash");
  }

  #unusable(what: string): undefined {
    this.#problem = `${this.#options.key} in Redis ${what}: something else writes there; look at it, and delete it`;
  }
}

/** No key of ours has a NUL: no field passes for another hash's, or for a key. */
function nameOf(key: string, field: string): string {
  return `${key}\0${field}`;
}
