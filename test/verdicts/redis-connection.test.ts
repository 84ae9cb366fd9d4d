import { randomBytes } from "node:crypto";
import { createServer, type Server as TcpServer } from "node:net";
import { once } from "node:events";
import { setImmediate as nextTurn } from "node:timers/promises";
import { describe, expect, it, onTestFinished } from "vitest";
import { type RedisConnectionOptions, openConnection } from "../../src/verdicts/redis-connection.ts";
import { RedisLink } from "../../src/verdicts/redis-link.ts";
import { RedisRecords } from "../../src/verdicts/redis-records.ts";
import { redisCertificates, startRedis } from "../support/peers/redis.ts";
import { startRedisCluster, startWatchedRedis } from "../support/peers/redis-together.ts";

const secret = randomBytes(32);
const text = (content: unknown): string | undefined => (typeof content === "string" ? content : undefined);
const certificates = { ca: redisCertificates.ca, ...redisCertificates.client };

interface Instance {
  readonly records: RedisRecords;
  /** All that an operator sees of it. */
  readonly seen: () => string;
}

function instance(connection: RedisConnectionOptions): Instance {
  const logged: unknown[] = [];
  const log = {
    info: (details: object, message: string) => logged.push([details, message]),
    warn: (details: object, message: string) => logged.push([details, message]),
  };
  const records = new RedisRecords({ connection, keyPrefix: "mig:", secret, log });
  onTestFinished(() => records[Symbol.dispose]());
  return { records, seen: () => JSON.stringify([logged, records.health()]) };
}

async function healthy({ records }: Instance): Promise<RedisRecords> {
  await expect.poll(() => records.health(), { timeout: 20_000 }).toEqual({ degraded: false, problems: [] });
  return records;
}

/** What `word` says in Redis, everything that the store does there works. */
async function expectAllToWork(records: RedisRecords, word: string): Promise<void> {
  const heard: string[] = [];
  let listening = 0;
  const subscription = records.subscribe(
    "news",
    (message) => heard.push(message),
    () => (listening += 1),
  );
  for (let n = 0; n < 20; n += 1) {
    await records.set(`${word}:${n}`, `${word} ${n}`, 60_000);
    expect((await records.get(`${word}:${n}`, text))?.record).toBe(`${word} ${n}`);
    await records.delete(`${word}:${n}`);
    expect(await records.get(`${word}:${n}`, text)).toBeUndefined();
  }
  const lease = await records.lease(word, 60_000);
  expect(lease).not.toBe("taken");
  expect(await records.lease(word, 60_000)).toBe("taken");
  // It was asked for in vain.
  expect(lease !== "taken" && (await lease.release())).toBe(true);
  const again = await records.lease(word, 60_000);
  if (again !== "taken") await again[Symbol.asyncDispose]();
  expect(again).not.toBe("taken");
  expect(await records.hashSet("words", word, word)).toBe(true);
  expect((await records.hashEntries("words", text))?.get(word)).toBe(word);
  const hash = records.hash("words", text);
  expect(await hash.exchange(word, `${word} anew`, undefined, () => false)).toBe("set");
  expect(await hash.get(word)).toEqual({ record: `${word} anew` });
  expect(await records.time()).toBeGreaterThan(0);
  await expect.poll(() => listening, { timeout: 5000 }).toBe(1);
  await records.publish("news", word);
  await expect.poll(() => heard).toEqual([word]);
  subscription[Symbol.dispose]();
  expect(records.health()).toEqual({ degraded: false, problems: [] });
}

describe("one server", () => {
  it("is reached over TLS: it must have a certificate of the authority, for its name, and sees ours", async () => {
    await using server = await startRedis({ tls: true });
    const { url } = server;
    await expectAllToWork(await healthy(instance({ url, tls: certificates })), "a");
    await healthy(instance({ url, tls: { ...certificates, serverName: "av.example.test" } }));
    // It was said that TLS is used.
    await healthy(instance({ url: url.replace("rediss:", "redis:"), tls: certificates }));
    const refused: [RedisConnectionOptions, RegExp][] = [
      [{ url, tls: { ...certificates, serverName: "redis.example.test" } }, /ALTNAME/],
      [{ url, tls: redisCertificates.client }, /UNABLE_TO_VERIFY|SELF_SIGNED/],
      [{ url }, /UNABLE_TO_VERIFY|SELF_SIGNED/],
      [{ url, tls: { ca: certificates.ca } }, /CERTIFICATE_REQUIRED|ECONNRESET/],
    ];
    for (const [connection, why] of refused) {
      const { records } = instance(connection);
      await expect.poll(() => records.health().problems.join("; "), { timeout: 5000 }).toMatch(why);
      await records.set("a", "a", 60_000);
      expect(await records.get("a", text)).toBeUndefined();
    }
  });

  it("needs no more rights than the commands that are used, on keys and channels with the prefix", async () => {
    const commands =
      "+hello +info +ping +time +get +getrange +set +del +pexpire +eval +hset +hscan +hget +hdel +hlen +publish +subscribe +unsubscribe";
    await using server = await startRedis({
      settings: { user: `gateway on >the-password ~mig:* &mig:* -@all ${commands}` },
    });
    const given = { url: server.url, username: "gateway", password: "the-password" };
    await expectAllToWork(await healthy(instance(given)), "a");
    await healthy(instance({ url: server.url.replace("//", "//gateway:the-password@") }));
    const { records, seen } = instance({ ...given, password: "not-the-password" });
    await expect.poll(() => records.health().problems.join("; ")).toContain("WRONGPASS");
    expect(seen()).not.toContain("not-the-password");
  });

  it("is sent in one piece what is asked in one turn", async () => {
    await using server = await startRedis();
    const connection = openConnection({ url: server.url });
    const { client } = connection;
    const log = { info: () => undefined, warn: () => undefined };
    const link = new RedisLink({ connection, log, now: Date.now });
    onTestFinished(() => link.close());
    await once(client, "ready");
    if (!("stream" in client)) throw new Error("it is a Cluster");
    const pieces: number[] = [];
    const writev = client.stream._writev?.bind(client.stream);
    client.stream._writev = (chunks, done) => {
      pieces.push(chunks.length);
      writev?.(chunks, done);
    };
    await expect.poll(() => link.away).toBe(false);
    pieces.length = 0;
    const asked = ["a", "b", "c"].map((name) => link.ask((redis) => redis.set(name, name)));
    expect(await Promise.all(asked)).toEqual(asked.map(() => ({ value: "OK" })));
    expect(pieces).toEqual([3]);
    expect(client.stream.writableCorked).toBe(0);
  });

  it("is not away because other work kept this process from asking it in time", async () => {
    await using server = await startRedis();
    const records = await healthy(instance({ url: server.url, limit: 100 }));
    await nextTurn();
    const asked = records.look("nothing", text);
    const until = performance.now() + 200;
    while (performance.now() < until);
    expect(await asked).toBe("nothing");
    expect(records.health().problems).toEqual([]);
  });

  it("is chosen by a URL, and nothing in the URL but address and database changes what is asked of it", async () => {
    await using server = await startRedis();
    const { records } = instance({ url: `${server.url}/3` });
    await healthy({ records, seen: String });
    await records.set("a", "a", 60_000);
    expect(await (await healthy(instance({ url: server.url }))).get("a", text)).toBeUndefined();
    expect((await (await healthy(instance({ url: `${server.url}/3` }))).get("a", text))?.record).toBe("a");
    for (const url of [
      "redis://h?enableOfflineQueue=true",
      "http://h",
      "redis://h/x",
      "/run/redis.sock",
      "redis:///1",
      "redis://:pass:word@[h",
    ]) {
      const open = (): unknown => openConnection({ url });
      expect(open).toThrow(TypeError);
      expect(open).not.toThrow(url);
    }
  });

  it("that quotes what it was sent makes nobody see the password", async () => {
    const password = "a-password-nobody-may-see";
    const server = await listening((request) => `-ERR you sent ${request.join(" ").slice(0, 300)}\r\n`);
    const { records, seen } = instance({ url: `redis://127.0.0.1:${server.port}`, password });
    await expect.poll(() => records.health().problems.join("; ")).toContain("you sent hello 3 AUTH default [redacted]");
    expect(seen()).not.toContain(password);
    const other = await listening(() => `-ERR no such command, with args beginning with: 'the-key'\r\n`);
    const { records: others, seen: seenOfOthers } = instance({ url: `redis://127.0.0.1:${other.port}` });
    await expect.poll(() => others.health().problems.join("; ")).toContain("no such command");
    expect(seenOfOthers()).not.toContain("the-key");
  });
});

describe("a master that Sentinels name", () => {
  it("is followed to the replica that takes over, while nothing fails or waits", async () => {
    const passwords = { password: "redis-password", sentinelPassword: "sentinel-password" };
    await using redis = await startWatchedRedis(passwords);
    const { sentinels, name: master } = redis;
    const one = instance({ sentinels, master, ...passwords });
    const records = await healthy(one);
    await expectAllToWork(records, "before");
    let listening = 0;
    const heard: string[] = [];
    records.subscribe(
      "news",
      (message) => heard.push(message),
      () => (listening += 1),
    );
    await expect.poll(() => listening).toBe(1);

    await redis.master.kill();
    await expect.poll(() => records.health().degraded).toBe(true);
    // Each would wait for longer than the test may take, were it kept for later.
    for (let n = 0; n < 500; n += 1) {
      await records.set(`while away ${n}`, "x", 60_000);
      expect(await records.get(`while away ${n}`, text)).toBeUndefined();
    }
    await healthy(one);
    await expectAllToWork(records, "after");
    await expect.poll(() => listening, { timeout: 10_000 }).toBe(2);
    await records.publish("news", "the replica has taken over");
    await expect.poll(() => heard.at(-1)).toBe("the replica has taken over");
    // None of what was asked in between came later.
    expect(await records.get("while away 0", text)).toBeUndefined();
    for (const password of Object.values(passwords)) expect(one.seen()).not.toContain(password);
  }, 40_000);

  it("is reached over TLS, and so are they", async () => {
    const passwords = { password: "redis-password", sentinelPassword: "sentinel-password" };
    await using redis = await startWatchedRedis({ ...passwords, tls: true });
    const { sentinels, name: master } = redis;
    await expectAllToWork(
      await healthy(instance({ sentinels, master, ...passwords, tls: certificates, tlsToSentinels: true, database: 2 })),
      "a",
    );
    const plain = instance({ sentinels, master, ...passwords, tls: certificates });
    await expect.poll(() => plain.records.health().problems.join("; ")).toMatch(/All sentinels are unreachable/);
  });

  it("is away when they know of no such master, refuse the password, or are away themselves", async () => {
    await using redis = await startWatchedRedis({ password: "redis-password", sentinelPassword: "sentinel-password" });
    const { sentinels, name: master } = redis;
    const given = { sentinels, master, password: "redis-password", sentinelPassword: "sentinel-password" };
    const wrong: [RedisConnectionOptions, RegExp][] = [
      [{ ...given, master: "another" }, /another \(Sentinels: .*No such master/],
      [{ ...given, sentinelPassword: "wrong-password" }, /WRONGPASS/],
      [{ ...given, password: "wrong-password" }, /WRONGPASS/],
      [{ ...given, sentinels: [{ host: "127.0.0.1", port: 1 }] }, /All sentinels are unreachable/],
    ];
    for (const [connection, why] of wrong) {
      const { records, seen } = instance(connection);
      await expect.poll(() => records.health().problems.join("; "), { timeout: 5000 }).toMatch(why);
      expect(await records.get("a", text)).toBeUndefined();
      expect(seen()).not.toContain("wrong-password");
    }
    // One that is away is passed over.
    await healthy(instance({ ...given, sentinels: [{ host: "127.0.0.1", port: 1 }, ...sentinels] }));
  });
});

describe("a Cluster", () => {
  it("serves every slot, also while slots move, and is let be while one of its masters is gone or hangs", async () => {
    await using cluster = await startRedisCluster();
    const [first, second, third] = cluster.nodes;
    const one = instance({ cluster: [{ host: first.host, port: first.port }] });
    const records = await healthy(one);
    const other = await healthy(instance({ cluster: [{ host: third.host, port: third.port }] }));
    await expectAllToWork(records, "before");
    await records.set("shared", "by all", 60_000);
    expect((await other.get("shared", text))?.record).toBe("by all");

    // The slot of an empty key, on its way from one master to the next: ASK; and then there: MOVED.
    const key = "mig:moving";
    const slot = (await first.ask("cluster", "keyslot", key)).trim();
    const ids = await Promise.all(cluster.nodes.map(async (node) => (await node.ask("cluster", "myid")).trim()));
    const from = Math.floor(Number(slot) / (16_384 / 3));
    const to = (from + 1) % 3;
    const [source = first, target = second] = [cluster.nodes[from], cluster.nodes[to]];
    await target.ask("cluster", "setslot", slot, "importing", ids[from] ?? "");
    await source.ask("cluster", "setslot", slot, "migrating", ids[to] ?? "");
    await records.set("moving", "asked for", 60_000);
    expect((await records.get("moving", text))?.record).toBe("asked for");
    await target.ask("cluster", "setslot", slot, "node", ids[to] ?? "");
    await source.ask("cluster", "setslot", slot, "node", ids[to] ?? "");
    expect((await records.get("moving", text))?.record).toBe("asked for");
    expect((await other.get("moving", text))?.record).toBe("asked for");

    for (const signal of ["SIGKILL", "SIGSTOP"] as const) {
      await second.kill(signal);
      // A third of these would each wait for the master that hangs: together, for longer than the test may take.
      for (let n = 0; n < 1000; n += 1) {
        await records.set(`while away ${n}`, "x", 60_000);
        await records.get(`while away ${n}`, text);
      }
      expect(records.health()).toMatchObject({ degraded: true, problems: [expect.stringContaining("in this process only")] });
      if (signal === "SIGKILL") await second.restart();
      else await second.kill("SIGCONT");
      await healthy(one);
      await expectAllToWork(records, signal);
    }
  }, 60_000);

  it("is reached over TLS", async () => {
    await using cluster = await startRedisCluster({ tls: true });
    const nodes = cluster.nodes.map(({ host, port }) => ({ host, port }));
    await expectAllToWork(await healthy(instance({ cluster: nodes, tls: certificates })), "a");
    const { records } = instance({ cluster: nodes });
    await expect.poll(() => records.health().problems.join("; "), { timeout: 5000 }).not.toBe("");
    expect(await records.hashSet("words", "b", "b")).toBe(false);
  });

  it.each(["MOVED", "MOVED 1", "MOVED 1 nowhere", "MOVED 1 :", "ASK 1", "ASK 1 127.0.0.1:1", "MOVED 1 127.0.0.1:1", "MOVED x 127.0.0.1:1"])(
    "that answers %s is no answer, and no end of the process",
    async (redirection) => {
      const node = await listening(([command = "", part = ""]) => {
        const of = `${command} ${part}`.toLowerCase();
        if (of.startsWith("hello")) return "-NOPROTO sorry\r\n";
        if (of.startsWith("info")) return bulk("loading:0\r\n");
        if (of === "cluster info") return bulk("cluster_state:ok\r\n");
        if (of === "cluster slots") return `*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n${bulk("127.0.0.1")}:${node.port}\r\n`;
        return of.startsWith("getrange mig:a") ? `-${redirection}\r\n` : "+OK\r\n";
      });
      const { records } = instance({ cluster: [{ host: "127.0.0.1", port: node.port }] });
      await expect.poll(() => records.health().degraded).toBe(false);
      expect(await records.get("a", text)).toBeUndefined();
      expect(records.health()).toMatchObject({ degraded: true });
    },
  );
});

function bulk(content: string): string {
  return `$${content.length}\r\n${content}\r\n`;
}

/** A server that answers each command, a list of words, with what `answer` makes of it. */
async function listening(answer: (request: readonly string[]) => string): Promise<{ readonly port: number }> {
  const server: TcpServer = createServer((socket) => {
    let unread = "";
    socket.on("error", () => undefined);
    socket.setEncoding("latin1").on("data", (chunk) => {
      unread += String(chunk);
      for (;;) {
        const lines = unread.split("\r\n");
        const count = Number(lines[0]?.slice(1));
        if (lines.length < 2 + 2 * count) return;
        unread = lines.slice(1 + 2 * count).join("\r\n");
        socket.write(answer(Array.from({ length: count }, (_, index) => lines[2 + 2 * index] ?? "")));
      }
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  onTestFinished(() => void server.close());
  const address = server.address();
  return { port: typeof address === "object" && address !== null ? address.port : 0 };
}
