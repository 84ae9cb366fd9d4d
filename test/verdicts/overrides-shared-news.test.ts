/** How instances learn of overrides in Redis: soon, and without reading all of them each time, whatever others write there. */
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer, type Socket } from "node:net";
import { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { VerdictKeys } from "../../src/verdicts/keys.ts";
import { type OverrideChange, type OverrideRecord } from "../../src/verdicts/overrides-ledger.ts";
import { SharedOverrideWriter } from "../../src/verdicts/overrides-shared-writer.ts";
import { SharedOverrides } from "../../src/verdicts/overrides-shared.ts";
import { RecordCodec } from "../../src/verdicts/record-codec.ts";
import { RedisRecords, type RedisRecordsOptions } from "../../src/verdicts/redis-records.ts";
import { type Redis as Server, startRedis } from "../support/peers/redis.ts";

const secret = randomBytes(32);
const keys = new VerdictKeys(randomBytes(32));
const HASH = "mig:overrides";
const REVISION = "mig:overrides-revision";
const MINUTE = 60_000;
const HOUR = 60 * MINUTE;
const block: OverrideChange = { kind: "block", reason: "malware nobody knows yet" };
const forget: OverrideChange = { kind: "forget", reason: "" };

let server: Server;
let raw: Redis;
let logged: string[] = [];
const log = {
  info: (_: object, message: string) => void logged.push(message),
  warn: (details: object, message: string) => void logged.push(`${message} ${JSON.stringify(details)}`),
};

beforeAll(async () => {
  server = await startRedis();
  raw = new Redis(server.port, server.host);
});

afterAll(async () => {
  raw.disconnect();
  await server.stop();
});

beforeEach(async () => {
  logged = [];
  await raw.flushall();
});

function recordsOf(options: Partial<RedisRecordsOptions> = {}): RedisRecords {
  const records = new RedisRecords({ connection: { url: server.url }, keyPrefix: "mig:", secret, log, ...options });
  onTestFinished(() => records[Symbol.dispose]());
  return records;
}

function open(records: RedisRecords): SharedOverrides {
  const book = new SharedOverrides({ records, keys, log });
  onTestFinished(() => book[Symbol.asyncDispose]());
  return book;
}

interface Instance {
  readonly book: SharedOverrides;
  /** Has it look for another revision, which otherwise a timer does. */
  readonly look: () => Promise<void>;
}

/** One that has read everything, and listens; no timer tells it to look. */
async function instance(): Promise<Instance> {
  const ticks: (() => void)[] = [];
  const timers = vi.spyOn(globalThis, "setInterval").mockImplementation((tick) => {
    ticks.push(tick);
    return setTimeout(() => undefined);
  });
  const records = recordsOf();
  const book = open(records);
  await book.firstRead(AbortSignal.timeout(10_000));
  await until(async () => (await raw.pubsub("NUMSUB", HASH))[1]).toBeGreaterThan(0);
  timers.mockRestore();
  const look = async (): Promise<void> => {
    const before = await calls("getrange");
    for (const tick of ticks) tick();
    await until(() => calls("getrange")).toBeGreaterThan(before);
    // Answered after all that it then asks for.
    for (let answered = 0; answered < 5; answered += 1) await records.time();
  };
  return { book, look };
}

const writerOf = (now = Date.now): SharedOverrideWriter => new SharedOverrideWriter({ records: recordsOf(), keys, now });

function content(): { sha256: Buffer; digest: string } {
  const sha256 = randomBytes(32);
  return { sha256, digest: keys.digest(sha256) };
}

const until = (what: () => unknown) => expect.poll(what, { timeout: 15_000 });

/** Times that Redis was given this command, by scripts too. */
async function calls(command: string): Promise<number> {
  return Number(new RegExp(`cmdstat_${command}:calls=(\\d+)`).exec(await raw.info("commandstats"))?.[1] ?? 0);
}

const codec = new RecordCodec(secret);

/** As many records as that in Redis, without a word. */
async function fill(count: number, expiresAt?: number): Promise<void> {
  for (let left = count; left > 0; left -= 1000) {
    const fields = Array.from({ length: Math.min(left, 1000) }, () => {
      const { sha256, digest } = content();
      const record = { kind: "block", sha256: sha256.toString("hex"), reason: "", at: Date.now() - HOUR };
      const sealed = { ...record, ...(expiresAt === undefined ? {} : { expiresAt }) };
      const value = codec.seal(`${HASH}\0block:${digest}`, sealed, expiresAt ?? Number.MAX_SAFE_INTEGER);
      return [`block:${digest}`, value] as const;
    });
    await raw.hset(HASH, Object.fromEntries(fields));
  }
}

/** Passes everything on to Redis, each piece of an answer only after so many milliseconds. */
async function slowLink(delay: { answers: number }): Promise<string> {
  const sockets = new Set<Socket>();
  const proxy = createServer((client) => {
    const upstream = connect(server.port, server.host);
    for (const socket of [client, upstream]) sockets.add(socket.on("error", () => undefined));
    client.pipe(upstream);
    upstream.on("data", (piece) => setTimeout(() => client.write(piece), delay.answers));
    upstream.on("close", () => client.destroy());
  });
  proxy.listen(0, "127.0.0.1");
  await once(proxy, "listening");
  onTestFinished(() => {
    for (const socket of sockets) socket.destroy();
    proxy.close();
  });
  return `redis://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
}

describe("a change", () => {
  it("is known at once, however many there are, and nobody reads all of them for it", async () => {
    await fill(3000);
    const { book, look } = await instance();
    await raw.config("RESETSTAT");
    const file = content();
    await writerOf().write(file.sha256, block);
    await until(() => book.of(file.digest)?.reason).toBe(block.reason);
    await look();
    await writerOf().write(file.sha256, forget);
    await until(() => book.of(file.digest)).toBeUndefined();
    await look();
    // The first change has none before it, so that others may have been lost.
    expect(await calls("hscan")).toBeLessThanOrEqual(7);
    await raw.config("RESETSTAT");
    for (let n = 0; n < 5; n += 1) {
      await writerOf().write(file.sha256, n % 2 === 0 ? block : forget);
      await look();
    }
    expect(book.of(file.digest)?.kind).toBe("block");
    expect(await calls("hscan")).toBe(0);
  });

  it("of which no message came is known with the next look, and as long as it can be told, only what changed is read", async () => {
    const { book, look } = await instance();
    await writerOf().write(content().sha256, block);
    await look();
    await raw.config("RESETSTAT");
    const silent = recordsOf();
    silent.publish = () => Promise.resolve();
    const writer = new SharedOverrideWriter({ records: silent, keys });
    const [one, other, third] = [content(), content(), content()];
    await writer.write(one.sha256, block);
    await look();
    expect([book.of(one.digest)?.kind, await calls("hscan")]).toEqual(["block", 0]);
    for (const { sha256 } of [other, third]) await writer.write(sha256, block);
    await look();
    await until(() => [other, third].map(({ digest }) => book.of(digest)?.kind)).toEqual(["block", "block"]);
    expect(await calls("hscan")).toBe(0);
    // More than are named: all are read, once.
    const many = Array.from({ length: 40 }, content);
    for (const { sha256 } of many) await writer.write(sha256, block);
    await look();
    await until(() => many.every(({ digest }) => book.of(digest)?.kind === "block")).toBe(true);
    expect(await calls("hscan")).toBe(1);
  });

  it("is made in a moment: its own fields are read, and no others", async () => {
    await fill(3000);
    await raw.config("RESETSTAT");
    const file = content();
    await writerOf().write(file.sha256, block);
    expect((await writerOf().readOf(file.sha256)).records.map(({ kind }) => kind)).toEqual(["block"]);
    expect(await calls("hscan")).toBe(0);
  });
});

describe("whoever writes to Redis, without the secret,", () => {
  it("has nothing learned by messages, and nobody read all", async () => {
    const { book, look } = await instance();
    const [file, later] = [content(), content()];
    await writerOf().write(file.sha256, block);
    await until(() => book.of(file.digest)?.kind).toBe("block");
    await look();
    await raw.config("RESETSTAT");
    const forged = ["", "x", `forget:${file.digest}`, `block:${"x".repeat(43)}`, `${HASH} allow:${file.digest}`, "\u0000".repeat(1000)];
    for (let n = 0; n < 600; n += 1) await raw.publish(HASH, forged[n % forged.length] ?? "");
    await raw.hset(HASH, `forget:${file.digest}`, "forged");
    await raw.publish(HASH, `forget:${file.digest}`);
    await writerOf().write(later.sha256, block);
    await until(() => book.of(later.digest)?.kind).toBe("block");
    expect([book.of(file.digest)?.kind, book.forgottenAt(file.digest)]).toEqual(["block", -Infinity]);
    expect(await calls("hscan")).toBe(0);
  });

  it("has all read again at most once in a while, whatever becomes of the revision", async () => {
    const { book, look } = await instance();
    const writer = writerOf();
    const old: Buffer[] = [];
    for (let n = 0; n < 5; n += 1) {
      await writer.write(content().sha256, block);
      old.push((await raw.getBuffer(REVISION)) ?? Buffer.alloc(0));
    }
    await look();
    await raw.config("RESETSTAT");
    for (let n = 0; n < 25; n += 1) {
      if (n % 5 === 4) await raw.del(REVISION);
      else await raw.set(REVISION, n % 5 === 3 ? "forged" : (old[n % 5] ?? ""));
      await raw.publish(HASH, "");
      await look();
    }
    // Whoever listens anew may have missed something.
    for (let n = 0; n < 5; n += 1) {
      await raw.call("CLIENT", "KILL", "TYPE", "pubsub");
      await until(async () => (await raw.pubsub("NUMSUB", HASH))[1]).toBe(1);
      await look();
    }
    expect(await calls("hscan")).toBeLessThanOrEqual(1);
    // A new one is heeded all the same.
    const [file, silent] = [content(), recordsOf()];
    silent.publish = () => Promise.resolve();
    await raw.set(REVISION, old.at(-1) ?? "");
    await new SharedOverrideWriter({ records: silent, keys }).write(file.sha256, block);
    await look();
    await until(() => book.of(file.digest)?.kind).toBe("block");
  });
});

describe("what Redis has lost", () => {
  it("is put back, but not over what an operator has made anew in this moment", async () => {
    const [file, other] = [content(), content()];
    await writerOf().write(file.sha256, { ...block, reason: "for an hour", expiresAt: Date.now() + HOUR });
    await writerOf().write(other.sha256, block);
    const records = recordsOf();
    const openHash = records.hash.bind(records);
    let raced = 0;
    records.hash = (name, parse) => {
      const hash = openHash(name, parse);
      const exchange = hash.exchange.bind(hash);
      hash.exchange = async (...args) => {
        raced += 1;
        if (raced === 1) await writerOf().write(file.sha256, { ...block, reason: "for good" });
        return exchange(...args);
      };
      return hash;
    };
    const book = open(records);
    await book.firstRead(AbortSignal.timeout(10_000));
    expect([book.of(file.digest)?.reason, raced]).toEqual(["for an hour", 0]);
    await raw.flushall();
    await writerOf().write(content().sha256, block);
    await until(() => raw.hexists(HASH, `block:${other.digest}`)).toBe(1);
    expect(raced).toBe(2);
    const anew = open(recordsOf());
    await anew.firstRead(AbortSignal.timeout(10_000));
    for (const one of [anew, book]) await until(() => one.of(file.digest)?.reason).toBe("for good");
  });
});

describe("the first read", () => {
  it("is waited for as long as Redis answers, and ends with its silence", async () => {
    // More than 40 answers, so more milliseconds in all than it may be silent.
    await fill(22_000);
    const file = content();
    await writerOf().write(file.sha256, block);
    const delay = { answers: 50 };
    const link = await slowLink(delay);
    const book = open(recordsOf({ connection: { url: link } }));
    await book.firstRead(AbortSignal.timeout(30_000), 2000);
    expect([book.of(file.digest)?.kind, book.health().problems]).toEqual(["block", []]);

    delay.answers = 1_000_000;
    const deaf = open(recordsOf({ connection: { url: link } }));
    await deaf.firstRead(AbortSignal.timeout(30_000), 2000);
    expect(deaf.health().problems).toEqual(["overrides have not been read yet: what operators blocked or allowed is not known"]);
  });
});

describe("a command", () => {
  it("whose clock gateways would not believe is an error, and one that is a little off counts", async () => {
    const file = content();
    for (const off of [-6 * MINUTE, 6 * MINUTE]) {
      await expect(writerOf(() => Date.now() + off).write(file.sha256, block)).rejects.toMatchObject({
        code: "overrides_unusable",
        message: expect.stringMatching(/^this machine's clock says \d{4}-.*Z, and that of Redis \d{4}-.*Z: /),
      });
    }
    expect(await raw.exists(HASH)).toBe(0);
    const { book } = await instance();
    await writerOf(() => Date.now() + 4 * MINUTE).write(file.sha256, block);
    await until(() => book.of(file.digest)?.kind).toBe("block");
  });

  it("that Redis does not tell the time goes on, and says so", async () => {
    await raw.call("ACL", "SETUSER", "timeless", "on", ">password", "~*", "&*", "+@all", "-time");
    const records = recordsOf({ connection: { url: server.url, username: "timeless", password: "password" } });
    const writer = new SharedOverrideWriter({ records, keys });
    const file = content();
    await writer.write(file.sha256, block);
    const { records: kept, problems } = await writer.readOf(file.sha256);
    expect(kept.map(({ kind }) => kind)).toEqual(["block"]);
    expect(problems).toEqual([expect.stringMatching(/NOPERM.*time/)]);
  });

  it("is refused over a change from the future, which is named", async () => {
    const [file, records] = [content(), recordsOf()];
    const early: OverrideRecord = { kind: "block", sha256: file.sha256.toString("hex"), reason: "", at: Date.now() + HOUR };
    await until(() => records.hashSet("overrides", `block:${file.digest}`, early)).toBe(true);
    await expect(writerOf().write(file.sha256, forget)).rejects.toMatchObject({
      code: "overrides_unusable",
      message: expect.stringMatching(
        new RegExp(`^what is known of it is from the future \\(\\d{4}-.*remove the field block:${file.digest} in Redis$`),
      ),
    });
  });

  it("is refused where nothing more is kept, unless what is there is over", async () => {
    const writer = new SharedOverrideWriter({ records: recordsOf(), keys, most: 10 });
    await fill(10);
    await expect(writer.write(content().sha256, block)).rejects.toMatchObject({
      code: "overrides_unusable",
      message: "Redis holds as many as are kept: 10",
    });
    const [field = ""] = await raw.hkeys(HASH);
    await raw.hdel(HASH, field);
    await fill(1, Date.now() - 1);
    const file = content();
    await writer.write(file.sha256, block);
    await writer.write(file.sha256, forget);
    expect(await raw.hlen(HASH)).toBe(12);
  });

  it("says what stands in its way in Redis", async () => {
    await raw.set(HASH, "planted");
    await expect(writerOf().write(content().sha256, block)).rejects.toMatchObject({
      code: "overrides_unusable",
      message: expect.stringMatching(/^Redis can't be read; .*mig:overrides in Redis is no hash: .*delete it/),
    });
  });
});
