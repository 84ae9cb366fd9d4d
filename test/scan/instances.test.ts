import { randomBytes } from "node:crypto";
import { setTimeout as sleep } from "node:timers/promises";
import { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { GatewayError } from "../../src/errors.ts";
import { EICAR } from "../../src/scan/canary-samples.ts";
import { RedisRecords } from "../../src/verdicts/redis-records.ts";
import { encryptFile } from "../support/encrypted-file.ts";
import { FakeHomeserver } from "../support/fake-homeserver.ts";
import { type Harness, type HarnessOptions, startHarness, TOKEN } from "../support/harness.ts";
import { type Redis as Server, startRedis } from "../support/peers/redis.ts";

const SMALL = Buffer.from("small");
const LARGE = randomBytes(3 * (1 << 20) + 4321);
const UNAVAILABLE = new GatewayError("scanner_unavailable", { detail: "told to fail" });

let server: Server;
let raw: Redis;
let homeserver: FakeHomeserver;
let secret: Buffer;

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
  secret = randomBytes(32);
  homeserver = await FakeHomeserver.start();
  onTestFinished(async () => homeserver[Symbol.asyncDispose]());
});

interface Instance extends Harness {
  readonly records: RedisRecords;
}

/** One of several instances, connected to Redis. */
async function instance(options: HarnessOptions = {}, now = Date.now): Promise<Instance> {
  const log = { info: () => undefined, warn: () => undefined };
  const records = new RedisRecords({ connection: { url: server.url, limit: 10_000 }, keyPrefix: "mig:", secret, log, now });
  const harness = await startHarness({ ...options, shared: { homeserver, secret, records, now } });
  onTestFinished(async () => {
    await harness[Symbol.asyncDispose]();
    records[Symbol.dispose]();
  });
  await expect.poll(() => records.health().degraded, { timeout: 5000 }).toBe(false);
  return { ...harness, records };
}

function scans(...instances: Instance[]): number {
  return instances.reduce((sum, { scanner }) => sum + scanner.begun, 0);
}

function hold(...instances: Instance[]): () => void {
  const release = Promise.withResolvers<void>();
  for (const { scanner } of instances) scanner.hold = release.promise;
  return release.resolve;
}

describe("two instances", () => {
  it("50 at once on each for one media: one download before the verdict, one scan, and everyone gets the bytes", async () => {
    for (const bytes of [SMALL, LARGE]) {
      const [one, other] = [await instance(), await instance()];
      const release = hold(one, other);
      const mxc = one.put(bytes);
      const asked = homeserver.requests.length;
      const answers = [one, other].flatMap((gateway) => Array.from({ length: 50 }, () => gateway.get(`download/${mxc}`, TOKEN)));
      await expect.poll(() => scans(one, other)).toBe(1);
      await sleep(500);
      expect(homeserver.requests.length - asked).toBe(1);
      release();
      for (const answer of await Promise.all(answers)) expect(answer.body.equals(bytes)).toBe(true);
      expect(scans(one, other)).toBe(1);
      expect(await raw.keys("mig:lease:*")).toEqual([]);
    }
  });

  it("scan one content once, though it comes from many sources at the same time", async () => {
    const [one, other] = [await instance(), await instance()];
    const release = hold(one, other);
    const files = await Promise.all(Array.from({ length: 4 }, () => encryptFile(SMALL)));
    const encrypted = files.flatMap((file) => {
      const body = { file: file.file(one.put(file.ciphertext)) };
      return [one, other].map((gateway) => gateway.post("scan_encrypted", body, TOKEN));
    });
    const plain = [one, other].map((gateway) => gateway.get(`scan/${gateway.put(SMALL)}`, TOKEN));
    await expect.poll(() => scans(one, other)).toBe(1);
    await sleep(500);
    release();
    for (const answer of await Promise.all([...encrypted, ...plain])) expect(answer.json["clean"]).toBe(true);
    expect(scans(one, other)).toBe(1);
    // Only who had it scanned says so.
    expect([one, other].flatMap(({ reports }) => reports).filter(({ journal }) => journal.via === "scan")).toHaveLength(1);
  });

  it("share a verdict, and never the authorisation: who waited for another instance asks the homeserver", async () => {
    const [one, other] = [await instance(), await instance()];
    homeserver.addToken("bob");
    const release = hold(one, other);
    const mxc = one.put(EICAR, { readers: [TOKEN] });
    const leader = one.get(`scan/${mxc}`, TOKEN);
    await expect.poll(() => one.scanner.begun).toBe(1);
    const waiting = [TOKEN, "bob", "mallory", undefined].map((token) => other.get(`scan/${mxc}`, token));
    await sleep(500);
    release();
    expect((await leader).json["clean"]).toBe(false);
    const answers = await Promise.all(waiting);
    expect(answers.map(({ status }) => status)).toEqual([200, 502, 401, 404]);
    expect(answers.map(({ json }) => json["clean"])).toEqual([false, undefined, undefined, undefined]);
    expect(scans(one, other)).toBe(1);
  });

  it("lead one after the other when the leader is refused, or its scanner fails", async () => {
    const [one, other] = [await instance(), await instance()];
    const mxc = one.put(SMALL, { behaviour: { drip: { bytes: 1, pause: 20 } } });
    const answers = [one, other].flatMap((gateway) => ["mallory", TOKEN].map((token) => gateway.get(`download/${mxc}`, token)));
    expect((await Promise.all(answers)).map(({ status }) => status)).toEqual([401, 200, 401, 200]);
    expect(scans(one, other)).toBe(1);

    const release = hold(one);
    one.scanner.failure = UNAVAILABLE;
    const failing = one.put(LARGE);
    const failed = one.get(`download/${failing}`, TOKEN);
    await expect.poll(() => scans(one, other)).toBe(2);
    const waits = other.get(`download/${failing}`, TOKEN);
    await sleep(300);
    release();
    expect((await failed).status).toBe(503);
    expect((await waits).body.equals(LARGE)).toBe(true);
  });

  it("whoever waits holds no slot and no room, and gives up when its time is over", async () => {
    const [one, other] = [await instance(), await instance({ admission: { maxConcurrent: 1 }, pipeline: { wait: 1500 } })];
    const release = hold(one);
    const mxc = one.put(LARGE);
    const leader = one.get(`download/${mxc}`, TOKEN);
    await expect.poll(() => one.scanner.begun).toBe(1);
    const waits = other.get(`download/${mxc}`, TOKEN);
    await sleep(300);
    expect((await other.get(`download/${other.put(SMALL)}`, TOKEN)).body.equals(SMALL)).toBe(true);
    expect(other.spooled()).toMatchObject({ memory: 0, disk: 0, waiting: 0 });
    const given = await waits;
    expect([given.status, given.headers.has("retry-after")]).toEqual([503, true]);
    release();
    expect((await leader).status).toBe(200);
    expect((await other.get(`download/${mxc}`, TOKEN)).body.equals(LARGE)).toBe(true);
    expect(other.scanner.begun).toBe(1);
  });

  it("the other one takes over when the holder dies in mid-scan", async () => {
    for (const bytes of [SMALL, LARGE]) {
      const [one, other] = [await instance(), await instance()];
      hold(one);
      const mxc = one.put(bytes);
      const left = one.get(`download/${mxc}`, TOKEN);
      await expect.poll(() => one.scanner.begun).toBe(1);
      const waits = other.get(`download/${mxc}`, TOKEN);
      await sleep(300);
      expect(other.scanner.begun).toBe(0);
      // Nothing of it is renewed or let go of any more, as when its process is killed.
      one.records[Symbol.dispose]();
      expect((await waits).body.equals(bytes)).toBe(true);
      expect(other.scanner.begun).toBe(1);
      await one.shutdown();
      expect((await left).status).toBe(503);
    }
  }, 30_000);

  it("the other one's turn comes at once when the holder is shut down", async () => {
    const [one, other] = [await instance(), await instance()];
    hold(one);
    const mxc = one.put(SMALL);
    const left = one.get(`download/${mxc}`, TOKEN);
    await expect.poll(() => one.scanner.begun).toBe(1);
    const waits = other.get(`download/${mxc}`, TOKEN);
    await sleep(300);
    await one.shutdown();
    // Long before the lease would have ended by itself.
    await expect.poll(() => other.scanner.begun).toBe(1);
    expect((await left).status).toBe(503);
    expect((await waits).body.equals(SMALL)).toBe(true);
    await expect.poll(() => raw.keys("mig:lease:*")).toEqual([]);
  });

  it("know at once what the other one found infected, and block what is blocked whatever Redis says", async () => {
    const [one, other] = [await instance(), await instance()];
    const mxc = one.put(SMALL);
    for (const gateway of [one, other, other]) expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(true);
    one.scanner.finds = SMALL;
    one.overrides.forget(SMALL);
    await expect.poll(() => Date.now()).toBeGreaterThan(one.overrides.lastForgotten);
    expect((await one.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(false);
    expect(one.turned).toEqual([{ threat: "Eicar" }]);
    await expect.poll(async () => (await other.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(false);
    expect(scans(one, other)).toBe(2);
    const unknown = one.put(LARGE);
    await one.get(`scan/${unknown}`, TOKEN);
    other.overrides.set("block", LARGE);
    expect((await other.get(`download/${unknown}`, TOKEN)).status).toBe(403);
    expect((await other.get(`scan/${unknown}`, TOKEN)).json["clean"]).toBe(false);
  });

  it("keep infected what one found, though the other's engine lags behind, however their scans fall together", async () => {
    const [one, other] = [await instance(), await instance()];
    const marker = Buffer.from("only today's signatures know");
    const virus = Buffer.concat([marker, LARGE]);
    one.scanner.finds = marker;
    const release = hold(other);
    const [first, second] = [one.put(virus), one.put(virus)];
    const slow = other.get(`download/${second}`, TOKEN);
    await expect.poll(() => other.scanner.begun).toBe(1);
    expect((await one.get(`download/${first}`, TOKEN)).status).toBe(403);
    release();
    expect((await slow).status).toBe(403);
    for (const gateway of [one, other]) {
      for (const mxc of [first, second, gateway.put(virus)]) expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(403);
    }
  });

  it("of which one is busy: the other does not wait for what that one has not begun", async () => {
    const [busy, idle] = [await instance({ admission: { maxConcurrent: 1 } }), await instance()];
    const release = hold(busy);
    const slow = busy.get(`download/${busy.put(Buffer.from("slow"))}`, TOKEN);
    await expect.poll(() => busy.scanner.begun).toBe(1);
    const mxc = busy.put(SMALL);
    const queued = busy.get(`download/${mxc}`, TOKEN);
    await expect.poll(() => busy.queued()).toBe(1);
    expect((await idle.get(`download/${mxc}`, TOKEN)).body.equals(SMALL)).toBe(true);
    release();
    expect((await slow).status).toBe(200);
    expect((await queued).body.equals(SMALL)).toBe(true);
    expect([busy.scanner.begun, idle.scanner.begun]).toEqual([1, 1]);
  });

  it("scan media anew that the homeserver changed, though Redis does not let go of what it was", async () => {
    const gateway = await instance();
    const mxc = gateway.put(LARGE);
    await gateway.get(`scan/${mxc}`, TOKEN);
    const [serverName, mediaId = ""] = mxc.split("/");
    gateway.homeserver.put(mediaId, { bytes: LARGE.toReversed() }, serverName);
    await raw.config("SET", "min-replicas-to-write", "1");
    try {
      // The first error of this kind that Redis gives may end the connection.
      for (let round = 0; round < 2; round += 1)
        expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(LARGE.toReversed())).toBe(true);
    } finally {
      await raw.config("SET", "min-replicas-to-write", "0");
    }
    expect(gateway.scanner.begun).toBe(2);
  });

  it("scan once for both when signatures have changed, and both block what is infected by then", async () => {
    for (const bytes of [SMALL, LARGE]) {
      const instances = [await instance(), await instance()] as const;
      const mxc = instances[0].put(bytes);
      for (const gateway of instances) expect((await gateway.get(`download/${mxc}`, TOKEN)).body.equals(bytes)).toBe(true);
      for (const { scanner } of instances) {
        scanner.tag = "signatures-2";
        scanner.finds = bytes;
      }
      for (const gateway of instances) {
        expect((await gateway.get(`download/${mxc}`, TOKEN)).status).toBe(403);
        expect((await gateway.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(false);
      }
      expect(scans(...instances)).toBe(2);
      expect(instances.map(({ turned }) => turned.length)).toEqual([1, 0]);
    }
  });

  it("take no verdict over from each other that was made under another policy", async () => {
    const text = Buffer.from("just some text\n");
    const [lenient, strict] = [await instance(), await instance({ policy: { blockedTypes: ["text/plain"] } })];
    const mxc = lenient.put(text);
    const file = await encryptFile(text);
    const body = { file: file.file(lenient.put(file.ciphertext)) };
    for (let round = 0; round < 2; round += 1) {
      expect((await lenient.get(`scan/${mxc}`, TOKEN)).json["clean"]).toBe(true);
      expect((await lenient.post("scan_encrypted", body, TOKEN)).json["clean"]).toBe(true);
      expect((await strict.get(`download/${mxc}`, TOKEN)).json["reason"]).toBe("MCS_MIME_TYPE_FORBIDDEN");
      expect((await strict.post("scan_encrypted", body, TOKEN)).json["reason"]).toBe("MCS_MIME_TYPE_FORBIDDEN");
    }
  });
});

describe("what is kept in Redis", () => {
  it("counts for as long as its verdict may, however often other sources are found to hold the same", async () => {
    const clock = { now: Date.now() };
    const one = await instance({}, () => clock.now);
    for (const [passed, expected] of [
      [0, 1],
      [3_000_000, 1],
      [1_000_000, 2],
    ] as const) {
      clock.now += passed;
      await one.get(`scan/${one.put(SMALL)}`, TOKEN);
      expect(one.scanner.begun).toBe(expected);
    }
  });

  it("is verdicts of scanners and what sources held, and nothing that was blocked, allowed, unscanned or failed", async () => {
    const one = await instance({ policy: { onUnavailable: "allow" } });
    const cases = [
      [() => one.overrides.set("allow", EICAR), EICAR, []],
      [() => (one.scanner.failure = UNAVAILABLE), randomBytes(10), []],
      [() => (one.scanner.failure = new GatewayError("beyond_proof")), randomBytes(10), []],
      [() => ((one.scanner.failure = undefined), (one.scanner.unscannable = "told so")), randomBytes(10), []],
      [() => ((one.scanner.unscannable = undefined), (one.scanner.modified = "told so")), randomBytes(10), []],
      [() => one.overrides.set("block", SMALL), SMALL, ["mig:source2"]],
      [() => (one.scanner.modified = undefined), LARGE, ["mig:source2", "mig:verdict"]],
    ] as const;
    for (const [arrange, bytes, expected] of cases) {
      arrange();
      await one.get(`scan/${one.put(bytes)}`, TOKEN);
      await expect.poll(async () => (await raw.keys("mig:lease:*")).length).toBe(0);
      const names = (await raw.keys("*")).filter((name) => name !== "mig:fingerprint").map((name) => name.split(":", 2).join(":"));
      expect(names.toSorted()).toEqual(expected);
      await raw.flushall();
    }
  });
});

describe("a Redis that fails in the middle", () => {
  it("fails no request, whether it is killed, stopped or emptied, and lets nothing infected out", async () => {
    for (const fault of ["SIGKILL", "SIGSTOP", "flush", "read-only"] as const) {
      await raw.flushall();
      const [one, other] = [await instance(), await instance()];
      const release = hold(one, other);
      const media = [SMALL, LARGE, EICAR, Buffer.concat([LARGE, EICAR])].map((bytes) => ({ bytes, mxc: one.put(bytes) }));
      const ask = (): ReturnType<typeof askOne>[] => media.flatMap((one) => [askOne(one), askOne(one), askOne(one)]);
      const askOne = async ({ bytes, mxc }: (typeof media)[number]) => {
        const answers = await Promise.all([one, other].map((gateway) => gateway.get(`download/${mxc}`, TOKEN)));
        for (const answer of answers) {
          if (bytes.includes(EICAR)) expect([answer.status, answer.json["reason"]], fault).toEqual([403, "MCS_MEDIA_NOT_CLEAN"]);
          else expect(answer.body.equals(bytes), fault).toBe(true);
        }
      };
      const before = Promise.all(ask());
      before.catch(() => undefined);
      await expect.poll(() => scans(one, other)).toBe(media.length);
      await (fault === "flush" ? raw.flushall() : fault === "read-only" ? raw.replicaof("127.0.0.1", 1) : server.kill(fault));
      try {
        const during = Promise.all(ask());
        during.catch(() => undefined);
        await sleep(600);
        release();
        await Promise.all([before, during, ...ask()]);
      } finally {
        if (fault === "SIGKILL") await server.restart();
        if (fault === "SIGSTOP") await server.kill("SIGCONT");
        if (fault === "read-only") await raw.replicaof("NO", "ONE");
      }
      await Promise.all(ask());
      for (const { records } of [one, other]) {
        if (fault !== "read-only") await expect.poll(() => records.health().degraded, { timeout: 8000 }).toBe(false);
      }
      await one[Symbol.asyncDispose]();
      await other[Symbol.asyncDispose]();
    }
  }, 90_000);
});
