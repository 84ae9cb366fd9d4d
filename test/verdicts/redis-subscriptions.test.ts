import { randomBytes } from "node:crypto";
import { Redis } from "ioredis";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { RedisRecords } from "../../src/verdicts/redis-records.ts";
import { type Redis as Server, startRedis } from "../support/peers/redis.ts";

const secret = randomBytes(32);
let server: Server;
let raw: Redis;

beforeAll(async () => {
  server = await startRedis();
  raw = new Redis(server.port, server.host, { retryStrategy: () => 20 });
  raw.on("error", () => undefined);
});

afterAll(async () => {
  raw.disconnect();
  await server.stop();
});

/** As one instance has it, connected. */
async function instance(options: { readonly username?: string; readonly password?: string } = {}): Promise<RedisRecords> {
  const log = { info: () => undefined, warn: () => undefined };
  const records = new RedisRecords({ connection: { url: server.url, ...options }, keyPrefix: "mig:", secret, log });
  onTestFinished(() => records[Symbol.dispose]());
  await expect.poll(() => records.health().degraded, { timeout: 5000 }).toBe(false);
  return records;
}

/** What is heard on a channel, from the moment that it is listened to. */
async function listener(records: RedisRecords, channel: string) {
  const ear = { heard: [] as string[], begun: 0, subscription: { [Symbol.dispose]: () => undefined } as Disposable };
  ear.subscription = records.subscribe(
    channel,
    (message) => ear.heard.push(message),
    () => (ear.begun += 1),
  );
  await expect.poll(() => ear.begun, { timeout: 5000 }).toBe(1);
  return ear;
}

async function connections(): Promise<number> {
  return String(await raw.client("LIST"))
    .trim()
    .split("\n").length;
}

describe("messages between instances", () => {
  it("reach whoever listens to their channel, under the prefix, until it no longer does", async () => {
    const [one, other] = [await instance(), await instance()];
    const news = await listener(one, "news");
    const more = await listener(one, "news");
    const else_ = await listener(one, "else");
    await other.publish("news", "first");
    await other.publish("else", "for the other");
    await raw.publish("news", "without the prefix");
    await raw.publish("mig:news", "from anybody");
    await expect.poll(() => news.heard).toEqual(["first", "from anybody"]);
    await expect.poll(() => more.heard).toEqual(["first", "from anybody"]);
    await expect.poll(() => else_.heard).toEqual(["for the other"]);
    news.subscription[Symbol.dispose]();
    await other.publish("news", "second");
    await expect.poll(() => more.heard.at(-1)).toBe("second");
    expect(news.heard).toHaveLength(2);
    more.subscription[Symbol.dispose]();
    await expect.poll(() => raw.pubsub("NUMSUB", "mig:news")).toEqual(["mig:news", 0]);
    // And again.
    const again = await listener(one, "news");
    await other.publish("news", "third");
    await expect.poll(() => again.heard).toEqual(["third"]);
  });

  it("take one more connection, and only for who listens", async () => {
    const records = await instance();
    const before = await connections();
    await records.publish("news", "to nobody");
    expect(await connections()).toBe(before);
    for (let n = 0; n < 5; n += 1) await listener(records, `channel ${n}`);
    expect(await connections()).toBe(before + 1);
  });

  it.each(["SIGKILL", "SIGSTOP"] as const)(
    "come in again after Redis had %s, and who listens is told that some were missed",
    async (signal) => {
      const records = await instance();
      const ears = [await listener(records, "news"), await listener(records, "else")];
      await server.kill(signal);
      await expect.poll(() => records.health().degraded, { timeout: 10_000 }).toBe(true);
      // While it was away.
      const late = { begun: 0 };
      records.subscribe(
        "late",
        () => undefined,
        () => (late.begun += 1),
      );
      if (signal === "SIGKILL") await server.restart();
      else await server.kill("SIGCONT");
      await expect.poll(() => [...ears, late].map(({ begun }) => begun), { timeout: 10_000 }).toEqual([2, 2, 1]);
      await expect.poll(() => records.health(), { timeout: 10_000 }).toEqual({ degraded: false, problems: [] });
      await records.publish("news", "back");
      await expect.poll(() => ears[0]?.heard).toEqual(["back"]);
    },
  );

  it("from anybody do no harm: long ones are not heard, endless ones not held, and a listener that fails is alone with it", async () => {
    const records = await instance();
    records.subscribe("news", () => {
      throw new Error("it does not like that");
    });
    const ear = await listener(records, "news");
    await raw.publish("mig:news", "x".repeat(1025));
    await records.publish("news", "y".repeat(1025));
    await raw.publish("mig:news", "z".repeat(1024));
    await expect.poll(() => ear.heard).toEqual(["z".repeat(1024)]);
    await raw.publish("mig:news", Buffer.alloc(20 * 1024 * 1024));
    await expect.poll(() => ear.begun, { timeout: 5000 }).toBe(2);
    for (let n = 0; n < 2000; n += 1) void raw.publish("mig:news", "a".repeat(1000));
    await raw.publish("mig:news", "still there");
    await expect.poll(() => ear.heard.at(-1)).toBe("still there");
    expect(ear.begun).toBe(2);
  });

  it("that Redis does not pass on are a problem that operators are told of", async () => {
    await raw.call("ACL", "SETUSER", "deaf", "on", ">the-password", "~mig:*", "+@all", "resetchannels");
    const records = await instance({ username: "deaf", password: "the-password" });
    records.subscribe("news", () => undefined);
    await expect
      .poll(() => records.health(), { timeout: 5000 })
      .toEqual({ degraded: true, problems: [expect.stringMatching(/^no messages from other instances: NOPERM/)] });
    await raw.call("ACL", "SETUSER", "deaf", "&mig:*");
    await expect.poll(() => records.health(), { timeout: 10_000 }).toEqual({ degraded: false, problems: [] });
  });
});
