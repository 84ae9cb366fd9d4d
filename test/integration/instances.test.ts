/** Several gateways, each a process of its own, with one Redis, one secret, one c-icap and clamd: one scan for all, and no instance worse off for Redis. */
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Redis } from "ioredis";
import { afterAll, beforeAll, beforeEach, describe, expect, it, onTestFinished, vi } from "vitest";
import { stringify } from "yaml";
import { buildCanary, EICAR } from "../../src/scan/canary-samples.ts";
import { encryptFile } from "../support/encrypted-file.ts";
import { FakeHomeserver, type StoredMedia } from "../support/fake-homeserver.ts";
import { GatewayProcess, runCommand } from "../support/gateway-process.ts";
import { type CIcap, startCIcap } from "../support/peers/c-icap.ts";
import { type Clamd, EICAR_THREAT, startClamd } from "../support/peers/clamd.ts";
import { Monitor, type Redis as RedisServer, startRedis } from "../support/peers/redis.ts";

const TOKEN = "syt_YWxpY2U_SecretOfAlice";
const MIB = 1 << 20;
/** Everything here waits for something to happen, and then for as long as it takes. */
const SOON = { timeout: 60_000, interval: 20 };
const LONG = 240_000;
/** Clients that ask each instance at once. */
const CROWD = 200;

let home: string;
let homeserver: FakeHomeserver;
let clamd: Clamd;
let cIcap: CIcap;
let server: RedisServer;
let redis: Redis;

beforeAll(async () => {
  home = await mkdtemp(join(tmpdir(), "mig-instances-"));
  homeserver = await FakeHomeserver.start({ serverName: "private.example.org" });
  homeserver.addToken(TOKEN);
  [clamd, server] = await Promise.all([startClamd(), startRedis()]);
  cIcap = await startCIcap({ clamd });
  redis = new Redis(server.port, server.host, { retryStrategy: () => 20 });
  redis.on("error", () => undefined);
});

afterAll(async () => {
  redis.disconnect();
  await Promise.all([cIcap.stop(), server.stop(), homeserver[Symbol.asyncDispose]()]);
  await clamd.stop();
  await rm(home, { recursive: true });
});

beforeEach(async () => {
  await redis.flushall();
});

interface Instances extends AsyncDisposable {
  readonly one: GatewayProcess;
  readonly other: GatewayProcess;
  /** Of both of them. */
  readonly configuration: string;
}

/** Two gateways of one configuration that have proven their scanner and found Redis. */
async function startInstances({ canaryInterval = "1s", context = {} } = {}): Promise<Instances> {
  await using stack = new AsyncDisposableStack();
  const directory = await mkdtemp(join(home, "pair-"));
  const configuration = join(directory, "config.yaml");
  const secret = join(directory, "request_secret");
  await writeFile(secret, randomBytes(32).toString("base64"), { mode: 0o600 });
  const sections = {
    web: { port: 0 },
    admin: { port: 0 },
    // c-icap has 8 threads for both.
    icap: [{ name: "antivirus", urls: [cIcap.url()], prove_size: false, max_connections: 3, context }],
    scan: { temp_directory: directory, canary_interval: canaryInterval, wait: "2m", max_per_client: 2 * CROWD },
    result_cache: { redis: { url: server.url } },
    download: { base_homeserver_url: homeserver.url },
    crypto: { request_secret_path: secret },
  };
  await writeFile(configuration, stringify(sections));
  const one = stack.use(await GatewayProcess.start(configuration, home));
  const other = stack.use(await GatewayProcess.start(configuration, home));
  await Promise.all([isWell(one), isWell(other)]);
  const started = stack.move();
  return { one, other, configuration, [Symbol.asyncDispose]: () => started.disposeAsync() };
}

async function isWell(gateway: GatewayProcess): Promise<void> {
  await vi.waitFor(async () => expect(await gateway.readiness()).toEqual({ status: "ready", problems: [] }), SOON);
}

interface Media {
  readonly bytes: Buffer;
  readonly mxc: string;
}

function put(bytes: Uint8Array, more: Partial<StoredMedia> = {}): string {
  const { serverName, mediaId } = homeserver.put(randomBytes(12).toString("hex"), { bytes, ...more });
  return `${serverName}/${mediaId}`;
}

function stored(bytes: Buffer): Media {
  return { bytes, mxc: put(bytes) };
}

/** How often each outcome was met. */
async function outcomes(answers: readonly Promise<string>[]): Promise<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const outcome of await Promise.all(answers)) counts[outcome] = (counts[outcome] ?? 0) + 1;
  return counts;
}

function crowd(gateway: GatewayProcess, { mxc, bytes }: Media, size = CROWD): Promise<string>[] {
  return Array.from({ length: size }, () => gateway.download(mxc, TOKEN, bytes));
}

/** Files of so many bytes that c-icap has been sent; no canary has as many. */
async function scansOf(size: number): Promise<number> {
  const lines = await cIcap.accessLog();
  return lines.filter((line) => line.includes(" RESPMOD ") && line.endsWith(` ${size}`)).length;
}

describe("two gateways with one Redis", { timeout: LONG }, () => {
  let instances: Instances | undefined;
  let one: GatewayProcess;
  let other: GatewayProcess;
  let configuration: string;

  beforeAll(async () => {
    instances = await startInstances();
    ({ one, other, configuration } = instances);
  });
  afterAll(() => instances?.[Symbol.asyncDispose]());

  it.each([
    ["small", 54_321],
    ["of 3 MiB", 3 * MIB + 4321],
  ])("have media that is %s scanned once, though 200 clients of each ask for it at once", async (_, size) => {
    const media = stored(randomBytes(size));
    expect(await outcomes([...crowd(one, media), ...crowd(other, media)])).toEqual({ delivered: 2 * CROWD });
    // c-icap writes down what it has answered: once this is there, so is whatever came before it.
    const later = stored(randomBytes(size + 1));
    expect(await outcomes(crowd(other, later, 1))).toEqual({ delivered: 1 });
    await expect.poll(() => scansOf(size + 1), SOON).toBe(1);
    expect(await scansOf(size)).toBe(1);
  });

  it("obey an operator who blocks a file by the command line, and who forgets it again", async () => {
    const media = stored(randomBytes(5_000));
    const sha256 = digestOf(media.bytes).toString("hex");
    const both = async (): Promise<string[]> => Promise.all([...crowd(one, media, 1), ...crowd(other, media, 1)]);
    expect(await both()).toEqual(["delivered", "delivered"]);
    await runCommand(home, "verdict", "block", sha256, "-c", configuration);
    await expect.poll(both, SOON).toEqual(["blocked", "blocked"]);
    await runCommand(home, "verdict", "forget", sha256, "-c", configuration);
    await expect.poll(both, SOON).toEqual(["delivered", "delivered"]);
  });

  it("block a file that was clean until new signatures came, and one of them says so", async () => {
    const files = [randomBytes(7_654), randomBytes(2 * MIB + 76)].map((bytes) => stored(bytes));
    for (const media of files) {
      expect(await outcomes([...crowd(one, media, 1), ...crowd(other, media, 1)])).toEqual({ delivered: 2 });
    }
    for (const [index, { bytes }] of files.entries()) await clamd.addSignature(`Found-Later-${index}`, bytes.subarray(0, 64));
    await cIcap.reconfigure();
    for (const media of files) {
      for (const gateway of [one, other]) {
        await expect.poll(() => gateway.download(media.mxc, TOKEN, media.bytes), SOON).toBe("blocked");
      }
      expect(await outcomes([...crowd(one, media, 5), ...crowd(other, media, 5)])).toEqual({ blocked: 10 });
    }
    const threats = ["Found-Later-0.UNOFFICIAL", "Found-Later-1.UNOFFICIAL"];
    await expect.poll(() => turnedInfected(one, other), SOON).toMatchObject(threats.map((threat) => ({ threat })));
  });

  it("fail no request when Redis fails under load, let nothing infected out, and use it again once it is back", async () => {
    const gateways = [one, other];
    const load = new Load(gateways);
    onTestFinished(() => load.stop());
    const are = async (status: string): Promise<void> => {
      for (const gateway of gateways) await expect.poll(async () => (await gateway.readiness()).status, SOON).toBe(status);
    };
    await load.progress();
    for (const [fault, end] of [
      ["SIGKILL", () => server.restart()],
      ["SIGSTOP", () => server.kill("SIGCONT")],
    ] as const) {
      await server.kill(fault);
      await load.progress();
      await are("degraded");
      await end();
      await are("ready");
      await load.progress();
    }
    // So soon that it may be back, empty, before anybody has missed it.
    await server.restart();
    await load.progress();
    await are("ready");
    for (let times = 0; times < 3; times += 1) {
      await redis.flushall();
      await load.progress();
    }
    await load.end();
    expect((await redis.keys("mig:verdict:*")).length).toBeGreaterThan(0);
  });
});

describe("two gateways with one Redis, one of which is killed while clamd scans", { timeout: LONG }, () => {
  it("the other one scans in its stead, once, and all its clients get the media", async () => {
    // No canaries among the files that clamd is asked about.
    await using instances = await startInstances({ canaryInterval: "1h" });
    const { one, other } = instances;
    const [small, large] = [stored(randomBytes(65_432)), stored(randomBytes(3 * MIB + 5432))];
    const downloads = (): number => homeserver.requests.filter(({ path }) => [small, large].some(({ mxc }) => path.includes(mxc))).length;
    using monitor = await Monitor.start(server);

    await clamd.kill("SIGSTOP");
    onTestFinished(() => clamd.kill("SIGCONT"));
    const before = await clamd.connections();
    const cutOff = [...crowd(one, small), ...crowd(one, large, 20)];
    await expect.poll(() => clamd.connections(), SOON).toBe(before + 2);
    const waiting = [...crowd(other, small), ...crowd(other, large, 20)];
    await expect.poll(() => leaseSeekers(monitor).size, SOON).toBe(4);
    expect(downloads()).toBe(2);
    await one.kill();
    await clamd.kill("SIGCONT");

    expect(await outcomes(waiting)).toEqual({ delivered: CROWD + 20 });
    expect(Object.keys(await outcomes(cutOff)).filter((outcome) => !outcome.startsWith("no answer"))).toEqual([]);
    // A request is logged once its answer has ended.
    const logged = (): (typeof other)["log"] => other.log.filter(({ msg }) => msg === "request");
    await expect.poll(() => logged().length, SOON).toBe(CROWD + 20);
    expect(logged().filter(({ via }) => via === "scan").length).toBe(2);
  });
});

/** What their audit logs say of files that were handed out before they were found infected. */
function turnedInfected(...gateways: readonly GatewayProcess[]): unknown[] {
  return gateways.flatMap(({ log }) => log.filter(({ audit }) => audit === "turned_infected"));
}

/** Who has asked for the lease of which source: connections and keys. */
function leaseSeekers({ lines }: Monitor): ReadonlySet<string> {
  return new Set(
    lines.flatMap(
      (line) => / ([\d.:]+)\] "eval" "if redis.call\(\\"set.*" "1" ("mig:lease:source:[^"]+")/.exec(line)?.slice(1).join(" ") ?? [],
    ),
  );
}

/** Clients that ask both instances for the same media all the time: known media and new media, clean and infected. */
class Load {
  /** What nobody should have got. */
  readonly wrong: string[] = [];
  #done = 0;
  #ended = false;
  readonly #instances: readonly GatewayProcess[];
  readonly #clients: Promise<unknown>;
  readonly #known = [randomBytes(20_000), randomBytes(1.5 * MIB), EICAR].map(stored);

  constructor(instances: readonly GatewayProcess[], clients = 6) {
    this.#instances = instances;
    this.#clients = Promise.all(Array.from({ length: clients }, (_, client) => this.#run(client)));
  }

  async #run(client: number): Promise<void> {
    for (let turn = client; !this.#ended; turn += 1) {
      for (const { mxc, bytes } of [...this.#known, this.#fresh(turn)]) {
        const expected = isInfected(bytes) ? "blocked" : "delivered";
        const got = await Promise.all(this.#instances.map((gateway) => gateway.download(mxc, TOKEN, bytes)));
        for (const outcome of got) if (outcome !== expected) this.wrong.push(`${outcome} in place of ${expected}`);
      }
      this.#done += 1;
    }
  }

  #fresh(turn: number): Media {
    const noise = randomBytes(turn % 3 === 0 ? 1.2 * MIB : 20_000);
    const bytes = [noise, Buffer.concat([EICAR, noise]), buildCanary("zip").bytes, noise][turn % 4] ?? noise;
    return stored(bytes);
  }

  /** Resolves when so many more rounds of requests have ended as make each client end about two. */
  async progress(): Promise<void> {
    const enough = this.#done + 12;
    await expect.poll(() => this.#done, SOON).toBeGreaterThanOrEqual(enough);
  }

  async stop(): Promise<void> {
    this.#ended = true;
    await this.#clients;
  }

  /** Every client got what it should have got. */
  async end(): Promise<void> {
    await this.stop();
    expect(this.wrong).toEqual([]);
  }
}

function isInfected(bytes: Buffer): boolean {
  return bytes.includes(EICAR);
}

describe("what two gateways leave in Redis, and send it", { timeout: LONG }, () => {
  it("names no media, server, user, token, key, file or threat, and holds no digest of the content", async () => {
    await using instances = await startInstances({ context: { user: "always", client_ip: "always" } });
    const { one, other, configuration } = instances;
    using monitor = await Monitor.start(server);

    const secrets = new Map<string, string | Buffer>([
      ["server name", homeserver.serverName],
      ["token", TOKEN],
      ["user", `@${TOKEN}:${homeserver.serverName}`],
      ["file name", "salaries-2026.pdf"],
      ["threat", EICAR_THREAT.split(".")[0] ?? EICAR_THREAT],
      ["operator's reason", "found on the desk of Bob"],
    ]);
    const contents = [randomBytes(3_000), randomBytes(2 * MIB + 1), Buffer.concat([EICAR, randomBytes(100)])];
    for (const [index, bytes] of contents.entries()) {
      const thumbnail = { bytes: randomBytes(500), contentType: "image/png" };
      const plain = put(bytes, { contentDisposition: 'attachment; filename="salaries-2026.pdf"', thumbnail });
      const { ciphertext, file } = await encryptFile(bytes);
      const sealed = put(ciphertext);
      const description = file(sealed) as { key: { k: string }; iv: string };
      for (const gateway of [one, other]) {
        const infected = isInfected(bytes);
        expect((await gateway.get(`download/${plain}`, TOKEN)).status).toBe(infected ? 403 : 200);
        expect((await gateway.get(`thumbnail/${plain}?width=32&height=32&method=scale`, TOKEN)).status).toBe(200);
        expect((await gateway.post("download_encrypted", { file: description }, TOKEN)).status).toBe(infected ? 403 : 200);
        expect(await (await gateway.post("scan_encrypted", { file: description }, TOKEN)).json()).toMatchObject({ clean: !infected });
      }
      secrets.set(`media ${index}`, plain.split("/")[1] ?? plain).set(`encrypted media ${index}`, sealed.split("/")[1] ?? sealed);
      const binary = {
        key: Buffer.from(description.key.k, "base64url"),
        iv: Buffer.from(description.iv, "base64"),
        bytes: digestOf(bytes),
      };
      for (const [name, value] of Object.entries({ ...binary, ciphertext: digestOf(ciphertext), thumbnail: digestOf(thumbnail.bytes) })) {
        secrets.set(`${name} ${index}`, value);
      }
    }
    // The second one to ask waits for the first, and is told when that has let go.
    while (!monitor.lines.some((line) => line.includes("mig:released"))) {
      const large = put(randomBytes(4 * MIB));
      await Promise.all([one, other].map(async (gateway) => (await gateway.get(`download/${large}`, TOKEN)).arrayBuffer()));
    }
    const [first = EICAR] = contents;
    const command = ["-c", configuration, "--reason", "found on the desk of Bob"];
    await runCommand(home, "verdict", "block", digestOf(first).toString("hex"), ...command);
    await expect.poll(() => redis.exists("mig:overrides"), SOON).toBe(1);

    const kept = await dump();
    for (const kind of ["source2", "verdict", "overrides", "fingerprint"]) expect(kept.join("\n")).toContain(`mig:${kind}`);
    for (const kind of ["lease:source:", "released", "verdict:"]) expect(monitor.lines.join("\n")).toContain(`mig:${kind}`);
    expect(found(secrets, kept)).toEqual([]);
    expect(found(secrets, monitor.lines.map(unescaped))).toEqual([]);

    // Both ways of looking find each of them where it is.
    for (const [name, secret] of secrets) await redis.set(`control ${name}`, Buffer.concat([Buffer.from("<"), Buffer.from(secret)]));
    const names = [...secrets.keys()].toSorted();
    expect(found(secrets, await dump())).toEqual(names);
    await expect.poll(() => found(secrets, monitor.lines.map(unescaped)), SOON).toEqual(names);
  });
});

function digestOf(bytes: Uint8Array): Buffer {
  return createHash("sha256").update(bytes).digest();
}

/** All keys, and all that stands under them, byte for byte as Latin-1. */
async function dump(): Promise<string[]> {
  const kept: string[] = [];
  let cursor = "0";
  do {
    const [next, keys] = await redis.scan(cursor);
    for (const key of keys) {
      const type = await redis.type(key);
      // Channels and leases are gone by now; whatever else there is, this can't read it.
      expect(["string", "hash", "none"]).toContain(type);
      const values = type === "hash" ? Object.entries(await redis.hgetallBuffer(key)).flat() : [(await redis.getBuffer(key)) ?? ""];
      kept.push(key, ...values.map((value) => value.toString("latin1")));
    }
    cursor = next;
  } while (cursor !== "0");
  return kept;
}

/** What MONITOR prints, with the bytes that it stands for. */
function unescaped(text: string): string {
  const short: Readonly<Record<string, string>> = { n: "\n", r: "\r", t: "\t", a: "\x07", b: "\b" };
  return text.replaceAll(/\\(?:x([0-9a-f]{2})|(.))/gsu, (_, hex: string | undefined, other = "") =>
    hex === undefined ? (short[String(other)] ?? String(other)) : String.fromCodePoint(Number.parseInt(hex, 16)),
  );
}

/** Names of the secrets that stand in the texts: as they are, and what is binary in hex and base64 as well. */
function found(secrets: ReadonlyMap<string, string | Buffer>, texts: readonly string[]): string[] {
  const all = texts.join("\n");
  const folded = all.toLowerCase();
  return [...secrets]
    .filter(([, secret]) => {
      if (typeof secret === "string") return folded.includes(secret.toLowerCase());
      const [base64, hex] = [secret.toString("base64").replace(/=+$/, ""), secret.toString("hex")];
      return folded.includes(hex) || [secret.toString("latin1"), base64, secret.toString("base64url")].some((form) => all.includes(form));
    })
    .map(([name]) => name)
    .toSorted();
}
