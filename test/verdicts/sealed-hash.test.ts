import { randomBytes } from "node:crypto";
import { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { RedisRecords } from "../../src/verdicts/redis-records.ts";
import { type Redis as Server, startRedis } from "../support/peers/redis.ts";

const DAY = 24 * 60 * 60_000;
const secret = randomBytes(32);
const text = (content: unknown): string | undefined => (typeof content === "string" ? content : undefined);
let server: Server;
let raw: Redis;
let dropped = 0;

beforeAll(async () => {
  server = await startRedis();
  raw = new Redis(server.port, server.host);
});

afterAll(async () => {
  raw.disconnect();
  await server.stop();
});

beforeEach(async () => {
  dropped = 0;
  await raw.flushall();
});

/** As one instance has it, connected. */
async function instance(now: () => number = Date.now, key = secret): Promise<RedisRecords> {
  const records = new RedisRecords({
    connection: { url: server.url },
    keyPrefix: "mig:",
    secret: key,
    log: { info: () => undefined, warn: () => undefined },
    onDropped: () => (dropped += 1),
    now,
  });
  onTestFinished(() => records[Symbol.dispose]());
  await expect.poll(() => records.health().degraded, { timeout: 5000 }).toBe(false);
  return records;
}

/** One that is kept, of records that are newer or older. */
const numbers = (records: RedisRecords) => records.hash("hash", (content) => (typeof content === "number" ? content : undefined));

describe("a hash of records", () => {
  it("is read by every instance as a whole, whatever its size", async () => {
    const [one, other] = [await instance(), await instance()];
    expect(await other.hashEntries("hash", text)).toEqual(new Map());
    const written = new Map(Array.from({ length: 1200 }, (_, n) => [`field ${n}`, `record ${n}`]));
    for (const [field, record] of written) expect(await one.hashSet("hash", field, record)).toBe(true);
    expect(await one.hashSet("another", "field", "another")).toBe(true);
    expect(await one.hashSet("hash", "field 7", "written anew")).toBe(true);
    expect(await other.hashEntries("hash", text)).toEqual(written.set("field 7", "written anew"));
    expect(dropped).toBe(0);
    expect(JSON.stringify(await raw.hvals("mig:hash"))).not.toContain("record 1");
  });

  it("holds nothing that was forged, moved to another field or hash, sealed with another secret, or is too long", async () => {
    const one = await instance();
    await one.hashSet("hash", "field", "record");
    await one.hashSet("elsewhere", "elsewhere", "elsewhere");
    await one.set("hash", "under the hash's own key", 60_000);
    const sealed = await raw.hgetBuffer("mig:elsewhere", "elsewhere");
    const single = await raw.getBuffer("mig:hash");
    await raw.del("mig:hash");
    await one.hashSet("hash", "field", "record");
    const own = await raw.hgetBuffer("mig:hash", "field");
    if (sealed === null || own === null || single === null) throw new Error("nothing was written");
    const flipped = Buffer.from(own);
    flipped[30] = (flipped[30] ?? 0) ^ 1;
    await raw.hset("mig:hash", { moved: own, elsewhere: sealed, flipped, single, planted: '"record"', cut: own.subarray(0, -1) });
    await raw.hset("mig:hash", "huge", Buffer.alloc(5 * 1024 * 1024), "n".repeat(200), own);
    expect(await one.hashEntries("hash", text)).toEqual(new Map([["field", "record"]]));
    expect(dropped).toBe(8);
    expect(one.health().problems).toEqual([expect.stringMatching(/fail their check/)]);
    expect(await (await instance(Date.now, randomBytes(32))).hashEntries("hash", text)).toEqual(new Map());
    expect(await one.hashEntries("hash", () => undefined)).toEqual(new Map());
    expect(await one.hashSet("hash", "long", "x".repeat(5000))).toBe(false);
    expect(await raw.hexists("mig:hash", "long")).toBe(0);
  });

  it("holds a record until it expires, and Redis a day longer", async () => {
    const clock = { now: 1_700_000_000_000 };
    const records = await instance(() => clock.now);
    await records.hashSet("hash", "for an hour", "a", clock.now + DAY / 24);
    await records.hashSet("hash", "for good", "b");
    expect(await records.hashEntries("hash", text)).toEqual(
      new Map([
        ["for an hour", "a"],
        ["for good", "b"],
      ]),
    );
    clock.now += DAY / 2;
    expect(await records.hashEntries("hash", text)).toEqual(new Map([["for good", "b"]]));
    // Answered after whatever would have been asked for.
    await records.get("anything", text);
    expect(await raw.hlen("mig:hash")).toBe(2);
    clock.now += 2 * DAY;
    expect(await records.hashEntries("hash", text)).toEqual(new Map([["for good", "b"]]));
    await expect.poll(() => raw.hkeys("mig:hash")).toEqual(["for good"]);
    expect(dropped).toBe(0);
  });

  it("is not known, rather than empty, when Redis is away, holds something else, or holds more than can be ours", async () => {
    const records = await instance();
    await raw.set("mig:hash", "x");
    expect(await records.hashEntries("hash", text)).toBeUndefined();
    expect(await records.hashSet("hash", "field", "x")).toBe(false);
    await raw.eval(`for i = 1, 360000 do redis.call("hset", KEYS[1], i, "x") end`, 1, "mig:crowded");
    expect(await records.hash("crowded", text).entries()).toBeUndefined();
    expect(records.health().problems).toEqual([
      expect.stringMatching(/^mig:crowded in Redis holds more than 350000 fields/),
      expect.stringMatching(/fail their check/),
    ]);
    const away = new RedisRecords({
      connection: { url: "redis://127.0.0.1:1" },
      keyPrefix: "mig:",
      secret,
      log: { info: () => undefined, warn: () => undefined },
    });
    onTestFinished(() => away[Symbol.dispose]());
    expect(await away.hashEntries("hash", text)).toBeUndefined();
    expect(await away.hashSet("hash", "field", "x")).toBe(false);
  });

  it("sends and opens nothing again that has not changed", async () => {
    const opened: string[] = [];
    const hash = (await instance()).hash("hash", (content, field) => {
      opened.push(field);
      return content;
    });
    const other = await instance();
    const fields = Array.from({ length: 2500 }, (_, n) => `field ${n}`);
    await Promise.all(fields.map((field) => other.hashSet("hash", field, field)));
    let pieces = 0;
    expect((await hash.entries(() => (pieces += 1)))?.size).toBe(2500);
    expect([opened.length, pieces > 2]).toEqual([2500, true]);
    expect((await hash.entries())?.size).toBe(2500);
    expect(opened.length).toBe(2500);
    await other.hashSet("hash", "field 7", "written anew");
    await raw.hdel("mig:hash", "field 8");
    const entries = await hash.entries();
    expect([entries?.get("field 7"), entries?.has("field 8"), entries?.size]).toEqual(["written anew", false, 2499]);
    expect(opened.length).toBeLessThan(2 * 2500);
  });

  it("lets a record go that expires after it was read, though nothing changed", async () => {
    const clock = { now: Date.now() };
    const records = await instance(() => clock.now);
    const hash = numbers(records);
    await hash.set("a", 1, clock.now + DAY);
    expect(await hash.entries()).toEqual(new Map([["a", 1]]));
    clock.now += DAY;
    expect(await hash.entries()).toEqual(new Map());
    expect(await hash.get("a")).toEqual({ record: undefined });
  });

  it("gives single records, and nothing that is not ours, whatever is in the field", async () => {
    const hash = numbers(await instance());
    expect(await hash.get("a")).toEqual({ record: undefined });
    await hash.set("a", 1);
    expect(await hash.get("a")).toEqual({ record: 1 });
    await raw.hset("mig:hash", { forged: "1", huge: Buffer.alloc(5 * 1024 * 1024), moved: (await raw.hgetBuffer("mig:hash", "a")) ?? "" });
    expect(dropped).toBe(0);
    for (const field of ["forged", "huge", "moved"]) expect(await hash.get(field)).toEqual({ record: undefined });
    expect(dropped).toBe(3);
    await raw.set("mig:hash", "x");
    expect(await hash.get("a")).toBe("away");
  });
});

const atLeast = (least: number) => (there: number) => there >= least;

describe("an exchange", () => {
  it("replaces what is older or not ours, and nothing that is to stand", async () => {
    const hash = numbers(await instance());
    expect(await hash.exchange("a", 5, undefined, atLeast(5))).toBe("set");
    expect(await hash.exchange("a", 4, undefined, atLeast(4))).toEqual({ stands: 5 });
    expect(await hash.exchange("a", 6, undefined, atLeast(6))).toBe("set");
    expect(await hash.get("a")).toEqual({ record: 6 });
    for (const junk of ["forged", "", Buffer.alloc(1024 * 1024)]) {
      await raw.hset("mig:hash", "a", junk);
      expect(await hash.exchange("a", 1, undefined, atLeast(1))).toBe("set");
      expect(await hash.get("a")).toEqual({ record: 1 });
    }
    await raw.set("mig:hash", "x");
    expect(await hash.exchange("a", 9, undefined, atLeast(9))).toBe("away");
  });

  it("leaves the newest of all that are written at once", async () => {
    const [one, other] = [numbers(await instance()), numbers(await instance())];
    for (let round = 0; round < 20; round += 1) {
      const shuffled = Array.from({ length: 8 }, (_, n) => n).toSorted(() => Math.random() - 0.5);
      const results = await Promise.all(
        shuffled.map((number, index) => (index % 2 === 0 ? one : other).exchange(`${round}`, number, undefined, atLeast(number))),
      );
      expect(results).not.toContain("away");
      expect(await one.get(`${round}`)).toEqual({ record: 7 });
    }
  });

  it("never writes over what came in between", async () => {
    const records = await instance();
    const hash = records.hash("hash", (content) => (typeof content === "number" ? content : undefined));
    await hash.set("a", 1);
    let rivals = 0;
    // Asked after what was there has been read, and before it is replaced.
    const result = await hash.exchange("a", 5, undefined, (there) => {
      if (rivals === 0) void hash.set("a", 9);
      rivals += 1;
      return there >= 5;
    });
    expect([result, rivals]).toEqual([{ stands: 9 }, 2]);
  });
});

describe("a hash that can't be read", () => {
  it("is named, until it can be read again", async () => {
    const records = await instance();
    const hash = numbers(records);
    await raw.set("mig:hash", "x");
    expect(await hash.entries()).toBeUndefined();
    expect(records.health().problems).toContain("mig:hash in Redis is no hash: something else writes there; look at it, and delete it");
    await raw.del("mig:hash");
    expect(await hash.entries()).toEqual(new Map());
    expect(records.health().problems.join()).not.toContain("mig:hash");
  });
});
