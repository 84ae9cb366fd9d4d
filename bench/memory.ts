/**
 * `npm run bench:memory [-- --encrypted] [--count 16] [--size 200]`: downloads that many media of that many MiB at once through the gateway, and prints what its
 * process holds in memory meanwhile. Homeserver, ICAP server and gateway are processes of their own, on loopback. Linux only: it reads /proc.
 */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { Agent, request } from "undici";
import { type BenchMedia, type PeerReady, TOKEN } from "./memory-peers.ts";

const MIB = 1024 * 1024;
/** Megabytes that the gateway's process may hold in all. */
const LIMIT = 250;

const { values } = parseArgs({
  options: {
    encrypted: { type: "boolean", default: false },
    count: { type: "string", default: "16" },
    size: { type: "string", default: "200" },
  },
});
const count = Number(values.count);
const size = Number(values.size) * MIB;

const directory = await mkdtemp(join(tmpdir(), "matrix-icap-gateway-bench-"));
const children: ChildProcess[] = [];
try {
  await run();
} finally {
  await Promise.all(children.map(end));
  await rm(directory, { recursive: true, force: true });
}

async function run(): Promise<void> {
  const homeserver = await startPeer("homeserver");
  const icap = await startPeer("icap");
  if (homeserver.role !== "homeserver") throw new Error("the homeserver is another peer");
  const gateway = await startGateway(homeserver.url, icap.url);
  await sleep(1000);
  const idle = await memoryOf(gateway.pid);

  const started = performance.now();
  const stop = new AbortController();
  const samples = sample(gateway.pid, stop.signal);
  const agent = new Agent({ headersTimeout: 0, bodyTimeout: 0, connections: count });
  const bytes = await Promise.all(homeserver.media.map((media) => download(agent, gateway.url, media)));
  const seconds = (performance.now() - started) / 1000;
  stop.abort();
  const after = await memoryOf(gateway.pid);
  await agent.close();

  const total = bytes.reduce((sum, one) => sum + one, 0);
  if (total !== count * size) throw new Error(`${total} bytes came instead of ${count * size}`);
  const rows = [
    ["media", `${count} x ${size / MIB} MiB, ${values.encrypted ? "encrypted" : "plain"}, all at once`],
    ["idle RSS", mb(idle.rss)],
    ["peak RSS (VmHWM)", mb(after.peak)],
    ["mean RSS meanwhile", mb(await samples)],
    ["RSS at the end", mb(after.rss)],
    ["seconds", seconds.toFixed(1)],
    ["MB/s", (total / 1e6 / seconds).toFixed(0)],
  ] as const;
  for (const [what, value] of rows) console.log(`${what.padEnd(20)} ${value}`);
  const within = after.peak <= LIMIT * 1e6;
  console.log(`${within ? "within" : "MORE THAN"} ${LIMIT} MB`);
  if (!within) process.exitCode = 1;
}

function mb(bytes: number): string {
  return `${Math.round(bytes / 1e6)} MB`;
}

async function startPeer(role: PeerReady["role"]): Promise<PeerReady> {
  const child = fork(join(import.meta.dirname, "memory-peers.ts"), [role, String(count), String(size)]);
  children.push(child);
  const [ready] = (await once(child, "message")) as [PeerReady];
  return ready;
}

async function startGateway(homeserver: string, icap: string): Promise<{ pid: number; url: string }> {
  const file = join(directory, "config.yaml");
  // JSON is YAML. Everything that bounds memory stays at its default; the waits must not end what a busy machine does slowly.
  const config = {
    web: { port: 0 },
    admin: { port: 0 },
    icap: [{ name: "clean", urls: [icap], canary: [] }],
    scan: { temp_directory: directory, wait: "1h", timeout: "1h" },
    download: { base_homeserver_url: homeserver },
    crypto: { request_secret_path: join(directory, "request_secret") },
  };
  await writeFile(file, JSON.stringify(config));
  const child = spawn(process.execPath, [join(import.meta.dirname, "../bin/matrix-icap-gateway.mjs"), "-c", file], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  children.push(child);
  const lines = createInterface(child.stdout);
  for await (const line of lines) {
    const { msg, address, adminAddress, level } = JSON.parse(line) as Record<string, unknown> & {
      address?: Address;
      adminAddress?: Address;
    };
    if (level === "fatal") throw new Error(line);
    if (msg !== "listening" || address === undefined || adminAddress === undefined || child.pid === undefined) continue;
    child.stdout.resume();
    await ready(urlOf(adminAddress));
    return { pid: child.pid, url: urlOf(address) };
  }
  throw new Error("the gateway has ended");
}

interface Address {
  readonly host: string;
  readonly port: number;
}

function urlOf({ host, port }: Address): string {
  return `http://${host}:${port}`;
}

async function ready(admin: string): Promise<void> {
  for (;;) {
    const { statusCode, body } = await request(`${admin}/health/ready`);
    await body.dump();
    if (statusCode === 200) return;
    await sleep(50);
  }
}

/** Reads the media to its end and keeps nothing of it. Resolves to the number of bytes. */
async function download(agent: Agent, gateway: string, media: BenchMedia): Promise<number> {
  const base = `${gateway}/_matrix/media_proxy/unstable`;
  const headers = { authorization: `Bearer ${TOKEN}` };
  const { statusCode, body } = values.encrypted
    ? await request(`${base}/download_encrypted`, {
        method: "POST",
        headers,
        body: JSON.stringify({ file: encryptedFile(media) }),
        dispatcher: agent,
      })
    : await request(`${base}/download/${media.serverName}/${media.mediaId}`, { headers, dispatcher: agent });
  if (statusCode !== 200) throw new Error(`${statusCode} ${await body.text()}`);
  let bytes = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) bytes += chunk.length;
  return bytes;
}

/** Any bytes are the ciphertext of something, under any key. */
function encryptedFile({ serverName, mediaId, sha256 }: BenchMedia): object {
  const iv = Buffer.concat([randomBytes(8), Buffer.alloc(8)]);
  return {
    v: "v2",
    url: `mxc://${serverName}/${mediaId}`,
    key: { alg: "A256CTR", ext: true, k: randomBytes(32).toString("base64url"), key_ops: ["encrypt", "decrypt"], kty: "oct" },
    iv: iv.toString("base64").replaceAll("=", ""),
    hashes: { sha256 },
  };
}

/** Bytes: what the process holds now, and the most that it ever held. */
async function memoryOf(pid: number): Promise<{ rss: number; peak: number }> {
  const status = await readFile(`/proc/${pid}/status`, "utf8");
  const field = (name: string): number => Number(new RegExp(`^${name}:\\s+(\\d+) kB$`, "m").exec(status)?.[1] ?? Number.NaN) * 1024;
  return { rss: field("VmRSS"), peak: field("VmHWM") };
}

async function sample(pid: number, signal: AbortSignal): Promise<number> {
  let sum = 0;
  let samples = 0;
  while (!signal.aborted) {
    sum += (await memoryOf(pid)).rss;
    samples += 1;
    await sleep(100);
  }
  return sum / samples;
}

async function end(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await exited;
}
