import { randomBytes } from "node:crypto";
import { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { RedisRecords } from "../../src/verdicts/redis-records.ts";
import { DoubtRecords, type DoubtRecordsOptions, type SharedDoubt } from "../../src/verdicts/shared-doubts.ts";
import { type Redis as Server, startRedis } from "../support/peers/redis.ts";

const secret = randomBytes(32);
const nothing = (): void => undefined;
const SOON = { timeout: 20_000 };
const HOUR = 3_600_000;

let server: Server;
let raw: Redis;

beforeAll(async () => {
  server = await startRedis();
  raw = new Redis(server.port, server.host);
  raw.on("error", nothing);
});

afterAll(async () => {
  raw.disconnect();
  await server.stop();
});

beforeEach(async () => {
  await raw.flushall();
});

/** As an instance on that machine would have it. */
async function doubtsOn(machine: string, more: Partial<DoubtRecordsOptions> & { readonly key?: Buffer } = {}): Promise<DoubtRecords> {
  const now = more.now ?? Date.now;
  const records = new RedisRecords({
    connection: { url: server.url },
    keyPrefix: "mig:",
    secret: more.key ?? secret,
    log: { info: nothing, warn: nothing },
    now,
  });
  onTestFinished(() => records[Symbol.dispose]());
  const doubts = new DoubtRecords({ records, secret: more.key ?? secret, lifetime: HOUR, machine, now, ...more });
  await expect.poll(() => doubts.load("any"), SOON).toEqual([]);
  return doubts;
}

/** Resolves once it listens. */
async function heard(doubts: DoubtRecords, scanner: string): Promise<{ times: number }> {
  const told = { times: 0 };
  const listening = Promise.withResolvers<void>();
  const subscription = doubts.listen(scanner, { told: () => (told.times += 1), listening: () => listening.resolve() });
  onTestFinished(() => subscription[Symbol.dispose]());
  await listening.promise;
  return told;
}

async function nameOfHash(): Promise<string> {
  const [name] = await raw.keys("mig:doubts:*");
  return name ?? "";
}

const clean: SharedDoubt = { of: "clean", from: 1_700_000_000_000, until: 1_700_000_060_000 };
const infected: SharedDoubt = { of: "infected", from: 1_700_000_000_000, until: 1_700_000_030_000 };
const later: SharedDoubt = { of: "clean", from: 1_700_001_000_000, until: 1_700_001_060_000 };

describe("doubts in Redis", () => {
  it("are had by every instance, of all machines together, and of one scanner", async () => {
    const one = await doubtsOn("one");
    const other = await doubtsOn("other");
    expect(await one.keep("av", [clean, infected])).toBe(true);
    expect(await other.keep("av", [later])).toBe(true);
    const all = await (await doubtsOn("third")).load("av");
    expect(all).toHaveLength(3);
    expect(all).toEqual(expect.arrayContaining([clean, infected, later]));
    expect(await one.load("dlp")).toEqual([]);
  });

  it("take the place of what the same machine put there before", async () => {
    const one = await doubtsOn("one");
    await one.keep("av", [clean]);
    await (await doubtsOn("one")).keep("av", [clean, later]);
    expect(await one.load("av")).toEqual([clean, later]);
  });

  it("cover whole milliseconds, and all that can be known fits", async () => {
    const one = await doubtsOn("one");
    await one.keep("av", [{ of: "clean", from: -0.5, until: 10.2 }]);
    expect(await one.load("av")).toEqual([{ of: "clean", from: 0, until: 11 }]);
    const most = (["clean", "infected"] as const).flatMap((of) =>
      Array.from({ length: 32 }, (_, index) => ({ of, from: 1_700_000_000_000 + index * 100, until: 1_700_000_000_050 + index * 100 })),
    );
    expect(await one.keep("av", most)).toBe(true);
    expect(await one.load("av")).toEqual(most);
  });

  it("are kept for longer than any verdict they concern, and no longer", async () => {
    let now = Date.now();
    const one = await doubtsOn("one", { now: () => now });
    await one.keep("av", [clean]);
    now += HOUR + 10_000;
    expect(await one.load("av")).toEqual([clean]);
    now += 24 * HOUR;
    expect(await one.load("av")).toEqual([]);
  });

  it("can't be made up, moved to another scanner, or had with another secret", async () => {
    const one = await doubtsOn("one");
    await one.keep("av", [clean]);
    const hash = await nameOfHash();
    const [field = ""] = await raw.hkeys(hash);
    const sealed = (await raw.hgetBuffer(hash, field)) ?? Buffer.alloc(0);
    await one.keep("dlp", [later]);
    const [dlp = ""] = (await raw.keys("mig:doubts:*")).filter((name) => name !== hash);
    await raw.hset(dlp, field, sealed);
    expect(await one.load("dlp")).toEqual([]);
    await raw.hset(hash, "garbage", randomBytes(100), "json", JSON.stringify({ clean: [[0, 9e15]], infected: [] }), "", "");
    expect(await one.load("av")).toEqual([clean]);
    const stranger = await doubtsOn("one", { key: randomBytes(32) });
    expect(await stranger.load("av")).toEqual([]);
    await stranger.keep("av", [later]);
    expect(await one.load("av")).toEqual([clean]);
  });

  it("tell who reads Redis neither scanner nor machine, nor when", async () => {
    const one = await doubtsOn("machine-name");
    await one.keep("icap://av.example.org/scan", [clean]);
    await one.passed("icap://av.example.org/scan", clean.from);
    const names = await raw.keys("*");
    const hash = await nameOfHash();
    const dump = [...names, ...(await raw.hkeys(hash)), ...(await raw.hvals(hash))].join(" ");
    for (const told of ["machine-name", "example", String(clean.from)]) expect(dump).not.toContain(told);
  });

  it("passes are known on the same machine, the last one alone", async () => {
    const one = await doubtsOn("one");
    expect(await one.lastPass("av")).toBe("unknown");
    await one.passed("av", 1_700_000_000_000.9);
    await one.passed("av", 1_700_000_100_000);
    expect(await (await doubtsOn("one")).lastPass("av")).toBe(1_700_000_100_000);
    expect(await (await doubtsOn("other")).lastPass("av")).toBe("unknown");
    expect(await one.lastPass("dlp")).toBe("unknown");
  });

  it("news goes to the other instances, of that scanner alone", async () => {
    const one = await doubtsOn("one");
    const other = await doubtsOn("other");
    const own = await heard(one, "av");
    const there = await heard(other, "av");
    const elsewhere = await heard(other, "dlp");
    await one.tell("av");
    await one.tell("av");
    await other.tell("av");
    // What was told before that has come by now.
    await heard(one, "marker");
    await heard(other, "marker");
    expect([own.times, there.times, elsewhere.times]).toEqual([1, 2, 0]);
  });

  it("can't be asked for while Redis is away, which is not the same as none", async () => {
    const own = await startRedis();
    const records = new RedisRecords({
      connection: { url: own.url },
      keyPrefix: "mig:",
      secret,
      log: { info: nothing, warn: nothing },
    });
    onTestFinished(() => records[Symbol.dispose]());
    const doubts = new DoubtRecords({ records, secret, lifetime: HOUR });
    expect(await doubts.load("av")).toBeUndefined();
    await expect.poll(() => doubts.load("av"), SOON).toEqual([]);
    await own.stop();
    expect(await doubts.load("av")).toBeUndefined();
    expect(await doubts.keep("av", [clean])).toBe(false);
    expect(await doubts.lastPass("av")).toBe("away");
    await doubts.tell("av");
    await doubts.passed("av", 1);
  });
});
