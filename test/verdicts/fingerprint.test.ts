import { randomBytes } from "node:crypto";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { RedisRecords } from "../../src/verdicts/redis-records.ts";
import { type Redis as Server, startRedis } from "../support/peers/redis.ts";

const secret = randomBytes(32);
const MINUTE = 60_000;
let server: Server;
let raw: Redis;

beforeAll(async () => {
  server = await startRedis();
  raw = new Redis(server.port, server.host);
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

/** Whose connection has been made, and what is in Redis read. */
async function instance(options: { readonly secret?: Buffer; readonly publicKey?: string; readonly keyPrefix?: string } = {}) {
  const logged: string[] = [];
  const log = { info: () => undefined, warn: (_details: object, message: string) => logged.push(message) };
  const records = new RedisRecords({ connection: { url: server.url }, keyPrefix: "mig:", secret, log, ...options });
  onTestFinished(() => records[Symbol.dispose]());
  await expect.poll(() => records.health().degraded, { timeout: 5000 }).toBe(false);
  await compared(records);
  return { records, logged };
}

/** Commands are answered in their order, and comparing takes four. */
async function compared(records: RedisRecords): Promise<void> {
  for (let command = 0; command < 4; command += 1) await records.get("anything", () => undefined);
}

const anotherSecret = expect.stringMatching(
  /^an instance with the same Redis and key prefix has another secret.*\(if there is none, delete mig:fingerprint(?:-other)? in Redis\)$/,
);
const anotherKey = expect.stringMatching(/^an instance with the same Redis and key prefix has another public key/);

describe("the fingerprint", () => {
  it("tells instances with another secret or public key of it, in health and once in the log", async () => {
    await instance({ publicKey: "key" });
    const same = await instance({ publicKey: "key" });
    const without = await instance();
    const elsewhere = await instance({ secret: randomBytes(32), publicKey: "other key", keyPrefix: "other:" });
    for (const { records, logged } of [same, without, elsewhere]) {
      expect(records.health()).toEqual({ degraded: false, problems: [] });
      expect(logged).toEqual([]);
    }
    const cases = [
      { given: { secret: randomBytes(32), publicKey: "key" }, told: [anotherSecret] },
      { given: { publicKey: "other key" }, told: [anotherKey] },
      { given: { secret: randomBytes(32), publicKey: "other key" }, told: [anotherSecret, anotherKey] },
    ];
    for (const { given, told } of cases) {
      const { records, logged } = await instance(given);
      await expect.poll(() => records.health()).toEqual({ degraded: false, problems: told });
      expect(logged).toEqual(told);
    }
    expect((await raw.keys("mig:*")).toSorted()).toEqual(["mig:fingerprint", "mig:fingerprint-other"]);
    expect(await raw.get("mig:fingerprint")).not.toContain(secret.toString("base64url"));
    expect(await raw.pttl("mig:fingerprint-other")).toBeGreaterThan(0);
  });

  it("tells the instance that was there first, too, as long as another one is", async () => {
    vi.useFakeTimers({ toFake: ["setInterval"] });
    const first = await instance({ publicKey: "key" });
    const other = await instance({ secret: randomBytes(32), publicKey: "other key" });
    vi.advanceTimersByTime(MINUTE);
    for (const { records, logged } of [first, other]) {
      await expect.poll(() => records.health()).toEqual({ degraded: false, problems: [anotherSecret, anotherKey] });
      expect(logged).toEqual([anotherSecret, anotherKey]);
    }
    // Who came later is the one whose commands nobody would heed.
    expect(first.records.conflict).toBeUndefined();
    expect(other.records.conflict).toEqual(anotherSecret);
    other.records[Symbol.dispose]();
    await raw.del("mig:fingerprint-other");
    vi.advanceTimersByTime(MINUTE);
    await expect.poll(() => first.records.health().problems).toEqual([]);
  });

  it("in the place for others means nothing when it is none, and no more than a hint when it is", async () => {
    vi.useFakeTimers({ toFake: ["setInterval"] });
    const { records } = await instance();
    for (const planted of ["", "planted", "x".repeat(100_000)]) {
      await raw.set("mig:fingerprint-other", planted);
      vi.advanceTimersByTime(MINUTE);
      await compared(records);
      expect(records.health().problems).toEqual([]);
    }
    await raw.set("mig:fingerprint-other", `${"x".repeat(43)} -`);
    vi.advanceTimersByTime(MINUTE);
    await expect.poll(() => records.health()).toEqual({ degraded: false, problems: [anotherSecret] });
    expect(records.conflict).toBeUndefined();
  });

  it("is compared again when Redis comes back, maybe empty, and each minute", async () => {
    vi.useFakeTimers({ toFake: ["setInterval"] });
    const { records, logged } = await instance({ publicKey: "key" });
    const own = String(await raw.get("mig:fingerprint"));
    await raw.flushall();
    vi.advanceTimersByTime(MINUTE);
    await expect.poll(() => raw.get("mig:fingerprint")).toBe(own);
    await raw.set("mig:fingerprint", own.replace(/^.{10}/, "0000000000"));
    vi.advanceTimersByTime(MINUTE);
    await expect.poll(() => records.health().problems).toEqual([anotherSecret]);
    vi.advanceTimersByTime(MINUTE);
    await compared(records);
    expect(records.health().problems).toEqual([anotherSecret]);
    expect(logged).toEqual([anotherSecret]);
    // Whoever it was has gone.
    await raw.del("mig:fingerprint");
    await raw.call("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes");
    await expect.poll(() => records.health(), { timeout: 5000 }).toEqual({ degraded: false, problems: [] });
    expect(await raw.get("mig:fingerprint")).toBe(own);
  });

  it("goes after its last instance has gone, so that a new secret is not another one for ever", async () => {
    vi.useFakeTimers({ toFake: ["setInterval"] });
    const { records } = await instance();
    expect(await raw.pttl("mig:fingerprint")).toBeGreaterThan(2 * MINUTE);
    await raw.pexpire("mig:fingerprint", MINUTE);
    vi.advanceTimersByTime(MINUTE);
    await expect.poll(() => raw.pttl("mig:fingerprint")).toBeGreaterThan(2 * MINUTE);
    records[Symbol.dispose]();
    await raw.pexpire("mig:fingerprint", MINUTE);
    vi.advanceTimersByTime(10 * MINUTE);
    expect(await raw.pttl("mig:fingerprint")).toBeLessThanOrEqual(MINUTE);
  });

  it("that somebody planted is a problem, and no more than that", async () => {
    await raw.lpush("mig:fingerprint", "x");
    const { records } = await instance();
    await expect
      .poll(() => records.health())
      .toEqual({
        degraded: false,
        problems: ["mig:fingerprint in Redis is no fingerprint: something else writes there; look at it, and delete it"],
      });
    await records.set("a", "b", MINUTE);
    expect((await records.get("a", String))?.record).toBe("b");
  });
});
