/**
 * `npm run bench:icap [-- --real] [--seconds 3] [--json]`: how many bodies a second the ICAP client has scanned, beside a TCP client that only writes bytes
 * which were prepared beforehand, and c-icap-client where it is installed. Against a server that answers at once; with `--real`, against c-icap and clamd.
 * Clients and server are processes of their own, on loopback; three runs of each in turn, medians.
 */
import { type ChildProcess, execFile, fork } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtemp, open, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs, promisify } from "node:util";
import { table } from "../quickstart/table.ts";
import { startCIcap } from "../test/support/peers/c-icap.ts";
import { startClamd } from "../test/support/peers/clamd.ts";
import type { Load, LoadResult } from "./icap-load.ts";

const SIZES = { "10 KiB": 10 * 1024, "100 KiB": 100 * 1024, "10 MiB": 10 * 1024 * 1024 };
const CONNECTIONS = [1, 4, 16];
const RUNS = 3;
/** Milliseconds. */
const WARM_UP = 1000;

const { values } = parseArgs({
  options: {
    real: { type: "boolean", default: false },
    seconds: { type: "string", default: "3" },
    json: { type: "boolean", default: false },
  },
});
const duration = Number(values.seconds) * 1000;

await using parts = new AsyncDisposableStack();
const url = values.real ? await startReal() : await startInstant();
const rows: Row[] = [];
for (const [name, size] of Object.entries(SIZES)) for (const connections of CONNECTIONS) rows.push(await row(name, size, connections));
if (values.json) console.log(JSON.stringify(rows));
else printTable();

interface Rate {
  readonly requests: number;
  readonly megabytes: number;
  /** Microseconds of the client's CPU time for each request. */
  readonly cpu: number;
}

interface Row {
  readonly body: string;
  readonly connections: number;
  readonly raw: Rate;
  readonly ours: Rate;
  readonly share: number;
  readonly cIcapClient: number;
}

async function startInstant(): Promise<string> {
  const child = fork(join(import.meta.dirname, "instant-icap.ts"));
  parts.defer(() => end(child));
  return firstMessage<string>(child);
}

async function startReal(): Promise<string> {
  const clamd = await startClamd();
  parts.defer(() => clamd.stop());
  // A thread for each connection: an idle one holds its own, and others would wait until it is given up.
  const server = await startCIcap({ clamd, settings: { ThreadsPerChild: "32", MaxSpareThreads: "32" } });
  parts.defer(() => server.stop());
  return server.url();
}

async function row(body: string, size: number, connections: number): Promise<Row> {
  const results: Record<Load["client"], LoadResult[]> = { raw: [], ours: [] };
  const tool: number[] = [];
  for (let run = 0; run < RUNS; run += 1) {
    for (const client of ["raw", "ours"] as const)
      results[client].push(await load({ client, url, size, connections, warmUp: WARM_UP, duration }));
    tool.push(await cIcapClient(size, connections));
  }
  const [raw, ours] = [rateOf(results.raw, size), rateOf(results.ours, size)];
  return { body, connections, raw, ours, share: ours.requests / raw.requests, cIcapClient: median(tool) };
}

function rateOf(results: readonly LoadResult[], size: number): Rate {
  const requests = median(results.map(({ requests, elapsed }) => (requests / elapsed) * 1000));
  const cpu = median(results.map(({ requests, cpu }) => (cpu / requests) * 1000));
  return { requests, megabytes: (requests * size) / 1e6, cpu };
}

function load(what: Load): Promise<LoadResult> {
  return firstMessage<LoadResult>(fork(join(import.meta.dirname, "icap-load.ts"), [JSON.stringify(what)]));
}

function firstMessage<T>(child: ChildProcess): Promise<T> {
  return new Promise((resolve, reject) => {
    child.once("message", (message) => resolve(message as T));
    child.once("exit", (code) => reject(new Error(`a process of the benchmark ended with ${code}`)));
  });
}

/** Files a second; a process for each, as scripts run it. NaN where it is not installed. */
async function cIcapClient(size: number, connections: number): Promise<number> {
  const directory = await mkdtemp(join(tmpdir(), "matrix-icap-gateway-bench-"));
  try {
    const started = performance.now();
    const files = await Promise.all(
      Array.from({ length: connections }, async (_, index) => {
        const path = join(directory, String(index));
        await writeFile(path, randomBytes(size));
        let files = 0;
        for (; performance.now() - started < duration; files += 1) await askTool(path);
        return files;
      }),
    );
    return (files.reduce((sum, one) => sum + one, 0) / (performance.now() - started)) * 1000;
  } catch (error) {
    if (error instanceof Error && "code" in error && error.code === "ENOENT") return Number.NaN;
    throw error;
  } finally {
    await rm(directory, { recursive: true, force: true });
  }
}

async function askTool(path: string): Promise<void> {
  const file = await open(path, "r+");
  await file.write(randomBytes(16), 0, 16, 0);
  await file.close();
  const { hostname, port, pathname, search } = new URL(url);
  const service = `${pathname.slice(1)}${search}`;
  const args = ["-i", hostname, "-p", port, "-s", service, "-f", path, "-resp", "http://media.invalid/media", "-nopreview"];
  const { stderr } = await promisify(execFile)("c-icap-client", args);
  if (!stderr.includes("Allow 204")) throw new Error(`c-icap-client: ${stderr}`);
}

function median(numbers: readonly number[]): number {
  return numbers.toSorted((a, b) => a - b)[Math.floor(numbers.length / 2)] ?? Number.NaN;
}

async function end(child: ChildProcess): Promise<void> {
  const exited = once(child, "exit");
  child.kill("SIGKILL");
  await exited;
}

function printTable(): void {
  const heading = ["body", "connections", "raw/s", "MB/s", "CPU µs", "ours/s", "MB/s", "CPU µs", "ours/raw", "c-icap-client/s"];
  console.log(values.real ? "against c-icap and clamd" : "against a server that answers at once");
  console.log(
    table(
      heading,
      rows.map(({ body, connections, raw, ours, share, cIcapClient }) => [
        body,
        connections,
        Math.round(raw.requests),
        Math.round(raw.megabytes),
        Math.round(raw.cpu),
        Math.round(ours.requests),
        Math.round(ours.megabytes),
        Math.round(ours.cpu),
        `${Math.round(share * 100)} %`,
        Number.isNaN(cIcapClient) ? "–" : Math.round(cIcapClient),
      ]),
    ),
  );
}
