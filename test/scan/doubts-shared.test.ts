import { randomBytes } from "node:crypto";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { EICAR } from "../../src/scan/canary-samples.ts";
import type { Doubt } from "../../src/scan/doubts.ts";
import type { IcapScanner, IcapScannerOptions } from "../../src/scan/icap-scanner.ts";
import { Proof } from "../../src/scan/proof.ts";
import type { Stamp } from "../../src/scan/scanner.ts";
import { DoubtExchange, type SharedDoubts } from "../../src/scan/shared-doubts.ts";
import { RedisRecords } from "../../src/verdicts/redis-records.ts";
import { DoubtRecords } from "../../src/verdicts/shared-doubts.ts";
import { Antivirus, scannerOf, subject } from "../support/antivirus.ts";
import { type Redis as Server, startRedis } from "../support/peers/redis.ts";

const secret = randomBytes(32);
const nothing = (): void => undefined;
const SIGNAL = new AbortController().signal;
const SOON = { timeout: 30_000 };
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;

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

afterEach(() => {
  vi.useRealTimers();
});

interface InstanceOptions extends Partial<IcapScannerOptions> {
  readonly machine?: string;
  readonly redis?: string;
}

function sharedOn(machine: string, url = server.url): DoubtRecords {
  const records = new RedisRecords({ connection: { url }, keyPrefix: "mig:", secret, log: { info: nothing, warn: nothing } });
  onTestFinished(() => records[Symbol.dispose]());
  return new DoubtRecords({ records, secret, lifetime: 24 * HOUR, machine });
}

/** An instance, with a connection to Redis of its own, that has started. */
async function instance(url: string, { machine = "one", redis, ...more }: InstanceOptions = {}): Promise<IcapScanner> {
  const { scanner } = await scannerOf([url], { sharedDoubts: sharedOn(machine, redis), ...more });
  return scanner;
}

/** Where nobody ever told anything. */
const EMPTY: SharedDoubts = {
  lifetime: 24 * HOUR,
  load: async () => [],
  keep: async () => true,
  lastPass: async () => "unknown",
  passed: async () => undefined,
  tell: async () => undefined,
  listen: () => ({ [Symbol.dispose]: nothing }),
};

/** Sends its canaries again and again. */
const WATCHFUL = { canaryInterval: 100 };

function ago(milliseconds: number, tag = "tag-1"): Stamp {
  return { tag, at: Date.now() - milliseconds };
}

/** Of each instance. */
function upheld(instances: readonly IcapScanner[], stamp: Stamp, outcome: "clean" | "infected" = "clean"): boolean[] {
  return instances.map((one) => one.upholds(stamp, outcome));
}

function healthy(instances: readonly IcapScanner[]): boolean[] {
  return instances.map((one) => one.health().ready);
}

/** Two machines, each with an antivirus of its own; the instance on the first one watches it closely. */
async function twoMachines(): Promise<{ broken: Antivirus; urls: [string, string]; one: IcapScanner; other: IcapScanner; stamp: Stamp }> {
  const broken = new Antivirus();
  const sound = new Antivirus();
  onTestFinished(() => broken[Symbol.asyncDispose]());
  onTestFinished(() => sound[Symbol.asyncDispose]());
  const urls: [string, string] = [await broken.start(), await sound.start()];
  const one = await instance(urls[0], { machine: "one", ...WATCHFUL });
  const other = await instance(urls[1], { machine: "other" });
  return { broken, urls, one, other, stamp: ago(0) };
}

describe("doubts of all instances", () => {
  it("what one found out voids its verdicts on all, for those that start later too, and nothing else", async () => {
    const { broken, urls, one, other, stamp } = await twoMachines();
    expect(upheld([one, other], stamp)).toEqual([true, true]);
    broken.blind = true;
    await expect.poll(() => upheld([one, other], stamp), SOON).toEqual([false, false]);
    const third = await instance(urls[1], { machine: "third" });
    expect(upheld([third], stamp)).toEqual([false]);
    expect(upheld([other, third], stamp, "infected")).toEqual([true, true]);
    expect(upheld([other, third], ago(HOUR))).toEqual([true, true]);
    expect(healthy([one, other, third])).toEqual([false, true, true]);
  });

  it("what is removed from Redis, or put back there, lifts nothing; and who starts later learns it all the same", async () => {
    const { broken, urls, one, other, stamp } = await twoMachines();
    broken.failing = true;
    await expect.poll(() => upheld([one, other], stamp), SOON).toEqual([false, false]);
    await raw.flushall();
    // From what is put back it learns it.
    const third = await instance(urls[1], { machine: "third" });
    await expect.poll(() => upheld([third], stamp), SOON).toEqual([false]);
    expect(upheld([one, other], stamp)).toEqual([false, false]);
    await one[Symbol.asyncDispose]();
    const [hash = ""] = await raw.keys("mig:doubts:*");
    await raw.set(hash, "something else");
    await raw.publish(hash, "look");
    expect(upheld([other, third], stamp)).toEqual([false, false]);
    await raw.del(hash);
    const fourth = await instance(urls[1], { machine: "fourth" });
    await expect.poll(() => upheld([fourth], stamp), SOON).toEqual([false]);
    expect(upheld([other, third], stamp)).toEqual([false, false]);
  });

  it("an older state that is put back lifts nothing, and does not stay", async () => {
    const { broken, urls, one, other, stamp } = await twoMachines();
    const shared = sharedOn("another");
    const early: Doubt = { of: "clean", from: Date.now() - 3 * HOUR, until: Date.now() - 2 * HOUR };
    const key = JSON.stringify([other.name, other.policy]);
    await expect.poll(() => shared.keep(key, [early]), SOON).toBe(true);
    // Without a hint it is found out, if later.
    await expect.poll(() => upheld([one, other], ago(2.5 * HOUR)), SOON).toEqual([false, false]);
    const [hash = ""] = await raw.keys("mig:doubts:*");
    const before = await raw.hgetallBuffer(hash);
    broken.blind = true;
    await expect.poll(() => upheld([one, other], stamp), SOON).toEqual([false, false]);
    await raw.multi().del(hash).hset(hash, before).exec();
    const third = await instance(urls[1], { machine: "third" });
    await expect.poll(() => upheld([third], stamp), SOON).toEqual([false]);
    expect(upheld([other], stamp)).toEqual([false]);
  });

  it("garbage in Redis and forged messages change nothing", async () => {
    const { broken, one, other, stamp } = await twoMachines();
    const watched = new Antivirus();
    onTestFinished(() => watched[Symbol.asyncDispose]());
    const third = await instance(await watched.start(), { machine: "third" });
    const key = JSON.stringify([other.name, other.policy]);
    const shared = sharedOn("another");
    await expect.poll(() => shared.keep(key, []), SOON).toBe(true);
    const [hash = ""] = await raw.keys("mig:doubts:*");
    await raw.hset(hash, { garbage: randomBytes(500), all: JSON.stringify({ clean: [[0, 9e15]], infected: [[0, 9e15]] }) });
    const before = watched.seen.length;
    for (let message = 0; message < 2000; message += 1) await raw.publish(hash, message % 2 === 0 ? "x".repeat(message) : randomBytes(20));
    await expect.poll(() => watched.seen.length, SOON).toBeGreaterThan(before);
    expect(upheld([one, other, third], stamp)).toEqual([true, true, true]);
    expect(healthy([one, other, third])).toEqual([true, true, true]);
    broken.blind = true;
    await expect.poll(() => upheld([one, other, third], stamp), SOON).toEqual([false, false, false]);
  });

  it("what a process left behind that ended before it found out: its successor tells since when", async () => {
    const { broken, urls, one, other } = await twoMachines();
    await one[Symbol.asyncDispose]();
    await raw.flushall();
    // It passed half an hour ago, and is gone.
    const earlier = await instance(urls[0], { machine: "one", clock: () => Date.now() - HOUR / 2 });
    await expect.poll(() => raw.keys("mig:pass:*"), SOON).not.toEqual([]);
    await earlier[Symbol.asyncDispose]();
    broken.failing = true;
    expect(upheld([other], ago(HOUR / 4))).toEqual([true]);
    const successor = await instance(urls[0], { machine: "one" });
    await expect.poll(() => upheld([other], ago(HOUR / 4)), SOON).toEqual([false]);
    expect(upheld([other], ago(HOUR))).toEqual([true]);
    // For itself it believes nothing from before.
    expect(upheld([successor], ago(HOUR))).toEqual([false]);
  });

  it("what one found not to be scanned to its end is doubted by all", async () => {
    const { broken, urls, one, other, stamp } = await twoMachines();
    await one[Symbol.asyncDispose]();
    const limited: Partial<IcapScannerOptions> = { proveSize: true, maxFileSize: 4 * 1024 * 1024 };
    broken.before = (body) => void (broken.blind = body.length > 2 * 1024 * 1024);
    // Whether sizes are proven is a part of the policy.
    const third = await instance(urls[1], { machine: "third", ...limited });
    expect(upheld([third], stamp)).toEqual([true]);
    const short = await instance(urls[0], { machine: "one", ...limited });
    await expect.poll(() => upheld([third], stamp), SOON).toEqual([false]);
    expect(upheld([third], ago(HOUR))).toEqual([true]);
    expect(healthy([third, short])).toEqual([true, true]);
    expect(upheld([other], stamp)).toEqual([true]);
  });

  it("one that starts before its antivirus, where none was before, does not void what the others know", async () => {
    const { broken, urls, other } = await twoMachines();
    broken.failing = true;
    const fresh = await instance(urls[0], { machine: "a new one" });
    expect(healthy([fresh])).toEqual([false]);
    await expect.poll(() => upheld([other], ago(0)), SOON).toEqual([false]);
    expect(upheld([other], ago(HOUR / 4))).toEqual([true]);
  });

  it("with Redis away at the start nothing hangs, each goes by what it knows, and all is told once Redis is there", async () => {
    const own = await startRedis();
    onTestFinished(() => own.stop());
    await own.kill();
    await using broken = new Antivirus();
    await using sound = new Antivirus();
    const urls = [await broken.start(), await sound.start()] as const;
    const one = await instance(urls[0], { machine: "one", redis: own.url, ...WATCHFUL });
    const other = await instance(urls[1], { machine: "other", redis: own.url });
    const stamp = ago(0);
    expect(upheld([one, other], stamp)).toEqual([true, true]);
    broken.blind = true;
    await expect.poll(() => upheld([one, other], stamp), SOON).toEqual([false, true]);
    await own.restart();
    await expect.poll(() => upheld([other], stamp), SOON).toEqual([false]);
  });

  it("begin with the last pass that is known, and not before that can be asked", async () => {
    const pass = Date.now() - HOUR;
    let away = true;
    const place: SharedDoubts = { ...EMPTY, lastPass: async () => (away ? "away" : pass) };
    using exchange = new DoubtExchange({
      shared: place,
      key: "av",
      replicas: ["icap://av"],
      news: nothing,
      learned: nothing,
      clock: Date.now,
    });
    await exchange.start();
    exchange.add({ of: "clean", from: -Infinity, until: Date.now() }, "icap://av");
    exchange.passed("icap://av", Date.now());
    expect(exchange.doubts(ago(HOUR / 2), "clean")).toBe(false);
    away = false;
    await expect.poll(() => exchange.doubts(ago(HOUR / 2), "clean"), SOON).toBe(true);
    expect(exchange.doubts(ago(2 * HOUR), "clean")).toBe(false);
  });

  it("until it is known what others know, nothing is upheld; if that takes too long, it goes by what it knows, and learns the rest later", async () => {
    const loaded = Promise.withResolvers<readonly Doubt[]>();
    const place: SharedDoubts = { ...EMPTY, load: () => loaded.promise };
    const stamp = ago(0);
    const learned: Doubt[] = [];
    using exchange = new DoubtExchange({
      shared: place,
      key: "av",
      replicas: [],
      news: nothing,
      learned: (doubts) => learned.push(...doubts),
      clock: Date.now,
    });
    const started = exchange.start();
    expect(exchange.doubts(stamp, "clean")).toBe(true);
    await started;
    expect(exchange.doubts(stamp, "clean")).toBe(false);
    const doubt: Doubt = { of: "clean", from: stamp.at - 1, until: stamp.at + 1 };
    loaded.resolve([doubt]);
    await expect.poll(() => exchange.doubts(stamp, "clean"), SOON).toBe(true);
    expect(learned).toEqual([doubt]);
    expect(exchange.doubts(ago(HOUR), "clean")).toBe(false);
  });
});

describe("a new ISTag", () => {
  it("that one instance meets ends what was said under the old one on all, within the pace of canaries", async () => {
    await using antivirus = new Antivirus();
    const url = await antivirus.start();
    const all = [await instance(url), await instance(url, { machine: "other" }), await instance(url, { machine: "third" })];
    const stamp = ago(0);
    expect(upheld(all, stamp)).toEqual([true, true, true]);
    antivirus.tag = "tag-2";
    expect(await all[0]?.scan(subject(Buffer.from("some media")), SIGNAL)).toMatchObject({ outcome: "clean", stamp: { tag: "tag-2" } });
    await expect.poll(() => upheld(all, stamp), SOON).toEqual([false, false, false]);
    await expect.poll(() => upheld(all, ago(0, "tag-2")), SOON).toEqual([true, true, true]);
    expect(healthy(all)).toEqual([true, true, true]);
  });

  it("that canaries meet is told as well", async () => {
    await using antivirus = new Antivirus();
    const url = await antivirus.start();
    const all = [await instance(url, WATCHFUL), await instance(url, { machine: "other" })];
    const stamp = ago(0);
    antivirus.tag = "tag-2";
    await expect.poll(() => upheld(all, stamp), SOON).toEqual([false, false]);
    await expect.poll(() => healthy(all), SOON).toEqual([true, true]);
  });

  it("is looked for again when news of it comes while canaries are under way, for these may have been too early", async () => {
    vi.useFakeTimers();
    let tag = "old";
    let held: Promise<void> | undefined;
    let runs = 0;
    using proof = new Proof({
      name: "antivirus",
      required: ["plain"],
      interval: HOUR,
      timeout: MINUTE,
      send: async ({ bytes }) => {
        const answer = { outcome: bytes.equals(EICAR) ? "infected" : "clean", tag } as const;
        if (answer.outcome === "infected") {
          runs += 1;
          await held;
        }
        return answer;
      },
      log: { proven: nothing, unproven: nothing, missed: nothing },
      clock: Date.now,
    });
    await proof.prove();
    const release = Promise.withResolvers<void>();
    held = release.promise;
    const early = proof.prove();
    await vi.waitUntil(() => runs === 2);
    tag = "new";
    proof.recheck();
    held = undefined;
    release.resolve();
    await early;
    expect(proof.standing?.tag).toBe("old");
    await vi.advanceTimersByTimeAsync(2_000);
    expect(proof.standing?.tag).toBe("new");
    expect(runs).toBe(3);
    await vi.advanceTimersByTimeAsync(MINUTE);
    expect(runs).toBe(3);
  });
});

describe("hints", () => {
  it("by the thousand cost a look each second, and a run of canaries each five, and the last of them is not forgotten", async () => {
    vi.useFakeTimers();
    let told: () => void = nothing;
    const count = { looks: 0, runs: 0 };
    const place: SharedDoubts = {
      ...EMPTY,
      load: async () => {
        count.looks += 1;
        return [];
      },
      listen: (_, listener) => {
        told = listener.told;
        return { [Symbol.dispose]: nothing };
      },
    };
    using exchange = new DoubtExchange({
      shared: place,
      key: "av",
      replicas: [],
      news: () => (count.runs += 1),
      learned: nothing,
      clock: Date.now,
    });
    await exchange.start();
    for (let hint = 0; hint < 5_950; hint += 1) {
      told();
      await vi.advanceTimersByTimeAsync(10);
    }
    expect(count.runs).toBeGreaterThanOrEqual(12);
    expect(count.runs).toBeLessThanOrEqual(13);
    expect(count.looks).toBeLessThanOrEqual(70);
    const before = count.runs;
    await vi.advanceTimersByTimeAsync(10_000);
    expect(count.runs).toBe(before + 1);
  });
});
