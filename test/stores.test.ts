/** From the configuration to what outlasts a request: verdicts and overrides, in this process or shared. */
import { randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { stringify } from "yaml";
import { loadConfig } from "../src/config/load.ts";
import { createLogger } from "../src/observability/log.ts";
import { createMetrics, type Metrics } from "../src/observability/metrics.ts";
import { openRecords, openRequestKeys, openStores, secretsOf, type Stores } from "../src/stores.ts";
import { OverrideFileWriter } from "../src/verdicts/overrides-file-writer.ts";
import type { OverrideChange } from "../src/verdicts/overrides-ledger.ts";
import { SharedOverrideWriter } from "../src/verdicts/overrides-shared-writer.ts";
import type { RedisRecords } from "../src/verdicts/redis-records.ts";
import type { VerdictRecord } from "../src/verdicts/store.ts";
import { redisCertificates, type Redis as Server, startRedis } from "./support/peers/redis.ts";
import { startRedisCluster, startWatchedRedis } from "./support/peers/redis-together.ts";
import { type RealGateway, startGateway } from "./support/real-gateway.ts";

const HOUR = 3_600_000;
const CLEAN: VerdictRecord = { outcome: "clean", stamps: { av: { tag: "t", at: Date.now() } } };
const INFECTED: VerdictRecord = { ...CLEAN, outcome: "infected", threat: "Evil", scanner: "av" };
const block: OverrideChange = { kind: "block", reason: "a new worm" };
const until = (what: () => unknown) => expect.poll(what, { timeout: 15_000 });

let server: Server;
let raw: Redis;
let directory: string;

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
  directory = await mkdtemp(join(tmpdir(), "mig-stores-"));
  const made = directory;
  onTestFinished(() => rm(made, { recursive: true }));
});

async function file(name: string, content: string): Promise<string> {
  await writeFile(join(directory, name), content, { mode: 0o600 });
  return join(directory, name);
}

interface Opened {
  readonly stores: Stores;
  readonly metrics: Metrics;
  readonly log: () => string;
  /** For overrides in a file. */
  readonly secret: Buffer;
  /** Another connection to Redis. */
  readonly records: () => Promise<RedisRecords>;
}

/** What a gateway has whose `result_cache` is this; those with one `secret` are instances of one deployment. */
async function open(cache: object, secret = "shared"): Promise<Opened> {
  const path = await file(
    `${randomBytes(4).toString("hex")}.yaml`,
    stringify({
      icap: [{ name: "av", urls: ["icap://127.0.0.1/x"] }],
      download: { base_homeserver_url: "http://127.0.0.1:1" },
      result_cache: { overrides_path: join(directory, "overrides"), ...cache },
      crypto: { request_secret_path: join(directory, `${secret}_secret`) },
    }),
  );
  const { config } = await loadConfig(path);
  const keys = await openRequestKeys(config);
  onTestFinished(() => keys.free());
  const lines: string[] = [];
  const log = createLogger({ level: "debug", stream: { write: (line: string) => void lines.push(line) } });
  const metrics = createMetrics();
  const stores = await openStores(config, keys, log, metrics);
  onTestFinished(() => stores[Symbol.asyncDispose]());
  const derive = secretsOf(config, keys);
  const records = async (): Promise<RedisRecords> => {
    const more = await openRecords(config, derive, log, { publicKey: keys.publicKey, onDropped: () => undefined });
    if (more === undefined) throw new Error("no Redis is configured");
    onTestFinished(() => more[Symbol.dispose]());
    return more;
  };
  return { stores, metrics, log: () => lines.join(""), secret: derive("overrides"), records };
}

const contentOf = ({ stores }: Opened, sha256: Buffer): string => stores.keys.content(sha256, "policy");
const blockedIn = ({ stores }: Opened, sha256: Buffer): string | undefined => stores.overrides.of(stores.keys.digest(sha256))?.kind;

/** Whether what one of them remembers is known to the other. */
async function share(one: Opened, other: Opened): Promise<boolean> {
  for (const { stores } of [one, other]) await until(() => stores.verdicts.health().degraded).toBe(false);
  const sha256 = randomBytes(32);
  await one.stores.verdicts.rememberVerdict(contentOf(one, sha256), CLEAN);
  return (await other.stores.verdicts.verdict(contentOf(other, sha256)))?.record.outcome === "clean";
}

const certificates = async (): Promise<object> => ({
  ca_path: await file("ca.pem", redisCertificates.ca),
  cert_path: await file("cert.pem", redisCertificates.client.cert),
  key_path: await file("key.pem", redisCertificates.client.key),
});

describe("a Redis that is configured", () => {
  it("by its URL is reached: with and without TLS, under a name of its own", async () => {
    expect(await share(await open({ redis: { url: server.url } }), await open({ redis: { url: server.url } }))).toBe(true);
    expect((await raw.keys("mig:verdict:*")).length).toBe(1);
    await using secure = await startRedis({ tls: true });
    const redis = { url: secure.url, tls: { ...(await certificates()), server_name: "av.example.test" } };
    expect(await share(await open({ redis }), await open({ redis }))).toBe(true);
    const wrong = await open({ redis: { ...redis, tls: { ...redis.tls, server_name: "redis.example.test" } } });
    await until(() => wrong.stores.verdicts.health().problems.join()).toMatch(/ALTNAME/);
  });

  it("by a user's name and password is reached as that user, under the prefix alone", async () => {
    await raw.call("ACL", "SETUSER", "gateway", "on", ">open sesame", "~own:*", "&own:*", "+@all");
    const redis = { url: server.url, username: "gateway", password_path: await file("password", "open sesame\n"), key_prefix: "own:" };
    expect(await share(await open({ redis }), await open({ redis }))).toBe(true);
    expect(await raw.keys("mig:*")).toEqual([]);
  });

  it("by its Sentinels is reached, over TLS, with the passwords of both", async () => {
    const passwords = { password: "redis-password", sentinelPassword: "sentinel-password" };
    await using watched = await startWatchedRedis({ ...passwords, tls: true });
    const redis = {
      sentinels: watched.sentinels.map(({ host, port }) => `${host}:${port}`),
      master: watched.name,
      password_path: await file("password", passwords.password),
      sentinel_password_path: await file("sentinel_password", passwords.sentinelPassword),
      tls: await certificates(),
    };
    expect(await share(await open({ redis }), await open({ redis }))).toBe(true);
  }, 60_000);

  it("by nodes of a Cluster is reached, over TLS", async () => {
    await using cluster = await startRedisCluster({ tls: true });
    const redis = { cluster: cluster.nodes.map(({ host, port }) => `${host}:${port}`), tls: await certificates() };
    expect(await share(await open({ redis }), await open({ redis }))).toBe(true);
  }, 60_000);
});

describe("instances", () => {
  it("share with whoever has the same digest secret, whatever the request secret, and with nobody else", async () => {
    const redis = { url: server.url };
    const [one, other] = await Promise.all(["one", "other"].map((name) => file(`digest_${name}`, randomBytes(32).toString("base64"))));
    const first = await open({ redis, digest_secret_path: one }, "first");
    expect(await share(first, await open({ redis, digest_secret_path: one }, "second"))).toBe(true);
    expect(await share(first, await open({ redis, digest_secret_path: other }, "first"))).toBe(false);
    expect(await share(first, await open({ redis }, "first"))).toBe(false);
  });

  it("count what in Redis is none of theirs", async () => {
    const [one, other] = [await open({ redis: { url: server.url } }), await open({ redis: { url: server.url } })];
    const sha256 = randomBytes(32);
    expect(await share(one, other)).toBe(true);
    await one.stores.verdicts.rememberVerdict(contentOf(one, sha256), CLEAN);
    await raw.set(`mig:verdict:${contentOf(one, sha256)}`, "planted");
    expect(await other.stores.verdicts.verdict(contentOf(other, sha256))).toBeUndefined();
    expect(await other.metrics.render()).toMatch(/^mig_redis_dropped_total 1$/m);
    expect(await one.metrics.render()).toMatch(/^mig_redis_dropped_total 0$/m);
  });
});

describe("verdicts", () => {
  it.each([
    ["in this process", false],
    ["in Redis", true],
  ])("%s are kept as long as is configured for clean and for infected content", async (_, shared) => {
    const { stores } = await open({
      clean_ttl: "1h",
      infected_ttl: "50h",
      ...(shared ? { redis: { url: server.url } } : {}),
    });
    const now = Date.now();
    const kept = async (record: VerdictRecord): Promise<number> =>
      ((await stores.verdicts.rememberVerdict(randomBytes(8).toString("hex"), record))?.expiresAt ?? 0) - now;
    expect(Math.round((await kept(CLEAN)) / HOUR)).toBe(1);
    expect(Math.round((await kept(INFECTED)) / HOUR)).toBe(50);
  });
});

describe("overrides", () => {
  it("come from a list of hashes, with and without Redis, and both are told of", async () => {
    const sha256 = randomBytes(32);
    const blocked_hashes_path = await file("hashes", sha256.toString("hex"));
    for (const cache of [{ blocked_hashes_path }, { blocked_hashes_path, redis: { url: server.url } }]) {
      const opened = await open(cache);
      expect([blockedIn(opened, sha256), blockedIn(opened, randomBytes(32))]).toEqual(["block", undefined]);
      await writeFile(blocked_hashes_path, "");
      await until(() => opened.stores.overrides.health().problems.join()).toContain("names nothing any more");
      await writeFile(blocked_hashes_path, sha256.toString("hex"));
    }
    await expect(open({ blocked_hashes_path: join(directory, "none") })).rejects.toMatchObject({ code: "overrides_unusable" });
  });

  it("in a file are taken over into Redis, from the first moment on, and for instances without the file", async () => {
    const before = await open({});
    const path = join(directory, "overrides");
    const writer = new OverrideFileWriter({ path, secret: before.secret, keys: before.stores.keys });
    const [file, forgotten] = [randomBytes(32), randomBytes(32)];
    await writer.write(file, block);
    await writer.write(forgotten, { kind: "forget", reason: "" });
    const one = await open({ redis: { url: server.url } });
    expect(blockedIn(one, file)).toBe("block");
    expect(one.stores.overrides.forgottenAt(one.stores.keys.digest(forgotten))).toBeGreaterThan(0);
    expect(one.log()).toContain("are taken over into it");
    await until(() => raw.hlen("mig:overrides")).toBe(2);
    const other = await open({ redis: { url: server.url }, overrides_path: join(directory, "none") });
    expect(blockedIn(other, file)).toBe("block");
    expect(other.log()).not.toContain("taken over");
  });

  it("in a file end nothing that Redis has newer", async () => {
    const before = await open({});
    const path = join(directory, "overrides");
    const sha256 = randomBytes(32);
    await new OverrideFileWriter({ path, secret: before.secret, keys: before.stores.keys }).write(sha256, block);
    const one = await open({ redis: { url: server.url } });
    await until(() => raw.hlen("mig:overrides")).toBe(1);
    await new SharedOverrideWriter({ records: await one.records(), keys: one.stores.keys }).write(sha256, { kind: "forget", reason: "" });
    await until(() => blockedIn(one, sha256)).toBeUndefined();
    expect(blockedIn(await open({ redis: { url: server.url } }), sha256)).toBeUndefined();
  });

  it("in a file that can't be used keep a gateway from starting, with Redis too", async () => {
    const before = await open({}, "another");
    const path = join(directory, "overrides");
    await new OverrideFileWriter({ path, secret: before.secret, keys: before.stores.keys }).write(randomBytes(32), block);
    for (const cache of [{}, { redis: { url: server.url } }]) {
      await expect(open(cache)).rejects.toMatchObject({
        code: "overrides_unusable",
        message: `${path}: was written under another secret`,
      });
    }
  });
});

async function gateway(cache: object): Promise<RealGateway> {
  const opened = await startGateway({
    scan: { script: "/bin/true" },
    result_cache: { overrides_path: join(directory, "overrides"), ...cache },
  });
  onTestFinished(() => opened[Symbol.asyncDispose]());
  return opened;
}

/** But for what a script needs, and this machine may not have. */
async function problems(one: RealGateway): Promise<readonly string[]> {
  return (await one.readiness()).problems.filter((problem) => !problem.includes("is not a tmpfs"));
}

/** What metrics say of Redis. */
async function gauges({ gateway: { adminAddress } }: RealGateway): Promise<readonly string[]> {
  const metrics = await (await fetch(`http://127.0.0.1:${adminAddress.port}/metrics`)).text();
  return metrics.match(/^mig_redis_(?:up|listening) .*$/gm) ?? [];
}

describe("a gateway", () => {
  it("tells in readiness what is wrong with overrides", async () => {
    const one = await gateway({});
    await until(() => problems(one)).toEqual([]);
    await file("overrides", "damaged\n");
    await until(() => problems(one)).toEqual([`${directory}/overrides:1: 1 damaged line ignored`]);
    expect(await gauges(one)).toEqual([]);
  });

  it("tells in readiness and metrics whether Redis takes what it is given, and messages come", async () => {
    const one = await gateway({ redis: { url: server.url } });
    await until(() => problems(one)).toEqual([]);
    await until(() => gauges(one)).toEqual(["mig_redis_up 1", "mig_redis_listening 1"]);
    await raw.replicaof("127.0.0.1", "1");
    try {
      const { status } = await one.get(`download/${one.put(Buffer.from("media"))}`, "alice");
      expect(status).toBe(200);
      await until(async () => (await problems(one)).join()).toMatch(/Redis at .*READONLY/);
      expect((await one.readiness()).status).toBe(200);
      expect(await gauges(one)).toContain("mig_redis_up 0");
    } finally {
      await raw.replicaof("NO", "ONE");
    }
    await server.kill();
    await until(() => gauges(one)).toEqual(["mig_redis_up 0", "mig_redis_listening 0"]);
    await server.restart();
    await until(() => gauges(one)).toContain("mig_redis_listening 1");
  });
});
