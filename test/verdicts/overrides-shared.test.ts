import { randomBytes } from "node:crypto";
import { Redis } from "ioredis";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { VerdictKeys } from "../../src/verdicts/keys.ts";
import type { OverrideChange, OverrideRecord } from "../../src/verdicts/overrides-ledger.ts";
import { SharedOverrideWriter } from "../../src/verdicts/overrides-shared-writer.ts";
import { SharedOverrides } from "../../src/verdicts/overrides-shared.ts";
import { RedisRecords, type RedisRecordsOptions } from "../../src/verdicts/redis-records.ts";
import { type Redis as Server, startRedis } from "../support/peers/redis.ts";

const secret = randomBytes(32);
const keys = new VerdictKeys(randomBytes(32));
const HASH = "mig:overrides";
const REVISION = "mig:overrides-revision";
const HOUR = 3_600_000;
const block: OverrideChange = { kind: "block", reason: "malware nobody knows yet" };
const allow: OverrideChange = { kind: "allow", reason: "a false alarm" };
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
  raw = new Redis(server.port, server.host, { retryStrategy: () => 20 });
  raw.on("error", () => undefined);
});

afterAll(async () => {
  raw.disconnect();
  await server.stop();
});

beforeEach(async () => {
  logged = [];
  await raw.flushall();
});

const books: SharedOverrides[] = [];
const closing: RedisRecords[] = [];
afterEach(async () => {
  await Promise.all(books.splice(0).map((book) => book[Symbol.asyncDispose]()));
  for (const records of closing.splice(0)) records[Symbol.dispose]();
});

function recordsOf(options: Partial<RedisRecordsOptions> = {}): RedisRecords {
  const records = new RedisRecords({ connection: { url: server.url }, keyPrefix: "mig:", secret, log, ...options });
  closing.push(records);
  return records;
}

/** What a gateway has, once it knows what Redis holds. */
async function bookOf(options: Partial<RedisRecordsOptions> = {}): Promise<SharedOverrides> {
  const book = new SharedOverrides({ records: recordsOf(options), keys, log });
  books.push(book);
  await book.firstRead(AbortSignal.timeout(10_000));
  expect(book.health()).toEqual({ degraded: false, problems: [] });
  return book;
}

/** What the command line has. */
function writerOf(options: { readonly now?: () => number } & Partial<RedisRecordsOptions> = {}): SharedOverrideWriter {
  return new SharedOverrideWriter({ records: recordsOf(options), keys, ...(options.now === undefined ? {} : { now: options.now }) });
}

/** Redis, of which nobody hears what is written there. */
function silent(): RedisRecords {
  const records = recordsOf();
  records.publish = () => Promise.resolve();
  return records;
}

interface Content {
  readonly sha256: Buffer;
  readonly digest: string;
}

function content(): Content {
  const sha256 = randomBytes(32);
  return { sha256, digest: keys.digest(sha256) };
}

const kindIn = (book: SharedOverrides, { digest }: Content) => book.of(digest)?.kind;
const until = (what: () => unknown) => expect.poll(what, { timeout: 15_000 });

/** Waits until the book has read all that is there: a block of something else has come, of which no message tells. */
async function settled(...those: SharedOverrides[]): Promise<void> {
  const marker = content();
  await raw.del(REVISION);
  await new SharedOverrideWriter({ records: silent(), keys }).write(marker.sha256, block);
  await raw.call("CLIENT", "KILL", "TYPE", "pubsub");
  for (const book of those) await until(() => kindIn(book, marker)).toBe("block");
}

/** All fields of the hash as they are. */
async function dump(): Promise<Record<string, Buffer>> {
  return raw.hgetallBuffer(HASH);
}

describe("overrides in Redis", () => {
  it("reach every instance, also one that starts later, and end everywhere", async () => {
    const [one, other, file] = [await bookOf(), await bookOf(), content()];
    const writer = writerOf();
    await writer.write(file.sha256, block);
    for (const book of [one, other, await bookOf()]) {
      await until(() => book.of(file.digest)).toEqual({ ...block, at: expect.any(Number), expiresAt: undefined });
      expect(book.forgottenAt(file.digest)).toBe(-Infinity);
    }
    await writer.write(file.sha256, allow);
    await settled(one, other);
    expect([kindIn(one, file), kindIn(other, file)]).toEqual(["block", "block"]);

    await writer.write(file.sha256, forget);
    for (const book of [one, other, await bookOf()]) {
      await until(() => book.of(file.digest)).toBeUndefined();
      expect(book.forgottenAt(file.digest)).toBeGreaterThan(0);
    }
    await writer.write(file.sha256, allow);
    await until(() => kindIn(other, file)).toBe("allow");
    await writer.write(file.sha256, block);
    await until(() => kindIn(one, file)).toBe("block");
  });

  it("end when their time is over, without a word from Redis", async () => {
    const clock = { now: Date.now() };
    const file = content();
    await writerOf().write(file.sha256, { ...block, expiresAt: clock.now + HOUR });
    const book = new SharedOverrides({ records: recordsOf(), keys, log, now: () => clock.now });
    books.push(book);
    await book.firstRead(AbortSignal.timeout(10_000));
    expect(kindIn(book, file)).toBe("block");
    clock.now += HOUR;
    expect(kindIn(book, file)).toBeUndefined();
  });

  it("that are changed by an operator whose clock is behind are changed all the same", async () => {
    const [book, file] = [await bookOf(), content()];
    await writerOf().write(file.sha256, block);
    await until(() => kindIn(book, file)).toBe("block");
    const late = () => writerOf({ now: () => Date.now() - 60_000 });
    await late().write(file.sha256, forget);
    await until(() => kindIn(book, file)).toBeUndefined();
    await late().write(file.sha256, block);
    await until(() => kindIn(book, file)).toBe("block");
    // Newer than verdicts that were made meanwhile.
    await writerOf({ now: () => Date.now() - 60_000 }).write(file.sha256, forget);
    await until(() => book.forgottenAt(file.digest)).toBeGreaterThan(Date.now() - 30_000);
  });

  it("tell who reads Redis neither what was seen nor why", async () => {
    const file = content();
    await writerOf().write(file.sha256, block);
    const everything = JSON.stringify([
      await raw.keys("*"),
      Object.entries(await dump()).map(([field, value]) => field + value.toString("latin1")),
    ]);
    expect(everything).toContain("overrides");
    for (const telltale of [file.sha256.toString("hex"), file.sha256.toString("base64url"), "malware"])
      expect(everything).not.toContain(telltale);
  });

  it("are listed for operators, with what is wrong", async () => {
    const [a, b, c] = [content(), content(), content()];
    const writer = writerOf();
    await writer.write(a.sha256, block);
    await writer.write(b.sha256, allow);
    await writer.write(b.sha256, forget);
    await writer.write(c.sha256, { ...block, expiresAt: Date.now() - 1 });
    const { records, problems } = await writerOf().read();
    expect(new Map(records.map(({ kind, sha256 }) => [sha256, kind]))).toEqual(
      new Map([
        [a.sha256.toString("hex"), "block"],
        [b.sha256.toString("hex"), "forget"],
      ]),
    );
    expect(problems).toEqual([]);
  });
});

describe("a block that a running instance knows", () => {
  it.each([
    [
      "Redis dies and comes back empty",
      async () => {
        await server.kill();
        await server.restart();
      },
    ],
    ["Redis is flushed", () => raw.flushall()],
    ["it is deleted", () => raw.del(HASH, REVISION)],
    ["something else is put in its place", () => raw.multi().del(HASH, REVISION).lpush(HASH, "x").exec()],
  ])(
    "stays when %s",
    async (_, disaster) => {
      const [book, file] = [await bookOf(), content()];
      await writerOf().write(file.sha256, block);
      await until(() => kindIn(book, file)).toBe("block");
      await disaster();
      expect(kindIn(book, file)).toBe("block");
      await raw.publish("mig:overrides", "");
      if ((await raw.type(HASH)) === "list") {
        await expect(writerOf().write(file.sha256, forget)).rejects.toMatchObject({ code: "overrides_unusable" });
        await raw.del(HASH);
      }
      await settled(book);
      // It is written there again, for instances that have yet to start.
      await until(async () => Object.keys(await dump())).toContain(`block:${file.digest}`);
      expect(kindIn(await bookOf(), file)).toBe("block");
      expect(kindIn(book, file)).toBe("block");
    },
    60_000,
  );

  it("stays while Redis is away, whatever time passes, and readiness tells", async () => {
    const clock = { now: Date.now() };
    const file = content();
    await writerOf().write(file.sha256, block);
    const book = new SharedOverrides({ records: recordsOf(), keys, log, now: () => clock.now });
    books.push(book);
    await until(() => kindIn(book, file)).toBe("block");
    await server.kill();
    try {
      clock.now += 1000 * HOUR;
      await until(() => book.health()).toEqual({
        degraded: true,
        problems: ["overrides can't be read from Redis: those that were made in the meantime are not known"],
      });
      expect(kindIn(book, file)).toBe("block");
      await expect(writerOf().write(file.sha256, forget)).rejects.toMatchObject({
        code: "overrides_unusable",
        message: expect.stringMatching(/^Redis can't be read; Redis at /),
      });
    } finally {
      await server.restart();
    }
    await until(() => book.health().degraded).toBe(false);
  }, 60_000);

  it("is not lifted by older overrides that are put in place of newer ones", async () => {
    const [book, file] = [await bookOf(), content()];
    const writer = writerOf();
    const older: OverrideChange = { kind: "block", reason: "not for long", expiresAt: Date.now() + HOUR };
    await writer.write(file.sha256, allow);
    await writer.write(file.sha256, forget);
    await writer.write(file.sha256, older);
    const old = await dump();
    expect(Object.keys(old).length).toBe(3);
    await writer.write(file.sha256, forget);
    await writer.write(file.sha256, block);
    await until(() => book.of(file.digest)?.reason).toBe(block.reason);
    const known = { override: book.of(file.digest), forgottenAt: book.forgottenAt(file.digest) };

    // Where there is no newer one, the older block would end in an hour; or the allow would stand.
    for (const replay of [old, { [`allow:${file.digest}`]: old[`allow:${file.digest}`] ?? "" }]) {
      await raw.multi().del(HASH).hset(HASH, replay).exec();
      await settled(book);
      expect({ override: book.of(file.digest), forgottenAt: book.forgottenAt(file.digest) }).toEqual(known);
      if (replay !== old) continue;
      // The newer ones are there again, too.
      const fresh = await bookOf();
      await until(() => ({ override: fresh.of(file.digest), forgottenAt: fresh.forgottenAt(file.digest) })).toEqual(known);
    }
  });

  it("is not lifted by what was sealed for something else", async () => {
    const [book, file, other] = [await bookOf(), content(), content()];
    const writer = writerOf();
    await writer.write(file.sha256, block);
    await writer.write(other.sha256, block);
    await writer.write(other.sha256, forget);
    await writer.write(other.sha256, allow);
    await settled(book);
    const values = await dump();
    const value = (kind: string) => values[`${kind}:${other.digest}`] ?? "";
    await raw.hset(HASH, {
      [`forget:${file.digest}`]: value("forget"),
      [`allow:${file.digest}`]: value("allow"),
      [`block:${file.digest}`]: value("allow"),
    });
    await settled(book);
    expect([kindIn(book, file), book.forgottenAt(file.digest)]).toEqual(["block", -Infinity]);
    // Not even where the field is right, and the key is another.
    await raw.multi().rename(HASH, "other:overrides").exec();
    const elsewhere = new SharedOverrides({ records: recordsOf({ keyPrefix: "other:" }), keys, log });
    books.push(elsewhere);
    await elsewhere.firstRead(AbortSignal.timeout(10_000));
    expect(kindIn(elsewhere, file)).toBeUndefined();
  });

  it("is not lifted by planted, changed or foreign values, and the sound ones beside them count", async () => {
    const [book, file, other, later] = [await bookOf(), content(), content(), content()];
    await writerOf().write(file.sha256, block);
    await until(() => kindIn(book, file)).toBe("block");
    const [field, value] = Object.entries(await dump())[0] ?? [];
    if (field === undefined || value === undefined) throw new Error("nothing was written");
    const flipped = Buffer.from(value);
    flipped[30] = (flipped[30] ?? 0) ^ 1;
    const record: OverrideRecord = { kind: "forget", sha256: file.sha256.toString("hex"), reason: "", at: Date.now() };
    await recordsOf({ secret: randomBytes(32) }).hashEntries("overrides", () => undefined);
    const foreign = recordsOf({ secret: randomBytes(32) });
    await until(() => foreign.hashSet("overrides", `forget:${file.digest}`, record)).toBe(true);
    await raw.hset(HASH, {
      [field]: flipped,
      [`allow:${file.digest}`]: JSON.stringify({ ...record, kind: "allow" }),
      x: "y",
      "": Buffer.alloc(100_000),
    });
    // Sealed with the secret, but no record; or that of something else.
    const own = recordsOf();
    await until(() => own.hashSet("overrides", `forget:${file.digest}x`, { kind: "forget" })).toBe(true);
    await own.hashSet("overrides", `forget:${other.digest}`, record);
    await own.hashSet("overrides", `allow:${file.digest}`, { ...record, sha256: other.sha256.toString("hex") });
    await own.hashSet("overrides", `block:${later.digest}`, { ...record, kind: "block", sha256: later.sha256.toString("hex") });
    await settled(book);
    expect(kindIn(book, later)).toBe("block");
    expect([kindIn(book, file), book.forgottenAt(file.digest), book.forgottenAt(other.digest)]).toEqual(["block", -Infinity, -Infinity]);
    await until(() => book.health().problems).toEqual(["2 overrides ignored: made under another secret"]);
  });

  it("is not lifted by an override from the future, which is told of", async () => {
    const [book, file] = [await bookOf(), content()];
    await writerOf().write(file.sha256, block);
    const record = (at: number) => ({ kind: "forget", sha256: file.sha256.toString("hex"), reason: "", at });
    const records = recordsOf();
    await until(() => records.hashSet("overrides", `forget:${file.digest}`, record(Date.now() + HOUR))).toBe(true);
    await settled(book);
    expect(kindIn(book, file)).toBe("block");
    await until(() => book.health().problems).toEqual(["1 override from the future ignored: a clock is wrong"]);
    expect(logged.join()).toContain("from the future");
    // A clock may well be a little ahead.
    await records.hashSet("overrides", `forget:${file.digest}`, record(Date.now() + 60_000));
    await settled(book);
    expect(kindIn(book, file)).toBeUndefined();
  });

  it("is not lifted by messages, of which anybody can send any", async () => {
    const [book, file] = [await bookOf(), content()];
    await writerOf().write(file.sha256, block);
    await until(() => kindIn(book, file)).toBe("block");
    const forged = ["", "forget", `forget:${file.digest}`, JSON.stringify({ kind: "forget", digest: file.digest }), "x".repeat(100_000)];
    for (let n = 0; n < 200; n++) await raw.publish("mig:overrides", forged[n % forged.length] ?? "");
    await settled(book);
    expect(kindIn(book, file)).toBe("block");
  });
});

describe("an instance that hears what was said", () => {
  it("reads at once", async () => {
    // No timer tells it to look.
    const timers = vi.spyOn(globalThis, "setInterval").mockImplementation(() => setTimeout(() => undefined));
    const [book, file] = [await bookOf(), content()];
    await until(async () => raw.pubsub("NUMSUB", "mig:overrides")).toEqual(["mig:overrides", 1]);
    timers.mockRestore();
    await writerOf().write(file.sha256, block);
    await until(() => kindIn(book, file)).toBe("block");
    await writerOf().write(file.sha256, forget);
    await until(() => kindIn(book, file)).toBeUndefined();
  });
});

describe("an instance that did not hear what was said", () => {
  it("reads again when it listens again", async () => {
    const [book, file] = [await bookOf(), content()];
    await raw.call("CLIENT", "KILL", "TYPE", "pubsub");
    await writerOf().write(file.sha256, block);
    await until(() => kindIn(book, file)).toBe("block");
  });

  it("looks by itself", async () => {
    const [book, file] = [await bookOf(), content()];
    await new SharedOverrideWriter({ records: silent(), keys }).write(file.sha256, block);
    await until(() => kindIn(book, file)).toBe("block");
  });

  it("says before it has read anything that it knows nothing, and starts without Redis all the same", async () => {
    const book = new SharedOverrides({ records: recordsOf({ connection: { url: "redis://127.0.0.1:1" } }), keys, log });
    books.push(book);
    await book.firstRead(AbortSignal.timeout(200));
    expect(book.health()).toEqual({
      degraded: true,
      problems: ["overrides have not been read yet: what operators blocked or allowed is not known"],
    });
  });
});

describe("a change that Redis does not keep", () => {
  it("is an error", async () => {
    await raw.config("SET", "maxmemory", "1");
    onTestFinished(async () => void (await raw.config("SET", "maxmemory", "0")));
    await expect(writerOf().write(content().sha256, block)).rejects.toMatchObject({
      code: "overrides_unusable",
      message: expect.stringMatching(/^Redis did not keep it; .*OOM/),
    });
  });

  it("is not made at all where gateways would not understand it", async () => {
    const file = content();
    const writer = new SharedOverrideWriter({ records: recordsOf(), keys, conflict: () => "gateways have another secret" });
    await expect(writer.write(file.sha256, block)).rejects.toMatchObject({
      code: "overrides_unusable",
      message: "gateways have another secret",
    });
    expect(await dump()).toEqual({});
  });
});
