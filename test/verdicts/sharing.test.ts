import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { RedisRecords } from "../../src/verdicts/redis-records.ts";
import { LocalSharing, LeaseSharing, type Sharing, type Turn } from "../../src/verdicts/sharing.ts";
import { type Redis as Server, startRedis } from "../support/peers/redis.ts";

const secret = randomBytes(32);
const never = new AbortController().signal;
const fails = async (): Promise<never> => Promise.reject(new Error("told to fail"));
const nothing = async (): Promise<undefined> => undefined;
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

beforeEach(async () => {
  await raw.flushall();
});

interface Instance extends Disposable {
  readonly sharing: Sharing;
  /** As if its process had died: nothing is let go of, nothing renewed. */
  [Symbol.dispose](): void;
}

/** @param options.mute it tells nobody what it lets go of @param options.ahead milliseconds by which its clock is ahead */
async function instance(options: { url?: string; patience?: number; mute?: boolean; ahead?: number } = {}): Promise<Instance> {
  const url = options.url ?? server.url;
  const log = { info: () => undefined, warn: () => undefined };
  const records = new RedisRecords({ connection: { url }, keyPrefix: "mig:", secret, log, now: () => Date.now() + (options.ahead ?? 0) });
  if (options.mute === true) records.publish = async () => undefined;
  const sharing = new LeaseSharing({ records, patience: options.patience ?? 60_000 });
  const close = (): void => records[Symbol.dispose]();
  onTestFinished(close);
  if (url === server.url) await expect.poll(() => records.health().degraded, { timeout: 5000 }).toBe(false);
  return { sharing, [Symbol.dispose]: close };
}

async function leaseOf(turn: Promise<Turn<unknown>>): Promise<AsyncDisposable> {
  const came = await turn;
  if (!("lease" in came) || came.lease === undefined) throw new Error("it was known, or is nobody else's");
  return came.lease;
}

/** Whether it settles soon. */
async function settles(work: Promise<unknown>): Promise<boolean> {
  return Promise.race([work.then(() => true), sleep(700, false)]);
}

describe("work that instances share", () => {
  it("is led by one at a time; the others get what it found out, asked for once it has let go", async () => {
    const [first, ...rest] = [await instance(), await instance(), await instance()] as const;
    let found: string | undefined;
    const known = async (): Promise<string | undefined> => found;
    const lease = await leaseOf(first.sharing.lead("work", known, never));
    const others = rest.map(({ sharing }) => sharing.lead("work", known, never));
    expect(await settles(Promise.race(others))).toBe(false);
    found = "a verdict";
    await lease[Symbol.asyncDispose]();
    expect(await Promise.all(others)).toEqual([{ known: "a verdict" }, { known: "a verdict" }]);
    expect(await raw.keys("mig:lease:*")).toEqual([]);
  });

  it("is led by the next one when nothing came of it, one after the other", async () => {
    const instances = [await instance(), await instance(), await instance()];
    let leading = 0;
    const led = instances.map(async ({ sharing }) => {
      const lease = await leaseOf(sharing.lead("work", nothing, never));
      leading += 1;
      expect(leading).toBe(1);
      await sleep(50);
      leading -= 1;
      await lease[Symbol.asyncDispose]();
    });
    await Promise.all(led);
  });

  it("is taken over from one that died, and never from one that lives", async () => {
    const [holder, other] = [await instance(), await instance()];
    await leaseOf(holder.sharing.lead("work", nothing, never));
    const turn = leaseOf(other.sharing.lead("work", nothing, never));
    // Longer than a lease lasts that nobody renews.
    expect(await Promise.race([turn.then(() => "taken"), sleep(6500, "waits")])).toBe("waits");
    holder[Symbol.dispose]();
    await turn;
  }, 20_000);

  it("is still one's own after Redis came back empty", async () => {
    const [holder, other] = [await instance(), await instance()];
    await leaseOf(holder.sharing.lead("work", nothing, never));
    await raw.flushall();
    await expect.poll(() => raw.keys("mig:lease:*"), { timeout: 5000 }).toHaveLength(1);
    expect(await settles(other.sharing.lead("work", nothing, AbortSignal.timeout(3000)).catch(() => sleep(5000)))).toBe(false);
  });

  it("is done once, be it that one asks while the other lets go", async () => {
    const instances = [await instance(), await instance()];
    const known = new Map<string, string>();
    let done = 0;
    const rounds = Array.from({ length: 300 }, (_, round) => `work ${round}`);
    for (const name of rounds) {
      const both = instances.map(async ({ sharing }, index) => {
        await sleep(index * Math.random() * 3);
        const turn = await sharing.lead(name, async () => (await raw.get(`known:${name}`)) ?? undefined, never);
        if (!("lease" in turn)) return known.set(name, turn.known);
        done += 1;
        await sleep(1);
        await raw.set(`known:${name}`, "a verdict");
        return turn.lease?.[Symbol.asyncDispose]();
      });
      await Promise.all(both);
    }
    expect(done).toBe(rounds.length);
    expect(new Set(known.values())).toEqual(new Set(["a verdict"]));
  });

  it("is told of to those who wait, and to nobody else", async () => {
    const [holder, other] = [await instance(), await instance()];
    const listener = new Redis(server.port, server.host);
    onTestFinished(() => listener.disconnect());
    const heard: string[] = [];
    await listener.subscribe("mig:released");
    listener.on("message", (_channel, name: string) => heard.push(name));
    const alone = await leaseOf(holder.sharing.lead("work of one", nothing, never));
    await alone[Symbol.asyncDispose]();
    const lease = await leaseOf(holder.sharing.lead("work", nothing, never));
    const turn = other.sharing.lead("work", nothing, never);
    await sleep(100);
    await lease[Symbol.asyncDispose]();
    await leaseOf(turn);
    await expect.poll(() => heard).toEqual(["work"]);
  });

  it("is let go of without any message, too", async () => {
    const [holder, other] = [await instance({ mute: true }), await instance()];
    const lease = await leaseOf(holder.sharing.lead("work", nothing, never));
    const turn = other.sharing.lead("work", nothing, never);
    expect(await settles(turn)).toBe(false);
    await lease[Symbol.asyncDispose]();
    await turn;
  });

  it("is waited for no longer than the one who waits can, and is then nobody's concern", async () => {
    const [holder, other] = [await instance(), await instance()];
    const lease = await leaseOf(holder.sharing.lead("work", nothing, never));
    const over = new AbortController();
    const turn = other.sharing.lead("work", nothing, over.signal);
    over.abort(new Error("told to stop"));
    await expect(turn).rejects.toThrow("told to stop");
    await expect(other.sharing.lead("work", nothing, AbortSignal.abort(new Error("too late")))).rejects.toThrow("too late");
    await lease[Symbol.asyncDispose]();
    expect(await settles(holder.sharing.lead("work", nothing, never))).toBe(true);
  });

  it("is let go of when it can't be found out what is known", async () => {
    const [one, other] = [await instance(), await instance()];
    await expect(one.sharing.lead("work", fails, never)).rejects.toThrow("told to fail");
    await leaseOf(other.sharing.lead("work", nothing, never));
  });

  it("goes ahead at once where somebody planted what is no lease, and holds one then", async () => {
    const [one, other] = [await instance(), await instance()];
    await raw.set("mig:lease:work", "planted");
    await raw.set("mig:lease:long", "x".repeat(100_000));
    await raw.lpush("mig:lease:other", "of a wrong type");
    for (const name of ["work", "long", "other"]) {
      const lease = await leaseOf(one.sharing.lead(name, nothing, never));
      expect(await settles(other.sharing.lead(name, nothing, AbortSignal.timeout(5000)).catch(() => sleep(5000)))).toBe(false);
      await lease[Symbol.asyncDispose]();
      expect(await raw.exists(`mig:lease:${name}`)).toBe(0);
    }
  });

  it("is not held up by a lease that was copied, for longer than clocks may differ", async () => {
    const [one, other] = [await instance(), await instance({ ahead: 16_000 })];
    const lease = await leaseOf(one.sharing.lead("work", nothing, never));
    const copy = await raw.getBuffer("mig:lease:work");
    await lease[Symbol.asyncDispose]();
    await raw.set("mig:lease:work", copy ?? "");
    await raw.set("mig:lease:another", copy ?? "");
    expect(await settles(one.sharing.lead("work", nothing, AbortSignal.timeout(5000)).catch(() => sleep(5000)))).toBe(false);
    await leaseOf(one.sharing.lead("another", nothing, never));
    await leaseOf(other.sharing.lead("work", nothing, never));
  });

  it("goes ahead in the end, though one holds the lease and does not come to an end", async () => {
    const [one, other] = [await instance(), await instance({ patience: 500 })];
    await leaseOf(one.sharing.lead("work", nothing, never));
    expect(await other.sharing.lead("work", nothing, never)).toEqual({ lease: undefined });
  });

  it("is looked at no more often for forged messages than it can bear", async () => {
    const [holder, other] = [await instance(), await instance()];
    await leaseOf(holder.sharing.lead("work", nothing, never));
    let looks = 0;
    const over = new AbortController();
    const known = async (): Promise<undefined> => void (looks += 1);
    const turn = other.sharing.lead("work", known, over.signal);
    turn.catch(() => undefined);
    const until = performance.now() + 1000;
    while (performance.now() < until) await Promise.all(Array.from({ length: 50 }, () => raw.publish("mig:released", "work")));
    over.abort(new Error("enough"));
    await expect(turn).rejects.toThrow("enough");
    expect(looks).toBeGreaterThan(5);
    expect(looks).toBeLessThan(60);
  });

  it("is everybody's own while Redis is away, before or in the middle", async () => {
    const away = await instance({ url: "redis://127.0.0.1:1" });
    await leaseOf(away.sharing.lead("work", nothing, never));
    expect(await new LocalSharing().lead("work", nothing)).toEqual({ lease: undefined });
    expect(await new LocalSharing().lead("work", async () => 1)).toEqual({ known: 1 });
    for (const signal of ["SIGSTOP", "SIGKILL"] as const) {
      await raw.flushall();
      const [holder, other] = [await instance(), await instance()];
      await leaseOf(holder.sharing.lead("work", nothing, never));
      const turn = leaseOf(other.sharing.lead("work", nothing, never));
      await server.kill(signal);
      try {
        await turn;
      } finally {
        if (signal === "SIGSTOP") await server.kill("SIGCONT");
        else await server.restart();
      }
    }
  }, 20_000);
});
