/** Records that belong together and are read as a whole: the fields of a hash in Redis, each sealed under its own name. */
import type { RecordCodec } from "./record-codec.ts";
import type { RedisLink } from "./redis-link.ts";

/** Whoever can write to Redis decides what is there: no more of it is read, or held, than this. */
const LIMITS = { fieldBytes: 128, valueBytes: 4096, fields: 350_000, pages: 20_000 };
const FIELDS_PER_PAGE = 100;
/** Of a record without one: the last moment that a sealed value can name exactly. */
const NEVER = Number.MAX_SAFE_INTEGER;
/** Milliseconds that an expired record is left in Redis, for clocks differ. */
const KEPT_EXPIRED = 24 * 60 * 60_000;

/** HSCAN that leaves out what is too long before it is sent: cursor, how many were left out, fields and values in turn. */
const PAGE = `
local page = redis.call("hscan", KEYS[1], ARGV[1], "count", ARGV[2])
local fit, unfit = {}, 0
for i = 1, #page[2], 2 do
  local field, value = page[2][i], page[2][i + 1]
  if #field <= tonumber(ARGV[3]) and #value <= tonumber(ARGV[4]) then
    fit[#fit + 1] = field
    fit[#fit + 1] = value
  else
    unfit = unfit + 1
  end
end
return {page[1], unfit, fit}`;

/** Whoever has written it anew in the meantime keeps it. */
const REMOVE = `if redis.call("hget", KEYS[1], ARGV[1]) == ARGV[2] then return redis.call("hdel", KEYS[1], ARGV[1]) end return 0`;

export interface SealedHashOptions {
  readonly link: RedisLink;
  readonly codec: RecordCodec;
  readonly key: string;
  /** Milliseconds since the epoch. */
  readonly now: () => number;
  /** Told of every field that is not what this gateway writes. */
  readonly onDropped: () => void;
}

export class SealedHash {
  readonly #options: SealedHashOptions;

  constructor(options: SealedHashOptions) {
    this.#options = options;
  }

  /**
   * All records that are ours, sound and not expired, by field. Undefined when Redis can't be asked, or holds more than can be ours: that says
   * nothing of what is there. `parse` gives undefined for what is not sound.
   */
  async entries<T>(parse: (content: unknown) => T | undefined): Promise<ReadonlyMap<string, T> | undefined> {
    const { link, key, onDropped } = this.#options;
    const length = await link.ask((redis) => redis.hlen(key));
    if (length === "away") return undefined;
    if (length === "wrong type" || length.value > LIMITS.fields) {
      onDropped();
      return undefined;
    }
    const entries = new Map<string, T>();
    let cursor = "0";
    let seen = 0;
    for (let page = 0; page < LIMITS.pages; page += 1) {
      const from = cursor;
      const answer = await link.ask((redis) =>
        redis.callBuffer("eval", PAGE, 1, key, from, FIELDS_PER_PAGE, LIMITS.fieldBytes, LIMITS.valueBytes),
      );
      if (answer === "away") return undefined;
      const found = answer === "wrong type" ? undefined : readPage(answer.value);
      if (found === undefined) {
        onDropped();
        return undefined;
      }
      for (let dropped = 0; dropped < Math.min(found.unfit, FIELDS_PER_PAGE); dropped += 1) onDropped();
      for (const [field, value] of found.fields) {
        const record = this.#open(field, value, parse);
        if (record !== undefined) entries.set(field, record);
      }
      seen += found.fields.length + found.unfit;
      if (seen > LIMITS.fields) break;
      if (found.cursor === "0") return entries;
      cursor = found.cursor;
    }
    onDropped();
    return undefined;
  }

  /** @param expiresAt ms since the epoch. @returns whether Redis has it now */
  async set(field: string, record: unknown, expiresAt = NEVER): Promise<boolean> {
    const { link, codec, key } = this.#options;
    const value = codec.seal(nameOf(key, field), record, Math.floor(expiresAt));
    if (Buffer.byteLength(field) > LIMITS.fieldBytes || value.length > LIMITS.valueBytes) return false;
    return typeof (await link.ask((redis) => redis.hset(key, field, value))) === "object";
  }

  #open<T>(field: string, value: Buffer, parse: (content: unknown) => T | undefined): T | undefined {
    const { link, codec, key, now, onDropped } = this.#options;
    const opened = codec.open(nameOf(key, field), value);
    const record = opened && parse(opened.content);
    if (opened === undefined || record === undefined) {
      onDropped();
      return undefined;
    }
    if (opened.expiresAt > now()) return record;
    if (opened.expiresAt + KEPT_EXPIRED < now()) void link.ask((redis) => redis.eval(REMOVE, 1, key, field, value));
    return undefined;
  }
}

/** No key of ours has a NUL: no field passes for another hash's, or for a key. */
function nameOf(key: string, field: string): string {
  return `${key}\0${field}`;
}

interface Page {
  readonly cursor: string;
  readonly unfit: number;
  readonly fields: readonly (readonly [string, Buffer])[];
}

function readPage(answer: unknown): Page | undefined {
  if (!Array.isArray(answer)) return undefined;
  const [cursor, unfit, fit]: unknown[] = answer;
  if (!Buffer.isBuffer(cursor) || !/^\d{1,20}$/.test(cursor.toString()) || typeof unfit !== "number" || !Array.isArray(fit))
    return undefined;
  const fields: [string, Buffer][] = [];
  for (let at = 0; at < fit.length; at += 2) {
    const [field, value]: unknown[] = fit.slice(at, at + 2);
    if (!Buffer.isBuffer(field) || !Buffer.isBuffer(value)) return undefined;
    fields.push([field.toString(), value]);
  }
  return { cursor: cursor.toString(), unfit, fields };
}
