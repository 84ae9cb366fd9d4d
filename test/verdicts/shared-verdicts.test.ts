import { createHash, randomBytes } from "node:crypto";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { VerdictKeys } from "../../src/verdicts/keys.ts";
import { RecordCodec, sourceToJson } from "../../src/verdicts/record-codec.ts";
import { RedisRecords, type RedisRecordsOptions } from "../../src/verdicts/redis-records.ts";
import { SharedVerdictStore, type SharedVerdictStoreOptions } from "../../src/verdicts/shared-verdicts.ts";
import type { SourceRecord, VerdictRecord } from "../../src/verdicts/store.ts";
import { type Redis as Server, startRedis } from "../support/peers/redis.ts";

const secret = randomBytes(32);
const keys = new VerdictKeys(secret);
const now = Date.now();
const clean: VerdictRecord = { outcome: "clean", stamps: { antivirus: { tag: "W/tag-1", at: now } } };
const infected: VerdictRecord = {
  outcome: "infected",
  stamps: { antivirus: { tag: "tag", at: now }, dlp: { tag: "", at: now + 1 } },
  threat: "Eicar-Test-Signature",
  scanner: "antivirus",
};
const source: SourceRecord = {
  content: keys.content(randomBytes(32), "p"),
  digest: keys.digest(randomBytes(32)),
  size: 1024 * 1024 + 1,
  pieces: randomBytes(96),
};

let server: Server;
let raw: Redis;
let stores: SharedVerdictStore[] = [];
let logged: { level: string; message: string; details: object }[] = [];
let dropped = 0;

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
  logged = [];
  dropped = 0;
  await raw.flushall();
});

afterEach(async () => {
  await Promise.all(stores.map((store) => store[Symbol.asyncDispose]()));
  stores = [];
});

/** A store as another instance would have it, connected. */
async function storeOf(options: Options = {}): Promise<SharedVerdictStore> {
  const store = unconnected(options);
  await expect.poll(() => store.health().degraded, { timeout: 5000 }).toBe(false);
  return store;
}

type Options = Partial<RedisRecordsOptions & Omit<SharedVerdictStoreOptions, "records">>;

function recordsOf(options: Options = {}): RedisRecords {
  const records = new RedisRecords({
    connection: { url: server.url },
    keyPrefix: "mig:",
    secret,
    log: {
      info: (details, message) => logged.push({ level: "info", message, details }),
      warn: (details, message) => logged.push({ level: "warn", message, details }),
    },
    onDropped: () => (dropped += 1),
    ...options,
  });
  onTestFinished(() => records[Symbol.dispose]());
  return records;
}

function unconnected(options: Options = {}): SharedVerdictStore {
  const store = new SharedVerdictStore({
    records: recordsOf(options),
    ttl: { clean: 60_000, infected: 60_000 },
    maxEntries: 100,
    ...options,
  });
  stores.push(store);
  return store;
}

describe("SharedVerdictStore", () => {
  it("shares what one instance learned with another", async () => {
    const [one, other] = [await storeOf(), await storeOf()];
    await one.rememberVerdict("a", clean);
    await one.rememberVerdict("b", infected);
    await one.rememberVerdict("c", { outcome: "type_forbidden", mime: "text/html" });
    await one.rememberSource("a", source);
    expect(await other.verdict("a")).toMatchObject({ record: clean });
    expect(await other.verdict("b")).toMatchObject({ record: infected });
    expect(await other.verdict("c")).toMatchObject({ record: { outcome: "type_forbidden", mime: "text/html" } });
    expect(await other.source("a")).toEqual(source);
    expect(await other.verdict("unknown")).toBeUndefined();
    await one.forgetSource("a");
    expect(await (await storeOf()).source("a")).toBeUndefined();
    expect(dropped).toBe(0);
  });

  it("keeps prefixes apart, and expires in Redis too", async () => {
    const one = await storeOf({ ttl: { clean: 5000, infected: 90_000 } });
    await one.rememberVerdict("a", clean);
    expect(await (await storeOf({ keyPrefix: "other:" })).verdict("a")).toBeUndefined();
    const left = await raw.pttl("mig:verdict:a");
    expect(left).toBeGreaterThan(0);
    expect(left).toBeLessThanOrEqual(5000);
  });

  it("believes no value that was forged, moved, cut, planted, or written with another secret", async () => {
    const one = await storeOf();
    await one.rememberVerdict("clean file", clean);
    await one.rememberVerdict("infected file", infected);
    await one.rememberSource("s", source);
    const value = await raw.getBuffer("mig:verdict:clean file");
    if (value === null) throw new Error("nothing was written");
    const flipped = Buffer.from(value);
    flipped[20] = (flipped[20] ?? 0) ^ 1;
    const longer = Buffer.from(value);
    longer.writeBigUInt64BE(BigInt(Date.now() + 1e10), 1);
    const plants: (Buffer | string)[] = [
      flipped,
      longer,
      value.subarray(0, -1),
      Buffer.concat([value, Buffer.from([0])]),
      Buffer.concat([Buffer.from([2]), value.subarray(1)]),
      value.subarray(0, 9),
      JSON.stringify(clean),
      "x",
      Buffer.alloc(3 * 1024 * 1024, 1),
    ];
    for (const plant of plants) {
      dropped = 0;
      await raw.set("mig:verdict:victim", plant);
      expect(await (await storeOf()).verdict("victim")).toBeUndefined();
      expect(dropped).toBe(1);
    }
    await raw.set("mig:verdict:infected file", value);
    await raw.set("mig:source2:t", (await raw.getBuffer("mig:source2:s")) ?? "");
    await raw.set("mig:verdict:s", (await raw.getBuffer("mig:source2:s")) ?? "");
    const other = await storeOf();
    expect(await other.verdict("infected file")).toBeUndefined();
    expect(await other.source("t")).toBeUndefined();
    expect(await other.verdict("s")).toBeUndefined();
    expect(await (await storeOf({ secret: randomBytes(32) })).verdict("clean file")).toBeUndefined();
    expect(await other.verdict("clean file")).toMatchObject({ record: clean });
  });

  it("takes a value of a wrong type for no answer, goes on, and mends it", async () => {
    await raw.lpush("mig:verdict:a", "x");
    const store = await storeOf();
    expect(await store.verdict("a")).toBeUndefined();
    expect(dropped).toBe(1);
    expect(store.health()).toMatchObject({ degraded: false, problems: [expect.stringMatching(/fail their check/)] });
    await store.rememberVerdict("a", clean);
    expect(await (await storeOf()).verdict("a")).toMatchObject({ record: clean });
  });

  it("takes no value past its time, though Redis still has it", async () => {
    const clock = { now: Date.now() };
    const store = await storeOf();
    await store.rememberVerdict("a", clean);
    await store.rememberSource("a", source);
    const later = await storeOf({ now: () => clock.now });
    expect(await later.verdict("a")).toMatchObject({ record: clean });
    clock.now += 90_000;
    expect(await later.verdict("a")).toBeUndefined();
    expect(await later.source("a")).toBeUndefined();
    expect(dropped).toBe(0);
  });

  it("leaves no older verdict behind when the newer one is of a kind that is not kept", async () => {
    const store = await storeOf({ ttl: { clean: 60_000, infected: 0 } });
    await store.rememberVerdict("a", clean);
    await store.rememberVerdict("a", infected);
    expect(await (await storeOf()).verdict("a")).toBeUndefined();
    await (await storeOf()).rememberVerdict("b", infected);
    expect(await store.verdict("b")).toBeUndefined();
  });

  it("believes only records that are whole", async () => {
    const codec = new RecordCodec(secret);
    const plant = (key: string, content: unknown) => raw.set(key, codec.seal(key, content, Date.now() + 60_000));
    const broken: unknown[] = [
      { outcome: "clean" },
      { outcome: "clean", stamps: {}, extra: 1 },
      { outcome: "clean", stamps: { a: { tag: 1, at: 2 } } },
      { outcome: "other", stamps: {} },
      null,
    ];
    for (const record of broken) {
      await plant("mig:verdict:v", record);
      expect(await (await storeOf()).verdict("v")).toBeUndefined();
    }
    const sources: SourceRecord[] = [
      { ...source, size: -1 },
      { ...source, size: 10 },
      { ...source, pieces: Buffer.alloc(0) },
      { ...source, content: "short" },
      { ...source, digest: "short" },
      { ...source, verdict: { record: { ...infected, threat: "x".repeat(5000) }, expiresAt: 1 } },
      { ...source, verdict: { record: clean, expiresAt: -1 } },
    ];
    const { digest: _digest, ...older } = source;
    for (const record of [...sources, { ...source, of: "a newer format" }, older].map((one) => sourceToJson(one as SourceRecord))) {
      await plant("mig:source2:s", record);
      expect(await (await storeOf()).source("s")).toBeUndefined();
    }
    expect(dropped).toBe(broken.length + sources.length + 2);
    await plant("mig:verdict:v", clean);
    expect(await (await storeOf()).verdict("v")).toMatchObject({ record: clean });
  });

  it("tells who reads Redis nothing of what was seen", async () => {
    const store = await storeOf();
    const file = Buffer.from("a file that somebody would like to know of");
    const sha256 = createHash("sha256").update(file).digest();
    const key = keys.plainSource({ serverName: "secret.example", mediaId: "MediaIdOfAFile" }, ["download"]);
    await store.rememberSource(key, {
      content: keys.content(sha256, "policy"),
      digest: keys.digest(sha256),
      size: file.length,
      pieces: sha256,
    });
    await store.rememberVerdict(keys.content(sha256, "policy"), infected);
    const names = await raw.keys("*");
    const dump = Buffer.concat(
      await Promise.all(names.map(async (name) => Buffer.concat([Buffer.from(name), (await raw.getBuffer(name)) ?? Buffer.alloc(0)]))),
    );
    expect(dump.includes("mig:source2:")).toBe(true);
    for (const telltale of [sha256, sha256.toString("hex"), sha256.toString("base64"), sha256.toString("base64url")]) {
      expect(dump.includes(telltale)).toBe(false);
    }
    for (const telltale of ["secret.example", "MediaIdOfAFile", "Eicar", "antivirus"]) expect(dump.includes(telltale)).toBe(false);
  });

  it("answers from memory while Redis is gone, says so, and comes back by itself", async () => {
    const store = await storeOf();
    await store.rememberVerdict("a", clean);
    await server.kill();
    await expect.poll(() => store.health().degraded).toBe(true);
    expect(store.health().problems[0]).toMatch(/^Redis at 127\.0\.0\.1:\d+: .*in this process only$/);
    expect(await store.verdict("a")).toMatchObject({ record: clean });
    expect(await store.verdict("unknown")).toBeUndefined();
    await store.rememberVerdict("b", infected);
    await store.rememberSource("b", source);
    expect(await store.verdict("b")).toMatchObject({ record: infected });
    await store.forgetSource("b");
    expect(await store.source("b")).toBeUndefined();

    await server.restart();
    await expect.poll(() => store.health(), { timeout: 8000 }).toEqual({ degraded: false, problems: [] });
    await store.rememberVerdict("c", clean);
    expect(await (await storeOf()).verdict("c")).toMatchObject({ record: clean });
    expect(logged.map(({ level }) => level)).toEqual(["warn", "info"]);
  }, 20_000);

  it("does not keep requests waiting for a Redis that hangs", async () => {
    const store = await storeOf();
    await store.rememberVerdict("a", clean);
    await server.kill("SIGSTOP");
    try {
      // All are done while Redis hangs: none waits for it, and none of what was asked lines up.
      for (let n = 0; n < 50; n++) {
        expect(await store.verdict("a")).toMatchObject({ record: clean });
        expect(await store.verdict(`unknown ${n}`)).toBeUndefined();
        await store.rememberVerdict(`new ${n}`, infected);
        expect(await store.verdict(`new ${n}`)).toMatchObject({ record: infected });
      }
      expect(store.health().degraded).toBe(true);
    } finally {
      await server.kill("SIGCONT");
    }
    await expect.poll(() => store.health().degraded, { timeout: 8000 }).toBe(false);
    await store.rememberVerdict("b", infected);
    expect(await (await storeOf()).verdict("b")).toMatchObject({ record: infected });
  }, 20_000);

  it("says so when Redis answers with errors, and goes on asking", async () => {
    const store = await storeOf();
    await raw.config("SET", "maxmemory", "1");
    try {
      await store.rememberVerdict("a", clean);
      expect(store.health()).toMatchObject({ degraded: true, problems: [expect.stringContaining("OOM")] });
      expect(await store.verdict("a")).toMatchObject({ record: clean });
    } finally {
      await raw.config("SET", "maxmemory", "0");
    }
    await store.rememberVerdict("b", infected);
    expect(await (await storeOf()).verdict("b")).toMatchObject({ record: infected });
  });

  it("works without ever having reached Redis, and never shows the password", async () => {
    const password = "a-password-nobody-may-see";
    await raw.config("SET", "requirepass", "another");
    await raw.auth("another");
    try {
      const store = unconnected({ connection: { url: server.url, password } });
      await expect.poll(() => logged.length, { timeout: 5000 }).toBeGreaterThan(0);
      await store.rememberVerdict("a", clean);
      expect(await store.verdict("a")).toMatchObject({ record: clean });
      expect(store.health().degraded).toBe(true);
      expect(JSON.stringify([logged, store.health()])).not.toContain(password);
      await storeOf({ connection: { url: server.url, password: "another" } });
    } finally {
      await raw.config("SET", "requirepass", "");
    }
  });
});
