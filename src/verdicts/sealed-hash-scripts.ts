/** What is asked of a hash in Redis, as scripts that Redis runs as a whole, and how their answers are read: whoever writes there has a say in them. */

/**
 * HSCAN that leaves out what is too long before it is sent: cursor, how many were left out, how many are left, a mark of these, and these themselves,
 * fields and values in turn, unless the mark is the expected one.
 */
export const PAGE = `
local page = redis.call("hscan", KEYS[1], ARGV[1], "count", ARGV[2])
local fit, whole, unfit = {}, {}, 0
for i = 1, #page[2], 2 do
  local field, value = page[2][i], page[2][i + 1]
  if #field <= tonumber(ARGV[3]) and #value <= tonumber(ARGV[4]) then
    fit[#fit + 1] = field
    fit[#fit + 1] = value
    whole[#whole + 1] = #field .. " " .. #value .. " " .. field .. value
  else
    unfit = unfit + 1
  end
end
local mark = redis.sha1hex(table.concat(whole))
if mark == ARGV[5] then return {page[1], unfit, #whole, mark} end
return {page[1], unfit, #whole, mark, fit}`;

/** HGET of what is not too long: the value; 0 where there is none, 1 where it is too long. */
export const FIELD = `
local value = redis.call("hget", KEYS[1], ARGV[1])
if not value then return 0 end
if #value > tonumber(ARGV[2]) then return 1 end
return value`;

/** HSET, if what is there has the expected mark, "" where nothing is: 1; otherwise the mark of what is there, and that, unless it is too long. */
export const COMPARE_AND_SET = `
local there = redis.call("hget", KEYS[1], ARGV[1])
local mark = there and redis.sha1hex(there) or ""
if mark == ARGV[3] then
  redis.call("hset", KEYS[1], ARGV[1], ARGV[2])
  return 1
end
return {mark, there and #there <= tonumber(ARGV[4]) and there or ""}`;

/** Whoever has written it anew in the meantime keeps it. */
export const REMOVE = `if redis.call("hget", KEYS[1], ARGV[1]) == ARGV[2] then return redis.call("hdel", KEYS[1], ARGV[1]) end return 0`;

export interface PageAnswer {
  readonly cursor: string;
  readonly unfit: number;
  readonly fit: number;
  readonly mark: string;
  readonly fields: readonly (readonly [string, Buffer])[] | "unchanged";
}

export function readPage(answer: unknown): PageAnswer | undefined {
  if (!Array.isArray(answer)) return undefined;
  const [cursor, unfit, fit, mark, pairs]: unknown[] = answer;
  if (!Buffer.isBuffer(cursor) || !/^\d{1,20}$/.test(cursor.toString())) return undefined;
  if (typeof unfit !== "number" || typeof fit !== "number" || !Buffer.isBuffer(mark)) return undefined;
  const head = { cursor: cursor.toString(), unfit, fit, mark: mark.toString("latin1") };
  if (pairs === undefined) return { ...head, fields: "unchanged" };
  if (!Array.isArray(pairs)) return undefined;
  const fields: [string, Buffer][] = [];
  for (let at = 0; at < pairs.length; at += 2) {
    const [field, value]: unknown[] = pairs.slice(at, at + 2);
    if (!Buffer.isBuffer(field) || !Buffer.isBuffer(value)) return undefined;
    fields.push([field.toString(), value]);
  }
  return { ...head, fields };
}

export function readField(answer: unknown): Buffer | "none" | "too long" | undefined {
  if (Buffer.isBuffer(answer)) return answer;
  return answer === 0 ? "none" : answer === 1 ? "too long" : undefined;
}

export function readExchange(answer: unknown): "set" | { readonly mark: string; readonly value: Buffer } | undefined {
  if (answer === 1) return "set";
  if (!Array.isArray(answer)) return undefined;
  const [mark, value]: unknown[] = answer;
  return Buffer.isBuffer(mark) && Buffer.isBuffer(value) ? { mark: mark.toString("latin1"), value } : undefined;
}
