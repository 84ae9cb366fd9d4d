import { randomBytes } from "node:crypto";
import { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import type { Lease } from "../../src/verdicts/lease.ts";
import { RedisRecords } from "../../src/verdicts/redis-records.ts";
import { SharedProvenSizes } from "../../src/verdicts/shared-proofs.ts";
import { type Redis as Server, startRedis } from "../support/peers/redis.ts";

const secret = randomBytes(32);
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

/** As one instance has it, connected. */
async function instance(url = server.url): Promise<RedisRecords> {
  const log = { info: () => undefined, warn: () => undefined };
  const records = new RedisRecords({ connection: { url }, keyPrefix: "mig:", secret, log });
  onTestFinished(() => records[Symbol.dispose]());
  if (url === server.url) await expect.poll(() => records.health().degraded, { timeout: 5000 }).toBe(false);
  return records;
}

describe("a lease", () => {
  it("is one instance's until it lets go", async () => {
    const [one, other] = [await instance(), await instance()];
    const lease = await one.lease("work", 60_000);
    expect(await other.lease("work", 60_000)).toBe("taken");
    expect(await other.lease("other work", 60_000)).not.toBe("taken");
    if (lease !== "taken") await lease[Symbol.asyncDispose]();
    expect(await other.lease("work", 60_000)).not.toBe("taken");
  });

  it("outlives its time while its holder lives, and no longer", async () => {
    const [one, other] = [await instance(), await instance()];
    await one.lease("work", 1500);
    for (let tries = 0; tries < 25; tries += 1) {
      expect(await other.lease("work", 1500)).toBe("taken");
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    // As if its process had died.
    one[Symbol.dispose]();
    await expect.poll(() => other.lease("work", 60_000), { timeout: 5000 }).not.toBe("taken");
  });

  it("tells who lets go of it whether another one has asked for it, be it before it was extended", async () => {
    const [one, other] = [await instance(), await instance()];
    const taken = async (ttl: number): Promise<Lease> => {
      const lease = await one.lease("work", ttl);
      if (lease === "taken") throw new Error("it is taken");
      return lease;
    };
    expect(await (await taken(60_000)).release()).toBe(false);
    const lease = await taken(600);
    const before = await raw.getBuffer("mig:lease:work");
    expect(await other.lease("work", 600)).toBe("taken");
    expect(await raw.pttl("mig:lease:work")).toBeGreaterThan(0);
    await expect.poll(() => raw.getBuffer("mig:lease:work")).not.toEqual(Buffer.concat([before ?? Buffer.alloc(0), Buffer.from("w")]));
    expect(await lease.release()).toBe(true);
    expect(await (await taken(60_000)).release()).toBe(false);
  });

  it("does not grow with what somebody else puts behind it", async () => {
    const one = await instance();
    const lease = await one.lease("work", 600);
    const length = await raw.strlen("mig:lease:work");
    await raw.append("mig:lease:work", "x".repeat(100_000));
    await expect.poll(() => raw.strlen("mig:lease:work")).toBeLessThan(length + 2);
    if (lease !== "taken") await lease[Symbol.asyncDispose]();
    expect(await raw.exists("mig:lease:work")).toBe(0);
  });

  it("that somebody else has taken since is left alone", async () => {
    const one = await instance();
    const lease = await one.lease("work", 60_000);
    await raw.set("mig:lease:work", "another's token");
    if (lease !== "taken") await lease[Symbol.asyncDispose]();
    expect(await raw.get("mig:lease:work")).toBe("another's token");
  });

  it("is everybody's while Redis is away", async () => {
    const alone = await instance("redis://127.0.0.1:1");
    expect(await alone.lease("work", 60_000)).not.toBe("taken");
  });
});

describe("proven sizes", () => {
  it("reach other instances, and tell nobody who reads Redis what they are about", async () => {
    const [one, other] = [await instance(), await instance()].map((records) => new SharedProvenSizes(records, secret, 60_000));
    await one?.remember("icap://scanner.example.com/avscan tag", { size: 5_000_000, at: 1_700_000_000_000 });
    expect(await other?.recall("icap://scanner.example.com/avscan tag")).toEqual({ size: 5_000_000, at: 1_700_000_000_000 });
    expect(await other?.recall("icap://scanner.example.com/avscan other tag")).toBeUndefined();
    const [key = ""] = await raw.keys("mig:proof:*");
    expect(key).not.toContain("scanner");
    expect(await raw.get(key)).not.toContain("5000000");
  });

  it("that somebody planted are none", async () => {
    const sizes = new SharedProvenSizes(await instance(), secret, 60_000);
    await sizes.remember("key", { size: 1, at: 1 });
    const [key = ""] = await raw.keys("mig:proof:*");
    await raw.set(key, JSON.stringify({ size: 1e9, at: Date.now() }));
    expect(await sizes.recall("key")).toBeUndefined();
  });

  it("are one instance's to find out", async () => {
    const [one, other] = [await instance(), await instance()].map((records) => new SharedProvenSizes(records, secret, 60_000));
    const lease = await one?.lease("key");
    expect(lease).toBeDefined();
    expect(await other?.lease("key")).toBeUndefined();
    await lease?.[Symbol.asyncDispose]();
    expect(await other?.lease("key")).toBeDefined();
  });
});
