import { spawn } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, onTestFinished } from "vitest";
import { stringify } from "yaml";
import { verdict as command } from "../../src/command/verdict.ts";
import { loadConfig } from "../../src/config/load.ts";
import { createLogger } from "../../src/observability/log.ts";
import { createMetrics } from "../../src/observability/metrics.ts";
import { GatewayReports } from "../../src/observability/reports.ts";
import { openScanners, policyFor } from "../../src/scanners.ts";
import { openRequestKeys, openStores, type Stores } from "../../src/stores.ts";
import type { Policy } from "../../src/scan/policy.ts";
import type { VerdictRecord } from "../../src/verdicts/store.ts";
import { type Redis, startRedis } from "../support/peers/redis.ts";
import { type Ended, jsonLines } from "./run.ts";

const MAIN = new URL("../../src/main.ts", import.meta.url).pathname;
const log = createLogger({ level: "fatal" });
const hash = () => randomBytes(32).toString("hex");
const NOW = Date.now();
const TIME = String.raw`\d{4}-\d\d-\d\dT[\d:.]+Z`;

let directory: string;
let overridesPath: string;
let config: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "mig-verdict-"));
  overridesPath = join(directory, "overrides");
  config = join(directory, "config.yaml");
  await writeSecret();
  await configure({});
});
afterEach(async () => {
  await rm(directory, { recursive: true });
});

/** Whoever has another one is a stranger. */
async function writeSecret(): Promise<void> {
  await writeFile(join(directory, "request_secret"), `${randomBytes(32).toString("base64")}\n`, { mode: 0o600 });
}

async function configure(cache: object, service: object = {}): Promise<void> {
  const sections = {
    icap: [{ name: "av", urls: ["icap://127.0.0.1/x"], ...service }],
    download: { base_homeserver_url: "http://127.0.0.1:1" },
    result_cache: { overrides_path: overridesPath, ...cache },
    crypto: { request_secret_path: join(directory, "request_secret") },
  };
  await writeFile(config, stringify(sections));
}

/** What a gateway with this configuration has. */
async function gatewayStores(): Promise<Stores> {
  const { config: loaded } = await loadConfig(config);
  const requestKeys = await openRequestKeys(loaded);
  onTestFinished(() => requestKeys.free());
  return openStores(loaded, requestKeys, log, createMetrics());
}

/** What verdicts are kept under, beside their content. */
async function policy(): Promise<Policy> {
  const { config: loaded } = await loadConfig(config);
  const reports = new GatewayReports(log, createMetrics());
  const { icap, scripts } = openScanners(loaded, undefined, reports, log);
  return policyFor(loaded, [...icap, ...scripts], reports);
}

const override = ({ keys, overrides }: Stores, hex: string) => overrides.of(keys.digest(Buffer.from(hex, "hex")));

function run(args: readonly string[]): Promise<Ended> {
  const child = spawn(process.execPath, [MAIN, "verdict", ...args], {
    env: { HOME: directory, PATH: process.env["PATH"] },
    stdio: ["ignore", "pipe", "pipe"],
    timeout: 50_000,
  });
  const output = { stdout: "", stderr: "" };
  for (const name of ["stdout", "stderr"] as const) child[name].setEncoding("utf8").on("data", (text: string) => (output[name] += text));
  return new Promise((resolve, reject) => {
    child.once("error", reject);
    child.once("close", (code, signal) => resolve({ code, signal, ...output }));
  });
}

const isBlocked = (hex: string, way: string) => ({
  code: 2,
  stdout: "",
  stderr: `matrix-icap-gateway: ${hex} is blocked, and a block wins over everything: ${way} first\n`,
});
const openNothing = () => Promise.reject(new Error("it was opened"));
const verdict = (...args: string[]): Promise<Ended> => run([...args, "-c", config]);
const done = (stdout: string | RegExp) => ({
  code: 0,
  stdout: typeof stdout === "string" ? stdout : expect.stringMatching(stdout),
  stderr: "",
});

describe("verdict, with overrides in a file", () => {
  it("blocks, allows and forgets, and a running gateway knows", async () => {
    await using stores = await gatewayStores();
    const [a, b] = [hash(), hash()];
    expect(await verdict("block", a.toUpperCase(), "--reason", "a new worm, “Grüße”")).toMatchObject(done(`${a} blocked\n`));
    expect(await verdict("allow", b, "--expires", "30d")).toMatchObject(done(new RegExp(`^${b} allowed until ${TIME}\n$`)));
    await expect.poll(() => override(stores, a), { timeout: 10_000 }).toMatchObject({ kind: "block", reason: "a new worm, “Grüße”" });
    await expect.poll(() => override(stores, b)?.kind, { timeout: 10_000 }).toBe("allow");
    const left = (override(stores, b)?.expiresAt ?? 0) - Date.now();
    expect([left > 29.9 * 86_400_000, left <= 30 * 86_400_000]).toEqual([true, true]);

    expect(await verdict("forget", a)).toMatchObject(done(`${a} forgotten\n`));
    await expect.poll(() => override(stores, a), { timeout: 10_000 }).toBeUndefined();
    expect(stores.overrides.forgottenAt(stores.keys.digest(Buffer.from(a, "hex")))).toBeGreaterThan(0);
  });

  it("takes the hash from a file", async () => {
    const file = join(directory, "a file");
    await writeFile(file, "its content");
    const sha256 = createHash("sha256").update("its content").digest("hex");
    expect(await verdict("block", "--file", file)).toMatchObject(done(`${sha256} blocked\n`));
  });

  it("shows what is known: status 1 when that is nothing", async () => {
    const [a, b] = [hash(), hash()];
    await verdict("block", a, "--reason", "why not");
    const shown = await verdict("show", a);
    expect(shown).toMatchObject(done(new RegExp(`Override +blocked since ${TIME} \\(why not\\)\n`)));
    expect(shown.stdout).toContain("without Redis, each gateway keeps its verdicts to itself");
    expect(await verdict("show", b)).toMatchObject({ code: 1, stdout: expect.stringContaining("none"), stderr: "" });
    expect(jsonLines((await verdict("show", a, "--json")).stdout)).toEqual([
      {
        sha256: a,
        overrides: [{ sha256: a, kind: "block", reason: "why not", since: expect.stringMatching(TIME), until: null }],
        verdict: null,
      },
    ]);
    await verdict("forget", a);
    expect(await verdict("show", a)).toMatchObject(done(new RegExp(`forgotten: verdicts until ${TIME} don't count`)));
  });

  it("lists all, newest first, of which none is over", async () => {
    const [a, b, c] = [hash(), hash(), hash()];
    expect(await verdict("list")).toMatchObject(done(""));
    await verdict("block", a, "--reason", "\\ back");
    await verdict("allow", b, "--expires", "1 week");
    await verdict("block", c, "--expires", "1ms");
    const { stdout } = await verdict("list");
    expect(stdout).toMatch(new RegExp(`^SHA-256 .*\n${b}  allow +${TIME}  ${TIME}\n${a}  block +${TIME}  – +\\\\ back\n$`));
    expect(jsonLines((await verdict("list", "--json")).stdout)).toMatchObject([
      { sha256: a, kind: "block" },
      { sha256: b, kind: "allow" },
    ]);
  });

  it("allows nothing that is blocked", async () => {
    const [a, b] = [hash(), hash()];
    await configure({ blocked_hashes_path: join(directory, "hashes") });
    await writeFile(join(directory, "hashes"), `${b}\n`);
    await verdict("block", a);
    const before = await readFile(overridesPath);
    expect(await verdict("allow", a)).toMatchObject(isBlocked(a, "forget that"));
    expect(await verdict("allow", b)).toMatchObject(isBlocked(b, "take it from the list of blocked hashes"));
    expect(await readFile(overridesPath)).toEqual(before);
    expect(await verdict("show", b)).toMatchObject(done(/List +on the list of blocked hashes/));
    expect(await verdict("forget", b)).toMatchObject({
      code: 0,
      stderr: `${b} stays blocked: the list of blocked hashes names it (warning)\n`,
    });
  });

  it("loses nothing when two are at it at once", async () => {
    const hashes = Array.from({ length: 6 }, hash);
    const ended = await Promise.all(hashes.map((one) => verdict("block", one)));
    expect(ended.map(({ code }) => code)).toEqual(hashes.map(() => 0));
    const listed = jsonLines((await verdict("list", "--json")).stdout).map((one) => (one as { sha256: string }).sha256);
    expect(listed.toSorted()).toEqual(hashes.toSorted());
  });

  it("says what is wrong with the file, and does what it can", async () => {
    const a = hash();
    await verdict("block", a);
    await writeFile(overridesPath, `${await readFile(overridesPath, "latin1")}block:\u009b31m x\n`, "latin1");
    expect(await verdict("show", a)).toMatchObject({ code: 0, stderr: `${overridesPath}:3: a damaged line is ignored (warning)\n` });
    await writeSecret();
    const refused = { code: 2, stdout: "", stderr: `matrix-icap-gateway: ${overridesPath}: was written under another secret\n` };
    expect(await verdict("block", a)).toMatchObject(refused);
    expect(await verdict("list")).toMatchObject(refused);
    await writeFile(join(directory, "request_secret"), "nonsense");
    expect(await verdict("list")).toMatchObject({
      code: 2,
      stderr: `matrix-icap-gateway: ${directory}/request_secret: not the base64 of 32 bytes\n`,
    });
  });

  const SHA = "a".repeat(64);
  it.each([
    [[], "verdict: the command is missing"],
    [["frobnicate\u001b"], "verdict: unknown command: frobnicate\\u{1b}"],
    [["block"], "SHA256 is missing"],
    [["block", "abc"], "SHA256 must be 64 characters of hex"],
    [["block", `${SHA}a`], "SHA256 must be 64 characters of hex"],
    [["block", SHA, SHA], `unknown words: ${SHA}`],
    [["block", SHA, "--file", "x"], "--file takes the place of SHA256: one of the two"],
    [["block", "--file", "/nowhere"], "--file: /nowhere is not there"],
    [["block", SHA, "--reason", "x".repeat(201)], "--reason is longer than 200 characters"],
    [["block", SHA, "--reason", "a\nb"], "--reason must be printable characters in one line"],
    [["block", SHA, "--reason", "\u202e"], "--reason must be printable characters in one line"],
    [["block", SHA, "--expires", "soon"], "--expires must be a duration such as 12h, 30d or 1 year"],
    [["block", SHA, "--expires", "0"], "--expires must be a duration such as 12h, 30d or 1 year"],
    [["block", SHA, "--expires", "101 years"], "--expires is more than 100 years: leave it out, for ever"],
    [["forget", SHA, "--expires", "1d"], "--expires means nothing to verdict forget"],
    [["show", SHA, "--reason", "x"], "--reason means nothing to verdict show"],
    [["show", SHA, "--user", "alice"], "--user must be a Matrix user ID such as @alice:example.org"],
    [["show", SHA, "--client-ip", "example.org"], "--client-ip must be an IP address"],
    [["block", SHA, "--user", "@alice:example.org"], "--user means nothing to verdict block"],
    [["list", SHA], "verdict list shows them all: it takes no SHA256"],
    [["list", "--frobnicate"], "Unknown option '--frobnicate'"],
  ])("%j is an error in one line, and nothing is opened", async (args, message) => {
    await expect(command([...args, "-c", config], openNothing)).rejects.toMatchObject({ name: "UsageError", message });
  });

  it("makes no secret: a gateway with another one would understand nothing of what is written", async () => {
    const secret = join(directory, "request_secret");
    await rm(secret);
    expect(await verdict("block", hash())).toMatchObject({
      code: 2,
      stdout: "",
      stderr: expect.stringContaining(`${secret} is not there yet`),
    });
    await expect(readFile(secret)).rejects.toMatchObject({ code: "ENOENT" });
  });

  it("needs a configuration, and has help", async () => {
    expect(await run(["list"])).toMatchObject({
      code: 2,
      stderr: "matrix-icap-gateway: -c FILE is missing (--help shows what there is)\n",
    });
    expect(await run(["list", "-c", "/nowhere"])).toMatchObject({ code: 2, stderr: "/nowhere: is not there\n" });
    expect(await run(["--help"])).toMatchObject({ code: 0, stdout: expect.stringContaining("verdict block SHA256"), stderr: "" });
  });
});

describe("verdict, with overrides in Redis", () => {
  let redis: Redis;
  beforeAll(async () => {
    redis = await startRedis();
  });
  afterAll(async () => {
    await redis.stop();
  });
  beforeEach(async () => {
    // Each test has a secret of its own.
    await configure({ redis: { url: redis.url, key_prefix: `${randomBytes(8).toString("hex")}:` } });
  });

  it("reaches running gateways, and ends by itself", async () => {
    await using stores = await gatewayStores();
    const a = hash();
    expect(await verdict("block", a)).toMatchObject(done(`${a} blocked\n`));
    await expect.poll(() => override(stores, a)?.kind, { timeout: 10_000 }).toBe("block");
    expect(await verdict("forget", a, "--json")).toMatchObject(done(`{"sha256":"${a}","done":"forgotten"}\n`));
    await expect.poll(() => override(stores, a), { timeout: 10_000 }).toBeUndefined();
  });

  it.each<[VerdictRecord, RegExp]>([
    [
      { outcome: "infected", threat: "Evil\u001b[31m", scanner: "av", stamps: { av: { tag: "T1", at: NOW } } },
      new RegExp(String.raw`infected: Evil\\u\{1b\}\[31m \(av\)\n +av, ${TIME}, ISTag T1\n`),
    ],
    [{ outcome: "clean", stamps: { av: { tag: "", at: NOW } } }, new RegExp(`Verdict +clean\n +av, ${TIME}\n`)],
    [{ outcome: "type_forbidden", mime: "text/html" }, /Verdict +type text\/html is not allowed\n/],
  ])("shows the verdict that is remembered: %j", async (record, shown) => {
    await using stores = await gatewayStores();
    const a = hash();
    await expect.poll(() => stores.verdicts.health().degraded, { timeout: 10_000 }).toBe(false);
    await stores.verdicts.rememberVerdict(stores.keys.content(Buffer.from(a, "hex"), (await policy()).fingerprint), record);
    expect(await verdict("show", a)).toMatchObject(done(shown));
    expect(jsonLines((await verdict("show", a, "--json")).stdout)).toMatchObject([{ verdict: record }]);
    expect(await verdict("show", hash())).toMatchObject({ code: 1, stdout: expect.stringMatching(/Verdict +none is remembered\n/) });
  });

  it("shows the verdict that holds for one user and address, where scanners are told of them", async () => {
    const cache = { redis: { url: redis.url, key_prefix: `${randomBytes(8).toString("hex")}:` } };
    await configure(cache, { context: { user: "always", client_ip: "always", server_ip: "always" } });
    await using stores = await gatewayStores();
    await expect.poll(() => stores.verdicts.health().degraded, { timeout: 10_000 }).toBe(false);
    const a = hash();
    const { fingerprint, audience } = await policy().then((one) => ({
      fingerprint: one.fingerprint,
      audience: one.audience({ user: "@alice:example.org", clientAddress: "192.0.2.1", serverAddress: "127.0.0.1" }),
    }));
    const key = stores.keys.content(Buffer.from(a, "hex"), fingerprint, audience);
    await stores.verdicts.rememberVerdict(key, { outcome: "clean", stamps: { av: { tag: "", at: NOW } } });
    const asker = ["--user", "@alice:example.org", "--client-ip", "192.0.2.1"];
    expect(await verdict("show", a, ...asker)).toMatchObject(done(/Verdict +clean\n/));
    const other = /none is remembered for this asker: scanners are told of the user \(--user\) and the client's address \(--client-ip\)\n/;
    for (const others of [[], asker.slice(0, 2), [...asker.slice(0, 3), "192.0.2.2"]]) {
      expect(await verdict("show", a, ...others)).toMatchObject({ code: 1, stdout: expect.stringMatching(other) });
    }
  });

  it("is known to a gateway that starts, from the first moment", async () => {
    const blocked = hash();
    expect(await verdict("block", blocked)).toMatchObject(done(`${blocked} blocked\n`));
    await using stores = await gatewayStores();
    expect(override(stores, blocked)?.kind).toBe("block");
  });

  it("changes nothing under another secret than that of gateways that run", async () => {
    await using stores = await gatewayStores();
    await expect.poll(() => stores.verdicts.health().degraded, { timeout: 10_000 }).toBe(false);
    await writeSecret();
    const refused = await verdict("block", hash());
    expect(refused).toMatchObject({
      code: 2,
      stdout: "",
      stderr: expect.stringMatching(/^matrix-icap-gateway: an instance .* has another secret/m),
    });
    expect(jsonLines((await verdict("list", "--json")).stdout || "[]")).toEqual([[]]);
  });

  it("says so when Redis is away", async () => {
    await configure({ redis: { url: "redis://127.0.0.1:1" } });
    expect(await verdict("block", hash())).toMatchObject({
      code: 2,
      stdout: "",
      stderr: expect.stringMatching(/^matrix-icap-gateway: Redis can't be read; Redis at /),
    });
  });
});
