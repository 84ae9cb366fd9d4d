import { createHash, randomBytes } from "node:crypto";
import { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { VerdictKeys } from "../../src/verdicts/keys.ts";
import type { Lifetimes } from "../../src/verdicts/memory.ts";
import { RecordCodec } from "../../src/verdicts/record-codec.ts";
import { RedisRecords } from "../../src/verdicts/redis-records.ts";
import { SharedVerdictStore } from "../../src/verdicts/shared-verdicts.ts";
import type { KeptVerdict, SourceRecord, VerdictRecord } from "../../src/verdicts/store.ts";
import { type Redis as Server, startRedis } from "../support/peers/redis.ts";

const secret = randomBytes(32);
const keys = new VerdictKeys(secret);
const sha256 = createHash("sha256").update("bytes").digest();
const CONTENT = keys.content(sha256, "policy");
const source: SourceRecord = { content: CONTENT, digest: keys.digest(sha256), size: 5, pieces: sha256 };
const START = 1_700_000_000_000;
const clean = (at: number): VerdictRecord => ({ outcome: "clean", stamps: { antivirus: { tag: "t", at } } });
const infected = (at: number): VerdictRecord => ({
  outcome: "infected",
  stamps: { antivirus: { tag: "t", at } },
  threat: "Eicar",
  scanner: "antivirus",
});

let server: Server;
let raw: Redis;
let clock = { now: START };

beforeAll(async () => {
  server = await startRedis();
  raw = new Redis(server.port, server.host, { retryStrategy: () => 20 });
  raw.on("error", () => undefined);
});

afterAll(async () => {
  raw.disconnect();
  await server.stop();
});

beforeEach(async () => {
  clock = { now: START };
  await raw.flushall();
});

/** As one instance has it, connected and listening. @param mute it tells nobody anything */
async function instance(ttl: Lifetimes = { clean: 3_600_000, infected: 3_600_000 }, mute = false): Promise<SharedVerdictStore> {
  const listeners = await listening();
  const now = (): number => clock.now;
  const log = { info: () => undefined, warn: () => undefined };
  const records = new RedisRecords({ connection: { url: server.url }, keyPrefix: "mig:", secret, log, now });
  if (mute) records.publish = async () => undefined;
  const store = new SharedVerdictStore({ records, ttl, maxEntries: 100, now });
  onTestFinished(async () => {
    await store[Symbol.asyncDispose]();
    records[Symbol.dispose]();
  });
  await expect.poll(() => store.health().degraded, { timeout: 5000 }).toBe(false);
  await expect.poll(listening).toBe(listeners + 1);
  // From here on nothing was missed.
  clock.now += 1;
  return store;
}

async function listening(): Promise<number> {
  const [, count] = (await raw.pubsub("NUMSUB", "mig:infected")) as [string, number];
  return count;
}

/** As long as what was found infected counts. */
function stays({ record }: KeptVerdict): boolean {
  return record.outcome === "infected";
}

async function keep(store: SharedVerdictStore, record: VerdictRecord): Promise<KeptVerdict> {
  const kept = await store.rememberVerdict(CONTENT, record);
  if (kept === undefined) throw new Error("it was not kept");
  return kept;
}

/** How often values were read while this was done. */
async function reads(work: () => Promise<unknown>): Promise<number> {
  await raw.config("RESETSTAT");
  await work();
  const stats = await raw.info("commandstats");
  return Number(/cmdstat_getrange:calls=(\d+)/.exec(stats)?.[1] ?? 0);
}

async function outcomeOf(store: SharedVerdictStore, key: string): Promise<string | undefined> {
  return (await store.source(key))?.verdict?.record.outcome;
}

describe("a source's record", () => {
  it("brings its verdict along in one round trip, and is then known without one", async () => {
    const [one, other] = [await instance(), await instance()];
    const verdict = await keep(one, clean(clock.now));
    await one.rememberSource("a", { ...source, verdict });
    expect(await reads(() => one.source("a"))).toBe(0);
    expect(await reads(async () => expect(await other.source("a")).toEqual({ ...source, verdict }))).toBe(1);
    await other.source("a");
    expect(await reads(() => other.source("a"))).toBe(0);
  });

  it("has its verdict no longer than the verdict itself, whatever its own time, here and where others read it", async () => {
    const ttl = { clean: 100_000, infected: 3_600_000 };
    const one = await instance(ttl);
    const verdict = await keep(one, clean(START));
    clock.now += 60_000;
    await one.rememberSource("a", { ...source, verdict });
    const other = await instance(ttl);
    expect(await outcomeOf(other, "a")).toBe("clean");
    clock.now = verdict.expiresAt;
    for (const store of [one, other, await instance(ttl)]) expect(await store.source("a")).toEqual(source);
  });

  it("of another format is none", async () => {
    const store = await instance();
    await store.rememberSource("a", source);
    const codec = new RecordCodec(secret);
    const plant = (content: object): Promise<unknown> => raw.set("mig:source2:b", codec.seal("mig:source2:b", content, clock.now + 60_000));
    const { content, size } = source;
    const pieces = sha256.toString("base64");
    for (const other of [
      { content, size, pieces },
      { content, digest: source.digest, size, pieces, format: 3 },
    ]) {
      await plant(other);
      expect(await store.source("b")).toBeUndefined();
    }
    await plant({ content, digest: source.digest, size, pieces });
    expect(await store.source("b")).toEqual(source);
  });
});

describe("a verdict that was made anew", () => {
  it("found infected, wins on all instances at once over the clean copies that they know", async () => {
    const [one, other] = [await instance(), await instance()];
    const verdict = await keep(one, clean(START));
    for (const key of ["a", "b"]) {
      await one.rememberSource(key, { ...source, verdict });
      for (let round = 0; round < 3; round += 1) expect(await outcomeOf(other, key)).toBe("clean");
    }
    await keep(one, infected(START + 1));
    expect(await outcomeOf(one, "a")).toBe("infected");
    for (const key of ["a", "b"]) await expect.poll(() => outcomeOf(other, key)).toBe("infected");
  });

  it("wins over a copy that is older, the second time at the latest that an instance which knew nothing reads it", async () => {
    const one = await instance();
    await one.rememberSource("a", { ...source, verdict: await keep(one, clean(START)) });
    await keep(one, infected(START + 1));
    const other = await instance();
    await other.source("a");
    expect(await outcomeOf(other, "a")).toBe("infected");
  });

  it("by another instance, is learned within a minute without any message", async () => {
    const [one, other] = [await instance(undefined, true), await instance()];
    await one.rememberSource("a", { ...source, verdict: await keep(one, clean(START)) });
    for (let round = 0; round < 2; round += 1) expect(await outcomeOf(other, "a")).toBe("clean");
    await keep(one, infected(START + 1));
    expect(await outcomeOf(other, "a")).toBe("clean");
    clock.now += 60_001;
    expect(await outcomeOf(other, "a")).toBe("infected");
  });

  it("clean, neither replaces an infected one that stays, whoever found it, nor one that this process found itself", async () => {
    const [one, other] = [await instance(), await instance()];
    await keep(one, infected(START));
    expect(await other.rememberVerdict(CONTENT, clean(START + 5), stays)).toMatchObject({ record: infected(START) });
    for (const store of [one, other, await instance()]) expect((await store.verdict(CONTENT, true))?.record).toEqual(infected(START));
    // An instance that could not tell the others at the time does so when it sees what they believe.
    await raw.flushall();
    const third = await instance();
    await keep(third, clean(START + 5));
    expect((await one.verdict(CONTENT, true))?.record).toEqual(infected(START));
    await expect.poll(async () => (await third.verdict(CONTENT, true))?.record.outcome).toBe("infected");
    // Once nothing speaks for it any more, it goes, on all of them that ask anew.
    expect(await other.rememberVerdict(CONTENT, clean(START + 9), () => false)).toMatchObject({ record: clean(START + 9) });
    expect((await (await instance()).verdict(CONTENT))?.record).toEqual(clean(START + 9));
  });

  it("by two at the same moment, is infected in the end", async () => {
    const [one, other] = [await instance(), await instance()];
    for (let round = 0; round < 20; round += 1) {
      await raw.flushall();
      const key = keys.content(randomBytes(32), "policy");
      const cleans = [1, 2, 3].map((at) => other.rememberVerdict(key, clean(START + at), stays));
      await Promise.all([...cleans, one.rememberVerdict(key, infected(START)), other.rememberVerdict(key, clean(START + 4), stays)]);
      expect((await (await instance()).verdict(key))?.record.outcome).toBe("infected");
    }
  });

  it("is kept no longer than this instance keeps verdicts, however long the other one does", async () => {
    const [one, other] = [await instance({ clean: 1e9, infected: 1e9 }), await instance({ clean: 1e6, infected: 1e6 })];
    await keep(one, clean(START));
    expect(await other.verdict(CONTENT)).toMatchObject({ expiresAt: START + 1e6 });
    clock.now = START + 1e6;
    expect(await (await instance({ clean: 1e6, infected: 1e6 })).verdict(CONTENT)).toBeUndefined();
    expect((await (await instance({ clean: 1e9, infected: 1e9 })).verdict(CONTENT))?.record.outcome).toBe("clean");
  });

  it("is not undone by an older one that somebody puts back", async () => {
    const store = await instance();
    await keep(store, clean(START));
    const old = await raw.getBuffer(`mig:verdict:${CONTENT}`);
    await keep(store, infected(START + 1));
    await raw.set(`mig:verdict:${CONTENT}`, old ?? "");
    clock.now += 60_001;
    expect((await store.verdict(CONTENT))?.record.outcome).toBe("infected");
    expect((await store.verdict(CONTENT, true))?.record.outcome).toBe("infected");
  });

  it("can't be had from a message: who sends one makes instances look again, and no more", async () => {
    const [one, other] = [await instance(), await instance()];
    await one.rememberSource("a", { ...source, verdict: await keep(one, clean(START)) });
    for (let round = 0; round < 2; round += 1) await other.source("a");
    const forged = [CONTENT, "a", "x".repeat(2000), "\0", JSON.stringify(infected(START + 1))];
    for (const message of forged) await raw.publish("mig:infected", message);
    await expect.poll(() => reads(() => other.source("a"))).toBe(0);
    expect(await outcomeOf(other, "a")).toBe("clean");
  });
});

describe("verdicts in memory, a minute later", () => {
  it("still count when Redis came back empty", async () => {
    const store = await instance();
    await store.rememberSource("a", { ...source, verdict: await keep(store, clean(START)) });
    await raw.flushall();
    clock.now += 60_001;
    expect(await outcomeOf(store, "a")).toBe("clean");
    expect(await reads(() => store.source("a"))).toBe(0);
  });

  it("still count when Redis can't be asked", async () => {
    const store = await instance();
    await store.rememberSource("a", { ...source, verdict: await keep(store, clean(START)) });
    await server.kill();
    try {
      clock.now += 60_001;
      expect(await outcomeOf(store, "a")).toBe("clean");
    } finally {
      await server.restart();
    }
  });
});
