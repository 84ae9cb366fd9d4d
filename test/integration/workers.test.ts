/** One gateway of several processes: what they share without Redis, and what becomes of the others when one of them dies. */
import { randomBytes } from "node:crypto";
import { mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Client } from "undici";
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest";
import { stringify } from "yaml";
import { BASE_PATH } from "../../src/http/app.ts";
import { Antivirus } from "../support/antivirus.ts";
import { FakeHomeserver } from "../support/fake-homeserver.ts";
import { GatewayProcess, runCommand } from "../support/gateway-process.ts";
import { startRedis } from "../support/peers/redis.ts";

const TOKEN = "alice";
const MIB = 1 << 20;
/** Everything here waits for something to happen, and then for as long as it takes. */
const SOON = { timeout: 60_000, interval: 20 };
const LONG = 240_000;

let home: string;
let homeserver: FakeHomeserver;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "mig-workers-"));
  homeserver = await FakeHomeserver.start();
  homeserver.addToken(TOKEN);
});

afterAll(async () => {
  await homeserver[Symbol.asyncDispose]();
  // Workers whose primary was killed may still be writing there on their way out.
  await rm(home, { recursive: true, force: true, maxRetries: 50, retryDelay: 100 });
});

interface Media {
  readonly bytes: Buffer;
  readonly mxc: string;
}

function stored(bytes: Buffer): Media {
  const { serverName, mediaId } = homeserver.put(randomBytes(12).toString("hex"), { bytes });
  return { bytes, mxc: `${serverName}/${mediaId}` };
}

interface Started {
  readonly gateway: GatewayProcess;
  readonly antivirus: Antivirus;
  /** How often it was sent these bytes. */
  readonly scansOf: (media: Media) => number;
  readonly configuration: string;
  readonly directory: string;
}

type Sections = Readonly<Record<string, object>>;

async function configure(sections: Sections): Promise<{ directory: string; configuration: string }> {
  const directory = await mkdtemp(join(home, "gateway-"));
  const configuration = join(directory, "config.yaml");
  const whole = {
    ...sections,
    web: { port: 0, workers: 2, ...sections["web"] },
    admin: { port: 0, ...sections["admin"] },
    scan: { temp_directory: directory, wait: "2m", ...sections["scan"] },
    result_cache: { overrides_path: join(directory, "overrides"), ...sections["result_cache"] },
    download: { base_homeserver_url: homeserver.url },
    crypto: { request_secret_path: join(directory, "request_secret") },
  };
  await writeFile(configuration, stringify(whole));
  return { directory, configuration };
}

/** Two workers that have proven their scanner. */
async function start(sections: Sections = {}, service: object = {}): Promise<Started> {
  const antivirus = new Antivirus();
  const url = await antivirus.start();
  onTestFinished(() => antivirus[Symbol.asyncDispose]());
  const icap = [{ name: "antivirus", urls: [url], prove_size: false, ...service }];
  const { directory, configuration } = await configure({ icap, ...sections });
  const gateway = await GatewayProcess.start(configuration, home);
  onTestFinished(() => gateway[Symbol.asyncDispose]());
  await isWell(gateway);
  const scansOf = ({ bytes }: Media): number => antivirus.seen.filter((body) => body.equals(bytes)).length;
  return { gateway, antivirus, scansOf, configuration, directory };
}

/** The scanner works for both of them, whatever there is to say of it. */
async function isWell(gateway: GatewayProcess): Promise<void> {
  const state = async (): Promise<unknown> => {
    const { status, problems } = await gateway.readiness();
    return { works: status !== "not ready", wrong: problems.filter((problem) => /^workers? \d|primary/.test(problem)) };
  };
  await expect.poll(state, SOON).toEqual({ works: true, wrong: [] });
}

interface Reply {
  readonly status: number;
  readonly body: Buffer;
}

/** One connection to one worker. */
class Visitor {
  readonly #client: Client;

  private constructor(client: Client) {
    this.#client = client;
  }

  /** Workers get connections in turn, so this one comes to its turn. */
  static async of(gateway: GatewayProcess, worker: number): Promise<Visitor> {
    for (;;) {
      const client = new Client(`http://127.0.0.1:${gateway.port}`, { headersTimeout: 0, bodyTimeout: 0, keepAliveTimeout: 60_000 });
      onTestFinished(() => client.destroy());
      const visitor = new Visitor(client);
      const before = gateway.log.length;
      await visitor.get("public_key");
      const served = (): unknown => gateway.log.slice(before).find(({ route }) => route === "public_key")?.["worker"];
      await expect.poll(served, SOON).toBeDefined();
      if (served() === worker) return visitor;
    }
  }

  get(path: string): Promise<Reply> {
    return this.send("GET", `${BASE_PATH}/${path}`);
  }

  async send(method: "GET" | "POST", path: string, more: { headers?: Record<string, string>; body?: Buffer } = {}): Promise<Reply> {
    const headers = { authorization: `Bearer ${TOKEN}`, ...more.headers };
    const { statusCode, body } = await this.#client.request({ method, path, headers, body: more.body ?? null });
    return { status: statusCode, body: Buffer.from(await body.arrayBuffer()) };
  }

  /** `delivered`, the status, or `no answer`. */
  async download({ mxc, bytes }: Media): Promise<string> {
    try {
      const { status, body } = await this.get(`download/${mxc}`);
      return status === 200 && body.equals(bytes) ? "delivered" : String(status);
    } catch {
      return "no answer";
    }
  }
}

function lives(pid: number | undefined): boolean {
  try {
    process.kill(pid ?? 0, 0);
    return true;
  } catch {
    return false;
  }
}

/** Resolves when another process serves in this worker's place. */
async function killed(gateway: GatewayProcess, worker: number): Promise<void> {
  const pid = gateway.workers().get(worker) ?? 0;
  process.kill(pid, "SIGKILL");
  await expect.poll(() => gateway.workers().get(worker), SOON).not.toBe(pid);
}

/** Holds every answer about these bytes until it is called. */
function hold(antivirus: Antivirus, { bytes }: Media): () => void {
  const { promise, resolve } = Promise.withResolvers<void>();
  antivirus.hold = (body) => (body.equals(bytes) ? promise : Promise.resolve());
  return resolve;
}

function sample(metrics: string, name: string): number {
  const line = metrics.split("\n").find((one) => one.startsWith(`${name} `));
  return line === undefined ? NaN : Number(line.slice(name.length + 1));
}

const DOWNLOADS = 'mig_requests_total{route="download",status="200",outcome="ok"}';

describe("a gateway of two workers without Redis", { timeout: LONG }, () => {
  it.each([
    ["small", 54_321],
    ["of 3 MiB", 3 * MIB + 4321],
  ])("has media that is %s scanned once, though many ask both of them at once", async (_, size) => {
    const { gateway, scansOf } = await start({ scan: { max_per_client: 200 } });
    const media = stored(randomBytes(size));
    const outcomes = await Promise.all(Array.from({ length: 60 }, () => gateway.download(media.mxc, TOKEN, media.bytes)));
    expect(new Set(outcomes)).toEqual(new Set(["delivered"]));
    expect(scansOf(media)).toBe(1);
    const requests = (): Set<unknown> => new Set(gateway.log.filter(({ msg }) => msg === "request").map(({ worker }) => worker));
    await expect.poll(requests, SOON).toEqual(new Set([1, 2]));
  });

  it("knows in one what the other has found, and obeys an operator in both", async () => {
    const { gateway, scansOf, configuration } = await start();
    const media = stored(randomBytes(5_000));
    const [one, other] = [await Visitor.of(gateway, 1), await Visitor.of(gateway, 2)];
    expect(await one.download(media)).toBe("delivered");
    expect(await other.download(media)).toBe("delivered");
    expect(scansOf(media)).toBe(1);
    const file = join(home, "media");
    await writeFile(file, media.bytes);
    await runCommand(home, "verdict", "block", "--file", file, "-c", configuration);
    await expect.poll(async () => [await one.download(media), await other.download(media)], SOON).toEqual(["403", "403"]);
  });

  it("goes on when a worker is killed in the midst of a scan that the other waits for: that one scans, and another process takes its place", async () => {
    const { gateway, antivirus, scansOf } = await start();
    const media = stored(randomBytes(5_000));
    const [one, other] = [await Visitor.of(gateway, 1), await Visitor.of(gateway, 2)];
    const release = hold(antivirus, media);
    const cutOff = one.download(media);
    await expect.poll(() => scansOf(media), SOON).toBe(1);
    const waiting = other.download(media);
    await killed(gateway, 1);
    expect(await cutOff).toBe("no answer");
    await expect.poll(() => scansOf(media), SOON).toBe(2);
    release();
    expect(await waiting).toBe("delivered");

    const successor = await Visitor.of(gateway, 1);
    expect(await successor.download(media)).toBe("delivered");
    expect(scansOf(media)).toBe(2);
    await isWell(gateway);
  });

  it("adds up what its workers count, and takes nothing back when one dies", async () => {
    const { gateway } = await start();
    const [one, other] = [await Visitor.of(gateway, 1), await Visitor.of(gateway, 2)];
    const media = stored(randomBytes(100));
    for (const visitor of [one, one, other]) expect(await visitor.download(media)).toBe("delivered");
    const counted = async (): Promise<number> => sample(await gateway.metrics(), DOWNLOADS);
    await expect.poll(counted, SOON).toBe(3);
    await killed(gateway, 1);
    expect(await counted()).toBe(3);
    expect(await (await Visitor.of(gateway, 1)).download(media)).toBe("delivered");
    expect(await other.download(media)).toBe("delivered");
    await expect.poll(counted, SOON).toBe(5);

    const metrics = await gateway.metrics();
    expect(sample(metrics, 'mig_workers{state="serving"}')).toBe(2);
    expect(sample(metrics, "mig_workers_replaced_total")).toBe(1);
    expect(sample(metrics, 'mig_scanner_ready{scanner="antivirus"}')).toBe(1);
    expect(sample(metrics, "mig_process_start_time_seconds")).toBeGreaterThan(1e9);
  });

  it("ends on SIGTERM when all of them have finished, with exit status 0, and leaves no process", async () => {
    const { gateway, antivirus, scansOf } = await start();
    const media = stored(randomBytes(5_000));
    const [one, other] = [await Visitor.of(gateway, 1), await Visitor.of(gateway, 2)];
    const release = hold(antivirus, media);
    const answers = [one.download(media), other.download(media)];
    await expect.poll(() => scansOf(media), SOON).toBe(1);
    const pids = [...gateway.workers().values()];
    gateway.signal("SIGTERM");
    await expect.poll(() => gateway.readiness(), SOON).toEqual({ status: "not ready", problems: ["shutting down"] });
    release();
    expect(await Promise.all(answers)).toEqual(["delivered", "delivered"]);
    expect(await gateway.ended).toBe(0);
    expect(pids.map(lives)).toEqual([false, false]);
    expect(gateway.log.filter(({ msg }) => msg === "a worker is gone; it is replaced")).toEqual([]);
  });

  it("leaves no worker behind when its primary is killed", async () => {
    const { gateway, directory } = await start({ icap: [], scan: { script: "/bin/true" } });
    const pids = [...gateway.workers().values()];
    expect(pids.map(lives)).toEqual([true, true]);
    await gateway.kill();
    await expect.poll(() => pids.map(lives), SOON).toEqual([false, false]);
    await expect(fetch(`http://127.0.0.1:${gateway.port}/`)).rejects.toThrow();
    expect((await readdir(directory)).filter((name) => name.includes("script"))).toEqual([]);
  });

  it("answers while its primary is stopped, and shares again afterwards", async () => {
    const { gateway, scansOf } = await start();
    const [one, other] = [await Visitor.of(gateway, 1), await Visitor.of(gateway, 2)];
    gateway.signal("SIGSTOP");
    const media = stored(randomBytes(5_000));
    expect(await one.download(media)).toBe("delivered");
    expect(await other.download(media)).toBe("delivered");
    expect(scansOf(media)).toBe(2);
    gateway.signal("SIGCONT");
    await isWell(gateway);
    const later = stored(randomBytes(5_000));
    expect([await one.download(later), await other.download(later)]).toEqual(["delivered", "delivered"]);
    expect(scansOf(later)).toBe(1);
  });

  it("has one key for all, made at the first start; and no other one, whatever becomes of the file", async () => {
    const { gateway, directory } = await start();
    const keyOf = async (worker: number): Promise<string> => (await (await Visitor.of(gateway, worker)).get("public_key")).body.toString();
    const key = await keyOf(1);
    expect(key).toContain("public_key");
    expect(await keyOf(2)).toBe(key);
    await writeFile(join(directory, "request_secret"), randomBytes(32).toString("base64"));
    await killed(gateway, 2);
    expect(await keyOf(2)).toBe(key);
  });

  it("proves the size that its scanner takes once, not once for each worker", async () => {
    const { gateway, antivirus } = await start({ scan: { max_file_size: "3MiB" } }, { prove_size: true });
    const knowing = (): unknown[] => gateway.log.filter(({ size }) => size === 3 * MIB).map(({ worker }) => worker);
    await expect.poll(() => new Set(knowing()), SOON).toEqual(new Set([1, 2]));
    expect(antivirus.seen.filter(({ length }) => length === 3 * MIB).length).toBe(1);
  });

  it("takes uploads in each of them, and what one has let in is known to the other", async () => {
    const { gateway, scansOf } = await start({ upload: { enabled: true } });
    const [one, other] = [await Visitor.of(gateway, 1), await Visitor.of(gateway, 2)];
    homeserver.keepsUploads = true;
    for (const [visitor, reader] of [
      [one, other],
      [other, one],
    ] as const) {
      const body = randomBytes(5_000);
      const headers = { "content-type": "application/octet-stream" };
      const answer = await visitor.send("POST", "/_matrix/media/v3/upload", { headers, body });
      expect(answer.status).toBe(200);
      const { content_uri: uri } = JSON.parse(answer.body.toString()) as { content_uri: string };
      const media = { bytes: body, mxc: uri.slice("mxc://".length) };
      expect(await reader.download(media)).toBe("delivered");
      expect(scansOf(media)).toBe(1);
    }
  });

  it("knows in one what the other has asked the homeserver, should that be led back here", async () => {
    const { gateway } = await start({ transparent: { enabled: true } });
    const [one, other] = [await Visitor.of(gateway, 1), await Visitor.of(gateway, 2)];
    const question = "/_matrix/client/v1/media/config";
    expect((await one.send("GET", question)).status).not.toBe(502);
    const via = homeserver.requests.findLast(({ path }) => path === question)?.headers.via;
    for (const visitor of [one, other]) {
      expect((await visitor.send("GET", question, { headers: { via: String(via) } })).status).toBe(502);
      expect((await visitor.send("GET", question, { headers: { via: "1.1 another" } })).status).not.toBe(502);
    }
    await killed(gateway, 2);
    const successor = await Visitor.of(gateway, 2);
    expect((await successor.send("GET", question, { headers: { via: String(via) } })).status).toBe(502);
  });

  it("gives decrypted files of a script to no other worker to remove, but those of a dead one", async () => {
    const { gateway, directory } = await start({ icap: [], scan: { script: "/bin/true" } });
    const own = async (): Promise<string[]> => (await readdir(directory)).filter((name) => name.includes("script"));
    const before = await own();
    expect(before.length).toBe(2);
    await killed(gateway, 1);
    await expect.poll(async () => (await own()).filter((name) => !before.includes(name)).length, SOON).toBe(1);
    await expect.poll(async () => (await own()).length, SOON).toBe(2);
    await isWell(gateway);
  });
});

describe("two workers with Redis", { timeout: LONG }, () => {
  it("are two instances of it", async () => {
    const redis = await startRedis();
    onTestFinished(() => redis.stop());
    const { gateway, scansOf } = await start({ result_cache: { redis: { url: redis.url } } });
    const media = stored(randomBytes(5_000));
    expect(await (await Visitor.of(gateway, 1)).download(media)).toBe("delivered");
    expect(await (await Visitor.of(gateway, 2)).download(media)).toBe("delivered");
    expect(scansOf(media)).toBe(1);
  });
});

describe("a gateway of two workers that can't start", { timeout: LONG }, () => {
  it("says why, once, and ends with exit status 1", async () => {
    const taken = createServer().listen(0, "127.0.0.1");
    onTestFinished(() => void taken.close());
    await expect.poll(() => taken.listening, SOON).toBe(true);
    const { port } = taken.address() as { port: number };
    const { configuration } = await configure({ web: { port }, icap: [], scan: { script: "/bin/true" } });
    const started = GatewayProcess.start(configuration, home);
    await expect(started).rejects.toThrow(/^the gateway has ended: \[[^[]*"the gateway can't start: (?:listen|bind) EADDRINUSE[^"]*"\}\]$/);
  });
});
